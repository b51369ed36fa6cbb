"""Published JavaScript clients and audits, run by Node against the API under test.

They are installed from the npm registry when first needed, into tests/api/npm/node_modules."""

import asyncio
import fcntl
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

from app.local.install import find_node

HERE: Final = Path(__file__).resolve().parent / "npm"
_INSTALL_S: Final = 110
_RUN_S: Final = 60


def install() -> str:
    """Installs the locked packages once; returns Node's path."""
    node, npm, environ = find_node()
    lock, done = HERE / "package-lock.json", HERE / "node_modules" / ".installed"
    with (HERE / ".lock").open("w") as turn:
        # Several test processes may come here at once.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            command = [node, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=HERE, env=environ, check=True, timeout=_INSTALL_S)
            done.write_bytes(lock.read_bytes())
    return node


async def node_lines(script: str, *arguments: str) -> AsyncGenerator[str, None]:
    """The lines a script of npm/ prints, as they come; fails with what it wrote to standard error."""
    node = await asyncio.to_thread(install)
    process = await asyncio.create_subprocess_exec(
        node,
        script,
        *arguments,
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(_RUN_S):
            async for line in process.stdout:
                yield line.decode()
            complaint = (await process.stderr.read()).decode()
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{script}: {complaint[-2000:]}"

"""The sandbox as a process of its own: starts, keeps its accounts, ends at once on SIGTERM."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.sandbox.handle import SandboxHandle

PROGRAM = """
import sys
from pathlib import Path
from app.sandbox.main import serve
serve("127.0.0.1", int(sys.argv[1]), Path(sys.argv[2]), f"http://127.0.0.1:{sys.argv[1]}")
"""


async def start(port: int, directory: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(port), str(directory), stderr=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def running(port: int, directory: Path, http: httpx.AsyncClient) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start(port, directory)
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    await http.get(f"http://127.0.0.1:{port}/healthz")
                    break
                except httpx.ConnectError:
                    assert process.returncode is None
                    await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def accounts_of(port: int, http: httpx.AsyncClient) -> dict[str, object]:
    return await SandboxHandle(f"http://127.0.0.1:{port}", http).control("GET", "/accounts")


async def test_sigterm_ends_it_at_once_even_with_a_silent_call_open(
    port: int, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with running(port, tmp_path, http) as process:
        handle = SandboxHandle(f"http://127.0.0.1:{port}", http)
        await handle.control("POST", "/faults", {"method": "*", "kind": "timeout"}, status=201)
        silent = asyncio.create_task(http.get(f"{handle.base_url}/gateway.do?charset=utf-8&method=x"))
        async with asyncio.timeout(10):
            while await handle.calls("x", "") == 0:
                await asyncio.sleep(0)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await process.wait()
        assert time.monotonic() - started < 3
        assert isinstance((await asyncio.gather(silent, return_exceptions=True))[0], httpx.HTTPError | httpx.Response)


async def test_a_restart_keeps_the_keys(port: int, tmp_path: Path, http: httpx.AsyncClient) -> None:
    seen = []
    for _ in range(2):
        async with running(port, tmp_path, http) as process:
            seen.append(await accounts_of(port, http))
            process.send_signal(signal.SIGTERM)
            await process.wait()
    assert seen[0] == seen[1]


async def test_a_taken_port_ends_it_with_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        process = await start(number, tmp_path)
        async with asyncio.timeout(30):
            _, stderr = await process.communicate()
    assert process.returncode == 1
    assert stderr.decode() == f"the sandbox cannot listen on 127.0.0.1:{number}: Address already in use\n"

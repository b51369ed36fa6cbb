"""Commits a second with changes announced, and with the triggers switched off, in turns; pgbench writes."""

import asyncio
import os
import re
from pathlib import Path
from typing import Final

from app.local.postgres import USER
from app.local.programs import postgres_programs
from tests.bench.figures import Figure, median
from tests.bench.scale import Scale
from tests.bench.site import Site

_CLIENTS: Final = 16
_HINTS_PER_S: Final = 500
_RATE: Final = re.compile(r"^tps = ([0-9.]+) ", re.MULTILINE)
_SCRIPT: Final = """
\\set id random({first}, {last})
\\set n random(1, 1000000000)
update shouyin.payment set transaction_id = (:n)::text where id = :id;
"""


async def measure(site: Site, scale: Scale) -> list[Figure]:
    """Medians of the rounds. An API process leads the relay; it is hinted as often as one busy process would hint."""
    payments = sorted(await site.pending_payments(max(scale.many_watchers, 100)))
    script = site.directory / "change.sql"
    script.write_text(_SCRIPT.format(first=payments[0], last=payments[-1]))
    hint = site.directory / "hint.sql"
    hint.write_text("select pg_notify('shouyin_hint', '');\n")
    announced: list[float] = []
    silent: list[float] = []
    with site.api():
        for _ in range(scale.rounds):
            await _triggers(site, "disable")
            silent.append(await _pgbench(site, script, scale.commit_round_s))
            await _triggers(site, "enable")
            rate, _ = await asyncio.gather(
                _pgbench(site, script, scale.commit_round_s),
                _pgbench(site, hint, scale.commit_round_s, "--client=1", f"--rate={_HINTS_PER_S}"),
            )
            announced.append(rate)
            await _all_announced(site)
    return [
        Figure("commits", f"commits with changes announced, {_CLIENTS} clients", median(announced), "/s"),
        Figure("commits", "commits with the triggers off", median(silent), "/s"),
        Figure("commits", "announced to silent",
               median([a / b for a, b in zip(announced, silent, strict=True)]), "", low=0.7),
    ]  # fmt: skip


async def _triggers(site: Site, verb: str) -> None:
    await site.database.execute(f"alter table shouyin.payment {verb} trigger announce_update")


async def _pgbench(site: Site, script: Path, seconds: int, *options: str) -> float:
    """Commits a second, by pgbench's own count."""
    database = site.database_url.rpartition("/")[2]
    process = await asyncio.create_subprocess_exec(
        str(postgres_programs(None) / "pgbench"),
        *("--no-vacuum", "--protocol=prepared", f"--client={_CLIENTS}", "--jobs=1", f"--time={seconds}", *options),
        *(f"--file={script}", "--host=127.0.0.1", f"--port={site.postgres.port}", f"--username={USER}", database),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PGPASSWORD": site.postgres.password},
    )
    try:
        async with asyncio.timeout(seconds + 30):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told = _RATE.search(output.decode())
    if process.returncode != 0 or told is None:
        raise RuntimeError(f"pgbench: {output.decode()[-500:]}")
    return float(told[1])


async def _all_announced(site: Site) -> None:
    """Waits until the relay has taken every key. Raises TimeoutError when it does not keep up."""
    async with asyncio.timeout(10):
        while await site.database.fetchval("select exists (select from shouyin.change)"):
            await asyncio.sleep(0.05)

"""The command: `python -m tests.bench [--only NAME …] [--brief] [--json]`."""

import argparse
import asyncio
import contextlib
import json
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import uvloop

from tests.bench import commits, create, deductions, inbox, live
from tests.bench.figures import Figure, machine, table
from tests.bench.scale import BRIEF, FULL, Scale
from tests.bench.site import Site, open_site

Measure = Callable[[Site, Scale], Awaitable[list[Figure]]]

BENCHES: Final[Mapping[str, Measure]] = {
    "create": create.measure,
    "inbox": inbox.measure,
    "latency": live.measure_latency,
    "memory": live.measure_memory,
    "statements": live.measure_statements,
    "commits": commits.measure,
    "claims": deductions.measure_claims,
    "day": deductions.measure_day,
    "month": deductions.measure_month,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; 0 whether bounds are kept or not: a busy machine is no fault of the program."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="What one API process does here.")
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME", help=f"one of {', '.join(BENCHES)}")
    parser.add_argument("--brief", action="store_true", help="shorter rounds: a first look")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    chosen = parser.parse_args(arguments)
    names = chosen.only or list(BENCHES)
    _allow_many_sockets()
    where, figures = uvloop.run(run(names, BRIEF if chosen.brief else FULL, progress=sys.stderr.write))
    if chosen.json:
        print(json.dumps({"machine": where, "figures": [figure.as_json() for figure in figures]}, indent=2))
    else:
        print(f"{where}\n\n{table(figures)}")
    return 0


async def run(
    names: Sequence[str], scale: Scale, *, progress: Callable[[str], object] = lambda _: None
) -> tuple[str, list[Figure]]:
    """Where it was measured, and the figures of the named benches."""
    figures: list[Figure] = []
    async with open_site(scale.orders) as site:
        where = await asyncio.to_thread(machine, site.directory)
        with contextlib.ExitStack() as stack:
            if scale.one_api:
                site = replace(site, shared_api=stack.enter_context(site.api()))
            for name in names:
                progress(f"{name} …\n")
                figures += await BENCHES[name](site, scale)
    return where, figures


def _allow_many_sockets() -> None:
    """Both ends of each socket stand on this machine; the processes started here inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(16384, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())

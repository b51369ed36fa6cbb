"""Watchers: how soon a commit reaches them, what they hold while idle, what the database is asked for one change."""

import asyncio
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import orjson

from tests.bench.figures import Figure, percentile
from tests.bench.scale import Scale
from tests.bench.site import Process, Site
from tests.bench.watchers import Watchers

_WRITER_LIMIT_S: Final = 60.0
Write = Callable[[Sequence[int]], Awaitable[list[tuple[int, int, int, int]]]]

_STATEMENT: Final = re.compile(r"^(?P<who>[^|]*)\|LOG:  (?:statement|execute [^:]*): ?(?P<text>.*)$")


async def measure_latency(site: Site, scale: Scale) -> list[Figure]:
    """Few watchers, many, many, few: what the machine does meanwhile hits both alike."""
    payments = await site.pending_payments(scale.many_watchers)
    few: list[_Arrival] = []
    many: list[_Arrival] = []
    with site.api() as api:
        async with _writing(site, scale) as write:
            watchers = Watchers(site, api.port, payments)
            await watchers.open_until(scale.few_watchers)
            few += await _arrivals(write, watchers)
            await watchers.open_until(scale.many_watchers)
            await _idle(api)
            before = api.cpu_s()
            many += await _arrivals(write, watchers)
            many += await _arrivals(write, watchers)
            cpu_us = (api.cpu_s() - before) / (2 * scale.changes) * 1e6
            await watchers.close_until(scale.few_watchers)
            await _idle(api)
            few += await _arrivals(write, watchers)
        await watchers.close_until(0)
    name = f"commit to watcher, {scale.changes_per_s:.0f} changes/s"
    figures = []
    for count, arrivals, bound in ((scale.few_watchers, few, None), (scale.many_watchers, many, 10.0)):
        after_commit = [arrival.since_commit_ms for arrival in arrivals]
        figures += [
            Figure("latency", f"{name}, {count} watchers, p50", percentile(after_commit, 0.5), "ms"),
            Figure("latency", f"{name}, {count} watchers, p99", percentile(after_commit, 0.99), "ms", high=bound),
        ]
    since_sent = [arrival.since_sent_ms for arrival in many]
    growth = percentile([a.since_commit_ms for a in many], 0.99) / percentile([a.since_commit_ms for a in few], 0.99)
    return [
        *figures,
        Figure("latency", "p99 of many watchers to p99 of few", growth, "", high=1.5),
        Figure("latency", f"writer's statement to watcher, {scale.many_watchers} watchers, p99",
               percentile(since_sent, 0.99), "ms"),
        Figure("latency", "API processor time a change, many watchers", cpu_us, "µs"),
    ]  # fmt: skip


async def measure_memory(site: Site, scale: Scale) -> list[Figure]:
    """Resident memory of the API process with idle watchers, less what it was with a few, by watcher."""
    payments = await site.pending_payments(scale.few_watchers + scale.idle_watchers)
    with site.api() as api:
        watchers = Watchers(site, api.port, payments)
        await watchers.open_until(scale.few_watchers)
        before = await _settled_bytes(api, scale)
        await watchers.open_until(scale.few_watchers + scale.idle_watchers)
        after = await _settled_bytes(api, scale)
        os.kill(api.pid, signal.SIGUSR1)
        collected = await _settled_bytes(api, scale)
        await watchers.close_until(0)
    return [
        Figure("memory", f"RSS an idle watcher, of {scale.idle_watchers}",
               (after - before) / scale.idle_watchers / 1024, "KB", high=50),
        Figure("memory", "the same after a garbage collection",
               (collected - before) / scale.idle_watchers / 1024, "KB"),
        Figure("memory", f"RSS of the API process with {scale.few_watchers} watchers", before / 2**20, "MB"),
    ]  # fmt: skip


async def measure_statements(site: Site, scale: Scale) -> list[Figure]:
    """What the server's own log counts, the writer's statement and its hint included."""
    payments = await site.pending_payments(scale.many_watchers)
    counted: list[Counter[str]] = []
    with site.api() as api:
        watchers = Watchers(site, api.port, payments)
        async with _writing(site, scale) as write:
            for count in (scale.few_watchers, scale.many_watchers):
                await watchers.open_until(count)
                async with _logging_statements(site) as statements:
                    await _arrivals(write, watchers)
                counted.append(statements)
        await watchers.close_until(0)
    few, many = (counts.total() / scale.changes for counts in counted)
    reads = [counts["read"] / scale.changes for counts in counted]
    return [
        Figure("statements", f"statements a change, {scale.few_watchers} watchers", few, ""),
        Figure("statements", f"statements a change, {scale.many_watchers} watchers", many, ""),
        Figure("statements", "many watchers to few", many / few, "", high=1.1),
        Figure("statements", f"reads of changed rows a change, {scale.few_watchers} watchers", reads[0], ""),
        Figure("statements", f"reads of changed rows a change, {scale.many_watchers} watchers", reads[1], ""),
    ]


class _Arrival:
    __slots__ = ("since_commit_ms", "since_sent_ms")

    def __init__(self, sent_ns: int, committed_ns: int, arrived_ns: int) -> None:
        self.since_sent_ms = (arrived_ns - sent_ns) / 1e6
        self.since_commit_ms = (arrived_ns - committed_ns) / 1e6


async def _arrivals(write: Write, watchers: Watchers) -> list[_Arrival]:
    """Has the writer change watched payments, one after the other. Raises RuntimeError when a change never arrived."""
    watchers.start_recording()
    changes = await write(watchers.watched)
    seen = await watchers.received_all([(change[0], change[1]) for change in changes])
    watchers.recording = False
    # A watcher may skip a state that was overtaken, never the last one.
    newest = {payment_id: version for payment_id, version, _, _ in sorted(changes, key=lambda change: change[1])}
    lost = [payment_id for payment_id, version in newest.items() if (payment_id, version) not in seen]
    if lost:
        raise RuntimeError(f"{len(changes)} changes, the last of {len(lost)} payments never arrived")
    return [
        _Arrival(sent_ns, committed_ns, seen[payment_id, version])
        for payment_id, version, sent_ns, committed_ns in changes
        if (payment_id, version) in seen
    ]


@asynccontextmanager
async def _writing(site: Site, scale: Scale) -> AsyncIterator[Write]:
    """The writer as a process; its changes are (payment id, version, sent ns, committed ns)."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.writer",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(site.environ), limit=1 << 24,
    )  # fmt: skip
    assert writer.stdin is not None
    assert writer.stdout is not None
    told, answers = writer.stdin, writer.stdout

    async def write(ids: Sequence[int]) -> list[tuple[int, int, int, int]]:
        told.write(orjson.dumps({"ids": list(ids), "rate": scale.changes_per_s, "count": scale.changes}) + b"\n")
        async with asyncio.timeout(_WRITER_LIMIT_S + scale.changes / scale.changes_per_s):
            line = await answers.readline()
        if not line:
            raise RuntimeError("the writer ended")
        return [tuple(change) for change in orjson.loads(line)]

    try:
        yield write
    finally:
        told.close()
        try:
            await asyncio.wait_for(writer.wait(), 10)
        except TimeoutError:
            writer.kill()
            await writer.wait()


async def _idle(process: Process) -> None:
    """Waits until thousands of sockets that came or went at once are no longer its business; at most ten seconds."""
    for _ in range(40):
        before = process.cpu_s()
        await asyncio.sleep(0.25)
        if process.cpu_s() - before <= 0.02:
            return


async def _settled_bytes(process: Process, scale: Scale) -> int:
    """Resident memory once it stayed within 100 kB for a while; after ten attempts whatever it is."""
    before = process.resident_bytes()
    for _ in range(10):
        await asyncio.sleep(scale.settle_s)
        now = process.resident_bytes()
        if abs(now - before) < 100_000:
            return now
        before = now
    return before


@asynccontextmanager
async def _logging_statements(site: Site) -> AsyncIterator[Counter[str]]:
    """Counts what the server was sent meanwhile: "read" what the hub reads, else by who sent it."""
    counted: Counter[str] = Counter()
    log = site.postgres_log
    await _set_logging(site, on=True)
    start = log.stat().st_size
    try:
        yield counted
    finally:
        end = log.stat().st_size
        await _set_logging(site, on=False)
    with log.open("rb") as lines:
        lines.seek(start)
        for line in lines.read(end - start).decode(errors="replace").splitlines():
            found = _STATEMENT.match(line)
            if found is not None:
                reads = found["text"].startswith("select id, order_id, owner")
                counted["read" if reads else found["who"] or "pool"] += 1


async def _set_logging(site: Site, *, on: bool) -> None:
    await site.database.execute(f"alter system set log_statement = '{'all' if on else 'none'}'")
    await site.database.execute("alter system set log_line_prefix = '%a|'")
    await site.database.execute("select pg_reload_conf()")
    # A session takes the setting over before its next command; the server tells each of them within milliseconds.
    await asyncio.sleep(0.5)

"""What the realtime tests share: payments that change, collectors that watch, a network that goes silent."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from prometheus_client import CollectorRegistry

from app.db import Database
from app.realtime import (
    HubOptions,
    ListenerOptions,
    Realtime,
    RealtimeMetrics,
    RealtimeOptions,
    RelayOptions,
    Source,
)

# A busy machine is no fault: only the end of a connection is one, which is noticed at once.
PATIENT = RealtimeOptions(
    relay=RelayOptions(poll_s=0.05, take_over_s=0.05, session_silence_s=60, timeout_s=30),
    listener=ListenerOptions(heartbeat_s=5, timeout_s=30),
    hub=HubOptions(poll_every_s=3600, poll_gap_s=0, poll_grace_s=2.0),
    start_wait_s=30,
)
# For tests of silence: it is noticed in tenths of seconds, and so may slowness be. What they assert must hold then too.
QUICK = replace(
    PATIENT,
    relay=replace(PATIENT.relay, session_silence_s=1.0, timeout_s=1.0),
    listener=ListenerOptions(heartbeat_s=0.2, timeout_s=0.3),
    start_wait_s=1.0,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A payment as these tests read it."""

    id: int
    order_id: int
    status: str
    version: int


class Shop:
    """Payments in a real database, and the statements that were sent to read them."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reads: list[tuple[str, int]] = []

    async def open(self) -> None:
        """One merchant account, which payments refer to."""
        await self.database.pool.execute(
            "insert into shouyin.merchant_account (id, provider, mode, name, settings, created_at, updated_at)"
            " overriding system value values (1, 'ALIPAY', 'DIRECT', 'shop', '{}', now(), now())"
        )

    async def create(self, count: int, *, order_id: int | None = None) -> list[int]:
        """New payments; each of an order of its own unless one is named."""
        rows = await self.database.pool.fetch(
            "insert into shouyin.payment (order_id, merchant_account_id, provider, method, amount_fen, subject,"
            " out_trade_no, created_by, input_hash, expires_at, created_at, updated_at)"
            " select coalesce($2, 1000000 + g), 1, 'ALIPAY', 'ALIPAY_PAGE', 100, 's',"
            " replace(gen_random_uuid()::text, '-', ''), 'u', '', now(), now(), now()"
            " from generate_series(1, $1::int) g returning id",
            count,
            order_id,
        )
        self.database.on_commit()
        return [row["id"] for row in rows]

    async def change(self, payment_id: int, *, hint: bool = True) -> int:
        """Changes a payment visibly; its new version. Without `hint` as a psql session would."""
        version: int = await self.database.pool.fetchval(
            "update shouyin.payment set expires_at = expires_at + interval '1 s' where id = $1 returning version",
            payment_id,
        )
        if hint:
            self.database.on_commit()
        return version

    async def versions(self, ids: Sequence[int]) -> dict[int, int]:
        """The truth."""
        rows = await self.database.pool.fetch("select id, version from shouyin.payment where id = any($1)", ids)
        return {row["id"]: row["version"] for row in rows}

    async def waiting(self) -> int:
        """Keys not yet announced."""
        count: int = await self.database.pool.fetchval("select count(*) from shouyin.change")
        return count

    async def nothing_waits(self) -> bool:
        """Whether all keys have been announced."""
        return await self.waiting() == 0

    def sources(self) -> dict[str, Source]:
        """Payments by id and by order, counted in `reads`, and orders without a version."""

        async def by_id(ids: Sequence[int]) -> Mapping[int, Row]:
            return await self._read("id", ids)

        async def by_order(ids: Sequence[int]) -> Mapping[int, Row]:
            return await self._read("order_id", ids)

        async def orders(ids: Sequence[int]) -> Mapping[int, Any]:
            self.reads.append(("order", len(ids)))
            rows = await self.database.pool.fetch(
                "select id, to_jsonb(o) as data from orders o where id = any($1)", ids
            )
            return {row["id"]: row["data"] for row in rows}

        return {
            "payment": Source(by_id, by_order, lambda row: row.version, lambda row: row.order_id),
            "order": Source(orders, None, lambda row: row, None),
        }

    async def _read(self, column: str, ids: Sequence[int]) -> dict[int, Row]:
        self.reads.append((column, len(ids)))
        rows = await self.database.pool.fetch(
            f"select id, order_id, status, version from shouyin.payment where {column} = any($1)", ids
        )
        return {row["id"]: Row(**row) for row in rows}


@dataclass
class Process:
    """One process's realtime layer and its metrics."""

    realtime: Realtime
    registry: CollectorRegistry

    def metric(self, name: str) -> float:
        """The present value of shouyin_realtime_<name>."""
        value = self.registry.get_sample_value(f"shouyin_realtime_{name}")
        assert value is not None, name
        return value


@asynccontextmanager
async def process(
    database: Database, url: str, sources: Mapping[str, Source], options: RealtimeOptions = PATIENT
) -> AsyncIterator[Process]:
    """A started realtime layer."""
    registry = CollectorRegistry()
    realtime = Realtime(
        database=database, listen_url=url, sources=sources, metrics=RealtimeMetrics(registry), options=options
    )
    await realtime.start()
    try:
        yield Process(realtime, registry)
    finally:
        await realtime.stop()


async def until(condition: Callable[[], bool | Awaitable[bool]], *, within_s: float = 15) -> None:
    """Waits for something that becomes true; fails when it does not."""
    async with asyncio.timeout(within_s):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


@dataclass
class Collector:
    """Watches one subject in a task and keeps what came."""

    realtime: Realtime
    subject: str
    seen: list[Any] = field(default_factory=list)
    ended: bool = False

    async def run(self) -> None:
        async with self.realtime.watch(self.subject) as rows:
            async for row in rows:
                self.seen.append(row)
        self.ended = True

    @property
    def last(self) -> int:
        """The version seen last, 0 before the first."""
        return self.seen[-1].version if self.seen else 0

    def check_order(self) -> None:
        """No version twice, none after a newer one."""
        versions: dict[int, int] = {}
        for row in self.seen:
            assert row.version > versions.get(row.id, 0), f"{self.subject}: {self.seen}"
            versions[row.id] = row.version


@asynccontextmanager
async def collectors(realtime: Realtime, subjects: Sequence[str]) -> AsyncIterator[list[Collector]]:
    """One collector per subject; on leaving, all must have kept the order."""
    made = [Collector(realtime, subject) for subject in subjects]
    tasks = [asyncio.create_task(one.run()) for one in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for one in made:
        one.check_order()
    assert [end for end in ends if isinstance(end, Exception)] == []


class Network:
    """A TCP road to PostgreSQL that can go silent: connections stay open, and nothing passes any more."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        self._target = (target.hostname or "127.0.0.1", target.port or 5432)
        self._url = target
        self._gates = [_open_gate()]
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """The address to connect to."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._url._replace(netloc=f"{self._url.username}:{self._url.password}@127.0.0.1:{port}").geturl()
        finally:
            self.heal()
            server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await server.wait_closed()
            await until(lambda: not self._writers)

    def silence(self) -> None:
        """Nothing passes from now on, in no direction, on old and new connections."""
        self._gates[-1].clear()

    def strand(self) -> None:
        """Nothing passes any more on the connections there are; new ones are well. So forgets a NAT."""
        self._gates[-1].clear()
        self._gates.append(_open_gate())

    def heal(self) -> None:
        """Everything passes again, also what was held back."""
        for gate in self._gates:
            gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        gate = self._gates[-1]
        try:
            await gate.wait()
            there_reader, there_writer = await asyncio.open_connection(*self._target)
            self._writers.add(there_writer)
            try:
                await asyncio.gather(_pass(reader, there_writer, gate), _pass(there_reader, writer, gate))
            finally:
                self._writers.discard(there_writer)
                there_writer.transport.abort()
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
    while chunk := await source.read(65536):
        await gate.wait()
        sink.write(chunk)
        await sink.drain()
    sink.transport.abort()


async def end_backends(url: str, name: str) -> int:
    """pg_terminate_backend for every session of that application name in this database; how many there were."""
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where application_name = $1 and datname = current_database()",
            name,
        )
        return count
    finally:
        await connection.close()


def announcement(*keys: tuple[str, int, int | None, int | None]) -> str:
    """What the relay sends for these (kind, id, version, order id)."""
    return "1|" + ";".join(",".join("" if part is None else str(part) for part in key) for key in keys)

"""The hub alone, fed with announcements and rows by hand: slots, routing, failures, memory, and any order of events."""

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from app.realtime import HubOptions, RealtimeMetrics, Source, Watch
from app.realtime.hub import Hub
from tests.realtime.world import Row, announcement, until

IMMEDIATE = HubOptions(read_gap_s=0, read_rows=4, poll_every_s=3600, poll_rows=3, poll_gap_s=0, poll_grace_s=0)


@dataclass
class Table:
    """Payments in memory: id → row. `failures` are raised, one per statement, before any is answered."""

    rows: dict[int, Row]
    failures: list[Exception]
    unreadable: set[int]
    reads: list[int]

    def put(self, row_id: int, *, order_id: int = 1) -> Row:
        """Adds a row or raises its version."""
        version = self.rows[row_id].version + 1 if row_id in self.rows else 1
        row = self.rows[row_id] = Row(row_id, order_id, "PENDING", version)
        return row

    async def by_id(self, ids: Sequence[int]) -> Mapping[int, Row]:
        rows = {row_id: row for row_id, row in self.rows.items() if row_id in ids}
        return await self._answer(rows, len(ids))

    async def by_order(self, ids: Sequence[int]) -> Mapping[int, Row]:
        rows = {row_id: row for row_id, row in self.rows.items() if row.order_id in ids}
        return await self._answer(rows, len(ids))

    async def _answer(self, rows: dict[int, Row], asked: int) -> Mapping[int, Row]:
        self.reads.append(asked)
        await asyncio.sleep(0)  # what was read is on its way; things happen meanwhile
        if self.failures:
            raise self.failures.pop()
        if self.unreadable & rows.keys():
            raise KeyError("a word of a newer release")
        return rows


@dataclass
class Rig:
    """A running hub on a table."""

    hub: Hub
    table: Table
    registry: CollectorRegistry

    def announce(self, *ids: int) -> None:
        keys = [
            ("payment", row_id, self.table.rows[row_id].version, self.table.rows[row_id].order_id) for row_id in ids
        ]
        self.hub.receive(announcement(*keys))

    def metric(self, name: str) -> float:
        value = self.registry.get_sample_value(f"shouyin_realtime_{name}")
        assert value is not None
        return value


@asynccontextmanager
async def rig(options: HubOptions = IMMEDIATE) -> AsyncIterator[Rig]:
    """A hub whose reading loop runs."""
    table = Table({}, [], set(), [])
    registry = CollectorRegistry()
    source = Source(table.by_id, table.by_order, lambda row: row.version, lambda row: row.order_id)
    hub = Hub({"payment": source}, RealtimeMetrics(registry), options)
    task = asyncio.create_task(hub.read_changes())
    try:
        yield Rig(hub, table, registry)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_slow_reader_skips_states_but_not_the_last_and_holds_nobody_up() -> None:
    async with rig() as made:
        made.table.put(1)
        async with made.hub.watch("payment:1") as slow, made.hub.watch("payment:1") as quick:
            assert [(await anext(slow)).version, (await anext(quick)).version] == [1, 1]
            for version in range(2, 50):
                made.table.put(1)
                made.announce(1)
                assert (await anext(quick)).version == version
            assert (await anext(slow)).version == 49
        assert made.metric("replaced_rows_total") == 47


async def test_reader_that_stopped_reading_costs_no_memory() -> None:
    async with rig() as made:
        made.table.put(1)
        async with made.hub.watch("payment:1") as stuck, made.hub.watch("payment:1") as quick:
            await anext(stuck)

            async def change(times: int) -> None:
                for _ in range(times):
                    made.table.put(1)
                    made.announce(1)
                    while (await anext(quick)).version < made.table.rows[1].version:
                        pass

            await change(100)
            made.table.reads.clear()
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await change(3000)
            made.table.reads.clear()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
            tracemalloc.stop()
            assert grown < 20_000
            assert (await anext(stuck)).version == 3101


async def test_ten_thousand_abrupt_ends_leave_nothing_behind() -> None:
    async with rig(HubOptions(read_gap_s=0, poll_every_s=3600)) as made:
        for row_id in range(1, 101):
            made.table.put(row_id, order_id=row_id)
        tasks_before = len(asyncio.all_tasks())

        async def storm(sockets: int) -> None:
            started = 0

            async def socket(number: int) -> None:
                nonlocal started
                subject = f"payment:{number % 100 + 1}" if number % 2 else f"order-payments:{number % 100 + 1}"
                async with made.hub.watch(subject) as rows:
                    started += 1
                    async for _ in rows:
                        pass

            sockets_open = [asyncio.create_task(socket(number)) for number in range(sockets)]
            # A third ends before its snapshot was read, a third after, a third while a change is on its way.
            await until(lambda: started == sockets)
            for task in sockets_open[::3]:
                task.cancel()
            await until(lambda: made.metric("watches") <= sockets * 2 / 3 + 1)
            for task in sockets_open[1::3]:
                task.cancel()
            made.table.put(7, order_id=7)
            made.announce(7)
            for task in sockets_open[2::3]:
                task.cancel()
            await asyncio.gather(*sockets_open, return_exceptions=True)

        async def storm_and_measure() -> int:
            await storm(10_000)
            await asyncio.sleep(0)  # the step that ended the storm still holds what it was woken with
            made.table.reads.clear()
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        before = await storm_and_measure()
        grown = await storm_and_measure() - before
        tracemalloc.stop()
        assert (made.metric("watches"), made.hub.watched_keys) == (0, 0)
        assert len(asyncio.all_tasks()) == tasks_before
        assert grown < 100_000


async def test_idle_watch_takes_less_than_two_kilobytes() -> None:
    async with rig(HubOptions(read_gap_s=0, poll_every_s=3600)) as made:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        watches = [made.hub.watch(f"payment:{number}") for number in range(2000)]
        for watch in watches:
            await watch.__aenter__()
        await until(lambda: all(watch.live for watch in watches))
        made.table.reads.clear()
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 2000
        tracemalloc.stop()
        assert each < 2048


async def test_snapshot_on_its_way_when_a_watch_begins_is_not_given_to_it() -> None:
    async with rig() as made:
        made.table.put(1)
        async with made.hub.watch("payment:1") as first:
            await until(lambda: made.table.reads == [1])  # the first watch's snapshot has been read and is on its way
            made.table.put(1)
            async with made.hub.watch("payment:1") as second:
                assert (await anext(second)).version == 2
            assert (await anext(first)).version in (1, 2)


async def test_watch_that_ends_takes_no_change_from_the_watch_of_the_order() -> None:
    async with rig() as made:
        made.table.put(1, order_id=10)
        async with made.hub.watch("order-payments:10") as order:
            async with made.hub.watch("payment:1") as row:
                assert [(await anext(row)).version, (await anext(order)).version] == [1, 1]
                made.table.put(1, order_id=10)
                made.announce(1)
            assert (await asyncio.wait_for(anext(order), 5)).version == 2


async def test_failed_reads_are_repeated_until_they_succeed() -> None:
    async with rig() as made:
        made.table.put(1)
        made.table.failures.extend(
            [ConnectionRefusedError(), asyncpg.CannotConnectNowError("starting"), TimeoutError()]
        )
        async with made.hub.watch("payment:1") as rows:
            assert (await asyncio.wait_for(anext(rows), 10)).version == 1
            made.table.failures.extend([asyncpg.InterfaceError("closed")])
            made.table.put(1)
            made.announce(1)
            assert (await asyncio.wait_for(anext(rows), 10)).version == 2
        assert made.metric("read_failures_total") == 4


async def test_row_that_cannot_be_read_keeps_no_other_back() -> None:
    async with rig(HubOptions(read_gap_s=0, poll_every_s=3600)) as made:
        for row_id in range(1, 9):
            made.table.put(row_id)
        made.table.unreadable.add(5)
        watches = {row_id: made.hub.watch(f"payment:{row_id}") for row_id in range(1, 9)}
        for watch in watches.values():
            await watch.__aenter__()
        assert [(await anext(watches[row_id])).version for row_id in (1, 2, 3, 4, 6, 7, 8)] == [1] * 7
        assert made.metric("unreadable_rows_total") == 1
        made.table.unreadable.clear()
        made.table.put(5)
        made.announce(5)
        assert (await anext(watches[5])).version == 2


async def test_announcement_of_another_release_makes_everything_be_read_again() -> None:
    for message in ("2|something else", "", "1|payment", "1|payment,x,1,1", "*"):
        async with rig() as made:
            heard: list[Sequence[int]] = []
            made.hub.on_change("payment", heard.append)
            made.table.put(1)
            async with made.hub.watch("payment:1") as rows:
                assert (await anext(rows)).version == 1
                made.table.put(1)
                made.hub.receive(message)
                assert (await anext(rows)).version == 2
            assert heard == [()]


async def test_repeated_announcement_is_not_even_read() -> None:
    async with rig() as made:
        made.table.put(1)
        async with made.hub.watch("payment:1") as rows:
            assert (await anext(rows)).version == 1
            for _ in range(3):
                made.announce(1)
            made.table.put(1)
            made.announce(1)
            assert (await anext(rows)).version == 2
        assert made.table.reads == [1, 1]


# --- any order of events --------------------------------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.integers(1, 4)),  # a commit; its announcement comes later, or never
        st.tuples(st.just("announce"), st.integers(0, 9)),  # one of the announcements outstanding, in any order
        st.tuples(st.just("repeat"), st.integers(1, 4)),  # an announcement once more
        st.tuples(st.just("join row"), st.integers(1, 4)),
        st.tuples(st.just("join order"), st.integers(1, 2)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("take"), st.integers(0, 9)),  # one reader reads once, if there is something
        st.tuples(st.just("fail"), st.just(0)),  # the next statement fails
        st.tuples(st.just("reconnect"), st.just(0)),  # outstanding announcements are lost, everything is read again
        st.tuples(st.just("turn"), st.integers(1, 5)),  # the loop turns
    ),
    max_size=60,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_in_any_order_every_watch_ends_on_the_newest_rows(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_walk(steps))


class _Reader:
    """A watch that is read step by step, and what it has seen."""

    def __init__(self, watch: Watch, ids: set[int]) -> None:
        self.watch = watch
        self.ids = ids
        self.seen: dict[int, int] = {}

    async def take(self) -> None:
        """Reads what is in the slot, if anything."""
        try:
            async with asyncio.timeout(0):
                row = await anext(self.watch)
        except TimeoutError:
            return
        assert row.id in self.ids
        assert row.version > self.seen.get(row.id, 0)
        self.seen[row.id] = row.version


async def _walk(steps: list[tuple[str, int]]) -> None:
    async with rig() as made:
        for row_id in (1, 2, 3):
            made.table.put(row_id, order_id=row_id % 2 + 1)
        outstanding: list[int] = []
        readers: list[_Reader] = []
        for step, number in steps:
            await _step(made, step, number, outstanding, readers)
        for row_id in outstanding:
            made.announce(row_id)

        async def settled() -> bool:
            for reader in readers:
                await reader.take()
            return all(
                reader.seen == {i: made.table.rows[i].version for i in reader.ids if i in made.table.rows}
                for reader in readers
            )

        await until(settled)
        for reader in readers:
            await reader.take()  # nothing comes twice: take() checks


async def _step(made: Rig, step: str, number: int, outstanding: list[int], readers: list[_Reader]) -> None:
    match step:
        case "change":
            made.table.put(number, order_id=number % 2 + 1)
            outstanding.append(number)
        case "announce" if outstanding:
            made.announce(outstanding.pop(number % len(outstanding)))
        case "repeat" if number in made.table.rows:
            made.announce(number)
        case "join row" | "join order":
            row = step == "join row"
            subject = f"payment:{number}" if row else f"order-payments:{number}"
            reader = _Reader(made.hub.watch(subject), {number} if row else {i for i in range(5) if i % 2 + 1 == number})
            await reader.watch.__aenter__()
            readers.append(reader)
        case "leave" if readers:
            await readers.pop(number % len(readers)).watch.__aexit__(None, None, None)
        case "take" if readers:
            await readers[number % len(readers)].take()
        case "fail":
            made.table.failures.append(ConnectionResetError())
        case "reconnect":
            outstanding.clear()
            made.hub.receive("*")
        case "turn":
            for _ in range(number):
                await asyncio.sleep(0)

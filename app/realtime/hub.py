"""The hub: who watches what in this process, which rows must be read again, and who gets them.

    announcement "payment 42 is at version 3" ──▶ mark 42 ──▶ one statement reads all marked rows ──▶ slots ──▶ readers

State, not steps: an announcement only marks, the row is the truth, its version makes repeats harmless. A watch holds
one slot with the newest row (of an order's payments: the newest per payment), so that a slow reader skips states, never
the last one, and costs nothing meanwhile. A watch is one small object without a task.

All reads run one after the other: what is read later is newer, also for rows that have no version. A new watch gets
what was read after it was registered, never what was on its way before. All watches of a subject get a row as the same
object, so that a layer above can share what it makes of one.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import asyncpg
import structlog

from app.realtime.listener import ANYTHING
from app.realtime.metrics import RealtimeMetrics
from app.realtime.session import LOST, Backoff

_log: Final = structlog.stdlib.get_logger("shouyin.realtime")

Read: TypeAlias = Callable[[Sequence[int]], Awaitable[Mapping[int, Any]]]

_ID: Final = re.compile(r"[0-9]{1,19}")
_LARGEST_ID: Final = 2**63 - 1

# What nobody has been told about yet; older than any version and equal to none.
_UNSEEN: Final = object()


@dataclass(frozen=True, slots=True)
class Source:
    """How the rows of one subject are read. Each function sends one statement, whatever the number of ids.

    `version`: an integer that grows with each change, or, for rows without one, any value that differs when they do.
    `parent` is what `by_order` and `order_id` are about where it is no order: a refund's is its payment.
    """

    by_id: Read
    by_order: Read | None
    version: Callable[[Any], Any]
    order_id: Callable[[Any], int] | None
    parent: str = "order"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubOptions:
    """The hub's pace, in seconds, except the counts."""

    # The shortest time from one round of reads to the next; marks made meanwhile share a statement.
    read_gap_s: float = 0.001
    # Rows of one statement. A change marks few; a reconnect marks everything.
    read_rows: int = 500
    poll_every_s: float = 45.0
    poll_rows: int = 100
    poll_gap_s: float = 0.02
    # An announcement may be on its way for this long before the safety poll calls it lost.
    poll_grace_s: float = 3.0


class _Topic:
    """One subject somebody watches. `seen` is the last version handed out, for an order's rows one per row."""

    __slots__ = ("id", "lane", "seen", "watches")

    def __init__(self, lane: "_Lane", topic_id: int) -> None:
        self.lane = lane
        self.id = topic_id
        self.watches: set[Watch] = set()
        self.seen: Any = {} if lane.of_order else _UNSEEN


class _Lane:
    """One way of reading one kind of rows: by their own ids, or all of an order (`of_order`)."""

    __slots__ = ("backoff", "dirty", "joining", "kind", "of_order", "pausing", "read", "source", "topics")

    def __init__(self, kind: str, source: Source, read: Read, *, of_order: bool) -> None:
        self.kind = kind
        self.source = source
        self.read = read
        self.of_order = of_order
        self.topics: dict[int, _Topic] = {}
        self.dirty: set[int] = set()
        self.joining: dict[Watch, None] = {}
        self.backoff = Backoff()
        self.pausing = False

    def take(self, limit: int) -> tuple[list[int], list["Watch"]]:
        """Up to `limit` marked ids, and the new watches among or beside them; both are no longer marked afterwards."""
        joining = list(islice(self.joining, limit))
        ids = {watch.topic.id for watch in joining}
        for watch in joining:
            del self.joining[watch]
        ids.update(islice(self.dirty, limit - len(ids)))
        self.dirty -= ids
        return list(ids), joining


class Watch:
    """One reader of one subject: `async with watch as rows: async for row in rows`. Only one task may iterate."""

    __slots__ = ("_ended", "_hub", "_slot", "_waiter", "live", "topic")

    def __init__(self, hub: "Hub", topic: _Topic) -> None:
        self._hub = hub
        self.topic = topic
        self._slot: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self.live = False
        self._ended = False

    async def __aenter__(self) -> Self:
        self._hub.join(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hub.leave(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while not self._slot:
            if self._ended:
                raise StopAsyncIteration
            await self._wake_up()
        if not self.topic.lane.of_order:
            row, self._slot = self._slot[0], None
            return row
        return self._slot.pop(next(iter(self._slot)))

    async def exists(self) -> bool:
        """Whether there was a row when the watch began; waits for that first reading and takes nothing of it."""
        while not (self.live or self._ended):
            await self._wake_up()
        return bool(self._slot)

    async def _wake_up(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def begin(self, rows: Iterable[tuple[int, Any]]) -> None:
        """The snapshot was read; later rows follow."""
        self.live = True
        for row_id, row in rows:
            self.offer(row_id, row)
        self._wake()

    def offer(self, row_id: int, row: Any) -> bool:
        """Puts a newer row into the slot; True when it replaced one that nobody took."""
        if self.topic.lane.of_order:
            replaced = bool(self._slot) and row_id in self._slot
            if self._slot is None:
                self._slot = {}
            self._slot[row_id] = row
        else:
            replaced = self._slot is not None
            self._slot = (row,)
        self._wake()
        return replaced

    def end(self) -> None:
        """Completes the iteration once what is in the slot has been taken."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Hub:
    """Routes changes to the watches of this process. Everything runs on one event loop."""

    def __init__(self, sources: Mapping[str, Source], metrics: RealtimeMetrics, options: HubOptions) -> None:
        self._metrics = metrics
        self._options = options
        self._by_id: dict[str, _Lane] = {}
        self._by_order: dict[str, _Lane] = {}
        # What a subject is called: "payment:42" one row, "order-payments:10" all payments of an order.
        self._lanes: dict[str, _Lane] = {}
        for kind, source in sources.items():
            self._by_id[kind] = self._lanes[kind] = _Lane(kind, source, source.by_id, of_order=False)
            if source.by_order is not None:
                lane = _Lane(kind, source, source.by_order, of_order=True)
                self._by_order[kind] = self._lanes[f"{source.parent}-{kind}s"] = lane
        self._callbacks: dict[str, list[Callable[[Sequence[int]], None]]] = {}
        self._wanted = asyncio.Event()
        self._reading = asyncio.Lock()
        # (kind, row id) the safety poll found newer than announced, until the announcement comes or grace ends
        self._suspects: set[tuple[str, int]] = set()
        self._ended = False

    @property
    def watched_keys(self) -> int:
        """Distinct subjects watched."""
        return sum(len(lane.topics) for lane in self._lanes.values())

    def watch(self, subject: str) -> Watch:
        """A watch of one subject, not yet registered. Raises ValueError for a subject nobody reads."""
        name, _, topic_id = subject.partition(":")
        lane = self._lanes.get(name)
        if lane is None or _ID.fullmatch(topic_id) is None or int(topic_id) > _LARGEST_ID:
            raise ValueError(f"{subject!r}: not a subject; there are {', '.join(sorted(self._lanes))}, each with an id")
        return Watch(self, _Topic(lane, int(topic_id)))

    def join(self, watch: Watch) -> None:
        """Registers a watch and asks for its snapshot."""
        lane = watch.topic.lane
        topic = watch.topic = lane.topics.setdefault(watch.topic.id, watch.topic)
        topic.watches.add(watch)
        self._metrics.watches.inc()
        if self._ended:
            watch.end()
            return
        lane.joining[watch] = None
        self._wanted.set()

    def leave(self, watch: Watch) -> None:
        """Forgets a watch; what it has not taken is gone."""
        topic = watch.topic
        if watch not in topic.watches:
            return
        topic.watches.remove(watch)
        topic.lane.joining.pop(watch, None)
        if not topic.watches:
            del topic.lane.topics[topic.id]  # its mark stays: an order's watch may wait for the same row
        watch.end()
        self._metrics.watches.dec()

    def end_all(self) -> None:
        """Completes every watch, and every later one at once."""
        self._ended = True
        for lane in self._lanes.values():
            for topic in lane.topics.values():
                for watch in topic.watches:
                    watch.end()

    def on_change(self, kind: str, callback: Callable[[Sequence[int]], None]) -> None:
        """Calls back with the ids of changed rows of a kind; with none when any may have changed. It must not block."""
        self._callbacks.setdefault(kind, []).append(callback)

    # --- what changed -------------------------------------------------------------------------------------------------

    def receive(self, message: str) -> None:
        """Takes one announcement, "1|kind,id,version,order;…". One it cannot read may mean anything."""
        changed: dict[str, list[int]] = {}
        try:
            form, _, keys = message.partition("|")
            if form != "1":
                raise ValueError("not an announcement of this release")  # noqa: TRY301 - the handler says what it means
            for key in keys.split(";"):
                kind, row_id, version, order_id = key.split(",")
                changed.setdefault(kind, []).append(int(row_id))
                self._mark(kind, int(row_id), int(version) if version else None, int(order_id) if order_id else None)
        except ValueError:
            if message != ANYTHING:
                _log.warning("realtime.announcement_unreadable", length=len(message))
            self.resync()
            return
        self._wanted.set()
        for kind, ids in changed.items():
            self._call_back(kind, ids)

    def resync(self) -> None:
        """Anything may have changed: everything watched is read again."""
        self._suspects.clear()
        for lane in self._lanes.values():
            lane.dirty.update(lane.topics)
        self._wanted.set()
        for kind in self._callbacks:
            self._call_back(kind, ())

    def _mark(self, kind: str, row_id: int, version: int | None, order_id: int | None) -> None:
        lane = self._by_id.get(kind)
        if lane is None:
            return
        self._suspects.discard((kind, row_id))
        topic = lane.topics.get(row_id)
        wanted = topic is not None and _newer(version, topic.seen)
        if not wanted and order_id is not None and kind in self._by_order:
            order = self._by_order[kind].topics.get(order_id)
            wanted = order is not None and _newer(version, order.seen.get(row_id, _UNSEEN))
        if wanted:
            if row_id in lane.dirty:
                self._metrics.coalesced_marks.inc()
            lane.dirty.add(row_id)

    def _call_back(self, kind: str, ids: Sequence[int]) -> None:
        for callback in self._callbacks.get(kind, ()):
            try:
                callback(ids)
            except Exception:
                # A cache that fails to drop an entry must not keep the watches from their rows.
                _log.exception("realtime.callback_failed", kind=kind)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read_changes(self) -> None:
        """Reads what is marked, whenever something is, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            for lane in self._lanes.values():
                if not lane.pausing:
                    await self._read_lane(lane)
            await asyncio.sleep(self._options.read_gap_s)

    async def _read_lane(self, lane: _Lane) -> None:
        """One statement for what is marked in a lane. After a failure the marks are back, to be tried again later."""
        async with self._reading:
            ids, joining = lane.take(self._options.read_rows)
            if not ids:
                return
            try:
                rows = await self._read_rows(lane, ids)
                self._deliver(lane, rows)
                self._begin(lane, rows, joining)
            except BaseException as exc:
                lane.dirty.update(row_id for row_id in ids if self._matters(lane, row_id))
                still_joining = (watch for watch in joining if watch in watch.topic.watches and not watch.live)
                lane.joining.update(dict.fromkeys(still_joining))
                if not isinstance(exc, LOST):
                    raise
                self._pause(lane, exc)
                return
            lane.backoff.reset()
            if lane.dirty or lane.joining:
                self._wanted.set()

    def _pause(self, lane: _Lane, exc: Exception) -> None:
        """Leaves a lane alone for a while after its statement failed; the others go on."""
        lane.pausing = True
        self._metrics.read_failures.inc()
        _log.warning("realtime.read_failed", kind=lane.kind, reason=type(exc).__name__, detail=str(exc))
        asyncio.get_running_loop().call_later(lane.backoff.pause_s(), self._resume, lane)

    def _resume(self, lane: _Lane) -> None:
        lane.pausing = False
        self._wanted.set()

    def _matters(self, lane: _Lane, row_id: int) -> bool:
        # By id also rows are read that are watched through their order, and whose order is not known here.
        return row_id in lane.topics or lane.kind in self._by_order

    async def _read_rows(self, lane: _Lane, ids: list[int]) -> Mapping[int, Any]:
        """The rows; one that cannot be read as what it is gets left out, so that it does not keep the others back."""
        self._metrics.reads.inc()
        try:
            rows = await lane.read(ids)
        except Exception as exc:
            if isinstance(exc, LOST) and not isinstance(exc, asyncpg.DataError):
                raise
            if len(ids) == 1:
                self._metrics.unreadable_rows.inc()
                _log.exception("realtime.row_unreadable", kind=lane.kind, id=ids[0], of_order=lane.of_order)
                return {}
        else:
            self._metrics.rows_read.inc(len(rows))
            return rows
        middle = len(ids) // 2
        return {**await self._read_rows(lane, ids[:middle]), **await self._read_rows(lane, ids[middle:])}

    def _deliver(self, lane: _Lane, rows: Mapping[int, Any]) -> list[tuple[int, int | None]]:
        """Hands rows to everybody who has not seen their version; (id, order id) of those that were news."""
        source, news = lane.source, []
        by_id, by_order = self._by_id[lane.kind], self._by_order.get(lane.kind)
        for row_id, row in rows.items():
            version = source.version(row)
            order_id = source.order_id(row) if source.order_id is not None else None
            told = False
            topic = by_id.topics.get(row_id)
            if topic is not None and _newer(version, topic.seen):
                topic.seen = version
                told = self._tell(topic, row_id, row)
            order = by_order.topics.get(order_id) if by_order is not None and order_id is not None else None
            if order is not None and _newer(version, order.seen.get(row_id, _UNSEEN)):
                order.seen[row_id] = version
                told = self._tell(order, row_id, row) or told
            if told:
                news.append((row_id, order_id))
        return news

    def _tell(self, topic: _Topic, row_id: int, row: Any) -> bool:
        """Offers a row to a subject's watches; whether one of them has had its snapshot, so that this is news to it."""
        live = [watch for watch in topic.watches if watch.live]
        replaced = sum([watch.offer(row_id, row) for watch in live])
        if replaced:
            self._metrics.replaced_rows.inc(replaced)
        return bool(live)

    def _begin(self, lane: _Lane, rows: Mapping[int, Any], joining: Sequence[Watch]) -> None:
        """Gives new watches their snapshot."""
        of_order: dict[int, list[tuple[int, Any]]] = {}
        if lane.of_order and joining and lane.source.order_id is not None:
            for row_id, row in rows.items():
                of_order.setdefault(lane.source.order_id(row), []).append((row_id, row))
        for watch in joining:
            topic_id = watch.topic.id
            if lane.of_order:
                watch.begin(of_order.get(topic_id, ()))
            else:
                watch.begin([(topic_id, rows[topic_id])] if topic_id in rows else ())

    # --- the safety poll ----------------------------------------------------------------------------------------------

    async def poll_safely(self) -> None:
        """Now and then reads everything watched and counts what nobody announced, until cancelled."""
        while True:
            await asyncio.sleep(self._options.poll_every_s)
            await self.poll_once()

    async def poll_once(self) -> int:
        """Reads everything watched; after the grace, the number of changes that were never announced."""
        for lane in self._lanes.values():
            for ids in _parts(list(lane.topics), self._options.poll_rows):
                await self._poll(lane, ids)
                await asyncio.sleep(self._options.poll_gap_s)
        if not self._suspects:
            return 0
        await asyncio.sleep(self._options.poll_grace_s)
        repaired, self._suspects = self._suspects, set()
        if repaired:
            self._metrics.safety_poll_repairs.inc(len(repaired))
            some = [f"{kind}:{row_id}" for kind, row_id in sorted(repaired)[:10]]
            _log.error("realtime.announcements_lost", count=len(repaired), rows=some)
        return len(repaired)

    async def _poll(self, lane: _Lane, ids: list[int]) -> None:
        async with self._reading:
            try:
                rows = await self._read_rows(lane, ids)
            except LOST as exc:
                _log.warning("realtime.poll_failed", kind=lane.kind, reason=type(exc).__name__)
                return
            by_order = self._by_order.get(lane.kind)
            for row_id, order_id in self._deliver(lane, rows):
                announced = row_id in self._by_id[lane.kind].dirty
                resyncing = by_order is not None and order_id in by_order.dirty
                if not announced and not resyncing:
                    self._suspects.add((lane.kind, row_id))


def _newer(version: Any, seen: Any) -> bool:
    """Whether a version is news. Numbers grow; other values are news when they differ; None is not known and may be."""
    if isinstance(version, int) and isinstance(seen, int):
        return version > seen
    return version is None or seen is _UNSEEN or bool(version != seen)


def _parts(ids: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]

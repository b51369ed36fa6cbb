"""The relay: takes waiting keys from shouyin.change and announces them. One at a time, in whatever process.

    writer commits ─▶ hint() ─▶ [stand-by: NOTIFY shouyin_hint] ─▶ leader drains: delete, fold, NOTIFY shouyin_change

Every process is a candidate: it holds a session and tries a session lock; the one that gets it leads. A NOTIFY inside
a payment's own transaction would take a lock of the whole cluster through the WAL flush of that commit; the leader's
does not flush. Each drain is one transaction, so that a leader killed in it has announced nothing and deleted nothing.

A leader that hangs is ended by the server: it speaks every poll interval, and its session may not be silent for longer
than `session_silence_s`. That covers a frozen process and a dead network alike, and frees the lock.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

import structlog

from app.db import load_queries
from app.realtime.metrics import RealtimeMetrics
from app.realtime.session import LOST, Backoff, Session, open_session

HINTS: Final = "shouyin_hint"

# Any constant serves, as long as it is not the one of the migrations.
_LEADER_LOCK: Final = 5_346_700_002

_log: Final = structlog.stdlib.get_logger("shouyin.realtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """The relay's pace. All in seconds, except the counts."""

    # For writers that send no hint, such as psql; also how often a leader speaks, see session_silence_s.
    poll_s: float = 0.25
    # The shortest time from one drain to the next, and from one hint of this process to the next.
    drain_gap_s: float = 0.002
    hint_gap_s: float = 0.002
    # How often a stand-by tries the lock.
    take_over_s: float = 0.25
    session_silence_s: float = 5.0
    timeout_s: float = 4.0
    batch_rows: int = 2000
    # At this size a further NOTIFY begins; PostgreSQL refuses 8000 bytes.
    payload_bytes: int = 7000
    # The leader vacuums the table after so many deleted rows.
    vacuum_after_rows: int = 20_000


class Relay:
    """This process's candidate."""

    def __init__(self, url: str, metrics: RealtimeMetrics, options: RelayOptions) -> None:
        self._url = url
        self._metrics = metrics
        self._options = options
        self._queries = {name: text for name, text in load_queries().items() if name.startswith("realtime.")}
        self._hinted = asyncio.Event()
        self._deleted = 0
        self.leading = False

    def hint(self) -> None:
        """A commit may have left keys. Costs an attribute; any number of calls while one is under way are one."""
        if not self._hinted.is_set():
            self._hinted.set()

    async def run(self) -> None:
        """Stands by or leads until cancelled; a lost session is opened again after a pause."""
        backoff = Backoff()
        while True:
            try:
                await self._hold_session(backoff)
            except LOST as exc:
                self._metrics.relay_interruptions.inc()
                _log.warning("realtime.relay_interrupted", reason=type(exc).__name__, detail=str(exc))
            await asyncio.sleep(backoff.pause_s())

    async def _hold_session(self, backoff: Backoff) -> None:
        silence_ms = str(int(self._options.session_silence_s * 1000))
        session = await open_session(
            self._url,
            name="shouyin relay",
            timeout_s=self._options.timeout_s,
            settings={
                # Deleting from an unlogged table and NOTIFY write no WAL, so that no drain waits for a flush (0.3 ms
                # with a disk that takes 5 ms); this keeps it so, should the server find something else to log.
                "synchronous_commit": "off",
                "idle_session_timeout": silence_ms,
                "idle_in_transaction_session_timeout": silence_ms,
                "statement_timeout": silence_ms,
                "jit": "off",
            },
        )
        try:
            await self._stand_by(session)
            backoff.reset()
            await self._lead(session)
        finally:
            self.leading = False
            self._metrics.relay_leading.set(0)
            # Without ceremony: the server frees the lock as soon as the socket ends.
            session.terminate()

    async def _stand_by(self, session: Session) -> None:
        """Returns once the lock is ours. Meanwhile this process's hints go to the leader over this session."""
        loop = asyncio.get_running_loop()
        while not await session.fetchval(self._queries["realtime.try_lead"], _LEADER_LOCK):
            pause_s = self._options.take_over_s * random.uniform(0.5, 1)  # noqa: S311 - spreads processes, guards nothing
            until = loop.time() + pause_s
            # The clock is asked first: hints that never pause must not keep this process from taking over.
            while loop.time() < until and await self._hint_before(until):
                await session.fetchval(self._queries["realtime.hint"])
                await asyncio.sleep(self._options.hint_gap_s)

    async def _hint_before(self, until: float) -> bool:
        """Waits for a hint until that time of the loop's clock; False when none came."""
        try:
            async with asyncio.timeout_at(until):
                await self._hinted.wait()
        except TimeoutError:
            return False
        self._hinted.clear()
        return True

    async def _lead(self, session: Session) -> None:
        """Drains whenever hinted, and each poll interval; ends only by losing the session."""
        await session.add_listener(HINTS, self._hear)
        self.leading = True
        self._metrics.relay_leading.set(1)
        _log.info("realtime.relay_leads")
        loop = asyncio.get_running_loop()
        while True:
            rows = await self._drain(session)
            if rows < self._options.batch_rows:
                await self._vacuum(session)
                # Also when nothing was there: many commits hint that have changed nothing anybody may watch.
                await asyncio.sleep(self._options.drain_gap_s)
                await self._hint_before(loop.time() + self._options.poll_s)

    async def _vacuum(self, session: Session) -> None:
        """Keeps the table as small as what waits; one that a long backlog made large is left to autovacuum."""
        if self._deleted >= self._options.vacuum_after_rows:
            self._deleted = 0
            if await session.fetchval(self._queries["realtime.small"]):
                await session.execute(self._queries["realtime.vacuum"])

    async def _drain(self, session: Session) -> int:
        """Announces what waits, at most one batch; the number of rows taken."""
        statement = self._queries["realtime.drain"]
        (drained,) = await session.fetch(statement, self._options.batch_rows, self._options.payload_bytes)
        rows: int = drained["rows"]
        if rows:
            self._deleted += rows
            self._metrics.relay_batches.inc()
            self._metrics.relay_rows.inc(rows)
            self._metrics.relay_keys.inc(drained["keys"])
            self._metrics.relay_lag_s.observe(drained["lag_s"])
        return rows

    def _hear(self, *_notification: Any) -> None:
        self.hint()

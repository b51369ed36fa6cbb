"""The listener: one direct session per process on one fixed channel, as a backend of broadcaster's Broadcast.

broadcaster's own PostgreSQL backend waits forever on a session that is gone and breaks under concurrent use. This one
owns its session: the server's ending of it is noticed at once, silence by a heartbeat, and after every LISTEN, the
first included, it publishes ANYTHING: all that is watched is read again, since what was announced meanwhile is gone.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
from broadcaster import BroadcastBackend, Event

from app.db import load_queries
from app.realtime.metrics import RealtimeMetrics
from app.realtime.session import LOST, Backoff, Session, keep_running, open_session

CHANGES: Final = "shouyin_change"
# The message that says "any row may have changed".
ANYTHING: Final = "*"

# Announcements waiting for the hub. It takes each within microseconds; should it not, one ANYTHING says the same.
_WAITING_LIMIT: Final = 10_000

_log: Final = structlog.stdlib.get_logger("shouyin.realtime")


class _Silent(Exception):
    """The session no longer listens, or its end was noticed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerOptions:
    """How a lost session is noticed. A black hole costs watchers at most `heartbeat_s + timeout_s`."""

    heartbeat_s: float = 3.0
    timeout_s: float = 2.0


class ListenBackend(BroadcastBackend):
    """Delivers the announcements of CHANGES. Publishes nothing: the relay announces inside its own transaction."""

    def __init__(self, url: str, metrics: RealtimeMetrics, options: ListenerOptions) -> None:
        self._url = url
        self._metrics = metrics
        self._options = options
        self._beat = load_queries()["realtime.beat"]
        self._events: asyncio.Queue[Event] = asyncio.Queue(_WAITING_LIMIT)
        self._task: asyncio.Task[None] | None = None
        self._alive_at = time.monotonic()
        self.listening = asyncio.Event()

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the session last proved alive, or since the start."""
        return time.monotonic() - self._alive_at

    async def connect(self) -> None:
        """Begins listening; returns at once, with or without a database."""
        self._task = asyncio.create_task(keep_running("listener", self._listen), name="realtime listener")

    async def disconnect(self) -> None:
        """Ends listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def subscribe(self, group: str) -> None:
        """The one channel is always listened to."""
        if group != CHANGES:
            raise ValueError(f"{group}: the only channel is {CHANGES}")

    async def unsubscribe(self, group: str) -> None:
        """The one channel is listened to until the end."""

    async def publish(self, channel: str, message: Any) -> None:
        """Refused: only the relay announces."""
        raise NotImplementedError("changes are announced by the relay, in the transaction that deletes their keys")

    async def next_published(self) -> Event:
        """The next announcement. Never raises: broadcaster's reading task would end for good."""
        return await self._events.get()

    async def _listen(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._hold_session(backoff)
            except (*LOST, _Silent) as exc:
                self._metrics.listener_reconnects.inc()
                _log.warning("realtime.listener_lost", reason=type(exc).__name__, detail=str(exc))
            await asyncio.sleep(backoff.pause_s())

    async def _hold_session(self, backoff: Backoff) -> None:
        """Listens until the session is lost; always ends by raising."""
        session = await open_session(
            self._url,
            name="shouyin listener",
            timeout_s=self._options.timeout_s,
            settings={
                # A listener that reads no longer would hold back the tail of the server's notification queue.
                "idle_session_timeout": str(int((self._options.heartbeat_s + self._options.timeout_s) * 4000)),
                "tcp_user_timeout": "15000",
            },
        )
        try:
            ended = asyncio.Event()
            session.add_termination_listener(lambda _session: ended.set())
            await session.add_listener(CHANGES, self._hear)
            self._alive_at = time.monotonic()
            self._put(ANYTHING)  # after LISTEN and not before: what changed in between is neither announced nor read
            self.listening.set()
            self._metrics.listener_connected.set(1)
            backoff.reset()
            while True:
                await self._wait_for(ended)
                await self._prove_alive(session)
        finally:
            self.listening.clear()
            self._metrics.listener_connected.set(0)
            # close() would wait for an answer that a black hole never gives.
            session.terminate()

    async def _wait_for(self, ended: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(self._options.heartbeat_s):
                await ended.wait()
        except TimeoutError:
            return
        raise _Silent("the server ended the session")

    async def _prove_alive(self, session: Session) -> None:
        if not await session.fetchval(self._beat, CHANGES):
            raise _Silent("the session no longer listens")
        self._alive_at = time.monotonic()

    def _hear(self, _session: Any, _pid: int, _channel: str, payload: object) -> None:
        self._alive_at = time.monotonic()
        self._put(str(payload))

    def _put(self, message: str) -> None:
        try:
            self._events.put_nowait(Event(CHANGES, message))
        except asyncio.QueueFull:
            while not self._events.empty():
                self._events.get_nowait()
            self._events.put_nowait(Event(CHANGES, ANYTHING))

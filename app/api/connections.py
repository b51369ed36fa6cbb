"""Every open WebSocket and event stream of this process: how many there may be, how long they live, how they end.

One sweep a second looks at all of them. A timer and a task for each would cost more memory than the socket itself, and
nothing here needs to be more punctual than that.

    a token expires        its operations end with UNAUTHENTICATED, the socket stays
    a socket gets old      1012, with jitter so that a thousand opened together do not come back together
    the process shuts down streams complete, sockets get 1012 in waves
"""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Protocol

import structlog

from app.api.heap import Heap
from app.metrics import Metrics

_SWEEP_S: Final = 1.0
_WAVE_S: Final = 0.1
_CLOSE_S: Final = 2.0

# "Service restart": clients come back after a pause, and every client library knows that.
RESTART: Final = 1012

_log = structlog.stdlib.get_logger("shouyin.connections")


class Connection(Protocol):
    """An open socket or stream."""

    # on the event loop's clock
    deadline: float

    def token_expired(self) -> bool:
        """Whether the caller's token is over and something still runs under it."""
        ...

    async def end_operations(self) -> None:
        """Ends what runs, telling the client that the token is over."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Ends the connection; safe to repeat."""
        ...


class Connections:
    """The connections of one process."""

    def __init__(self, metrics: Metrics, *, limit: int, lifetime: timedelta) -> None:
        self._metrics = metrics
        self._limit = limit
        self._lifetime_s = lifetime.total_seconds()
        self._open: set[Connection] = set()
        self._heap = Heap()
        self._ending: set[asyncio.Task[None]] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def has_room(self) -> bool:
        """Whether another connection may be opened now."""
        return not self.draining and len(self._open) < self._limit

    def new_deadline(self) -> float:
        """When a connection opened now has to end: the lifetime, shortened at random by up to a fifth."""
        jitter = random.uniform(0.8, 1.0)  # noqa: S311 — spreads reconnections, guards nothing
        return asyncio.get_running_loop().time() + self._lifetime_s * jitter

    def add(self, connection: Connection) -> None:
        """Takes a connection into account until `remove`."""
        self._open.add(connection)
        self._heap.opened()

    def remove(self, connection: Connection) -> None:
        """Forgets a connection that ended."""
        self._open.discard(connection)
        self._heap.closed()

    async def sweep_forever(self) -> None:
        """Ends what is over; runs as one task of the application for as long as it serves."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            self.sweep()
            self._heap.tidy(len(self._open))

    def sweep(self) -> None:
        """Starts the end of everything that is over now."""
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            if connection.deadline <= now:
                # Asked again only if this attempt comes to nothing.
                connection.deadline = now + 30
                self._start(connection.close(RESTART, "connect again: sockets are renewed from time to time"))
            elif connection.token_expired():
                self._start(connection.end_operations())

    async def drain(self, grace_s: float) -> None:
        """Ends all connections in waves spread over `grace_s` seconds, and accepts no more."""
        self.draining = True
        waiting = list(self._open)
        random.shuffle(waiting)
        waves = max(1, round(grace_s / _WAVE_S))
        size = -(-len(waiting) // waves) if waiting else 0
        _log.info("draining", connections=len(waiting), grace_s=grace_s)
        for start in range(0, len(waiting), max(size, 1)):
            for connection in waiting[start : start + size]:
                self._start(connection.close(RESTART, "the server restarts, connect again"))
            await asyncio.sleep(_WAVE_S)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSE_S)

    def _start(self, ending: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            # A client that stopped reading cannot hold up the others; the kernel ends its connection in time.
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(ending, _CLOSE_S)

        task = asyncio.create_task(bounded())
        self._ending.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("close_failed", error=type(error).__name__)

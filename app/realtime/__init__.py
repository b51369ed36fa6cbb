"""Live results: who watches a row gets its newest state within milliseconds of the commit, whoever wrote it.

    row changes ─trigger─▶ shouyin.change ──▶ relay ──NOTIFY of keys──▶ listener ──▶ hub ──one SELECT──▶ watches
                (same transaction)   (one of all processes)     (one per process)

Nothing here is trusted to arrive: what is lost on the way costs time until the next reconnect or poll, never a state.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broadcaster import Broadcast

from app.db import Database
from app.realtime.hub import Hub, HubOptions, Source, Watch
from app.realtime.listener import CHANGES, ListenBackend, ListenerOptions
from app.realtime.metrics import RealtimeMetrics
from app.realtime.relay import Relay, RelayOptions
from app.realtime.session import keep_running

__all__ = [
    "HubOptions",
    "ListenerOptions",
    "Realtime",
    "RealtimeMetrics",
    "RealtimeOptions",
    "RelayOptions",
    "Source",
    "Watch",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealtimeOptions:
    """How fast and how patient each part is."""

    relay: RelayOptions = field(default_factory=RelayOptions)
    listener: ListenerOptions = field(default_factory=ListenerOptions)
    hub: HubOptions = field(default_factory=HubOptions)
    # start() waits so long for the first LISTEN; without a database it goes on without.
    start_wait_s: float = 5.0


class Realtime:
    """The realtime layer of one process: a relay candidate, the listener and the hub.

    `listen_url` must reach PostgreSQL itself, not a pooler in transaction mode. `database` gets its `on_commit` here.
    """

    def __init__(
        self,
        *,
        database: Database,
        listen_url: str,
        sources: Mapping[str, Source],
        metrics: RealtimeMetrics,
        options: RealtimeOptions | None = None,
    ) -> None:
        self._options = options = options or RealtimeOptions()
        self._database = database
        self._relay = Relay(listen_url, metrics, options.relay)
        self._backend = ListenBackend(listen_url, metrics, options.listener)
        self._broadcast = Broadcast(backend=self._backend)
        self._hub = Hub(sources, metrics, options.hub)
        self._tasks: list[asyncio.Task[None]] = []
        metrics.follow(heartbeat_age_s=lambda: self.heartbeat_age_s, watched_keys=lambda: float(self._hub.watched_keys))

    async def start(self) -> None:
        """Starts every part and waits, for a few seconds at most, until this process hears announcements."""
        self._database.on_commit = self.hint
        await self._broadcast.connect()
        loops = {
            "relay": self._relay.run,
            "announcements": self._take_announcements,
            "reads": self._hub.read_changes,
            "safety poll": self._hub.poll_safely,
        }
        self._tasks = [
            asyncio.create_task(keep_running(name, run), name=f"realtime {name}") for name, run in loops.items()
        ]
        try:
            async with asyncio.timeout(self._options.start_wait_s):
                await self._backend.listening.wait()
        except TimeoutError:
            return

    async def stop(self) -> None:
        """Completes every watch and ends every part; the relay's lock is free for others at once."""
        self.end_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            self._tasks = []
            await self._broadcast.disconnect()

    def hint(self) -> None:
        """Call after a commit that may have changed watched rows. Free of cost; a lost hint costs a poll interval."""
        self._relay.hint()

    def watch(self, subject: str) -> Watch:
        """What exists of a subject, then every later state until it is left: `async with … as rows: async for …`.

        "payment:42" is one row; "order-payments:10" every payment of an order; "order:10" a row of the bound table.
        Newest states only: one that was overtaken may be skipped, none comes twice or after a newer one.
        `await rows.exists()`, before iterating, tells whether there was anything when it began.
        Raises ValueError for an unknown subject.
        """
        return self._hub.watch(subject)

    def on_change(self, kind: str, callback: Callable[[Sequence[int]], None]) -> None:
        """Calls back, in every process, with the ids of changed rows of a kind; with () when any may have changed."""
        self._hub.on_change(kind, callback)

    def read_again(self) -> None:
        """Has everything watched read again: something that no row's announcement tells changed what they are."""
        self._hub.resync()

    @property
    def connected(self) -> bool:
        """Whether this process hears announcements, as far as it knows."""
        return self._backend.listening.is_set()

    @property
    def leading(self) -> bool:
        """Whether this process is the relay."""
        return self._relay.leading

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the listening session last proved alive."""
        return self._backend.heartbeat_age_s

    def end_all(self) -> None:
        """For a shutdown: completes every watch, and every later one at once."""
        self._hub.end_all()

    async def poll_once(self) -> int:
        """Runs the safety poll now; the number of changes that nobody announced, normally 0."""
        return await self._hub.poll_once()

    async def _take_announcements(self) -> None:
        async with self._broadcast.subscribe(CHANGES) as subscriber:
            self._hub.resync()  # after a fault in this loop, what came meanwhile is gone
            while True:
                event: Any = await subscriber.get()
                self._hub.receive(event.message)

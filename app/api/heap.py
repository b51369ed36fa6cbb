"""Open sockets and the garbage collector.

A watcher is a hundred objects that live for an hour. A full round of the collector walks all of them while every
request and every other watcher waits: 0.25 s with 3,000, and under load there was one every few seconds. So sockets
that have been open for a moment are frozen, which takes them out of the rounds; each is walked once instead of in
every round. Reference counts still free them when they close, but for a few objects each that point at each other.
Those are collected once many have closed, by a round over everything.
"""

import gc
from typing import Final

# Sockets opened since the last freeze: that many, and a tenth of those that are open.
_OPENED: Final = 100
# A closed socket leaves some 3 kB.
_CLOSED: Final = 5_000


class Heap:
    """Keeps the sockets of this process out of the collector's rounds. One a process."""

    def __init__(self) -> None:
        self._opened = 0
        self._closed = 0

    def opened(self) -> None:
        """A socket was opened."""
        self._opened += 1

    def closed(self) -> None:
        """A socket was closed."""
        self._closed += 1

    def tidy(self, open_now: int) -> None:
        """Called now and then; costs nothing until enough sockets came or went, then a round of the collector."""
        if self._closed >= max(_CLOSED, open_now):
            gc.unfreeze()
            self._closed = 0
        elif self._opened < _OPENED + open_now // 10:
            return
        self._opened = 0
        gc.collect()
        gc.freeze()

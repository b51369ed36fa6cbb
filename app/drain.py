"""Draining a table of due rows: claim a batch under a lease, handle each by itself, until none is due.

One row that fails must not keep the others waiting: what becomes of it is decided row by row, so that this is the one
place that catches every exception of a handler.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


async def drain(
    claim: Callable[[], Awaitable[Sequence[_T]]],
    handle: Callable[[_T], Awaitable[None]],
    failed: Callable[[_T, Exception], Awaitable[None]],
) -> int:
    """Handles every row that `claim` gives, a batch side by side; returns how many. Safe in any number of workers.

    `failed` decides what becomes of a row whose handler raised. Cancellation and the like pass through."""
    handled = 0
    while batch := await claim():
        outcomes = await asyncio.gather(*(handle(row) for row in batch), return_exceptions=True)
        for row, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception):
                await failed(row, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        handled += len(batch)
    return handled

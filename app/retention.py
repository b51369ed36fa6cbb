"""How long things are kept: payments and the audit for good, what carried them to their end for RETENTION_DAYS.

A run that failed keeps its event, and a notification that was never handled stays: they still wait for somebody.
"""

from datetime import timedelta
from typing import Final

from app.clock import Clock
from app.db import Database

# In this order: an event goes when no run needs it any more.
_FORGETTING: Final = (
    "retention.flow_runs",
    "retention.events",
    "retention.notifications",
    "retention.differences",
)
_BATCH: Final = 1000


async def forget_old_rows(database: Database, clock: Clock, retention: timedelta) -> int:
    """Deletes what is finished and older than `retention`, in small transactions; returns how many rows.

    Safe in any number of workers: each takes what no other is deleting."""
    before = clock.now() - retention
    forgotten = 0
    for statement in _FORGETTING:
        while deleted := len(await database.change_all(statement, before, _BATCH)):
            forgotten += deleted
    return forgotten

"""Agreements that wait for nobody: signings asked about until they are finished or over, ended ones until the provider
has ended them, those in force now and then, because a payer may end one in the provider's app without any notice. One
that was cancelled before it was signed is asked about once more when its link is over.

As with payments a row's `check_at` says when, and claiming moves it ahead by a lease.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.cycles.actions import Cycles, agreements_of
from app.cycles.model import CyclePayment, CyclePaymentStatus, read_cycle
from app.cycles.reports import ASK_ALIVE, LAST_LOOK
from app.db import Database
from app.drain import drain
from app.errors import ProviderError
from app.merchants.accounts import OpenAccount

log = structlog.get_logger(__name__)

_BATCH: Final = 20
# Longer than a question and what may follow it; PROVIDER_TIMEOUT_S ends at 20 s.
_LEASE: Final = timedelta(seconds=90)
_RETRY: Final = timedelta(seconds=15)
_SLOWEST: Final = timedelta(minutes=30)
# What contradicts our row, or what the provider refuses to end, waits for a person.
_RARELY: Final = timedelta(hours=6)


async def check_due_agreements(database: Database, clock: Clock, cycles: Cycles) -> int:
    """Asks about every agreement that is due; returns how many. Safe in any number of workers."""

    async def claim() -> list[CyclePayment]:
        now = clock.now()
        rows = await database.change_all("cycle.claim_due", now, now + _LEASE, _BATCH)
        return [read_cycle(row) for row in rows]

    async def check(cycle: CyclePayment) -> None:
        next_at = await _advance(clock, cycles, cycle)
        await database.change("cycle.check_later", cycle.id, next_at, cycle.check_at, 0)

    async def postpone(cycle: CyclePayment, exc: Exception) -> None:
        expected = isinstance(exc, ProviderError)
        code = exc.code if isinstance(exc, ProviderError) else type(exc).__name__
        log.warning("cycle.check_failed", cycle_payment_id=cycle.id, code=code, exc_info=None if expected else exc)
        next_at = clock.now() + min(_RETRY * (1 << min(cycle.check_attempts, 12)), _SLOWEST)
        await database.change("cycle.check_later", cycle.id, next_at, cycle.check_at, cycle.check_attempts)

    return await drain(claim, check, postpone)


async def _advance(clock: Clock, cycles: Cycles, cycle: CyclePayment) -> datetime | None:
    """One step of one cycle; when to look again, None when there is nothing left to ask.

    What a step itself sets for the next question stands: the lease it was claimed under is gone then."""
    account = await cycles.accounts.open(cycle.merchant_account_id)
    if cycle.status is CyclePaymentStatus.PENDING and cycle.action is None and not cycle.ending:
        # Our process ended between the row and the link.
        await cycles.offer(cycle, account)
        return clock.now() + _RETRY
    applied = await (cycles.end(cycle, account) if cycle.ending else cycles.ask(cycle, account))
    now = clock.now()
    if applied.differences:
        return now + _RARELY
    current = applied.cycle
    if current is None or not current.live:
        return now + _RETRY if current is not None and current.ending else None
    if current.ending:
        return now + _RETRY
    if current.status is CyclePaymentStatus.PENDING:
        return _next_question(cycle, account, now)
    return now + ASK_ALIVE


def _next_question(cycle: CyclePayment, account: OpenAccount, now: datetime) -> datetime:
    """The first moment of the provider's schedule that lies ahead, but not after the last look at its end."""
    schedule = agreements_of(account).query_schedule
    age = now - cycle.created_at
    ahead = next((at for at in schedule if at > age), age + (schedule[-1] - schedule[-2]))
    return min(cycle.created_at + ahead, max(cycle.expires_at + LAST_LOOK, now))

"""Refunds that wait for nobody: asked about on their provider's schedule until they are known, for days if need be.

As with payments a row's `check_at` says when, claiming moves it ahead by a lease, and a refund the provider does not
know is sent once more under its own number.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.db import Database
from app.drain import drain
from app.errors import ProviderError
from app.providers.contract import ReportedRefund
from app.refunds.actions import Refunds, next_check
from app.refunds.model import Refund, read_refund

log = structlog.get_logger(__name__)

_BATCH: Final = 20
# Longer than a question and the request after it; PROVIDER_TIMEOUT_S ends at 20 s.
_LEASE: Final = timedelta(seconds=90)
_RETRY: Final = timedelta(seconds=15)
_SLOWEST: Final = timedelta(minutes=30)
# What contradicts our row waits for a person.
_RARELY: Final = timedelta(hours=6)


async def check_due_refunds(database: Database, clock: Clock, refunds: Refunds) -> int:
    """Asks about every refund that is due; returns how many. Safe in any number of workers."""

    async def claim() -> list[Refund]:
        now = clock.now()
        rows = await database.change_all("refund.claim_due", now, now + _LEASE, _BATCH)
        return [read_refund(row) for row in rows]

    async def check(refund: Refund) -> None:
        next_at = await _advance(clock, refunds, refund)
        attempts = refund.check_attempts if refund.checking else 0
        await database.change("refund.check_later", refund.id, next_at, refund.check_at, attempts)

    async def postpone(refund: Refund, exc: Exception) -> None:
        expected = isinstance(exc, ProviderError)
        code = exc.code if isinstance(exc, ProviderError) else type(exc).__name__
        log.warning("refund.check_failed", refund_id=refund.id, code=code, exc_info=None if expected else exc)
        next_at = _retry_at(refund, clock.now())
        await database.change("refund.check_later", refund.id, next_at, refund.check_at, refund.check_attempts)

    return await drain(claim, check, postpone)


async def _advance(clock: Clock, refunds: Refunds, refund: Refund) -> datetime | None:
    """One step of one refund; when to look again, None when there is nothing left to ask."""
    account = await refunds.accounts.open(refund.merchant_account_id)
    applied = await refunds.ask(refund, account, correlation_id=refund.correlation_id)
    now = clock.now()
    current = applied.refund
    if current is None or current.final:
        return None
    if applied.differences:
        return now + _RARELY
    if applied.reported is ReportedRefund.NOT_FOUND:
        # Our process ended, or the request was lost, between the row and the provider. The same number again gives
        # nothing back twice. One that was taken before and is gone now is strange, and treated the same.
        await refunds.create_again(refund, account)
        return _retry_at(refund, now)
    return next_check(account.provider, refund, now)


def _retry_at(refund: Refund, now: datetime) -> datetime:
    """When to ask again while there is no usable answer: ever more slowly, without end."""
    return now + min(_RETRY * (1 << min(refund.check_attempts, 12)), _SLOWEST)

"""Payments that wait for nobody: asked about on their provider's schedule, ended when their time is over.

A row's `check_at` says when it is asked next. Claiming moves it ahead by a lease, so that two workers never ask at once
and a worker that dies is followed by another. Nothing ends here that its provider has not ended first.
"""

from datetime import datetime, timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.db import Database
from app.drain import drain
from app.errors import ProviderError
from app.merchants.accounts import OpenAccount
from app.payments.actions import Payments
from app.payments.model import Payment, read_payment
from app.providers.contract import Provider, ReportedStatus

log = structlog.get_logger(__name__)

_BATCH: Final = 20
# Longer than the slowest question, its close and the question after it.
_LEASE: Final = timedelta(seconds=90)
# After the schedule is used up, and while a provider does not answer.
_SLOWEST: Final = timedelta(minutes=10)
_RETRY: Final = timedelta(seconds=15)


async def check_due_payments(database: Database, clock: Clock, payments: Payments) -> int:
    """Asks about every payment that is due; returns how many. Safe in any number of workers."""

    async def claim() -> list[Payment]:
        now = clock.now()
        rows = await database.change_all("payment.claim_due", now, now + _LEASE, _BATCH)
        return [read_payment(row) for row in rows]

    async def check(payment: Payment) -> None:
        account = await payments.accounts.open(payment.merchant_account_id)
        next_at = await _advance(clock, payments, payment, account)
        await database.change("payment.check_later", payment.id, next_at)

    async def postpone(payment: Payment, exc: Exception) -> None:
        # Still unknown: ask again, ever more slowly, for as long as it takes.
        next_at = clock.now() + min(_RETRY * 2 ** min(payment.check_attempts, 6), _SLOWEST)
        expected = isinstance(exc, ProviderError)
        code = exc.code if isinstance(exc, ProviderError) else type(exc).__name__
        log.warning("payment.check_failed", payment_id=payment.id, code=code, exc_info=None if expected else exc)
        await database.change("payment.check_later", payment.id, next_at)

    return await drain(claim, check, postpone)


async def _advance(clock: Clock, payments: Payments, payment: Payment, account: OpenAccount) -> datetime | None:
    """One step of one payment; when to look again, None when there is nothing left to ask."""
    if payment.status == "CLOSED":
        await payments.ask(payment, account, correlation_id=payment.correlation_id)
        return None
    if clock.now() >= payment.expires_at:
        ended = await payments.ask_to_close(payment, account, correlation_id=payment.correlation_id)
        return ended.check_at
    report = await payments.ask(payment, account, correlation_id=payment.correlation_id)
    if payment.checking and report.status in (ReportedStatus.NOT_FOUND, ReportedStatus.PENDING):
        # Our process ended, or the reply was lost, between the row and the answer. The same number again opens no
        # second payment, and gives the page its next step.
        sent = await payments.ask_to_create(payment, account)
        return sent.check_at
    return next_check(account.provider, payment, clock.now())


def next_check(provider: Provider, payment: Payment, now: datetime) -> datetime:
    """The first moment of the provider's schedule that lies ahead, but not after the payment's end."""
    schedule = provider.query_schedule
    ahead = (payment.created_at + age for age in schedule if payment.created_at + age > now)
    return min(next(ahead, now + _SLOWEST), max(payment.expires_at, now))

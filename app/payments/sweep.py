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
# Longer than the slowest question, its close and the question after it; PROVIDER_TIMEOUT_S ends at 20 s.
_LEASE: Final = timedelta(seconds=90)
# While a provider does not answer: again soon, then ever more slowly.
_RETRY: Final = timedelta(seconds=15)
_SLOWEST: Final = timedelta(minutes=10)
# What has been over for long, or contradicts our row, waits for a person; the provider is asked a few times a day.
_LONG_OVER: Final = timedelta(days=3)
_RARELY: Final = timedelta(hours=6)


async def check_due_payments(database: Database, clock: Clock, payments: Payments) -> int:
    """Asks about every payment that is due; returns how many. Safe in any number of workers."""

    async def claim() -> list[Payment]:
        now = clock.now()
        rows = await database.change_all("payment.claim_due", now, now + _LEASE, _BATCH)
        return [read_payment(row) for row in rows]

    async def check(payment: Payment) -> None:
        account = await payments.accounts.open(payment.merchant_account_id)
        next_at = await _advance(clock, payments, payment, account)
        # While the outcome of its creation is unknown no answer counts as one.
        attempts = payment.check_attempts if payment.checking else 0
        await database.change("payment.check_later", payment.id, next_at, payment.check_at, attempts)

    async def postpone(payment: Payment, exc: Exception) -> None:
        expected = isinstance(exc, ProviderError)
        code = exc.code if isinstance(exc, ProviderError) else type(exc).__name__
        log.warning("payment.check_failed", payment_id=payment.id, code=code, exc_info=None if expected else exc)
        next_at = retry_at(payment, clock.now())
        await database.change("payment.check_later", payment.id, next_at, payment.check_at, payment.check_attempts)

    return await drain(claim, check, postpone)


async def _advance(clock: Clock, payments: Payments, payment: Payment, account: OpenAccount) -> datetime | None:
    """One step of one payment; when to look again, None when there is nothing left to ask.

    What a step itself sets for the next question stands: the lease it was claimed under is gone then."""
    applied = await payments.ask(payment, account, correlation_id=payment.correlation_id)
    now = clock.now()
    current = applied.payment
    if payment.status == "CLOSED" and applied.reported is ReportedStatus.PENDING:
        # Somebody opened the page after it was closed here, and the provider has not ended it yet.
        return now + _RARELY
    if current is None or current.final:
        return None
    if applied.differences:
        return now + _RARELY
    if now >= payment.expires_at:
        return (await payments.close_unpaid(payment, account, correlation_id=payment.correlation_id)).check_at
    if payment.checking and payment.cycle_payment_id is not None:
        # The way to sign and pay is handed out by its cycle, which repeats that by itself.
        return retry_at(payment, now)
    if payment.checking and applied.reported in (ReportedStatus.NOT_FOUND, ReportedStatus.PENDING):
        # Our process ended, or the reply was lost, between the row and the answer. The same number again opens no
        # second payment, and gives the page its next step.
        await payments.create_again(payment, account, applied.reported)
        return retry_at(payment, now)
    return next_check(account.provider, payment, now)


def retry_at(payment: Payment, now: datetime) -> datetime:
    """When to ask again about a payment whose provider gives no usable answer: ever more slowly, without end."""
    slowest = _SLOWEST if now < payment.expires_at + _LONG_OVER else _RARELY
    return now + min(_RETRY * (1 << min(payment.check_attempts, 12)), slowest)


def next_check(provider: Provider, payment: Payment, now: datetime) -> datetime:
    """The first moment of the provider's schedule that lies ahead, but not after the payment's end.

    Past the schedule its last gap repeats."""
    schedule = provider.query_schedule
    age = now - payment.created_at
    ahead = next((at for at in schedule if at > age), age + (schedule[-1] - schedule[-2]))
    return min(payment.created_at + ahead, max(payment.expires_at, now))

"""The inbox. A provider reads its acknowledgement only after the notification is committed here; the worker applies it.

receive:  bytes → verified → one row per provider event (commit) → acknowledged → doorbell
drain:    claim → report applied, repeats announced, row marked, in one transaction
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from app.clock import Clock
from app.db import Database, Row, storable
from app.doorbell import Doorbell
from app.drain import drain
from app.errors import NotFound
from app.merchants.accounts import MerchantAccounts, OpenAccount
from app.metrics import Metrics
from app.payments.reports import apply_within
from app.providers.contract import (
    Acknowledgement,
    Notification,
    NotificationRefused,
    PaymentReport,
    Rejected,
    ReportedStatus,
)

log = structlog.get_logger(__name__)

_BATCH: Final = 20
_LEASE: Final = timedelta(seconds=30)
_SLOWEST: Final = timedelta(minutes=10)
# A provider repeats a notice some fifteen times. Whoever replays one ten thousand times gets it counted, and the flow
# called this often in all.
_MOST_DELIVERIES: Final = 100


class Inbox:
    """Notifications of this deployment. One a process."""

    def __init__(
        self, *, database: Database, accounts: MerchantAccounts, clock: Clock, bell: Doorbell, metrics: Metrics
    ) -> None:
        self._db = database
        self._accounts = accounts
        self._clock = clock
        self._bell = bell
        self._metrics = metrics

    async def receive(
        self,
        provider: str,
        account_id: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        correlation_id: str,
        tail: str = "",
    ) -> Acknowledgement:
        """Verifies the received bytes, commits them once, and returns what the provider must read.

        Header names are lower case; `tail` is what followed the account in the path.
        Raises NotFound for an account that is not there. A failure to commit escapes, so that the provider repeats."""
        account = await self._accounts.open(account_id)
        name = account.provider.name
        if name.lower() != provider.lower():
            raise NotFound(f"merchant account {account_id} is not one of {provider}")
        try:
            notification = await self._read(account, headers, body, tail)
        except NotificationRefused as exc:
            self._metrics.notifications.labels(name, exc.reason).inc()
            log.warning("notification.refused", merchant_account_id=account_id, reason=exc.reason)
            return account.provider.acknowledge(account.account, accepted=False)
        row = await self._db.change(
            "notification.receive", name, account_id, notification.event_key, _report_json(notification.report), body,
            correlation_id, self._clock.now(),
        )  # fmt: skip
        assert row is not None
        self._metrics.notifications.labels(name, "accepted" if row["received_count"] == 1 else "repeated").inc()
        self._bell.ring("notifications")
        return account.provider.acknowledge(account.account, accepted=True)

    async def _read(self, account: OpenAccount, headers: Mapping[str, str], body: bytes, tail: str) -> Notification:
        """Verified with the account as kept here and, when that fails, as the database has it now: a key that was
        changed a moment ago in another process must not cost a notification."""
        try:
            return await account.provider.read_notification(account.account, headers, body, tail=tail)
        except NotificationRefused as exc:
            # Anybody can send what is not signed: it may cost us a look at one number, not the parsing of keys.
            if exc.reason != "signature" or await self._accounts.is_current(account):
                raise
            fresh = await self._accounts.open(account.id, version=account.version + 1)
            return await fresh.provider.read_notification(fresh.account, headers, body, tail=tail)

    async def drain(self) -> int:
        """Applies every waiting notification; returns how many. Safe in any number of workers."""

        async def claim() -> list[Row]:
            now = self._clock.now()
            return list(await self._db.change_all("notification.claim_due", now, now + _LEASE, _BATCH))

        handled = await drain(claim, self._apply, self._postpone)
        if handled:
            self._bell.ring("events")
        return handled

    async def _apply(self, claimed: Row) -> None:
        """One notification with all its repeats so far: applied and marked in one transaction."""
        account = await self._accounts.open(claimed["merchant_account_id"])
        now = self._clock.now()
        async with self._db.transaction() as tx:
            row = await tx.one("notification.lock", claimed["id"])
            if row is None:
                return
            applied = await apply_within(
                tx, now, account, _read_report(row["report"]), correlation_id=row["correlation_id"],
                deliveries=min(row["received_count"], _MOST_DELIVERIES) - min(row["handled_count"], _MOST_DELIVERIES),
            )  # fmt: skip
            await tx.one("notification.done", claimed["id"], row["received_count"])
        log.info(
            "notification.applied",
            notification_id=claimed["id"],
            correlation_id=applied.payment.correlation_id if applied.payment else row["correlation_id"],
            received_under=row["correlation_id"],
            payment_id=applied.payment.id if applied.payment else None,
            changed=applied.changed,
        )
        for field in applied.differences:
            self._metrics.differences.labels(field).inc()

    async def _postpone(self, claimed: Row, exc: Exception) -> None:
        """Nothing is swallowed: the row stays, with the reason, and is tried again ever more slowly."""
        log.error("notification.failed", notification_id=claimed["id"], exc_info=exc)
        due_at = self._clock.now() + min(timedelta(seconds=2 ** min(claimed["attempts"], 12)), _SLOWEST)
        words = storable(f"{type(exc).__name__}: {exc}")[:2000]
        await self._db.change("notification.postpone", claimed["id"], due_at, words)


def _report_json(report: PaymentReport) -> dict[str, Any]:
    return {name: value for name, value in asdict(report).items() if value is not None}


def _read_report(stored: Mapping[str, Any]) -> PaymentReport:
    fields = dict(stored)
    fields["status"] = ReportedStatus(fields["status"])
    if fields.get("paid_at") is not None:
        fields["paid_at"] = datetime.fromisoformat(fields["paid_at"])
    if fields.get("failure") is not None:
        fields["failure"] = Rejected(**fields["failure"])
    return PaymentReport(**fields)

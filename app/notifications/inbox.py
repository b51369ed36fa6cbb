"""The inbox. A provider reads its acknowledgement only after the notification is committed here; the worker applies it.

receive:  bytes → verified → one row per provider event (commit) → acknowledged → doorbell
drain:    claim → report applied, repeats announced, row marked, in one transaction
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any, Final

import asyncpg
import structlog

from app.clock import Clock
from app.cycles.model import CyclePayment
from app.cycles.reports import apply_agreement_within
from app.db import Database, Row, Transaction, storable
from app.doorbell import Doorbell
from app.drain import drain
from app.errors import NotFound
from app.merchants.accounts import MerchantAccounts, OpenAccount
from app.metrics import Metrics
from app.payments.model import Payment
from app.payments.reports import apply_within
from app.providers.contract import (
    Acknowledgement,
    AgreementReport,
    Notification,
    NotificationRefused,
    PaymentReport,
    RefundReport,
    Rejected,
    ReportedAgreement,
    ReportedRefund,
    ReportedStatus,
)
from app.refunds.model import Refund
from app.refunds.reports import apply_refund_within

log = structlog.get_logger(__name__)

_BATCH: Final = 20
_LEASE: Final = timedelta(seconds=30)
_SLOWEST: Final = timedelta(minutes=10)
# A provider repeats a notice some fifteen times. Whoever replays one ten thousand times gets it counted, and the flow
# called this often in all.
_MOST_DELIVERIES: Final = 100
# Refusals that a key would explain which was changed a moment ago, in another process.
_OTHER_KEYS: Final = ("signature", "decryption")


class Inbox:
    """Notifications of this deployment. One a process."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: MerchantAccounts,
        clock: Clock,
        bell: Doorbell,
        metrics: Metrics,
        notice_days: int,
    ) -> None:
        self._db = database
        self._accounts = accounts
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._notice_days = notice_days

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
        try:
            row = await self._db.change(
                "notification.receive", name, await self._account_of(account, notification), notification.event_key,
                _report_json(notification), body, correlation_id, self._clock.now(),
            )  # fmt: skip
        except asyncpg.ForeignKeyViolationError as exc:
            # Cleared a moment ago, when payments were turned off.
            self._accounts.forget([account_id])
            raise NotFound(f"merchant account {account_id} does not exist") from exc
        assert row is not None
        self._metrics.notifications.labels(name, "accepted" if row["received_count"] == 1 else "repeated").inc()
        self._bell.ring("notifications")
        return account.provider.acknowledge(account.account, accepted=True)

    async def _account_of(self, account: OpenAccount, notification: Notification) -> int:
        """The account a notification is about. What a provider tells of an agreement by itself comes to one address of
        the whole application, which may serve several merchants: it is compared with the agreement's own account."""
        report = notification.report
        if not isinstance(report, AgreementReport):
            return account.id
        row = await self._db.one(
            "cycle.account_of_numbers", report.external_agreement_no, report.agreement_no, account.provider.name
        )
        return account.id if row is None else int(row["merchant_account_id"])

    async def _read(self, account: OpenAccount, headers: Mapping[str, str], body: bytes, tail: str) -> Notification:
        """Verified with the account as kept here and, when that fails, as the database has it now: a key that was
        changed a moment ago in another process must not cost a notification."""
        try:
            return await account.provider.read_notification(account.account, headers, body, tail=tail)
        except NotificationRefused as exc:
            # Anybody can send what is not signed: it may cost us a look at one number, not the parsing of keys.
            if exc.reason not in _OTHER_KEYS or await self._accounts.is_current(account):
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
            differences = await self._take(tx, now, account, row)
            await tx.one("notification.done", claimed["id"], row["received_count"])
        for field in differences:
            self._metrics.differences.labels(field).inc()

    async def _take(self, tx: Transaction, now: datetime, account: OpenAccount, row: Row) -> Sequence[str]:
        """What the notification says is applied to the payment or the refund it is about; the fields that disagree."""
        report = _read_report(row["report"])
        deliveries = min(row["received_count"], _MOST_DELIVERIES) - min(row["handled_count"], _MOST_DELIVERIES)
        said = {"correlation_id": row["correlation_id"], "deliveries": deliveries}
        about: Payment | Refund | CyclePayment | None
        if isinstance(report, AgreementReport):
            agreed = await apply_agreement_within(
                tx, now, account, report, notice_days=self._notice_days, deliveries=deliveries
            )
            about, changed, differences = agreed.cycle, agreed.changed, agreed.differences
        elif isinstance(report, RefundReport):
            refunded = await apply_refund_within(tx, now, account, report, **said)
            about, changed, differences = refunded.refund, refunded.changed, refunded.differences
        else:
            paid = await apply_within(tx, now, account, report, **said)
            about, changed, differences = paid.payment, paid.changed, paid.differences
            if row["report"].get("refund_hint") is not None:
                await tx.one("refund.ask_now", row["report"]["refund_hint"], now)
        log.info(
            "notification.applied",
            notification_id=row["id"],
            correlation_id=about.correlation_id if about else row["correlation_id"],
            received_under=row["correlation_id"],
            about=type(report).__name__,
            row_id=about.id if about else None,
            changed=changed,
        )
        return differences

    async def _postpone(self, claimed: Row, exc: Exception) -> None:
        """Nothing is swallowed: the row stays, with the reason, and is tried again ever more slowly."""
        log.error("notification.failed", notification_id=claimed["id"], exc_info=exc)
        due_at = self._clock.now() + min(timedelta(seconds=2 ** min(claimed["attempts"], 12)), _SLOWEST)
        words = storable(f"{type(exc).__name__}: {exc}")[:2000]
        await self._db.change("notification.postpone", claimed["id"], due_at, words)


# How a stored report says which kind it is; rows of the first release say nothing and are about payments.
_KIND: Final = "about"
_REFUND: Final = "refund"
_AGREEMENT: Final = "agreement"
_INSTANTS: Final = ("paid_at", "refunded_at", "signed_at", "ended_at", "valid_until")


def _report_json(notification: Notification) -> dict[str, Any]:
    report = notification.report
    stored = {name: value for name, value in asdict(report).items() if value is not None}
    if isinstance(report, RefundReport):
        stored[_KIND] = _REFUND
    elif isinstance(report, AgreementReport):
        stored[_KIND] = _AGREEMENT
    if notification.refund_hint is not None:
        stored["refund_hint"] = notification.refund_hint
    return stored


def _read_report(stored: Mapping[str, Any]) -> PaymentReport | RefundReport | AgreementReport:
    fields = dict(stored)
    kind = fields.pop(_KIND, None)
    fields.pop("refund_hint", None)
    for name in _INSTANTS:
        if fields.get(name) is not None:
            fields[name] = datetime.fromisoformat(fields[name])
    if fields.get("next_deduction_on") is not None:
        fields["next_deduction_on"] = date.fromisoformat(fields["next_deduction_on"])
    if fields.get("failure") is not None:
        fields["failure"] = Rejected(**fields["failure"])
    if kind == _AGREEMENT:
        return AgreementReport(**fields | {"status": ReportedAgreement(fields["status"])})
    if kind == _REFUND:
        return RefundReport(**fields | {"status": ReportedRefund(fields["status"])})
    return PaymentReport(**fields | {"status": ReportedStatus(fields["status"])})

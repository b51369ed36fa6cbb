"""What a provider's word does to a refund: the one door for notifications, query answers and direct answers.

report ──▶ our row? ──no──▶ recorded, the flow learns "not found"
             │yes
             ▼
    account, number of the payment, amount as ours? ──no──▶ recorded as a difference, nothing changes
             │yes
             ▼
    guarded update under the payment's lock, the reserve with it
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from app.clock import Clock
from app.db import Database, Row, Transaction
from app.errors import ProviderRejected
from app.merchants.accounts import OpenAccount
from app.payments.model import Failure, failure_json, failure_of
from app.providers.contract import RefundReport, ReportedRefund
from app.refunds.model import Refund, read_refund

log = structlog.get_logger(__name__)

# A provider that reports a failed refund without a reason.
_FAILED: Final = Failure(
    code=ProviderRejected.code,
    provider_code=None,
    provider_message=None,
    explanation="the provider reports that the refund failed and the money stayed with you; ask for a new refund",
    explanation_zh="退款失败，资金未退出，请重新发起退款",
)


@dataclass(frozen=True, slots=True)
class AppliedRefund:
    """What a report said and did. `refund` is None when the number is not ours; `differences` are the fields that
    disagree."""

    reported: ReportedRefund
    refund: Refund | None
    changed: bool
    differences: tuple[str, ...] = ()


async def apply_refund_report(
    database: Database,
    clock: Clock,
    account: OpenAccount,
    report: RefundReport,
    *,
    correlation_id: str | None,
    check_at: datetime | None = None,
) -> AppliedRefund:
    """Brings a refund to the state its provider reports; safe to repeat, in any order.

    `check_at` is when a refund is asked about next that the provider has taken. Opens its own transaction."""
    async with database.transaction() as tx:
        return await apply_refund_within(
            tx, clock.now(), account, report, correlation_id=correlation_id, deliveries=1, check_at=check_at
        )


async def apply_refund_within(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: RefundReport,
    *,
    correlation_id: str | None,
    deliveries: int,
    check_at: datetime | None = None,
) -> AppliedRefund:
    """`apply_refund_report` inside the caller's transaction; `deliveries` as with payments."""
    number = report.out_refund_no
    payment = None if number is None else await tx.one("refund.lock_payment", number)
    row = None if payment is None else await tx.one("refund.lock", number)
    if payment is None or row is None:
        return await _not_ours(tx, now, account, report, correlation_id, deliveries)
    refund = read_refund(row)
    correlation_id = refund.correlation_id or correlation_id
    differences = list(_differences(refund, payment, account, report))
    changed = None
    if not differences:
        changed = await _transition(tx, now, refund, report, check_at or refund.check_at)
        if changed is None and report.status is ReportedRefund.REFUNDED and refund.status == "FAILED":
            # It cannot be: the payment's money is spoken for by other refunds.
            differences = [("refunded_fen", "at most what was paid", f"{report.amount_fen} more")]
    if differences:
        return await _record_differences(tx, now, account, report, refund, differences, correlation_id)
    current = changed or refund
    ended = changed is not None and changed.status != refund.status and changed.final
    repeats = deliveries - (1 if ended else 0) if report.source == "notification" and current.final else 0
    for _ in range(repeats):
        await tx.one(
            "refund.append_event", "refund.repeated", current.payment_id, current.id, current.order_id,
            {"reported": report.status}, correlation_id, now,
        )  # fmt: skip
    return AppliedRefund(report.status, current, changed=ended or repeats > 0)


async def _transition(
    tx: Transaction, now: datetime, refund: Refund, report: RefundReport, check_at: datetime | None
) -> Refund | None:
    """The guarded update a report asks for; None when it changes nothing."""
    match report.status:
        case ReportedRefund.REFUNDED if refund.status != "REFUNDED":
            statement = "refund.succeed_late" if refund.status == "FAILED" else "refund.succeed"
            row = await tx.one(statement, refund.id, report.provider_refund_id, report.refunded_at, now)
        case ReportedRefund.FAILED if not refund.final:
            failure = failure_of(report.failure) if report.failure is not None else _FAILED
            row = await tx.one("refund.fail", refund.id, failure_json(failure), now, ["CREATED", "PENDING"])
        case ReportedRefund.PENDING if not refund.final:
            obstacle = None if report.failure is None else failure_json(failure_of(report.failure))
            row = await tx.one("refund.accept", refund.id, report.provider_refund_id, now, check_at, obstacle)
        case _:
            return None
    return None if row is None else read_refund(row)


def _differences(
    refund: Refund, payment: Row, account: OpenAccount, report: RefundReport
) -> Iterator[tuple[str, str, str]]:
    """(field, ours, theirs) for everything that disagrees; what the message does not carry cannot."""
    if refund.merchant_account_id != account.id:
        yield "merchant_account", str(refund.merchant_account_id), str(account.id)
    for claim, reported in report.account_claims.items():
        expected = account.account.expected_claims.get(claim)
        # As with payments: the application it was opened under stays right.
        if expected is not None and reported not in expected and reported != payment["app_id"]:
            yield claim, " or ".join(sorted(expected)), reported
    if report.out_trade_no != payment["out_trade_no"]:
        yield "out_trade_no", payment["out_trade_no"], report.out_trade_no
    if report.amount_fen is not None and report.amount_fen != refund.amount_fen:
        yield "refund_amount_fen", str(refund.amount_fen), str(report.amount_fen)


async def _record_differences(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: RefundReport,
    refund: Refund,
    differences: list[tuple[str, str, str]],
    correlation_id: str | None,
) -> AppliedRefund:
    for field, expected, reported in differences:
        seen = await tx.one(
            "payment.record_difference", account.id, refund.payment_id, report.out_trade_no, field, expected, reported,
            report.source, now,
        )  # fmt: skip
        if seen is not None and seen["seen"] == 1:
            details = {"field": field, "source": report.source}
            await tx.one(
                "refund.append_event", "refund.mismatch", refund.payment_id, refund.id, refund.order_id, details,
                correlation_id, now,
            )  # fmt: skip
    fields = tuple(field for field, _, _ in differences)
    log.error("refund.mismatch", refund_id=refund.id, fields=fields, source=report.source)
    return AppliedRefund(report.status, refund, changed=False, differences=fields)


async def _not_ours(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: RefundReport,
    correlation_id: str | None,
    deliveries: int,
) -> AppliedRefund:
    """A true message about a refund we never asked for, perhaps made in the provider's own console. Recorded; the flow
    hears of it with refund_found false."""
    number = report.out_refund_no or report.provider_refund_id or "unnamed"
    payment = await tx.one("payment.lock_by_number", report.out_trade_no)
    payment_id = None if payment is None else payment["id"]
    await tx.one(
        "payment.record_difference", account.id, payment_id, report.out_trade_no, "out_refund_no", "one of ours",
        number, report.source, now,
    )  # fmt: skip
    if report.source == "notification":
        details = {"out_refund_no": number, "out_trade_no": report.out_trade_no, "reported": report.status}
        for _ in range(deliveries):
            await tx.one("refund.append_event", "refund.unknown", None, None, None, details, correlation_id, now)
    log.error("refund.unknown_number", merchant_account_id=account.id, source=report.source)
    return AppliedRefund(report.status, None, changed=report.source == "notification", differences=("out_refund_no",))

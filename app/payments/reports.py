"""What a provider's word does to a payment: the one door for notifications and query answers.

report ──▶ our row? ──no──▶ recorded, the flow learns "not found"
             │yes
             ▼
    account, currency, amount, payer as ours? ──no──▶ recorded as a difference, nothing changes
             │yes
             ▼
    guarded update: a success always wins; nothing else changes a final state
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from app.clock import Clock
from app.db import Database, Transaction
from app.errors import ProviderRejected
from app.merchants.accounts import OpenAccount
from app.payments.model import Failure, Payment, failure_json, failure_of, read_payment
from app.providers.contract import PaymentReport, ReportedStatus

log = structlog.get_logger(__name__)

# A provider that reports a failure without a reason.
_FAILED: Final = Failure(
    code=ProviderRejected.code,
    provider_code=None,
    provider_message=None,
    explanation="the provider reports that the payment failed; create a new one",
    explanation_zh="支付失败，请重新发起支付",
)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a report said and did. `payment` is None when the number is not ours; `differences` are the fields that
    disagree."""

    reported: ReportedStatus
    payment: Payment | None
    changed: bool
    differences: tuple[str, ...] = ()


async def apply_payment_report(
    database: Database, clock: Clock, account: OpenAccount, report: PaymentReport, *, correlation_id: str | None
) -> Applied:
    """Brings a payment to the state its provider reports; safe to repeat, in any order.

    `report.amount_fen` is what the payer paid, before fees. Changes nothing and records a difference when account,
    currency, amount or payer are not ours. Opens its own transaction; never calls the provider.
    """
    async with database.transaction() as tx:
        return await apply_within(tx, clock.now(), account, report, correlation_id=correlation_id, deliveries=1)


async def apply_within(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: PaymentReport,
    *,
    correlation_id: str | None,
    deliveries: int,
) -> Applied:
    """`apply_payment_report` inside the caller's transaction.

    `deliveries` is how many notifications said this: the first may change the payment, each further one (and each that
    changes nothing about a final payment) reaches the flow as already processed."""
    row = await tx.one("payment.lock_by_number", report.out_trade_no)
    if row is None:
        return await _not_ours(tx, now, account, report, correlation_id, deliveries)
    payment = read_payment(row)
    # One id from the request that made the payment to the last flow; the notification's own is in its row and its log.
    correlation_id = payment.correlation_id or correlation_id
    differences = list(_differences(payment, account, report))
    if differences:
        return await _record_differences(tx, now, account, report, payment, differences, correlation_id)
    changed = await _transition(tx, now, payment, report)
    if changed is None and payment.status == "SUCCESSFUL" and report.refunded_fen:
        await _notice_foreign_refund(tx, now, account, payment, report)
    repeats = deliveries - (1 if changed is not None else 0) if report.source == "notification" else 0
    current = changed or payment
    if current.final:
        for _ in range(repeats):
            details = {"reported": report.status}
            await tx.one(
                "payment.append_event", "payment.repeated", payment.id, payment.order_id, details, correlation_id, now
            )
    return Applied(report.status, current, changed=changed is not None or (repeats > 0 and current.final))


async def _transition(tx: Transaction, now: datetime, payment: Payment, report: PaymentReport) -> Payment | None:
    """The guarded update a report asks for; None when it changes nothing."""
    match report.status:
        case ReportedStatus.SUCCESSFUL if payment.status != "SUCCESSFUL":
            # The surplus of an order paid twice is seen by the second.
            await tx.one("order.take_turns", payment.binding_id, payment.order_id)
            row = await tx.one(
                "payment.succeed",
                payment.id,
                report.amount_fen,
                report.transaction_id,
                report.payer_id,
                report.paid_at,
                now,
                report.refunded_fen,
            )
        case ReportedStatus.CLOSED if not payment.final:
            row = await tx.one("payment.close", payment.id, now, None)
        case ReportedStatus.FAILED if not payment.final:
            failure = failure_of(report.failure) if report.failure is not None else _FAILED
            row = await tx.one("payment.fail", payment.id, failure_json(failure), now, ["CREATED", "PENDING"])
        case _:
            return None
    return None if row is None else read_payment(row)


async def _notice_foreign_refund(
    tx: Transaction, now: datetime, account: OpenAccount, payment: Payment, report: PaymentReport
) -> None:
    """The provider gave back more than we asked for: somebody used its own console. What is left to refund shrinks, and
    a person is told; our own refunds have reports of their own and are not counted twice."""
    refunded_fen = report.refunded_fen or 0
    if refunded_fen <= payment.refunded_amount_fen + payment.reserved_refund_fen:
        return
    if await tx.one("payment.refunded_elsewhere", payment.id, refunded_fen, now) is not None:
        known = str(payment.refunded_amount_fen + payment.reserved_refund_fen)
        await tx.one(
            "payment.record_difference", account.id, payment.id, report.out_trade_no, "refunded_fen", known,
            str(refunded_fen), report.source, now,
        )  # fmt: skip
        log.error("payment.refunded_elsewhere", payment_id=payment.id, refunded_fen=refunded_fen)


def _differences(payment: Payment, account: OpenAccount, report: PaymentReport) -> Iterator[tuple[str, str, str]]:
    """(field, ours, theirs) for everything that disagrees. An identifier the message does not carry cannot disagree,
    but a success must name its amount."""
    if payment.merchant_account_id != account.id:
        yield "merchant_account", str(payment.merchant_account_id), str(account.id)
    for claim, reported in report.account_claims.items():
        expected = account.account.expected_claims.get(claim)
        # The application it was opened under stays right when the account has lost it since.
        if expected is not None and reported not in expected and reported != payment.app_id:
            yield claim, " or ".join(sorted(expected)), reported
    if report.currency != "CNY":
        yield "currency", "CNY", report.currency
    if report.status is ReportedStatus.SUCCESSFUL and report.amount_fen is None:
        yield "amount_fen", str(payment.amount_fen), "none"
    elif report.amount_fen is not None and report.amount_fen != payment.amount_fen:
        yield "amount_fen", str(payment.amount_fen), str(report.amount_fen)
    if payment.openid is not None and report.payer_id is not None and payment.openid != report.payer_id:
        yield "payer", "another payer", "another payer"
    if payment.transaction_id is not None and report.transaction_id not in (None, payment.transaction_id):
        yield "transaction_id", payment.transaction_id, str(report.transaction_id)


async def _record_differences(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: PaymentReport,
    payment: Payment,
    differences: list[tuple[str, str, str]],
    correlation_id: str | None,
) -> Applied:
    for field, expected, reported in differences:
        seen = await tx.one(
            "payment.record_difference", account.id, payment.id, report.out_trade_no, field, expected, reported,
            report.source, now,
        )  # fmt: skip
        if seen is not None and seen["seen"] == 1:
            details = {"field": field, "source": report.source}
            await tx.one(
                "payment.append_event", "payment.mismatch", payment.id, payment.order_id, details, correlation_id, now
            )
    fields = tuple(field for field, _, _ in differences)
    log.error("payment.mismatch", payment_id=payment.id, fields=fields, source=report.source)
    return Applied(report.status, payment, changed=False, differences=fields)


async def _not_ours(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: PaymentReport,
    correlation_id: str | None,
    deliveries: int,
) -> Applied:
    """A true message about a number we never made: another system may share the merchant account. Recorded; the flow
    hears of it with payment_found false (Z10)."""
    await tx.one(
        "payment.record_difference", account.id, None, report.out_trade_no, "out_trade_no", "one of ours",
        report.out_trade_no, report.source, now,
    )  # fmt: skip
    if report.source == "notification":
        details = {"out_trade_no": report.out_trade_no, "reported": report.status}
        for _ in range(deliveries):
            await tx.one("payment.append_event", "payment.unknown", None, None, details, correlation_id, now)
    log.error("payment.unknown_number", merchant_account_id=account.id, source=report.source)
    return Applied(report.status, None, changed=report.source == "notification", differences=("out_trade_no",))

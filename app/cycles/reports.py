"""What a provider's word does to a cycle payment: the one door for notifications, query answers and direct answers.

report ──▶ our row? ──no──▶ recorded, nothing else
             │yes
             ▼
    account, scene, agreement number as ours? ──no──▶ recorded as a difference, nothing changes
             │yes
             ▼
    guarded update. Signed after it was cancelled here: ended at the provider, by the sweep
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.cycles.model import CyclePayment, CyclePaymentStatus, read_cycle
from app.db import Database, Transaction
from app.merchants.accounts import OpenAccount
from app.providers.contract import AgreementReport, ReportedAgreement

log = structlog.get_logger(__name__)

# An agreement in force is asked about this often where nothing else, such as a deduction, shows that it lives: a payer
# may end it in the provider's app without a notice reaching us.
ASK_ALIVE: Final = timedelta(days=30)
# After the end of its link a signing may still be on its way.
LAST_LOOK: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class AppliedAgreement:
    """What a report said and did. `cycle` is None when the agreement is not ours; `differences` disagree."""

    reported: ReportedAgreement
    cycle: CyclePayment | None
    changed: bool
    differences: tuple[str, ...] = ()


async def apply_agreement_report(
    database: Database, clock: Clock, account: OpenAccount, report: AgreementReport, *, notice_days: int
) -> AppliedAgreement:
    """Brings a cycle payment to the state its provider reports; safe to repeat, in any order. Opens its transaction."""
    async with database.transaction() as tx:
        return await apply_agreement_within(tx, clock.now(), account, report, notice_days=notice_days, deliveries=1)


async def apply_agreement_within(
    tx: Transaction,
    now: datetime,
    account: OpenAccount,
    report: AgreementReport,
    *,
    notice_days: int,
    deliveries: int,
) -> AppliedAgreement:
    """`apply_agreement_report` inside the caller's transaction; `deliveries` as with payments."""
    row = await tx.one(
        "cycle.lock_by_numbers", report.external_agreement_no, report.agreement_no, account.provider.name
    )
    if row is None:
        await _record(tx, now, account, report, "external_agreement_no", "one of ours", _number(report))
        log.error("cycle.unknown_number", merchant_account_id=account.id, source=report.source)
        return AppliedAgreement(report.status, None, changed=False, differences=("external_agreement_no",))
    cycle = read_cycle(row)
    differences = list(_differences(cycle, account, report))
    if differences:
        for field, expected, reported in differences:
            await _record(tx, now, account, report, field, expected, reported)
        fields = tuple(field for field, _, _ in differences)
        log.error("cycle.mismatch", cycle_payment_id=cycle.id, fields=fields, source=report.source)
        return AppliedAgreement(report.status, cycle, changed=False, differences=fields)
    changed = await _transition(tx, now, cycle, report, notice_days)
    row = await tx.one("cycle.find", cycle.id)
    assert row is not None
    current = read_cycle(row)
    told = report.source == "notification" and report.status in (ReportedAgreement.ACTIVE, ReportedAgreement.ENDED)
    repeats = deliveries - int(changed) if told else 0
    for _ in range(repeats):
        details = {"reported": report.status}
        await tx.one(
            "cycle.append_event", "cycle.repeated", cycle.id, cycle.order_id, details, cycle.correlation_id, now
        )
    return AppliedAgreement(report.status, current, changed=changed or repeats > 0)


async def _transition(
    tx: Transaction, now: datetime, cycle: CyclePayment, report: AgreementReport, notice_days: int
) -> bool:
    """The guarded update a report asks for; whether the status changed."""
    match report.status:
        case ReportedAgreement.ACTIVE:
            return await _signed(tx, now, cycle, report, notice_days)
        case ReportedAgreement.ENDED:
            return await _ended(tx, now, cycle, report)
        case ReportedAgreement.NOT_FOUND if cycle.agreement_no is not None and report.agreement_no is not None:
            # It knew this agreement once: the same as ended, by its own documents. Asked before there was a number, it
            # may have answered just before the payer signed.
            return await _ended(tx, now, cycle, report)
        case _ if cycle.status is CyclePaymentStatus.PENDING:
            # Not signed, or not to its end. Cancelled here it is over; otherwise once nobody can sign any more.
            if cycle.ending:
                return await _finish(tx, now, cycle, CyclePaymentStatus.CANCELLED, "us", None)
            if now >= cycle.expires_at + LAST_LOOK:
                return await _finish(tx, now, cycle, CyclePaymentStatus.EXPIRED, "time", None)
    return False


async def _signed(
    tx: Transaction, now: datetime, cycle: CyclePayment, report: AgreementReport, notice_days: int
) -> bool:
    revived = cycle.status is CyclePaymentStatus.EXPIRED and cycle.signed_at is None
    if (not cycle.live and not revived) or (revived and await tx.one("cycle.has_other_live", cycle.id)):
        # Signed all the same, with a link that was open somewhere: what nobody wants is ended where it was made. Of one
        # that was in force here this is an old word repeated, and ending it once more changes nothing.
        await tx.one("cycle.unwanted", cycle.id, report.agreement_no, report.payer_id, now)
        return False
    if cycle.status in (CyclePaymentStatus.PENDING, CyclePaymentStatus.EXPIRED):
        row = await tx.one(
            "cycle.activate", cycle.id, report.agreement_no, report.payer_id, report.signed_at, report.valid_until,
            report.next_deduction_on, notice_days, now, now if cycle.ending else now + ASK_ALIVE,
        )  # fmt: skip
        return row is not None
    check_at = now if cycle.ending else now + ASK_ALIVE
    if report.valid_until is not None:
        check_at = min(check_at, max(report.valid_until, now + timedelta(hours=1)))
    # A notice may come, or come again, long after the plan has moved on.
    plan_on = None if report.source == "notification" else report.next_deduction_on
    await tx.one(
        "cycle.refresh", cycle.id, report.agreement_no, report.payer_id, report.valid_until, plan_on, now, check_at
    )
    return False


async def _ended(tx: Transaction, now: datetime, cycle: CyclePayment, report: AgreementReport) -> bool:
    if not cycle.live:
        await tx.one("cycle.stopped", cycle.id, now)
        return False
    valid_until = report.valid_until or cycle.valid_until
    ran_out = not cycle.ending and valid_until is not None and now >= valid_until
    status = CyclePaymentStatus.EXPIRED if ran_out else CyclePaymentStatus.CANCELLED
    by = "us" if cycle.ending else ("time" if ran_out else "payer")
    return await _finish(tx, now, cycle, status, by, report.ended_at)


async def _finish(
    tx: Transaction, now: datetime, cycle: CyclePayment, status: CyclePaymentStatus, by: str, ended_at: datetime | None
) -> bool:
    return await tx.one("cycle.finish", cycle.id, status, by, ended_at, now) is not None


def _differences(cycle: CyclePayment, account: OpenAccount, report: AgreementReport) -> Iterator[tuple[str, str, str]]:
    """(field, ours, theirs) for everything that disagrees; what the message does not carry cannot."""
    if cycle.merchant_account_id != account.id:
        yield "merchant_account", str(cycle.merchant_account_id), str(account.id)
    for claim, reported in report.account_claims.items():
        expected = account.account.expected_claims.get(claim)
        if expected is not None and reported not in expected:
            yield claim, " or ".join(sorted(expected)), reported
    if report.scene is not None and report.scene != cycle.scene:
        yield "scene", cycle.scene, report.scene
    if report.external_agreement_no not in (None, cycle.external_agreement_no):
        yield "external_agreement_no", cycle.external_agreement_no, str(report.external_agreement_no)
    if cycle.agreement_no is not None and report.agreement_no not in (None, cycle.agreement_no):
        yield "agreement_no", cycle.agreement_no, str(report.agreement_no)


async def _record(
    tx: Transaction, now: datetime, account: OpenAccount, report: AgreementReport, field: str, expected: str, found: str
) -> None:
    await tx.one(
        "payment.record_difference", account.id, None, _number(report), field, expected, found, report.source, now
    )


def _number(report: AgreementReport) -> str:
    return report.external_agreement_no or report.agreement_no or "unnamed"

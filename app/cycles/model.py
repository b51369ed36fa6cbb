"""A cycle payment and its deductions, as values.

    cycle      PENDING ──signed──▶ ACTIVE ⇄ SUSPENDED      (paused, or after failures)
                  │                  └────────┴──▶ CANCELLED   by us, or by the payer at the provider
                  └── never signed ──▶ EXPIRED ◀── ran out at the provider

    deduction  WAITING ──order made──▶ CHARGING ──▶ PAID
                  │                        ├──────▶ FAILED    no attempt is left; a late success wins ─▶ PAID
                  └────────────────────────┴──────▶ SKIPPED   the cycle does not go on, or the date was missed

Each attempt of a deduction is a payment of its own. Cancelled while the provider has not confirmed it, a cycle keeps
its status with `ending`: nothing more is deducted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from app.db import Row
from app.payments.model import Failure
from app.providers.contract import AgreementKey, PaymentMethod


class CyclePaymentStatus(StrEnum):
    """A cycle payment's status on the API."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class DeductionStatus(StrEnum):
    """A deduction's status on the API."""

    WAITING = "WAITING"
    CHARGING = "CHARGING"
    PAID = "PAID"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"


class SuspendedFor(StrEnum):
    """Why a cycle payment is suspended."""

    # Somebody paused it.
    PAUSE = "PAUSE"
    # Its money could not be taken.
    FAILURES = "FAILURES"
    # The provider's rules for this agreement are used up: only a new agreement helps.
    RULE = "RULE"


@dataclass(frozen=True, slots=True)
class CyclePayment:
    """One row of shouyin.cycle_payment. Amounts are fen, dates are Shanghai's."""

    id: int
    binding_id: int
    order_id: int
    owner: str | None
    payer: str
    merchant_account_id: int
    provider: str
    method: PaymentMethod
    scene: str
    subject: str
    price_fen: int
    ceiling_fen: int
    interval_days: int
    external_agreement_no: str
    agreement_no: str | None
    payer_id: str | None
    status: CyclePaymentStatus
    suspended_for: SuspendedFor | None
    ending: bool
    first_deduction_on: date
    next_deduction_on: date | None
    plan_on: date | None
    plan_changes: int
    deductions: int
    paid_deductions: int
    failed_dates: int
    open_deduction_id: int | None
    failure: Failure | None
    action: Mapping[str, Any] | None
    return_url: str | None
    first_payment_id: int | None
    created_by: str
    correlation_id: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    signed_at: datetime | None
    ended_at: datetime | None
    valid_until: datetime | None
    check_at: datetime | None
    check_attempts: int
    version: int

    @property
    def live(self) -> bool:
        """Whether it may still be signed, or is in force."""
        return self.status in (CyclePaymentStatus.PENDING, CyclePaymentStatus.ACTIVE, CyclePaymentStatus.SUSPENDED)

    def key(self, notify_url: str) -> AgreementKey:
        """By what its provider knows it."""
        return AgreementKey(
            external_agreement_no=self.external_agreement_no,
            scene=self.scene,
            agreement_no=self.agreement_no,
            notify_url=notify_url,
        )


@dataclass(frozen=True, slots=True)
class Deduction:
    """One row of shouyin.deduction: a due date with what became of it. `payment_id` is the present or last attempt."""

    id: int
    cycle_payment_id: int
    due_on: date
    sequence: int
    price_fen: int
    status: DeductionStatus
    order_id: int | None
    payment_id: int | None
    attempts: int
    tries: int
    attempt_at: datetime | None
    failure: Failure | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


def read_cycle(row: Row) -> CyclePayment:
    """A row of the columns that the statements in sql/queries/cycle.sql return, as a value."""
    fields = {name: row[name] for name in CyclePayment.__slots__}
    fields["method"] = PaymentMethod(row["method"])
    fields["status"] = CyclePaymentStatus(row["status"])
    fields["suspended_for"] = SuspendedFor(row["suspended_for"]) if row["suspended_for"] else None
    fields["failure"] = Failure(**row["failure"]) if row["failure"] else None
    return CyclePayment(**fields)


def read_deduction(row: Row) -> Deduction:
    """A row of `deduction.of_cycle` as a value."""
    fields = {name: row[name] for name in Deduction.__slots__}
    fields["status"] = DeductionStatus(row["status"])
    fields["failure"] = Failure(**row["failure"]) if row["failure"] else None
    return Deduction(**fields)

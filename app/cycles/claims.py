"""A deduction that a worker has taken under a lease, with what is known of its cycle and its present attempt."""

from dataclasses import dataclass
from datetime import date, datetime

from app.db import Row


@dataclass(frozen=True, slots=True)
class Claimed:
    """A deduction to work on, with what is known of its cycle and its present attempt."""

    id: int
    cycle_payment_id: int
    due_on: date
    sequence: int
    price_fen: int
    status: str
    order_id: int | None
    payment_id: int | None
    attempts: int
    tries: int
    settled_payment_id: int | None
    calls: int
    attempt_at: datetime
    cycle_status: str
    ending: bool
    agreement_no: str | None
    external_agreement_no: str
    scene: str
    subject: str
    plan_on: date | None
    plan_changes: int
    interval_days: int
    merchant_account_id: int
    provider: str
    correlation_id: str | None
    payment_status: str | None
    out_trade_no: str | None
    payment_created_at: datetime | None
    payment_expires_at: datetime | None

    @property
    def goes_on(self) -> bool:
        """Whether the cycle still lets money be taken."""
        return self.cycle_status == "ACTIVE" and not self.ending

    @property
    def attempt_over(self) -> bool:
        """Whether the present attempt's end was dealt with, or there is none yet."""
        return self.payment_id is None or self.payment_id == self.settled_payment_id


def read_claimed(row: Row) -> Claimed:
    """A row of `deduction.claim_due` as a value."""
    return Claimed(**{name: row[name] for name in Claimed.__slots__})

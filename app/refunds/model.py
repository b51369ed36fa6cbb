"""A refund, as a value.

    CREATED ──taken──▶ PENDING ──▶ REFUNDED
       │                  └──────▶ FAILED ── a late success wins ─▶ REFUNDED
       └──rejected──▶ FAILED

The amount is reserved on the payment from CREATED on. REFUNDED turns the reserve into what was refunded, FAILED frees
it.
CREATED is our row before the provider's answer is known, and PENDING on the API.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.db import Row
from app.payments.model import Failure


class RefundStatus(StrEnum):
    """A refund's status on the API."""

    PENDING = "PENDING"
    REFUNDED = "REFUNDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Refund:
    """One row of shouyin.refund. The amount is fen. `owner` is the payment's. `status` is the stored word."""

    id: int
    payment_id: int
    order_id: int
    owner: str | None
    merchant_account_id: int
    amount_fen: int
    out_refund_no: str
    provider_refund_id: str | None
    status: str
    reason: str | None
    failure: Failure | None
    created_by: str
    correlation_id: str | None
    created_at: datetime
    updated_at: datetime
    refunded_at: datetime | None
    check_at: datetime | None
    check_attempts: int
    version: int

    @property
    def api_status(self) -> RefundStatus:
        """The status as clients see it."""
        return RefundStatus.PENDING if self.status == "CREATED" else RefundStatus(self.status)

    @property
    def final(self) -> bool:
        """Whether the provider is done with it."""
        return self.status in ("REFUNDED", "FAILED")

    @property
    def checking(self) -> bool:
        """Whether the provider's answer is unknown."""
        return self.status == "CREATED"


def read_refund(row: Row) -> Refund:
    """A row of the columns that every statement in sql/queries/refund.sql returns, as a value."""
    fields = {name: row[name] for name in Refund.__slots__}
    fields["failure"] = Failure(**row["failure"]) if row["failure"] else None
    return Refund(**fields)

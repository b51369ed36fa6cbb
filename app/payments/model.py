"""A payment, as a value.

    CREATED ──accepted──▶ PENDING ──▶ SUCCESSFUL
       │                     ├──────▶ FAILED ─┐
       └──rejected──▶ FAILED └──────▶ CLOSED ─┴─ a late success wins ─▶ SUCCESSFUL (late)

CREATED is our row before the provider's answer is known: PENDING on the API, with `checking` true.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from app.db import Row
from app.errors import ProviderRejected
from app.providers.contract import PaymentMethod, Rejected


class PaymentStatus(StrEnum):
    """A payment's status on the API."""

    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    PARTIALLY_REFUNDED = "PARTIALLY_REFUNDED"
    REFUNDED = "REFUNDED"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: our stable code, the provider's own words, what to do (English, Chinese)."""

    code: str
    provider_code: str | None
    provider_message: str | None
    explanation: str
    explanation_zh: str


@dataclass(frozen=True, slots=True)
class Payment:
    """One row of shouyin.payment. Amounts are fen. `status` is the stored word, `api_status` the shown one. `order_id`
    is a row of the table that `binding_id` stands for."""

    id: int
    binding_id: int
    order_id: int
    owner: str | None
    merchant_account_id: int
    provider: str
    method: PaymentMethod
    amount_fen: int
    paid_amount_fen: int | None
    refunded_amount_fen: int
    reserved_refund_fen: int
    subject: str
    out_trade_no: str
    transaction_id: str | None
    status: str
    failure: Failure | None
    action: Mapping[str, Any] | None
    openid: str | None
    app_id: str | None
    client_address: str | None
    return_url: str | None
    created_by: str
    correlation_id: str | None
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    paid_at: datetime | None
    late: bool
    check_at: datetime | None
    check_attempts: int
    # the cycle payment it belongs to, and the due date whose money it takes; a first payment has no due date
    cycle_payment_id: int | None
    deduction_id: int | None
    version: int

    @property
    def api_status(self) -> PaymentStatus:
        """The status as clients see it: CREATED is PENDING, refunds show on a successful payment."""
        if self.status == "CREATED":
            return PaymentStatus.PENDING
        if self.status == "SUCCESSFUL" and self.refunded_amount_fen:
            fully = self.refunded_amount_fen == self.paid_amount_fen
            return PaymentStatus.REFUNDED if fully else PaymentStatus.PARTIALLY_REFUNDED
        return PaymentStatus(self.status)

    @property
    def refundable_fen(self) -> int:
        """What can still be given back: paid, less what went back, less what is on its way back."""
        return (self.paid_amount_fen or 0) - self.refunded_amount_fen - self.reserved_refund_fen

    @property
    def final(self) -> bool:
        """Whether the status can only change by a refund, or by a late success."""
        return self.status in ("SUCCESSFUL", "FAILED", "CLOSED")

    @property
    def checking(self) -> bool:
        """Whether the provider's answer is unknown: the page must not offer to pay again."""
        return self.status == "CREATED"


def failure_of(rejected: Rejected) -> Failure:
    """A provider's refusal as it is kept and shown."""
    return Failure(
        code=ProviderRejected.code,
        provider_code=rejected.code,
        provider_message=rejected.message,
        explanation=rejected.explanation,
        explanation_zh=rejected.explanation_zh,
    )


def failure_json(failure: Failure) -> dict[str, str | None]:
    """A failure as the column stores it."""
    return {name: getattr(failure, name) for name in Failure.__slots__}


def whole_fen(amount_fen: Decimal | None) -> int | None:
    """An order's amount as fen; None where it has none that could be paid: a fraction of a fen, NaN, infinity."""
    if amount_fen is None or not amount_fen.is_finite() or amount_fen != amount_fen.to_integral_value():
        return None
    return int(amount_fen)


def read_payment(row: Row) -> Payment:
    """A row of the columns that every statement in sql/queries/payment.sql returns, as a value."""
    failure = row["failure"]
    return Payment(
        id=row["id"],
        binding_id=row["binding_id"],
        order_id=row["order_id"],
        owner=row["owner"],
        merchant_account_id=row["merchant_account_id"],
        provider=row["provider"],
        method=PaymentMethod(row["method"]),
        amount_fen=row["amount_fen"],
        paid_amount_fen=row["paid_amount_fen"],
        refunded_amount_fen=row["refunded_amount_fen"],
        reserved_refund_fen=row["reserved_refund_fen"],
        subject=row["subject"],
        out_trade_no=row["out_trade_no"],
        transaction_id=row["transaction_id"],
        status=row["status"],
        failure=Failure(**failure) if failure else None,
        action=row["action"],
        openid=row["openid"],
        app_id=row["app_id"],
        client_address=row["client_address"],
        return_url=row["return_url"],
        created_by=row["created_by"],
        correlation_id=row["correlation_id"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        paid_at=row["paid_at"],
        late=row["late"],
        check_at=row["check_at"],
        check_attempts=row["check_attempts"],
        cycle_payment_id=row["cycle_payment_id"],
        deduction_id=row["deduction_id"],
        version=row["version"],
    )

"""What a flow receives."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, TypeAlias

from app.money import format_yuan

CycleChange: TypeAlias = Literal["STARTED", "SUSPENDED", "RESUMED", "CANCELLED", "EXPIRED", "DEDUCTION_FAILED"]


@dataclass(frozen=True, slots=True)
class PlanResult:
    """The coming end of the plan, as a flow sees it: once 14, 7 and 1 days before."""

    plan: str
    expires_at: datetime
    days: int
    event_id: int


@dataclass(frozen=True, slots=True)
class DueDeduction:
    """A due date whose order is to be made: the flow makes it, on its connection, and returns its id (Z16).

    The new order belongs to the same user as `order_id`, the one the cycle payment was started with, and costs
    `price_fen`. Called again only when the first time was rolled back.
    """

    order_id: int
    order_table: str | None
    cycle_payment_id: int
    deduction_id: int
    due_on: date
    sequence: int
    price_fen: int
    subject: str
    event_id: int
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class CycleResult:
    """What became of a cycle payment (Z6). `already_processed` is false exactly once per change.

    `change` is STARTED, SUSPENDED, RESUMED, CANCELLED, EXPIRED, or DEDUCTION_FAILED where a due date was given up;
    `reason` says of a suspension why (PAUSE, FAILURES, RULE), of an end by whom (us, payer, time, provider), and of a
    failed deduction what the provider said.
    """

    order_id: int
    order_table: str | None
    cycle_payment_id: int
    change: CycleChange | None
    cycle_status: str
    already_processed: bool
    reason: str | None
    deduction_id: int | None
    due_on: date | None
    price_fen: int
    next_deduction_on: date | None
    event_id: int
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class UpcomingDeduction:
    """A deduction that is coming, some days before it is due: the moment to tell the payer."""

    order_id: int
    order_table: str | None
    cycle_payment_id: int
    due_on: date
    price_fen: int
    subject: str
    event_id: int
    correlation_id: str | None


@dataclass(frozen=True, slots=True)
class RefundResult:
    """The result of a refund, as a flow sees it (Z11). Amounts are fen.

    `order_table` is the table the order is a row of, as the flow's statements can name it: once another table was
    bound, orders of two tables may have the same id. `already_processed` is false exactly once per refund and final
    state. `fully_refunded` says whether all that was paid has gone back; `late` that a refund called failed went back
    after all.
    """

    order_id: int | None
    order_table: str | None
    refund_found: bool
    payment_status: Literal["REFUNDED", "FAILED"] | None
    already_processed: bool
    refund_id: int | None
    payment_id: int | None
    out_refund_no: str | None
    amount_fen: int | None
    paid_amount_fen: int | None
    refunded_amount_fen: int | None
    fully_refunded: bool
    late: bool
    reason: str | None
    event_id: int
    correlation_id: str | None

    def as_json(self) -> dict[str, Any]:
        """The same under the reference's names: {"orderId", "refundFound", "paymentStatus", "alreadyProcessed", …}."""
        return {
            "orderId": self.order_id,
            "orderTable": self.order_table,
            "refundFound": self.refund_found,
            "paymentStatus": self.payment_status,
            "alreadyProcessed": self.already_processed,
            "refundId": self.refund_id,
            "paymentId": self.payment_id,
            "outRefundNo": self.out_refund_no,
            "amount": None if self.amount_fen is None else format_yuan(self.amount_fen),
            "fullyRefunded": self.fully_refunded,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class PaymentResult:
    """The result of a payment, as a flow sees it (Z10). Amounts are fen; `None` where there is none.

    `order_table` as for refunds. `already_processed` is false exactly once per payment and final state; act only then.
    `amount_matches` says whether what was paid, less what the provider has given back, is the order's amount as it
    stands now (Z12). `surplus` says that another payment of the same order succeeded before this one: deliver nothing
    for it.
    """

    order_id: int | None
    order_table: str | None
    payment_found: bool
    payment_status: Literal["SUCCESSFUL", "FAILED"] | None
    already_processed: bool
    payment_id: int | None
    out_trade_no: str | None
    transaction_id: str | None
    method: str | None
    amount_fen: int | None
    paid_amount_fen: int | None
    order_amount_fen: int | None
    amount_matches: bool
    late: bool
    surplus: bool
    paid_at: datetime | None
    event_id: int
    correlation_id: str | None

    def as_json(self) -> dict[str, Any]:
        """The same under the reference's names, amounts in yuan: {"orderId", "paymentFound", "paymentStatus", …}."""

        def yuan(fen: int | None) -> str | None:
            return None if fen is None else format_yuan(fen)

        return {
            "orderId": self.order_id,
            "orderTable": self.order_table,
            "paymentFound": self.payment_found,
            "paymentStatus": self.payment_status,
            "alreadyProcessed": self.already_processed,
            "paymentId": self.payment_id,
            "outTradeNo": self.out_trade_no,
            "transactionId": self.transaction_id,
            "method": self.method,
            "amount": yuan(self.amount_fen),
            "paidAmount": yuan(self.paid_amount_fen),
            "orderAmount": yuan(self.order_amount_fen),
            "amountMatches": self.amount_matches,
            "late": self.late,
            "surplus": self.surplus,
            "paidAt": None if self.paid_at is None else self.paid_at.isoformat(),
        }

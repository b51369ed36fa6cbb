"""What a flow receives, read from its run, its event and the rows they are about."""

from datetime import date, datetime
from typing import Final, TypeAlias

from app.db import Row
from app.flows.results import (
    CycleChange,
    CycleResult,
    DueDeduction,
    PaymentResult,
    PlanResult,
    RefundResult,
    UpcomingDeduction,
)
from app.payments.model import whole_fen

Result: TypeAlias = PaymentResult | RefundResult | PlanResult | CycleResult | DueDeduction | UpcomingDeduction

_CHANGES: Final[dict[str, CycleChange]] = {
    "cycle.started": "STARTED",
    "cycle.suspended": "SUSPENDED",
    "cycle.resumed": "RESUMED",
    "cycle.cancelled": "CANCELLED",
    "cycle.expired": "EXPIRED",
    "deduction.failed": "DEDUCTION_FAILED",
}


def read_result(row: Row) -> Result:
    """What the flow receives, of a row of `flow.lock`."""
    match row["trigger"]:
        case "refund":
            return _read_refund(row)
        case "cycle":
            return _read_cycle(row)
        case "deduction":
            return _read_due(row)
        case "upcoming":
            return _read_upcoming(row)
        case "plan":
            return _read_plan(row)
        case _:
            return _read_payment(row)


def _read_cycle(row: Row) -> CycleResult:
    details, failure = row["details"], row["deduction_failure"] or {}
    failed = row["kind"] == "deduction.failed"
    return CycleResult(
        order_id=row["cycle_order_id"],
        order_table=row["order_table"],
        cycle_payment_id=row["cycle_payment_id"],
        change=_CHANGES.get(row["kind"]),
        cycle_status=row["cycle_status"],
        already_processed=row["kind"] == "cycle.repeated",
        reason=failure.get("provider_code") if failed else details.get("why") or details.get("by"),
        deduction_id=row["deduction_id"],
        due_on=row["due_on"],
        price_fen=row["deduction_price_fen"] if failed else row["cycle_price_fen"],
        next_deduction_on=row["next_deduction_on"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
    )


def _read_due(row: Row) -> DueDeduction:
    return DueDeduction(
        order_id=row["cycle_order_id"],
        order_table=row["order_table"],
        cycle_payment_id=row["cycle_payment_id"],
        deduction_id=row["deduction_id"],
        due_on=row["due_on"],
        sequence=row["sequence"],
        price_fen=row["deduction_price_fen"],
        subject=row["subject"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
    )


def _read_upcoming(row: Row) -> UpcomingDeduction:
    details = row["details"]
    return UpcomingDeduction(
        order_id=row["cycle_order_id"],
        order_table=row["order_table"],
        cycle_payment_id=row["cycle_payment_id"],
        due_on=date.fromisoformat(details["due_on"]),
        price_fen=details["price_fen"],
        subject=row["subject"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
    )


def _read_plan(row: Row) -> PlanResult:
    details = row["details"]
    return PlanResult(
        plan=details["plan"],
        expires_at=datetime.fromisoformat(details["expires_at"]),
        days=details["days"],
        event_id=row["event_id"],
    )


def _read_refund(row: Row) -> RefundResult:
    details = row["details"]
    status = {"refund.refunded": "REFUNDED", "refund.failed": "FAILED"}.get(row["kind"], row["refund_status"])
    return RefundResult(
        order_id=row["order_id"],
        order_table=row["order_table"],
        refund_found=row["refund_id"] is not None,
        payment_status=status if status in ("REFUNDED", "FAILED") else None,
        already_processed=row["kind"] == "refund.repeated",
        refund_id=row["refund_id"],
        payment_id=row["payment_id"],
        out_refund_no=row["out_refund_no"] or details.get("out_refund_no"),
        amount_fen=row["refund_amount_fen"],
        paid_amount_fen=row["paid_amount_fen"],
        refunded_amount_fen=row["refunded_amount_fen"],
        fully_refunded=row["paid_amount_fen"] is not None and row["refunded_amount_fen"] == row["paid_amount_fen"],
        late=bool(details.get("late")),
        reason=row["reason"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
    )


def _read_payment(row: Row) -> PaymentResult:
    order = row["order_amount"]
    order_amount = whole_fen(order[0]) if order is not None else None
    paid = row["paid_amount_fen"]
    # Without an amount column the payment's own amount is all there is to compare with.
    expected = row["amount_fen"] if order is not None and not row["priced"] else order_amount
    status = {"payment.successful": "SUCCESSFUL", "payment.failed": "FAILED"}.get(row["kind"], row["status"])
    return PaymentResult(
        order_id=row["order_id"],
        order_table=row["order_table"],
        payment_found=row["payment_id"] is not None,
        payment_status=status if status in ("SUCCESSFUL", "FAILED") else None,
        already_processed=row["kind"] == "payment.repeated",
        payment_id=row["payment_id"],
        out_trade_no=row["out_trade_no"] or row["details"].get("out_trade_no"),
        transaction_id=row["transaction_id"],
        method=row["method"],
        amount_fen=row["amount_fen"],
        paid_amount_fen=paid,
        order_amount_fen=order_amount,
        amount_matches=paid is not None and paid - row["refunded_amount_fen"] == expected,
        late=bool(row["late"]),
        surplus=bool(row["details"].get("surplus")),
        paid_at=row["paid_at"],
        event_id=row["event_id"],
        correlation_id=row["correlation_id"],
    )

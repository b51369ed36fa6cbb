"""The refund that the tests of all of WeChat's interfaces ask for."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.providers.contract import RefundReport, RefundRequest, ReportedRefund

NUMBER = "SY20261122000001"
REFUND_NUMBER = "SR20261122000001"
TRANSACTION = "4200000000202611220000000001"
REFUND_ID = "50000000382026112200000001"
NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
REFUNDED_AT = datetime(2026, 11, 22, 1, 2, 9, tzinfo=UTC)

REQUEST = RefundRequest(
    out_trade_no=NUMBER,
    out_refund_no=REFUND_NUMBER,
    amount_fen=501,
    total_fen=1990,
    notify_url="https://pay.example.com/notify/wechat/7",
    created_at=NOW,
    transaction_id=TRANSACTION,
    reason='少了 "一杯" + 100% <b>&',
)


def refund_request(**changes: Any) -> RefundRequest:
    return replace(REQUEST, **changes)


def report(status: ReportedRefund, source: str = "query", **fields: Any) -> RefundReport:
    return RefundReport(NUMBER, REFUND_NUMBER, status, source, **fields)  # type: ignore[arg-type]  # text of a table


NOT_FOUND = report(ReportedRefund.NOT_FOUND)

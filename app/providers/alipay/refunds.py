"""Refunds at Alipay: what is asked, and how much an answer about one proves.

    refund answered 10000, fund_change Y            → REFUNDED    this very call moved the money
    refund answered 10000, fund_change N or absent  → PENDING     taken; an earlier call may have moved it: query
    query answered REFUND_SUCCESS                   → REFUNDED
    query answered 10000 without a refund_status    → NOT_FOUND   not received, or failed
    query answered with any other word              → PENDING     and a warning
    an answer about another number                  → Unknown

`refund_fee` of a refund's answer is what the trade has given back so far, not what this refund did; only the query
names the amount of one refund.

Source: https://opendocs.alipay.com/open/02ekfs, read 2026-09-11; the models AlipayTradeRefundModel and
AlipayTradeFastpayRefundQueryModel of alipay-sdk-python 3.7.1411.
"""

from collections.abc import Mapping
from typing import Any, Literal

import structlog

from app.money import format_yuan, parse_yuan
from app.providers.alipay.trades import first_instant, texts
from app.providers.contract import RefundReport, RefundRequest, ReportedRefund, Unknown

REFUND = "alipay.trade.refund"
REFUND_QUERY = "alipay.trade.fastpay.refund.query"

_REFUNDED_AT = ("gmt_refund_pay",)

_log = structlog.get_logger(__name__)


def refund_content(request: RefundRequest) -> dict[str, object]:
    """The refund itself. The same request gives the same content: a repeat with another amount would be refused.

    Only our own number of the payment is sent; of two numbers Alipay would believe its own."""
    content: dict[str, object] = {
        "out_trade_no": request.out_trade_no,
        "refund_amount": format_yuan(request.amount_fen),
        "out_request_no": request.out_refund_no,
    }
    if request.reason is not None:
        content["refund_reason"] = request.reason
    return content


def refund_query_content(request: RefundRequest) -> dict[str, object]:
    """Without the option Alipay leaves out when the money went back."""
    return {
        "out_trade_no": request.out_trade_no,
        "out_request_no": request.out_refund_no,
        "query_options": ["gmt_refund_pay"],
    }


def read_refund_answer(fields: Mapping[str, Any], request: RefundRequest) -> RefundReport | Unknown:
    """What the verified success of a refund says: REFUNDED, or PENDING where it proves only that the call was taken."""
    said = texts(fields)
    if said.get("out_trade_no") != request.out_trade_no:
        return Unknown("the answer is about another out_trade_no")
    if said.get("fund_change") != "Y":
        return _report(request, ReportedRefund.PENDING, "answer")
    try:
        given_back_fen = parse_yuan(said["refund_fee"]) if "refund_fee" in said else None
    except ValueError:
        return Unknown("the answer holds an amount that is not exact yuan")
    if given_back_fen is not None and given_back_fen < request.amount_fen:
        return Unknown("the answer says that less was given back than this refund alone")
    return _report(request, ReportedRefund.REFUNDED, "answer", said=said)


def read_refund_query(fields: Mapping[str, Any], request: RefundRequest) -> RefundReport | Unknown:
    """What the verified success of a refund query says about the refund."""
    said = texts(fields)
    for name, ours in (("out_trade_no", request.out_trade_no), ("out_request_no", request.out_refund_no)):
        if said.get(name, ours) != ours:
            return Unknown(f"the answer is about another {name}")
    word = said.get("refund_status")
    if word is None:
        return refund_not_found(request)
    if "out_request_no" not in said:
        return Unknown("the answer does not name its refund")
    try:
        amount_fen = parse_yuan(said["refund_amount"]) if "refund_amount" in said else None
    except ValueError:
        return Unknown("the answer holds an amount that is not exact yuan")
    if word != "REFUND_SUCCESS":
        _log.warning("alipay.unknown_refund_status", refund_status=word[:64], out_request_no=request.out_refund_no)
        return _report(request, ReportedRefund.PENDING, "query", amount_fen=amount_fen)
    return _report(request, ReportedRefund.REFUNDED, "query", amount_fen=amount_fen, said=said)


def refund_not_found(request: RefundRequest) -> RefundReport:
    return _report(request, ReportedRefund.NOT_FOUND, "query")


def _report(
    request: RefundRequest,
    status: ReportedRefund,
    source: Literal["answer", "query"],
    *,
    amount_fen: int | None = None,
    said: Mapping[str, str] | None = None,
) -> RefundReport:
    return RefundReport(
        out_trade_no=request.out_trade_no,
        out_refund_no=request.out_refund_no,
        status=status,
        source=source,
        amount_fen=amount_fen,
        refunded_at=None if said is None else first_instant(said, _REFUNDED_AT),
    )

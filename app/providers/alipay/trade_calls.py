"""Asking what became of a trade, and closing it, whatever it is sold under: a payment's and a deduction's alike.

Source: https://opendocs.alipay.com/open/02ekfs, read 2026-09-11; AlipayTradeQueryModel and AlipayTradeCloseModel of
alipay-sdk-python 3.7.1411.
"""

from collections.abc import Mapping
from typing import Any

from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.answers import Answered, text_field
from app.providers.alipay.gateway import Gateway
from app.providers.alipay.orders import KNOWN_ALREADY
from app.providers.alipay.trades import texts, trade_report
from app.providers.contract import (
    Closed,
    CloseOutcome,
    NeverOpened,
    NotClosed,
    NotReached,
    PaymentReport,
    QueryOutcome,
    ReportedStatus,
    Unknown,
)

NO_SUCH_TRADE = "TRADE_NOT_EXIST"

_QUERY = "alipay.trade.query"
_CLOSE = "alipay.trade.close"
_NOT_CLOSABLE = frozenset(
    {"TRADE_STATUS_ERROR", "REASON_TRADE_STATUS_INVALID", "REASON_ILLEGAL_STATUS", *KNOWN_ALREADY}
)


async def query_trade(gateway: Gateway, account: AlipayAccount, out_trade_no: str) -> QueryOutcome:
    """The report of what Alipay knows, paid and then refunded in full included; "no such trade" is a report too."""
    judged = await gateway.execute(account, _QUERY, {"out_trade_no": out_trade_no})
    if isinstance(judged, NotReached | Unknown):
        return judged
    if isinstance(judged, Answered):
        return _query_report(judged.fields, out_trade_no)
    if judged.reason == NO_SUCH_TRADE:
        return PaymentReport(out_trade_no=out_trade_no, status=ReportedStatus.NOT_FOUND, source="query")
    return judged.words


async def close_trade(gateway: Gateway, account: AlipayAccount, out_trade_no: str) -> CloseOutcome:
    """Only an unpaid trade that exists can be closed."""
    judged = await gateway.execute(account, _CLOSE, {"out_trade_no": out_trade_no})
    if isinstance(judged, NotReached | Unknown):
        return judged
    if isinstance(judged, Answered):
        if text_field(judged.fields, "out_trade_no") not in (None, out_trade_no):
            return Unknown("the answer is about another out_trade_no")
        return Closed()
    if judged.reason == NO_SUCH_TRADE:
        return NeverOpened()
    if judged.reason in _NOT_CLOSABLE:
        return NotClosed(judged.words.code, judged.words.message)
    return judged.words


def _query_report(fields: Mapping[str, Any], out_trade_no: str) -> QueryOutcome:
    said = texts(fields)
    if said.get("out_trade_no") != out_trade_no:
        return Unknown("the answer is about another out_trade_no")
    if "trade_status" not in said:
        return Unknown("the answer holds no trade_status")
    try:
        return trade_report(said, "query")
    except ValueError:
        return Unknown("the answer holds an amount that is not exact yuan")

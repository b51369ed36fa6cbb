"""Which refusals of APIv2 are none. The cloud calls refuse with the same codes.

    create   ORDERPAID, ORDERCLOSED,            → Unknown      ask: the number is taken, perhaps paid, and nobody
             OUT_TRADE_NO_USED, other details                  must be invited to pay again; signed or not
    query    ORDERNOTEXIST                      → NOT_FOUND
    close    ORDERCLOSED                        → Closed
             ORDERNOTEXIST                      → NeverOpened
             ORDERPAID, TRADE_STATE_ERROR, …    → NotClosed    ask: it may be paid

Codes are compared without underscores.
"""

import re

from app.providers.contract import (
    Closed,
    CloseOutcome,
    NeverOpened,
    NotClosed,
    NotReached,
    PaymentReport,
    QueryOutcome,
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.wechat.states import reported_status
from app.providers.wechat.v2.answers import Answered, Judgement, Refused, reason_of
from app.providers.wechat.v2.orders import claims_among, order_report

_KNOWN_ALREADY = frozenset({"ORDERPAID", "ORDERCLOSED", "OUTTRADENOUSED"})
_KNOWN_WORDS = re.compile(r"与首次请求时不一致|请求重入|商户订单号重复|订单已支付|订单已关闭")
_NO_SUCH_ORDER = frozenset({"ORDERNOTEXIST", "ORDERNOTEXISTS"})
_CLOSED_ALREADY = frozenset({"ORDERCLOSED"})
_NOT_CLOSABLE = frozenset({"ORDERPAID", "USERPAYING", "TRADESTATEERROR"})


def create_refusal(judged: Refused | NotReached | Unknown) -> Rejected | NotReached | Unknown:
    """What anything but a success means for an order that was to be made."""
    if not isinstance(judged, Refused):
        return judged
    words = judged.words
    if reason_of(words.code) in _KNOWN_ALREADY or _KNOWN_WORDS.search(words.message):
        return Unknown(f"WeChat knows this number already: {words.code}", words)
    return words


def query_outcome(
    judged: Judgement,
    out_trade_no: str,
    *,
    payer_name: str,
    must_claim: str,
) -> QueryOutcome:
    """The report of a query's answer; Unknown where it cannot be one about this order.

    `payer_name` is what the openid is called that the payer was asked under; without the claim `must_claim` the answer
    names no receiver."""
    if not isinstance(judged, Answered):
        if not isinstance(judged, Refused):
            return judged
        if judged.reason in _NO_SUCH_ORDER:
            return PaymentReport(out_trade_no=out_trade_no, status=ReportedStatus.NOT_FOUND, source="query")
        return judged.words
    fields = judged.fields
    if fields.get("out_trade_no") != out_trade_no:
        return Unknown("the answer is about another out_trade_no")
    claims = claims_among(fields)
    if "trade_state" not in fields or must_claim not in claims:
        return Unknown(f"the answer lacks trade_state or {must_claim}")
    status = reported_status(fields["trade_state"], out_trade_no)
    try:
        return order_report(fields, status=status, source="query", claims=claims, payer_id=fields.get(payer_name))
    except ValueError:
        return Unknown("the answer holds an amount that is not whole fen")


def close_outcome(judged: Judgement) -> CloseOutcome:
    """What the judged answer to a closing call means."""
    if isinstance(judged, Answered):
        return Closed()
    if not isinstance(judged, Refused):
        return judged
    if judged.reason in _CLOSED_ALREADY:
        return Closed()
    if judged.reason in _NO_SUCH_ORDER:
        return NeverOpened()
    return NotClosed(judged.words.code, judged.words.message) if judged.reason in _NOT_CLOSABLE else judged.words

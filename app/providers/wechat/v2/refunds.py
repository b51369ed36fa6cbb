"""A refund in the fields of APIv2, the same in the cloud calls: what is asked for, and what WeChat says of one.

    asking      refund_id, out_refund_no, refund_fee                      taken, and no more than that
    question    out_refund_no_$n, refund_fee_$n, refund_status_$n, …      of the refunds it found, counted from 0

FREQUENCY_LIMITED and the like leave a refund unknown, where an order would count as not reached.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_4 and 9_5, WxPayErrorCode of WxJava@9eba04d, read
2026-09-11.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import structlog

from app.clock import SHANGHAI
from app.providers.contract import (
    NotReached,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    Unknown,
)
from app.providers.transport import ExchangeOutcome, RawAnswer
from app.providers.wechat.refunds import refund_words, reported_refund, shown_reason
from app.providers.wechat.v2.answers import Answered, Judgement, Refused
from app.providers.wechat.v2.orders import claims_among, fen

_NO_SUCH_REFUND = frozenset({"REFUNDNOTEXIST", "REFUNDNOTEXISTS"})
_NUMBERED = re.compile(r"out_refund_no_([0-9]{1,3})", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
_NOT_LISTED = "REFUND_NOT_LISTED"

_log = structlog.get_logger(__name__)


def refund_fields(request: RefundRequest) -> dict[str, str | int]:
    """What is asked for, but for who asks and where the result goes. The same request gives the same."""
    fields: dict[str, str | int] = {
        "out_refund_no": request.out_refund_no,
        "total_fee": request.total_fen,
        "refund_fee": request.amount_fen,
    }
    # One of the two; WeChat prefers its own.
    if request.transaction_id is not None:
        fields["transaction_id"] = request.transaction_id
    else:
        fields["out_trade_no"] = request.out_trade_no
    if (reason := shown_reason(request.reason)) is not None:
        fields["refund_desc"] = reason
    return fields


def judge_asking(judged: Judgement, answer: ExchangeOutcome) -> Judgement:
    """How the asking ended. Whoever was answered was reached: a rate limit says nothing about the refund itself."""
    if isinstance(judged, NotReached) and isinstance(answer, RawAnswer):
        return Unknown(judged.detail, judged.words)
    return judged


def taken(fields: Mapping[str, str], request: RefundRequest) -> RefundReport | Unknown:
    """What a believed answer to the asking says: PENDING. Another payment or amount is the caller's to compare."""
    if fields.get("out_refund_no") != request.out_refund_no:
        return Unknown("the answer is about another out_refund_no")
    if "out_trade_no" not in fields:
        return Unknown("the answer lacks out_trade_no")
    try:
        amount_fen = fen(fields["refund_fee"]) if "refund_fee" in fields else None
    except ValueError:
        return Unknown("the answer holds an amount that is not whole fen")
    return RefundReport(
        out_trade_no=fields["out_trade_no"],
        out_refund_no=request.out_refund_no,
        status=ReportedRefund.PENDING,
        source="answer",
        amount_fen=amount_fen,
        provider_refund_id=fields.get("refund_id"),
        account_claims=claims_among(fields),
    )


def found(
    judged: Judgement, out_refund_no: str, *, must_claim: str
) -> RefundReport | Rejected | NotReached | Unknown | None:
    """The report of a refund that was asked about, None where WeChat has none of this number; Unknown where the answer
    cannot be one about it.

    Without the claim `must_claim` an answer names no receiver."""
    if isinstance(judged, Refused):
        return None if judged.reason in _NO_SUCH_REFUND else judged.words
    if not isinstance(judged, Answered):
        return judged
    fields = judged.fields
    places = [
        number[1] for name, text in fields.items() if text == out_refund_no and (number := _NUMBERED.fullmatch(name))
    ]
    if len(places) != 1:
        return Unknown("the answer does not hold exactly one refund of this number")
    if "out_trade_no" not in fields or must_claim not in fields:
        return Unknown(f"the answer lacks out_trade_no or {must_claim}")
    try:
        return _report(fields, out_refund_no, places[0])
    except ValueError as exc:
        return Unknown(f"the answer {exc}")


def unlisted(judged: Judgement, request: RefundRequest) -> RefundReport | None:
    """The refund in a believed answer that names the payment and lists no refund at all, as cloud pay's own example;
    None for any other answer.

    PENDING, with the reason for a person: it is found, or WeChat would have said that there is none, and more will not
    be known from here."""
    if not isinstance(judged, Answered) or "out_trade_no" not in judged.fields:
        return None
    if any(_NUMBERED.fullmatch(name) for name in judged.fields):
        return None
    return RefundReport(
        out_trade_no=judged.fields["out_trade_no"],
        out_refund_no=request.out_refund_no,
        status=ReportedRefund.PENDING,
        source="query",
        account_claims=claims_among(judged.fields),
        failure=refund_words(Rejected(_NOT_LISTED, "", "", "")),
    )


def _report(fields: Mapping[str, str], out_refund_no: str, place: str) -> RefundReport:
    """The refund at one place of the lists. Raises ValueError when nothing may be believed about its money."""
    word, fee = fields.get(f"refund_status_{place}"), fields.get(f"refund_fee_{place}")
    if word is None:
        raise ValueError("lacks refund_status")
    status, failure = reported_refund(word, out_refund_no)
    if status is ReportedRefund.REFUNDED and fee is None:
        raise ValueError("does not say how much was given back")
    return RefundReport(
        out_trade_no=fields["out_trade_no"],
        out_refund_no=out_refund_no,
        status=status,
        source="query",
        amount_fen=None if fee is None else fen(fee),
        provider_refund_id=fields.get(f"refund_id_{place}"),
        refunded_at=_instant(fields.get(f"refund_success_time_{place}", ""), out_refund_no),
        account_claims=claims_among(fields),
        failure=failure,
    )


def _instant(text: str, out_refund_no: str) -> datetime | None:
    """A time of Beijing in UTC; one that cannot be read loses only this detail."""
    if _TIME.fullmatch(text) is not None:
        try:
            return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    if text:
        _log.warning("wechat.unreadable_time", field="refund_success_time", out_refund_no=out_refund_no[:64])
    return None

"""What all of WeChat's interfaces have in common about refunds: their states, their reason, and what a refusal proves.

    PROCESSING             → PENDING
    SUCCESS                → REFUNDED
    CLOSED, REFUNDCLOSE    → FAILED      it will not happen under this number
    ABNORMAL, CHANGE       → PENDING     the payer's bank refused; a person has to decide where the money goes
    any other word         → PENDING, and a warning

A refusal alone fails no refund: the number may be known from an attempt whose answer was lost, and a trade that this
very refund emptied refuses it too. WeChat is asked whether it holds a refund of this number, and only "no" fails it.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012791862 and jsapi.php?chapter=9_4, 9_5 and 9_16, read 2026-09-11.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import structlog

from app.providers.contract import (
    Notification,
    NotificationRefused,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    Unknown,
)
from app.providers.wechat.explanations import explain, explain_refund

REASON_LIMIT_BYTES = 80

REFUND_NUMBER = re.compile(r"[0-9A-Za-z_*@|-]{1,64}", re.ASCII)

STATUSES = {
    "PROCESSING": ReportedRefund.PENDING,
    "SUCCESS": ReportedRefund.REFUNDED,
    "CLOSED": ReportedRefund.FAILED,
    "REFUNDCLOSE": ReportedRefund.FAILED,
    "ABNORMAL": ReportedRefund.PENDING,
    "CHANGE": ReportedRefund.PENDING,
}
_NEEDS_WORDS = frozenset({"CLOSED", "REFUNDCLOSE", "ABNORMAL", "CHANGE"})

# WeChat has a refund of this number, for another amount or payment.
_NUMBER_USED = frozenset({"REFUNDFEEMISMATCH"})
_NUMBER_USED_WORDS = re.compile(r"与(?:之前|首次)请求(?:时)?不一致|请求重入|退款单号.{0,4}(?:重复|已存在)")

_log = structlog.get_logger(__name__)


def reported_refund(word: str, out_refund_no: str) -> tuple[ReportedRefund, Rejected | None]:
    """Our word for a refund's state, and what a person has to know about it; total, and an unknown word is logged."""
    status = STATUSES.get(word)
    if status is None:
        _log.warning("wechat.unknown_refund_status", refund_status=word[:64], out_refund_no=out_refund_no[:64])
        return ReportedRefund.PENDING, None
    if word not in _NEEDS_WORDS:
        return status, None
    return status, Rejected(word, "", *(explain_refund(word, "") or explain(word, "")))


def refund_event_key(event_id: str, report: RefundReport) -> str:
    """An event's id, which its repeats share, and what it says: two contents are never one event."""
    said = [
        report.out_trade_no,
        report.out_refund_no,
        report.status.value,
        report.provider_refund_id,
        report.amount_fen,
        report.failure.code if report.failure else None,
        sorted(report.account_claims.items()),
    ]
    return f"{event_id}:{blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()}"


def not_found(request: RefundRequest) -> RefundReport:
    """WeChat has no refund of this number."""
    return RefundReport(
        out_trade_no=request.out_trade_no,
        out_refund_no=request.out_refund_no,
        status=ReportedRefund.NOT_FOUND,
        source="query",
    )


def confirmed_notification(stated: Mapping[str, str], asked: RefundOutcome | None) -> Notification:
    """A notice that nobody signed, `stated`, as WeChat confirms it when asked about the same number.

    What is believed is the answer alone. Raises NotificationRefused with "unconfirmed" where that knows of no such
    refund, or still works on it: then there was nothing to give notice of (yet)."""
    if not isinstance(asked, RefundReport) or (asked.status is ReportedRefund.PENDING and asked.failure is None):
        raise NotificationRefused("unconfirmed", "WeChat does not say that this refund has come to anything")
    said = {"out_trade_no": asked.out_trade_no, "refund_fee": str(asked.amount_fen)}
    differing = [name for name, text in said.items() if stated.get(name, text) != text]
    if differing:
        _log.warning("wechat.notice_disagrees", fields=differing, out_refund_no=asked.out_refund_no)
    report = replace(asked, source="notification")
    return Notification(event_key=refund_event_key((report.provider_refund_id or "")[:64], report), report=report)


def refusal_outcome(words: Rejected, asked: RefundOutcome) -> RefundOutcome:
    """What it means that a refund was refused, after WeChat was asked about its number.

    Rejected where WeChat holds no refund of this number, or turned both calls away for one reason and so never looked
    at either."""
    if isinstance(asked, RefundReport):
        if asked.status is not ReportedRefund.NOT_FOUND:
            return asked
        if _code(words) in _NUMBER_USED or _NUMBER_USED_WORDS.search(words.message):
            return Unknown(
                f"WeChat knows this refund number otherwise, and no refund of it: {words.code}", refund_words(words)
            )
        return refund_words(words)
    if isinstance(asked, Rejected) and _code(asked) == _code(words):
        return refund_words(words)
    doubt = f"refused with {words.code}, and WeChat did not say whether it holds a refund of this number"
    return Unknown(doubt, refund_words(words))


def refund_words(words: Rejected) -> Rejected:
    """A refusal in the words of somebody who wants to give money back."""
    explained = explain_refund(words.code, words.message)
    if explained is None:
        return words
    return replace(words, explanation=explained.english, explanation_zh=explained.chinese)


def shown_reason(reason: str | None) -> str | None:
    """The reason as WeChat shows it to the payer: 80 bytes of characters that it takes, cut between two characters.

    The whole of it stays with our own refund."""
    if reason is None:
        return None
    shown = "".join(character for character in reason if character <= "\uffff" and character.isprintable())
    return shown.encode()[:REASON_LIMIT_BYTES].decode(errors="ignore").strip() or None


def _code(words: Rejected) -> str:
    return words.code.replace("_", "").upper()

"""Judging what a cloud call answered. Nothing is signed: the platform answers on the container's own machine.

    errcode -1 → Unknown     45009, 45011 → NotReached     any other but 0 → Refused
    errcode 0  → respdata, in the fields of APIv2: return_code and result_code are judged as there

Source: developers.weixin.qq.com/miniprogram/dev/wxcloudservice/wxcloudrun/src/development/pay, read 2026-09-11.
"""

from collections.abc import Mapping
from typing import Any

from app.providers.contract import NotReached, Rejected, Unknown
from app.providers.transport import ExchangeOutcome, RawAnswer
from app.providers.wechat.explanations import explain
from app.providers.wechat.v2.answers import Judgement, Refused, judge_result, judge_unsigned_refusal
from app.providers.wechat.v3.strict_json import Unreadable, read_object, text_of

_BUSY = -1
_TOO_OFTEN = frozenset({45009, 45011})
_WORDS_LIMIT = 500
_NUMBER_LIMIT = 64
_LIST = "_list"
_LIST_LIMIT = 100
# The member of an unifiedorder's answer that is one level further down.
PAYMENT = "payment"


def judge_answer(exchange: ExchangeOutcome) -> Judgement:
    """What the end of an exchange means; total. The fields of `payment` are named "payment.appId" and so on, those of a
    list as APIv2 numbers them: refund_fee_list[0] is refund_fee_0."""
    if not isinstance(exchange, RawAnswer):
        return exchange
    if exchange.status_code == 429:
        limited = Rejected("429", "", *explain("FREQUENCY_LIMITED", ""))
        return NotReached("turned away by the rate limit: HTTP 429", limited)
    if exchange.status_code != 200:
        return Unknown(f"HTTP {exchange.status_code}")
    try:
        answer = read_object(exchange.body)
    except Unreadable as exc:
        return Unknown(str(exc))
    errcode, respdata = answer.get("errcode"), answer.get("respdata")
    if type(errcode) is not int:
        return Unknown("the answer has no errcode")
    if errcode != 0:
        return _judge_errcode(errcode, text_of(answer, "errmsg") or "")
    if not isinstance(respdata, dict):
        return Unknown("the answer has no respdata")
    fields = _numbered(respdata) | texts(respdata)
    payment = respdata.get(PAYMENT)
    if isinstance(payment, dict):
        fields |= {f"{PAYMENT}.{name}": text for name, text in texts(payment).items()}
    if fields.get("return_code") == "FAIL":
        return judge_unsigned_refusal(fields)
    return judge_result(fields) if fields.get("return_code") == "SUCCESS" else Unknown("the answer has no return_code")


def texts(members: Mapping[str, Any]) -> dict[str, str]:
    """The members that are texts or numbers, as text; the platform writes fees and times in either form.

    A fee such as 9.9 stays there, so that it is refused where it is read, and not taken for one that was left out."""
    found = {}
    for name, value in members.items():
        text = str(value)[:_NUMBER_LIMIT] if isinstance(value, int | float) else text_of(members, name)
        if text is not None:
            found[name] = text
    return found


def _numbered(members: Mapping[str, Any]) -> dict[str, str]:
    return texts(
        {
            f"{name.removesuffix(_LIST)}_{place}": value
            for name, values in members.items()
            if name.endswith(_LIST) and isinstance(values, list)
            for place, value in enumerate(values[:_LIST_LIMIT])
        }
    )


def _judge_errcode(errcode: int, words: str) -> Judgement:
    if errcode == _BUSY:
        return Unknown("the platform is busy: errcode -1")
    if errcode in _TOO_OFTEN:
        limited = Rejected(str(errcode), words[:_WORDS_LIMIT], *explain("FREQUENCY_LIMITED", words))
        return NotReached(f"turned away by the rate limit: errcode {errcode}", limited)
    english, chinese = explain(str(errcode), words)
    return Refused(str(errcode), Rejected(str(errcode), words[:_WORDS_LIMIT], english, chinese))

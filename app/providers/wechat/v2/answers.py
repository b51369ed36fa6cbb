"""Judging what APIv2 answered: verified over every received field first, believed afterwards.

    return_code FAIL, unsigned text         → Refused     the request was not taken: wrong key, malformed
        … that speaks of being busy         → Unknown
        … or of too many calls              → NotReached
    result_code SUCCESS, signed             → Answered    read its fields
    result_code FAIL, signed: SYSTEMERROR…  → Unknown     it may have acted
                              FREQUENCY_…   → NotReached  turned away before anything was looked at
                              any other     → Refused     it said no
    anything else, or not verifiable        → Unknown

An unsigned refusal is believed only as far as that no credential came with it, without which nobody can pay. Whether an
order exists, is closed or paid, only a signed answer says.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_1 to 9_3, WxPayErrorCode of WxJava@9eba04d, read
2026-09-11.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.providers.contract import NotReached, Rejected, Unknown
from app.providers.transport import ExchangeOutcome, RawAnswer
from app.providers.wechat.explanations import explain
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.signing import verifies
from app.providers.wechat.xml import XmlRefused, read_fields

# Codes without their underscores, of which one fault goes by several spellings.
_MAY_HAVE_ACTED = frozenset({"SYSTEMERROR", "BANKERROR", "BIZERRNEEDRETRY", "UNKNOWN"})
_TURNED_AWAY = frozenset({"FREQUENCYLIMITED", "FREQUENCYLIMIT", "RATELIMITEXCEEDED", "INVALIDREQTOOMUCH"})

# The words of an unsigned refusal, which has no code of its own, and the code that stands for them.
_FAIL_WORDS = (
    (re.compile(r"已支付|ORDER ?PAID", re.IGNORECASE), "ORDERPAID"),
    (re.compile(r"签名|sign ?error", re.IGNORECASE), "SIGNERROR"),
    (re.compile(r"频率|频繁|FREQUENCY|RATE ?LIMIT|too (?:many|often)", re.IGNORECASE), "FREQUENCY_LIMITED"),
    (re.compile(r"系统|繁忙|稍后|超时|SYSTEM|BUSY|timeout", re.IGNORECASE), "SYSTEMERROR"),
    (re.compile(r"(?:app_?id|mch_?id|商户号).{0,24}(?:不匹配|not match)", re.IGNORECASE), "APPID_MCHID_NOT_MATCH"),
)
_CODE = re.compile(r"[A-Z0-9_]{3,64}", re.ASCII)
_WORDS_LIMIT = 500
# The reason of every refusal without a signature: none that a caller could act upon.
_UNSIGNED = "unsigned"


@dataclass(frozen=True, slots=True)
class Answered:
    """A verified success: every non-empty field as text."""

    fields: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """WeChat said no. `reason` is its code without underscores, by which callers tell refusals apart."""

    reason: str
    words: Rejected


Judgement = Answered | Refused | NotReached | Unknown


def judge_answer(account: V2Account, exchange: ExchangeOutcome) -> Judgement:
    """What the end of an exchange means; total, and never raises on any bytes."""
    if not isinstance(exchange, RawAnswer):
        return exchange
    if exchange.status_code == 429:
        limited = Rejected("429", "", *explain("FREQUENCY_LIMITED", ""))
        return NotReached("turned away by the rate limit: HTTP 429", limited)
    if exchange.status_code != 200:
        return Unknown(f"HTTP {exchange.status_code}")
    try:
        fields = {name: text for name, text in read_fields(exchange.body).items() if text}
    except XmlRefused as exc:
        return Unknown(str(exc))
    if fields.get("return_code") == "FAIL":
        return judge_unsigned_refusal(fields)
    if fields.get("return_code") != "SUCCESS":
        return Unknown("the answer has no return_code")
    if not verifies(fields, api_key=account.api_key):
        return Unknown("the answer's signature does not verify: is api_key right?")
    return judge_result(fields)


def judge_unsigned_refusal(fields: Mapping[str, str]) -> Judgement:
    """return_code FAIL: the request was turned away as a whole. Its words are for people and decide no more."""
    words = fields.get("return_msg", "")
    named = fields.get("err_code", "")
    code = named if _CODE.fullmatch(named) else _code_of(words)
    judged = _judge_code(code, words)
    return Refused(_UNSIGNED, judged.words) if isinstance(judged, Refused) else judged


def judge_result(fields: Mapping[str, str]) -> Judgement:
    """What a believed answer says by its result_code."""
    match fields.get("result_code"):
        case "SUCCESS":
            return Answered(fields)
        case "FAIL":
            return _judge_code(fields.get("err_code", "FAIL"), fields.get("err_code_des", ""))
    return Unknown("the answer has no result_code")


def reason_of(code: str) -> str:
    """A code without its underscores: ORDERPAID and ORDER_PAID are one fault."""
    return code.replace("_", "").upper()


def _code_of(words: str) -> str:
    if _CODE.fullmatch(words):
        return words
    return next((code for pattern, code in _FAIL_WORDS if pattern.search(words)), "FAIL")


def _judge_code(code: str, words: str) -> Judgement:
    shown = code[:64]
    reason = reason_of(code)
    said = Rejected(shown, words[:_WORDS_LIMIT], *explain(code, words))
    if reason in _TURNED_AWAY:
        return NotReached(f"turned away by the rate limit: {shown}", said)
    if reason in _MAY_HAVE_ACTED:
        return Unknown(f"WeChat answered {shown}")
    return Refused(reason, said)

"""Judging what the gateway answered: verified on the received bytes first, believed afterwards.

    10000 signed                          → Answered    read its fields
    10003 signed, of a deduction          → Answered    taken and worked on
    20000, …SYSTEM_ERROR, unknow-error    → Unknown     it may have acted
    40005                                 → NotReached  turned away before anything was looked at
    40004 signed, 20001, 4000x            → Refused     it said no
    anything else, or not verifiable      → Unknown

Only errors of the gateway itself come without a signature. A success or a business refusal without one proves nothing.

Source: https://opendocs.alipay.com/common/02mse7, read 2026-09-11; DefaultAlipayClient of alipay-sdk-python 3.7.1411.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.deduction_refusals import deduction_refusal
from app.providers.alipay.deductions import DEDUCT, IN_PROCESS
from app.providers.alipay.explanations import explain, last_part
from app.providers.alipay.refunds import REFUND
from app.providers.alipay.signing import AnswerMember, Unreadable, answer_members, verifies
from app.providers.contract import NotReached, Rejected, Unknown

_GATEWAY_REFUSALS = frozenset({"20001", "40001", "40002", "40003", "40006"})
_MAY_HAVE_ACTED = frozenset({"SYSTEM_ERROR", "unknow-error", "unknown-error", "UNKNOWN_ERROR"})
_WORDS_LIMIT = 500

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """A verified success: the method's own fields, numbers as text."""

    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway or the product said no. `reason` is the code's last part, by which callers tell refusals apart.

    `by_product` says that it was the product: the gateway itself refuses before anything is looked at."""

    reason: str
    words: Rejected
    by_product: bool


Judgement = Answered | Refused | NotReached | Unknown


def judge_answer(account: AlipayAccount, method: str, body: bytes) -> Judgement:
    """What an answer to `method` means; total, and never raises on any bytes."""
    try:
        members = answer_members(body)
    except Unreadable as exc:
        return Unknown(str(exc))
    node = members.get(method.replace(".", "_") + "_response") or members.get("error_response")
    if node is None or not isinstance(node.value, dict):
        return Unknown("the answer is to another question")
    code, sub_code = _text(node.value, "code"), _text(node.value, "sub_code")
    signed = "sign" in members
    if signed and not _is_genuine(account, node, members):
        return Unknown(f"the answer's signature does not verify (code {code[:10]}): is alipay_public_key right?")
    if code == "10000" or (code == IN_PROCESS and method == DEDUCT):
        return Answered(node.value) if signed else Unknown("a success without a signature")
    return _judge_refusal(node.value, code, sub_code, signed=signed, method=method)


def text_field(fields: Mapping[str, Any], name: str) -> str | None:
    """A field of an answer when it is there, a text and not empty."""
    return _text(fields, name) or None


def _judge_refusal(fields: Mapping[str, Any], code: str, sub_code: str, *, signed: bool, method: str) -> Judgement:
    shown = (sub_code or code)[:100]
    if code == "40005":
        return NotReached(f"turned away by the rate limit: {shown}")
    if code == "20000" or last_part(sub_code) in _MAY_HAVE_ACTED:
        return Unknown(f"Alipay answered {shown}")
    if code in _GATEWAY_REFUSALS or (code == "40004" and signed):
        words = _rejected(fields, code, sub_code, method)
        return Refused(last_part(sub_code), words, by_product=code == "40004")
    return Unknown(f"Alipay answered {shown or 'without a code'}{'' if signed else ', unsigned'}")


def _rejected(fields: Mapping[str, Any], code: str, sub_code: str, method: str) -> Rejected:
    of_deductions = deduction_refusal(last_part(sub_code)) if method == DEDUCT else None
    if of_deductions is not None:
        english, chinese = of_deductions.explanation
    else:
        english, chinese = explain(code, sub_code, refunding=method == REFUND)
    message = _text(fields, "sub_msg") or _text(fields, "msg")
    return Rejected((sub_code or code)[:100], message[:_WORDS_LIMIT], english, chinese)


def _is_genuine(account: AlipayAccount, node: AnswerMember, members: Mapping[str, AnswerMember]) -> bool:
    signature = members["sign"].value
    if not isinstance(signature, str) or not verifies(account.alipay_key, node.raw, signature):
        return False
    serial = members.get("alipay_cert_sn")
    if serial is not None and account.alipay_cert_sn is not None and serial.value != account.alipay_cert_sn:
        # A reissued certificate keeps its key, which is why the signature still verifies.
        _log.warning("alipay.certificate_reissued", app_id=account.app_id, alipay_cert_sn=str(serial.value)[:100])
    return True


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""

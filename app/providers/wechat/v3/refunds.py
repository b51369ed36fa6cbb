"""An APIv3 refund: what is asked for, and what WeChat says of one, in an answer or inside a notification.

    answers    status          SUCCESS, PROCESSING, CLOSED, ABNORMAL    name no merchant
    notices    refund_status   SUCCESS, CLOSED, ABNORMAL                name mchid, or sp_mchid and sub_mchid

200 to the asking means that it was taken. Asked again under the same number, WeChat answers with the same refund.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012791862 and /4012791865, read 2026-09-11; partner names from
DOCP 4012709253.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote

from app.providers.contract import RefundReport, RefundRequest, ReportedRefund, Unknown
from app.providers.wechat.refunds import reported_refund, shown_reason
from app.providers.wechat.v3.account import V3Account
from app.providers.wechat.v3.orders import receiver
from app.providers.wechat.v3.strict_json import Unreadable, text_of
from app.providers.wechat.v3.transactions import instant_of

REFUNDS = "/v3/refund/domestic/refunds"

_CLAIMS = ("mchid", "sp_mchid", "sub_mchid")


def refund_target(account: V3Account, out_refund_no: str) -> str:
    """Where the refund of this number is asked about."""
    target = f"{REFUNDS}/{quote(out_refund_no, safe='')}"
    return target if account.sub_mchid is None else f"{target}?sub_mchid={account.sub_mchid}"


def refund_content(account: V3Account, request: RefundRequest) -> dict[str, Any]:
    """The refund itself. The same request gives the same content: a repeat with another amount would be refused."""
    content: dict[str, Any] = {"out_refund_no": request.out_refund_no, "notify_url": request.notify_url}
    if account.sub_mchid is not None:
        content["sub_mchid"] = account.sub_mchid
    # One of the two; WeChat prefers its own.
    if request.transaction_id is not None:
        content["transaction_id"] = request.transaction_id
    else:
        content["out_trade_no"] = request.out_trade_no
    if (reason := shown_reason(request.reason)) is not None:
        content["reason"] = reason
    content["amount"] = {"refund": request.amount_fen, "total": request.total_fen, "currency": "CNY"}
    return content


def read_refund_answer(
    fields: Mapping[str, Any], request: RefundRequest, source: Literal["answer", "query"]
) -> RefundReport | Unknown:
    """What a verified answer says of the refund that was asked for or about; Unknown for one about another.

    Another payment's number or another amount goes to the caller, who compares."""
    try:
        report = _report(fields, source, status_name="status")
    except Unreadable as exc:
        return Unknown(f"the answer: {exc}")
    if report.out_refund_no != request.out_refund_no:
        return Unknown("the answer is about another out_refund_no")
    return report


def read_refund_resource(account: V3Account, fields: Mapping[str, Any]) -> RefundReport:
    """What a verified notice says. Raises Unreadable, also where it does not name its receiver as this account's do."""
    report = _report(fields, "notification", status_name="refund_status")
    if not report.account_claims.keys() >= receiver(account).keys():
        raise Unreadable("the refund does not name its receiver")
    return report


def _report(
    fields: Mapping[str, Any], source: Literal["answer", "query", "notification"], *, status_name: str
) -> RefundReport:
    out_trade_no, out_refund_no = text_of(fields, "out_trade_no"), text_of(fields, "out_refund_no")
    word = text_of(fields, status_name)
    if out_trade_no is None or out_refund_no is None or word is None:
        raise Unreadable(f"the refund lacks out_trade_no, out_refund_no or {status_name}")
    status, failure = reported_refund(word, out_refund_no)
    amount_fen = _amount(fields)
    if status is ReportedRefund.REFUNDED and amount_fen is None:
        raise Unreadable("the refund does not say how much was given back")
    return RefundReport(
        out_trade_no=out_trade_no,
        out_refund_no=out_refund_no,
        status=status,
        source=source,
        amount_fen=amount_fen,
        provider_refund_id=text_of(fields, "refund_id"),
        refunded_at=instant_of(fields, "success_time", out_trade_no),
        account_claims={name: claim for name in _CLAIMS if (claim := text_of(fields, name)) is not None},
        failure=failure,
    )


def _amount(fields: Mapping[str, Any]) -> int | None:
    """`refund` is what was asked for; what the payer got after coupons, payer_refund, is not compared with anything."""
    amount = fields.get("amount")
    if amount is None:
        return None
    if not isinstance(amount, dict):
        raise Unreadable("the amount is no object")
    if amount.get("currency") not in (None, "CNY"):
        raise Unreadable("the refund is in another currency")
    refund = amount.get("refund")
    if refund is not None and (type(refund) is not int or not 0 <= refund < 2**63):
        raise Unreadable("the amount is not a whole number of fen")
    return refund

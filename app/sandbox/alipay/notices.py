"""What Alipay sends back: the signed notification and the signed return URL.

Source: opendocs.alipay.com open/00f7nu and open/00dn7l (fields, acknowledgement, retry gaps), read 2026-09. The three
immediate resends of 当面付 are left out: here every product has the same eight sends.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode, urlsplit

from app.sandbox.alipay.accounts import Account
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.payers import logon_id_of
from app.sandbox.alipay.signing import notification_text, request_text, sign
from app.sandbox.alipay.trades import Product, Refund, Trade
from app.sandbox.clock import format_beijing
from app.sandbox.deliveries import Message

RETRY_GAPS = tuple(
    timedelta(**gap)
    for gap in (
        {"minutes": 4},
        {"minutes": 10},
        {"minutes": 10},
        {"hours": 1},
        {"hours": 2},
        {"hours": 6},
        {"hours": 15},
    )
)


def is_acknowledged(status: int, body: bytes) -> bool:
    """Exactly the seven bytes `success`; a quote, a newline or a BOM is a failure."""
    return status == 200 and body == b"success"


def notification_fields(trade: Trade, notify_id: str) -> dict[str, str]:
    """The truth about a trade in a notification's words, without `notify_time` and `sign`."""
    terms, account = trade.terms, trade.account
    amount = format_amount(terms.total_amount_fen)
    fields = {
        "notify_type": "trade_status_sync",
        "notify_id": notify_id,
        "app_id": account.app_id,
        "auth_app_id": account.auth_app_id,
        "charset": trade.charset,
        "version": "1.0",
        "sign_type": "RSA2",
        "trade_no": trade.trade_no,
        "out_trade_no": trade.out_trade_no,
        "trade_status": trade.status.value,
        "total_amount": amount,
        "seller_id": account.seller_id,
        "buyer_id": trade.buyer_id,
        "buyer_logon_id": logon_id_of(trade.buyer_id),
        "subject": terms.subject,
    }
    if trade.agreement and terms.product is Product.DEDUCTION:
        fields["agreement_no"] = terms.agreement_no
        if external_no := trade.agreement.terms.external_agreement_no:
            fields["external_agreement_no"] = external_no
    if terms.body:
        fields["body"] = terms.body
    if terms.passback_params:
        fields["passback_params"] = terms.passback_params
    if trade.opened_at:
        fields["gmt_create"] = format_beijing(trade.opened_at)
    if trade.paid_at:
        fields |= {
            "receipt_amount": amount,
            "invoice_amount": amount,
            "buyer_pay_amount": amount,
            "point_amount": "0.00",
            "gmt_payment": format_beijing(trade.paid_at),
            "fund_bill_list": json.dumps([{"amount": amount, "fundChannel": "ALIPAYACCOUNT"}], separators=(",", ":")),
        }
    if trade.closed_at:
        fields["gmt_close"] = format_beijing(trade.closed_at)
    return fields


def refund_fields(trade: Trade, refund: Refund) -> dict[str, str]:
    """What a notice about a refund says beside the trade: `refund_fee` is all that was refunded so far."""
    assert refund.refunded_at is not None, "there are no notices of refunds that did not succeed"
    milliseconds = refund.refunded_at.microsecond // 1000
    return {
        "out_biz_no": refund.out_request_no,
        "refund_fee": format_amount(trade.refunded_fen),
        "send_back_fee": format_amount(refund.amount_fen),
        "gmt_refund": f"{format_beijing(refund.refunded_at)}.{milliseconds:03d}",
    }


def compose_notification(
    account: Account,
    fields: Mapping[str, str],
    codec: str,
    sent_at: datetime,
    *,
    break_signature: bool = False,
    keeps_sign_type: bool = False,
) -> Message:
    """The form body of one send. A broken signature is a well-formed one over something else.

    Some notices, and some say those of agreements, are signed as requests are: `sign_type` stays.
    """
    signed = {**fields, "notify_time": format_beijing(sent_at)}
    text = (request_text(signed) if keeps_sign_type else notification_text(signed)) + (
        "&broken=1" if break_signature else ""
    )
    signed["sign"] = sign(account.alipay_private_key, text.encode(codec))
    return Message(
        headers={"content-type": f"application/x-www-form-urlencoded; charset={fields['charset']}"},
        body=urlencode(signed, encoding=codec).encode("ascii"),
    )


def return_url(trade: Trade, now: datetime) -> str:
    """Where the payer's browser goes after paying: documented fields, no `trade_status`, proof of nothing.

    Parameters the merchant's own URL carries stay in front and are not part of the signature.
    """
    parameters = {
        "app_id": trade.account.app_id,
        "auth_app_id": trade.account.auth_app_id,
        "charset": trade.charset,
        "method": f"alipay.trade.{trade.terms.product.value}.pay.return",
        "out_trade_no": trade.out_trade_no,
        "seller_id": trade.account.seller_id,
        "sign_type": "RSA2",
        "timestamp": format_beijing(now),
        "total_amount": format_amount(trade.terms.total_amount_fen),
        "trade_no": trade.trade_no,
        "version": "1.0",
    }
    text = notification_text(parameters)
    parameters["sign"] = sign(trade.account.alipay_private_key, text.encode(trade.codec))
    parts = urlsplit(trade.return_url)
    query = "&".join(filter(None, (parts.query, urlencode(parameters, encoding=trade.codec))))
    return parts._replace(query=query).geturl()

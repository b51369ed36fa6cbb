"""How APIv2 tells that an order was paid or a refund settled: XML, acknowledged by XML, sixteen sends in a day.

The notice of a payment is signed. That of a refund is not: all it says is encrypted in `req_info`.
Source: pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_7 and 9_16, read 2026-09.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation

from app.sandbox.clock import format_beijing
from app.sandbox.deliveries import Message
from app.sandbox.desks import DeskRefusal, Payment
from app.sandbox.wechat.trades import ClientCall, Refund, Telling, Trade
from app.sandbox.wechat.v2_fields import format_compact
from app.sandbox.wechat.v2_refunds import DEFAULT_ACCOUNT, RECEIVED_BY, STATUSES
from app.sandbox.wechat.v2_signing import HMAC_SHA256, encrypted, is_client_signed, sign
from app.sandbox.wechat.xml import XmlRefused, is_writable, read_xml, write_xml

RETRY_GAPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)
ENVELOPE = "envelope."

Fields = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class V2Channel:
    """Everything about an order is signed the way its unifiedorder was."""

    sign_type: str
    name: str = "v2"
    retry_gaps: tuple[timedelta, ...] = RETRY_GAPS

    def notify_url(self, trade: Trade) -> str:
        return trade.order.notify_url

    def check(self, payment: Payment) -> None:
        """Raises DeskRefusal for an amount, a name or a text that no XML notice can carry."""
        fen_of(payment)
        told = {"app_id": payment.app_id, "seller_id": payment.seller_id, "payer": payment.payer}
        _check_writable({**payment.overrides, **{name: text or "" for name, text in told.items()}})

    def compose(self, trade: Trade, payment: Payment, notify_id: str, sent_at: datetime) -> Message:
        fields = {
            **_truth(trade, self.sign_type),
            "nonce_str": notify_id.replace("-", ""),
            **told_otherwise(trade, payment),
        }
        key = trade.merchant.api_key
        fields["sign"] = sign(fields, key[::-1] if payment.break_signature else key, self.sign_type)
        return Message(headers={"content-type": "text/xml; charset=utf-8"}, body=write_xml(fields))

    def refund_notify_url(self, refund: Refund) -> str:
        return refund.wish.notify_url

    def check_refund(self, told: Telling) -> None:
        """Raises DeskRefusal for a name or a text that no XML notice can carry."""
        for part in _parted(told):
            _check_writable(part)

    def compose_refund(self, refund: Refund, told: Telling, notify_id: str, sent_at: datetime) -> Message:
        """With a broken signature, of which there is none here, it is encrypted with another key."""
        outside, inside = _parted(told)
        key = refund.trade.merchant.api_key
        plaintext = write_xml({**settled_fields(refund), **inside}, root="root")
        fields: Fields = {
            "return_code": "SUCCESS",
            **caller_fields(refund.trade),
            "nonce_str": notify_id.replace("-", ""),
            "req_info": encrypted(plaintext, key[::-1] if told.break_signature else key),
            **outside,
        }
        return Message(headers={"content-type": "text/xml; charset=utf-8"}, body=write_xml(fields))

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """HTTP 200 and XML whose return_code is SUCCESS."""
        try:
            return status == 200 and read_xml(body).get("return_code") == "SUCCESS"
        except XmlRefused:
            return False

    def is_signed(self, trade: Trade, call: ClientCall) -> bool:
        return call.sign_type == self.sign_type and is_client_signed(call, trade.merchant.api_key)


def _parted(told: Telling) -> tuple[dict[str, str], dict[str, str]]:
    """The overrides of what surrounds `req_info`, and of what is in it."""
    overrides = told.overrides.items()
    outside = {name.removeprefix(ENVELOPE): text for name, text in overrides if name.startswith(ENVELOPE)}
    return outside, {name: text for name, text in overrides if not name.startswith(ENVELOPE)}


def _check_writable(told: Mapping[str, str]) -> None:
    """Raises DeskRefusal."""
    for name, text in told.items():
        if not is_writable(name, text):
            raise DeskRefusal("FIELD_INVALID", f"{name} 不能写进 XML", "leave out control characters and odd names")


def paid_fields(trade: Trade) -> Fields:
    """What both a query and a notice say of a paid order."""
    order, payer = trade.order, trade.payer
    assert payer is not None
    assert trade.paid_at is not None
    fields: Fields = {"openid": payer.openid, "is_subscribe": "N"}
    if payer.sub_openid:
        fields |= {"sub_openid": payer.sub_openid, "sub_is_subscribe": "N"}
    fields |= {
        "trade_type": order.product.value,
        "bank_type": "OTHERS",
        "total_fee": order.total_fen,
        "fee_type": "CNY",
        "cash_fee": order.total_fen,
        "cash_fee_type": "CNY",
        "transaction_id": trade.transaction_id,
        "out_trade_no": trade.out_trade_no,
        "time_end": format_compact(trade.paid_at),
    }
    return fields | ({"attach": order.attach} if order.attach else {})


def caller_fields(trade: Trade) -> Fields:
    """Who made the order."""
    fields: Fields = {"appid": trade.order.appid, "mch_id": trade.merchant.mchid}
    if trade.merchant.sub_mchid:
        fields["sub_mch_id"] = trade.merchant.sub_mchid
    return fields | ({"sub_appid": trade.order.sub_appid} if trade.order.sub_appid else {})


def fen_of(payment: Payment) -> int | None:
    """The amount that the notice shall name instead of the truth. Raises DeskRefusal unless it is whole fen."""
    if payment.amount is None:
        return None
    try:
        fen = Decimal(payment.amount) * 100
        if fen == fen.to_integral_value():
            return int(fen)
    except (InvalidOperation, OverflowError):
        pass  # NaN, infinity
    raise DeskRefusal("AMOUNT_INVALID", f"金额 {payment.amount} 不是整数分", "WeChat's notices carry whole fen")


def told_otherwise(trade: Trade, payment: Payment) -> Fields:
    """What the notice shall say instead of the truth, by the names of APIv2."""
    told: Fields = {}
    if (fen := fen_of(payment)) is not None:
        told |= {"total_fee": fen, "cash_fee": fen}
    if payment.app_id is not None:
        told["appid"] = payment.app_id
    if payment.seller_id is not None:
        told["sub_mch_id" if trade.merchant.sub_mchid else "mch_id"] = payment.seller_id
    if payment.payer is not None:
        told["sub_openid" if trade.order.sub_appid else "openid"] = payment.payer
    return told | dict(payment.overrides)


def _truth(trade: Trade, sign_type: str) -> Fields:
    fields: Fields = {"return_code": "SUCCESS", "result_code": "SUCCESS", **caller_fields(trade), **paid_fields(trade)}
    return fields | ({"sign_type": sign_type} if sign_type == HMAC_SHA256 else {})


def settled_fields(refund: Refund) -> Fields:
    """What the notice of a refund says: what `req_info` holds."""
    trade = refund.trade
    fields: Fields = {
        "transaction_id": trade.transaction_id,
        "out_trade_no": trade.out_trade_no,
        "refund_id": refund.refund_id,
        "out_refund_no": refund.wish.out_refund_no,
        "total_fee": trade.order.total_fen,
        "settlement_total_fee": trade.order.total_fen,
        "refund_fee": refund.wish.amount_fen,
        "settlement_refund_fee": refund.wish.amount_fen,
        "refund_status": STATUSES[refund.state],
        "refund_recv_accout": RECEIVED_BY,
        "refund_account": refund.wish.funds or DEFAULT_ACCOUNT,
        "refund_request_source": "API",
        "cash_refund_fee": refund.wish.amount_fen,
    }
    return fields | ({"success_time": format_beijing(refund.refunded_at)} if refund.refunded_at else {})

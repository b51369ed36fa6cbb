"""APIv3's notifications of paid orders and settled refunds: an envelope in JSON, signed, whose resource is encrypted.

Source: pay.weixin.qq.com/doc/v3/merchant/4012791861 and 4012791865 (fields), 4012075249 (gaps, acknowledgement), read
2026-09.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.sandbox.clock import BEIJING
from app.sandbox.deliveries import Message
from app.sandbox.desks import Payment, RefundState
from app.sandbox.wechat.signers import SignatureKind, Signers, v3_keys
from app.sandbox.wechat.signing import encrypted, verified
from app.sandbox.wechat.trades import STATE_WORDS, ClientCall, Refund, Telling, Trade, TradeState
from app.sandbox.wechat.v3_orders import trade_fields
from app.sandbox.wechat.v3_refunds import RECEIVED_BY, STATUSES

RETRY_GAPS = tuple(
    timedelta(seconds=seconds)
    for seconds in (
        *(15, 15, 30, 180),
        *(600, 1200, 1800, 1800, 1800, 3600),
        *(10800, 10800, 10800, 21600, 21600),
    )
)
ENVELOPE = "envelope."
MAX_EXPONENT = 20
_REFUND_EVENTS = {
    RefundState.REFUNDED: ("REFUND.SUCCESS", "退款成功"),
    RefundState.ABNORMAL: ("REFUND.ABNORMAL", "退款异常"),
    RefundState.FAILED: ("REFUND.CLOSED", "退款关闭"),
}


@dataclass(frozen=True, slots=True)
class _Event:
    """What a notice tells, before anything in it is changed. `original_type` is what the plaintext is of."""

    event_type: str
    summary: str
    original_type: str
    happened_at: datetime
    plaintext: dict[str, Any]


@dataclass(frozen=True, slots=True)
class V3Channel:
    """A field of the plaintext is named by its path (`amount.total`), one of the envelope by `envelope.event_type`."""

    signers: Signers
    name: str = "v3"
    retry_gaps: tuple[timedelta, ...] = RETRY_GAPS

    def notify_url(self, trade: Trade) -> str:
        return trade.order.notify_url

    def check(self, payment: Payment) -> None:
        """Anything can be written into JSON."""

    def compose(self, trade: Trade, payment: Payment, notify_id: str, sent_at: datetime) -> Message:
        kind = SignatureKind.BROKEN if payment.break_signature else SignatureKind.TRUE
        changes = _changes(trade, payment) | dict(payment.overrides)
        return self._message(trade, _paid(trade), changes, notify_id, sent_at, kind)

    def compose_probe(self, trade: Trade, notify_id: str, sent_at: datetime) -> Message:
        """The notice as WeChat's signature probe sends it: true in everything but its signature."""
        return self._message(trade, _paid(trade), {}, notify_id, sent_at, SignatureKind.PROBE)

    def refund_notify_url(self, refund: Refund) -> str:
        return refund.wish.notify_url

    def check_refund(self, told: Telling) -> None:
        """As of a payment."""

    def compose_refund(self, refund: Refund, told: Telling, notify_id: str, sent_at: datetime) -> Message:
        kind = SignatureKind.BROKEN if told.break_signature else SignatureKind.TRUE
        return self._message(refund.trade, _settled(refund), told.overrides, notify_id, sent_at, kind)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """The status decides; the body is for people."""
        return status in (200, 204)

    def is_signed(self, trade: Trade, call: ClientCall) -> bool:
        """Source: pay.weixin.qq.com/doc/v3/merchant/4012365339, read 2026-09."""
        message = "".join(f"{line}\n" for line in (call.app_id, call.time_stamp, call.nonce_str, call.package))
        key = v3_keys(trade.merchant).merchant_key
        return call.sign_type == "RSA" and verified(key, message.encode(), call.pay_sign)

    def _message(
        self,
        trade: Trade,
        event: _Event,
        changes: Mapping[str, Any],
        notify_id: str,
        sent_at: datetime,
        kind: SignatureKind,
    ) -> Message:
        outside = {name.removeprefix(ENVELOPE): value for name, value in changes.items() if name.startswith(ENVELOPE)}
        inside = {name: value for name, value in changes.items() if not name.startswith(ENVELOPE)}
        plaintext = _json(_changed(event.plaintext, inside))
        envelope = {
            "id": notify_id,
            "create_time": _beijing(event.happened_at),
            "resource_type": "encrypt-resource",
            "event_type": event.event_type,
            "summary": event.summary,
            "resource": {
                "original_type": event.original_type,
                **encrypted(v3_keys(trade.merchant).apiv3_key, plaintext, event.original_type),
            },
        }
        body = _json(_changed(envelope, outside))
        key = self.signers.pick(trade.merchant)
        headers = self.signers.headers(trade.merchant, key, body, at=sent_at, kind=kind)
        return Message(headers={"Content-Type": "application/json", "User-Agent": "Mozilla/4.0", **headers}, body=body)


def _paid(trade: Trade) -> _Event:
    """That the order was paid, which stays the news however much of it has been given back since."""
    assert trade.paid_at is not None, "only paid orders are told of"
    state = TradeState.SUCCESS
    plaintext = trade_fields(trade) | {"trade_state": state.value, "trade_state_desc": STATE_WORDS[state]}
    return _Event("TRANSACTION.SUCCESS", "支付成功", "transaction", trade.paid_at, plaintext)


def _settled(refund: Refund) -> _Event:
    trade, merchant = refund.trade, refund.trade.merchant
    assert refund.settled_at is not None, "only settled refunds are told of"
    names = {"mchid": merchant.mchid}
    if merchant.sub_mchid is not None:
        names = {"sp_mchid": merchant.mchid, "sub_mchid": merchant.sub_mchid}
    plaintext: dict[str, Any] = {
        **names,
        "transaction_id": trade.transaction_id,
        "out_trade_no": trade.out_trade_no,
        "refund_id": refund.refund_id,
        "out_refund_no": refund.wish.out_refund_no,
        "refund_status": STATUSES[refund.state],
        "user_received_account": RECEIVED_BY,
        "amount": {
            "total": trade.order.total_fen,
            "refund": refund.wish.amount_fen,
            "payer_total": trade.order.total_fen,
            "payer_refund": refund.wish.amount_fen,
        },
    }
    if refund.refunded_at is not None:
        plaintext["success_time"] = _beijing(refund.refunded_at)
    return _Event(*_REFUND_EVENTS[refund.state], "refund", refund.settled_at, plaintext)


def _changes(trade: Trade, payment: Payment) -> dict[str, Any]:
    """By path, what `payment` tells instead of the truth beside its overrides."""
    is_partner = trade.merchant.sub_mchid is not None
    changes: dict[str, Any] = {}
    if payment.amount is not None:
        total = fen_of(payment.amount)
        changes |= {"amount.total": total, "amount.payer_total": total}
    if payment.app_id is not None:
        changes["sp_appid" if is_partner else "appid"] = payment.app_id
    if payment.seller_id is not None:
        changes["sub_mchid" if is_partner else "mchid"] = payment.seller_id
    if payment.payer is not None:
        has_sub = trade.payer is not None and trade.payer.sub_openid
        changes["payer.sub_openid" if has_sub else "payer.sp_openid" if is_partner else "payer.openid"] = payment.payer
    return changes


def fen_of(yuan: str) -> int | str:
    """Whole fen as a number; a fraction of one and other things no true notice holds as a text."""
    amount = Decimal(yuan)
    if not amount.is_finite() or abs(amount.adjusted()) > MAX_EXPONENT:
        return yuan
    fen = amount * 100
    return int(fen) if fen == fen.to_integral_value() else f"{fen.normalize():f}"


def _changed(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The fields with each path set; a text takes the place of a number as a number where it is one."""
    for path, value in changes.items():
        *outer, last = path.split(".")
        place = fields
        for name in outer:
            inner = place.get(name)
            place[name] = place = inner if isinstance(inner, dict) else {}
        is_number = isinstance(place.get(last), int) and isinstance(value, str) and value.lstrip("-").isdecimal()
        place[last] = int(value) if is_number else value
    return fields


def _beijing(instant: datetime) -> str:
    return instant.astimezone(BEIJING).isoformat(timespec="seconds")


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

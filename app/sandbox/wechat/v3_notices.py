"""APIv3's notification of a paid order: an envelope in JSON whose resource is encrypted, signed in its headers.

Source: pay.weixin.qq.com/doc/v3/merchant/4012791861 (fields) and 4012075249 (gaps, acknowledgement), read 2026-09.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from app.sandbox.clock import BEIJING
from app.sandbox.deliveries import Message
from app.sandbox.desks import Payment
from app.sandbox.wechat.signers import SignatureKind, Signers, v3_keys
from app.sandbox.wechat.signing import encrypted, verified
from app.sandbox.wechat.trades import ClientCall, Trade
from app.sandbox.wechat.v3_orders import trade_fields

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
        return self._message(trade, payment, notify_id, sent_at, kind)

    def compose_probe(self, trade: Trade, notify_id: str, sent_at: datetime) -> Message:
        """The notice as WeChat's signature probe sends it: true in everything but its signature."""
        return self._message(trade, Payment(), notify_id, sent_at, SignatureKind.PROBE)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """The status decides; the body is for people."""
        return status in (200, 204)

    def is_signed(self, trade: Trade, call: ClientCall) -> bool:
        """Source: pay.weixin.qq.com/doc/v3/merchant/4012365339, read 2026-09."""
        message = "".join(f"{line}\n" for line in (call.app_id, call.time_stamp, call.nonce_str, call.package))
        key = v3_keys(trade.merchant).merchant_key
        return call.sign_type == "RSA" and verified(key, message.encode(), call.pay_sign)

    def _message(
        self, trade: Trade, payment: Payment, notify_id: str, sent_at: datetime, kind: SignatureKind
    ) -> Message:
        plaintext = _changed(trade_fields(trade), _changes(trade, payment))
        assert trade.paid_at is not None, "only paid orders are told of"
        envelope = {
            "id": notify_id,
            "create_time": trade.paid_at.astimezone(BEIJING).isoformat(timespec="seconds"),
            "resource_type": "encrypt-resource",
            "event_type": "TRANSACTION.SUCCESS",
            "summary": "支付成功",
            "resource": {
                "original_type": "transaction",
                **encrypted(v3_keys(trade.merchant).apiv3_key, _json(plaintext), "transaction"),
            },
        }
        outside = {
            name.removeprefix(ENVELOPE): value for name, value in payment.overrides.items() if name.startswith(ENVELOPE)
        }
        body = _json(_changed(envelope, outside))
        key = self.signers.pick(trade.merchant)
        headers = self.signers.headers(trade.merchant, key, body, at=sent_at, kind=kind)
        return Message(headers={"Content-Type": "application/json", "User-Agent": "Mozilla/4.0", **headers}, body=body)


def _changes(trade: Trade, payment: Payment) -> dict[str, Any]:
    """By path, the fields that tell something else than the truth."""
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
    return changes | {name: value for name, value in payment.overrides.items() if not name.startswith(ENVELOPE)}


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


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

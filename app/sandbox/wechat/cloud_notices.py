"""How an order made from inside WeChat's cloud is told to have been paid or refunded: camelCase JSON to the container.

There is no signature; that a call comes from WeChat shows in its `X-WX-SOURCE`. Of payments only successful ones are
told, again and again for two days until the container says `{"errcode": 0, …}`. What the callback of a refund holds is
not documented: take it for a hint to ask. Here it is what APIv2's notice says, named as in the callback of a payment.
Source: developers.weixin.qq.com, wxcloudrun/src/development/pay/callback, read 2026-09. The gaps beyond the first day
are not documented; six hours go on here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from app.sandbox.deliveries import Message
from app.sandbox.desks import Payment
from app.sandbox.wechat.cloud_control import CallbackAddress
from app.sandbox.wechat.trades import ClientCall, Refund, Telling, Trade
from app.sandbox.wechat.v2_notices import (
    RETRY_GAPS,
    Fields,
    caller_fields,
    fen_of,
    paid_fields,
    settled_fields,
    told_otherwise,
)
from app.sandbox.wechat.v2_signing import MD5, is_client_signed

CLOUD_RETRY_GAPS = (*RETRY_GAPS, *(timedelta(hours=6),) * 3)
SOURCE = "wx_paycallback"

_AFTER_UNDERSCORE = re.compile(r"_([a-z])")
_NUMBERS = frozenset({"totalFee", "cashFee", "refundFee", "settlementTotalFee", "settlementRefundFee", "cashRefundFee"})
_WHOLE = re.compile(r"-?[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class CloudChannel:
    """`platform_key` is WeChat's own: no merchant ever sees it."""

    platform_key: str = field(repr=False)
    address: CallbackAddress
    name: str = "cloud"
    retry_gaps: tuple[timedelta, ...] = CLOUD_RETRY_GAPS

    def notify_url(self, trade: Trade) -> str:
        """The container's address and the path of the order, unless the order has a whole address."""
        return self._address(trade.order.notify_url)

    def check(self, payment: Payment) -> None:
        """Raises DeskRefusal for an amount that no notice can carry."""
        fen_of(payment)

    def compose(self, trade: Trade, payment: Payment, notify_id: str, sent_at: datetime) -> Message:
        """What a broken signature is elsewhere is a callback without its source here."""
        body = {**_truth(trade, notify_id), **_told_otherwise(trade, payment)}
        return _message(trade, body, with_source=not payment.break_signature)

    def refund_notify_url(self, refund: Refund) -> str:
        """As of an order; the refund names a path of its own."""
        return self._address(refund.wish.notify_url)

    def check_refund(self, told: Telling) -> None:
        """Anything can be written into JSON."""

    def compose_refund(self, refund: Refund, told: Telling, notify_id: str, sent_at: datetime) -> Message:
        fields: Fields = {"return_code": "SUCCESS", "result_code": "SUCCESS", **caller_fields(refund.trade)}
        fields |= {"nonce_str": notify_id.replace("-", "")[:16], **settled_fields(refund)}
        body = {**_camel_case(fields), **_as_numbers(told.overrides)}
        return _message(refund.trade, body, with_source=not told.break_signature)

    def is_acknowledged(self, status: int, body: bytes) -> bool:
        """HTTP 200 and a JSON object whose errcode is the number 0."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return False
        errcode = answer.get("errcode") if isinstance(answer, dict) else None
        return status == 200 and type(errcode) is int and errcode == 0

    def is_signed(self, trade: Trade, call: ClientCall) -> bool:
        return call.sign_type == MD5 and is_client_signed(call, self.platform_key)

    def _address(self, place: str) -> str:
        return f"{self.address.base_url}{place}" if place.startswith("/") else place


def _message(trade: Trade, body: Fields, *, with_source: bool) -> Message:
    merchant = trade.merchant
    headers = {
        "content-type": "application/json",
        "x-wx-env": merchant.env_id,
        "x-wx-service": merchant.cloud_service,
        "x-wx-appid": trade.client_appid,
    }
    if with_source:
        headers["x-wx-source"] = SOURCE
    return Message(headers=headers, body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def _truth(trade: Trade, notify_id: str) -> Fields:
    fields: Fields = {"return_code": "SUCCESS", "result_code": "SUCCESS", **caller_fields(trade), **paid_fields(trade)}
    del fields["cash_fee_type"]  # the page's example has none
    return _camel_case(fields | {"nonce_str": notify_id.replace("-", "")[:16]})


def _told_otherwise(trade: Trade, payment: Payment) -> Fields:
    """The merchant's application is `subAppid` here. Overrides are named as in the callback; numbers stay numbers."""
    told = told_otherwise(trade, replace(payment, app_id=None, overrides={}))
    if payment.app_id is not None:
        told["sub_appid"] = payment.app_id
    return _camel_case(told) | _as_numbers(payment.overrides)


def _as_numbers(overrides: Mapping[str, str]) -> Fields:
    """Whole texts of what is a number in a true callback, as numbers."""
    return {
        name: int(text) if name in _NUMBERS and _WHOLE.fullmatch(text) else text for name, text in overrides.items()
    }


def _camel_case(fields: Mapping[str, str | int]) -> Fields:
    return {_AFTER_UNDERSCORE.sub(lambda match: match[1].upper(), name): value for name, value in fields.items()}

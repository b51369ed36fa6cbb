"""How an order made from inside WeChat's cloud is told to have been paid: camelCase JSON to the container.

There is no signature; that a call comes from WeChat shows in its `X-WX-SOURCE`. Only successful payments are told,
again and again for two days until the container says `{"errcode": 0, …}`.
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
from app.sandbox.wechat.trades import ClientCall, Trade
from app.sandbox.wechat.v2_notices import RETRY_GAPS, Fields, caller_fields, fen_of, paid_fields, told_otherwise
from app.sandbox.wechat.v2_signing import MD5, is_client_signed

CLOUD_RETRY_GAPS = (*RETRY_GAPS, *(timedelta(hours=6),) * 3)
SOURCE = "wx_paycallback"

_AFTER_UNDERSCORE = re.compile(r"_([a-z])")
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
        place = trade.order.notify_url
        return f"{self.address.base_url}{place}" if place.startswith("/") else place

    def check(self, payment: Payment) -> None:
        """Raises DeskRefusal for an amount that no notice can carry."""
        fen_of(payment)

    def compose(self, trade: Trade, payment: Payment, notify_id: str, sent_at: datetime) -> Message:
        """What a broken signature is elsewhere is a callback without its source here."""
        merchant = trade.merchant
        headers = {
            "content-type": "application/json",
            "x-wx-env": merchant.env_id,
            "x-wx-service": merchant.cloud_service,
            "x-wx-appid": trade.client_appid,
        }
        if not payment.break_signature:
            headers["x-wx-source"] = SOURCE
        body = {**_truth(trade, notify_id), **_told_otherwise(trade, payment)}
        return Message(headers=headers, body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())

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


def _truth(trade: Trade, notify_id: str) -> Fields:
    fields: Fields = {"return_code": "SUCCESS", "result_code": "SUCCESS", **caller_fields(trade), **paid_fields(trade)}
    del fields["cash_fee_type"]  # the page's example has none
    return _camel_case(fields | {"nonce_str": notify_id.replace("-", "")[:16]})


def _told_otherwise(trade: Trade, payment: Payment) -> Fields:
    """The merchant's application is `subAppid` here. Overrides are named as in the callback; numbers stay numbers."""
    told = told_otherwise(trade, replace(payment, app_id=None, overrides={}))
    if payment.app_id is not None:
        told["sub_appid"] = payment.app_id
    numbers = {"totalFee", "cashFee"}
    named = {
        name: int(text) if name in numbers and _WHOLE.fullmatch(text) else text
        for name, text in payment.overrides.items()
    }
    return _camel_case(told) | named


def _camel_case(fields: Mapping[str, str | int]) -> Fields:
    return {_AFTER_UNDERSCORE.sub(lambda match: match[1].upper(), name): value for name, value in fields.items()}

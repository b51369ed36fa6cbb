"""Reading an APIv3 notification: stamped, near in time, verified as bytes, decrypted, and only then understood.

    headers → time → signature over the received bytes → envelope → AES-256-GCM → transaction or refund → report

WeChat now and then sends a probe, whose signature begins with WECHATPAY/SIGNTEST/: it must be refused, and the real
notice follows. Other events than those of payments and refunds are refused, and WeChat repeats them for a day.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012791861, /4012791865 and /4013053249, read 2026-09-11.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

import structlog

from app.providers.contract import Notification, NotificationRefused, PaymentReport, RefundReport
from app.providers.wechat.refunds import refund_event_key
from app.providers.wechat.v3.account import V3Account
from app.providers.wechat.v3.calls import Stamp, read_stamp
from app.providers.wechat.v3.platform_keys import KeysUnavailable
from app.providers.wechat.v3.refunds import read_refund_resource
from app.providers.wechat.v3.resources import OtherKey, opened_resource
from app.providers.wechat.v3.strict_json import Unreadable, read_object, text_of
from app.providers.wechat.v3.transactions import transaction_report

BODY_LIMIT_BYTES = 65_536
PROBE_PREFIX = "WECHATPAY/SIGNTEST/"
_PAID = "TRANSACTION.SUCCESS"
# With the refund_status that each of them announces.
_REFUND_EVENTS = {"REFUND.SUCCESS": "SUCCESS", "REFUND.ABNORMAL": "ABNORMAL", "REFUND.CLOSED": "CLOSED"}
_ID_LIMIT = 64

_log = structlog.get_logger(__name__)

IsGenuine = Callable[[V3Account, Stamp, bytes], Awaitable[bool]]


async def read_notification(
    account: V3Account, headers: Mapping[str, str], body: bytes, *, now: datetime, is_genuine: IsGenuine
) -> Notification:
    """The verified report of a payment or a refund; for any bytes either this or NotificationRefused.

    Whether its number, the amount and the receiver are ours is the caller's to compare."""
    await _check_origin(account, headers, body, now, is_genuine)
    try:
        envelope = read_object(body)
        event_id, event_type = _event(envelope)
        if event_type == _PAID:
            paid = transaction_report(
                _resource(account, envelope, "transaction"), "notification", payer_name=account.payer_name
            )
            return Notification(event_key=_event_key(event_id, paid), report=paid)
        refunded = _refund(account, envelope, event_type)
        return Notification(event_key=refund_event_key(event_id, refunded), report=refunded)
    except OtherKey as exc:
        raise NotificationRefused("decryption", "the notification is encrypted with another apiv3_key") from exc
    except Unreadable as exc:
        raise NotificationRefused("malformed", f"the notification is {exc}") from exc


async def _check_origin(
    account: V3Account, headers: Mapping[str, str], body: bytes, now: datetime, is_genuine: IsGenuine
) -> None:
    """Raises NotificationRefused for whatever WeChat did not sign for this account just now."""
    if not 0 < len(body) <= BODY_LIMIT_BYTES:
        raise NotificationRefused("malformed", f"the body must have 1 to {BODY_LIMIT_BYTES} bytes")
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise NotificationRefused("malformed", "the body is compressed")
    stamp = read_stamp(headers)
    if stamp is None:
        raise NotificationRefused("signature", "the notification is not signed")
    if stamp.signature.startswith(PROBE_PREFIX):
        raise NotificationRefused("signature", "a probe of WeChat's, which has to be refused")
    if not stamp.is_near(now):
        raise NotificationRefused("timestamp", "the notification was made five minutes or more from our time")
    try:
        genuine = await is_genuine(account, stamp, body)
    except KeysUnavailable as exc:
        raise NotificationRefused("keys_unavailable", str(exc)) from exc
    if not genuine:
        raise NotificationRefused("signature", "the notification is not signed by a key WeChat has for this merchant")


def _event(envelope: Mapping[str, Any]) -> tuple[str, str]:
    """WeChat's id and type of an event about money. Raises Unreadable; NotificationRefused for other events."""
    event_id, event_type = text_of(envelope, "id"), text_of(envelope, "event_type")
    if event_id is None or len(event_id) > _ID_LIMIT or event_type is None:
        raise Unreadable("without an id or an event type")
    if event_type != _PAID and event_type not in _REFUND_EVENTS:
        raise NotificationRefused("unsupported", "a notification that is about neither a payment nor a refund")
    return event_id, event_type


def _refund(account: V3Account, envelope: Mapping[str, Any], event_type: str) -> RefundReport:
    """The refund in a notice whose type and content agree. Raises Unreadable."""
    fields = _resource(account, envelope, "refund")
    if fields.get("refund_status") != _REFUND_EVENTS[event_type]:
        raise Unreadable("of another type than the refund in it")
    return read_refund_resource(account, fields)


def _resource(account: V3Account, envelope: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The decrypted object of this kind. Raises Unreadable."""
    resource = envelope.get("resource")
    if not isinstance(resource, dict) or resource.get("original_type", kind) != kind:
        raise Unreadable(f"without a {kind}")
    try:
        return read_object(opened_resource(account.apiv3_key, resource))
    except OtherKey as exc:
        # The signature proves that WeChat sent it: most likely the key was changed in the merchant platform.
        _log.error("wechat.apiv3_key_wrong", mchid=account.mchid)
        raise Unreadable("encrypted with another APIv3 key than the account's") from exc


def _event_key(event_id: str, report: PaymentReport) -> str:
    """WeChat's id of the event, which its repeats share, and what it says: two contents are never one event."""
    said = json.dumps(
        [
            report.out_trade_no,
            report.status.value,
            report.transaction_id,
            report.amount_fen,
            report.currency,
            report.payer_id,
            sorted(report.account_claims.items()),
        ]
    )
    return f"{event_id}:{blake2b(said.encode(), digest_size=16).hexdigest()}"

"""Reading an Alipay notification: percent-decoded once, verified as bytes, and only then understood.

Everything the signature covers is compared in the notice's own bytes, so that no charset can change what was verified.

Source: https://opendocs.alipay.com/open/00f7nu and /common/02mse7, read 2026-09-11.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import unquote_to_bytes

from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.signing import notification_verifies
from app.providers.alipay.trades import trade_report
from app.providers.contract import Notification, NotificationRefused

BODY_LIMIT_BYTES = 65_536
_FIELDS_LIMIT = 200
# Ours are of these characters; any other is the merchant's own, made elsewhere.
_REFUND_NUMBER = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)

_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030", "gb18030": "gb18030"}
_REQUIRED = ("notify_id", "app_id", "out_trade_no", "trade_no", "trade_status", "total_amount")
# One event is one notice about one state. notify_time differs between the repeats of a notice and is left out; the rest
# is in, so that a second content under a notify_id seen before is not taken for a repeat.
_EVENT_FIELDS = (
    "out_trade_no",
    "trade_no",
    "trade_status",
    "total_amount",
    "refund_fee",
    "out_biz_no",
    "app_id",
    "seller_id",
    "auth_app_id",
)
# Fields that decide about money, identity or state. See _is_ambiguous.
_DECISIVE = tuple(
    b"&" + name.encode() + b"="
    for name in (*_EVENT_FIELDS, "notify_id", "notify_type", "gmt_payment", "gmt_refund", "charset")
)


def read_trade_notification(account: AlipayAccount, headers: Mapping[str, str], body: bytes) -> Notification:
    """The verified report of a trade notification; for any bytes either this or NotificationRefused.

    Whether the trade, the amount and the receiver are ours is the caller's to compare.
    """
    raw = _form_fields(headers, body)
    if not notification_verifies(account.alipay_key, raw) or _is_ambiguous(raw):
        raise NotificationRefused("signature", "the notification is not signed by this account's Alipay key")
    fields = _decoded(raw)
    if fields.get("notify_type", "trade_status_sync") != "trade_status_sync":
        raise NotificationRefused("unsupported", "a notification that is not about a trade")
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise NotificationRefused("malformed", f"the notification lacks {', '.join(missing)}")
    try:
        report = trade_report(fields, "notification")
    except ValueError as exc:
        raise NotificationRefused("malformed", "the notification holds an amount that is not exact yuan") from exc
    return Notification(event_key=_event_key(fields), report=report, refund_hint=_refund_hint(fields))


def _refund_hint(fields: Mapping[str, str]) -> str | None:
    """The number of the refund this notice is about. Its amount is that of all refunds together: ask for this one's."""
    number = fields.get("out_biz_no", "")
    return number if _REFUND_NUMBER.fullmatch(number) else None


def _form_fields(headers: Mapping[str, str], body: bytes) -> dict[bytes, bytes]:
    """The form's fields, percent-decoded once and otherwise untouched. Raises NotificationRefused("malformed")."""
    if not body or len(body) > BODY_LIMIT_BYTES:
        raise NotificationRefused("malformed", f"the body must have 1 to {BODY_LIMIT_BYTES} bytes")
    for header, text in headers.items():
        lower = header.lower()
        if lower == "content-type" and not text.lower().lstrip().startswith("application/x-www-form-urlencoded"):
            raise NotificationRefused("malformed", "the body is not a form")
        if lower == "content-encoding" and text.strip().lower() not in ("", "identity"):
            raise NotificationRefused("malformed", "the body is compressed")
    pairs = body.split(b"&")
    if len(pairs) > _FIELDS_LIMIT:
        raise NotificationRefused("malformed", "too many fields")
    fields: dict[bytes, bytes] = {}
    for pair in pairs:
        quoted_name, equals, value = pair.partition(b"=")
        name = _unquoted(quoted_name)
        if not equals or not name:
            raise NotificationRefused("malformed", "the body is not a form")
        if name in fields:
            raise NotificationRefused("malformed", "a field comes twice")
        fields[name] = _unquoted(value)
    return fields


def _unquoted(text: bytes) -> bytes:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return unquote_to_bytes(text) if b"%" in text else text


def _is_ambiguous(raw: Mapping[bytes, bytes]) -> bool:
    """Whether a value holds what looks like a further field that decides something.

    The signed text joins fields with & and does not escape it: `subject=x&total_amount=9.00` may be one field or two.
    Whoever can choose a subject could pay a cent and resend the notice cut at other places, its signature intact. So
    no value may contain such a piece; Alipay forbids & and = in a subject for the same reason.
    """
    for value in raw.values():
        if b"&" in value and any(mark in value for mark in _DECISIVE):
            return True
    return any(b"=" in name or b"&" in name for name in raw)


def _decoded(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """The non-empty fields as text in the notice's charset. Raises NotificationRefused("encoding")."""
    named = raw.get(b"charset", b"utf-8").decode("ascii", "replace").strip().lower()
    charset = _CHARSETS.get(named)
    if charset is None:
        raise NotificationRefused("encoding", "the notification names a charset that Alipay does not send")
    try:
        fields = {name.decode("ascii"): value.decode(charset) for name, value in raw.items() if value}
    except UnicodeDecodeError as exc:
        raise NotificationRefused("encoding", "the notification is not in the charset it names") from exc
    if any("\x00" in value for value in fields.values()):
        raise NotificationRefused("malformed", "a field holds a zero byte")
    return fields


def _event_key(fields: Mapping[str, str]) -> str:
    content = "\x1f".join([fields.get(name, "") for name in _EVENT_FIELDS]).encode()
    return f"{fields['notify_id'][:128]}:{blake2b(content, digest_size=16).hexdigest()}"

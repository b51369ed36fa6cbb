"""Reading an Alipay notification: percent-decoded once, verified as bytes, and only then understood.

Everything the signature covers is compared in the notice's own bytes, so that no charset can change what was verified.

A notice about an agreement is signed by rule V1 or, where it comes to the application's own gateway address, perhaps by
V2: either is taken.

Source: https://opendocs.alipay.com/open/00f7nu and /common/02mse7, read 2026-09-11; opendocs.alipay.com/support/01rg2a,
as mirrored in 2024.
"""

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.agreement_reports import SIGNED, UNSIGNED, agreement_report
from app.providers.alipay.signing import notification_verifies
from app.providers.alipay.trades import trade_report
from app.providers.contract import Notification, NotificationRefused

BODY_LIMIT_BYTES = 65_536
_FIELDS_LIMIT = 200
# Ours are of these characters; any other is the merchant's own, made elsewhere.
_REFUND_NUMBER = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)

_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "gbk": "gb18030", "gb2312": "gb18030", "gb18030": "gb18030"}


class _Kind(NamedTuple):
    """What a notice of one kind must hold, and what makes it this event and no other.

    One event is one notice about one state. notify_time differs between the repeats of a notice and is left out; all
    that decides is in, so that a second content under a notify_id seen before is not taken for a repeat."""

    required: tuple[str, ...]
    event_fields: tuple[str, ...]
    # decide about money, identity or state, and are no part of the event
    decisive: tuple[str, ...] = ("notify_id", "notify_type", "charset")

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What begins each deciding field inside the signed text. See _is_ambiguous."""
        return tuple(b"&" + name.encode() + b"=" for name in (*self.event_fields, *self.decisive))


_TRADE = "trade_status_sync"
_OF_A_TRADE = _Kind(
    ("notify_id", "app_id", "out_trade_no", "trade_no", "trade_status", "total_amount"),
    (
        "out_trade_no",
        "trade_no",
        "trade_status",
        "total_amount",
        "refund_fee",
        "out_biz_no",
        "app_id",
        "seller_id",
        "auth_app_id",
    ),
    ("notify_id", "notify_type", "charset", "gmt_payment", "gmt_refund"),
)
_OF_AN_AGREEMENT = _Kind(
    ("notify_id", "app_id", "agreement_no", "status"),
    (
        "notify_type",
        "agreement_no",
        "external_agreement_no",
        "status",
        "sign_scene",
        "personal_product_code",
        "alipay_user_id",
        "alipay_open_id",
        "sign_time",
        "unsign_time",
        "valid_time",
        "invalid_time",
        "app_id",
        "auth_app_id",
    ),
)
# A notice without a type is of the oldest kind.
_KINDS = {"": _OF_A_TRADE, _TRADE: _OF_A_TRADE, SIGNED: _OF_AN_AGREEMENT, UNSIGNED: _OF_AN_AGREEMENT}
_MARKS = {name.encode(): kind.marks for name, kind in _KINDS.items()}


def read_notification(account: AlipayAccount, headers: Mapping[str, str], body: bytes) -> Notification:
    """The verified report of a notice about a trade or an agreement; for any bytes either this or NotificationRefused.

    Whether the trade or agreement, the amount and the receiver are ours is the caller's to compare.
    """
    raw = _form_fields(headers, body)
    if not notification_verifies(account.alipay_key, raw) or _is_ambiguous(raw):
        raise NotificationRefused("signature", "the notification is not signed by this account's Alipay key")
    fields = _decoded(raw)
    kind = _KINDS.get(fields.get("notify_type", ""))
    if kind is None:
        raise NotificationRefused("unsupported", "a notification that is about neither a trade nor an agreement")
    missing = [name for name in kind.required if name not in fields]
    if missing:
        raise NotificationRefused("malformed", f"the notification lacks {', '.join(missing)}")
    key = _event_key(fields, kind)
    if kind is _OF_AN_AGREEMENT:
        return Notification(event_key=key, report=agreement_report(fields, "notification"))
    try:
        report = trade_report(fields, "notification")
    except ValueError as exc:
        raise NotificationRefused("malformed", "the notification holds an amount that is not exact yuan") from exc
    return Notification(event_key=key, report=report, refund_hint=_refund_hint(fields))


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
    # The type itself cannot have been hidden: it decides for every kind.
    marks = _MARKS.get(raw.get(b"notify_type", b""), _MARKS[b""])
    for value in raw.values():
        if b"&" in value and any(mark in value for mark in marks):
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


def _event_key(fields: Mapping[str, str], kind: _Kind) -> str:
    content = "\x1f".join([fields.get(name, "") for name in kind.event_fields]).encode()
    return f"{fields['notify_id'][:128]}:{blake2b(content, digest_size=16).hexdigest()}"

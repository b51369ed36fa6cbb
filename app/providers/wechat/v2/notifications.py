"""Reading an APIv2 notification: one flat list of fields, verified over all of them, and only then understood.

A refund's notice is not signed at all. Its fields are encrypted with the API key in a way that keeps nobody from moving
blocks of them about, so that they only say what to ask about: see req_info.py.

A notice carries no time that its signature covers usefully, so an old one can be sent again by whoever has it. That is
harmless by design: it says about the same order what was said before, and a repeated event changes nothing.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_7 and 9_16, read 2026-09-11.
"""

from collections.abc import Mapping
from hashlib import blake2b

from app.providers.contract import Notification, NotificationRefused, ReportedStatus
from app.providers.wechat.refunds import REFUND_NUMBER
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.orders import CLAIMS, claims_among, order_report
from app.providers.wechat.v2.req_info import read_req_info
from app.providers.wechat.v2.signing import verifies
from app.providers.wechat.xml import XmlRefused, read_fields

_REQUIRED = ("result_code", "appid", "mch_id", "out_trade_no")
_REQUIRED_OF_SUCCESS = ("transaction_id", "total_fee")
# One event is one notice about one payment. Nonce and signature may differ between its repeats and are left out; the
# rest is in, so that another content about the same payment is not taken for a repeat.
_EVENT_FIELDS = (
    "result_code",
    *CLAIMS,
    "out_trade_no",
    "transaction_id",
    "total_fee",
    "fee_type",
    "openid",
    "sub_openid",
    "time_end",
)
# Fields that decide about money, identity or state. See _is_ambiguous.
_DECISIVE = tuple(f"&{name}=" for name in (*_EVENT_FIELDS, "return_code", "sign_type", "req_info"))


def read_notice(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The fields of a notice that hold something, none of them verified. Raises NotificationRefused."""
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise NotificationRefused("malformed", "the body is compressed")
    try:
        return {name: text for name, text in read_fields(body).items() if text}
    except XmlRefused as exc:
        raise NotificationRefused("malformed", str(exc)) from exc


def read_refund_notice(account: V2Account, fields: Mapping[str, str]) -> dict[str, str]:
    """What a refund's notice says in its `req_info`: nothing but a hint. Raises NotificationRefused."""
    if fields.get("mch_id", account.mch_id) != account.mch_id:
        raise NotificationRefused("malformed", "a notice for another merchant")
    try:
        stated = read_req_info(fields["req_info"], api_key=account.api_key)
    except ValueError as exc:
        # As good as a signature: the key may have been changed a moment ago.
        raise NotificationRefused("signature", "req_info is not encrypted with this account's API key") from exc
    if REFUND_NUMBER.fullmatch(stated.get("out_refund_no", "")) is None:
        raise NotificationRefused("malformed", "the notice names no refund")
    return stated


def read_payment_notification(account: V2Account, fields: Mapping[str, str]) -> Notification:
    """The verified report of a payment notice; for any fields either this or NotificationRefused.

    Whether the order, the amount and the receiver are ours is the caller's to compare."""
    if not verifies(fields, api_key=account.api_key) or _is_ambiguous(fields):
        raise NotificationRefused("signature", "the notification is not signed with this account's API key")
    # Absent in the documented table of fields, present in every notice seen; FAIL belongs to unsigned messages.
    if fields.get("return_code", "SUCCESS") != "SUCCESS":
        raise NotificationRefused("malformed", "a notification whose return_code is not SUCCESS")
    paid = fields.get("result_code") == "SUCCESS"
    _check_complete(account, fields, paid=paid)
    # A failed attempt says nothing about the order, which may be paid by the next.
    status = ReportedStatus.SUCCESSFUL if paid else ReportedStatus.PENDING
    try:
        claims, payer_id = claims_among(fields), fields.get(account.payer_name)
        report = order_report(fields, status=status, source="notification", claims=claims, payer_id=payer_id)
    except ValueError as exc:
        raise NotificationRefused("malformed", "the notification holds a fee that is not whole fen") from exc
    return Notification(event_key=event_key(fields), report=report)


def _check_complete(account: V2Account, fields: Mapping[str, str], *, paid: bool) -> None:
    required = [*_REQUIRED, *(_REQUIRED_OF_SUCCESS if paid else ()), *(("sub_mch_id",) if account.sub_mch_id else ())]
    missing = [name for name in required if name not in fields]
    if missing:
        raise NotificationRefused("malformed", f"the notification lacks {', '.join(missing)}")


def event_key(fields: Mapping[str, str]) -> str:
    """Equal for every repeat of one notice and for nothing else."""
    content = "\x1f".join([fields.get(name, "") for name in _EVENT_FIELDS]).encode()
    return f"{fields.get('transaction_id', '')[:64]}:{blake2b(content, digest_size=16).hexdigest()}"


def _is_ambiguous(fields: Mapping[str, str]) -> bool:
    """Whether a value holds what looks like a further field that decides something.

    The signed text joins fields with & and does not escape it: `attach=x&total_fee=1` may be one field or two. Whoever
    can choose an attach could have a notice signed and send it on cut at other places, its signature intact."""
    return any("&" in text and any(mark in text for mark in _DECISIVE) for text in fields.values())

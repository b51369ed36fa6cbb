"""A cloud callback: what it says, and what it says otherwise than WeChat does when asked.

Nobody signs it. The secret path and the platform's header let a stranger not even cause a question; what is believed is
only the answer to that question. Where the two disagree about anything, one of them is not about our payment, and this
place cannot know which: the callback's own values are then reported as a payment that is still PENDING. So the domain
records each of them that is not ours and changes nothing, and the regular questions decide about the money, by the
authenticated answer alone. Reported as paid, values of the callback could hide an answer that is not ours.

Source: developers.weixin.qq.com/miniprogram/dev/wxcloudservice/wxcloudrun/src/development/pay/callback, read
2026-09-11.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

import structlog

from app.providers.contract import Notification, NotificationRefused, PaymentReport, ReportedStatus
from app.providers.wechat.cloud.account import CloudAccount
from app.providers.wechat.cloud.answers import texts
from app.providers.wechat.refunds import REFUND_NUMBER
from app.providers.wechat.v2.orders import claims_among, order_report
from app.providers.wechat.v3.strict_json import Unreadable, read_object

BODY_LIMIT_BYTES = 65_536

PAYER_NAME = "sub_openid"

_REQUIRED = ("out_trade_no", "transaction_id", "total_fee", "sub_mch_id", "sub_appid", PAYER_NAME)
_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_*|-]{6,32}", re.ASCII)
_COMPARED = ("amount_fen", "currency", "transaction_id", "payer_id")
# The platform's own appid and mch_id are nothing of ours.
_OUR_CLAIMS = ("sub_mch_id", "sub_appid")
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")

_log = structlog.get_logger(__name__)


def callback_fields(headers: Mapping[str, str], body: bytes) -> dict[str, str]:
    """The callback's fields under the names of APIv2, none of them proven. Raises NotificationRefused."""
    if headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise NotificationRefused("malformed", "the body is compressed")
    if not 0 < len(body) <= BODY_LIMIT_BYTES:
        raise NotificationRefused("malformed", f"the body must have 1 to {BODY_LIMIT_BYTES} bytes")
    try:
        received = texts(read_object(body))
    except Unreadable as exc:
        raise NotificationRefused("malformed", str(exc)) from exc
    fields: dict[str, str] = {}
    for name, text in received.items():
        # The documents print both spellings; which one comes, the keys of their example say: totalFee.
        if fields.setdefault(_CAPITAL.sub("_", name).lower(), text) != text:
            raise NotificationRefused("malformed", "a field comes twice")
    return fields


def mentioned_refund(fields: Mapping[str, str]) -> str | None:
    """The number of the refund a callback mentions. Raises NotificationRefused for what can be no number.

    What a refund's callback looks like is not documented: that is all that is taken from one."""
    number = fields.get("out_refund_no")
    if number is not None and REFUND_NUMBER.fullmatch(number) is None:
        raise NotificationRefused("malformed", "the callback lacks a usable out_refund_no")
    return number


def read_callback(account: CloudAccount, fields: Mapping[str, str]) -> PaymentReport:
    """What a payment's callback claims, none of it proven. Raises NotificationRefused."""
    if fields.get("return_code") != "SUCCESS" or fields.get("result_code") != "SUCCESS":
        raise NotificationRefused("malformed", "a callback that does not tell of a success")
    named = under_our_application(account, fields)
    missing = [name for name in _REQUIRED if name not in named]
    if missing or _OUT_TRADE_NO.fullmatch(named["out_trade_no"]) is None:
        raise NotificationRefused("malformed", f"the callback lacks {', '.join(missing) or 'a usable out_trade_no'}")
    try:
        return order_report(
            named,
            status=ReportedStatus.SUCCESSFUL,
            source="notification",
            claims=claims_among(named),
            payer_id=named[PAYER_NAME],
        )
    except ValueError as exc:
        raise NotificationRefused("malformed", "the callback holds a fee that is not whole fen") from exc


def confirmed_notification(stated: PaymentReport, confirmed: PaymentReport) -> Notification:
    """What is to be believed of a callback after WeChat, asked about the same number, said `confirmed`: a success."""
    differing = _differing(stated, confirmed)
    if differing:
        _log.warning("wechat.callback_disagrees", fields=differing, out_trade_no=stated.out_trade_no)
        report = replace(stated, status=ReportedStatus.PENDING, paid_at=None)
    else:
        # What only the callback says has to be ours too.
        claims = {**stated.account_claims, **confirmed.account_claims}
        payer_id = confirmed.payer_id or stated.payer_id
        report = replace(confirmed, source="notification", payer_id=payer_id, account_claims=claims)
    return Notification(event_key=_event_key(report), report=report)


def under_our_application(account: CloudAccount, fields: Mapping[str, str]) -> Mapping[str, str]:
    """The fields with our application as sub_appid and its payer as sub_openid.

    Where a message knows of only one application these are appid and openid; an openid under another application, such
    as the platform's own, is nobody we know."""
    if "sub_appid" in fields or fields.get("appid") != account.appid:
        return fields
    named = {"sub_appid": account.appid}
    return {**named, PAYER_NAME: fields["openid"], **fields} if "openid" in fields else {**named, **fields}


def _differing(stated: PaymentReport, confirmed: PaymentReport) -> list[str]:
    """What the two say differently; what one of them does not say contradicts nothing."""
    said, heard = _compared(stated), _compared(confirmed)
    return [name for name, value in said.items() if None not in (value, heard[name]) and value != heard[name]]


def _compared(report: PaymentReport) -> dict[str, object]:
    values = {name: getattr(report, name) for name in _COMPARED}
    return values | {name: report.account_claims.get(name) for name in _OUR_CLAIMS}


def _event_key(report: PaymentReport) -> str:
    """Equal for repeats of one callback that were answered alike, and for nothing else."""
    claims = [report.account_claims.get(name, "") for name in _OUR_CLAIMS]
    said = [report.out_trade_no, report.status, str(report.amount_fen), report.currency, str(report.payer_id), *claims]
    digest = blake2b("\x1f".join(said).encode(), digest_size=16).hexdigest()
    return f"{(report.transaction_id or '')[:64]}:{digest}"

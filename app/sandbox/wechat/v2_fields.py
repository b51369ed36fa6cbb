"""What each field of an APIv2 call may hold; the cloud calls keep the same rules for the fields they share.

A field outside the documentation is refused. Lengths count characters. Source: pay.weixin.qq.com/wiki/doc/api
chapters 9_1 to 9_5, 4_2, read 2026-09.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from app.sandbox.clock import BEIJING
from app.sandbox.wechat.v2_errors import badly_formed, missing

MAX_TOTAL_FEN = 10_000_000_000  # one hundred million yuan
MIN_EXPIRY = timedelta(minutes=1)
COMPACT_FORMAT = "%Y%m%d%H%M%S"

_OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_|*-]{6,32}")
_OUT_REFUND_NO = re.compile(r"[A-Za-z0-9_|*@-]{1,64}")
_REFUND_ID = re.compile(r"[0-9]{28,32}")
_OFFSET = re.compile(r"0|[1-9][0-9]{0,2}")
_TRANSACTION_ID = re.compile(r"[0-9]{28}")
_APPID = re.compile(r"wx[0-9a-f]{16}")
_DIGITS = re.compile(r"[0-9]{8,10}")
_WHOLE = re.compile(r"[1-9][0-9]{0,10}")

Rule = tuple[Callable[[str], bool], str]


def format_compact(instant: datetime) -> str:
    """`yyyyMMddHHmmss` in Beijing's time."""
    return instant.astimezone(BEIJING).strftime(COMPACT_FORMAT)


def parse_compact(text: str) -> datetime | None:
    """The instant in UTC, or None when `text` is not exactly `yyyyMMddHHmmss`."""
    if re.fullmatch(r"[0-9]{14}", text) is None:
        return None
    try:
        return datetime.strptime(text, COMPACT_FORMAT).replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        return None


def expiry_of(time_expire: str, now: datetime) -> datetime | None:
    """The last moment to pay of a well-formed text; None for an empty one. Raises TransportRefusal when too near."""
    instant = parse_compact(time_expire)
    if instant is not None and instant < now + MIN_EXPIRY:
        raise badly_formed("time_expire", "时间过短：至少 1 分钟之后")
    return instant


def _text(max_chars: int) -> Rule:
    return lambda value: len(value) <= max_chars, f"长度不能超过 {max_chars}"


def _matching(pattern: re.Pattern[str], wanted: str) -> Rule:
    return lambda value: pattern.fullmatch(value) is not None, wanted


def _one_of(*allowed: str) -> Rule:
    return lambda value: value in allowed, f"只能是 {'、'.join(allowed)}"


def _is_total(value: str) -> bool:
    return _WHOLE.fullmatch(value) is not None and int(value) <= MAX_TOTAL_FEN


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_notify_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
    except ValueError:
        return False
    complete = parts.scheme in ("http", "https") and bool(parts.hostname)
    return complete and len(value) <= 256 and not set("?#") & set(value)


def _is_scene(value: str) -> bool:
    """`{"h5_info": {"type": "Wap", "wap_url": …, "wap_name": …}}`, or an app's."""
    try:
        scene = json.loads(value)
        h5 = scene["h5_info"]
        needed = {
            "Wap": ("wap_url", "wap_name"),
            "IOS": ("app_name", "bundle_id"),
            "Android": ("app_name", "package_name"),
        }
        return len(value) <= 256 and all(isinstance(h5[name], str) and h5[name] for name in needed[h5["type"]])
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


_MOMENT: Rule = (lambda value: parse_compact(value) is not None, "格式必须是 yyyyMMddHHmmss")

RULES: Mapping[str, Rule] = {
    "appid": _matching(_APPID, "不是正确的 appid"),
    "sub_appid": _matching(_APPID, "不是正确的 appid"),
    "mch_id": _matching(_DIGITS, "不是正确的商户号"),
    "sub_mch_id": _matching(_DIGITS, "不是正确的商户号"),
    "nonce_str": _text(32),
    "sign": _text(64),
    "sign_type": _one_of("MD5", "HMAC-SHA256"),
    "device_info": _text(32),
    "body": _text(128),
    "detail": _text(6000),
    "attach": _text(127),
    "out_trade_no": _matching(_OUT_TRADE_NO, "只能是 6 到 32 位数字、字母与 _-|*"),
    "transaction_id": _matching(_TRANSACTION_ID, "不是微信订单号"),
    "fee_type": _one_of("CNY"),
    "total_fee": (_is_total, "必须是正整数，单位为分"),
    "spbill_create_ip": (_is_address, "不是正确的 IP 地址"),
    "time_start": _MOMENT,
    "time_expire": _MOMENT,
    "goods_tag": _text(32),
    "notify_url": (_is_notify_url, "必须是不带参数的完整地址，最长 256"),
    "trade_type": _one_of("JSAPI", "NATIVE", "APP", "MWEB"),
    "product_id": _text(32),
    "limit_pay": _one_of("no_credit"),
    "openid": _text(128),
    "sub_openid": _text(128),
    "receipt": _one_of("Y"),
    "profit_sharing": _one_of("Y", "N"),
    "scene_info": (_is_scene, "必须是带 h5_info 的 JSON"),
    "out_refund_no": _matching(_OUT_REFUND_NO, "只能是 1 到 64 位数字、字母与 _-|*@"),
    "refund_id": _matching(_REFUND_ID, "不是微信退款单号"),
    "refund_fee": (_is_total, "必须是正整数，单位为分"),
    "refund_fee_type": _one_of("CNY"),
    "refund_desc": _text(80),
    "refund_account": _one_of("REFUND_SOURCE_UNSETTLED_FUNDS", "REFUND_SOURCE_RECHARGE_FUNDS"),
    "offset": _matching(_OFFSET, "必须是非负整数"),
}

CALLER = frozenset({"appid", "mch_id", "sub_appid", "sub_mch_id", "nonce_str", "sign", "sign_type"})
ORDER = frozenset(
    {
        *("device_info", "body", "detail", "attach", "out_trade_no", "fee_type", "total_fee", "spbill_create_ip"),
        *("time_start", "time_expire", "goods_tag", "notify_url", "trade_type", "product_id", "limit_pay", "openid"),
        *("sub_openid", "receipt", "profit_sharing", "scene_info"),
    }
)
ORDER_NEEDS = ("body", "out_trade_no", "total_fee", "spbill_create_ip", "notify_url", "trade_type")
QUERY = frozenset({"transaction_id", "out_trade_no"})
CLOSE = frozenset({"out_trade_no"})
REFUND = frozenset(
    {
        *("transaction_id", "out_trade_no", "out_refund_no", "total_fee", "refund_fee", "refund_fee_type"),
        *("refund_desc", "refund_account", "notify_url"),
    }
)
REFUND_QUERY = frozenset({"transaction_id", "out_trade_no", "out_refund_no", "refund_id", "offset"})


def check_form(fields: Mapping[str, str], allowed: frozenset[str]) -> None:
    """Raises TransportRefusal for a field that is not of this call or not in form."""
    for name, value in fields.items():
        if name not in allowed:
            raise badly_formed(name, "不是该接口文档中的字段")
        is_good, wanted = RULES[name]
        if not is_good(value):
            raise badly_formed(name, wanted)


def check_present(fields: Mapping[str, str], *names: str) -> None:
    """Raises BusinessRefusal LACK_PARAMS for the first that is missing."""
    for name in names:
        if name not in fields:
            raise missing(name)

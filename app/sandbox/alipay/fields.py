"""The business fields of each method: what is documented, what is required, what each may hold.

Fields outside the documentation are refused: Alipay warns that they may get a call blocked. Amounts become fen here and
nowhere else. Source: opendocs.alipay.com (open/02ekfj, 02ekfg, 02ekfh, 02ekfi, 02ekfk), read 2026-09.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from app.sandbox.alipay.errors import BusinessRefusal, GatewayRefusal, invalid_field
from app.sandbox.clock import BEIJING, parse_beijing

MAX_AMOUNT_FEN = 10_000_000_000  # one hundred million yuan
MAX_AMOUNT_CHARS = 11
MIN_TIMEOUT, MAX_TIMEOUT = timedelta(minutes=1), timedelta(days=15)

_AMOUNT = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]{1,2}))?")
_OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_]+")
_TIMEOUT = re.compile(r"([1-9][0-9]*)([mhd])")
_URL_ENCODED = re.compile(r"(?:[A-Za-z0-9_.~*+-]|%[0-9A-Fa-f]{2})*")
_SUSPICIOUS = re.compile(r"\b(body|subject|service|out_trade_no|seller_id|total_fee)\s*=")


class JsonNumber(str):
    """A number of biz_content, kept as it was written."""

    __slots__ = ()


Check = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Field:
    check: Check
    required: bool = False


def read_biz_content(text: str) -> dict[str, Any]:
    """The JSON object with numbers kept as written. Refuses repeated keys, NaN and everything that is not an object."""
    if not text:
        raise GatewayRefusal("40002", "isv.invalid-parameter", "参数无效：缺少 biz_content")
    try:
        content = json.loads(
            text,
            parse_int=JsonNumber,
            parse_float=JsonNumber,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object_without_repeats,
        )
    except (ValueError, RecursionError) as exc:
        raise GatewayRefusal("40002", "isv.illegal-json", "参数无效：biz_content 不是合法的 JSON") from exc
    if not isinstance(content, dict):
        raise GatewayRefusal("40002", "isv.illegal-json", "参数无效：biz_content 必须是 JSON 对象")
    return content


def check_fields(content: dict[str, Any], fields: dict[str, Field]) -> None:
    """Every field documented and in form, every required one there; ACQ.INVALID_PARAMETER otherwise."""
    for name, value in content.items():
        if name not in fields:
            raise invalid_field(name, "不是该接口文档中的字段")
        fields[name].check(name, value)
    for name, field in fields.items():
        if field.required and name not in content:
            raise invalid_field(name, "不能为空")
    if "enable_pay_channels" in content and "disable_pay_channels" in content:
        raise invalid_field("enable_pay_channels", "与 disable_pay_channels 不能同时使用")


def parse_amount(name: str, value: object) -> int:
    """Fen of a yuan amount of at most two decimals. Zero and below are invalid, above the limit TOTAL_FEE_EXCEED."""
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(str(value)) > MAX_AMOUNT_CHARS:
        raise invalid_field(name, "金额格式不正确：单位为元，最多两位小数")
    fen = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    if fen < 1:
        raise invalid_field(name, "必须在 [0.01, 100000000] 之间")
    if fen > MAX_AMOUNT_FEN:
        raise BusinessRefusal("ACQ.TOTAL_FEE_EXCEED", "订单总金额超过限额：最大 100000000 元")
    return fen


def format_amount(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def expiry_of(content: dict[str, Any], *, generated_at: datetime, default: timedelta) -> datetime:
    """When the trade closes: `time_expire` wins over `timeout_express`, both count from when the call was made."""
    if "time_expire" in content:
        expires_at = parse_beijing(content["time_expire"])
        assert expires_at is not None, "checked by its field"
        if expires_at <= generated_at:
            raise BusinessRefusal("ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "绝对超时时间早于当前时间")
        if not MIN_TIMEOUT <= expires_at - generated_at <= MAX_TIMEOUT:
            raise invalid_field("time_expire", "必须在 1 分钟到 15 天之后")
        return expires_at
    if "timeout_express" in content:
        return generated_at + _timeout(content["timeout_express"], generated_at)
    return generated_at + default


def timeout_of(content: dict[str, Any], name: str, *, generated_at: datetime, default: timedelta) -> timedelta:
    return _timeout(content[name], generated_at) if name in content else default


def _timeout(text: str, generated_at: datetime) -> timedelta:
    if text == "1c":
        midnight = generated_at.astimezone(BEIJING).replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + timedelta(days=1) - generated_at
    span = _span(text)
    assert span is not None, "checked by its field"
    return span


def _span(text: str) -> timedelta | None:
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        return None
    unit = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[match[2]]
    return int(match[1]) * unit


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is repeated")
    return content


# Checks. Each takes the field's name and value and raises when the value may not stand there.


def _text(max_chars: int) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            raise invalid_field(name, "必须是字符串")
        if value == "":
            raise invalid_field(name, "不能为空")
        if len(value) > max_chars:
            raise invalid_field(name, f"超过最大长度 {max_chars}")

    return check


def _matching(max_chars: int, pattern: re.Pattern[str], wanted: str) -> Check:
    text = _text(max_chars)

    def check(name: str, value: object) -> None:
        text(name, value)
        if not pattern.fullmatch(str(value)):
            raise invalid_field(name, wanted)

    return check


def _subject(name: str, value: object) -> None:
    _text(256)(name, value)
    if set("/=&") & set(str(value)):
        raise invalid_field(name, "不能含有 / = & 等特殊字符")


def _body(name: str, value: object) -> None:
    _text(128)(name, value)
    if _SUSPICIOUS.search(str(value)):
        raise GatewayRefusal("40002", "isv.suspected-attack", f"可疑的攻击请求：{name} 含有支付宝的关键参数名")


def _one_of(*allowed: str) -> Check:
    def check(name: str, value: object) -> None:
        if isinstance(value, JsonNumber) or value not in allowed:
            raise invalid_field(name, f"只能是 {'、'.join(allowed)}")

    return check


def _amount(name: str, value: object) -> None:
    parse_amount(name, value)


def _whole_number(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 10:
        raise invalid_field(name, "必须是整数")


def _moment(name: str, value: object) -> None:
    if not isinstance(value, str) or parse_beijing(value) is None:
        raise invalid_field(name, "格式必须是 yyyy-MM-dd HH:mm:ss")


def _timeout_text(name: str, value: object) -> None:
    _text(6)(name, value)
    if value == "1c":
        return
    span = _span(str(value))
    if span is None:
        raise invalid_field(name, "格式必须是 90m、2h、3d 或 1c")
    if not MIN_TIMEOUT <= span <= MAX_TIMEOUT:
        raise invalid_field(name, "必须在 1m 到 15d 之间")


def _list_of(item: Check | None = None) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, list):
            raise invalid_field(name, "必须是数组，不能是字符串")
        for entry in value:
            if item is not None:
                item(name, entry)

    return check


def _object(names: str = "", *, required: str = "") -> Check:
    """An object; with `names`, of these keys only."""
    allowed = frozenset(names.split())

    def check(name: str, value: object) -> None:
        if not isinstance(value, dict):
            raise invalid_field(name, "必须是 JSON 对象，不能是字符串")
        for key in value:
            if allowed and key not in allowed:
                raise invalid_field(f"{name}.{key}", "不是该接口文档中的字段")
        for key in required.split():
            if key not in value:
                raise invalid_field(f"{name}.{key}", "不能为空")

    return check


_GOODS = _object(
    "goods_id alipay_goods_id goods_name quantity price goods_category categories_tree body show_url out_item_id"
    " out_sku_id goods_ean_id",
    required="goods_id goods_name quantity price",
)
_EXTEND_PARAMS = _object(
    "sys_service_provider_id hb_fq_num hb_fq_seller_percent industry_reflux_info card_type specified_seller_name"
    " royalty_freeze credit_ext_info fq_num fq_seller_percent fq_channels trade_component_order_id"
    " tc_installment_order_id"
)
_AGREEMENT = _object(
    "external_agreement_no external_logon_id personal_product_code sign_scene sign_validity_period sub_merchant"
    " third_party_type promo_params buckle_app_id buckle_merchant_id"
)
_OUT_TRADE_NO_FIELD = _matching(64, _OUT_TRADE_NO, "只能由字母、数字、下划线组成")

_ORDER: dict[str, Field] = {
    "out_trade_no": Field(_OUT_TRADE_NO_FIELD, required=True),
    "total_amount": Field(_amount, required=True),
    "subject": Field(_subject, required=True),
    "body": Field(_body),
    "time_expire": Field(_moment),
    "timeout_express": Field(_timeout_text),
    "passback_params": Field(_matching(512, _URL_ENCODED, "必须先做 URL 编码")),
    "goods_detail": Field(_list_of(_GOODS)),
    "extend_params": Field(_EXTEND_PARAMS),
    "business_params": Field(_object()),
    "merchant_order_no": Field(_text(32)),
    "store_id": Field(_text(32)),
    "enable_pay_channels": Field(_text(128)),
    "disable_pay_channels": Field(_text(128)),
    "ext_user_info": Field(_object()),
    "royalty_info": Field(_object()),
    "settle_info": Field(_object()),
    "sub_merchant": Field(_object()),
    "query_options": Field(_list_of(_text(1024))),
}
_PAGE_ORDER: dict[str, Field] = _ORDER | {
    "goods_type": Field(_one_of("0", "1")),
    "invoice_info": Field(_object()),
    "promo_params": Field(_text(512)),
}

PAGE_PAY: dict[str, Field] = _PAGE_ORDER | {
    "product_code": Field(_one_of("FAST_INSTANT_TRADE_PAY"), required=True),
    "qr_pay_mode": Field(_one_of("0", "1", "2", "3", "4")),
    "qrcode_width": Field(_whole_number),
    "integration_type": Field(_one_of("PCWEB", "ALIAPP")),
    "request_from_url": Field(_text(256)),
    "agreement_sign_params": Field(_AGREEMENT),
}
WAP_PAY: dict[str, Field] = _PAGE_ORDER | {
    "product_code": Field(_one_of("QUICK_WAP_WAY"), required=True),
    "quit_url": Field(_matching(400, re.compile(r"https?://\S+"), "必须是 http(s) 绝对地址")),
    "seller_id": Field(_text(32)),
    "auth_token": Field(_text(40)),
    "specified_channel": Field(_text(128)),
}
PRECREATE: dict[str, Field] = _ORDER | {
    "product_code": Field(_one_of("QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT")),
    "seller_id": Field(_text(32)),
    "operator_id": Field(_text(28)),
    "terminal_id": Field(_text(32)),
    "alipay_store_id": Field(_text(32)),
    "discountable_amount": Field(_amount),
    "undiscountable_amount": Field(_amount),
    "qr_code_timeout_express": Field(_timeout_text),
    "code_type": Field(_text(32)),
    "buyer_logon_id": Field(_text(100)),
    "payment_type": Field(_text(32)),
    "bkagent_req_info": Field(_object()),
}
_EITHER_NUMBER: dict[str, Field] = {
    "out_trade_no": Field(_OUT_TRADE_NO_FIELD),
    "trade_no": Field(_matching(64, re.compile(r"[0-9]+"), "只能由数字组成")),
}
QUERY: dict[str, Field] = _EITHER_NUMBER | {"query_options": Field(_list_of(_text(1024))), "org_pid": Field(_text(16))}
REFUND: dict[str, Field] = _EITHER_NUMBER | {
    "refund_amount": Field(_amount, required=True),
    "out_request_no": Field(_text(64)),
    "refund_reason": Field(_text(256)),
    "refund_goods_detail": Field(_list_of(_object())),
    "refund_royalty_parameters": Field(_list_of(_object())),
    "operator_id": Field(_text(30)),
    "store_id": Field(_text(32)),
    "terminal_id": Field(_text(32)),
    "query_options": Field(_list_of(_one_of("refund_detail_item_list", "deposit_back_info"))),
}
REFUND_QUERY: dict[str, Field] = _EITHER_NUMBER | {
    "out_request_no": Field(_text(64), required=True),
    "query_options": Field(_list_of(_one_of("refund_detail_item_list", "gmt_refund_pay", "deposit_back_info"))),
}
CLOSE: dict[str, Field] = _EITHER_NUMBER | {"operator_id": Field(_text(28)), "extend_params": Field(_EXTEND_PARAMS)}

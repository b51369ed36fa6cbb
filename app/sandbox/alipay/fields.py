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


def text_up_to(max_chars: int) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, str) or isinstance(value, JsonNumber):
            raise invalid_field(name, "必须是字符串")
        if value == "":
            raise invalid_field(name, "不能为空")
        if len(value) > max_chars:
            raise invalid_field(name, f"超过最大长度 {max_chars}")

    return check


def matching(max_chars: int, pattern: re.Pattern[str], wanted: str) -> Check:
    text = text_up_to(max_chars)

    def check(name: str, value: object) -> None:
        text(name, value)
        if not pattern.fullmatch(str(value)):
            raise invalid_field(name, wanted)

    return check


def _subject(name: str, value: object) -> None:
    text_up_to(256)(name, value)
    if set("/=&") & set(str(value)):
        raise invalid_field(name, "不能含有 / = & 等特殊字符")


def _body(name: str, value: object) -> None:
    text_up_to(128)(name, value)
    if _SUSPICIOUS.search(str(value)):
        raise GatewayRefusal("40002", "isv.suspected-attack", f"可疑的攻击请求：{name} 含有支付宝的关键参数名")


def one_of(*allowed: str) -> Check:
    def check(name: str, value: object) -> None:
        if isinstance(value, JsonNumber) or value not in allowed:
            raise invalid_field(name, f"只能是 {'、'.join(allowed)}")

    return check


def yuan(name: str, value: object) -> None:
    parse_amount(name, value)


def whole_number(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 10:
        raise invalid_field(name, "必须是整数")


def flag(name: str, value: object) -> None:
    if value not in (True, False, "true", "false"):
        raise invalid_field(name, "只能是 true 或 false")


def _moment(name: str, value: object) -> None:
    if not isinstance(value, str) or parse_beijing(value) is None:
        raise invalid_field(name, "格式必须是 yyyy-MM-dd HH:mm:ss")


def _timeout_text(name: str, value: object) -> None:
    text_up_to(6)(name, value)
    if value == "1c":
        return
    span = _span(str(value))
    if span is None:
        raise invalid_field(name, "格式必须是 90m、2h、3d 或 1c")
    if not MIN_TIMEOUT <= span <= MAX_TIMEOUT:
        raise invalid_field(name, "必须在 1m 到 15d 之间")


def list_of(item: Check | None = None) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, list):
            raise invalid_field(name, "必须是数组，不能是字符串")
        for entry in value:
            if item is not None:
                item(name, entry)

    return check


def json_object(names: str = "", *, required: str = "") -> Check:
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


_GOODS = json_object(
    "goods_id alipay_goods_id goods_name quantity price goods_category categories_tree body show_url out_item_id"
    " out_sku_id goods_ean_id",
    required="goods_id goods_name quantity price",
)
EXTEND_PARAMS = json_object(
    "sys_service_provider_id hb_fq_num hb_fq_seller_percent industry_reflux_info card_type specified_seller_name"
    " royalty_freeze credit_ext_info fq_num fq_seller_percent fq_channels trade_component_order_id"
    " tc_installment_order_id"
)
_AGREEMENT = json_object(
    "external_agreement_no external_logon_id personal_product_code sign_scene sign_validity_period sub_merchant"
    " third_party_type promo_params buckle_app_id buckle_merchant_id"
)
OUT_TRADE_NO = matching(64, _OUT_TRADE_NO, "只能由字母、数字、下划线组成")

ORDER: dict[str, Field] = {
    "out_trade_no": Field(OUT_TRADE_NO, required=True),
    "total_amount": Field(yuan, required=True),
    "subject": Field(_subject, required=True),
    "body": Field(_body),
    "time_expire": Field(_moment),
    "timeout_express": Field(_timeout_text),
    "passback_params": Field(matching(512, _URL_ENCODED, "必须先做 URL 编码")),
    "goods_detail": Field(list_of(_GOODS)),
    "extend_params": Field(EXTEND_PARAMS),
    "business_params": Field(json_object()),
    "merchant_order_no": Field(text_up_to(32)),
    "store_id": Field(text_up_to(32)),
    "enable_pay_channels": Field(text_up_to(128)),
    "disable_pay_channels": Field(text_up_to(128)),
    "ext_user_info": Field(json_object()),
    "royalty_info": Field(json_object()),
    "settle_info": Field(json_object()),
    "sub_merchant": Field(json_object()),
    "query_options": Field(list_of(text_up_to(1024))),
}
_PAGE_ORDER: dict[str, Field] = ORDER | {
    "goods_type": Field(one_of("0", "1")),
    "invoice_info": Field(json_object()),
    "promo_params": Field(text_up_to(512)),
}

PAGE_PAY: dict[str, Field] = _PAGE_ORDER | {
    "product_code": Field(one_of("FAST_INSTANT_TRADE_PAY"), required=True),
    "qr_pay_mode": Field(one_of("0", "1", "2", "3", "4")),
    "qrcode_width": Field(whole_number),
    "integration_type": Field(one_of("PCWEB", "ALIAPP")),
    "request_from_url": Field(text_up_to(256)),
    "agreement_sign_params": Field(_AGREEMENT),
}
WAP_PAY: dict[str, Field] = _PAGE_ORDER | {
    "product_code": Field(one_of("QUICK_WAP_WAY"), required=True),
    "quit_url": Field(matching(400, re.compile(r"https?://\S+"), "必须是 http(s) 绝对地址")),
    "seller_id": Field(text_up_to(32)),
    "auth_token": Field(text_up_to(40)),
    "specified_channel": Field(text_up_to(128)),
}
PRECREATE: dict[str, Field] = ORDER | {
    "product_code": Field(one_of("QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT")),
    "seller_id": Field(text_up_to(32)),
    "operator_id": Field(text_up_to(28)),
    "terminal_id": Field(text_up_to(32)),
    "alipay_store_id": Field(text_up_to(32)),
    "discountable_amount": Field(yuan),
    "undiscountable_amount": Field(yuan),
    "qr_code_timeout_express": Field(_timeout_text),
    "code_type": Field(text_up_to(32)),
    "buyer_logon_id": Field(text_up_to(100)),
    "payment_type": Field(text_up_to(32)),
    "bkagent_req_info": Field(json_object()),
}
_EITHER_NUMBER: dict[str, Field] = {
    "out_trade_no": Field(OUT_TRADE_NO),
    "trade_no": Field(matching(64, re.compile(r"[0-9]+"), "只能由数字组成")),
}
QUERY: dict[str, Field] = _EITHER_NUMBER | {
    "query_options": Field(list_of(text_up_to(1024))),
    "org_pid": Field(text_up_to(16)),
}
REFUND: dict[str, Field] = _EITHER_NUMBER | {
    "refund_amount": Field(yuan, required=True),
    "out_request_no": Field(text_up_to(64)),
    "refund_reason": Field(text_up_to(256)),
    "refund_goods_detail": Field(list_of(json_object())),
    "refund_royalty_parameters": Field(list_of(json_object())),
    "operator_id": Field(text_up_to(30)),
    "store_id": Field(text_up_to(32)),
    "terminal_id": Field(text_up_to(32)),
    "query_options": Field(list_of(one_of("refund_detail_item_list", "deposit_back_info"))),
}
REFUND_QUERY: dict[str, Field] = _EITHER_NUMBER | {
    "out_request_no": Field(text_up_to(64), required=True),
    "query_options": Field(list_of(one_of("refund_detail_item_list", "gmt_refund_pay", "deposit_back_info"))),
}
CLOSE: dict[str, Field] = _EITHER_NUMBER | {"operator_id": Field(text_up_to(28)), "extend_params": Field(EXTEND_PARAMS)}

_AGREEMENT_PRODUCTS = ("CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING")
APP_PAY: dict[str, Field] = _PAGE_ORDER | {
    "product_code": Field(one_of("QUICK_MSECURITY_PAY", *_AGREEMENT_PRODUCTS), required=True),
    "seller_id": Field(text_up_to(32)),
    "specified_channel": Field(text_up_to(128)),
    "agreement_sign_params": Field(json_object()),
}
# A deduction under an agreement: of the method's other uses (a code that was scanned, a face) nothing is played.
DEDUCT: dict[str, Field] = ORDER | {
    "product_code": Field(one_of(*_AGREEMENT_PRODUCTS), required=True),
    "agreement_params": Field(
        json_object("agreement_no auth_confirm_no apply_token deduct_permission", required="agreement_no"),
        required=True,
    ),
    "is_async_pay": Field(flag),
    "pay_params": Field(json_object("async_type retry_type")),
    "seller_id": Field(text_up_to(32)),
    "buyer_id": Field(text_up_to(28)),
    "operator_id": Field(text_up_to(28)),
    "terminal_id": Field(text_up_to(32)),
}

"""The documented fields of APIv3's bodies and queries: what is required, what each may hold.

Anything undocumented is refused, so are null, empty texts and characters of more than three bytes in UTF-8, which
WeChat's JSON does not carry. A refusal names the field as a JSON pointer. Source: pay.weixin.qq.com, the prepay, query,
close and refund pages of JSAPI, H5 and Native, for merchants and for service providers, read 2026-09.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from app.sandbox.wechat.errors import V3Refusal, parameter_error
from app.sandbox.wechat.trades import Product

MAX_FEN = 10_000_000_000
LAST_THREE_BYTE_CHAR = "\uffff"

_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-*|]{6,32}")
_OUT_REFUND_NO = re.compile(r"[0-9A-Za-z_\-*@|]{1,64}")
_NOTIFY_URL = re.compile(r"https?://[^\s/?#]+[^\s?#]*", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", re.ASCII)

Body = dict[str, Any]
Check = Callable[[str, Any], None]


@dataclass(frozen=True, slots=True)
class Field:
    check: Check
    required: bool = False


Fields = Mapping[str, Field]


def read_body(raw: bytes) -> Body:
    """The JSON object. Refuses repeated keys, NaN and everything that is not an object."""
    try:
        body = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as exc:
        raise V3Refusal("PARAM_ERROR", "Http请求包体不是合法的JSON") from exc
    if not isinstance(body, dict):
        raise V3Refusal("PARAM_ERROR", "Http请求包体须为JSON对象")
    return body


def check_body(body: Body, fields: Fields) -> None:
    """Every field documented and in form, every required one there. Raises V3Refusal PARAM_ERROR."""
    _check_object("", body, fields)


def read_query(raw: bytes, names: tuple[str, ...]) -> dict[str, str]:
    """The parameters of a query, which are exactly these, each once."""
    pairs = parse_qsl(raw.decode("ascii", "replace"), keep_blank_values=True)
    query = dict(pairs)
    for name in query:
        if name not in names:
            raise parameter_error(name, "不是该接口文档中的参数", location="query")
    if len(pairs) != len(query):
        raise parameter_error(names[0], "重复", location="query")
    for name in names:
        if not query.get(name):
            raise parameter_error(name, "不能为空", location="query")
    return query


def parse_moment(text: str) -> datetime | None:
    """The instant of an RFC 3339 text with an offset and without fractions, in UTC."""
    if _RFC3339.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def _check_object(pointer: str, body: Body, fields: Fields) -> None:
    for name, value in body.items():
        place = f"{pointer}/{name}"
        if name not in fields:
            raise parameter_error(place, "不是该接口文档中的字段")
        if value is None:
            raise parameter_error(place, "不能为null，不需要的字段请不要传")
        fields[name].check(place, value)
    for name, field in fields.items():
        if field.required and name not in body:
            raise parameter_error(f"{pointer}/{name}", "不能为空")


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> Body:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError("a key is repeated")
    return body


# Checks. Each takes the field's JSON pointer and value and raises when the value may not stand there.


def _text(max_chars: int) -> Check:
    def check(pointer: str, value: object) -> None:
        if not isinstance(value, str):
            raise parameter_error(pointer, "须为字符串")
        if not value:
            raise parameter_error(pointer, "不能为空")
        if len(value) > max_chars:
            raise parameter_error(pointer, f"长度超过{max_chars}个字符")
        if any(char > LAST_THREE_BYTE_CHAR or "\ud800" <= char <= "\udfff" for char in value):
            raise parameter_error(pointer, "含有UTF-8编码超过三个字节的字符")

    return check


def _text_of_bytes(max_bytes: int) -> Check:
    text = _text(max_bytes)

    def check(pointer: str, value: object) -> None:
        text(pointer, value)
        if len(str(value).encode()) > max_bytes:
            raise parameter_error(pointer, f"长度超过{max_bytes}个字节")

    return check


def _matching(max_chars: int, pattern: re.Pattern[str], issue: str) -> Check:
    text = _text(max_chars)

    def check(pointer: str, value: object) -> None:
        text(pointer, value)
        if pattern.fullmatch(str(value)) is None:
            raise parameter_error(pointer, issue, value=value)

    return check


def _one_of(*allowed: str) -> Check:
    def check(pointer: str, value: object) -> None:
        if value not in allowed:
            raise parameter_error(pointer, f"只能是{'、'.join(allowed)}", value=value)

    return check


def _whole_number(minimum: int, maximum: int = MAX_FEN) -> Check:
    def check(pointer: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise parameter_error(pointer, "须为整数", value=value)
        if not minimum <= value <= maximum:
            raise parameter_error(pointer, f"须在{minimum}到{maximum}之间", value=value)

    return check


def _truth(pointer: str, value: object) -> None:
    if not isinstance(value, bool):
        raise parameter_error(pointer, "须为布尔值", value=value)


def _moment(pointer: str, value: object) -> None:
    _text(64)(pointer, value)
    if parse_moment(str(value)) is None:
        raise parameter_error(pointer, "须为RFC 3339格式，如2025-08-01T10:00:00+08:00", value=value)


def _ip_address(pointer: str, value: object) -> None:
    _text(45)(pointer, value)
    try:
        ipaddress.ip_address(str(value))
    except ValueError as exc:
        raise parameter_error(pointer, "须为用户的IP地址", value=value) from exc


def _object(fields: Fields) -> Check:
    def check(pointer: str, value: object) -> None:
        if not isinstance(value, dict):
            raise parameter_error(pointer, "须为对象")
        _check_object(pointer, value, fields)

    return check


def _list_of(item: Check) -> Check:
    def check(pointer: str, value: object) -> None:
        if not isinstance(value, list):
            raise parameter_error(pointer, "须为数组")
        for index, entry in enumerate(value):
            if entry is None:
                raise parameter_error(f"{pointer}/{index}", "不能为null")
            item(f"{pointer}/{index}", entry)

    return check


_GOODS = _object(
    {
        "merchant_goods_id": Field(_text(32), required=True),
        "wechatpay_goods_id": Field(_text(32)),
        "goods_name": Field(_text(256)),
        "quantity": Field(_whole_number(1), required=True),
        "unit_price": Field(_whole_number(0), required=True),
    }
)
_DETAIL = _object(
    {
        "cost_price": Field(_whole_number(0)),
        "invoice_id": Field(_text(32)),
        "goods_detail": Field(_list_of(_GOODS)),
    }
)
_STORE = _object(
    {
        "id": Field(_text(32), required=True),
        "name": Field(_text(256)),
        "area_code": Field(_text(32)),
        "address": Field(_text(512)),
    }
)
_H5 = _object(
    {
        "type": Field(_one_of("iOS", "Android", "Wap"), required=True),
        "app_name": Field(_text(64)),
        "app_url": Field(_text(128)),
        "bundle_id": Field(_text(128)),
        "package_name": Field(_text(128)),
    }
)
_SCENE: Fields = {
    "payer_client_ip": Field(_ip_address, required=True),
    "device_id": Field(_text(32)),
    "store_info": Field(_STORE),
}
_ID = _text(32)
_OPENID = _text(128)
_SETTLEMENT = _object({"profit_sharing": Field(_truth)})
_AMOUNT = _object(
    {"total": Field(_whole_number(1), required=True), "currency": Field(_one_of("CNY"))},
)

_MERCHANT: Fields = {"appid": Field(_ID, required=True), "mchid": Field(_ID, required=True)}
_PARTNER: Fields = {
    "sp_appid": Field(_ID, required=True),
    "sp_mchid": Field(_ID, required=True),
    "sub_appid": Field(_ID),
    "sub_mchid": Field(_ID, required=True),
}
_ORDER: Fields = {
    "description": Field(_text(127), required=True),
    "out_trade_no": Field(_matching(32, _OUT_TRADE_NO, "须为6到32位数字、字母及_-*|"), required=True),
    "time_expire": Field(_moment),
    "attach": Field(_text(128)),
    "notify_url": Field(_matching(255, _NOTIFY_URL, "须为不带参数的http(s)绝对地址"), required=True),
    "goods_tag": Field(_text(32)),
    "support_fapiao": Field(_truth),
    "amount": Field(_AMOUNT, required=True),
    "detail": Field(_DETAIL),
    "settle_info": Field(_SETTLEMENT),
}


_REFUNDED_GOODS = _object(
    {
        "merchant_goods_id": Field(_text(32), required=True),
        "wechatpay_goods_id": Field(_text(32)),
        "goods_name": Field(_text(256)),
        "unit_price": Field(_whole_number(0), required=True),
        "refund_amount": Field(_whole_number(0), required=True),
        "refund_quantity": Field(_whole_number(1), required=True),
    }
)
_SOURCE = _object(
    {
        "account": Field(_one_of("AVAILABLE", "UNAVAILABLE"), required=True),
        "amount": Field(_whole_number(1), required=True),
    }
)
_REFUND_AMOUNT = _object(
    {
        "refund": Field(_whole_number(1), required=True),
        "total": Field(_whole_number(1), required=True),
        "currency": Field(_one_of("CNY"), required=True),
        "from": Field(_list_of(_SOURCE)),
    }
)
_REFUND: Fields = {
    "transaction_id": Field(_text(32)),
    "out_trade_no": Field(_text(32)),
    "out_refund_no": Field(_matching(64, _OUT_REFUND_NO, "须为1到64位数字、字母及_-*@|"), required=True),
    "reason": Field(_text_of_bytes(80)),
    "notify_url": Field(_matching(256, _NOTIFY_URL, "须为不带参数的http(s)绝对地址")),
    "funds_account": Field(_one_of("AVAILABLE", "UNSETTLED")),
    "amount": Field(_REFUND_AMOUNT, required=True),
    "goods_detail": Field(_list_of(_REFUNDED_GOODS)),
}


def order_fields(product: Product, *, is_partner: bool) -> Fields:
    """The body of a prepay call."""
    fields = {**(_PARTNER if is_partner else _MERCHANT), **_ORDER}
    match product:
        case Product.JSAPI:
            openids = ("sp_openid", "sub_openid") if is_partner else ("openid",)
            payer = _object({name: Field(_OPENID, required=not is_partner) for name in openids})
            return fields | {"payer": Field(payer, required=True), "scene_info": Field(_object(_SCENE))}
        case Product.H5:
            scene = _object({**_SCENE, "h5_info": Field(_H5, required=True)})
            return fields | {"scene_info": Field(scene, required=True)}
        case Product.NATIVE:
            return fields | {"scene_info": Field(_object(_SCENE))}


def close_fields(*, is_partner: bool) -> Fields:
    names = ("sp_mchid", "sub_mchid") if is_partner else ("mchid",)
    return {name: Field(_ID, required=True) for name in names}


def refund_fields(*, is_partner: bool) -> Fields:
    return {**_REFUND, "sub_mchid": Field(_ID, required=True)} if is_partner else _REFUND

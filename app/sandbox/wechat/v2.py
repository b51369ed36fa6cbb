"""APIv2 at WeChat's own paths: XML, HTTP 200 always.

    POST /pay/unifiedorder   wechat.v2.unifiedorder
    POST /pay/orderquery     wechat.v2.orderquery
    POST /pay/closeorder     wechat.v2.closeorder
    POST /secapi/pay/refund  wechat.v2.refund          without the client certificate it demands, see v2_refunds.py
    POST /pay/refundquery    wechat.v2.refundquery

    v2.py          the calls: faults, who calls, what is done with orders, answers
    v2_refunds.py  what is done with refunds
    v2_fields.py   the documented fields and what they may hold
    v2_notices.py  the channel: notices, their acknowledgement, the client's paySign
    v2_control.py  /_control/wechat/notices: a notice with any body
    v2_signing.py  MD5 and HMAC-SHA256, and the cipher of refund notices
    v2_errors.py   the two levels of refusal
    xml.py         reading and writing

A call is read, its merchant found, its signature checked, its form checked, and only then does anything happen.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Fault, FaultKind
from app.sandbox.wechat.accounts import Merchant
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.refunds import RefundRefusal
from app.sandbox.wechat.trades import STATE_WORDS, Order, Product, Trade, TradeRefusal
from app.sandbox.wechat.v2_control import V2Control
from app.sandbox.wechat.v2_errors import (
    NO_MERCHANT,
    NO_RELATION,
    WRONG_SIGNATURE,
    BusinessRefusal,
    TransportRefusal,
    missing,
    no_such_order,
    of_a_refund,
    of_a_trade,
)
from app.sandbox.wechat.v2_fields import (
    CALLER,
    CLOSE,
    ORDER,
    ORDER_NEEDS,
    QUERY,
    REFUND,
    REFUND_QUERY,
    check_form,
    check_present,
    expiry_of,
)
from app.sandbox.wechat.v2_notices import Fields, V2Channel, caller_fields, paid_fields
from app.sandbox.wechat.v2_refunds import V2Refunds, numbered
from app.sandbox.wechat.v2_signing import HMAC_LENGTH, HMAC_SHA256, MD5, SIGN_TYPES, is_signed, sign
from app.sandbox.wechat.xml import MAX_BYTES, NotUtf8, XmlRefused, read_xml, write_xml
from app.sandbox.wire import DroppedConnection, SilentConnection


@dataclass(frozen=True, slots=True)
class _Call:
    """A call whose signature is right. `fields` holds no empty value."""

    merchant: Merchant
    sign_type: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """`name` is what faults and counts call it, `allowed` the fields it documents."""

    name: str
    allowed: frozenset[str]
    work: Callable[[_Call], Fields]


def routes(wechat: WeChat) -> list[BaseRoute]:
    return [*V2Gateway(wechat).routes(), *V2Control(wechat).routes()]


class V2Gateway:
    def __init__(self, wechat: WeChat) -> None:
        self._wechat = wechat
        self._ground = wechat.ground
        self._refunds = V2Refunds(wechat)

    def routes(self) -> list[BaseRoute]:
        endpoints = {
            "/pay/unifiedorder": _Endpoint("wechat.v2.unifiedorder", CALLER | ORDER, self._unifiedorder),
            "/pay/orderquery": _Endpoint("wechat.v2.orderquery", CALLER | QUERY, self._orderquery),
            "/pay/closeorder": _Endpoint("wechat.v2.closeorder", CALLER | CLOSE, self._closeorder),
            "/secapi/pay/refund": _Endpoint("wechat.v2.refund", CALLER | REFUND, self._refund),
            "/pay/refundquery": _Endpoint("wechat.v2.refundquery", CALLER | REFUND_QUERY, self._refundquery),
        }
        return [Route(path, self._served(endpoint), methods=["GET", "POST"]) for path, endpoint in endpoints.items()]

    def _served(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                fields = _read(request.method, await _body(request))
            except TransportRefusal as refusal:
                self._ground.calls.record(endpoint.name, "")
                return _refused_unsigned(refusal)
            number = self._wechat.order_named_in(fields)
            self._ground.calls.record(endpoint.name, number)
            fault = self._ground.faults.take(endpoint.name, number)
            return self._worked(endpoint, fields) if fault is None else await self._go_wrong(endpoint, fields, fault)

        return answer

    async def _go_wrong(self, endpoint: _Endpoint, fields: dict[str, str], fault: Fault) -> Response:
        """The call as it goes with a fault; only lost_reply, bad_signature and latency do the work."""
        match fault.kind:
            case FaultKind.TIMEOUT:
                return SilentConnection(fault.latency_s)
            case FaultKind.HTTP_500 | FaultKind.UNAVAILABLE:
                return Response("Internal Server Error", status_code=500, media_type="text/plain")
            case FaultKind.ERROR_RESPONSE:
                return _refused_unsigned(TransportRefusal(fault.message or "系统繁忙，请稍后再试"))
            case FaultKind.BUSINESS_ERROR:
                refusal = BusinessRefusal(fault.code or "SYSTEMERROR", fault.message or "沙箱按要求返回的错误")
                return self._worked(endpoint, fields, refusal=refusal)
            case FaultKind.LATENCY:
                await asyncio.sleep(fault.latency_s)
                return self._worked(endpoint, fields)
            case FaultKind.LOST_REPLY:
                self._worked(endpoint, fields)
                return DroppedConnection()
            case FaultKind.BAD_SIGNATURE:
                return self._worked(endpoint, fields, break_signature=True)

    def _worked(
        self,
        endpoint: _Endpoint,
        fields: dict[str, str],
        *,
        refusal: BusinessRefusal | None = None,
        break_signature: bool = False,
    ) -> Response:
        try:
            call = self._verified(fields)
            check_form(call.fields, endpoint.allowed)
            answer = {"result_code": "SUCCESS", **self._done(endpoint, call, refusal)}
        except TransportRefusal as refused:
            return _refused_unsigned(refused)
        except BusinessRefusal as refused:
            answer = {"result_code": "FAIL", "err_code": refused.err_code, "err_code_des": refused.err_code_des}
        return _signed(call, answer, break_signature=break_signature)

    def _done(self, endpoint: _Endpoint, call: _Call, refusal: BusinessRefusal | None) -> Fields:
        if refusal is not None:
            raise refusal
        self._check_caller(call)
        try:
            return endpoint.work(call)
        except TradeRefusal as refused:
            raise of_a_trade(refused) from refused
        except RefundRefusal as refused:
            raise of_a_refund(refused) from refused

    # Who calls.

    def _verified(self, fields: dict[str, str]) -> _Call:
        """The merchant whose API key signed. Raises TransportRefusal."""
        given = {name: value for name, value in fields.items() if value != ""}
        merchant = self._wechat.merchants.find_v2(given.get("mch_id", ""))
        if merchant is None:
            raise TransportRefusal(NO_MERCHANT)
        default = HMAC_SHA256 if len(given.get("sign", "")) == HMAC_LENGTH else MD5
        sign_type = given.get("sign_type", default)
        if sign_type not in SIGN_TYPES or not is_signed(given, merchant.api_key, sign_type):
            raise TransportRefusal(WRONG_SIGNATURE)
        return _Call(merchant, sign_type, given)

    def _check_caller(self, call: _Call) -> None:
        """The app belongs to the merchant and the sub-merchant to the partner. Raises either refusal."""
        merchant, fields = call.merchant, call.fields
        check_present(fields, "appid", "nonce_str")
        if merchant.sub_mchid is None and fields.keys() & {"sub_mch_id", "sub_appid", "sub_openid"}:
            raise BusinessRefusal("NOAUTH", "商户无此接口权限：不是服务商")
        if merchant.sub_mchid is not None:
            check_present(fields, "sub_mch_id")
            if fields["sub_mch_id"] != merchant.sub_mchid:
                raise TransportRefusal(NO_RELATION)
        for name in ("appid", "sub_appid"):
            if name in fields and fields[name] not in merchant.appids:
                raise BusinessRefusal("APPID_MCHID_NOT_MATCH", f"{name}和mch_id不匹配")

    # What is done.

    def _unifiedorder(self, call: _Call) -> Fields:
        fields = call.fields
        check_present(fields, *ORDER_NEEDS)
        product = self._product(fields)
        credential = self._wechat.book.place(call.merchant, fields["out_trade_no"], self._order(call, product))
        answer: Fields = {"device_info": fields.get("device_info", ""), "trade_type": product.value}
        answer["prepay_id"] = credential.prepay_id
        if product is Product.NATIVE:
            answer["code_url"] = credential.code_url
        if product is Product.H5:
            answer["mweb_url"] = credential.h5_url(self._ground.public_url)
        return answer

    def _product(self, fields: Mapping[str, str]) -> Product:
        """What is to be paid with, all its own fields there. Raises either refusal."""
        trade_type = fields["trade_type"]
        if trade_type == "APP":
            raise BusinessRefusal("NOAUTH", "商户号该产品权限未开通：APP支付")
        if trade_type == "JSAPI" and not fields.keys() & {"openid", "sub_openid"}:
            raise BusinessRefusal("LACK_PARAMS", "JSAPI支付必须传openid")
        if trade_type == "NATIVE":
            check_present(fields, "product_id")
        if trade_type == "MWEB":
            check_present(fields, "scene_info")
        return Product(trade_type)

    def _order(self, call: _Call, product: Product) -> Order:
        """Raises either refusal."""
        fields = call.fields
        payers = {"openid": "", "sub_openid": ""}
        if product is Product.JSAPI:
            payers = {name: self._payer(fields, name) for name in payers}
        kept = {"body", "out_trade_no", "total_fee", "notify_url", "attach", "time_expire", *payers} | CALLER
        return Order(
            channel=V2Channel(call.sign_type),
            product=product,
            appid=fields["appid"],
            sub_appid=fields.get("sub_appid", ""),
            description=fields["body"],
            total_fen=int(fields["total_fee"]),
            notify_url=fields["notify_url"],
            attach=fields.get("attach", ""),
            time_expire=expiry_of(fields.get("time_expire", ""), self._ground.clock.now()),
            others=json.dumps({name: value for name, value in sorted(fields.items()) if name not in kept}),
            **payers,
        )

    def _payer(self, fields: Mapping[str, str], name: str) -> str:
        """The openid, which belongs to the app of its side. Raises TransportRefusal."""
        openid, app_id = fields.get(name, ""), fields.get("sub_appid" if name == "sub_openid" else "appid", "")
        if openid and not app_id:
            raise TransportRefusal("传入sub_openid时必须传sub_appid")
        if openid and not self._wechat.open_platform.openid_belongs(openid, app_id):
            raise TransportRefusal("appid与openid不匹配")
        return openid

    def _orderquery(self, call: _Call) -> Fields:
        if not call.fields.keys() & QUERY:
            raise missing("transaction_id 或 out_trade_no")
        trade = self._find(call)
        answer: Fields = {"device_info": ""}
        if trade.is_paid:
            answer |= caller_fields(trade) | paid_fields(trade)
        else:
            answer |= {"out_trade_no": trade.out_trade_no}
            answer |= {"attach": trade.order.attach} if trade.order.attach else {}
        return answer | {"trade_state": trade.state.value, "trade_state_desc": STATE_WORDS[trade.state]}

    def _closeorder(self, call: _Call) -> Fields:
        check_present(call.fields, "out_trade_no")
        self._wechat.book.close(self._find(call))
        return {"result_msg": "OK"}

    def _refund(self, call: _Call) -> Fields:
        answer: Fields = {"refund_channel": ""}
        return answer | self._refunds.create(call.merchant, call.fields, call.fields.get("notify_url", ""))

    def _refundquery(self, call: _Call) -> Fields:
        return numbered(self._refunds.find(call.merchant, call.fields))

    def _find(self, call: _Call) -> Trade:
        """The caller's order of APIv2. Raises BusinessRefusal ORDERNOTEXIST."""
        numbers = {name: call.fields.get(name, "") for name in QUERY}
        trade = self._wechat.book.find(call.merchant.seller_id, **numbers)
        if trade is None:
            raise no_such_order()
        return trade


def _read(method: str, body: bytes) -> dict[str, str]:
    """The fields of a call. Raises TransportRefusal."""
    if method != "POST":
        raise TransportRefusal("请使用post方法")
    if not body.strip():
        raise TransportRefusal("post数据为空")
    try:
        return read_xml(body)
    except NotUtf8 as exc:
        raise TransportRefusal("编码格式错误：请使用UTF-8") from exc
    except XmlRefused as exc:
        raise TransportRefusal("XML格式错误") from exc


async def _body(request: Request) -> bytes:
    """As much as a call may have; what is longer is refused by its reader."""
    body = b""
    async for chunk in request.stream():
        body = (body + chunk)[: MAX_BYTES + 1]
    return body


def _signed(call: _Call, answer: Fields, *, break_signature: bool) -> Response:
    """Signed the way the call was. The empty device_info of an answer is not part of its signature."""
    fields: Fields = {"return_code": "SUCCESS", "return_msg": "OK"}
    fields |= {
        name: call.fields[name] for name in ("appid", "mch_id", "sub_appid", "sub_mch_id") if name in call.fields
    }
    fields |= {"nonce_str": secrets.token_hex(16), **answer}
    key = call.merchant.api_key
    fields["sign"] = sign(fields, key[::-1] if break_signature else key, call.sign_type)
    return _answered(fields)


def _refused_unsigned(refusal: TransportRefusal) -> Response:
    return _answered({"return_code": "FAIL", "return_msg": refusal.return_msg})


def _answered(fields: Fields) -> Response:
    return Response(write_xml(fields), headers={"content-type": "text/xml; charset=utf-8"})

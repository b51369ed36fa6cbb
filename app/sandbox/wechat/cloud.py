"""Cloud pay: the keyless calls that a service running in WeChat's cloud makes, POST /_/pay/<action>, JSON both ways.

    POST /_/pay/unifiedorder, unifiedOrder   wechat.cloud.unifiedorder
    POST /_/pay/queryorder                   wechat.cloud.queryorder
    POST /_/pay/closeorder                   wechat.cloud.closeorder
    POST /_/pay/refund                       wechat.cloud.refund
    POST /_/pay/queryrefund                  wechat.cloud.queryrefund

    cloud.py           the calls
    cloud_notices.py   the channel: callbacks, their acknowledgement, the client's paySign
    cloud_control.py   /_control/wechat/cloud: where the container is, what queryrefund leaves out

An answer has three levels: `errcode` of the cloud, then `return_code` and `result_code` of APIv2 inside `respdata`. The
merchant is a sub-merchant of WeChat's own. Which errcode a badly formed call gets is not documented; here it is one
of the other server calls. Source: developers.weixin.qq.com, wxcloudrun/src/development/pay, read 2026-09.
"""

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from app.sandbox.faults import Fault, FaultKind
from app.sandbox.wechat.accounts import CLOUD_PLATFORM_APPID, Merchant
from app.sandbox.wechat.cloud_control import CallbackAddress, RefundLists, is_base_url
from app.sandbox.wechat.cloud_notices import CloudChannel
from app.sandbox.wechat.open_platform_apps import MINI_PROGRAM_APP_ID
from app.sandbox.wechat.open_platform_json import read_json
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.refunds import RefundRefusal
from app.sandbox.wechat.trades import STATE_WORDS, Credential, Order, Product, Trade, TradeRefusal
from app.sandbox.wechat.v2_errors import (
    NO_RELATION,
    BusinessRefusal,
    TransportRefusal,
    no_such_order,
    of_a_refund,
    of_a_trade,
)
from app.sandbox.wechat.v2_fields import check_form, expiry_of
from app.sandbox.wechat.v2_notices import Fields, caller_fields, paid_fields
from app.sandbox.wechat.v2_refunds import FoundRefunds, V2Refunds, fields_of, shared_fields
from app.sandbox.wechat.v2_signing import MD5, client_parameters, sign
from app.sandbox.wire import DroppedConnection, SilentConnection

DEFAULT_CALLBACK_BASE_URL = "http://127.0.0.1:8000"
CALLBACK_BASE_HEADER = "x-sandbox-callback-base"
MAX_BODY_BYTES = 100 * 1024
IN_CONTAINER = 2

BUSY, INVALID_ARGUMENTS, FORMAT_ERROR = -1, 40097, 47001

_ORDER_TEXTS = frozenset(
    {
        *("body", "out_trade_no", "sub_mch_id", "sub_appid", "openid", "spbill_create_ip", "attach", "detail"),
        *("device_info", "time_start", "time_expire", "goods_tag", "limit_pay", "fee_type", "trade_type", "nonce_str"),
        "env_id",
    }
)
_ORDER_TYPES: Mapping[str, type] = {
    **dict.fromkeys(_ORDER_TEXTS, str),
    "total_fee": int,
    "callback_type": int,
    "container": dict,
}
_ORDER_NEEDS = (
    *("sub_mch_id", "body", "out_trade_no", "total_fee", "openid", "spbill_create_ip"),
    *("env_id", "callback_type", "container"),
)
_NUMBER_TYPES: Mapping[str, type] = dict.fromkeys(("sub_mch_id", "out_trade_no", "transaction_id", "nonce_str"), str)
_REFUND_TEXTS = (
    *("sub_mch_id", "sub_appid", "nonce_str", "out_trade_no", "transaction_id", "out_refund_no", "body"),
    *("refund_desc", "refund_fee_type", "refund_account", "env_id"),
)
_REFUND_TYPES: Mapping[str, type] = {
    **dict.fromkeys(_REFUND_TEXTS, str),
    **dict.fromkeys(("total_fee", "refund_fee", "callback_type"), int),
    "container": dict,
}
_REFUND_NEEDS = ("sub_mch_id", "out_refund_no", "total_fee", "refund_fee", "env_id", "callback_type", "container")
_REFUND_NUMBER_TYPES: Mapping[str, type] = {
    **_NUMBER_TYPES,
    **dict.fromkeys(("out_refund_no", "refund_id"), str),
    "offset": int,
}
_NO_COUPONS = ("coupon_type_list", "coupon_refund_id_list", "coupon_refund_fee_list")
_NO_COUPONS_OF_MANY = ("coupon_type_array", "coupon_refund_id_array", "coupon_refund_fee_array")
_CONTAINER_TYPES: Mapping[str, type] = {"service": str, "path": str}
_KNOWN_TO_THE_ORDER = frozenset(
    {"body", "out_trade_no", "total_fee", "openid", "attach", "time_expire", "sub_mch_id", "sub_appid", "nonce_str"}
)


class CloudRefusal(Exception):
    """The cloud itself says no: an errcode and no respdata. Nothing was changed."""

    def __init__(self, errcode: int, errmsg: str) -> None:
        super().__init__(f"{errcode} {errmsg}")
        self.errcode = errcode
        self.errmsg = errmsg


@dataclass(frozen=True, slots=True)
class _Call:
    """`callback_base_url` comes from the header with which a caller says where it is; empty without."""

    merchant: Merchant
    fields: Mapping[str, Any]
    callback_base_url: str


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """`name` is what faults and counts call it."""

    name: str
    types: Mapping[str, type]
    needs: tuple[str, ...]
    work: Callable[[_Call], Fields | dict[str, Any]]


def routes(wechat: WeChat) -> list[BaseRoute]:
    """The container is the service this machine serves: at PUBLIC_URL, or where `make run` puts it."""
    address = CallbackAddress(os.environ.get("PUBLIC_URL") or DEFAULT_CALLBACK_BASE_URL)
    lists = RefundLists()
    wechat.resets.extend((address.reset, lists.reset))
    return [*CloudGateway(wechat, address, lists).routes(), *address.routes(), *lists.routes()]


class CloudGateway:
    def __init__(self, wechat: WeChat, address: CallbackAddress, lists: RefundLists) -> None:
        self._wechat = wechat
        self._refunds = V2Refunds(wechat)
        self._lists = lists
        self._ground = wechat.ground
        self._channel = CloudChannel(platform_key=secrets.token_hex(16), address=address)

    def routes(self) -> list[BaseRoute]:
        order = _Endpoint("wechat.cloud.unifiedorder", _ORDER_TYPES, _ORDER_NEEDS, self._unifiedorder)
        endpoints = {
            "unifiedorder": order,
            "unifiedOrder": order,  # the documents write both
            "queryorder": _Endpoint("wechat.cloud.queryorder", _NUMBER_TYPES, ("sub_mch_id",), self._queryorder),
            "closeorder": _Endpoint("wechat.cloud.closeorder", _NUMBER_TYPES, ("sub_mch_id",), self._closeorder),
            "refund": _Endpoint("wechat.cloud.refund", _REFUND_TYPES, _REFUND_NEEDS, self._refund),
            "queryrefund": _Endpoint(
                "wechat.cloud.queryrefund", _REFUND_NUMBER_TYPES, ("sub_mch_id",), self._queryrefund
            ),
        }
        return [Route(f"/_/pay/{action}", self._served(each), methods=["POST"]) for action, each in endpoints.items()]

    # Calls.

    def _served(self, endpoint: _Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                self._ground.calls.record(endpoint.name, "")
                return Response(status_code=400)
            body = await _read(request)
            number = self._wechat.order_named_in(body) if isinstance(body, dict) else ""
            self._ground.calls.record(endpoint.name, number)
            fault = self._ground.faults.take(endpoint.name, number)
            base_url = request.headers.get(CALLBACK_BASE_HEADER, "")
            if fault is None:
                return self._worked(endpoint, body, base_url)
            return await self._go_wrong(endpoint, body, base_url, fault)

        return answer

    async def _go_wrong(self, endpoint: _Endpoint, body: object, base_url: str, fault: Fault) -> Response:
        """The call as it goes with a fault; only lost_reply, bad_signature and latency do the work."""
        match fault.kind:
            case FaultKind.TIMEOUT:
                return SilentConnection(fault.latency_s)
            case FaultKind.HTTP_500 | FaultKind.UNAVAILABLE:
                return Response("Internal Server Error", status_code=500, media_type="text/plain")
            case FaultKind.ERROR_RESPONSE:
                known = fault.code is not None and fault.code.lstrip("-").isdecimal()
                return _refused(
                    CloudRefusal(int(fault.code or BUSY) if known else BUSY, fault.message or "system error")
                )
            case FaultKind.BUSINESS_ERROR:
                refusal = BusinessRefusal(fault.code or "SYSTEMERROR", fault.message or "沙箱按要求返回的错误")
                return self._worked(endpoint, body, base_url, refusal=refusal)
            case FaultKind.LATENCY:
                await asyncio.sleep(fault.latency_s)
            case FaultKind.LOST_REPLY:
                self._worked(endpoint, body, base_url)
                return DroppedConnection()
            case FaultKind.BAD_SIGNATURE:
                pass  # nobody outside can check an answer's signature
        return self._worked(endpoint, body, base_url)

    def _worked(
        self, endpoint: _Endpoint, body: object, base_url: str, *, refusal: BusinessRefusal | None = None
    ) -> Response:
        try:
            fields = _typed(body, endpoint)
            call = _Call(self._merchant(fields), fields, base_url.rstrip("/") if is_base_url(base_url) else "")
            _check_values(fields)
            answer = {"result_code": "SUCCESS", **self._done(endpoint, call, refusal)}
        except CloudRefusal as refused:
            return _refused(refused)
        except TransportRefusal as refused:
            return _answered({"return_code": "FAIL", "return_msg": refused.return_msg})
        except BusinessRefusal as refused:
            answer = {"result_code": "FAIL", "err_code": refused.err_code, "err_code_des": refused.err_code_des}
        return _answered(self._signed(call, answer))

    def _done(self, endpoint: _Endpoint, call: _Call, refusal: BusinessRefusal | None) -> Mapping[str, Any]:
        if refusal is not None:
            raise refusal
        try:
            return endpoint.work(call)
        except TradeRefusal as refused:
            raise of_a_trade(refused) from refused
        except RefundRefusal as refused:
            raise of_a_refund(refused) from refused

    def _merchant(self, fields: Mapping[str, Any]) -> Merchant:
        merchant = self._wechat.merchants.find_cloud(fields["sub_mch_id"])
        if merchant is None:
            raise TransportRefusal(NO_RELATION)
        return merchant

    def _signed(self, call: _Call, answer: Mapping[str, Any]) -> dict[str, Any]:
        """`sign` is by WeChat's own key: it is there, and nobody can check it."""
        signed: Fields = {"return_code": "SUCCESS", "return_msg": "OK", "appid": CLOUD_PLATFORM_APPID}
        signed |= {"mch_id": call.merchant.mchid, "sub_appid": _app_of(call.fields)}
        signed |= {"sub_mch_id": call.merchant.seller_id}
        signed |= {"nonce_str": secrets.token_hex(8)}
        signed |= {name: value for name, value in answer.items() if name != "payment"}
        return {**signed, **answer, "sign": sign(signed, self._channel.platform_key, MD5)}

    # What is done.

    def _unifiedorder(self, call: _Call) -> dict[str, Any]:
        fields = call.fields
        if fields.get("trade_type", "JSAPI") != "JSAPI":
            raise BusinessRefusal("NOAUTH", "商户号该产品权限未开通")
        if not self._wechat.open_platform.openid_belongs(fields["openid"], _app_of(fields)):
            raise TransportRefusal("sub_appid与sub_openid不匹配")
        if _app_of(fields) not in call.merchant.appids:
            raise BusinessRefusal("APPID_MCHID_NOT_MATCH", "sub_appid和sub_mch_id不匹配")
        credential = self._wechat.book.place(call.merchant, fields["out_trade_no"], self._order(call))
        answer: dict[str, Any] = {"trade_type": Product.JSAPI.value, "prepay_id": credential.prepay_id}
        return answer | {"payment": self._payment(credential)}

    def _order(self, call: _Call) -> Order:
        fields = call.fields
        _check_container(call)
        return Order(
            channel=self._channel,
            product=Product.JSAPI,
            appid=CLOUD_PLATFORM_APPID,
            sub_appid=_app_of(fields),
            description=fields["body"],
            total_fen=fields["total_fee"],
            openid="",
            sub_openid=fields["openid"],
            notify_url=call.callback_base_url + fields["container"]["path"],
            attach=fields.get("attach", ""),
            time_expire=expiry_of(fields.get("time_expire", ""), self._ground.clock.now()),
            others=json.dumps({name: fields[name] for name in sorted(fields) if name not in _KNOWN_TO_THE_ORDER}),
        )

    def _payment(self, credential: Credential) -> dict[str, str]:
        """What the mini-program hands to `wx.requestPayment` as it is."""
        return client_parameters(
            app_id=credential.trade.client_appid,
            timestamp=int(self._ground.clock.now().timestamp()),
            nonce=secrets.token_hex(8),
            prepay_id=credential.prepay_id,
            key=self._channel.platform_key,
        )

    def _queryorder(self, call: _Call) -> Fields:
        trade = self._find(call)
        answer: Fields = {"out_trade_no": trade.out_trade_no}
        if trade.is_paid:
            answer = caller_fields(trade) | paid_fields(trade)
        elif trade.order.attach:
            answer["attach"] = trade.order.attach
        return answer | {"trade_state": trade.state.value, "trade_state_desc": STATE_WORDS[trade.state]}

    def _closeorder(self, call: _Call) -> Fields:
        self._wechat.book.close(self._find(call))
        return {"result_msg": "OK"}

    def _refund(self, call: _Call) -> dict[str, Any]:
        _check_container(call)
        place = call.callback_base_url + call.fields["container"]["path"]
        answer: dict[str, Any] = {name: [] for name in _NO_COUPONS}
        return answer | self._refunds.create(call.merchant, call.fields, place)

    def _queryrefund(self, call: _Call) -> dict[str, Any]:
        found = self._refunds.find(call.merchant, call.fields)
        return shared_fields(found) | _lists(found, empty=self._lists.empty)

    def _find(self, call: _Call) -> Trade:
        numbers = {name: call.fields.get(name, "") for name in ("out_trade_no", "transaction_id")}
        if not any(numbers.values()):
            raise CloudRefusal(INVALID_ARGUMENTS, "out_trade_no is empty")
        trade = self._wechat.book.find(call.merchant.seller_id, **numbers)
        if trade is None:
            raise no_such_order()
        return trade


def _lists(found: FoundRefunds, *, empty: bool) -> dict[str, list[Any]]:
    """What APIv2 numbers stands in lists here, one entry a refund; one of them is not called a list."""
    rows = [fields_of(refund) for refund in found.refunds]
    lists = {
        name if name == "refund_channel" else f"{name}_list": [] if empty else [row[name] for row in rows]
        for name in rows[0]
    }
    return lists | {name: [] for name in _NO_COUPONS_OF_MANY}


# Reading.


async def _read(request: Request) -> object:
    """The body's JSON, or None when it is none."""
    body = b""
    async for chunk in request.stream():
        body = (body + chunk)[: MAX_BODY_BYTES + 1]
    return read_json(body, MAX_BODY_BYTES)


def _typed(body: object, endpoint: _Endpoint) -> dict[str, Any]:
    """The fields, each documented and of its type, the required ones not empty. Raises CloudRefusal.

    A flag is no number, and 2.0 is not 2: `total_fee` is an integer or a format error.
    """
    if not isinstance(body, dict):
        raise CloudRefusal(FORMAT_ERROR, "data format error")
    for name, value in body.items():
        if name not in endpoint.types or type(value) is not endpoint.types[name]:
            raise CloudRefusal(FORMAT_ERROR, f"data format error: {name}")
    for name in endpoint.needs:
        if name not in body or body[name] == "":
            raise CloudRefusal(INVALID_ARGUMENTS, f"{name} is empty")
    return {name: value for name, value in body.items() if value != ""}


def _check_values(fields: Mapping[str, Any]) -> None:
    """What APIv2 says of the fields that are its own. Raises TransportRefusal."""
    texts = {name: str(value) for name, value in fields.items() if name not in ("env_id", "callback_type", "container")}
    check_form(texts, frozenset(texts))


def _check_container(call: _Call) -> None:
    """The callback goes to the merchant's own environment and service. Raises CloudRefusal."""
    fields, container = call.fields, call.fields["container"]
    if fields["callback_type"] != IN_CONTAINER:
        raise CloudRefusal(INVALID_ARGUMENTS, "invalid callback_type: the sandbox plays containers only, which is 2")
    if fields["env_id"] != call.merchant.env_id:
        raise CloudRefusal(INVALID_ARGUMENTS, "invalid env_id")
    if container.keys() != _CONTAINER_TYPES.keys() or not all(isinstance(text, str) for text in container.values()):
        raise CloudRefusal(INVALID_ARGUMENTS, "invalid container: service and path are needed")
    if container["service"] != call.merchant.cloud_service:
        raise CloudRefusal(INVALID_ARGUMENTS, "invalid container: no such service")
    if not container["path"].startswith("/") or set("?#") & set(container["path"]):
        raise CloudRefusal(INVALID_ARGUMENTS, "invalid container: path begins with / and has no query")


def _app_of(fields: Mapping[str, Any]) -> str:
    """The app that the environment belongs to, unless the call names another of the merchant's."""
    app_id: str = fields.get("sub_appid", MINI_PROGRAM_APP_ID)
    return app_id


# Answering.


def _refused(refusal: CloudRefusal) -> Response:
    return JSONResponse({"errcode": refusal.errcode, "errmsg": refusal.errmsg})


def _answered(respdata: Mapping[str, Any]) -> Response:
    return JSONResponse({"errcode": 0, "errmsg": "ok", "respdata": respdata}, headers=_trace())


def _trace() -> dict[str, str]:
    """What WeChat's support asks for."""
    return {"x-openapi-seqid": secrets.token_hex(8)}

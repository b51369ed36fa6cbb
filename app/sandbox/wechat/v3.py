"""APIv3 at WeChat's own paths: every call comes in here, is counted, may run into a fault, and is answered signed.

    POST /v3/pay/transactions/{jsapi,native,h5}                              wechat.v3.prepay
    GET  /v3/pay/transactions/{id,out-trade-no}/{number}?mchid=              wechat.v3.query
    POST /v3/pay/transactions/out-trade-no/{out_trade_no}/close              wechat.v3.close
    POST /v3/refund/domestic/refunds                                         wechat.v3.refund
    GET  /v3/refund/domestic/refunds/{out_refund_no}                         wechat.v3.refund_query
    GET  /v3/certificates                                                    wechat.v3.certificates
    … and payments the same under /v3/pay/partner/transactions for a service provider, whose refunds name `sub_mchid`

An answer to a verified caller is signed, a refusal too; a call whose signature did not hold is refused unsigned.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.clock import BEIJING
from app.sandbox.faults import Fault, FaultKind
from app.sandbox.wechat.accounts import Merchant, SigningKey
from app.sandbox.wechat.errors import V3Refusal
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.signers import SignatureKind, Signers, v3_keys
from app.sandbox.wechat.signing import encrypted
from app.sandbox.wechat.trades import Product
from app.sandbox.wechat.v3_callers import Caller, Callers
from app.sandbox.wechat.v3_notices import V3Channel
from app.sandbox.wechat.v3_orders import V3Orders
from app.sandbox.wechat.v3_refunds import V3Refunds
from app.sandbox.wire import DroppedConnection, SilentConnection

MAX_BODY_BYTES = 1 << 20
PRODUCTS = {"jsapi": Product.JSAPI, "native": Product.NATIVE, "h5": Product.H5}
BAD_GATEWAY = "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"

# What a call does once its caller is known: the body's fields, or None for an answer without a body.
Work = Callable[[Merchant], dict[str, Any] | None]


def routes(wechat: WeChat, signers: Signers) -> list[Route]:
    return V3(wechat, signers).routes()


class V3:
    def __init__(self, wechat: WeChat, signers: Signers) -> None:
        self._wechat = wechat
        self._ground = wechat.ground
        self._signers = signers
        self._callers = Callers(wechat.merchants, signers)
        self._orders = V3Orders(wechat, V3Channel(signers))
        self._refunds = V3Refunds(wechat)
        wechat.resets.append(self._callers.reset)

    def routes(self) -> list[Route]:
        refunds = "/v3/refund/domestic/refunds"
        found = [
            Route("/v3/certificates", self._certificates, methods=["GET"]),
            Route(refunds, self._refund, methods=["POST"]),
            Route(f"{refunds}/{{out_refund_no}}", self._query_refund, methods=["GET"]),
        ]
        for base in ("/v3/pay/transactions", "/v3/pay/partner/transactions"):
            number = f"{base}/out-trade-no/{{out_trade_no}}"
            found += [
                Route(f"{base}/{{product:str}}", self._prepay, methods=["POST"]),
                Route(f"{base}/id/{{transaction_id}}", self._query, methods=["GET"]),
                Route(number, self._query, methods=["GET"]),
                Route(f"{number}/close", self._close, methods=["POST"]),
            ]
        return found

    async def _prepay(self, request: Request) -> Response:
        product = PRODUCTS.get(request.path_params["product"])
        body = await _read_body(request)

        def work(merchant: Merchant) -> dict[str, Any]:
            _check_path(merchant, request)
            if product is None:
                raise V3Refusal("NO_AUTH")
            return self._orders.prepay(merchant, product, body)

        return await self._answer(request, body, "wechat.v3.prepay", self._number_hint(body), work)

    async def _query(self, request: Request) -> Response:
        numbers = dict(request.path_params)
        body = await _read_body(request)

        def work(merchant: Merchant) -> dict[str, Any]:
            _check_path(merchant, request)
            return self._orders.query(merchant, request.scope["query_string"], **numbers)

        return await self._answer(request, body, "wechat.v3.query", numbers.get("out_trade_no", ""), work)

    async def _close(self, request: Request) -> Response:
        number = request.path_params["out_trade_no"]
        body = await _read_body(request)

        def work(merchant: Merchant) -> None:
            _check_path(merchant, request)
            self._orders.close(merchant, number, body)

        return await self._answer(request, body, "wechat.v3.close", number, work)

    async def _refund(self, request: Request) -> Response:
        body = await _read_body(request)

        def work(merchant: Merchant) -> dict[str, Any]:
            return self._refunds.create(merchant, body)

        return await self._answer(request, body, "wechat.v3.refund", self._number_hint(body), work)

    async def _query_refund(self, request: Request) -> Response:
        number = request.path_params["out_refund_no"]
        body = await _read_body(request)

        def work(merchant: Merchant) -> dict[str, Any]:
            return self._refunds.query(merchant, request.scope["query_string"], number)

        hint = self._wechat.order_named_in({"out_refund_no": number})
        return await self._answer(request, body, "wechat.v3.refund_query", hint, work)

    async def _certificates(self, request: Request) -> Response:
        body = await _read_body(request)
        return await self._answer(request, body, "wechat.v3.certificates", "", self._published)

    def _number_hint(self, body: bytes) -> str:
        """The `out_trade_no` a call seems to be about, before anything is verified."""
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return ""
        return self._wechat.order_named_in(content) if isinstance(content, dict) else ""

    def _published(self, merchant: Merchant) -> dict[str, Any]:
        keys = self._signers.certificates(merchant)
        if not keys:
            message = "无可用的平台证书，请在商户平台-API安全申请使用微信支付公钥。可查看指引"
            raise V3Refusal("RESOURCE_NOT_EXISTS", message)
        return {"data": [_certificate_entry(v3_keys(merchant).apiv3_key, key) for key in keys]}

    async def _answer(self, request: Request, body: bytes, method: str, number: str, work: Work) -> Response:
        self._ground.calls.record(method, number)
        fault = self._ground.faults.take(method, number)
        if fault is None:
            return self._done(request, body, work)
        return await self._gone_wrong(fault, request, body, work)

    async def _gone_wrong(self, fault: Fault, request: Request, body: bytes, work: Work) -> Response:
        """The call as it goes with a fault; only lost_reply, bad_signature and latency do the work."""
        match fault.kind:
            case FaultKind.TIMEOUT:
                return SilentConnection(fault.latency_s)
            case FaultKind.HTTP_500 | FaultKind.UNAVAILABLE:
                return _refused(V3Refusal("SYSTEM_ERROR"))
            case FaultKind.ERROR_RESPONSE:
                return Response(BAD_GATEWAY, status_code=502, media_type="text/html")
            case FaultKind.BUSINESS_ERROR:
                return self._done(request, body, _refusing(fault.code or "PARAM_ERROR", fault.message or ""))
            case FaultKind.LATENCY:
                await asyncio.sleep(fault.latency_s)
                return self._done(request, body, work)
            case FaultKind.LOST_REPLY:
                self._done(request, body, work)
                return DroppedConnection()
            case FaultKind.BAD_SIGNATURE:
                return self._done(request, body, work, kind=SignatureKind.BROKEN)

    def _done(self, request: Request, body: bytes, work: Work, *, kind: SignatureKind = SignatureKind.TRUE) -> Response:
        try:
            caller = self._callers.verify(request, body)
        except V3Refusal as refused:
            return _refused(refused)
        try:
            fields = work(caller.merchant)
        except V3Refusal as refused:
            return self._signed(caller, refused.fields(), status=refused.status, number=refused.number, kind=kind)
        return self._signed(caller, fields, status=204 if fields is None else 200, kind=kind)

    def _signed(
        self, caller: Caller, fields: dict[str, Any] | None, *, status: int, number: int = 0, kind: SignatureKind
    ) -> Response:
        content = b"" if fields is None else _json(fields)
        key = self._signers.pick(caller.merchant, caller.answer_with)
        headers = _plain_headers(number) | self._signers.headers(caller.merchant, key, content, kind=kind)
        if fields is None:
            return Response(status_code=status, headers=headers)
        return Response(content, status_code=status, headers=headers, media_type="application/json; charset=utf-8")


def _refusing(code: str, message: str) -> Work:
    def work(merchant: Merchant) -> None:
        raise V3Refusal(code, message)

    return work


def _check_path(merchant: Merchant, request: Request) -> None:
    """A service provider's calls and a merchant's have paths of their own."""
    is_partner_path = request.url.path.startswith("/v3/pay/partner/")
    if is_partner_path != (merchant.sub_mchid is not None):
        message = "商户号不是服务商，请使用商户接口" if is_partner_path else "服务商号请使用服务商接口"
        raise V3Refusal("NO_AUTH", message)


def _certificate_entry(apiv3_key: bytes, key: SigningKey) -> dict[str, Any]:
    assert key.certificate is not None, "public keys are not published here"
    return {
        "serial_no": key.key_id,
        "effective_time": _beijing(key.certificate.not_valid_before_utc),
        "expire_time": _beijing(key.certificate.not_valid_after_utc),
        "encrypt_certificate": encrypted(apiv3_key, key.certificate_pem.encode(), "certificate"),
    }


def _beijing(instant: datetime) -> str:
    return instant.astimezone(BEIJING).isoformat(timespec="seconds")


async def _read_body(request: Request) -> bytes:
    """The body, cut where it is too long to be anybody's: its signature will not hold."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return b""
    except ClientDisconnect:
        return b""
    return body


def _refused(refusal: V3Refusal) -> Response:
    """Unsigned, as for a caller who is not known yet."""
    headers = _plain_headers(refusal.number)
    return Response(
        _json(refusal.fields()),
        status_code=refusal.status,
        headers=headers,
        media_type="application/json; charset=utf-8",
    )


def _plain_headers(number: int) -> dict[str, str]:
    return {
        "Request-ID": f"08{secrets.token_hex(20).upper()}-{number}",
        "Cache-Control": "no-cache, must-revalidate",
        "Content-Language": "zh-CN",
    }


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

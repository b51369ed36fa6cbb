"""`/gateway.do`: every call comes in here, is counted, may run into a fault, and is answered in the gateway's form.

    {"alipay_trade_query_response":{…},"sign":"…"}                          signed: successes and 40004
    {"alipay_trade_query_response":{"code":"40002",…}}                      unsigned: the gateway itself refused
    {"error_response":{"code":"40002",…}}                                   … and does not know the method
    302 to the payer's page, or a GBK page with the error                   pages: paying, signing

The HTTP status is 200 for all of these and the JSON comes as text/html, as from Alipay.
"""

import asyncio
import json
from collections.abc import Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from app.sandbox.alipay.accounts import Account
from app.sandbox.alipay.callers import Call, verify_call
from app.sandbox.alipay.errors import BusinessRefusal, GatewayRefusal, Refusal
from app.sandbox.alipay.methods import unknown_method
from app.sandbox.alipay.pages import error_page
from app.sandbox.alipay.parameters import Parameters, parse_parameters
from app.sandbox.alipay.signing import sign
from app.sandbox.calls import CallCounter
from app.sandbox.clock import SandboxClock
from app.sandbox.faults import Fault, FaultKind, FaultQueue
from app.sandbox.wire import DroppedConnection, SilentConnection

MAX_BODY_BYTES = 1 << 20
FORM = "application/x-www-form-urlencoded"


class Gateway:
    """`pages` answer with a path of this host, `executes` with the fields of a success."""

    def __init__(
        self,
        *,
        accounts: Mapping[str, Account],
        pages: Mapping[str, Callable[[Call], str]],
        executes: Mapping[str, Callable[[Call], dict[str, object]]],
        clock: SandboxClock,
        faults: FaultQueue,
        calls: CallCounter,
    ) -> None:
        self._accounts = accounts
        self._pages = pages
        self._executes = executes
        self._clock = clock
        self._faults = faults
        self._calls = calls

    async def answer(self, request: Request) -> Response:
        body = await _read_body(request)
        if isinstance(body, Refusal):
            return _json_answer("error_response", body.fields(), codec="utf-8")
        parameters = parse_parameters(request.url.query.encode("ascii"), body)
        method, number = parameters.get("method"), parameters.number_hint()
        self._calls.record(method, number)
        fault = self._faults.take(method, number)
        if fault is None:
            return self._work(parameters)
        return await self._go_wrong(fault, parameters)

    async def _go_wrong(self, fault: Fault, parameters: Parameters) -> Response:
        """The call as it goes with a fault; only lost_reply, bad_signature and latency do the work."""
        match fault.kind:
            case FaultKind.TIMEOUT:
                return SilentConnection(fault.latency_s)
            case FaultKind.HTTP_500:
                return Response("Internal Server Error", status_code=500, media_type="text/plain")
            case FaultKind.UNAVAILABLE:
                refusal: Refusal = GatewayRefusal("20000", fault.sub_code or "aop.unknow-error", "系统繁忙")
                return self._refused(parameters, refusal)
            case FaultKind.ERROR_RESPONSE:
                code = fault.code or "40002"
                refusal = GatewayRefusal(code, fault.sub_code or "isv.invalid-parameter", "沙箱按要求返回的错误")
                return _json_answer("error_response", refusal.fields(), codec=parameters.codec)
            case FaultKind.BUSINESS_ERROR:
                refused = BusinessRefusal(fault.sub_code or "ACQ.SYSTEM_ERROR", fault.message or "系统错误")
                return self._work(parameters, refusal=refused)
            case FaultKind.LATENCY:
                await asyncio.sleep(fault.latency_s)
                return self._work(parameters)
            case FaultKind.LOST_REPLY:
                self._work(parameters)
                return DroppedConnection()
            case FaultKind.BAD_SIGNATURE:
                return self._work(parameters, break_signature=True)

    def _work(
        self, parameters: Parameters, *, refusal: BusinessRefusal | None = None, break_signature: bool = False
    ) -> Response:
        method = parameters.get("method")
        is_page = method in self._pages
        try:
            call = verify_call(parameters, self._accounts, self._clock, opened_in_browser=is_page)
            if not is_page and method not in self._executes:
                raise unknown_method(method)
        except GatewayRefusal as refused:
            return self._refused(parameters, refused)
        try:
            if refusal is not None:
                raise refusal
            if is_page:
                return RedirectResponse(self._pages[method](call), status_code=302)
            fields: dict[str, object] = {"code": "10000", "msg": "Success", **self._executes[method](call)}
        except GatewayRefusal as refused:
            return self._refused(parameters, refused)
        except BusinessRefusal as refused:
            if is_page:
                return error_page(refused)
            fields = refused.fields()
        return _signed_answer(call, fields, break_signature=break_signature)

    def _refused(self, parameters: Parameters, refusal: Refusal) -> Response:
        method = parameters.get("method")
        if method in self._pages:
            return error_page(refusal)
        key = _response_key(method) if method in self._executes else "error_response"
        return _json_answer(key, refusal.fields(), codec=parameters.codec)


async def _read_body(request: Request) -> bytes | Refusal:
    """The form body, empty for GET. Multipart is for uploads, which no payment method has."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in ("", FORM):
        return GatewayRefusal("40002", "isv.invalid-parameter", f"参数无效：请求体必须是 {FORM}")
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return GatewayRefusal("40002", "isv.invalid-parameter", "参数无效：请求体过大")
    except ClientDisconnect:
        return GatewayRefusal("40002", "isv.invalid-parameter", "参数无效：请求体不完整")
    return body


def _response_key(method: str) -> str:
    return method.replace(".", "_") + "_response"


def _signed_answer(call: Call, fields: dict[str, object], *, break_signature: bool) -> Response:
    """The signature covers exactly the text between the response key's colon and the comma after it."""
    text = _json_text(fields)
    signature = sign(call.account.alipay_private_key, (text + (" " if break_signature else "")).encode(call.codec))
    pieces = [f'"{_response_key(call.method)}":{text}']
    if call.account.alipay_cert_sn:
        pieces.append(f'"alipay_cert_sn":"{call.account.alipay_cert_sn}"')
    pieces.append(f'"sign":"{signature}"')
    return _text_answer("{" + ",".join(pieces) + "}", call.codec)


def _json_answer(key: str, fields: dict[str, object], *, codec: str) -> Response:
    return _text_answer(f'{{"{key}":{_json_text(fields)}}}', codec)


def _text_answer(text: str, codec: str) -> Response:
    return Response(text.encode(codec, "replace"), headers={"content-type": f"text/html;charset={codec}"})


def _json_text(fields: dict[str, object]) -> str:
    """With escaped slashes, as Alipay writes them: whoever re-serialises before verifying shall notice."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")

"""What goes wrong with an APIv3 call on request, and whether the work was done all the same."""

import time

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.client import WechatClient, order_number


async def fault(sandbox: SandboxHandle, kind: str, method: str = "wechat.v3.prepay", **options: object) -> None:
    await sandbox.control("POST", "/faults", {"method": method, "kind": kind, **options}, status=201)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("http_500", 500, "SYSTEM_ERROR"), ("20000", 500, "SYSTEM_ERROR"), ("business_error", 400, "PARAM_ERROR")],
)
async def test_an_error_leaves_nothing_behind(
    sandbox: SandboxHandle, wechat: WechatClient, kind: str, status: int, code: str
) -> None:
    number = order_number()
    await fault(sandbox, kind)
    assert (await wechat.prepay_refused(wechat.order(number)))[:2] == (status, code)
    assert not await sandbox.has_trade(number)
    await wechat.prepay(number)


async def test_a_gateway_in_front_may_answer_with_a_page(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await fault(sandbox, "error_response")
    response = await wechat.send("POST", f"{wechat.base}/jsapi", wechat.order(number))
    assert (response.status_code, response.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert not await sandbox.has_trade(number)


async def test_a_lost_reply_did_the_work(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await fault(sandbox, "lost_reply")
    with pytest.raises(httpx.TransportError):
        await wechat.prepay(number)
    assert (await wechat.query(number))["trade_state"] == "NOTPAY"
    await fault(sandbox, "lost_reply", "wechat.v3.close")
    with pytest.raises(httpx.TransportError):
        await wechat.close(number)
    assert (await wechat.query(number))["trade_state"] == "CLOSED"


async def test_a_timeout_did_not(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await fault(sandbox, "timeout", latency_s=0.2)
    with pytest.raises(httpx.TransportError):
        await wechat.prepay(number)
    assert not await sandbox.has_trade(number)


async def test_a_slow_answer_comes(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    await fault(sandbox, "latency", latency_s=0.3)
    started = time.monotonic()
    await wechat.prepay(order_number())
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize("method", ["wechat.v3.query", "wechat.v3.close"])
async def test_an_answer_may_be_signed_wrongly(sandbox: SandboxHandle, wechat: WechatClient, method: str) -> None:
    number = order_number()
    await wechat.prepay(number)
    await fault(sandbox, "bad_signature", method)
    if method == "wechat.v3.query":
        response = await wechat.send("GET", wechat.query_target(number))
    else:
        response = await wechat.close(number)
    assert response.status_code in (200, 204)
    assert not wechat.signed_by_wechat(response.headers, response.content)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("PARAM_ERROR", 400),
        ("INVALID_REQUEST", 400),
        ("APPID_MCHID_NOT_MATCH", 400),
        ("ORDER_CLOSED", 400),
        ("ORDER_PAID", 400),
        ("ORDERPAID", 400),
        ("SIGN_ERROR", 401),
        ("NO_AUTH", 403),
        ("NOT_ENOUGH", 403),
        ("OUT_TRADE_NO_USED", 403),
        ("RULE_LIMIT", 403),
        ("TRADE_ERROR", 403),
        ("ACCOUNT_ERROR", 403),
        ("ORDER_NOT_EXIST", 404),
        ("RESOURCE_NOT_EXISTS", 404),
        ("MCH_NOT_EXISTS", 404),
        ("FREQUENCY_LIMITED", 429),
        ("RATELIMIT_EXCEEDED", 429),
        ("SYSTEM_ERROR", 500),
        ("BANK_ERROR", 500),
        ("OPENID_MISMATCH", 500),
        ("SOMETHING_NEW", 400),
    ],
)
async def test_every_documented_error_can_be_asked_for(
    sandbox: SandboxHandle, wechat: WechatClient, code: str, status: int
) -> None:
    number = order_number()
    await fault(sandbox, "business_error", code=code, out_trade_no=number)
    response = await wechat.send("POST", f"{wechat.base}/jsapi", wechat.order(number))
    answer = response.json()
    assert (response.status_code, answer["code"], answer.keys()) == (status, code, {"code", "message"})
    assert answer["message"]
    assert wechat.signed_by_wechat(response.headers, response.content)
    assert not await sandbox.has_trade(number)


async def test_a_fault_of_another_number_or_call_waits(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await fault(sandbox, "http_500", "wechat.v3.query")
    await fault(sandbox, "http_500", out_trade_no="another-number")
    await wechat.prepay(number)
    assert len((await sandbox.control("GET", "/faults"))["faults"]) == 2
    assert await sandbox.calls("wechat.v3.prepay", number) == 1


async def test_the_words_of_an_error_can_be_chosen(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    await fault(sandbox, "business_error", code="INVALID_REQUEST", message="无效的openid")
    response = await wechat.send("POST", f"{wechat.base}/jsapi", wechat.order(order_number()))
    assert (response.status_code, response.json()) == (400, {"code": "INVALID_REQUEST", "message": "无效的openid"})

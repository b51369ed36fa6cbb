"""What goes wrong on request, as a caller sees it, and what was done all the same."""

import asyncio
import time

import httpx
import pytest

from tests.sandbox.alipay.client import AlipayClient, new_number, parse_answer
from tests.sandbox.handle import SandboxHandle

PRECREATE, QUERY, CLOSE = "alipay.trade.precreate", "alipay.trade.query", "alipay.trade.close"


async def add(sandbox: SandboxHandle, method: str, kind: str, **options: object) -> None:
    await sandbox.control("POST", "/faults", {"method": method, "kind": kind, **options}, status=201)


async def test_lost_reply_does_the_work_and_answers_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await add(sandbox, CLOSE, "lost_reply")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await alipay.execute(CLOSE, {"out_trade_no": number})
    assert (await alipay.query(number))["trade_status"] == "TRADE_CLOSED"


async def test_timeout_does_nothing_and_stays_silent(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, PRECREATE, "timeout")
    parameters = alipay.signed(PRECREATE, alipay.order(number, product="qr"))
    with pytest.raises(httpx.ReadTimeout):
        await sandbox.http.get(alipay.account["gateway"], params=parameters, timeout=0.2)
    assert not await sandbox.has_trade(number)
    assert (await sandbox.control("GET", "/faults"))["faults"] == []


async def test_timeout_drops_the_connection_after_its_time(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "timeout", latency_s=0.1)
    with pytest.raises(httpx.RemoteProtocolError):
        await alipay.execute(QUERY, {"out_trade_no": "none"})


async def test_20000_is_unsigned_and_does_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, PRECREATE, "20000")
    answer = await alipay.execute(PRECREATE, alipay.order(number, product="qr"))
    assert answer.outcome == ("alipay_trade_precreate_response", "20000", "aop.unknow-error")
    assert "sign" not in answer.envelope
    assert not await sandbox.has_trade(number)


async def test_error_response_has_no_method_in_its_key(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "error_response", code="40005", sub_code="isv.app-call-limited")
    answer = await alipay.execute(QUERY, {"out_trade_no": "none"})
    assert answer.outcome == ("error_response", "40005", "isv.app-call-limited")
    assert answer.fields["msg"] == "Call Limited"


async def test_business_error_is_signed_and_does_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, PRECREATE, "business_error")
    answer = await alipay.execute(PRECREATE, alipay.order(number, product="qr"))
    assert answer.outcome == ("alipay_trade_precreate_response", "40004", "ACQ.SYSTEM_ERROR")
    assert alipay.signed_by_alipay(answer)
    assert not await sandbox.has_trade(number)


async def test_bad_signature_does_the_work(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, PRECREATE, "bad_signature")
    answer = await alipay.execute(PRECREATE, alipay.order(number, product="qr"))
    assert answer.fields["code"] == "10000"
    assert not alipay.signed_by_alipay(answer)
    assert await sandbox.has_trade(number)


async def test_http_500_does_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, PRECREATE, "http_500")
    response = await alipay.send(alipay.signed(PRECREATE, alipay.order(number, product="qr")))
    assert response.status_code == 500
    assert not await sandbox.has_trade(number)


async def test_latency_answers_rightly_but_late(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "latency", latency_s=0.2)
    started = time.monotonic()
    assert await alipay.query_refused("none") == "ACQ.TRADE_NOT_EXIST"
    assert time.monotonic() - started >= 0.2


async def test_a_slow_answer_holds_up_nobody_else(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "latency", latency_s=30, out_trade_no="slow")
    slow = asyncio.create_task(alipay.execute(QUERY, {"out_trade_no": "slow"}))
    async with asyncio.timeout(10):
        while await sandbox.calls(QUERY, "slow") == 0:
            await asyncio.sleep(0)
        assert await alipay.query_refused("none") == "ACQ.TRADE_NOT_EXIST"
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_a_fault_is_used_up_after_its_count(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "20000", count=2)
    codes = [(await alipay.execute(QUERY, {"out_trade_no": "none"})).fields["code"] for _ in range(3)]
    assert codes == ["20000", "20000", "40004"]


async def test_a_fault_meets_only_its_method_and_number(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "20000", out_trade_no="mine")
    assert await alipay.refused(CLOSE, {"out_trade_no": "mine"}) == "ACQ.TRADE_NOT_EXIST"
    assert await alipay.query_refused("other") == "ACQ.TRADE_NOT_EXIST"
    assert (await alipay.execute(QUERY, {"out_trade_no": "mine"})).fields["code"] == "20000"


async def test_a_star_meets_any_method_and_faults_queue_in_order(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, "*", "20000")
    await add(sandbox, "*", "business_error", sub_code="ACQ.ACCESS_FORBIDDEN")
    assert (await alipay.execute(CLOSE, {"out_trade_no": "x"})).fields["code"] == "20000"
    assert (await alipay.execute(QUERY, {"out_trade_no": "x"})).fields["sub_code"] == "ACQ.ACCESS_FORBIDDEN"


async def test_a_page_runs_into_faults_too(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    await add(sandbox, "alipay.trade.page.pay", "20000")
    response = await alipay.http.get(alipay.page_url(number))
    assert "aop.unknow-error" in response.content.decode("gbk")
    assert not await sandbox.has_trade(number)


async def test_faults_are_listed_and_cleared(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    await add(sandbox, QUERY, "latency", count=3, latency_s=2)
    (fault,) = (await sandbox.control("GET", "/faults"))["faults"]
    assert {name: fault[name] for name in ("method", "kind", "remaining", "latency_s")} == {
        "method": QUERY,
        "kind": "latency",
        "remaining": 3,
        "latency_s": 2,
    }
    assert await sandbox.control("DELETE", "/faults") == {"faults": []}
    assert await alipay.query_refused("none") == "ACQ.TRADE_NOT_EXIST"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"method": QUERY},
        {"method": QUERY, "kind": "sorcery"},
        {"method": QUERY, "kind": "20000", "count": 0},
        {"method": QUERY, "kind": "20000", "count": "2"},
        {"method": QUERY, "kind": "latency", "latency_s": 121},
        {"method": QUERY, "kind": "latency", "seconds": 1},
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused(sandbox: SandboxHandle, body: dict[str, object]) -> None:
    error = (await sandbox.control("POST", "/faults", body, status=400))["error"]
    assert error.keys() == {"code", "message", "fix"}
    assert (await sandbox.control("GET", "/faults"))["faults"] == []


async def test_refused_calls_are_counted_too(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    for _ in range(3):
        await alipay.execute(QUERY, {"out_trade_no": "mine"})
    parameters = alipay.signed(QUERY, {"out_trade_no": "mine"}, after_signing={"sign": "x"})
    assert parse_answer((await alipay.send(parameters)).content).fields["code"] == "40002"
    await alipay.execute(CLOSE, {"out_trade_no": "mine"})
    assert await sandbox.calls(QUERY, "mine") == 4
    assert await sandbox.control("GET", "/calls") == {
        "calls": [
            {"method": QUERY, "out_trade_no": "mine", "count": 4},
            {"method": CLOSE, "out_trade_no": "mine", "count": 1},
        ],
        "total": 5,
    }

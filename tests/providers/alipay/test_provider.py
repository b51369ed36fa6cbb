"""The adapter's calls: what is sent, and how every answer is judged, against a gateway that says what it is told."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st

from app.clock import Clock
from app.errors import CallerError, InvalidAmount, InvalidInput
from app.money import format_yuan
from app.providers.alipay import AlipayProvider
from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.explanations import explain
from app.providers.alipay.trades import trade_report
from app.providers.contract import (
    Accepted,
    Closed,
    NeverOpened,
    NotClosed,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    Rejected,
    ReportedStatus,
    Unknown,
)
from tests.providers.alipay.keyring import (
    APP_ID,
    FIELDS_OF_MODE,
    PAID_NOTICE,
    public_text,
    signed_answer,
    signed_notice,
    unsigned_answer,
)
from tests.providers.scripted import ScriptedServer, answering, hang, serving

NUMBER = "SY20261122000001"
NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
# For what makes no call.
_UNUSED = httpx.AsyncClient()


def request(method: PaymentMethod = PaymentMethod.ALIPAY_PAGE, **changes: Any) -> PaymentRequest:
    fields: dict[str, Any] = {
        "method": method,
        "out_trade_no": NUMBER,
        "amount_fen": 1990,
        "subject": '会员 "月卡" + 100% <b>',
        "notify_url": "https://pay.example.com/notify/alipay/1",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30, microseconds=999),
        "return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD",
    }
    return PaymentRequest(**(fields | changes))


class Bench:
    """An adapter, its account, and the gateway they talk to."""

    def __init__(self, provider: AlipayProvider, account: AlipayAccount, server: ScriptedServer) -> None:
        self.provider = provider
        self.account = account
        self.server = server

    def says(self, method: str, fields: dict[str, Any], **how: Any) -> None:
        self.server.behave = answering(signed_answer(method, fields, **how), content_type="text/html;charset=utf-8")

    def says_raw(self, body: bytes) -> None:
        self.server.behave = answering(body)

    async def create(self, **changes: Any) -> Any:
        return await self.provider.create_payment(self.account, request(PaymentMethod.ALIPAY_QR, **changes))

    async def query(self) -> Any:
        return await self.provider.query_payment(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.provider.close_payment(self.account, NUMBER)


@asynccontextmanager
async def _bench(client: httpx.AsyncClient, mode: str = "public_key") -> AsyncIterator[Bench]:
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            provider = AlipayProvider(client, Clock(), timeout_s=5.0)
            yield Bench(provider, _opened(provider, mode, server.url()), server)


def _opened(provider: AlipayProvider, mode: str, gateway: str) -> AlipayAccount:
    sealed, credentials = _sealed(mode)
    return provider.open_account(mode=mode, settings=sealed | {"gateway": gateway}, credentials=credentials)


@cache
def _sealed(mode: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Sealed once per mode: testing a key takes longer than all the rest of a test."""
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    return provider.seal_input(mode=mode, fields=FIELDS_OF_MODE[mode]())


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with _bench(client) as made:
        yield made


def _official_check(params: dict[str, str]) -> None:
    """The official SDK's own rules accept the signature."""
    official = importlib.import_module("alipay.aop.api.util.SignatureUtils")
    content = official.get_sign_content({name: value for name, value in params.items() if name != "sign"})
    public = "".join(public_text("app").splitlines()[1:-1])
    assert official.verify_with_rsa(public, content.encode(), params["sign"]) is True


# Pages


@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
@pytest.mark.parametrize(
    ("method", "api", "product_code"),
    [
        (PaymentMethod.ALIPAY_PAGE, "alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
        (PaymentMethod.ALIPAY_WAP, "alipay.trade.wap.pay", "QUICK_WAP_WAY"),
    ],
)
async def test_a_page_payment_is_a_signed_link_and_no_call(
    client: httpx.AsyncClient, mode: str, method: PaymentMethod, api: str, product_code: str
) -> None:
    async with _bench(client, mode) as bench:
        outcome = await bench.provider.create_payment(bench.account, request(method))
        assert bench.server.received == []
    assert isinstance(outcome, Accepted)
    assert outcome.transaction_id is None
    assert outcome.action.keys() == {"kind", "url"}
    assert outcome.action["kind"] == "Redirect"
    parts = urlsplit(outcome.action["url"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == bench.account.gateway
    pairs = parse_qsl(parts.query, strict_parsing=True)
    params = dict(pairs)
    assert len(params) == len(pairs)
    _official_check(params)
    content = json.loads(params.pop("biz_content"))
    params.pop("sign")
    assert content == {
        "out_trade_no": NUMBER,
        "total_amount": "19.90",
        "subject": '会员 "月卡" + 100% <b>',
        "product_code": product_code,
        "time_expire": "2026-11-22 09:32:03",
    } | ({"quit_url": request().return_url} if method is PaymentMethod.ALIPAY_WAP else {})
    extra = {
        "public_key": set(),
        "certificate": {"app_cert_sn", "alipay_root_cert_sn"},
        "isv": {"app_auth_token"},
    }[mode]
    assert {name: value for name, value in params.items() if name not in extra} == {
        "app_id": APP_ID,
        "method": api,
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-11-22 09:02:03",
        "version": "1.0",
        "notify_url": "https://pay.example.com/notify/alipay/1",
        "return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD",
    }
    assert extra <= params.keys()


async def test_the_same_request_gives_the_same_link_again(bench: Bench) -> None:
    first, second = [await bench.provider.create_payment(bench.account, request(return_url=None)) for _ in range(2)]
    assert first == second


async def test_the_shortest_payment_leaves_time_for_the_call_itself(bench: Bench) -> None:
    shortest = request(expires_at=NOW + timedelta(seconds=60))
    bench.provider.check_request(shortest)
    outcome = await bench.provider.create_payment(bench.account, shortest)
    assert isinstance(outcome, Accepted)
    content = json.loads(dict(parse_qsl(urlsplit(outcome.action["url"]).query))["biz_content"])
    assert content["time_expire"] == "2026-11-22 09:03:18"


# QR codes


async def test_a_qr_code_is_asked_for_and_linked_to_the_wallet(bench: Bench) -> None:
    code = "https://qr.alipay.com/bax0?t=1&x=中"
    bench.says("alipay.trade.precreate", {"code": "10000", "msg": "Success", "out_trade_no": NUMBER, "qr_code": code})
    assert await bench.create() == Accepted(
        action={
            "kind": "QrCode",
            "codeUrl": code,
            "deepLink": "alipays://platformapi/startapp?saId=10000007"
            "&qrcode=https%3A%2F%2Fqr.alipay.com%2Fbax0%3Ft%3D1%26x%3D%E4%B8%AD",
        }
    )
    [sent] = bench.server.received
    params, body = sent.query(), sent.form()
    assert body.keys() == {"biz_content"}
    _official_check(params | body)
    assert params["method"] == "alipay.trade.precreate"
    assert params["notify_url"] == "https://pay.example.com/notify/alipay/1"
    assert "return_url" not in params
    assert json.loads(body["biz_content"]) == {
        "out_trade_no": NUMBER,
        "total_amount": "19.90",
        "subject": '会员 "月卡" + 100% <b>',
        "product_code": "QR_CODE_OFFLINE",
        "time_expire": "2026-11-22 09:32:03",
    }


async def test_repeating_a_qr_code_sends_the_same_again(bench: Bench) -> None:
    bench.says(
        "alipay.trade.precreate", {"code": "10000", "out_trade_no": NUMBER, "qr_code": "https://qr.alipay.com/a"}
    )
    assert await bench.create() == await bench.create()
    assert bench.server.received[0].body == bench.server.received[1].body


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "10000", "out_trade_no": "SY_OTHER", "qr_code": "https://qr.alipay.com/a"},
        {"code": "10000", "qr_code": "https://qr.alipay.com/a"},
        {"code": "10000", "out_trade_no": NUMBER},
        {"code": "10000", "out_trade_no": NUMBER, "qr_code": "javascript:alert(1)"},
        {"code": "10000", "out_trade_no": NUMBER, "qr_code": ["https://qr.alipay.com/a"]},
        {"code": "10000", "out_trade_no": NUMBER, "qr_code": "https://qr.alipay.com/" + "a" * 1024},
        {"code": "40004", "sub_code": "ACQ.TRADE_HAS_SUCCESS", "sub_msg": "交易已被支付"},
        {"code": "40004", "sub_code": "ACQ.TRADE_HAS_CLOSE"},
    ],
)
async def test_a_number_that_may_be_in_use_is_unknown_and_never_failed(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says("alipay.trade.precreate", fields)
    assert isinstance(await bench.create(), Unknown)


async def test_a_refusal_carries_their_words_and_ours(bench: Bench) -> None:
    fields = {
        "code": "40004",
        "msg": "Business Failed",
        "sub_code": "ACQ.ACCESS_FORBIDDEN",
        "sub_msg": "无权限使用接口",
    }
    bench.says("alipay.trade.precreate", fields)
    assert await bench.create() == Rejected(
        "ACQ.ACCESS_FORBIDDEN",
        "无权限使用接口",
        "The merchant may not use this way to pay. Sign the product on the Alipay merchant platform.",
        "无权使用该支付产品：请在支付宝商家平台完成产品签约。",
    )


# Every kind of answer, for all three calls


def _is_rejected(code: str) -> Callable[[Any], bool]:
    return lambda outcome: isinstance(outcome, Rejected) and outcome.code == code and bool(outcome.explanation_zh)


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda outcome: isinstance(outcome, kind)


_CALLS = {
    "alipay.trade.precreate": Bench.create,
    "alipay.trade.query": Bench.query,
    "alipay.trade.close": Bench.close,
}


@pytest.mark.parametrize("method", _CALLS)
@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"code": "20000", "sub_code": "isp.unknow-error"}, _is(Unknown)),
        ({"code": "20000"}, _is(Unknown)),
        ({"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"}, _is(Unknown)),
        ({"code": "40004", "sub_code": "AQC.SYSTEM_ERROR"}, _is(Unknown)),
        ({"code": "40004", "sub_code": "SYSTEM_ERROR"}, _is(Unknown)),
        ({"code": "40004", "sub_code": "aop.unknow-error"}, _is(Unknown)),
        ({"code": "10003", "msg": "order success pay inprocess"}, _is(Unknown)),
        ({"code": "99999"}, _is(Unknown)),
        ({"code": 10000.0}, _is(Unknown)),
        ({"code": None}, _is(Unknown)),
        ({}, _is(Unknown)),
        ({"code": "40005", "sub_code": "isv.app-call-limited"}, _is(NotReached)),
        ({"code": "20001", "sub_code": "aop.invalid-app-auth-token"}, _is_rejected("aop.invalid-app-auth-token")),
        ({"code": "40001", "sub_code": "isv.missing-app-id"}, _is_rejected("isv.missing-app-id")),
        ({"code": "40002", "sub_code": "isv.invalid-signature"}, _is_rejected("isv.invalid-signature")),
        ({"code": "40003"}, _is_rejected("40003")),
        ({"code": "40006", "sub_code": "isv.no-permissions"}, _is_rejected("isv.no-permissions")),
        ({"code": "40004", "sub_code": "ACQ.INVALID_PARAMETER"}, _is_rejected("ACQ.INVALID_PARAMETER")),
        ({"code": "40004", "sub_code": "ACQ.NEVER_HEARD_OF"}, _is_rejected("ACQ.NEVER_HEARD_OF")),
        ({"code": "40004"}, _is_rejected("40004")),
    ],
)  # fmt: skip
async def test_every_code_is_judged_alike_in_every_call(
    bench: Bench, method: str, fields: dict[str, Any], holds: Callable[[Any], bool]
) -> None:
    bench.says(method, fields)
    assert holds(await _CALLS[method](bench))


@pytest.mark.parametrize("method", _CALLS)
async def test_an_answer_that_cannot_be_believed_is_unknown(bench: Bench, method: str) -> None:
    node = method.replace(".", "_") + "_response"
    good = {"code": "10000", "out_trade_no": NUMBER, "trade_status": "TRADE_SUCCESS", "total_amount": "19.90"}
    good["qr_code"] = "https://qr.alipay.com/a"
    genuine = signed_answer(method, good)
    bodies = [
        # unsigned, or signed by somebody else, us included
        unsigned_answer(node, good),
        signed_answer(method, good, by="other"),
        signed_answer(method, good, by="app"),
        signed_answer(method, {"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}, by="other"),
        unsigned_answer(node, {"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}),
        unsigned_answer("error_response", {"code": "40004", "sub_code": "ACQ.TRADE_HAS_CLOSE"}),
        # altered after signing, by one byte of the content and of the signature
        genuine.replace(b"10000", b"10001"),
        genuine.replace(b'"code": "10000"', b'"code":"10000"'),
        genuine.replace(b'"sign":"', b'"sign":"A'),
        # the answer to another question
        signed_answer("alipay.trade.refund", good),
        unsigned_answer("error_response", good),
        # no answer at all
        b"",
        b"{}",
        b"<html>gateway</html>",
        b"\xff\xff",
        genuine[:-1],
        genuine + b"x",
        json.dumps({node: "encrypted", "sign": "x"}).encode(),
        json.dumps({node: good, "sign": 5}).encode(),
        b'{"' + node.encode() + b'":' + b"[" * 100_000,
    ]
    for body in bodies:
        bench.says_raw(body)
        assert isinstance(await _CALLS[method](bench), Unknown), body[:200]


@pytest.mark.parametrize("method", _CALLS)
async def test_an_error_of_the_gateway_needs_no_signature(bench: Bench, method: str) -> None:
    fields = {
        "code": "40002",
        "msg": "Invalid Arguments",
        "sub_code": "isv.invalid-app-id",
        "sub_msg": "无效的AppID参数",
    }
    for node in (method.replace(".", "_") + "_response", "error_response"):
        bench.says_raw(unsigned_answer(node, fields))
        outcome = await _CALLS[method](bench)
        assert isinstance(outcome, Rejected)
        assert (outcome.code, outcome.message) == ("isv.invalid-app-id", "无效的AppID参数")


@pytest.mark.parametrize("method", _CALLS)
async def test_a_gateway_that_fails_is_unknown_and_one_that_is_away_was_not_reached(bench: Bench, method: str) -> None:
    bench.server.behave = answering(signed_answer(method, {"code": "10000"}), status=502)
    assert await _CALLS[method](bench) == Unknown("HTTP 502")
    gone = urlsplit(bench.account.gateway)
    async with serving(hang) as other:
        free = other.origin
    bench.account = _opened(bench.provider, "public_key", free + gone.path)
    assert isinstance(await _CALLS[method](bench), NotReached)


async def test_a_gbk_answer_is_verified_as_received(bench: Bench) -> None:
    fields = {"code": "40004", "sub_code": "ACQ.INVALID_PARAMETER", "sub_msg": '参数乗"无效'}
    bench.says("alipay.trade.precreate", fields, charset="gbk")
    outcome = await bench.create()
    assert isinstance(outcome, Rejected)
    assert outcome.message == '参数乗"无效'


async def test_their_words_are_kept_short(bench: Bench) -> None:
    bench.says("alipay.trade.close", {"code": "40004", "sub_code": "ACQ." + "X" * 1000, "sub_msg": "长" * 10_000})
    outcome = await bench.close()
    assert isinstance(outcome, Rejected)
    assert (len(outcome.code), len(outcome.message)) == (100, 500)


# Asking


def _trade(**changes: Any) -> dict[str, Any]:
    return {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": NUMBER,
        "trade_no": "2026112222001400000000000001",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "19.90",
        "buyer_user_id": "2088000000000002",
        "send_pay_date": "2026-11-22 08:00:00",
    } | changes


async def test_a_paid_trade_is_reported(bench: Bench) -> None:
    bench.says("alipay.trade.query", _trade(fund_bill_list=[{"amount": "19.90"}], point_amount=0))
    assert await bench.query() == PaymentReport(
        out_trade_no=NUMBER,
        status=ReportedStatus.SUCCESSFUL,
        source="query",
        amount_fen=1990,
        transaction_id="2026112222001400000000000001",
        payer_id="2088000000000002",
        paid_at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC),
    )
    [sent] = bench.server.received
    _official_check(sent.query() | sent.form())
    assert json.loads(sent.form()["biz_content"]) == {"out_trade_no": NUMBER}
    assert "notify_url" not in sent.query()


@pytest.mark.parametrize(
    ("changes", "status", "refunded_fen"),
    [
        ({"trade_status": "WAIT_BUYER_PAY", "send_pay_date": ""}, ReportedStatus.PENDING, None),
        ({"trade_status": "TRADE_SUCCESS"}, ReportedStatus.SUCCESSFUL, None),
        ({"trade_status": "TRADE_SUCCESS", "refund_fee": "9.90"}, ReportedStatus.SUCCESSFUL, 990),
        ({"trade_status": "TRADE_FINISHED"}, ReportedStatus.SUCCESSFUL, None),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": None}, ReportedStatus.CLOSED, None),
        ({"trade_status": "TRADE_CLOSED"}, ReportedStatus.SUCCESSFUL, 1990),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": "", "refund_fee": 19.9}, ReportedStatus.SUCCESSFUL, 1990),
        ({"trade_status": "TRADE_PENDING"}, ReportedStatus.PENDING, None),
        ({"trade_status": "未知"}, ReportedStatus.PENDING, None),
    ],
)
async def test_every_status_has_a_meaning(
    bench: Bench, changes: dict[str, Any], status: ReportedStatus, refunded_fen: int | None
) -> None:
    bench.says("alipay.trade.query", _trade(**changes))
    report = await bench.query()
    assert isinstance(report, PaymentReport)
    assert (report.status, report.amount_fen, report.refunded_fen) == (status, 1990, refunded_fen)


@pytest.mark.parametrize("sub_code", ["ACQ.TRADE_NOT_EXIST", "TRADE_NOT_EXIST"])
async def test_no_such_trade_is_a_report(bench: Bench, sub_code: str) -> None:
    bench.says("alipay.trade.query", {"code": "40004", "sub_code": sub_code, "out_trade_no": NUMBER})
    assert await bench.query() == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "SY_OTHER"},
        {"out_trade_no": None},
        {"trade_status": None},
        {"total_amount": "19.901"},
        {"total_amount": "1.99e1"},
        {"refund_fee": "-1.00"},
    ],
)
async def test_a_verified_answer_that_makes_no_sense_is_unknown(bench: Bench, changes: dict[str, Any]) -> None:
    bench.says("alipay.trade.query", _trade(**changes))
    assert isinstance(await bench.query(), Unknown)


async def test_receivers_named_by_an_answer_are_passed_on(bench: Bench) -> None:
    bench.says("alipay.trade.query", _trade(seller_id="2088000000000009", app_id=APP_ID))
    report = await bench.query()
    assert report.account_claims == {"app_id": APP_ID, "seller_id": "2088000000000009"}


# Closing


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"code": "10000", "out_trade_no": NUMBER, "trade_no": "1"}, Closed()),
        ({"code": "10000"}, Closed()),
        ({"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST"}, NeverOpened()),
        ({"code": "40004", "sub_code": "TRADE_NOT_EXIST"}, NeverOpened()),
        *[
            ({"code": "40004", "sub_code": f"ACQ.{word}", "sub_msg": "不可关闭"}, NotClosed(f"ACQ.{word}", "不可关闭"))
            for word in (
                "TRADE_STATUS_ERROR",
                "REASON_TRADE_STATUS_INVALID",
                "REASON_ILLEGAL_STATUS",
                "TRADE_HAS_SUCCESS",
                "TRADE_HAS_CLOSE",
                "TRADE_HAS_FINISHED",
            )
        ],
        ({"code": "10000", "out_trade_no": "SY_OTHER"}, Unknown("the answer is about another out_trade_no")),
    ],
)
async def test_every_answer_to_a_close_has_a_meaning(bench: Bench, fields: dict[str, Any], outcome: object) -> None:
    bench.says("alipay.trade.close", fields)
    assert await bench.close() == outcome


# Certificates and authorisation


async def test_a_reissued_certificate_with_the_same_key_still_verifies(client: httpx.AsyncClient) -> None:
    async with _bench(client, "certificate") as bench:
        inner = signed_answer("alipay.trade.query", _trade()).decode()
        bench.says_raw((inner[:-1] + ',"alipay_cert_sn":"0123456789abcdef0123456789abcdef"}').encode())
        report = await bench.query()
        assert isinstance(report, PaymentReport)
        [sent] = bench.server.received
        assert sent.query()["app_cert_sn"] == bench.account.common_params["app_cert_sn"]
        _official_check(sent.query() | sent.form())


async def test_every_call_of_an_isv_carries_the_token(client: httpx.AsyncClient) -> None:
    async with _bench(client, "isv") as bench:
        bench.says("alipay.trade.query", _trade())
        await bench.query()
        await bench.close()
        await bench.create()
        for sent in bench.server.received:
            assert sent.query()["app_auth_token"] == "202611BB0123456789abcdef"
            _official_check(sent.query() | sent.form())
        assert len(bench.server.received) == 3


# What is refused before anything happens

_QR = {"method": PaymentMethod.ALIPAY_QR}


@pytest.mark.parametrize(
    ("changes", "field", "error"),
    [
        *[({"subject": f"a{sign}b"}, "subject", InvalidInput) for sign in "/=&\n\x00\x7f\u2028\ud800\ufeff"],
        ({"subject": ""}, "subject", InvalidInput),
        ({"subject": " \u3000"}, "subject", InvalidInput),
        ({"subject": "长" * 257}, "subject", InvalidInput),
        ({"return_url": "/done"}, "returnUrl", InvalidInput),
        ({"return_url": "javascript:alert(1)"}, "returnUrl", InvalidInput),
        ({"return_url": "https://shop.example.com/" + "a" * 240}, "returnUrl", InvalidInput),
        ({"return_url": "https://shop.example.com/完成"}, "returnUrl", InvalidInput),
        ({"return_url": "https://shop.example.com/a b"}, "returnUrl", InvalidInput),
        ({"return_url": "https://[::1/"}, "returnUrl", InvalidInput),
        ({"return_url": "https:///x"}, "returnUrl", InvalidInput),
        ({"expires_at": NOW + timedelta(seconds=59)}, "expiresInSeconds", InvalidInput),
        ({"expires_at": NOW + timedelta(days=15, seconds=1)}, "expiresInSeconds", InvalidInput),
        (_QR | {"expires_at": NOW + timedelta(seconds=7201)}, "expiresInSeconds", InvalidInput),
        ({"amount_fen": 0}, "amount", InvalidAmount),
        ({"amount_fen": 10_000_000_000}, "amount", InvalidAmount),
    ],
)  # fmt: skip
async def test_what_alipay_could_never_accept_is_named_first(
    bench: Bench, changes: dict[str, Any], field: str, error: type[CallerError]
) -> None:
    with pytest.raises(error) as refused:
        bench.provider.check_request(request(**changes))
    assert refused.value.field == field
    assert refused.value.message_zh != error.default_zh
    assert bench.server.received == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"subject": "长" * 256},
        {"subject": "全角\u3000空格 👨\u200d👩\u200d👧"},
        {"subject": "emoji 🎁 and 'quotes' + % # ? ; , \\ |"},
        {"return_url": None},
        {"return_url": "http://127.0.0.1:8000/#/done"},
        {"expires_at": NOW + timedelta(seconds=60)},
        {"expires_at": NOW + timedelta(days=15)},
        {"method": PaymentMethod.ALIPAY_QR, "expires_at": NOW + timedelta(hours=2), "return_url": "unused"},
        {"amount_fen": 1},
        {"amount_fen": 9_999_999_999},
    ],
)
async def test_what_alipay_accepts_passes(bench: Bench, changes: dict[str, Any]) -> None:
    bench.provider.check_request(request(**changes))


async def test_a_number_outside_alipays_alphabet_is_our_own_mistake(bench: Bench) -> None:
    with pytest.raises(ValueError, match="out_trade_no is ours to make"):
        bench.provider.check_request(request(out_trade_no="SY-2026"))


async def test_an_account_of_another_provider_is_refused(bench: Bench) -> None:
    class Other:
        expected_claims = MappingProxyType({"app_id": frozenset({APP_ID})})
        offers: Mapping[PaymentMethod, Sequence[str]] = MappingProxyType({})

    with pytest.raises(TypeError):
        await bench.provider.query_payment(Other(), NUMBER)


def test_every_explanation_says_something_in_both_languages() -> None:
    for code, sub_code in (("40004", "ACQ.TRADE_HAS_CLOSE"), ("40006", ""), ("x", "y.z"), ("", "")):
        english, chinese = explain(code, sub_code)
        assert english.isascii()
        assert len(english) > 20
        assert not chinese.isascii()


def test_the_schedule_rises_and_is_bounded() -> None:
    ages = AlipayProvider.query_schedule
    assert list(ages) == sorted(set(ages))
    last_gap = ages[-1] - ages[-2]
    assert len(ages) + AlipayProvider.maximum_expiry / last_gap <= 72


# Money


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**12))
def test_any_amount_survives_the_way_out_and_the_way_back(fen: int) -> None:
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    account = _opened(provider, "public_key", "https://openapi.alipay.com/gateway.do")
    outcome = asyncio.run(provider.create_payment(account, request(amount_fen=fen)))
    assert isinstance(outcome, Accepted)
    sent = json.loads(dict(parse_qsl(urlsplit(outcome.action["url"]).query))["biz_content"])["total_amount"]
    assert sent == f"{fen // 100}.{fen % 100:02d}"
    notice = PAID_NOTICE | {"total_amount": sent, "refund_fee": sent}
    report = asyncio.run(provider.read_notification(account, {}, signed_notice(notice))).report
    assert isinstance(report, PaymentReport)
    assert (report.amount_fen, report.refunded_fen) == (fen, fen)


def test_every_fen_up_to_ten_thousand_yuan_survives_both_ways() -> None:
    for fen in range(1, 1_000_001):
        text = format_yuan(fen)
        fields = {"out_trade_no": NUMBER, "trade_status": "WAIT_BUYER_PAY", "total_amount": text}
        if trade_report(fields, "query").amount_fen != fen:
            pytest.fail(f"{fen} fen became {text}")

"""Refunds: what is sent, and how much each answer about one is believed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import pytest
import time_machine
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.clock import Clock
from app.money import format_yuan
from app.providers.alipay import AlipayProvider
from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.explanations import explain
from app.providers.alipay.refunds import read_refund_answer, read_refund_query, refund_content
from app.providers.contract import (
    NotReached,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    ReportedStatus,
    Unknown,
)
from tests.providers.alipay.keyring import FIELDS_OF_MODE, PAID_NOTICE, signed_answer, signed_notice, unsigned_answer
from tests.providers.scripted import Received, ScriptedServer, answering, hang, serving

NUMBER = "SY20261122000001"
REFUND_NUMBER = "SR20261122000001"
REFUND = "alipay.trade.refund"
QUERY = "alipay.trade.fastpay.refund.query"
NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
REFUNDED_AT = datetime(2026, 11, 22, 1, 2, 4, tzinfo=UTC)

MOVED = {
    "code": "10000",
    "msg": "Success",
    "trade_no": "2026112222001400000000000001",
    "out_trade_no": NUMBER,
    "buyer_user_id": "2088000000000002",
    "refund_fee": "12.50",
    "fund_change": "Y",
    "gmt_refund_pay": "2026-11-22 09:02:04",
}
KNOWN = {
    "code": "10000",
    "msg": "Success",
    "trade_no": "2026112222001400000000000001",
    "out_trade_no": NUMBER,
    "out_request_no": REFUND_NUMBER,
    "refund_status": "REFUND_SUCCESS",
    "refund_amount": "5.01",
    "total_amount": "19.90",
    "gmt_refund_pay": "2026-11-22 09:02:04",
}
NOTHING_KNOWN = {"code": "10000", "msg": "Success"}
NO_TRADE = {"code": "40004", "msg": "Business Failed", "sub_code": "ACQ.TRADE_NOT_EXIST", "sub_msg": "交易不存在"}

REQUEST = RefundRequest(
    out_trade_no=NUMBER,
    out_refund_no=REFUND_NUMBER,
    amount_fen=501,
    total_fen=1990,
    notify_url="https://pay.example.com/notify/alipay/1",
    created_at=NOW,
    transaction_id="2026112222001400000000000001",
    reason='少了 "一杯" + 100% <b>',
)

_UNUSED = httpx.AsyncClient()


def report(status: ReportedRefund, source: Literal["query", "answer"] = "query", **fields: Any) -> RefundReport:
    return RefundReport(NUMBER, REFUND_NUMBER, status, source, **fields)


# what this call, and what the query, prove when all is well
DONE = report(ReportedRefund.REFUNDED, "answer", refunded_at=REFUNDED_AT)
DONE_BEFORE = report(ReportedRefund.REFUNDED, amount_fen=501, refunded_at=REFUNDED_AT)
TAKEN = report(ReportedRefund.PENDING, "answer")
NOT_FOUND = report(ReportedRefund.NOT_FOUND)


class Bench:
    """An adapter, its account, and a gateway that answers each method as it is told."""

    def __init__(self, provider: AlipayProvider, account: AlipayAccount, server: ScriptedServer) -> None:
        self.provider = provider
        self.account = account
        self.server = server
        self.bodies: dict[str, bytes] = {}
        server.behave = self._answer

    async def _answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        body = self.bodies[received.query()["method"]]
        await answering(body, content_type="text/html;charset=utf-8")(received, writer)

    def says(self, method: str, fields: dict[str, Any]) -> None:
        self.bodies[method] = signed_answer(method, fields)

    @property
    def asked(self) -> list[str]:
        return [received.query()["method"] for received in self.server.received]

    async def create(self, **changes: Any) -> RefundOutcome:
        return await self.provider.create_refund(self.account, replace(REQUEST, **changes))

    async def query(self) -> RefundOutcome:
        return await self.provider.query_refund(self.account, REQUEST)


@asynccontextmanager
async def _bench(client: httpx.AsyncClient, mode: str) -> AsyncIterator[Bench]:
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            provider = AlipayProvider(client, Clock(), timeout_s=5.0)
            yield Bench(provider, _opened(mode, server.url()), server)


def _opened(mode: str, gateway: str) -> AlipayAccount:
    sealed, credentials = _sealed(mode)
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    return provider.open_account(mode=mode, settings=sealed | {"gateway": gateway}, credentials=credentials)


@cache
def _sealed(mode: str) -> tuple[dict[str, Any], dict[str, str]]:
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    return provider.seal_input(mode=mode, fields=FIELDS_OF_MODE[mode]())


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with _bench(client, "public_key") as made:
        yield made


# What is sent


@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
async def test_a_refund_is_sent_under_our_numbers_and_the_same_each_time(client: httpx.AsyncClient, mode: str) -> None:
    async with _bench(client, mode) as bench:
        bench.says(REFUND, MOVED)
        assert await bench.create() == DONE
        assert await bench.create() == DONE
        first, again = bench.server.received
        assert (first.target, first.body) == (again.target, again.body)
        query = first.query()
        assert query["method"] == REFUND
        assert query.keys().isdisjoint({"notify_url", "return_url"})
        assert query.get("app_auth_token") == ("202611BB0123456789abcdef" if mode == "isv" else None)
        assert ("app_cert_sn" in query) == (mode == "certificate")
        assert json.loads(first.form()["biz_content"]) == {
            "out_trade_no": NUMBER,
            "refund_amount": "5.01",
            "out_request_no": REFUND_NUMBER,
            "refund_reason": '少了 "一杯" + 100% <b>',
        }


async def test_without_a_reason_none_is_sent(bench: Bench) -> None:
    bench.says(REFUND, MOVED)
    await bench.create(reason=None)
    assert "refund_reason" not in json.loads(bench.server.received[0].form()["biz_content"])


async def test_the_query_asks_when_the_money_went_back(bench: Bench) -> None:
    bench.says(QUERY, KNOWN)
    assert await bench.query() == DONE_BEFORE
    (asked,) = bench.server.received
    assert asked.query()["method"] == QUERY
    assert json.loads(asked.form()["biz_content"]) == {
        "out_trade_no": NUMBER,
        "out_request_no": REFUND_NUMBER,
        "query_options": ["gmt_refund_pay"],
    }


# A refund that was taken


async def test_money_moved_by_this_call_is_refunded_without_a_question(bench: Bench) -> None:
    bench.says(REFUND, MOVED)
    assert await bench.create() == DONE
    assert bench.asked == [REFUND]


@pytest.mark.parametrize("fund_change", ["N", None, "", "y", "yes", "Y ", True, 1])
@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        (KNOWN, DONE_BEFORE),
        (NOTHING_KNOWN, TAKEN),
        (NO_TRADE, TAKEN),
        (KNOWN | {"refund_status": "REFUND_PROCESSING"}, TAKEN),
        (KNOWN | {"out_request_no": "SR_OTHER"}, TAKEN),
        ({"code": "20000"}, TAKEN),
        ({"code": "40006", "sub_code": "isv.no-permissions"}, TAKEN),
    ],
)
async def test_whatever_does_not_say_that_money_moved_is_asked_about(
    bench: Bench, fund_change: object, known: dict[str, Any], outcome: RefundReport
) -> None:
    fields = MOVED | {"fund_change": fund_change}
    if fund_change is None:
        del fields["fund_change"]
    bench.says(REFUND, fields)
    bench.says(QUERY, known)
    assert await bench.create() == outcome
    assert bench.asked == [REFUND, QUERY]


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "SY_OTHER"},
        {"out_trade_no": ""},
        {"out_trade_no": None},
        {"out_trade_no": 5},
        {"refund_fee": "5.00"},
        {"refund_fee": "0"},
        {"refund_fee": "5.011"},
        {"refund_fee": "-5.01"},
        {"refund_fee": "1e9"},
        {"refund_fee": "５.01"},
    ],
)
async def test_an_answer_that_contradicts_the_refund_is_unknown(bench: Bench, changes: dict[str, Any]) -> None:
    bench.says(REFUND, MOVED | changes)
    assert isinstance(await bench.create(), Unknown)
    assert bench.asked == [REFUND]


@pytest.mark.parametrize("changes", [{"refund_fee": "5.01"}, {"refund_fee": ""}, {"refund_fee": None}])
async def test_the_sum_of_all_refunds_may_be_just_this_one_or_unsaid(bench: Bench, changes: dict[str, Any]) -> None:
    bench.says(REFUND, MOVED | changes)
    assert await bench.create() == DONE


async def test_a_time_that_cannot_be_read_loses_only_the_time(bench: Bench) -> None:
    bench.says(REFUND, MOVED | {"gmt_refund_pay": "yesterday"})
    assert await bench.create() == replace(DONE, refunded_at=None)


# A refund that was refused

REFUSALS = [
    "SELLER_BALANCE_NOT_ENOUGH",
    "REASON_TRADE_REFUND_FEE_ERR",
    "REFUND_AMT_NOT_EQUAL_TOTAL",
    "TRADE_HAS_CLOSE",
    "TRADE_HAS_FINISHED",
    "TRADE_NOT_EXIST",
    "TRADE_STATUS_ERROR",
    "TRADE_NOT_ALLOW_REFUND",
    "NOT_ALLOW_PARTIAL_REFUND",
    "ONLINE_TRADE_VOUCHER_NOT_ALLOW_REFUND",
    "REASON_TRADE_BEEN_FREEZEN",
    "BUYER_NOT_EXIST",
    "BUYER_ENABLE_STATUS_FORBID",
    "BUYER_ERROR",
    "REFUND_CHARGE_ERROR",
    "TRADE_SETTLE_ERROR",
    "REFUNDALLOC_UNAUTH_LIMIT",
    "REFUND_ACCOUNT_NOT_EXIST",
    "ENTERPRISE_PAY_BIZ_ERROR",
    "INVALID_PARAMETER",
    "ACCESS_FORBIDDEN",
    "PARTNER_ERROR",
    "NEVER_HEARD_OF",
]


def refusal(name: str) -> dict[str, Any]:
    return {"code": "40004", "msg": "Business Failed", "sub_code": f"ACQ.{name}", "sub_msg": "因为"}


@pytest.mark.parametrize("known", [NOTHING_KNOWN, NO_TRADE], ids=["nothing", "no trade"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_believed_once_alipay_holds_no_such_refund(
    bench: Bench, name: str, known: dict[str, Any]
) -> None:
    bench.says(REFUND, refusal(name))
    bench.says(QUERY, known)
    english, chinese = explain("40004", f"ACQ.{name}", refunding=True)
    assert await bench.create() == Rejected(f"ACQ.{name}", "因为", english, chinese)
    assert bench.asked == [REFUND, QUERY]


@pytest.mark.parametrize("name", [*REFUSALS, "DISCORDANT_REPEAT_REQUEST"])
async def test_a_refusal_of_what_was_refunded_before_is_a_refund(bench: Bench, name: str) -> None:
    bench.says(REFUND, refusal(name))
    bench.says(QUERY, KNOWN | {"refund_amount": "4.00"})
    # With the amount that was given back, which the caller compares with its own.
    assert await bench.create() == replace(DONE_BEFORE, amount_fen=400)


@pytest.mark.parametrize(
    "known",
    [
        {"code": "20000"},
        {"code": "40005", "sub_code": "isv.app-call-limited"},
        {"code": "40006", "sub_code": "isv.no-permissions"},
        refusal("INVALID_PARAMETER"),
        KNOWN | {"out_request_no": "SR_OTHER"},
        KNOWN | {"refund_amount": "4,00"},
    ],
)
async def test_a_refusal_is_unknown_while_nobody_says_whether_it_was_made_before(
    bench: Bench, known: dict[str, Any]
) -> None:
    bench.says(REFUND, refusal("TRADE_HAS_CLOSE"))
    bench.says(QUERY, known)
    assert await bench.create() == Unknown(
        "refused with ACQ.TRADE_HAS_CLOSE, and Alipay did not say whether it was made before"
    )


async def test_a_number_used_with_another_amount_is_never_failed(bench: Bench) -> None:
    bench.says(REFUND, refusal("DISCORDANT_REPEAT_REQUEST"))
    bench.says(QUERY, NOTHING_KNOWN)
    assert isinstance(await bench.create(), Unknown)


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "20001", "sub_code": "aop.invalid-app-auth-token"},
        {"code": "40001", "sub_code": "isv.missing-app-id"},
        {"code": "40002", "sub_code": "isv.invalid-signature"},
        {"code": "40003", "sub_code": "isv.missing-signature-config"},
        {"code": "40006", "sub_code": "isv.insufficient-isv-permissions"},
    ],
)
async def test_the_gateway_refuses_before_anything_is_looked_at(bench: Bench, fields: dict[str, Any]) -> None:
    bench.bodies[REFUND] = unsigned_answer("alipay_trade_refund_response", fields)
    outcome = await bench.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == fields["sub_code"]
    assert bench.asked == [REFUND]


async def test_a_rate_limit_was_not_reached(bench: Bench) -> None:
    limited = {"code": "40005", "sub_code": "isv.app-call-limited"}
    for method, call in ((REFUND, bench.create), (QUERY, bench.query)):
        bench.says(method, limited)
        assert await call() == NotReached("turned away by the rate limit: isv.app-call-limited")


# Answers that cannot be believed


_DOUBTFUL = [
    signed_answer(REFUND, MOVED, by="other"),
    signed_answer(REFUND, MOVED, by="app"),
    signed_answer(REFUND, MOVED).replace(b"5.01", b"5.02").replace(b'"Y"', b'"N"'),
    unsigned_answer("alipay_trade_refund_response", MOVED),
    unsigned_answer("alipay_trade_refund_response", refusal("TRADE_HAS_CLOSE")),
    unsigned_answer("error_response", refusal("SELLER_BALANCE_NOT_ENOUGH")),
    signed_answer(REFUND, refusal("SELLER_BALANCE_NOT_ENOUGH"), by="other"),
    signed_answer(REFUND, refusal("SYSTEM_ERROR")),
    signed_answer(REFUND, {"code": "40004", "sub_code": "AQC.SYSTEM_ERROR"}),
    signed_answer(REFUND, {"code": "20000", "sub_code": "isp.unknow-error"}),
    signed_answer(REFUND, {"code": "10003"}),
    signed_answer(REFUND, {"code": "99999"}),
    signed_answer(REFUND, {}),
    signed_answer("alipay.trade.query", MOVED),
    signed_answer(QUERY, KNOWN),
    b"",
    b"{}",
    b"<html>gateway</html>",
    signed_answer(REFUND, MOVED)[:-1],
]  # fmt: skip


@pytest.mark.parametrize("body", _DOUBTFUL)
async def test_a_doubtful_answer_to_a_refund_is_unknown(bench: Bench, body: bytes) -> None:
    bench.bodies[REFUND] = body
    assert isinstance(await bench.create(), Unknown)
    assert bench.asked == [REFUND]


@pytest.mark.parametrize(
    "body",
    [
        signed_answer(QUERY, KNOWN, by="other"),
        unsigned_answer("alipay_trade_fastpay_refund_query_response", KNOWN),
        unsigned_answer("alipay_trade_fastpay_refund_query_response", NOTHING_KNOWN),
        unsigned_answer("alipay_trade_fastpay_refund_query_response", NO_TRADE),
        signed_answer(QUERY, NO_TRADE, by="other"),
        signed_answer(QUERY, refusal("SYSTEM_ERROR")),
        signed_answer(REFUND, MOVED),
        b"",
    ],
)
async def test_a_doubtful_answer_to_the_query_is_unknown(bench: Bench, body: bytes) -> None:
    bench.bodies[QUERY] = body
    assert isinstance(await bench.query(), Unknown)


async def test_a_gateway_that_fails_is_unknown_and_one_that_is_away_was_not_reached(bench: Bench) -> None:
    for status in (302, 500, 502):
        bench.server.behave = answering(signed_answer(REFUND, MOVED), status=status)
        assert isinstance(await bench.create(), Unknown), status
    path = urlsplit(bench.account.gateway).path
    async with serving(hang) as other:
        free = other.origin
    bench.account = _opened("public_key", free + path)
    assert isinstance(await bench.create(), NotReached)
    assert isinstance(await bench.query(), NotReached)


# Questions


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        (KNOWN, DONE_BEFORE),
        (KNOWN | {"out_trade_no": None}, DONE_BEFORE),
        (KNOWN | {"refund_amount": "5.02"}, replace(DONE_BEFORE, amount_fen=502)),
        (KNOWN | {"refund_amount": None}, replace(DONE_BEFORE, amount_fen=None)),
        (KNOWN | {"gmt_refund_pay": None}, replace(DONE_BEFORE, refunded_at=None)),
        (NOTHING_KNOWN, NOT_FOUND),
        (KNOWN | {"refund_status": ""}, NOT_FOUND),
        (KNOWN | {"refund_status": None}, NOT_FOUND),
        (NO_TRADE, NOT_FOUND),
        (NO_TRADE | {"sub_code": "TRADE_NOT_EXIST"}, NOT_FOUND),
        (KNOWN | {"refund_status": "REFUND_PROCESSING"}, report(ReportedRefund.PENDING, amount_fen=501)),
        (KNOWN | {"refund_status": "refund_success"}, report(ReportedRefund.PENDING, amount_fen=501)),
        (KNOWN | {"out_trade_no": "SY_OTHER"}, Unknown("the answer is about another out_trade_no")),
        (KNOWN | {"out_request_no": "SR_OTHER"}, Unknown("the answer is about another out_request_no")),
        ({"code": "10000", "out_request_no": "SR_OTHER"}, Unknown("the answer is about another out_request_no")),
        (KNOWN | {"out_request_no": None}, Unknown("the answer does not name its refund")),
        (KNOWN | {"refund_amount": "5.011"}, Unknown("the answer holds an amount that is not exact yuan")),
        (KNOWN | {"refund_amount": "+5.01"}, Unknown("the answer holds an amount that is not exact yuan")),
    ],
)
async def test_every_answer_about_a_refund_has_a_meaning(
    bench: Bench, fields: dict[str, Any], outcome: RefundOutcome
) -> None:
    bench.says(QUERY, fields)
    assert await bench.query() == outcome


async def test_a_refused_question_changes_nothing_and_is_explained(bench: Bench) -> None:
    bench.says(QUERY, refusal("INVALID_PARAMETER"))
    outcome = await bench.query()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == ("ACQ.INVALID_PARAMETER", "因为")


def test_an_unknown_word_is_pending_and_warned_about() -> None:
    with capture_logs() as logs:
        outcome = read_refund_query(KNOWN | {"refund_status": "REFUND_SOON"}, REQUEST)
    assert outcome == report(ReportedRefund.PENDING, amount_fen=501)
    assert [(line["event"], line["refund_status"], line["log_level"]) for line in logs] == [
        ("alipay.unknown_refund_status", "REFUND_SOON", "warning")
    ]


# Explanations, schedule


@pytest.mark.parametrize("name", [*REFUSALS, "DISCORDANT_REPEAT_REQUEST"])
def test_every_refusal_is_explained_in_both_languages(name: str) -> None:
    english, chinese = explain("40004", f"ACQ.{name}", refunding=True)
    assert english.isascii()
    assert len(english) > 20
    assert not chinese.isascii()
    if name != "NEVER_HEARD_OF":
        assert explain("40004", f"ACQ.{name}", refunding=True) != explain("40004", "ACQ.NEVER_HEARD_OF", refunding=True)


def test_a_code_means_something_else_when_money_is_given_back() -> None:
    code = "ACQ.TRADE_STATUS_ERROR"
    assert "not paid" in explain("40004", code, refunding=True).english
    assert "may be paid" in explain("40004", code).english


def test_the_schedule_leaves_alipay_its_ten_seconds_and_rises() -> None:
    ages = list(AlipayProvider.refund_schedule)
    assert ages == sorted(set(ages))
    assert ages[0] >= timedelta(seconds=10)
    assert ages[-1] - ages[-2] >= timedelta(hours=6)
    assert AlipayProvider.refund_window == timedelta(days=365)


# Notices

PARTIAL = PAID_NOTICE | {
    "refund_fee": "5.01",
    "gmt_refund": "2026-11-22 09:00:00.143",
    "out_biz_no": REFUND_NUMBER,
}


@pytest.fixture(scope="module")
def account() -> AlipayAccount:
    return _opened("public_key", "https://openapi.alipay.com/gateway.do")


async def _read(account: AlipayAccount, fields: dict[str, str]) -> Any:
    return await AlipayProvider(_UNUSED, Clock(), timeout_s=1.0).read_notification(account, {}, signed_notice(fields))


@pytest.mark.parametrize(
    ("changes", "hint", "refunded_fen"),
    [
        ({}, REFUND_NUMBER, 501),
        ({"trade_status": "TRADE_CLOSED", "refund_fee": "19.90"}, REFUND_NUMBER, 1990),
        ({"trade_status": "TRADE_FINISHED"}, REFUND_NUMBER, 501),
        ({"out_biz_no": ""}, None, 501),
        ({"out_biz_no": "made in the console"}, None, 501),
        ({"out_biz_no": "退款1"}, None, 501),
        ({"out_biz_no": "R" * 64}, "R" * 64, 501),
        ({"out_biz_no": "R" * 65}, None, 501),
        ({"out_biz_no": "", "refund_fee": "", "gmt_refund": ""}, None, None),
    ],
)
async def test_a_notice_about_a_refund_reports_the_payment_and_names_the_refund(
    account: AlipayAccount, changes: dict[str, str], hint: str | None, refunded_fen: int | None
) -> None:
    notification = await _read(account, PARTIAL | changes)
    assert notification.refund_hint == hint
    read = notification.report
    assert (read.status, read.amount_fen, read.refunded_fen) == (ReportedStatus.SUCCESSFUL, 1990, refunded_fen)


async def test_notices_of_two_refunds_are_two_events_and_a_repeat_is_none(account: AlipayAccount) -> None:
    first = await _read(account, PARTIAL)
    again = await _read(account, PARTIAL | {"notify_time": "2026-11-22 10:00:00"})
    second = await _read(account, PARTIAL | {"out_biz_no": "SR20261122000002", "refund_fee": "10.02"})
    assert first.event_key == again.event_key
    assert first.event_key != second.event_key


# Money


def test_every_fen_up_to_ten_thousand_yuan_survives_both_ways() -> None:
    for fen in range(1, 1_000_001):
        request = RefundRequest(NUMBER, REFUND_NUMBER, fen, 1_000_000, "", NOW)
        sent = refund_content(request)["refund_amount"]
        fields = {"out_request_no": REFUND_NUMBER, "refund_status": "REFUND_SUCCESS", "refund_amount": sent}
        read = read_refund_query(fields, request)
        if not isinstance(read, RefundReport) or read.amount_fen != fen:
            pytest.fail(f"{fen} fen became {sent}")


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**12), st.integers(0, 10**12))
def test_any_amount_survives_and_less_than_it_is_not_believed(fen: int, given_back_fen: int) -> None:
    request = replace(REQUEST, amount_fen=fen, total_fen=10**12)
    sent = refund_content(request)["refund_amount"]
    assert sent == f"{fen // 100}.{fen % 100:02d}"
    queried = read_refund_query(KNOWN | {"refund_amount": sent}, request)
    assert isinstance(queried, RefundReport)
    assert queried.amount_fen == fen
    fee = format_yuan(given_back_fen)
    answered = read_refund_answer({"out_trade_no": NUMBER, "fund_change": "Y", "refund_fee": fee}, request)
    assert isinstance(answered, RefundReport if given_back_fen >= fen else Unknown)

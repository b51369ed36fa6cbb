"""Deductions: what is sent, when money counts as taken, and when it is certain that none was."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from app.providers.alipay.deduction_refusals import deduction_refusal
from app.providers.contract import (
    DeductionOutcome,
    DeductionRefusal,
    DeductionRefused,
    DeductionRequest,
    NotReached,
    PaymentReport,
    ReportedStatus,
    Unknown,
)
from tests.providers.alipay.bench import NOW, Bench, bench_of
from tests.providers.alipay.keyring import APP_ID, SELLER_ID, signed_answer, unsigned_answer
from tests.providers.scripted import answering, hang, serving

NUMBER = "SY20261222000001"
PAY = "alipay.trade.pay"
QUERY = "alipay.trade.query"
CLOSE = "alipay.trade.close"

REQUEST = DeductionRequest(
    out_trade_no=NUMBER,
    agreement_no="20265522000000000001",
    amount_fen=1990,
    subject='会员 "月卡" + 100% <b>',
    notify_url="https://pay.example.com/notify/alipay/1",
    created_at=NOW,
    expires_at=NOW + timedelta(minutes=30, microseconds=999),
)
TAKEN = {
    "code": "10000",
    "msg": "Success",
    "out_trade_no": NUMBER,
    "trade_no": "2026122222001400000000000001",
    "total_amount": "19.90",
    "receipt_amount": "19.90",
    "buyer_pay_amount": "19.90",
    "buyer_user_id": "2088000000000002",
    "gmt_payment": "2026-11-22 09:02:04",
    "fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": "19.90"}],
}
NO_TRADE = {"code": "40004", "msg": "Business Failed", "sub_code": "ACQ.TRADE_NOT_EXIST", "sub_msg": "交易不存在"}


def refused(sub_code: str) -> dict[str, Any]:
    return {"code": "40004", "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "不行"}


def trade(status: str, **changes: Any) -> dict[str, Any]:
    known = {name: TAKEN[name] for name in ("code", "msg", "out_trade_no", "trade_no", "total_amount")}
    return known | {"trade_status": status} | changes


async def deducted(bench: Bench, **changes: Any) -> DeductionOutcome:
    return await bench.agreements.deduct(bench.account, replace(REQUEST, **changes))


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with bench_of(client) as made:
        # What Alipay knows of a number whose deduction it refused, unless a test says otherwise.
        made.says(QUERY, NO_TRADE)
        yield made


# What is sent


@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
@pytest.mark.parametrize("product", ["CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING"])
async def test_a_deduction_is_sent_under_our_number_and_the_same_each_time(
    client: httpx.AsyncClient, mode: str, product: str
) -> None:
    async with bench_of(client, mode, cycle_product=product) as bench:
        bench.says(PAY, TAKEN)
        assert await deducted(bench) == await deducted(bench)
        first, again = bench.server.received
        assert (first.target, first.body) == (again.target, again.body)
        bench.content()
        assert first.form()["biz_content"] == (
            '{"out_trade_no":"SY20261222000001","total_amount":"19.90","subject":"会员 \\"月卡\\" + 100% <b>",'
            f'"product_code":"{product}","time_expire":"2026-11-22 09:32:03",'
            '"agreement_params":{"agreement_no":"20265522000000000001"}}'
        )
        query = first.query()
        assert (query["method"], query["notify_url"]) == (PAY, REQUEST.notify_url)
        assert "return_url" not in query
        assert query.get("app_auth_token") == ("202611BB0123456789abcdef" if mode == "isv" else None)
        assert ("app_cert_sn" in query) == (mode == "certificate")


# Money that was taken


async def test_money_that_was_taken_is_reported_without_a_question(bench: Bench) -> None:
    bench.says(PAY, TAKEN | {"seller_id": SELLER_ID, "app_id": APP_ID})
    assert await deducted(bench) == PaymentReport(
        out_trade_no=NUMBER,
        status=ReportedStatus.SUCCESSFUL,
        source="answer",
        amount_fen=1990,
        transaction_id="2026122222001400000000000001",
        payer_id="2088000000000002",
        paid_at=datetime(2026, 11, 22, 1, 2, 4, tzinfo=UTC),
        account_claims={"seller_id": SELLER_ID, "app_id": APP_ID},
    )
    assert bench.asked == ["trade.pay"]


async def test_another_amount_than_asked_for_is_reported_as_it_is(bench: Bench) -> None:
    bench.says(PAY, TAKEN | {"total_amount": "19.91", "gmt_payment": "soon"})
    report = await deducted(bench)
    assert isinstance(report, PaymentReport)
    assert (report.status, report.amount_fen, report.paid_at) == (ReportedStatus.SUCCESSFUL, 1991, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "10003", "msg": "order success pay inprocess", "out_trade_no": NUMBER, "trade_no": "1"},
        {"code": "10003", "out_trade_no": NUMBER, "trade_no": "1", "total_amount": "19.90", "gmt_payment": "x"},
        {"code": "10003", "trade_no": "1"},
        {"code": "10000", "out_trade_no": NUMBER, "trade_no": "1", "async_pay_apply_status": "S"},
        TAKEN | {"trade_no": "1", "async_pay_apply_status": "S"},
    ],
)
async def test_one_that_was_only_taken_in_is_pending(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says(PAY, fields)
    assert await deducted(bench) == PaymentReport(NUMBER, ReportedStatus.PENDING, "answer", transaction_id="1")
    assert bench.asked == ["trade.pay"]


@pytest.mark.parametrize(
    "fields",
    [
        TAKEN | {"out_trade_no": "SY_OTHER"},
        TAKEN | {"out_trade_no": None},
        TAKEN | {"trade_no": None},
        TAKEN | {"total_amount": None},
        TAKEN | {"total_amount": "19.901"},
        TAKEN | {"total_amount": "1.99e1"},
        TAKEN | {"total_amount": ["19.90"]},
        {"code": "10003", "out_trade_no": "SY_OTHER"},
        {"code": "10000", "out_trade_no": "SY_OTHER", "async_pay_apply_status": "S"},
        {"code": "10000"},
    ],
)
async def test_a_verified_success_that_makes_no_sense_is_unknown(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says(PAY, fields)
    assert isinstance(await deducted(bench), Unknown)
    assert bench.asked == ["trade.pay"]


# Refusals

_KINDS = {
    DeductionRefusal.PAYER: (
        "BUYER_BALANCE_NOT_ENOUGH BUYER_BANKCARD_BALANCE_NOT_ENOUGH BUYER_BANKCARD_INVALID BUYER_BANKCARD_DECLINED "
        "NO_PAYMENT_INSTRUMENTS_AVAILABLE ERROR_BALANCE_PAYMENT_DISABLE PAYMENT_FAIL"
    ),
    DeductionRefusal.LIMIT: (
        "BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR BUYER_LIMIT_EXCEEDED "
        "PRODUCT_AMOUNT_LIMIT_ERROR BEYOND_PER_RECEIPT_SINGLE_RESTRICTION BEYOND_PER_RECEIPT_DAY_RESTRICTION "
        "OVER_MERCHANT_DAILY_DEDUCT_AMOUNT"
    ),
    DeductionRefusal.WINDOW: "CYCLE_PAY_DATE_NOT_MATCH OVER_DEDUCT_PERIOD",
    DeductionRefusal.RULE: (
        "CYCLE_PAY_SINGLE_FEE_EXCEED CYCLE_PAY_TOTAL_FEE_EXCEED CYCLE_PAY_TOTAL_TIMES_EXCEED OVER_MAX_DEDUCT_COUNT "
        "OVER_MAX_UNDER_WAY_DEDUCT_COUNT"
    ),
    DeductionRefusal.AGREEMENT: ("AGREEMENT_NOT_EXIST AGREEMENT_INVALID AGREEMENT_STATUS_NOT_NORMAL AGREEMENT_ERROR"),
    DeductionRefusal.MERCHANT: (
        "MERCHANT_AGREEMENT_NOT_EXIST MERCHANT_AGREEMENT_INVALID MERCHANT_STATUS_NOT_NORMAL SELLER_BEEN_BLOCKED "
        "ACCESS_FORBIDDEN PARTNER_ERROR RESTRICTED_MERCHANT_INDUSTRY"
    ),
    DeductionRefusal.FINAL: (
        "BUYER_ENABLE_STATUS_FORBID BUYER_NOT_EXIST PAYMENT_REQUEST_HAS_RISK UN_SUPPORT_TRADE_SCENE INVALID_PARAMETER "
        "RISK_MERCHANT_IP_NOT_EXIST"
    ),
}
_REFUSALS = [(kind, name) for kind, names in _KINDS.items() for name in names.split()]


@pytest.mark.parametrize(("kind", "name"), _REFUSALS)
async def test_every_refusal_says_what_helps(bench: Bench, kind: DeductionRefusal, name: str) -> None:
    bench.says(PAY, refused(f"ACQ.{name}"))
    with capture_logs() as logs:
        outcome = await deducted(bench)
    assert isinstance(outcome, DeductionRefused)
    assert outcome.kind is kind
    assert (outcome.words.code, outcome.words.message) == (f"ACQ.{name}", "不行")
    assert outcome.words.explanation.isascii()
    assert len(outcome.words.explanation) > 40
    assert not outcome.words.explanation_zh.isascii()
    assert logs == []
    assert bench.asked == ["trade.pay", "trade.query"]


def test_refusals_are_explained_one_by_one() -> None:
    explained = [deduction_refusal(name) for _, name in _REFUSALS]
    assert None not in explained
    # The two of the one family are explained alike.
    assert len(set(explained)) == len(explained) - 1


async def test_a_refusal_that_is_not_known_is_final_and_warned_about(bench: Bench) -> None:
    bench.says(PAY, refused("ACQ.NEVER_HEARD_OF"))
    with capture_logs() as logs:
        outcome = await deducted(bench)
    assert isinstance(outcome, DeductionRefused)
    assert (outcome.kind, outcome.words.code) == (DeductionRefusal.FINAL, "ACQ.NEVER_HEARD_OF")
    assert [(line["event"], line["sub_code"], line["log_level"]) for line in logs] == [
        ("alipay.unknown_deduction_refusal", "ACQ.NEVER_HEARD_OF", "warning")
    ]


async def test_a_refusal_without_a_sub_code_is_final(bench: Bench) -> None:
    bench.says(PAY, {"code": "40004", "msg": "Business Failed"})
    outcome = await deducted(bench)
    assert isinstance(outcome, DeductionRefused)
    assert (outcome.kind, outcome.words.code) == (DeductionRefusal.FINAL, "40004")


@pytest.mark.parametrize(
    "sub_code", ["ACQ.TRADE_HAS_SUCCESS", "ACQ.TRADE_HAS_CLOSE", "ACQ.TRADE_HAS_FINISHED", "ACQ.CONTEXT_INCONSISTENT"]
)
async def test_a_number_that_is_known_already_is_to_be_asked_about(bench: Bench, sub_code: str) -> None:
    bench.says(PAY, refused(sub_code))
    outcome = await deducted(bench)
    assert isinstance(outcome, Unknown)
    assert outcome.words is not None
    assert (outcome.words.code, outcome.words.message) == (sub_code, "不行")
    assert bench.asked == ["trade.pay"]


@pytest.mark.parametrize("status", ["TRADE_SUCCESS", "TRADE_FINISHED"])
async def test_a_repeat_that_is_refused_because_the_first_call_took_the_money_is_no_refusal(
    bench: Bench, status: str
) -> None:
    bench.says(PAY, refused("ACQ.CYCLE_PAY_DATE_NOT_MATCH"))
    bench.says(QUERY, trade(status))
    report = await deducted(bench)
    assert isinstance(report, PaymentReport)
    assert (report.status, report.source, report.amount_fen) == (ReportedStatus.SUCCESSFUL, "query", 1990)
    assert bench.asked == ["trade.pay", "trade.query"]


async def test_a_trade_that_a_refusal_left_closed_is_refused(bench: Bench) -> None:
    bench.says(PAY, refused("ACQ.PAYMENT_FAIL"))
    bench.says(QUERY, trade("TRADE_CLOSED"))
    outcome = await deducted(bench)
    assert isinstance(outcome, DeductionRefused)
    assert outcome.kind is DeductionRefusal.PAYER
    assert bench.asked == ["trade.pay", "trade.query"]


@pytest.mark.parametrize("status", ["WAIT_BUYER_PAY", "TRADE_PENDING"])
@pytest.mark.parametrize(
    ("answer", "certain"),
    [
        ({"code": "10000", "out_trade_no": NUMBER, "trade_no": "1"}, True),
        (NO_TRADE, True),
        (refused("ACQ.TRADE_STATUS_ERROR"), False),
        (refused("ACQ.TRADE_HAS_SUCCESS"), False),
        (refused("ACQ.SYSTEM_ERROR"), False),
        (refused("ACQ.INVALID_PARAMETER"), False),
        ({"code": "10000", "out_trade_no": "SY_OTHER"}, False),
        ({"code": "40005"}, False),
    ],
)
async def test_a_trade_that_a_refusal_left_open_is_closed_before_it_is_a_refusal(
    bench: Bench, status: str, answer: dict[str, Any], certain: bool
) -> None:
    bench.says(PAY, refused("ACQ.BUYER_BALANCE_NOT_ENOUGH"))
    bench.says(QUERY, trade(status))
    bench.says(CLOSE, answer)
    outcome = await deducted(bench)
    assert isinstance(outcome, DeductionRefused if certain else Unknown)
    assert outcome.words is not None
    assert outcome.words.code == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    assert bench.asked == ["trade.pay", "trade.query", "trade.close"]
    assert bench.content() == {"out_trade_no": NUMBER}


@pytest.mark.parametrize(
    "answer",
    [refused("ACQ.SYSTEM_ERROR"), refused("ACQ.INVALID_PARAMETER"), {"code": "40005"}, trade("TRADE_SUCCESS", code=1)],
)
async def test_a_refusal_that_could_not_be_checked_is_unknown(bench: Bench, answer: dict[str, Any]) -> None:
    bench.says(PAY, refused("ACQ.BUYER_BALANCE_NOT_ENOUGH"))
    bench.says(QUERY, answer)
    outcome = await deducted(bench)
    assert isinstance(outcome, Unknown)
    assert outcome.words is not None
    assert outcome.words.code == "ACQ.BUYER_BALANCE_NOT_ENOUGH"


# Every other kind of answer


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "20000", "sub_code": "isp.unknow-error"},
        {"code": "20000"},
        {"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"},
        {"code": "40004", "sub_code": "AQC.SYSTEM_ERROR"},
        {"code": "40004", "sub_code": "aop.unknow-error"},
        {"code": "99999"},
        {"code": 10000.0},
        {"code": None},
        {},
    ],
)
async def test_what_may_have_acted_is_unknown(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says(PAY, fields)
    assert isinstance(await deducted(bench), Unknown)
    assert bench.asked == ["trade.pay"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"code": "20001", "sub_code": "aop.invalid-app-auth-token"}, "aop.invalid-app-auth-token"),
        ({"code": "40001", "sub_code": "isv.missing-app-id"}, "isv.missing-app-id"),
        ({"code": "40002", "sub_code": "isv.invalid-signature"}, "isv.invalid-signature"),
        ({"code": "40003"}, "40003"),
        ({"code": "40006", "sub_code": "isv.insufficient-isv-permissions"}, "isv.insufficient-isv-permissions"),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
async def test_what_the_gateway_turned_away_was_not_reached_and_says_why(
    bench: Bench, fields: dict[str, Any], code: str, signed: bool
) -> None:
    node = "alipay_trade_pay_response"
    bench.bodies[PAY] = signed_answer(PAY, fields) if signed else unsigned_answer(node, fields)
    outcome = await deducted(bench)
    assert isinstance(outcome, NotReached)
    assert outcome.words is not None
    assert outcome.words.code == code
    assert bench.asked == ["trade.pay"]


async def test_a_rate_limit_turns_it_away_unread(bench: Bench) -> None:
    bench.says(PAY, {"code": "40005", "sub_code": "isv.app-call-limited"})
    assert isinstance(await deducted(bench), NotReached)


async def test_an_answer_that_cannot_be_believed_is_unknown(bench: Bench) -> None:
    node = "alipay_trade_pay_response"
    genuine = signed_answer(PAY, TAKEN)
    no = refused("ACQ.BUYER_BALANCE_NOT_ENOUGH")
    for body in (
        unsigned_answer(node, TAKEN),
        unsigned_answer("error_response", TAKEN),
        unsigned_answer(node, {"code": "10003", "out_trade_no": NUMBER}),
        unsigned_answer(node, no),
        unsigned_answer("error_response", no),
        signed_answer(PAY, TAKEN, by="other"),
        signed_answer(PAY, TAKEN, by="app"),
        signed_answer(PAY, no, by="other"),
        signed_answer("alipay.trade.query", TAKEN),
        genuine.replace(b"19.90", b"19.91"),
        genuine.replace(b'"sign":"', b'"sign":"A'),
        genuine[:-1],
        genuine + b"x",
        b"",
        b"{}",
        b"<html>gateway</html>",
        json.dumps({node: "encrypted", "sign": "x"}).encode(),
    ):
        bench.bodies[PAY] = body
        assert isinstance(await deducted(bench), Unknown), body[:200]
    assert set(bench.asked) == {"trade.pay"}


async def test_no_changed_byte_of_an_answer_passes(bench: Bench) -> None:
    for genuine in (signed_answer(PAY, TAKEN), signed_answer(PAY, refused("ACQ.PAYMENT_FAIL"))):
        for at in range(0, len(genuine), 7):
            bench.bodies[PAY] = genuine[:at] + bytes([genuine[at] ^ 0x01]) + genuine[at + 1 :]
            assert isinstance(await deducted(bench), Unknown), at
    assert set(bench.asked) == {"trade.pay"}


async def test_in_process_is_a_word_of_deductions_alone(bench: Bench) -> None:
    bench.says(QUERY, {"code": "10003", "out_trade_no": NUMBER, "trade_status": "TRADE_SUCCESS"})
    assert isinstance(await bench.provider.query_payment(bench.account, NUMBER), Unknown)


async def test_a_gateway_that_fails_is_unknown_and_one_that_is_away_was_not_reached(bench: Bench) -> None:
    bench.server.behave = answering(signed_answer(PAY, TAKEN), status=502)
    assert await deducted(bench) == Unknown("HTTP 502")
    async with serving(hang) as other:
        free = other.url()
    bench.account = replace(bench.account, gateway=free)
    assert isinstance(await deducted(bench), NotReached)


async def test_a_deduction_is_asked_about_and_closed_like_any_payment(bench: Bench) -> None:
    bench.says(QUERY, trade("TRADE_SUCCESS", send_pay_date="2026-11-22 09:02:04"))
    report = await bench.provider.query_payment(bench.account, NUMBER)
    assert isinstance(report, PaymentReport)
    assert (report.status, report.amount_fen) == (ReportedStatus.SUCCESSFUL, 1990)
    assert bench.content() == {"out_trade_no": NUMBER}

"""Agreements: what a payer is given to sign, what is asked about them, and how every answer is judged."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from app.errors import CallerError, InvalidAmount, InvalidInput, SceneNotAllowed
from app.providers.alipay.agreements import AlipayAgreements
from app.providers.alipay.explanations import explain
from app.providers.contract import (
    Accepted,
    AgreementKey,
    AgreementReport,
    AgreementRequest,
    FirstPayment,
    NotReached,
    PutOff,
    Rejected,
    ReportedAgreement,
    Unknown,
)
from tests.providers.alipay.bench import NOW, Bench, bench_of, official_check, opened_account
from tests.providers.alipay.keyring import APP_ID, signed_answer, unsigned_answer

OURS = "SA20261122000001"
THEIRS = "20265522000000000001"
SCENE = "INDUSTRY|DIGITAL_MEDIA"
NOTIFY = "https://pay.example.com/notify/alipay/1"
PAGE_SIGN = "alipay.user.agreement.page.sign"
QUERY = "alipay.user.agreement.query"
UNSIGN = "alipay.user.agreement.unsign"
MODIFY = "alipay.user.agreement.executionplan.modify"

REQUEST = AgreementRequest(
    external_agreement_no=OURS,
    scene=SCENE,
    subject='会员 "月卡" + 100% <b>',
    ceiling_fen=1990,
    interval_days=30,
    first_deduction_on=date(2026, 12, 22),
    payer_name="会员 7 & Co=",
    notify_url=NOTIFY,
    created_at=NOW,
    expires_at=NOW + timedelta(minutes=30, microseconds=999),
    return_url="https://shop.example.com/done?id=1&x=%E4%B8%AD",
)
PAYING = replace(REQUEST, first_payment=FirstPayment(out_trade_no="SY20261122000001", amount_fen=100))
SIGNED = AgreementKey(external_agreement_no=OURS, scene=SCENE, agreement_no=THEIRS, notify_url=NOTIFY)
UNSIGNED = replace(SIGNED, agreement_no=None)
BY_OUR_NUMBER = {
    "personal_product_code": "CYCLE_PAY_AUTH_P",
    "sign_scene": SCENE,
    "external_agreement_no": OURS,
}
KNOWN = {
    "code": "10000",
    "msg": "Success",
    "agreement_no": THEIRS,
    "external_agreement_no": OURS,
    "status": "NORMAL",
    "sign_scene": SCENE,
    "personal_product_code": "CYCLE_PAY_AUTH_P",
    "principal_id": "2088000000000002",
    "pricipal_type": "CARD",
    "sign_time": "2026-11-22 08:00:00",
    "valid_time": "2026-11-22 08:00:00",
    "invalid_time": "2115-02-01 00:00:00",
    "next_deduct_time": "2026-12-22",
    "execution_plans": [{"period_id": 1, "execute_time": "2026-12-22", "single_amount": 19.9}],
    "single_quota": 19.9,
}
DONE = {"code": "10000", "msg": "Success"}


def refused(sub_code: str) -> dict[str, Any]:
    return {"code": "40004", "msg": "Business Failed", "sub_code": sub_code, "sub_msg": "不行"}


def report(status: ReportedAgreement, source: Any = "query", **fields: Any) -> AgreementReport:
    return AgreementReport(status=status, source=source, external_agreement_no=OURS, **fields)


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with bench_of(client) as made:
        yield made


# Signing


PLAN = (
    '"access_params":{"channel":"ALIPAYAPP"},"period_rule_params":{"period_type":"DAY","period":30,'
    '"execute_time":"2026-12-22","single_amount":"19.90"},"effect_time":1800'
)


def signing_text(product: str) -> str:
    return (
        f'{{"personal_product_code":"{product}_P","product_code":"{product}","sign_scene":"INDUSTRY|DIGITAL_MEDIA",'
        f'"external_agreement_no":"SA20261122000001","external_logon_id":"会员 7 & Co=",{PLAN}'
    )


@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
@pytest.mark.parametrize("product", ["CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING"])
async def test_signing_is_a_signed_link_and_no_call(client: httpx.AsyncClient, mode: str, product: str) -> None:
    async with bench_of(client, mode, cycle_product=product) as bench:
        outcome = await bench.agreements.sign(bench.account, REQUEST)
        assert bench.server.received == []
    assert isinstance(outcome, Accepted)
    assert outcome.transaction_id is None
    assert outcome.action.keys() == {"kind", "url", "deepLink"}
    url = outcome.action["url"]
    assert outcome.action["kind"] == "Redirect"
    assert outcome.action["deepLink"] == f"alipays://platformapi/startapp?appId=20000067&url={quote(url, safe='')}"
    assert url.startswith(f"{bench.account.gateway}?")
    params = _params(urlsplit(url).query)
    assert params.pop("biz_content") == signing_text(product) + "}"
    extra = {
        "public_key": set(),
        "certificate": {"app_cert_sn", "alipay_root_cert_sn"},
        "isv": {"app_auth_token"},
    }[mode]
    assert extra <= params.keys()
    assert {name: value for name, value in params.items() if name not in extra} == {
        "app_id": APP_ID,
        "method": PAGE_SIGN,
        "format": "JSON",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": "2026-11-22 09:02:03",
        "version": "1.0",
        "notify_url": NOTIFY,
        "return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD",
    }


@pytest.mark.parametrize("product", ["CYCLE_PAY_AUTH", "GENERAL_WITHHOLDING"])
async def test_paying_while_signing_is_an_order_for_the_wallet_and_no_call(
    client: httpx.AsyncClient, product: str
) -> None:
    async with bench_of(client, cycle_product=product) as bench:
        outcome = await bench.agreements.sign(bench.account, PAYING)
        assert bench.server.received == []
    assert isinstance(outcome, Accepted)
    link = outcome.action["deepLink"]
    assert outcome.action == {"kind": "QrCode", "codeUrl": link, "deepLink": link}
    head = "alipays://platformapi/startapp?appId=60000157&orderStr="
    assert link.startswith(head)
    params = _params(unquote(link.removeprefix(head)))
    assert params.pop("biz_content") == (
        '{"out_trade_no":"SY20261122000001","total_amount":"1.00","subject":"会员 \\"月卡\\" + 100% <b>",'
        f'"product_code":"{product}","time_expire":"2026-11-22 09:32:03",'
        f'"agreement_sign_params":{signing_text(product)},"sign_notify_url":"{NOTIFY}"}}}}'
    )
    assert (params["method"], params["notify_url"]) == ("alipay.trade.app.pay", NOTIFY)
    assert "return_url" not in params


def _params(query: str) -> dict[str, str]:
    """The parameters of a query, once each, their signature checked and taken out."""
    pairs = parse_qsl(query, strict_parsing=True)
    params = dict(pairs)
    assert len(params) == len(pairs)
    official_check(params)
    del params["sign"]
    return params


@pytest.mark.parametrize("request_", [REQUEST, PAYING])
async def test_the_same_request_gives_the_same_step_again(bench: Bench, request_: AgreementRequest) -> None:
    first, second = [await bench.agreements.sign(bench.account, request_) for _ in range(2)]
    assert first == second


async def test_the_shortest_first_payment_leaves_time_for_the_way_to_alipay(bench: Bench) -> None:
    shortest = replace(PAYING, expires_at=NOW + timedelta(seconds=60))
    bench.agreements.check_agreement(bench.account, shortest)
    outcome = await bench.agreements.sign(bench.account, shortest)
    assert isinstance(outcome, Accepted)
    content = json.loads(_params(unquote(outcome.action["deepLink"].partition("orderStr=")[2]))["biz_content"])
    assert content["time_expire"] == "2026-11-22 09:03:18"
    assert content["agreement_sign_params"]["effect_time"] == 60


# Asking


async def test_a_signed_agreement_is_reported_with_all_that_was_said(bench: Bench) -> None:
    bench.says(QUERY, KNOWN)
    assert await bench.agreements.query_agreement(bench.account, UNSIGNED) == report(
        ReportedAgreement.ACTIVE,
        agreement_no=THEIRS,
        scene=SCENE,
        payer_id="2088000000000002",
        signed_at=datetime(2026, 11, 22, 0, 0, tzinfo=UTC),
        valid_until=datetime(2115, 1, 31, 16, 0, tzinfo=UTC),
        next_deduction_on=date(2026, 12, 22),
    )
    assert bench.content() == BY_OUR_NUMBER
    assert "notify_url" not in bench.server.received[0].query()
    await bench.agreements.query_agreement(bench.account, SIGNED)
    assert bench.content() == {"agreement_no": THEIRS}


async def test_a_query_names_the_product_that_was_signed(client: httpx.AsyncClient) -> None:
    async with bench_of(client, "isv", cycle_product="GENERAL_WITHHOLDING") as bench:
        bench.says(QUERY, KNOWN)
        await bench.agreements.query_agreement(bench.account, UNSIGNED)
        assert bench.content() == BY_OUR_NUMBER | {"personal_product_code": "GENERAL_WITHHOLDING_P"}
        assert bench.server.received[0].query()["app_auth_token"] == "202611BB0123456789abcdef"


@pytest.mark.parametrize(
    ("word", "status", "warned"),
    [
        ("NORMAL", ReportedAgreement.ACTIVE, False),
        ("TEMP", ReportedAgreement.PENDING, False),
        ("STOP", ReportedAgreement.ENDED, False),
        ("UNSIGN", ReportedAgreement.ENDED, False),
        ("normal", ReportedAgreement.PENDING, True),
        ("冻结", ReportedAgreement.PENDING, True),
    ],
)
async def test_every_word_has_a_meaning(bench: Bench, word: str, status: ReportedAgreement, warned: bool) -> None:
    bench.says(QUERY, KNOWN | {"status": word})
    with capture_logs() as logs:
        found = await bench.agreements.query_agreement(bench.account, SIGNED)
    assert isinstance(found, AgreementReport)
    assert found.status is status
    assert [line["event"] for line in logs] == (["alipay.unknown_agreement_status"] if warned else [])


@pytest.mark.parametrize(
    ("key", "sub_code", "status"),
    [
        (UNSIGNED, "USER_AGREEMENT_NOT_EXIST", ReportedAgreement.NOT_FOUND),
        (UNSIGNED, "AGREEMENT_NOT_EXIST", ReportedAgreement.NOT_FOUND),
        (UNSIGNED, "AGREEMENT_HAS_UNSIGNED", ReportedAgreement.ENDED),
        # It was there once.
        (SIGNED, "USER_AGREEMENT_NOT_EXIST", ReportedAgreement.ENDED),
        (SIGNED, "ACQ.AGREEMENT_NOT_EXIST", ReportedAgreement.ENDED),
        (SIGNED, "AGREEMENT_HAS_UNSIGNED", ReportedAgreement.ENDED),
    ],
)
async def test_an_agreement_that_is_not_there_is_a_report(
    bench: Bench, key: AgreementKey, sub_code: str, status: ReportedAgreement
) -> None:
    bench.says(QUERY, refused(sub_code))
    found = await bench.agreements.query_agreement(bench.account, key)
    assert found == report(status, agreement_no=key.agreement_no)


@pytest.mark.parametrize("key", [UNSIGNED, SIGNED])
@pytest.mark.parametrize(
    "changes",
    [
        {"external_agreement_no": "SA_OTHER"},
        {"agreement_no": None, "external_agreement_no": None},
        {"status": None},
        {"status": ["NORMAL"]},
    ],
)
async def test_an_answer_that_is_not_about_it_is_unknown(
    bench: Bench, key: AgreementKey, changes: dict[str, Any]
) -> None:
    bench.says(QUERY, KNOWN | changes)
    assert isinstance(await bench.agreements.query_agreement(bench.account, key), Unknown)


async def test_the_number_that_was_asked_for_has_to_be_in_the_answer(bench: Bench) -> None:
    bench.says(QUERY, KNOWN | {"external_agreement_no": None})
    assert isinstance(await bench.agreements.query_agreement(bench.account, UNSIGNED), Unknown)
    assert isinstance(await bench.agreements.query_agreement(bench.account, SIGNED), AgreementReport)
    bench.says(QUERY, KNOWN | {"agreement_no": "20265522000000000002"})
    assert isinstance(await bench.agreements.query_agreement(bench.account, SIGNED), Unknown)
    # An agreement in force that cannot be charged is none; one that is only begun may have no number yet.
    bench.says(QUERY, KNOWN | {"agreement_no": None})
    assert isinstance(await bench.agreements.query_agreement(bench.account, UNSIGNED), Unknown)
    bench.says(QUERY, KNOWN | {"agreement_no": None, "status": "TEMP"})
    begun = await bench.agreements.query_agreement(bench.account, UNSIGNED)
    assert isinstance(begun, AgreementReport)
    assert (begun.status, begun.agreement_no) == (ReportedAgreement.PENDING, None)


@pytest.mark.parametrize(
    ("said", "stands_at"),
    [("2026-12-22 00:00:00", date(2026, 12, 22)), ("22.12.2026", None), ("2026-13-01", None), ("", None)],
)
async def test_a_date_that_cannot_be_read_loses_only_the_date(bench: Bench, said: str, stands_at: date | None) -> None:
    bench.says(QUERY, KNOWN | {"next_deduct_time": said, "principal_id": "", "principal_open_id": "074a1CcTG"})
    found = await bench.agreements.query_agreement(bench.account, SIGNED)
    assert isinstance(found, AgreementReport)
    assert (found.status, found.next_deduction_on) == (ReportedAgreement.ACTIVE, stands_at)
    assert found.payer_id == "074a1CcTG"


# Cancelling


@pytest.mark.parametrize(
    ("key", "content"), [(SIGNED, {"agreement_no": THEIRS}), (UNSIGNED, BY_OUR_NUMBER)], ids=["signed", "unsigned"]
)
async def test_a_cancelled_agreement_is_over(bench: Bench, key: AgreementKey, content: dict[str, str]) -> None:
    bench.says(UNSIGN, DONE)
    done = await bench.agreements.cancel_agreement(bench.account, key)
    assert done == report(ReportedAgreement.ENDED, "answer", agreement_no=key.agreement_no)
    assert bench.content() == content
    assert bench.server.received[0].query()["notify_url"] == NOTIFY
    assert bench.asked == ["user.agreement.unsign"]


async def test_one_that_is_over_already_is_over(bench: Bench) -> None:
    bench.says(UNSIGN, refused("AGREEMENT_HAS_UNSIGNED"))
    done = await bench.agreements.cancel_agreement(bench.account, SIGNED)
    assert done == report(ReportedAgreement.ENDED, "answer", agreement_no=THEIRS)
    assert bench.asked == ["user.agreement.unsign"]


_MAY_BE_OVER = [
    "AGREEMENT_NOT_EXIST",
    "USER_AGREEMENT_NOT_EXIST",
    "USER_AGREEMENT_STATUS_NOT_NORMAL",
    "USER_AGREEMENT_QUERY_FAIL",
    "USER_AGREEMENT_UNSIGN_FAIL",
    "ASYNC_UNSIGN_CAN_NOT_REJECT",
]


@pytest.mark.parametrize("sub_code", _MAY_BE_OVER)
async def test_what_may_be_over_is_asked_about(bench: Bench, sub_code: str) -> None:
    bench.says(UNSIGN, refused(sub_code))

    async def cancelled(key: AgreementKey, answer: dict[str, Any]) -> Any:
        bench.says(QUERY, answer)
        return await bench.agreements.cancel_agreement(bench.account, key)

    over = report(ReportedAgreement.ENDED, agreement_no=THEIRS)
    assert await cancelled(SIGNED, refused("USER_AGREEMENT_NOT_EXIST")) == over
    assert (await cancelled(SIGNED, KNOWN | {"status": "STOP"})).status is ReportedAgreement.ENDED
    nothing = report(ReportedAgreement.NOT_FOUND)
    assert await cancelled(UNSIGNED, refused("USER_AGREEMENT_NOT_EXIST")) == nothing
    assert (await cancelled(UNSIGNED, KNOWN | {"status": "TEMP"})).status is ReportedAgreement.PENDING
    # It is in force after all: then it was refused.
    words = await cancelled(SIGNED, KNOWN)
    assert isinstance(words, Rejected)
    assert (words.code, words.message) == (sub_code, "不行")
    for answer in (refused("SYSTEM_ERROR"), refused("INVALID_PARAMETER"), KNOWN | {"agreement_no": "2"}):
        unknown = await cancelled(SIGNED, answer)
        assert isinstance(unknown, Unknown)
        assert unknown.words == words
    assert bench.asked == ["user.agreement.unsign", "user.agreement.query"] * 8


async def test_a_cancellation_of_another_agreement_is_unknown(bench: Bench) -> None:
    bench.says(UNSIGN, DONE | {"agreement_no": "20265522000000000002"})
    assert isinstance(await bench.agreements.cancel_agreement(bench.account, SIGNED), Unknown)


# Putting off


async def test_the_plan_stands_at_the_date_that_alipay_says(bench: Bench) -> None:
    bench.says(MODIFY, DONE | {"agreement_no": THEIRS, "deduct_time": "2026-12-24"})
    assert await bench.agreements.put_off(bench.account, SIGNED, date(2026, 12, 24)) == PutOff(date(2026, 12, 24))
    assert bench.content() == {"agreement_no": THEIRS, "deduct_time": "2026-12-24"}
    assert await bench.agreements.put_off(bench.account, SIGNED, date(2026, 12, 25)) == PutOff(date(2026, 12, 24))


@pytest.mark.parametrize(
    "fields", [{"agreement_no": "2", "deduct_time": "2026-12-24"}, {"agreement_no": THEIRS}, {"deduct_time": "soon"}]
)
async def test_a_date_that_is_not_said_is_not_known(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says(MODIFY, DONE | fields)
    assert isinstance(await bench.agreements.put_off(bench.account, SIGNED, date(2026, 12, 24)), Unknown)


@pytest.mark.parametrize("sub_code", ["ILLEGAL_EXECUTION_TIME", "ILLEGAL_AGREEMENT", "INVALID_PARAMETER"])
async def test_a_date_that_alipay_does_not_take_is_rejected(bench: Bench, sub_code: str) -> None:
    bench.says(MODIFY, refused(sub_code))
    outcome = await bench.agreements.put_off(bench.account, SIGNED, date(2026, 12, 24))
    assert isinstance(outcome, Rejected)
    assert outcome.code == sub_code


async def test_what_is_not_signed_has_no_plan(bench: Bench) -> None:
    with pytest.raises(ValueError, match="not signed"):
        await bench.agreements.put_off(bench.account, UNSIGNED, date(2026, 12, 24))
    assert bench.server.received == []


# Every kind of answer, for all three calls


async def _query(bench: Bench) -> Any:
    return await bench.agreements.query_agreement(bench.account, SIGNED)


async def _cancel(bench: Bench) -> Any:
    return await bench.agreements.cancel_agreement(bench.account, SIGNED)


async def _put_off(bench: Bench) -> Any:
    return await bench.agreements.put_off(bench.account, SIGNED, date(2026, 12, 24))


_CALLS = {QUERY: _query, UNSIGN: _cancel, MODIFY: _put_off}


@pytest.mark.parametrize("method", _CALLS)
@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"code": "20000", "sub_code": "isp.unknow-error"}, Unknown),
        ({"code": "40004", "sub_code": "SYSTEM_ERROR"}, Unknown),
        ({"code": "10003"}, Unknown),
        ({}, Unknown),
        ({"code": "40005", "sub_code": "isv.app-call-limited"}, NotReached),
        ({"code": "20001", "sub_code": "aop.invalid-app-auth-token"}, Rejected),
        ({"code": "40002", "sub_code": "isv.invalid-signature"}, Rejected),
        ({"code": "40006", "sub_code": "isv.insufficient-isv-permissions"}, Rejected),
        ({"code": "40004", "sub_code": "INVALID_PARAMETER"}, Rejected),
        ({"code": "40004", "sub_code": "MERCHANT_STATUS_IS_NOT_NORMAL"}, Rejected),
        ({"code": "40004", "sub_code": "NEVER_HEARD_OF"}, Rejected),
    ],
)
async def test_every_code_is_judged_alike_in_every_call(
    bench: Bench, method: str, fields: dict[str, Any], kind: type
) -> None:
    bench.says(method, fields)
    assert isinstance(await _CALLS[method](bench), kind)
    assert len(bench.server.received) == 1


@pytest.mark.parametrize("method", _CALLS)
async def test_an_answer_that_cannot_be_believed_is_unknown(bench: Bench, method: str) -> None:
    node = method.replace(".", "_") + "_response"
    good = KNOWN | {"deduct_time": "2026-12-24"}
    genuine = signed_answer(method, good)
    gone = {"code": "40004", "sub_code": "AGREEMENT_HAS_UNSIGNED"}
    for body in (
        unsigned_answer(node, good),
        unsigned_answer(node, gone),
        unsigned_answer("error_response", gone),
        signed_answer(method, good, by="other"),
        signed_answer(method, gone, by="app"),
        genuine.replace(b"NORMAL", b"NORMAM"),
        genuine.replace(b'"sign":"', b'"sign":"A'),
        signed_answer("alipay.trade.query", good),
        b"",
        b"<html>gateway</html>",
        genuine[:-1],
    ):
        bench.bodies[method] = body
        assert isinstance(await _CALLS[method](bench), Unknown), body[:200]


async def test_no_changed_byte_of_an_answer_passes(bench: Bench) -> None:
    genuine = signed_answer(QUERY, KNOWN)
    bench.bodies[QUERY] = genuine
    meant = await _query(bench)
    for at in range(0, len(genuine), 5):
        bench.bodies[QUERY] = genuine[:at] + bytes([genuine[at] ^ 0x01]) + genuine[at + 1 :]
        assert isinstance(await _query(bench), Unknown), at
    assert isinstance(meant, AgreementReport)


@pytest.mark.parametrize(
    "sub_code",
    [
        "USER_AGREEMENT_NOT_EXIST",
        "AGREEMENT_NOT_EXIST",
        "AGREEMENT_HAS_UNSIGNED",
        "USER_NOT_EXIST_ERROR",
        "USER_NOT_EXSIT_ERROR",
        "PRODUCT_CODE_NOT_SUPPORTED_ERROR",
        "AUTHOREE_IS_NOT_MATCH",
        "LOGONID_IS_REPEATED",
        "MERCHANT_STATUS_IS_NOT_NORMAL",
        "MERCHANT_AGREEMENT_IS_NOT_EXIST",
        "USER_AGREEMENT_STATUS_NOT_NORMAL",
        "USER_AGREEMENT_QUERY_FAIL",
        "USER_AGREEMENT_UNSIGN_FAIL",
        "ILLEGAL_PARAMS",
        "ASYNC_UNSIGN_CAN_NOT_REJECT",
        "ILLEGAL_EXECUTION_TIME",
        "ILLEGAL_AGREEMENT",
    ],
)
def test_every_documented_refusal_is_explained(sub_code: str) -> None:
    english, chinese = explain("40004", sub_code)
    assert (english, chinese) != explain("40004", "NEVER_HEARD_OF")
    assert english.isascii()
    assert not chinese.isascii()


# What is refused before anything happens


@pytest.mark.parametrize(
    ("changes", "field", "error"),
    [
        ({"ceiling_fen": 0}, "maxPrice", InvalidAmount),
        ({"ceiling_fen": 10_001}, "maxPrice", InvalidAmount),
        ({"first_payment": FirstPayment("SY1", 0)}, "price", InvalidAmount),
        ({"first_payment": FirstPayment("SY1", 10_000_000_000)}, "price", InvalidAmount),
        ({"interval_days": 6}, "intervalDays", InvalidInput),
        ({"interval_days": -30}, "intervalDays", InvalidInput),
        ({"first_deduction_on": date(2026, 11, 21)}, "firstDeductionOn", InvalidInput),
        ({"scene": "INDUSTRY|GAMBLING"}, "scene", SceneNotAllowed),
        ({"scene": "DIGITAL_MEDIA"}, "scene", SceneNotAllowed),
        ({"scene": ""}, "scene", SceneNotAllowed),
        ({"subject": " "}, "subject", InvalidInput),
        ({"subject": "a&b"}, "subject", InvalidInput),
        ({"subject": "长" * 257}, "subject", InvalidInput),
        ({"return_url": "/done"}, "returnUrl", InvalidInput),
        ({"return_url": "https://shop.example.com/" + "a" * 240}, "returnUrl", InvalidInput),
    ],
)
async def test_what_alipay_could_never_accept_is_named_first(
    bench: Bench, changes: dict[str, Any], field: str, error: type[CallerError]
) -> None:
    with pytest.raises(error) as raised:
        bench.agreements.check_agreement(bench.account, replace(REQUEST, **changes))
    assert type(raised.value) is error
    assert raised.value.field == field
    assert raised.value.message_zh != error.default_zh
    assert bench.server.received == []


async def test_a_scene_that_is_not_allowed_names_those_that_are(bench: Bench) -> None:
    own = opened_account(cycle_scenes="INDUSTRY|EDU,INDUSTRY|APP_STORE")
    with pytest.raises(SceneNotAllowed, match=r"signed: INDUSTRY\|APP_STORE, INDUSTRY\|EDU$"):
        bench.agreements.check_agreement(own, REQUEST)
    with pytest.raises(SceneNotAllowed, match="signs no agreements") as raised:
        bench.agreements.check_agreement(opened_account(cycle_scenes="none"), REQUEST)
    assert raised.value.field == "scene"


async def test_an_account_may_agree_on_more_than_usual(bench: Bench) -> None:
    own = opened_account(cycle_largest_amount="2000", cycle_shortest_interval_days="1", cycle_window_days="0")
    bench.agreements.check_agreement(own, replace(REQUEST, ceiling_fen=200_000, interval_days=1))
    with pytest.raises(InvalidAmount, match=r"2000\.00"):
        bench.agreements.check_agreement(own, replace(REQUEST, ceiling_fen=200_001))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ceiling_fen": 1},
        {"ceiling_fen": 10_000},
        {"interval_days": 7},
        {"interval_days": 3650},
        {"first_deduction_on": date(2026, 11, 22)},
        {"return_url": None},
        # More than a deduction may come to: it is a payment of its own.
        {"first_payment": FirstPayment("SY20261122000001", 100_000)},
        {"payer_name": "长" * 100},
        {"expires_at": NOW + timedelta(minutes=1)},
    ],
)
async def test_what_alipay_accepts_passes(bench: Bench, changes: dict[str, Any]) -> None:
    bench.agreements.check_agreement(bench.account, replace(REQUEST, **changes))


async def test_today_is_a_day_in_china(bench: Bench) -> None:
    midnight = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
    late = replace(REQUEST, created_at=midnight, expires_at=midnight + timedelta(hours=1))
    bench.agreements.check_agreement(bench.account, replace(late, first_deduction_on=date(2026, 11, 23)))
    with pytest.raises(InvalidInput, match="2026-11-23 or later"):
        bench.agreements.check_agreement(bench.account, replace(late, first_deduction_on=date(2026, 11, 22)))


@pytest.mark.parametrize(
    "changes",
    [
        {"external_agreement_no": "SA_1"},
        {"external_agreement_no": ""},
        {"external_agreement_no": "A" * 33},
        {"payer_name": " "},
        {"payer_name": "长" * 101},
        {"expires_at": NOW + timedelta(seconds=59)},
        {"first_payment": FirstPayment("SY-1", 100)},
    ],
)
async def test_what_is_ours_to_make_is_our_own_mistake(bench: Bench, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"ours to make|must live"):
        bench.agreements.check_agreement(bench.account, replace(REQUEST, **changes))


def test_the_schedule_rises_and_ends_before_the_link_does() -> None:
    ages = AlipayAgreements.query_schedule
    assert list(ages) == sorted(set(ages))
    assert ages[-1] < AlipayAgreements.signing_life

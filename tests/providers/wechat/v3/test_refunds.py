"""APIv3 refunds: what is sent, how much each answer is believed, and what their notices say."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.providers.contract import (
    NotificationRefused,
    NotReached,
    RefundOutcome,
    RefundReport,
    Rejected,
    ReportedRefund,
    Unknown,
)
from app.providers.wechat.refunds import STATUSES
from app.providers.wechat.v3.refunds import read_refund_answer
from tests.providers.scripted import Behaviour, Received, answering, hang
from tests.providers.wechat.refunding import (
    NOT_FOUND,
    NUMBER,
    REFUND_ID,
    REFUND_NUMBER,
    REFUNDED_AT,
    REQUEST,
    TRANSACTION,
    refund_request,
    report,
)
from tests.providers.wechat.reports import payment_in, refund_in
from tests.providers.wechat.v3.bench import Bench, benching
from tests.providers.wechat.v3.keyring import (
    EVENT_ID,
    MCHID,
    PAID,
    SUB_MCHID,
    encrypted,
    notice,
    stamped,
)
from tests.providers.wechat.v3.test_dialect import _check_signed

PATH = "/v3/refund/domestic/refunds"
REFUND: dict[str, Any] = {
    "refund_id": REFUND_ID,
    "out_refund_no": REFUND_NUMBER,
    "transaction_id": TRANSACTION,
    "out_trade_no": NUMBER,
    "channel": "ORIGINAL",
    "user_received_account": "招商银行信用卡0403",
    "success_time": "2026-11-22T09:02:09+08:00",
    "create_time": "2026-11-22T09:02:03+08:00",
    "status": "SUCCESS",
    "funds_account": "AVAILABLE",
    "amount": {
        "total": 1990, "refund": 501, "from": [], "payer_total": 1890, "payer_refund": 476, "settlement_refund": 501,
        "settlement_total": 1990, "discount_refund": 25, "currency": "CNY", "refund_fee": 0,
    },
    "promotion_detail": [],
}  # fmt: skip
TAKEN = {name: value for name, value in REFUND.items() if name != "success_time"} | {"status": "PROCESSING"}
NOTICE: dict[str, Any] = {
    "mchid": MCHID,
    "transaction_id": TRANSACTION,
    "out_trade_no": NUMBER,
    "refund_id": REFUND_ID,
    "out_refund_no": REFUND_NUMBER,
    "refund_status": "SUCCESS",
    "success_time": "2026-11-22T09:02:09+08:00",
    "user_received_account": "招商银行信用卡0403",
    "amount": {"total": 1990, "refund": 501, "payer_total": 1890, "payer_refund": 476},
}
PARTNER_NOTICE = {name: value for name, value in NOTICE.items() if name != "mchid"} | {
    "sp_mchid": MCHID,
    "sub_mchid": SUB_MCHID,
}
DONE = report(ReportedRefund.REFUNDED, amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT)
WORKING = report(ReportedRefund.PENDING, "answer", amount_fen=501, provider_refund_id=REFUND_ID)


class Desk:
    """A bench whose WeChat answers the asking for a refund and the question about one each in its own way."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.asking: Behaviour = hang
        self.asked: Behaviour = hang
        bench.wechat.answer = self._behave

    async def _behave(self, received: Received, writer: asyncio.StreamWriter) -> None:
        await (self.asking if received.body else self.asked)(received, writer)

    def said(self, fields: Any, **how: Any) -> Behaviour:
        return self._made(lambda: self.bench.wechat.says(fields, **how))

    def refused(self, status: int, code: str, message: str = "因为", *, signed: bool = False) -> Behaviour:
        return self._made(lambda: self.bench.wechat.refuses(status, code, message, signed=signed))

    def _made(self, make: Any) -> Behaviour:
        make()
        made = self.bench.wechat.answer
        self.bench.wechat.answer = self._behave
        assert made is not None
        return made

    @property
    def none_of_this_number(self) -> Behaviour:
        return self.refused(404, "RESOURCE_NOT_EXISTS", "退款单不存在")

    @property
    def calls(self) -> list[str]:
        return ["asking" if one.body else "question" for one in self.bench.wechat.orders]

    async def create(self, **changes: Any) -> RefundOutcome:
        return await self.bench.dialect.create_refund(self.bench.account, refund_request(**changes))

    async def query(self) -> RefundOutcome:
        return await self.bench.dialect.query_refund(self.bench.account, REQUEST)


@pytest.fixture
def desk(bench: Bench) -> Desk:
    return Desk(bench)


@pytest.fixture(params=["v3", "v3_certificate", "v3_partner"])
async def any_desk(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> AsyncIterator[Desk]:
    async with benching(client, request.param) as made:
        yield Desk(made)


# What is sent


async def test_a_refund_is_signed_and_holds_what_was_asked_for(any_desk: Desk) -> None:
    any_desk.asking = any_desk.said(TAKEN)
    assert await any_desk.create() == WORKING
    [sent] = any_desk.bench.wechat.orders
    assert sent.target == PATH
    _check_signed(sent, "POST")
    partner = {"sub_mchid": SUB_MCHID} if any_desk.bench.account.mode == "v3_partner" else {}
    assert json.loads(sent.body) == partner | {
        "transaction_id": TRANSACTION,
        "out_refund_no": REFUND_NUMBER,
        "reason": '少了 "一杯" + 100% <b>&',
        "notify_url": "https://pay.example.com/notify/wechat/7",
        "amount": {"refund": 501, "total": 1990, "currency": "CNY"},
    }


async def test_a_refund_without_wechats_number_goes_by_ours_and_a_long_reason_is_cut(desk: Desk) -> None:
    desk.asking = desk.said(TAKEN)
    await desk.create(transaction_id=None, reason="茶" * 80)
    await desk.create(transaction_id=None, reason=None)
    first, second = (json.loads(one.body) for one in desk.bench.wechat.orders)
    assert (first["out_trade_no"], "transaction_id" in first, first["reason"]) == (NUMBER, False, "茶" * 26)
    assert "reason" not in second


async def test_a_question_names_our_number_and_the_sub_merchant(any_desk: Desk) -> None:
    any_desk.asked = any_desk.said(REFUND)
    assert await any_desk.query() == DONE
    [sent] = any_desk.bench.wechat.orders
    partner = any_desk.bench.account.mode == "v3_partner"
    assert sent.target == f"{PATH}/{REFUND_NUMBER}" + (f"?sub_mchid={SUB_MCHID}" if partner else "")
    assert sent.body == b""
    _check_signed(sent, "GET")


async def test_the_same_refund_always_gives_the_same_bytes(desk: Desk) -> None:
    desk.asking = desk.said(TAKEN)
    for _ in range(3):
        await desk.create()
    assert len({one.body for one in desk.bench.wechat.orders}) == 1


@pytest.mark.parametrize("amount_fen", [1, 2, 29, 58, 1013, 4_503_599_627_370_497, 999_999_999_999])
async def test_every_fen_goes_out_and_comes_back(desk: Desk, amount_fen: int) -> None:
    amount = {"total": amount_fen, "refund": amount_fen, "currency": "CNY"}
    desk.asking = desk.said(TAKEN | {"amount": amount})
    outcome = await desk.create(amount_fen=amount_fen, total_fen=amount_fen)
    assert isinstance(outcome, RefundReport)
    assert outcome.amount_fen == amount_fen
    assert json.loads(desk.bench.wechat.orders[0].body)["amount"] == amount


# Answers


@pytest.mark.parametrize("word", [*STATUSES, "A_WORD_OF_TOMORROW"])
async def test_every_state_is_reported_as_the_table_says(desk: Desk, word: str) -> None:
    desk.asking = desk.asked = desk.said(REFUND | {"status": word})
    for outcome in (await desk.create(), await desk.query()):
        assert isinstance(outcome, RefundReport)
        assert outcome.status is STATUSES.get(word, ReportedRefund.PENDING)
        assert outcome.amount_fen == 501
        assert (outcome.failure is None) == (word in ("SUCCESS", "PROCESSING", "A_WORD_OF_TOMORROW"))


@pytest.mark.parametrize(
    "changes",
    [
        {"out_refund_no": "SR2"}, {"out_refund_no": None}, {"out_refund_no": 1}, {"out_trade_no": None},
        {"status": None}, {"status": 1}, {"amount": None}, {"amount": {}}, {"amount": []}, {"amount": 501},
        {"amount": {"refund": 5.01}}, {"amount": {"refund": "501"}}, {"amount": {"refund": True}},
        {"amount": {"refund": -1}}, {"amount": {"refund": 2**63}}, {"amount": {"refund": 501, "currency": "HKD"}},
        {"amount": {"refund": 501, "currency": 1}},
    ],
    ids=str,
)  # fmt: skip
async def test_an_answer_that_cannot_be_about_this_refund_is_unknown(desk: Desk, changes: dict[str, Any]) -> None:
    desk.asking = desk.asked = desk.said(REFUND | changes)
    assert isinstance(await desk.create(), Unknown)
    assert isinstance(await desk.query(), Unknown)


async def test_another_amount_or_payment_goes_to_the_caller(desk: Desk) -> None:
    desk.asked = desk.said(REFUND | {"amount": {"refund": 502, "total": 1990}, "out_trade_no": "SY2"})
    outcome = await desk.query()
    assert isinstance(outcome, RefundReport)
    assert (outcome.amount_fen, outcome.out_trade_no, outcome.status) == (502, "SY2", ReportedRefund.REFUNDED)


async def test_a_time_that_cannot_be_read_loses_only_itself(desk: Desk) -> None:
    for text in ("yesterday", "2026-11-22T09:02:09", ""):
        desk.asked = desk.said(REFUND | {"success_time": text})
        outcome = await desk.query()
        assert isinstance(outcome, RefundReport)
        assert (outcome.status, outcome.refunded_at) == (ReportedRefund.REFUNDED, None)


@given(st.dictionaries(st.sampled_from(sorted(REFUND)), st.none() | st.integers() | st.text() | st.floats()))
def test_no_fields_crash_the_reader(changes: dict[str, Any]) -> None:
    assert isinstance(read_refund_answer(REFUND | changes, REQUEST, "query"), RefundReport | Unknown)
    assert isinstance(read_refund_answer(changes, REQUEST, "answer"), RefundReport | Unknown)


# Refusals

_CODES = [
    (403, "NOT_ENOUGH"), (403, "USER_ACCOUNT_ABNORMAL"), (400, "PARAM_ERROR"), (404, "MCH_NOT_EXISTS"),
    (404, "RESOURCE_NOT_EXISTS"), (400, "INVALID_REQUEST"), (403, "NO_AUTH"), (400, "A_CODE_OF_TOMORROW"),
]  # fmt: skip


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("status", "code"), _CODES)
async def test_a_refusal_fails_the_refund_once_wechat_holds_none_of_its_number(
    desk: Desk, status: int, code: str, signed: bool
) -> None:
    desk.asking, desk.asked = desk.refused(status, code, signed=signed), desk.none_of_this_number
    outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (code, "因为")
    assert desk.calls == ["asking", "question"]


@pytest.mark.parametrize(("status", "code"), _CODES)
async def test_a_refused_repeat_of_a_refund_that_was_made_is_that_refund(desk: Desk, status: int, code: str) -> None:
    desk.asking, desk.asked = desk.refused(status, code), desk.said(REFUND)
    assert await desk.create() == DONE


@pytest.mark.parametrize(("status", "code"), _CODES)
async def test_a_refusal_without_an_answer_to_the_question_is_unknown(desk: Desk, status: int, code: str) -> None:
    desk.asking = desk.refused(status, code)
    for asked in (
        desk.refused(500, "SYSTEM_ERROR"), desk.refused(429, "FREQUENCY_LIMITED"), desk.refused(401, "SIGN_ERROR"),
        desk.said(REFUND | {"out_refund_no": "SR2"}), answering(b"<html>", status=404), answering(b"", status=502),
    ):  # fmt: skip
        desk.asked = asked
        assert isinstance(await desk.create(), Unknown)


async def test_a_wrong_key_fails_the_refund_although_it_cannot_be_asked_about(desk: Desk) -> None:
    desk.asking = desk.asked = desk.refused(401, "SIGN_ERROR", "签名错误")
    outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, "private_key" in outcome.explanation) == ("SIGN_ERROR", True)


async def test_an_empty_balance_says_what_to_do(desk: Desk) -> None:
    desk.asking, desk.asked = desk.refused(403, "NOT_ENOUGH", "基本账户余额不足"), desk.none_of_this_number
    outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert "Top it up" in outcome.explanation
    assert "充值" in outcome.explanation_zh


async def test_a_number_used_with_another_amount_is_never_failed(desk: Desk) -> None:
    desk.asking = desk.refused(400, "INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试")
    desk.asked = desk.none_of_this_number
    assert isinstance(await desk.create(), Unknown)
    desk.asked = desk.said(REFUND | {"amount": {"refund": 500, "total": 1990}})
    outcome = await desk.create()
    assert isinstance(outcome, RefundReport)
    assert outcome.amount_fen == 500


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "SYSTEM_ERROR"), (429, "FREQUENCY_LIMITED"), (429, "RATELIMIT_EXCEEDED"), (502, "X"), (503, "NOT_ENOUGH"),
     (400, "SYSTEM_ERROR"), (500, "BANK_ERROR"), (400, "BIZERR_NEED_RETRY"), (429, "")],
)  # fmt: skip
@pytest.mark.parametrize("signed", [True, False])
async def test_what_may_have_acted_is_unknown_and_not_asked_about_at_once(
    desk: Desk, status: int, code: str, signed: bool
) -> None:
    desk.asking = desk.refused(status, code, signed=signed)
    assert isinstance(await desk.create(), Unknown)
    assert desk.calls == ["asking"]


async def test_an_unsigned_or_wrongly_signed_answer_is_unknown(desk: Desk) -> None:
    body = json.dumps(REFUND).encode()
    for answer in (
        answering(body),
        desk.said(REFUND, status=202),
        desk.said(REFUND, headers={"wechatpay-signature": "AAAA"}),
        desk.said(REFUND, headers=stamped(body, by="stranger")),
        desk.said(b"[]"),
        desk.said(b""),
        answering(b"", status=302),
    ):
        desk.asking = desk.asked = answer
        assert isinstance(await desk.create(), Unknown)
        assert isinstance(await desk.query(), Unknown)


async def test_only_what_was_not_sent_is_not_reached(client: httpx.AsyncClient) -> None:
    async with benching(client) as bench:
        desk = Desk(bench)
    # Nobody listens any more.
    assert isinstance(await desk.create(), NotReached)
    assert isinstance(await desk.query(), NotReached)
    async with benching(client, "v3_certificate") as bench:
        desk = Desk(bench)
        bench.wechat.certificates = answering(b"", status=502)
        assert isinstance(await desk.create(), NotReached)
        assert desk.calls == []


async def test_an_account_that_reads_no_certificates_is_told_why(client: httpx.AsyncClient) -> None:
    async with benching(client, "v3_certificate") as bench:
        bench.wechat.certificates = ()
        desk = Desk(bench)
        outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "RESOURCE_NOT_EXISTS"
    assert desk.calls == []


async def test_a_connection_that_breaks_is_unknown(desk: Desk) -> None:
    async def drop(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    desk.asking = desk.asked = drop
    assert isinstance(await desk.create(), Unknown)
    assert isinstance(await desk.query(), Unknown)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(404, "RESOURCE_NOT_EXISTS", NOT_FOUND), (500, "SYSTEM_ERROR", Unknown), (429, "FREQUENCY_LIMITED", NotReached),
     (404, "MCH_NOT_EXISTS", Rejected), (400, "PARAM_ERROR", Rejected), (401, "SIGN_ERROR", Rejected)],
)  # fmt: skip
async def test_a_refused_question(desk: Desk, status: int, code: str, expected: Any) -> None:
    desk.asked = desk.refused(status, code)
    outcome = await desk.query()
    assert outcome == expected if isinstance(expected, RefundReport) else isinstance(outcome, expected)


# Notices


def refund_notice(refund: dict[str, Any] | bytes = NOTICE, event_type: str = "REFUND.SUCCESS", **changes: Any) -> bytes:
    resource = {"original_type": "refund"} | changes.pop("resource", {})
    return notice(refund, event_type=event_type, resource=resource, **changes)


async def read(bench: Bench, body: bytes) -> RefundReport:
    return refund_in(await bench.read(stamped(body), body))


async def reason(bench: Bench, body: bytes, headers: dict[str, str] | None = None) -> str:
    with pytest.raises(NotificationRefused) as refused:
        await bench.read(stamped(body) if headers is None else headers, body)
    return refused.value.reason


async def test_a_refund_is_understood(bench: Bench) -> None:
    assert await read(bench, refund_notice()) == report(
        ReportedRefund.REFUNDED, "notification", amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT,
        account_claims={"mchid": MCHID},
    )  # fmt: skip
    assert bench.wechat.orders == []


async def test_a_partners_refund_names_the_merchant(client: httpx.AsyncClient) -> None:
    async with benching(client, "v3_partner") as bench:
        said = await read(bench, refund_notice(PARTNER_NOTICE))
        assert said.account_claims == {"sp_mchid": MCHID, "sub_mchid": SUB_MCHID}
        expected = bench.account.expected_claims
        assert all(claim in expected[name] for name, claim in said.account_claims.items())
        assert await reason(bench, refund_notice(NOTICE)) == "malformed"


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("SUCCESS", ReportedRefund.REFUNDED),
        ("CLOSED", ReportedRefund.FAILED),
        ("ABNORMAL", ReportedRefund.PENDING),
    ],
)
async def test_each_event_says_its_state(bench: Bench, word: str, status: ReportedRefund) -> None:
    said = await read(bench, refund_notice(NOTICE | {"refund_status": word}, f"REFUND.{word}"))
    assert (said.status, said.amount_fen) == (status, 501)
    assert (said.failure is None) == (word == "SUCCESS")
    for other in {"SUCCESS", "CLOSED", "ABNORMAL", "PROCESSING"} - {word}:
        assert await reason(bench, refund_notice(NOTICE | {"refund_status": other}, f"REFUND.{word}")) == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"out_refund_no": None}, {"out_refund_no": ""}, {"out_trade_no": None}, {"refund_status": None},
        {"mchid": None}, {"amount": None}, {"amount": {"refund": "501"}}, {"amount": {"refund": 5.01}},
        {"amount": {"refund": -501}}, {"amount": {"refund": 501, "currency": "USD"}}, {"amount": [501]},
    ],
    ids=str,
)  # fmt: skip
async def test_a_notice_that_cannot_be_understood_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    assert await reason(bench, refund_notice(NOTICE | changes)) == "malformed"


async def test_another_merchants_refund_and_amount_reach_the_caller(bench: Bench) -> None:
    said = await read(bench, refund_notice(NOTICE | {"mchid": "1900000777", "amount": {"refund": 502}}))
    assert (said.account_claims, said.amount_fen) == ({"mchid": "1900000777"}, 502)


async def test_a_payment_is_no_refund_and_a_refund_no_payment(bench: Bench) -> None:
    assert await reason(bench, refund_notice(PAID)) == "malformed"
    assert await reason(bench, refund_notice(resource={"original_type": "transaction"})) == "malformed"
    assert await reason(bench, notice(NOTICE)) == "malformed"
    assert await reason(bench, notice(resource={"original_type": "refund"})) == "malformed"
    body = notice()
    assert payment_in(await bench.read(stamped(body), body)).out_trade_no == NUMBER


async def test_a_refund_under_another_key_is_refused(bench: Bench) -> None:
    sealed = encrypted(json.dumps(NOTICE).encode(), apiv3_key="x" * 32, associated_data="refund")
    assert await reason(bench, refund_notice(resource=sealed)) == "malformed"
    body = refund_notice()
    assert await reason(bench, body, stamped(body, by="stranger")) == "signature"
    assert await reason(bench, body, {}) == "signature"


async def test_repeats_are_one_event_and_other_contents_another(bench: Bench) -> None:
    async def event(body: bytes) -> str:
        key = (await bench.read(stamped(body, nonce="another"), body)).event_key
        assert isinstance(key, str)
        return key

    first = await event(refund_notice())
    assert first.startswith(f"{EVENT_ID}:")
    assert await event(refund_notice(create_time="2026-11-22T10:00:00+08:00", summary="again")) == first
    others = [
        refund_notice(id="EV-other"),
        refund_notice(NOTICE | {"amount": {"refund": 502}}),
        refund_notice(NOTICE | {"out_refund_no": "SR2"}),
        refund_notice(NOTICE | {"out_trade_no": "SY2"}),
        refund_notice(NOTICE | {"mchid": "1900000777"}),
        refund_notice(NOTICE | {"refund_status": "CLOSED"}, "REFUND.CLOSED"),
        notice(),
    ]
    assert len({first, *[await event(body) for body in others]}) == len(others) + 1


async def test_no_changed_byte_passes(bench: Bench) -> None:
    body = refund_notice()
    headers = stamped(body)
    assert await bench.read(headers, body)
    for at in range(len(body)):
        for bit in (1, 32, 128):
            changed = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
            assert await reason(bench, changed, headers) == "signature"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=120) | st.dictionaries(st.sampled_from(sorted(NOTICE)), st.none() | st.integers() | st.text())
)
async def test_no_signed_content_crashes_the_reader(bench: Bench, content: bytes | dict[str, Any]) -> None:
    body = refund_notice(content if isinstance(content, bytes) else NOTICE | content)
    try:
        said = await bench.read(stamped(body), body)
    except NotificationRefused as exc:
        outcome = exc.reason
    else:
        outcome = type(said.report).__name__
    assert outcome in ("malformed", "RefundReport")

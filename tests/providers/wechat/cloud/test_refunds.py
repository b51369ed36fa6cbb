"""Cloud pay's refunds: what is asked for, what an answer in lists says, and callbacks that are nothing but a hint."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.providers.contract import (
    Notification,
    NotificationRefused,
    NotReached,
    RefundOutcome,
    RefundReport,
    Rejected,
    ReportedRefund,
    Unknown,
)
from app.providers.transport import RawAnswer
from app.providers.wechat.cloud import CloudDialect
from app.providers.wechat.cloud.account import CloudAccount
from app.providers.wechat.cloud.answers import judge_answer
from app.providers.wechat.refunds import STATUSES
from app.providers.wechat.v2.refunds import found, unlisted
from tests.providers.scripted import Behaviour, Received, ScriptedServer, answering, hang, serving
from tests.providers.wechat.cloud.test_dialect import (
    APP_ID,
    HEADERS,
    NOW,
    PLATFORM_APP_ID,
    RESPDATA,
    SUB_MCH_ID,
    TOKEN,
    make,
    opened,
)
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
from tests.providers.wechat.reports import refund_in

ASKING, QUESTION = "/_/pay/refund", "/_/pay/queryrefund"
CLAIMS = {"appid": PLATFORM_APP_ID, "mch_id": "1800000001", "sub_appid": APP_ID, "sub_mch_id": SUB_MCH_ID}
TAKEN: dict[str, Any] = RESPDATA | {
    "transaction_id": TRANSACTION,
    "out_trade_no": NUMBER,
    "out_refund_no": REFUND_NUMBER,
    "refund_id": REFUND_ID,
    "refund_fee": 501,
    "total_fee": 1990,
    "cash_fee": 1990,
    "cash_refund_fee": 501,
    "coupon_refund_fee": 0,
    "coupon_type_list": [],
}
LISTS: dict[str, list[Any]] = {
    "out_refund_no_list": [REFUND_NUMBER],
    "refund_id_list": [REFUND_ID],
    "refund_channel": ["ORIGINAL"],
    "refund_fee_list": [501],
    "settlement_refund_fee_list": [501],
    "refund_status_list": ["SUCCESS"],
    "refund_success_time_list": ["2026-11-22 09:02:09"],
}
FOUND: dict[str, Any] = (
    RESPDATA
    | {"transaction_id": TRANSACTION, "out_trade_no": NUMBER, "total_fee": 1990, "cash_fee": 1990, "refund_count": 1}
    | LISTS
)
EMPTY = FOUND | {name: [] for name in LISTS}
CALLBACK: dict[str, Any] = {
    "returnCode": "SUCCESS",
    "resultCode": "SUCCESS",
    "appid": PLATFORM_APP_ID,
    "mchId": "1800000001",
    "subAppid": APP_ID,
    "subMchId": SUB_MCH_ID,
    "outTradeNo": NUMBER,
    "transactionId": TRANSACTION,
    "outRefundNo": REFUND_NUMBER,
    "refundId": REFUND_ID,
    "refundFee": 501,
    "refundStatus": "SUCCESS",
}
WORKING = report(ReportedRefund.PENDING, "answer", amount_fen=501, provider_refund_id=REFUND_ID, account_claims=CLAIMS)
DONE = report(
    ReportedRefund.REFUNDED, amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT,
    account_claims=CLAIMS,
)  # fmt: skip


def answer(respdata: Any, *, errcode: Any = 0) -> bytes:
    return json.dumps({"errcode": errcode, "errmsg": "words", "respdata": respdata}).encode()


def refusal(err_code: str, words: str = "微信说的话") -> bytes:
    return answer(RESPDATA | {"result_code": "FAIL", "err_code": err_code, "err_code_des": words})


NONE_OF_THIS_NUMBER = refusal("REFUNDNOTEXIST", "not exist")


class Desk:
    """A dialect, its account, and a platform that answers the asking and the question each in its own way."""

    def __init__(self, dialect: CloudDialect, account: CloudAccount, server: ScriptedServer) -> None:
        self.dialect = dialect
        self.account = account
        self.server = server
        self.says: dict[str, bytes | Behaviour] = {}
        server.behave = self._behave

    async def _behave(self, received: Received, writer: asyncio.StreamWriter) -> None:
        said = self.says.get(received.target, hang)
        await (answering(said) if isinstance(said, bytes) else said)(received, writer)

    @property
    def calls(self) -> list[str]:
        return [one.target for one in self.server.received]

    def sent(self) -> dict[str, Any]:
        content = json.loads(self.server.received[-1].body)
        assert len(content.pop("nonce_str")) == 32
        assert isinstance(content, dict)
        return content

    async def create(self, **changes: Any) -> RefundOutcome:
        return await self.dialect.create_refund(self.account, refund_request(**changes))

    async def query(self) -> RefundOutcome:
        return await self.dialect.query_refund(self.account, REQUEST)

    async def called_back(
        self, fields: dict[str, Any], *, headers: dict[str, str] | None = None, tail: str = TOKEN
    ) -> Notification:
        body = json.dumps(fields).encode()
        return await self.dialect.read_notification(self.account, HEADERS if headers is None else headers, body, tail)

    async def reason(self, fields: dict[str, Any], **how: Any) -> str:
        with pytest.raises(NotificationRefused) as refused:
            await self.called_back(fields, **how)
        return refused.value.reason


@pytest.fixture
async def desk(client: httpx.AsyncClient) -> AsyncIterator[Desk]:
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            dialect = make(client)
            yield Desk(dialect, opened(dialect, gateway=server.origin), server)


# What is sent


async def test_a_refund_holds_what_was_asked_for(desk: Desk) -> None:
    desk.says[ASKING] = answer(TAKEN)
    assert await desk.create() == WORKING
    assert desk.calls == [ASKING]
    assert desk.server.received[0].headers["content-type"] == "application/json"
    asked = {
        "sub_mch_id": SUB_MCH_ID,
        "transaction_id": TRANSACTION,
        "out_refund_no": REFUND_NUMBER,
        "total_fee": 1990,
        "refund_fee": 501,
        "refund_desc": '少了 "一杯" + 100% <b>&',
        "body": "退款",
        "env_id": "prod-1a2b3c4d5e",
        "callback_type": 2,
        "container": {"service": "shouyin", "path": f"/internal/notify/wechat/7/{TOKEN}"},
    }
    assert desk.sent() == asked
    await desk.create(transaction_id=None, reason=None)
    left_out = ("transaction_id", "refund_desc")
    assert desk.sent() == {n: v for n, v in asked.items() if n not in left_out} | {"out_trade_no": NUMBER}


async def test_a_question_names_our_number_alone(desk: Desk) -> None:
    desk.says[QUESTION] = answer(FOUND)
    assert await desk.query() == DONE
    assert desk.calls == [QUESTION]
    assert desk.sent() == {"sub_mch_id": SUB_MCH_ID, "out_refund_no": REFUND_NUMBER}


@pytest.mark.parametrize("amount_fen", [1, 2, 29, 58, 1013, 999_999_999_999])
async def test_every_fen_goes_out_and_comes_back(desk: Desk, amount_fen: int) -> None:
    desk.says |= {
        ASKING: answer(TAKEN | {"refund_fee": amount_fen}),
        QUESTION: answer(FOUND | {"refund_fee_list": [str(amount_fen)]}),
    }
    for outcome in (await desk.create(amount_fen=amount_fen, total_fen=amount_fen), await desk.query()):
        assert isinstance(outcome, RefundReport)
        assert outcome.amount_fen == amount_fen
    assert json.loads(desk.server.received[0].body)["refund_fee"] == amount_fen


# Answers


@pytest.mark.parametrize("word", [*STATUSES, "A_WORD_OF_TOMORROW"])
async def test_every_state_is_reported_as_the_table_says(desk: Desk, word: str) -> None:
    desk.says[QUESTION] = answer(FOUND | {"refund_status_list": [word]})
    outcome = await desk.query()
    assert isinstance(outcome, RefundReport)
    assert (outcome.status, outcome.amount_fen) == (STATUSES.get(word, ReportedRefund.PENDING), 501)
    assert (outcome.failure is None) == (word in ("SUCCESS", "PROCESSING", "A_WORD_OF_TOMORROW"))


async def test_the_refunds_of_a_list_are_told_apart_by_their_place(desk: Desk) -> None:
    many = {
        "out_refund_no_list": ["SR1", REFUND_NUMBER, "SR3"],
        "refund_id_list": ["1", REFUND_ID, "3"],
        "refund_fee_list": [9, 501, 7],
        "refund_status_list": ["PROCESSING", "SUCCESS", "CHANGE"],
        "refund_success_time_list": ["", "2026-11-22 09:02:09", ""],
    }
    desk.says[QUESTION] = answer(FOUND | many)
    assert await desk.query() == DONE
    numbered = {f"{name.removesuffix('_list')}_0": values[0] for name, values in LISTS.items()}
    desk.says[QUESTION] = answer({n: v for n, v in FOUND.items() if n not in LISTS} | numbered)
    assert await desk.query() == DONE


async def test_an_answer_without_its_lists_is_found_and_needs_a_person(desk: Desk) -> None:
    """So is the documents' own example."""
    desk.says[QUESTION] = answer(EMPTY)
    outcome = await desk.query()
    assert isinstance(outcome, RefundReport)
    assert (outcome.status, outcome.amount_fen, outcome.out_trade_no) == (ReportedRefund.PENDING, None, NUMBER)
    assert outcome.failure is not None
    assert outcome.failure.code == "REFUND_NOT_LISTED"
    assert "do not ask for another" in outcome.failure.explanation
    assert "商户平台" in outcome.failure.explanation_zh
    # It confirms no callback.
    assert await desk.reason(CALLBACK) == "unconfirmed"


@pytest.mark.parametrize(
    "changes",
    [
        {"out_refund_no_list": ["SR2"]}, {"out_refund_no_list": [REFUND_NUMBER] * 2}, {"refund_status_list": []},
        {"refund_fee_list": []}, {"refund_fee_list": [5.01]}, {"refund_fee_list": ["5.01"]}, {"refund_fee_list": [-1]},
        {"refund_fee_list": [True]}, {"refund_fee_list": [[501]]}, {"sub_mch_id": ""}, {"out_trade_no": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_an_answer_that_cannot_be_about_this_refund_is_unknown(desk: Desk, changes: dict[str, Any]) -> None:
    desk.says[QUESTION] = answer(FOUND | changes)
    assert isinstance(await desk.query(), Unknown)


@pytest.mark.parametrize(
    "changes", [{"out_refund_no": "SR2"}, {"out_refund_no": ""}, {"out_trade_no": ""}, {"refund_fee": 5.01}], ids=str
)
async def test_an_answer_that_takes_another_refund_is_unknown(desk: Desk, changes: dict[str, Any]) -> None:
    desk.says[ASKING] = answer(TAKEN | changes)
    assert isinstance(await desk.create(), Unknown)


async def test_another_amount_payment_or_merchant_goes_to_the_caller(desk: Desk) -> None:
    other = {"out_trade_no": "SY2", "sub_mch_id": "1900000777"}
    desk.says |= {
        ASKING: answer(TAKEN | other | {"refund_fee": 502}),
        QUESTION: answer(FOUND | other | {"refund_fee_list": [502]}),
    }
    for outcome in (await desk.create(), await desk.query()):
        assert isinstance(outcome, RefundReport)
        assert (outcome.amount_fen, outcome.out_trade_no) == (502, "SY2")
        assert outcome.account_claims["sub_mch_id"] == "1900000777"


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(FOUND)), _VALUES | st.lists(_VALUES, max_size=3)))
def test_no_lists_crash_the_reader(changes: dict[str, Any]) -> None:
    judged = judge_answer(RawAnswer(200, "application/json", answer(FOUND | changes)))
    outcome = found(judged, REFUND_NUMBER, must_claim="sub_mch_id")
    assert outcome is None or isinstance(outcome, RefundReport | Unknown | Rejected)
    assert isinstance(unlisted(judged, REQUEST), RefundReport | None)


# Refusals. None: refused, once WeChat holds no such refund.

_OUTCOMES: dict[str, type | None] = {
    "SYSTEMERROR": Unknown,
    "BIZERR_NEED_RETRY": Unknown,
    "FREQUENCY_LIMITED": Unknown,
    "REFUND_FEE_MISMATCH": Unknown,
    "NOTENOUGH": None,
    "ERROR": None,
    "ORDERNOTEXIST": None,
    "A_CODE_OF_TOMORROW": None,
}


@pytest.mark.parametrize("err_code", _OUTCOMES)
async def test_every_refusal_means_what_the_table_says(desk: Desk, err_code: str) -> None:
    desk.says |= {ASKING: refusal(err_code), QUESTION: NONE_OF_THIS_NUMBER}
    outcome, expected = await desk.create(), _OUTCOMES[err_code]
    if expected is not None:
        assert isinstance(outcome, expected)
        return
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (err_code, "微信说的话")
    desk.says[QUESTION] = answer(FOUND)
    assert await desk.create() == DONE
    desk.says[QUESTION] = refusal("SYSTEMERROR")
    assert isinstance(await desk.create(), Unknown)


@pytest.mark.parametrize(
    ("errcode", "expected"), [(-1, Unknown), (45009, Unknown), (45011, Unknown), (40097, Rejected), (-601002, Rejected)]
)
async def test_a_refusal_of_the_platform_itself(desk: Desk, errcode: int, expected: type) -> None:
    desk.says |= dict.fromkeys((ASKING, QUESTION), answer(TAKEN, errcode=errcode))
    assert isinstance(await desk.create(), expected)
    assert isinstance(await desk.query(), Rejected if expected is Rejected else Unknown | NotReached)


async def test_a_merchant_that_is_not_authorised_is_explained(desk: Desk) -> None:
    desk.says |= dict.fromkeys((ASKING, QUESTION), answer({"return_code": "FAIL", "return_msg": "受理关系不存在"}))
    outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert "Cloud Run console" in outcome.explanation


@pytest.mark.parametrize("status", [400, 302, 500, 429])
async def test_another_status_is_never_an_answer_about_a_refund(desk: Desk, status: int) -> None:
    desk.says |= dict.fromkeys((ASKING, QUESTION), answering(answer(TAKEN | FOUND), status=status))
    assert isinstance(await desk.create(), Unknown)
    assert isinstance(await desk.query(), NotReached if status == 429 else Unknown)


async def test_no_such_refund_is_not_found(desk: Desk) -> None:
    desk.says[QUESTION] = NONE_OF_THIS_NUMBER
    assert await desk.query() == NOT_FOUND


async def test_only_what_was_not_sent_is_not_reached(client: httpx.AsyncClient) -> None:
    async with serving(hang) as server:
        dialect = make(client)
        desk = Desk(dialect, opened(dialect, gateway=server.origin), server)
    # Nobody listens any more.
    assert isinstance(await desk.create(), NotReached)
    assert isinstance(await desk.query(), NotReached)


# The callback


@pytest.mark.parametrize(
    "fields",
    [CALLBACK, {"outRefundNo": REFUND_NUMBER}, {"out_refund_no": REFUND_NUMBER, "event": [1]},
     CALLBACK | {"refundStatus": "REFUNDCLOSE"}, CALLBACK | {"resultCode": "FAIL"}],
    ids=str,
)  # fmt: skip
async def test_a_callback_that_mentions_a_refund_is_what_wechat_confirms(desk: Desk, fields: dict[str, Any]) -> None:
    desk.says[QUESTION] = answer(FOUND)
    notification = await desk.called_back(fields)
    assert notification.report == report(
        ReportedRefund.REFUNDED, "notification", amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT,
        account_claims=CLAIMS,
    )  # fmt: skip
    assert notification.event_key.startswith(f"{REFUND_ID}:")
    assert desk.calls == [QUESTION]
    assert await desk.called_back(CALLBACK | {"nonceStr": "n9"}) == notification


@pytest.mark.parametrize("changes", [{"refundFee": 1}, {"outTradeNo": "SY2"}], ids=str)
async def test_an_amount_is_never_taken_from_the_callback(desk: Desk, changes: dict[str, Any]) -> None:
    desk.says[QUESTION] = answer(FOUND)
    with capture_logs() as logs:
        said = refund_in(await desk.called_back(CALLBACK | changes))
    assert (said.amount_fen, said.out_trade_no) == (501, NUMBER)
    assert [entry["event"] for entry in logs] == ["wechat.notice_disagrees"]


@pytest.mark.parametrize(
    "asked",
    [answer(FOUND | {"refund_status_list": ["PROCESSING"]}), NONE_OF_THIS_NUMBER, refusal("SYSTEMERROR"),
     refusal("FREQUENCY_LIMITED"), b"", answer(FOUND | {"out_refund_no_list": ["SR2"]})],
)  # fmt: skip
async def test_what_wechat_does_not_confirm_is_to_be_repeated(desk: Desk, asked: bytes) -> None:
    desk.says[QUESTION] = asked
    assert await desk.reason(CALLBACK) == "unconfirmed"
    desk.says[QUESTION] = answer(FOUND)
    assert refund_in(await desk.called_back(CALLBACK)).status is ReportedRefund.REFUNDED


@pytest.mark.parametrize(
    ("fields", "how", "why"),
    [
        (CALLBACK, {"tail": "t" * 42}, "token"),
        (CALLBACK, {"tail": ""}, "token"),
        (CALLBACK, {"headers": {"content-type": "application/json"}}, "source"),
        (CALLBACK | {"outRefundNo": "../x"}, {}, "malformed"),
        (CALLBACK | {"outRefundNo": "退"}, {}, "malformed"),
        (CALLBACK | {"out_refund_no": "SR2"}, {}, "malformed"),
        (CALLBACK | {"outRefundNo": ["SR2"]}, {}, "malformed"),
        ({"refundId": REFUND_ID}, {}, "malformed"),
    ],
    ids=str,
)
async def test_a_callback_that_proves_nothing_causes_no_question(
    desk: Desk, fields: dict[str, Any], how: dict[str, Any], why: str
) -> None:
    assert await desk.reason(fields, **how) == why
    assert desk.calls == []

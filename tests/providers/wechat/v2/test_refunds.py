"""APIv2's refunds: what is sent, how much each answer is believed, and what a notice that nobody signs is good for."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cache
from typing import Any

import httpx
import pytest
import time_machine
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.padding import PKCS7
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.clock import Clock
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
from app.providers.gateways import GatewayRule
from app.providers.wechat.refunds import STATUSES
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.answers import Answered
from app.providers.wechat.v2.refunds import found, taken
from tests.providers.scripted import Behaviour, Received, ScriptedServer, answering, hang, serving
from tests.providers.wechat.refunding import (
    NOT_FOUND,
    NOW,
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
from tests.providers.wechat.v2.merchant import (
    ANSWER,
    API_KEY,
    APP_ID,
    MCH_ID,
    SUB_MCH_ID,
    document,
    fields_of,
    p12,
    partner_fields,
    signed,
    v2_fields,
    vector_bytes,
    wechat_sign,
)

ASKING, QUESTION = "/secapi/pay/refund", "/pay/refundquery"
XML = {"content-type": "text/xml"}
CLAIMS = {"appid": APP_ID, "mch_id": MCH_ID}
TAKEN = ANSWER | {
    "transaction_id": TRANSACTION,
    "out_trade_no": NUMBER,
    "out_refund_no": REFUND_NUMBER,
    "refund_id": REFUND_ID,
    "refund_fee": "501",
    "settlement_refund_fee": "476",
    "total_fee": "1990",
    "cash_fee": "1890",
    "cash_refund_fee": "476",
    "coupon_refund_fee": "25",
    "coupon_refund_count": "1",
    "coupon_refund_id_0": "10000",
}
FOUND = ANSWER | {
    "total_refund_count": "2",
    "refund_count": "1",
    "transaction_id": TRANSACTION,
    "out_trade_no": NUMBER,
    "total_fee": "1990",
    "cash_fee": "1890",
    "out_refund_no_0": REFUND_NUMBER,
    "refund_id_0": REFUND_ID,
    "refund_channel_0": "ORIGINAL",
    "refund_fee_0": "501",
    "settlement_refund_fee_0": "476",
    "coupon_refund_id_0_0": "10000",
    "refund_status_0": "SUCCESS",
    "refund_account_0": "REFUND_SOURCE_RECHARGE_FUNDS",
    "refund_recv_accout_0": "支付用户的零钱",
    "refund_success_time_0": "2026-11-22 09:02:09",
}
# What req_info holds.
STATED = {
    "out_refund_no": REFUND_NUMBER,
    "out_trade_no": NUMBER,
    "refund_account": "REFUND_SOURCE_RECHARGE_FUNDS",
    "refund_fee": "501",
    "refund_id": REFUND_ID,
    "refund_recv_accout": "支付用户零钱",
    "refund_request_source": "API",
    "refund_status": "SUCCESS",
    "settlement_refund_fee": "476",
    "settlement_total_fee": "1990",
    "success_time": "2026-11-22 09:02:09",
    "total_fee": "1990",
    "transaction_id": TRANSACTION,
}
WORKING = report(ReportedRefund.PENDING, "answer", amount_fen=501, provider_refund_id=REFUND_ID, account_claims=CLAIMS)
DONE = report(
    ReportedRefund.REFUNDED, amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT,
    account_claims=CLAIMS,
)  # fmt: skip


def refusal(err_code: str, words: str = "微信说的话") -> bytes:
    return signed(ANSWER | {"result_code": "FAIL", "err_code": err_code, "err_code_des": words})


NONE_OF_THIS_NUMBER = refusal("REFUNDNOTEXIST", "not exist")


@cache
def certificate() -> str:
    return p12(begins=NOW - timedelta(days=1))


class Desk:
    """A dialect, its account, and a WeChat that answers the asking and the question each in its own way."""

    def __init__(self, dialect: V2Dialect, account: V2Account, server: ScriptedServer) -> None:
        self.dialect = dialect
        self.account = account
        self.server = server
        self.says: dict[str, bytes | Behaviour] = {}
        server.behave = self._behave

    async def _behave(self, received: Received, writer: asyncio.StreamWriter) -> None:
        said = self.says.get(received.target, hang)
        await (answering(said, content_type="text/plain") if isinstance(said, bytes) else said)(received, writer)

    @property
    def calls(self) -> list[str]:
        return [one.target for one in self.server.received]

    def sent(self) -> dict[str, str]:
        """The last call's fields, but for what is fresh in every call."""
        fields = fields_of(self.server.received[-1].body)
        assert fields["sign"] == wechat_sign(fields, fields["sign_type"])
        assert len(fields["nonce_str"]) == 32
        return {name: text for name, text in fields.items() if name not in ("nonce_str", "sign", "sign_type")}

    async def create(self, **changes: Any) -> RefundOutcome:
        return await self.dialect.create_refund(self.account, refund_request(**changes))

    async def query(self) -> RefundOutcome:
        return await self.dialect.query_refund(self.account, REQUEST)

    async def read(self, body: bytes, headers: dict[str, str] | None = None, tail: str = "") -> Notification:
        return await self.dialect.read_notification(self.account, XML if headers is None else headers, body, tail)

    async def reason(self, body: bytes, **how: Any) -> str:
        with pytest.raises(NotificationRefused) as refused:
            await self.read(body, **how)
        return refused.value.reason


@asynccontextmanager
async def opening(client: httpx.AsyncClient, mode: str = "v2", **changes: str) -> AsyncIterator[Desk]:
    made = {"client_certificate_p12": certificate()} | changes
    fields = partner_fields(**made) if mode == "v2_partner" else v2_fields(**made)
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            dialect = V2Dialect(client, Clock(), timeout_s=5.0, gateways=GatewayRule())
            settings, credentials = dialect.seal(mode=mode, fields=fields | {"gateway": server.origin}, now=NOW)
            yield Desk(dialect, dialect.open(mode=mode, settings=settings, credentials=credentials), server)


@pytest.fixture
async def desk(client: httpx.AsyncClient) -> AsyncIterator[Desk]:
    async with opening(client) as made:
        yield made


# What is sent


async def test_a_refund_holds_what_was_asked_for(desk: Desk) -> None:
    desk.says[ASKING] = signed(TAKEN)
    assert await desk.create() == WORKING
    assert desk.calls == [ASKING]
    asked = {
        "appid": APP_ID,
        "mch_id": MCH_ID,
        "transaction_id": TRANSACTION,
        "out_refund_no": REFUND_NUMBER,
        "total_fee": "1990",
        "refund_fee": "501",
        "refund_desc": '少了 "一杯" + 100% <b>&',
        "notify_url": "https://pay.example.com/notify/wechat/7",
    }
    assert desk.sent() == asked
    await desk.create(transaction_id=None, reason="茶" * 80)
    cut = {"out_trade_no": NUMBER, "refund_desc": "茶" * 26}
    assert desk.sent() == {name: text for name, text in asked.items() if name != "transaction_id"} | cut
    await desk.create(reason=None)
    assert "refund_desc" not in desk.sent()


async def test_a_question_names_our_number_alone(desk: Desk) -> None:
    desk.says[QUESTION] = signed(FOUND)
    assert await desk.query() == DONE
    assert desk.calls == [QUESTION]
    assert desk.sent() == {"appid": APP_ID, "mch_id": MCH_ID, "out_refund_no": REFUND_NUMBER}


async def test_a_partner_names_the_merchant(client: httpx.AsyncClient) -> None:
    async with opening(client, "v2_partner") as desk:
        desk.says |= {ASKING: signed(TAKEN | {"sub_mch_id": SUB_MCH_ID}), QUESTION: signed(FOUND)}
        outcome = await desk.create()
        assert desk.sent()["sub_mch_id"] == SUB_MCH_ID
        assert isinstance(outcome, RefundReport)
        assert outcome.account_claims == CLAIMS | {"sub_mch_id": SUB_MCH_ID}
        await desk.query()
        assert desk.sent()["sub_mch_id"] == SUB_MCH_ID


@pytest.mark.parametrize("amount_fen", [1, 2, 29, 58, 1013, 4_503_599_627, 999_999_999_999])
async def test_every_fen_goes_out_and_comes_back(desk: Desk, amount_fen: int) -> None:
    desk.says[ASKING] = signed(TAKEN | {"refund_fee": str(amount_fen)})
    outcome = await desk.create(amount_fen=amount_fen, total_fen=amount_fen)
    assert isinstance(outcome, RefundReport)
    assert (outcome.amount_fen, desk.sent()["refund_fee"]) == (amount_fen, str(amount_fen))


# The certificate


async def test_without_a_certificate_nothing_is_sent(client: httpx.AsyncClient) -> None:
    async with opening(client, client_certificate_p12="") as desk:
        outcome = await desk.create()
        assert isinstance(outcome, Rejected)
        assert outcome.code == "CLIENT_CERTIFICATE_MISSING"
        assert "client_certificate_p12" in outcome.explanation
        assert "updateMerchantAccount" in outcome.explanation_zh
        assert desk.server.received == []
        # Asking needs none.
        desk.says[QUESTION] = signed(FOUND)
        assert await desk.query() == DONE


async def test_with_a_certificate_that_has_ended_nothing_is_sent(desk: Desk) -> None:
    with time_machine.travel(NOW + timedelta(days=99), tick=False):
        outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (
        "CLIENT_CERTIFICATE_EXPIRED", "the client certificate ended on 2027-03-01",
    )  # fmt: skip
    assert desk.server.received == []


# Answers


@pytest.mark.parametrize("word", [*STATUSES, "A_WORD_OF_TOMORROW"])
async def test_every_state_is_reported_as_the_table_says(desk: Desk, word: str) -> None:
    desk.says[QUESTION] = signed(FOUND | {"refund_status_0": word})
    outcome = await desk.query()
    assert isinstance(outcome, RefundReport)
    assert (outcome.status, outcome.amount_fen) == (STATUSES.get(word, ReportedRefund.PENDING), 501)
    assert (outcome.failure is None) == (word in ("SUCCESS", "PROCESSING", "A_WORD_OF_TOMORROW"))


async def test_ours_is_found_among_others(desk: Desk) -> None:
    others = {"out_refund_no_0": "SR1", "refund_fee_0": "9", "refund_status_0": "PROCESSING", "refund_id_0": "1"}
    ours = {"out_refund_no_17": REFUND_NUMBER, "refund_fee_17": "501", "refund_status_17": "SUCCESS",
            "refund_id_17": REFUND_ID, "refund_success_time_17": "2026-11-22 09:02:09"}  # fmt: skip
    desk.says[QUESTION] = signed(FOUND | others | ours)
    assert await desk.query() == DONE


@pytest.mark.parametrize(
    "changes",
    [
        {"out_refund_no_0": "SR2"}, {"out_refund_no_0": ""}, {"out_refund_no_1": REFUND_NUMBER},
        {"refund_status_0": ""}, {"refund_fee_0": ""}, {"refund_fee_0": "5.01"}, {"refund_fee_0": "-501"},
        {"refund_fee_0": "0501"}, {"refund_fee_0": "５０１"}, {"mch_id": ""}, {"out_trade_no": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_an_answer_that_cannot_be_about_this_refund_is_unknown(desk: Desk, changes: dict[str, str]) -> None:
    desk.says[QUESTION] = signed(FOUND | changes)
    assert isinstance(await desk.query(), Unknown)


@pytest.mark.parametrize(
    "changes", [{"out_refund_no": "SR2"}, {"out_refund_no": ""}, {"out_trade_no": ""}, {"refund_fee": "5.01"}], ids=str
)
async def test_an_answer_that_takes_another_refund_is_unknown(desk: Desk, changes: dict[str, str]) -> None:
    desk.says[ASKING] = signed(TAKEN | changes)
    assert isinstance(await desk.create(), Unknown)


async def test_another_amount_payment_or_merchant_goes_to_the_caller(desk: Desk) -> None:
    other = {"out_trade_no": "SY2", "mch_id": "1900000777"}
    desk.says |= {
        ASKING: signed(TAKEN | other | {"refund_fee": "502"}),
        QUESTION: signed(FOUND | other | {"refund_fee_0": "502"}),
    }
    for outcome in (await desk.create(), await desk.query()):
        assert isinstance(outcome, RefundReport)
        assert (outcome.amount_fen, outcome.out_trade_no) == (502, "SY2")
        assert outcome.account_claims["mch_id"] == "1900000777"


@pytest.mark.parametrize(
    "text", ["2026-13-22 09:02:09", "20261122090209", "0000-00-00 00:00:00", "２０26-11-22 09:02:09"]
)
async def test_a_time_that_cannot_be_read_loses_only_itself(desk: Desk, text: str) -> None:
    desk.says[QUESTION] = signed(FOUND | {"refund_success_time_0": text})
    with capture_logs() as logs:
        outcome = await desk.query()
    assert isinstance(outcome, RefundReport)
    assert (outcome.status, outcome.refunded_at) == (ReportedRefund.REFUNDED, None)
    assert [entry["event"] for entry in logs] == ["wechat.unreadable_time"]


async def test_what_is_not_signed_with_the_accounts_key_is_unknown(desk: Desk) -> None:
    for fields in (TAKEN, FOUND):
        for body in (document(fields), signed(fields, key=API_KEY[::-1]), b"", b"<html>", signed(fields)[:-9]):
            desk.says |= {ASKING: body, QUESTION: body}
            assert isinstance(await desk.create(), Unknown)
            assert isinstance(await desk.query(), Unknown)


@given(st.dictionaries(st.sampled_from(sorted(TAKEN | FOUND)), st.text(max_size=20)))
def test_no_fields_crash_the_reader(changes: dict[str, str]) -> None:
    assert isinstance(taken(TAKEN | changes, REQUEST), RefundReport | Unknown)
    outcome = found(Answered(FOUND | changes), REFUND_NUMBER, must_claim="mch_id")
    assert isinstance(outcome, RefundReport | Unknown)


# Refusals. None: refused, once WeChat holds no such refund.

_OUTCOMES: dict[str, type | None] = {
    "SYSTEMERROR": Unknown,
    "BIZERR_NEED_RETRY": Unknown,
    "FREQUENCY_LIMITED": Unknown,
    "INVALID_REQ_TOO_MUCH": Unknown,
    "REFUND_FEE_MISMATCH": Unknown,
    "TRADE_OVERDUE": None,
    "ERROR": None,
    "USER_ACCOUNT_ABNORMAL": None,
    "NOTENOUGH": None,
    "INVALID_TRANSACTIONID": None,
    "PARAM_ERROR": None,
    "APPID_NOT_EXIST": None,
    "MCHID_NOT_EXIST": None,
    "ORDERNOTEXIST": None,
    "REQUIRE_POST_METHOD": None,
    "SIGNERROR": None,
    "XML_FORMAT_ERROR": None,
    "A_CODE_OF_TOMORROW": None,
}


@pytest.mark.parametrize("err_code", _OUTCOMES)
async def test_every_refusal_means_what_the_table_says(desk: Desk, err_code: str) -> None:
    desk.says |= {ASKING: refusal(err_code), QUESTION: NONE_OF_THIS_NUMBER}
    outcome, expected = await desk.create(), _OUTCOMES[err_code]
    if expected is not None:
        assert isinstance(outcome, expected)
    else:
        assert isinstance(outcome, Rejected)
        assert (outcome.code, outcome.message) == (err_code, "微信说的话")


@pytest.mark.parametrize("err_code", [code for code, outcome in _OUTCOMES.items() if outcome is None])
async def test_a_refusal_is_no_failure_where_the_refund_was_made_before(desk: Desk, err_code: str) -> None:
    desk.says |= {ASKING: refusal(err_code), QUESTION: signed(FOUND)}
    assert await desk.create() == DONE
    assert desk.calls == [ASKING, QUESTION]
    for asked in (refusal("SYSTEMERROR"), refusal("FREQUENCY_LIMITED"), b"", answering(b"", status=502)):
        desk.says[QUESTION] = asked
        assert isinstance(await desk.create(), Unknown)


async def test_a_number_used_with_another_amount_shows_that_amount(desk: Desk) -> None:
    desk.says |= {ASKING: refusal("REFUND_FEE_MISMATCH"), QUESTION: signed(FOUND | {"refund_fee_0": "500"})}
    outcome = await desk.create()
    assert isinstance(outcome, RefundReport)
    assert outcome.amount_fen == 500


@pytest.mark.parametrize(
    ("words", "code"), [("签名错误", "SIGNERROR"), ("商户证书已过期", "FAIL"), ("invalid request", "FAIL")]
)
async def test_a_request_that_was_turned_away_as_a_whole(desk: Desk, words: str, code: str) -> None:
    whole = document({"return_code": "FAIL", "return_msg": words})
    desk.says |= {ASKING: whole, QUESTION: NONE_OF_THIS_NUMBER}
    outcome = await desk.create()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.message) == (code, words)
    assert ("apiclient_cert.p12" in outcome.explanation) == ("证书" in words)
    desk.says[QUESTION] = whole
    assert isinstance(await desk.create(), Rejected)
    desk.says[QUESTION] = signed(FOUND)
    assert await desk.create() == DONE


@pytest.mark.parametrize("words", ["系统繁忙，请稍后再试", "调用频率过高"])
async def test_a_busy_wechat_may_have_acted(desk: Desk, words: str) -> None:
    desk.says[ASKING] = document({"return_code": "FAIL", "return_msg": words})
    assert isinstance(await desk.create(), Unknown)
    assert desk.calls == [ASKING]


@pytest.mark.parametrize("status", [400, 403, 404, 429, 302, 500, 502])
async def test_another_status_is_never_an_answer_about_a_refund(desk: Desk, status: int) -> None:
    desk.says |= dict.fromkeys((ASKING, QUESTION), answering(signed(TAKEN | FOUND), status=status))
    assert isinstance(await desk.create(), Unknown)
    assert isinstance(await desk.query(), NotReached if status == 429 else Unknown)


async def test_only_what_was_not_sent_is_not_reached(client: httpx.AsyncClient) -> None:
    async with opening(client) as desk:
        pass
    # Nobody listens any more.
    assert isinstance(await desk.create(), NotReached)
    assert isinstance(await desk.query(), NotReached)


@pytest.mark.parametrize(
    ("err_code", "expected"),
    [("REFUNDNOTEXIST", NOT_FOUND), ("SYSTEMERROR", Unknown), ("FREQUENCY_LIMITED", NotReached),
     ("INVALID_TRANSACTIONID", Rejected), ("PARAM_ERROR", Rejected), ("SIGNERROR", Rejected)],
)  # fmt: skip
async def test_a_refused_question(desk: Desk, err_code: str, expected: Any) -> None:
    desk.says[QUESTION] = refusal(err_code)
    outcome = await desk.query()
    assert outcome == expected if isinstance(expected, RefundReport) else isinstance(outcome, expected)
    # Unsigned it proves nothing about a refund.
    desk.says[QUESTION] = document({"return_code": "FAIL", "return_msg": "REFUNDNOTEXIST"})
    assert isinstance(await desk.query(), Rejected)


# Notices


def req_info(content: bytes, *, api_key: str = API_KEY) -> str:
    key = hashlib.md5(api_key.encode()).hexdigest().encode()
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES(key), ECB()).encryptor()
    padded = padder.update(content) + padder.finalize()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def root(fields: dict[str, str]) -> bytes:
    return document(fields).replace(b"<xml>", b"<root>").replace(b"</xml>", b"</root>")


def notice(stated: dict[str, str] | None = None, *, api_key: str = API_KEY, **changes: str) -> bytes:
    outer = {"return_code": "SUCCESS", "appid": APP_ID, "mch_id": MCH_ID, "nonce_str": "n"}
    return document(outer | {"req_info": req_info(root(stated or STATED), api_key=api_key)} | changes)


async def test_a_notice_is_what_wechat_confirms(desk: Desk) -> None:
    desk.says[QUESTION] = signed(FOUND)
    notification = await desk.read(notice())
    assert notification.report == report(
        ReportedRefund.REFUNDED, "notification", amount_fen=501, provider_refund_id=REFUND_ID, refunded_at=REFUNDED_AT,
        account_claims=CLAIMS,
    )  # fmt: skip
    assert notification.event_key.startswith(f"{REFUND_ID}:")
    assert desk.calls == [QUESTION]
    assert desk.sent() == {"appid": APP_ID, "mch_id": MCH_ID, "out_refund_no": REFUND_NUMBER}
    assert await desk.read(notice(nonce_str="other")) == notification


async def test_the_published_notice_is_understood_and_asked_about(desk: Desk) -> None:
    published = vector_bytes("php_fixture_refund.notification.req_info.sample.xml")
    ours = {
        "out_refund_no_0": "131811191610442717309",
        "out_trade_no": "71106718111915575302817",
        "refund_fee_0": "3960",
    }
    desk.says[QUESTION] = signed(FOUND | ours)
    body = document({"return_code": "SUCCESS", "mch_id": MCH_ID, "req_info": req_info(published)})
    with capture_logs() as logs:
        said = refund_in(await desk.read(body))
    assert (said.out_refund_no, said.amount_fen) == ("131811191610442717309", 3960)
    assert desk.sent()["out_refund_no"] == "131811191610442717309"
    assert logs == []


@pytest.mark.parametrize(
    ("word", "status"),
    [("SUCCESS", ReportedRefund.REFUNDED), ("REFUNDCLOSE", ReportedRefund.FAILED), ("CHANGE", ReportedRefund.PENDING)],
)
async def test_the_state_is_the_answers_whatever_the_notice_says(desk: Desk, word: str, status: ReportedRefund) -> None:
    desk.says[QUESTION] = signed(FOUND | {"refund_status_0": word})
    keys = set()
    for stated in ("SUCCESS", "REFUNDCLOSE", "CHANGE", "X"):
        notification = await desk.read(notice(STATED | {"refund_status": stated}))
        said = refund_in(notification)
        assert (said.status, said.source, said.failure is None) == (status, "notification", word == "SUCCESS")
        keys.add(notification.event_key)
    assert len(keys) == 1


@pytest.mark.parametrize("changes", [{"refund_fee": "1"}, {"refund_fee": "199000"}, {"out_trade_no": "SY2"}], ids=str)
async def test_an_amount_is_never_taken_from_the_notice(desk: Desk, changes: dict[str, str]) -> None:
    desk.says[QUESTION] = signed(FOUND)
    with capture_logs() as logs:
        said = refund_in(await desk.read(notice(STATED | changes)))
    assert (said.amount_fen, said.out_trade_no) == (501, NUMBER)
    assert [(entry["event"], entry["fields"]) for entry in logs] == [("wechat.notice_disagrees", list(changes))]


@pytest.mark.parametrize(
    "asked",
    [
        signed(FOUND | {"refund_status_0": "PROCESSING"}), signed(FOUND | {"refund_status_0": "X"}),
        NONE_OF_THIS_NUMBER, refusal("SYSTEMERROR"), refusal("FREQUENCY_LIMITED"), refusal("SIGNERROR"), b"",
        document(FOUND), signed(FOUND | {"out_refund_no_0": "SR2"}),
    ],
)  # fmt: skip
async def test_what_wechat_does_not_confirm_is_to_be_repeated(desk: Desk, asked: bytes) -> None:
    desk.says[QUESTION] = asked
    assert await desk.reason(notice()) == "unconfirmed"
    assert desk.calls == [QUESTION]
    desk.says[QUESTION] = signed(FOUND)
    assert refund_in(await desk.read(notice())).status is ReportedRefund.REFUNDED


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (notice(api_key=API_KEY[::-1]), "signature"),
        (notice(req_info="AAAA"), "signature"),
        (notice(req_info="%%%"), "signature"),
        (notice(req_info=req_info(b"<xml></xml>")), "signature"),
        (notice(req_info=req_info(b"")), "signature"),
        (notice(req_info=req_info(b"<!DOCTYPE root [<!ENTITY x 'y'>]>" + root(STATED))), "signature"),
        (notice({"out_trade_no": NUMBER}), "malformed"),
        (notice(STATED | {"out_refund_no": "../x"}), "malformed"),
        (notice(STATED | {"out_refund_no": "退"}), "malformed"),
        (notice(mch_id="1900000777"), "malformed"),
        (notice(req_info=""), "signature"),
        (b"<xml><req_info>", "malformed"),
    ],
    ids=range(12),
)
async def test_a_notice_that_cannot_be_understood_causes_no_question(desk: Desk, body: bytes, why: str) -> None:
    assert await desk.reason(body) == why
    assert desk.calls == []


async def test_a_refunds_notice_comes_plain_and_on_the_accounts_own_path(desk: Desk) -> None:
    assert await desk.reason(notice(), tail="x") == "malformed"
    assert await desk.reason(notice(), headers={"content-encoding": "gzip"}) == "malformed"
    assert desk.calls == []


async def test_no_changed_byte_of_a_notice_is_believed(desk: Desk) -> None:
    """Whatever bytes come, either nothing is asked, or what is reported is WeChat's answer about the number in them."""
    desk.says[QUESTION] = signed(FOUND)
    raw = notice()
    genuine = (await desk.read(raw)).report
    for at in range(0, len(raw), 3):
        changed = raw[:at] + bytes([raw[at] ^ 0x04]) + raw[at + 1 :]
        try:
            with capture_logs():
                assert (await desk.read(changed)).report == genuine
        except NotificationRefused as exc:
            outcome = exc.reason
        else:
            outcome = "confirmed"
        assert outcome in ("signature", "malformed", "unconfirmed", "confirmed"), at
    assert set(desk.calls) == {QUESTION}


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    for text in (base64.b64encode(body).decode(), body.decode("latin-1"), req_info(body)):
        made = b"<xml><req_info>" + text.replace("&", "").replace("<", "").encode() + b"</req_info></xml>"
        with pytest.raises(NotificationRefused) as refused:
            asyncio.run(_READER.read_notification(_ACCOUNT, XML, made, ""))
        assert refused.value.reason in ("signature", "malformed")


_READER = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule())
_SEALED = _READER.seal(mode="v2", fields=v2_fields(), now=NOW)
_ACCOUNT = _READER.open(mode="v2", settings=_SEALED[0], credentials=_SEALED[1])

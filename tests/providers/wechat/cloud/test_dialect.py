"""Cloud pay: what is asked inside the container, and a callback that is believed only as far as WeChat confirms it."""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from app.clock import Clock
from app.providers.contract import (
    Accepted,
    AccountInvalid,
    Closed,
    NeverOpened,
    NotClosed,
    Notification,
    NotificationRefused,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.transport import RawAnswer
from app.providers.wechat.cloud import CloudDialect
from app.providers.wechat.cloud.account import CloudAccount
from app.providers.wechat.cloud.answers import judge_answer
from app.providers.wechat.cloud.callback import BODY_LIMIT_BYTES, callback_fields, read_callback
from app.providers.wechat.states import STATUSES
from app.providers.wechat.v2.answers import Answered
from tests.providers.scripted import ScriptedServer, answering, hang, serving
from tests.providers.wechat.reports import payment_in

NUMBER = "SY20261122000001"
NOW = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
APP_ID = "wx0000000000000001"
PLATFORM_APP_ID = "wx00000000000000ff"
SUB_MCH_ID = "1900000109"
OPENID = "oUser"
TOKEN = "t" * 43
FIELDS = {"sub_mch_id": SUB_MCH_ID, "appid": APP_ID, "env_id": "prod-1a2b3c4d5e", "cloud_service": "shouyin"}
# What the platform adds; names are lower case by then.
HEADERS = {"content-type": "application/json", "x-wx-source": "wx_paycallback"}

RESPDATA = {
    "return_code": "SUCCESS",
    "return_msg": "OK",
    "result_code": "SUCCESS",
    "appid": PLATFORM_APP_ID,
    "mch_id": "1800000001",
    "sub_appid": APP_ID,
    "sub_mch_id": SUB_MCH_ID,
    "nonce_str": "n1",
    "sign": "X",
}
PAYMENT = {
    "appId": APP_ID,
    "timeStamp": "1795309323",
    "nonceStr": "n2",
    "package": "prepay_id=wx22090203000000abcdef",
    "signType": "MD5",
    "paySign": "0CB01533B8C1EF103065174F50BCA001",
}
PREPAID = RESPDATA | {"trade_type": "JSAPI", "prepay_id": "wx22090203000000abcdef", "payment": PAYMENT}
ORDER: dict[str, Any] = RESPDATA | {
    "openid": "oPlatform",
    "sub_openid": OPENID,
    "trade_type": "JSAPI",
    "trade_state": "SUCCESS",
    "bank_type": "OTHERS",
    "total_fee": 990,
    "fee_type": "CNY",
    "cash_fee": 990,
    "transaction_id": "4200000000202611220000000001",
    "out_trade_no": NUMBER,
    "time_end": "20261122090204",
}
CALLBACK: dict[str, Any] = {
    "returnCode": "SUCCESS",
    "resultCode": "SUCCESS",
    "appid": PLATFORM_APP_ID,
    "mchId": "1800000001",
    "subAppid": APP_ID,
    "subMchId": SUB_MCH_ID,
    "nonceStr": "n3",
    "openid": "oPlatform",
    "isSubscribe": "N",
    "subOpenid": OPENID,
    "subIsSubscribe": "N",
    "tradeType": "JSAPI",
    "bankType": "OTHERS",
    "totalFee": 990,
    "feeType": "CNY",
    "cashFee": 990,
    "transactionId": "4200000000202611220000000001",
    "outTradeNo": NUMBER,
    "timeEnd": "20261122090204",
}
CONFIRMED = PaymentReport(
    out_trade_no=NUMBER,
    status=ReportedStatus.SUCCESSFUL,
    source="query",
    amount_fen=990,
    currency="CNY",
    transaction_id="4200000000202611220000000001",
    payer_id=OPENID,
    paid_at=datetime(2026, 11, 22, 1, 2, 4, tzinfo=UTC),
    account_claims={"appid": PLATFORM_APP_ID, "mch_id": "1800000001", "sub_appid": APP_ID, "sub_mch_id": SUB_MCH_ID},
)


def request(**changes: Any) -> PaymentRequest:
    fields: dict[str, Any] = {
        "method": PaymentMethod.WECHAT_CLOUD,
        "out_trade_no": NUMBER,
        "amount_fen": 990,
        "subject": '会员 "月卡"',
        "notify_url": "https://pay.example.com/notify/wechat/7",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30),
        "openid": OPENID,
        "app_id": APP_ID,
        "client_address": "203.0.113.7",
    }
    return PaymentRequest(**(fields | changes))


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


class Bench:
    """A dialect, its account, and the platform they run on."""

    def __init__(self, dialect: CloudDialect, account: CloudAccount, server: ScriptedServer) -> None:
        self.dialect = dialect
        self.account = account
        self.server = server

    def says(self, respdata: Any, *, errcode: Any = 0, errmsg: str = "ok") -> None:
        self.says_raw(json.dumps({"errcode": errcode, "errmsg": errmsg, "respdata": respdata}).encode())

    def says_raw(self, body: bytes, **how: Any) -> None:
        self.server.behave = answering(body, **how)

    def refuses(self, err_code: str, words: str = "") -> None:
        self.says(RESPDATA | {"result_code": "FAIL", "err_code": err_code, "err_code_des": words})

    def sent(self) -> dict[str, Any]:
        """The last call's content, but for its nonce."""
        content = json.loads(self.server.received[-1].body)
        assert len(content.pop("nonce_str")) == 32
        assert isinstance(content, dict)
        return content

    async def create(self, **changes: Any) -> Any:
        return await self.dialect.create(self.account, request(**changes))

    async def query(self) -> Any:
        return await self.dialect.query(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.dialect.close(self.account, NUMBER)

    async def called_back(
        self, fields: dict[str, Any], *, headers: dict[str, str] | None = None, tail: str = TOKEN
    ) -> Notification:
        body = json.dumps(fields).encode()
        return await self.dialect.read_notification(self.account, HEADERS if headers is None else headers, body, tail)

    async def reason(self, fields: dict[str, Any], **how: Any) -> str:
        with pytest.raises(NotificationRefused) as refused:
            await self.called_back(fields, **how)
        return refused.value.reason


def make(client: httpx.AsyncClient, *, timeout_s: float = 5.0, gateways: GatewayRule | None = None) -> CloudDialect:
    return CloudDialect(client, Clock(), timeout_s=timeout_s, gateways=gateways or GatewayRule())


def opened(dialect: CloudDialect, **changes: str) -> CloudAccount:
    settings, credentials = dialect.seal(mode="cloud", fields=FIELDS | {"notify_token": TOKEN} | changes, now=NOW)
    return dialect.open(mode="cloud", settings=settings, credentials=credentials)


@asynccontextmanager
async def _bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            dialect = make(client)
            yield Bench(dialect, opened(dialect, gateway=server.origin), server)


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with _bench(client) as made:
        yield made


# The account


def test_a_token_is_made_once_and_kept(client: httpx.AsyncClient) -> None:
    dialect = make(client)
    settings, credentials = dialect.seal(mode="cloud", fields=FIELDS, now=NOW)
    assert settings == FIELDS | {"gateway": "http://api.weixin.qq.com"}
    assert credentials.keys() == {"notify_token"}
    assert len(credentials["notify_token"]) == 43
    assert dialect.seal(mode="cloud", fields=settings | credentials, now=NOW) == (settings, credentials)
    assert dialect.seal(mode="cloud", fields=FIELDS, now=NOW)[1] != credentials
    account = dialect.open(mode="cloud", settings=settings, credentials=credentials)
    assert account.offers == {PaymentMethod.WECHAT_CLOUD: (APP_ID,)}
    assert account.expected_claims == {"sub_mch_id": frozenset({SUB_MCH_ID}), "sub_appid": frozenset({APP_ID})}
    assert credentials["notify_token"] not in repr(account)


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"sub_mch_id": ""}, "sub_mch_id"),
        ({"sub_mch_id": "x"}, "sub_mch_id"),
        ({"appid": ""}, "appid"),
        ({"appid": "wx1"}, "appid"),
        ({"env_id": ""}, "env_id"),
        ({"env_id": "a b"}, "env_id"),
        ({"cloud_service": ""}, "cloud_service"),
        ({"cloud_service": "../x"}, "cloud_service"),
        ({"notify_token": "short"}, "notify_token"),
        ({"notify_token": "t" * 42 + "/"}, "notify_token"),
        ({"api_key": "x"}, "api_key"),
        ({"gateway": "http://api.weixin.qq.com.evil.example"}, "gateway"),
        ({"gateway": "http://api.mch.weixin.qq.com"}, "gateway"),
    ],
    ids=str,
)
def test_a_mistake_is_named_by_its_field(client: httpx.AsyncClient, changes: dict[str, str], culprit: str) -> None:
    with pytest.raises(AccountInvalid) as invalid:
        make(client).seal(mode="cloud", fields=FIELDS | changes, now=NOW)
    assert invalid.value.field == culprit


def test_a_stored_account_without_its_token_does_not_open(client: httpx.AsyncClient) -> None:
    with pytest.raises(AccountInvalid) as invalid:
        make(client).open(mode="cloud", settings=FIELDS, credentials={})
    assert invalid.value.field == "notify_token"


@pytest.mark.parametrize(
    "gateway", ["http://api.weixin.qq.com/", "https://api.weixin.qq.com", "http://127.0.0.1:1", "http://sandbox:8001"]
)
def test_the_platform_and_the_sandbox_may_do_without_tls(client: httpx.AsyncClient, gateway: str) -> None:
    dialect = make(client, gateways=GatewayRule("http://sandbox:8001"))
    settings, _ = dialect.seal(mode="cloud", fields=FIELDS | {"gateway": gateway}, now=NOW)
    assert settings["gateway"] == gateway.rstrip("/")


# Ordering


async def test_a_payment_is_ordered_and_its_parameters_handed_on_as_they_are(bench: Bench) -> None:
    bench.says(PREPAID)
    assert await bench.create() == Accepted({"kind": "WechatPayParams", **PAYMENT})
    [received] = bench.server.received
    assert received.target == "/_/pay/unifiedorder"
    assert received.headers["content-type"] == "application/json"
    assert bench.sent() == {
        "body": '会员 "月卡"',
        "out_trade_no": NUMBER,
        "sub_mch_id": SUB_MCH_ID,
        "total_fee": 990,
        "openid": OPENID,
        "spbill_create_ip": "203.0.113.7",
        "time_start": "20261122090203",
        "time_expire": "20261122093203",
        "trade_type": "JSAPI",
        "env_id": "prod-1a2b3c4d5e",
        "callback_type": 2,
        "container": {"service": "shouyin", "path": f"/internal/notify/wechat/7/{TOKEN}"},
    }


async def test_the_same_payment_is_ordered_with_the_same_parameters(bench: Bench) -> None:
    bench.says(PREPAID)
    await bench.create(client_address=None)
    first = bench.sent()
    with time_machine.travel(NOW + timedelta(minutes=7), tick=False):
        await bench.create(client_address=None)
    assert bench.sent() == first
    assert first["spbill_create_ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("notify_url", "path"),
    [
        ("https://pay.example.com/notify/wechat/7", f"/internal/notify/wechat/7/{TOKEN}"),
        ("https://pay.example.com/a/b/notify/wechat/12", f"/internal/notify/wechat/12/{TOKEN}"),
        ("https://x.example/notify/wechat/notify/wechat/1", f"/internal/notify/wechat/1/{TOKEN}"),
    ],
)
async def test_the_callback_goes_to_the_inner_path(bench: Bench, notify_url: str, path: str) -> None:
    bench.says(PREPAID)
    await bench.create(notify_url=notify_url)
    assert bench.sent()["container"]["path"] == path


@pytest.mark.parametrize("changes", [{"notify_url": "https://pay.example.com/hook"}, {"openid": None}], ids=str)
async def test_a_payment_that_could_not_work_is_not_sent(bench: Bench, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        await bench.create(**changes)
    assert bench.server.received == []


@pytest.mark.parametrize("name", PAYMENT)
async def test_an_answer_without_all_parameters_is_no_order(bench: Bench, name: str) -> None:
    bench.says(PREPAID | {"payment": without(PAYMENT, name)})
    assert await bench.create() == Unknown(f"the answer's payment lacks {name}")


# Judging. What each code means when ordering, asking and closing; None where it is the refusal itself.

_OUTCOMES: dict[str, tuple[type | None, type | None, type | None]] = {
    "ORDERPAID": (Unknown, None, NotClosed),
    "ORDERCLOSED": (Unknown, None, Closed),
    "SYSTEMERROR": (Unknown, Unknown, Unknown),
    "FREQUENCY_LIMITED": (NotReached, NotReached, NotReached),
    "OUT_TRADE_NO_USED": (Unknown, None, None),
    "APPID_MCHID_NOT_MATCH": (None, None, None),
    "ORDERNOTEXIST": (None, PaymentReport, NeverOpened),
    "NOAUTH": (None, None, None),
    "A_CODE_OF_TOMORROW": (None, None, None),
}


@pytest.mark.parametrize("err_code", _OUTCOMES)
async def test_every_refusal_means_what_the_table_says(bench: Bench, err_code: str) -> None:
    bench.refuses(err_code, "微信说的话")
    outcomes: list[Any] = [await bench.create(), await bench.query(), await bench.close()]
    for outcome, expected in zip(outcomes, _OUTCOMES[err_code], strict=True):
        if expected is not None:
            assert isinstance(outcome, expected), outcome
        else:
            assert isinstance(outcome, Rejected)
            assert (outcome.code, outcome.message) == (err_code, "微信说的话")


async def test_a_merchant_that_is_not_authorised_is_explained(bench: Bench) -> None:
    bench.says({"return_code": "FAIL", "return_msg": "受理关系不存在"})
    outcome = await bench.create()
    assert isinstance(outcome, Rejected)
    assert "Cloud Run console" in outcome.explanation
    assert "已授权" in outcome.explanation_zh
    assert isinstance(await bench.query(), Rejected)


@pytest.mark.parametrize(
    ("errcode", "expected"),
    [(-1, Unknown), (45009, NotReached), (45011, NotReached), (40097, Rejected), (-601002, Rejected)],
)
async def test_a_refusal_of_the_platform_itself(bench: Bench, errcode: int, expected: type) -> None:
    bench.says(PREPAID, errcode=errcode, errmsg="invalid args")
    for outcome in (await bench.create(), await bench.query(), await bench.close()):
        assert isinstance(outcome, expected)
        if isinstance(outcome, Rejected):
            assert (outcome.code, outcome.message) == (str(errcode), "invalid args")


_DOUBTFUL: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"<xml></xml>",
    "a list": b"[]",
    "no errcode": json.dumps({"respdata": ORDER | PREPAID}).encode(),
    "errcode as text": json.dumps({"errcode": "0", "respdata": ORDER | PREPAID}).encode(),
    "errcode true": json.dumps({"errcode": False, "respdata": ORDER | PREPAID}).encode(),
    "no respdata": json.dumps({"errcode": 0}).encode(),
    "respdata as text": json.dumps({"errcode": 0, "respdata": json.dumps(ORDER | PREPAID)}).encode(),
    "no return_code": json.dumps({"errcode": 0, "respdata": without(ORDER | PREPAID, "return_code")}).encode(),
    "no result_code": json.dumps({"errcode": 0, "respdata": without(ORDER | PREPAID, "result_code")}).encode(),
    "said twice": b'{"errcode":0,"errcode":0,"respdata":' + json.dumps(ORDER | PREPAID).encode() + b"}",
}


@pytest.mark.parametrize("shape", _DOUBTFUL)
async def test_an_answer_that_says_nothing_is_unknown(bench: Bench, shape: str) -> None:
    bench.says_raw(_DOUBTFUL[shape])
    for outcome in (await bench.create(), await bench.query(), await bench.close()):
        assert isinstance(outcome, Unknown)


@pytest.mark.parametrize(("status", "expected"), [(400, Unknown), (302, Unknown), (500, Unknown), (429, NotReached)])
async def test_another_status_is_never_an_answer(bench: Bench, status: int, expected: type) -> None:
    bench.says_raw(json.dumps({"errcode": 0, "respdata": ORDER | PREPAID}).encode(), status=status)
    for outcome in (await bench.create(), await bench.query(), await bench.close()):
        assert isinstance(outcome, expected)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_judge(body: bytes) -> None:
    assert not isinstance(judge_answer(RawAnswer(200, "application/json", body)), Answered)


# Asking and closing


async def test_a_paid_order_is_reported_with_all_that_was_said(bench: Bench) -> None:
    bench.says(ORDER)
    assert await bench.query() == CONFIRMED
    assert bench.server.received[-1].target == "/_/pay/queryorder"
    assert bench.sent() == {"sub_mch_id": SUB_MCH_ID, "out_trade_no": NUMBER}
    bench.says(ORDER | {"total_fee": "990"})
    assert await bench.query() == CONFIRMED


async def test_an_answer_that_knows_one_application_names_the_payer_under_it(bench: Bench) -> None:
    bench.says(without(ORDER, "sub_appid", "sub_openid") | {"appid": APP_ID, "openid": OPENID})
    report = await bench.query()
    assert (report.payer_id, report.account_claims["sub_appid"]) == (OPENID, APP_ID)
    bench.says(without(ORDER, "sub_appid", "sub_openid"))
    report = await bench.query()
    assert (report.payer_id, "sub_appid" in report.account_claims) == (None, False)


@pytest.mark.parametrize(("trade_state", "status"), STATUSES.items())
async def test_every_state_is_reported_as_the_table_says(
    bench: Bench, trade_state: str, status: ReportedStatus
) -> None:
    bench.says(ORDER | {"trade_state": trade_state})
    assert (await bench.query()).status is status


@pytest.mark.parametrize(
    "changes",
    [{"out_trade_no": "SY2"}, {"trade_state": ""}, {"sub_mch_id": ""}, {"total_fee": 9.9}, {"total_fee": -990},
     {"total_fee": "9.90"}, {"total_fee": True}],
    ids=str,
)  # fmt: skip
async def test_an_answer_that_cannot_be_about_this_order_is_unknown(bench: Bench, changes: dict[str, Any]) -> None:
    bench.says(ORDER | changes)
    assert isinstance(await bench.query(), Unknown)


async def test_an_unpaid_order_is_closed(bench: Bench) -> None:
    bench.says(RESPDATA)
    assert await bench.close() == Closed()
    assert bench.server.received[-1].target == "/_/pay/closeorder"
    assert bench.sent() == {"sub_mch_id": SUB_MCH_ID, "out_trade_no": NUMBER}


# The callback


async def test_a_callback_is_what_wechat_confirms(bench: Bench) -> None:
    bench.says(ORDER)
    notification = await bench.called_back(CALLBACK)
    assert notification.report == replace(CONFIRMED, source="notification")
    assert notification.event_key.startswith("4200000000202611220000000001:")
    assert [one.target for one in bench.server.received] == ["/_/pay/queryorder"]
    assert bench.sent()["out_trade_no"] == NUMBER


async def test_both_spellings_are_read_and_repeats_share_their_event(bench: Bench) -> None:
    bench.says(ORDER)
    first = await bench.called_back(CALLBACK)
    snake = {name: value for name, value in ORDER.items() if name != "trade_state"}
    for again in (CALLBACK | {"nonceStr": "n9"}, snake, CALLBACK | {"totalFee": "990"}, CALLBACK | {"extra": [1]}):
        assert await bench.called_back(again) == first


async def test_one_application_is_enough_when_it_is_ours(bench: Bench) -> None:
    bench.says(ORDER)
    one = without(CALLBACK, "subAppid", "subOpenid", "appid", "openid") | {"appid": APP_ID, "openid": OPENID}
    report = payment_in(await bench.called_back(one))
    assert (report.status, report.payer_id) == (ReportedStatus.SUCCESSFUL, OPENID)
    assert report.account_claims["sub_appid"] == APP_ID
    assert await bench.reason(without(one, "appid")) == "malformed"
    assert await bench.reason(one | {"appid": PLATFORM_APP_ID}) == "malformed"


@pytest.mark.parametrize("tail", ["", "t" * 42, "t" * 44, "T" * 43, "t" * 42 + "u", "令" * 43])
async def test_a_wrong_path_causes_not_even_a_question(bench: Bench, tail: str) -> None:
    bench.says(ORDER)
    assert await bench.reason(CALLBACK, tail=tail) == "token"
    assert bench.server.received == []


@pytest.mark.parametrize("headers", [{}, {"x-wx-source": ""}, {"content-type": "application/json"}], ids=str)
async def test_without_the_platforms_header_nothing_is_asked(bench: Bench, headers: dict[str, str]) -> None:
    bench.says(ORDER)
    assert await bench.reason(CALLBACK, headers=headers) == "source"
    assert bench.server.received == []


@pytest.mark.parametrize(
    "fields",
    [
        {},
        CALLBACK | {"returnCode": "FAIL"},
        CALLBACK | {"resultCode": "FAIL"},
        without(CALLBACK, "returnCode"),
        without(CALLBACK, "resultCode"),
        without(CALLBACK, "outTradeNo"),
        without(CALLBACK, "transactionId"),
        without(CALLBACK, "totalFee"),
        without(CALLBACK, "subMchId"),
        without(CALLBACK, "subAppid"),
        without(CALLBACK, "subOpenid"),
        CALLBACK | {"outTradeNo": "../../x"},
        CALLBACK | {"outTradeNo": ["SY20261122000001"]},
        CALLBACK | {"outTradeNo": "S" * 33},
        CALLBACK | {"totalFee": 9.9},
        CALLBACK | {"totalFee": "9.90"},
        CALLBACK | {"totalFee": -990},
        CALLBACK | {"totalFee": True},
        CALLBACK | {"totalFee": None},
        CALLBACK | {"totalFee": 10**70},
        CALLBACK | {"totalFee": [990]},
        CALLBACK | {"total_fee": 1},
        CALLBACK | {"out_trade_no": "SY20261122000002"},
    ],
    ids=str,
)
async def test_a_callback_that_cannot_be_understood_causes_no_question(bench: Bench, fields: dict[str, Any]) -> None:
    bench.says(ORDER)
    assert await bench.reason(fields) == "malformed"
    assert bench.server.received == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"totalFee":1,"totalFee":2}', b"{" + b" " * BODY_LIMIT_BYTES + b"}"],
)
async def test_a_body_that_is_no_object_is_refused(bench: Bench, body: bytes) -> None:
    with pytest.raises(NotificationRefused) as refused:
        await bench.dialect.read_notification(bench.account, HEADERS, body, TOKEN)
    assert refused.value.reason == "malformed"
    with pytest.raises(NotificationRefused):
        await bench.dialect.read_notification(bench.account, HEADERS | {"content-encoding": "gzip"}, body, TOKEN)
    assert bench.server.received == []


@pytest.mark.parametrize(
    "respdata",
    [
        ORDER | {"trade_state": "NOTPAY"},
        ORDER | {"trade_state": "CLOSED"},
        ORDER | {"trade_state": "USERPAYING"},
        ORDER | {"out_trade_no": "SY2"},
        RESPDATA | {"result_code": "FAIL", "err_code": "ORDERNOTEXIST"},
        RESPDATA | {"result_code": "FAIL", "err_code": "SYSTEMERROR"},
        RESPDATA | {"result_code": "FAIL", "err_code": "FREQUENCY_LIMITED"},
        {"return_code": "FAIL", "return_msg": "受理关系不存在"},
    ],
    ids=lambda respdata: str(respdata.get("err_code") or respdata.get("trade_state") or "FAIL"),
)
async def test_what_wechat_does_not_confirm_is_to_be_repeated(bench: Bench, respdata: dict[str, Any]) -> None:
    bench.says(respdata)
    assert await bench.reason(CALLBACK) == "unconfirmed"
    assert len(bench.server.received) == 1
    bench.says(ORDER)
    assert (await bench.called_back(CALLBACK)).report.status is ReportedStatus.SUCCESSFUL


async def test_a_silent_wechat_confirms_nothing(client: httpx.AsyncClient) -> None:
    async with serving(hang) as server:
        dialect = make(client, timeout_s=0.2)
        silent = Bench(dialect, opened(dialect, gateway=server.origin), server)
        assert await silent.reason(CALLBACK) == "unconfirmed"
        assert len(server.received) == 1
    assert await silent.reason(CALLBACK) == "unconfirmed"


_DISAGREEING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"totalFee": 1}, {"total_fee": 1}),
    ({"subOpenid": "oSomebody"}, {"sub_openid": "oSomebody"}),
    ({"subAppid": "wx00000000000000aa"}, {"sub_appid": "wx00000000000000aa"}),
    ({"subMchId": "1900000777"}, {"sub_mch_id": "1900000777"}),
    ({"transactionId": "42"}, {"transaction_id": "42"}),
    ({"feeType": "USD"}, {"fee_type": "USD"}),
]


@pytest.mark.parametrize(("in_callback", "in_answer"), _DISAGREEING, ids=str)
async def test_a_disagreement_counts_as_nothing_and_shows_what_the_callback_said(
    bench: Bench, in_callback: dict[str, Any], in_answer: dict[str, Any]
) -> None:
    """Whichever of the two is not ours: the callback's values go to the caller, who changes nothing on PENDING."""
    bench.says(ORDER)
    agreed = await bench.called_back(CALLBACK)
    with capture_logs() as logs:
        other = await bench.called_back(CALLBACK | in_callback)
    assert [entry["event"] for entry in logs] == ["wechat.callback_disagrees"]
    report = payment_in(other)
    assert (report.status, report.source, report.paid_at) == (ReportedStatus.PENDING, "notification", None)
    shown = {
        "total_fee": report.amount_fen,
        "sub_openid": report.payer_id,
        "sub_appid": report.account_claims["sub_appid"],
        "sub_mch_id": report.account_claims["sub_mch_id"],
        "transaction_id": report.transaction_id,
        "fee_type": report.currency,
    }
    assert shown == {name: ORDER[name] for name in shown} | in_answer
    # The genuine callback that may follow is another event.
    assert other.event_key != agreed.event_key

    bench.says(ORDER | in_answer)
    assert (await bench.called_back(CALLBACK)).report.status is ReportedStatus.PENDING
    both = (await bench.called_back(CALLBACK | in_callback)).report
    # WeChat itself says so: the caller hears of a success, and of what is not ours about it.
    assert both.status is ReportedStatus.SUCCESSFUL


async def test_what_only_the_callback_says_is_compared_too(bench: Bench) -> None:
    bench.says(without(ORDER, "sub_appid", "sub_openid"))
    report = payment_in(
        await bench.called_back(CALLBACK | {"subAppid": "wx00000000000000aa", "subOpenid": "oSomebody"})
    )
    assert report.status is ReportedStatus.SUCCESSFUL
    assert (report.payer_id, report.account_claims["sub_appid"]) == ("oSomebody", "wx00000000000000aa")


async def test_an_amount_is_never_taken_from_the_callback_alone(bench: Bench) -> None:
    bench.says(without(ORDER, "total_fee"))
    assert payment_in(await bench.called_back(CALLBACK)).amount_fen is None


async def test_the_answer_is_the_documented_json(bench: Bench) -> None:
    taken = bench.dialect.acknowledge(bench.account, accepted=True)
    assert (taken.status_code, taken.body, taken.content_type) == (
        200, b'{"errcode":0,"errmsg":"SUCCESS"}', "application/json",
    )  # fmt: skip
    refused = bench.dialect.acknowledge(bench.account, accepted=False)
    assert (refused.status_code, json.loads(refused.body)["errcode"]) == (400, 1)


_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)


@given(st.binary(max_size=300) | st.dictionaries(st.sampled_from(sorted(CALLBACK)), _VALUES, min_size=1))
def test_no_bytes_crash_the_reader(body: bytes | dict[str, Any]) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(CALLBACK | body).encode()
    with contextlib.suppress(NotificationRefused):
        read_callback(_READER, callback_fields(HEADERS, sent))


_READER = opened(make(httpx.AsyncClient()))

"""APIv2's calls: what is sent, and how every answer is judged, against a WeChat that says what it is told."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from app.clock import Clock
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
from app.providers.gateways import GatewayRule
from app.providers.transport import RawAnswer
from app.providers.wechat.states import STATUSES
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import V2Account
from app.providers.wechat.v2.answers import judge_answer
from tests.providers.scripted import ScriptedServer, answering, hang, serving
from tests.providers.wechat.v2.merchant import (
    ANSWER,
    API_KEY,
    APP_ID,
    MCH_ID,
    NUMBER,
    OPENID,
    SUB_APP_ID,
    SUB_MCH_ID,
    document,
    fields_of,
    partner_fields,
    signed,
    v2_fields,
    wechat_sign,
)

NOW = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
PREPAID = ANSWER | {"trade_type": "JSAPI", "prepay_id": "wx22090203000000abcdef"}
ORDER = ANSWER | {
    "openid": OPENID,
    "is_subscribe": "N",
    "trade_type": "JSAPI",
    "bank_type": "OTHERS",
    "total_fee": "1990",
    "settlement_total_fee": "1980",
    "fee_type": "CNY",
    "cash_fee": "1980",
    "transaction_id": "4200000000202611220000000001",
    "out_trade_no": NUMBER,
    "time_end": "20261122090204",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
}
H5_BASE = "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx22&package=123"

CREDENTIALS = {
    PaymentMethod.WECHAT_JSAPI: PREPAID,
    PaymentMethod.WECHAT_MINI_PROGRAM: PREPAID,
    PaymentMethod.WECHAT_NATIVE: PREPAID
    | {"trade_type": "NATIVE", "code_url": "weixin://wxpay/bizpayurl?pr=JyC91EIz1"},
    PaymentMethod.WECHAT_H5: PREPAID | {"trade_type": "MWEB", "mweb_url": H5_BASE},
}


def request(method: PaymentMethod = PaymentMethod.WECHAT_JSAPI, **changes: Any) -> PaymentRequest:
    fields: dict[str, Any] = {
        "method": method,
        "out_trade_no": NUMBER,
        "amount_fen": 1990,
        "subject": '会员 "月卡" & 100% <b>]]>',
        "notify_url": "https://pay.example.com/notify/wechat/7",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30),
        "return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD",
        "openid": OPENID,
        "client_address": "203.0.113.7",
    }
    if method in (PaymentMethod.WECHAT_H5, PaymentMethod.WECHAT_NATIVE):
        fields["openid"] = None
    return PaymentRequest(**(fields | changes))


class Bench:
    """A dialect, its account, and the WeChat they talk to."""

    def __init__(self, dialect: V2Dialect, account: V2Account, server: ScriptedServer) -> None:
        self.dialect = dialect
        self.account = account
        self.server = server

    def says(self, fields: dict[str, str], sign_type: str = "HMAC-SHA256", *, key: str = API_KEY) -> None:
        self.says_raw(signed(fields, sign_type, key=key))

    def says_raw(self, body: bytes, **how: Any) -> None:
        self.server.behave = answering(body, content_type="text/plain", **how)

    def refuses(self, err_code: str, words: str = "") -> None:
        self.says(ANSWER | {"result_code": "FAIL", "err_code": err_code, "err_code_des": words})

    def sent(self) -> dict[str, str]:
        return fields_of(self.server.received[-1].body)

    async def create(self, method: PaymentMethod = PaymentMethod.WECHAT_JSAPI, **changes: Any) -> Any:
        return await self.dialect.create(self.account, request(method, **changes))

    async def query(self) -> Any:
        return await self.dialect.query(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.dialect.close(self.account, NUMBER)


@asynccontextmanager
async def _bench(client: httpx.AsyncClient, mode: str = "v2", **changes: str) -> AsyncIterator[Bench]:
    fields = partner_fields(**changes) if mode == "v2_partner" else v2_fields(**changes)
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            dialect = V2Dialect(client, Clock(), timeout_s=5.0, gateways=GatewayRule())
            settings, credentials = dialect.seal(mode=mode, fields=fields | {"gateway": server.origin}, now=NOW)
            yield Bench(dialect, dialect.open(mode=mode, settings=settings, credentials=credentials), server)


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with _bench(client) as made:
        yield made


def _without_fresh(fields: dict[str, str]) -> dict[str, str]:
    """What is ordered, after checking what is fresh in every call."""
    assert re.fullmatch(r"[0-9a-f]{32}", fields["nonce_str"])
    assert fields["sign"] == wechat_sign(fields, fields["sign_type"])
    return {name: text for name, text in fields.items() if name not in ("nonce_str", "sign")}


# Ordering


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_a_payment_inside_wechat_is_ordered_and_handed_to_the_page(
    client: httpx.AsyncClient, sign_type: str
) -> None:
    async with _bench(client, sign_type=sign_type) as bench:
        bench.says(PREPAID, sign_type)
        outcome = await bench.create()
        assert bench.server.received[0].target == "/pay/unifiedorder"
        assert _without_fresh(bench.sent()) == {
            "appid": APP_ID,
            "mch_id": MCH_ID,
            "body": '会员 "月卡" & 100% <b>]]>',
            "out_trade_no": NUMBER,
            "total_fee": "1990",
            "spbill_create_ip": "203.0.113.7",
            "time_start": "20261122090203",
            "time_expire": "20261122093203",
            "notify_url": "https://pay.example.com/notify/wechat/7",
            "trade_type": "JSAPI",
            "openid": OPENID,
            "sign_type": sign_type,
        }
        assert isinstance(outcome, Accepted)
        action = dict(outcome.action)
        assert action.pop("kind") == "WechatPayParams"
        assert re.fullmatch(r"[0-9a-f]{32}", action["nonceStr"])
        assert action.pop("paySign") == wechat_sign(action, sign_type)
        assert action == {
            "appId": APP_ID,
            "timeStamp": "1795309323",
            "nonceStr": action["nonceStr"],
            "package": "prepay_id=wx22090203000000abcdef",
            "signType": sign_type,
        }


async def test_a_qr_code_is_what_wechat_answered(bench: Bench) -> None:
    bench.says(CREDENTIALS[PaymentMethod.WECHAT_NATIVE])
    outcome = await bench.create(PaymentMethod.WECHAT_NATIVE)
    assert outcome == Accepted({"kind": "QrCode", "codeUrl": "weixin://wxpay/bizpayurl?pr=JyC91EIz1", "deepLink": None})
    sent = _without_fresh(bench.sent())
    assert (sent["trade_type"], sent["product_id"]) == ("NATIVE", NUMBER)
    assert "openid" not in sent
    assert "scene_info" not in sent


async def test_an_h5_payment_leads_to_wechat_and_back(bench: Bench) -> None:
    bench.says(CREDENTIALS[PaymentMethod.WECHAT_H5])
    outcome = await bench.create(PaymentMethod.WECHAT_H5)
    assert isinstance(outcome, Accepted)
    assert outcome.action["kind"] == "Redirect"
    assert outcome.action["url"].startswith(
        H5_BASE + "&redirect_url=https%3A%2F%2Fshop.example.com%2Fdone%3Fid%3D1%26x"
    )
    query = dict(parse_qsl(urlsplit(outcome.action["url"]).query, strict_parsing=True))
    assert query["redirect_url"] == "https://shop.example.com/done?id=1&x=%E4%B8%AD"
    sent = _without_fresh(bench.sent())
    assert sent["trade_type"] == "MWEB"
    assert json.loads(sent["scene_info"]) == {
        "h5_info": {"type": "Wap", "wap_url": "https://shop.example.com", "wap_name": '会员 "月卡" & 100% <b>]]>'}
    }
    assert await bench.create(PaymentMethod.WECHAT_H5, return_url=None) == Accepted(
        {"kind": "Redirect", "url": H5_BASE}
    )


@pytest.mark.parametrize("address", [None, "", "not an address"])
async def test_only_an_h5_payment_cannot_do_without_the_payers_address(bench: Bench, address: str | None) -> None:
    with pytest.raises(ValueError, match="an H5 payment names the payer's address"):
        await bench.create(PaymentMethod.WECHAT_H5, client_address=address)
    assert bench.server.received == []
    for method in (PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_NATIVE):
        bench.says(CREDENTIALS[method])
        assert isinstance(await bench.create(method, client_address=address), Accepted)
        assert bench.sent()["spbill_create_ip"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("2001:DB8::0001", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
async def test_the_payers_address_is_written_plainly(bench: Bench, address: str, written: str) -> None:
    bench.says(PREPAID)
    await bench.create(client_address=address)
    assert bench.sent()["spbill_create_ip"] == written


async def test_a_payment_inside_wechat_names_its_payer(bench: Bench) -> None:
    with pytest.raises(ValueError, match="names its payer"):
        await bench.create(openid=None)
    assert bench.server.received == []


@pytest.mark.parametrize("method", CREDENTIALS)
async def test_the_same_payment_is_ordered_with_the_same_parameters(bench: Bench, method: PaymentMethod) -> None:
    bench.says(CREDENTIALS[method])
    await bench.create(method)
    first = bench.sent()
    with time_machine.travel(NOW + timedelta(minutes=7), tick=False):
        await bench.create(method)
    second = bench.sent()
    assert first["nonce_str"] != second["nonce_str"]
    assert _without_fresh(first) == _without_fresh(second)


async def test_the_shortest_payment_has_time_to_arrive(bench: Bench) -> None:
    bench.says(PREPAID)
    await bench.create(expires_at=NOW + timedelta(minutes=1))
    assert bench.sent()["time_expire"] == "20261122090318"


async def test_a_partner_orders_for_its_merchant_and_the_merchants_user(client: httpx.AsyncClient) -> None:
    async with _bench(client, "v2_partner") as bench:
        bench.says(PREPAID | {"sub_mch_id": SUB_MCH_ID, "sub_appid": SUB_APP_ID})
        outcome = await bench.create(PaymentMethod.WECHAT_MINI_PROGRAM)
        sent = _without_fresh(bench.sent())
        assert {name: sent.get(name) for name in ("appid", "mch_id", "sub_appid", "sub_mch_id")} == {
            "appid": APP_ID, "mch_id": MCH_ID, "sub_appid": SUB_APP_ID, "sub_mch_id": SUB_MCH_ID,
        }  # fmt: skip
        assert (sent["sub_openid"], "openid" in sent) == (OPENID, False)
        assert outcome.action["appId"] == SUB_APP_ID
        bench.says(ORDER | {"sub_mch_id": SUB_MCH_ID, "sub_appid": SUB_APP_ID, "sub_openid": "oSub", "openid": "oSp"})
        report = await bench.query()
        assert _without_fresh(bench.sent()) == {
            "appid": APP_ID, "mch_id": MCH_ID, "sub_mch_id": SUB_MCH_ID, "out_trade_no": NUMBER,
            "sign_type": "HMAC-SHA256",
        }  # fmt: skip
        assert report.payer_id == "oSub"
        assert all(report.account_claims[name] in one for name, one in bench.account.expected_claims.items())


async def test_a_partner_without_the_merchants_application_orders_under_its_own(client: httpx.AsyncClient) -> None:
    async with _bench(client, "v2_partner", sub_appid="", mini_program_appid="wx00000000000000aa") as bench:
        bench.says(PREPAID)
        outcome = await bench.create(PaymentMethod.WECHAT_MINI_PROGRAM)
        sent = _without_fresh(bench.sent())
        assert (sent["appid"], sent["openid"], sent["sub_mch_id"]) == ("wx00000000000000aa", OPENID, SUB_MCH_ID)
        assert "sub_appid" not in sent
        assert "sub_openid" not in sent
        assert outcome.action["appId"] == "wx00000000000000aa"


async def test_a_payment_runs_under_the_application_it_names(client: httpx.AsyncClient) -> None:
    async with _bench(client, mini_program_appid="wx00000000000000aa,wx00000000000000ab") as bench:
        bench.says(PREPAID)
        for app_id, expected in ((None, "wx00000000000000aa"), ("wx00000000000000ab", "wx00000000000000ab")):
            outcome = await bench.create(PaymentMethod.WECHAT_MINI_PROGRAM, app_id=app_id)
            assert bench.sent()["appid"] == expected
            assert outcome.action["appId"] == expected
        await bench.create(PaymentMethod.WECHAT_JSAPI)
        assert bench.sent()["appid"] == APP_ID


@pytest.mark.parametrize(
    ("method", "changes", "detail"),
    [
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": ""}, "the answer holds no usable prepay_id"),
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": "x" * 2000}, "the answer holds no usable prepay_id"),
        (PaymentMethod.WECHAT_JSAPI, {"trade_type": "NATIVE"}, "the answer is to another trade_type"),
        (PaymentMethod.WECHAT_NATIVE, {"code_url": ""}, "the answer holds no usable code_url"),
        (PaymentMethod.WECHAT_NATIVE, {"code_url": "javascript:alert(1)"}, "the answer holds no usable code_url"),
        (PaymentMethod.WECHAT_H5, {"mweb_url": ""}, "the answer holds no usable mweb_url"),
        (PaymentMethod.WECHAT_H5, {"mweb_url": "javascript://x/%0aalert(1)"}, "the answer holds no usable mweb_url"),
        (PaymentMethod.WECHAT_H5, {"mweb_url": "weixin://wap/pay"}, "the answer holds no usable mweb_url"),
        (PaymentMethod.WECHAT_H5, {"mweb_url": "https:///x"}, "the answer holds no usable mweb_url"),
        (PaymentMethod.WECHAT_H5, {"mweb_url": "https://[x"}, "the answer holds no usable mweb_url"),
    ],
)
async def test_an_answer_without_a_usable_credential_is_no_order(
    bench: Bench, method: PaymentMethod, changes: dict[str, str], detail: str
) -> None:
    bench.says(CREDENTIALS[method] | changes)
    assert await bench.create(method) == Unknown(detail)


# Judging. What each code means when ordering, asking and closing; None where it is the refusal itself.

_OUTCOMES: dict[str, tuple[type | None, type | None, type | None]] = {
    "NOAUTH": (None, None, None),
    "NOTENOUGH": (None, None, None),
    "ORDERPAID": (Unknown, None, NotClosed),
    "ORDER_PAID": (Unknown, None, NotClosed),
    "ORDERCLOSED": (Unknown, None, Closed),
    "ORDER_CLOSED": (Unknown, None, Closed),
    "SYSTEMERROR": (Unknown, Unknown, Unknown),
    "SYSTEM_ERROR": (Unknown, Unknown, Unknown),
    "BANK_ERROR": (Unknown, Unknown, Unknown),
    "BIZERR_NEED_RETRY": (Unknown, Unknown, Unknown),
    "FREQUENCY_LIMITED": (NotReached, NotReached, NotReached),
    "RATELIMIT_EXCEEDED": (NotReached, NotReached, NotReached),
    "APPID_NOT_EXIST": (None, None, None),
    "MCHID_NOT_EXIST": (None, None, None),
    "APPID_MCHID_NOT_MATCH": (None, None, None),
    "LACK_PARAMS": (None, None, None),
    "OUT_TRADE_NO_USED": (Unknown, None, None),
    "SIGNERROR": (None, None, None),
    "XML_FORMAT_ERROR": (None, None, None),
    "REQUIRE_POST_METHOD": (None, None, None),
    "POST_DATA_EMPTY": (None, None, None),
    "NOT_UTF8": (None, None, None),
    "INVALID_REQUEST": (None, None, None),
    "PARAM_ERROR": (None, None, None),
    "ORDERNOTEXIST": (None, PaymentReport, NeverOpened),
    "ORDER_NOT_EXIST": (None, PaymentReport, NeverOpened),
    "TRADE_STATE_ERROR": (None, None, NotClosed),
    "USERPAYING": (None, None, NotClosed),
    "A_CODE_OF_TOMORROW": (None, None, None),
}


@pytest.mark.parametrize("err_code", _OUTCOMES)
async def test_every_signed_refusal_means_what_the_table_says(bench: Bench, err_code: str) -> None:
    bench.refuses(err_code, "微信说的话")
    outcomes: list[Any] = [await bench.create(), await bench.query(), await bench.close()]
    for outcome, expected in zip(outcomes, _OUTCOMES[err_code], strict=True):
        if expected is not None:
            assert isinstance(outcome, expected), outcome
        else:
            assert isinstance(outcome, Rejected)
            assert (outcome.code, outcome.message) == (err_code, "微信说的话")
            assert outcome.explanation
            assert outcome.explanation_zh
    if isinstance(outcomes[1], PaymentReport):
        assert outcomes[1] == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    if isinstance(outcomes[2], NotClosed):
        assert outcomes[2] == NotClosed(err_code, "微信说的话")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("签名错误", "SIGNERROR"),
        ("SIGN ERROR", "SIGNERROR"),
        ("签名错误，请检查后再试", "SIGNERROR"),
        ("商户号mch_id与appid不匹配", "APPID_MCHID_NOT_MATCH"),
        ("appid and mch_id not match", "APPID_MCHID_NOT_MATCH"),
        ("INVALID_REQUEST", "INVALID_REQUEST"),
        ("参数错误:无效的openid", "FAIL"),
        ("", "FAIL"),
        ("系统繁忙，请稍后再试", Unknown),
        ("SYSTEMERROR", Unknown),
        ("system error", Unknown),
        ("请求频率超限", NotReached),
        ("ORDERNOTEXIST", "ORDERNOTEXIST"),
        ("TRADE_STATE_ERROR", "TRADE_STATE_ERROR"),
        ("FREQUENCY_LIMITED", NotReached),
    ],
)
async def test_an_unsigned_refusal_is_a_refusal_unless_it_speaks_of_being_busy(
    bench: Bench, words: str, expected: str | type
) -> None:
    bench.says_raw(document({"return_code": "FAIL", "return_msg": words}))
    for outcome in (await bench.create(), await bench.query(), await bench.close()):
        if isinstance(expected, type):
            assert isinstance(outcome, expected)
        else:
            assert isinstance(outcome, Rejected)
            assert (outcome.code, outcome.message) == (expected, words)


async def test_the_known_faults_are_explained_where_they_appear(bench: Bench) -> None:
    for answer, english, chinese in (
        ({"return_code": "FAIL", "return_msg": "签名错误"}, "api_key", "密钥"),
        ({"return_code": "FAIL", "return_msg": "商户号mch_id与appid不匹配"}, "not bound", "未绑定"),
        ({"return_code": "FAIL", "return_msg": "参数错误:无效的openid"}, "openid does not belong", "openid 与 appid"),
    ):
        bench.says_raw(document(answer))
        outcome = await bench.create()
        assert english in outcome.explanation
        assert chinese in outcome.explanation_zh


@pytest.mark.parametrize(
    "words", ["该订单已支付", "ORDERPAID", "ORDER_CLOSED", "201 商户订单号重复", "参数与首次请求时不一致"]
)
async def test_a_number_that_wechat_knows_is_asked_about_and_never_failed(bench: Bench, words: str) -> None:
    bench.says_raw(document({"return_code": "FAIL", "return_msg": words}))
    assert isinstance(await bench.create(), Unknown)
    # An unsigned text says nothing of the order's state.
    assert isinstance(await bench.close(), Rejected)
    bench.refuses(words if words.isascii() else "INVALID_REQUEST", words)
    assert isinstance(await bench.create(), Unknown)


# What an answer may look like that proves nothing.

_DOUBTFUL: dict[str, Callable[[dict[str, str]], bytes]] = {
    "unsigned": document,
    "another key": lambda fields: signed(fields, key=API_KEY[::-1]),
    "changed afterwards": lambda fields: document(fields | {"sign": wechat_sign(fields), "added": "1"}),
    "empty signature": lambda fields: document(fields | {"sign": ""}),
    "no return_code": lambda fields: signed({n: t for n, t in fields.items() if n != "return_code"}),
    "no result_code": lambda fields: signed({n: t for n, t in fields.items() if n != "result_code"}),
    "strange result_code": lambda fields: signed(fields | {"result_code": "MAYBE"}),
    "not XML": lambda fields: json.dumps(fields).encode(),
    "a document type": lambda fields: b"<!DOCTYPE xml [<!ENTITY x 'y'>]>" + signed(fields),
    "empty": lambda fields: b"",
    "cut short": lambda fields: signed(fields)[:-1],
    "an unsigned refusal code": lambda fields: document(fields | {"result_code": "FAIL", "err_code": "ORDERNOTEXIST"}),
}


@pytest.mark.parametrize("shape", _DOUBTFUL)
async def test_an_answer_that_proves_nothing_is_unknown(bench: Bench, shape: str) -> None:
    bench.says_raw(_DOUBTFUL[shape](PREPAID))
    assert isinstance(await bench.create(), Unknown)
    bench.says_raw(_DOUBTFUL[shape](ORDER))
    assert isinstance(await bench.query(), Unknown)
    bench.says_raw(_DOUBTFUL[shape](ANSWER))
    assert isinstance(await bench.close(), Unknown)


@pytest.mark.parametrize(
    ("status", "expected"), [(400, Unknown), (401, Unknown), (404, Unknown), (302, Unknown), (500, Unknown),
                             (502, Unknown), (429, NotReached)],
)  # fmt: skip
async def test_another_status_is_never_an_answer(bench: Bench, status: int, expected: type) -> None:
    bench.says_raw(signed(PREPAID), status=status)
    assert isinstance(await bench.create(), expected)
    bench.says_raw(signed(ORDER), status=status)
    assert isinstance(await bench.query(), expected)
    bench.says_raw(signed(ANSWER), status=status)
    assert isinstance(await bench.close(), expected)


async def test_silence_and_a_closed_door_are_told_apart(client: httpx.AsyncClient) -> None:
    async with serving(hang) as server:
        dialect = V2Dialect(client, Clock(), timeout_s=0.2, gateways=GatewayRule())
        settings, credentials = dialect.seal(mode="v2", fields=v2_fields(gateway=server.origin), now=NOW)
        account = dialect.open(mode="v2", settings=settings, credentials=credentials)
        assert isinstance(await dialect.create(account, request()), Unknown)
        assert isinstance(await dialect.query(account, NUMBER), Unknown)
        assert isinstance(await dialect.close(account, NUMBER), Unknown)
        assert len(server.received) == 3
    assert isinstance(await dialect.create(account, request()), NotReached)
    assert isinstance(await dialect.query(account, NUMBER), NotReached)


async def test_an_endless_answer_is_cut_off(bench: Bench) -> None:
    bench.says_raw(signed(PREPAID | {"added": "x" * 100_000}))
    assert await bench.create() == Unknown("answer larger than 65536 bytes")


def test_no_bytes_crash_the_judge() -> None:
    dialect = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=1.0, gateways=GatewayRule())
    settings, credentials = dialect.seal(mode="v2", fields=v2_fields(), now=NOW)
    account = dialect.open(mode="v2", settings=settings, credentials=credentials)

    @given(st.binary(max_size=200))
    def judged(body: bytes) -> None:
        assert isinstance(judge_answer(account, RawAnswer(200, "text/xml", body)), Unknown)

    judged()


# Asking


async def test_a_paid_order_is_reported_with_all_that_was_said(bench: Bench) -> None:
    for sign_type in ("MD5", "HMAC-SHA256"):
        bench.says(ORDER, sign_type)
        assert await bench.query() == PaymentReport(
            out_trade_no=NUMBER,
            status=ReportedStatus.SUCCESSFUL,
            source="query",
            amount_fen=1990,
            currency="CNY",
            transaction_id="4200000000202611220000000001",
            payer_id=OPENID,
            paid_at=datetime(2026, 11, 22, 1, 2, 4, tzinfo=UTC),
            account_claims={"appid": APP_ID, "mch_id": MCH_ID},
        )
    assert bench.server.received[-1].target == "/pay/orderquery"
    assert _without_fresh(bench.sent()) == {
        "appid": APP_ID, "mch_id": MCH_ID, "out_trade_no": NUMBER, "sign_type": "HMAC-SHA256",
    }  # fmt: skip


@pytest.mark.parametrize(("trade_state", "status"), [*STATUSES.items(), ("WORD_OF_TOMORROW", ReportedStatus.PENDING)])
async def test_every_state_is_reported_as_the_table_says(
    bench: Bench, trade_state: str, status: ReportedStatus
) -> None:
    bare = {"out_trade_no": NUMBER, "trade_state": trade_state, "trade_state_desc": "说明"}
    bench.says(ANSWER | bare)
    report = await bench.query()
    assert (report.status, report.amount_fen, report.transaction_id, report.payer_id) == (status, None, None, None)
    bench.says(ORDER | {"trade_state": trade_state})
    assert ((await bench.query()).status, (await bench.query()).amount_fen) == (status, 1990)


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"out_trade_no": NUMBER + "2"}, "the answer is about another out_trade_no"),
        ({"out_trade_no": ""}, "the answer is about another out_trade_no"),
        ({"trade_state": ""}, "the answer lacks trade_state or mch_id"),
        ({"mch_id": ""}, "the answer lacks trade_state or mch_id"),
        ({"total_fee": "19.90"}, "the answer holds an amount that is not whole fen"),
        ({"total_fee": "-1"}, "the answer holds an amount that is not whole fen"),
    ],
)
async def test_an_answer_that_cannot_be_about_this_order_is_unknown(
    bench: Bench, changes: dict[str, str], detail: str
) -> None:
    bench.says(ORDER | changes)
    assert await bench.query() == Unknown(detail)


async def test_another_receiver_reaches_the_caller_as_it_is(bench: Bench) -> None:
    bench.says(ORDER | {"appid": "wx00000000000000ff", "mch_id": "1900000002", "total_fee": "1"})
    report = await bench.query()
    assert report.account_claims == {"appid": "wx00000000000000ff", "mch_id": "1900000002"}
    assert report.amount_fen == 1


# Closing


async def test_an_unpaid_order_is_closed(bench: Bench) -> None:
    bench.says(ANSWER)
    assert await bench.close() == Closed()
    assert bench.server.received[0].target == "/pay/closeorder"
    assert _without_fresh(bench.sent()) == {
        "appid": APP_ID, "mch_id": MCH_ID, "out_trade_no": NUMBER, "sign_type": "HMAC-SHA256",
    }  # fmt: skip


async def test_side_by_side_calls_do_not_mix(bench: Bench) -> None:
    bench.says(PREPAID)
    await asyncio.gather(*(bench.create(out_trade_no=f"{NUMBER}_{n}") for n in range(8)))
    sent = [fields_of(one.body) for one in bench.server.received]
    assert len({one["nonce_str"] for one in sent}) == 8
    assert {one["out_trade_no"] for one in sent} == {f"{NUMBER}_{n}" for n in range(8)}

"""APIv3 calls: what is sent, and how every answer is judged, against a WeChat that says what it is told."""

import asyncio
import base64
import json
import re
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256

from app.providers.contract import (
    Accepted,
    Acknowledgement,
    Closed,
    NeverOpened,
    NotClosed,
    NotReached,
    PaymentMethod,
    PaymentReport,
    Rejected,
    ReportedStatus,
    Unknown,
)
from app.providers.wechat.explanations import explain
from tests.providers.scripted import Received, answering, hang
from tests.providers.wechat.v3.bench import Bench, benching, raw, request
from tests.providers.wechat.v3.keyring import (
    APP_ID,
    MCHID,
    MINI_APP_ID,
    NOW,
    NUMBER,
    OPENID,
    PAID,
    PARTNER_PAID,
    PUBLIC_KEY_ID,
    SUB_APP_ID,
    SUB_MCHID,
    TRANSACTION,
    key,
    merchant_certificate,
    public_text,
    stamped,
)

PREPAID = {"prepay_id": "wx201410272009395522657a690389285100"}
METHODS = [
    (PaymentMethod.WECHAT_JSAPI, "jsapi", PREPAID),
    (PaymentMethod.WECHAT_MINI_PROGRAM, "jsapi", PREPAID),
    (PaymentMethod.WECHAT_H5, "h5", {"h5_url": "https://wx.tenpay.com/cgi-bin/checkmweb?prepay_id=wx1&package=2"}),
    (PaymentMethod.WECHAT_NATIVE, "native", {"code_url": "weixin://wxpay/bizpayurl?pr=JyC91EIz1"}),
]
_AUTHORIZATION = re.compile(
    r'WECHATPAY2-SHA256-RSA2048 mchid="(?P<mchid>\d+)",nonce_str="(?P<nonce>[0-9a-f]{32})",'
    r'timestamp="(?P<time>\d{10})",serial_no="(?P<serial>[0-9A-F]+)",signature="(?P<signature>[A-Za-z0-9+/=]+)"'
)


def _check_signed(received: Received, method: str) -> None:
    """The merchant's signature over exactly what arrived."""
    found = _AUTHORIZATION.fullmatch(received.headers["authorization"])
    assert found is not None
    assert (found["mchid"], found["serial"]) == (MCHID, f"{merchant_certificate().serial_number:X}")
    assert found["time"] == str(int(NOW.timestamp()))
    message = f"{method}\n{received.target}\n{found['time']}\n{found['nonce']}\n".encode() + received.body + b"\n"
    _verify("merchant", found["signature"], message)


def _verify(name: str, signature: str, message: bytes) -> None:
    key(name).public_key().verify(base64.b64decode(signature), message, padding.PKCS1v15(), SHA256())


# What is sent


@pytest.mark.parametrize(("method", "product", "answer"), METHODS)
async def test_an_order_is_signed_and_holds_what_was_asked_for(
    any_bench: Bench, method: PaymentMethod, product: str, answer: dict[str, str]
) -> None:
    any_bench.wechat.says(answer)
    assert isinstance(await any_bench.create(method), Accepted)
    [sent] = any_bench.wechat.orders
    partner = any_bench.account.mode == "v3_partner"
    assert sent.target == f"/v3/pay/{'partner/' if partner else ''}transactions/{product}"
    _check_signed(sent, "POST")
    assert (sent.headers["accept"], sent.headers["content-type"]) == ("application/json", "application/json")
    assert sent.headers["user-agent"].startswith("shouyin")
    expected: dict[str, Any] = {
        "description": '会员 "月卡" + 100% <b>',
        "out_trade_no": NUMBER,
        "time_expire": "2026-11-22T09:32:03+08:00",
        "notify_url": "https://pay.example.com/notify/wechat/1",
        "amount": {"total": 1990, "currency": "CNY"},
    }
    if partner:
        expected |= {"sp_appid": APP_ID, "sp_mchid": MCHID, "sub_appid": SUB_APP_ID, "sub_mchid": SUB_MCHID}
    else:
        expected |= {"appid": APP_ID, "mchid": MCHID}
    if product == "jsapi":
        expected["payer"] = {"sub_openid" if partner else "openid": OPENID}
    if product == "h5":
        expected["scene_info"] = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    assert json.loads(sent.body) == expected


async def test_the_public_key_is_asked_for_where_it_is_the_mode_and_not_while_moving(
    client: httpx.AsyncClient,
) -> None:
    moving = {"public_key_id": PUBLIC_KEY_ID, "public_key": public_text("wechat")}
    for mode, more, asked in (
        ("v3", {}, PUBLIC_KEY_ID),
        ("v3_partner", {}, PUBLIC_KEY_ID),
        ("v3_certificate", {}, None),
        ("v3_certificate", moving, None),
    ):
        async with benching(client, mode, **more) as bench:
            bench.wechat.says(PREPAID)
            await bench.create()
            assert bench.wechat.orders[0].headers.get("wechatpay-serial") == asked


async def test_the_same_request_always_gives_the_same_bytes(bench: Bench) -> None:
    bench.wechat.says(PREPAID)
    for _ in range(3):
        await bench.create()
        bench.clock.advance(timedelta(seconds=7))
    bodies = {one.body for one in bench.wechat.orders}
    assert len(bodies) == 1
    assert len({one.headers["authorization"] for one in bench.wechat.orders}) == 3


async def test_queries_and_closing_name_the_receiver(any_bench: Bench) -> None:
    partner = any_bench.account.mode == "v3_partner"
    base = "/v3/pay/partner/transactions" if partner else "/v3/pay/transactions"
    query = f"sp_mchid={MCHID}&sub_mchid={SUB_MCHID}" if partner else f"mchid={MCHID}"
    any_bench.wechat.says(PARTNER_PAID if partner else PAID)
    await any_bench.query()
    await any_bench.dialect.query_transaction(any_bench.account, TRANSACTION)
    any_bench.wechat.says(b"", status=204)
    assert await any_bench.close() == Closed()
    by_number, by_theirs, close = any_bench.wechat.orders
    assert by_number.target == f"{base}/out-trade-no/{NUMBER}?{query}"
    assert by_theirs.target == f"{base}/id/{TRANSACTION}?{query}"
    assert close.target == f"{base}/out-trade-no/{NUMBER}/close"
    assert (by_number.body, by_theirs.body) == (b"", b"")
    assert "content-type" not in by_number.headers
    assert json.loads(close.body) == dict(parse_qsl(query))
    _check_signed(by_number, "GET")
    _check_signed(by_theirs, "GET")
    _check_signed(close, "POST")


async def test_a_number_with_odd_characters_is_sent_as_it_is_signed(bench: Bench) -> None:
    bench.wechat.says(PAID)
    await bench.dialect.query(bench.account, "A-b_c*d|e")
    [sent] = bench.wechat.orders
    assert sent.target == f"/v3/pay/transactions/out-trade-no/A-b_c%2Ad%7Ce?mchid={MCHID}"
    _check_signed(sent, "GET")


# What the page gets


@pytest.mark.parametrize("method", [PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_MINI_PROGRAM])
async def test_the_page_gets_signed_parameters(any_bench: Bench, method: PaymentMethod) -> None:
    any_bench.wechat.says(PREPAID)
    outcome = await any_bench.create(method)
    assert isinstance(outcome, Accepted)
    action = dict(outcome.action)
    message = f"{any_bench.app_id}\n{action['timeStamp']}\n{action['nonceStr']}\n{action['package']}\n"
    _verify("merchant", action.pop("paySign"), message.encode())
    assert re.fullmatch(r"[0-9a-f]{32}", action.pop("nonceStr"))
    assert action == {
        "kind": "WechatPayParams",
        "appId": any_bench.app_id,
        "timeStamp": str(int(NOW.timestamp())),
        "package": f"prepay_id={PREPAID['prepay_id']}",
        "signType": "RSA",
    }
    assert outcome.transaction_id is None


async def test_each_method_runs_under_its_own_application(client: httpx.AsyncClient) -> None:
    lists = {"mini_program_appid": f"{MINI_APP_ID},{SUB_APP_ID}"}
    async with benching(client, **lists) as bench:
        bench.wechat.says(PREPAID)
        for method, app_id, used in (
            (PaymentMethod.WECHAT_MINI_PROGRAM, None, MINI_APP_ID),
            (PaymentMethod.WECHAT_MINI_PROGRAM, SUB_APP_ID, SUB_APP_ID),
            (PaymentMethod.WECHAT_JSAPI, None, APP_ID),
            (PaymentMethod.WECHAT_JSAPI, APP_ID, APP_ID),
        ):
            outcome = await bench.create(method, app_id=app_id)
            assert isinstance(outcome, Accepted)
            assert outcome.action["appId"] == used
            assert json.loads(bench.wechat.orders[-1].body)["appid"] == used


async def test_an_application_that_is_not_the_accounts_is_refused_unsent(bench: Bench) -> None:
    outcome = await bench.create(app_id=MINI_APP_ID)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "APPID_MCHID_NOT_MATCH"
    assert "bind" in outcome.explanation
    assert bench.wechat.server.received == []


@pytest.mark.parametrize(
    ("address", "written"),
    [("2001:DB8::0001", "2001:db8::1"), ("::ffff:203.0.113.7", "203.0.113.7"), ("fe80::1%eth0", "fe80::1")],
)
async def test_the_payers_address_is_written_plainly(bench: Bench, address: str, written: str) -> None:
    bench.wechat.says({"h5_url": "https://wx.tenpay.com/x?prepay_id=1"})
    await bench.create(PaymentMethod.WECHAT_H5, client_address=address)
    assert json.loads(bench.wechat.orders[-1].body)["scene_info"]["payer_client_ip"] == written


async def test_a_partner_without_a_sub_appid_knows_payers_under_its_own(client: httpx.AsyncClient) -> None:
    async with benching(client, "v3_partner", sub_appid="") as bench:
        bench.wechat.says(PREPAID)
        outcome = await bench.create()
        assert isinstance(outcome, Accepted)
        assert outcome.action["appId"] == APP_ID
        sent = json.loads(bench.wechat.orders[0].body)
        assert sent["payer"] == {"sp_openid": OPENID}
        assert "sub_appid" not in sent
        paid = {name: value for name, value in PARTNER_PAID.items() if name != "sub_appid"}
        bench.wechat.says(paid | {"payer": {"sp_openid": OPENID}})
        report = await bench.query()
        assert report.payer_id == OPENID
        assert report.account_claims == {"sp_appid": APP_ID, "sp_mchid": MCHID, "sub_mchid": SUB_MCHID}


async def test_an_h5_payment_comes_back_to_the_page(bench: Bench) -> None:
    bench.wechat.says(METHODS[2][2])
    outcome = await bench.create(PaymentMethod.WECHAT_H5)
    assert isinstance(outcome, Accepted)
    assert outcome.action.keys() == {"kind", "url"}
    assert outcome.action["kind"] == "Redirect"
    assert outcome.action["url"].startswith(
        "https://wx.tenpay.com/cgi-bin/checkmweb?prepay_id=wx1&package=2&redirect_url="
    )
    query = parse_qs(urlsplit(outcome.action["url"]).query, strict_parsing=True)
    assert query["redirect_url"] == ["https://shop.example.com/done?id=1&x=%E4%B8%AD"]
    without = await bench.create(PaymentMethod.WECHAT_H5, return_url=None)
    assert without.action == {"kind": "Redirect", "url": METHODS[2][2]["h5_url"]}


async def test_a_native_payment_is_a_code(bench: Bench) -> None:
    bench.wechat.says(METHODS[3][2])
    outcome = await bench.create(PaymentMethod.WECHAT_NATIVE)
    assert outcome == Accepted({"kind": "QrCode", "codeUrl": "weixin://wxpay/bizpayurl?pr=JyC91EIz1", "deepLink": None})


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (PaymentMethod.WECHAT_JSAPI, {}),
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": ""}),
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": 7}),
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": "a\nb"}),
        (PaymentMethod.WECHAT_JSAPI, {"prepay_id": "x" * 65}),
        (PaymentMethod.WECHAT_JSAPI, {"code_url": "weixin://wxpay/bizpayurl?pr=1"}),
        (PaymentMethod.WECHAT_NATIVE, {"code_url": "javascript:alert(1)"}),
        (PaymentMethod.WECHAT_NATIVE, {"code_url": "https://wx.tenpay.com/"}),
        (PaymentMethod.WECHAT_H5, {"h5_url": "javascript:alert(1)"}),
        (PaymentMethod.WECHAT_H5, {"h5_url": "weixin://wap/pay"}),
        (PaymentMethod.WECHAT_H5, PREPAID),
    ],
)
async def test_a_success_with_nothing_to_pay_with_is_unknown(
    bench: Bench, method: PaymentMethod, answer: dict[str, Any]
) -> None:
    bench.wechat.says(answer)
    assert isinstance(await bench.create(method), Unknown)


# What an answer is worth


async def _everything(bench: Bench) -> list[Any]:
    return [await bench.create(), await bench.query(), await bench.close()]


async def test_an_unsigned_success_is_unknown(any_bench: Bench) -> None:
    any_bench.wechat.signed = None
    any_bench.wechat.says({**PREPAID, **PAID})
    for outcome in await _everything(any_bench):
        assert outcome == Unknown("HTTP 200: the answer is not signed")


@pytest.mark.parametrize(
    "how",
    [
        {"by": "merchant"},
        {"by": "stranger"},
        {"named": "PUB_KEY_ID_0000000000000000000000000000000001"},
        {"named": MCHID},
        {"at": NOW - timedelta(seconds=300)},
        {"at": NOW + timedelta(seconds=300)},
        {"at": NOW - timedelta(days=30)},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [200, 204, 400, 404, 429])
async def test_what_is_wrongly_signed_is_unknown(bench: Bench, how: dict[str, Any], status: int) -> None:
    bench.wechat.signed = how
    refusal = b'{"code":"ORDER_NOT_EXIST","message":""}' if status >= 400 else b""
    bench.wechat.says(refusal, status=status)
    for outcome in await _everything(bench):
        if "at" in how and status >= 400:
            # A refusal may come at any distance in time: that is what a wrong clock gets.
            assert not isinstance(outcome, Unknown)
        else:
            assert isinstance(outcome, Unknown), outcome


@pytest.mark.parametrize(
    "change", ["wechatpay-timestamp", "wechatpay-nonce", "wechatpay-serial", "wechatpay-signature"]
)
@pytest.mark.parametrize("text", ["", "x", "1" * 13, "漢".encode().decode("latin-1"), "-1", "1e9"])
async def test_a_damaged_stamp_is_unknown_and_crashes_nothing(bench: Bench, change: str, text: str) -> None:
    body = json.dumps(PAID).encode()
    bench.wechat.answer = answering(body, extra=raw(stamped(body) | {change: text}))
    for outcome in await _everything(bench):
        assert isinstance(outcome, Unknown)


async def test_a_stamp_just_inside_the_bound_is_taken(bench: Bench) -> None:
    for distance in (-299, 299):
        bench.wechat.signed = {"at": NOW + timedelta(seconds=distance)}
        bench.wechat.says(PREPAID)
        assert isinstance(await bench.create(), Accepted)


async def test_the_signature_covers_the_received_bytes(bench: Bench) -> None:
    body = json.dumps(PAID).encode()
    headers = raw(stamped(body))
    for changed in (body + b" ", body.replace(b"1990", b"1991"), b" " + body, body.replace(b'": ', b'":')):
        bench.wechat.answer = answering(changed, extra=headers)
        assert isinstance(await bench.query(), Unknown)
    bench.wechat.answer = answering(body, extra=headers)
    assert isinstance(await bench.query(), PaymentReport)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"7", b'"x"', b"{", b'{"a":1,"a":1}', b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}",
        b'{"amount":NaN}', b"[" * 100_000, b'{"a":' * 50_000, b'{"a":' + b"9" * 5000 + b"}", b"<html>",
    ],
    ids=lambda body: body[:12],
)  # fmt: skip
async def test_signed_bytes_that_are_no_answer_are_unknown(bench: Bench, body: bytes) -> None:
    bench.wechat.says(body)
    assert isinstance(await bench.create(), Unknown)
    assert isinstance(await bench.query(), Unknown)


async def test_what_is_unknown_names_wechats_own_number_of_the_call(bench: Bench) -> None:
    traced = "Request-ID: 08F1A2-268435454\r\n"
    bench.wechat.answer = answering(b'{"code":"SYSTEM_ERROR","message":""}', status=500, extra=traced)
    assert await bench.create() == Unknown("HTTP 500 SYSTEM_ERROR (Request-ID 08F1A2-268435454)")
    bench.wechat.answer = answering(b"{}", extra=traced)
    assert await bench.query() == Unknown("HTTP 200: the answer is not signed (Request-ID 08F1A2-268435454)")


@pytest.mark.parametrize("status", [201, 202, 206, 301, 302, 500, 502, 503])
async def test_every_other_status_is_unknown(bench: Bench, status: int) -> None:
    bench.wechat.says({**PREPAID, **PAID, "code": "PARAM_ERROR"}, status=status)
    for outcome in await _everything(bench):
        assert isinstance(outcome, Unknown)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413])
@pytest.mark.parametrize("body", [b"", b"<html>blocked</html>", b"{}", b'{"code":7}', b'{"code":""}', b'{"errcode":1}'])
async def test_an_error_that_names_no_code_is_unknown(bench: Bench, status: int, body: bytes) -> None:
    bench.wechat.answer = answering(body, status=status)
    for outcome in await _everything(bench):
        assert isinstance(outcome, Unknown)


async def test_silence_is_unknown_and_a_closed_port_is_not_reached(client: httpx.AsyncClient) -> None:
    async with benching(client) as bench:
        bench.wechat.answer = hang
        async with asyncio.timeout(20):
            impatient = type(bench.dialect)(client, bench.clock, timeout_s=0.3, gateways=bench.dialect._gateways)
            assert isinstance(await impatient.query(bench.account, NUMBER), Unknown)
    for outcome in await _everything(bench):
        assert isinstance(outcome, NotReached)


# Refusals


@pytest.mark.parametrize("signed", [True, False])
async def test_a_refusal_is_explained_signed_or_not(any_bench: Bench, signed: bool) -> None:
    detail = {"field": "/payer/openid", "value": "oSecretOpenid", "issue": "pattern", "location": "body"}
    any_bench.wechat.refuses(400, "PARAM_ERROR", "参数错误", signed=signed, detail=detail)
    outcome = await any_bench.create()
    assert outcome == Rejected("PARAM_ERROR", "参数错误 (/payer/openid)", *explain("PARAM_ERROR", ""))
    assert isinstance(await any_bench.query(), Rejected)
    assert isinstance(await any_bench.close(), Rejected)


@pytest.mark.parametrize(
    ("status", "code", "message", "created", "queried", "closed"),
    [
        (400, "ORDER_PAID", "该订单已支付", Unknown, Rejected, NotClosed),
        (403, "ORDERPAID", "该订单已支付", Unknown, Rejected, NotClosed),
        (400, "ORDER_CLOSED", "该订单已关闭", Unknown, Rejected, Closed),
        (403, "OUT_TRADE_NO_USED", "商户订单号重复", Unknown, Rejected, Rejected),
        (400, "INVALID_REQUEST", "请求重入时，参数与首次请求时不一致", Unknown, Rejected, Rejected),
        (400, "INVALID_REQUEST", "201 商户订单号重复", Unknown, Rejected, Rejected),
        (400, "INVALID_REQUEST", "无效的openid", Rejected, Rejected, Rejected),
        (400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配", Rejected, Rejected, Rejected),
        (401, "SIGN_ERROR", "签名错误", Rejected, Rejected, Rejected),
        (403, "NO_AUTH", "商户号该产品权限未开通", Rejected, Rejected, Rejected),
        (404, "ORDER_NOT_EXIST", "订单不存在", Rejected, PaymentReport, NeverOpened),
        (404, "ORDERNOTEXIST", "订单不存在", Rejected, PaymentReport, NeverOpened),
        (404, "MCH_NOT_EXISTS", "商户号不存在", Rejected, Rejected, Rejected),
        (404, "RESOURCE_NOT_EXISTS", "资源不存在", Rejected, Rejected, Rejected),
        (400, "TRADE_STATE_ERROR", "订单状态错误", Rejected, Rejected, NotClosed),
        (400, "USERPAYING", "用户支付中", Rejected, Rejected, NotClosed),
        (400, "SYSTEM_ERROR", "系统异常", Unknown, Unknown, Unknown),
        (403, "BANK_ERROR", "银行系统异常", Unknown, Unknown, Unknown),
        (429, "RATELIMIT_EXCEEDED", "频率过高", NotReached, NotReached, NotReached),
        (429, "FREQUENCY_LIMITED", "频率限制", NotReached, NotReached, NotClosed),
        (429, "", "", NotReached, NotReached, NotReached),
    ],
)
async def test_each_refusal_ends_as_it_must(
    bench: Bench, status: int, code: str, message: str, created: type, queried: type, closed: type
) -> None:
    bench.wechat.refuses(status, code, message)
    outcomes = await _everything(bench)
    assert [type(one) for one in outcomes] == [created, queried, closed]
    assert len(bench.wechat.orders) == 3
    if isinstance(outcomes[1], PaymentReport):
        assert outcomes[1] == PaymentReport(NUMBER, ReportedStatus.NOT_FOUND, "query")
    if isinstance(outcomes[2], NotClosed):
        assert outcomes[2] == NotClosed(code, message)


async def test_an_openid_of_another_application_is_refused_although_the_status_is_500(bench: Bench) -> None:
    bench.wechat.refuses(500, "OPENID_MISMATCH", "openid和appid不匹配", signed=True)
    outcome = await bench.create()
    assert outcome == Rejected("OPENID_MISMATCH", "openid和appid不匹配", *explain("OPENID_MISMATCH", ""))
    # Unproven, or about anything else, a server's error stays unknown.
    bench.wechat.refuses(500, "OPENID_MISMATCH", "openid和appid不匹配")
    assert await bench.create() == Unknown("HTTP 500: the answer is not signed")
    bench.wechat.signed = {"by": "stranger"}
    bench.wechat.refuses(500, "OPENID_MISMATCH", signed=True)
    assert isinstance(await bench.create(), Unknown)
    bench.wechat.signed = {}
    for code in ("PARAM_ERROR", "ORDER_NOT_EXIST", "ORDER_CLOSED", "SIGN_ERROR"):
        bench.wechat.refuses(500, code, signed=True)
        for outcome in await _everything(bench):
            assert outcome == Unknown(f"HTTP 500 {code}")


async def test_a_wrong_clock_is_told_from_a_wrong_key(bench: Bench) -> None:
    for how in ({"at": NOW + timedelta(minutes=10)}, {"at": NOW - timedelta(minutes=10)}):
        bench.wechat.signed = how
        bench.wechat.refuses(401, "SIGN_ERROR", "签名错误", signed=True)
        outcome = await bench.create()
        assert "clock" in outcome.explanation
        assert "serial_no" not in outcome.explanation
    for date, named in (
        ("Sun, 22 Nov 2026 01:12:03 GMT", "five minutes"),
        ("Sun, 22 Nov 2026 01:02:00 GMT", "serial_no"),
    ):
        bench.wechat.answer = answering(b'{"code":"SIGN_ERROR","message":""}', status=401, extra=f"Date: {date}\r\n")
        assert named in (await bench.create()).explanation


# Reports


async def test_a_paid_order_is_reported(any_bench: Bench) -> None:
    partner = any_bench.account.mode == "v3_partner"
    any_bench.wechat.says(PARTNER_PAID if partner else PAID)
    report = await any_bench.query()
    claims = (
        {"sp_appid": APP_ID, "sp_mchid": MCHID, "sub_appid": SUB_APP_ID, "sub_mchid": SUB_MCHID}
        if partner
        else {"appid": APP_ID, "mchid": MCHID}
    )
    assert report == PaymentReport(
        out_trade_no=NUMBER,
        status=ReportedStatus.SUCCESSFUL,
        source="query",
        amount_fen=1990,
        currency="CNY",
        transaction_id=TRANSACTION,
        payer_id=OPENID,
        paid_at=NOW.replace(second=1),
        account_claims=claims,
    )
    assert all(claims[name] in expected for name, expected in any_bench.account.expected_claims.items())
    assert await any_bench.dialect.query_transaction(any_bench.account, TRANSACTION) == report


async def test_an_unpaid_order_is_reported(bench: Bench) -> None:
    unpaid = {"appid": APP_ID, "mchid": MCHID, "out_trade_no": NUMBER, "trade_state": "NOTPAY", "amount": {"total": 1}}
    bench.wechat.says(unpaid)
    report = await bench.query()
    assert (report.status, report.amount_fen, report.transaction_id) == (ReportedStatus.PENDING, 1, None)
    assert (report.payer_id, report.paid_at) == (None, None)


async def test_an_answer_about_another_order_is_unknown(bench: Bench) -> None:
    bench.wechat.says(PAID | {"out_trade_no": "SY20261122000002", "transaction_id": "42"})
    assert await bench.query() == Unknown("the answer is about another out_trade_no")
    outcome = await bench.dialect.query_transaction(bench.account, TRANSACTION)
    assert outcome == Unknown("the answer is about another transaction_id")
    bench.wechat.refuses(404, "ORDER_NOT_EXIST")
    assert await bench.dialect.query_transaction(bench.account, TRANSACTION) is None


@pytest.mark.parametrize(
    "change",
    [
        {"amount": {"total": "1990"}}, {"amount": {"total": 19.9}}, {"amount": {"total": True}},
        {"amount": {"total": -1}}, {"amount": {"total": 2**63}}, {"amount": [1990]}, {"amount": "1990"},
        {"amount": {"total": 1990, "currency": 7}}, {"trade_state": None}, {"trade_state": ""},
        {"out_trade_no": 7}, {"mchid": None}, {"appid": None}, {"mchid": ""}, {"out_trade_no": "SY\x00"},
        {"trade_state": "\ud800"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_report_that_cannot_be_believed_is_unknown(bench: Bench, change: dict[str, Any]) -> None:
    bench.wechat.says(json.dumps(PAID | change).encode())
    assert isinstance(await bench.query(), Unknown)


@pytest.mark.parametrize("time", ["2026-11-22T09:02:01", "yesterday", "", 7, None, "9999-12-31T23:59:59-23:59"])
async def test_a_time_that_cannot_be_read_loses_only_the_time(bench: Bench, time: Any) -> None:
    bench.wechat.says(PAID | {"success_time": time})
    report = await bench.query()
    assert (report.status, report.amount_fen, report.paid_at) == (ReportedStatus.SUCCESSFUL, 1990, None)


async def test_another_currency_and_receiver_reach_the_caller_as_they_are(bench: Bench) -> None:
    bench.wechat.says(PAID | {"amount": {"total": 1990, "currency": "HKD"}, "mchid": "1900000002"})
    report = await bench.query()
    assert (report.currency, report.account_claims["mchid"]) == ("HKD", "1900000002")
    assert report.account_claims["mchid"] not in bench.account.expected_claims["mchid"]


def test_the_acknowledgement_is_a_status(bench: Bench) -> None:
    assert bench.dialect.acknowledge(bench.account, accepted=True) == Acknowledgement(204, b"", "application/json")
    refused = bench.dialect.acknowledge(bench.account, accepted=False)
    assert refused.status_code == 400
    assert json.loads(refused.body)["code"] == "FAIL"


async def test_an_account_of_another_dialect_is_a_fault_of_ours(bench: Bench) -> None:
    other = SimpleNamespace(expected_claims={}, offers={})
    with pytest.raises(TypeError, match="APIv3"):
        await bench.dialect.create(other, request())


def test_secrets_show_in_no_representation(bench: Bench) -> None:
    shown = repr(bench.account)
    assert "PRIVATE" not in shown
    assert bench.account.apiv3_key.decode() not in shown

"""What the gateway refuses before a product sees the call: one row per rule, exact codes, nothing left behind."""

import json
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest

from tests.sandbox.alipay.client import NO_CHANGES, AlipayClient, new_number, now_beijing, parse_answer
from tests.sandbox.handle import SandboxHandle

PRECREATE = "alipay_trade_precreate_response"
LONG_URL = "https://shop.example/" + "x" * 240


@dataclass(frozen=True, slots=True)
class Row:
    """A correct precreate with `changes` made before signing or `after_signing`, and the refusal it gets."""

    rule: str
    code: str
    sub_code: str
    changes: dict[str, str | None] = field(default_factory=dict)
    after_signing: dict[str, str | None] = field(default_factory=dict)
    key: str = PRECREATE


PUBLIC_KEY_ROWS = [
    Row("app_id missing", "40001", "isv.missing-app-id", {"app_id": None}),
    Row("app_id empty", "40001", "isv.missing-app-id", {"app_id": ""}),
    Row("app_id unknown", "40002", "isv.invalid-app-id", {"app_id": "2021000000000000"}),
    Row("app_id unknown wins over a missing sign", "40002", "isv.invalid-app-id", {"app_id": "1"}, {"sign": None}),
    Row("method missing", "40001", "isv.missing-method", {"method": None}, key="error_response"),
    Row("method unknown", "40002", "isv.invalid-method", {"method": "alipay.trade.nothing"}, key="error_response"),
    Row("charset missing", "40002", "isv.invalid-charset", {"charset": None}),
    Row("charset unsupported", "40002", "isv.invalid-charset", {"charset": "latin-1"}),
    Row("sign_type missing", "40001", "isv.missing-signature-type", {"sign_type": None}),
    Row("sign_type RSA", "40002", "isv.invalid-signature-type", {"sign_type": "RSA"}),
    Row("sign_type in lower case", "40002", "isv.invalid-signature-type", {"sign_type": "rsa2"}),
    Row("sign missing", "40001", "isv.missing-signature", {}, {"sign": None}),
    Row("sign is not base64", "40002", "isv.invalid-signature", {}, {"sign": "***"}),
    Row("sign of another call", "40002", "isv.invalid-signature", {}, {"biz_content": '{"out_trade_no":"other"}'}),
    Row(
        "sign_type left out of the string", "40002", "isv.invalid-signature", {"sign_type": None}, {"sign_type": "RSA2"}
    ),
    Row("parameter added after signing", "40002", "isv.invalid-signature", {}, {"notify_url": "http://127.0.0.1/n"}),
    Row("parameter removed after signing", "40002", "isv.invalid-signature", {}, {"format": None}),
    Row("space trimmed after signing", "40002", "isv.invalid-signature", {"alipay_sdk": "x "}, {"alipay_sdk": "x"}),
    Row("format XML", "40002", "isv.invalid-format", {"format": "XML"}),
    Row("version missing", "40001", "isv.missing-version", {"version": None}),
    Row("version 2.0", "40002", "isv.invalid-parameter", {"version": "2.0"}),
    Row("encryption not configured", "40002", "isv.invalid-encrypt-type", {"encrypt_type": "AES"}),
    Row("unknown common parameter", "40002", "isv.invalid-parameter", {"notifyurl": "http://127.0.0.1/n"}),
    Row("timestamp missing", "40001", "isv.missing-timestamp", {"timestamp": None}),
    Row("timestamp in ISO form", "40002", "isv.invalid-timestamp", {"timestamp": "2026-11-22T06:00:00"}),
    Row("timestamp with one digit", "40002", "isv.invalid-timestamp", {"timestamp": "2026-1-2 3:04:05"}),
    Row("timestamp an hour old", "40002", "isv.invalid-timestamp", {"timestamp": now_beijing(minutes=-61)}),
    Row("timestamp an hour ahead", "40002", "isv.invalid-timestamp", {"timestamp": now_beijing(minutes=61)}),
    Row("timestamp in UTC", "40002", "isv.invalid-timestamp", {"timestamp": now_beijing(hours=-8)}),
    Row("notify_url too long", "40002", "isv.invalid-parameter", {"notify_url": LONG_URL}),
    Row("notify_url relative", "40002", "isv.invalid-parameter", {"notify_url": "/notify"}),
    Row("return_url not http", "40002", "isv.invalid-parameter", {"return_url": "javascript:alert(1)"}),
    Row("certificate at a public-key app", "40002", "isv.app-cert-not-exist", {"app_cert_sn": "0" * 32}),
    Row("ISV token at an ordinary app", "20001", "aop.invalid-app-auth-token", {"app_auth_token": "202611BBx"}),
    Row("user token", "20001", "aop.invalid-auth-token", {"auth_token": "x"}),
]

CERTIFICATE_ROWS = [
    Row("app_cert_sn missing", "40002", "isv.missing-app-cert-sn", {"app_cert_sn": None}),
    Row("app_cert_sn of another", "40002", "isv.app-cert-not-exist", {"app_cert_sn": "0" * 32}),
    Row("root SN missing", "40002", "isv.missing-alipay-root-cert-sn", {"alipay_root_cert_sn": None}),
    Row("root SN of another", "40002", "isv.invalid-alipay-root-cert-sn", {"alipay_root_cert_sn": "0" * 32}),
]

ISV_ROWS = [
    Row("app_auth_token missing", "40006", "isv.insufficient-isv-permissions", {"app_auth_token": None}),
    Row("app_auth_token wrong", "20001", "aop.invalid-app-auth-token", {"app_auth_token": "202611BBwrong"}),
]


async def assert_refused(client: AlipayClient, sandbox: SandboxHandle, row: Row) -> None:
    number = new_number()
    order = client.order(number, product="qr")
    answer = await client.execute("alipay.trade.precreate", order, changes=row.changes, after_signing=row.after_signing)
    assert answer.outcome == (row.key, row.code, row.sub_code)
    assert list(answer.envelope) == [row.key], "the gateway signs none of its own refusals"
    assert not await sandbox.has_trade(number)


@pytest.mark.parametrize("row", PUBLIC_KEY_ROWS, ids=lambda row: row.rule)
async def test_gateway_refuses(sandbox: SandboxHandle, alipay: AlipayClient, row: Row) -> None:
    await assert_refused(alipay, sandbox, row)


@pytest.mark.parametrize("row", CERTIFICATE_ROWS, ids=lambda row: row.rule)
async def test_gateway_refuses_in_certificate_mode(
    sandbox: SandboxHandle, certificate_alipay: AlipayClient, row: Row
) -> None:
    await assert_refused(certificate_alipay, sandbox, row)


@pytest.mark.parametrize("row", ISV_ROWS, ids=lambda row: row.rule)
async def test_gateway_refuses_an_isv(sandbox: SandboxHandle, isv_alipay: AlipayClient, row: Row) -> None:
    await assert_refused(isv_alipay, sandbox, row)


async def test_another_apps_key_does_not_sign_for_this_one(alipay: AlipayClient, isv_alipay: AlipayClient) -> None:
    isv_alipay.account = alipay.account
    answer = await isv_alipay.execute("alipay.trade.query", {"out_trade_no": "any"})
    assert answer.outcome == ("alipay_trade_query_response", "40002", "isv.invalid-signature")
    assert "网关生成的验签字符串为：app_id=9021000100000001&biz_content=" in answer.fields["sub_msg"]


async def test_charset_only_in_the_body_is_refused(alipay: AlipayClient) -> None:
    parameters = alipay.signed("alipay.trade.query", {"out_trade_no": "any"})
    response = await alipay.http.post(alipay.account["gateway"], data=parameters)
    key, code, sub_code = parse_answer(response.content, "gbk").outcome
    assert (key, code, sub_code) == ("alipay_trade_query_response", "40002", "isv.invalid-charset")


async def test_bytes_that_are_not_in_the_charset_are_refused(alipay: AlipayClient) -> None:
    parameters = alipay.signed("alipay.trade.query", json.dumps({"out_trade_no": "咖啡"}, ensure_ascii=False))
    query = urlencode({name: value for name, value in parameters.items() if name != "biz_content"})
    body = urlencode({"biz_content": parameters["biz_content"]}, encoding="gbk")
    response = await alipay.http.post(
        f"{alipay.account['gateway']}?{query}",
        content=body,
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert parse_answer(response.content).outcome[1:] == ("40002", "isv.invalid-charset")


async def test_a_parameter_given_twice_with_two_values_is_refused(alipay: AlipayClient) -> None:
    parameters = alipay.signed("alipay.trade.query", {"out_trade_no": "any"})
    response = await alipay.http.post(
        f"{alipay.account['gateway']}?{urlencode(parameters)}", data={"biz_content": '{"out_trade_no":"other"}'}
    )
    assert parse_answer(response.content).outcome[1:] == ("40002", "isv.invalid-parameter")


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x"])
async def test_a_body_that_is_no_form_is_refused(alipay: AlipayClient, content_type: str) -> None:
    parameters = alipay.signed("alipay.trade.query", {"out_trade_no": "any"})
    response = await alipay.http.post(
        f"{alipay.account['gateway']}?{urlencode(parameters)}", content=b"{}", headers={"content-type": content_type}
    )
    assert response.status_code == 200
    assert parse_answer(response.content).outcome == ("error_response", "40002", "isv.invalid-parameter")


async def test_a_body_over_a_megabyte_is_refused(alipay: AlipayClient) -> None:
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "x" * (1 << 20)})
    assert answer.outcome == ("error_response", "40002", "isv.invalid-parameter")


@pytest.mark.parametrize("minutes", [-9.5, 9.5])
async def test_a_clock_within_ten_minutes_is_accepted(alipay: AlipayClient, minutes: float) -> None:
    changes: dict[str, str | None] = {"timestamp": now_beijing(minutes=minutes)}
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"}, changes=changes)
    assert answer.outcome[1:] == ("40004", "ACQ.TRADE_NOT_EXIST")


async def test_a_timestamp_in_utc_is_told_so(alipay: AlipayClient) -> None:
    changes: dict[str, str | None] = {"timestamp": now_beijing(hours=-8)}
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"}, changes=changes)
    assert "北京时间" in answer.fields["sub_msg"]


async def test_moving_the_sandbox_clock_does_not_make_callers_late(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    await sandbox.advance(3600)
    assert await alipay.query_refused("none") == "ACQ.TRADE_NOT_EXIST"
    in_an_hour: dict[str, str | None] = {"timestamp": now_beijing(hours=1)}
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"}, changes=in_an_hour)
    assert answer.outcome[1:] == ("40004", "ACQ.TRADE_NOT_EXIST")


async def test_strict_timestamps_play_a_caller_whose_clock_is_wrong(
    sandbox: SandboxHandle, alipay: AlipayClient
) -> None:
    await sandbox.control("POST", "/clock", {"advance_s": 660, "strict_timestamps": True})
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"})
    assert answer.outcome[1:] == ("40002", "isv.invalid-timestamp")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8"])
async def test_spellings_of_utf8_are_accepted(alipay: AlipayClient, charset: str) -> None:
    answer = await alipay.execute("alipay.trade.query", {"out_trade_no": "none"}, changes={"charset": charset})
    assert answer.outcome[1:] == ("40004", "ACQ.TRADE_NOT_EXIST")


async def test_parameters_all_in_the_url_of_a_get_are_accepted(alipay: AlipayClient) -> None:
    parameters = alipay.signed("alipay.trade.query", {"out_trade_no": "none"}, changes=NO_CHANGES)
    response = await alipay.http.get(f"{alipay.account['gateway']}?{urlencode(parameters)}")
    assert parse_answer(response.content).outcome[1:] == ("40004", "ACQ.TRADE_NOT_EXIST")


async def test_a_gbk_call_is_read_and_answered_in_gbk(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    order = alipay.order(number, product="qr")
    parameters = alipay.signed("alipay.trade.precreate", order, changes={"charset": "gbk"})
    response = await alipay.send(parameters, codec="gbk")
    assert response.headers["content-type"] == "text/html;charset=gbk"
    answer = parse_answer(response.content, "gbk")
    assert answer.fields["code"] == "10000"
    assert alipay.signed_by_alipay(answer)
    assert (await sandbox.trade(number))["subject"] == "一杯咖啡"


async def test_everything_in_the_form_with_charset_in_the_url_is_accepted(alipay: AlipayClient) -> None:
    parameters = alipay.signed("alipay.trade.query", {"out_trade_no": "none"})
    response = await alipay.http.post(f"{alipay.account['gateway']}?charset=utf-8", data=parameters)
    assert parse_answer(response.content).outcome[1:] == ("40004", "ACQ.TRADE_NOT_EXIST")

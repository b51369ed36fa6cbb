"""Alipay's own Python SDK, pointed at the sandbox: it signs, the sandbox verifies, and the other way round.

The SDK is imported by name because it has no types and warns while it is imported. Two things of its own have to be
put right from outside: it takes the host's local time for Beijing's, and it loses the port of its gateway URL.
"""

import asyncio
import http.client
import importlib
import json
import time
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.sandbox.alipay.client import AlipayClient, agreement_number, agreement_terms, day, new_number
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer


def _import_sdk() -> SimpleNamespace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        api = "alipay.aop.api"
        trades = ("PagePay", "WapPay", "AppPay", "Pay", "Precreate", "Query", "Close", "Refund", "FastpayRefundQuery")
        agreements = ("PageSign", "Query", "Unsign", "ExecutionplanModify")
        requests = [f"Trade{name}" for name in trades] + [f"UserAgreement{name}" for name in agreements]
        return SimpleNamespace(
            web_utils=importlib.import_module(f"{api}.util.WebUtils"),
            config=importlib.import_module(f"{api}.AlipayClientConfig").AlipayClientConfig,
            client=importlib.import_module(f"{api}.DefaultAlipayClient").DefaultAlipayClient,
            **{
                name: (
                    getattr(importlib.import_module(f"{api}.request.Alipay{name}Request"), f"Alipay{name}Request"),
                    getattr(importlib.import_module(f"{api}.domain.Alipay{name}Model"), f"Alipay{name}Model"),
                )
                for name in requests
            },
        )


SDK = _import_sdk()


def _connection_with_port(url: str, query_string: str, timeout: float) -> tuple[str, http.client.HTTPConnection]:
    parts = urlsplit(url)
    return f"{url}?{query_string}", http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)


@pytest.fixture(autouse=True)
def beijing_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(SDK.web_utils, "get_http_connection", _connection_with_port)
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class OfficialClient:
    """The SDK with one account; its calls block, so they run in a thread."""

    def __init__(self, account: dict[str, str]) -> None:
        config = SDK.config()
        config.server_url = account["gateway"]
        config.app_id = account["app_id"]
        config.app_private_key = account["app_private_key"]
        config.alipay_public_key = account["alipay_public_key"]
        self._client = SDK.client(config)

    def request(self, name: str, notify_url: str | None = None, token: str | None = None, **fields: object) -> Any:
        request_class, model_class = getattr(SDK, name)
        model = model_class()
        for field, value in fields.items():
            setattr(model, field, value)
        request = request_class(biz_model=model)
        request.notify_url = notify_url
        if token:
            request.udf_params = {"app_auth_token": token}
        return request

    async def execute(self, request: Any) -> dict[str, Any]:
        """The fields of an answer whose signature the SDK verified."""
        answer: dict[str, Any] = json.loads(await asyncio.to_thread(self._client.execute, request))
        return answer

    def order_string(self, request: Any) -> str:
        """What an app hands to Alipay's."""
        order: str = self._client.sdk_execute(request)
        return order

    def page(self, request: Any, http_method: str) -> str:
        page: str = self._client.page_execute(request, http_method=http_method)
        return page


@pytest.fixture
def official(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OfficialClient:
    return OfficialClient(accounts["public_key"])


@pytest.mark.parametrize(
    ("name", "product_code"), [("TradePagePay", "FAST_INSTANT_TRADE_PAY"), ("TradeWapPay", "QUICK_WAP_WAY")]
)
async def test_page_payment_from_link_to_paid(
    sandbox: SandboxHandle,
    alipay: AlipayClient,
    official: OfficialClient,
    merchant: MerchantServer,
    name: str,
    product_code: str,
) -> None:
    number = new_number()
    order = {"out_trade_no": number, "total_amount": "88.88", "subject": "测试 订单", "product_code": product_code}
    link = official.page(official.request(name, merchant.notify_url, **order), "GET")
    page = await sandbox.http.get(link, follow_redirects=True)
    assert (page.status_code, "¥88.88" in page.text) == (200, True)
    query = official.request("TradeQuery", out_trade_no=number)
    assert (await official.execute(query))["trade_status"] == "WAIT_BUYER_PAY"

    await sandbox.pay(number)
    answer = await official.execute(official.request("TradeQuery", out_trade_no=number))
    assert (answer["code"], answer["trade_status"], answer["total_amount"]) == ("10000", "TRADE_SUCCESS", "88.88")
    assert alipay.read_notification(merchant.received[0].body)["total_amount"] == "88.88"


async def test_page_form_leads_to_the_payer_page(sandbox: SandboxHandle, official: OfficialClient) -> None:
    number = new_number()
    order = {
        "out_trade_no": number,
        "total_amount": "1.00",
        "subject": "表单",
        "product_code": "FAST_INSTANT_TRADE_PAY",
    }
    form = official.page(official.request("TradePagePay", **order), "POST")
    action = form.split('action="')[1].split('"')[0]
    content = form.split('name="biz_content" value="')[1].split('">')[0].replace("&quot;", '"')
    response = await sandbox.http.post(action, data={"biz_content": content}, follow_redirects=True)
    assert (response.status_code, "¥1.00" in response.text) == (200, True)


async def test_qr_payment_and_close(sandbox: SandboxHandle, official: OfficialClient) -> None:
    number = new_number()
    order = {"out_trade_no": number, "total_amount": "5.20", "subject": "扫码", "product_code": "QR_CODE_OFFLINE"}
    created = await official.execute(official.request("TradePrecreate", **order))
    assert (created["code"], created["out_trade_no"]) == ("10000", number)
    unknown = await official.execute(official.request("TradeClose", out_trade_no=number))
    assert (unknown["code"], unknown["sub_code"]) == ("40004", "ACQ.TRADE_NOT_EXIST")

    await sandbox.http.get(created["qr_code"], follow_redirects=True)
    closed = await official.execute(official.request("TradeClose", out_trade_no=number))
    assert (closed["code"], closed["out_trade_no"]) == ("10000", number)
    assert (await sandbox.trade(number))["trade_status"] == "TRADE_CLOSED"


async def test_refund_and_its_query(sandbox: SandboxHandle, alipay: AlipayClient, official: OfficialClient) -> None:
    number = new_number()
    await alipay.opened(number)
    await sandbox.pay(number)
    asked: dict[str, Any] = {
        "out_trade_no": number,
        "refund_amount": "0.01",
        "out_request_no": "R_1",
        "refund_reason": "退 一半",
    }
    answer = await official.execute(official.request("TradeRefund", **asked))
    assert (answer["code"], answer["fund_change"], answer["refund_fee"]) == ("10000", "Y", "0.01")
    again = await official.execute(official.request("TradeRefund", **asked))
    assert (again["code"], again["fund_change"], again["refund_fee"]) == ("10000", "N", "0.01")
    too_much = await official.execute(official.request("TradeRefund", **asked | {"refund_amount": "0.02"}))
    assert (too_much["code"], too_much["sub_code"]) == ("40004", "ACQ.DISCORDANT_REPEAT_REQUEST")

    query: dict[str, Any] = {"out_trade_no": number, "out_request_no": "R_1", "query_options": ["gmt_refund_pay"]}
    known = await official.execute(official.request("TradeFastpayRefundQuery", **query))
    assert (known["refund_status"], known["refund_amount"]) == ("REFUND_SUCCESS", "0.01")
    assert (known["refund_reason"], known["gmt_refund_pay"]) == ("退 一半", answer["gmt_refund_pay"])
    unknown = await official.execute(official.request("TradeFastpayRefundQuery", **query | {"out_request_no": "R_2"}))
    assert unknown == {"code": "10000", "msg": "Success"}
    assert (await sandbox.trade(number))["refunded_fen"] == 1


async def test_an_agreement_from_its_link_to_its_end(
    sandbox: SandboxHandle, alipay: AlipayClient, official: OfficialClient, merchant: MerchantServer
) -> None:
    external = agreement_number()
    terms: dict[str, Any] = agreement_terms(external)
    link = official.page(official.request("UserAgreementPageSign", merchant.notify_url, **terms), "GET")
    page = await sandbox.http.get(link, follow_redirects=True)
    assert (page.status_code, external in page.text) == (200, True)
    agreement = (await sandbox.control("POST", f"/agreements/{external}/sign", {}))["agreement"]
    assert alipay.read_notification(merchant.received[0].body)["agreement_no"] == agreement["agreement_no"]

    named = {"agreement_no": agreement["agreement_no"]}
    key = {
        "personal_product_code": "CYCLE_PAY_AUTH_P",
        "sign_scene": agreement["scene"],
        "external_agreement_no": external,
    }
    found = await official.execute(official.request("UserAgreementQuery", **key))
    assert (found["status"], found["agreement_no"]) == ("NORMAL", named["agreement_no"])
    number = new_number()
    order = {"out_trade_no": number, "total_amount": "30.00", "subject": "会员", "product_code": "CYCLE_PAY_AUTH"}
    paid = await official.execute(official.request("TradePay", merchant.notify_url, **order, agreement_params=named))
    assert (paid["code"], paid["total_amount"]) == ("10000", "30.00")
    postponed = official.request("UserAgreementExecutionplanModify", **named, deduct_time=day(after=9))
    assert (await official.execute(postponed))["deduct_time"] == day(after=9)
    ended = await official.execute(official.request("UserAgreementUnsign", merchant.notify_url, **key))
    assert ended == {"code": "10000", "msg": "Success"}
    again = official.request("TradePay", **order | {"out_trade_no": new_number()}, agreement_params=named)
    assert (await official.execute(again))["sub_code"] == "ACQ.AGREEMENT_NOT_EXIST"
    notices = [alipay.read_notification(received.body)["notify_type"] for received in await merchant.wait_for(3)]
    assert notices == ["dut_user_sign", "trade_status_sync", "dut_user_unsign"]


async def test_an_order_string_pays_and_signs(
    sandbox: SandboxHandle, alipay: AlipayClient, official: OfficialClient, merchant: MerchantServer
) -> None:
    number, external = new_number(), agreement_number()
    order = {"out_trade_no": number, "total_amount": "1.00", "subject": "首期", "product_code": "CYCLE_PAY_AUTH"}
    signing = agreement_terms(external, sign_notify_url=merchant.notify_url)
    request = official.request("TradeAppPay", **order, agreement_sign_params=signing)
    link = f"alipays://platformapi/startapp?appId=60000157&orderStr={quote(official.order_string(request), safe='')}"
    page = await sandbox.http.get(f"{sandbox.base_url}/alipay/app", params={"link": link}, follow_redirects=True)
    assert (page.status_code, "¥1.00" in page.text) == (200, True)
    await sandbox.pay(number)
    assert alipay.read_notification(merchant.received[0].body)["external_agreement_no"] == external


async def test_isv_call_with_its_merchants_token(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> None:
    account = accounts["isv"]
    official = OfficialClient(account)
    query = official.request("TradeQuery", token=account["app_auth_token"], out_trade_no="none")
    assert (await official.execute(query))["sub_code"] == "ACQ.TRADE_NOT_EXIST"


async def test_a_forged_answer_is_noticed_by_the_sdk(sandbox: SandboxHandle, official: OfficialClient) -> None:
    await sandbox.control("POST", "/faults", {"method": "alipay.trade.query", "kind": "bad_signature"}, status=201)
    with pytest.raises(Exception, match="response sign verify failed"):
        await official.execute(official.request("TradeQuery", out_trade_no="none"))

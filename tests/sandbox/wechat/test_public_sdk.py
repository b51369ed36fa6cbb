"""A public WeChat Pay SDK, wechatpayv3, pointed at the sandbox: it signs, the sandbox verifies, and vice versa.

The SDK is imported by name because it has no types. Its address is fixed; here it is the only thing that is changed.
"""

import asyncio
import importlib
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import an_openid, order_number

SDK: Any = importlib.import_module("wechatpayv3")
CORE: Any = importlib.import_module("wechatpayv3.core")


@pytest.fixture(autouse=True)
def sandbox_as_gateway(monkeypatch: pytest.MonkeyPatch, sandbox: SandboxHandle) -> Iterator[None]:
    """The SDK sets its address while it is made, and may download certificates in the same breath."""
    address = property(lambda _core: sandbox.base_url, lambda _core, _address: None)
    monkeypatch.setattr(CORE.Core, "_gate_way", address, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    monkeypatch.undo()


class PublicClient:
    """The SDK with one account; its calls block, so they run in a thread."""

    def __init__(self, account: dict[str, str], notify_url: str = "http://127.0.0.1:9/notify") -> None:
        self.sub_mchid = account.get("sub_mchid")
        self.sdk = SDK.WeChatPay(
            wechatpay_type=SDK.WeChatPayType.JSAPI,
            mchid=account["mchid"],
            private_key=account["private_key"],
            cert_serial_no=account["serial_no"],
            appid=account["appid"],
            apiv3_key=account["apiv3_key"],
            notify_url=notify_url,
            partner_mode=self.sub_mchid is not None,
            public_key=account.get("public_key"),
            public_key_id=account.get("public_key_id"),
        )

    async def call(self, name: str, **fields: object) -> tuple[int, Any]:
        """Status and fields of an answer; a success's signature the SDK verified."""
        if self.sub_mchid:
            fields["sub_mchid"] = self.sub_mchid
        status, text = await asyncio.to_thread(getattr(self.sdk, name), **fields)
        return status, json.loads(text) if text else None


async def made(account: dict[str, str], notify_url: str = "http://127.0.0.1:9/notify") -> PublicClient:
    """In a thread, for in certificate mode the SDK downloads the certificates at once."""
    return await asyncio.to_thread(PublicClient, account, notify_url)


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
async def test_a_jsapi_payment_from_order_to_notice(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]], merchant: MerchantServer, mode: str
) -> None:
    client, number = await made(accounts[mode], merchant.notify_url), order_number()
    payer = {"sp_openid" if mode == "v3_partner" else "openid": an_openid()}
    order = {"description": "一杯咖啡", "out_trade_no": number, "amount": {"total": 8888}, "payer": payer}
    status, answer = await client.call("pay", **order)
    assert (status, list(answer)) == (200, ["prepay_id"])
    assert (await client.call("query", out_trade_no=number))[1]["trade_state"] == "NOTPAY"

    await sandbox.pay(number)
    status, paid = await client.call("query", out_trade_no=number)
    assert (status, paid["trade_state"], paid["amount"]["total"]) == (200, "SUCCESS", 8888)
    by_theirs = await client.call("query", transaction_id=paid["transaction_id"])
    assert by_theirs == (200, paid)
    (received,) = merchant.received
    notice = await asyncio.to_thread(client.sdk.callback, received.headers, received.body)
    assert (notice["event_type"], notice["resource"]) == ("TRANSACTION.SUCCESS", paid)


async def test_native_and_h5_orders_and_closing_them(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]
) -> None:
    client = await made(accounts["v3"])
    types = SDK.WeChatPayType
    scene = {"payer_client_ip": "203.0.113.7", "h5_info": {"type": "Wap"}}
    for pay_type, more, handed_out in ((types.NATIVE, {}, "code_url"), (types.H5, {"scene_info": scene}, "h5_url")):
        number = order_number()
        order = {"description": "扫码", "out_trade_no": number, "amount": {"total": 1}, "pay_type": pay_type}
        status, answer = await client.call("pay", **order, **more)
        assert (status, list(answer)) == (200, [handed_out])
        assert await client.call("close", out_trade_no=number) == (204, None)
        assert (await sandbox.trade(number))["status"] == "CLOSED"


async def test_the_sdks_pay_sign_is_taken_by_the_bridge(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]
) -> None:
    account = accounts["v3"]
    client, number = await made(account), order_number()
    order = {"description": "茶", "out_trade_no": number, "amount": {"total": 1}, "payer": {"openid": an_openid()}}
    _, answer = await client.call("pay", **order)
    given = [account["appid"], str(int(time.time())), secrets.token_hex(16), f"prepay_id={answer['prepay_id']}"]
    call = dict(zip(("appId", "timeStamp", "nonceStr", "package"), given, strict=True))
    call |= {"signType": "RSA", "paySign": client.sdk.sign(given)}
    page = await sandbox.http.get(f"{sandbox.base_url}/wechat/bridge", params=call, follow_redirects=True)
    assert (page.status_code, "¥0.01" in page.text) == (200, True)


async def test_a_forged_answer_is_noticed_by_the_sdk(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]
) -> None:
    client, number = await made(accounts["v3"]), order_number()
    order = {"description": "茶", "out_trade_no": number, "amount": {"total": 1}, "payer": {"openid": an_openid()}}
    await client.call("pay", **order)
    await sandbox.control("POST", "/faults", {"method": "wechat.v3.query", "kind": "bad_signature"}, status=201)
    with pytest.raises(Exception, match="failed to verify the signature"):
        await client.call("query", out_trade_no=number)


async def test_a_refusal_comes_through_with_its_code(accounts: dict[str, dict[str, str]]) -> None:
    client = await made(accounts["v3"])
    status, answer = await client.call("query", out_trade_no="none-at-all")
    assert (status, answer["code"]) == (404, "ORDER_NOT_EXIST")


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
async def test_a_refund_from_asking_to_notice(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]], merchant: MerchantServer, mode: str
) -> None:
    client, number = await made(accounts[mode]), order_number()
    payer = {"sp_openid" if mode == "v3_partner" else "openid": an_openid()}
    await client.call("pay", description="茶", out_trade_no=number, amount={"total": 8888}, payer=payer)
    await sandbox.pay(number, notify=False)
    amount = {"refund": 888, "total": 8888, "currency": "CNY"}
    asked = {"out_refund_no": "R_1", "out_trade_no": number, "amount": amount, "reason": "少了一杯"}
    status, accepted = await client.call("refund", **asked, notify_url=merchant.notify_url)
    assert (status, accepted["status"], accepted["amount"]["refund"]) == (200, "PROCESSING", 888)
    status, done = await client.call("query_refund", out_refund_no="R_1")
    assert (status, done["status"], done["refund_id"]) == (200, "SUCCESS", accepted["refund_id"])
    assert (await client.call("query", out_trade_no=number))[1]["trade_state"] == "REFUND"
    (received,) = await merchant.wait_for(1)
    notice = await asyncio.to_thread(client.sdk.callback, received.headers, received.body)
    told = notice["resource"]
    assert (notice["event_type"], told["refund_status"], told["amount"]["refund"]) == ("REFUND.SUCCESS", "SUCCESS", 888)
    assert (told["refund_id"], told["success_time"]) == (done["refund_id"], done["success_time"])

    too_much = {**asked, "out_refund_no": "R_2", "amount": amount | {"refund": 8001}}
    status, refused = await client.call("refund", **too_much)
    assert (status, refused["code"]) == (400, "INVALID_REQUEST")
    assert (await client.call("query_refund", out_refund_no="R_2"))[0] == 404
    assert (await sandbox.trade(number))["refunded_fen"] == 888


async def test_a_probe_is_refused_by_the_sdk(
    sandbox: SandboxHandle, accounts: dict[str, dict[str, str]], merchant: MerchantServer
) -> None:
    client, number = await made(accounts["v3"], merchant.notify_url), order_number()
    order = {"description": "茶", "out_trade_no": number, "amount": {"total": 1}, "payer": {"openid": an_openid()}}
    await client.call("pay", **order)
    await sandbox.pay(number, notify=False)
    await sandbox.control("POST", f"/wechat/trades/{number}/probe", {"follow": True})
    probe, true = merchant.received
    assert await asyncio.to_thread(client.sdk.callback, probe.headers, probe.body) is None
    assert await asyncio.to_thread(client.sdk.callback, true.headers, true.body) is not None

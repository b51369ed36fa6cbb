"""The payer's pages and the ways that lead to them, over HTTP as a browser would."""

import base64
import secrets
import time
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer
from tests.sandbox.wechat.client import WechatClient, order_number, private_key

DONE = "http://127.0.0.1:8000/done?order=7"
ACTIONS = {
    *("pay", "cancel", "fail", "close"),
    *("pay-twice", "pay-late", "lose-reply", "wrong-amount", "wrong-app", "wrong-merchant", "wrong-payer", "forged"),
}


async def ordered(wechat: WechatClient, merchant: MerchantServer, *, product: str = "jsapi") -> str:
    number = order_number()
    await wechat.prepay(number, product=product, notify_url=merchant.notify_url)
    return number


async def press(sandbox: SandboxHandle, number: str, action: str, **back: str) -> httpx.Response:
    trade = await sandbox.trade(number)
    return await sandbox.http.post(f"{trade['pay_url']}/{action}", params=back)


def client_call(wechat: WechatClient, prepay_id: str, *, appid: str | None = None) -> dict[str, str]:
    """What a page hands to WeChat's bridge, rightly signed."""
    given = [
        appid or wechat.account["appid"],
        str(int(time.time())),
        secrets.token_hex(16),
        f"prepay_id={prepay_id}",
    ]
    message = "".join(f"{line}\n" for line in given).encode()
    signature = private_key(wechat.account["private_key"]).sign(message, padding.PKCS1v15(), hashes.SHA256())
    names = ("appId", "timeStamp", "nonceStr", "package")
    pay_sign = base64.b64encode(signature).decode()
    return dict(zip(names, given, strict=True)) | {"signType": "RSA", "paySign": pay_sign}


async def invoke(sandbox: SandboxHandle, call: Mapping[str, str]) -> httpx.Response:
    return await sandbox.http.get(f"{sandbox.base_url}/wechat/bridge", params=call)


# The cashier.


async def test_the_cashier_shows_the_order_and_its_buttons(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    for text in ("一杯咖啡", "¥0.02", number, wechat.account["mchid"], "等待付款", "确认付款 ¥0.02"):
        assert text in page.text
    for action in ACTIONS:
        assert f'/{action}" class="choice"' in page.text
    assert "http" not in page.text.split("<main>")[1].split("</main>")[0], "nothing points outside"
    live = await sandbox.http.get((await sandbox.trade(number))["pay_url"] + "/live")
    assert live.text in page.text


async def test_text_from_outside_is_escaped(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    await wechat.prepay(number, description="<script>alert(1)</script>\"'")
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;" in page.text


@pytest.mark.parametrize(
    ("action", "err_msg", "status"),
    [("pay", "ok", "PAID"), ("cancel", "cancel", "UNPAID"), ("fail", "fail", "UNPAID"), ("pay-twice", "ok", "PAID")],
)
async def test_the_bridges_page_is_told_what_happened(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer, action: str, err_msg: str, status: str
) -> None:
    number = await ordered(wechat, merchant)
    response = await press(sandbox, number, action, return_url=DONE)
    assert response.status_code == 303
    assert response.headers["location"] == f"{DONE}&err_msg=get_brand_wcpay_request:{err_msg}"
    assert (await sandbox.trade(number))["status"] == status
    sent = {"pay": 1, "pay-twice": 2}.get(action, 0)
    assert len(await merchant.wait_for(sent)) == sent


async def test_an_h5_page_is_just_returned_to(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant, product="h5")
    response = await press(sandbox, number, "cancel", redirect_url=DONE)
    assert (response.status_code, response.headers["location"]) == (303, DONE)
    assert (await press(sandbox, number, "pay", redirect_url=DONE)).headers["location"] == DONE
    assert (await sandbox.trade(number))["status"] == "PAID"


async def test_without_a_way_back_the_cashier_stays(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant, product="native")
    response = await press(sandbox, number, "pay", return_url="javascript:alert(1)")
    page = await sandbox.http.get(sandbox.base_url + response.headers["location"])
    assert ("付款成功" in page.text, "确认付款" in page.text, "javascript" in page.text) == (True, False, False)


async def test_a_lost_reply_neither_notifies_nor_returns(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    response = await press(sandbox, number, "lose-reply", return_url=DONE)
    assert response.headers["location"].startswith("/wechat/pay/")
    assert ((await sandbox.trade(number))["status"], merchant.received) == ("PAID", [])


@pytest.mark.parametrize(
    ("action", "path", "told"),
    [
        ("wrong-amount", ("amount", "total"), 3),
        ("wrong-app", ("appid",), "wx9999999999999999"),
        ("wrong-merchant", ("mchid",), "1900009999"),
    ],
)
async def test_a_button_tells_the_merchant_an_untruth(
    sandbox: SandboxHandle,
    wechat: WechatClient,
    merchant: MerchantServer,
    action: str,
    path: tuple[str, ...],
    told: object,
) -> None:
    number = await ordered(wechat, merchant)
    await press(sandbox, number, action)
    (received,) = await merchant.wait_for(1)
    value = wechat.read_notification(received.headers, received.body)
    for name in path:
        value = value[name]
    assert value == told


async def test_a_forged_notice_and_another_payer(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    merchant.otherwise = (401, b"")
    number = await ordered(wechat, merchant)
    await press(sandbox, number, "forged")
    (received,) = await merchant.wait_for(1)
    assert not wechat.signed_by_wechat(received.headers, received.body)
    other = await ordered(wechat, merchant)
    await press(sandbox, other, "wrong-payer")
    _, received = await merchant.wait_for(2)
    told = wechat.read_notification(received.headers, received.body)["payer"]
    assert told != (await wechat.query(other))["payer"]


async def test_a_closed_order_can_only_be_paid_late(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    assert (await press(sandbox, number, "close")).status_code == 303
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    assert ("交易已关闭" in page.text, "pay-late" in page.text, "pay-twice" in page.text) == (True, True, False)
    refused = await press(sandbox, number, "pay")
    assert (refused.status_code, "该订单已关闭" in refused.text) == (409, True)
    await press(sandbox, number, "pay-late")
    assert (await sandbox.trade(number))["status"] == "PAID"
    assert (await press(sandbox, number, "pay")).status_code == 409


async def test_an_unknown_button_or_link_changes_nothing(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = await ordered(wechat, merchant)
    assert (await press(sandbox, number, "refund")).status_code == 409
    assert (await sandbox.trade(number))["status"] == "UNPAID"
    for path in ("/wechat/pay/none", "/wechat/pay/none/live"):
        page = await sandbox.http.get(sandbox.base_url + path)
        assert (page.status_code, "没有这笔付款" in page.text) == (404, True)


# Scanning and H5.


async def test_scanning_leads_to_the_cashier_for_two_hours(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = order_number()
    code_url = (await wechat.prepay(number, product="native"))["code_url"]
    scan = f"{sandbox.base_url}/wechat/scan"
    page = await sandbox.http.get(scan, params={"code_url": code_url}, follow_redirects=True)
    assert (page.status_code, number in page.text) == (200, True)
    for code, status in ((f"{code_url}x", 404), ("https://example.com", 400), ("", 400)):
        assert (await sandbox.http.get(scan, params={"code_url": code})).status_code == status
    await sandbox.advance(7200)
    expired = await sandbox.http.get(scan, params={"code_url": code_url})
    assert (expired.status_code, "已失效" in expired.text) == (400, True)
    renewed = (await wechat.prepay(number, product="native"))["code_url"]
    assert (await sandbox.http.get(scan, params={"code_url": renewed})).status_code == 302


async def test_an_h5_url_lives_five_minutes_and_leads_back(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    h5_url = (await wechat.prepay(order_number(), product="h5"))["h5_url"]
    entered = await sandbox.http.get(f"{h5_url}&redirect_url={DONE.replace('?', '%3F')}")
    assert entered.status_code == 302
    assert parse_qs(urlsplit(entered.headers["location"]).query) == {"redirect_url": [DONE]}
    assert (await sandbox.http.get(h5_url[:-1])).status_code == 404
    await sandbox.advance(300)
    expired = await sandbox.http.get(h5_url)
    assert (expired.status_code, "支付请求已失效" in expired.text) == (400, True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 302),
        ({"sec-fetch-site": "none"}, 302),
        ({"sec-fetch-site": "cross-site", "referer": "http://127.0.0.1:8000/"}, 302),
        ({"sec-fetch-site": "cross-site"}, 400),
        ({"sec-fetch-site": "same-site", "referer": ""}, 400),
    ],
)
async def test_a_page_that_hides_its_address_may_not_lead_to_h5(
    sandbox: SandboxHandle, wechat: WechatClient, headers: dict[str, str], status: int
) -> None:
    h5_url = (await wechat.prepay(order_number(), product="h5"))["h5_url"]
    page = await sandbox.http.get(h5_url, headers=headers)
    assert (page.status_code, "商家参数格式有误" in page.text) == (status, status == 400)


# The bridge.


async def test_a_right_call_of_the_bridge_leads_to_the_cashier_and_back(
    sandbox: SandboxHandle, wechat: WechatClient, merchant: MerchantServer
) -> None:
    number = order_number()
    prepay_id = (await wechat.prepay(number, notify_url=merchant.notify_url))["prepay_id"]
    response = await invoke(sandbox, client_call(wechat, prepay_id) | {"return_url": DONE})
    assert response.status_code == 302
    location = response.headers["location"]
    page = await sandbox.http.get(sandbox.base_url + location)
    action = page.text.split('form method="post" action="')[1].split('"')[0].replace("&amp;", "&")
    paid = await sandbox.http.post(sandbox.base_url + action)
    assert paid.headers["location"] == f"{DONE}&err_msg=get_brand_wcpay_request:ok"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"appId": ""}, "JSAPI缺少参数 appId"),
        ({"package": ""}, "JSAPI缺少参数 package"),
        ({"paySign": ""}, "JSAPI缺少参数 paySign"),
        ({"timeStamp": "1754013600000"}, "商家参数格式有误"),
        ({"package": "wx0000"}, "JSAPI缺少参数 total_fee"),
        ({"package": "prepay_id="}, "JSAPI缺少参数 total_fee"),
        ({"package": "prepay_id=wx0000"}, "JSAPI缺少参数 total_fee"),
        ({"appId": "wx5a0db00000000001"}, "JSAPI缺少参数 total_fee"),
        ({"signType": "MD5"}, "支付验证签名失败"),
        ({"nonceStr": "other"}, "支付验证签名失败"),
        ({"paySign": "AAAA"}, "支付验证签名失败"),
        ({"appid": "wx5a0db00000000002"}, "商家参数格式有误"),
    ],
)
async def test_a_wrong_call_of_the_bridge_is_refused_in_wechats_words(
    sandbox: SandboxHandle, wechat: WechatClient, changes: dict[str, str], message: str
) -> None:
    prepay_id = (await wechat.prepay(order_number()))["prepay_id"]
    page = await invoke(sandbox, client_call(wechat, prepay_id) | changes | {"return_url": DONE})
    assert (page.status_code, message in page.text) == (400, True)
    assert "err_msg=get_brand_wcpay_request:fail" in page.text


async def test_a_prepay_id_runs_out_after_two_hours(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    prepay_id = (await wechat.prepay(order_number()))["prepay_id"]
    await sandbox.advance(7200)
    page = await invoke(sandbox, client_call(wechat, prepay_id))
    assert (page.status_code, "该订单已过期" in page.text) == (400, True)


async def test_a_sub_merchants_app_calls_the_bridge_under_its_own_appid(
    sandbox: SandboxHandle, partner_wechat: WechatClient
) -> None:
    sub_appid = partner_wechat.account["mini_program_appid"]
    prepay_id = (await partner_wechat.prepay(order_number(), sub_appid=sub_appid))["prepay_id"]
    assert (await invoke(sandbox, client_call(partner_wechat, prepay_id))).status_code == 400
    assert (await invoke(sandbox, client_call(partner_wechat, prepay_id, appid=sub_appid))).status_code == 302


async def test_the_client_shows_what_it_is_told_to(sandbox: SandboxHandle, wechat: WechatClient) -> None:
    number = order_number()
    prepay_id = (await wechat.prepay(number))["prepay_id"]
    fault = {"method": "wechat.bridge", "kind": "business_error", "message": "JSAPI缺少参数 total_fee"}
    await sandbox.control("POST", "/faults", fault | {"out_trade_no": number}, status=201)
    page = await invoke(sandbox, client_call(wechat, prepay_id))
    assert (page.status_code, "JSAPI缺少参数 total_fee" in page.text) == (400, True)
    assert (await invoke(sandbox, client_call(wechat, prepay_id))).status_code == 302
    assert await sandbox.calls("wechat.bridge", number) == 2

"""The payer's pages: every button, over HTTP as a browser would."""

from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.sandbox.alipay.client import AlipayClient, new_number
from tests.sandbox.handle import SandboxHandle
from tests.sandbox.merchant_server import MerchantServer

DONE = "http://127.0.0.1:8000/done"


async def press(sandbox: SandboxHandle, number: str, action: str) -> httpx.Response:
    trade = await sandbox.trade(number)
    return await sandbox.http.post(f"{trade['pay_url']}/{action}")


async def opened(alipay: AlipayClient, merchant: MerchantServer, **options: object) -> str:
    number = new_number()
    common = {"notify_url": merchant.notify_url, "return_url": DONE}
    await alipay.open_page(number, **(common | options))
    return number


async def test_the_page_shows_the_order_and_its_buttons(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    for text in ("一杯咖啡", "¥0.02", number, alipay.account["seller_id"], "等待付款", "确认付款 ¥0.02"):
        assert text in page.text
    actions = (
        "pay",
        "fail",
        "close",
        "pay-twice",
        "pay-late",
        "lose-reply",
        "wrong-amount",
        "wrong-app",
        "wrong-seller",
    )
    for action in actions:
        assert f'/{action}" class="choice"' in page.text
    assert "http" not in page.text.split("<main>")[1].split("</main>")[0], "nothing points outside"


async def test_text_from_outside_is_escaped(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    page = await alipay.open_page(number, biz={"subject": "<script>alert(1)<script>\"'"})
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;alert(1)&lt;script&gt;&quot;&#x27;" in page.text
    index = await sandbox.http.get(sandbox.base_url)
    assert "<script>alert" not in index.text
    assert "&lt;script&gt;alert(1)" in index.text


async def test_pages_run_only_their_own_script_and_load_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    page = await alipay.open_page(new_number())
    policy = page.headers["content-security-policy"]
    nonce = policy.split("script-src 'nonce-")[1].split("'")[0]
    assert policy.startswith("default-src 'none'; style-src 'nonce-")
    assert page.text.count(f'nonce="{nonce}"') == 2
    assert "src=" not in page.text


async def test_pay_returns_to_the_merchant_and_notifies(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    response = await press(sandbox, number, "pay")
    assert response.status_code == 303
    assert response.headers["location"].startswith(f"{DONE}?")
    (received,) = await merchant.wait_for(1)
    assert alipay.read_notification(received.body)["trade_status"] == "TRADE_SUCCESS"
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


async def test_fail_goes_where_an_abandoning_wap_payer_goes(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant, product="wap", biz={"quit_url": "http://127.0.0.1:8000/cart"})
    response = await press(sandbox, number, "fail")
    assert (response.status_code, response.headers["location"]) == (303, "http://127.0.0.1:8000/cart")
    assert (await sandbox.trade(number))["trade_status"] == "WAIT_BUYER_PAY"
    assert merchant.received == []


async def test_fail_without_a_way_out_tells_on_the_page(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    response = await press(sandbox, number, "fail")
    page = await sandbox.http.get(sandbox.base_url + response.headers["location"])
    assert "付款失败：买家余额不足，可以再试" in page.text
    assert "确认付款" in page.text


async def test_close_ends_the_trade_on_the_page(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    assert (await press(sandbox, number, "close")).status_code == 303
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    assert "交易已关闭" in page.text
    assert "确认付款" not in page.text
    assert "过期后付款" in page.text
    refused = await press(sandbox, number, "pay")
    assert (refused.status_code, "交易已经关闭" in refused.text) == (409, True)
    assert (await sandbox.trade(number))["trade_status"] == "TRADE_CLOSED"


async def test_pay_twice_sends_the_same_notice_twice(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    assert (await press(sandbox, number, "pay-twice")).status_code == 303
    first, second = await merchant.wait_for(2)
    assert first.body == second.body


async def test_pay_late_succeeds_after_the_trade_was_closed(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    await alipay.succeed("alipay.trade.close", {"out_trade_no": number})
    assert (await press(sandbox, number, "pay-late")).status_code == 303
    (received,) = await merchant.wait_for(1)
    assert alipay.read_notification(received.body)["trade_status"] == "TRADE_SUCCESS"
    trade = await sandbox.trade(number)
    assert (trade["trade_status"], trade["paid_at"] > trade["expires_at"]) == ("TRADE_SUCCESS", True)


async def test_lose_reply_leaves_only_the_query(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    response = await press(sandbox, number, "lose-reply")
    assert response.headers["location"].startswith("/alipay/pay/")
    assert await sandbox.notices() == []
    assert (await alipay.query(number))["trade_status"] == "TRADE_SUCCESS"


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [
        ("wrong-amount", "total_amount", "0.03"),
        ("wrong-app", "app_id", "2021999999999999"),
        ("wrong-seller", "seller_id", "2088999999999999"),
    ],
)
async def test_a_lying_notice_is_properly_signed(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer, action: str, field: str, value: str
) -> None:
    number = await opened(alipay, merchant)
    assert (await press(sandbox, number, action)).status_code == 303
    (received,) = await merchant.wait_for(1)
    assert alipay.read_notification(received.body)[field] == value
    assert (await alipay.query(number))["total_amount"] == "0.02"


async def test_a_second_press_does_not_pay_again(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    await press(sandbox, number, "pay")
    again = await press(sandbox, number, "pay")
    assert (again.status_code, "交易已经支付" in again.text) == (409, True)
    assert len(await merchant.wait_for(1)) == 1


async def test_an_unknown_button_does_nothing(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    assert (await press(sandbox, number, "refund")).status_code == 409
    assert (await sandbox.trade(number))["trade_status"] == "WAIT_BUYER_PAY"


async def test_a_qr_payer_stays_on_the_page(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = new_number()
    order = alipay.order(number, product="qr")
    answer = await alipay.succeed("alipay.trade.precreate", order, notify_url=merchant.notify_url)
    await sandbox.http.get(answer["qr_code"], follow_redirects=True)
    response = await press(sandbox, number, "pay")
    page = await sandbox.http.get(sandbox.base_url + response.headers["location"])
    assert "付款成功" in page.text
    await merchant.wait_for(1)


async def test_the_live_part_is_the_page_without_its_frame(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    url = (await sandbox.trade(number))["pay_url"]
    await sandbox.pay(number)
    live = (await sandbox.http.get(f"{url}/live")).text
    assert live in (await sandbox.http.get(url)).text
    assert "付款成功" in live
    assert "商户已确认" in live
    assert "<html" not in live


async def test_looking_at_the_live_part_opens_nothing(sandbox: SandboxHandle, alipay: AlipayClient) -> None:
    number = new_number()
    redirect = await alipay.http.get(alipay.page_url(number))
    live = await sandbox.http.get(f"{sandbox.base_url}{redirect.headers['location']}/live")
    assert live.status_code == 200
    assert (await sandbox.trade(number))["trade_status"] == "NOT_OPENED"


@pytest.mark.parametrize("path", ["/alipay/pay/none", "/alipay/qr/none", "/alipay/pay/none/live"])
async def test_an_unknown_link_says_so(sandbox: SandboxHandle, path: str) -> None:
    response = await sandbox.http.get(sandbox.base_url + path)
    assert (response.status_code, "没有这笔付款" in response.text) == (404, True)


async def test_a_refused_return_is_not_signed_into_existence(
    sandbox: SandboxHandle, alipay: AlipayClient, merchant: MerchantServer
) -> None:
    number = await opened(alipay, merchant)
    await press(sandbox, number, "pay")
    page = await sandbox.http.get((await sandbox.trade(number))["pay_url"])
    (link,) = [part.split('"')[0] for part in page.text.split('href="')[1:] if part.startswith("http")]
    assert parse_qs(urlsplit(link).query) == {}

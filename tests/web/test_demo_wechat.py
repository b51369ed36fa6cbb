"""The demo shop's WeChat ways in a real browser that calls itself WeChat, a phone or a desktop.

WeChat's own bridge is not in any browser: some tests build one in, the others go through the sandbox's stand-in."""

import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.web.browser import Browser, Page
from tests.web.conftest import Stack
from tests.web.visits import (
    DESKTOP,
    OVERFLOW,
    PAID,
    PAY_AT_THE_CASHIER,
    PHONE,
    STATUS,
    WATCHING,
    assert_untroubled,
    order_on,
    press_pay,
)

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)
WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.61(0x18003d2f) NetType/WIFI Language/zh_CN"
)
MINI_PROGRAM, OFFICIAL_ACCOUNT = "wx5a0db00000000001", "wx5a0db00000000002"
SHOWN = "[...document.querySelectorAll('.ways:not(.more) .way input')].map(input => input.value).join()"
OTHERS = "[...document.querySelectorAll('.ways.more .way input')].map(input => input.value).join()"
TROUBLE = "document.querySelector('.trouble').innerText"
CANCELLED = "付款窗口已关闭，可以接着付。"

# A bridge as WeChat's: it is there a moment after the page, opens its cashier over it, and says what `say` is told.
BRIDGE = """
window.asked = [];
setTimeout(() => {
  window.WeixinJSBridge = {
    invoke: (name, params, done) => { window.asked.push({name, params}); window.say = (result) => done(result); },
  };
  document.dispatchEvent(new Event('WeixinJSBridgeReady'));
}, 30);
"""


async def openid_of_the_user(stack: Stack) -> str:
    """Under the official account, the openid of whom the sandbox takes every browser for."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.get(f"{stack.sandbox}/_control/wechat/users", params={"app_id": OFFICIAL_ACCOUNT})
    openid: str = answer.json()["users"][0]["openid"]
    return openid


async def assert_paid(stack: Stack, page: Page, method: str) -> None:
    """The database and the order agree with the page: paid once, in this way."""
    order_id = await order_on(page)
    rows = await stack.database.fetch(
        "select status, method, paid_amount_fen from shouyin.payment where order_id = $1", order_id
    )
    assert [tuple(row) for row in rows] == [("SUCCESSFUL", method, 6800)]
    assert (await stack.order(order_id))["status"] == "paid"


@pytest.mark.parametrize(
    ("agent", "size", "suitable"),
    [
        (WECHAT, PHONE, "WECHAT_JSAPI"),
        (IPHONE, PHONE, "WECHAT_H5,ALIPAY_WAP,ALIPAY_QR"),
        ("", DESKTOP, "WECHAT_NATIVE,ALIPAY_QR,ALIPAY_PAGE"),
    ],
    ids=["wechat", "phone", "desktop"],
)
async def test_shop_offers_what_suits_the_browser_first_and_the_rest_as_the_sandbox_s(
    stack: Stack, browser: Browser, agent: str, size: tuple[int, int], suitable: str
) -> None:
    page = await browser.open(stack.url, size=size, agent=agent)
    await page.wait("document.querySelector('#pay')")
    assert await page.run(SHOWN) == suitable
    others = set((await page.run(OTHERS)).split(","))
    assert others | set(suitable.split(",")) == {
        *("WECHAT_JSAPI", "WECHAT_NATIVE", "WECHAT_H5", "WECHAT_MINI_PROGRAM", "WECHAT_CLOUD"),
        *("ALIPAY_QR", "ALIPAY_WAP", "ALIPAY_PAGE"),
    }
    assert await page.run("document.querySelector('.way input:checked').value") == suitable.split(",")[0]
    assert "沙箱里" in await page.text("form")
    assert_untroubled(page)


async def test_page_in_wechat_logs_in_pays_at_the_stand_in_and_comes_back_paid(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=WECHAT)
    await page.press("#pay")
    await page.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)

    await assert_paid(stack, page, "WECHAT_JSAPI")
    assert "err_msg" not in await page.run("location.href")
    payment = await stack.payment(await order_on(page))
    assert (payment["app_id"], payment["openid"]) == (OFFICIAL_ACCOUNT, await openid_of_the_user(stack))
    assert payment["created_by"] == payment["owner"]  # the visitor stayed who they were
    # Nothing of the login is left where it could be read or shared.
    assert await page.run("location.hash") == ""
    assert_untroubled(page)


async def test_result_of_the_bridge_appears_live_whatever_it_said(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=WECHAT, built_in=BRIDGE)
    await page.press("#pay")
    await page.wait(f"{WATCHING} && window.asked.length === 1")
    asked = await page.run("window.asked[0]")
    assert asked["name"] == "getBrandWCPayRequest"
    assert set(asked["params"]) == {"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"}
    loads = page.loads

    await page.run("window.say({err_msg: 'get_brand_wcpay_request:cancel'})")
    await page.wait(f"{TROUBLE} === '{CANCELLED}'")
    assert await page.run(STATUS) == "PENDING"
    await page.press("#cashier")
    await page.wait("window.asked.length === 2")
    assert await page.run("window.asked[1]") == asked
    assert await page.run(TROUBLE) == ""

    await page.run(
        "window.say({err_msg: 'get_brand_wcpay_request:fail', err_desc: '调用支付JSAPI缺少参数：total_fee'})"
    )
    await page.wait(f"{TROUBLE}.includes('微信客户端未取到金额')")
    assert await page.run(STATUS) == "PENDING"

    await page.press("#cashier")  # and the bridge says nothing more, as on an iPhone
    await page.wait("window.asked.length === 3")
    await stack.pay_at_the_sandbox(await order_on(page))
    await page.wait(PAID)
    assert await page.run(TROUBLE) == ""
    assert page.loads == loads
    await assert_paid(stack, page, "WECHAT_JSAPI")
    assert_untroubled(page)


async def test_word_of_the_bridge_is_no_result(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=WECHAT, built_in=BRIDGE)
    await page.press("#pay")
    await page.wait(f"{WATCHING} && window.asked.length === 1")
    await page.run("window.say({err_msg: 'get_brand_wcpay_request:ok'})")
    await page.wait("document.querySelector('.log ol').innerText.includes('get_brand_wcpay_request:ok')")
    # The page asked the server, which asked WeChat: nobody paid.
    await page.goto(f"{stack.url}/?order={await order_on(page)}&err_msg=get_brand_wcpay_request:ok")
    await page.wait(WATCHING)
    assert (await stack.payment(await order_on(page)))["status"] == "PENDING"
    assert_untroubled(page)


async def test_cancelling_at_the_stand_in_keeps_the_payment_open(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=WECHAT)
    await page.press("#pay")
    await page.press("form[action*='/cancel?'] button")
    await page.wait(f"{WATCHING} && {TROUBLE} === '{CANCELLED}'")
    assert (await stack.payment(await order_on(page)))["status"] == "PENDING"
    await page.press("#cashier")
    await page.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)
    await assert_paid(stack, page, "WECHAT_JSAPI")
    assert_untroubled(page)


async def test_visitor_who_may_not_log_in_is_told_why_and_keeps_the_order(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.sandbox}/wechat/users", size=PHONE, agent=WECHAT)
    await page.press("button", "快照页访客")
    await page.wait("document.body.innerText.includes('不能收款；现在就是')")
    await page.goto(stack.url)
    before = await stack.database.fetchval("select count(*) from shouyin.payment")
    await page.press("#pay")
    await page.wait(f"{TROUBLE}.includes('预览模式')")
    assert "订单" in await page.text(".kept")
    assert await stack.database.fetchval("select count(*) from shouyin.payment") == before
    assert await page.run("location.hash + location.search.includes('method')") == "false"
    assert_untroubled(page)


async def test_address_that_somebody_made_up_brings_nothing(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=WECHAT)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    order_id = await order_on(page)
    forged = (
        "method=WECHAT_JSAPI&err_msg=%E8%BD%AC%E8%B4%A6#openid=oooooooooooooooooooooooooooo&message=%E8%BD%AC%E8%B4%A6"
    )
    await page.goto(f"{stack.sandbox}/")  # so that the next address is loaded, not only scrolled to
    await page.goto(f"{stack.url}/?order={order_id}&{forged}")
    await page.wait(WATCHING)
    assert (
        await page.run("location.href")
        == f"{stack.url}/?order={order_id}&payment={(await stack.payment(order_id))['id']}"
    )
    assert "转账" not in await page.text("body")
    assert await page.run("sessionStorage.length") == 0
    count = "select count(*) from shouyin.payment where order_id = $1"
    assert await stack.database.fetchval(count, order_id) == 1
    assert_untroubled(page)


async def test_desktop_shows_a_code_and_the_phone_that_scans_it_pays(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "WECHAT_NATIVE")
    await page.wait(f"{WATCHING} && document.querySelector('.code img').naturalWidth > 0")
    code = parse_qs(urlsplit(await page.run("document.querySelector('.code img').src")).query)["text"][0]
    assert code.startswith("weixin://wxpay/bizpayurl?pr=")
    await page.press("#cashier")
    phone = await browser.opened_page()
    await phone.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)
    assert page.loads == 1
    await assert_paid(stack, page, "WECHAT_NATIVE")
    assert_untroubled(page, phone)


async def test_phone_browser_goes_to_wechat_and_comes_back_to_its_payment(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE, agent=IPHONE)
    await page.press("#pay")
    await page.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)
    assert await page.run("location.origin") == stack.url
    await assert_paid(stack, page, "WECHAT_H5")
    assert_untroubled(page)


@pytest.mark.parametrize("method", ["WECHAT_JSAPI", "WECHAT_MINI_PROGRAM", "WECHAT_CLOUD"])
async def test_ways_of_other_places_can_be_tried_on_a_desktop(stack: Stack, browser: Browser, method: str) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, method)
    await page.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)
    await assert_paid(stack, page, method)
    payment = await stack.payment(await order_on(page))
    assert payment["app_id"] == (OFFICIAL_ACCOUNT if method == "WECHAT_JSAPI" else MINI_PROGRAM)
    assert_untroubled(page)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("agent", "size"), [(WECHAT, PHONE), ("", DESKTOP)], ids=["phone", "desktop"])
async def test_wechat_s_ways_fit(
    stack: Stack, browser: Browser, tmp_path: Path, agent: str, size: tuple[int, int], *, dark: bool
) -> None:
    """SCREENSHOTS=<folder> keeps what the pages look like."""
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    name = f"{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    page = await browser.open(stack.url, size=size, agent=agent, dark=dark, built_in=BRIDGE)
    await page.wait("document.querySelector('#pay')")
    await page.screenshot(kept / f"wechat-shop-{name}.png", whole=True)
    assert await page.run(OVERFLOW) <= 0
    await press_pay(page, "WECHAT_JSAPI" if agent else "WECHAT_NATIVE")
    await page.wait(f"{WATCHING} && document.querySelector('#cashier')")
    if agent:
        await page.wait("window.asked.length === 1")
        await page.run("window.say({err_msg: 'get_brand_wcpay_request:cancel'})")
        await page.wait(f"{TROUBLE} === '{CANCELLED}'")
    await page.screenshot(kept / f"wechat-paying-{name}.png")
    assert await page.run(OVERFLOW) <= 0
    await stack.pay_at_the_sandbox(await order_on(page))
    await page.wait(PAID)
    await page.wait("document.getAnimations().every(animation => animation.playState === 'finished')")
    await page.screenshot(kept / f"wechat-paid-{name}.png")
    assert await page.run(OVERFLOW) <= 0
    assert_untroubled(page)

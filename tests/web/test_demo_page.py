"""The demo shop in a real browser, against the whole product: from the press to the final state, with no reload."""

import os
from pathlib import Path

import pytest

from tests.web.browser import Browser
from tests.web.conftest import Stack
from tests.web.visits import (
    CHECKING,
    DESKTOP,
    OVERFLOW,
    PAID,
    PAY_AT_THE_CASHIER,
    PHONE,
    SHIFTED,
    STATUS,
    WATCHING,
    assert_untroubled,
    order_on,
    press_pay,
)


async def test_payment_by_code_ends_successful_on_the_page_in_the_database_and_in_the_order(
    stack: Stack, browser: Browser
) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    await page.wait("document.querySelector('.code img').naturalWidth > 0")
    await page.press("#cashier")
    cashier = await browser.opened_page()
    await cashier.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)

    assert await page.text("h1") == "支付成功"
    assert await page.text(".sum") == "¥68.00"
    assert page.loads == 1
    order_id = await order_on(page)
    payment, order = await stack.payment(order_id), await stack.order(order_id)
    assert (payment["status"], payment["method"]) == ("SUCCESSFUL", "ALIPAY_QR")
    assert (payment["amount_fen"], payment["paid_amount_fen"]) == (6800, 6800)
    assert (order["status"], order["title"]) == ("paid", "青瓷茶杯")
    assert_untroubled(page, cashier)


async def test_desktop_page_opens_the_cashier_in_a_tab_and_both_tabs_end_successful(
    stack: Stack, browser: Browser
) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_PAGE")
    cashier = await browser.opened_page()
    await page.wait(WATCHING)
    await cashier.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)
    # The cashier sends its tab back to the shop, where nothing but the order's number is believed.
    await cashier.wait(PAID)

    assert page.loads == 1
    assert (await stack.payment(await order_on(page)))["status"] == "SUCCESSFUL"
    assert_untroubled(page, cashier)


async def test_phone_comes_back_from_the_cashier_to_its_payment(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, size=PHONE)
    await press_pay(page, "ALIPAY_WAP")
    await page.press(PAY_AT_THE_CASHIER)
    await page.wait(PAID)

    order_id = await order_on(page)
    assert await page.run("location.origin") == stack.url
    assert (await stack.payment(order_id))["method"] == "ALIPAY_WAP"
    assert (await stack.order(order_id))["status"] == "paid"
    assert_untroubled(page)


async def test_cancelled_payment_shows_closed_and_the_order_can_be_paid_again(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    order_id = await order_on(page)
    await page.press(".pair button", "取消支付")
    await page.wait(f"{STATUS} === 'CLOSED'")
    assert (await stack.payment(order_id))["status"] == "CLOSED"

    await page.press(".checkout button", "重新支付")
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    await stack.pay_at_the_sandbox(order_id)
    await page.wait(PAID)

    assert page.loads == 1
    statuses = await stack.database.fetch(
        "select status from shouyin.payment where order_id = $1 order by id", order_id
    )
    assert [row["status"] for row in statuses] == ["CLOSED", "SUCCESSFUL"]
    assert_untroubled(page)


async def test_late_success_after_a_cancellation_still_shows(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    await page.press(".pair button", "取消支付")
    await page.wait(f"{STATUS} === 'CLOSED'")
    order_id = await order_on(page)
    await stack.pay_at_the_sandbox(order_id, late=True)
    await page.wait(PAID)
    assert page.loads == 1
    assert (await stack.payment(order_id))["late"] is True


async def test_refused_payment_is_explained_and_the_next_try_is_about_the_same_order(
    stack: Stack, browser: Browser
) -> None:
    page = await browser.open(stack.url)
    await page.wait("document.querySelector('#pay')")
    before = await stack.database.fetchval("select count(*) from public.orders")
    await stack.break_next_call("alipay.trade.precreate", "business_error", sub_code="ACQ.SELLER_BALANCE_NOT_ENOUGH")
    await press_pay(page, "ALIPAY_QR")
    await page.wait("/\\p{Script=Han}/u.test(document.querySelector('.trouble').innerText)")
    await press_pay(page, "ALIPAY_QR")
    # The order may say "failed" by now: the flow of the first try ran.
    await page.wait(f"{STATUS} === 'PENDING' && document.querySelector('.pill.open')")
    await stack.pay_at_the_sandbox(await order_on(page))
    await page.wait(PAID)

    assert await stack.database.fetchval("select count(*) from public.orders") == before + 1
    assert_untroubled(page)


async def test_unknown_outcome_offers_no_second_payment_and_resolves(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await stack.break_next_call("alipay.trade.precreate", "timeout")
    await press_pay(page, "ALIPAY_QR")
    await page.wait(CHECKING)
    assert await page.text("h1") == "正在确认结果"
    assert "请不要重复支付" in await page.text(".state")
    assert await page.run("document.querySelector('#pay, .code, #cashier')") is None
    assert (await stack.payment(await order_on(page)))["status"] == "CREATED"

    order_id = await order_on(page)
    # The worker asks again when its lease on the first question is over; here that is now.
    await stack.database.execute("update shouyin.payment set check_at = now() where order_id = $1", order_id)
    await page.wait(f"{WATCHING} && document.querySelector('.code img')")
    await stack.pay_at_the_sandbox(order_id)
    await page.wait(PAID)
    assert page.loads == 1


async def test_reloaded_page_finds_its_payment_again(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    order_id = await order_on(page)
    await page.goto(f"{stack.url}/?order={order_id}")  # as when coming back: the order's number only
    await page.wait(WATCHING)
    await stack.pay_at_the_sandbox(order_id)
    await page.wait(PAID)
    assert_untroubled(page)


async def test_page_reconnects_after_the_server_restarted_and_misses_nothing(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    await stack.restart_api()
    await page.wait("document.querySelector('.log ol').innerText.includes('断开')")
    await page.wait("document.querySelector('.pill.open')")
    await stack.pay_at_the_sandbox(await order_on(page))
    await page.wait(PAID)
    assert page.loads == 1
    assert page.foreign_requests == []


async def test_order_of_another_visitor_shows_nothing_of_it(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    order_id = await order_on(page)

    await browser.start_afresh()
    stranger = await browser.open(f"{stack.url}/?order={order_id}")
    await stranger.wait("document.querySelector('.trouble').innerText || document.querySelector('#pay')")
    assert "青瓷茶杯" not in await stranger.text(".checkout dl")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_pages_fit_and_do_not_jump(
    stack: Stack, browser: Browser, tmp_path: Path, size: tuple[int, int], *, dark: bool
) -> None:
    """SCREENSHOTS=<folder> keeps what the pages look like."""
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    name = f"{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    page = await browser.open(stack.url, size=size, dark=dark)
    await page.wait("document.querySelector('#pay')")
    await page.screenshot(kept / f"shop-{name}.png")
    assert await page.run(SHIFTED) == 0
    await press_pay(page, "ALIPAY_QR")
    await page.wait(f"{WATCHING} && document.querySelector('.code img').naturalWidth > 0")
    await page.screenshot(kept / f"paying-{name}.png")
    assert await page.run(OVERFLOW) <= 0
    await stack.pay_at_the_sandbox(await order_on(page))
    await page.wait(PAID)
    await page.wait("document.getAnimations().every(animation => animation.playState === 'finished')")
    await page.screenshot(kept / f"paid-{name}.png")
    assert await page.run(OVERFLOW) <= 0
    assert_untroubled(page)

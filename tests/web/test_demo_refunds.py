"""The clerk's page in a real browser, beside the customer's: refused, granted, part of it back, then the rest, live."""

import os
from pathlib import Path

import httpx
import pytest

from tests.web.browser import Browser, Page
from tests.web.conftest import Stack
from tests.web.visits import (
    DESKTOP,
    ORDER_STATUS,
    OVERFLOW,
    PAID,
    PHONE,
    SHIFTED,
    STATUS,
    WATCHING,
    assert_untroubled,
    order_on,
    press_pay,
)

ROLE_REFUNDS = "select count(*) from shouyin.permission where role = 'clerk' and action = 'payment.refund'"
REFUSED = "document.querySelector('.refunding .trouble')?.innerText"


@pytest.fixture(autouse=True)
async def _nothing_granted(stack: Stack) -> None:
    """Every test begins as a shop does: nobody may refund."""
    await stack.database.execute("delete from shouyin.permission where action = 'payment.refund'")


async def customer_who_paid(stack: Stack, browser: Browser, *, dark: bool = False) -> tuple[Page, int]:
    """A phone that has just paid 68.00, and its order."""
    page = await browser.open(stack.url, size=PHONE, dark=dark)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(WATCHING)
    order_id = await order_on(page)
    await stack.pay_at_the_sandbox(order_id)
    await page.wait(PAID)
    return page, order_id


async def clerk_at(stack: Stack, browser: Browser, order_id: int, *, size: tuple[int, int] = DESKTOP) -> Page:
    """The clerk's page, another visitor's browser, with the order chosen."""
    page = await browser.open(f"{stack.url}/", size=size)
    await page.call("Network.clearBrowserCookies")
    await page.goto(f"{stack.url}/demo/clerk")
    payment_id = (await stack.payment(order_id))["id"]
    await page.press(f".sold input[value='{payment_id}']")
    await page.wait(f"document.querySelector('.sold input[value=\"{payment_id}\"]').checked")
    await page.wait("document.querySelector('#rights').innerText && document.querySelector('.pill.open')")
    return page


async def ask_for(page: Page, amount: str, reason: str = "") -> None:
    """Types an amount and a reason, and presses the button, once the last refund is answered."""
    await page.wait("document.querySelector('.refunding form').getAttribute('aria-busy') === 'false'")
    for field, text in (("#amount", amount), ("#reason", reason)):
        await page.press(field)
        await page.run(f"document.querySelector('{field}').select()")
        await page.call("Input.insertText", text=text)
    await page.press("#refund")


async def grant(page: Page) -> None:
    """Presses the administrator's button and waits until the page says so."""
    await page.press("#grant")
    await page.wait("document.querySelector('#grant').innerText.includes('收回')")


async def sums(page: Page) -> list[str]:
    """Paid, given back, on its way back, left."""
    return [await page.text(f"#{name}") for name in ("paid", "refunded", "underway", "refundable")]


async def settle(stack: Stack, path: str, body: dict[str, str]) -> None:
    """Tells the sandbox what becomes of refunds."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(f"{stack.sandbox}/_control/refunds/{path}", json=body)
    assert answer.status_code == 200, answer.text


async def refunds_of(stack: Stack, order_id: int) -> list[tuple[int, str, str | None]]:
    """Amount, state and reason of an order's refunds, as stored."""
    rows = await stack.database.fetch(
        "select amount_fen, status, reason from shouyin.refund where order_id = $1 order by id", order_id
    )
    return [(row["amount_fen"], row["status"], row["reason"]) for row in rows]


async def test_granted_clerk_refunds_in_part_and_the_customers_page_changes_without_a_reload(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    customer, order_id = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, order_id)
    assert await sums(clerk) == ["¥68.00", "¥0.00", "¥0.00", "¥68.00"]
    await grant(clerk)
    assert await stack.database.fetchval(ROLE_REFUNDS) == 1

    await ask_for(clerk, "1.00", "茶杯有一点划痕")
    await clerk.wait("document.querySelector('.refunds li[data-status=REFUNDED]')")
    await customer.wait(f"{STATUS} === 'PARTIALLY_REFUNDED'")
    assert await customer.text("h1") == "部分退款"
    assert "已退款 ¥1.00" in await customer.text(".state")
    assert await customer.text("#given-back") == "已退 ¥1.00"
    await customer.wait("document.querySelector('.log ol').innerText.includes('已退款 ¥1.00（茶杯有一点划痕）')")
    await clerk.wait("document.querySelector('#refundable').innerText === '¥67.00'")
    assert await sums(clerk) == ["¥68.00", "¥1.00", "¥0.00", "¥67.00"]
    assert (await stack.order(order_id))["status"] == "paid"
    await clerk.screenshot(kept / "clerk-desktop-light.png")
    await customer.screenshot(kept / "refunded-phone-light.png")

    await clerk.press("#all")
    await clerk.wait("document.querySelector('#amount').value === '67.00'")
    await clerk.press("#refund")
    await customer.wait(f"{STATUS} === 'REFUNDED' && {ORDER_STATUS} === '已退款'")
    assert await customer.text("h1") == "已全额退款"
    assert await customer.text("#given-back") == "已退 ¥68.00"
    await clerk.wait("document.querySelector('#refund').innerText === '没有可退的了'")
    assert await clerk.run("document.querySelector('#refund').disabled") is True
    assert (await stack.order(order_id))["status"] == "refunded"
    assert await refunds_of(stack, order_id) == [(100, "REFUNDED", "茶杯有一点划痕"), (6700, "REFUNDED", None)]

    assert customer.loads == 1
    assert_untroubled(customer, clerk)


async def test_refusals_are_shown_and_leave_nothing_behind(stack: Stack, browser: Browser) -> None:
    customer, order_id = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, order_id)
    assert "管理员也一样" in await clerk.text("#rights")
    assert await stack.database.fetchval(ROLE_REFUNDS) == 0  # opening the page granted nothing
    await ask_for(clerk, "1.00")
    await clerk.wait(REFUSED)
    assert await clerk.run(REFUSED) == "没有权限执行此操作（payment.refund）：请管理员授权"

    await grant(clerk)
    await ask_for(clerk, "68.01")
    await clerk.wait(f"{REFUSED} === '退款金额超出可退金额 68.00 元'")
    await ask_for(clerk, "0")
    await clerk.wait(f"{REFUSED} === '退款金额至少 0.01 元'")
    await ask_for(clerk, "1.234")  # not sent: the field itself says how an amount is written
    assert await clerk.run("document.querySelector('#amount').validity.patternMismatch") is True

    assert await refunds_of(stack, order_id) == []
    payment = await stack.payment(order_id)
    assert (payment["status"], payment["refunded_amount_fen"], payment["reserved_refund_fen"]) == ("SUCCESSFUL", 0, 0)
    assert await customer.run(STATUS) == "SUCCESSFUL"

    await clerk.press("#grant")
    await clerk.wait("document.querySelector('#grant').innerText.includes('授权退款')")
    assert await stack.database.fetchval(ROLE_REFUNDS) == 0
    await ask_for(clerk, "2.00")
    await clerk.wait(f"{REFUSED}.startsWith('没有权限')")
    assert await refunds_of(stack, order_id) == []
    assert_untroubled(customer, clerk)


async def test_slow_refund_shows_as_under_way_on_both_pages_until_it_is_settled(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    customer, order_id = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, order_id)
    await grant(clerk)
    await settle(stack, "policy", {"settle": "hold"})
    try:
        await ask_for(clerk, "8.00", "少发一件")
        await clerk.wait("document.querySelector('.refunds li[data-status=PENDING] button')")
        await customer.wait("document.querySelector('h1').innerText === '退款中'")
        assert "¥8.00 正在原路退回。" in await customer.text(".state")
        assert await customer.text("#given-back") == "退款中 ¥8.00"
        await clerk.wait("document.querySelector('#underway').innerText === '¥8.00'")
        assert await sums(clerk) == ["¥68.00", "¥0.00", "¥8.00", "¥60.00"]
        # What is reserved can not be given back once more.
        await ask_for(clerk, "60.01")
        await clerk.wait(f"{REFUSED} === '退款金额超出可退金额 60.00 元'")
        await clerk.screenshot(kept / "clerk-underway.png")
        await customer.screenshot(kept / "underway-phone-light.png")

        number = await stack.database.fetchval("select out_refund_no from shouyin.refund where order_id = $1", order_id)
        await settle(stack, f"{number}/settle", {"as": "REFUNDED"})
    finally:
        await settle(stack, "policy", {"settle": "now"})
    await clerk.press(".refunds li[data-status=PENDING] button")
    await clerk.wait("document.querySelector('.refunds li[data-status=REFUNDED]')")
    await customer.wait(f"{STATUS} === 'PARTIALLY_REFUNDED' && document.querySelector('h1').innerText === '部分退款'")
    assert await refunds_of(stack, order_id) == [(800, "REFUNDED", "少发一件")]
    assert customer.loads == 1
    assert_untroubled(customer, clerk)


async def test_lost_answer_is_asked_for_again_and_refunds_once(stack: Stack, browser: Browser) -> None:
    _, order_id = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, order_id)
    await grant(clerk)
    # The first answer reaches nobody; what the page sends next is not touched.
    await clerk.run(
        "(() => { const real = window.fetch; let lost = 0; window.fetch = async (url, init) => {"
        " const answer = await real(url, init);"
        " if (!lost && String(init?.body).includes('refundPayment')) { lost = 1; throw new TypeError('lost'); }"
        " return answer; }; })()"
    )
    await ask_for(clerk, "3.00")
    await clerk.wait("document.querySelector('.refunds li[data-status=REFUNDED]')")
    await clerk.wait("document.querySelector('#amount').value === ''")
    assert await refunds_of(stack, order_id) == [(300, "REFUNDED", None)]


async def test_newly_paid_order_comes_into_the_list_by_itself_and_the_chosen_one_stays(
    stack: Stack, browser: Browser
) -> None:
    _, first = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, first)
    chosen = "document.querySelector('.sold :checked').value"
    before = await clerk.run(chosen)
    _, second = await customer_who_paid(stack, browser)
    payment_id = (await stack.payment(second))["id"]
    await clerk.call("Page.bringToFront")
    await clerk.wait(f"document.querySelector('.sold input[value=\"{payment_id}\"]')")
    assert await clerk.run(chosen) == before


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_clerks_page_fits_is_labelled_and_does_not_jump(
    stack: Stack, browser: Browser, tmp_path: Path, size: tuple[int, int], *, dark: bool
) -> None:
    """SCREENSHOTS=<folder> keeps what the page looks like."""
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    _, order_id = await customer_who_paid(stack, browser)
    clerk = await clerk_at(stack, browser, order_id, size=size)
    await clerk.prefer_dark(dark)
    await grant(clerk)
    await ask_for(clerk, "68.01")
    await clerk.wait(REFUSED)
    await ask_for(clerk, "5.00", "店庆")
    await clerk.wait("document.querySelector('.refunds li[data-status=REFUNDED]')")
    name = f"clerk-{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    await clerk.screenshot(kept / f"{name}-whole.png", whole=True)

    assert await clerk.run(OVERFLOW) <= 0
    # A number aligned to the right counts as moved when it changes, by some hundred-thousandths.
    assert await clerk.run(SHIFTED) < 0.001
    unnamed = (
        "[...document.querySelectorAll('input, button')].filter(each => !each.labels?.length && !each.innerText.trim())"
    )
    assert await clerk.run(f"{unnamed}.length") == 0
    assert_untroubled(clerk)

"""The club's page in a real browser: signed once, then every deduction arrives while the clock moves, until it is over.

What a new user would try first; then what goes wrong: no money, a second membership, a signature that never comes."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.auth import issue_token
from app.config import load_config
from tests.web.browser import Browser, Page
from tests.web.conftest import Stack
from tests.web.visits import (
    DESKTOP,
    ORDER_STATUS,
    OVERFLOW,
    PAY_AT_THE_CASHIER,
    assert_untroubled,
    press_pay,
)

PHONE = (390, 844)
STATUS = "document.querySelector('.membership')?.dataset.status"
LIVE = "document.querySelector('.pill.open')"
SIGN_AT_ALIPAY = "form[action$='/sign'] button"
DEDUCTED = "document.querySelectorAll('.history li[data-status=PAID]').length"
MOVING = "document.querySelector('.testclock').getAttribute('aria-busy') === 'true'"
SECONDS_LEFT = (
    "document.querySelector('[role=timer]').innerText.split(':').reduce((sum, part) => sum * 60 + Number(part), 0)"
)
# Where everything stands that is no line of a list.
PLACES = (
    "JSON.stringify([...document.querySelectorAll('.membership > *, .panel, .panel > *')]"
    ".filter(each => each.offsetWidth).map(each => { const box = each.getBoundingClientRect();"
    " return [box.x, box.y + scrollY, box.width, box.height].map(Math.round); }))"
)
# The payer's money is short, in Alipay's words for it.
NO_MONEY = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
REASON = "document.querySelector('.history .reason')?.innerText"


async def control(stack: Stack, path: str, **options: Any) -> Any:
    """Tells the sandbox something."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(f"{stack.sandbox}/_control/{path}", json=options)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def cycle_on(stack: Stack, page: Page) -> Any:
    """The cycle payment the page is about, as stored."""
    cycle_id = int(await page.run("new URLSearchParams(location.search).get('cycle')"))
    return await stack.database.fetchrow("select * from shouyin.cycle_payment where id = $1", cycle_id)


async def deductions_of(stack: Stack, cycle_id: int) -> list[Any]:
    """Oldest first, each with the status of its order."""
    return await stack.database.fetch(
        "select d.*, o.status as order_status from shouyin.deduction d"
        " left join public.orders o on o.id = d.order_id where d.cycle_payment_id = $1 order by d.due_on",
        cycle_id,
    )


async def club_at(stack: Stack, browser: Browser, *, size: tuple[int, int] = DESKTOP, dark: bool = False) -> Page:
    """The page of a new visitor."""
    page = await browser.open(f"{stack.url}/demo/club", size=size, dark=dark)
    await page.wait("document.querySelector('#start') && document.querySelector('.testclock')")
    return page


async def start(page: Page, membership: str = "week") -> None:
    """Chooses and presses; the page then waits for the signature."""
    await page.press(f"input[value={membership}]")
    await page.press("#start")
    await page.wait(f"{STATUS} === 'PENDING' && {LIVE} && document.querySelector('#sign')")


async def sign(stack: Stack, page: Page) -> None:
    """Signs as the payer would in Alipay, without a browser, and waits for the page."""
    async with httpx.AsyncClient(trust_env=False, timeout=20, follow_redirects=True) as client:
        shown = await client.get(await page.run("document.querySelector('#sign').href"))
    assert shown.status_code == 200, shown.text
    number = (await cycle_on(stack, page))["external_agreement_no"]
    await control(stack, f"agreements/{number}/sign")
    await page.wait(f"{STATUS} === 'ACTIVE'")


async def advance(page: Page, days: int) -> None:
    """Presses one of the clock's buttons and waits until it has come to rest."""
    await page.press(f".jumps button[data-days='{days}']")
    await page.wait(MOVING)
    await page.wait(f"!({MOVING})", patience_s=120)
    assert await page.text(".testclock .trouble") == ""


async def test_signed_on_the_page_a_month_of_deductions_arrives_live_until_it_is_cancelled(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page = await browser.open(stack.url)
    await page.press("header nav a", "会员")
    await page.wait("document.querySelector('#start')")
    await page.run("window.loadedOnce = true")
    await start(page)
    await page.wait("document.querySelector('.code img').naturalWidth > 0")
    await page.screenshot(kept / "club-signing.png", whole=True)
    await page.press("#sign")
    alipay = await browser.opened_page()
    await alipay.press(SIGN_AT_ALIPAY)
    await page.wait(f"{STATUS} === 'ACTIVE'")
    # Alipay sends its tab back to the shop, where nothing but the order's number is believed.
    await alipay.wait(f"{STATUS} === 'ACTIVE' && {LIVE}")
    assert await alipay.run("location.search") == await page.run("location.search")
    assert await page.text("h1") == "会员生效中"

    await advance(page, 31)
    await page.wait(f"{DEDUCTED} === 5")
    assert await page.text("#paid-deductions") == "5 次"
    assert "扣款成功 1" in await page.text(".days")
    await page.screenshot(kept / "club-month.png", whole=True)
    cycle = await cycle_on(stack, page)
    rows = await deductions_of(stack, cycle["id"])
    assert [(row["status"], row["price_fen"], row["order_status"]) for row in rows] == [("PAID", 990, "paid")] * 5
    assert [(row["due_on"] - cycle["first_deduction_on"]).days for row in rows] == [0, 7, 14, 21, 28]
    assert len({row["order_id"] for row in rows} | {cycle["order_id"]}) == 6

    await page.press("#cancel")
    await page.press("#cancel-now")
    await page.wait(f"{STATUS} === 'CANCELLED'")
    await alipay.wait(f"{STATUS} === 'CANCELLED'")
    await advance(page, 7)
    await page.wait(f"{DEDUCTED} === 5 && !document.querySelector('.upcoming')")
    assert len(await deductions_of(stack, cycle["id"])) == 5
    assert (await cycle_on(stack, page))["ended_at"] is not None
    assert await page.run("window.loadedOnce")
    assert_untroubled(page)
    assert [each for each in alipay.foreign_requests if not each.startswith(stack.sandbox)] == []


async def test_paid_while_signing_the_first_deduction_comes_an_interval_later(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page = await club_at(stack, browser)
    await page.press("input[value=month]")
    await page.press("input[value=pay]")
    await page.press("#start")
    await page.wait(f"{STATUS} === 'PENDING' && {LIVE}")
    await page.screenshot(kept / "club-pay-and-sign.png", whole=True)
    await page.press("#sign")
    alipay = await browser.opened_page()
    await alipay.press(PAY_AT_THE_CASHIER)
    await page.wait(f"{STATUS} === 'ACTIVE'")
    await page.wait("document.querySelector('.history li[data-status=SUCCESSFUL]')")
    assert "签约时付款" in await page.text(".history")
    cycle = await cycle_on(stack, page)
    assert (await stack.payment(cycle["order_id"]))["amount_fen"] == 2970
    await advance(page, 31)
    await page.wait(f"{DEDUCTED} === 1")
    (row,) = await deductions_of(stack, cycle["id"])
    assert (row["status"], row["price_fen"], row["order_status"]) == ("PAID", 2970, "paid")
    assert_untroubled(page)


async def test_payer_reads_why_money_could_not_be_taken_and_goes_on_after_it(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    page = await club_at(stack, browser)
    await start(page)
    number = (await cycle_on(stack, page))["external_agreement_no"]
    await sign(stack, page)
    await advance(page, 1)
    await page.wait(f"{DEDUCTED} === 1")
    await control(stack, "alipay/deductions/policy", answer=NO_MONEY, external_agreement_no=number)
    await advance(page, 7)
    await page.wait(REASON)
    assert "余额不足" in await page.run(REASON)
    assert "余额不足" in await page.text("#why")
    # Three days, three tries; then nothing is tried until somebody resumes it.
    await advance(page, 1)
    await advance(page, 1)
    await page.wait(f"{STATUS} === 'SUSPENDED'")
    await page.wait("document.querySelectorAll('.history li[data-status=FAILED] .reason time').length === 3")
    assert await page.text("h1") == "扣款失败，已暂停"
    await page.screenshot(kept / "club-failed.png", whole=True)
    cycle = await cycle_on(stack, page)
    assert [row["status"] for row in await deductions_of(stack, cycle["id"])] == ["PAID", "FAILED"]
    assert (cycle["suspended_for"], cycle["paid_deductions"]) == ("FAILURES", 1)

    await control(stack, "alipay/deductions/policy", answer="now", external_agreement_no=number)
    await page.press("#resume")
    await page.wait(f"{STATUS} === 'ACTIVE'")
    await advance(page, 7)
    await page.wait(f"{DEDUCTED} === 2")
    assert await page.text("h1") == "会员生效中"
    assert await page.run("document.querySelector('#why')") is None
    assert_untroubled(page)


async def test_paused_membership_takes_nothing_until_it_is_resumed(stack: Stack, browser: Browser) -> None:
    page = await club_at(stack, browser)
    await start(page)
    await sign(stack, page)
    await advance(page, 1)
    await page.wait(f"{DEDUCTED} === 1")
    await page.press("#pause")
    await page.wait(f"{STATUS} === 'SUSPENDED'")
    assert await page.text("h1") == "已暂停"
    await advance(page, 7)
    cycle = await cycle_on(stack, page)
    assert len(await deductions_of(stack, cycle["id"])) == 1
    await page.press("#resume")
    await page.wait(f"{STATUS} === 'ACTIVE'")
    await advance(page, 7)
    await page.wait(f"{DEDUCTED} === 2")
    assert_untroubled(page)


async def test_second_membership_is_refused_with_the_way_to_the_first(stack: Stack, browser: Browser) -> None:
    page = await club_at(stack, browser)
    await start(page)
    first = (await cycle_on(stack, page))["id"]
    await sign(stack, page)
    await page.press(".another")
    await page.press("input[value=month]")
    await page.press("#start")
    await page.wait("document.querySelector('#refusal a')")
    assert "该用户在此场景下已有生效或待签约的协议" in await page.text("#refusal")
    count = (
        "select count(*) from shouyin.cycle_payment"
        " where payer = (select payer from shouyin.cycle_payment where id = $1)"
    )
    assert await stack.database.fetchval(count, first) == 1
    await page.press("#refusal a")
    await page.wait(f"{STATUS} === 'ACTIVE' && {LIVE}")
    assert (await cycle_on(stack, page))["id"] == first

    await page.press("#cancel")
    await page.press("#cancel-now")
    await page.wait(f"{STATUS} === 'CANCELLED'")
    await page.press(".membership button", "重新开通")
    await start(page, "month")
    assert await stack.database.fetchval(count, first) == 2
    assert await page.run("document.querySelectorAll('.mine li').length") == 2
    assert_untroubled(page)


async def test_unsigning_in_alipay_is_seen_on_the_page(stack: Stack, browser: Browser) -> None:
    page = await club_at(stack, browser)
    await start(page)
    await sign(stack, page)
    await control(stack, f"agreements/{(await cycle_on(stack, page))['external_agreement_no']}/unsign")
    # Nobody entered the application's gateway: it is found out when the agreement is next asked about.
    cycle = await cycle_on(stack, page)
    await stack.database.execute("update shouyin.cycle_payment set check_at = now() where id = $1", cycle["id"])
    await page.wait(f"{STATUS} === 'CANCELLED'")
    assert page.loads == 1


async def test_countdown_of_a_payment_goes_by_the_deployments_time_also_while_it_moves(
    stack: Stack, browser: Browser
) -> None:
    clock = await club_at(stack, browser)
    await advance(clock, 1)
    page = await browser.open(stack.url)
    await press_pay(page, "ALIPAY_QR")
    await page.wait(f"{ORDER_STATUS} === '待付款' && {SECONDS_LEFT} > 0")
    order_id = int(await page.run("new URLSearchParams(location.search).get('order')"))
    now = await deployments_time(stack)
    assert (now - datetime.now(UTC)).days >= 1
    left = ((await stack.payment(order_id))["expires_at"] - now).total_seconds()
    assert abs(await page.run(SECONDS_LEFT) - left) < 10

    move = "mutation ($to: DateTime!) { advanceClock(to: $to) { now } }"
    await ask_as_admin(stack, move, to=(now + timedelta(minutes=20)).isoformat())
    await page.wait(f"{SECONDS_LEFT} < {left - 1150}")
    assert abs(await page.run(SECONDS_LEFT) - (left - 1200)) < 30
    assert page.loads == 1


async def deployments_time(stack: Stack) -> datetime:
    """By the API."""
    return datetime.fromisoformat((await ask_as_admin(stack, "{ clock { now } }"))["clock"]["now"])


async def ask_as_admin(stack: Stack, query: str, **variables: str) -> Any:
    """One operation of an administrator's; its data."""
    token = issue_token(load_config(stack.environ), "1", ("admin",), ttl=timedelta(hours=1))
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(
            f"{stack.url}/graphql",
            json={"query": query, "variables": variables},
            headers={"authorization": f"Bearer {token}"},
        )
    body = answer.json()
    assert "errors" not in body, body
    return body["data"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_clubs_page_fits_is_labelled_and_does_not_jump(
    stack: Stack, browser: Browser, tmp_path: Path, size: tuple[int, int], *, dark: bool
) -> None:
    """SCREENSHOTS=<folder> keeps what the page looks like."""
    kept = Path(os.environ.get("SCREENSHOTS", tmp_path))
    name = f"club-{'phone' if size == PHONE else 'desktop'}-{'dark' if dark else 'light'}"
    page = await club_at(stack, browser, size=size, dark=dark)
    await page.screenshot(kept / f"{name}-1-joining.png", whole=True)
    assert await page.run(OVERFLOW) <= 0
    await start(page)
    await page.wait("document.querySelector('.code img').naturalWidth > 0")
    await page.screenshot(kept / f"{name}-2-signing.png", whole=True)
    assert await page.run(OVERFLOW) <= 0
    await sign(stack, page)
    await advance(page, 7)
    await page.wait(f"{DEDUCTED} >= 1")
    await page.screenshot(kept / f"{name}-3-active.png", whole=True)

    assert await page.run(OVERFLOW) <= 0
    unnamed = (
        "[...document.querySelectorAll('input, button, progress')]"
        ".filter(each => !each.labels?.length && !each.innerText.trim() && !each.ariaLabel)"
    )
    assert await page.run(f"{unnamed}.length") == 0
    # A day that is written down, a deduction that comes: each changes its own line and moves nothing beside it.
    before = await page.run(PLACES)
    await advance(page, 7)
    await page.wait(f"{DEDUCTED} >= 2")
    assert await page.run(PLACES) == before
    assert_untroubled(page)

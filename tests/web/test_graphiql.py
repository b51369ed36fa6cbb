"""GraphiQL in a real browser: served by the app alone, its examples ready to press, subscriptions live."""

import json
import os
from pathlib import Path

import httpx

from tests.web.browser import Browser, Page
from tests.web.conftest import Stack

RUN = ".graphiql-execute-button"
# Monaco writes some blanks as no-break spaces.
RESPONSE = (
    "(document.querySelector('.graphiql-response .view-lines')?.innerText ?? '')"
    ".replaceAll(String.fromCharCode(160), ' ')"
)


async def run_example(page: Page, name: str) -> None:
    """Opens an example's tab and presses the button."""
    await page.press(".graphiql-tab button", name)
    await page.wait(f"document.querySelector('.graphiql-tab-active')?.innerText.trim() === '{name}'")
    await page.press(RUN)


async def test_examples_run_and_a_subscription_follows_a_payment_to_its_end(
    stack: Stack, browser: Browser, tmp_path: Path
) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await page.press(RUN)
    await page.wait(f"{RESPONSE}.includes('青瓷茶杯')")

    await run_example(page, "Pay")
    await page.wait(f"{RESPONSE}.includes('codeUrl')")
    await run_example(page, "WatchPayment")
    await page.wait(f"{RESPONSE}.includes('PENDING')")
    order_id = await stack.database.fetchval("select max(id) from public.orders")
    await stack.pay_at_the_sandbox(order_id)
    await page.wait(f"{RESPONSE}.includes('SUCCESSFUL')")
    # `untilFinal` ended the stream: the button offers to run again.
    await page.wait(f"document.querySelector('{RUN}').getAttribute('aria-label').includes('Execute')")
    await page.screenshot(Path(os.environ.get("SCREENSHOTS", tmp_path)) / "graphiql.png")

    assert (await stack.payment(order_id))["status"] == "SUCCESSFUL"
    assert page.complaints == []
    assert page.foreign_requests == []


async def test_refund_is_refused_until_its_example_grants_it_and_is_watched_by_the_payments_owner(
    stack: Stack, browser: Browser
) -> None:
    await stack.database.execute("delete from shouyin.permission where action = 'payment.refund'")
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await run_example(page, "Pay")
    await page.wait(f"{RESPONSE}.includes('codeUrl')")
    order_id = await stack.database.fetchval("select max(id) from public.orders")
    await stack.pay_at_the_sandbox(order_id)
    await run_example(page, "Refund")
    await page.wait(f"{RESPONSE}.includes('FORBIDDEN')")
    assert await stack.database.fetchval("select count(*) from shouyin.refund where order_id = $1", order_id) == 0

    await run_example(page, "Grant")
    await page.wait(f"/grantPermission\\W+true/.test({RESPONSE})")
    await run_example(page, "Refund")
    await page.wait(f"{RESPONSE}.includes('outRefundNo')")
    await run_example(page, "WatchRefunds")
    await page.wait(f"{RESPONSE}.includes('REFUNDED')")
    amounts = await stack.database.fetch("select amount_fen from shouyin.refund where order_id = $1", order_id)
    assert [row["amount_fen"] for row in amounts] == [100]
    bound = "select largest_refund_fen from shouyin.permission where role = 'clerk' and action = 'payment.refund'"
    assert await stack.database.fetchval(bound) == 50000
    assert page.complaints == []


async def test_cycle_payment_is_started_watched_lived_through_and_cancelled_by_its_examples(
    stack: Stack, browser: Browser
) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await run_example(page, "StartCycle")
    await page.wait(f"{RESPONSE}.includes('deepLink')")
    row = await stack.database.fetchrow("select * from shouyin.cycle_payment order by id desc limit 1")
    assert row is not None
    async with httpx.AsyncClient(trust_env=False, timeout=20, follow_redirects=True) as client:
        assert (await client.get(json.loads(row["action"])["url"])).status_code == 200
        signed = await client.post(f"{stack.sandbox}/_control/agreements/{row['external_agreement_no']}/sign")
        assert signed.status_code == 200
    await run_example(page, "AdvanceClock")
    await page.wait(f"{RESPONSE}.includes('deduction.paid')")
    await run_example(page, "WatchCycle")
    await page.wait(f"{RESPONSE}.includes('ACTIVE') && {RESPONSE}.includes('PAID')")
    await run_example(page, "CancelCycle")
    await page.wait(f"{RESPONSE}.includes('CANCELLED')")
    statuses = await stack.database.fetchrow(
        "select c.status, d.status as deducted from shouyin.cycle_payment c"
        " join shouyin.deduction d on d.cycle_payment_id = c.id where c.id = $1",
        row["id"],
    )
    assert statuses is not None
    assert tuple(statuses) == ("CANCELLED", "PAID")
    assert page.complaints == []


async def test_plan_is_sold_by_its_example(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await run_example(page, "SetPlan")
    await page.wait(f"{RESPONSE}.includes('planExpiresAt')")
    row = await stack.database.fetchrow("select plan, plan_expires_at::text as ends from shouyin.activation")
    assert row is not None
    assert (row["plan"], row["ends"][:10]) == ("标准版", "2098-12-31")
    await run_example(page, "Feature")
    await page.wait(f"{RESPONSE}.includes('payment.create') && {RESPONSE}.includes('标准版')")


async def test_admin_example_runs_with_the_admins_token(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await run_example(page, "Activate")
    # The table is bound already; that this is said, and not FORBIDDEN, shows whose token was sent.
    await page.wait(f"{RESPONSE}.includes('errors')")
    answer = await page.run(RESPONSE)
    assert "FORBIDDEN" not in answer
    assert "UNAUTHENTICATED" not in answer


async def test_no_token_is_left_in_the_browsers_storage(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 16 && document.querySelector('.view-line')")
    await page.press(RUN)
    await page.wait(f"{RESPONSE}.includes('青瓷茶杯')")
    await page.wait("JSON.stringify(localStorage).includes('graphiql')")
    kept = await page.run("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})")
    assert "Bearer" not in kept
    assert "eyJ" not in kept

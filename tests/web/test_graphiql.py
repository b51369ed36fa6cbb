"""GraphiQL in a real browser: served by the app alone, its examples ready to press, subscriptions live."""

import os
from pathlib import Path

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
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 8 && document.querySelector('.view-line')")
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


async def test_admin_example_runs_with_the_admins_token(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 8 && document.querySelector('.view-line')")
    await run_example(page, "Activate")
    # The table is bound already; that this is said, and not FORBIDDEN, shows whose token was sent.
    await page.wait(f"{RESPONSE}.includes('errors')")
    answer = await page.run(RESPONSE)
    assert "FORBIDDEN" not in answer
    assert "UNAUTHENTICATED" not in answer


async def test_no_token_is_left_in_the_browsers_storage(stack: Stack, browser: Browser) -> None:
    page = await browser.open(f"{stack.url}/graphql")
    await page.wait("document.querySelectorAll('.graphiql-tab').length === 8 && document.querySelector('.view-line')")
    await page.press(RUN)
    await page.wait(f"{RESPONSE}.includes('青瓷茶杯')")
    await page.wait("JSON.stringify(localStorage).includes('graphiql')")
    kept = await page.run("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})")
    assert "Bearer" not in kept
    assert "eyJ" not in kept

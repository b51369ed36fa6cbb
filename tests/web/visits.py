"""What a visitor of the demo shop sees and does."""

from tests.web.browser import Page

PHONE, DESKTOP = (360, 780), (1280, 900)
STATUS = "document.querySelector('.checkout')?.dataset.status"
ORDER_STATUS = "document.querySelector('#order-status')?.innerText"
WATCHING = f"{STATUS} === 'PENDING' && {ORDER_STATUS} === '待付款' && document.querySelector('.pill.open')"
CHECKING = "document.querySelector('.checkout')?.dataset.checking === 'true'"
PAID = f"{STATUS} === 'SUCCESSFUL' && {ORDER_STATUS} === '已付款'"
# By how much the page is wider than the window; a negative number is the space kept for a scroll bar.
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
PAY_AT_THE_CASHIER = "form[action$='/pay'] button, form[action*='/pay?'] button"
# The sum of layout shifts that no press explains.
SHIFTED = """new Promise(resolve => {
  let sum = 0;
  new PerformanceObserver(list => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  }).observe({type: 'layout-shift', buffered: true});
  requestAnimationFrame(() => setTimeout(() => resolve(sum)));
})"""


async def order_on(page: Page) -> int:
    """The order that the page is about."""
    return int(await page.run("new URLSearchParams(location.search).get('order')"))


async def press_pay(page: Page, method: str) -> None:
    """Chooses a way to pay, wherever it is kept, and presses the button."""
    kept = f"document.querySelector('.way input[value={method}]')?.closest('details:not([open])')"
    await page.wait("document.querySelector('#pay')")
    if await page.run(f"!!{kept}"):
        await page.press("fieldset summary")
    await page.press(f".way input[value={method}]")
    await page.press("#pay")


def assert_untroubled(*pages: Page) -> None:
    """No page complained, none asked another machine for anything."""
    for page in pages:
        assert page.complaints == []
        assert page.foreign_requests == []

"""How often providers are asked: on a schedule, bounded, and rarely about what only a person can settle."""

from datetime import timedelta

from app.payments.sweep import next_check, retry_at
from app.worker import sweep_once
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER


async def test_a_payment_of_two_weeks_is_asked_about_some_sixty_times(market: Market) -> None:
    payment = await market.create(expires_in=timedelta(days=14))
    account = await market.shop.runtime.accounts.open(payment.merchant_account_id)
    at, asked, longest = payment.created_at, 0, timedelta()
    while at < payment.expires_at:
        following = next_check(account.provider, payment, at)
        longest, at, asked = max(longest, following - at), following, asked + 1
    assert (asked, at, longest) == (66, payment.expires_at, timedelta(hours=6))


async def test_a_wechat_payment_of_two_hours_is_asked_about_closely_at_first_and_then_rarely(market: Market) -> None:
    payment = await market.create("WECHAT_NATIVE", expires_in=timedelta(hours=2))
    ages, at, provider = [], payment.created_at, market.shop.runtime.accounts.providers["WECHAT"]
    while at < payment.expires_at:
        at = next_check(provider, payment, at)
        ages.append(int((at - payment.created_at).total_seconds()))
    assert ages == [10, 30, 60, 120, 180, 300, 600, 1200, 1800, 3600, 5400, 7200]


async def test_a_payment_that_contradicts_our_row_is_asked_about_a_few_times_a_day(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment, notify=False)
    await market.shop.connection.execute("update shouyin.payment set amount_fen = 1231")
    for _ in range(72):
        await market.advance(timedelta(hours=1))
        await market.shop.settle()
    assert (await market.calls(payment))["alipay.trade.query"] <= 14
    assert (await market.find(payment)).status == "PENDING"
    assert await market.shop.connection.fetchval("select count(*) from shouyin.difference") == 1


async def test_the_last_look_at_a_closed_page_waits_for_a_provider_that_does_not_answer(market: Market) -> None:
    payment = await market.create()
    await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    await market.pay(payment, notify=False)
    await market.control("POST", "/faults", method="alipay.trade.query", kind="http_500", count=2)
    await market.advance(timedelta(hours=3))
    for wait in (timedelta(seconds=30), timedelta(seconds=60)):
        await sweep_once(market.shop.runtime)
        check_at = (await market.find(payment)).check_at
        assert check_at is not None
        assert wait - timedelta(seconds=5) < check_at - market.shop.clock.now() <= wait
        await market.advance(wait)
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.late, found.check_at) == ("SUCCESSFUL", True, None)


async def test_a_closed_page_that_is_being_paid_is_watched_until_the_provider_ends_it(market: Market) -> None:
    payment = await market.create(expires_in=timedelta(minutes=30))
    await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    await market.show(payment)
    # Our last look comes before the provider's end of the page, as with clocks that disagree.
    await market.shop.connection.execute("update shouyin.payment set check_at = $1", market.shop.clock.now())
    await market.shop.settle()
    assert (await market.find(payment)).check_at is not None
    await market.pay(payment, notify=False)
    await market.advance(timedelta(hours=7))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.late, found.check_at) == ("SUCCESSFUL", True, None)


async def test_an_answer_begins_the_waiting_anew(market: Market) -> None:
    payment = await market.create()
    await market.control("POST", "/faults", method="alipay.trade.query", kind="http_500", count=3)
    for _ in range(4):
        await market.advance(timedelta(minutes=11))
        await market.shop.settle()
    assert (await market.find(payment)).check_attempts == 0


async def test_what_is_long_over_is_asked_about_rarely(market: Market) -> None:
    payment = await market.create()
    soon = payment.expires_at + timedelta(days=2)
    late = payment.expires_at + timedelta(days=4)
    assert [retry_at(payment, at) - at for at in (soon, late)] == [timedelta(seconds=15)] * 2
    stubborn = type(payment)(**{name: getattr(payment, name) for name in payment.__slots__} | {"check_attempts": 500})
    assert [retry_at(stubborn, at) - at for at in (soon, late)] == [timedelta(minutes=10), timedelta(hours=6)]

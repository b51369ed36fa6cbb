"""The same flows over every method of every provider, whatever mode its account has: paid, told, asked, closed, over.

What differs between providers stands in ways.py; nothing here knows one.
"""

import asyncio
from datetime import timedelta

import httpx
import pytest

from app.errors import OutcomeUnknown, ProviderUnavailable
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER
from tests.payments.ways import Meanwhile, Way, assert_paid, begin, every_way

KINDS = {
    "ALIPAY_PAGE": "Redirect",
    "ALIPAY_WAP": "Redirect",
    "ALIPAY_QR": "QrCode",
    "WECHAT_MINI_PROGRAM": "WechatPayParams",
    "WECHAT_JSAPI": "WechatPayParams",
    "WECHAT_H5": "Redirect",
    "WECHAT_NATIVE": "QrCode",
    "WECHAT_CLOUD": "WechatPayParams",
}


@pytest.fixture
async def market(standing_market: Market) -> Market:
    """One market for all of these tests, cleared for each."""
    await standing_market.clear()
    return standing_market


# --- being told, and asking ----------------------------------------------------------------------------------------


@every_way
async def test_paid_from_click_to_order_status(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    assert payment.action is not None
    assert payment.action["kind"] == KINDS[way.method]
    await market.pay(payment)
    await market.shop.settle()
    await assert_paid(market, payment)
    assert (await market.shop.events(payment.id)) == ["payment.created", "payment.pending", "payment.successful"]
    [notice] = await market.notices(payment)
    assert (notice["state"], len(notice["attempts"])) == ("ACKNOWLEDGED", 1)
    assert (way.words.query in await market.calls(payment)) == (not way.signs)


@every_way
async def test_a_lost_notice_is_found_by_asking(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.pay(payment, notify=False)
    await market.advance(timedelta(minutes=5))
    await market.shop.settle()
    await assert_paid(market, payment)
    assert (await market.find(payment)).check_at is None


@every_way
async def test_the_page_s_question_is_answered_before_any_notice(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    asked = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert asked.api_status == "PENDING"
    await market.pay(payment, notify=False)
    asked = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert asked.api_status == "SUCCESSFUL"
    await market.shop.settle()
    await assert_paid(market, payment)


@every_way
async def test_twenty_notices_at_once_have_one_effect_and_are_counted(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.pay(payment, times=20)
    await market.shop.settle()
    await assert_paid(market, payment)
    [notice] = await market.notices(payment)
    assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [True] * 20
    rows = await market.shop.connection.fetch("select received_count, handled_count, due_at from shouyin.notification")
    assert [tuple(row) for row in rows] == [(20, 20, None)]
    kinds = await market.shop.events(payment.id)
    assert (kinds.count("payment.successful"), kinds.count("payment.repeated")) == (1, 19)
    # A repeat of much later changes nothing either.
    await market.advance(timedelta(hours=1))
    sent = await market.control("POST", f"/notifications/{notice['notify_id']}/resend")
    assert [attempt["acknowledged"] for attempt in sent["attempts"]] == [True]
    await market.shop.settle()
    paid = await assert_paid(market, payment)
    assert paid.version == payment.version + 1


@every_way
async def test_the_same_key_twice_at_once_opens_one_trade(market: Market, way: Way) -> None:
    request = await market.request(way.method, mode=way.mode, idempotency_key="k-1")
    other = await market.shop.open()
    made = await asyncio.gather(
        *(process.payments.create(BUYER, request, correlation_id="c") for process in (market.shop.runtime, other) * 3)
    )
    assert len({payment.id for payment in made}) == 1
    assert await market.shop.count("payment") == 1
    if way.words.create is not None:
        assert (await market.calls(made[0]))[way.words.create] == 1


# --- closing and expiring ------------------------------------------------------------------------------------------


@every_way
async def test_close_ends_the_payment_at_the_provider(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.show(payment)
    closed = await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (closed.api_status, closed.final, closed.check_at) == ("CLOSED", True, None)
    trade = await market.trade(payment)
    assert trade is not None
    assert (trade["status"], trade["paid"]) == ("CLOSED", False)
    assert await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c") == closed
    assert (await market.calls(payment))[way.words.close] == 1
    await market.shop.settle()
    assert await market.shop.status_of(payment.order_id) == "unpaid"
    assert await market.shop.events(payment.id) == ["payment.created", "payment.pending", "payment.closed"]


@every_way
async def test_close_of_a_paid_payment_returns_it_paid(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.pay(payment, notify=False)
    closed = await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert closed.api_status == "SUCCESSFUL"
    await market.shop.settle()
    await assert_paid(market, payment)
    assert way.words.close not in await market.calls(payment)


@every_way
async def test_a_payment_that_lands_between_the_question_and_the_close_wins(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.show(payment)
    network = Meanwhile(2, lambda: market.control("POST", f"/trades/{payment.out_trade_no}/pay", notify=False))
    async with httpx.AsyncClient(transport=network, trust_env=False) as http:
        process = await market.shop.open(http=http)
        await process.payments.sync(BUYER, payment.id, correlation_id="c")  # which may fetch keys as well
        network.arm()
        closed = await process.payments.close(BUYER, payment.id, correlation_id="c")
    assert closed.api_status == "SUCCESSFUL"
    assert (await market.calls(payment))[way.words.close] == 1
    await market.shop.settle()
    await assert_paid(market, payment)


@every_way
async def test_a_close_that_is_turned_away_changes_nothing_and_is_done_later(market: Market, way: Way) -> None:
    payment = await begin(market, way, expires_in=timedelta(minutes=30))
    await market.show(payment)
    await market.control("POST", "/faults", method=way.words.close, count=2, **way.words.turned_away)
    with pytest.raises((OutcomeUnknown, ProviderUnavailable)):
        await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (await market.find(payment)).status == "PENDING"
    # The sweep meets the same, and comes again. Until then the provider's own clock has ended it as well.
    await market.advance(timedelta(minutes=31))
    await market.shop.settle()
    await market.advance(timedelta(minutes=1))
    await market.shop.settle()
    assert (await market.find(payment)).api_status == "CLOSED"


@every_way
async def test_close_whose_reply_is_lost_says_unknown_and_is_found_out(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.show(payment)
    await market.control("POST", "/faults", method=way.words.close, kind="lost_reply")
    with pytest.raises(OutcomeUnknown):
        await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (await market.find(payment)).status == "PENDING"
    synced = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert synced.api_status == "CLOSED"


@every_way
async def test_an_unpaid_payment_ends_after_its_time_at_the_provider_too(market: Market, way: Way) -> None:
    payment = await begin(market, way, expires_in=timedelta(minutes=30))
    await market.show(payment)
    await market.advance(timedelta(minutes=31))
    await market.shop.settle()
    closed = await market.find(payment)
    assert (closed.api_status, closed.check_at) == ("CLOSED", None)
    trade = await market.trade(payment)
    assert trade is not None
    assert (trade["status"], trade["paid"]) == ("CLOSED", False)
    assert await market.shop.status_of(payment.order_id) == "unpaid"
    asked = await market.calls(payment)
    await market.advance(timedelta(days=1))
    await market.shop.settle()
    assert await market.calls(payment) == asked
    assert (await market.shop.events(payment.id))[-1] == "payment.closed"


@every_way
async def test_a_payment_nobody_began_ends_after_its_time(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    for _ in range(26):
        await market.advance(timedelta(minutes=10))
        await market.shop.settle()
    ended = await market.find(payment)
    assert (ended.api_status, ended.check_at) == ("CLOSED", None)
    calls = await market.calls(payment)
    assert calls[way.words.query] <= 24
    assert calls.get(way.words.close, 0) <= 1


@every_way
async def test_a_payment_that_lands_before_the_end_wins(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.pay(payment, notify=False)
    await market.advance(timedelta(hours=3))
    await market.shop.settle()
    await assert_paid(market, payment)
    assert way.words.close not in await market.calls(payment)


@every_way
@pytest.mark.parametrize("end", ["closed", "expired"])
async def test_a_late_success_is_kept_and_flagged(market: Market, way: Way, end: str) -> None:
    payment = await begin(market, way, expires_in=timedelta(minutes=30))
    await market.show(payment)
    if end == "closed":
        await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    else:
        await market.advance(timedelta(minutes=31))
        await market.shop.settle()
    assert (await market.find(payment)).api_status == "CLOSED"
    await market.control("POST", f"/trades/{payment.out_trade_no}/pay", late=True)
    await market.shop.settle()
    await assert_paid(market, payment, late=True)
    details = await market.shop.connection.fetchval(
        "select details from shouyin.event where kind = 'payment.successful'"
    )
    assert details == '{"late": true, "surplus": false}'

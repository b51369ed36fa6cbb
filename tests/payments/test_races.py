"""Everything that can happen to one payment, in many orders and all at once: one end, one effect, rising versions."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from app.errors import ProviderError
from app.payments.model import Payment
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER
from tests.payments.ways import Way, way_of

Act = Callable[[Market, Runtime, Payment], Awaitable[object]]


async def notice(market: Market, runtime: Runtime, payment: Payment) -> None:
    """The provider's notice, once more each time."""
    sent = (await market.control("GET", f"/notifications?out_trade_no={payment.out_trade_no}"))["notifications"]
    await market.control("POST", f"/notifications/{sent[0]['notify_id']}/resend", times=1)


async def poll(market: Market, runtime: Runtime, payment: Payment) -> None:
    """A worker's pass in which this payment is due."""
    due = "update shouyin.payment set check_at = $2 where id = $1 and status in ('CREATED', 'PENDING')"
    await runtime.db.pool.execute(due, payment.id, market.shop.clock.now())
    await sweep_once(runtime)


async def expire(market: Market, runtime: Runtime, payment: Payment) -> None:
    """Its time is over, and a worker notices."""
    past = market.shop.clock.now() - timedelta(seconds=1)
    await runtime.db.pool.execute("update shouyin.payment set expires_at = $2 where id = $1", payment.id, past)
    await poll(market, runtime, payment)


async def ask(market: Market, runtime: Runtime, payment: Payment) -> None:
    """The page asks for the provider's word."""
    await runtime.payments.sync(BUYER, payment.id, correlation_id="c")


async def close(market: Market, runtime: Runtime, payment: Payment) -> None:
    """The page gives up."""
    await runtime.payments.close(BUYER, payment.id, correlation_id="c")


RACING = [
    way_of("ALIPAY_PAGE", "public_key"),
    way_of("WECHAT_NATIVE", "v3"),
    way_of("WECHAT_JSAPI", "v2"),
    way_of("WECHAT_CLOUD", "cloud"),
]
ACTS: list[Act] = [notice, notice, poll, expire, ask, close]


async def watched(market: Market, act: Act, runtime: Runtime, payment: Payment, versions: list[int]) -> None:
    """One act, and the version after it. A provider that says "ask again shortly" is an answer, too."""
    with contextlib.suppress(ProviderError):
        await act(market, runtime, payment)
    versions.append((await market.find(payment)).version)


async def paid_payment(market: Market, way: Way) -> Payment:
    """A payment the provider has money for, of which nobody here knows."""
    payment = await market.create(way.method, mode=way.mode)
    await market.show(payment)
    market.deaf = True
    await market.control("POST", f"/trades/{payment.out_trade_no}/pay")
    market.deaf = False
    assert (await market.find(payment)).status == "PENDING"
    return payment


async def assert_one_end(market: Market, payment: Payment, versions: list[int]) -> None:
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"
    kinds = await market.shop.events(payment.id)
    assert kinds.count("payment.successful") == 1
    assert kinds.count("payment.closed") == 0
    assert versions == sorted(versions)
    assert await market.shop.status_of(payment.order_id) == "paid"
    effects = (
        "select count(*) from shouyin.flow_run r join shouyin.event e on e.id = r.event_id"
        " where e.payment_id = $1 and e.kind = 'payment.successful' and r.status = 'DONE'"
    )
    assert await market.shop.connection.fetchval(effects, payment.id) == 1


@pytest.mark.timeout(300)
async def test_sixty_orders_of_what_can_happen_end_the_same(market: Market) -> None:
    orders = set(itertools.permutations(ACTS))
    assert len(orders) == 360
    # Every sixth, spread over all of them: the whole takes minutes.
    chosen = sorted(orders, key=lambda acts: [act.__name__ for act in acts])[::6]
    for way, order in zip(itertools.cycle(RACING), chosen, strict=False):
        payment = await paid_payment(market, way)
        versions: list[int] = []
        for act in order:
            await watched(market, act, market.shop.runtime, payment, versions)
        await assert_one_end(market, payment, versions)


@pytest.mark.timeout(300)
async def test_all_at_once_in_two_processes_ends_the_same(market: Market) -> None:
    other = await market.shop.open()
    for round_ in range(16):
        payment = await paid_payment(market, RACING[round_ % len(RACING)])
        acts = [*ACTS, *ACTS]
        await asyncio.gather(
            *(
                watched(market, act, (market.shop.runtime, other)[(round_ + number) % 2], payment, [])
                for number, act in enumerate(acts)
            )
        )
        await assert_one_end(market, payment, [])

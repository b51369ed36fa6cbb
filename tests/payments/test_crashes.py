"""A crash at every commit and every call, from the click to the flow: after a restart always the same end.

Each story is told once to count its points, and then once more for each side of each point. What a crash may cost is
time; what it may not cost is a payment, a second charge, or a flow's effect done twice or never.
"""

import asyncio
import sys
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.crash import MORTAL, Died, Plan, mortal_parts
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER
from tests.payments.ways import Way, way_of

pytestmark = MORTAL


async def on_payment(result: Any, connection: Any) -> None:
    """The merchant's flow: a point for each order paid."""
    if result.payment_status == "SUCCESSFUL" and not result.already_processed:
        await connection.execute("insert into public.points values ($1)", result.order_id)


@pytest.fixture
async def story(market: Market, monkeypatch: pytest.MonkeyPatch) -> Market:
    """The market with the merchant's own flow and its table."""
    module = types.ModuleType("flows_of_the_story")
    on_payment.__module__ = module.__name__
    module.on_payment = on_payment  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    market.shop.config = replace(market.shop.config, flows=module.__name__)
    await market.shop.connection.execute("create table public.points (order_id bigint)")
    return market


@dataclass
class Life:
    """One telling of a story. `runtime` is the process that follows the plan, or its successor."""

    market: Market
    runtime: Runtime
    order_id: int
    deaths: int = 0

    async def survive(self, step: Any) -> Any:
        """Runs a step until it gets through; each death starts a new process and moves the time beyond every lease."""
        for _ in range(4):
            try:
                return await step(self.runtime)
            except Died:
                await self.restart()
        raise AssertionError("it died more often than the plan says")

    async def restart(self) -> None:
        """A new process, and the time it took."""
        self.deaths += 1
        self.runtime = self.market.notified = await self.market.shop.open()
        self.market.deaf = False
        await self.market.advance(timedelta(minutes=3))


@asynccontextmanager
async def living(market: Market, plan: Plan) -> AsyncIterator[Life]:
    """A fresh order, and a process that follows the plan."""
    before = len(market.shop.opened)
    database, http = await mortal_parts(market.shop.config.database_url, plan)
    runtime = await market.shop.open(database=database, http=http)
    market.notified = runtime
    try:
        yield Life(market, runtime, await market.shop.order())
    finally:
        plan.died = False
        plan.die_at = None
        # Whoever took over goes with this telling: their connections would add up.
        market.notified, market.deaf = market.shop.runtime, False
        while len(market.shop.opened) > before:
            await market.shop.opened.pop().close()
        await http.aclose()
        await database.pool.close()


async def pay_story(market: Market, plan: Plan, way: Way, *, notify: bool) -> tuple[Payment, int]:
    """Create (the client repeats with its key), pay, be told (or not), settle; then a day passes."""
    async with living(market, plan) as life:
        request = await market.request(
            way.method, mode=way.mode, order_id=life.order_id, idempotency_key=f"k{life.order_id}"
        )

        async def create(runtime: Runtime) -> Payment:
            return await runtime.payments.create(BUYER, request, correlation_id="c")

        payment = await life.survive(create)
        if payment.checking:
            await life.survive(sweep_once)
            payment = await create(life.runtime)
            assert payment.action is not None, "the sweep gives the page its next step"
        await market.pay(payment, notify=notify)
        if plan.died and life.deaths == 0:
            await life.restart()
        for _ in range(6):
            await life.survive(sweep_once)
            # The provider repeats what was not acknowledged, and payments are asked about, on this clock.
            await market.advance(timedelta(minutes=5))
        return payment, life.deaths


async def assert_the_one_end(market: Market, payment: Payment) -> None:
    """One payment, paid once, at the provider and here; one effect; the order says so."""
    now = await market.find(payment)
    assert (now.status, now.paid_amount_fen) == ("SUCCESSFUL", 1230)
    fetch = market.shop.connection.fetchval
    assert await fetch("select count(*) from shouyin.payment where order_id = $1", payment.order_id) == 1
    kinds = await market.shop.events(payment.id)
    assert kinds.count("payment.successful") == 1
    assert await fetch("select count(*) from public.points where order_id = $1", payment.order_id) == 1
    assert await market.shop.status_of(payment.order_id) == "paid"
    trade = await market.trade(payment)
    assert trade is not None
    assert trade["status"] == "PAID"
    waiting = (
        "select count(*) from shouyin.flow_run r join shouyin.event e on e.id = r.event_id"
        " where r.status <> 'DONE' and e.payment_id = $1"
    )
    assert await fetch(waiting, payment.id) == 0
    assert await fetch("select count(*) from shouyin.notification where due_at is not null") == 0


@pytest.mark.timeout(400)
# Dying before a point leaves what dying after the one before it left: once that is shown, one side is enough.
@pytest.mark.parametrize(
    ("way", "notify", "sides"),
    [
        (way_of("ALIPAY_PAGE", "public_key"), True, ("before", "after")),
        (way_of("ALIPAY_QR", "certificate"), False, ("after",)),
        (way_of("WECHAT_NATIVE", "v3"), True, ("after",)),
        (way_of("WECHAT_JSAPI", "v2"), False, ("after",)),
        (way_of("WECHAT_CLOUD", "cloud"), True, ("after",)),
    ],
    ids=str,
)
async def test_a_crash_anywhere_changes_no_end(story: Market, way: Way, notify: bool, sides: tuple[str, ...]) -> None:
    counted = Plan()
    payment, deaths = await pay_story(story, counted, way, notify=notify)
    await assert_the_one_end(story, payment)
    assert deaths == 0
    points = counted.points(sides)
    assert counted.passed["commit"] >= 8
    survived = 0
    for point in points:
        plan = Plan(die_at=point)
        payment, deaths = await pay_story(story, plan, way, notify=notify)
        await assert_the_one_end(story, payment)
        survived += deaths
    # A telling need not pass exactly the counted points (an idle sweep more or less), but nearly all must have died.
    assert survived >= len(points) * 0.9


async def test_redis_flushed_or_gone_at_any_point_loses_nothing(story: Market) -> None:
    redis = Redis.from_url(story.shop.config.redis_url)
    payment = await story.create("ALIPAY_QR")
    await redis.flushall()
    await story.pay(payment)
    await redis.flushall()
    for _ in range(5):
        await sweep_once(story.shop.runtime)
        await redis.flushall()
    await redis.aclose()
    assert await story.shop.status_of(payment.order_id) == "paid"

    story.shop.config = replace(story.shop.config, redis_url="redis://127.0.0.1:9/0")
    without = await story.shop.open()
    story.notified = without
    payment = await story.create("ALIPAY_QR", without)
    await story.pay(payment)
    await story.shop.settle(without)
    assert await story.shop.status_of(payment.order_id) == "paid"


async def test_a_cancelled_request_leaves_no_lock_and_no_open_transaction(story: Market) -> None:
    """A client that goes away cancels its request wherever it stands."""
    order_id = await story.shop.order()
    request = CreatePayment(order_id, PaymentMethod.ALIPAY_QR, None, "Tea")
    for delay in range(12):
        task = asyncio.create_task(story.shop.runtime.payments.create(BUYER, request, correlation_id="c"))
        for _ in range(delay):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (
        await story.shop.connection.fetchval(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and state like 'idle in transaction%'"
        )
        == 0
    )
    payment = await story.create("ALIPAY_QR", order_id=order_id)
    assert payment.status == "PENDING"

"""The test clock: every process and the sandbox move together, day by day, and what was due is done on its day."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest

from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.errors import ClockBusy, ClockNotSettled, Forbidden, InvalidInput, ProviderUnavailable, ShouyinError
from app.payments.model import Payment
from app.refunds.actions import RefundPayment
from app.runtime import Runtime, open_runtime
from app.test_clock import Day, stops
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.test_worker import until, working

CLERK = Principal(sub="c-1", roles=frozenset({"clerk"}))


@pytest.fixture
async def town(market: Market) -> AsyncIterator["Town"]:
    """A market whose clock may be moved; no worker runs yet."""
    market.shop.config = replace(market.shop.config, test_clock=True)
    api = await open_runtime(market.shop.config, clock=Clock(), realtime=True)
    market.notified = api
    try:
        yield Town(market, api)
    finally:
        await api.close()


class Town:
    """See the fixture. `api` is a process that serves, with a clock of its own."""

    def __init__(self, market: Market, api: Runtime) -> None:
        self.market, self.api = market, api

    def working(self) -> Any:
        """A worker process."""
        return working(self.market.shop, TEST_CLOCK="1")

    async def advance(self, by: timedelta, **options: Any) -> list[Day]:
        return await self.api.test_clock.advance(ADMIN, self.api.clock.now() + by, **options)

    async def refused(self, to: datetime | timedelta, caller: Principal = ADMIN, **options: Any) -> ShouyinError:
        """The error of an advance, which left everything as it was."""
        before = await self.traces()
        with pytest.raises(ShouyinError) as refused:
            await self.api.test_clock.advance(
                caller, to if isinstance(to, datetime) else self.api.clock.now() + to, **options
            )
        assert await self.traces() == before
        assert abs(self.api.clock.now() - self.api.clock.machine_now() - self.api.clock.ahead) < timedelta(seconds=1)
        return refused.value

    async def traces(self) -> Mapping[str, Any]:
        fetch = self.market.shop.connection.fetchval
        return {
            "ahead": await fetch("select ahead_us from shouyin.test_clock"),
            "audit": await fetch("select count(*) from shouyin.audit where action = 'clock.advance'"),
            "events": await fetch("select count(*) from shouyin.event"),
            "sandbox": round((await self.market.control("GET", "/clock"))["offset_s"]),
        }

    async def sandbox_is_with_us(self) -> bool:
        now = datetime.fromisoformat((await self.market.control("GET", "/clock"))["now"])
        return abs(now - self.api.clock.now()) < timedelta(seconds=5)

    async def find(self, payment: Payment) -> Payment:
        found = await self.api.payments.find(BUYER, payment.id)
        assert found is not None
        return found


def test_the_way_stops_at_midnights_and_deduction_times() -> None:
    def shanghai(text: str) -> datetime:
        return datetime.fromisoformat(f"{text}+08:00").astimezone(UTC)

    from_, to = shanghai("2026-12-03T08:00"), shanghai("2026-12-05T09:00")
    assert list(stops(from_, to, time(9))) == [
        shanghai("2026-12-03T09:00"),
        shanghai("2026-12-04T00:00"),
        shanghai("2026-12-04T09:00"),
        shanghai("2026-12-05T00:00"),
        shanghai("2026-12-05T09:00"),
    ]
    assert list(stops(from_, shanghai("2026-12-03T08:01"), time(9))) == [shanghai("2026-12-03T08:01")]
    assert list(stops(shanghai("2026-12-03T00:00"), shanghai("2026-12-04T00:00"), time())) == [
        shanghai("2026-12-04T00:00")
    ]


async def test_a_payment_that_nobody_pays_is_closed_by_the_worker_on_the_way(town: Town) -> None:
    async with town.working():
        payment = await town.market.create(runtime=town.api)
        await town.market.show(payment)
        days = await town.advance(timedelta(hours=3))
        assert (await town.find(payment)).status == "CLOSED"
        trade = await town.market.trade(payment)
        assert trade is not None
        assert trade["status"] == "CLOSED"
        assert town.api.clock.ahead > timedelta(hours=2, minutes=59)
        assert await town.sandbox_is_with_us()
    happened: dict[str, int] = {}
    for day in days:
        for kind, count in day.events.items():
            happened[kind] = happened.get(kind, 0) + count
    assert happened == {"payment.closed": 1}
    audit = "select actor, action from shouyin.audit where action = 'clock.advance'"
    assert [tuple(row) for row in await town.market.shop.connection.fetch(audit)] == [("root", "clock.advance")]


async def test_a_notice_that_is_sent_on_the_way_is_fresh_when_it_comes(town: Town) -> None:
    """WeChat signs the time into it, and what is five minutes from ours is refused."""
    async with town.working():
        payment = await town.market.create("WECHAT_NATIVE", town.api)
        await town.market.pay(payment)

        async def paid() -> bool:
            return (await town.find(payment)).status == "SUCCESSFUL"

        await until(paid)
        await town.api.permissions.grant(ADMIN, "clerk", "payment.refund")
        await town.market.control("POST", "/refunds/policy", settle=3600)
        refund = await town.api.refunds.create(CLERK, RefundPayment(payment.id, 100), correlation_id="c")
        began = town.api.clock.now()
        await town.advance(timedelta(days=2))
        [row] = await town.market.shop.connection.fetch(
            "select status, updated_at from shouyin.refund where id = $1", refund.id
        )
        assert row["status"] == "REFUNDED"
        assert timedelta(minutes=59) < row["updated_at"] - began < timedelta(minutes=62)
        assert [len(notice["attempts"]) for notice in await town.market.notices(payment)] == [1, 1]


async def test_a_plan_is_announced_on_its_days_and_idle_days_are_named(town: Town) -> None:
    async with town.working():
        expires_at = town.api.clock.now() + timedelta(days=20, hours=1)
        await town.api.plan.set(ADMIN, "pro", expires_at)
        loop = asyncio.get_running_loop()
        began = loop.time()
        days = await town.advance(timedelta(days=31))
        took_s = loop.time() - began
    assert [day.on for day in days] == [days[0].on + timedelta(days=n) for n in range(32)]
    warned = {day.on: day.events for day in days if day.events}

    def warned_on(before: int) -> date:
        """The day of the first stop at or after that many days before the end."""
        reached = expires_at - timedelta(days=before)
        return next(stops(reached, reached + timedelta(days=1), time(9))).astimezone(SHANGHAI).date()

    assert warned == {warned_on(before): {"plan.expiring": 1} for before in (14, 7, 1)}
    assert took_s < 30


async def test_what_is_not_done_is_named_and_the_clock_stays_there(town: Town) -> None:
    """No worker runs."""
    payment = await town.market.create(runtime=town.api)
    shop = town.market.shop
    await shop.connection.execute("update shouyin.event set dispatched_at = now()")
    target = town.api.clock.now() + timedelta(hours=1)
    with pytest.raises(ClockNotSettled) as stopped:
        await town.api.test_clock.advance(ADMIN, target, daily=False, settle_s=0.2)
    assert stopped.value.extensions()["due"] == {"payments": 1}
    assert "payments 1" in stopped.value.message
    assert timedelta() <= town.api.clock.now() - target < timedelta(seconds=5)
    assert await town.sandbox_is_with_us()
    # The next one does not even begin.
    ahead = (await town.traces())["ahead"]
    with pytest.raises(ClockNotSettled):
        await town.advance(timedelta(hours=1), settle_s=0.2)
    assert (await town.traces())["ahead"] == ahead
    async with town.working():
        await town.advance(timedelta(hours=2))
    assert (await town.find(payment)).status == "CLOSED"


async def test_rows_in_a_workers_hands_are_not_settled(town: Town) -> None:
    """What was claimed is due no longer, and is not done either."""
    let_go = asyncio.Event()

    async def drain() -> int:
        await let_go.wait()
        return 1

    at_work = asyncio.create_task(_run(town.api.test_clock.marking("payments", drain)))

    async def marked() -> bool:
        return bool(await town.market.shop.count("test_clock_work"))

    await until(marked)
    with pytest.raises(ClockNotSettled) as stopped:
        await town.advance(timedelta(hours=1), settle_s=0.2)
    assert stopped.value.extensions()["due"] == {"work on payments": 1}
    let_go.set()
    assert await at_work == 1
    await town.advance(timedelta(hours=1))
    # One that died in the middle holds nobody up for ever.
    await town.market.shop.connection.execute("insert into shouyin.test_clock_work values ('dead', 'flows', now())")
    await town.advance(timedelta(hours=1))


async def _run(drain: Any) -> int:
    count: int = await drain()
    return count


async def test_a_flow_that_fails_and_is_tried_again_later_is_settled(town: Town) -> None:
    async with town.working():
        payment = await town.market.create(runtime=town.api)
        # No such function on this worker.
        await town.market.shop.connection.execute(
            "insert into shouyin.flow_run (event_id, flow, trigger, due_at, created_at)"
            " select min(id), 'gone', 'payment', now() + interval '1 hour', now() from shouyin.event"
        )
        await town.market.pay(payment)
        # In one step: a midnight on the way would be a second try.
        days = await town.advance(timedelta(hours=1, minutes=1), daily=False)
    run = "select status, attempts from shouyin.flow_run where flow = 'gone'"
    assert [tuple(row) for row in await town.market.shop.connection.fetch(run)] == [("WAITING", 1)]
    assert sum(day.flow_runs for day in days) <= 1


async def test_only_one_moves_at_a_time(town: Town) -> None:
    await town.market.create(runtime=town.api)
    other = await open_runtime(town.market.shop.config, clock=Clock(), realtime=True)
    try:
        first = asyncio.create_task(town.advance(timedelta(hours=1), settle_s=1.0))

        async def moving() -> bool:
            return bool(await town.market.shop.connection.fetchval("select mover is not null from shouyin.test_clock"))

        await until(moving)
        with pytest.raises(ClockBusy):
            await other.test_clock.advance(ADMIN, other.clock.now() + timedelta(hours=2))
        with pytest.raises(ClockNotSettled):
            await first
        assert not await moving()
    finally:
        await other.close()


async def test_what_may_not_be_is_refused_and_changes_nothing(town: Town) -> None:
    now = town.api.clock.now()
    refused: list[tuple[datetime, str]] = [
        (now - timedelta(seconds=1), "to: the clock only moves forward"),
        (now + timedelta(days=3660), "to: at most ten years ahead"),
        ((now + timedelta(days=1)).replace(tzinfo=None), "to: give it an offset"),
    ]
    for to, words in refused:
        error = await town.refused(to)
        assert isinstance(error, InvalidInput)
        assert (error.field, error.message[: len(words)]) == ("to", words)
    assert isinstance(await town.refused(timedelta(days=1), BUYER), Forbidden)


async def test_the_clock_cannot_be_moved_unless_the_deployment_says_so(market: Market) -> None:
    runtime = market.shop.runtime
    assert not runtime.test_clock.movable
    with pytest.raises(Forbidden, match="TEST_CLOCK is off"):
        await runtime.test_clock.advance(ADMIN, runtime.clock.now() + timedelta(days=1))
    assert runtime.clock.ahead == timedelta()
    assert (await market.control("GET", "/clock"))["offset_s"] == 0


async def test_an_account_that_is_not_the_sandboxs_keeps_the_clock_where_it_is(town: Town) -> None:
    shop = town.market.shop
    await shop.connection.execute(
        "update shouyin.merchant_account"
        """ set settings = settings || '{"gateway": "https://openapi.alipay.com/gateway.do"}'"""
    )
    error = await town.refused(timedelta(days=1))
    assert isinstance(error, Forbidden)
    assert "1 (ALIPAY public_key)" in error.message
    await shop.connection.execute("update shouyin.merchant_account set enabled = false")
    await town.advance(timedelta(days=1))


async def test_without_the_sandbox_nothing_moves(town: Town, port: int) -> None:
    config = replace(town.market.shop.config, sandbox_url=f"http://127.0.0.1:{port}")
    await town.market.shop.connection.execute("update shouyin.merchant_account set enabled = false")
    alone = await open_runtime(config, clock=Clock(), realtime=False)
    try:
        with pytest.raises(ProviderUnavailable):
            await alone.test_clock.advance(ADMIN, alone.clock.now() + timedelta(days=1))
        assert alone.clock.ahead == timedelta()
        assert (await town.traces())["ahead"] == 0
    finally:
        await alone.close()


async def test_every_process_hears_of_it_and_one_that_starts_later_takes_the_sandbox_along(town: Town) -> None:
    config = town.market.shop.config
    other = await open_runtime(config, clock=Clock(), realtime=True)
    try:
        await town.advance(timedelta(days=40))

        async def followed() -> bool:
            return other.clock.ahead == town.api.clock.ahead

        await until(followed, within_s=4)  # sooner than it would have looked by itself
    finally:
        await other.close()
    await town.market.control("POST", "/reset")
    assert not await town.sandbox_is_with_us()
    later = await open_runtime(config, clock=Clock(), realtime=True)
    try:
        assert later.clock.ahead == town.api.clock.ahead
        assert await town.sandbox_is_with_us()
    finally:
        await later.close()


async def test_what_is_offered_after_a_month_is_taken_by_the_sandbox(town: Town) -> None:
    """Both sides live in the moved time: a payment is opened and paid there."""
    async with town.working():
        await town.advance(timedelta(days=31))
        for method in ("ALIPAY_PAGE", "WECHAT_NATIVE"):
            payment = await town.market.create(method, town.api)
            await town.market.pay(payment)

            async def paid(payment: Payment = payment) -> bool:
                return (await town.find(payment)).status == "SUCCESSFUL"

            await until(paid)
            paid_at = (await town.find(payment)).paid_at
            assert paid_at is not None
            assert abs(paid_at - town.api.clock.now()) < timedelta(minutes=1)

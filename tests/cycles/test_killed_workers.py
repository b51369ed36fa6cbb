"""Workers that are killed at any moment, through a month's end, a 29 February and two days in which none of them runs.

Two worker processes on one database live in the moved time of TEST_CLOCK (app/test_clock.py); each is killed again and
again and followed by another. Redis is emptied now and then. The provider refuses, takes its time and loses answers.
What a killed worker held is done when its lease is over, by whoever comes next.
"""

import asyncio
import inspect
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis

from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.cycles.model import CyclePayment
from app.errors import ClockNotSettled
from app.runtime import Runtime, open_runtime
from tests.cycles.conftest import EARLY, Club
from tests.cycles.test_crashes import on_deduction, on_payment
from tests.cycles.truth import check_always, check_settled
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN
from tests.test_worker import working

SEED: Final = int(os.environ.get("CYCLE_SEED", str(random.randrange(10**6))))
CYCLES: Final = int(os.environ.get("CYCLE_KILLED", "60"))
_BEGIN: Final = date(2028, 2, 28)
_OUTAGE: Final = date(2028, 3, 1)
_END: Final = date(2028, 3, 6)
_DEDUCT: Final = "alipay.trade.pay"
# How often each of some kinds of payer is there, and what the provider says to their first deductions.
_PAYERS: Final[list[tuple[int, dict[str, Any] | None]]] = [
    (30, None),
    (8, {"answer": "ACQ.BUYER_BALANCE_NOT_ENOUGH", "count": 1}),
    (5, {"answer": "ACQ.BUYER_BANKCARD_DECLINED", "count": 2, "leave_trade": True}),
    (6, {"answer": "processing", "settle": 300, "count": 2}),
    (4, {"answer": "processing", "settle": 300, "as": "closed", "count": 1}),
    (3, {"answer": "ACQ.AGREEMENT_NOT_EXIST", "count": 1}),
    (2, {"answer": "ACQ.MERCHANT_STATUS_NOT_NORMAL", "count": 1}),
    (2, {"answer": "ACQ.PAYMENT_REQUEST_HAS_RISK"}),
]
_GIVEN_UP: Final = "ACQ.PAYMENT_REQUEST_HAS_RISK"


@dataclass
class Site:
    """The club, an API process that moves the clock, and what the workers run with."""

    club: Club
    api: Runtime
    chance: random.Random
    settings: dict[str, str]
    killed: int = 0

    async def live(self, days_over: asyncio.Event) -> None:
        """One worker after another, each killed after a while."""
        while not days_over.is_set():
            async with working(self.club.market.shop, **self.settings):
                with suppress(TimeoutError):
                    await asyncio.wait_for(days_over.wait(), self.chance.uniform(0.5, 3.0))
            self.killed += 1
            # What it had in hand it has no more; the clock would wait two minutes for it.
            await self.api.db.pool.execute("delete from shouyin.test_clock_work")

    async def empty_redis(self, days_over: asyncio.Event) -> None:
        async with Redis.from_url(self.club.market.shop.config.redis_url) as redis:
            while not days_over.is_set():
                await redis.flushall()
                with suppress(TimeoutError):
                    await asyncio.wait_for(days_over.wait(), 0.7)

    @asynccontextmanager
    async def mortal_workers(self) -> AsyncIterator[None]:
        """Two of them at every time, more or less."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(self.live(over))
            group.create_task(self.empty_redis(over))
            try:
                yield
            finally:
                over.set()

    async def to(self, day: date, *, daily: bool = True, settle_s: float = 90.0) -> None:
        """Moves everybody to the morning of a day."""
        morning = datetime.combine(day, EARLY, SHANGHAI)
        await self.api.test_clock.advance(ADMIN, morning, daily=daily, settle_s=settle_s)

    async def members(self) -> dict[int, dict[str, Any] | None]:
        """Payers of each kind who have signed, with first dates around the month's end; what each one is told."""
        told = [policy for count, policy in _PAYERS for _ in range(count)]
        self.chance.shuffle(told)
        made: dict[int, dict[str, Any] | None] = {}
        for number, policy in enumerate(told[:CYCLES]):
            first_on = _BEGIN + timedelta(days=number % 5)
            cycle = await self._signed(Principal(sub=str(1000 + number)), first_on)
            if policy is not None:
                await self.club.policy(**policy, external_agreement_no=cycle.external_agreement_no)
            made[cycle.id] = policy
        return made

    async def _signed(self, payer: Principal, first_on: date) -> CyclePayment:
        cycle = await self.club.start(payer, runtime=self.api, first_deduction_on=first_on)
        await self.club.open(cycle)
        await self.club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
        return cycle


@pytest.fixture
async def site(market: Market, tmp_path: Path) -> AsyncIterator[Site]:
    """A deployment whose clock stands before the end of February 2028; no worker runs yet."""
    flows = "\n\n".join(["from typing import Any", inspect.getsource(on_deduction), inspect.getsource(on_payment)])
    (tmp_path / "flows_of_the_killed.py").write_text(flows)
    await market.shop.connection.execute("create table public.lived (id bigint, what text)")
    # A machine that starts workers all the time is no provider that cannot be reached.
    market.shop.config = replace(market.shop.config, test_clock=True, provider_timeout_s=10.0)
    clock = Clock()
    api = await open_runtime(market.shop.config, clock=clock, realtime=True)
    market.notified, market.shop.clock = api, clock
    settings = {"TEST_CLOCK": "1", "FLOWS": "flows_of_the_killed", "PYTHONPATH": str(tmp_path), "FLOW_ATTEMPTS": "20"}
    try:
        yield Site(Club(market), api, random.Random(SEED), settings)
    finally:
        await api.close()


@pytest.mark.timeout(180)
async def test_killed_workers_charge_each_date_once(site: Site) -> None:
    try:
        await _month(site)
    except BaseException:
        print(f"CYCLE_SEED={SEED}")
        raise


async def _month(site: Site) -> None:
    market = site.club.market
    await site.to(_BEGIN - timedelta(days=1), daily=False)
    told = await site.members()
    for method, count in ((_DEDUCT, 12), ("alipay.trade.query", 6)):
        await market.control("POST", "/faults", method=method, kind="lost_reply", count=count)
    async with site.mortal_workers():
        await site.to(_OUTAGE)
        await check_always(market)
    for day in range(2):
        with suppress(ClockNotSettled):
            await site.to(_OUTAGE + timedelta(days=day + 1), daily=False, settle_s=0.05)
    async with site.mortal_workers():
        await site.to(_END)
    assert site.killed >= 4
    for id_, policy in told.items():
        if policy is not None and policy["answer"] != _GIVEN_UP:
            number = (await site.api.cycles.reload(id_)).external_agreement_no
            await site.club.policy("now", external_agreement_no=number)
    async with working(market.shop, **site.settings):
        # Past every lease of the dead, every try of another day, and the days a plan that was put off makes us wait.
        await site.to(_END + timedelta(days=6))
        await _check_every_date(site, told)


async def _check_every_date(site: Site, told: dict[int, dict[str, Any] | None]) -> None:
    truth = await check_settled(site.club.market)
    last = _END + timedelta(days=1)
    for id_, policy in told.items():
        cycle = truth.cycles[id_]
        dates = [row for row in truth.deductions if row["cycle_payment_id"] == id_ and row["due_on"] <= last]
        given_up = policy is not None and policy["answer"] == _GIVEN_UP
        assert cycle["status"] == ("SUSPENDED" if given_up else "ACTIVE"), dict(cycle)
        due: date = cycle["first_deduction_on"]
        expected: list[tuple[date, str]] = []
        while due <= last and not (given_up and expected):
            expected.append((due, "FAILED" if given_up else "PAID"))
            due += timedelta(days=7)
        tried = [dict(row) for row in truth.payments if row["cycle_payment_id"] == id_]
        assert [(row["due_on"], row["status"]) for row in dates] == expected, f"{policy} {dict(cycle)} {dates} {tried}"
        for row in dates:
            assert len(truth.taken(row["id"])) == int(not given_up)
    fetch = site.club.market.shop.connection.fetch
    lived = [tuple(row) for row in await fetch("select id, what from public.lived")]
    assert len(lived) == len(set(lived)), "an effect twice"
    assert {id_ for id_, what in lived if what == "order"} == {row["id"] for row in truth.deductions}
    assert {id_ for id_, what in lived if what == "SUCCESSFUL"} == {
        row["id"] for row in truth.payments if row["status"] == "SUCCESSFUL"
    }
    assert await site.club.market.shop.count("difference") == 0

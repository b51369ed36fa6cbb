"""A market whose buyers sign agreements at the sandbox, and whose days can be lived through.

club.start      a cycle payment, as a page starts one
club.sign       the payer signs it at the sandbox
club.at         moves both clocks to an hour of a later day, Shanghai's time, and lets everything due happen
club.work_with  goes on with a worker that has other settings, or flows of its own
"""

import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any, cast

import asyncpg
import pytest

from app.auth import Principal
from app.clock import SHANGHAI
from app.cycles.actions import StartCyclePayment
from app.cycles.model import CyclePayment, Deduction
from app.payments.model import Payment
from app.runtime import Runtime, open_runtime
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER

SCENE = "INDUSTRY|DIGITAL_MEDIA"
# Before and after the hour of deductions.
EARLY, LATE = time(8), time(9, 1)
DEDUCT = "alipay.trade.pay"
ASK, UNSIGN = "alipay.user.agreement.query", "alipay.user.agreement.unsign"
_FLOWS = "flows_of_a_club"


@dataclass
class Club:
    """See the module."""

    market: Market
    worker: Runtime | None = None
    seen: list[Any] = field(default_factory=list)

    @property
    def runtime(self) -> Runtime:
        return self.worker or self.market.shop.runtime

    async def work_with(self, *flows: Callable[[Any, Any], Awaitable[Any]], **deductions: Any) -> None:
        """From now on another worker does everything: with these flows, and these settings of deductions."""
        config = self.market.shop.config
        if flows:
            module = types.ModuleType(_FLOWS)
            for flow in flows:
                flow.__module__ = _FLOWS
                setattr(module, cast(types.FunctionType, flow).__name__, flow)
            sys.modules[_FLOWS] = module
            config = replace(config, flows=_FLOWS)
        config = replace(config, deductions=replace(config.deductions, **deductions))
        self.worker = await open_runtime(config, clock=self.market.shop.clock, run_flows=True, realtime=False)
        self.market.shop.opened.append(self.worker)
        self.market.notified = self.worker

    def deafen(self) -> None:
        """No notice reaches us any more: whatever we learn, we asked for."""
        self.market.deaf = True

    def hear(self) -> None:
        """Notices reach us again; the sandbox repeats those that did not."""
        self.market.deaf = False

    @property
    def connection(self) -> "asyncpg.Connection[asyncpg.Record]":
        return self.market.shop.connection

    def today(self) -> date:
        return self.runtime.clock.business_date()

    async def start(
        self, caller: Principal = BUYER, *, runtime: Runtime | None = None, price: str = "9.90", **fields: Any
    ) -> CyclePayment:
        """A cycle payment of a new order of the caller's."""
        order_id = fields.pop("order_id", None) or await self.market.shop.order(
            amount=price, user_id=int(caller.sub), title="Club"
        )
        wanted: dict[str, Any] = {
            "order_id": order_id,
            "price_fen": round(float(price) * 100),
            "subject": "Club membership",
            "interval_days": 7,
            "scene": SCENE,
        } | fields
        cycles = (runtime or self.runtime).cycles
        return await cycles.start(caller, StartCyclePayment(**wanted), correlation_id="c-cycle")

    async def sign(self, cycle: CyclePayment, **options: Any) -> CyclePayment:
        """The payer opens the link and signs; afterwards everything due has happened."""
        assert cycle.action is not None
        await self.open(cycle)
        await self.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign", **options)
        await self.settle()
        return await self.find(cycle)

    async def open(self, cycle: CyclePayment) -> None:
        """The payer opens the link."""
        assert cycle.action is not None
        url = cycle.action.get("url")
        if url is None:
            page = await self.market.http.get(
                f"{self.market.sandbox_url}/alipay/app",
                params={"link": cycle.action["deepLink"]},
                follow_redirects=True,
            )
        else:
            page = await self.market.http.get(url, follow_redirects=True)
        assert page.status_code == 200, page.text

    async def member(self, caller: Principal = BUYER, **fields: Any) -> CyclePayment:
        """Started and signed."""
        return await self.sign(await self.start(caller, **fields))

    async def cancel(self, cycle: CyclePayment, caller: Principal = BUYER) -> CyclePayment:
        """Cancelled here."""
        return await self.runtime.cycles.cancel(caller, cycle.id, correlation_id="c-x")

    async def settle(self) -> None:
        """Everything that is due, done."""
        await self.market.shop.settle(self.runtime)

    async def find(self, cycle: CyclePayment) -> CyclePayment:
        """As it is now."""
        return await self.runtime.cycles.reload(cycle.id)

    async def deductions(self, cycle: CyclePayment) -> list[Deduction]:
        """The history, oldest first."""
        return (await self.runtime.cycles.deductions_of(cycle.id, limit=100, before=None))[::-1]

    async def payments(self, cycle: CyclePayment) -> list[Payment]:
        """Every attempt, oldest first."""
        return (await self.runtime.cycles.payments_of([cycle.id])).get(cycle.id, [])

    async def events(self, cycle: CyclePayment) -> list[str]:
        """Kinds of events about it and its deductions, in order, but those of payments."""
        rows = await self.connection.fetch(
            "select kind from shouyin.event where cycle_payment_id = $1 and kind not like 'payment.%' order by id",
            cycle.id,
        )
        return [row["kind"] for row in rows]

    async def agreement(self, cycle: CyclePayment) -> dict[str, Any]:
        """The provider's truth."""
        path = f"/agreements?external_agreement_no={cycle.external_agreement_no}"
        (found,) = (await self.market.control("GET", path))["agreements"]
        return dict(found)

    async def status_there(self, cycle: CyclePayment) -> str:
        """The provider's own word for it."""
        return str((await self.agreement(cycle))["status"])

    async def taken(self, cycle: CyclePayment) -> list[str]:
        """The provider's truth about money: the numbers of this cycle's trades that are paid."""
        numbers = {payment.out_trade_no for payment in await self.payments(cycle)}
        trades = (await self.market.control("GET", "/trades"))["trades"]
        return [trade["out_trade_no"] for trade in trades if trade["paid"] and trade["out_trade_no"] in numbers]

    async def last(self, cycle: CyclePayment) -> tuple[Deduction, list[Payment]]:
        """The newest deduction with its attempts."""
        deduction = (await self.deductions(cycle))[-1]
        return deduction, [payment for payment in await self.payments(cycle) if payment.deduction_id == deduction.id]

    async def calls(self, method: str) -> int:
        """How often the provider was called so."""
        return int((await self.market.control("GET", f"/calls?method={method}"))["total"])

    async def fault(self, kind: str, method: str = DEDUCT, **options: Any) -> None:
        """What the next call runs into."""
        await self.market.control("POST", "/faults", method=method, kind=kind, **options)

    async def policy(self, answer: str, **options: Any) -> None:
        """What the provider answers to deductions from now on."""
        await self.market.control("POST", "/alipay/deductions/policy", answer=answer, **options)

    async def at(self, day: date, hour: time = LATE) -> None:
        """Moves both clocks to that hour of that day, and lets everything due happen."""
        to = datetime.combine(day, hour, SHANGHAI)
        await self.market.advance(to - self.runtime.clock.now())
        await self.settle()

    async def later(self, by: timedelta) -> None:
        """Moves both clocks, and lets everything due happen."""
        await self.market.advance(by)
        await self.settle()

    async def days(self, count: int, hour: time = LATE) -> None:
        """Lives through so many days, one by one."""
        for _ in range(count):
            await self.at(self.today() + timedelta(days=1), hour)


@pytest.fixture
async def club(standing_market: Market) -> AsyncIterator[Club]:
    """A club of this test's own, on a morning before the hour of deductions."""
    await standing_market.clear()
    made = Club(standing_market)
    await made.at(made.today() + timedelta(days=1), EARLY)
    yield made
    sys.modules.pop(_FLOWS, None)


@pytest.fixture
async def own_club(market: Market) -> AsyncIterator[Club]:
    """A club on a market of its own, for tests that bind other tables."""
    made = Club(market)
    await made.at(made.today() + timedelta(days=1), EARLY)
    yield made
    sys.modules.pop(_FLOWS, None)

"""A crash at every commit and every call of a cycle payment's story: after a restart always the same end.

As with payments (tests/payments/test_crashes.py) each story is told once to count its points, and then once more for
each side of each point. A crash may cost time. It may not cost a second charge, a due date, a second order, or a flow's
effect done twice or never.

The suite tells a share of the points of each story; `CYCLE_CRASHES=all` tells every one, which takes minutes.
"""

import os
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import pytest

from app.clock import SHANGHAI
from app.cycles.model import CyclePayment
from app.errors import InvalidInput
from app.runtime import Runtime
from app.worker import sweep_once
from tests.cycles.conftest import EARLY, LATE, Club
from tests.cycles.truth import Truth, check_always, check_settled
from tests.fixtures.crash import MORTAL, Plan
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.payments.test_crashes import Life, living

pytestmark = MORTAL

DEDUCT: Final = "alipay.trade.pay"
POOR: Final = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
# Of all points of a story the suite tells one in so many, of each story others.
_SHARE: Final = 30


async def on_deduction(result: Any, connection: Any) -> int:
    """The merchant's flow: an order of its own for each due date."""
    order_id: int = await connection.fetchval(
        "insert into public.orders (user_id, title, amount)"
        " select user_id, 'due', $2::bigint / 100.0 from public.orders where id = $1 returning id",
        result.order_id, result.price_fen,
    )  # fmt: skip
    await connection.execute("insert into public.lived values ($1, 'order')", result.deduction_id)
    return order_id


async def on_cycle(result: Any, connection: Any) -> None:
    """The merchant's flow: a line for each change."""
    if not result.already_processed:
        await connection.execute("insert into public.lived values ($1, $2)", result.cycle_payment_id, result.change)


async def on_payment(result: Any, connection: Any) -> None:
    """The merchant's flow: a line for each payment that came to an end."""
    if not result.already_processed:
        await connection.execute("insert into public.lived values ($1, $2)", result.payment_id, result.payment_status)


@pytest.fixture
async def club(standing_market: Market, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Club]:
    """A club whose processes, those that a story opens, run the merchant's own flows."""
    module = types.ModuleType("flows_of_the_crashes")
    for flow in (on_deduction, on_cycle, on_payment):
        flow.__module__ = module.__name__
        setattr(module, flow.__name__, flow)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shop = standing_market.shop
    await shop.connection.execute("create table if not exists public.lived (id bigint, what text)")
    before = shop.config
    # A busy machine is no provider that cannot be reached.
    shop.config = replace(shop.config, flows=module.__name__, provider_timeout_s=10.0)
    yield Club(standing_market)
    shop.config = before
    await standing_market.clear()


@dataclass
class Tale:
    """One telling. `life` is the process that follows the plan, or its successor."""

    club: Club
    life: Life
    plan: Plan
    first: date
    fields: dict[str, Any] = field(default_factory=dict)

    async def start(self, **fields: Any) -> CyclePayment:
        """The client starts, and repeats with its key until it has the link."""

        async def start(runtime: Runtime) -> CyclePayment:
            return await self.club.start(
                runtime=runtime, order_id=self.life.order_id, price="12.30", idempotency_key="k", **fields
            )

        cycle: CyclePayment = await self.life.survive(start)
        for _ in range(3):
            if cycle.action is not None:
                return cycle
            await self.rest()
            cycle = await start(self.life.runtime)
        raise AssertionError("the sweep gives the payer the link")

    async def sign(self, cycle: CyclePayment, *, notify: bool = True) -> None:
        """The payer signs, and where they pay with it pays; of that the notices tell, or only our questions."""
        await self.club.open(cycle)
        self.hear(notify)
        number = cycle.external_agreement_no
        if cycle.first_payment_id is None:
            await self.club.market.control("POST", f"/agreements/{number}/sign")
        else:
            (payment,) = await self.club.payments(cycle)
            await self.club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", sign=True)
        await self.revive()
        await self.rest()

    async def member(self, **fields: Any) -> CyclePayment:
        cycle = await self.start(**fields)
        await self.sign(cycle)
        return cycle

    def hear(self, told: bool) -> None:
        self.club.market.notified, self.club.market.deaf = self.life.runtime, not told

    async def revive(self) -> None:
        """A process that died while it was told something is followed by another."""
        if self.plan.died and self.life.deaths == 0:
            await self.life.restart()

    async def act(self, act: Callable[[Runtime], Awaitable[Any]]) -> None:
        """What somebody asks for, and repeats when they hear nothing."""

        async def once_more(runtime: Runtime) -> None:
            try:
                await act(runtime)
            except InvalidInput:
                assert self.plan.died  # the first one was done

        await self.life.survive(once_more)

    async def rest(self) -> None:
        """The worker's passes, until there is nothing to do."""
        for _ in range(20):
            await self.revive()
            if await self.life.survive(sweep_once) == 0:
                return
        raise AssertionError("the sweeps never came to an end")

    async def hours(self, hours: int = 1) -> None:
        """Time passes, ten minutes at a time at first."""
        for minutes in (1, 9, 10, 40, *[60] * (hours - 1)):
            await self.club.market.advance(timedelta(minutes=minutes))
            await self.rest()

    async def at(self, day: int, hour: time = LATE) -> None:
        """Moves to an hour of that day after the first."""
        to = datetime.combine(self.first + timedelta(days=day), hour, SHANGHAI)
        await self.club.market.advance(to - self.club.runtime.clock.now())
        await self.rest()
        await check_always(self.club.market)


Course = Callable[[Tale], Awaitable[CyclePayment]]


async def plain(tale: Tale) -> CyclePayment:
    """Signed, and two dates charged."""
    cycle = await tale.member()
    await tale.at(0)
    await tale.at(7)
    return cycle


async def asked(tale: Tale) -> CyclePayment:
    """As `plain`, and nobody tells us of the signing."""
    cycle = await tale.start()
    await tale.sign(cycle, notify=False)
    await tale.hours()
    await tale.at(0, time(10, 30))
    return cycle


async def pay_now(tale: Tale) -> CyclePayment:
    """The first payment with the signature, the first deduction an interval later."""
    cycle = await tale.member(pay_now=True)
    await tale.at(7)
    return cycle


async def refused(tale: Tale) -> CyclePayment:
    """Refused on its day; on the next one the plan is put off, and it is charged."""
    cycle = await tale.member()
    await tale.club.policy(POOR, leave_trade=True)
    await tale.at(0)
    await tale.hours(8)
    await tale.club.policy("now")
    await tale.at(1)
    return cycle


async def unknown(tale: Tale) -> CyclePayment:
    """The money is taken, and neither answer nor notice says so."""
    cycle = await tale.member()
    tale.hear(told=False)
    await tale.club.market.control("POST", "/faults", method=DEDUCT, kind="lost_reply", count=1)
    await tale.at(0)
    await tale.hours()
    return cycle


async def never_reached(tale: Tale) -> CyclePayment:
    """The provider is away for a while."""
    cycle = await tale.member()
    await tale.club.market.control("POST", "/faults", method="*", kind="http_500", count=3)
    await tale.at(0)
    await tale.hours()
    return cycle


async def in_process(tale: Tale) -> CyclePayment:
    """The provider takes its time; its notice says that it has the money."""
    cycle = await tale.member()
    await tale.club.policy("processing", settle=40, count=1)
    await tale.at(0)
    await tale.hours()
    return cycle


async def never_settled(tale: Tale) -> CyclePayment:
    """The provider has it in hand until its time is over; the day after it is charged."""
    cycle = await tale.member()
    await tale.club.policy("processing", settle="hold", count=1)
    await tale.at(0)
    await tale.hours(8)
    await tale.at(1)
    return cycle


async def cancelled(tale: Tale) -> CyclePayment:
    """Charged once, cancelled, and not charged again."""
    cycle = await tale.member()
    await tale.at(0)
    await tale.act(lambda runtime: runtime.cycles.cancel(BUYER, cycle.id, correlation_id="c"))
    await tale.rest()
    await tale.at(7)
    return cycle


async def cancelled_while_open(tale: Tale) -> CyclePayment:
    """Refused on its day, and cancelled before the next."""
    cycle = await tale.member()
    await tale.club.policy(POOR)
    await tale.at(0)
    await tale.hours()
    await tale.club.policy("now")
    await tale.act(lambda runtime: runtime.cycles.cancel(BUYER, cycle.id, correlation_id="c"))
    await tale.hours()
    await tale.at(1)
    return cycle


async def paused(tale: Tale) -> CyclePayment:
    """Refused on its day, paused, resumed: the next date is charged."""
    cycle = await tale.member()
    await tale.club.policy(POOR)
    await tale.at(0)
    await tale.hours()
    await tale.club.policy("now")
    await tale.act(lambda runtime: runtime.cycles.pause(BUYER, cycle.id, correlation_id="c"))
    await tale.at(1)
    await tale.act(lambda runtime: runtime.cycles.resume(BUYER, cycle.id, correlation_id="c"))
    await tale.at(7)
    return cycle


async def put_off(tale: Tale) -> CyclePayment:
    """Another date, at which it is charged."""
    cycle = await tale.member()
    later = tale.first + timedelta(days=4)
    await tale.act(lambda runtime: runtime.cycles.change_date(ADMIN, cycle.id, later, correlation_id="c"))
    await tale.at(0)
    await tale.at(4)
    return cycle


async def late(tale: Tale) -> CyclePayment:
    """Refused and closed, and paid after all when the next attempt is open and waits for the morning."""
    cycle = await tale.member()
    await tale.club.policy(POOR, leave_trade=True)
    await tale.at(0)
    await tale.club.policy("now")
    (payment,) = await tale.club.payments(cycle)
    await tale.at(1, time(23, 50))
    await tale.club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", late=True)
    await tale.rest()
    await tale.hours(12)
    return cycle


@dataclass(frozen=True, slots=True)
class Story:
    """A course, and what is true in the end: the cycle's status, what became of its dates, what the flow was told."""

    course: Course
    dates: tuple[str, ...]
    status: str = "ACTIVE"
    changes: tuple[str, ...] = ("STARTED",)
    first_payment: int = 0

    def __str__(self) -> str:
        return self.course.__name__


STORIES: Final = [
    Story(plain, ("PAID", "PAID")),
    Story(asked, ("PAID",)),
    Story(pay_now, ("PAID",), first_payment=1),
    Story(refused, ("PAID",)),
    Story(unknown, ("PAID",)),
    Story(never_reached, ("PAID",)),
    Story(in_process, ("PAID",)),
    Story(never_settled, ("PAID",)),
    Story(cancelled, ("PAID",), "CANCELLED", ("STARTED", "CANCELLED")),
    Story(cancelled_while_open, ("SKIPPED",), "CANCELLED", ("STARTED", "CANCELLED")),
    Story(paused, ("SKIPPED", "PAID"), changes=("STARTED", "SUSPENDED", "RESUMED")),
    Story(put_off, ("PAID",)),
    Story(late, ("PAID",)),
]


async def tell(club: Club, plan: Plan, story: Story) -> int:
    """The story from the click to its end, and that it is the one end; the deaths on the way."""
    await club.market.clear()
    await club.connection.execute("truncate public.lived")
    await club.at(club.today() + timedelta(days=1), EARLY)
    async with living(club.market, plan) as life:
        await club.connection.execute("update public.orders set title = 'Club' where id = $1", life.order_id)
        tale = Tale(club, life, plan, club.today())
        cycle = await story.course(tale)
        # A lease of the dead, and the last look at what may still have been on its way.
        await tale.hours()
        truth = await check_settled(club.market, life.runtime)
    await _assert_the_one_end(club, truth, cycle, story)
    return life.deaths


async def _assert_the_one_end(club: Club, truth: Truth, cycle: CyclePayment, story: Story) -> None:
    assert truth.cycles.keys() == {cycle.id}
    assert truth.cycles[cycle.id]["status"] == story.status
    assert tuple(row["status"] for row in truth.deductions) == story.dates
    paid = story.dates.count("PAID")
    assert len(await club.taken(cycle)) == paid + story.first_payment
    agreement = await club.agreement(cycle)
    assert len(agreement["deductions"]) == paid
    if story.status == "ACTIVE":
        plan_on = (await club.find(cycle)).plan_on
        assert agreement["next_deduction_on"] == (plan_on and plan_on.isoformat())
    kinds = await club.events(cycle)
    assert [kinds.count(kind) for kind in ("cycle.created", "cycle.started", "deduction.paid")] == [1, 1, paid]
    made = await club.connection.fetchval("select count(*) from public.orders where title = 'due'")
    assert made == sum(row["order_id"] is not None for row in truth.deductions) == len(story.dates)
    lived = [tuple(row) for row in await club.connection.fetch("select id, what from public.lived")]
    assert len(lived) == len(set(lived)), "an effect twice"
    assert sorted(what for id_, what in lived if what not in ("order", "SUCCESSFUL", "FAILED")) == sorted(story.changes)
    assert sum(what == "SUCCESSFUL" for _, what in lived) == paid + story.first_payment
    assert await club.market.shop.count("difference") == 0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("story", STORIES, ids=str)
async def test_a_crash_anywhere_changes_no_end(club: Club, story: Story) -> None:
    counted = Plan()
    assert await tell(club, counted, story) == 0
    points = [
        (kind, number, side)
        for kind, total in counted.passed.items()
        for number in range(1, total + 1)
        for side in ("before", "after")
        if kind == "call" or number not in counted.idle
    ]
    assert counted.passed["commit"] >= 8
    if os.environ.get("CYCLE_CRASHES") != "all":
        points = points[STORIES.index(story) % _SHARE :: _SHARE]
    survived = 0
    for point in points:
        try:
            survived += await tell(club, Plan(die_at=point), story)
        except BaseException:
            print(f"died {point}")
            raise
    # A telling need not pass exactly the counted points (an idle sweep more or less), but nearly all must have died.
    assert survived >= len(points) * 0.9

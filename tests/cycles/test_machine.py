"""Cycle payments in any order of everything: Hypothesis chooses the acts, and what must always hold is checked after
each.

As with refunds (tests/refunds/test_machine.py) each act runs to its end on the suite's event loop, in which the
provider, its notices and our processes live, and which stands still between acts.

`CYCLE_COURSES=200` plays more of them than the suite does.
"""

import asyncio
import contextlib
import os
import sys
import types
from collections.abc import Coroutine
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.cycles.model import CyclePayment
from app.errors import ShouyinError
from app.runtime import Runtime
from app.worker import sweep_once, work_of
from tests.cycles.conftest import EARLY, Club
from tests.cycles.test_crashes import on_cycle, on_deduction, on_payment
from tests.cycles.truth import Truth, check_always, check_settled, hear_of_unsigning, read_truth
from tests.fixtures.crash import MORTAL, Died, Plan, mortal_parts
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER

pytestmark = MORTAL

# The suite plays the same few each time; whoever asks for more gets others each time.
_IN_SUITE: Final = 4
COURSES: Final = int(os.environ.get("CYCLE_COURSES", str(_IN_SUITE)))
STEPS: Final = 45
SCENES: Final = ("INDUSTRY|DIGITAL_MEDIA", "INDUSTRY|PARKING", "INDUSTRY|EDU")
DEDUCT: Final = "alipay.trade.pay"
# How often one number may be sent, and asked about, however long a course is.
_MOST_SENT: Final = 40
_MOST_ASKED: Final = 160
# What may follow what; see app/cycles/model.py.
ARROWS: Final = {
    None: {"PENDING", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"},
    "PENDING": {"PENDING", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"},
    "ACTIVE": {"ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"},
    "SUSPENDED": {"ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"},
    "CANCELLED": {"CANCELLED"},
    "EXPIRED": {"EXPIRED", "ACTIVE", "CANCELLED"},
}
DATES: Final = {
    None: {"WAITING", "CHARGING", "PAID", "FAILED", "SKIPPED"},
    "WAITING": {"WAITING", "CHARGING", "PAID", "FAILED", "SKIPPED"},
    "CHARGING": {"CHARGING", "PAID", "FAILED", "SKIPPED"},
    # A late success wins.
    "FAILED": {"FAILED", "PAID"},
    "SKIPPED": {"SKIPPED", "PAID"},
    "PAID": {"PAID"},
}
_T = TypeVar("_T")


class World:
    """The club, two processes that run the flows, and what was seen of each row last."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.club = Club(market)
        self.processes: list[Runtime] = []
        self.versions: dict[tuple[str, int], int] = {}
        self.statuses: dict[tuple[str, int], str] = {}
        self.rests: set[int] = set()
        self.sent: dict[str, int] = {}
        # Where the dates of a cycle count from, and cycles of which some date may rightly be missing.
        self.bases: dict[int, date] = {}
        self.gaps: set[int] = set()

    async def begin(self) -> None:
        await self.market.clear()
        await hear_of_unsigning(self.market)
        self.processes = [await self.market.shop.open() for _ in range(2)]
        self.market.notified = self.processes[0]
        await self.market.shop.connection.execute("truncate public.lived")
        await self.club.at(self.club.today() + timedelta(days=1), EARLY)

    async def members(self) -> list[CyclePayment]:
        """Cycles that are signed already, so that each course is about money."""
        made = [await self.start(scene, 7, False, self.processes[0]) for scene in SCENES[:2]]
        for cycle in filter(None, made):
            await self.sign(cycle, notify=True)
        await sweep_once(self.processes[0])
        return list(filter(None, made))

    # --- acts ---------------------------------------------------------------------------------------------------

    async def start(self, scene: str, interval: int, pay_now: bool, process: Runtime) -> CyclePayment | None:
        with contextlib.suppress(ShouyinError):
            return await self.club.start(
                runtime=process, scene=scene, interval_days=interval, pay_now=pay_now, price="12.30"
            )
        return None

    async def sign(self, cycle: CyclePayment, notify: bool) -> None:
        # The sandbox refuses what a payer may not do, such as signing twice.
        with contextlib.suppress(AssertionError):
            await self.club.open(await self.club.find(cycle) if cycle.action is None else cycle)
            if cycle.first_payment_id is None:
                path = f"/agreements/{cycle.external_agreement_no}/sign"
                await self.market.control("POST", path, notify=notify)
            else:
                payment = next(row for row in await self.club.payments(cycle) if row.id == cycle.first_payment_id)
                await self.market.control("POST", f"/trades/{payment.out_trade_no}/pay", sign=True, notify=notify)

    async def unsign(self, cycle: CyclePayment, notify: bool) -> None:
        with contextlib.suppress(AssertionError):
            await self.market.control("POST", f"/agreements/{cycle.external_agreement_no}/unsign", notify=notify)

    async def ask_for(self, what: str, cycle: CyclePayment, process: Runtime) -> None:
        """What a caller may ask for; a refusal is an answer."""
        cycles = process.cycles
        with contextlib.suppress(ShouyinError):
            match what:
                case "cancel":
                    await cycles.cancel(BUYER, cycle.id, correlation_id="c")
                case "pause":
                    self.gaps.add(cycle.id)
                    await cycles.pause(BUYER, cycle.id, correlation_id="c")
                case "resume":
                    self.gaps.add(cycle.id)
                    await cycles.resume(BUYER, cycle.id, correlation_id="c")
                case "change_price":
                    await cycles.change_price(ADMIN, cycle.id, 500, correlation_id="c")
                case "sync":
                    await cycles.sync(ADMIN, cycle.id)

    async def change_date(self, cycle: CyclePayment, days: int, process: Runtime) -> None:
        later = (await self.club.find(cycle)).next_deduction_on
        if later is None:
            return
        later = max(later, self.club.today()) + timedelta(days=days)
        self.gaps.add(cycle.id)
        with contextlib.suppress(ShouyinError):
            await process.cycles.change_date(ADMIN, cycle.id, later, correlation_id="c")
        if (await self.club.find(cycle)).next_deduction_on == later:
            self.bases[cycle.id] = later

    async def settle_trade(self, how: str, which: int) -> None:
        """The provider brings a deduction that it has in hand to its end; or takes the money of one it had closed, of
        which it tells."""
        truth = await read_truth(self.market)
        numbers = [self.truth_of_date(truth, row) for row in truth.deductions]
        held = [number for number, state in filter(None, numbers) if (state == "CLOSED") == (how == "late")]
        if not held:
            return
        number = held[which % len(held)]
        with contextlib.suppress(AssertionError):
            if how == "late":
                self.listen(0)
                await self.market.control("POST", f"/trades/{number}/pay", late=True)
            else:
                await self.market.control("POST", f"/trades/{number}/{how}")

    def truth_of_date(self, truth: Truth, deduction: Any) -> tuple[str, str] | None:
        """The newest attempt that the provider knows of and has not the money of; none where an older one has it."""
        attempts = truth.attempts(deduction["id"])
        if not attempts or truth.taken(deduction["id"]):
            return None
        trade = truth.trades.get(attempts[-1]["out_trade_no"])
        if trade is None or attempts[-1]["id"] != deduction["payment_id"]:
            return None
        return trade["out_trade_no"], trade["status"]

    async def repeat_notices(self, newest: bool) -> None:
        """What was told of late, or the oldest of all, told again."""
        told = (await self.market.control("GET", "/notifications"))["notifications"]
        for notice in told[-3:] if newest else told[:3]:
            await self.market.control("POST", f"/notifications/{notice['notify_id']}/resend", times=2, concurrent=True)

    def listen(self, which: int | None) -> None:
        self.market.deaf = which is None
        if which is not None:
            self.market.notified = self.processes[which]

    async def step(self, kind: str, process: Runtime) -> None:
        await work_of(process)[kind]()

    async def at_once(self, acts: list[str], cycle: CyclePayment, turns: int) -> None:
        """Both workers at everything; and others, who come earlier or later."""
        first, second = self.processes

        async def one(act: str, late_by: int) -> None:
            for _ in range(late_by):
                await asyncio.sleep(0)
            match act:
                case "sweep":
                    await sweep_once(second)
                case "told again":
                    await self.repeat_notices(newest=True)
                case "sign":
                    await self.sign(cycle, notify=True)
                case "unsign":
                    await self.unsign(cycle, notify=True)
                case "pay" | "close" | "late":
                    await self.settle_trade(act, turns)
                case _:
                    await self.ask_for(act, cycle, second)

        others = (one(act, turns * (number + 1)) for number, act in enumerate(acts))
        await asyncio.gather(sweep_once(first), sweep_once(second), *others)

    async def refuse(self, cycle: CyclePayment, late: bool, process: Runtime) -> None:
        """Its next attempt is refused and leaves its trade, which is closed; perhaps it is paid after all later on."""
        await self.near(cycle, process)
        await self.club.policy(
            "ACQ.BUYER_BALANCE_NOT_ENOUGH", leave_trade=True, count=1,
            external_agreement_no=cycle.external_agreement_no, **({"settle": 40_000, "late": True} if late else {}),
        )  # fmt: skip
        await self.days(1, process)

    async def lose(self, cycle: CyclePayment, act: str, process: Runtime) -> None:
        """The answer to its next attempt is lost and nobody hears of it; then somebody asks for something."""
        await self.near(cycle, process)
        self.listen(None)
        await self.market.control("POST", "/faults", method=DEDUCT, kind="lost_reply", count=1)
        await self.days(1, process)
        await self.ask_for(act, cycle, process)
        await self.market.advance(timedelta(minutes=1))
        await self.market.shop.settle(process)
        self.listen(0)

    async def hold(self, cycle: CyclePayment, acts: list[str], turns: int) -> None:
        """The provider takes its time over its next attempt, and ends it while everybody is at work."""
        first = self.processes[0]
        await self.near(cycle, first)
        policy = {"settle": "hold", "count": 1, "external_agreement_no": cycle.external_agreement_no}
        await self.club.policy("processing", **policy)
        await self.market.advance(timedelta(days=1))
        for kind in ("cycles", "events", "flows"):
            await self.step(kind, first)
        await self.at_once(["pay", *acts], cycle, turns)

    async def near(self, cycle: CyclePayment, process: Runtime) -> None:
        """Lives until the day before its next date."""
        following = (await self.club.find(cycle)).next_deduction_on
        if following is not None:
            await self.days(min((following - self.club.today()).days - 1, 8), process)

    async def days(self, count: int, process: Runtime) -> None:
        """Days as they should be, with a worker that does everything."""
        for _ in range(count):
            await self.market.advance(timedelta(days=1))
            await self.market.shop.settle(process)

    async def crash(self, point: tuple[str, int, str], what: str, cycle: CyclePayment) -> None:
        """A process dies at one of its commits or calls; its successor comes after the leases."""
        database, http = await mortal_parts(self.market.shop.config.database_url, Plan(die_at=point))
        mortal = await self.market.shop.open(database=database, http=http)
        try:
            with contextlib.suppress(Died):
                if what == "sweep":
                    await sweep_once(mortal)
                else:
                    await self.ask_for(what, cycle, mortal)
        finally:
            await http.aclose()
            await database.pool.close()
        await self.market.advance(timedelta(minutes=3))

    # --- what always holds ----------------------------------------------------------------------------------------

    async def check(self) -> None:
        truth = await check_always(self.market)
        calls = (await self.market.control("GET", "/calls"))["calls"]
        sent = {row["out_trade_no"]: row["count"] for row in calls if row["method"] == DEDUCT}
        for row in truth.payments:
            self._rises("payment", row)
        for row in truth.deductions:
            self._follows("deduction", row, DATES)
        rests = set()
        for cycle in truth.cycles.values():
            self._rises("cycle", cycle)
            self._follows("cycle", cycle, ARROWS)
            self._check_dates(truth, cycle)
            numbers = [row["out_trade_no"] for row in truth.payments if row["cycle_payment_id"] == cycle["id"]]
            if cycle["status"] != "ACTIVE" or cycle["ending"]:
                rests.add(cycle["id"])
                if cycle["id"] in self.rests:
                    for number in numbers:
                        assert sent.get(number, 0) == self.sent.get(number, 0), f"asked for money: {dict(cycle)}"
        self.rests, self.sent = rests, sent
        lived = [tuple(row) for row in await self.market.shop.connection.fetch("select id, what from public.lived")]
        done = [each for each in lived if each[1] in ("order", "SUCCESSFUL")]
        assert len(done) == len(set(done)), "an effect twice"
        orders = {row["id"] for row in truth.deductions if row["order_id"] is not None}
        assert {id_ for id_, what in lived if what == "order"} == orders
        assert await self.market.shop.connection.fetchval(
            "select count(*) from public.orders where title = 'due'"
        ) == len(orders)
        assert await self.market.shop.count("difference") == 0

    def _rises(self, table: str, row: Any) -> None:
        assert row["version"] >= self.versions.get((table, row["id"]), 1)
        self.versions[table, row["id"]] = row["version"]

    def _follows(self, table: str, row: Any, arrows: Any) -> None:
        before = self.statuses.get((table, row["id"]))
        assert row["status"] in arrows[before], (before, dict(row))
        self.statuses[table, row["id"]] = row["status"]
        if row["status"] == "SUSPENDED":
            self.gaps.add(row["id"])

    def _check_dates(self, truth: Truth, cycle: Any) -> None:
        """On the grid, and where nobody stopped or moved them without a gap."""
        following, interval = cycle["next_deduction_on"], cycle["interval_days"]
        if following is None:
            return
        base = self.bases.get(cycle["id"], cycle["first_deduction_on"])
        assert (following - base).days % interval == 0, dict(cycle)
        if cycle["id"] not in self.gaps:
            dates = [row["due_on"] for row in truth.deductions if row["cycle_payment_id"] == cycle["id"]]
            steps = (following - base).days // interval
            assert dates == [base + timedelta(days=interval * step) for step in range(steps)], dict(cycle)

    async def end(self) -> None:
        """The faults end, the provider does what it holds, and a month passes: everything agrees."""
        await self.market.control("DELETE", "/faults")
        await self.club.policy("now")
        for cycle in (await read_truth(self.market)).cycles.values():
            await self.club.policy("now", external_agreement_no=cycle["external_agreement_no"])
        self.listen(0)
        for _ in range(3):
            await self.settle_trade("pay", 0)
        for hours in (0.1, 1, 7, 12, 24, 24, 24, 31 * 24, 1):
            await self.market.advance(timedelta(hours=hours))
            for which in (0, 1):
                await self.market.shop.settle(self.processes[which])
            await self.check()
        await check_settled(self.market, self.processes[1])
        for row in (await self.market.control("GET", "/calls"))["calls"]:
            if row["out_trade_no"].startswith("SD"):
                assert row["count"] <= (_MOST_SENT if row["method"] == DEDUCT else _MOST_ASKED), row


KINDS: Final = ("notifications", "payments", "agreements", "cycles", "events", "flows", "deductions")
WHICH = st.integers(0, 1)
ANSWERS: Final = (
    "now",
    "processing",
    "ACQ.BUYER_BALANCE_NOT_ENOUGH",
    "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR",
    "ACQ.CYCLE_PAY_DATE_NOT_MATCH",
    "ACQ.CYCLE_PAY_TOTAL_TIMES_EXCEED",
    "ACQ.AGREEMENT_NOT_EXIST",
    "ACQ.MERCHANT_STATUS_NOT_NORMAL",
    "ACQ.PAYMENT_REQUEST_HAS_RISK",
    "ACQ.SYSTEM_ERROR",
    "ACQ.NEVER_HEARD_OF",
)
FAULTY: Final = (
    DEDUCT,
    DEDUCT,
    "alipay.trade.query",
    "alipay.trade.close",
    "alipay.user.agreement.query",
    "alipay.user.agreement.unsign",
    "alipay.user.agreement.executionplan.modify",
)
FAULTS: Final = ("lost_reply", "lost_reply", "http_500", "bad_signature", "timeout")
BESIDE: Final = (
    "sweep",
    "told again",
    "sign",
    "unsign",
    "pay",
    "pay",
    "close",
    "late",
    "cancel",
    "pause",
    "resume",
    "sync",
)
ASKED: Final = ("cancel", "pause", "resume", "resume", "change_price", "sync")


def machine_of(market: Market, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine for one market."""

    class Deducting(RuleBasedStateMachine):
        cycles: Bundle[CyclePayment] = Bundle("cycles")

        def __init__(self) -> None:
            super().__init__()
            self.world = World(market)
            self.broken = False

        def do(self, act: Coroutine[Any, Any, _T]) -> _T:
            try:
                return loop.run_until_complete(act)
            except BaseException:
                self.broken = True
                raise

        @initialize(target=cycles)
        def begin(self) -> Any:
            self.do(self.world.begin())
            return multiple(*self.do(self.world.members()))

        @rule(
            target=cycles,
            scene=st.sampled_from(SCENES),
            interval=st.sampled_from([7, 7, 30]),
            pay_now=st.sampled_from([False, False, True]),
            signed=st.sampled_from([True, True, True, False]),
            which=WHICH,
        )
        def start(self, scene: str, interval: int, pay_now: bool, signed: bool, which: int) -> Any:
            cycle = self.do(self.world.start(scene, interval, pay_now, self.world.processes[which]))
            if cycle is None:
                return multiple()
            if signed:
                self.do(self.world.sign(cycle, notify=True))
                self.do(sweep_once(self.world.processes[which]))
            return cycle

        @rule(cycle=cycles, notify=st.booleans())
        def sign(self, cycle: CyclePayment, notify: bool) -> None:
            self.do(self.world.sign(cycle, notify))

        @rule(cycle=cycles, notify=st.booleans())
        def unsign(self, cycle: CyclePayment, notify: bool) -> None:
            self.do(self.world.unsign(cycle, notify))

        @rule(cycle=cycles, what=st.sampled_from(ASKED), which=WHICH)
        def ask_for(self, cycle: CyclePayment, what: str, which: int) -> None:
            self.do(self.world.ask_for(what, cycle, self.world.processes[which]))

        @rule(cycle=cycles, days=st.sampled_from([1, 3, 9]), which=WHICH)
        def change_date(self, cycle: CyclePayment, days: int, which: int) -> None:
            self.do(self.world.change_date(cycle, days, self.world.processes[which]))

        @rule(
            cycle=cycles,
            acts=st.lists(st.sampled_from(BESIDE), min_size=1, max_size=4),
            turns=st.sampled_from([0, 1, 5, 20, 60]),
            hours=st.sampled_from([0, 0, 0.01, 2, 24]),
        )
        def at_once(self, cycle: CyclePayment, acts: list[str], turns: int, hours: float) -> None:
            self.do(market.advance(timedelta(hours=hours)))
            self.do(self.world.at_once(acts, cycle, turns))

        @rule(cycle=cycles, late=st.booleans(), which=WHICH)
        def refuse(self, cycle: CyclePayment, late: bool, which: int) -> None:
            self.do(self.world.refuse(cycle, late, self.world.processes[which]))

        @rule(
            answer=st.sampled_from(ANSWERS),
            settle=st.sampled_from(["hold", 30, 7200]),
            ends=st.sampled_from(["paid", "paid", "closed"]),
            leave_trade=st.booleans(),
            count=st.sampled_from([1, 1, 2, None]),
        )
        def policy(self, answer: str, settle: Any, ends: str, leave_trade: bool, count: int | None) -> None:
            more: dict[str, Any] = {"settle": settle, "as": ends, "leave_trade": leave_trade}
            if count is not None:
                more["count"] = count
            self.do(self.world.club.policy(answer, **more))

        @rule(how=st.sampled_from(["pay", "pay", "close", "late"]), which=st.integers(0, 9))
        def settle_trade(self, how: str, which: int) -> None:
            self.do(self.world.settle_trade(how, which))

        @rule(cycle=cycles, act=st.sampled_from(ASKED), which=WHICH)
        def lose(self, cycle: CyclePayment, act: str, which: int) -> None:
            self.do(self.world.lose(cycle, act, self.world.processes[which]))

        @rule(
            cycle=cycles,
            acts=st.lists(st.sampled_from(BESIDE), max_size=2),
            turns=st.sampled_from([1, 5, 20, 60, 150]),
        )
        def hold(self, cycle: CyclePayment, acts: list[str], turns: int) -> None:
            self.do(self.world.hold(cycle, acts, turns))

        @rule(newest=st.booleans())
        def repeat_notices(self, newest: bool) -> None:
            self.do(self.world.repeat_notices(newest))

        @rule(which=st.sampled_from([0, 1, None]))
        def listen(self, which: int | None) -> None:
            self.world.listen(which)

        @rule(kind=st.sampled_from(KINDS), which=WHICH)
        def step(self, kind: str, which: int) -> None:
            self.do(self.world.step(kind, self.world.processes[which]))

        @rule(which=WHICH)
        def sweep(self, which: int) -> None:
            self.do(sweep_once(self.world.processes[which]))

        @rule(hours=st.sampled_from([0.01, 0.05, 0.3, 2, 7, 24, 24, 24, 72, 192]))
        def wait(self, hours: float) -> None:
            self.do(market.advance(timedelta(hours=hours)))

        @rule(which=WHICH, days=st.integers(1, 8))
        def live(self, which: int, days: int) -> None:
            self.do(self.world.days(days, self.world.processes[which]))

        @rule(method=st.sampled_from(FAULTY), kind=st.sampled_from(FAULTS), count=st.sampled_from([1, 1, 3]))
        def break_calls(self, method: str, kind: str, count: int) -> None:
            fault: dict[str, Any] = {"kind": kind}
            if kind == "timeout":
                fault["latency_s"] = 0.05
            self.do(market.control("POST", "/faults", method=method, count=count, **fault))

        @rule(
            cycle=cycles,
            point=st.tuples(
                st.sampled_from(["commit", "call"]), st.integers(1, 5), st.sampled_from(["before", "after"])
            ),
            what=st.sampled_from(["sweep", "sweep", "sweep", "cancel", "resume", "sync"]),
        )
        def crash(self, cycle: CyclePayment, point: tuple[str, int, str], what: str) -> None:
            self.do(self.world.crash(point, what, cycle))

        @invariant()
        def always(self) -> None:
            if self.world.processes:
                self.do(self.world.check())

        def teardown(self) -> None:
            if self.world.processes and not self.broken:
                self.do(self.world.end())

    return Deducting


@pytest.fixture
async def prepared(standing_market: Market, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The market with the merchant's flows, and the loop all of it lives in."""
    module = types.ModuleType("flows_of_the_machine")
    for flow in (on_deduction, on_cycle, on_payment):
        monkeypatch.setattr(flow, "__module__", module.__name__)
        setattr(module, flow.__name__, flow)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shop = standing_market.shop
    await shop.connection.execute("create table if not exists public.lived (id bigint, what text)")
    before, shop.config = shop.config, replace(shop.config, flows=module.__name__)
    yield standing_market, asyncio.get_running_loop()
    shop.config = before


@pytest.mark.timeout(60 + 40 * COURSES)
def test_whatever_happens_each_date_is_charged_once(prepared: tuple[Market, asyncio.AbstractEventLoop]) -> None:
    run_state_machine_as_test(
        machine_of(*prepared),
        settings=settings(
            max_examples=COURSES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=COURSES == _IN_SUITE,
            # A course depends on who comes first, too: told once, it is better read than made shorter for minutes.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Refunds in any order of everything: Hypothesis chooses the acts, and what must always hold is checked after each.

The machine is synchronous and the world is not: each act runs to its end on the suite's event loop, in which the
provider, its notices and our processes live, and which stands still between acts. What may depend on a real clock or a
random number is not drawn from, so that a failing course is found again and made shorter.

`REFUND_COURSES=200` plays more of them than the suite does.
"""

import asyncio
import contextlib
import os
import sys
import types
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
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

from app.activation.permissions import Reach
from app.errors import ProviderError, ProviderRejected, ProviderUnavailable, ShouyinError
from app.payments.model import Payment
from app.refunds.actions import RefundPayment
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.crash import MORTAL, Died, Plan, mortal_parts
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.payments.ways import Way
from tests.refunds.conftest import CALLS, CLERK, SOME, interface
from tests.refunds.test_every_way import NOT_ENOUGH

pytestmark = MORTAL

# The suite plays the same few each time; whoever asks for more gets others each time.
_IN_SUITE: Final = 5
COURSES: Final = int(os.environ.get("REFUND_COURSES", str(_IN_SUITE)))
STEPS: Final = 40
OPEN: Final = ("CREATED", "PENDING")
# What may follow what; see app/refunds/model.py.
ARROWS: Final = {
    None: {"CREATED", "PENDING", "REFUNDED", "FAILED"},
    "CREATED": {"CREATED", "PENDING", "REFUNDED", "FAILED"},
    "PENDING": {"PENDING", "REFUNDED", "FAILED"},
    "FAILED": {"FAILED", "REFUNDED"},
    "REFUNDED": {"REFUNDED"},
}
_T = TypeVar("_T")

ROWS = """
select r.id, r.payment_id, r.out_refund_no, r.amount_fen, r.status, r.version, r.created_by, r.idempotency_key,
  (select count(*) from shouyin.event e where e.refund_id = r.id and e.kind = 'refund.created') as created,
  (select count(*) from shouyin.event e where e.refund_id = r.id and e.kind = 'refund.refunded') as refunded,
  (select count(*) from shouyin.event e where e.refund_id = r.id and e.kind = 'refund.failed') as failed,
  (select count(*) from shouyin.audit a where a.action = 'payment.refund' and a.subject = 'payment:' || r.payment_id
    and (a.details ->> 'refund_id')::bigint = r.id) as audited
from shouyin.refund r order by r.id
"""
PAYMENTS = """
select id, order_id, out_trade_no, status, version, paid_amount_fen, refunded_amount_fen, reserved_refund_fen
from shouyin.payment order by id
"""
EFFECTS = "select refund_id, status, count(*) as times from public.told group by refund_id, status"


async def on_refund(result: Any, connection: Any) -> None:
    """The merchant's flow: a line for each end of a refund."""
    if not result.already_processed:
        await connection.execute("insert into public.told values ($1, $2)", result.refund_id, result.payment_status)


class World:
    """The market, two processes that run the flow, and what was seen of each row last."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.processes: list[Runtime] = []
        self.versions: dict[tuple[str, int], int] = {}
        self.statuses: dict[int, str] = {}

    async def begin(self) -> None:
        await self.market.clear()
        self.processes = [await self.market.shop.open() for _ in range(2)]
        self.market.notified = self.processes[0]
        await self.market.shop.connection.execute(
            "truncate public.told; delete from shouyin.audit where action = 'payment.refund'"
        )

    # --- acts ---------------------------------------------------------------------------------------------------

    async def create(self, way: Way) -> Payment | None:
        with contextlib.suppress(ProviderError):
            return await self.market.create(way.method, self.processes[0], mode=way.mode)
        return None

    async def pay(self, payment: Payment, notify: bool) -> None:
        # The sandbox refuses what a payer may not do, such as paying twice.
        with contextlib.suppress(AssertionError):
            await self.market.pay(payment, notify=notify)

    async def refund(self, payment: Payment, fen: int, key: str | None, process: Runtime) -> None:
        """One request of the clerk's, held against what the rows say it must be answered."""
        before = await self._row(payment)
        calls = await self.market.calls(payment)
        rows = {row["id"]: row for row in await self._refunds()}
        known = [row for row in rows.values() if key is not None and row["idempotency_key"] == key]
        request = RefundPayment(payment.id, fen, None, key)
        code, made = None, None
        try:
            made = await process.refunds.create(CLERK, request, correlation_id="c")
        except ShouyinError as exc:
            code = exc.code
            if isinstance(exc, ProviderRejected | ProviderUnavailable):
                made = await process.refunds.reload(int(exc.extra["refundId"]))
        if known:
            assert len(known) == 1
            same = (known[0]["payment_id"], known[0]["amount_fen"]) == (payment.id, fen)
            assert (code == "IDEMPOTENCY_CONFLICT") == (not same)
            assert made is None or made.id == known[0]["id"]
        elif before["status"] != "SUCCESSFUL" or before["refunded_amount_fen"] == before["paid_amount_fen"]:
            assert code == "PAYMENT_NOT_REFUNDABLE"
        elif fen > before["paid_amount_fen"] - before["refunded_amount_fen"] - before["reserved_refund_fen"]:
            assert code == "REFUND_EXCEEDS_PAYMENT"
        else:
            assert made is not None
            assert made.id not in rows
            assert (code in ("PROVIDER_REJECTED", "PROVIDER_UNAVAILABLE")) == (made.status == "FAILED")
            return
        assert {row["id"] for row in await self._refunds()} == rows.keys(), "refused or repeated, and a new row"
        assert await self.market.calls(payment) == calls, "refused or repeated, and the provider was called"

    async def sync_refund(self, payment: Payment, process: Runtime) -> None:
        for row in await self._refunds():
            if row["payment_id"] == payment.id:
                with contextlib.suppress(ProviderError):
                    await process.refunds.sync(CLERK, row["id"], correlation_id="c")

    async def sync(self, payment: Payment, process: Runtime) -> None:
        with contextlib.suppress(ProviderError):
            await process.payments.sync(BUYER, payment.id, correlation_id="c")

    async def close(self, payment: Payment, process: Runtime) -> None:
        with contextlib.suppress(ProviderError):
            await process.payments.close(BUYER, payment.id, correlation_id="c")

    async def settle(self, payment: Payment, outcome: str) -> None:
        """The oldest refund in hand at the provider comes to something; not every provider knows every end."""
        trade = await self.market.trade(payment)
        held = [] if trade is None else [each for each in trade["refunds"] if each["status"] == "PROCESSING"]
        if held:
            with contextlib.suppress(AssertionError):
                await self.market.control("POST", f"/refunds/{held[0]['out_refund_no']}/settle", **{"as": outcome})

    async def repeat_notices(self, payment: Payment) -> None:
        for notice in (await self.market.notices(payment))[-3:]:
            await self.market.control("POST", f"/notifications/{notice['notify_id']}/resend", times=2, concurrent=True)

    async def at_once(self, payment: Payment, amounts: list[int]) -> None:
        """Several at once at both processes, with questions and a pass of the worker beside them."""

        async def one(fen: int, process: Runtime) -> None:
            with contextlib.suppress(ShouyinError):
                await process.refunds.create(CLERK, RefundPayment(payment.id, fen), correlation_id="c")

        first, second = self.processes
        await asyncio.gather(
            *(one(fen, self.processes[number % 2]) for number, fen in enumerate(amounts)),
            self.sync_refund(payment, first),
            self.repeat_notices(payment),
            sweep_once(second),
        )

    async def crash(self, payment: Payment, point: tuple[str, int, str], work: str, fen: int) -> None:
        """A process dies at one of its commits or calls; its successor comes after the leases."""
        database, http = await mortal_parts(self.market.shop.config.database_url, Plan(die_at=point))
        mortal = await self.market.shop.open(database=database, http=http)
        try:
            with contextlib.suppress(Died, ShouyinError):
                match work:
                    case "sweep":
                        await sweep_once(mortal)
                    case "refund":
                        await mortal.refunds.create(CLERK, RefundPayment(payment.id, fen), correlation_id="c")
                    case "sync":
                        await self.sync_refund(payment, mortal)
        finally:
            await http.aclose()
            await database.pool.close()
        await self.market.advance(timedelta(minutes=3))

    # --- what always holds ----------------------------------------------------------------------------------------

    async def check(self) -> None:
        rows, payments = await self._refunds(), await self.market.shop.connection.fetch(PAYMENTS)
        trades = {each["out_trade_no"]: each for each in (await self.market.control("GET", "/trades"))["trades"]}
        for payment in payments:
            mine = [row for row in rows if row["payment_id"] == payment["id"]]
            trade = trades.get(payment["out_trade_no"])
            self._check_sums(payment, mine)
            self._rises("payment", payment)
            if mine:
                assert trade is not None
                _check_provider(trade, mine)
        for row in rows:
            self._rises("refund", row)
            assert row["status"] in ARROWS[self.statuses.get(row["id"])], (self.statuses.get(row["id"]), dict(row))
            self.statuses[row["id"]] = row["status"]
            assert (row["created"], row["audited"]) == (1, 1)
            assert row["refunded"] == (1 if row["status"] == "REFUNDED" else 0)
            assert row["failed"] <= 1
            assert row["failed"] == 1 or row["status"] != "FAILED"
        told = {(row["refund_id"], row["status"]): row["times"] for row in await self._effects()}
        ends = {(row["id"], end) for row in rows for end in ("REFUNDED", "FAILED") if row[end.lower()]}
        assert set(told.values()) <= {1}
        assert told.keys() <= ends
        assert await self.market.shop.count("difference") == 0

    def _check_sums(self, payment: Any, mine: list[Any]) -> None:
        refunded = sum(row["amount_fen"] for row in mine if row["status"] == "REFUNDED")
        reserved = sum(row["amount_fen"] for row in mine if row["status"] in OPEN)
        assert (payment["refunded_amount_fen"], payment["reserved_refund_fen"]) == (refunded, reserved)
        assert refunded + reserved <= (payment["paid_amount_fen"] or 0)
        assert payment["status"] == "SUCCESSFUL" or not mine

    def _rises(self, table: str, row: Any) -> None:
        assert row["version"] >= self.versions.get((table, row["id"]), 1)
        self.versions[table, row["id"]] = row["version"]

    async def end(self) -> None:
        """The faults end, the provider does what it holds, and days pass: everything agrees."""
        await self.market.control("DELETE", "/faults")
        await self.market.control("POST", "/refunds/policy", settle="now")
        self.market.notified, self.market.deaf = self.processes[0], False
        for _ in range(3):
            for trade in (await self.market.control("GET", "/trades"))["trades"]:
                for each in trade["refunds"]:
                    if each["status"] in ("PROCESSING", "ABNORMAL"):
                        with contextlib.suppress(AssertionError):
                            path = f"/refunds/{each['out_refund_no']}/settle"
                            await self.market.control("POST", path, **{"as": "REFUNDED"})
            for _ in range(2):
                await self.market.advance(timedelta(hours=12))
                await self.market.shop.settle(self.processes[1])
        await self.check()
        rows = await self._refunds()
        trades = (await self.market.control("GET", "/trades"))["trades"]
        theirs = {
            (each["out_refund_no"], each["amount_fen"])
            for trade in trades
            for each in trade["refunds"]
            if each["status"] == "REFUNDED"
        }
        waits = {each["out_refund_no"] for trade in trades for each in trade["refunds"] if each["status"] == "ABNORMAL"}
        ours = {(row["out_refund_no"], row["amount_fen"]) for row in rows if row["status"] == "REFUNDED"}
        assert ours == theirs
        assert {row["out_refund_no"] for row in rows if row["status"] in OPEN} == waits, "known for days, or waiting"
        told = {(row["refund_id"], row["status"]) for row in await self._effects()}
        assert told == {(row["id"], end) for row in rows for end in ("REFUNDED", "FAILED") if row[end.lower()]}
        for payment in await self.market.shop.connection.fetch(PAYMENTS):
            if payment["status"] == "SUCCESSFUL":
                back = payment["refunded_amount_fen"]
                status = await self.market.shop.status_of(payment["order_id"])
                # Z12: what went back in part before the order was marked leaves it as it was.
                expected = (
                    {"refunded"} if back == payment["paid_amount_fen"] else {"paid", "unpaid" if back else "paid"}
                )
                assert status in expected, (dict(payment), status)
        fetch = self.market.shop.connection.fetchval
        assert await fetch("select count(*) from shouyin.flow_run where status <> 'DONE'") == 0
        assert await fetch("select count(*) from shouyin.notification where due_at is not null") == 0

    async def _row(self, payment: Payment) -> Any:
        (row,) = [row for row in await self.market.shop.connection.fetch(PAYMENTS) if row["id"] == payment.id]
        return row

    async def _refunds(self) -> list[Any]:
        return list(await self.market.shop.connection.fetch(ROWS))

    async def _effects(self) -> list[Any]:
        return list(await self.market.shop.connection.fetch(EFFECTS))


def _check_provider(trade: dict[str, Any], mine: list[Any]) -> None:
    """One refund of a number, never more than was paid, and nothing there that we count as free to give back again."""
    there = {each["out_refund_no"]: each for each in trade["refunds"]}
    assert len(there) == len(trade["refunds"])
    assert there.keys() <= {row["out_refund_no"] for row in mine}
    assert sum(each["amount_fen"] for each in there.values() if each["status"] != "FAILED") <= trade["amount_fen"]
    for row in mine:
        each = there.get(row["out_refund_no"])
        assert each is None or each["amount_fen"] == row["amount_fen"]
        if row["status"] == "REFUNDED":
            assert each is not None
            assert each["status"] == "REFUNDED"
        if row["status"] == "FAILED":
            # Money that is on its way, or gone, is spoken for.
            assert each is None or each["status"] == "FAILED", (dict(row), each)


FEN = st.sampled_from([1, 300, 500, 615, 929, 1230, 1231])
WHICH = st.integers(0, 1)
FAULTS = ("lost_reply", "http_500", "bad_signature", "timeout", "refusal")


def machine_of(market: Market, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """The machine for one market."""

    class Refunding(RuleBasedStateMachine):
        payments: Bundle[Payment] = Bundle("payments")

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

        @initialize()
        def begin(self) -> None:
            self.do(self.world.begin())

        @rule(target=payments, way=st.sampled_from(SOME), paid=st.sampled_from([True, True, True, False]))
        def create(self, way: Way, paid: bool) -> Any:
            payment = self.do(self.world.create(way))
            if payment is None:
                return multiple()
            if paid:
                self.do(self.world.pay(payment, notify=True))
                self.do(sweep_once(self.world.processes[0]))
            return payment

        @rule(payment=payments, notify=st.booleans())
        def pay(self, payment: Payment, notify: bool) -> None:
            self.do(self.world.pay(payment, notify))

        @rule(payment=payments, fen=FEN, key=st.sampled_from([None, None, "a", "b"]), which=WHICH)
        def refund(self, payment: Payment, fen: int, key: str | None, which: int) -> None:
            self.do(self.world.refund(payment, fen, key, self.world.processes[which]))

        @rule(payment=payments, amounts=st.lists(FEN, min_size=2, max_size=6))
        def at_once(self, payment: Payment, amounts: list[int]) -> None:
            self.do(self.world.at_once(payment, amounts))

        @rule(settle=st.sampled_from(["now", "hold", "hold", 60]))
        def policy(self, settle: Any) -> None:
            self.do(market.control("POST", "/refunds/policy", settle=settle))

        @rule(payment=payments, outcome=st.sampled_from(["REFUNDED", "REFUNDED", "FAILED", "ABNORMAL"]))
        def settle(self, payment: Payment, outcome: str) -> None:
            self.do(self.world.settle(payment, outcome))

        @rule(payment=payments)
        def repeat_notices(self, payment: Payment) -> None:
            self.do(self.world.repeat_notices(payment))

        @rule(deaf=st.booleans(), which=WHICH)
        def notify(self, deaf: bool, which: int) -> None:
            market.notified, market.deaf = self.world.processes[which], deaf

        @rule(payment=payments, which=WHICH)
        def sync_refund(self, payment: Payment, which: int) -> None:
            self.do(self.world.sync_refund(payment, self.world.processes[which]))

        @rule(payment=payments, which=WHICH, close=st.booleans())
        def sync_or_close(self, payment: Payment, which: int, close: bool) -> None:
            act = self.world.close if close else self.world.sync
            self.do(act(payment, self.world.processes[which]))

        @rule(which=WHICH)
        def sweep(self, which: int) -> None:
            self.do(sweep_once(self.world.processes[which]))

        @rule(seconds=st.sampled_from([5, 31, 61, 300, 1900, 7300, 86_400]))
        def wait(self, seconds: int) -> None:
            self.do(market.advance(timedelta(seconds=seconds)))

        @rule(way=st.sampled_from(SOME), which=WHICH, kind=st.sampled_from(FAULTS), count=st.sampled_from([1, 1, 3]))
        def break_calls(self, way: Way, which: int, kind: str, count: int) -> None:
            fault: dict[str, Any] = {"kind": kind}
            if kind == "refusal":
                fault, which = {"kind": "business_error", **NOT_ENOUGH[interface(way)]}, 0
            if kind == "timeout":
                fault["latency_s"] = 0.05
            if kind == "bad_signature" and not way.signs:
                return
            self.do(market.control("POST", "/faults", method=CALLS[interface(way)][which], count=count, **fault))

        @rule(
            payment=payments,
            point=st.tuples(
                st.sampled_from(["commit", "call"]), st.integers(1, 3), st.sampled_from(["before", "after"])
            ),
            work=st.sampled_from(["sweep", "refund", "refund", "sync"]),
            fen=FEN,
        )
        def crash(self, payment: Payment, point: tuple[str, int, str], work: str, fen: int) -> None:
            self.do(self.world.crash(payment, point, work, fen))

        @invariant()
        def always(self) -> None:
            if self.world.processes:
                self.do(self.world.check())

        def teardown(self) -> None:
            if self.world.processes and not self.broken:
                self.do(self.world.end())

    return Refunding


@pytest.fixture
async def prepared(standing_market: Market, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The market with the merchant's flow and a clerk who may refund, and the loop all of it lives in."""
    module = types.ModuleType("flows_of_the_machine")
    on_refund.__module__ = module.__name__
    module.on_refund = on_refund  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shop = standing_market.shop
    await shop.connection.execute("create table if not exists public.told (refund_id bigint, status text)")
    await shop.runtime.permissions.grant(ADMIN, "clerk", "payment.refund", Reach("ALL"))
    before, shop.config = shop.config, replace(shop.config, flows=module.__name__)
    yield standing_market, asyncio.get_running_loop()
    shop.config = before


@pytest.mark.timeout(60 + 40 * COURSES)
def test_whatever_happens_no_money_leaks(prepared: tuple[Market, asyncio.AbstractEventLoop]) -> None:
    run_state_machine_as_test(
        machine_of(*prepared),
        settings=settings(
            max_examples=COURSES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=COURSES == _IN_SUITE,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Anything can happen to payments, in any order: a walk over every act, with what must always hold checked after each.

The walk is random and seeded, and its acts are asynchronous and real: the sandbox's trades, its notices over HTTP, two
of our processes, crashes between them. A failure prints its seed and the acts that led to it.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from app.errors import OrderAlreadyPaid, ProviderError
from app.payments.model import Payment
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.crash import MORTAL, Died, Plan, mortal_parts
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER
from tests.payments.ways import way_of

pytestmark = MORTAL

FAULTS = ("lost_reply", "http_500", "bad_signature", "turned_away", "timeout")
# Where nothing is signed, a broken signature is no fault.
FAULTS_UNSIGNED = tuple(fault for fault in FAULTS if fault != "bad_signature")
WALKED = [
    way_of("ALIPAY_PAGE", "public_key"),
    way_of("ALIPAY_QR", "isv"),
    way_of("WECHAT_NATIVE", "v3"),
    way_of("WECHAT_MINI_PROGRAM", "v3_partner"),
    way_of("WECHAT_JSAPI", "v2"),
    way_of("WECHAT_CLOUD", "cloud"),
]
BUDGET_S = 10.0


@dataclass
class World:
    """The walk so far: which payments there are, and the version each was last seen with."""

    market: Market
    chance: random.Random
    processes: list[Runtime]
    orders: list[int] = field(default_factory=list)
    payments: dict[int, Payment] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    acts: list[str] = field(default_factory=list)

    @property
    def process(self) -> Runtime:
        return self.chance.choice(self.processes)

    @property
    def payment(self) -> Payment | None:
        """Mostly one of the newest: much happens to a payment in its first minutes."""
        made = list(self.payments.values())
        if self.chance.random() < 0.8:
            made = made[-4:]
        return self.chance.choice(made) if made else None


Act = Callable[[World, Payment], Awaitable[object]]


async def create(world: World, process: Runtime) -> None:
    """For a new order or one that has payments; by any way, short-lived or not; at times twice."""
    if not world.orders or world.chance.random() < 0.6:
        world.orders.append(await world.market.shop.order())
    order_id = world.chance.choice(world.orders)
    fields: dict[str, Any] = {"order_id": order_id, "idempotency_key": f"k{len(world.acts)}"}
    if world.chance.random() < 0.3:
        fields["expires_in"] = timedelta(minutes=world.chance.choice([1, 5, 30]))
    way = world.chance.choice(WALKED)
    again = 1 + (world.chance.random() < 0.3)
    made = await asyncio.gather(
        *(world.market.create(way.method, process, mode=way.mode, **fields) for _ in range(again))
    )
    assert len({payment.id for payment in made}) == 1
    world.payments[made[0].id] = made[0]


async def open_page(world: World, payment: Payment) -> None:
    await world.market.show(await world.market.find(payment))


async def pay(world: World, payment: Payment) -> None:
    """The payer pays if the provider lets them; the notice is sent, sent twice, or lost."""
    current = await world.market.find(payment)
    if current.action is None:
        return
    await world.market.show(current)
    await world.market.control("POST", f"/trades/{payment.out_trade_no}/pay", notify=world.chance.random() < 0.6)


async def pay_late(world: World, payment: Payment) -> None:
    """The provider takes the money of a trade it had closed; of that only its notice tells."""
    trade = await world.market.trade(payment)
    if trade is not None and trade["status"] == "CLOSED":
        await world.market.control("POST", f"/trades/{payment.out_trade_no}/pay", late=True)


async def repeat_notices(world: World, payment: Payment) -> None:
    sent = (await world.market.control("GET", f"/notifications?out_trade_no={payment.out_trade_no}"))["notifications"]
    if sent:
        await world.market.control("POST", f"/notifications/{sent[0]['notify_id']}/resend", times=3, concurrent=True)


async def ask(world: World, payment: Payment) -> None:
    await world.process.payments.sync(BUYER, payment.id, correlation_id="c")


async def close(world: World, payment: Payment) -> None:
    await world.process.payments.close(BUYER, payment.id, correlation_id="c")


async def at_once(world: World, payment: Payment) -> None:
    """Three acts on one payment side by side."""
    acts = [world.chance.choice([pay, repeat_notices, ask, close, sweep]) for _ in range(3)]
    world.acts.append(f"  {[act.__name__ for act in acts]}")
    outcomes = await asyncio.gather(*(act(world, payment) for act in acts), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, (ProviderError, AssertionError)):
            raise outcome


async def sweep(world: World, _: Payment) -> None:
    await sweep_once(world.process)


async def wait(world: World, _: Payment) -> None:
    """Time passes, for the provider and for us; leases and pages end."""
    await world.market.advance(timedelta(seconds=world.chance.choice([5, 20, 20, 61, 61, 300, 300, 1900, 7300])))


async def break_calls(world: World, _: Payment) -> None:
    """The next calls of one kind go wrong: unanswered, answered wrongly, turned away, or done with the answer lost."""
    way = world.chance.choice(WALKED)
    kind = world.chance.choice(FAULTS if way.signs else FAULTS_UNSIGNED)
    fault: dict[str, Any] = dict(way.words.turned_away) if kind == "turned_away" else {"kind": kind}
    if kind == "timeout":
        fault["latency_s"] = 0.05
    call = world.chance.choice([way.words.query, way.words.close, way.words.create or way.words.query])
    count = world.chance.choice([1, 1, 3])
    await world.market.control("POST", "/faults", method=call, count=count, **fault)


async def crash(world: World, payment: Payment) -> None:
    """A process does something and dies at one of its commits or calls; its successor comes after the leases."""
    kind, number = world.chance.choice(["commit", "commit", "call"]), world.chance.choice([1, 1, 2, 3])
    plan = Plan(die_at=(kind, number, world.chance.choice(["before", "after"])))
    database, http = await mortal_parts(world.market.shop.config.database_url, plan)
    mortal = await world.market.shop.open(database=database, http=http)
    work = world.chance.choice(["sweep", "close", "ask", "create"])
    world.acts.append(f"  {work} {plan.die_at}")
    try:
        with contextlib.suppress(Died, ProviderError, OrderAlreadyPaid):
            match work:
                case "sweep":
                    await sweep_once(mortal)
                case "close":
                    await mortal.payments.close(BUYER, payment.id, correlation_id="c")
                case "ask":
                    await mortal.payments.sync(BUYER, payment.id, correlation_id="c")
                case "create":
                    await create(world, mortal)
    finally:
        await http.aclose()
        await database.pool.close()
    # What the client of a dead process never heard of is a payment, too.
    rows = await world.market.shop.connection.fetch("select id from shouyin.payment")
    found = await world.market.shop.runtime.payments.by_ids([row["id"] for row in rows])
    world.payments = found | {key: world.payments[key] for key in world.payments}


ACTS: list[tuple[Act, int]] = [
    *((open_page, 3), (pay, 5), (repeat_notices, 3), (ask, 3), (close, 2), (at_once, 3), (sweep, 6), (wait, 5)),
    *((break_calls, 2), (crash, 3), (pay_late, 1)),
]


async def step(world: World) -> None:
    """One act. What a caller may be told, and what the pages of the provider refuse, is part of the walk."""
    payment = world.payment
    if payment is None or world.chance.random() < 0.15:
        world.acts.append("create")
        with contextlib.suppress(ProviderError, OrderAlreadyPaid):
            await create(world, world.process)
        return
    [(act, _)] = world.chance.choices(ACTS, weights=[weight for _, weight in ACTS])
    world.acts.append(f"{act.__name__} {payment.id}")
    # An assertion of the market: the sandbox refuses what a payer may not do, such as paying a page that is over.
    allowed = (ProviderError, AssertionError) if act in (pay, open_page) else (ProviderError,)
    with contextlib.suppress(*allowed):
        await act(world, payment)


EVENTS = """
select p.id, p.order_id, p.status, p.version, p.amount_fen, p.paid_amount_fen, p.out_trade_no, p.transaction_id,
  count(*) filter (where e.kind = 'payment.successful') as successes,
  count(*) filter (where e.kind = 'payment.closed') as closes,
  count(*) filter (where e.kind = 'payment.failed') as failures
from shouyin.payment p join shouyin.event e on e.payment_id = p.id
group by p.id
"""


async def check(world: World) -> None:
    """What holds after every act, whatever it was."""
    trades = {trade["out_trade_no"]: trade for trade in (await world.market.control("GET", "/trades"))["trades"]}
    rows = await world.market.shop.connection.fetch(EVENTS)
    for row in rows:
        trade = trades.get(row["out_trade_no"])
        # Paid only if the provider has the money, and exactly this much of it.
        if row["status"] == "SUCCESSFUL":
            assert trade is not None
            assert trade["status"] == "PAID"
            assert (row["paid_amount_fen"], row["amount_fen"]) == (1230, 1230)
            assert (trade["amount_fen"], trade["transaction_id"]) == (1230, row["transaction_id"])
        # One success, one end of each other kind at the most.
        assert row["successes"] == (1 if row["status"] == "SUCCESSFUL" else 0)
        assert (row["closes"] <= 1, row["failures"] <= 1) == (True, True)
        # Versions rise, and no payment that was ever successful is anything else afterwards.
        assert row["version"] >= world.versions.get(row["id"], 1)
        world.versions[row["id"]] = row["version"]
    assert {row["out_trade_no"] for row in rows} >= set(trades), "the provider has a trade without a row of ours"
    paid_orders = {row["order_id"] for row in rows if row["status"] == "SUCCESSFUL"}
    marked = await world.market.shop.connection.fetch("select id from public.orders where status = 'paid'")
    assert {row["id"] for row in marked} <= paid_orders
    assert await world.market.shop.count("difference") == 0


async def settle_for_good(world: World) -> None:
    """The faults end and days pass: every payment agrees with the provider, and every paid order is marked."""
    await world.market.control("DELETE", "/faults")
    for _ in range(8):
        await world.market.advance(timedelta(hours=12))
        await world.market.shop.settle()
    await check(world)
    trades = {trade["out_trade_no"]: trade for trade in (await world.market.control("GET", "/trades"))["trades"]}
    connection = world.market.shop.connection
    rows = await connection.fetch("select id, order_id, out_trade_no, status, check_at from shouyin.payment")
    for row in rows:
        has_money = row["out_trade_no"] in trades and trades[row["out_trade_no"]]["paid"]
        assert (row["status"] == "SUCCESSFUL") == has_money, dict(row)
        assert row["status"] in ("SUCCESSFUL", "CLOSED", "FAILED"), dict(row)
        assert row["check_at"] is None, dict(row)
    for order_id in {row["order_id"] for row in rows if row["status"] == "SUCCESSFUL"}:
        assert await world.market.shop.status_of(order_id) == "paid"
    assert await connection.fetchval("select count(*) from shouyin.flow_run where status <> 'DONE'") == 0
    assert await connection.fetchval("select count(*) from shouyin.notification where due_at is not null") == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_happens_we_agree_with_the_provider_in_the_end(market: Market, seed: int) -> None:
    processes = [market.shop.runtime, await market.shop.open()]
    world = World(market, random.Random(seed), processes)
    began = time.monotonic()
    try:
        while time.monotonic() - began < BUDGET_S and len(world.acts) < 900:
            market.notified = world.process
            await step(world)
            await check(world)
        await settle_for_good(world)
    except BaseException:
        print(f"seed {seed}:", *world.acts[-60:], sep="\n")
        raise
    assert len(world.acts) > 50

"""What must hold of cycle payments at every moment, and what once everything has come to rest.

Ours is read from the tables, the provider's from the sandbox's own books; no code of the cycles is asked.
"""

import asyncio
from collections import Counter
from typing import Any, Final

from app.runtime import Runtime
from tests.fixtures.market import Market

# For what is on its way over loopback.
_LOOKS: Final = 100
OPEN: Final = ("WAITING", "CHARGING")

CYCLES = """
select id, payer, scene, merchant_account_id, status, ending, first_deduction_on, next_deduction_on, plan_on,
  interval_days, deductions, paid_deductions, open_deduction_id, external_agreement_no, agreement_no, check_at, version
from shouyin.cycle_payment order by id
"""
DEDUCTIONS = """
select d.id, d.cycle_payment_id, d.due_on, d.status, d.order_id, d.payment_id, d.attempts, d.attempt_at, d.price_fen,
  (select count(*) from shouyin.event e where e.deduction_id = d.id and e.kind = 'deduction.due') as due_events,
  (select count(*) from shouyin.event e where e.deduction_id = d.id and e.kind = 'deduction.paid') as paid_events,
  exists (
    select from shouyin.event e left join shouyin.flow_run r on r.event_id = e.id
    where e.deduction_id = d.id and e.kind = 'deduction.due'
      and (e.dispatched_at is null or r.status <> 'DONE')) as flow_waits
from shouyin.deduction d order by d.id
"""
PAYMENTS = """
select id, out_trade_no, status, paid_amount_fen, deduction_id, cycle_payment_id, order_id, check_at, version
from shouyin.payment order by id
"""
WAITING = """
select 'event' as what, id from shouyin.event where dispatched_at is null
union all select 'flow_run', id from shouyin.flow_run where status <> 'DONE'
union all select 'notification', id from shouyin.notification where due_at is not null
union all select 'payment', id from shouyin.payment where status = 'PENDING' or check_at <= $1
union all select 'payment', p.id from shouyin.payment p
  where p.status = 'CREATED'
    and not exists (select from shouyin.deduction d where d.id = p.deduction_id and d.attempt_at > $1)
union all select 'deduction', id from shouyin.deduction where attempt_at <= $1
union all select 'cycle', id from shouyin.cycle_payment where check_at <= $1 or ending
"""


class Truth:
    """Both sides' books at one moment."""

    def __init__(
        self, cycles: list[Any], deductions: list[Any], payments: list[Any], trades: dict[str, Any], agreements: Any
    ) -> None:
        self.cycles = {row["id"]: row for row in cycles}
        self.deductions = deductions
        self.payments = payments
        self.trades = trades
        self.agreements = agreements

    def attempts(self, deduction_id: int) -> list[Any]:
        return [row for row in self.payments if row["deduction_id"] == deduction_id]

    def taken(self, deduction_id: int) -> list[str]:
        """The provider's truth about one due date: the numbers that are paid."""
        numbers = [row["out_trade_no"] for row in self.attempts(deduction_id)]
        return [number for number in numbers if number in self.trades and self.trades[number]["paid"]]


async def hear_of_unsigning(market: Market) -> None:
    """As the merchant sets it in the console: without it a payer who ends an agreement is not announced."""
    app_id = market.records["public_key"]["app_id"]
    url = f"{market.shop.config.public_url}/notify/alipay/{await market.account('public_key')}"
    await market.control("POST", f"/alipay/apps/{app_id}", app_gateway=url)


async def read_truth(market: Market) -> Truth:
    """Ours first: whatever we call paid has been paid by then."""
    async with (
        market.shop.runtime.db.pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        ours = [list(await connection.fetch(statement)) for statement in (CYCLES, DEDUCTIONS, PAYMENTS)]
    trades = {each["out_trade_no"]: each for each in (await market.control("GET", "/trades"))["trades"]}
    agreements = {
        each["external_agreement_no"]: each for each in (await market.control("GET", "/agreements"))["agreements"]
    }
    return Truth(ours[0], ours[1], ours[2], trades, agreements)


async def check_always(market: Market) -> Truth:
    """What holds whatever happened, also while everything is under way."""
    truth = await read_truth(market)
    for deduction in truth.deductions:
        _check_deduction(truth, deduction)
    for cycle in truth.cycles.values():
        _check_cycle(truth, cycle)
    for payment in truth.payments:
        if payment["status"] == "SUCCESSFUL":
            trade = truth.trades[payment["out_trade_no"]]
            assert (trade["paid"], trade["amount_fen"]) == (True, payment["paid_amount_fen"]), dict(payment)
    live = [row for row in truth.cycles.values() if row["status"] in ("PENDING", "ACTIVE", "SUSPENDED")]
    places = Counter((row["merchant_account_id"], row["payer"], row["scene"]) for row in live)
    assert set(places.values()) <= {1}, places
    orders = [row["order_id"] for row in truth.deductions if row["order_id"] is not None]
    assert len(orders) == len(set(orders)), "two dates of one order"
    return truth


def _check_deduction(truth: Truth, deduction: Any) -> None:
    attempts = truth.attempts(deduction["id"])
    cycle = truth.cycles[deduction["cycle_payment_id"]]
    said = f"{dict(deduction)} {[dict(row) for row in attempts]}"
    assert len(truth.taken(deduction["id"])) <= 1, f"charged twice: {said}"
    paid = [row for row in attempts if row["status"] == "SUCCESSFUL"]
    assert len(paid) <= 1, said
    assert len(attempts) == deduction["attempts"], said
    assert {row["order_id"] for row in attempts} <= {deduction["order_id"]}, said
    assert (deduction["due_events"] <= 1, deduction["paid_events"]) == (True, int(deduction["status"] == "PAID")), said
    is_open = deduction["status"] in OPEN
    assert (cycle["open_deduction_id"] == deduction["id"]) == is_open, f"{said} {dict(cycle)}"
    if deduction["status"] == "PAID":
        assert [row["id"] for row in paid] == [deduction["payment_id"]], said
    elif paid:
        assert deduction["attempt_at"] is not None, f"paid, and nobody will know: {said}"
    present = next((row for row in attempts if row["id"] == deduction["payment_id"]), None)
    if deduction["status"] == "WAITING":
        assert deduction["attempt_at"] is not None or deduction["flow_waits"], f"nobody wakes it: {said}"
    if deduction["status"] == "CHARGING" and deduction["attempt_at"] is None:
        assert present is not None, said
        assert (present["status"], present["check_at"] is not None) == ("PENDING", True), f"nobody wakes it: {said}"
    for row in attempts:
        if row["status"] == "CREATED":
            assert row is present, f"nobody ends it: {said}"
            assert deduction["attempt_at"] is not None, f"nobody ends it: {said}"


def _check_cycle(truth: Truth, cycle: Any) -> None:
    mine = [row for row in truth.deductions if row["cycle_payment_id"] == cycle["id"]]
    said = dict(cycle)
    assert cycle["deductions"] == len(mine), said
    assert cycle["paid_deductions"] == sum(row["status"] == "PAID" for row in mine), said
    if cycle["status"] in ("ACTIVE", "SUSPENDED"):
        assert cycle["next_deduction_on"] is not None, said
        assert all(row["due_on"] < cycle["next_deduction_on"] for row in mine), said
        assert cycle["check_at"] is not None, said
    agreement = truth.agreements.get(cycle["external_agreement_no"])
    if cycle["plan_on"] is not None and agreement is not None and agreement["status"] == "NORMAL":
        # Behind it we ask and learn; ahead of it we would wait for days on which nothing can be taken.
        assert cycle["plan_on"].isoformat() <= agreement["next_deduction_on"], f"{said} {agreement}"
    if cycle["status"] == "PENDING" or cycle["ending"]:
        assert cycle["check_at"] is not None, f"nobody asks: {said}"


async def check_settled(market: Market, runtime: Runtime | None = None) -> Truth:
    """What holds once everything that was due has happened: both sides say the same, and nothing waits.

    A notice may come late, such as that of an agreement we ended: `runtime` takes it, or the workers that run."""
    for _ in range(_LOOKS):
        waits = await market.shop.connection.fetch(WAITING, market.shop.clock.now())
        if not waits:
            break
        if runtime is not None:
            await market.shop.settle(runtime)
        await asyncio.sleep(0.02)
    assert [tuple(row) for row in waits] == []
    truth = await check_always(market)
    for payment in truth.payments:
        trade = truth.trades.get(payment["out_trade_no"])
        has_money = trade is not None and trade["paid"]
        assert (payment["status"] == "SUCCESSFUL") == has_money, f"{dict(payment)} {trade}"
    for deduction in truth.deductions:
        assert (deduction["status"] == "PAID") == bool(truth.taken(deduction["id"])), dict(deduction)
    for cycle in truth.cycles.values():
        agreement = truth.agreements.get(cycle["external_agreement_no"])
        in_force = agreement is not None and agreement["status"] == "NORMAL"
        assert (cycle["status"] in ("ACTIVE", "SUSPENDED")) == in_force, f"{dict(cycle)} {agreement}"
    return truth

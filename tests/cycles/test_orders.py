"""The order of a deduction: made by the shop's own flow, or the original once more."""

from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest

from app.activation.binding import Binding
from app.cycles.actions import StartCyclePayment
from app.cycles.model import CyclePayment, CyclePaymentStatus, DeductionStatus
from app.flows.results import DueDeduction
from tests.cycles.conftest import DEDUCT, SCENE, Club
from tests.fixtures.shop import ADMIN, BUYER

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def failed_runs(club: Club) -> list[str]:
    """The last lines of the tracebacks of the flow runs that did not succeed."""
    rows = await club.connection.fetch("select error from shouyin.flow_run where error is not null order by id")
    return [row["error"].strip().splitlines()[-1] for row in rows]


async def expect_nothing_made(club: Club, cycle: CyclePayment, orders: int) -> None:
    """The deduction waits, visibly; no order, no payment and no call."""
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, deduction.order_id, deduction.payment_id) == (DeductionStatus.WAITING, None, None)
    assert await club.connection.fetchval("select count(*) from public.orders") == orders
    assert await club.payments(cycle) == []
    assert await club.calls(DEDUCT) == 0
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE


# --- the shop's own flow ----------------------------------------------------------------------------------------------


async def make(connection: Connection, due: DueDeduction, *, amount_fen: int | None = None, user_id: int = 7) -> int:
    """A new order as a shop would make it."""
    made: int = await connection.fetchval(
        "insert into public.orders (user_id, title, amount) values ($1, $2, $3::bigint / 100.0) returning id",
        user_id, f"{due.subject} {due.sequence}", amount_fen or due.price_fen,
    )  # fmt: skip
    return made


async def test_the_shops_flow_makes_the_order_and_learns_the_due_date(club: Club) -> None:
    seen: list[DueDeduction] = []

    async def on_deduction(due: DueDeduction, connection: Connection) -> int:
        seen.append(due)
        return await make(connection, due)

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, len(seen)) == (DeductionStatus.PAID, 1)
    (due,) = seen
    assert (due.order_id, due.order_table, due.cycle_payment_id) == (cycle.order_id, "orders", cycle.id)
    assert (due.deduction_id, due.due_on, due.sequence) == (deduction.id, club.today(), 1)
    assert (due.price_fen, due.subject) == (990, "Club membership")
    title = await club.connection.fetchval("select title from public.orders where id = $1", deduction.order_id)
    assert title == "Club membership 1"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("raises", "the stock is empty"),
        ("amount", "costs 9.91, not the deduction's price in yuan"),
        ("original", "ORDER_NOT_NEW"),
        ("missing", "ORDER_NOT_FOUND"),
        ("another user's", "ORDER_OF_ANOTHER_OWNER"),
        ("text", "must return the id of the order it made, a whole number, not '5'"),
        ("true", "must return the id of the order it made, a whole number, not True"),
        ("nothing", "must return the id of the order it made, a whole number, not None"),
        ("huge", "value out of int64 range"),
    ],
)
async def test_a_flow_that_goes_wrong_makes_nothing_and_is_tried_again(club: Club, case: str, words: str) -> None:
    broken = True

    async def on_deduction(due: DueDeduction, connection: Connection) -> Any:
        if not broken:
            return await make(connection, due)
        made = await make(
            connection,
            due,
            amount_fen=991 if case == "amount" else None,
            user_id=8 if case == "another user's" else 7,
        )
        match case:
            case "raises":
                raise RuntimeError("the stock is empty")
            case "original":
                return due.order_id
            case "missing":
                return made + 1000
            case "text":
                return "5"
            case "true":
                return True
            case "nothing":
                return None
            case "huge":
                return 2**63
        return made

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    (error,) = await failed_runs(club)
    assert words in error
    await expect_nothing_made(club, cycle, orders=1)
    broken = False
    await club.later(timedelta(seconds=6))
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, deduction.attempts) == (DeductionStatus.PAID, 1)
    assert await club.connection.fetchval("select count(*) from public.orders") == 2


async def test_the_order_of_another_deduction_is_not_charged_again(club: Club) -> None:
    made: list[int] = []

    async def on_deduction(due: DueDeduction, connection: Connection) -> int:
        if not made:
            made.append(await make(connection, due))
        return made[0]

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    await club.days(7)
    first, second = await club.deductions(cycle)
    assert (first.status, second.status) == (DeductionStatus.PAID, DeductionStatus.WAITING)
    assert ["ORDER_NOT_NEW" in error for error in await failed_runs(club)] == [True]
    assert (await club.calls(DEDUCT), len(await club.taken(cycle))) == (1, 1)


async def test_a_given_up_flow_is_run_again_by_an_operator(club: Club) -> None:
    broken = True

    async def on_deduction(due: DueDeduction, connection: Connection) -> int:
        if broken:
            raise RuntimeError("closed for the holidays")
        return await make(connection, due)

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    for _ in range(10):
        await club.later(timedelta(hours=1))
    run = await club.connection.fetchrow(
        "select id, status, attempts from shouyin.flow_run where flow = 'on_deduction'"
    )
    assert run is not None
    assert (run["status"], run["attempts"]) == ("FAILED", 10)
    await club.days(8)
    assert [row.status for row in await club.deductions(cycle)] == [DeductionStatus.WAITING]
    broken = False
    await club.runtime.flows.retry(ADMIN, run["id"])
    await club.settle()
    deductions = await club.deductions(cycle)
    # the one that waited is charged; the next, due meanwhile, as soon as the provider's plan allows
    assert deductions[0].status is DeductionStatus.PAID
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    assert len(await club.taken(cycle)) == 1


async def test_a_cancelled_cycle_makes_no_order_however_late_the_flow_runs(club: Club) -> None:
    broken, calls = True, 0

    async def on_deduction(due: DueDeduction, connection: Connection) -> int:
        nonlocal calls
        calls += 1
        if broken:
            raise RuntimeError("not yet")
        return await make(connection, due)

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    await club.runtime.cycles.cancel(BUYER, cycle.id, correlation_id="c-c")
    broken = False
    await club.later(timedelta(hours=1))
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, calls) == (DeductionStatus.SKIPPED, 1)
    assert await club.connection.fetchval("select count(*) from public.orders") == 1
    assert await club.calls(DEDUCT) == 0


async def test_a_paused_cycle_lets_go_of_a_due_date_that_has_no_order_yet(club: Club) -> None:
    async def on_deduction(due: DueDeduction, connection: Connection) -> int:
        raise RuntimeError("not yet")

    await club.work_with(on_deduction)
    cycle = await club.member()
    await club.at(club.today())
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
    await club.later(timedelta(minutes=1))
    (deduction,) = await club.deductions(cycle)
    assert deduction.status is DeductionStatus.SKIPPED
    assert (await club.find(cycle)).open_deduction_id is None


# --- the original once more -------------------------------------------------------------------------------------------

PLAIN = "user_id bigint not null, title text, status text not null default 'unpaid'"


@pytest.mark.parametrize(
    ("columns", "in_fen", "wrote", "expected"),
    [
        (
            f"id bigint generated always as identity primary key, {PLAIN}, amount numeric(10,2) not null,"
            " note text default 'none', quantity numeric(8,2) not null default 0, size int default -1,"
            " made timestamptz not null default now(), token text not null default md5(random()::text)",
            False,
            {"note": "gift", "quantity": "2.50", "size": "4"},
            {"title": "Club", "amount": "10.00", "note": "gift", "quantity": "2.50", "size": "4", "status": "paid"},
        ),
        (
            f"id serial primary key, {PLAIN}, amount bigint not null, number text unique default md5(random()::text),"
            " label text generated always as (title || '!') stored, code text, unique (user_id, code)",
            True,
            {"code": "x"},
            {"title": "Club", "amount": "1000", "code": None, "label": "Club!", "status": "paid"},
        ),
        (
            f'"Id" int generated by default as identity primary key, {PLAIN}, amount int not null, "Odd ""name" text',
            False,
            {'Odd "name': "kept"},
            {"title": "Club", "amount": "10", 'Odd "name': "kept", "status": "paid"},
        ),
    ],
    ids=["numeric yuan", "fen", "whole yuan"],
)
async def test_the_original_is_copied_but_for_what_is_its_own(
    own_club: Club, columns: str, in_fen: bool, wrote: dict[str, str], expected: dict[str, str | None]
) -> None:
    cycle = await member_of(own_club, columns, in_fen=in_fen, wrote=wrote)
    await own_club.at(own_club.today())
    assert await failed_runs(own_club) == []
    (deduction,) = await own_club.deductions(cycle)
    assert deduction.status is DeductionStatus.PAID
    original, copy = map(
        dict, await own_club.connection.fetch(f"select * from public.wares order by {key_of(columns)}")
    )
    assert {name: None if copy[name] is None else str(copy[name]) for name in expected} == expected
    for name in ("number", "token", "made"):
        assert name not in copy or copy[name] not in (None, original[name])


async def test_orders_without_owner_and_amount_are_copied_as_well(own_club: Club) -> None:
    cycle = await member_of(own_club, "id bigserial primary key, title text, status text default 'new'")
    await own_club.at(own_club.today())
    assert await failed_runs(own_club) == []
    (deduction,) = await own_club.deductions(cycle)
    (payment,) = await own_club.payments(cycle)
    assert (deduction.status, payment.paid_amount_fen, payment.owner) == (DeductionStatus.PAID, 1000, None)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (f"id bigserial primary key, {PLAIN}, amount numeric not null, number text unique not null", '"number"'),
        (f"id bigint primary key default 1, {PLAIN}, amount numeric not null", "wares_pkey"),
        ("id bigserial primary key, user_id bigint not null unique, title text, amount numeric", "wares_user_id_key"),
        ("id bigserial primary key, made timestamptz default now()", "on_deduction"),
    ],
    ids=["number of its own", "key of its own", "one order per user", "nothing to copy"],
)
async def test_an_original_that_cannot_be_copied_is_a_visible_failure(own_club: Club, columns: str, words: str) -> None:
    cycle = await member_of(own_club, columns, wrote={"number": "A1"} if "number" in columns else {})
    await own_club.at(own_club.today())
    rows = await own_club.connection.fetch("select flow, status, error from shouyin.flow_run where error is not null")
    assert [(row["flow"], row["status"]) for row in rows] == [("copy_order", "WAITING")]
    assert words in rows[0]["error"]
    (deduction,) = await own_club.deductions(cycle)
    assert (deduction.status, deduction.payment_id) == (DeductionStatus.WAITING, None)
    assert await own_club.connection.fetchval("select count(*) from public.wares") == 1
    assert await own_club.calls(DEDUCT) == 0


async def test_deductions_go_on_in_the_table_they_began_with(own_club: Club) -> None:
    cycle = await own_club.member()
    await own_club.at(own_club.today())
    other = await member_of(own_club, f"id bigserial primary key, {PLAIN}, amount numeric", scene="INDUSTRY|EDU")
    await own_club.days(7)
    first, second = await own_club.deductions(cycle)
    assert (first.status, second.status) == (DeductionStatus.PAID, DeductionStatus.PAID)
    assert second.order_id is not None
    assert await own_club.market.shop.status_of(second.order_id) == "paid"
    assert await own_club.connection.fetchval("select count(*) from public.orders") == 3
    assert [row.status for row in await own_club.deductions(other)] == [DeductionStatus.PAID] * 2
    rows = await own_club.connection.fetch("select status from public.wares order by id")
    assert [row["status"] for row in rows] == ["unpaid", "paid", "paid"]
    assert (len(await own_club.taken(cycle)), len(await own_club.taken(other))) == (2, 2)


def key_of(columns: str) -> str:
    """The key's name as it stands in SQL."""
    return columns.partition(" ")[0]


async def member_of(
    club: Club, columns: str, *, in_fen: bool = False, wrote: dict[str, str] | None = None, scene: str = SCENE
) -> CyclePayment:
    """A signed cycle payment over ten yuan, of an order in a table like this, bound in place of the first."""
    await club.connection.execute(f"create table public.wares ({columns})")
    binding = Binding(
        order_table="wares",
        owner_column="user_id" if "user_id" in columns else None,
        amount_column="amount" if "amount" in columns else None,
        amount_in_fen=in_fen,
        status_column="status" if "status" in columns else None,
        paid_status="paid" if "status" in columns else None,
    )
    await club.runtime.activation.rebind(ADMIN, binding)
    row = {"user_id": "7", "title": "Club", "amount": "1000" if in_fen else "10"} | (wrote or {})
    row = {name: text for name, text in row.items() if name.replace('"', '""') in columns}
    into = "default values"
    if row:
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in row)
        into = f"({names}) values ({', '.join(repr(text) for text in row.values())})"
    order_id = await club.connection.fetchval(f"insert into public.wares {into} returning {key_of(columns)}")
    request = StartCyclePayment(order_id, 1000, "Club", 7, scene)
    caller = BUYER if "user_id" in columns else ADMIN
    return await club.sign(await club.runtime.cycles.start(caller, request, correlation_id="c-w"))

"""Binding the order table: what is accepted, what is refused with which words, and what holds afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from app.activation.binding import Binding
from app.clock import Clock
from app.errors import Forbidden, InvalidInput, MethodNotConfigured, OrderNotFound, PaymentsNotActive
from app.payments.actions import CreatePayment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, ReportedStatus
from app.runtime import Runtime, open_runtime
from tests.fixtures.plans import plan_of
from tests.fixtures.shop import ADMIN, BINDING, BUYER, Shop, config_for, make_orders


@pytest.fixture
async def unbound(database_url: str, redis_url: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Runtime]:
    """A process on a database whose orders table is not bound yet."""
    connection = await make_orders(database_url)
    await connection.close()
    runtime = await open_runtime(config_for(database_url, redis_url, tmp_path), clock=clock, realtime=False)
    yield runtime
    await runtime.close()


async def execute(runtime: Runtime, statement: str) -> None:
    await runtime.db.pool.execute(statement)


async def test_binding_tells_what_is_bound(unbound: Runtime) -> None:
    assert not (await unbound.activation.feature()).active
    feature = await unbound.activation.activate(ADMIN, BINDING, correlation_id="c-1", address="127.0.0.1")
    assert (feature.active, feature.order_table, feature.methods) == (True, "public.orders", ())
    audit = await unbound.db.pool.fetchrow("select actor, action, subject, address, correlation_id from shouyin.audit")
    assert audit is not None
    assert tuple(audit) == ("root", "payments.activate", "public.orders", "127.0.0.1", "c-1")


async def test_deductions_are_no_way_to_pay_that_a_page_may_choose(shop: Shop) -> None:
    offers = await shop.connection.fetchval("select offers ? 'ALIPAY_CYCLE' from shouyin.merchant_account")
    assert offers is True
    methods = (await shop.runtime.activation.feature()).methods
    assert methods == (PaymentMethod.ALIPAY_PAGE, PaymentMethod.ALIPAY_WAP, PaymentMethod.ALIPAY_QR)


async def test_only_an_administrator_binds(unbound: Runtime) -> None:
    with pytest.raises(Forbidden):
        await unbound.activation.activate(BUYER, BINDING)
    assert not (await unbound.activation.feature()).active


@pytest.mark.parametrize(
    ("ddl", "binding", "field", "words"),
    [
        ("", replace(BINDING, order_table="nothing"), "orderTable", "there is no table 'nothing'"),
        ("", replace(BINDING, order_table='a."b; drop'), "orderTable", "there is no table"),
        ("create view v as select * from orders", replace(BINDING, order_table="v"), "orderTable", "is not a table;"),
        ("create unlogged table u (id int primary key)", Binding("u"), "orderTable", "set logged"),
        ("", Binding("shouyin.payment"), "orderTable", "not a table of yours"),
        ("", Binding("pg_catalog.pg_class"), "orderTable", "not a table of yours"),
        ("create table u (id int)", Binding("u"), "orderTable", "primary key of one integer column (found: none)"),
        ("create table u (id text primary key)", Binding("u"), "orderTable", "found: id text"),
        ("create table u (a int, b int, primary key (a, b))", Binding("u"), "orderTable", "found: a int4, b int4"),
        ("", replace(BINDING, owner_column="buyer"), "ownerColumn", "no column 'buyer'; it has id, user_id"),
        ("", replace(BINDING, owner_column="created_at"), "ownerColumn", "is timestamptz"),
        ("", replace(BINDING, amount_column="title"), "amountColumn", "is text"),
        ("alter table orders add f float8", replace(BINDING, amount_column="f"), "amountColumn", "loses money"),
        ("", replace(BINDING, status_column="amount"), "statusColumn", "is numeric"),
        ("", Binding("orders", amount_in_fen=True), "amountInFen", "no amountColumn"),
        ("", Binding("orders", paid_status="paid"), "paidStatus", "name the statusColumn"),
        (
            "create type st as enum ('new', 'done'); alter table orders add e st",
            Binding("orders", status_column="e"),
            "paidStatus",
            "'paid' is not a value of e; it takes new, done",
        ),
        (
            "alter table orders add g text generated always as (title) stored",
            Binding("orders", status_column="g", paid_status="paid"),
            "statusColumn",
            "is generated",
        ),
        (
            "alter table orders add short varchar(3)",
            Binding("orders", status_column="short", paid_status="paid"),
            "paidStatus",
            "longer than the 3 characters",
        ),
    ],
)
async def test_what_cannot_be_bound_is_refused_with_the_fix(
    unbound: Runtime, ddl: str, binding: Binding, field: str, words: str
) -> None:
    if ddl:
        await execute(unbound, ddl)
    with pytest.raises(InvalidInput) as refused:
        await unbound.activation.activate(ADMIN, binding)
    assert refused.value.field == field
    assert words in refused.value.message
    assert not (await unbound.activation.feature()).active
    assert await unbound.db.pool.fetchval("select count(*) from pg_constraint where conname = 'payment_order'") == 0
    assert await unbound.db.pool.fetchval("select count(*) from shouyin.audit") == 0


async def test_a_second_binding_is_refused(shop: Shop) -> None:
    await shop.connection.execute("create table public.others (id int primary key)")
    with pytest.raises(InvalidInput) as refused:
        await shop.runtime.activation.activate(ADMIN, Binding("others"))
    assert (refused.value.field, "already bound to public.orders" in refused.value.message) == ("orderTable", True)
    assert (await shop.runtime.activation.feature()).order_table == "public.orders"


async def test_two_bindings_at_once_leave_one(unbound: Runtime) -> None:
    outcomes = await asyncio.gather(
        *(unbound.activation.activate(ADMIN, BINDING) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, InvalidInput) for outcome in outcomes) == 3
    assert (await unbound.activation.feature()).active


@pytest.mark.parametrize(
    "statement",
    [
        "drop table orders",
        "drop table orders cascade",
        "drop schema public cascade",
        "truncate orders",
        "truncate orders cascade",
        "alter table orders drop column amount",
        "alter table orders alter column status type int using 0",
        "alter table orders drop column amount cascade",
        "alter table orders drop constraint orders_pkey cascade",
        "alter table orders drop constraint orders_pkey",
        "alter table shouyin.kept_order_1 drop constraint payment_order",
        "drop table shouyin.kept_order",
        "drop view shouyin.bound_order",
        "drop view shouyin.bound_order_1 cascade",
        "drop trigger shouyin_announce_update on orders",
        "drop trigger shouyin_refuse_truncate on orders",
        "drop owned by current_user cascade",
    ],
)
async def test_a_bound_table_stays(shop: Shop, statement: str) -> None:
    order_id = await shop.order()
    with pytest.raises(asyncpg.PostgresError):
        await shop.connection.execute(statement)
    assert await shop.status_of(order_id) == "unpaid"


async def test_columns_that_are_not_bound_stay_free(shop: Shop) -> None:
    order_id = await shop.order()
    await shop.connection.execute(
        "alter table orders add note text default 'n'; alter table orders drop column created_at"
    )
    order = await shop.runtime.payments.find_order(ADMIN, order_id)
    assert order is not None
    assert order.data == {
        "id": order_id, "user_id": 7, "title": "Tea", "amount": "12.30", "status": "unpaid", "note": "n",
    }  # fmt: skip


async def test_amounts_in_fen_and_enum_status(unbound: Runtime) -> None:
    await execute(
        unbound,
        "create type st as enum ('new', 'done');"
        " create table public.deals (id int primary key, fen int, st st default 'new')",
    )
    await unbound.activation.activate(
        ADMIN, Binding("deals", amount_column="fen", amount_in_fen=True, status_column="st", paid_status="done")
    )
    await execute(unbound, "insert into deals (id, fen) values (1, 1230)")
    order = await unbound.payments.find_order(BUYER, 1)
    assert order is not None
    assert (order.amount_fen, order.owner, order.status) == (1230, None, "new")


async def test_every_change_of_an_order_is_announced_whoever_makes_it(shop: Shop) -> None:
    order_id = await shop.order()
    await shop.connection.execute("delete from shouyin.change")
    await shop.connection.execute("update orders set status = 'packed' where id = $1", order_id)
    rows = await shop.connection.fetch("select subject, row_id, order_id from shouyin.change")
    assert [tuple(row) for row in rows] == [("order", order_id, order_id)]


async def test_a_table_name_with_capitals_and_a_schema(unbound: Runtime) -> None:
    await execute(
        unbound, 'create schema "Shop"; create table "Shop"."Order" ("Id" int primary key, "Amount" numeric(8,2))'
    )
    feature = await unbound.activation.activate(ADMIN, Binding('"Shop"."Order"', amount_column="Amount"))
    assert feature.order_table == '"Shop"."Order"'
    await execute(unbound, """insert into "Shop"."Order" values (3, 9.99)""")
    order = await unbound.payments.find_order(BUYER, 3)
    assert order is not None
    assert (order.amount_fen, order.data) == (999, {"Id": 3, "Amount": "9.99"})


async def test_other_tables_come_and_go_as_before(shop: Shop) -> None:
    await shop.connection.execute("create table t (id int primary key); create view v as select 1 as x; drop view v")
    await shop.connection.execute("create temp table tt (id int); drop table tt; drop table t")


async def test_a_role_that_knows_nothing_of_us_writes_orders_as_before(shop: Shop) -> None:
    """The merchant's application seldom is the role that owns our tables."""
    role = await shop.connection.fetchval("select 'app_' || current_database()")
    await shop.connection.execute(f"create role {role}; grant select, insert, update, delete on orders to {role}")
    try:
        await shop.connection.execute(f"set role {role}")
        order_id = await shop.order()
        await shop.connection.execute("update orders set title = 'Coffee' where id = $1", order_id)
        await shop.connection.execute("create temp table mine (id int); drop table mine")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.connection.execute("select from shouyin.payment")
    finally:
        await shop.connection.execute(f"reset role; drop owned by {role}; drop role {role}")
    assert await shop.connection.fetchval("select count(*) from shouyin.change where subject = 'order'") == 2


async def test_a_bound_table_and_its_columns_may_be_renamed(shop: Shop) -> None:
    await shop.connection.execute(
        "alter table orders rename column id to number; alter table orders rename column user_id to buyer;"
        " alter table orders rename column amount to price; alter table orders rename column status to state;"
        " alter table orders rename to deals"
    )
    order_id = await shop.connection.fetchval(
        "insert into deals (buyer, title, price) values (7, 'Tea', 12.30) returning number"
    )
    await shop.connection.execute("update deals set state = 'new'")
    request = CreatePayment(order_id, PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    assert payment.amount_fen == 1230
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    report = PaymentReport(payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230)
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
    await shop.settle()
    assert await shop.connection.fetchval("select state from deals where number = $1", order_id) == "paid"
    subjects = "select count(*) from shouyin.change where subject = 'order' and row_id = $1"
    assert await shop.connection.fetchval(subjects, order_id) >= 2


async def test_a_column_may_have_any_name(unbound: Runtime) -> None:
    await execute(unbound, 'create table public.odd (o int primary key, "amount fen" int, "a\'b""c" text)')
    await unbound.activation.activate(
        ADMIN,
        Binding("odd", amount_column="amount fen", amount_in_fen=True, status_column="a'b\"c", paid_status="paid"),
    )
    await execute(unbound, "insert into odd values (1, 1230, 'new')")
    order = await unbound.payments.find_order(BUYER, 1)
    assert order is not None
    assert order.data == {"o": 1, "amount fen": 1230, "a'b\"c": "new"}


@pytest.mark.parametrize("kind", ["smallint", "int", "bigint"])
async def test_orders_are_found_by_their_index_whatever_integer_their_key_is(unbound: Runtime, kind: str) -> None:
    await execute(
        unbound,
        f"create table public.many (id {kind} primary key, status text);"
        " insert into many select n from generate_series(1, 20000) n; analyze many",
    )
    await unbound.activation.activate(ADMIN, Binding("many", status_column="status"))
    async with unbound.db.pool.acquire() as connection:
        for name in ("order.by_ids", "order.of_payments"):
            assert "Seq Scan on many" not in await plan_of(connection, name), name
        # What orders_of and mark_order build.
        for built in ("select", "update shouyin.bound_order_1 set status = 'paid'"):
            source = " from shouyin.bound_order_1" if built == "select" else ""
            rows = await connection.fetch(f"explain {built}{source} where id = any($1::bigint[])", [1, 2])
            assert "Seq Scan" not in "\n".join(row[0] for row in rows), rows
    # Beyond the column's type is only: not there.
    assert (await unbound.payments.orders([2**62, 7])).keys() == {7}
    assert await unbound.payments.find_order(BUYER, -(2**62)) is None


async def test_processes_that_run_while_a_table_is_bound_go_on(unbound: Runtime) -> None:
    """Their prepared statements know the view as it was: within a transaction PostgreSQL refuses a changed one."""
    await execute(
        unbound,
        "create type st as enum ('new', 'done'); create table public.deals ("
        " id int primary key, buyer varchar(40) collate \"C\", fen numeric(12,0), st st default 'new')",
    )

    async def use_all() -> None:
        assert await unbound.payments.orders([1]) is not None
        async with unbound.db.transaction() as tx:
            await tx.all("order.of_payments", [1], [1])
            await tx.all("order.by_ids", [1])
            await tx.one("activation.find")

    for _ in range(8):
        await use_all()
    await unbound.activation.activate(
        ADMIN,
        Binding(
            "deals",
            owner_column="buyer",
            amount_column="fen",
            amount_in_fen=True,
            status_column="st",
            paid_status="done",
        ),
    )
    await execute(unbound, "insert into deals values (1, '7', 1230)")
    for _ in range(8):
        await use_all()
    order = await unbound.payments.find_order(BUYER, 1)
    assert order is not None
    assert (order.id, order.owner, order.amount_fen, order.status) == (1, "7", 1230, "new")


async def test_requests_under_way_while_a_table_is_bound_get_their_answer(unbound: Runtime) -> None:
    bound, asked = asyncio.Event(), 0

    async def keep_asking() -> None:
        nonlocal asked
        while not bound.is_set():
            await unbound.payments.orders([1])
            with contextlib.suppress(PaymentsNotActive, OrderNotFound, MethodNotConfigured):
                request = CreatePayment(1, PaymentMethod.ALIPAY_PAGE, None, "Tea")
                await unbound.payments.create(BUYER, request, correlation_id="c")
            asked += 1

    asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
    while asked < 50:
        await asyncio.sleep(0)
    await unbound.activation.activate(ADMIN, BINDING)
    seen = asked
    while asked < seen + 50:
        await asyncio.sleep(0)
    bound.set()
    await asyncio.gather(*asking)

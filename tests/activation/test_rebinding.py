"""Binding another order table for new payments: older ones keep theirs, whatever ids the two tables share."""

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app import db
from app.activation import binding as module
from app.activation.binding import Binding
from app.activation.permissions import Reach
from app.api.application import Application
from app.auth import Principal
from app.db import migrate
from app.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidInput,
    OrderAlreadyPaid,
    OrderNotFound,
    PaymentsNotActive,
    ShouyinError,
)
from app.flows.results import PaymentResult, RefundResult
from app.main import create_app
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, RefundReport, ReportedRefund, ReportedStatus
from app.refunds.actions import RefundPayment
from app.refunds.reports import apply_refund_report
from app.runtime import Runtime, open_runtime
from tests.api.conftest import Api, serving_api
from tests.api.test_websocket import Client, opened, token_payload
from tests.fixtures.alipay import FORM, signed_notice
from tests.fixtures.flows import Install
from tests.fixtures.shop import ADMIN, BINDING, BUYER, ORDERS, STRANGER, Shop, config_for
from tests.fixtures.web import serving

SALES = """
create type state as enum ('new', 'done', 'void', 'back');
create table public.sales (no int primary key generated always as identity, buyer text, fen int,
  state state not null default 'new')
"""
TO_SALES = Binding(
    "sales", "buyer", "fen", amount_in_fen=True, status_column="state", paid_status="done", failed_status="void",
    refunded_status="back",
)  # fmt: skip
CREATE = "mutation ($input: CreatePaymentInput!) { createPayment(input: $input) { id } }"
SUCCESSFUL, FAILED = ReportedStatus.SUCCESSFUL, ReportedStatus.FAILED


@pytest.fixture
async def two(shop: Shop) -> Shop:
    """A shop with a second table, in which orders 1 to 9 are sales of user 7 too, at 5.00."""
    await shop.connection.execute(SALES)
    await shop.connection.execute("insert into sales (buyer, fen) select '7', 500 from generate_series(1, 9)")
    for _ in range(5):
        await shop.order()
    return shop


async def rebind(shop: Shop, binding: Binding = TO_SALES, runtime: Runtime | None = None) -> None:
    await (runtime or shop.runtime).activation.rebind(ADMIN, binding, correlation_id="c-re", address="10.0.0.9")


async def pay(shop: Shop, order_id: int, key: str | None = None, runtime: Runtime | None = None) -> Payment:
    request = CreatePayment(order_id, PaymentMethod.ALIPAY_PAGE, None, "Tea", idempotency_key=key)
    return await (runtime or shop.runtime).payments.create(BUYER, request, correlation_id="c")


async def say(shop: Shop, payment: Payment, status: ReportedStatus = SUCCESSFUL) -> None:
    """The provider's word about a payment, applied, and its flows run."""
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    fen = payment.amount_fen if status is SUCCESSFUL else None
    report = PaymentReport(payment.out_trade_no, status, "query", fen, transaction_id=f"T{payment.id}")
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
    await shop.settle()


async def refund(shop: Shop, payment: Payment) -> None:
    """All of a payment goes back, although nobody answers at the gateway: a stranger's word stands in for it."""
    await shop.runtime.permissions.grant(ADMIN, "admin", "payment.refund", Reach("ALL"))
    with pytest.raises(ShouyinError):
        await shop.runtime.refunds.create(ADMIN, RefundPayment(payment.id, payment.amount_fen), correlation_id="c")
    number = await shop.connection.fetchval("select out_refund_no from shouyin.refund order by id desc limit 1")
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    said = RefundReport(
        out_trade_no=payment.out_trade_no, out_refund_no=number, status=ReportedRefund.REFUNDED, source="query",
        amount_fen=payment.amount_fen,
    )  # fmt: skip
    await apply_refund_report(shop.runtime.db, shop.clock, account, said, correlation_id="c")
    await shop.settle()


async def state_of(shop: Shop, number: int) -> str:
    state: str = await shop.connection.fetchval("select state::text from sales where no = $1", number)
    return state


async def standing(shop: Shop) -> list[Any]:
    """All that rebinding may change."""
    tables = ("activation", "former_binding", "audit", "payment", "permission", "merchant_account", "change")
    return [
        *[await shop.connection.fetch(f"select * from shouyin.{table} order by 1") for table in tables],
        await shop.connection.fetchval("select pg_get_viewdef('shouyin.bound_order'::regclass)"),
        await shop.connection.fetch("select tgname, tgrelid from pg_trigger where tgname like 'shouyin%' order by oid"),
        await shop.connection.fetch("select conname, confrelid from pg_constraint where contype = 'f' order by oid"),
    ]


# --- what is asked for --------------------------------------------------------------------------------------------


async def test_new_payments_are_of_the_other_table_and_all_else_stays(two: Shop) -> None:
    old = await pay(two, 2)
    await two.runtime.plan.set(ADMIN, "pro", two.clock.now().replace(year=2099))
    await two.runtime.permissions.grant(ADMIN, "support", "payment.sync")
    kept = [await two.connection.fetch(f"select * from shouyin.{name}") for name in ("permission", "merchant_account")]
    feature = await two.runtime.activation.rebind(ADMIN, TO_SALES, correlation_id="c-re", address="10.0.0.9")
    assert (feature.active, feature.order_table, feature.plan) == (True, "public.sales", "pro")
    assert feature.plan_expires_at is not None
    assert feature.plan_expires_at.year == 2099
    assert kept == [
        await two.connection.fetch(f"select * from shouyin.{name}") for name in ("permission", "merchant_account")
    ]
    new = await pay(two, 2)
    assert (old.amount_fen, new.amount_fen, new.owner, new.id > old.id) == (1230, 500, "7", True)
    assert await two.runtime.payments.find(BUYER, old.id) == old
    audit = await two.connection.fetchrow("select * from shouyin.audit where action = 'payments.rebind'")
    assert audit is not None
    told = [audit[name] for name in ("actor", "subject", "address", "correlation_id", "details")]
    assert told == [
        "root", "public.sales", "10.0.0.9", "c-re", '{"former": "public.orders", "drop_guarded": true}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("binding", "field", "words"),
    [
        (BINDING, "orderTable", "public.orders is bound already"),
        (replace(BINDING, order_table='"public"."orders"', amount_column=None), "orderTable", "is bound already"),
        (replace(TO_SALES, order_table="nothing"), "orderTable", "there is no table 'nothing'"),
        (replace(TO_SALES, order_table="shouyin.payment"), "orderTable", "not a table of yours"),
        (replace(TO_SALES, owner_column="user_id"), "ownerColumn", "no column 'user_id'"),
        (replace(TO_SALES, amount_column="buyer"), "amountColumn", "is text"),
        (replace(TO_SALES, paid_status="paid"), "paidStatus", "it takes new, done, void, back"),
    ],
)
async def test_what_cannot_be_bound_is_refused_as_at_first(two: Shop, binding: Binding, field: str, words: str) -> None:
    before = await standing(two)
    with pytest.raises(InvalidInput) as refused:
        await rebind(two, binding)
    assert (refused.value.field, words in refused.value.message) == (field, True)
    assert await standing(two) == before


@pytest.mark.parametrize("caller", [BUYER, Principal(sub="9", roles=frozenset({"support"}))])
async def test_only_an_administrator_rebinds(two: Shop, caller: Principal) -> None:
    before = await standing(two)
    with pytest.raises(Forbidden):
        await two.runtime.activation.rebind(caller, TO_SALES)
    assert await standing(two) == before


async def test_without_a_bound_table_there_is_nothing_to_rebind(two: Shop) -> None:
    await two.runtime.turning_off.turn_off(ADMIN, "orders")
    before = await standing(two)
    with pytest.raises(PaymentsNotActive):
        await rebind(two)
    assert await standing(two) == before


async def test_a_second_activation_is_refused_and_names_both_ways_out(two: Shop) -> None:
    with pytest.raises(InvalidInput) as refused:
        await two.runtime.activation.activate(ADMIN, TO_SALES)
    for text in (refused.value.message, refused.value.message_zh):
        assert "rebindPayments" in text
        assert "deactivatePayments" in text


async def test_a_table_that_somebody_holds_is_waited_for_and_then_left(
    two: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await standing(two)
    other = await asyncpg.connect(two.config.database_url)
    async with other.transaction():
        await other.execute("update orders set title = title")
        monkeypatch.setattr(module, "_HOLD_ATTEMPTS", 2)
        with pytest.raises(InvalidInput, match="locked by another session"):
            await rebind(two)
    await other.execute("delete from shouyin.change where subject = 'order'")
    await other.close()
    assert [part for n, part in enumerate(await standing(two)) if n != 6] == before[:6] + before[7:]
    monkeypatch.undo()
    await rebind(two)


async def test_rebinding_on_the_api(two: Shop) -> None:
    app: Application = create_app(replace(two.config, shutdown_grace_s=0.1), clock=two.clock)
    query = (
        "mutation ($input: ActivatePaymentsInput!) { rebindPayments(input: $input) { active orderTable plan methods } }"
    )
    fields = {"orderTable": "sales", "ownerColumn": "buyer", "amountColumn": "fen", "amountInFen": True}
    async with serving(app) as origin, httpx.AsyncClient(trust_env=False) as http:
        api = Api(two, app, origin, http)
        assert (await api.error(query, {"input": fields}))["code"] == "FORBIDDEN"
        assert (await api.error(query, {"input": fields}, sub=None))["code"] == "UNAUTHENTICATED"
        answer = await api.post(query, {"input": fields}, sub="root", role="admin")
        methods = ["ALIPAY_PAGE", "ALIPAY_WAP", "ALIPAY_QR"]
        feature = {"active": True, "orderTable": "public.sales", "plan": None, "methods": methods}
        assert answer == {"data": {"rebindPayments": feature}}
        error = await api.error(query, {"input": fields}, sub="root", role="admin")
        assert (error["code"], error["field"]) == ("INVALID_INPUT", "orderTable")


# --- ids that two tables share ------------------------------------------------------------------------------------


async def test_an_order_paid_in_one_table_can_be_paid_in_the_other(two: Shop) -> None:
    old = await pay(two, 1)
    await say(two, old)
    await rebind(two)
    new = await pay(two, 1)
    await say(two, new)
    details = "select details from shouyin.event where kind = 'payment.successful' order by id"
    assert [row[0] for row in await two.connection.fetch(details)] == ['{"late": false, "surplus": false}'] * 2
    assert (await two.status_of(1), await state_of(two, 1)) == ("paid", "done")
    with pytest.raises(OrderAlreadyPaid):
        await pay(two, 1)


async def test_a_surplus_is_one_of_the_same_table(two: Shop) -> None:
    first, second = await pay(two, 1), await pay(two, 1)
    await rebind(two)
    await say(two, await pay(two, 1))
    await say(two, first)
    await say(two, second)
    details = "select (details ->> 'surplus')::boolean from shouyin.event where kind = 'payment.successful' order by id"
    assert [row[0] for row in await two.connection.fetch(details)] == [False, False, True]


async def test_payments_of_one_order_in_two_tables_succeed_at_once_and_neither_is_surplus(two: Shop) -> None:
    old = await pay(two, 3)
    await rebind(two)
    new = await pay(two, 3)
    await asyncio.gather(say(two, old), say(two, new))
    details = "select details from shouyin.event where kind = 'payment.successful'"
    assert [row[0] for row in await two.connection.fetch(details)] == ['{"late": false, "surplus": false}'] * 2


async def test_a_key_names_one_payment_of_each_table(two: Shop) -> None:
    """Pages make keys of the order's id."""
    old = await pay(two, 1, "order-1-1")
    await rebind(two)
    new = await pay(two, 1, "order-1-1")
    assert (new.id != old.id, new.amount_fen) == (True, 500)
    assert (await pay(two, 1, "order-1-1")).id == new.id
    with pytest.raises(IdempotencyConflict):
        await pay(two, 2, "order-1-1")
    await rebind(two, BINDING)
    assert (await pay(two, 1, "order-1-1")).id == old.id
    assert await two.count("payment") == 2


async def test_who_asks_for_an_order_is_told_of_the_bound_table_and_a_payment_of_its_own(two: Shop) -> None:
    old = await pay(two, 1)
    await rebind(two)
    new, newer = await pay(two, 1), await pay(two, 1)
    query = """query ($old: ID!, $new: ID!) {
      order(id: 1) { data payments { id } } payments(orderId: 1) { id }
      old: payment(id: $old) { orderId order { data payments { id } } }
      new: payment(id: $new) { orderId order { data payments { id } } } }"""
    async with serving_api(two) as api:
        data = (await api.post(query, {"old": str(old.id), "new": str(new.id)}))["data"]
        missing = (await api.post("{ order(id: 9) { id } payments(orderId: 9) { id } }"))["data"]
        await two.connection.execute("update sales set buyer = '8' where no = 1")
        other = await api.post("query ($id: ID!) { payment(id: $id) { order { id } } }", {"id": str(new.id)})
    both = [{"id": str(new.id)}, {"id": str(newer.id)}]
    sale = {"data": {"no": 1, "buyer": "7", "fen": 500, "state": "new"}, "payments": both}
    assert (data["order"], data["payments"], data["new"]) == (sale, both, {"orderId": "1", "order": sale})
    assert data["old"]["orderId"] == "1"
    assert data["old"]["order"]["data"]["amount"] == "12.30"
    assert data["old"]["order"]["payments"] == [{"id": str(old.id)}]
    assert missing == {"order": {"id": "9"}, "payments": []}
    assert other["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    with pytest.raises(OrderNotFound):
        await pay(two, 77)


async def test_statuses_are_written_to_the_payment_s_own_table_in_its_own_words(two: Shop) -> None:
    olds = {number: await pay(two, number) for number in (1, 2, 3, 4)}
    await rebind(two)
    news = {number: await pay(two, number) for number in (1, 2, 3)}
    await say(two, olds[1])
    assert (await two.status_of(1), await state_of(two, 1)) == ("paid", "new")
    await say(two, news[1], FAILED)  # order 1 of the other table is paid
    assert (await two.status_of(1), await state_of(two, 1)) == ("paid", "void")
    await say(two, news[2])
    await say(two, olds[2], FAILED)
    assert (await two.status_of(2), await state_of(two, 2)) == ("failed", "done")
    await say(two, olds[3])
    await say(two, news[3])
    await refund(two, olds[3])  # order 3 of the other table keeps its money
    assert (await two.status_of(3), await state_of(two, 3)) == ("refunded", "done")
    await refund(two, news[3])
    assert (await two.status_of(3), await state_of(two, 3)) == ("refunded", "back")
    assert await two.connection.fetchval("select count(*) from shouyin.flow_run where status <> 'DONE'") == 0


async def test_an_order_s_amount_is_looked_up_in_its_own_table(two: Shop) -> None:
    old = await pay(two, 1)
    await rebind(two)
    new = await pay(two, 1)
    await two.connection.execute("update orders set amount = 99 where id = 1")
    await say(two, old)
    await say(two, new)
    assert (await two.status_of(1), await state_of(two, 1)) == ("unpaid", "done")


async def test_a_flow_is_told_which_table_the_order_is_of(two: Shop, flows: Install) -> None:
    seen: list[tuple[int | None, str | None, int | None]] = []
    refunds: list[str | None] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append((result.order_id, result.order_table, result.order_amount_fen))
        await connection.execute(f"select from {result.order_table}")

    async def on_refund(result: RefundResult, connection: Any) -> None:
        refunds.append(result.order_table)

    worker = await flows(on_payment, on_refund)
    two.runtime = worker
    old = await pay(two, 1)
    await rebind(two)
    await say(two, old)
    await say(two, await pay(two, 1))
    await refund(two, old)
    assert seen == [(1, "orders", 1230), (1, "sales", 500)]
    assert refunds == ["orders"] * 2  # not reached, and then done after all


@pytest.fixture
def alipay_key(rsa_keys: tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]) -> rsa.RSAPrivateKey:
    """Alipay's own: what it signs notices with."""
    return rsa_keys[1]


async def test_a_late_notification_marks_the_row_of_the_table_the_payment_is_of(
    two: Shop, alipay_key: rsa.RSAPrivateKey
) -> None:
    payment = await pay(two, 1)
    await say(two, payment, ReportedStatus.CLOSED)
    await rebind(two)
    body = signed_notice(alipay_key, out_trade_no=payment.out_trade_no)
    answer = await two.runtime.inbox.receive("alipay", payment.merchant_account_id, FORM, body, correlation_id="c")
    await two.settle()
    found = await two.runtime.payments.find(BUYER, payment.id)
    assert found is not None
    assert (answer.status_code, found.status, found.late) == (200, "SUCCESSFUL", True)
    assert (await two.status_of(1), await state_of(two, 1)) == ("paid", "new")


async def test_the_books_tell_the_tables_apart(two: Shop) -> None:
    old = await pay(two, 1)
    await say(two, old)
    await refund(two, old)
    await rebind(two)
    await say(two, await pay(two, 1))
    await two.runtime.turning_off.turn_off(ADMIN, "public.sales")
    assert await lines(two, "payments") == [("1", "public.orders", "12.30"), ("1", "public.sales", "5.00")]
    assert await lines(two, "refunds") == [("1", "public.orders", "12.30")]


async def lines(shop: Shop, table: str) -> list[tuple[str, ...]]:
    """(order id, order table, amount) of the archive's rows."""
    (path,) = shop.config.export_dir.glob(f"public*/{table}.csv")
    head, *rows, _ = csv.reader(io.StringIO((await asyncio.to_thread(path.read_bytes)).decode("utf-8-sig"), newline=""))
    return [tuple(row[head.index(name)] for name in ("order_id", "order_table", "amount")) for row in rows]


# --- who watches --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def watching(shop: Shop) -> AsyncIterator[Client]:
    """A socket of the buyer's."""
    async with serving_api(shop) as api, opened(api) as client:
        await client.init(token_payload(api))
        yield client


async def test_watchers_of_an_order_s_payments_get_none_of_another_table(two: Shop) -> None:
    query = "subscription { payments(orderId: 1) { id version } }"
    old = await pay(two, 1)
    async with watching(two) as client:
        await client.subscribe("old", query)
        assert (await client.read())["payload"]["data"]["payments"] == {"id": str(old.id), "version": old.version}
        await rebind(two)
        new = await pay(two, 1)
        await client.subscribe("new", query)
        first = await client.read()
        assert (first["id"], first["payload"]["data"]["payments"]["id"]) == ("new", str(new.id))
        for payment, watcher in ((old, "old"), (new, "new")) * 3:
            await two.connection.execute(
                "update shouyin.payment set expires_at = expires_at + interval '1 s' where id = $1", payment.id
            )
            told = await client.read()
            assert (told["id"], told["payload"]["data"]["payments"]["id"]) == (watcher, str(payment.id))


async def test_a_watched_order_ends_when_its_id_is_another_order_s(two: Shop) -> None:
    query = "subscription { order(id: 1) { data } }"
    async with watching(two) as client:
        await client.subscribe("old", query)
        assert (await client.read())["payload"]["data"]["order"]["data"]["title"] == "Tea"
        await rebind(two)
        ended = await client.read()
        assert (ended["type"], ended["id"]) in (("next", "old"), ("error", "old"))
        assert "NOT_FOUND" in str(ended)
        assert "fen" not in str(ended)
        if ended["type"] == "next":
            assert (await client.read())["type"] == "complete"
        await client.subscribe("new", query)
        assert (await client.read())["payload"]["data"]["order"]["data"]["fen"] == 500
        await two.connection.execute("update sales set fen = 700 where no = 1")
        assert (await client.read())["payload"]["data"]["order"]["data"]["fen"] == 700


async def test_only_the_bound_table_s_changes_are_announced(two: Shop) -> None:
    await rebind(two)
    await two.connection.execute("delete from shouyin.change")
    await two.connection.execute("update orders set title = 'x' where id = 1; update sales set fen = 1 where no = 2")
    rows = await two.connection.fetch("select subject, row_id from shouyin.change")
    assert [tuple(row) for row in rows] == [("order", 2)]


async def test_every_process_goes_on_with_the_other_table(two: Shop) -> None:
    other = await two.open(realtime=True)
    for number in (1, 2):  # its statements are prepared for a table with a text column
        await say(two, await pay(two, number, runtime=other))
        await two.settle(other)
        assert await other.payments.find_order(BUYER, number) is not None
    heard = asyncio.Event()
    other.realtime.on_change("activation", lambda ids: heard.set() if ids else None)
    async with other.realtime.watch("order:1") as rows, asyncio.timeout(20):
        assert (await anext(rows)).amount_fen == 1230
        await rebind(two)
        await heard.wait()
        assert (await anext(rows)).amount_fen == 500
        assert await other.realtime.poll_once() == 0  # the safety poll finds nothing that nobody announced
    for number in (1, 2):
        payment = await pay(two, number, runtime=other)
        assert payment.amount_fen == 500
        account = await other.accounts.open(payment.merchant_account_id)
        report = PaymentReport(payment.out_trade_no, SUCCESSFUL, "query", 500, transaction_id="T")
        await apply_payment_report(other.db, two.clock, account, report, correlation_id="c")
        await two.settle(other)
        assert await state_of(two, number) == "done"


# --- what guards the tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "delete from orders where id = 1",
        "update orders set id = 77 where id = 1",
        "drop table orders",
        "drop table orders cascade",
        "drop table sales cascade",
        "truncate orders",
        "truncate orders cascade",
        "alter table orders drop column amount",
        "alter table orders drop column amount cascade",
        "alter table orders drop constraint orders_pkey",
        "alter table orders drop constraint orders_pkey cascade",
        "drop view shouyin.bound_order_1",
        "drop view shouyin.bound_order_2 cascade",
        "drop table shouyin.kept_order_1",
        "drop trigger shouyin_refuse_truncate on orders",
        "drop owned by current_user cascade",
    ],
)
async def test_a_former_table_keeps_its_paid_rows_and_its_binding(two: Shop, statement: str) -> None:
    payment = await pay(two, 1)
    await say(two, payment)
    await rebind(two)
    with pytest.raises(asyncpg.PostgresError):
        await two.connection.execute(statement)
    assert await two.status_of(1) == "paid"
    assert len(await two.runtime.payments.orders_of_payments([(payment.binding_id, 1)])) == 1


async def test_rows_without_payments_may_go_whatever_happened_to_the_same_id(two: Shop) -> None:
    await pay(two, 1)
    await rebind(two)
    await pay(two, 2)
    await two.connection.execute("delete from sales where no = 1; delete from orders where id = 2")
    for statement in ("delete from sales where no = 2", "delete from orders where id = 1"):
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await two.connection.execute(statement)


async def test_a_former_table_and_its_columns_may_be_renamed(two: Shop) -> None:
    payment = await pay(two, 1)
    await rebind(two)
    await two.connection.execute(
        "alter table orders rename column id to number; alter table orders rename column amount to price;"
        " alter table orders rename column status to how; alter table orders rename to deals"
    )
    await two.connection.execute("create table public.orders (id int primary key, how text)")
    await say(two, payment)
    assert await two.connection.fetchval("select how from deals where number = 1") == "paid"
    old = replace(BINDING, order_table="deals", amount_column="price", status_column="how")
    await rebind(two, old)
    with pytest.raises(OrderAlreadyPaid):
        await pay(two, 1)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("statement", ["delete from sales where no = 1", "update sales set no = default where no = 1"])
async def test_an_order_that_gets_its_first_payment_meanwhile_stays(two: Shop, isolation: str, statement: str) -> None:
    """The payment is committed after the other transaction's snapshot, which therefore never sees it."""
    await rebind(two)
    other = await asyncpg.connect(two.config.database_url)
    await other.execute(f"begin isolation level {isolation}")
    assert await other.fetchval("select count(*) from shouyin.payment") == 0
    async with two.connection.transaction():
        opened_ = await two.connection.fetchrow(
            "select refusal, (payment).id from shouyin.open_payment(1, '7', false, '{*}', null, 'ALIPAY',"
            " 'ALIPAY_PAGE', null, 'Tea', 'SY-by-hand', null, null, null, null, null, '', 'c', now(), now(), now(),"
            " 1, 1000)"
        )
        assert opened_ is not None
        assert opened_["refusal"] is None
        going = asyncio.create_task(other.execute(statement))
        await waits_for_a_lock(two)
    with pytest.raises((asyncpg.ForeignKeyViolationError, asyncpg.SerializationError)):
        await going
    await other.close()
    assert await two.connection.fetchval("select count(*) from sales where no = 1") == 1


async def waits_for_a_lock(shop: Shop) -> None:
    """Until another session of this database waits for one."""
    query = (
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
    )
    async with asyncio.timeout(20):
        while not await shop.connection.fetchval(query):
            await asyncio.sleep(0.01)


async def test_an_order_that_goes_first_gets_no_payment(two: Shop) -> None:
    other = await asyncpg.connect(two.config.database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("delete from orders where id = 1")
    paying = asyncio.create_task(pay(two, 1))
    await waits_for_a_lock(two)
    await transaction.commit()
    with pytest.raises(OrderNotFound):
        await paying
    await other.close()
    assert (await two.count("payment"), await two.count("kept_order")) == (0, 0)


# --- further ways -------------------------------------------------------------------------------------------------


async def test_turning_off_lets_go_of_every_table(two: Shop) -> None:
    await say(two, await pay(two, 1))
    await rebind(two)
    await say(two, await pay(two, 1))
    with pytest.raises(InvalidInput):
        await two.runtime.turning_off.turn_off(ADMIN, "orders")
    await two.runtime.turning_off.turn_off(ADMIN, "sales")
    for table in ("activation", "former_binding", "payment", "kept_order", "bound_order"):
        assert await two.count(table) == 0, table
    left = "select count(*) from pg_trigger where tgname like 'shouyin%'"
    assert await two.connection.fetchval(left) == 0
    left = "select count(*) from pg_class where relnamespace = 'shouyin'::regnamespace and relname ~ 'order_[0-9]'"
    assert await two.connection.fetchval(left) == 0
    assert (await two.status_of(1), await state_of(two, 1)) == ("paid", "done")
    await two.connection.execute("truncate orders; truncate sales; drop table orders; drop table sales")
    await two.connection.execute(ORDERS)
    await two.runtime.activation.activate(ADMIN, BINDING)
    # Who still watches something of the first binding is not shown the third's.
    assert await two.connection.fetchval("select binding_id from shouyin.activation") == 3


async def test_back_to_a_former_table_and_on_to_a_third(two: Shop) -> None:
    paid = await pay(two, 1)
    await say(two, paid)
    await rebind(two)
    await say(two, await pay(two, 2))
    await rebind(two, replace(BINDING, paid_status="settled", owner_column=None))
    with pytest.raises(OrderAlreadyPaid):
        await pay(two, 1)
    back = await pay(two, 2)
    await say(two, back)
    assert (back.binding_id, back.owner) == (paid.binding_id, None)
    assert (await two.status_of(2), await state_of(two, 2)) == ("settled", "done")
    await two.connection.execute("create table public.third (id smallint primary key); insert into third values (1)")
    await rebind(two, Binding("third"))
    request = CreatePayment(1, PaymentMethod.ALIPAY_PAGE, 300, "Tea")
    third = await two.runtime.payments.create(STRANGER, request, correlation_id="c")
    await rebind(two)
    with pytest.raises(OrderAlreadyPaid):
        await pay(two, 2)
    assert third.binding_id == 3
    numbers = await two.connection.fetch("select binding_id, order_table::text from shouyin.binding order by 1")
    assert [tuple(row) for row in numbers] == [(1, "orders"), (2, "sales"), (3, "third")]
    triggers = "select tgrelid::regclass::text || ' ' || tgname from pg_trigger where tgname like 'shouyin%' order by 1"
    assert [row[0] for row in await two.connection.fetch(triggers)] == [
        "orders shouyin_refuse_truncate",
        "sales shouyin_announce_insert",
        "sales shouyin_announce_update",
        "sales shouyin_refuse_truncate",
        "third shouyin_refuse_truncate",
    ]


# --- beside others ------------------------------------------------------------------------------------------------

ALLOWED = {
    "opened": re.compile(r"opened|ORDER_ALREADY_PAID"),
    "refunded": re.compile(r"PROVIDER_UNAVAILABLE|REFUND_EXCEEDS_PAYMENT|PAYMENT_NOT_REFUNDABLE"),
    "notified": re.compile(r"200"),
    "read": re.compile(r"read"),
}


@pytest.mark.timeout(180)
async def test_beside_payments_refunds_notifications_and_readers(two: Shop, alipay_key: rsa.RSAPrivateKey) -> None:
    other = await two.open()
    await two.runtime.permissions.grant(ADMIN, "admin", "payment.refund", Reach("ALL"))
    paid = await pay(two, 1)
    await say(two, paid)
    done = asyncio.Event()
    seen: dict[str, list[str]] = {kind: [] for kind in ALLOWED}
    payments: list[Payment] = []

    async def act(kind: str, runtime: Runtime, number: int) -> str:
        if kind == "opened":
            payments.append(await pay(two, 2 + number % 4, runtime=runtime))
            return kind
        if kind == "refunded":
            await runtime.refunds.create(ADMIN, RefundPayment(paid.id, 1), correlation_id="c")
            return kind
        if kind == "read":
            order = await runtime.payments.find_order(BUYER, 1)
            both = await runtime.payments.orders_of_payments([(1, 1), (2, 1)])
            assert order in both.values()
            return kind
        body = signed_notice(alipay_key, out_trade_no=paid.out_trade_no, notify_id=f"n{number}")
        answer = await runtime.inbox.receive("alipay", paid.merchant_account_id, FORM, body, correlation_id="c")
        return str(answer.status_code)

    async def keep_on(kind: str, runtime: Runtime) -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                seen[kind].append(await act(kind, runtime, number))
            except ShouyinError as exc:
                seen[kind].append(exc.code)

    async def change_tables() -> None:
        for turn in range(10):
            await rebind(two, BINDING if turn % 2 else TO_SALES, (two.runtime, other)[turn % 2])
            before = len(payments)
            async with asyncio.timeout(20):
                while len(payments) < before + 3:
                    await asyncio.sleep(0.001)
        done.set()

    async with asyncio.TaskGroup() as group:
        for kind in ALLOWED:
            for runtime in (two.runtime, other):
                group.create_task(keep_on(kind, runtime))
        group.create_task(change_tables())
    for kind, words in seen.items():
        assert words
        assert all(ALLOWED[kind].fullmatch(word) for word in words), set(words)
    assert {payment.binding_id for payment in payments} == {1, 2}
    assert all(payment.amount_fen == {1: 1230, 2: 500}[payment.binding_id] for payment in payments)
    assert await two.count("former_binding") == 1
    assert await two.count("audit where action = 'payments.rebind'") == 10
    await two.settle()
    assert await two.connection.fetchval("select count(*) from shouyin.flow_run where status = 'FAILED'") == 0


async def test_two_at_once_leave_one_after_the_other(two: Shop) -> None:
    await two.connection.execute("create table public.third (id int primary key)")
    other = await two.open()
    outcomes = await asyncio.gather(
        rebind(two), rebind(two, runtime=other), rebind(two, Binding("third")), return_exceptions=True
    )
    assert all(outcome is None or isinstance(outcome, InvalidInput) for outcome in outcomes), outcomes
    bound = await two.connection.fetchval("select count(*) from shouyin.binding")
    assert bound == 3
    assert await two.count("activation") == 1


# --- a database of the release before -----------------------------------------------------------------------------


async def test_a_table_bound_before_this_release_stays_bound(
    empty_database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = db._migration_files()
    with monkeypatch.context() as patch:
        patch.setattr(db, "_migration_files", lambda: [file for file in files if file[0] < "0009"])
        await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute(f"""
      {ORDERS}; insert into orders (user_id, title, amount) values (7, 'Tea', 12.30), (7, 'Cake', 5);
      select shouyin.bind_order_table('orders', 'id', 'user_id', 'amount', false, 'status');
      insert into shouyin.activation (order_table, order_table_name, key_column, owner_column, amount_column,
        status_column, paid_status, plan, drop_guarded, activated_at)
      values ('orders', 'public.orders', 'id', 'user_id', 'amount', 'status', 'paid', 'pro', true, now());
      insert into shouyin.merchant_account (provider, mode, name, settings, created_at, updated_at)
      values ('ALIPAY', 'public_key', 'n', '{{}}', now(), now());
      insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, subject,
        out_trade_no, created_by, input_hash, expires_at, created_at, updated_at)
      select 1, '7', 1, 'ALIPAY', 'ALIPAY_PAGE', 1230, 'Tea', 'SY-old-' || n, '7', '', now(), now(), now()
      from generate_series(1, 2) n;
      alter table orders rename column id to number""")
    assert (await migrate(empty_database_url))[0] == "0009_rebinding"
    config = config_for(empty_database_url, redis_url, tmp_path)
    runtime = await open_runtime(config, realtime=False)
    order = await runtime.payments.find_order(BUYER, 1)
    assert order is not None
    assert (order.data["amount"], len(await runtime.payments.of_order(BUYER, 1))) == ("12.30", 2)
    await connection.execute("delete from orders where number = 2")
    for statement in ("delete from orders where number = 1", "drop table orders cascade"):
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute(statement)
    await connection.execute(SALES)
    assert (await runtime.activation.rebind(ADMIN, TO_SALES)).plan == "pro"
    numbers = await connection.fetch("select binding_id, order_table::text from shouyin.binding order by 1")
    assert [tuple(row) for row in numbers] == [(1, "orders"), (2, "sales")]
    await runtime.close()
    await connection.close()

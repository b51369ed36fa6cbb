"""Turning payments off: what stands in the way is named, what goes is written down first, and no crash leaves half."""

import asyncio
import csv
import io
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.activation.binding import Binding
from app.activation.permissions import Reach
from app.api.application import Application
from app.auth import issue_token
from app.errors import (
    ExportUnwritable,
    Forbidden,
    InvalidInput,
    NotFound,
    PaymentsNotActive,
    PaymentsUnresolved,
    ShouyinError,
)
from app.exports.archive import write_archive
from app.main import create_app
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, RefundReport, ReportedRefund, ReportedStatus
from app.refunds.actions import RefundPayment
from app.refunds.reports import apply_refund_report
from app.runtime import Runtime
from tests.fixtures.alipay import FORM, signed_notice
from tests.fixtures.crash import MORTAL, Died, Plan, mortal_parts
from tests.fixtures.shop import ADMIN, BINDING, BUYER, Shop
from tests.fixtures.web import serving

CLEARED = ("payment", "refund", "event", "flow_run", "notification", "difference", "merchant_account", "activation")
DEFAULTS = {
    ("*", action)
    for action in ("payment.create", "payment.close", "payment.sync", "cycle.start", "cycle.cancel", "cycle.pause")
}


# --- a shop with a past -------------------------------------------------------------------------------------------


async def pending(shop: Shop, runtime: Runtime | None = None, **order: Any) -> Payment:
    request = CreatePayment(await shop.order(**order), PaymentMethod.ALIPAY_PAGE, None, '+Tea, "green"')
    return await (runtime or shop.runtime).payments.create(BUYER, request, correlation_id="c")


async def say(shop: Shop, payment: Payment, status: ReportedStatus) -> None:
    """The provider's word about a payment, applied."""
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    fen = payment.amount_fen if status is ReportedStatus.SUCCESSFUL else None
    report = PaymentReport(payment.out_trade_no, status, "query", fen, transaction_id="T1")
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")


async def refunded(shop: Shop, payment: Payment, fen: int) -> None:
    """A refund that went through, although nobody answers at the gateway: a stranger's word stands in for it."""
    await shop.runtime.permissions.grant(ADMIN, "admin", "payment.refund", Reach("ALL"))
    with pytest.raises(ShouyinError):
        await shop.runtime.refunds.create(ADMIN, RefundPayment(payment.id, fen, "broken"), correlation_id="c")
    number = await shop.connection.fetchval("select max(out_refund_no) from shouyin.refund")
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    said = RefundReport(
        out_trade_no=payment.out_trade_no, out_refund_no=number, status=ReportedRefund.REFUNDED, source="query",
        amount_fen=fen,
    )  # fmt: skip
    await apply_refund_report(shop.runtime.db, shop.clock, account, said, correlation_id="c")


async def past(shop: Shop) -> list[Payment]:
    """One paid and partly refunded, one paid, one closed; all their flows done."""
    payments = [await pending(shop) for _ in range(3)]
    await say(shop, payments[0], ReportedStatus.SUCCESSFUL)
    await say(shop, payments[1], ReportedStatus.SUCCESSFUL)
    await say(shop, payments[2], ReportedStatus.CLOSED)
    await refunded(shop, payments[0], 230)
    await shop.settle()
    return payments


async def everything(shop: Shop) -> dict[str, list[Any]]:
    """All rows of our tables and the merchant's, but the audit and what is waiting to be announced."""
    orders = await shop.connection.fetchval("select order_table::text from shouyin.activation")
    tables = [f"shouyin.{name}" for name in (*CLEARED, "permission")] + [orders]
    return {table: await shop.connection.fetch(f"select * from {table} order by 1") for table in tables}


async def turn_off(shop: Shop, runtime: Runtime | None = None, confirm: str = "public.orders") -> None:
    await (runtime or shop.runtime).turning_off.turn_off(ADMIN, confirm, correlation_id="c-off", address="10.0.0.9")


def archives(shop: Shop) -> list[Path]:
    """Finished ones."""
    directory = shop.config.export_dir
    return sorted(path for path in directory.glob("*") if not path.name.startswith(".")) if directory.exists() else []


def lines_of(path: Path) -> list[list[str]]:
    text = path.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    return list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline="")))


async def assert_off(shop: Shop, orders: list[Any]) -> None:
    """Nothing of ours is left, and all of the merchant's."""
    assert {name: await shop.count(name) for name in CLEARED} == dict.fromkeys(CLEARED, 0)
    rows = await shop.connection.fetch("select role, action from shouyin.permission")
    assert {tuple(row) for row in rows} == DEFAULTS
    assert await shop.connection.fetch("select * from public.orders order by 1") == orders
    assert await shop.connection.fetchval("select count(*) from pg_trigger where tgname like 'shouyin%'") == 0
    assert await shop.connection.fetchval("select count(*) from pg_constraint where conname = 'payment_order'") == 0
    assert await shop.connection.fetchval("select count(*) from shouyin.bound_order") == 0
    feature = await shop.runtime.activation.feature()
    assert (feature.active, feature.order_table, feature.methods) == (False, None, ())


# --- the way out --------------------------------------------------------------------------------------------------


async def test_all_is_written_down_and_then_cleared(shop: Shop) -> None:
    payments = await past(shop)
    orders = (await everything(shop))["orders"]
    await turn_off(shop)
    await assert_off(shop, orders)
    (archive,) = archives(shop)
    assert re.fullmatch(r"public\.orders-\d{8}T\d{6}Z-\w{8}", archive.name)
    assert [path.name for path in sorted(archive.iterdir())] == [
        "cycle_payments.csv",
        "deductions.csv",
        "payments.csv",
        "refunds.csv",
    ]
    assert {path.stat().st_mode & 0o777 for path in archive.iterdir()} == {0o600}
    assert archive.stat().st_mode & 0o777 == 0o700
    head, *rows, total = lines_of(archive / "payments.csv")
    assert [row[head.index("id")] for row in rows] == [str(payment.id) for payment in payments]
    assert [row[head.index("status")] for row in rows] == ["PARTIALLY_REFUNDED", "SUCCESSFUL", "CLOSED"]
    assert {row[head.index("subject")] for row in rows} == {'\'+Tea, "green"'}
    amounts = [total[head.index(name)] for name in ("amount", "paid_amount", "refunded_amount")]
    assert (total[0], amounts) == ("total: 3 rows", ["36.90", "24.60", "2.30"])
    head, *rows, total = lines_of(archive / "refunds.csv")
    assert [(row[head.index("amount")], row[head.index("reason")]) for row in rows] == [("2.30", "broken")]
    assert (total[0], total[head.index("refunded_amount")]) == ("total: 1 row", "2.30")
    audit = await shop.connection.fetchrow("select * from shouyin.audit order by id desc limit 1")
    assert audit is not None
    told = [audit[name] for name in ("actor", "action", "subject", "address", "correlation_id")]
    assert told == ["root", "payments.deactivate", "public.orders", "10.0.0.9", "c-off"]
    details = audit["details"]
    assert str(archive) in details
    assert '"paid_amount": "24.60"' in details


async def test_afterwards_another_table_is_bound_and_numbers_go_on(
    shop: Shop, account_fields: Mapping[str, str]
) -> None:
    payments = await past(shop)
    old_account = payments[0].merchant_account_id
    await turn_off(shop)
    await shop.connection.execute("drop table public.orders")
    await shop.connection.execute(
        "create type state as enum ('new', 'done');"
        "create table public.sales (no int primary key generated always as identity, buyer text, fen int,"
        " state state not null default 'new'); insert into sales (buyer, fen) values ('7', 500)"
    )
    binding = Binding("sales", "buyer", "fen", amount_in_fen=True, status_column="state", paid_status="done")
    assert (await shop.runtime.activation.activate(ADMIN, binding)).order_table == "public.sales"
    account = await shop.runtime.accounts.create(
        ADMIN, provider="ALIPAY", mode="public_key", name="n", fields=account_fields
    )
    assert account.id > old_account
    request = CreatePayment(1, PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    assert payment.id > payments[-1].id
    assert payment.amount_fen == 500
    with pytest.raises(asyncpg.PostgresError, match="cannot be dropped"):
        await shop.connection.execute("drop table sales cascade")
    with pytest.raises(asyncpg.PostgresError, match="cannot be truncated"):
        await shop.connection.execute("truncate shouyin.payment cascade")


async def test_a_process_that_hears_of_it_works_with_the_next_table(
    shop: Shop, account_fields: Mapping[str, str]
) -> None:
    """Its statements were prepared for a text column; the next table has an enum."""
    other = await shop.open(realtime=True)
    payment = await pending(shop, other)
    await say(shop, payment, ReportedStatus.SUCCESSFUL)
    await shop.settle(other)
    assert await shop.status_of(payment.order_id) == "paid"
    await other.accounts.open(payment.merchant_account_id)
    heard = asyncio.Event()
    other.realtime.on_change("activation", lambda _: heard.set())
    heard.clear()
    await turn_off(shop)
    async with asyncio.timeout(10):
        await heard.wait()
    with pytest.raises(NotFound):
        await other.accounts.open(payment.merchant_account_id)
    await shop.connection.execute(
        "create type state as enum ('new', 'done'); create table public.sales (id int primary key, state state);"
        "insert into sales values (1, 'new')"
    )
    await other.activation.activate(ADMIN, Binding("sales", status_column="state", paid_status="done"))
    await other.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="n", fields=account_fields)
    request = CreatePayment(1, PaymentMethod.ALIPAY_PAGE, 500, "Tea")
    await say(shop, await other.payments.create(BUYER, request, correlation_id="c"), ReportedStatus.SUCCESSFUL)
    await shop.settle(other)
    assert await shop.connection.fetchval("select state::text from sales") == "done"


# --- what is refused ----------------------------------------------------------------------------------------------


async def assert_refused(shop: Shop, error: type[ShouyinError], **asked: Any) -> ShouyinError:
    """Turning off is refused, and nothing changed: no row, no archive, no entry in the audit log."""
    before = await everything(shop), await shop.count("audit"), archives(shop)
    with pytest.raises(error) as refused:
        await turn_off(shop, **asked)
    assert (await everything(shop), await shop.count("audit"), archives(shop)) == before
    assert (await shop.runtime.activation.feature()).active
    return refused.value


async def test_only_an_administrator_turns_off(shop: Shop) -> None:
    with pytest.raises(Forbidden):
        await shop.runtime.turning_off.turn_off(BUYER, "public.orders")
    assert (await shop.runtime.activation.feature()).active


@pytest.mark.parametrize("confirm", ["", "yes", "order", "PUBLIC.ORDERS", "shop.orders", " public.orders"])
async def test_another_name_than_the_table_s_confirms_nothing(shop: Shop, confirm: str) -> None:
    refused = await assert_refused(shop, InvalidInput, confirm=confirm)
    assert refused.field == "confirm"
    assert "public.orders" in refused.message


@pytest.mark.parametrize("confirm", ["orders", "public.orders"])
async def test_the_table_s_name_confirms(shop: Shop, confirm: str) -> None:
    await turn_off(shop, confirm=confirm)
    assert not (await shop.runtime.activation.feature()).active


async def test_a_name_that_two_tables_have_needs_its_schema(shop: Shop) -> None:
    await shop.connection.execute("create schema other; create table other.orders (id int primary key)")
    await assert_refused(shop, InvalidInput, confirm="orders")
    await turn_off(shop, confirm="public.orders")


async def test_a_renamed_table_is_confirmed_by_either_name(shop: Shop) -> None:
    await shop.connection.execute('alter table orders rename to "Sales 2026"')
    await assert_refused(shop, InvalidInput, confirm="orders")
    await turn_off(shop, confirm="Sales 2026")
    assert not (await shop.runtime.activation.feature()).active


UNRESOLVED = {
    "payments": "update shouyin.payment set status = 'PENDING' where id = 3",
    "payments being asked about": "update shouyin.payment set check_at = now() where id = 3",
    "refunds": "update shouyin.refund set check_at = now()",
    "notifications": "insert into shouyin.notification (provider, merchant_account_id, event_key, report, body, "
    "received_at, due_at) values ('ALIPAY', 1, 'k', '{}', '', now(), '-infinity')",
    "events": "update shouyin.event set dispatched_at = null where id = 1",
    "flowRuns": "update shouyin.flow_run set status = 'WAITING' where id = 1",
}


@pytest.mark.parametrize("kind", UNRESOLVED)
async def test_what_has_no_end_yet_is_named(shop: Shop, kind: str) -> None:
    await past(shop)
    await shop.connection.execute(UNRESOLVED[kind])
    refused = await assert_refused(shop, PaymentsUnresolved)
    found = refused.extra["unresolved"]
    kind = kind.split()[0]
    assert found.keys() == {kind}
    assert found[kind]["count"] == 1
    assert f"({found[kind]['oldest'][0]['id']})" in refused.message
    assert refused.extensions()["code"] == "PAYMENTS_UNRESOLVED"


async def test_many_are_counted_and_the_oldest_named(shop: Shop) -> None:
    payments = [await pending(shop) for _ in range(7)]
    refused = await assert_refused(shop, PaymentsUnresolved)
    found = refused.extra["unresolved"]["payments"]
    assert found["count"] == 7
    assert found["oldest"][0] == {"id": "1", "outTradeNo": payments[0].out_trade_no, "status": "PENDING"}
    assert "payments: 7 (1, 2, 3, 4, 5, …)" in refused.message


async def test_without_an_archive_nothing_is_cleared(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await past(shop)
    shop.config.export_dir.parent.mkdir(exist_ok=True)
    shop.config.export_dir.write_text("a file in its place")
    refused = await assert_refused(shop, ExportUnwritable)
    assert refused.message.startswith("EXPORT_DIR: ")
    shop.config.export_dir.unlink()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused = await assert_refused(shop, ExportUnwritable)
    assert "No space left on device" in refused.message
    assert list(shop.config.export_dir.iterdir()) == []


async def test_a_table_that_somebody_holds_is_left_alone(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.activation.turning_off._HOLD_ATTEMPTS", 2)
    await past(shop)
    for table in ("public.orders", "shouyin.flow_run"):
        before = await everything(shop)
        async with shop.connection.transaction():
            await shop.connection.execute(f"lock table {table} in share mode")
            with pytest.raises(PaymentsUnresolved) as refused:
                await turn_off(shop)
        assert refused.value.extra == {"unresolved": {}}
        assert await everything(shop) == before
    await turn_off(shop)


async def test_the_api_names_what_stands_in_the_way_and_then_turns_off(shop: Shop) -> None:
    payment = await pending(shop)
    app = create_app(replace(shop.config, shutdown_grace_s=0.1), clock=shop.clock)
    token = issue_token(shop.config, "root", ("admin",), ttl=timedelta(hours=1), clock=shop.clock)
    off = 'mutation { deactivatePayments(confirm: "orders") { active orderTable plan methods } }'
    async with serving(app) as origin, httpx.AsyncClient(trust_env=False) as http:

        async def ask() -> Any:
            headers = {"authorization": f"Bearer {token}", "x-correlation-id": "c-turning-off"}
            return (await http.post(f"{origin}/graphql", json={"query": off}, headers=headers)).json()

        (error,) = (await ask())["errors"]
        oldest = {"id": str(payment.id), "outTradeNo": payment.out_trade_no, "status": "PENDING"}
        assert error["extensions"] == {
            "code": "PAYMENTS_UNRESOLVED",
            "messageZh": "还有未完结的记录（1 笔支付、2 个待分发事件），暂不能关闭支付",
            "unresolved": {
                "payments": {"count": 1, "oldest": [oldest]},
                "events": {
                    "count": 2,
                    "oldest": [{"id": "1", "kind": "payment.created"}, {"id": "2", "kind": "payment.pending"}],
                },
            },
        }
        await say(shop, payment, ReportedStatus.CLOSED)
        await shop.settle()
        turned_off: dict[str, Any] = {"active": False, "orderTable": None, "plan": None, "methods": []}
        assert await ask() == {"data": {"deactivatePayments": turned_off}}
        assert await ask() == {"data": {"deactivatePayments": turned_off}}
    told = await shop.connection.fetch(
        "select actor, address, correlation_id from shouyin.audit where action = 'payments.deactivate'"
    )
    assert [tuple(row) for row in told] == [("root", "127.0.0.1", "c-turning-off")]


# --- twice, beside others, and halfway ----------------------------------------------------------------------------


async def test_it_is_safe_to_repeat(shop: Shop) -> None:
    await past(shop)
    other = await shop.open()
    await asyncio.gather(*(turn_off(shop, runtime) for runtime in (shop.runtime, other) * 2))
    await turn_off(shop)
    count = "select count(*) from shouyin.audit where action = 'payments.deactivate'"
    assert await shop.connection.fetchval(count) == 1
    assert not (await shop.runtime.activation.feature()).active


async def test_what_came_while_the_archive_was_written_is_in_the_next(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await past(shop)
    came = iter((True, False))

    async def written(*args: Any) -> Any:
        archive = await write_archive(*args)
        if next(came):
            await say(shop, await pending(shop), ReportedStatus.CLOSED)
            await shop.settle()
        return archive

    monkeypatch.setattr("app.activation.turning_off.write_archive", written)
    await turn_off(shop)
    counted = [lines_of(path / "payments.csv")[-1][0] for path in archives(shop)]
    assert sorted(counted) == ["total: 3 rows", "total: 4 rows"]
    details = await shop.connection.fetchval("select details from shouyin.audit order by id desc limit 1")
    assert '"rows": 4' in details


async def test_a_payment_that_came_meanwhile_stops_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def written(*args: Any) -> Any:
        archive = await write_archive(*args)
        await pending(shop)
        return archive

    monkeypatch.setattr("app.activation.turning_off.write_archive", written)
    with pytest.raises(PaymentsUnresolved, match=r"payments: 1 \(1\)"):
        await turn_off(shop)
    assert (await shop.count("payment"), await shop.count("merchant_account")) == (1, 1)


class TestCrashes:
    """Every point at which the process may end: around the commit, and around each step on the disk."""

    pytestmark = MORTAL

    @pytest.mark.parametrize("side", ["before", "after"])
    async def test_around_the_commit(self, shop: Shop, side: str) -> None:
        await past(shop)
        before = await everything(shop)
        plan = Plan(die_at=("commit", 1, side))
        database, http = await mortal_parts(shop.config.database_url, plan)
        mortal = await shop.open(database=database, http=http)
        with pytest.raises(Died):
            await turn_off(shop, mortal)
        assert len(archives(shop)) == 1
        if side == "before":
            assert await everything(shop) == before
            await turn_off(shop)
        await assert_off(shop, before["orders"])
        assert plan.passed == {"commit": 1}
        await http.aclose()
        await database.pool.close()

    @pytest.mark.parametrize("side", ["before", "after"])
    @pytest.mark.parametrize("step", range(1, 6))
    async def test_around_each_step_on_the_disk(
        self, shop: Shop, monkeypatch: pytest.MonkeyPatch, step: int, side: str
    ) -> None:
        await past(shop)
        before = await everything(shop)
        plan = Plan(die_at=("disk", step, side))

        def mortal(act: Any) -> Any:
            def acting(*args: Any) -> Any:
                number = plan.begin("disk")
                result = act(*args)
                plan.end("disk", number)
                return result

            return acting

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", mortal(os.fsync))
            patch.setattr(Path, "rename", mortal(Path.rename))
            with pytest.raises(Died):
                await turn_off(shop)
        assert await everything(shop) == before
        # Under its own name there is a whole archive, or none.
        for archive in archives(shop):
            assert lines_of(archive / "payments.csv")[-1][0] == "total: 3 rows"
        await turn_off(shop)
        await assert_off(shop, before["orders"])


# --- racing -------------------------------------------------------------------------------------------------------


@pytest.fixture
def alipay_key(rsa_keys: tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]) -> rsa.RSAPrivateKey:
    """Alipay's own: what it signs notices with."""
    return rsa_keys[1]


@pytest.mark.parametrize("cached", [True, False])
async def test_a_late_notification_is_for_nobody(shop: Shop, alipay_key: rsa.RSAPrivateKey, cached: bool) -> None:
    payments = await past(shop)
    app: Application = create_app(replace(shop.config, shutdown_grace_s=0.1), clock=shop.clock)
    notice = signed_notice(alipay_key, out_trade_no=payments[2].out_trade_no)
    async with serving(app) as origin, httpx.AsyncClient(trust_env=False) as http:
        address = f"{origin}/notify/alipay/{payments[2].merchant_account_id}"
        if cached:
            again = signed_notice(alipay_key, out_trade_no=payments[1].out_trade_no, notify_id="n1")
            assert (await http.post(address, content=again, headers=FORM)).text == "success"
            await shop.settle()
        await turn_off(shop)
        answers = [await http.post(address, content=notice, headers=FORM) for _ in range(3)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(404, "no such merchant account")] * 3
    assert (await shop.count("notification"), await shop.count("difference"), await shop.count("event")) == (0, 0, 0)


async def create_beside(runtime: Runtime, paid: Payment, delay: float) -> str:
    await asyncio.sleep(delay)
    request = CreatePayment(paid.order_id + 1, PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await runtime.payments.create(BUYER, request, correlation_id="c")
    return f"opened {payment.id}"


async def refund_beside(runtime: Runtime, paid: Payment, delay: float) -> str:
    await asyncio.sleep(delay)
    await runtime.refunds.create(ADMIN, RefundPayment(paid.id, 1), correlation_id="c")
    return "refunded"


async def notify_beside(runtime: Runtime, paid: Payment, delay: float, *, key: rsa.RSAPrivateKey) -> str:
    await asyncio.sleep(delay)
    body = signed_notice(key, out_trade_no=paid.out_trade_no, notify_id=f"n{delay}")
    answer = await runtime.inbox.receive("alipay", paid.merchant_account_id, FORM, body, correlation_id="c")
    return f"acknowledged {answer.status_code}"


async def outcome_of(act: Any) -> str:
    """What became of an act: its word, or the code it was refused with. Anything else escapes and fails the test."""
    try:
        return str(await act)
    except ShouyinError as exc:
        return exc.code


ALLOWED = {
    "create": re.compile(r"opened \d+|PAYMENTS_NOT_ACTIVE"),
    "refund": re.compile("PROVIDER_UNAVAILABLE|PAYMENTS_NOT_ACTIVE|NOT_FOUND|FORBIDDEN"),
    "notify": re.compile("acknowledged 200|NOT_FOUND"),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ALLOWED)
async def test_beside_others_it_is_all_or_nothing(
    shop: Shop, alipay_key: rsa.RSAPrivateKey, account_fields: Mapping[str, str], kind: str
) -> None:
    other = await shop.open()
    seen = set()
    for round_ in range(12):
        await shop.runtime.permissions.grant(ADMIN, "admin", "payment.refund", Reach("ALL"))
        paid = await pending(shop)
        await say(shop, paid, ReportedStatus.SUCCESSFUL)
        await shop.settle()
        assert await shop.order() == paid.order_id + 1
        acts: dict[str, Any] = {
            "create": create_beside,
            "refund": refund_beside,
            "notify": partial(notify_beside, key=alipay_key),
        }
        turning = turn_off(shop)
        beside = [acts[kind]((other, shop.runtime)[n % 2], paid, (round_ + n) * 0.004) for n in range(4)]
        off, *became = await asyncio.gather(*(outcome_of(act) for act in (turning, *beside)))
        assert off in ("None", "PAYMENTS_UNRESOLVED")
        assert all(ALLOWED[kind].fullmatch(word) for word in became), became
        seen |= {off, *became}
        if (await shop.runtime.activation.feature()).active:
            assert off == "PAYMENTS_UNRESOLVED"
            assert await shop.count("payment") > 0
            opened = [int(word.split()[1]) for word in became if word.startswith("opened")]
            found = await shop.connection.fetch("select id from shouyin.payment where id = any($1)", opened)
            assert len(found) == len(opened)
            await shop.connection.execute(
                "update shouyin.payment set status = 'CLOSED', check_at = null where status in ('CREATED', 'PENDING')"
            )
            await shop.settle()
            await turn_off(shop)
        else:
            assert not [word for word in became if word.startswith("opened")]
        await assert_off(shop, await shop.connection.fetch("select * from public.orders order by 1"))
        await shop.runtime.activation.activate(ADMIN, BINDING)
        await shop.runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="n", fields=account_fields)
    assert len(seen) >= 2, seen


async def test_without_a_table_everything_is_refused_as_before(shop: Shop) -> None:
    payments = await past(shop)
    await turn_off(shop)
    with pytest.raises(PaymentsNotActive):
        await pending(shop)
    with pytest.raises(NotFound):
        await shop.runtime.refunds.create(ADMIN, RefundPayment(payments[0].id, 1), correlation_id="c")
    assert await shop.runtime.payments.find(ADMIN, payments[0].id) is None
    assert await shop.runtime.payments.find_order(ADMIN, payments[0].order_id) is None
    await shop.connection.execute("truncate public.orders")
    await shop.connection.execute("drop table public.orders")

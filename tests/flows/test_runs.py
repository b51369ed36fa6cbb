"""Flows: what they receive, exactly-once effects, retries, and an operator's second try."""

import asyncio
import contextlib
import sys
import types
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import structlog

from app.config import ConfigError
from app.errors import Forbidden, InvalidInput, NotFound
from app.flows.registry import load_flows
from app.flows.results import PaymentResult, PlanResult
from app.flows.runs import FlowRun
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, ReportedStatus
from app.runtime import Runtime
from tests.fixtures.flows import Install
from tests.fixtures.shop import ADMIN, BUYER, Shop


async def paid(shop: Shop, *, amount_fen: int = 1230, order_id: int | None = None) -> Payment:
    """A payment its provider reports as paid."""
    request = CreatePayment(order_id or await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c-9")
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    report = PaymentReport(
        payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=amount_fen, transaction_id="T1"
    )
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c-9")
    return payment


async def test_a_flow_receives_the_four_values_and_the_amounts(shop: Shop, flows: Install) -> None:
    seen: list[PaymentResult] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append(result)

    worker = await flows(on_payment)
    payment = await paid(shop)
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    again = PaymentReport(payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230)
    await apply_payment_report(shop.runtime.db, shop.clock, account, again, correlation_id="c-10")
    await shop.settle(worker)
    seen.sort(key=lambda result: result.event_id)  # runs of one batch go side by side
    assert [(r.order_id, r.payment_found, r.payment_status, r.already_processed) for r in seen] == [
        (payment.order_id, True, "SUCCESSFUL", False),
        (payment.order_id, True, "SUCCESSFUL", True),
    ]
    first = seen[0]
    assert (first.amount_fen, first.paid_amount_fen, first.order_amount_fen, first.amount_matches) == (
        1230,
        1230,
        1230,
        True,
    )
    assert (first.transaction_id, first.correlation_id, first.method) == ("T1", "c-9", "ALIPAY_PAGE")
    assert first.as_json()["paidAmount"] == "12.30"


async def test_the_plan_s_end_reaches_its_flow_and_no_other(shop: Shop, flows: Install) -> None:
    seen: list[object] = []

    async def on_plan(result: PlanResult, connection: Any) -> None:
        seen.append((result.plan, result.days, result.expires_at))

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append(result)

    worker = await flows(on_plan, on_payment)
    end = shop.clock.now() + timedelta(days=6)
    await shop.runtime.plan.set(ADMIN, "pro", end)
    await worker.plan.warn()
    await shop.settle(worker)
    assert seen == [("pro", 7, end)]


async def test_an_order_whose_amount_changed_meanwhile_is_not_marked_paid(shop: Shop, flows: Install) -> None:
    seen: list[bool] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append(result.amount_matches)

    worker = await flows(on_payment)
    payment = await paid(shop)
    await shop.connection.execute("update orders set amount = 99 where id = $1", payment.order_id)
    await shop.settle(worker)
    assert (seen, await shop.status_of(payment.order_id)) == ([False], "unpaid")


async def test_a_number_that_is_not_ours_reaches_the_flow_as_not_found(shop: Shop, flows: Install) -> None:
    seen: list[tuple[Any, ...]] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append((result.order_id, result.payment_found, result.out_trade_no, result.amount_matches))

    worker = await flows(on_payment)
    account = await shop.runtime.accounts.open(1)
    report = PaymentReport("SY-NOT-OURS", ReportedStatus.SUCCESSFUL, "notification", amount_fen=1)
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id=None)
    await shop.settle(worker)
    assert seen == [(None, False, "SY-NOT-OURS", False)]


async def test_effects_happen_once_however_many_workers_run(shop: Shop, flows: Install) -> None:
    await shop.connection.execute("create table public.points (order_id bigint, n int)")

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        if not result.already_processed:
            await connection.execute("insert into public.points values ($1, 1)", result.order_id)

    workers = [await flows(on_payment), await shop.open(), await shop.open()]
    for _ in range(10):
        await paid(shop)
    await asyncio.gather(*(shop.settle(worker) for worker in workers * 3))
    assert await shop.connection.fetchval("select count(*) from public.points") == 10
    assert await shop.connection.fetchval("select count(distinct order_id) from public.points") == 10


async def test_what_raises_is_rolled_back_kept_and_tried_again(shop: Shop, flows: Install) -> None:
    await shop.connection.execute("create table public.points (order_id bigint)")
    broken = True

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        await connection.execute("insert into public.points values ($1)", result.order_id)
        if broken:
            raise RuntimeError("the stock is empty")

    worker = await flows(on_payment)
    payment = await paid(shop)
    await shop.settle(worker)
    runs = await worker.flows.runs(ADMIN, status=None, payment_id=payment.id, limit=10, before_id=None)
    failed = next(run for run in runs if run.flow == "on_payment")
    assert (failed.status, failed.attempts, "RuntimeError: the stock is empty" in (failed.error or "")) == (
        "WAITING",
        1,
        True,
    )
    assert await shop.connection.fetchval("select count(*) from public.points") == 0
    assert await shop.status_of(payment.order_id) == "paid"  # the built-in flow is a run of its own
    broken = False
    await shop.settle(worker)
    assert await shop.connection.fetchval("select count(*) from public.points") == 0  # not before its time
    shop.clock.advance(timedelta(seconds=6))
    await shop.settle(worker)
    assert await shop.connection.fetchval("select count(*) from public.points") == 1


async def test_a_flow_that_never_works_is_left_to_an_operator(shop: Shop, flows: Install) -> None:
    tries: list[int] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        tries.append(result.event_id)
        if len(tries) <= 3:
            raise RuntimeError("no")

    worker = await flows(on_payment, flow_attempts=3)
    await paid(shop)
    for _ in range(6):
        await shop.settle(worker)
        shop.clock.advance(timedelta(hours=2))
    [run] = await worker.flows.runs(ADMIN, status="FAILED", payment_id=None, limit=10, before_id=None)
    assert (len(tries), run.attempts, run.due_at) == (3, 3, None)
    again = await worker.flows.retry(ADMIN, run.id, correlation_id="c-op", address="127.0.0.1")
    assert (again.status, again.attempts) == ("WAITING", 0)
    await shop.settle(worker)
    [run] = await worker.flows.runs(ADMIN, status="DONE", payment_id=None, limit=1, before_id=again.id + 1)
    assert (run.id, len(tries)) == (again.id, 4)
    with pytest.raises(InvalidInput):
        await worker.flows.retry(ADMIN, run.id)
    assert await shop.connection.fetchval("select action from shouyin.audit order by id desc limit 1") == "flow.retry"


async def test_a_flow_that_hangs_is_ended_and_tried_again(shop: Shop, flows: Install) -> None:
    async def on_payment(result: PaymentResult, connection: Any) -> None:
        await asyncio.Event().wait()

    worker = await flows(on_payment, flow_timeout_s=0.2)
    await paid(shop)
    await shop.settle(worker)
    runs = await worker.flows.runs(ADMIN, status="WAITING", payment_id=None, limit=10, before_id=None)
    assert ["TimeoutError" in (run.error or "") for run in runs] == [True]


async def test_session_state_a_flow_leaves_behind_does_not_reach_the_next(shop: Shop, flows: Install) -> None:
    seen: list[str] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append(await connection.fetchval("select current_setting('shouyin.test', true)"))
        await connection.execute("select set_config('shouyin.test', 'left behind', false)")

    worker = await flows(on_payment)
    for _ in range(4):
        await paid(shop)
        await shop.settle(worker)
    assert {value or "" for value in seen} == {""}


async def test_only_administrators_see_and_repeat_runs(shop: Shop) -> None:
    with pytest.raises(Forbidden):
        await shop.runtime.flows.runs(BUYER, status=None, payment_id=None, limit=1, before_id=None)
    with pytest.raises(Forbidden):
        await shop.runtime.flows.retry(BUYER, 1)
    with pytest.raises(NotFound):
        await shop.runtime.flows.retry(ADMIN, 12345)
    with pytest.raises(InvalidInput):
        await shop.runtime.flows.runs(ADMIN, status="NEW", payment_id=None, limit=1, before_id=None)


@pytest.mark.parametrize(
    ("functions", "words"),
    [
        ("def on_payment(result, connection): ...", "write async def on_payment"),
        ("async def on_payment(result): ...", "write async def on_payment(result, connection)"),
        ("async def on_refunded(result, connection): ...", "belongs to no trigger"),
        ("x = 1", "has no flow"),
    ],
)
def test_a_wrong_flows_module_stops_the_start_with_one_line(
    functions: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("wrong_flows")
    exec(functions, vars(module))
    monkeypatch.setitem(sys.modules, "wrong_flows", module)
    with pytest.raises(ConfigError, match=r"^FLOWS: ") as stopped:
        load_flows("wrong_flows")
    assert words in str(stopped.value)


def test_a_missing_flows_module_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^FLOWS: the module .no_such_module. cannot"):
        load_flows("no_such_module")


async def run_of(worker: Runtime, flow: str = "on_payment") -> FlowRun:
    """The newest run of a flow."""
    runs = await worker.flows.runs(ADMIN, status=None, payment_id=None, limit=100, before_id=None)
    return next(run for run in runs if run.flow == flow)


async def test_a_flow_that_commits_by_itself_is_not_tried_again(shop: Shop, flows: Install) -> None:
    """What it did stands, and nobody can tell how much of it: trying again would do it twice."""
    await shop.connection.execute("create table public.points (order_id bigint)")
    ending = "commit"

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        await connection.execute("insert into public.points values ($1)", result.order_id)
        await connection.execute(ending)

    worker = await flows(on_payment)
    for words in ("commit", "commit; begin", "rollback; begin"):
        ending = words
        await paid(shop)
        for _ in range(3):
            await shop.settle(worker)
            shop.clock.advance(timedelta(hours=2))
        run = await run_of(worker)
        assert (run.status, run.attempts, "ended the transaction" in (run.error or "")) == ("FAILED", 1, True)
    assert await shop.connection.fetchval("select count(*) from public.points") == 2


async def test_a_flow_that_swallows_a_failed_statement_is_rolled_back_and_tried_again(
    shop: Shop, flows: Install
) -> None:
    await shop.connection.execute("create table public.points (order_id bigint)")
    broken = True

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        await connection.execute("insert into public.points values ($1)", result.order_id)
        if broken:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute("select 1/0")

    worker = await flows(on_payment)
    await paid(shop)
    await shop.settle(worker)
    run = await run_of(worker)
    assert (run.status, "current transaction is aborted" in (run.error or "")) == ("WAITING", True)
    assert await shop.connection.fetchval("select count(*) from public.points") == 0
    broken = False
    shop.clock.advance(timedelta(minutes=1))
    await shop.settle(worker)
    assert await shop.connection.fetchval("select count(*) from public.points") == 1


async def test_a_savepoint_of_the_flow_s_own_is_its_own_affair(shop: Shop, flows: Install) -> None:
    await shop.connection.execute("create table public.points (order_id bigint)")

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        with contextlib.suppress(asyncpg.PostgresError):
            async with connection.transaction():
                await connection.execute("select 1/0")
        async with connection.transaction():
            await connection.execute("insert into public.points values ($1)", result.order_id)

    worker = await flows(on_payment)
    await paid(shop)
    await shop.settle(worker)
    assert (await run_of(worker)).status == "DONE"
    assert await shop.connection.fetchval("select count(*) from public.points") == 1


async def test_a_flow_that_hangs_is_stopped_and_leaves_nothing(shop: Shop, flows: Install) -> None:
    await shop.connection.execute("create table public.points (order_id bigint)")

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        await connection.execute("insert into public.points values ($1)", result.order_id)
        await connection.execute("select pg_sleep(60)")

    worker = await flows(on_payment, flow_timeout_s=0.2)
    payment = await paid(shop)
    await shop.settle(worker)
    run = await run_of(worker)
    assert (run.status, "TimeoutError" in (run.error or "")) == ("WAITING", True)
    assert await shop.connection.fetchval("select count(*) from public.points") == 0
    assert await shop.status_of(payment.order_id) == "paid"


async def test_whatever_words_a_flow_fails_with_are_kept(shop: Shop, flows: Install) -> None:
    """PostgreSQL takes no zero byte and no half of a character: the run would have failed unseen and for ever."""

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        raise ValueError("zero \x00 half \ud800")

    worker = await flows(on_payment, flow_attempts=1)
    await paid(shop)
    await shop.settle(worker)
    run = await run_of(worker)
    assert (run.status, (run.error or "").rstrip().endswith("zero \ufffd half ?")) == ("FAILED", True)


async def test_a_hundred_attempts_are_possible(shop: Shop, flows: Install) -> None:
    async def on_payment(result: PaymentResult, connection: Any) -> None:
        raise ValueError("no")

    worker = await flows(on_payment, flow_attempts=100)
    await paid(shop)
    await worker.flows.dispatch()
    await shop.connection.execute("update shouyin.flow_run set attempts = 90")
    await shop.settle(worker)
    run = await run_of(worker)
    assert (run.status, run.attempts) == ("WAITING", 91)
    assert run.due_at is not None
    assert timedelta(minutes=59) < run.due_at - shop.clock.now() <= timedelta(hours=1)


async def test_a_flow_that_ends_its_worker_each_time_is_given_up(shop: Shop, flows: Install) -> None:
    async def on_payment(result: PaymentResult, connection: Any) -> None:
        raise AssertionError("it would end this worker, too")

    worker = await flows(on_payment, flow_attempts=3)
    await paid(shop)
    await worker.flows.dispatch()
    await shop.connection.execute("update shouyin.flow_run set attempts = 3 where flow = 'on_payment'")
    await shop.settle(worker)
    run = await run_of(worker)
    assert (run.status, "its workers ended" in (run.error or "")) == ("FAILED", True)


async def test_a_traceback_is_for_administrators_and_not_for_the_log(shop: Shop, flows: Install) -> None:
    async def on_payment(result: PaymentResult, connection: Any) -> None:
        raise ValueError("13800138000 of Ms. Li")

    worker = await flows(on_payment)
    await paid(shop)
    with structlog.testing.capture_logs() as lines:
        await shop.settle(worker)
    [line] = [line for line in lines if line["event"] == "flow.failed"]
    assert (line["error"], line["run_id"]) == ("ValueError", (await run_of(worker)).id)
    assert "exc_info" not in line
    assert "13800138000" not in str(lines)


async def test_a_surplus_payment_leaves_the_order_as_it_is_and_says_so(shop: Shop, flows: Install) -> None:
    seen: list[bool] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append(result.surplus)

    worker = await flows(on_payment)
    order_id = await shop.order()
    requests = [CreatePayment(order_id, PaymentMethod.ALIPAY_PAGE, None, "Tea") for _ in range(2)]
    payments = [await shop.runtime.payments.create(BUYER, request, correlation_id="c") for request in requests]
    for payment in payments:
        account = await shop.runtime.accounts.open(payment.merchant_account_id)
        report = PaymentReport(payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230)
        await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
        await shop.settle(worker)
        await shop.connection.execute("update orders set status = 'shipped' where status = 'paid'")
    assert seen == [False, True]
    assert await shop.status_of(order_id) == "shipped"


async def test_money_that_went_back_before_we_heard_of_it_pays_nothing(shop: Shop, flows: Install) -> None:
    """The notice was lost, and the merchant refunded at the provider: its first word here is "paid and refunded"."""
    seen: list[tuple[Any, ...]] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append((result.payment_status, result.paid_amount_fen, result.amount_matches))

    worker = await flows(on_payment)
    request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    report = PaymentReport(
        payment.out_trade_no,
        ReportedStatus.SUCCESSFUL,
        "query",
        amount_fen=1230,
        transaction_id="T1",
        refunded_fen=1230,
    )
    await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
    await shop.settle(worker)
    found = await shop.runtime.payments.find(BUYER, payment.id)
    assert found is not None
    assert (found.api_status, found.refunded_amount_fen) == ("REFUNDED", 1230)
    assert seen == [("SUCCESSFUL", 1230, False)]
    assert await shop.status_of(payment.order_id) == "unpaid"


@pytest.mark.parametrize("amount", ["null", "'NaN'"])
async def test_an_order_that_lost_its_amount_does_not_match(shop: Shop, flows: Install, amount: str) -> None:
    seen: list[tuple[Any, ...]] = []

    async def on_payment(result: PaymentResult, connection: Any) -> None:
        seen.append((result.order_amount_fen, result.amount_matches))

    worker = await flows(on_payment)
    payment = await paid(shop)
    await shop.connection.execute("alter table orders alter column amount drop not null")
    await shop.connection.execute(f"update orders set amount = {amount}")
    await shop.settle(worker)
    assert (seen, await shop.status_of(payment.order_id)) == ([(None, False)], "unpaid")

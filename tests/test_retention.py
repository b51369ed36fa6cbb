"""What is kept and what is forgotten: finished and old goes, in batches; payments and what waits for somebody stay."""

from datetime import timedelta

import pytest

from app.payments.actions import CreatePayment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, ReportedStatus
from app.retention import forget_old_rows
from tests.fixtures.shop import BUYER, Shop

KEPT = timedelta(days=400)
TABLES = ("notification", "event", "flow_run", "difference", "payment", "audit")


async def grown(shop: Shop) -> None:
    """A paid payment, a handled notification and a difference."""
    request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    for number in (payment.out_trade_no, "SY-NOT-OURS"):
        report = PaymentReport(number, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230)
        await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
    await shop.connection.execute(
        "insert into shouyin.notification (provider, merchant_account_id, event_key, report, body, received_at)"
        " values ('ALIPAY', 1, gen_random_uuid()::text, '{}', 'x', $1)",
        shop.clock.now(),
    )
    await shop.settle()


async def counts(shop: Shop) -> dict[str, int]:
    return {table: await shop.count(table) for table in TABLES}


async def test_what_is_finished_and_old_goes_and_payments_stay(shop: Shop) -> None:
    await grown(shop)
    before = await counts(shop)
    assert all(before.values())
    shop.clock.advance(KEPT - timedelta(days=1))
    assert await forget_old_rows(shop.runtime.db, shop.clock, KEPT) == 0
    assert await counts(shop) == before
    await grown(shop)
    shop.clock.advance(timedelta(days=2))
    forgotten = await forget_old_rows(shop.runtime.db, shop.clock, KEPT)
    after = await counts(shop)
    # The second payment's difference is the first one's again, seen lately.
    assert (after["payment"], after["difference"], after["audit"]) == (2, 1, before["audit"])
    assert {table: after[table] for table in TABLES[:3]} == {table: before[table] for table in TABLES[:3]}
    assert forgotten == sum(before[table] for table in TABLES[:3])


async def test_what_waits_for_somebody_stays(shop: Shop) -> None:
    await grown(shop)
    await shop.connection.execute("update shouyin.flow_run set status = 'FAILED' where id = 1")
    await shop.connection.execute("update shouyin.notification set due_at = now() + interval '9 years'")
    await shop.connection.execute(
        "insert into shouyin.event (kind, created_at) values ('payment.unknown', $1)", shop.clock.now()
    )
    shop.clock.advance(KEPT + timedelta(days=1))
    await forget_old_rows(shop.runtime.db, shop.clock, KEPT)
    assert await shop.count("notification") == 1
    assert await shop.connection.fetchval("select array_agg(id) from shouyin.flow_run") == [1]
    kinds = await shop.connection.fetch("select kind from shouyin.event order by id")
    assert [row["kind"] for row in kinds] == ["payment.successful", "payment.unknown"]


async def test_many_go_in_batches_and_several_workers_share_them(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.retention._BATCH", 30)
    await shop.connection.execute(
        "insert into shouyin.event (kind, created_at, dispatched_at) select 'payment.created', now(), now()"
        " from generate_series(1, 100)"
    )
    shop.clock.advance(KEPT + timedelta(days=1))
    other = await shop.open()
    forgotten = [await forget_old_rows(process.db, shop.clock, KEPT) for process in (shop.runtime, other)]
    assert forgotten == [100, 0]
    assert await shop.count("event") == 0

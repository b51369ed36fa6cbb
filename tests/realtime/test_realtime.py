"""From a commit to a watcher: the whole way through the database."""

import asyncio
from collections.abc import Sequence
from functools import partial

import asyncpg
import pytest

from app.db import Database
from tests.realtime.world import Collector, Process, Shop, collectors, process, until


async def test_watcher_gets_what_exists_and_then_every_later_state(live: Process, shop: Shop) -> None:
    (payment,) = await shop.create(1)
    async with live.realtime.watch(f"payment:{payment}") as rows:
        assert (await anext(rows)).version == 1
        await shop.change(payment)
        assert (await anext(rows)).version == 2
        await shop.change(payment)
        assert (await anext(rows)).version == 3


async def test_watch_of_something_that_does_not_exist_yet_gets_it_when_it_does(live: Process, shop: Shop) -> None:
    async with live.realtime.watch("payment:1") as rows:
        assert await rows.exists() is False
        assert await shop.create(1) == [1]
        assert (await anext(rows)).version == 1
    async with live.realtime.watch("payment:1") as rows:
        assert await rows.exists() is True
        assert (await anext(rows)).version == 1


async def test_payments_of_an_order_come_each_with_its_newest_state(live: Process, shop: Shop) -> None:
    first, second = await shop.create(2, order_id=10)
    await shop.create(1, order_id=11)
    async with live.realtime.watch("order-payments:10") as rows:
        assert {(row.id, row.version) for row in [await anext(rows), await anext(rows)]} == {(first, 1), (second, 1)}
        await shop.change(second)
        row = await anext(rows)
        assert (row.id, row.version) == (second, 2)
        (third,) = await shop.create(1, order_id=10)
        row = await anext(rows)
        assert (row.id, row.version) == (third, 1)
        # Overtaken states are skipped, but never another payment's.
        await shop.change(first)
        await shop.change(third)
        await shop.change(third)
        await until(lambda: live.metric("rows_read_total") >= 6)
        newest: dict[int, int] = {}
        while newest != {first: 2, third: 3}:
            row = await anext(rows)
            newest[row.id] = row.version


async def test_row_without_a_version_is_sent_when_it_differs(live: Process, shop: Shop, database: Database) -> None:
    await database.pool.execute("create table orders (id bigint primary key, title text)")
    await database.pool.execute(
        "create trigger announce after update on orders referencing new table as changed"
        " for each statement execute function shouyin.announce_orders(1)"
    )
    await database.pool.execute("insert into orders values (5, 'tea')")
    async with live.realtime.watch("order:5") as rows:
        assert await anext(rows) == {"id": 5, "title": "tea"}
        await database.pool.execute("update orders set title = 'tea'")
        await until(lambda: shop.reads.count(("order", 1)) >= 2)  # announced and read, but the same
        await database.pool.execute("update orders set title = 'cake'")
        assert await anext(rows) == {"id": 5, "title": "cake"}


async def test_writer_that_sends_no_hint_is_heard_within_the_poll_interval(
    live: Process, shop: Shop, database_url: str
) -> None:
    (payment,) = await shop.create(1)
    async with live.realtime.watch(f"payment:{payment}") as rows:
        await anext(rows)
        psql = await asyncpg.connect(database_url)
        await psql.execute("update shouyin.payment set status = 'PENDING'")
        await psql.close()
        row = await asyncio.wait_for(anext(rows), 5)
        assert (row.status, row.version) == ("PENDING", 2)


async def test_transaction_that_commits_late_is_announced_after_younger_ones(
    live: Process, shop: Shop, database_url: str
) -> None:
    early, late = await shop.create(2)
    async with collectors(live.realtime, [f"payment:{early}", f"payment:{late}"]) as (watching_early, watching_late):
        await until(lambda: watching_early.last == 1 and watching_late.last == 1)
        held = await asyncpg.connect(database_url)
        transaction = held.transaction()
        await transaction.start()
        await held.execute("update shouyin.payment set status = 'PENDING' where id = $1", late)
        for _ in range(20):  # keys written after the held one are taken and gone before it appears
            await shop.change(early)
        await until(lambda: watching_early.last == 21)
        await until(shop.nothing_waits)  # every drain since has looked past the held key
        assert watching_late.last == 1
        await transaction.commit()
        await held.close()
        await until(lambda: watching_late.last == 2)


async def test_transaction_rolled_back_reaches_nobody(live: Process, shop: Shop, database: Database) -> None:
    (payment,) = await shop.create(1)
    async with collectors(live.realtime, [f"payment:{payment}"]) as (watching,):
        await until(lambda: watching.last == 1)
        async with database.pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("update shouyin.payment set status = 'PENDING'")
            await transaction.rollback()
        await shop.change(payment)
        await until(lambda: watching.last == 2)
    assert [(row.status, row.version) for row in watching.seen] == [("CREATED", 1), ("CREATED", 2)]


async def test_statements_per_change_do_not_grow_with_the_watchers(live: Process, shop: Shop) -> None:
    (payment,) = await shop.create(1)
    counts = []
    for watchers in (1, 300):
        async with collectors(live.realtime, [f"payment:{payment}"] * watchers) as watching:
            await until(partial(_all_reached, watching, 1))
            shop.reads.clear()
            for _ in range(20):
                version = await shop.change(payment)
                await until(partial(_all_reached, watching, version))
            counts.append(len(shop.reads))
            assert set(shop.reads) == {("id", 1)}
    # One a change; beside it at most the reads that the start and the insert asked for.
    assert 20 <= min(counts) <= max(counts) <= 23


def _all_reached(watching: Sequence[Collector], version: int) -> bool:
    return all(one.last >= version for one in watching)


async def test_changes_nobody_watches_are_not_read(live: Process, shop: Shop) -> None:
    payments = await shop.create(50)
    for payment in payments:
        await shop.change(payment)
    await until(lambda: live.metric("relay_rows_total") >= 100)
    assert shop.reads == []
    async with live.realtime.watch(f"payment:{payments[0]}") as rows:
        assert (await anext(rows)).version == 2
    assert shop.reads[0] == ("id", 1)


async def test_merchant_accounts_are_announced_to_every_process(
    shop: Shop, database: Database, database_url: str
) -> None:
    heard: set[str] = set()
    awaited, committed = 0, False

    def hear(who: str, ids: Sequence[int]) -> None:
        # With () after the commit a process whose session was lost says that any may have changed. Before it that says
        # nothing, and nobody can know the id.
        if awaited in ids or (committed and not ids):
            heard.add(who)

    async def announced(account_id: int, statement: str) -> None:
        nonlocal awaited, committed
        heard.clear()
        awaited, committed = account_id, False
        await database.pool.execute(statement)
        committed = True
        await until(lambda: heard == {"one", "other"})

    async with (
        process(database, database_url, {}) as one,
        process(database, database_url, {}) as other,
    ):
        one.realtime.on_change("merchant_account", partial(hear, "one"))
        other.realtime.on_change("merchant_account", partial(hear, "other"))
        # Once this one is heard, what was on its way from before is too.
        await announced(
            2,
            "insert into shouyin.merchant_account (id, provider, mode, name, settings, created_at, updated_at)"
            " overriding system value values (2, 'ALIPAY', 'DIRECT', 'other', '{}', now(), now())",
        )
        await announced(1, "update shouyin.merchant_account set name = 'renamed' where id = 1")


async def test_a_callback_that_fails_keeps_nobody_from_a_row(live: Process, shop: Shop) -> None:
    def fail(ids: object) -> None:
        raise RuntimeError("a cache of somebody")

    live.realtime.on_change("payment", fail)
    (payment,) = await shop.create(1)
    async with collectors(live.realtime, [f"payment:{payment}"]) as (watching,):
        await until(lambda: watching.last == 1)
        await shop.change(payment)
        await until(lambda: watching.last == 2)


async def test_end_all_completes_every_watch_after_its_last_row(live: Process, shop: Shop) -> None:
    payments = await shop.create(20)
    watching = [Collector(live.realtime, f"payment:{payment}") for payment in payments]
    tasks = [asyncio.create_task(one.run()) for one in watching]
    await until(lambda: all(one.seen for one in watching))
    live.realtime.end_all()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert all(one.ended for one in watching)
    assert live.metric("watches") == 0
    late = Collector(live.realtime, f"payment:{payments[0]}")
    await asyncio.wait_for(late.run(), 5)
    assert late.seen == []


async def test_unknown_subject_is_refused(live: Process) -> None:
    for subject in ("refund:1", "payment", "payment:", "payment:x", "payment:-1", "payment:１", "order-orders:1"):
        with pytest.raises(ValueError, match="not a subject"):
            live.realtime.watch(subject)
    with pytest.raises(ValueError, match="not a subject"):
        live.realtime.watch(f"payment:{2**63}")
    async with live.realtime.watch(f"payment:{2**63 - 1}") as rows:
        assert await rows.exists() is False
    assert live.metric("watches") == 0


async def test_stop_before_start_and_twice_is_harmless(shop: Shop, database: Database, database_url: str) -> None:
    async with process(database, database_url, shop.sources()) as running:
        await running.realtime.stop()
    assert running.realtime.connected is False


async def test_safety_poll_repairs_what_was_never_announced_and_counts_it(
    live: Process, shop: Shop, database: Database
) -> None:
    quiet, lost = await shop.create(2)
    async with collectors(live.realtime, [f"payment:{quiet}", f"payment:{lost}"]) as watching:
        await until(lambda: all(one.last == 1 for one in watching))
        await shop.change(quiet)
        await until(lambda: watching[0].last == 2)
        assert await live.realtime.poll_once() == 0
        async with database.pool.acquire() as connection, connection.transaction():
            await connection.execute("update shouyin.payment set status = 'PENDING' where id = $1", lost)
            await connection.execute("delete from shouyin.change")
        assert await live.realtime.poll_once() == 1
        assert [one.last for one in watching] == [2, 2]
    assert live.metric("safety_poll_repairs_total") == 1


async def test_safety_poll_under_load_repairs_nothing(live: Process, shop: Shop) -> None:
    payments = await shop.create(200)
    subjects = [f"payment:{payment}" for payment in payments] + [f"order-payments:{1000001 + n}" for n in range(200)]
    async with collectors(live.realtime, subjects) as watching:
        await until(lambda: all(one.seen for one in watching))

        async def write() -> None:
            for round_ in range(400):
                await shop.change(payments[round_ * 7 % 200])

        writing = asyncio.create_task(write())
        while not writing.done():
            assert await live.realtime.poll_once() == 0
        truth = await shop.versions(payments)
        await until(lambda: all(one.seen[-1].version == truth[one.seen[-1].id] for one in watching))
    assert live.metric("safety_poll_repairs_total") == 0

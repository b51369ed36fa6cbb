"""The relay: one at a time, nothing lost between deleting and announcing, payloads that fit."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from asyncio.subprocess import Process as Child
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from app.db import Database
from tests.realtime.world import Process, Shop, collectors, end_backends, process, until

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def candidate(url: str, *options: str) -> AsyncIterator[Child]:
    """A running process whose relay stands by or leads; "quick" is one whose silence is noticed soon."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.realtime.candidate", url, *options, cwd=ROOT, stdout=PIPE
    )
    try:
        assert await _line(child, b"running")
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def _line(child: Child, wanted: bytes) -> bool:
    """Waits for a line of its output; the others are its log."""
    assert child.stdout is not None
    async with asyncio.timeout(30):
        while line := await child.stdout.readline():
            if line.strip() == wanted:
                return True
    return False


async def _leaders(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval(
            "select count(*) from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted"
            " and application_name = 'shouyin relay' and datname = current_database()"
        )
        return count
    finally:
        await connection.close()


async def test_of_several_candidates_exactly_one_leads(shop: Shop, database: Database, database_url: str) -> None:
    async with (
        process(database, database_url, {}) as one,
        process(database, database_url, {}) as two,
        process(database, database_url, {}) as three,
    ):
        await until(lambda: any(each.realtime.leading for each in (one, two, three)))
        for _ in range(20):
            assert sum(each.realtime.leading for each in (one, two, three)) == 1
            assert await _leaders(database_url) == 1


async def test_killed_leader_in_another_process_is_followed_at_once(
    shop: Shop, database: Database, database_url: str
) -> None:
    (payment,) = await shop.create(1)
    async with candidate(database_url) as other:
        assert await _line(other, b"leading")
        async with (
            process(database, database_url, shop.sources()) as here,
            collectors(here.realtime, [f"payment:{payment}"]) as (watching,),
        ):
            assert here.realtime.leading is False
            assert await shop.change(payment) == 2  # hinted over the stand-by's session, announced by the other process
            await until(lambda: watching.last == 2)
            other.kill()
            await other.wait()
            await shop.change(payment)
            await until(lambda: watching.last == 3)
            assert here.realtime.leading is True
            assert await _leaders(database_url) == 1


async def test_stand_by_that_is_hinted_without_a_pause_still_takes_over(
    shop: Shop, database: Database, database_url: str
) -> None:
    async with process(database, database_url, {}) as leader:
        await until(lambda: leader.realtime.leading)
        async with process(database, database_url, {}) as stand_by:

            async def hint() -> None:
                while True:
                    stand_by.realtime.hint()
                    await asyncio.sleep(0)

            hinting = asyncio.create_task(hint())
            await leader.realtime.stop()
            await until(lambda: stand_by.realtime.leading)
            hinting.cancel()


async def test_frozen_leader_is_ended_by_the_server_and_followed(
    shop: Shop, database: Database, database_url: str
) -> None:
    (payment,) = await shop.create(1)
    async with candidate(database_url, "quick") as other:
        assert await _line(other, b"leading")
        async with (
            process(database, database_url, shop.sources()) as here,
            collectors(here.realtime, [f"payment:{payment}"]) as (watching,),
        ):
            await until(lambda: watching.last == 1)
            other.send_signal(signal.SIGSTOP)
            await shop.change(payment)
            await until(lambda: watching.last == 2)
            assert here.realtime.leading is True
            # Thawed, it finds its session ended and stands by; it never announces beside the new leader.
            other.send_signal(signal.SIGCONT)
            await shop.change(payment)
            await until(lambda: watching.last == 3)
            assert await _leaders(database_url) == 1


async def test_leader_killed_between_announcing_and_committing_loses_nothing(
    live: Process, shop: Shop, database: Database, database_url: str
) -> None:
    (payment,) = await shop.create(1)
    payloads: list[str] = []
    ear = await asyncpg.connect(database_url)
    async with collectors(live.realtime, [f"payment:{payment}"]) as (watching,):
        await until(shop.nothing_waits)
        await ear.add_listener("shouyin_change", lambda *args: payloads.append(str(args[3])))
        # A deferred trigger runs after the statement, NOTIFY included, and before its commit.
        await database.pool.execute(
            "create function hold() returns trigger language plpgsql as"
            " $$ begin perform pg_sleep(60); return null; end $$;"
            "create constraint trigger hold after delete on shouyin.change deferrable initially deferred"
            " for each row execute function hold()"
        )
        await shop.change(payment)

        async def at_commit() -> bool:
            return bool(
                await database.pool.fetchval(
                    "select true from pg_stat_activity"
                    " where application_name = 'shouyin relay' and wait_event = 'PgSleep'"
                )
            )

        await until(at_commit)
        assert await end_backends(database_url, "shouyin relay") == 1
        assert await shop.waiting() == 1  # not deleted …
        assert payloads == []  # … and announced to nobody
        await database.pool.execute("drop trigger hold on shouyin.change")
        await until(lambda: watching.last == 2)
        await until(shop.nothing_waits)
        await until(lambda: payloads == [f"1|payment,{payment},2,1000001"])
    await ear.close()
    assert live.metric("relay_interruptions_total") >= 1


async def test_many_keys_are_announced_in_payloads_that_fit(shop: Shop, database: Database, database_url: str) -> None:
    payloads: list[str] = []
    ear = await asyncpg.connect(database_url)
    await ear.add_listener("shouyin_change", lambda *args: payloads.append(str(args[3])))
    payments = await shop.create(5000)
    async with process(database, database_url, {}) as live:
        await until(shop.nothing_waits)
        await until(lambda: sum(payload.count(";") + 1 for payload in payloads) == 5001)
        # 2000 rows each, one transaction each
        await until(lambda: (live.metric("relay_batches_total"), live.metric("relay_keys_total")) == (3, 5001))
    keys = [key for payload in payloads for key in payload.removeprefix("1|").split(";")]
    assert {int(key.split(",")[1]) for key in keys if key.startswith("payment,")} == set(payments)
    assert max(len(payload) for payload in payloads) <= 7500
    assert len(payloads) < 30
    await ear.close()


async def test_repeated_changes_of_a_row_are_folded_to_its_newest_version(
    shop: Shop, database: Database, database_url: str
) -> None:
    payloads: list[str] = []
    (payment,) = await shop.create(1, order_id=10)
    for _ in range(30):
        await shop.change(payment)
    ear = await asyncpg.connect(database_url)
    await ear.add_listener("shouyin_change", lambda *args: payloads.append(str(args[3])))
    async with process(database, database_url, {}) as live:
        await until(shop.nothing_waits)
        await until(lambda: len(payloads) == 1)
        assert set(payloads[0].removeprefix("1|").split(";")) == {"merchant_account,1,1,", f"payment,{payment},31,10"}
        await until(lambda: live.metric("relay_rows_total") == 32)
    await ear.close()


async def test_lag_is_measured_from_the_change_to_its_announcement(
    live: Process, shop: Shop, database: Database
) -> None:
    await until(shop.nothing_waits)
    before = live.metric("relay_lag_seconds_sum")
    await database.pool.execute(
        "insert into shouyin.change (subject, row_id, changed_at)"
        " values ('payment', 1, clock_timestamp() - interval '5 s')"
    )
    await until(shop.nothing_waits)
    await until(lambda: live.metric("relay_lag_seconds_sum") - before >= 5)
    assert live.metric("relay_lag_seconds_sum") - before < 15


async def test_leader_vacuums_what_it_deleted(live: Process, shop: Shop, database: Database) -> None:
    await database.pool.execute(
        "insert into shouyin.change (subject, row_id) select 'payment', g from generate_series(1, 25000) g"
    )
    live.realtime.hint()

    async def vacuumed() -> bool:
        return bool(
            await database.pool.fetchval(
                "select vacuum_count > 0 from pg_stat_all_tables where relid = 'shouyin.change'::regclass"
            )
        )

    await until(vacuumed)

"""Connections that end, connections that only seem to live, servers that restart: every watcher ends on the truth."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from app.db import Database, open_database
from app.realtime.session import LOST, hosts_of, open_session
from tests.fixtures.servers import OwnPostgres
from tests.realtime.world import QUICK, Collector, Network, Process, Shop, collectors, end_backends, process, until


@asynccontextmanager
async def changes(shop: Shop, payments: Sequence[int]) -> AsyncIterator[None]:
    """Changes payments in turn all the while, with hints; a refused change is tried again, as a worker would."""

    turn = 0

    async def write() -> None:
        nonlocal turn
        while True:
            try:
                await shop.change(payments[turn % len(payments)])
            except LOST:
                await asyncio.sleep(0.02)
                continue
            turn += 1
            await asyncio.sleep(0.002)

    task = asyncio.create_task(write())
    try:
        yield
        enough = turn + len(payments)
        await until(lambda: turn >= enough)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def reach_the_truth(shop: Shop, payments: Sequence[int], watching: Sequence[Collector]) -> None:
    """Waits until each collector saw exactly its row's version."""
    truth = await shop.versions(payments)
    assert all(version > 1 for version in truth.values())
    wanted = [truth[payment] for payment in payments]
    await until(lambda: [one.last for one in watching] == wanted)


def _lost(live: Process, times: int) -> bool:
    return live.metric("listener_reconnects_total") == times


async def test_listener_ended_by_the_server_while_changes_run(live: Process, shop: Shop, database_url: str) -> None:
    payments = await shop.create(30)
    async with collectors(live.realtime, [f"payment:{payment}" for payment in payments]) as watching:
        async with changes(shop, payments):
            for ended in range(1, 6):
                await until(lambda: live.realtime.connected)
                assert await end_backends(database_url, "shouyin listener") == 1
                await until(partial(_lost, live, ended))
        await reach_the_truth(shop, payments, watching)
    assert live.metric("listener_connected") == 1


async def test_relay_ended_by_the_server_while_changes_run(live: Process, shop: Shop, database_url: str) -> None:
    payments = await shop.create(30)
    async with collectors(live.realtime, [f"payment:{payment}" for payment in payments]) as watching:
        async with changes(shop, payments):
            for _ in range(5):
                await until(lambda: live.realtime.leading)
                assert await end_backends(database_url, "shouyin relay") == 1
                await until(lambda: not live.realtime.leading)
        await reach_the_truth(shop, payments, watching)
        assert await live.realtime.poll_once() == 0


@pytest.mark.parametrize("fault", ["silence", "strand"])
async def test_connections_gone_silent_while_changes_run(
    fault: str, shop: Shop, database: Database, database_url: str
) -> None:
    payments = await shop.create(30)
    network = Network(database_url)
    tasks_before = asyncio.all_tasks()
    async with (
        network.running() as url,
        process(database, url, shop.sources(), QUICK) as live,
        collectors(live.realtime, [f"payment:{payment}" for payment in payments]) as watching,
    ):
        await until(lambda: live.realtime.leading and all(one.seen for one in watching))
        async with changes(shop, payments):
            getattr(network, fault)()
            await until(lambda: live.metric("listener_reconnects_total") >= 1)
            if fault == "silence":
                assert live.realtime.connected is False
                assert live.realtime.heartbeat_age_s > 0.2
                network.heal()
            await until(lambda: live.realtime.connected and live.realtime.leading)
        await reach_the_truth(shop, payments, watching)
    await until(lambda: asyncio.all_tasks() <= tasks_before)


@pytest.mark.parametrize("end", ["restart", "crash"])
async def test_database_restarted_while_changes_run(end: str, own_postgres: OwnPostgres) -> None:
    url = await own_postgres.create_database()
    database = await open_database(url, size=4)
    shop = Shop(database)
    await shop.open()
    payments = await shop.create(30)
    async with process(database, url, shop.sources()) as live:
        async with collectors(live.realtime, [f"payment:{payment}" for payment in payments]) as watching:
            await until(lambda: all(one.seen for one in watching))
            async with changes(shop, payments):
                if end == "crash":  # what waited in the unlogged table is gone
                    own_postgres.server.process.send_signal(signal.SIGQUIT)
                await asyncio.to_thread(own_postgres.restart)
                await until(lambda: live.realtime.connected and live.realtime.leading)
            await reach_the_truth(shop, payments, watching)
        assert live.metric("listener_reconnects_total") >= 1
    database.pool.terminate()


async def test_start_without_a_database_and_connect_when_there_is_one(own_postgres: OwnPostgres) -> None:
    url = await own_postgres.create_database()
    database = await open_database(url, size=2)
    shop = Shop(database)
    await shop.open()
    (payment,) = await shop.create(1)
    network = Network(url)
    async with network.running() as silent_url:
        network.silence()
        async with process(database, silent_url, shop.sources(), QUICK) as live:  # start() gives up waiting
            assert live.realtime.connected is False
            async with collectors(live.realtime, [f"payment:{payment}"]) as (watching,):
                await until(lambda: watching.last == 1)  # reads need no listener
                await shop.change(payment)
                network.heal()
                await until(lambda: watching.last == 2)
    database.pool.terminate()


async def test_first_host_that_accepts_and_hangs_does_not_hide_the_second(database_url: str) -> None:
    network = Network(database_url)
    async with network.running() as url:
        network.silence()
        (hanging,), (serving,) = hosts_of(url), hosts_of(database_url)
        both = database_url.replace(
            f"{serving[0]}:{serving[1]}", f"{hanging[0]}:{hanging[1]},{serving[0]}:{serving[1]}"
        )
        assert hosts_of(both) == [hanging, serving]
        session = await open_session(both, name="test", settings={}, timeout_s=0.5)
        assert await session.fetchval("select 1") == 1
        await session.close()
        assert network.connections == 1


async def test_no_host_serves(port: int) -> None:
    with pytest.raises(OSError, match=r"[Cc]onnect"):
        await open_session(
            f"postgresql://u:p@127.0.0.1:{port},127.0.0.1:{port}/none", name="test", settings={}, timeout_s=0.5
        )


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@h:5433/d", [("h", 5433)]),
        ("postgresql://h/d", [("h", None)]),
        ("postgresql:///d", []),
        ("postgresql://u:p%40@a:1,b:2,c/d?target_session_attrs=read-write", [("a", 1), ("b", 2), ("c", None)]),
        ("postgresql://u@[::1]:5433,[fe80::1]/d", [("::1", 5433), ("fe80::1", None)]),
        ("postgresql:///d?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql:///d?host=/run/one,/run/two&port=5433", [("/run/one", 5433), ("/run/two", 5433)]),
    ],
)
def test_hosts_of_an_address(url: str, hosts: list[tuple[str, int | None]]) -> None:
    assert hosts_of(url) == hosts


async def test_stopping_leaves_no_task_and_no_session(shop: Shop, database: Database, database_url: str) -> None:
    before = asyncio.all_tasks()
    async with process(database, database_url, shop.sources()) as live:
        await until(lambda: live.realtime.leading)

    async def gone() -> bool:
        return not await database.pool.fetchval(
            "select count(*) from pg_stat_activity where application_name like 'shouyin %'"
            " and datname = current_database()"
        )

    await until(gone)
    await until(lambda: asyncio.all_tasks() - before == set())

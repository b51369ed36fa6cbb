"""The worker as a process: rung by the doorbell, sweeping without one, leaving cleanly, replaced when it dies."""

import asyncio
import base64
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from redis.asyncio import Redis

from app.clock import Clock
from app.doorbell import QUEUE
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from app.runtime import open_runtime
from app.worker import _answer_doorbell, work_of
from tests.fixtures.alipay import FORM, signed_notice
from tests.fixtures.shop import ADMIN, BINDING, BUYER, Shop, config_for, make_orders

ROOT = Path(__file__).resolve().parent.parent
Keys = tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]


@asynccontextmanager
async def working(
    shop: Shop, redis_url: str | None = None, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process on the shop's database."""
    [(key_id, key)] = shop.config.master_keys.items()
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": shop.config.database_url,
        "REDIS_URL": redis_url or shop.config.redis_url,
        "PUBLIC_URL": shop.config.public_url,
        "SANDBOX_URL": shop.config.sandbox_url or "",
        "MASTER_KEYS": f"{key_id}:{base64.b64encode(key).decode()}",
        "JWT_SECRET": "a secret of a test, thirty-two bytes or more",
        "SHOUYIN_HOME": str(shop.config.home),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "worker", cwd=ROOT, env=environment,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    seen = b""
    while b"worker.started" not in seen:
        line = await asyncio.wait_for(process.stderr.readline(), 30)
        assert line, seen.decode()
        seen += line
    drained = asyncio.create_task(process.stderr.read())
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await drained


async def notified(shop: Shop, rsa_keys: Keys, **changes: str) -> Payment:
    """A payment whose notice is in the inbox."""
    request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    body = signed_notice(rsa_keys[1], out_trade_no=payment.out_trade_no, notify_id=f"n-{payment.id}", **changes)
    await shop.runtime.inbox.receive("ALIPAY", payment.merchant_account_id, FORM, body, correlation_id="c")
    return payment


async def until(condition: Callable[[], Any], *, within_s: float = 30) -> None:
    """Waits until a condition holds; bounded."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_worker_takes_a_notice_to_the_order_and_leaves_when_asked(shop: Shop, rsa_keys: Keys) -> None:
    async with working(shop) as worker:
        payment = await notified(shop, rsa_keys)

        async def paid() -> bool:
            return await shop.status_of(payment.order_id) == "paid"

        await until(paid)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 15) == 0


async def test_what_a_killed_worker_held_is_done_by_the_next(shop: Shop, rsa_keys: Keys) -> None:
    payments = []
    async with working(shop) as worker:
        payments = [await notified(shop, rsa_keys) for _ in range(5)]
        worker.kill()
        await worker.wait()
    payments += [await notified(shop, rsa_keys) for _ in range(5)]
    # A lease of the killed worker may hold some for half a minute of the database's clock: move it.
    await shop.connection.execute("update shouyin.notification set due_at = now() where due_at is not null")
    await shop.connection.execute("update shouyin.flow_run set due_at = now() where due_at is not null")
    async with working(shop):

        async def all_paid() -> bool:
            return {await shop.status_of(payment.order_id) for payment in payments} == {"paid"}

        await until(all_paid)
    events = await shop.events()
    assert events.count("payment.successful") == 10


@pytest.mark.timeout(90)
async def test_without_redis_the_sweep_does_the_work_and_with_redis_back_the_bell_rings(
    shop: Shop, rsa_keys: Keys, own_redis: Any
) -> None:
    async with working(shop, own_redis.url) as worker:
        own_redis.stop()
        payment = await notified(shop, rsa_keys)

        async def paid() -> bool:
            return await shop.status_of(payment.order_id) == "paid"

        await until(paid)
        own_redis.start()
        payment = await notified(shop, rsa_keys)
        await until(paid)
        assert worker.returncode is None


async def test_a_worker_tells_prometheus_what_it_counts(
    shop: Shop, rsa_keys: Keys, port: int, http: httpx.AsyncClient
) -> None:
    async with working(shop, WORKER_METRICS_PORT=str(port)):
        payment = await notified(shop, rsa_keys, total_amount="0.02")

        async def counted() -> bool:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
            return 'shouyin_differences_total{field="amount_fen"} 1.0' in text

        await until(counted)
    assert await shop.status_of(payment.order_id) == "unpaid"


async def test_the_doorbell_is_answered_again_after_redis_was_away(shop: Shop, own_redis: Any) -> None:
    """Closing what the lost connection left behind once ended the answering for good, and nobody saw it."""
    shop.config = replace(shop.config, redis_url=own_redis.url)
    runtime = await shop.open()
    bells = {kind: asyncio.Event() for kind in work_of(runtime)}
    answering = asyncio.create_task(_answer_doorbell(runtime, bells))

    async def rung() -> bool:
        runtime.bell.ring("flows")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(bells["flows"].wait(), 0.3)
        return bells["flows"].is_set()

    try:
        await until(rung)
        for _ in range(2):
            own_redis.restart()
            bells["flows"].clear()
            await until(rung)
        assert not answering.done()
    finally:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def test_rubbish_in_redis_ends_neither_the_work_nor_the_answering(shop: Shop) -> None:
    runtime = await shop.open()
    bells = {kind: asyncio.Event() for kind in work_of(runtime)}
    async with Redis.from_url(shop.config.redis_url) as redis:
        for number, rubbish in enumerate((b"\x80\x04}q", b"{}", b'{"f": "no_such_kind", "a": [], "k": {}, "et": 1}')):
            await redis.set(f"arq:job:{number}", rubbish)
            await redis.zadd(QUEUE, {str(number): 1})
        answering = asyncio.create_task(_answer_doorbell(runtime, bells))
        try:
            runtime.bell.ring("flows")
            await asyncio.wait_for(bells["flows"].wait(), 20)
            assert not answering.done()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


SLEEPER = """
async def on_payment(result, connection):
    await connection.execute("insert into public.points values ($1)", result.order_id)
    if not await connection.fetchval("select exists (select from public.gate)"):
        await connection.execute("select pg_sleep(100)")
"""


async def test_a_worker_that_is_stopped_in_the_middle_of_a_flow_leaves_no_half_of_it(
    shop: Shop, rsa_keys: Keys, tmp_path: Path
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    await shop.connection.execute("create table public.points (order_id bigint); create table public.gate (open int)")
    settings = {"FLOWS": "sleeper", "PYTHONPATH": str(tmp_path)}
    async with working(shop, **settings) as worker:
        payment = await notified(shop, rsa_keys)

        async def asleep() -> bool:
            found = (
                "select exists (select from pg_stat_activity where query like 'select pg_sleep%' and state = 'active')"
            )
            return bool(await shop.connection.fetchval(found))

        await until(asleep)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(worker.wait(), 15) == 0
    points = "select array_agg(order_id) from public.points"
    assert await shop.connection.fetchval(points) is None
    await shop.connection.execute("insert into public.gate values (1)")
    await shop.connection.execute("update shouyin.flow_run set due_at = now() where due_at is not null")
    async with working(shop, **settings):

        async def done() -> bool:
            waiting = "select count(*) from shouyin.flow_run where status <> 'DONE'"
            return bool(await shop.connection.fetchval(waiting) == 0)

        await until(done)
    assert await shop.connection.fetchval(points) == [payment.order_id]


async def test_a_provider_that_hangs_holds_up_nothing_but_its_own_questions(shop: Shop, rsa_keys: Keys) -> None:
    """Without Redis, too: every kind of work looks at its table by itself."""

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await shop.connection.execute(
            "update shouyin.merchant_account set settings = settings || jsonb_build_object('gateway', $1::text)",
            f"http://127.0.0.1:{port}/gateway.do",
        )
        for _ in range(50):
            request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
            await shop.runtime.payments.create(BUYER, request, correlation_id="c")
        await shop.connection.execute("update shouyin.payment set check_at = now()")
        async with working(shop, "redis://127.0.0.1:9/0"):
            payment = await notified(shop, rsa_keys)

            async def paid() -> bool:
                return await shop.status_of(payment.order_id) == "paid"

            await until(paid, within_s=8)


async def test_a_worker_survives_a_restart_of_its_database(
    own_postgres: Any, redis_url: str, tmp_path: Path, account_fields: dict[str, str], rsa_keys: Keys
) -> None:
    url = await own_postgres.create_database()
    connection = await make_orders(url)
    config = config_for(url, redis_url, tmp_path, SANDBOX_URL="http://127.0.0.1:9")
    clock = Clock()
    runtime = await open_runtime(config, clock=clock, realtime=False)
    shop = Shop(config=config, clock=clock, runtime=runtime, connection=connection)
    try:
        await runtime.activation.activate(ADMIN, BINDING)
        await runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="T", fields=account_fields)
        async with working(shop):
            payments = [await notified(shop, rsa_keys)]
            await connection.close()
            own_postgres.restart()
            shop.connection = await asyncpg.connect(url)
            payments.append(await notified(shop, rsa_keys))

            async def all_paid() -> bool:
                return {await shop.status_of(payment.order_id) for payment in payments} == {"paid"}

            # What the worker had claimed when its database went comes back with the lease, after half a minute.
            await until(all_paid, within_s=90)
    finally:
        await runtime.close()
        await shop.connection.close()

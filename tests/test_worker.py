"""The worker as a process: rung by the doorbell, sweeping without one, leaving cleanly, replaced when it dies."""

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.providers.contract import PaymentMethod
from tests.fixtures.alipay import FORM, signed_notice
from tests.fixtures.shop import BUYER, Shop

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

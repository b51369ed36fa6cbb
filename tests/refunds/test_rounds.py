"""Rounds of fifty concurrent refunds of random size on one payment, over three servers, a worker and a provider, each
in a process of its own.

A client repeats with its key and at another server, answers are lost on the way, and servers are killed while they
work. After each round the sum is never above what was paid, the reserve is exact, the provider's truth and our tables
agree to the fen, and what is left can still be given back.

The suite plays a few rounds of each provider; `REFUND_ROUNDS=1000 pytest tests/refunds/test_rounds.py -k ALIPAY` plays
that many. `REFUND_SEED` chooses the rounds; a failure prints its own.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis as RedisClient

from app.activation.permissions import Reach
from app.auth import issue_token
from app.clock import Clock
from app.local.postgres import free_port
from app.local.redis import Redis
from app.payments.model import Payment
from app.runtime import open_runtime
from app.sandbox.accounts import load_or_create_accounts
from tests.fixtures.market import Market
from tests.fixtures.parts import CLI, Part, environ_of, sandbox_part, stop_parts
from tests.fixtures.shop import ADMIN, BINDING, BUYER, Shop, config_for, make_orders
from tests.payments.ways import Way
from tests.refunds.conftest import CALLS, CLERK, SOME, interface

ROUNDS: Final = int(os.environ.get("REFUND_ROUNDS", "4"))
SEED: Final = int(os.environ.get("REFUND_SEED", str(random.randrange(10**6))))
_SERVERS: Final = 3
_CONCURRENT: Final = 50
_SETTLED_S: Final = 30.0
_WAYS: Final = [way for way in SOME if way.mode in ("public_key", "v3", "v2")]

REFUND = """
mutation Refund($input: RefundPaymentInput!) {
  refundPayment(input: $input) { id amount outRefundNo status checking }
}
"""
SYNC = "mutation Sync($id: ID!) { syncRefund(id: $id) { id status } }"
# Both sums and all rows of one moment.
OURS = """
select p.refunded_amount_fen, p.reserved_refund_fen, p.paid_amount_fen, r.out_refund_no, r.amount_fen, r.status
from shouyin.payment p left join shouyin.refund r on r.payment_id = p.id where p.id = $1
"""
OPEN = ("CREATED", "PENDING")
# What a refund may be answered when it is one of many.
REFUSED = {"REFUND_EXCEEDS_PAYMENT", "PAYMENT_NOT_REFUNDABLE"}


@dataclass
class Site:
    """Servers, their worker, and the provider. `market` makes payments from this process; refunds go over HTTP."""

    market: Market
    servers: list[Part]
    origins: list[str]
    http: httpx.AsyncClient
    headers: dict[str, str]
    outcomes: Counter[str] = field(default_factory=Counter)

    async def post(self, server: int, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """One operation at one server, as the clerk."""
        body = {"query": query, "variables": variables}
        answer = await self.http.post(f"{self.origins[server]}/graphql", json=body, headers=self.headers)
        found: dict[str, Any] = answer.json()
        return found

    async def restart(self, server: int) -> None:
        self.servers[server].start()
        await self.servers[server].ready(f"{self.origins[server]}/readyz", self.http)

    async def paid(self, way: Way, amount_fen: int) -> Payment:
        order_id = await self.market.shop.order(amount=f"{amount_fen // 100}.{amount_fen % 100:02}")
        payment = await self.market.create(way.method, mode=way.mode, order_id=order_id)
        await self.market.pay(payment)
        payment = await self.market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
        assert (payment.api_status, payment.paid_amount_fen) == ("SUCCESSFUL", amount_fen)
        return payment

    async def refunds(self, payment: Payment) -> list[Any]:
        rows = await self.market.shop.connection.fetch(
            "select id, out_refund_no, amount_fen, status from shouyin.refund where payment_id = $1 order by id",
            payment.id,
        )
        return list(rows)


@asynccontextmanager
async def open_site(database_url: str, redis_url: str, home: Path, sandbox_home: Path) -> AsyncIterator[Site]:
    """Starts everything; ends all of it whatever happens."""
    ports = [free_port() for _ in range(_SERVERS + 1)]
    sandbox_port = ports.pop()
    sandbox_url = f"http://127.0.0.1:{sandbox_port}"
    origins = [f"http://127.0.0.1:{port}" for port in ports]
    config = config_for(database_url, redis_url, home, SANDBOX_URL=sandbox_url, PUBLIC_URL=origins[0])
    kept = environ_of(config, sandbox_port)
    sandbox = sandbox_part(sandbox_port, sandbox_home, kept, home / "s.log")
    servers = [
        Part(f"server-{port}", [*CLI, "serve"], environ_of(config, port), home / f"{port}.log") for port in ports
    ]
    worker = Part("worker", [*CLI, "worker"], kept, home / "worker.log")
    connection = await make_orders(database_url)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(connection.close)
        parts = [sandbox, *servers, worker]
        closing.callback(stop_parts, parts)
        for part in parts:
            part.start()
        http = await closing.enter_async_context(
            httpx.AsyncClient(trust_env=False, timeout=60, limits=httpx.Limits(max_connections=200))
        )
        runtime = await open_runtime(config, realtime=False)
        closing.push_async_callback(runtime.close)
        await sandbox.ready(f"{sandbox_url}/healthz", http)
        await runtime.activation.activate(ADMIN, BINDING)
        await runtime.permissions.grant(ADMIN, "clerk", "payment.refund", Reach("ALL"))
        records = {each["mode"]: each for each in load_or_create_accounts(sandbox_home, sandbox_url)}
        market = Market(Shop(config, runtime.clock, runtime, connection), runtime, sandbox_url, http, records)
        for server, origin in zip(servers, origins, strict=True):
            await server.ready(f"{origin}/readyz", http)
        token = issue_token(config, CLERK.sub, sorted(CLERK.roles), ttl=timedelta(hours=8), clock=Clock())
        yield Site(market, servers, origins, http, {"authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
async def site(
    module_database_url: str, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory, sandbox_home: Path
) -> AsyncIterator[Site]:
    """The site of this module."""
    async with RedisClient.from_url(redis_server.url) as client:
        await client.flushall()
    home = tmp_path_factory.mktemp("rounds")
    async with open_site(module_database_url, redis_server.url, home, sandbox_home) as opened:
        yield opened


# --- one round ------------------------------------------------------------------------------------------------------


async def one_refund(site: Site, payment: Payment, fen: int, key: str, server: int, again: bool) -> str:
    """What became of one refund: its id, or the code of its refusal. `again` is a client that asks twice at once."""
    variables = {"input": {"paymentId": str(payment.id), "amount": f"{fen // 100}.{fen % 100:02}"}}
    variables["input"] |= {"idempotencyKey": key, "reason": "cold tea"}

    async def ask(at: int) -> str:
        for attempt in range(_SERVERS + 1):
            try:
                answer = await site.post((at + attempt) % _SERVERS, REFUND, variables)
            except httpx.TransportError:
                # Its server is gone: the client knows nothing, and asks another under the same key.
                continue
            if "errors" in answer:
                return str(answer["errors"][0]["extensions"]["code"])
            return str(answer["data"]["refundPayment"]["id"])
        raise AssertionError("no server answers")

    if not again:
        return await ask(server)
    first, second = await asyncio.gather(ask(server), ask(server + 1))
    # A refusal may be another one a moment later, when more of the money is spoken for or free; a refund is one refund.
    assert not (first.isdigit() and second.isdigit()) or first == second
    return first if first.isdigit() else second


async def find_out(site: Site, payment: Payment, *, killed: bool) -> None:
    """Every refund whose answer was lost is found out: by a question, or, where a server died, by the worker."""
    open_rows = [row for row in await site.refunds(payment) if row["status"] in OPEN]
    for number, row in enumerate(open_rows):
        answer = await site.post(number % _SERVERS, SYNC, {"id": str(row["id"])})
        assert "errors" not in answer, answer
    if killed:
        # The leases of the dead are over.
        await site.market.shop.connection.execute(
            "update shouyin.refund set check_at = now() where payment_id = $1 and status in ('CREATED', 'PENDING')",
            payment.id,
        )
    async with asyncio.timeout(_SETTLED_S):
        while any(row["status"] in OPEN for row in await site.refunds(payment)):
            await asyncio.sleep(0.05)


async def assert_exact(site: Site, payment: Payment) -> int:
    """We and the provider agree to the fen, refund by refund; the sum. What it has done and we have yet to hear of is
    reserved here."""
    rows = await site.market.shop.connection.fetch(OURS, payment.id)
    # Asked after ours was read: whatever we call given back has been given back by then.
    trade = await site.market.trade(payment)
    assert trade is not None
    ours = {row["out_refund_no"]: row for row in rows if row["out_refund_no"]}
    theirs = {each["out_refund_no"]: each for each in trade["refunds"]}
    refunded: int = sum(row["amount_fen"] for row in ours.values() if row["status"] == "REFUNDED")
    reserved: int = sum(row["amount_fen"] for row in ours.values() if row["status"] in OPEN)
    assert (rows[0]["refunded_amount_fen"], rows[0]["reserved_refund_fen"]) == (refunded, reserved)
    assert refunded + reserved <= rows[0]["paid_amount_fen"]
    assert len(theirs) == len(trade["refunds"]), "two refunds of one number"
    assert theirs.keys() <= ours.keys()
    for number, row in ours.items():
        there = theirs.get(number)
        if row["status"] == "REFUNDED":
            assert there is not None
            assert (there["status"], there["amount_fen"]) == ("REFUNDED", row["amount_fen"])
        elif there is not None and there["status"] == "REFUNDED":
            assert (row["status"] in OPEN, there["amount_fen"]) == (True, row["amount_fen"])
    assert refunded <= trade["refunded_fen"] <= refunded + reserved
    return refunded


async def play(site: Site, way: Way, chance: random.Random, kind: str) -> None:
    """One round, and after it the rest of the money."""
    paid_fen = chance.randrange(200, 10_000)
    payment = await site.paid(way, paid_fen)
    if kind == "lost":
        call = CALLS[interface(way)][0]
        await site.market.control("POST", "/faults", method=call, kind="lost_reply", count=chance.randrange(1, 6))
    largest = max(1, paid_fen // chance.choice([1, 2, 4, 8, 20]))
    asked = [
        one_refund(site, payment, chance.randint(1, largest), f"r{payment.id}-{n}", n % _SERVERS, chance.random() < 0.3)
        for n in range(_CONCURRENT)
    ]
    tasks = [asyncio.create_task(each) for each in asked]
    victim = chance.randrange(_SERVERS)
    if kind == "killed":
        # While some are taken and none of the others knows what comes.
        enough = chance.randint(1, 5)
        while len(await site.refunds(payment)) < enough and not all(task.done() for task in tasks):
            await asyncio.sleep(0)
        site.servers[victim].kill()
    outcomes = await asyncio.gather(*tasks)
    await site.market.control("DELETE", "/faults")
    codes = {each for each in outcomes if not each.isdigit()}
    assert codes <= REFUSED, codes
    site.outcomes.update("taken" if each.isdigit() else each for each in outcomes)
    taken = [int(each) for each in outcomes if each.isdigit()]
    rows = await site.refunds(payment)
    assert sorted(taken) == [row["id"] for row in rows], "one row for each that was taken, and none for the refused"
    await assert_exact(site, payment)
    if kind == "killed":
        await site.restart(victim)
    await find_out(site, payment, killed=kind == "killed")
    refunded = await assert_exact(site, payment)
    assert all(row["status"] == "REFUNDED" for row in await site.refunds(payment))
    if refunded < paid_fen:
        assert (await one_refund(site, payment, paid_fen - refunded + 1, f"m{payment.id}", 0, False)) in REFUSED
        assert (await one_refund(site, payment, paid_fen - refunded, f"l{payment.id}", 1, False)).isdigit()
        await find_out(site, payment, killed=False)
    assert await assert_exact(site, payment) == paid_fen
    assert await one_refund(site, payment, 1, f"n{payment.id}", 2, False) == "PAYMENT_NOT_REFUNDABLE"


@pytest.mark.timeout(30 + 15 * ROUNDS)
@pytest.mark.parametrize("way", _WAYS, ids=str)
async def test_refunds_at_once_never_give_back_more_than_was_paid(
    site: Site, way: Way, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)
    kinds = ["plain", "lost", "killed", "lost"]
    for number in range(ROUNDS):
        kind = kinds[number % 4] if ROUNDS <= 4 else chance.choices(["plain", "lost", "killed"], [60, 35, 5])[0]
        try:
            await play(site, way, chance, kind)
        except BaseException:
            print(f"REFUND_SEED={SEED}, round {number}, {kind}")
            raise
    connection = site.market.shop.connection
    events = await connection.fetchrow(
        "select count(*) as happened, count(distinct refund_id) as of_refunds from shouyin.event"
        " where kind = 'refund.refunded'"
    )
    assert events is not None
    assert (
        events["happened"] == events["of_refunds"] == await connection.fetchval("select count(*) from shouyin.refund")
    )
    assert await connection.fetchval("select count(*) from shouyin.difference") == 0
    record_property("outcomes", dict(site.outcomes))

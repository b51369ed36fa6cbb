"""Deductions: what the claims of the daily run cost as the table of cycles grows, a day of them, and a month.

A day's agreements are few and its cycles many, since signing ten thousand takes minutes: the sandbox is told to let the
money of a year be taken early, so that each agreement serves fifty cycles. Every one of these has numbers, an order and
payments of its own.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import time, timedelta
from time import perf_counter
from typing import Any, Final

import asyncpg

from app.db import migrate
from app.local.postgres import prepare_database
from app.runtime import Runtime, open_runtime
from app.sandbox.accounts import load_or_create_accounts
from tests.bench.figures import Figure
from tests.bench.scale import Scale
from tests.bench.site import Process, Site
from tests.fixtures.month import SCENE, Month, open_month
from tests.fixtures.shop import ADMIN, BINDING, config_for, make_orders

_PER_AGREEMENT: Final = 50
_CLAIMED: Final = 20
_LEASE: Final = timedelta(minutes=2)
_HOUR: Final = time(9)
_MEMORY_EVERY_S: Final = 0.5

# Cycles $1 to $2. The first $3 are due on $4 and have an order, the others on one of thirty later days. Agreements are
# taken in turn from $5. $6 scene, $7 now.
_CYCLES: Final = """
insert into shouyin.cycle_payment (binding_id, order_id, owner, payer, merchant_account_id, provider, method, scene,
  subject, price_fen, ceiling_fen, interval_days, external_agreement_no, agreement_no, status, first_deduction_on,
  next_deduction_on, notice_on, plan_on, created_by, input_hash, expires_at, created_at, updated_at, signed_at,
  check_at)
select a.binding_id, n, 'p' || n, 'p' || n, m.id, 'ALIPAY', 'ALIPAY_CYCLE', $6, 'Club', 990, 990, 30, 'BENCH' || n,
  ($5::text[])[1 + n % cardinality($5::text[])], 'ACTIVE', due.on_date, due.on_date, due.on_date + 27, due.on_date,
  'bench', '', $7, $7, $7, $7, $7::timestamptz + interval '40 days'
from generate_series($1::bigint, $2::bigint) n
cross join lateral (
  select $4::date + case when n < $1 + $3::bigint then 0 else 4 + (n % 30)::int end as on_date) due
cross join shouyin.activation a cross join shouyin.merchant_account m
"""
_ORDERS: Final = """
insert into public.orders (user_id, title, amount) select n, 'Club', 9.90 from generate_series(1, $1::bigint) n
"""
# What a run left behind; a truncation would take the cycles along.
_FORGET: Final = """
set session_replication_role = replica;
delete from shouyin.event;
delete from shouyin.deduction;
set session_replication_role = origin;
"""


async def measure_claims(site: Site, scale: Scale) -> list[Figure]:
    """Finding and taking the same number of due rows, with few cycles in the table and with ever more."""
    times: dict[str, list[float]] = {}
    async with _club(site) as (runtime, connection):
        filled = 0
        for size in scale.cycles:
            await _fill(runtime, connection, filled + 1, size, 0 if filled else scale.due, ["none"])
            filled = size
            for what, took_s in (await _claims(runtime, connection, scale.due)).items():
                times.setdefault(what, []).append(took_s)
    figures = [
        Figure("claims", f"{what}, {scale.due:,} of {size:,} cycles", took_s * 1000, "ms")
        for what, of_sizes in times.items()
        for size, took_s in zip(scale.cycles, of_sizes, strict=True)
    ]
    totals = [sum(of_size) for of_size in zip(*times.values(), strict=True)]
    growth = f"all of it, {scale.cycles[-1]:,} cycles to {scale.cycles[0]:,}"
    return [*figures, Figure("claims", growth, totals[-1] / totals[0], "", high=2)]


async def _claims(runtime: Runtime, connection: "asyncpg.Connection[asyncpg.Record]", due: int) -> dict[str, float]:
    """Seconds of each step of the daily run that finds rows, on `due` rows each; the rows are as before afterwards."""
    today, now = runtime.clock.business_date(), runtime.clock.now()
    steps = {"opening": await _timed_run(runtime, due)}
    await connection.execute(
        "update shouyin.cycle_payment set notice_on = $1 where open_deduction_id is not null", today
    )
    steps["announcing"] = await _timed_run(runtime, due)
    await connection.execute("update shouyin.deduction set attempt_at = $1", now)
    steps["claiming deductions"] = await _timed_claims(runtime, "deduction.claim_due", due)
    await connection.execute("update shouyin.cycle_payment set check_at = $1 where open_deduction_id is not null", now)
    steps["claiming questions"] = await _timed_claims(runtime, "cycle.claim_due", due)
    await connection.execute(
        "update shouyin.cycle_payment set open_deduction_id = null, next_deduction_on = $1::date, deductions = 0,"
        " check_at = null where open_deduction_id is not null",
        today,
    )
    await connection.execute(_FORGET)
    await connection.execute("vacuum analyze shouyin.cycle_payment, shouyin.deduction, shouyin.event")
    return steps


async def _timed_run(runtime: Runtime, due: int) -> float:
    """One look for cycles that are due or to be announced, as the worker has it."""
    began = perf_counter()
    handled = await runtime.deductions.open_due()
    took_s = perf_counter() - began
    if handled != due:
        raise RuntimeError(f"{handled} cycles were due, not {due}")
    return took_s


async def _timed_claims(runtime: Runtime, statement: str, due: int) -> float:
    """Claims batch by batch, as a worker does between its calls to the provider."""
    began, claimed, now = perf_counter(), 0, runtime.clock.now()
    while rows := await runtime.db.change_all(statement, now, now + _LEASE, _CLAIMED):
        claimed += len(rows)
    took_s = perf_counter() - began
    if claimed != due:
        raise RuntimeError(f"{statement} claimed {claimed} rows, not {due}")
    return took_s


async def measure_day(site: Site, scale: Scale) -> list[Figure]:
    """One worker's day, from the hour of deductions until every order is marked and every notice applied."""
    size = scale.cycles[1]
    async with _month(site, "day", workers=1, flows=None) as month:
        members = max(1, scale.due // _PER_AGREEMENT)
        await month.sign_up(members, random.Random(1), stories=["pays"], intervals=[7], first_in_days=2)
        await month.control("POST", "/alipay/agreements/policy", window_days=366)
        rows = await month.connection.fetch("select agreement_no from shouyin.cycle_payment")
        numbers = [row["agreement_no"] for row in rows]
        await _fill(month.runtime, month.connection, members + 1, size, scale.due, numbers)
        worker, memory = _process(month), []
        cpu_s, began = worker.cpu_s(), perf_counter()
        day = asyncio.create_task(month.advance(month.runtime.clock.business_date(), _HOUR))
        while not (await asyncio.wait({day}, timeout=_MEMORY_EVERY_S))[0]:
            memory.append(worker.resident_bytes())
        await day
        took_s, cpu_s = perf_counter() - began, worker.cpu_s() - cpu_s
        memory.append(worker.resident_bytes())
        await _check_day(month, scale.due)
    what = f"{scale.due:,} of {size:,} cycles due"
    first = memory[min(len(memory) - 1, len(memory) // 10)]
    return [
        Figure("day", f"deductions, one worker, {what}", scale.due / took_s, "/s"),
        Figure("day", f"the whole day, {what}", took_s, "s"),
        Figure("day", "worker's processor time a deduction", cpu_s / scale.due * 1000, "ms"),
        Figure("day", "worker's memory after a tenth of the day", first / 1e6, "MB"),
        Figure("day", "worker's memory at its end", memory[-1] / 1e6, "MB"),
        Figure("day", "memory at the end to that after a tenth", memory[-1] / first, "", high=1.1),
    ]


async def _check_day(month: Month, due: int) -> None:
    """Every due date took its money once, at the provider too, and marked its order."""
    row = await month.connection.fetchrow(
        "select (select count(*) from public.orders where status = 'paid') as orders,"
        " (select count(*) from shouyin.deduction where status = 'PAID') as deductions"
    )
    assert row is not None
    paid = sum(trade["paid"] for trade in (await month.control("GET", "/trades"))["trades"])
    if (row["orders"], row["deductions"], paid) != (due, due, due):
        raise RuntimeError(f"{dict(row)} and {paid} trades are paid, not {due}")


async def measure_month(site: Site, scale: Scale) -> list[Figure]:
    """31 days of tests/cycles/test_month.py: its stories and faults, its comparison at the end."""
    async with _month(site, "month", workers=1) as month:
        await month.sign_up(scale.agreements, random.Random(1))
        took_s = await month.live()
        outcomes = await month.check()
    return [
        Figure("month", f"31 days of {scale.agreements:,} agreements on the test clock", took_s, "s", high=60),
        Figure("month", "due dates in them", outcomes.total(), ""),
    ]


@asynccontextmanager
async def _month(site: Site, name: str, **options: Any) -> AsyncIterator[Month]:
    url, home = await _database(site, name), site.directory / name
    state = home / "sandbox"
    state.mkdir(parents=True)
    load_or_create_accounts(state, "http://127.0.0.1:9")
    async with open_month(url, site.config.redis_url, home, state, **options) as month:
        yield month


@asynccontextmanager
async def _club(site: Site) -> AsyncIterator[tuple[Runtime, "asyncpg.Connection[asyncpg.Record]"]]:
    """A bound shop whose provider is never asked, and this process as its worker, at any hour of the day."""
    url = await _database(site, "claims")
    connection = await make_orders(url)
    runtime = await open_runtime(
        config_for(url, site.config.redis_url, site.directory, DEDUCT_AT="00:00"), realtime=False
    )
    try:
        await runtime.activation.activate(ADMIN, BINDING)
        await connection.execute(
            "insert into shouyin.merchant_account (provider, mode, name, settings, created_at, updated_at)"
            " values ('ALIPAY', 'public_key', 'bench', '{}', now(), now())"
        )
        yield runtime, connection
    finally:
        await runtime.close()
        await connection.close()


async def _database(site: Site, name: str) -> str:
    await prepare_database(site.postgres, name)
    await migrate(site.postgres.url(name))
    return site.postgres.url(name)


async def _fill(
    runtime: Runtime,
    connection: "asyncpg.Connection[asyncpg.Record]",
    first: int,
    last: int,
    due: int,
    agreement_nos: list[str],
) -> None:
    """Cycles of these numbers, with orders of these ids where they are due; triggers and foreign keys look away."""
    await connection.execute("set session_replication_role = replica")
    today, now = runtime.clock.business_date(), runtime.clock.now()
    await connection.execute(_CYCLES, first, last, due, today, agreement_nos, SCENE, now, timeout=900)
    await connection.execute("set session_replication_role = origin")
    await connection.execute(_ORDERS, due)
    await connection.execute("vacuum analyze")


def _process(month: Month) -> Process:
    (worker,) = month.workers
    assert worker.process is not None
    return Process(worker.name, worker.process, 0, worker.log)

"""The worker: applies notifications, asks about payments and refunds, deducts, runs flows, forgets what is old.

Two things make it look at the database: a ring of the doorbell (an arq job without arguments), and its own sweep every
few seconds. The sweep alone is enough for correctness: with Redis gone everything still happens, a little later.
"""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta, timezone
from functools import partial
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

import orjson
import structlog
from arq import Worker, cron, func
from prometheus_client import start_http_server
from redis.exceptions import RedisError

from app.config import Config, ConfigError
from app.cycles.sweep import check_due_agreements
from app.doorbell import QUEUE, redis_settings, serialize_job
from app.log import configure_logging
from app.payments.sweep import check_due_payments
from app.refunds.sweep import check_due_refunds
from app.retention import forget_old_rows
from app.runtime import Runtime, open_runtime

log = structlog.get_logger(__name__)

# arq takes no zone by name, and Shanghai has had no other offset since 1991.
_SHANGHAI: Final = timezone(timedelta(hours=8))

SWEEP_EVERY_S: Final = 3.0
# Above what a whole fleet runs at once: arq reads only this many ids, and running jobs stay at the head of the queue.
_QUEUE_READ_LIMIT: Final = 1000
_REDIS_RETRY_S: Final = 2.0
_KEEP_HOUSE_EVERY_S: Final = 3600.0
_HOUSE: Final = "housekeeping"
# What one kind of work makes for another, which then need not wait for Redis to say so.
_MAKES: Final = {
    "notifications": ("events", "deductions"),
    "payments": ("events", "deductions"),
    "refunds": ("events",),
    "agreements": ("events", "cycles", "deductions"),
    "cycles": ("events",),
    "events": ("flows",),
    "flows": ("deductions",),
    "deductions": ("events", "agreements", "cycles"),
}


def work_of(runtime: Runtime) -> Mapping[str, Callable[[], Awaitable[int]]]:
    """The kinds of work a ring can name, in the order in which one makes the next."""

    async def payments() -> int:
        return await check_due_payments(runtime.db, runtime.clock, runtime.payments)

    async def refunds() -> int:
        return await check_due_refunds(runtime.db, runtime.clock, runtime.refunds)

    async def agreements() -> int:
        return await check_due_agreements(runtime.db, runtime.clock, runtime.cycles)

    return {
        "notifications": runtime.inbox.drain,
        "payments": payments,
        "refunds": refunds,
        "agreements": agreements,
        "cycles": runtime.deductions.open_due,
        "events": runtime.flows.dispatch,
        "flows": runtime.flows.drain,
        "deductions": runtime.deductions.drain,
    }


async def sweep_once(runtime: Runtime) -> int:
    """One pass over all that waits; returns how many rows were handled."""
    return sum([await drain() for drain in work_of(runtime).values()])


def serve_worker(config: Config) -> None:
    """`run_worker` in this process, on the API's event loop: most of the work is small reads and writes of sockets."""
    if sys.platform == "win32":
        asyncio.run(run_worker(config))
    else:
        import uvloop

        uvloop.run(run_worker(config))


async def run_worker(config: Config) -> None:
    """Works until SIGTERM or SIGINT, then lets go of what it holds: rolled back, and done by whoever comes next.

    Raises when a part of it ends by itself, which is a bug: better a restart than a worker that does half its work."""
    configure_logging(json=config.log_json, level=config.log_level)
    runtime = await open_runtime(config, run_flows=True)
    metrics_server = _serve_metrics(runtime)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    work = work_of(runtime)
    bells = {kind: asyncio.Event() for kind in (*work, _HOUSE)}
    runtime.test_clock.on_move(partial(_ring_all, bells))
    tasks = [
        asyncio.create_task(_work_forever(kind, runtime.test_clock.marking(kind, drain), bells), name=kind)
        for kind, drain in work.items()
    ]
    tasks.append(asyncio.create_task(_answer_doorbell(runtime, bells), name="doorbell"))
    tasks.append(asyncio.create_task(_keep_house_forever(runtime, bells), name="housekeeping"))
    stopped = asyncio.create_task(stopping.wait(), name="stopping")
    log.info("worker.started")
    try:
        ended, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in (stopped, *tasks):
            task.cancel()
        await asyncio.gather(stopped, *tasks, return_exceptions=True)
        await runtime.close()
        if metrics_server is not None:
            metrics_server.shutdown()
        log.info("worker.stopped")


def _serve_metrics(runtime: Runtime) -> WSGIServer | None:
    """Counters live in the process that counts: flow failures and differences are the worker's to tell."""
    config = runtime.config
    if config.worker_metrics_port == 0:
        return None
    try:
        server, _ = start_http_server(config.worker_metrics_port, addr=config.host, registry=runtime.metrics.registry)
    except OSError as exc:
        raise ConfigError(
            f"WORKER_METRICS_PORT: {config.host}:{config.worker_metrics_port} is not to be had ({exc.strerror})"
        ) from exc
    return server


def _ring_all(bells: Mapping[str, asyncio.Event]) -> None:
    for bell in bells.values():
        bell.set()


async def _work_forever(kind: str, drain: Callable[[], Awaitable[int]], bells: Mapping[str, asyncio.Event]) -> None:
    """One kind of work, whenever its bell rings and every few seconds. Each kind has a loop of its own, so that a
    provider that hangs or a slow flow holds up nothing but its own kind."""
    while True:
        bells[kind].clear()
        try:
            if await drain():
                for made in _MAKES.get(kind, ()):
                    bells[made].set()
        except Exception as exc:
            # The database is away, or a bug: the rows wait, and the next pass is the retry.
            log.exception("worker.drain_failed", kind=kind, error=type(exc).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_EVERY_S):
                await bells[kind].wait()


async def _keep_house_forever(runtime: Runtime, bells: Mapping[str, asyncio.Event]) -> None:
    while True:
        bells[_HOUSE].clear()
        try:
            if await runtime.plan.warn():
                bells["events"].set()
            forgotten = await forget_old_rows(runtime.db, runtime.clock, runtime.config.retention)
            if forgotten:
                log.info("worker.forgot", rows=forgotten)
        except Exception as exc:
            log.exception("worker.housekeeping_failed", error=type(exc).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KEEP_HOUSE_EVERY_S):
                await bells[_HOUSE].wait()


async def _answer_doorbell(runtime: Runtime, bells: Mapping[str, asyncio.Event]) -> None:
    """Runs arq for as long as there is a Redis; waits for it to come back when there is none."""
    while True:
        worker = _arq_worker(runtime, bells)
        try:
            await worker.async_run()
        except (RedisError, OSError, TimeoutError) as exc:
            log.warning("worker.redis_lost", error=type(exc).__name__)
        except Exception as exc:
            # Whatever stands in Redis must not end the work, which goes on without it.
            log.exception("worker.doorbell_failed", error=type(exc).__name__)
        finally:
            await _let_go(worker)
        await asyncio.sleep(_REDIS_RETRY_S)


async def _let_go(worker: Worker) -> None:
    """Ends an arq worker's jobs and connections. Its own close talks to Redis first, and raises where that is gone."""
    for task in worker.tasks.values():
        task.cancel()
    await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
    if worker.pool is not None:
        await worker.pool.aclose(close_connection_pool=True)


def _arq_worker(runtime: Runtime, bells: Mapping[str, asyncio.Event]) -> Worker:
    def job(kind: str) -> Any:
        async def ring(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
            bells[kind].set()

        # A result that is kept would make the next ring of the same id vanish.
        return func(ring, name=kind, keep_result=0, max_tries=1, timeout=10)

    at = runtime.config.deductions.deduct_at
    return Worker(
        functions=[job(kind) for kind in bells],
        # The day's deductions begin on the minute; the sweep alone would begin them seconds later.
        cron_jobs=[cron(job("cycles").coroutine, name="cron:cycles", hour=at.hour, minute=at.minute, keep_result=0)],
        timezone=_SHANGHAI,
        redis_settings=redis_settings(runtime.config.redis_url),
        queue_name=QUEUE,
        handle_signals=False,
        max_jobs=8,
        poll_delay=0.05,
        queue_read_limit=_QUEUE_READ_LIMIT,
        keep_result=0,
        job_serializer=serialize_job,
        job_deserializer=orjson.loads,
        health_check_interval=15,
    )

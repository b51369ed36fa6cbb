"""The doorbell: tells the workers, through Redis, that rows are waiting. It carries no data and may be lost.

What a ring announces stands in PostgreSQL, and every worker looks there by itself every few seconds; a ring only makes
it sooner. That is why nothing here raises.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson
import structlog
from arq.connections import ArqRedis, RedisSettings
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

# One fixed queue. Jobs have random ids: a fixed id would be refused while an old result or a running job holds it.
QUEUE: Final = "shouyin:doorbell"
# After a ring the next one waits this long, so that those of a busy process become few: the workers look for batches.
_FOLD_S: Final = 0.01


def serialize_job(job: dict[str, Any]) -> bytes:
    """JSON instead of arq's pickle: whoever can write to Redis must not be able to run code here."""
    return orjson.dumps(job, default=str)


def redis_settings(url: str) -> RedisSettings:
    """Where Redis is, with short timeouts: a request must not wait for a bell."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout, settings.conn_retries = 2, 0
    return settings


class Doorbell:
    """Rings for a kind of work at most once at a time per process; rings that come meanwhile are folded into one."""

    def __init__(self, url: str, *, on_lost: Callable[[], None] = lambda: None) -> None:
        self._redis = ArqRedis(
            ConnectionPool.from_url(url, socket_timeout=2, socket_connect_timeout=2),
            job_serializer=serialize_job,
            job_deserializer=orjson.loads,
            default_queue_name=QUEUE,
        )
        self._waiting: set[str] = set()
        self._ringing: asyncio.Task[None] | None = None
        self._on_lost = on_lost

    def ring(self, *kinds: str) -> None:
        """Asks the workers to look at these kinds of rows now. Returns at once and never fails."""
        self._waiting.update(kinds)
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.get_running_loop().create_task(self._ring_waiting())

    async def _ring_waiting(self) -> None:
        while self._waiting:
            kinds, self._waiting = self._waiting, set()
            for kind in kinds:
                try:
                    await self._redis.enqueue_job(kind, _expires=60)
                except (RedisError, OSError, TimeoutError) as exc:
                    self._on_lost()
                    log.warning("doorbell.lost", kind=kind, error=type(exc).__name__)
            await asyncio.sleep(_FOLD_S)

    async def close(self) -> None:
        """Lets the last ring go out, then lets go of Redis."""
        if self._ringing is not None:
            await self._ringing
        await self._redis.aclose(close_connection_pool=True)

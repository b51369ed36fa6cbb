"""What load balancers and Prometheus ask: `/healthz`, `/readyz`, `/metrics`.

Alive means that the event loop turns. Ready means that a payment could be made and its result watched: the database
answers, its migrations are ours, the listener is connected and was heard of lately, and the process is not leaving.
"""

import asyncio
from typing import Final

import asyncpg
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.asgi import Headers, Scope, Send, respond, respond_json
from app.api.connections import Connections
from app.db import missing_migrations
from app.runtime import Runtime

_DATABASE_S: Final = 2.0
# The listener proves itself every few seconds; several proofs in a row have to fail.
_HEARTBEAT_S: Final = 30.0

_log = structlog.stdlib.get_logger("shouyin.health")


class HealthEndpoints:
    """The three of one process."""

    def __init__(self, runtime: Runtime, connections: Connections) -> None:
        self._runtime = runtime
        self._connections = connections
        self._migrated = False

    async def alive(self, send: Send) -> int:
        """`/healthz`"""
        await respond_json(send, 200, {"status": "ok"})
        return 200

    async def ready(self, send: Send) -> int:
        """`/readyz`: 503 with the reasons while something is missing."""
        reasons = await self.unready_reasons()
        status = 503 if reasons else 200
        await respond_json(send, status, {"status": "unready" if reasons else "ready", "reasons": reasons})
        return status

    async def unready_reasons(self) -> dict[str, str]:
        """What keeps this process from serving, by part."""
        reasons: dict[str, str] = {}
        if self._connections.draining:
            reasons["process"] = "shutting down"
        realtime = self._runtime.realtime
        if not realtime.connected:
            reasons["listener"] = "not connected to the database"
        elif realtime.heartbeat_age_s > _HEARTBEAT_S:
            reasons["listener"] = f"not heard of for {realtime.heartbeat_age_s:.0f} s"
        try:
            async with asyncio.timeout(_DATABASE_S):
                missing = await missing_migrations(self._runtime.db)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            # The text of the error may name hosts and users.
            _log.warning("database_unready", error=type(exc).__name__)
            reasons["database"] = "does not answer"
        else:
            if missing:
                reasons["migrations"] = f"missing: {', '.join(missing)}; run: shouyin migrate"
        return reasons

    async def metrics(self, scope: Scope, send: Send) -> int:
        """`/metrics`, for a scraper beside the process. What a proxy forwards from outside is not answered: turnover
        can be read from the counters."""
        headers: Headers = dict(scope["headers"])
        if b"x-forwarded-for" in headers or b"forwarded" in headers:
            await respond_json(send, 404, {"error": "not found"})
            return 404
        await self._observe_waiting()
        await respond(send, 200, self._runtime.metrics.render(), content_type=CONTENT_TYPE_LATEST.encode())
        return 200

    async def _observe_waiting(self) -> None:
        """Brings the gauges of what waits in the database up to date; without a database they keep their last value."""
        try:
            async with asyncio.timeout(_DATABASE_S):
                row = await self._runtime.db.one("readiness.waiting")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            _log.warning("waiting_not_observed", error=type(exc).__name__)
            return
        assert row is not None
        metrics, now = self._runtime.metrics, self._runtime.clock.now()
        for gauge, since in (
            (metrics.inbox_age_seconds, row["notification_since"]),
            (metrics.event_age_seconds, row["event_since"]),
        ):
            gauge.set(0 if since is None else max(0.0, (now - since).total_seconds()))
        metrics.flows_abandoned.set(row["flows_abandoned"])

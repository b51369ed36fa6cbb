"""Direct database sessions: opened outside the pool, host by host, and opened again after a loss.

The listener and the relay each hold one for as long as the process lives. A pool would hand them to others, and a
pooler in transaction mode has no sessions to listen on: both take LISTEN_DATABASE_URL.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import structlog
from asyncpg import Record
from asyncpg.connect_utils import SessionAttribute

Session: TypeAlias = "asyncpg.Connection[Record]"

# What a session, or a statement on it, raises when the database went away or refuses: try again later.
LOST: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log: Final = structlog.stdlib.get_logger("shouyin.realtime")


class Backoff:
    """Growing pauses with jitter: 50 ms doubling up to `limit_s`, each shortened by up to half."""

    def __init__(self, limit_s: float = 2.0) -> None:
        self._limit_s = limit_s
        self._next_s = 0.05

    def pause_s(self) -> float:
        """The length of the next pause in seconds; each call makes the following one longer."""
        pause_s = self._next_s
        self._next_s = min(self._next_s * 2, self._limit_s)
        return pause_s * random.uniform(0.5, 1)  # noqa: S311 - spreads processes, guards nothing

    def reset(self) -> None:
        """Starts again from the shortest pause."""
        self._next_s = 0.05


def hosts_of(url: str) -> list[tuple[str, int | None]]:
    """The hosts a database URL names, with their ports; both `//a:1,b:2/name` and `?host=a,b&port=1,2` name several."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    named = parts.netloc.rpartition("@")[2] or ",".join(query.get("host", []))
    ports = ",".join(query.get("port", [])).split(",")
    hosts: list[tuple[str, int | None]] = []
    for place, part in enumerate(named.split(",") if named else []):
        host, port = part, ports[min(place, len(ports) - 1)]
        if part.startswith("["):
            host, _, own_port = part[1:].partition("]")
            port = own_port.removeprefix(":") or port
        elif ":" in part:
            host, _, port = part.rpartition(":")
        hosts.append((unquote(host), int(port) if port else None))
    return hosts


async def open_session(url: str, *, name: str, settings: Mapping[str, str], timeout_s: float) -> Session:
    """A session of our own with the primary. `timeout_s` bounds the attempt at each host and every later statement.

    asyncpg lets one timeout cover all hosts, so that a first host which accepts and then hangs would hide the others.
    Raises one of LOST when no host serves.
    """
    options: dict[str, Any] = {
        "timeout": timeout_s,
        "command_timeout": timeout_s,
        "server_settings": {"application_name": name, **settings},
    }
    hosts = hosts_of(url)
    if len(hosts) < 2:
        return await asyncpg.connect(url, **options)
    if "target_session_attrs" not in parse_qs(urlsplit(url).query):
        options["target_session_attrs"] = SessionAttribute.primary
    failure: Exception = OSError("no host")
    for host, port in hosts:
        try:
            return await asyncpg.connect(url, host=host, port=port, **options)
        except LOST as exc:
            failure = exc
    raise failure


async def keep_running(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Runs one of the realtime loops until cancelled; one that ends by a fault of ours is logged and begun again."""
    while True:
        try:
            await run()
        except Exception:
            _log.exception("realtime.loop_failed", loop=name)
        await asyncio.sleep(1)

"""The API process: the application behind uvicorn, and leaving without losing anybody.

On SIGTERM or Ctrl-C readiness fails at once, event streams complete, sockets are closed with 1012 in waves over
SHUTDOWN_GRACE_S seconds so that their clients do not all come back in the same second, and then the server stops.
A second Ctrl-C stops it where it stands.
"""

import asyncio
import gc
import socket
import sys
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from app.api.application import Application
from app.clock import Clock
from app.config import Config, ConfigError
from app.log import configure_logging
from app.runtime import Runtime, open_runtime

# A client that stops reading is immortal without this: its socket's buffer never drains and its close never ends. The
# kernel drops a connection whose sent bytes stay unacknowledged for so long. Accepted sockets inherit it.
_UNACKNOWLEDGED_MS: Final = 30_000
_BACKLOG: Final = 2048
# After the waves: answers that are being written, and sockets whose clients do not answer the close.
_LAST_ANSWERS_S: Final = 3

_log = structlog.stdlib.get_logger("shouyin.main")


def create_app(config: Config, *, clock: Clock | None = None) -> Application:
    """The application, its parts not opened yet: the server's lifespan opens and closes them.

    A test passes the clock it wants to move."""

    async def opened() -> Runtime:
        return await open_runtime(config, clock=clock)

    return Application(config, opened)


def serve_api(config: Config) -> None:
    """Serves until SIGTERM or Ctrl-C. Raises ConfigError or DatabaseUnusable when it cannot begin."""
    configure_logging(json=config.log_json, level=config.log_level)
    listening = bind(config.host, config.port)
    failure: list[BaseException] = []

    async def opened() -> Runtime:
        try:
            runtime = await open_runtime(config)
        except Exception as exc:
            failure.append(exc)
            raise
        _spare_the_collector()
        return runtime

    application = Application(config, opened)
    server = Server(_server_config(config, application), application)
    _log.info("serving", host=config.host, port=config.port, public_url=config.public_url)
    try:
        server.run(sockets=[listening])
    except SystemExit:
        # uvicorn's way of saying that the lifespan failed.
        if failure:
            raise failure[0] from None
        raise
    finally:
        listening.close()
    if failure:
        raise failure[0]


class Server(uvicorn.Server):
    """uvicorn, with the application told before its connections are cut."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks to leave; the second one insists. Ends with status 0: the signal is not raised again."""
        del sig, frame
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then stops."""
        draining = asyncio.create_task(self._application.drain())
        while not draining.done() and not self.force_exit:
            await asyncio.wait({draining}, timeout=0.1)
        draining.cancel()
        await super().shutdown(sockets)


def _spare_the_collector() -> None:
    """Takes what the start made, modules and schema, out of the garbage collector's rounds: a full one stops every
    request and watcher of the process for as long as it walks the heap. Its thresholds stay as they are; rarer rounds
    were longer ones, 100 ms with 3,000 watchers."""
    gc.collect()
    gc.freeze()


def bind(host: str, port: int) -> socket.socket:
    """The listening socket. Raises ConfigError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
        # Answers are one small write each; waiting for more only delays them.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError as exc:
        listening.close()
        raise ConfigError(f"PORT: {host}:{port} is not to be had ({exc.strerror}); free it, or set PORT") from exc
    return listening


def _server_config(config: Config, application: Application) -> uvicorn.Config:
    settings: dict[str, Any] = {
        "loop": "uvloop" if sys.platform != "win32" else "asyncio",
        "http": "httptools",
        "ws": "websockets-sansio",
        "ws_max_size": config.message_limit_bytes,
        # 42 to 55 KB for each socket and 2.7 times the CPU for each message, to save nothing on small JSON.
        "ws_per_message_deflate": False,
        "ws_ping_interval": 20.0,
        "ws_ping_timeout": 20.0,
        "lifespan": "on",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "date_header": False,
        "backlog": _BACKLOG,
        "forwarded_allow_ips": config.trusted_proxies,
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": _LAST_ANSWERS_S,
        # Refuses with 503 beyond it, whatever else fails to bound; each stream is counted, too.
        "limit_concurrency": config.sockets_limit + 2000,
    }
    return uvicorn.Config(application, **settings)

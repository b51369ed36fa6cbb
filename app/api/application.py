"""The ASGI application of one process: which path goes where, and what every answer carries.

    /graphql             GraphQL over HTTP, SSE, WebSocket; GraphiQL in a browser
    /notify/…            providers
    /exports/….csv       the books, for the finance person
    /wechat/oauth/…      a WeChat login in the browser
    /….txt               files that prove the domain to WeChat
    /healthz /readyz /metrics
    everything else      the web pages (Starlette)

It starts with the runtime and ends with it. A request is answered with its correlation id; what escapes an endpoint is
logged and masked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
from starlette.applications import Starlette

from app.api.asgi import Headers, Message, Receive, Scope, Send, respond, respond_json
from app.api.connections import Connections
from app.api.context import correlation_id_of
from app.api.execution import Engine
from app.api.exports import ExportEndpoint
from app.api.health import HealthEndpoints
from app.api.http import GraphQLEndpoint
from app.api.notify import NotifyEndpoint
from app.api.schema import graphql_schema
from app.api.websocket import Socket
from app.api.wechat_pages import FILE_PATH, WechatPages
from app.config import Config
from app.runtime import Runtime
from app.web.demo import DemoBackend
from app.web.pages import page_headers, render_graphiql, web_routes

_PREFLIGHT_S: Final = b"600"

_log = structlog.stdlib.get_logger("shouyin.http")


class Application:
    """One process's application; `open_runtime` is called once, when the server starts it."""

    def __init__(self, config: Config, open_runtime: Callable[[], Awaitable[Runtime]]) -> None:
        self._config = config
        self._open_runtime = open_runtime
        self._engine = Engine(graphql_schema(), introspection=config.introspection)
        self._runtime: Runtime | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI call."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._lifespan(receive, send)

    async def drain(self) -> None:
        """Ends every socket and stream over the grace period, before the server stops; readiness fails from now on."""
        if self._runtime is not None:
            await self.connections.drain(self._config.shutdown_grace_s)

    # --- start and end --------------------------------------------------------------------------------------------

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            runtime = await self._open_runtime()
        except Exception as exc:
            await send({"type": "lifespan.startup.failed", "message": str(exc)})
            raise
        try:
            self._assemble(runtime)
            sweep = asyncio.create_task(self.connections.sweep_forever())
            await send({"type": "lifespan.startup.complete"})
            await receive()
            # Under a server that does not drain, streams still complete instead of holding it up.
            runtime.realtime.end_all()
            sweep.cancel()
            with suppress(asyncio.CancelledError):
                await sweep
        finally:
            await runtime.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _assemble(self, runtime: Runtime) -> None:
        config = self._config
        connections = Connections(runtime.metrics, limit=config.sockets_limit, lifetime=config.socket_lifetime)
        page = (lambda: render_graphiql(config)) if config.graphiql else None
        headers = [(name.lower().encode(), value.encode()) for name, value in page_headers(config).items()]
        self._graphql = GraphQLEndpoint(runtime, self._engine, connections, page, headers)
        self._notify = NotifyEndpoint(runtime)
        self._exports = ExportEndpoint(runtime)
        self._wechat = WechatPages(runtime)
        self._health = HealthEndpoints(runtime, connections)
        demo = DemoBackend(config, runtime.db, runtime.clock, runtime.auth) if config.demo else None
        self._pages = Starlette(routes=web_routes(config, demo))
        self.connections = connections
        self._runtime = runtime

    # --- requests -------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers: Headers = dict(scope["headers"])
        given = headers.get(b"x-correlation-id")
        correlation_id = correlation_id_of(None if given is None else given.decode("latin-1"))
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        answer = _Answer(send, correlation_id, self._shared_with(headers))
        route = _route(scope["path"])
        try:
            if self._runtime is None:
                await respond_json(answer.send, 503, {"error": "starting"})
            elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                status, headers_out = (204, _PREFLIGHT) if answer.origin else (403, ())
                await respond(answer.send, status, b"", headers=headers_out)
            else:
                await self._dispatch(route, scope, receive, answer.send, correlation_id)
        except Exception as exc:
            _log.exception("request_failed", route=route, error=type(exc).__name__)
            if answer.status is not None:
                raise
            await respond_json(answer.send, 500, _masked(correlation_id))
        finally:
            if self._runtime is not None:
                self._runtime.metrics.observe_request(route, answer.status or 499, started)

    async def _dispatch(self, route: str, scope: Scope, receive: Receive, send: Send, correlation_id: str) -> None:
        match route:
            case "/graphql":
                await self._graphql(scope, receive, send, correlation_id)
            case "/notify":
                await self._notify(scope, receive, send, correlation_id)
            case "/exports":
                await self._exports(scope, receive, send, correlation_id)
            case "/healthz":
                await self._health.alive(send)
            case "/readyz":
                await self._health.ready(send)
            case "/metrics":
                await self._health.metrics(scope, send)
            case "/wechat":
                await self._wechat.oauth(scope, send)
            case "/.txt" if await self._wechat.file(scope, send):
                pass
            case _:
                await self._pages(scope, receive, send)

    def _shared_with(self, headers: Headers) -> bytes | None:
        """The page's origin where ALLOWED_ORIGINS names it: its browser may read the answer."""
        origin = headers.get(b"origin")
        return origin if origin is not None and origin.decode("latin-1") in self._config.allowed_origins else None

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/graphql" or self._runtime is None:
            await receive()
            await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})
            return
        socket = Socket(self._runtime, self._engine, self.connections, receive, send)
        await socket.serve(scope)


_PREFLIGHT: Final = (
    (b"access-control-allow-methods", b"GET, POST"),
    (b"access-control-allow-headers", b"authorization, content-type, accept, x-correlation-id"),
    (b"access-control-max-age", _PREFLIGHT_S),
)


class _Answer:
    """The `send` of one request: adds what every answer carries, and remembers the status."""

    __slots__ = ("_correlation_id", "_send", "origin", "status")

    def __init__(self, send: Send, correlation_id: str, origin: bytes | None) -> None:
        self._send = send
        self._correlation_id = correlation_id
        self.origin = origin
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Passes a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-correlation-id", self._correlation_id.encode())]
            if self.origin is not None:
                headers += [
                    (b"access-control-allow-origin", self.origin),
                    (b"access-control-expose-headers", b"x-correlation-id"),
                    (b"vary", b"origin"),
                ]
            message["headers"] = headers
        await self._send(message)


def _route(path: str) -> str:
    """The route's name, from a small fixed set: it labels metrics."""
    if path in ("/graphql", "/healthz", "/readyz", "/metrics"):
        return path
    if path.startswith("/exports/"):
        return "/exports"
    if path.startswith("/wechat/oauth/"):
        return "/wechat"
    if FILE_PATH.fullmatch(path):
        return "/.txt"
    return "/notify" if path.startswith(("/notify/", "/internal/notify/")) else "/"


def _masked(correlation_id: str) -> dict[str, object]:
    message = f"internal error; the operator finds it in the log under {correlation_id}"
    return {"errors": [{"message": message, "extensions": {"code": "INTERNAL", "correlationId": correlation_id}}]}

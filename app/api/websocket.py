"""GraphQL over WebSocket: the graphql-transport-ws protocol, and no other.

    client                     server
    connection_init {token} →
                             ← connection_ack
    subscribe {id, query}   →
                             ← next {id, data} …
                             ← complete {id}     or  error {id, errors}

Own handler, because the stock one closes or crashes the whole socket for one malformed operation and starts a timer
task for each socket. One task reads; each operation has one task more. Whatever an operation does, only that operation
ends; the socket ends for violations of the protocol, by the codes of its specification.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Any, Final

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError

from app.api.asgi import Headers, Receive, Scope, Send, client_address, find_principal, origin_allowed
from app.api.connections import Connections
from app.api.context import Context, correlation_id_of, token_expired
from app.api.errors import format_errors, format_exception, shown_error
from app.api.execution import Engine, OperationRequest, RequestErrors, is_subscription
from app.auth import Principal
from app.errors import QueryTooComplex, Unauthenticated
from app.runtime import Runtime

PROTOCOL: Final = "graphql-transport-ws"
_INIT_TIMEOUT_S: Final = 10.0
_ID_CHARACTERS: Final = 256

_BAD_REQUEST: Final = 4400
_UNAUTHORIZED: Final = 4401
_FORBIDDEN: Final = 4403
_NO_PROTOCOL: Final = 4406
_INIT_TIMEOUT: Final = 4408
_ID_IN_USE: Final = 4409
_SECOND_INIT: Final = 4429
_TOO_LARGE: Final = 1009


class _Violation(Exception):
    """The client broke the protocol: the socket closes with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Gone(Exception):
    """The client left."""


class Socket:
    """One WebSocket connection."""

    __slots__ = (
        "_acknowledged",
        "_closed",
        "_connections",
        "_engine",
        "_header_token",
        "_initialised",
        "_leaving",
        "_operations",
        "_receive",
        "_runtime",
        "_send",
        "address",
        "correlation_id",
        "deadline",
        "principal",
    )

    def __init__(
        self, runtime: Runtime, engine: Engine, connections: Connections, receive: Receive, send: Send
    ) -> None:
        self._runtime = runtime
        self._engine = engine
        self._connections = connections
        self._receive = receive
        self._send = send
        self._operations: dict[str, asyncio.Task[None]] = {}
        # Cancelled operations that have not finished yet; made when there is one.
        self._leaving: set[asyncio.Task[None]] | None = None
        self._initialised = False
        self._acknowledged = False
        self._closed = False
        self._header_token: bytes | None = None
        self.principal: Principal | None = None
        self.correlation_id = ""
        self.address: str | None = None
        self.deadline = connections.new_deadline()

    # --- the connection -------------------------------------------------------------------------------------------

    async def serve(self, scope: Scope) -> None:
        """Serves the connection until it ends; returns once everything it started has finished."""
        if (await self._receive())["type"] != "websocket.connect" or not await self._admit(scope):
            return
        self._connections.add(self)
        self._runtime.metrics.sockets.inc()
        try:
            await self._converse()
        except _Violation as exc:
            await self.close(exc.code, exc.reason)
        except (_Gone, OSError):
            self._closed = True
        finally:
            self._connections.remove(self)
            self._runtime.metrics.sockets.dec()
            await self._end_tasks()

    async def _admit(self, scope: Scope) -> bool:
        headers: Headers = dict(scope["headers"])
        if not origin_allowed(headers, self._runtime.config.allowed_origins):
            await self._refuse(403, b"this origin is not among ALLOWED_ORIGINS")
            return False
        if not self._connections.has_room():
            await self._refuse(503, b"no more connections now, try again shortly")
            return False
        header = headers.get(b"x-correlation-id")
        self.correlation_id = correlation_id_of(None if header is None else header.decode("latin-1"))
        self.address = client_address(scope)
        self._header_token = headers.get(b"authorization")
        structlog.contextvars.bind_contextvars(correlation_id=self.correlation_id)
        if PROTOCOL not in scope.get("subprotocols", ()):
            await self._send({"type": "websocket.accept"})
            await self.close(_NO_PROTOCOL, f"offer the sub-protocol {PROTOCOL}")
            return False
        await self._send({"type": "websocket.accept", "subprotocol": PROTOCOL})
        return True

    async def _refuse(self, status: int, reason: bytes) -> None:
        """Answers the handshake with an HTTP error instead of opening the socket."""
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"5")]
        await self._send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": reason})

    async def _converse(self) -> None:
        try:
            async with asyncio.timeout(_INIT_TIMEOUT_S):
                while not self._initialised:
                    await self._handle(await self._next_message())
        except TimeoutError as exc:
            raise _Violation(_INIT_TIMEOUT, "Connection initialisation timeout") from exc
        while True:
            await self._handle(await self._next_message())

    async def _next_message(self) -> dict[str, Any]:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            raise _Gone
        text = event.get("text")
        if text is None:
            raise _Violation(_BAD_REQUEST, "messages are text")
        if len(text) > self._runtime.config.message_limit_bytes:
            raise _Violation(_TOO_LARGE, "the message is too large")
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError as exc:
            raise _Violation(_BAD_REQUEST, "messages are JSON") from exc
        if not isinstance(message, dict):
            raise _Violation(_BAD_REQUEST, "a message is a JSON object")
        return message

    async def _handle(self, message: Mapping[str, Any]) -> None:
        match message.get("type"):
            case "subscribe":
                await self._subscribe(message)
            case "complete":
                self._stop(_read_id(message))
            case "connection_init":
                await self._initialise(_read_object(message, "payload"))
            case "ping":
                _read_object(message, "payload")
                await self._say({"type": "pong"})
            case "pong":
                _read_object(message, "payload")
            case _:
                raise _Violation(_BAD_REQUEST, "the message has no type of this protocol")

    async def _initialise(self, payload: Mapping[str, Any] | None) -> None:
        if self._initialised:
            raise _Violation(_SECOND_INIT, "Too many initialisation requests")
        self._initialised = True
        try:
            self.principal = await find_principal(self._runtime.auth, _token_in(payload or {}) or self._header_token)
        except Unauthenticated as exc:
            raise _Violation(_FORBIDDEN, exc.message[:120]) from exc
        self._header_token = None
        self._acknowledged = True
        await self._say({"type": "connection_ack"})

    # --- operations -----------------------------------------------------------------------------------------------

    async def _subscribe(self, message: Mapping[str, Any]) -> None:
        if not self._acknowledged:
            raise _Violation(_UNAUTHORIZED, "Unauthorized")
        operation_id, request = _read_id(message), _read_request(message)
        if operation_id in self._operations:
            raise _Violation(_ID_IN_USE, "Subscriber for this id already exists")
        limit = self._runtime.config.subscriptions_per_socket
        if self._leaving and len(self._operations) + len(self._leaving) >= limit:
            # Cancelled a moment ago: their places are free as soon as they have let go.
            await asyncio.wait(self._leaving)
        if len(self._operations) >= limit:
            full = QueryTooComplex(f"a connection carries at most {limit} operations at once: complete one first")
            await self._fail(operation_id, [shown_error(full)])
            return
        task = asyncio.create_task(self._run(operation_id, request))
        self._operations[operation_id] = task

    async def _run(self, operation_id: str, request: OperationRequest) -> None:
        context = Context(self._runtime, self.principal, self.correlation_id, self.address)
        try:
            prepared = self._engine.prepare(request.query)
            if is_subscription(prepared.operation(request.operation_name)):
                with self._runtime.metrics.subscriptions.track_inprogress():
                    async with aclosing(self._engine.subscribe(prepared, request, context)) as results:
                        async for result in results:
                            await self._next(operation_id, result)
            else:
                await self._next(operation_id, await self._engine.execute(prepared, request, context))
            if self._finish(operation_id):
                await self._say({"id": operation_id, "type": "complete"})
        except RequestErrors as exc:
            await self._fail(operation_id, exc.errors)
        except _Gone:
            self._finish(operation_id)
        except Exception as exc:  # the last place that knows which operation it was
            if self._finish(operation_id):
                errors = format_exception(exc, self.correlation_id, self._runtime.metrics)
                await self._say({"id": operation_id, "type": "error", "payload": errors})

    async def _next(self, operation_id: str, result: ExecutionResult) -> None:
        payload: dict[str, Any] = {"data": result.data}
        if result.errors:
            payload["errors"] = format_errors(result.errors, self.correlation_id, self._runtime.metrics)
        await self._say({"id": operation_id, "type": "next", "payload": payload})

    async def _fail(self, operation_id: str, errors: list[GraphQLError]) -> None:
        self._finish(operation_id)
        shown = format_errors(errors, self.correlation_id, self._runtime.metrics)
        await self._say({"id": operation_id, "type": "error", "payload": shown})

    def _finish(self, operation_id: str) -> bool:
        """Frees the id before the last message goes out; false when the client completed the operation already."""
        if self._operations.get(operation_id) is not asyncio.current_task():
            return False
        del self._operations[operation_id]
        return True

    def _stop(self, operation_id: str) -> None:
        task = self._operations.pop(operation_id, None)
        if task is None or task.done():
            return
        if self._leaving is None:
            self._leaving = set()
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        task.cancel()

    # --- ends -----------------------------------------------------------------------------------------------------

    def token_expired(self) -> bool:
        """Whether the token is over and operations still run under it."""
        return bool(self._operations) and self.principal is not None and self._runtime.auth.expired(self.principal)

    async def end_operations(self) -> None:
        """Ends all operations because the token is over."""
        for operation_id in list(self._operations):
            self._stop(operation_id)
            shown = format_errors([shown_error(token_expired())], self.correlation_id, self._runtime.metrics)
            await self._say({"id": operation_id, "type": "error", "payload": shown})

    async def close(self, code: int, reason: str) -> None:
        """Closes the socket; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._runtime.metrics.socket_closes.labels(str(code)).inc()
        for operation_id in list(self._operations):
            self._stop(operation_id)
        with suppress(OSError, RuntimeError):
            await self._send({"type": "websocket.close", "code": code, "reason": reason[:120]})

    async def _say(self, message: Mapping[str, Any]) -> None:
        if self._closed:
            raise _Gone
        try:
            await self._send({"type": "websocket.send", "text": orjson.dumps(message).decode()})
        except OSError as exc:
            raise _Gone from exc

    async def _end_tasks(self) -> None:
        for operation_id in list(self._operations):
            self._stop(operation_id)
        if self._leaving:
            await asyncio.wait(self._leaving)


def _read_id(message: Mapping[str, Any]) -> str:
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= _ID_CHARACTERS:
        raise _Violation(_BAD_REQUEST, f"id is a text of 1 to {_ID_CHARACTERS} characters")
    return operation_id


def _read_object(message: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = message.get(name)
    if value is not None and not isinstance(value, dict):
        raise _Violation(_BAD_REQUEST, f"{name} is an object or null")
    return value


def _read_request(message: Mapping[str, Any]) -> OperationRequest:
    payload = _read_object(message, "payload")
    if payload is None or not isinstance(payload.get("query"), str):
        raise _Violation(_BAD_REQUEST, "payload.query is a text")
    name = payload.get("operationName")
    if name is not None and not isinstance(name, str):
        raise _Violation(_BAD_REQUEST, "payload.operationName is a text or null")
    _read_object(payload, "extensions")
    return OperationRequest(query=payload["query"], variables=_read_object(payload, "variables"), operation_name=name)


def _token_in(payload: Mapping[str, Any]) -> str | None:
    """The authorization text of a connection_init payload: {"authorization": "Bearer …"} or {"token": "…"}."""
    for name, value in payload.items():
        if name.lower() == "authorization" and isinstance(value, str):
            return value
    token = payload.get("token")
    return f"Bearer {token}" if isinstance(token, str) else None

"""GraphQL over HTTP, by its specification: POST and GET, JSON and application/graphql-response+json, and SSE.

    POST {query, variables, operationName}   any operation
    GET  ?query=…                            queries only: a link must not be able to pay
    Accept: text/event-stream                any operation as a stream (graphql-sse, distinct connections)

Source: https://graphql.github.io/graphql-over-http/draft/ and https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

import orjson
from graphql import ExecutionResult, GraphQLError, OperationDefinitionNode, OperationType

from app.api.asgi import (
    BodyTooLarge,
    ClientGone,
    Headers,
    Receive,
    Scope,
    Send,
    client_address,
    find_principal,
    read_body,
    respond,
)
from app.api.connections import Connections
from app.api.context import Context
from app.api.errors import INVALID_QUERY, RequestError, format_errors, shown_error
from app.api.execution import Engine, OperationRequest, RequestErrors, is_subscription
from app.api.negotiation import EVENT_STREAM, GRAPHQL_JSON, HTML, PLAIN_JSON, choose_media_type
from app.api.sse import EventStream, send_errors
from app.errors import QueryTooComplex, Unauthenticated
from app.runtime import Runtime

_CONTENT_TYPES: Final = {
    PLAIN_JSON: b"application/json; charset=utf-8",
    GRAPHQL_JSON: b"application/graphql-response+json; charset=utf-8",
}


class Refused(Exception):
    """The HTTP request is no GraphQL request; answered with this status before anything ran."""

    def __init__(self, status: int, message: str, *, code: str = INVALID_QUERY, **headers: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.error = RequestError(message, code=code)
        self.headers = [(name.encode(), value) for name, value in headers.items()]


class GraphQLEndpoint:
    """`/graphql` for requests; `page` renders GraphiQL, None where it is off, and goes out with `page_headers`."""

    def __init__(
        self,
        runtime: Runtime,
        engine: Engine,
        connections: Connections,
        page: Callable[[], str] | None = None,
        page_headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self._runtime = runtime
        self._engine = engine
        self._connections = connections
        self._page = page
        self._page_headers = page_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send, correlation_id: str) -> int:
        """Answers one request; returns the status it sent."""
        headers: Headers = dict(scope["headers"])
        accept = headers.get(b"accept")
        with_page = scope["method"] == "GET" and self._page is not None
        media = choose_media_type(None if accept is None else accept.decode("latin-1"), html=with_page)
        if media == HTML and self._page is not None:
            page = self._page().encode()
            await respond(send, 200, page, content_type=b"text/html; charset=utf-8", headers=self._page_headers)
            return 200
        if media is None:
            unacceptable = RequestError(f"accept {GRAPHQL_JSON}, {PLAIN_JSON} or {EVENT_STREAM}")
            return await self._refuse(send, 406, None, [unacceptable], correlation_id)
        try:
            request = await self._read(scope, headers, receive)
            if media == EVENT_STREAM:
                return await self._stream(scope, headers, receive, send, request, correlation_id)
            result = await self._execute(scope, headers, request, correlation_id)
        except Refused as exc:
            return await self._refuse(send, exc.status, media, [exc.error], correlation_id, exc.headers)
        except RequestErrors as exc:
            return await self._refuse(send, 400 if media == GRAPHQL_JSON else 200, media, exc.errors, correlation_id)
        except Unauthenticated as exc:
            status = 401 if media == GRAPHQL_JSON else 200
            return await self._refuse(send, status, media, [shown_error(exc)], correlation_id)
        except ClientGone:
            return 499
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer = {"errors": format_errors(result.errors, correlation_id, self._runtime.metrics), **answer}
        await respond(send, 200, orjson.dumps(answer), content_type=_CONTENT_TYPES[media])
        return 200

    async def _read(self, scope: Scope, headers: Headers, receive: Receive) -> OperationRequest:
        limit = self._runtime.config.body_limit_bytes
        if scope["method"] == "POST":
            _check_content_type(headers.get(b"content-type", b"").decode("latin-1"))
            try:
                body = await read_body(headers, receive, limit)
            except BodyTooLarge as exc:
                # Closed, because the rest of the body would have to be read to find the next request.
                message = f"the body is larger than {limit} bytes"
                raise Refused(413, message, code=QueryTooComplex.code, connection=b"close") from exc
            return _read_parameters(_parse_json(body, "the body"))
        if scope["method"] == "GET":
            if len(scope["query_string"]) > limit:
                raise Refused(414, "the query string is too long: send it by POST", code=QueryTooComplex.code)
            return _read_parameters(_read_query_string(scope["query_string"]))
        raise Refused(405, "send GraphQL by POST or GET", allow=b"GET, POST")

    async def _execute(
        self, scope: Scope, headers: Headers, request: OperationRequest, correlation_id: str
    ) -> ExecutionResult:
        context = await self._context(scope, headers, correlation_id)
        prepared = self._engine.prepare(request.query)
        operation = prepared.operation(request.operation_name)
        _check_method(scope, operation)
        if is_subscription(operation):
            needed = f"subscriptions need {EVENT_STREAM} in the Accept header, or a WebSocket"
            raise RequestErrors([RequestError(needed)])
        return await self._engine.execute(prepared, request, context)

    async def _stream(
        self,
        scope: Scope,
        headers: Headers,
        receive: Receive,
        send: Send,
        request: OperationRequest,
        correlation_id: str,
    ) -> int:
        """What an EventSource could not read as an HTTP error comes as an event."""
        if not self._connections.has_room():
            raise Refused(503, "no more connections now, try again shortly")
        try:
            context = await self._context(scope, headers, correlation_id)
            prepared = self._engine.prepare(request.query)
            operation = prepared.operation(request.operation_name)
        except Unauthenticated as exc:
            await send_errors(send, [shown_error(exc)], correlation_id, self._runtime.metrics)
            return 200
        except RequestErrors as exc:
            await send_errors(send, exc.errors, correlation_id, self._runtime.metrics)
            return 200
        _check_method(scope, operation)
        results = (
            self._engine.subscribe(prepared, request, context)
            if is_subscription(operation)
            else _only(self._engine.execute(prepared, request, context))
        )
        await EventStream(context, self._connections, results).serve(receive, send)
        return 200

    async def _context(self, scope: Scope, headers: Headers, correlation_id: str) -> Context:
        principal = await find_principal(self._runtime.auth, headers.get(b"authorization"))
        return Context(self._runtime, principal, correlation_id, client_address(scope))

    async def _refuse(
        self,
        send: Send,
        status: int,
        media: str | None,
        errors: list[GraphQLError],
        correlation_id: str,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> int:
        """Answers that nothing was executed: without `data`, as the specification has it."""
        answer = orjson.dumps({"errors": format_errors(errors, correlation_id, self._runtime.metrics)})
        content_type = _CONTENT_TYPES.get(media or PLAIN_JSON, _CONTENT_TYPES[PLAIN_JSON])
        await respond(send, status, answer, content_type=content_type, headers=headers)
        return status


def _check_content_type(header: str) -> None:
    media, *parameters = (part.strip().lower() for part in header.split(";"))
    if media != PLAIN_JSON:
        raise Refused(415, "the content-type is not application/json")
    for parameter in parameters:
        if parameter.startswith("charset=") and parameter[8:].strip('"') not in ("utf-8", "utf8"):
            raise Refused(415, "the charset is not utf-8")


def _check_method(scope: Scope, operation: OperationDefinitionNode) -> None:
    if scope["method"] == "GET" and operation.operation is OperationType.MUTATION:
        raise Refused(405, "send mutations by POST", allow=b"POST")


def _parse_json(body: bytes | str, what: str) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise Refused(400, f"{what} is not JSON") from exc


def _read_query_string(query_string: bytes) -> dict[str, Any]:
    try:
        given = parse_qs(
            query_string.decode("ascii"), keep_blank_values=True, max_num_fields=20, encoding="utf-8", errors="strict"
        )
    except ValueError as exc:
        raise Refused(400, "the query string cannot be read: encode it as UTF-8, with at most 20 parameters") from exc
    parameters: dict[str, Any] = {name: values[-1] for name, values in given.items()}
    for name in ("variables", "extensions"):
        text = parameters.get(name)
        # An empty parameter is how forms and GraphiQL write "none".
        parameters[name] = _parse_json(text, name) if text else None
    parameters["operationName"] = parameters.get("operationName") or None
    return parameters


def _read_parameters(parameters: object) -> OperationRequest:
    if not isinstance(parameters, dict):
        raise Refused(400, "the body is not one JSON object; batches are not supported")
    query = parameters.get("query")
    if not isinstance(query, str) or not query:
        raise Refused(400, "query is missing, or is not a text")
    name, variables = parameters.get("operationName"), parameters.get("variables")
    if name is not None and not isinstance(name, str):
        raise Refused(400, "operationName is neither a text nor null")
    if variables is not None and not isinstance(variables, dict):
        raise Refused(400, "variables is neither an object nor null")
    if not isinstance(parameters.get("extensions"), dict | None):
        raise Refused(400, "extensions is neither an object nor null")
    return OperationRequest(query=query, variables=variables, operation_name=name)


async def _only(result: Awaitable[ExecutionResult]) -> AsyncGenerator[ExecutionResult, None]:
    yield await result

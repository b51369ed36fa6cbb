"""Results as server-sent events (graphql-sse, distinct connections mode), for networks and clients without WebSocket.

    event: next        data: {"data": …}
    event: complete    data:

A comment every 15 seconds keeps proxies from closing an idle stream. There are no `id:` lines and no resumption: a new
stream starts with what exists now, so that nothing is missed.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import orjson
from graphql import ExecutionResult, GraphQLError

from app.api.asgi import Receive, Send
from app.api.connections import Connections
from app.api.context import Context, token_expired
from app.api.errors import format_errors, format_exception, shown_error
from app.api.execution import RequestErrors
from app.metrics import Metrics

_HEARTBEAT_S: Final = 15.0
_COMPLETE: Final = b"event: complete\ndata: \n\n"
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    # nginx would hold events back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


class EventStream:
    """One stream of results. It ends with its operation, with the client, with the token, or with the process."""

    def __init__(
        self, context: Context, connections: Connections, results: AsyncGenerator[ExecutionResult, None]
    ) -> None:
        self._context = context
        self._connections = connections
        self._results = results
        self._ended = asyncio.Event()
        self._last_words: list[GraphQLError] = []
        self.deadline = connections.new_deadline()

    async def serve(self, receive: Receive, send: Send) -> None:
        """Sends results until the end; returns once the source is closed."""
        metrics = self._context.runtime.metrics
        self._connections.add(self)
        gone, ended = asyncio.create_task(_disconnect(receive)), asyncio.create_task(self._ended.wait())
        try:
            with metrics.streams.track_inprogress(), metrics.subscriptions.track_inprogress():
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
                async with aclosing(self._results):
                    await self._pump(send, gone, ended)
        finally:
            self._connections.remove(self)
            await _cancel(gone, ended)

    async def _pump(self, send: Send, gone: asyncio.Task[None], ended: asyncio.Task[Any]) -> None:
        correlation_id, metrics = self._context.correlation_id, self._context.runtime.metrics
        following = asyncio.ensure_future(anext(self._results, None))
        try:
            while True:
                done, _ = await asyncio.wait(
                    {following, gone, ended}, timeout=_HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
                )
                if gone in done:
                    return
                if ended in done:
                    break
                if following not in done:
                    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
                    continue
                result = await following
                if result is None:
                    break
                await send(_event(_payload(result, correlation_id, metrics)))
                following = asyncio.ensure_future(anext(self._results, None))
        except RequestErrors as exc:
            await send(_event({"errors": format_errors(exc.errors, correlation_id, metrics)}))
        except Exception as exc:
            # What the source raised after the stream had begun: the status line is long gone.
            await send(_event({"errors": format_exception(exc, correlation_id, metrics)}))
        finally:
            await _cancel(following)
        if self._last_words:
            await send(_event({"errors": format_errors(self._last_words, correlation_id, metrics)}))
        await send({"type": "http.response.body", "body": _COMPLETE})

    def token_expired(self) -> bool:
        """Whether the token is over."""
        principal = self._context.principal
        return principal is not None and self._context.runtime.auth.expired(principal)

    async def end_operations(self) -> None:
        """Ends the stream because the token is over."""
        self._last_words = [shown_error(token_expired())]
        self._ended.set()

    async def close(self, code: int, reason: str) -> None:
        """Completes the stream."""
        del code, reason
        self._ended.set()


async def send_errors(send: Send, errors: Sequence[GraphQLError], correlation_id: str, metrics: Metrics) -> None:
    """A whole stream that says why there is none."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send(_event({"errors": format_errors(errors, correlation_id, metrics)}))
    await send({"type": "http.response.body", "body": _COMPLETE})


def _payload(result: ExecutionResult, correlation_id: str, metrics: Metrics) -> dict[str, Any]:
    payload: dict[str, Any] = {"data": result.data}
    if result.errors:
        payload["errors"] = format_errors(result.errors, correlation_id, metrics)
    return payload


def _event(payload: dict[str, Any]) -> dict[str, Any]:
    body = b"event: next\ndata: " + orjson.dumps(payload) + b"\n\n"
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    """Ends tasks of ours and waits until they have ended."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task

"""Connections that break the way real ones do: dropped without a byte, or silent until the caller gives up.

ASGI has no word for either, so the sandbox is served with `DroppableProtocol`, which hands each request a way to abort
its own transport. Served otherwise (an in-process test client), a drop is a ConnectionResetError to the caller.
"""

import asyncio
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ABORT = "sandbox.abort"


class DroppableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol; each request finds `ABORT` in its state."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][ABORT] = self.transport.abort


class DroppedConnection(Response):
    """Close the connection without answering; the caller cannot tell whether anything was done."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        abort: Callable[[], None] | None = scope.get("state", {}).get(ABORT)
        if abort is None:
            raise ConnectionResetError("the sandbox dropped this connection on request")
        abort()
        # Returning earlier would make the server try to answer with a 500.
        while (await receive())["type"] != "http.disconnect":
            pass


class SilentConnection(DroppedConnection):
    """Say nothing for `seconds` or until the caller hangs up, then drop the connection."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            await super().__call__(scope, receive, send)

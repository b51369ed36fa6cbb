"""Thousands of graphql-transport-ws clients in one process: raw frames, one subscription each, nothing decoded."""

import asyncio
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Final, cast

import orjson

from tests.bench.site import Site

QUERY: Final = (
    "subscription($id: ID!) { payment(id: $id) { id orderId method amount status final checking transactionId"
    " updatedAt version } }"
)
_HANDSHAKE: Final = (
    "GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
)
_TEXT: Final = 0x81
_CLOSE: Final = 0x88
_PING: Final = 0x89
_PONG: Final = 0x8A
_AT_ONCE: Final = 64
_STALLED_S: Final = 60.0


class Watchers:
    """Open watchers of one API process, each of its own payment. `received` holds (payment id, version, ns) of every
    state since `start_recording`."""

    def __init__(self, site: Site, port: int, owners: Mapping[int, str]) -> None:
        self._site = site
        self._port = port
        self._waiting = list(owners.items())
        self._open: list[_Client] = []
        self._tokens: dict[str, str] = {}
        self.received: list[tuple[int, int, int]] = []
        self.recording = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def watched(self) -> list[int]:
        """Ids of the payments that are watched now."""
        return [client.payment_id for client in self._open]

    async def open_until(self, count: int) -> None:
        """Opens watchers until there are that many; each has had its first state."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def open_one(payment_id: int, owner: str) -> None:
            async with gate:
                self._open.append(await self._connect(payment_id, owner))

        new = [self._waiting.pop() for _ in range(count - len(self._open))]
        async with asyncio.timeout(_STALLED_S), asyncio.TaskGroup() as group:
            for payment_id, owner in new:
                group.create_task(open_one(payment_id, owner))

    async def _connect(self, payment_id: int, owner: str) -> "_Client":
        token = self._tokens.get(owner) or self._tokens.setdefault(owner, self._site.token(owner))
        loop = asyncio.get_running_loop()
        client = _Client(self, self._port, payment_id, token, loop.create_future())
        await loop.create_connection(lambda: client, "127.0.0.1", self._port)
        await client.begun
        return client

    def start_recording(self) -> None:
        """Forgets what was received and records from now on."""
        self.received.clear()
        self.recording = True

    async def received_all(
        self, wanted: Sequence[tuple[int, int]], *, timeout_s: float = 10
    ) -> dict[tuple[int, int], int]:
        """(payment id, version) → when it came, in ns, once all wanted ones came or the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen: dict[tuple[int, int], int] = {}
            for payment_id, version, at_ns in self.received:
                seen.setdefault((payment_id, version), at_ns)
            if all(key in seen for key in wanted) or time.monotonic() > deadline:
                return seen
            await asyncio.sleep(0.05)

    async def close_until(self, count: int) -> None:
        """Closes watchers until only that many are left."""
        leaving, self._open = self._open[count:], self._open[:count]
        for client in leaving:
            client.leave()
        async with asyncio.timeout(_STALLED_S):
            for client in leaving:
                await client.gone


class _Client(asyncio.Protocol):
    __slots__ = ("_buffer", "_owner", "_port", "_token", "_transport", "_upgraded", "begun", "gone", "payment_id")

    def __init__(self, owner: Watchers, port: int, payment_id: int, token: str, begun: "asyncio.Future[None]") -> None:
        self._owner = owner
        self._port = port
        self.payment_id = payment_id
        self._token = token
        self.begun = begun
        self.gone: asyncio.Future[None] = begun.get_loop().create_future()
        self._buffer = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class
        self._transport.write(_HANDSHAKE.format(port=self._port).encode())

    def data_received(self, data: bytes) -> None:
        at_ns = time.perf_counter_ns()
        self._buffer += data
        if not self._upgraded:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._fail(f"no WebSocket: {head[:200]!r}")
                return
            self._upgraded, self._buffer = True, rest
            self._say({"type": "connection_init", "payload": {"token": self._token}})
        while (frame := self._next_frame()) is not None:
            self._handle(*frame, at_ns)

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        if length == 126:
            if len(buffer) < 4:
                return None
            length, start = int.from_bytes(buffer[2:4], "big"), 4
        if len(buffer) < start + length:
            return None
        self._buffer = buffer[start + length :]
        return buffer[0], buffer[start : start + length]

    def _handle(self, kind: int, payload: bytes, at_ns: int) -> None:
        if kind == _PING:
            self._frame(_PONG, payload)
        elif kind == _TEXT and b'"type":"next"' in payload and b'"errors"' not in payload:
            if self._owner.recording:
                at = payload.index(b'"version":') + 10
                end = at
                while payload[end : end + 1].isdigit():
                    end += 1
                self._owner.received.append((self.payment_id, int(payload[at:end]), at_ns))
            if not self.begun.done():
                self.begun.set_result(None)
        elif kind == _TEXT and b'"connection_ack"' in payload:
            variables = {"id": str(self.payment_id)}
            self._say({"id": "1", "type": "subscribe", "payload": {"query": QUERY, "variables": variables}})
        elif not self.gone.done():
            self._fail(f"the server said {payload[:300]!r}")

    def _say(self, message: object) -> None:
        self._frame(_TEXT, orjson.dumps(message))

    def _frame(self, kind: int, payload: bytes) -> None:
        # Clients mask; a mask of zeros leaves the payload as it is.
        size = len(payload)
        head = struct.pack("!BB", kind, 0x80 | size) if size < 126 else struct.pack("!BBH", kind, 0xFE, size)
        self._transport.write(head + bytes(4) + payload)

    def leave(self) -> None:
        """Closes as a page does that is left."""
        self._frame(_CLOSE, struct.pack("!H", 1000))

    def _fail(self, reason: str) -> None:
        if not self.begun.done():
            self.begun.set_exception(RuntimeError(reason))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(RuntimeError(f"the socket closed: {exc}"))
        if not self.gone.done():
            self.gone.set_result(None)

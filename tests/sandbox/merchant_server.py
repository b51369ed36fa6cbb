"""A merchant's notification endpoint on a real socket: answers as told, remembers what came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

ACKNOWLEDGED = (200, b"success")


@dataclass(frozen=True, slots=True)
class Received:
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class MerchantServer:
    """`answers` are used up one by one, then `otherwise`. An answer of None never comes: the connection just closes."""

    base_url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: list[tuple[int, bytes] | None] = field(default_factory=list)
    otherwise: tuple[int, bytes] | None = ACKNOWLEDGED
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def hold(self) -> asyncio.Event:
        """Answer nothing more until the event is set."""
        self.may_answer.clear()
        return self.may_answer

    @property
    def notify_url(self) -> str:
        return f"{self.base_url}/notify"

    async def wait_for(self, count: int) -> list[Received]:
        """All that came, once there are `count`; a TimeoutError after ten seconds."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            answer = self.answers.pop(0) if self.answers else self.otherwise
            async with self.arrived:
                self.received.append(Received(head[0].split(" ")[1], headers, body))
                self.arrived.notify_all()
            await self.may_answer.wait()
            if answer is not None:
                status, content = answer
                start = f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
                location = "location: /elsewhere\r\n" if 300 <= status < 400 else ""
                writer.write(f"{start}{location}\r\n".encode() + content)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def running_merchant_server() -> AsyncIterator[MerchantServer]:
    merchant = MerchantServer()
    server = await asyncio.start_server(merchant.serve, "127.0.0.1", 0)
    merchant.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield merchant
    finally:
        server.close()
        await server.wait_closed()

"""A real HTTP server on loopback that does what a test tells it to, also what no decent server would do."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

_LIMIT_S = 10


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    target: str
    headers: dict[str, str]
    body: bytes

    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True, strict_parsing=True))

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("ascii"), keep_blank_values=True, strict_parsing=True))


Behaviour = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class ScriptedServer:
    """Answers with `behave`, which the test sets, and keeps every request it read."""

    origin: str
    behave: Behaviour
    received: list[Received] = field(default_factory=list)

    def url(self, path: str = "/gateway.do") -> str:
        return self.origin + path


@asynccontextmanager
async def serving(behave: Behaviour, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """A server on a free port for the duration of the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            request = await _read(reader)
            if request is not None:
                server.received.append(request)
                await server.behave(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client went away, or the test is over: both are what a test asked for.
            pass
        finally:
            tasks.discard(task)
            writer.close()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server = ScriptedServer(f"http{'s' if tls else ''}://127.0.0.1:{port}", behave)
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LIMIT_S)


async def _read(reader: asyncio.StreamReader) -> Received | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(first.split(" ")[1], headers, body)


async def hang(_: Received, __: asyncio.StreamWriter) -> None:
    """Reads the request and says nothing until the test is over."""
    await asyncio.Event().wait()


def answering(
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "application/json",
    extra: str = "",
    length: int | None = None,
) -> Behaviour:
    """Answers every request alike. `length` may lie about the body's."""

    async def behave(_: Received, writer: asyncio.StreamWriter) -> None:
        await write_answer(writer, body, status=status, content_type=content_type, extra=extra, length=length)

    return behave


async def write_answer(
    writer: asyncio.StreamWriter,
    body: bytes,
    *,
    status: int = 200,
    content_type: str = "application/json",
    extra: str = "",
    length: int | None = None,
) -> None:
    stated = len(body) if length is None else length
    head = (
        f"HTTP/1.1 {status} Said\r\nContent-Type: {content_type}\r\nContent-Length: {stated}\r\n"
        f"Connection: close\r\n{extra}\r\n"
    )
    writer.write(head.encode("latin-1") + body)
    await writer.drain()

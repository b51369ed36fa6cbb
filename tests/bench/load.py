"""HTTP load that leaves the processor to the server: keep-alive connections, prepared bytes, one request at a time."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
_STALLED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a run achieved. Latencies are seconds, one an answer."""

    answers: int
    elapsed_s: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.elapsed_s


def post(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The bytes of one request."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode("latin-1") + body


async def send_all(
    port: int, requests: Sequence[bytes], *, connections: int, limit_s: float, accepted: Callable[[bytes], bool]
) -> Load:
    """Sends each request once, until all are answered or the time is over.

    Raises RuntimeError for an answer that is not 200 or not `accepted`: a fast refusal is no result."""
    loop = asyncio.get_running_loop()
    run = _Run(iter(requests), accepted, loop.create_future())
    opened = [(await loop.create_connection(lambda: _Client(run), "127.0.0.1", port))[1] for _ in range(connections)]
    started = time.perf_counter()
    run.deadline = started + limit_s
    run.working = len(opened)
    for client in opened:
        client.send_next()
    try:
        async with asyncio.timeout(limit_s + _STALLED_S):
            await run.finished
    finally:
        for client in opened:
            client.close()
    return Load(len(run.latencies), run.ended_at - started, run.latencies)


class _Run:
    def __init__(
        self, requests: Iterator[bytes], accepted: Callable[[bytes], bool], finished: "asyncio.Future[None]"
    ) -> None:
        self.requests = requests
        self.accepted = accepted
        self.finished = finished
        self.latencies: list[float] = []
        self.deadline = 0.0
        self.ended_at = 0.0
        self.working = 0

    def fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(RuntimeError(reason))


class _Client(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._sent_at = 0.0
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base class

    def send_next(self) -> None:
        run, now = self._run, time.perf_counter()
        request = next(run.requests, None) if now < run.deadline else None
        self._busy = request is not None
        if request is None:
            run.working -= 1
            if run.working == 0 and not run.finished.done():
                run.finished.set_result(None)
            return
        self._sent_at = now
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(_HEAD_END)
        if head < 0:
            return
        at = self._received.find(_LENGTH, 0, head + 2) + len(_LENGTH)
        length = int(self._received[at : self._received.index(b"\r\n", at)])
        if len(self._received) < head + len(_HEAD_END) + length:
            return
        answer, self._received = self._received, b""
        now = time.perf_counter()
        if not answer.startswith(b"HTTP/1.1 200") or not self._run.accepted(answer[head + len(_HEAD_END) :]):
            self._run.fail(f"an answer that was not expected: {answer[:2000]!r}")
            return
        self._run.latencies.append(now - self._sent_at)
        self._run.ended_at = now
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._run.fail(f"the server closed a connection: {exc}")

    def close(self) -> None:
        self._busy = False
        self._transport.close()

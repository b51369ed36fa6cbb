"""Notifications on their way to the merchant: first send at once, retries on the sandbox clock, a log of everything.

    WAITING ── acknowledged ──► ACKNOWLEDGED
       │  └─── last gap used ──► GIVEN_UP
       └─────── not loopback ──► BLOCKED (nothing was sent)

Each provider brings the message, its gaps and what it takes for an acknowledgement. Nothing is ever sent to a host
other than loopback unless it was allowed by name.
"""

import asyncio
import heapq
import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.sandbox.clock import SandboxClock

Action = Callable[[], Coroutine[Any, Any, None]]

ANY_HOST = "*"
ATTEMPT_TIMEOUT_S = 10.0
MAX_CONNECTIONS = 100
ANSWER_KEPT_CHARS = 200
MAX_ANSWER_BYTES = 4096


class NoticeState(StrEnum):
    WAITING = "WAITING"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    GIVEN_UP = "GIVEN_UP"
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True)
class Message:
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """One send. `due_at` is what the schedule said, `sent_at` the sandbox clock when it happened."""

    kind: str
    due_at: datetime
    sent_at: datetime
    duration_ms: int
    http_status: int | None
    answer: str
    error: str | None
    acknowledged: bool

    def described(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "due_at": self.due_at.isoformat(),
            "sent_at": self.sent_at.isoformat(),
            "duration_ms": self.duration_ms,
            "http_status": self.http_status,
            "answer": self.answer,
            "error": self.error,
            "acknowledged": self.acknowledged,
        }


@dataclass(slots=True)
class Notice:
    """One notification through all its attempts; `notify_id` stays the same.

    `compose` makes the message for a send at an instant (providers write the send time into it), `is_acknowledged`
    judges HTTP status and body, for which the merchant has `timeout_s`. `next_at` is None while a send is under way and
    once the notice is over.
    """

    notify_id: str
    provider: str
    out_trade_no: str
    url: str
    gaps: tuple[timedelta, ...]
    compose: Callable[[datetime], Message]
    is_acknowledged: Callable[[int, bytes], bool]
    summary: dict[str, str]
    timeout_s: float = ATTEMPT_TIMEOUT_S
    state: NoticeState = NoticeState.WAITING
    next_at: datetime | None = None
    gaps_used: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def described(self) -> dict[str, Any]:
        return {
            "notify_id": self.notify_id,
            "provider": self.provider,
            "out_trade_no": self.out_trade_no,
            "url": self.url,
            "state": self.state.value,
            "next_at": self.next_at.isoformat() if self.next_at else None,
            "summary": self.summary,
            "attempts": [attempt.described() for attempt in self.attempts],
        }


class Deliveries:
    """Owns every send. Use inside `running()`, which the app's lifespan enters."""

    def __init__(self, clock: SandboxClock, *, allowed_hosts: Collection[str] = ()) -> None:
        self._clock = clock
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._notices: dict[str, Notice] = {}
        self._waiting: dict[str, Notice] = {}  # those with a next send; finished ones must not cost a scan
        self._appointments: list[tuple[datetime, int, Action]] = []  # a heap
        self._appointments_made = 0
        self._sends: set[asyncio.Task[None]] = set()
        self._sends_made = 0
        self._rescheduled = asyncio.Event()
        self._moving = asyncio.Lock()
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what falls due until the block is left; whatever is under way then is cancelled."""
        client = httpx.AsyncClient(
            timeout=httpx.Timeout(ATTEMPT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS),
            follow_redirects=False,
            trust_env=False,
        )
        async with client:
            self._client = client
            schedule = asyncio.create_task(self._keep_schedule())
            try:
                yield
            finally:
                schedule.cancel()
                with suppress(asyncio.CancelledError):
                    await schedule
                await self._cancel_sends()
                self._client = None

    # What providers and /_control ask for.

    async def publish(self, notice: Notice, *, copies: int = 1, wait: bool = True) -> None:
        """Take a new notice and send it now, `copies` times at once.

        With `wait` it returns after that first send was answered or failed; retries follow on the clock either way.
        """
        self._notices[notice.notify_id] = notice
        if not self._may_send_to(notice.url):
            notice.state = NoticeState.BLOCKED
            return
        task = self._start(notice, self._clock.now(), copies)
        if wait:
            await _finished([task])

    def call_at(self, due_at: datetime, action: Action) -> None:
        """Have something done that leads to notices, once the clock is there; in order of asking, if at one instant.

        A moving clock stops for it as for a send, and waits until it is done and what it sends is answered.
        """
        self._appointments_made += 1  # which keeps the order of asking
        heapq.heappush(self._appointments, (due_at, self._appointments_made, action))
        self._rescheduled.set()

    async def resend(
        self, notice: Notice, *, times: int, concurrent: bool, skew: timedelta = timedelta(0)
    ) -> list[Attempt]:
        """Send one notice again now, outside its schedule; an acknowledgement ends the schedule. Returns the sends.

        With a `skew` the message says that it was sent that much later, or earlier when it is negative.
        """
        if notice.state is NoticeState.BLOCKED:
            return []
        now = self._clock.now() + skew
        if concurrent:
            attempts = await asyncio.gather(*(self._send(notice, now, "resend") for _ in range(times)))
        else:
            attempts = [await self._send(notice, now, "resend") for _ in range(times)]
        if any(attempt.acknowledged for attempt in attempts):
            self._finish(notice, NoticeState.ACKNOWLEDGED)
        return attempts

    async def move_clock(self, target: datetime, *, forward: bool = False) -> int:
        """Move the clock to `target`, stopping at every due send on the way; returns how many sends were made.

        Each send happens at its exact due time and is answered before the clock goes on, so that the retry gaps a test
        sees are exactly the provider's. Moving back sends nothing; with `forward` the clock then stays where it is.
        """
        async with self._moving:
            if forward:
                target = max(target, self._clock.now())
            await self._settle()
            before = self._sends_made
            while (due_at := self.next_due()) is not None and due_at <= target:
                self._clock.move_to(max(due_at, self._clock.now()))
                self._start_due()
                await self._settle()
            self._clock.move_to(target)
            self._rescheduled.set()
            return self._sends_made - before

    async def reset(self) -> None:
        await self._cancel_sends()
        self._notices.clear()
        self._waiting.clear()
        self._appointments.clear()
        self._rescheduled.set()

    def find(self, notify_id: str) -> Notice | None:
        return self._notices.get(notify_id)

    def listed(self, *, out_trade_no: str | None = None) -> list[Notice]:
        """All notices in order of creation."""
        return [notice for notice in self._notices.values() if out_trade_no in (None, notice.out_trade_no)]

    # The schedule.

    async def _keep_schedule(self) -> None:
        while True:
            self._rescheduled.clear()
            self._start_due()
            due_at = self.next_due()
            timeout_s = None if due_at is None else max(0.0, (due_at - self._clock.now()).total_seconds())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rescheduled.wait(), timeout_s)

    def next_due(self) -> datetime | None:
        """Where a moving clock stops next, for a send or an appointment."""
        sends = (notice.next_at for notice in self._waiting.values() if notice.next_at)
        return min((*sends, *(due_at for due_at, _, _ in self._appointments[:1])), default=None)

    def _start_due(self) -> None:
        now = self._clock.now()
        for notice in list(self._waiting.values()):
            if notice.next_at is not None and notice.next_at <= now:
                self._start(notice, notice.next_at, 1)
        while self._appointments and self._appointments[0][0] <= now:
            _, _, action = heapq.heappop(self._appointments)
            self._keep(asyncio.create_task(action()))

    def _start(self, notice: Notice, due_at: datetime, copies: int) -> asyncio.Task[None]:
        self._set_next(notice, None)
        return self._keep(asyncio.create_task(self._deliver(notice, due_at, copies)))

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        return task

    async def _deliver(self, notice: Notice, due_at: datetime, copies: int) -> None:
        attempts = await asyncio.gather(*(self._send(notice, due_at, "scheduled") for _ in range(copies)))
        if notice.state is not NoticeState.WAITING:
            return
        if any(attempt.acknowledged for attempt in attempts):
            self._finish(notice, NoticeState.ACKNOWLEDGED)
        elif notice.gaps_used == len(notice.gaps):
            self._finish(notice, NoticeState.GIVEN_UP)
        else:
            self._set_next(notice, due_at + notice.gaps[notice.gaps_used])
            notice.gaps_used += 1
            self._rescheduled.set()

    def _finish(self, notice: Notice, state: NoticeState) -> None:
        notice.state = state
        self._set_next(notice, None)

    def _set_next(self, notice: Notice, next_at: datetime | None) -> None:
        notice.next_at = next_at
        if next_at is None:
            self._waiting.pop(notice.notify_id, None)
        else:
            self._waiting[notice.notify_id] = notice

    async def _send(self, notice: Notice, due_at: datetime, kind: str) -> Attempt:
        message = notice.compose(due_at)
        sent_at, started = self._clock.now(), time.monotonic()
        status, answer, error = None, b"", None
        try:
            async with asyncio.timeout(notice.timeout_s):
                status, answer = await self._post(notice.url, message)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
            error = f"{type(exc).__name__}: {exc}".rstrip(": ")
        attempt = Attempt(
            kind=kind,
            due_at=due_at,
            sent_at=sent_at,
            duration_ms=round((time.monotonic() - started) * 1000),
            http_status=status,
            answer=answer.decode("utf-8", "replace")[:ANSWER_KEPT_CHARS],
            error=error,
            acknowledged=status is not None and notice.is_acknowledged(status, answer),
        )
        notice.attempts.append(attempt)
        self._sends_made += 1
        return attempt

    async def _post(self, url: str, message: Message) -> tuple[int, bytes]:
        """Status and body; a body longer than any acknowledgement is cut, which makes it none."""
        assert self._client is not None, "notifications are sent only while the app runs"
        async with self._client.stream("POST", url, content=message.body, headers=message.headers) as response:
            answer = b""
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > MAX_ANSWER_BYTES:
                    break
            return response.status_code, answer[: MAX_ANSWER_BYTES + 1]

    async def _settle(self) -> None:
        while self._sends:
            await _finished(self._sends)

    async def _cancel_sends(self) -> None:
        sends = list(self._sends)
        for task in sends:
            task.cancel()
        await asyncio.gather(*sends, return_exceptions=True)

    def _may_send_to(self, url: str) -> bool:
        host = (urlsplit(url).hostname or "").lower()
        if ANY_HOST in self._allowed_hosts or host in self._allowed_hosts or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


async def _finished(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Until all are done. Those a reset cancelled are done too; a mistake in one is raised here."""
    done, _ = await asyncio.wait(set(tasks))
    for task in done:
        if not task.cancelled():
            task.result()

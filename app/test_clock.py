"""The test clock: one time, which may be moved forward, for every process of a sandbox deployment and its sandbox.

    advance ─▶ for each stop on the way, midnight by midnight and deduction time by deduction time:
                 the sandbox's clock               what it sends until then is sent, and acknowledged
                 shouyin.test_clock, committed     ─announced─▶ each process's Clock, and its workers' bells
                 wait                              until nothing is due, and no worker has anything in hand

The offset stands in the database, so that it outlives its processes; the sandbox, which keeps nothing, is taken along.
Only deployments with TEST_CLOCK have one; elsewhere nothing here does anything.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import asyncpg
import httpx
import structlog

from app.activation.plan import WARNING_DAYS
from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.config import Config
from app.cycles.calendar import Schedule
from app.db import Database, Row
from app.errors import ClockBusy, ClockNotSettled, Forbidden, InvalidInput, ProviderUnavailable
from app.realtime.session import LOST, keep_running

log = structlog.get_logger(__name__)

FURTHEST: Final = timedelta(days=3652)
# Behind the announcements: an offset that nobody heard of, and a sandbox that started again.
_LOOK_EVERY_S: Final = 5.0
# As long as the longest lease of a row.
_IN_HAND: Final = timedelta(seconds=120)
# More than the calls to the sandbox of one stop may take.
_MAY_MOVE: Final = timedelta(seconds=90)
# A notice is believed when it was signed within five minutes of our time: we are there before it is sent.
_NEAR: Final = timedelta(minutes=4)
_BEFORE: Final = timedelta(seconds=1)
# A sandbox that starts beside us serves by then.
_SANDBOX_LOOKS: Final = 100
_SANDBOX_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on a business day: events by kind, and flow runs that were done."""

    on: date
    events: dict[str, int] = field(default_factory=dict)
    flow_runs: int = 0


class SharedClock:
    """This process's part in it: it follows what any process moves, and may move."""

    def __init__(self, config: Config, clock: Clock, database: Database, http: httpx.AsyncClient) -> None:
        self.movable = config.test_clock
        self._schedule = Schedule.of(config.deductions)
        self._clock = clock
        self._db = database
        self._sandbox = _Sandbox(config.sandbox_url or "", http)
        self._version = 0
        self._worker = secrets.token_hex(8)
        self._moved: list[Callable[[], None]] = []
        self._heard = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    # --- following ------------------------------------------------------------------------------------------------

    async def start(self, *, follow: bool) -> None:
        """Reads the time of the deployment; with `follow` keeps to it until `stop`, and the sandbox too."""
        if not self.movable:
            return
        # A database that was never migrated is told by the readiness check.
        with suppress(asyncpg.UndefinedTableError):
            await self._read()
        if follow:
            await self._await_sandbox()
            self._following = asyncio.create_task(keep_running("test clock", self._follow), name="test clock")

    async def stop(self) -> None:
        """Follows no longer."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def hear(self, _ids: Sequence[int]) -> None:
        """Somebody moved the clock, or may have."""
        self._heard.set()

    def on_move(self, callback: Callable[[], None]) -> None:
        """Calls back once this process's time was moved, whoever moved it: what waits for a time may be due."""
        self._moved.append(callback)

    def marking(self, kind: str, drain: Callable[[], Awaitable[int]]) -> Callable[[], Awaitable[int]]:
        """`drain` of a worker's; while it runs its rows count as not settled: what it claimed is due no longer."""
        if not self.movable:
            return drain

        async def marked() -> int:
            until = self._clock.machine_now() + _IN_HAND
            await self._db.change("test_clock.begin_work", self._worker, kind, until)
            try:
                return await drain()
            finally:
                await self._db.change("test_clock.end_work", self._worker, kind)

        return marked

    async def _follow(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._heard.wait()
            except TimeoutError:
                await self._take_sandbox_along()
            self._heard.clear()
            try:
                await self._read()
            except LOST as exc:
                log.warning("test_clock.unread", error=type(exc).__name__)

    async def _read(self) -> None:
        row = await self._db.one("test_clock.read")
        if row is not None:
            self._apply(row)

    def _apply(self, row: Row) -> None:
        """A reading that was overtaken by a later one changes nothing."""
        if row["version"] > self._version:
            self._version = row["version"]
            self._clock.set_ahead(timedelta(microseconds=row["ahead_us"]))
            for callback in self._moved:
                callback()

    async def _await_sandbox(self) -> None:
        """Both start at once: what is asked of it before it knows the time, it refuses."""
        for _ in range(_SANDBOX_LOOKS):
            if await self._take_sandbox_along():
                return
            await asyncio.sleep(_SANDBOX_LOOK_S)

    async def _take_sandbox_along(self) -> bool:
        """Whether the sandbox is at our time now. One that started again has forgotten its own."""
        if not self._clock.ahead:
            return True
        try:
            ahead, _ = await self._sandbox.look()
            if ahead < self._clock.ahead - _BEFORE:
                await self._sandbox.move(self._clock.now())
        except ProviderUnavailable:
            return False
        return True

    # --- moving ---------------------------------------------------------------------------------------------------

    async def advance(
        self,
        caller: Principal,
        to: datetime,
        *,
        daily: bool = True,
        settle_s: float = 60.0,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> list[Day]:
        """Moves everybody to `to`, and returns when what became due is done; what happened, day by day.

        `daily` stops at every midnight and deduction time in Shanghai, so that each day's work is done on its day.
        Raises Forbidden, InvalidInput naming `to` and ClockBusy with nothing moved; ProviderUnavailable without the
        sandbox, and ClockNotSettled where a stop's work takes longer than `settle_s`, with the clock at that stop."""
        await self._require_allowed(caller)
        async with self._moving(timedelta(seconds=settle_s) + _MAY_MOVE) as move:
            await self._read()
            began = self._clock.now()
            self._check(to, began)
            details = {"from": began.isoformat(), "to": to.isoformat()}
            await self._db.change(
                "audit.append", began, caller.sub, "clock.advance", "test_clock", details, address, correlation_id
            )
            await self._settle(began, settle_s)
            for stop in stops(began, to, self._schedule.deduct_at) if daily else (to,):
                async for instant in self._way(stop):
                    await self._sandbox.move(instant)
                    await move(instant)
                    await self._settle(instant, settle_s)
        return await self._days(began, self._clock.now())

    async def _require_allowed(self, caller: Principal) -> None:
        if not caller.is_admin:
            raise Forbidden("the clock is moved by administrators: use a token with the admin role")
        if not self.movable:
            raise Forbidden(
                "the clock of this deployment cannot be moved: TEST_CLOCK is off", message_zh="此部署未启用测试时钟"
            )
        strangers = await self._db.all("test_clock.strangers", self._sandbox.url)
        if strangers:
            names = ", ".join(f"{row['id']} ({row['provider']} {row['name']})" for row in strangers)
            raise Forbidden(
                f"these merchant accounts are not at the sandbox, and their providers live in another time: {names}; "
                "disable them first",
                message_zh="存在非沙箱的商户账号，不能移动测试时钟；请先停用",
            )

    def _check(self, to: datetime, now: datetime) -> None:
        if to.tzinfo is None:
            raise InvalidInput("to: give it an offset, as in 2027-01-01T00:00:00+08:00", field="to")
        if to <= now:
            raise InvalidInput(f"to: the clock only moves forward, and it is {_shown(now)} already", field="to")
        if to - self._clock.machine_now() > FURTHEST:
            raise InvalidInput("to: at most ten years ahead of the machine's clock", field="to")

    @asynccontextmanager
    async def _moving(self, may_take: timedelta) -> AsyncIterator[Callable[[datetime], Awaitable[None]]]:
        """Only one moves at a time; who died lets go after `may_take`. Gives what commits and announces a new time.

        Raises ClockBusy, then or once it took so long that another one moves."""
        mover = secrets.token_hex(8)

        async def move(instant: datetime) -> None:
            now = self._clock.machine_now()
            ahead_us = (instant - now) // timedelta(microseconds=1)
            row = await self._db.change("test_clock.move", mover, ahead_us, now + may_take)
            if row is None:
                raise _busy()
            self._apply(row)

        now = self._clock.machine_now()
        if await self._db.change("test_clock.take", mover, now, now + may_take) is None:
            raise _busy()
        try:
            yield move
        finally:
            await self._db.change("test_clock.let_go", mover)

    async def _way(self, stop: datetime) -> AsyncIterator[datetime]:
        """The instants at which the sandbox has something to send, each with one just before it, and then `stop`."""
        last = None
        while True:
            _, due_at = await self._sandbox.look()
            if due_at is None or due_at > stop or due_at == last:
                break
            if due_at - self._clock.now() > _NEAR:
                yield due_at - _BEFORE
            yield due_at
            last = due_at
        yield stop

    async def _settle(self, instant: datetime, settle_s: float) -> None:
        """Waits until everything due at `instant` is done. Raises ClockNotSettled naming what is not."""
        loop, pause_s = asyncio.get_running_loop(), 0.005
        deadline = loop.time() + settle_s
        while waiting := await self._db.all(
            "test_clock.unsettled", instant, self._clock.machine_now(), list(WARNING_DAYS),
            self._schedule.last_due(instant), instant.astimezone(SHANGHAI).date(),
        ):  # fmt: skip
            if loop.time() >= deadline:
                raise _not_settled(instant, {row["kind"]: row["total"] for row in waiting}, settle_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.25)

    async def _days(self, began: datetime, ended: datetime) -> list[Day]:
        """Every business day from one instant to the other, idle ones too."""
        first, last = began.astimezone(SHANGHAI).date(), ended.astimezone(SHANGHAI).date()
        days = {on: Day(on) for on in (first + timedelta(days=n) for n in range((last - first).days + 1))}
        flow_runs = dict.fromkeys(days, 0)
        for row in await self._db.all("test_clock.days", began, ended):
            if row["kind"] is None:
                flow_runs[row["day"]] = row["total"]
            else:
                days[row["day"]].events[row["kind"]] = row["total"]
        return [Day(on, day.events, flow_runs[on]) for on, day in days.items()]


def stops(now: datetime, to: datetime, deduction_time: time) -> Iterator[datetime]:
    """The midnights and deduction times in Shanghai between `now` and `to`, and `to`."""
    day = now.astimezone(SHANGHAI).date()
    while True:
        for at in sorted({time(), deduction_time}):
            instant = datetime.combine(day, at, SHANGHAI).astimezone(UTC)
            if instant >= to:
                yield to
                return
            if instant > now:
                yield instant
        day += timedelta(days=1)


class _Sandbox:
    """The sandbox's own clock. Every call raises ProviderUnavailable when it does not answer."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def look(self) -> tuple[timedelta, datetime | None]:
        """How far it is ahead of the machine's clock, and when it will next send something by itself."""
        return await self._call("GET", None, timeout_s=10.0)

    async def move(self, instant: datetime) -> None:
        """Moves it forward; what is due on the way was sent and acknowledged."""
        await self._call("POST", {"to": instant.isoformat(), "forward": True}, timeout_s=60.0)

    async def _call(
        self, verb: str, body: Mapping[str, Any] | None, *, timeout_s: float
    ) -> tuple[timedelta, datetime | None]:
        try:
            answer = await self._http.request(verb, f"{self.url}/_control/clock", json=body, timeout=timeout_s)
            shown = answer.raise_for_status().json()
            next_due = shown["next_due"]
            return timedelta(seconds=shown["offset_s"]), next_due and datetime.fromisoformat(next_due)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as exc:
            raise ProviderUnavailable(
                f"the sandbox at {self.url} does not take part ({type(exc).__name__}): the clock stays where it is",
                message_zh="沙箱没有响应，测试时钟未移动",
            ) from exc


def _busy() -> ClockBusy:
    return ClockBusy("somebody else moves the clock at the moment: try again when that is done")


def _not_settled(instant: datetime, due: dict[str, int], settle_s: float) -> ClockNotSettled:
    words = ", ".join(f"{kind} {count}" for kind, count in due.items())
    return ClockNotSettled(
        f"after {settle_s:g} s this is still due at {_shown(instant)}, where the clock stays: {words}; is a worker "
        "running, with TEST_CLOCK?",
        extra={"due": due},
    )


def _shown(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).isoformat(timespec="seconds")

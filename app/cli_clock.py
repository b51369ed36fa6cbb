"""`shouyin clock`: moves the time of a running stack day by day, one request each, and tells what happened.

One request of an hour would be cut somewhere. A day that is over stays over, and the next call goes on from there.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.clock import SHANGHAI

_SPANS: Final = {"d": "days", "h": "hours", "m": "minutes"}
# What one day may take: two stops and what the sandbox sends between them, each with a minute to be done.
_DAY_S: Final = 600.0
_STATE: Final = "{ clock { now offsetSeconds movable } }"
_ADVANCE: Final = (
    "mutation ($to: DateTime!) { advanceClock(to: $to) { now days { date flowRuns events { kind count } } } }"
)


class ClockStays(Exception):
    """The stack cannot be reached, or does not move; one line for a person."""


@dataclass(slots=True)
class Day:
    """What happened on one business day, over all requests that touched it."""

    on: date
    events: Counter[str] = field(default_factory=Counter)
    flow_runs: int = 0

    def line(self) -> str:
        """The day for a person."""
        happened = [f"{kind.replace('.', ' ')} {count}" for kind, count in sorted(self.events.items())]
        happened += [f"flows {self.flow_runs}"] if self.flow_runs else []
        return f"{self.on}  {', '.join(happened) or '-'}"

    def shown(self) -> dict[str, Any]:
        """The day for a program."""
        return {"date": self.on.isoformat(), "events": dict(sorted(self.events.items())), "flow_runs": self.flow_runs}


class StackClock:
    """The clock of a stack, through its API. `token` makes an administrator's for each request."""

    def __init__(self, graphql: str, token: Callable[[], str]) -> None:
        self._graphql = graphql
        self._token = token

    def state(self) -> Mapping[str, Any]:
        """{now, offsetSeconds, movable}. Raises ClockStays."""
        state: Mapping[str, Any] = self._ask(_STATE, {})["clock"]
        return state

    def require_movable(self) -> datetime:
        """What time it is there. Raises ClockStays."""
        state = self.state()
        if not state["movable"]:
            raise ClockStays("the clock of this stack cannot be moved: start it with TEST_CLOCK=on")
        return datetime.fromisoformat(state["now"])

    def walk(self, now: datetime, to: datetime) -> Iterator[Day]:
        """Goes there, and gives every day once it is over, the last one when `to` is reached. Raises ClockStays."""
        days: dict[date, Day] = {}
        stop = now
        while stop < to and now < to:
            tomorrow = now.astimezone(SHANGHAI).date() + timedelta(days=1)
            stop = min(to, datetime.combine(tomorrow, time(), SHANGHAI))
            answer = self._ask(_ADVANCE, {"to": stop.isoformat()})["advanceClock"]
            for found in answer["days"]:
                on = date.fromisoformat(found["date"])
                day = days.setdefault(on, Day(on))
                day.events.update({event["kind"]: event["count"] for event in found["events"]})
                day.flow_runs += found["flowRuns"]
            now = datetime.fromisoformat(answer["now"])
            today = now.astimezone(SHANGHAI).date()
            yield from (days.pop(on) for on in sorted(days) if on < today)
        yield from (days[on] for on in sorted(days))

    def _ask(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        headers = {"authorization": f"Bearer {self._token()}"}
        body = {"query": query, "variables": variables}
        try:
            # A laptop's proxy settings must not come between the parts of one machine.
            with httpx.Client(trust_env=False, timeout=_DAY_S) as http:
                answer = http.post(self._graphql, json=body, headers=headers).json()
        except (httpx.HTTPError, ValueError) as exc:
            raise ClockStays(f"{self._graphql} gives no answer ({type(exc).__name__}): is the stack running?") from exc
        if answer.get("errors"):
            raise ClockStays(answer["errors"][0]["message"])
        data: Mapping[str, Any] = answer["data"]
        return data


def move(clock: StackClock, now: datetime, to: datetime, out: Console) -> list[Day]:
    """Walks there with a bar on a terminal, and a line for each day. Raises ClockStays where it came no further."""
    days = []
    first = now.astimezone(SHANGHAI).date()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("days", total=(to.astimezone(SHANGHAI).date() - first).days + 1)
        for day in clock.walk(now, to):
            days.append(day)
            out.print(day.line(), markup=False, highlight=False, soft_wrap=True)
            bar.update(task, completed=(day.on - first).days + 1)
    return days


def target(now: datetime, *, span: str | None, instant: str | None) -> datetime:
    """The time that a person means: "31d", "12h" or "90m" from now, or an instant. Raises ClockStays."""
    if span is not None and instant is not None:
        raise ClockStays("--advance and --to: give one of them")
    to = now + _read_span(span) if span is not None else _read_instant(instant or "")
    if to <= now:
        raise ClockStays(f"--to {instant}: the clock only moves forward, and it is {now.isoformat()} already")
    return to


def _read_span(text: str) -> timedelta:
    found = re.fullmatch(r"([1-9][0-9]{0,5})([dhm])", text, re.ASCII)
    if found is None:
        raise ClockStays(f"--advance {text}: write days, hours or minutes, such as 31d, 12h or 90m")
    return timedelta(**{_SPANS[found[2]]: int(found[1])})


def _read_instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        raise ClockStays(f"--to {text}: write a time with its offset, such as 2026-12-31T09:00+08:00")
    return instant

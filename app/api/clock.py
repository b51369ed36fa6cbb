"""The deployment's time on the API; in a sandbox deployment an administrator may move it forward."""

from datetime import date, datetime
from enum import StrEnum
from typing import Self

import strawberry

from app import test_clock
from app.api.context import ApiInfo
from app.errors import InvalidInput


@strawberry.enum(
    description=(
        "Where a moving clock stops until everything due is done: at every midnight and every day's deduction time in "
        "Shanghai, or only at its end."
    )
)
class ClockSteps(StrEnum):
    DAILY = "DAILY"
    ONE = "ONE"


@strawberry.type(description="The time everything here lives by; tokens live by the machine's.")
class ClockState:
    now: datetime
    offset_seconds: int = strawberry.field(description="How far it is ahead of the machine's clock.")
    movable: bool = strawberry.field(description="Whether advanceClock works here (TEST_CLOCK).")


@strawberry.type
class EventCount:
    kind: str
    count: int


@strawberry.type(description="A business day in Shanghai.")
class ClockDay:
    date: date
    events: list[EventCount] = strawberry.field(description="What happened, by kind, such as payment.closed.")
    flow_runs: int = strawberry.field(description="Runs of flows that were done.")

    @classmethod
    def of(cls, day: test_clock.Day) -> Self:
        """The day as clients see it."""
        events = [EventCount(kind=kind, count=count) for kind, count in day.events.items()]
        return cls(date=day.on, events=events, flow_runs=day.flow_runs)


@strawberry.type
class ClockAdvanced:
    now: datetime
    days: list[ClockDay] = strawberry.field(description="Every day the clock was moved through, idle ones too.")


@strawberry.type
class ClockQuery:
    @strawberry.field
    async def clock(self, info: ApiInfo) -> ClockState:
        info.context.caller()
        runtime = info.context.runtime
        clock = runtime.clock
        return ClockState(
            now=clock.now(),
            offset_seconds=round(clock.ahead.total_seconds()),
            movable=runtime.test_clock.movable,
        )


@strawberry.type
class ClockMutation:
    @strawberry.mutation(
        description=(
            "Moves the time of this deployment and of its sandbox forward, and answers once everything that became due "
            "is done; long ways are better gone day by day. CLOCK_NOT_SETTLED names what was not done within "
            "`settleSeconds` at a stop, where the clock then stays. Sandbox deployments with TEST_CLOCK only. "
            "For administrators."
        )
    )
    async def advance_clock(
        self, info: ApiInfo, to: datetime, steps: ClockSteps = ClockSteps.DAILY, settle_seconds: int = 60
    ) -> ClockAdvanced:
        context = info.context
        caller = context.administrator()
        if not 1 <= settle_seconds <= 600:
            raise InvalidInput("settleSeconds: from 1 to 600", field="settleSeconds")
        days = await context.runtime.test_clock.advance(
            caller,
            to,
            daily=steps is ClockSteps.DAILY,
            settle_s=float(settle_seconds),
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return ClockAdvanced(now=context.runtime.clock.now(), days=[ClockDay.of(day) for day in days])

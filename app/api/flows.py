"""Flow runs on the API, for administrators: what the merchant's functions did, and running one again."""

from datetime import datetime
from enum import StrEnum
from typing import Self

import strawberry

from app.api.context import ApiInfo
from app.api.scalars import read_id
from app.errors import InvalidInput
from app.flows import runs


@strawberry.enum
class FlowRunStatus(StrEnum):
    WAITING = "WAITING"
    DONE = "DONE"
    FAILED = "FAILED"


@strawberry.type(description="One event handed to one flow. Its effects and the mark DONE were committed together.")
class FlowRun:
    id: strawberry.ID
    event_id: strawberry.ID
    payment_id: strawberry.ID | None
    flow: str
    trigger: str
    status: FlowRunStatus
    attempts: int
    due_at: datetime | None = strawberry.field(description="When it runs next; null once done, or left to an operator.")
    error: str | None = strawberry.field(description="The traceback of the last failure.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, run: runs.FlowRun) -> Self:
        """The run as administrators see it."""
        return cls(
            id=strawberry.ID(str(run.id)),
            event_id=strawberry.ID(str(run.event_id)),
            payment_id=None if run.payment_id is None else strawberry.ID(str(run.payment_id)),
            flow=run.flow,
            trigger=run.trigger,
            status=FlowRunStatus(run.status),
            attempts=run.attempts,
            due_at=run.due_at,
            error=run.error,
            created_at=run.created_at,
            finished_at=run.finished_at,
        )


@strawberry.type
class FlowQuery:
    @strawberry.field(
        description="Flow runs, newest first; `before` is the id of the last one already read. Administrators only."
    )
    async def flow_runs(
        self,
        info: ApiInfo,
        status: FlowRunStatus | None = None,
        payment_id: strawberry.ID | None = None,
        limit: int = 20,
        before: strawberry.ID | None = None,
    ) -> list[FlowRun]:
        caller = info.context.administrator()
        if not 1 <= limit <= 100:
            raise InvalidInput("limit: has to be from 1 to 100", field="limit")
        found = await info.context.runtime.flows.runs(
            caller,
            status=None if status is None else status.value,
            payment_id=None if payment_id is None else read_id(payment_id, "paymentId"),
            limit=limit,
            before_id=None if before is None else read_id(before, "before"),
        )
        return [FlowRun.of(run) for run in found]


@strawberry.type
class FlowMutation:
    @strawberry.mutation(description="Runs a failed flow again. Administrators only.")
    async def retry_flow_run(self, info: ApiInfo, id: strawberry.ID) -> FlowRun:  # noqa: A002 — the argument's public name
        context = info.context
        caller = context.administrator()
        run = await context.runtime.flows.retry(
            caller, read_id(id, "id"), correlation_id=context.correlation_id, address=context.address
        )
        return FlowRun.of(run)

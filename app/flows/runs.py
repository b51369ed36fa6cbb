"""Events to flow runs, and flow runs to effects, exactly once.

event (outbox) ── dispatch ──▶ flow_run, unique (event, flow) ── drain ──▶ effects + DONE in one transaction
                                                                   └ raised: rolled back, kept with its traceback,
                                                                     tried again ever more slowly, then left to a person
"""

import asyncio
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from app.auth import Principal
from app.clock import Clock
from app.cycles.deductions import Deductions
from app.db import Database, Row, Transaction, storable
from app.doorbell import Doorbell
from app.drain import drain
from app.errors import Forbidden, InvalidInput, NotFound
from app.flows.reading import Result, read_result
from app.flows.registry import TRIGGER_OF_EVENT, Flow, copy_order, set_order_status, set_refunded_status
from app.flows.results import DueDeduction, PaymentResult, RefundResult
from app.metrics import Metrics

log = structlog.get_logger(__name__)

_EVENTS: Final = 200
_BATCH: Final = 8
_SLOWEST: Final = timedelta(hours=1)
_STATUSES: Final = ("WAITING", "DONE", "FAILED")


@dataclass(frozen=True, slots=True)
class FlowRun:
    """One run of one flow for one event. `due_at` is None once done or given up; `error` is the last traceback."""

    id: int
    event_id: int
    payment_id: int | None
    flow: str
    trigger: str
    status: str
    attempts: int
    due_at: datetime | None
    error: str | None
    created_at: datetime
    finished_at: datetime | None


class FlowGivenUp(Exception):
    """A run that is left to a person at once: trying it again could repeat its effects, or end the worker again."""


class Flows:
    """The flows of this deployment. The API lists and re-runs; only a worker, which has the functions, runs."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bell: Doorbell,
        metrics: Metrics,
        flows: Mapping[str, Flow],
        deductions: Deductions,
        timeout_s: float,
        attempts: int,
    ) -> None:
        self._db = database
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._flows = flows
        self._deductions = deductions
        self._timeout_s = timeout_s
        self._attempts = attempts
        # Kinds of events, beside each a flow that it fires and that flow's trigger.
        self._fires = _fires(flows)

    # --- working --------------------------------------------------------------------------------------------------

    async def dispatch(self) -> int:
        """Turns waiting events into flow runs; returns how many events. Safe in any number of workers."""
        dispatched = 0
        while True:
            events = await self._db.change_all("flow.dispatch", _EVENTS, *self._fires, self._clock.now())
            dispatched += len(events)
            if len(events) < _EVENTS:
                break
        if dispatched:
            self._bell.ring("flows")
        return dispatched

    async def drain(self) -> int:
        """Runs every flow run that is due; returns how many. Safe in any number of workers."""

        async def claim() -> list[Row]:
            now = self._clock.now()
            lease = now + timedelta(seconds=self._timeout_s * 2)
            return list(await self._db.change_all("flow.claim_due", now, lease, _BATCH))

        return await drain(claim, self._run, self._failed)

    async def _run(self, claimed: Row) -> None:
        """One run. Its effects and its mark commit together: exactly once, however often it is tried."""
        if claimed["attempts"] > self._attempts:
            raise FlowGivenUp("its workers ended while they ran it, each time")
        flow = self._flows.get(claimed["flow"])
        if flow is None:
            raise LookupError(
                f"no flow {claimed['flow']!r} here: is FLOWS set on this worker, and to the right module?"
            )
        # What is ours leaves no session state behind.
        async with self._db.transaction() if flow.run is None else self._db.merchant_transaction() as tx:
            row = await tx.one("flow.lock", claimed["id"])
            if row is None:
                return
            structlog.contextvars.bind_contextvars(correlation_id=row["correlation_id"])
            result = read_result(row)
            async with asyncio.timeout(self._timeout_s):
                await self._take_effect(flow, result, row, tx)
            if await tx.one("flow.done", claimed["id"], self._clock.now(), row["transaction"]) is None:
                # Trying again would repeat what it committed.
                raise FlowGivenUp("it ended the transaction it was given: leave commit and rollback to the worker")
        log.info("flow.done", flow=row["flow"], run_id=claimed["id"], payment_id=row["payment_id"])

    async def _take_effect(self, flow: Flow, result: Result, row: Row, tx: Transaction) -> None:
        if isinstance(result, DueDeduction):
            await self._make_order(flow, result, tx)
        elif flow.run is not None:
            await flow.run(result, tx.connection)
        elif isinstance(result, PaymentResult):
            await set_order_status(result, row, tx)
        elif isinstance(result, RefundResult):
            await set_refunded_status(result, row, tx)

    async def _make_order(self, flow: Flow, result: DueDeduction, tx: Transaction) -> None:
        """The order of a deduction and the payment of its first attempt: both, or neither."""
        # A cancellation waits for us or we for it: an order nobody will charge is not made.
        await tx.one("deduction.lock_cycle", result.deduction_id)
        current = await tx.one("deduction.lock", result.deduction_id)
        assert current is not None
        if current["status"] != "WAITING" or current["cycle_status"] != "ACTIVE" or current["ending"]:
            if current["status"] == "WAITING":
                await tx.one("deduction.skip", result.deduction_id, "WAITING", None, self._clock.now())
            return
        made = await (copy_order(result, tx) if flow.run is None else flow.run(result, tx.connection))
        if not isinstance(made, int) or isinstance(made, bool):
            raise TypeError(f"{flow.name} must return the id of the order it made, a whole number, not {made!r}")
        await self._deductions.begin(tx, result.deduction_id, made)

    async def _failed(self, claimed: Row, exc: Exception) -> None:
        self._metrics.flow_failures.inc()
        now = self._clock.now()
        tries_left = claimed["attempts"] < self._attempts and not isinstance(exc, FlowGivenUp)
        delay = min(timedelta(seconds=5 * 2 ** min(claimed["attempts"] - 1, 12)), _SLOWEST)
        text = storable("".join(traceback.format_exception(exc)))[-8000:]
        await self._db.change("flow.fail", claimed["id"], text, now + delay if tries_left else None, now)
        # The traceback is the merchant's and may tell of people: it is for administrators, in the row, and not logged.
        error = type(exc).__name__
        log.error("flow.failed", flow=claimed["flow"], run_id=claimed["id"], given_up=not tries_left, error=error)

    # --- for operators --------------------------------------------------------------------------------------------

    async def runs(
        self, caller: Principal, *, status: str | None, payment_id: int | None, limit: int, before_id: int | None
    ) -> list[FlowRun]:
        """Runs, newest first; the next page continues before the last id. Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        if status is not None and status not in _STATUSES:
            raise InvalidInput(f"status: {status!r} is not one of {', '.join(_STATUSES)}", field="status")
        if not 1 <= limit <= 100:
            raise InvalidInput("limit: from 1 to 100", field="limit")
        return [_read_run(row) for row in await self._db.all("flow.list", status, payment_id, before_id, limit)]

    async def retry(
        self, caller: Principal, run_id: int, *, correlation_id: str | None = None, address: str | None = None
    ) -> FlowRun:
        """Runs a failed or waiting run again, now. Raises Forbidden, NotFound, InvalidInput for one that is done."""
        _require_admin(caller)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            found = await tx.one("flow.find", run_id)
            if found is None:
                raise NotFound(f"flow run {run_id} does not exist", field="id")
            if await tx.one("flow.retry", run_id, now) is None:
                raise InvalidInput(f"flow run {run_id} is done: its effects stand and are not repeated", field="id")
            details = {"flow": found["flow"], "attempts": found["attempts"]}
            await tx.one(
                "audit.append", now, caller.sub, "flow.retry", f"flow_run:{run_id}", details, address, correlation_id
            )
            row = await tx.one("flow.find", run_id)
            assert row is not None
        self._bell.ring("flows")
        return _read_run(row)


def _read_run(row: Row) -> FlowRun:
    return FlowRun(**{name: row[name] for name in FlowRun.__slots__})


def _fires(flows: Mapping[str, Flow]) -> tuple[list[str], list[str], list[str]]:
    """(kinds of events, flows, triggers), side by side."""
    runs = [
        (kind, flow.name, trigger)
        for kind, trigger in TRIGGER_OF_EVENT.items()
        for flow in flows.values()
        if flow.trigger == trigger and not _is_idle(flow, kind)
    ]
    return [kind for kind, _, _ in runs], [name for _, name, _ in runs], [trigger for _, _, trigger in runs]


def _is_idle(flow: Flow, event: str) -> bool:
    """Whether a flow of ours would do nothing: a repeat has had its effect."""
    return flow.run is None and event.endswith(".repeated")


def _require_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden("flow runs are for administrators: use a token with the admin role")

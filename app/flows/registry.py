"""Which flows there are: the built-in one, and the functions of the module named by FLOWS.

A function belongs to the trigger its name begins with: `on_payment`, `on_payment_points`, … each is a flow of its own,
run and retried by itself.

    async def on_payment(result: PaymentResult, connection: asyncpg.Connection) -> None: ...

`on_deduction` alone returns something, the id of the order it made, and there can be only one: without it the original
order is copied.
"""

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.config import ConfigError
from app.db import Row, Transaction
from app.flows.results import DueDeduction, PaymentResult, RefundResult

FlowFunction = Callable[[Any, Any], Awaitable[Any]]

# Prefix of a function's name → trigger.
TRIGGERS: Final = {
    "on_payment": "payment",
    "on_refund": "refund",
    "on_cycle": "cycle",
    "on_deduction": "deduction",
    "on_upcoming": "upcoming",
    "on_plan": "plan",
}

# Which events fire which trigger. An event that is in no row fires nothing.
TRIGGER_OF_EVENT: Final = {
    "payment.successful": "payment",
    "payment.failed": "payment",
    "payment.repeated": "payment",
    "payment.unknown": "payment",
    "refund.refunded": "refund",
    "refund.failed": "refund",
    "refund.repeated": "refund",
    "refund.unknown": "refund",
    "cycle.started": "cycle",
    "cycle.suspended": "cycle",
    "cycle.resumed": "cycle",
    "cycle.cancelled": "cycle",
    "cycle.expired": "cycle",
    "cycle.repeated": "cycle",
    "cycle.upcoming": "upcoming",
    "deduction.due": "deduction",
    "deduction.failed": "cycle",
    "plan.expiring": "plan",
}

BUILT_IN: Final = "order_status"
BUILT_IN_REFUND: Final = "order_status_refunded"
BUILT_IN_DEDUCTION: Final = "copy_order"


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow. `run` of the built-in one is None: it is a statement of ours, not a function of the merchant's."""

    name: str
    trigger: str
    run: FlowFunction | None


def load_flows(module_name: str | None) -> dict[str, Flow]:
    """All flows by name. Raises ConfigError naming FLOWS and what is wrong with the module."""
    flows = {
        BUILT_IN: Flow(name=BUILT_IN, trigger="payment", run=None),
        BUILT_IN_REFUND: Flow(name=BUILT_IN_REFUND, trigger="refund", run=None),
        BUILT_IN_DEDUCTION: Flow(name=BUILT_IN_DEDUCTION, trigger="deduction", run=None),
    }
    if module_name is None:
        return flows
    found = _functions(_import(module_name))
    for name, function in found.items():
        trigger = next((trigger for prefix, trigger in TRIGGERS.items() if _belongs(name, prefix)), None)
        if trigger is None:
            known = ", ".join(TRIGGERS)
            raise ConfigError(f"FLOWS: {module_name}.{name} belongs to no trigger; names begin with {known}")
        if not inspect.iscoroutinefunction(function) or len(inspect.signature(function).parameters) != 2:
            raise ConfigError(f"FLOWS: write async def {name}(result, connection) in {module_name}")
        flows[name] = Flow(name=name, trigger=trigger, run=function)
    _keep_one_maker(flows, module_name)
    if not found:
        raise ConfigError(
            f"FLOWS: the module {module_name} has no flow; write async def on_payment(result, connection)"
        )
    return flows


def _keep_one_maker(flows: dict[str, Flow], module_name: str) -> None:
    """A deduction has one order, made by the merchant's function where there is one."""
    own = [flow.name for flow in flows.values() if flow.trigger == "deduction" and flow.run is not None]
    if len(own) > 1:
        raise ConfigError(f"FLOWS: {module_name} has {' and '.join(own)}; a deduction has one order: keep one of them")
    if own:
        del flows[BUILT_IN_DEDUCTION]


def _belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}_")


def _functions(module: Any) -> Mapping[str, FlowFunction]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("on_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }


def _import(module_name: str) -> Any:
    # A merchant's module stands in the folder the worker is started from, which a console script does not look in.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module_name)
    except ImportError as exc:
        raise ConfigError(f"FLOWS: the module {module_name!r} cannot be imported: {exc}") from exc


async def set_order_status(result: PaymentResult, binding: Row, tx: Transaction) -> None:
    """The built-in flow: the order's status column says paid or failed, in the words of the binding that it is of.

    An order counts as paid only when what was paid is its amount (Z12); otherwise it stays for a person to look at. A
    surplus payment changes nothing: the order may have gone from "paid" to "shipped" since the first."""
    if result.already_processed or result.surplus or result.order_id is None:
        return
    if binding["status_column"] is None:
        return
    if result.payment_status == "SUCCESSFUL" and result.amount_matches:
        await tx.one("flow.mark_paid", binding["binding_id"], result.order_id, binding["paid_status"])
    elif result.payment_status == "FAILED" and binding["failed_status"] is not None:
        await tx.one("flow.mark_failed", binding["binding_id"], result.order_id, binding["failed_status"])


async def copy_order(result: DueDeduction, tx: Transaction) -> int:
    """The built-in flow of deductions: the original order once more, at the deduction's price; its id."""
    row = await tx.one("deduction.copy_order", result.cycle_payment_id, result.price_fen)
    assert row is not None
    made: int = row["id"]
    return made


async def set_refunded_status(result: RefundResult, binding: Row, tx: Transaction) -> None:
    """The built-in flow of refunds: the order's status column says refunded once all of its payment went back."""
    if result.already_processed or result.order_id is None or result.payment_status != "REFUNDED":
        return
    if binding["status_column"] is None or binding["refunded_status"] is None:
        return
    if result.fully_refunded:
        await tx.one("flow.mark_refunded", binding["binding_id"], result.order_id, binding["refunded_status"])

"""The composition root: the one place where the parts of a process are made and handed to each other."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import httpx

from app.activation.binding import Activation
from app.activation.permissions import Permissions
from app.activation.plan import Plan
from app.activation.turning_off import TurningOff
from app.auth import Authenticator
from app.clock import Clock
from app.config import Config
from app.cycles.actions import Cycles
from app.cycles.calendar import Schedule
from app.cycles.deductions import Deductions
from app.cycles.outcomes import Outcomes
from app.db import Database, open_database
from app.doorbell import Doorbell
from app.exports.books import Exports
from app.flows.registry import Flow, load_flows
from app.flows.runs import Flows
from app.merchants.accounts import MerchantAccounts
from app.metrics import Metrics
from app.notifications.inbox import Inbox
from app.payments.actions import Limits, Payments
from app.providers.registry import build_registry
from app.providers.transport import open_client
from app.realtime import Realtime, RealtimeMetrics, Source
from app.refunds.actions import Refunds
from app.refunds.model import Refund
from app.test_clock import SharedClock
from app.vault import Vault
from app.wechat import Wechat, build_wechat


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything a process of this deployment works with."""

    config: Config
    clock: Clock
    db: Database
    bell: Doorbell
    auth: Authenticator
    metrics: Metrics
    accounts: MerchantAccounts
    activation: Activation
    permissions: Permissions
    plan: Plan
    turning_off: TurningOff
    exports: Exports
    payments: Payments
    refunds: Refunds
    cycles: Cycles
    deductions: Deductions
    inbox: Inbox
    flows: Flows
    wechat: Wechat
    realtime: Realtime
    test_clock: SharedClock
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def close(self) -> None:
        """Lets go of everything, in the reverse order of opening."""
        await self.opened.aclose()


async def open_runtime(
    config: Config,
    *,
    clock: Clock | None = None,
    database: Database | None = None,
    http: httpx.AsyncClient | None = None,
    run_flows: bool = False,
    realtime: bool = True,
) -> Runtime:
    """Opens a process's parts. `run_flows` imports the module named by FLOWS: a worker does, the API need not.

    A test may hand in its own clock, database and http client; what is handed in is closed by whoever made it.
    Raises ConfigError and DatabaseUnusable, each one line that says what to do."""
    clock = clock or Clock()
    async with AsyncExitStack() as stack:
        if database is None:
            database = await open_database(
                config.database_url, size=config.pool_size, statement_cache=config.statement_cache
            )
            stack.push_async_callback(database.close)
        if http is None:
            http = await stack.enter_async_context(open_client())
        bell = Doorbell(config.redis_url)
        stack.push_async_callback(bell.close)
        runtime = _assemble(config, clock, database, http, bell, load_flows(config.flows if run_flows else None))
        if realtime:
            await runtime.realtime.start()
            stack.push_async_callback(runtime.realtime.stop)
        await runtime.test_clock.start(follow=realtime)
        stack.push_async_callback(runtime.test_clock.stop)
        return replace(runtime, opened=stack.pop_all())


@dataclass(frozen=True, slots=True)
class _Ground:
    """What the nouns of the domain stand on."""

    config: Config
    clock: Clock
    database: Database
    bell: Doorbell
    metrics: Metrics
    accounts: MerchantAccounts
    permissions: Permissions
    plan: Plan


def _assemble(
    config: Config,
    clock: Clock,
    database: Database,
    http: httpx.AsyncClient,
    bell: Doorbell,
    flows: Mapping[str, Flow],
) -> Runtime:
    """Hands the parts to each other; opens nothing."""
    metrics = Metrics()
    providers = build_registry(http, clock, config.provider_timeout_s, sandbox_url=config.sandbox_url)
    accounts = MerchantAccounts(database, Vault(config.master_keys), clock, providers)
    permissions, plan = Permissions(database, clock), Plan(database, clock)
    ground = _Ground(config, clock, database, bell, metrics, accounts, permissions, plan)
    payments, refunds, cycles = _payments(ground), _refunds(ground), _cycles(ground)
    deductions = _deductions(ground, payments, cycles)
    live = _realtime(ground, payments, refunds, cycles)
    test_clock = SharedClock(config, clock, database, http)
    _hear(live, database, accounts, test_clock)
    return Runtime(
        config=config,
        clock=clock,
        db=database,
        bell=bell,
        auth=Authenticator(config, clock, http),
        metrics=metrics,
        accounts=accounts,
        activation=Activation(database, clock, providers),
        permissions=permissions,
        plan=plan,
        turning_off=TurningOff(database, clock, config.export_dir),
        exports=Exports(database, clock, permissions),
        payments=payments,
        refunds=refunds,
        cycles=cycles,
        deductions=deductions,
        inbox=_inbox(ground),
        flows=_flows(ground, flows, deductions),
        wechat=build_wechat(config, clock, database, http),
        realtime=live,
        test_clock=test_clock,
    )


def _hear(live: Realtime, database: Database, accounts: MerchantAccounts, test_clock: SharedClock) -> None:
    """What must be known in every process at once, and is not watched by pages."""
    live.on_change("merchant_account", accounts.forget)
    live.on_change("activation", partial(_work_with_another_table, database, live))
    live.on_change("test_clock", test_clock.hear)


def _work_with_another_table(database: Database, live: Realtime, ids: Sequence[int]) -> None:
    """What was prepared is stale, and what is watched as an order may be another table's row, or none."""
    database.renew_connections()
    if ids:  # with none all is read again already
        live.read_again()


def _payments(ground: _Ground) -> Payments:
    config = ground.config
    return Payments(
        database=ground.database,
        accounts=ground.accounts,
        clock=ground.clock,
        bell=ground.bell,
        metrics=ground.metrics,
        permissions=ground.permissions,
        plan=ground.plan,
        limits=Limits(
            minimum_amount_fen=config.minimum_amount_fen,
            maximum_amount_fen=config.maximum_amount_fen,
            default_expiry=config.default_expiry,
        ),
        public_url=config.public_url,
    )


def _refunds(ground: _Ground) -> Refunds:
    return Refunds(
        database=ground.database,
        accounts=ground.accounts,
        clock=ground.clock,
        bell=ground.bell,
        metrics=ground.metrics,
        permissions=ground.permissions,
        public_url=ground.config.public_url,
    )


def _cycles(ground: _Ground) -> Cycles:
    return Cycles(
        database=ground.database,
        accounts=ground.accounts,
        clock=ground.clock,
        bell=ground.bell,
        metrics=ground.metrics,
        permissions=ground.permissions,
        plan=ground.plan,
        schedule=Schedule.of(ground.config.deductions),
        public_url=ground.config.public_url,
    )


def _deductions(ground: _Ground, payments: Payments, cycles: Cycles) -> Deductions:
    return Deductions(
        database=ground.database,
        clock=ground.clock,
        bell=ground.bell,
        payments=payments,
        cycles=cycles,
        outcomes=Outcomes(
            database=ground.database,
            clock=ground.clock,
            bell=ground.bell,
            metrics=ground.metrics,
            schedule=cycles.schedule,
        ),
    )


def _inbox(ground: _Ground) -> Inbox:
    return Inbox(
        database=ground.database,
        accounts=ground.accounts,
        clock=ground.clock,
        bell=ground.bell,
        metrics=ground.metrics,
        notice_days=ground.config.deductions.notice_days,
    )


def _flows(ground: _Ground, flows: Mapping[str, Flow], deductions: Deductions) -> Flows:
    return Flows(
        database=ground.database,
        clock=ground.clock,
        bell=ground.bell,
        metrics=ground.metrics,
        flows=flows,
        deductions=deductions,
        timeout_s=ground.config.flow_timeout_s,
        attempts=ground.config.flow_attempts,
    )


def _realtime(ground: _Ground, payments: Payments, refunds: Refunds, cycles: Cycles) -> Realtime:
    """What can be watched, and how its rows are read: one statement per kind, whatever the number of watchers."""

    async def refunds_of_payments(payment_ids: Sequence[int]) -> Mapping[int, Refund]:
        found = await refunds.of_payments(payment_ids)
        return {refund.id: refund for of_payment in found.values() for refund in of_payment}

    return Realtime(
        database=ground.database,
        listen_url=ground.config.listen_database_url,
        sources={
            "payment": Source(
                by_id=payments.by_ids,
                by_order=payments.with_order_ids,
                version=lambda payment: payment.version,
                order_id=lambda payment: payment.order_id,
            ),
            "refund": Source(
                by_id=refunds.by_ids,
                by_order=refunds_of_payments,
                version=lambda refund: refund.version,
                order_id=lambda refund: refund.payment_id,
                parent="payment",
            ),
            "cycle_payment": Source(
                by_id=cycles.by_ids, by_order=None, version=lambda cycle: cycle.version, order_id=None
            ),
            "order": Source(by_id=payments.orders, by_order=None, version=lambda order: order, order_id=None),
        },
        metrics=RealtimeMetrics(ground.metrics.registry),
    )

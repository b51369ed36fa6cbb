"""The composition root: the one place where the parts of a process are made and handed to each other."""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import httpx

from app.activation.binding import Activation
from app.activation.permissions import Permissions
from app.activation.plan import Plan
from app.activation.turning_off import TurningOff
from app.auth import Authenticator
from app.clock import Clock
from app.config import Config
from app.db import Database, open_database
from app.doorbell import Doorbell
from app.exports.books import Exports
from app.flows.registry import Flow, load_flows
from app.flows.runs import Flows
from app.merchants.accounts import MerchantAccounts
from app.metrics import Metrics
from app.notifications.inbox import Inbox
from app.payments.actions import Limits, Payments
from app.payments.model import Payment
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
    payments = Payments(
        database=database,
        accounts=accounts,
        clock=clock,
        bell=bell,
        metrics=metrics,
        permissions=permissions,
        plan=plan,
        limits=_limits(config),
        public_url=config.public_url,
    )
    refunds = _refunds(config, clock, database, bell, metrics, accounts, permissions)
    live = _realtime(config, database, payments, refunds, metrics)
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
        inbox=Inbox(database=database, accounts=accounts, clock=clock, bell=bell, metrics=metrics),
        flows=_flows(config, clock, database, bell, metrics, flows),
        wechat=build_wechat(config, clock, database, http),
        realtime=live,
        test_clock=test_clock,
    )


def _hear(live: Realtime, database: Database, accounts: MerchantAccounts, test_clock: SharedClock) -> None:
    """What must be known in every process at once, and is not watched by pages."""
    live.on_change("merchant_account", accounts.forget)
    live.on_change("activation", lambda _: database.renew_connections())
    live.on_change("test_clock", test_clock.hear)


def _flows(
    config: Config, clock: Clock, database: Database, bell: Doorbell, metrics: Metrics, flows: Mapping[str, Flow]
) -> Flows:
    return Flows(
        database=database,
        clock=clock,
        bell=bell,
        metrics=metrics,
        flows=flows,
        timeout_s=config.flow_timeout_s,
        attempts=config.flow_attempts,
    )


def _limits(config: Config) -> Limits:
    return Limits(
        minimum_amount_fen=config.minimum_amount_fen,
        maximum_amount_fen=config.maximum_amount_fen,
        default_expiry=config.default_expiry,
    )


def _refunds(
    config: Config,
    clock: Clock,
    database: Database,
    bell: Doorbell,
    metrics: Metrics,
    accounts: MerchantAccounts,
    permissions: Permissions,
) -> Refunds:
    return Refunds(
        database=database,
        accounts=accounts,
        clock=clock,
        bell=bell,
        metrics=metrics,
        permissions=permissions,
        public_url=config.public_url,
    )


def _realtime(config: Config, database: Database, payments: Payments, refunds: Refunds, metrics: Metrics) -> Realtime:
    """What can be watched, and how its rows are read: one statement per kind, whatever the number of watchers."""

    async def payments_of_orders(order_ids: Sequence[int]) -> Mapping[int, Payment]:
        found = await payments.of_orders(order_ids)
        return {payment.id: payment for of_order in found.values() for payment in of_order}

    async def refunds_of_payments(payment_ids: Sequence[int]) -> Mapping[int, Refund]:
        found = await refunds.of_payments(payment_ids)
        return {refund.id: refund for of_payment in found.values() for refund in of_payment}

    return Realtime(
        database=database,
        listen_url=config.listen_database_url,
        sources={
            "payment": Source(
                by_id=payments.by_ids,
                by_order=payments_of_orders,
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
            "order": Source(by_id=payments.orders, by_order=None, version=lambda order: order, order_id=None),
        },
        metrics=RealtimeMetrics(metrics.registry),
    )

"""Binding the merchant's own order table, and another one later, after checking it against the catalogue.

One table is bound at a time: new payments are of its rows. One that was bound before keeps the payments it had, and
what guards it. Every refusal names the input at fault and says what to change; nothing is altered before all checks
have passed.
"""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import asyncpg
import structlog

from app.activation.plan import payments_not_active
from app.auth import Principal
from app.clock import Clock
from app.db import Database, Row, Transaction
from app.errors import Forbidden, InvalidInput
from app.providers.contract import PaymentMethod, Provider

log = structlog.get_logger(__name__)

# Somebody else may hold a table and wait for one that we hold: we let go, before the server ends either of us.
_HOLD_ATTEMPTS: Final = 16
_INTEGERS: Final = frozenset({"int2", "int4", "int8"})
_TEXTS: Final = frozenset({"text", "varchar", "bpchar"})
_OWNER_TYPES: Final = _INTEGERS | _TEXTS | {"uuid"}


@dataclass(frozen=True, slots=True)
class Binding:
    """What an administrator asks for; the fields of ActivatePaymentsInput."""

    order_table: str
    owner_column: str | None = None
    amount_column: str | None = None
    amount_in_fen: bool = False
    status_column: str | None = None
    paid_status: str | None = None
    failed_status: str | None = None
    refunded_status: str | None = None
    # what the order of a deduction takes over from the original; None is a choice by the columns' nature
    cycle_order_columns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Feature:
    """Whether payments are on, for which table, under which plan, and the ways to pay that have an account."""

    active: bool
    order_table: str | None
    plan: str | None
    plan_expires_at: datetime | None
    methods: tuple[PaymentMethod, ...]


class Activation:
    """The payment feature of this deployment."""

    def __init__(self, database: Database, clock: Clock, providers: Mapping[str, Provider]) -> None:
        self._db = database
        self._clock = clock
        self._providers = providers

    async def feature(self) -> Feature:
        """The present state."""
        row = await self._db.one("activation.find")
        rows = await self._db.all("activation.methods")
        # An account offers deductions under its agreements too, which no page may choose.
        chosen = {provider.name: provider.methods for provider in self._providers.values()}
        offered = {row["method"] for row in rows if row["method"] in chosen.get(row["provider"], ())}
        return Feature(
            active=row is not None,
            order_table=row["order_table_name"] if row else None,
            plan=row["plan"] if row else None,
            plan_expires_at=row["plan_expires_at"] if row else None,
            methods=tuple(method for method in PaymentMethod if method in offered),
        )

    async def activate(
        self, caller: Principal, binding: Binding, *, correlation_id: str | None = None, address: str | None = None
    ) -> Feature:
        """Binds the order table: validates it, adds foreign key, view and triggers. Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        now = self._clock.now()
        try:
            async with self._db.transaction() as tx:
                await tx.connection.execute("set local lock_timeout = '5s'")
                await tx.one("activation.lock")
                await _refuse_second(tx)
                relation, key, complete = await _check(tx, binding)
                guarded = await _bind(tx, now, relation, key, complete, (None, None, None))
                await tx.one(
                    "audit.append", now, caller.sub, "payments.activate", relation["name"], {"drop_guarded": guarded},
                    address, correlation_id,
                )  # fmt: skip
        except asyncpg.InsufficientPrivilegeError as exc:
            raise _not_the_owner(binding) from exc
        except asyncpg.LockNotAvailableError as exc:
            raise _locked(binding) from exc
        return await self.feature()

    async def rebind(
        self, caller: Principal, binding: Binding, *, correlation_id: str | None = None, address: str | None = None
    ) -> Feature:
        """Binds another order table for new payments; older ones keep theirs, in every respect.

        A table that was bound before gets its payments back, and is read by what is asked for now. Plan, permissions
        and merchant accounts stay. Raises Forbidden, PaymentsNotActive, InvalidInput, each with everything as it
        was."""
        _require_admin(caller)
        for attempt in range(1, _HOLD_ATTEMPTS + 1):
            try:
                async with self._db.transaction() as tx:
                    await self._rebind(tx, caller, binding, correlation_id, address)
            except asyncpg.InsufficientPrivilegeError as exc:
                raise _not_the_owner(binding) from exc
            except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                log.warning("payments.rebinding_waits", attempt=attempt)
                await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - spreads processes, guards nothing
            else:
                log.info("payments.rebound", table=binding.order_table)
                return await self.feature()
        raise _locked(binding)

    async def _rebind(
        self, tx: Transaction, caller: Principal, binding: Binding, correlation_id: str | None, address: str | None
    ) -> None:
        now = self._clock.now()
        await tx.one("activation.wait_briefly")
        await tx.one("activation.lock")
        bound = await tx.one("activation.find")
        if bound is None:
            raise payments_not_active()
        relation, key, binding = await _check(tx, binding)
        if relation["oid"] == bound["oid"]:
            raise InvalidInput(
                f"orderTable: {relation['name']} is bound already; name another table",
                field="orderTable",
                message_zh=f"支付已绑定订单表 {relation['name']}，请填写其他订单表",
            )
        await tx.one("activation.hold_bindings", relation["oid"])
        # What follows is short, and waits for nobody but readers of our views from outside: those not for long either.
        await tx.connection.execute("set local statement_timeout = 0; set local lock_timeout = '500ms'")
        plan = await tx.one("activation.set_aside", now)
        assert plan is not None
        guarded = await _bind(tx, now, relation, key, binding, tuple(plan))
        details = {"former": bound["order_table_name"], "drop_guarded": guarded}
        await tx.one(
            "audit.append", now, caller.sub, "payments.rebind", relation["name"], details, address, correlation_id
        )


def _require_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden("payments are activated by administrators: use a token with the admin role")


def _not_the_owner(binding: Binding) -> InvalidInput:
    return InvalidInput(
        f"orderTable: the database user may not add triggers to {binding.order_table};"
        " make it the table's owner (alter table … owner to …)",
        field="orderTable",
    )


def _locked(binding: Binding) -> InvalidInput:
    return InvalidInput(
        f"orderTable: {binding.order_table} is locked by another session; try again when it is done",
        field="orderTable",
    )


async def _refuse_second(tx: Transaction) -> None:
    row = await tx.one("activation.find")
    if row is not None:
        raise InvalidInput(
            f"payments are already bound to {row['order_table_name']} and a bound table stays; to bind another one for"
            " new payments use rebindPayments, to clear everything first deactivatePayments",
            field="orderTable",
            message_zh=f"支付已绑定订单表 {row['order_table_name']}，不能重复绑定；"
            "如需更换，可为新支付改绑（rebindPayments），或先关闭支付（deactivatePayments）",
        )


async def _check(tx: Transaction, binding: Binding) -> tuple[Row, str, Binding]:
    """The table as the catalogue knows it, its key, and the binding with what was left out. Raises InvalidInput."""
    relation = await _find_relation(tx, binding.order_table)
    key = await _primary_key(tx, relation["oid"], relation["name"])
    if binding.status_column is not None and binding.paid_status is None:
        binding = replace(binding, paid_status="paid")
    await _check_columns(tx, relation["oid"], binding)
    return relation, key, binding


async def _bind(
    tx: Transaction, now: datetime, relation: Row, key: str, binding: Binding, plan: tuple[Any, ...]
) -> bool:
    """Makes a checked table the bound one, under a plan; whether dropping it with CASCADE is guarded."""
    bound = await tx.one(
        "activation.bind", relation["oid"], key, binding.owner_column, binding.amount_column, binding.amount_in_fen,
        binding.status_column,
    )  # fmt: skip
    assert bound is not None
    guarded: bool = bound["drop_guarded"]
    await tx.one(
        "activation.insert", relation["oid"], relation["name"], key, binding.owner_column, binding.amount_column,
        binding.amount_in_fen, binding.status_column, binding.paid_status, binding.failed_status,
        binding.refunded_status, guarded, bound["binding_id"], now, *plan, binding.cycle_order_columns,
    )  # fmt: skip
    return guarded


async def _find_relation(tx: Transaction, name: str) -> Row:
    relation = await tx.one("activation.relation", name)
    if relation is None:
        raise InvalidInput(
            f"orderTable: there is no table {name!r}; create it first, or write it with its schema (shop.orders)",
            field="orderTable",
            message_zh=f"订单表 {name} 不存在，请先创建",
        )
    if relation["kind"] not in ("r", "p"):
        raise InvalidInput(f"orderTable: {relation['name']} is not a table; bind the table itself", field="orderTable")
    if relation["persistence"] != "p":
        raise InvalidInput(
            f"orderTable: {relation['name']} is temporary or unlogged and would lose orders;"
            " make it permanent (alter table … set logged)",
            field="orderTable",
        )
    if relation["schema"] == "shouyin" or re.match(r"pg_|information_schema", relation["schema"]):
        raise InvalidInput(
            f"orderTable: {relation['name']} is not a table of yours; bind your order table", field="orderTable"
        )
    return relation


async def _primary_key(tx: Transaction, oid: int, table: str) -> str:
    keys = await tx.all("activation.primary_key", oid)
    if len(keys) != 1 or keys[0]["type"] not in _INTEGERS:
        found = ", ".join(f"{key['name']} {key['type']}" for key in keys) or "none"
        raise InvalidInput(
            f"orderTable: {table} needs a primary key of one integer column (found: {found});"
            " for example: id bigint generated always as identity primary key",
            field="orderTable",
            message_zh=f"订单表 {table} 需要单列整数主键",
        )
    name: str = keys[0]["name"]
    return name


async def _check_columns(tx: Transaction, oid: int, binding: Binding) -> None:
    columns = {row["name"]: row for row in await tx.all("activation.columns", oid)}
    owner = _column(columns, "ownerColumn", binding.owner_column)
    if owner is not None and owner["type"] not in _OWNER_TYPES:
        raise _wrong_type("ownerColumn", owner, "an integer, text or uuid column that holds the user's id")
    amount = _column(columns, "amountColumn", binding.amount_column)
    if amount is not None and amount["type"] not in _INTEGERS | {"numeric"}:
        raise _wrong_type("amountColumn", amount, "numeric(10,2) or an integer; floating point loses money")
    if binding.amount_in_fen and amount is None:
        raise InvalidInput("amountInFen: there is no amountColumn that it could describe", field="amountInFen")
    status = _column(columns, "statusColumn", binding.status_column)
    if status is not None and status["type"] not in _TEXTS and status["kind"] != "e":
        raise _wrong_type("statusColumn", status, "a text or enum column")
    if status is not None and status["generated"]:
        raise InvalidInput(
            f"statusColumn: column {status['name']} is generated and cannot be written; name a column of its own",
            field="statusColumn",
        )
    for name in binding.cycle_order_columns or ():
        _check_copied(columns, name, status)
    for field, word in (
        ("paidStatus", binding.paid_status),
        ("failedStatus", binding.failed_status),
        ("refundedStatus", binding.refunded_status),
    ):
        if word is not None:
            _check_status_word(field, word, status)


def _column(columns: Mapping[str, Row], field: str, name: str | None) -> Row | None:
    if name is None:
        return None
    if name not in columns:
        raise InvalidInput(f"{field}: the table has no column {name!r}; it has {', '.join(columns)}", field=field)
    return columns[name]


def _check_copied(columns: Mapping[str, Row], name: str, status: Row | None) -> None:
    """The order of a deduction is a new one: what makes the original that row, and paid, is not taken over."""
    copied = _column(columns, "cycleOrderColumns", name)
    assert copied is not None
    if copied["generated"] or copied["identity"] or copied["key"]:
        raise InvalidInput(
            f"cycleOrderColumns: column {name} is made by the table for each row; leave it out",
            field="cycleOrderColumns",
        )
    if status is not None and status["name"] == name:
        raise InvalidInput(
            f"cycleOrderColumns: {name} is the statusColumn, and a new order is not paid yet; leave it out",
            field="cycleOrderColumns",
        )


def _wrong_type(field: str, column: Row, wanted: str) -> InvalidInput:
    return InvalidInput(f"{field}: column {column['name']} is {column['type']}; it has to be {wanted}", field=field)


def _check_status_word(field: str, word: str, status: Row | None) -> None:
    if status is None:
        raise InvalidInput(f"{field}: name the statusColumn that takes {word!r}", field=field)
    if status["labels"] is not None and word not in status["labels"]:
        raise InvalidInput(
            f"{field}: {word!r} is not a value of {status['name']}; it takes {', '.join(status['labels'])}", field=field
        )
    # atttypmod of varchar(n) and char(n) is n + 4
    if status["modifier"] > 4 and len(word) > status["modifier"] - 4:
        raise InvalidInput(
            f"{field}: {word!r} is longer than the {status['modifier'] - 4} characters of {status['name']}", field=field
        )

"""Binding the merchant's own order table, once, after checking it against the catalogue.

Every refusal names the input at fault and says what to change; nothing is altered before all checks have passed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import asyncpg

from app.auth import Principal
from app.clock import Clock
from app.db import Database, Row, Transaction
from app.errors import Forbidden, InvalidInput
from app.providers.contract import PaymentMethod, Provider

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
        if not caller.is_admin:
            raise Forbidden("payments are activated by administrators: use a token with the admin role")
        now = self._clock.now()
        try:
            async with self._db.transaction() as tx:
                await tx.connection.execute("set local lock_timeout = '5s'")
                await tx.one("activation.lock")
                await _refuse_second(tx)
                relation = await _find_relation(tx, binding.order_table)
                key = await _primary_key(tx, relation["oid"], relation["name"])
                if binding.status_column is not None and binding.paid_status is None:
                    binding = replace(binding, paid_status="paid")
                await _check_columns(tx, relation["oid"], binding)
                bound = await tx.one(
                    "activation.bind", relation["oid"], key, binding.owner_column, binding.amount_column,
                    binding.amount_in_fen, binding.status_column,
                )  # fmt: skip
                assert bound is not None
                await tx.one(
                    "activation.insert", relation["oid"], relation["name"], key, binding.owner_column,
                    binding.amount_column, binding.amount_in_fen, binding.status_column, binding.paid_status,
                    binding.failed_status, binding.refunded_status, bound["drop_guarded"], now,
                )  # fmt: skip
                details = {"drop_guarded": bound["drop_guarded"]}
                await tx.one(
                    "audit.append",
                    now,
                    caller.sub,
                    "payments.activate",
                    relation["name"],
                    details,
                    address,
                    correlation_id,
                )
        except asyncpg.InsufficientPrivilegeError as exc:
            raise InvalidInput(
                f"orderTable: the database user may not add triggers to {binding.order_table};"
                " make it the table's owner (alter table … owner to …)",
                field="orderTable",
            ) from exc
        except asyncpg.LockNotAvailableError as exc:
            raise InvalidInput(
                f"orderTable: {binding.order_table} is locked by another session; try again when it is done",
                field="orderTable",
            ) from exc
        return await self.feature()


async def _refuse_second(tx: Transaction) -> None:
    row = await tx.one("activation.find")
    if row is not None:
        raise InvalidInput(
            f"payments are already bound to {row['order_table_name']} and a bound table stays;"
            " to bind another one turn payments off first (deactivatePayments)",
            field="orderTable",
            message_zh=f"支付已绑定订单表 {row['order_table_name']}，不能重复绑定；如需更换请先关闭支付",
        )


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

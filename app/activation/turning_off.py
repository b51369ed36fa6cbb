"""Turning payments off, so that another table can be bound.

    confirmed? ─▶ anything unresolved? ─▶ archive on the disk ─▶ one transaction: everything held still, nothing
                      │ named, refused                             unresolved, nothing else than in the archive? cleared

A crash before that transaction's commit leaves everything as it was, and an archive perhaps; after it payments are off.
"""

import asyncio
import random
import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog

from app.auth import Principal
from app.clock import Clock
from app.db import Database, Row, Transaction
from app.errors import Forbidden, InvalidInput, PaymentsUnresolved
from app.exports.archive import Archive, write_archive

log = structlog.get_logger(__name__)

# How many unresolved rows of each kind are named.
_NAMED: Final = 5
# New rows may come while the archive is written; each time it is written anew.
_ARCHIVES: Final = 3
# Somebody else may hold a table and wait for one that we hold: we let go, before the server ends either of us.
_HOLD_ATTEMPTS: Final = 16
_WORDS: Final = {
    "payments": ("payments", "笔支付"),
    "refunds": ("refunds", "笔退款"),
    "cyclePayments": ("cycle payments that are not cancelled", "个周期扣款协议"),
    "deductions": ("deductions", "笔周期扣款"),
    "notifications": ("notifications", "条通知"),
    "events": ("events without their flows", "个待分发事件"),
    "flowRuns": ("flow runs", "个流程"),
}


class TurningOff:
    """The way out. Safe to repeat, beside itself and beside everything else."""

    def __init__(self, database: Database, clock: Clock, directory: Path) -> None:
        self._db = database
        self._clock = clock
        self._directory = directory

    async def turn_off(
        self, caller: Principal, confirm: str, *, correlation_id: str | None = None, address: str | None = None
    ) -> None:
        """Exports and clears payments, refunds, cycle payments, merchant accounts and flow runs; unbinds the order
        table, whose rows stay.

        `confirm` is the bound table's name. Changes nothing where payments are off already.
        Raises Forbidden, InvalidInput, PaymentsUnresolved, ExportUnwritable, each with everything as it was."""
        if not caller.is_admin:
            raise Forbidden("payments are turned off by administrators: use a token with the admin role")
        for _ in range(_ARCHIVES):
            bound = await self._db.one("activation.bound")
            if bound is None:
                return
            _check_confirmed(bound, confirm)
            _refuse_unresolved(await self._db.all("activation.unresolved", _NAMED))
            archive = await write_archive(self._db, self._clock, self._directory, bound["name"])
            if await self._clear(caller, bound, archive, correlation_id, address):
                log.info("payments.turned_off", table=bound["name"], archive=archive.path.name)
                return
        raise _busy()

    async def _clear(
        self, caller: Principal, bound: Row, archive: Archive, correlation_id: str | None, address: str | None
    ) -> bool:
        """Whether it is done; not when the archive is no longer all there is. Raises PaymentsUnresolved."""
        for attempt in range(1, _HOLD_ATTEMPTS + 1):
            try:
                async with self._db.transaction() as tx:
                    await _hold(tx)
                    if not await _is_all(tx, bound, archive):
                        return False
                    now = self._clock.now()
                    await tx.one("activation.clear", now)
                    await _append_audit(tx, now, caller, bound["name"], archive, correlation_id, address)
            except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                log.warning("payments.turning_off_waits", attempt=attempt)
                await asyncio.sleep(random.uniform(0.05, 0.3))  # noqa: S311 - spreads processes, guards nothing
            else:
                return True
        raise _busy()


async def _hold(tx: Transaction) -> None:
    await tx.one("activation.wait_briefly")
    await tx.one("activation.lock")
    await tx.one("activation.hold")
    await tx.connection.execute("set local statement_timeout = 0")


async def _is_all(tx: Transaction, bound: Row, archive: Archive) -> bool:
    """Under the locks: the same binding, nothing unresolved, and nothing that the archive lacks."""
    current = await tx.one("activation.bound")
    if current is None or current["activated_at"] != bound["activated_at"]:
        return False
    _refuse_unresolved(await tx.all("activation.unresolved", _NAMED))
    stand = await tx.one("export.stand")
    assert stand is not None
    return tuple(stand) == archive.stand


async def _append_audit(
    tx: Transaction,
    now: datetime,
    caller: Principal,
    table: str,
    archive: Archive,
    correlation_id: str | None,
    address: str | None,
) -> None:
    details = {
        "export": str(archive.path),
        # Whichever process was asked wrote it, on its own machine.
        "host": socket.gethostname(),
        **{table.name: totals.shown() for table, totals in archive.totals.items()},
    }
    await tx.one("audit.append", now, caller.sub, "payments.deactivate", table, details, address, correlation_id)


def _check_confirmed(bound: Row, confirm: str) -> None:
    if confirm not in bound["names"]:
        raise InvalidInput(
            f"confirm: write the bound table's name, {bound['name']}: its payments, refunds and merchant accounts go",
            field="confirm",
            message_zh=f"请输入绑定的订单表名 {bound['name']} 以确认关闭支付",
        )


def _refuse_unresolved(rows: Sequence[Row]) -> None:
    """Raises PaymentsUnresolved naming what has no end yet."""
    if not rows:
        return
    found: dict[str, dict[str, Any]] = {
        row["kind"]: {"count": row["total"], "oldest": list(row["oldest"])} for row in rows
    }
    words = "; ".join(
        f"{_WORDS[kind][0]}: {each['count']} ({', '.join(row['id'] for row in each['oldest'])}"
        f"{', …' if each['count'] > len(each['oldest']) else ''})"
        for kind, each in found.items()
    )
    words_zh = "、".join(f"{each['count']} {_WORDS[kind][1]}" for kind, each in found.items())
    raise PaymentsUnresolved(
        f"payments cannot be turned off before these have ended: {words}",
        message_zh=f"还有未完结的记录（{words_zh}），暂不能关闭支付",
        extra={"unresolved": found},
    )


def _busy() -> PaymentsUnresolved:
    return PaymentsUnresolved(
        "payments are being worked with, and nothing was changed; try again when that is done",
        message_zh="支付数据正在变更，未做任何改动，请稍后重试",
        extra={"unresolved": {}},
    )

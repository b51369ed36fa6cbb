"""CSV as a spreadsheet opens it: UTF-8 with a byte order mark, CRLF, amounts in yuan, times of Shanghai.

    id,order_id,…,amount,paid_amount,refunded_amount,created_by,created_at,paid_at,order_table
    12,7,…,12.30,12.30,0.00,7,2026-11-01 09:00:00,2026-11-01 09:00:07,public.orders
    total: 1 row,,…,12.30,12.30,0.00,,,,

The last line counts the rows and sums the amounts; a file without it is not whole. A text that a spreadsheet would run
as a formula gets an apostrophe before it.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.clock import SHANGHAI
from app.db import Row
from app.money import format_yuan

BYTE_ORDER_MARK: Final = "\ufeff".encode()
# What makes a spreadsheet run a cell, a blank of any kind before it included; with an East Asian locale it reads the
# wide forms as the narrow ones.
_STARTS_FORMULA: Final = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


@dataclass(frozen=True, slots=True)
class Table:
    """Which columns a file has; a name with `_fen` is shown without it, in yuan, and summed."""

    name: str
    columns: tuple[str, ...]


PAYMENTS: Final = Table(
    "payments",
    (
        *("id", "order_id", "owner", "provider", "method", "merchant_account_id", "subject", "out_trade_no"),
        *("transaction_id", "status", "amount_fen", "paid_amount_fen", "refunded_amount_fen", "created_by"),
        *("created_at", "paid_at", "order_table"),
    ),
)
REFUNDS: Final = Table(
    "refunds",
    (
        *("id", "payment_id", "order_id", "owner", "merchant_account_id", "out_trade_no", "out_refund_no"),
        *("provider_refund_id", "status", "reason", "amount_fen", "refunded_amount_fen", "created_by"),
        *("created_at", "refunded_at", "order_table"),
    ),
)
CYCLE_PAYMENTS: Final = Table(
    "cycle_payments",
    (
        *("id", "order_id", "owner", "payer", "provider", "merchant_account_id", "scene", "subject"),
        *("external_agreement_no", "agreement_no", "status", "price_fen", "interval_days", "deductions"),
        *("paid_deductions", "paid_fen", "created_by", "created_at", "signed_at", "ended_at", "order_table"),
    ),
)
DEDUCTIONS: Final = Table(
    "deductions",
    (
        *("id", "cycle_payment_id", "due_on", "sequence", "status", "order_id", "payment_id", "attempts"),
        *("price_fen", "paid_fen", "failure", "created_at", "finished_at", "order_table"),
    ),
)
# The books of a period are of these; an archive has all four.
TABLES: Final = {table.name: table for table in (PAYMENTS, REFUNDS)}


@dataclass(slots=True)
class Totals:
    """What has been written so far: rows, their versions together, and the sum of each amount in fen."""

    rows: int = 0
    versions: int = 0
    sums_fen: dict[str, int] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As the audit log keeps them: {"rows": 2, "amount": "24.60", …}."""
        return {"rows": self.rows} | {_shown_name(name): format_yuan(fen) for name, fen in self.sums_fen.items()}


class Writer:
    """One file, as bytes, in the order: head, rows (any number of times), foot."""

    def __init__(self, table: Table) -> None:
        self._columns = table.columns
        self.totals = Totals(sums_fen={name: 0 for name in table.columns if name.endswith("_fen")})

    def head(self) -> bytes:
        """The byte order mark and the names of the columns."""
        return BYTE_ORDER_MARK + _lines([[_shown_name(name) for name in self._columns]])

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Lines for some rows, added to the totals."""
        totals = self.totals
        totals.rows += len(rows)
        for row in rows:
            totals.versions += row["version"]
            for name in totals.sums_fen:
                totals.sums_fen[name] += row[name] or 0
        return _lines([[_cell(name, row[name]) for name in self._columns] for row in rows])

    def foot(self) -> bytes:
        """The line with the totals."""
        totals = self.totals
        cells = [format_yuan(totals.sums_fen[name]) if name in totals.sums_fen else "" for name in self._columns]
        cells[0] = f"total: {totals.rows} row{'' if totals.rows == 1 else 's'}"
        return _lines([cells])


def _shown_name(name: str) -> str:
    return name.removesuffix("_fen")


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            return ""
        case int() if name.endswith("_fen"):
            return format_yuan(value)
        case int():
            return str(value)
        case datetime():
            return value.astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
    text = str(value)
    runs = text.startswith(("\t", "\r", "\n")) or text.lstrip().startswith(_STARTS_FORMULA)
    return f"'{text}" if runs else text


def _lines(rows: Sequence[Sequence[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\r\n").writerows(rows)
    return file.getvalue().encode("utf-8")

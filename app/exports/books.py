"""The books of a period: what was paid, or given back, from one business date to another, both included.

A file is read page by page, each page a statement of its own: neither a transaction nor more than a page of memory is
held while somebody slowly downloads a million rows. A row is as it was when its page was read.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

from app.activation.permissions import Action, Permissions
from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.db import Database
from app.errors import InvalidInput, NotFound
from app.exports.table import TABLES, Table, Writer

_PAGE: Final = 2000
_LONGEST: Final = timedelta(days=366)
# What counts in the books: money that moved.
_STATUSES: Final = {
    "payments": ("SUCCESSFUL", "PARTIALLY_REFUNDED", "REFUNDED"),
    "refunds": ("REFUNDED",),
}
# (the page, about how many rows, the instant that counts) of each table
_STATEMENTS: Final = {
    "payments": ("export.paid_payments", "export.count_paid_payments", "paid_at"),
    "refunds": ("export.made_refunds", "export.count_made_refunds", "refunded_at"),
}


@dataclass(frozen=True, slots=True)
class Period:
    """Business dates of Asia/Shanghai, both included."""

    first: date
    last: date

    @property
    def begins(self) -> datetime:
        """The first instant."""
        return datetime.combine(self.first, time(), SHANGHAI)

    @property
    def ends(self) -> datetime:
        """The instant after the last."""
        return datetime.combine(self.last + timedelta(days=1), time(), SHANGHAI)


@dataclass(frozen=True, slots=True)
class Book:
    """One file that may be read now: the caller may, and the audit log says so."""

    table: Table
    period: Period
    statuses: tuple[str, ...] | None
    about_rows: int

    @property
    def file_name(self) -> str:
        """Such as payments-2026-11-01-2026-11-30.csv."""
        return f"{self.table.name}-{self.period.first}-{self.period.last}.csv"


class Exports:
    """Exports of this deployment. One a process."""

    def __init__(self, database: Database, clock: Clock, permissions: Permissions) -> None:
        self._db = database
        self._clock = clock
        self._permissions = permissions

    async def open(
        self,
        caller: Principal,
        name: str,
        first: str | None,
        last: str | None,
        statuses: Sequence[str] = (),
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> Book:
        """Checks what is asked for and writes it to the audit log, before anything leaves.

        `name` is payments or refunds, `first` and `last` are dates such as 2026-11-01, `statuses` none for all of them.
        Raises Forbidden, NotFound, InvalidInput."""
        await self._permissions.require(caller, Action.PAYMENT_EXPORT)
        if name not in TABLES:
            raise NotFound(f"there is no export {name!r}: payments or refunds", field="name")
        period = read_period(first, last)
        wanted = _read_statuses(name, statuses)
        row = await self._db.one(_STATEMENTS[name][1], period.begins, period.ends)
        assert row is not None
        details = {"from": str(period.first), "to": str(period.last), "status": list(wanted or ())}
        await self._db.change(
            "audit.append", self._clock.now(), caller.sub, Action.PAYMENT_EXPORT, name, details, address, correlation_id
        )
        return Book(TABLES[name], period, wanted, row["rows"])

    async def pages(self, book: Book, writer: Writer | None = None) -> AsyncGenerator[bytes, None]:
        """The file, in pieces of a page each; `writer` has the totals so far after each."""
        writer = writer or Writer(book.table)
        statement, _, instant = _STATEMENTS[book.table.name]
        after, after_id = book.period.begins, 0
        yield writer.head()
        while True:
            rows = await self._db.all(
                statement, book.period.begins, book.period.ends, after, after_id, book.statuses, _PAGE
            )
            if rows:
                after, after_id = rows[-1][instant], rows[-1]["id"]
                yield writer.rows(rows)
            if len(rows) < _PAGE:
                break
        yield writer.foot()


def read_period(first: str | None, last: str | None) -> Period:
    """The period of two dates as people write them. Raises InvalidInput naming `from` or `to`."""
    begin, end = _read_date("from", first), _read_date("to", last)
    if end < begin:
        raise InvalidInput(
            f"to: {end} is before {begin}; write the later date as `to`",
            field="to",
            message_zh="结束日期早于开始日期",
        )
    if end - begin >= _LONGEST:
        raise InvalidInput(
            f"to: at most {_LONGEST.days} days at once; ask for the rest in another file",
            field="to",
            message_zh=f"一次最多导出 {_LONGEST.days} 天",
        )
    return Period(begin, end)


def _read_date(field: str, text: str | None) -> date:
    try:
        # Only this form: fromisoformat would also read 20261101 and 2026-W45.
        found = date.fromisoformat(text or "")
        if text == str(found) and 2000 <= found.year < 3000:
            return found
    except ValueError:
        pass
    said = "is missing" if not text else f"is {text[:40]!r}"
    raise InvalidInput(
        f"{field}: {said}; write a date of Shanghai's calendar, such as 2026-11-01",
        field=field,
        message_zh=f"{field} 日期不正确，格式如 2026-11-01",
    )


def _read_statuses(name: str, statuses: Sequence[str]) -> tuple[str, ...] | None:
    known = _STATUSES[name]
    for status in statuses:
        if status not in known:
            raise InvalidInput(
                f"status: {status[:40]!r} is not one of {', '.join(known)}: only money that moved is in the books",
                field="status",
                message_zh=f"status 只能是 {'、'.join(known)}",
            )
    return tuple(dict.fromkeys(statuses)) or None

"""The archive: every payment, refund, cycle payment and deduction there is, as files on this machine, before they are
cleared.

    <EXPORT_DIR>/public.orders-20261122T021500Z-k2j4x8qa/payments.csv  refunds.csv  cycle_payments.csv  deductions.csv

The folder appears under its name only when all of it is on the disk. One of an attempt that did not go on stays.
"""

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.clock import Clock
from app.db import Database
from app.errors import ExportUnwritable
from app.exports.table import CYCLE_PAYMENTS, DEDUCTIONS, PAYMENTS, REFUNDS, Table, Totals, Writer

_PAGE: Final = 2000
_STATEMENTS: Final = {
    PAYMENTS: "export.all_payments",
    REFUNDS: "export.all_refunds",
    CYCLE_PAYMENTS: "export.all_cycle_payments",
    DEDUCTIONS: "export.all_deductions",
}


@dataclass(frozen=True, slots=True)
class Archive:
    """What was written, and where."""

    path: Path
    totals: Mapping[Table, Totals]

    @property
    def stand(self) -> tuple[int, ...]:
        """Rows and versions, as `export.stand` tells them: the same while nothing came or changed."""
        return tuple(number for each in self.totals.values() for number in (each.rows, each.versions))


async def write_archive(database: Database, clock: Clock, directory: Path, table_name: str) -> Archive:
    """Writes all there is; returns when they would survive a power cut. Only their owner can read them.

    Raises ExportUnwritable, naming the setting, when the directory does not take them."""
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', table_name)}-{clock.now():%Y%m%dT%H%M%SZ}"
    try:
        unfinished = await asyncio.to_thread(_make_folder, directory, name)
        try:
            totals = {table: await _write_table(database, unfinished, table) for table in _STATEMENTS}
            path = await asyncio.to_thread(_finish_folder, unfinished)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except OSError as exc:
        raise ExportUnwritable(f"EXPORT_DIR: {directory} cannot be written: {exc.strerror or exc}") from exc
    return Archive(path, totals)


async def _write_table(database: Database, folder: Path, table: Table) -> Totals:
    writer = Writer(table)
    opened = os.open(folder / f"{table.name}.csv", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as file:
        async for page in _pages(database, table, writer):
            file.write(page)
        file.flush()
        # Seconds on a slow disk, in which this process serves others.
        await asyncio.to_thread(os.fsync, file.fileno())
    return writer.totals


async def _pages(database: Database, table: Table, writer: Writer) -> AsyncIterator[bytes]:
    yield writer.head()
    after = 0
    while rows := await database.all(_STATEMENTS[table], after, _PAGE):
        after = rows[-1]["id"]
        yield writer.rows(rows)
    yield writer.foot()


def _make_folder(directory: Path, name: str) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f".{name}-", dir=directory))


def _finish_folder(unfinished: Path) -> Path:
    """Gives the folder its name, once its files are on the disk for good."""
    _sync_folder(unfinished)
    path = unfinished.rename(unfinished.with_name(unfinished.name.removeprefix(".")))
    _sync_folder(path.parent)
    return path


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

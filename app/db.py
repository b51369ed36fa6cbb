"""The database: a pool, named statements from sql/queries, migrations from sql/migrations.

Every statement the program sends stands in a file and is called by name, "payment.find" being `-- name: find` in
sql/queries/payment.sql. Reads and writes go through different verbs, because after each commit that may have changed a
watched row the relay is told: `on_commit` is that hint, and losing it costs a poll interval, never a change.
"""

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import asyncpg
import orjson
from asyncpg import Record
from asyncpg.pool import PoolConnectionProxy

SQL: Final = Path(__file__).resolve().parent.parent / "sql"

# Two processes that migrate at once take turns on this advisory lock; any constant serves.
_MIGRATION_LOCK: Final = 5_346_700_001

if TYPE_CHECKING:
    Connection = PoolConnectionProxy[Record]
else:
    Connection = PoolConnectionProxy  # only its type stub takes a parameter


class Row(Protocol):
    """What a row reader asks of a row: columns by name."""

    def __getitem__(self, name: str, /) -> Any: ...


class DatabaseUnusable(Exception):
    """The database cannot serve this program as it is; the message says what to do."""


def load_queries(directory: Path = SQL / "queries") -> dict[str, str]:
    """All named statements: {"payment.find": "select …"}. Raises ValueError for a name given twice."""
    queries: dict[str, str] = {}
    for path in sorted(directory.glob("*.sql")):
        for part in re.split(r"^-- name: ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            name, _, text = part.partition("\n")
            key = f"{path.stem}.{name.strip()}"
            if key in queries:
                raise ValueError(f"{path}: the statement {name.strip()!r} stands here twice")
            queries[key] = text.strip().removesuffix(";")
    return queries


# Set in the task that holds a transaction. Asking the pool for a second connection meanwhile deadlocks as soon as all
# connections are held by tasks that do so: each holds one and waits for another.
_holds_transaction: ContextVar[bool] = ContextVar("holds_transaction", default=False)


class Database:
    """A pool with named statements. One a process; safe to use from any task.

    Inside `transaction()` only the transaction's own verbs may be used; the others refuse (an assertion)."""

    def __init__(self, pool: "asyncpg.Pool[Record]", queries: Mapping[str, str]) -> None:
        self.pool = pool
        self._queries = queries
        self.on_commit: Callable[[], None] = _nobody_listens
        self._renewing: asyncio.Task[None] | None = None

    async def all(self, name: str, *args: Any) -> list[Record]:
        """Rows of a reading statement."""
        return list(await self._free_pool().fetch(self._queries[name], *args))

    async def one(self, name: str, *args: Any) -> Record | None:
        """The row of a reading statement, or None."""
        return await self._free_pool().fetchrow(self._queries[name], *args)

    async def change(self, name: str, *args: Any) -> Record | None:
        """Runs one writing statement as its own transaction; the first row it returns, or None."""
        row = await self._free_pool().fetchrow(self._queries[name], *args)
        self.on_commit()
        return row

    async def change_all(self, name: str, *args: Any) -> list[Record]:
        """Runs one writing statement as its own transaction; all rows it returns."""
        rows = await self._free_pool().fetch(self._queries[name], *args)
        self.on_commit()
        return list(rows)

    def _free_pool(self) -> "asyncpg.Pool[Record]":
        assert not _holds_transaction.get(), "use the open transaction: a second connection would wait for the first"
        return self.pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Transaction"]:
        """A transaction of several statements. Never await a provider inside."""
        async with self._free_pool().acquire() as connection, _held(connection):
            yield Transaction(connection, self._queries)
        self.on_commit()

    @asynccontextmanager
    async def merchant_transaction(self) -> AsyncIterator["Transaction"]:
        """A transaction that runs a merchant's code: whatever session state it leaves behind goes with it."""
        async with self._free_pool().acquire() as connection:
            try:
                async with _held(connection):
                    yield Transaction(connection, self._queries)
            finally:
                if not connection.is_closed():
                    await connection.reset()
        self.on_commit()

    def renew_connections(self) -> None:
        """Has every connection replaced before its next use: what it prepared was for a table that is bound no more."""
        self._renewing = asyncio.get_running_loop().create_task(self.pool.expire_connections())

    async def close(self) -> None:
        """Closes the pool, waiting for what is under way."""
        await self.pool.close()


@asynccontextmanager
async def _held(connection: Connection) -> AsyncIterator[None]:
    token = _holds_transaction.set(True)
    try:
        # Said and not left to the server's default: what is read after a lock must be what its last holder committed.
        async with connection.transaction(isolation="read_committed"):
            yield
    finally:
        _holds_transaction.reset(token)


class Transaction:
    """The verbs of an open transaction. `connection` is for a merchant's flow; our own code names its statements."""

    def __init__(self, connection: Connection, queries: Mapping[str, str]) -> None:
        self.connection = connection
        self._queries = queries

    async def all(self, name: str, *args: Any) -> list[Record]:
        """Rows of a statement."""
        return list(await self.connection.fetch(self._queries[name], *args))

    async def one(self, name: str, *args: Any) -> Record | None:
        """The first row of a statement, or None."""
        return await self.connection.fetchrow(self._queries[name], *args)


def storable(text: str) -> str:
    """The text as a column takes it: zero bytes and halves of characters replaced. For words that others chose."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def _nobody_listens() -> None:
    """The hint of a process that runs no relay: its slow timer serves."""


async def open_database(url: str, *, size: int = 10, statement_cache: bool = True) -> Database:
    """A pool to the primary. `statement_cache=False` is for a pooler in transaction mode.

    Raises DatabaseUnusable when it cannot be reached."""
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=min(2, size),
            max_size=size,
            command_timeout=30,
            timeout=10,
            statement_cache_size=256 if statement_cache else 0,
            max_inactive_connection_lifetime=300,
            init=_prepare_connection,
            reset=_keep_session,
        )
    except (OSError, TimeoutError, asyncpg.PostgresError, ssl.SSLError) as exc:
        raise DatabaseUnusable(f"DATABASE_URL: the database cannot be reached: {exc}") from exc
    return Database(pool, load_queries())


async def _prepare_connection(connection: "asyncpg.Connection[Record] | Connection") -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + orjson.dumps(value),
        decoder=lambda payload: orjson.loads(payload[1:]),
        format="binary",
    )


async def _keep_session(connection: "asyncpg.Connection[Record] | Connection") -> None:
    """Nothing here sets session state, so that the pool's reset round trip after each use would buy nothing."""


# --- migrations -----------------------------------------------------------------------------------------------------


def _migration_files() -> list[tuple[str, str, str]]:
    """(name, text, checksum) in order."""
    found = []
    for path in sorted((SQL / "migrations").glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        found.append((path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return found


async def migrate(url: str) -> list[str]:
    """Applies what is missing, each file in its own transaction; returns the names applied. Safe to run at once.

    Raises DatabaseUnusable when the database cannot be reached, or holds a migration that differs from ours."""
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as exc:
        raise DatabaseUnusable(f"DATABASE_URL: the database cannot be reached: {exc}") from exc
    try:
        await connection.execute("select pg_advisory_lock($1)", _MIGRATION_LOCK)
        await connection.execute("create schema if not exists shouyin")
        await connection.execute(
            "create table if not exists shouyin.migration"
            " (name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        )
        rows = await connection.fetch("select name, checksum from shouyin.migration")
        done = {row["name"]: row["checksum"] for row in rows}
        applied = []
        for name, text, checksum in _migration_files():
            if name in done:
                if done[name] != checksum:
                    raise DatabaseUnusable(
                        f"migration {name}: the database applied another text under this name; restore the file"
                    )
                continue
            async with connection.transaction():
                await connection.execute(text)
                await connection.execute(
                    "insert into shouyin.migration (name, checksum) values ($1, $2)", name, checksum
                )
            applied.append(name)
        return applied
    finally:
        await connection.close()


async def missing_migrations(database: Database) -> list[str]:
    """Names of migrations the database lacks; for the readiness check. Works on a database never migrated."""
    exists = await database.one("readiness.migration_table")
    if exists is None or not exists["present"]:
        return [name for name, _, _ in _migration_files()]
    done = {row["name"] for row in await database.all("readiness.migrations")}
    return [name for name, _, _ in _migration_files() if name not in done]

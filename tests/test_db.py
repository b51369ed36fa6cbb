"""The database layer: every named statement fits the schema and is used; migrations apply once, to the letter."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from app.db import SQL, Database, DatabaseUnusable, load_queries, migrate, missing_migrations, open_database
from tests.fixtures.shop import Shop

APP = SQL.parent / "app"


async def test_every_statement_fits_the_schema(shop: Shop) -> None:
    await shop.connection.execute("set search_path to pg_catalog")
    for name, text in load_queries().items():
        try:
            await shop.connection.prepare(text)
        except asyncpg.UndefinedTableError:
            # The demo's own table, which only a demo deployment has.
            assert name.startswith("demo."), name


def test_every_statement_is_used_and_every_name_exists() -> None:
    queries = load_queries()
    source = "\n".join(path.read_text() for path in APP.rglob("*.py"))
    stems = "|".join({name.split(".")[0] for name in queries})
    called = set(re.findall(rf'"((?:{stems})\.[a-z_]+)"', source))
    assert {name for name in queries if name not in called} == set()


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sql").write_text("-- name: a\nselect 1;\n-- name: a\nselect 2;\n")
    with pytest.raises(ValueError, match="'a' stands here twice"):
        load_queries(tmp_path)


async def test_migrations_apply_once_even_when_many_begin_at_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    names = sorted(path.stem for path in (SQL / "migrations").glob("*.sql"))
    assert sorted(name for some in applied for name in some) == names
    assert await migrate(empty_database_url) == []


async def test_a_migration_that_was_changed_afterwards_is_refused(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("update shouyin.migration set checksum = 'x' where name like '0001%'")
    await connection.close()
    with pytest.raises(DatabaseUnusable, match=r"0001_foundation: the database applied another text"):
        await migrate(database_url)


async def test_what_is_missing_is_known(empty_database_url: str) -> None:
    database = await open_database(empty_database_url, size=1)
    names = sorted(path.stem for path in (SQL / "migrations").glob("*.sql"))
    assert await missing_migrations(database) == names
    await migrate(empty_database_url)
    assert await missing_migrations(database) == []
    await database.close()


async def test_a_database_that_is_not_there_is_named() -> None:
    with pytest.raises(DatabaseUnusable, match=r"^DATABASE_URL: "):
        await open_database("postgresql://127.0.0.1:9/nothing")


async def test_commits_hint_and_rollbacks_do_not(database: Database) -> None:
    hints: list[int] = []
    database.on_commit = lambda: hints.append(1)
    await database.one("activation.find")
    assert hints == []
    with pytest.raises(RuntimeError):
        async with database.transaction():
            raise RuntimeError
    assert hints == []
    async with database.transaction():
        pass
    assert len(hints) == 1


async def test_a_second_connection_inside_a_transaction_is_refused(database: Database) -> None:
    """Ten tasks that hold a connection each and ask a pool of ten for another wait for ever."""
    async with database.transaction() as tx:
        assert await tx.one("activation.find") is None
        for attempt in (database.one, database.all, database.change, database.change_all):
            with pytest.raises(AssertionError, match="use the open transaction"):
                await attempt("activation.find")
        with pytest.raises(AssertionError, match="use the open transaction"):
            async with database.transaction():
                pass
    assert await database.one("activation.find") is None

"""Servers for one test run: made in a temporary directory, without fsync, gone at the end."""

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.local.children import service_account, temporary_directory
from app.local.postgres import THROWAWAY, Postgres, create_cluster, free_port, running_postgres
from app.local.redis import Redis, running_redis


@contextmanager
def throwaway_postgres(options: tuple[str, ...] = THROWAWAY) -> Iterator[Postgres]:
    """A new PostgreSQL without any database of ours. About half a second."""
    account = service_account()
    password = secrets.token_hex(16)
    with throwaway_directory() as directory:
        create_cluster(directory / "postgres", password, account)
        with running_postgres(
            directory / "postgres", password, account, port=free_port(), log=directory / "postgres.log", options=options
        ) as server:
            yield server


@contextmanager
def throwaway_redis() -> Iterator[Redis]:
    """A new, empty Redis."""
    with (
        throwaway_directory() as directory,
        running_redis(
            secrets.token_hex(16), service_account(), port=free_port(), log=directory / "redis.log"
        ) as server,
    ):
        yield server


@contextmanager
def throwaway_directory() -> Iterator[Path]:
    """A temporary directory in which the servers' user can have directories of its own."""
    directory = Path(tempfile.mkdtemp(prefix="shouyin-test-", dir=temporary_directory(service_account())))
    directory.chmod(0o711)  # the servers' user passes through to what is its own inside
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)

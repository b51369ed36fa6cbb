"""The embedded PostgreSQL, for real: made, started, stopped, recovered."""

import os
import signal
import time
from pathlib import Path

import asyncpg
import pytest

from app.local import LocalError
from app.local.children import service_account, wait_gone
from app.local.postgres import (
    create_cluster,
    free_port,
    prepare_database,
    running_postgres,
    start_postgres,
    stop_postgres,
)
from app.local.throwaway import throwaway_directory
from tests.fixtures.servers import OwnPostgres, OwnRedis


async def test_a_restarted_server_keeps_port_and_content(own_postgres: OwnPostgres) -> None:
    url = await own_postgres.create_database()
    connection = await asyncpg.connect(url)
    await connection.execute("create table kept (id int)")
    own_postgres.restart()
    again = await asyncpg.connect(url)
    assert await again.fetchval("select count(*) from kept") == 0
    await again.close()

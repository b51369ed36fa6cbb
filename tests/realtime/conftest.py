"""Fixtures of the realtime tests."""

from collections.abc import AsyncIterator

import pytest

from app.db import Database
from tests.realtime.world import Process, Shop, process


@pytest.fixture
async def shop(database: Database) -> Shop:
    """An open shop without payments."""
    shop = Shop(database)
    await shop.open()
    return shop


@pytest.fixture
async def live(database: Database, database_url: str, shop: Shop) -> AsyncIterator[Process]:
    """The realtime layer on the shop's database; it leads, nobody else being there."""
    async with process(database, database_url, shop.sources()) as running:
        yield running

"""Fixtures of the provider tests."""

from collections.abc import AsyncIterator

import httpx
import pytest

from app.providers.transport import open_client


@pytest.fixture(scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """The deployment's own client; opening one takes as long as reading all certificate authorities does."""
    async with open_client() as opened:
        yield opened

"""Fixtures of the APIv3 tests."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.providers.wechat.v3.bench import Bench, benching


@pytest.fixture
async def bench(client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    async with benching(client) as made:
        yield made


@pytest.fixture(params=["v3", "v3_certificate", "v3_partner"])
async def any_bench(request: pytest.FixtureRequest, client: httpx.AsyncClient) -> AsyncIterator[Bench]:
    """A bench for each mode in turn."""
    async with benching(client, request.param) as made:
        yield made

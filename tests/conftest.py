"""Fixtures of the whole suite, by noun in tests/fixtures. Servers are real; time moves only when a test moves it."""

import pytest

from app.clock import Clock
from app.local.postgres import free_port

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.web",
    "tests.fixtures.shop",
    "tests.fixtures.flows",
    "tests.fixtures.market",
    "tests.fixtures.crash",
]


@pytest.fixture
def clock() -> Clock:
    """The host's time until the test calls `clock.advance(timedelta(...))`."""
    return Clock()


@pytest.fixture
def port() -> int:
    """A free loopback port."""
    return free_port()

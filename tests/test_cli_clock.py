"""`shouyin clock` against an API, a worker and a sandbox."""

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.clock import SHANGHAI, Clock
from app.local.state import Home
from tests.api.conftest import Api, serving_api
from tests.fixtures.market import Market
from tests.test_worker import working

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


Command = Callable[..., Awaitable[Result]]


async def shouyin_clock(home: Path, *arguments: str) -> Result:
    """A `shouyin clock` beside the stack of that home, which is all it knows."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "clock", *arguments, cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SHOUYIN_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Result(process.returncode, stdout.decode(), stderr.decode())


@pytest.fixture(params=["on"])
async def town(market: Market, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Api, Market, Command]]:
    """An API beside a home whose stack it is; TEST_CLOCK as the parameter says."""
    home = Home(market.shop.config.home)
    # The API has its own clock; the market's shop goes on living in the machine's time.
    market.shop.clock = Clock()
    async with serving_api(market.shop, test_clock=request.param == "on") as api:
        [(key_id, key)] = api.shop.config.master_keys.items()
        environment = {
            "DATABASE_URL": api.shop.config.database_url,
            "REDIS_URL": api.shop.config.redis_url,
            "PUBLIC_URL": api.shop.config.public_url,
            "MASTER_KEYS": f"{key_id}:{base64.b64encode(key).decode()}",
            "JWT_SECRET": "a secret of a test, thirty-two bytes or more",
        }

        async def run(*arguments: str) -> Result:
            return await shouyin_clock(home.path, *arguments)

        with home.locked():
            home.write_run({"graphql": api.url}, environment)
            yield api, market, run


async def test_a_month_passes_with_a_line_for_each_day(town: tuple[Api, Market, Command]) -> None:
    api, market, shouyin = town
    async with working(market.shop, TEST_CLOCK="1"):
        payment = await api.payment()
        moved = await shouyin("--advance", "31d")
        assert (moved.exit_code, moved.stderr) == (0, "")
        lines = moved.stdout.splitlines()
        assert len(lines) == 32
        first = datetime.now(SHANGHAI).date()
        assert [line[:10] for line in lines] == [str(first + timedelta(days=n)) for n in range(32)]
        assert sum("payment closed 1" in line for line in lines) == 1
        assert sum(line.endswith("  -") for line in lines) >= 30
        assert (
            await market.shop.connection.fetchval("select status from shouyin.payment where id = $1", payment.id)
            == "CLOSED"
        )
        shown = json.loads((await shouyin("--json")).stdout)
        assert shown["movable"] is True
        assert timedelta(days=30, hours=23) < timedelta(seconds=shown["offset_s"]) <= timedelta(days=31)


async def test_it_goes_to_an_instant_and_tells_a_program_the_days(town: tuple[Api, Market, Command]) -> None:
    _api, _market, shouyin = town
    to = (datetime.now(SHANGHAI) + timedelta(days=2)).replace(hour=9, minute=0, second=0, microsecond=0)
    moved = await shouyin("--to", to.isoformat(), "--json")
    assert moved.exit_code == 0
    told = json.loads(moved.stdout)
    assert [day["date"] for day in told["days"]] == [str(to.date() - timedelta(days=n)) for n in (2, 1, 0)]
    assert told["days"][1] == {"date": str(to.date() - timedelta(days=1)), "events": {}, "flow_runs": 0}
    assert timedelta() <= datetime.fromisoformat(told["now"]) - to < timedelta(seconds=20)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--advance", "31"), "--advance 31: write days, hours or minutes, such as 31d, 12h or 90m"),
        (("--to", "tomorrow"), "--to tomorrow: write a time with its offset, such as 2026-12-31T09:00+08:00"),
        (("--to", "2026-12-31T09:00"), "--to 2026-12-31T09:00: write a time with its offset"),
        (("--to", "2020-01-01T00:00Z"), "--to 2020-01-01T00:00Z: the clock only moves forward"),
        (("--to", "2020-01-01T00:00Z", "--advance", "1d"), "--advance and --to: give one of them"),
    ],
)
async def test_what_makes_no_sense_is_one_line(
    town: tuple[Api, Market, Command], arguments: tuple[str, ...], line: str
) -> None:
    api, _market, shouyin = town
    refused = await shouyin(*arguments)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert refused.stderr.startswith(f"shouyin: {line}")
    assert await api.shop.connection.fetchval("select ahead_us from shouyin.test_clock") == 0


@pytest.mark.parametrize("town", ["off"], indirect=True)
async def test_a_stack_without_a_test_clock_is_one_line(town: tuple[Api, Market, Command]) -> None:
    _api, _market, shouyin = town
    refused = await shouyin("--advance", "1d")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "shouyin: the clock of this stack cannot be moved: start it with TEST_CLOCK=on\n"
    assert re.search(r"movable +False", (await shouyin()).stdout)


async def test_what_the_api_refuses_is_one_line(town: tuple[Api, Market, Command]) -> None:
    _api, market, shouyin = town
    await market.shop.connection.execute(
        "update shouyin.merchant_account"
        """ set settings = settings || '{"gateway": "https://openapi.alipay.com/gateway.do"}'"""
    )
    refused = await shouyin("--advance", "1d")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert refused.stderr.startswith("shouyin: these merchant accounts are not at the sandbox")


async def test_without_a_running_stack_it_is_one_line(tmp_path: Path) -> None:
    refused = await shouyin_clock(tmp_path, "--advance", "1d")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == f"shouyin: no stack is running under {tmp_path}: start one with `make run`\n"
    assert not list(tmp_path.iterdir())

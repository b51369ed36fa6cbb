"""The clock over the API: for each kind of caller, off unless the deployment says so; tokens outlive months."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.clock import SHANGHAI, Clock
from tests.api.conftest import Api, serving_api
from tests.fixtures.market import Market

ADVANCE = """mutation ($to: DateTime!, $steps: ClockSteps! = DAILY, $settle: Int! = 60) {
  advanceClock(to: $to, steps: $steps, settleSeconds: $settle) { now days { date flowRuns events { kind count } } } }"""
STATE = "{ clock { now offsetSeconds movable } }"


@pytest.fixture
async def api(market: Market) -> AsyncIterator[Api]:
    """An API whose clock may be moved, beside a sandbox; no worker runs."""
    market.shop.clock = Clock()
    async with serving_api(market.shop, test_clock=True) as served:
        yield served


async def advance(api: Api, by: timedelta, **variables: Any) -> dict[str, Any]:
    to = datetime.now(UTC) + by
    answer = await api.post(ADVANCE, {"to": to.isoformat(), **variables}, sub="root", role="admin")
    assert "errors" not in answer, answer
    data: dict[str, Any] = answer["data"]["advanceClock"]
    return data


async def moved(api: Api) -> tuple[int, int]:
    """(how far the clock was moved, how often somebody is on record for it)."""
    fetch = api.shop.connection.fetchval
    ahead = await fetch("select ahead_us from shouyin.test_clock")
    return ahead, await fetch("select count(*) from shouyin.audit where action = 'clock.advance'")


async def test_an_administrator_moves_it_and_every_caller_sees_what_time_it_is(api: Api) -> None:
    first = datetime.now(SHANGHAI).date()
    gone = await advance(api, timedelta(days=3))
    assert gone["days"] == [{"date": str(first + timedelta(days=n)), "flowRuns": 0, "events": []} for n in range(4)]
    assert timedelta(days=3) <= datetime.fromisoformat(gone["now"]) - datetime.now(UTC) + timedelta(seconds=10)
    state = (await api.post(STATE))["data"]["clock"]
    assert state["movable"] is True
    assert 3 * 86400 - 10 < state["offsetSeconds"] <= 3 * 86400
    assert (await api.error(STATE, sub=None))["code"] == "UNAUTHENTICATED"
    assert (await moved(api))[1] == 1


@pytest.mark.parametrize(
    ("caller", "code"),
    [({"sub": None}, "UNAUTHENTICATED"), ({"sub": "7"}, "FORBIDDEN"), ({"sub": "c", "role": "clerk"}, "FORBIDDEN")],
)
async def test_nobody_else_does(api: Api, caller: dict[str, Any], code: str) -> None:
    to = datetime.now(UTC) + timedelta(days=1)
    assert (await api.error(ADVANCE, {"to": to.isoformat()}, **caller))["code"] == code
    assert await moved(api) == (0, 0)


async def test_it_is_off_by_default(market: Market) -> None:
    async with serving_api(market.shop) as api:
        to = datetime.now(UTC) + timedelta(days=1)
        refused = await api.error(ADVANCE, {"to": to.isoformat()}, sub="root", role="admin")
        assert refused["code"] == "FORBIDDEN"
        assert await moved(api) == (0, 0)
        state = (await api.post(STATE))["data"]["clock"]
        assert (state["movable"], state["offsetSeconds"]) == (False, 0)


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"to": "2020-01-01T00:00:00Z"}, "to"),
        ({"to": "2126-01-01T00:00:00Z"}, "to"),
        ({"to": "2036-01-01T00:00:00"}, "to"),
        ({"to": "2036-01-01T00:00:00Z", "settle": 0}, "settleSeconds"),
        ({"to": "2036-01-01T00:00:00Z", "settle": 601}, "settleSeconds"),
    ],
)
async def test_a_wrong_input_is_named_and_nothing_moves(api: Api, variables: dict[str, Any], field: str) -> None:
    refused = await api.error(ADVANCE, variables, sub="root", role="admin")
    assert (refused["code"], refused["field"]) == ("INVALID_INPUT", field)
    assert await moved(api) == (0, 0)


async def test_what_is_still_due_is_named(api: Api) -> None:
    """No worker runs that could ask about the payment."""
    await api.payment()
    await api.shop.connection.execute("update shouyin.event set dispatched_at = now()")
    to = datetime.now(UTC) + timedelta(hours=3)
    variables = {"to": to.isoformat(), "steps": "ONE", "settle": 1}
    refused = await api.error(ADVANCE, variables, sub="root", role="admin")
    assert (refused["code"], refused["due"]) == ("CLOCK_NOT_SETTLED", {"payments": 1})
    now = datetime.fromisoformat((await api.post(STATE))["data"]["clock"]["now"])
    assert timedelta() <= now - to < timedelta(seconds=20)


async def test_a_token_is_good_for_as_long_as_its_holders_clock_says(api: Api) -> None:
    """It was made by the machine's time, as everybody else's tokens are."""
    headers = {"authorization": f"Bearer {api.token('7', ttl=timedelta(minutes=5))}"}
    await advance(api, timedelta(days=62))
    answer = await api.http.post(api.url, json={"query": STATE}, headers=headers)
    assert "errors" not in answer.json()
    api.shop.clock.advance(timedelta(minutes=6))
    answer = await api.http.post(api.url, json={"query": STATE}, headers=headers)
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"

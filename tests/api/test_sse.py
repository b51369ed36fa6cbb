"""Results as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api, serving_api
from tests.fixtures.shop import Shop

WATCH = "subscription ($id: ID!) { payment(id: $id, untilFinal: true) { id status version } }"
_WAIT_S = 10.0


class Events:
    """The events of a response, in order."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def read(self) -> tuple[str, Any]:
        """The next event's name and data; comments are passed over."""
        name = ""
        async with asyncio.timeout(_WAIT_S):
            async for line in self._lines:
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data:"):
                    text = line[5:].strip()
                    return name, json.loads(text) if text else None
        raise AssertionError("the stream ended without an event")

    async def ended(self) -> bool:
        """Waits for the end of the response; whether nothing but blank lines came before it."""
        async with asyncio.timeout(_WAIT_S):
            return [line async for line in self._lines if line] == []


@asynccontextmanager
async def streamed(
    api: Api, query: str, variables: dict[str, Any] | None = None, *, sub: str | None = "7", method: str = "POST"
) -> AsyncIterator[Events]:
    headers = api.headers(sub) | {"accept": "text/event-stream"}
    given: dict[str, Any] = {"query": query, "variables": variables or {}}
    if method == "GET":
        request: dict[str, Any] = {"params": {"query": query, "variables": json.dumps(given["variables"])}}
    else:
        request = {"json": given}
    async with api.http.stream(method, api.url, headers=headers, **request) as response:
        yield Events(response)


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_payment_until_final(api: Api, method: str) -> None:
    payment = await api.payment()
    async with streamed(api, WATCH, {"id": str(payment.id)}, method=method) as events:
        assert events.response.status_code == 200
        assert events.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert events.response.headers["x-accel-buffering"] == "no"
        name, first = await events.read()
        assert (name, first["data"]["payment"]["status"]) == ("next", "PENDING")
        await api.shop.connection.execute("update shouyin.payment set status = 'SUCCESSFUL', paid_amount_fen = 1230")
        name, last = await events.read()
        assert (name, last["data"]["payment"]["status"]) == ("next", "SUCCESSFUL")
        assert await events.read() == ("complete", None)
        assert await events.ended()


@pytest.mark.parametrize(
    ("query", "sub", "code"),
    [
        ("{", "7", "INVALID_QUERY"),
        ("{ nope }", "7", "INVALID_QUERY"),
        ("query A { __typename } query B { __typename }", "7", "INVALID_QUERY"),
        ("subscription { payment(id: 999999) { id } }", "7", "NOT_FOUND"),
        ("subscription { payment(id: 1) { id } }", None, "UNAUTHENTICATED"),
        ("query ($id: ID!) { payment(id: $id) { id } }", "7", "INVALID_INPUT"),
        ("{ " + "__typename " * 1000 + "}", "7", "QUERY_TOO_COMPLEX"),
    ],
)
async def test_what_cannot_be_streamed_says_why(shared_api: Api, query: str, sub: str | None, code: str) -> None:
    async with streamed(shared_api, query, sub=sub) as events:
        assert events.response.status_code == 200
        name, answer = await events.read()
        assert (name, answer["errors"][0]["extensions"]["code"]) == ("next", code)
        assert await events.read() == ("complete", None)
        assert await events.ended()


async def test_refused_token_is_an_event_too(shared_api: Api) -> None:
    headers = {"accept": "text/event-stream", "authorization": "Bearer x.y.z"}
    async with shared_api.http.stream("POST", shared_api.url, json={"query": "{__typename}"}, headers=headers) as got:
        events = Events(got)
        assert (await events.read())[1]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert await events.read() == ("complete", None)


async def test_queries_are_one_event(shared_api: Api) -> None:
    async with streamed(shared_api, "{ paymentFeature { active } }") as events:
        assert await events.read() == ("next", {"data": {"paymentFeature": {"active": True}}})
        assert await events.read() == ("complete", None)


async def test_subscription_without_a_stream_is_refused(shared_api: Api) -> None:
    refused = await shared_api.error("subscription { payment(id: 1) { id } }")
    assert refused["code"] == "INVALID_QUERY"


async def test_expired_token_completes_the_stream(api: Api) -> None:
    payment = await api.payment()
    async with streamed(api, WATCH, {"id": str(payment.id)}) as events:
        await events.read()
        api.shop.clock.advance(timedelta(hours=1, seconds=6))
        assert api.application.connections is not None
        api.application.connections.sweep()
        name, last = await events.read()
        assert (name, last["errors"][0]["extensions"]["code"]) == ("next", "UNAUTHENTICATED")
        assert await events.read() == ("complete", None)


async def test_idle_stream_gets_comments(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.sse._HEARTBEAT_S", 0.02)
    payment = await api.payment()
    async with streamed(api, WATCH, {"id": str(payment.id)}) as events:
        await events.read()
        comments = 0
        async with asyncio.timeout(_WAIT_S):
            async for line in events.response.aiter_lines() if False else events._lines:
                comments += line == ":"
                if comments == 3:
                    break
    assert comments == 3


async def test_client_that_leaves_frees_everything(api: Api) -> None:
    payment = await api.payment()
    for _ in range(5):
        async with streamed(api, WATCH, {"id": str(payment.id)}) as events:
            await events.read()
    async with asyncio.timeout(_WAIT_S):
        while api.application.connections is None or len(api.application.connections):
            await asyncio.sleep(0.01)
    scraped = (await api.http.get(f"{api.origin}/metrics")).text
    for gauge in ("shouyin_sse_streams", "shouyin_subscriptions", "shouyin_realtime_watches"):
        assert f"\n{gauge} 0.0\n" in scraped


async def test_streams_are_limited_with_the_sockets(shop: Shop) -> None:
    async with serving_api(shop, sockets_limit=1) as api:
        payment = await api.payment()
        async with streamed(api, WATCH, {"id": str(payment.id)}) as events:
            await events.read()
            async with streamed(api, WATCH, {"id": str(payment.id)}) as refused:
                assert refused.response.status_code == 503

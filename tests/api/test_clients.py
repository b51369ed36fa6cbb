"""The published JavaScript clients, unmodified, end to end."""

import json
from typing import Any

from tests.api.conftest import Api
from tests.api.node import node_lines


async def _watch(api: Api, script: str, url: str) -> tuple[list[str], dict[str, Any]]:
    """What a client prints that watches a payment: the payment's states, and the rest by name. It succeeds as soon as
    the client has seen it pending."""
    payment = await api.payment()
    states: list[str] = []
    rest: dict[str, Any] = {}
    async for line in node_lines(script, url, api.token(), str(payment.id), str(payment.order_id)):
        event = json.loads(line)
        if "payment" not in event:
            rest |= event
            continue
        states.append(event["payment"]["data"]["payment"]["status"])
        if states == ["PENDING"]:
            paid = "update shouyin.payment set status = 'SUCCESSFUL', paid_amount_fen = 1230"
            await api.shop.connection.execute(paid)
    return states, rest


async def test_graphql_ws(api: Api) -> None:
    states, rest = await _watch(api, "watch_ws.mjs", api.socket_url)
    assert states == ["PENDING", "SUCCESSFUL"]
    assert rest["connected"] is True
    assert rest["query"][0]["data"]["payment"]["status"] == "PENDING"
    assert rest["syntax"] == ["INVALID_QUERY"]
    assert rest["order"]["data"]["order"]["data"]["title"] == "Tea"
    assert rest["closed"] == 1000


async def test_graphql_sse(api: Api) -> None:
    states, rest = await _watch(api, "watch_sse.mjs", api.url)
    assert states == ["PENDING", "SUCCESSFUL"]
    assert rest == {"syntax": "INVALID_QUERY"}

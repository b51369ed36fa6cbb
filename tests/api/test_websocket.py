"""GraphQL over WebSocket, frame by frame, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from app.api.connections import Connections
from tests.api.conftest import Api, serving_api
from tests.api.test_http import TOO_COMPLEX
from tests.fixtures.shop import Shop

PROTOCOL = Subprotocol("graphql-transport-ws")
WATCH = "subscription ($id: ID!) { payment(id: $id) { id status version } }"
_WAIT_S = 10.0


class Client:
    """A raw client: what is sent is sent as it is."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def read(self) -> dict[str, Any]:
        async with asyncio.timeout(_WAIT_S):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def closed(self) -> tuple[int, str]:
        """The code and reason the server closed with; what came before is dropped."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(_WAIT_S):
                while True:
                    await self.connection.recv()
        frame = self.connection.protocol.close_rcvd
        assert frame is not None, "the connection was dropped without a close frame"
        return frame.code, frame.reason

    async def init(self, payload: object = None) -> None:
        await self.send({"type": "connection_init", "payload": payload})
        assert await self.read() == {"type": "connection_ack"}

    async def subscribe(self, operation_id: str, query: str, **variables: Any) -> None:
        await self.send({"id": operation_id, "type": "subscribe", "payload": {"query": query, "variables": variables}})


@asynccontextmanager
async def opened(api: Api, **options: Any) -> AsyncIterator[Client]:
    settings: dict[str, Any] = {"subprotocols": [PROTOCOL], "compression": None, "proxy": None} | options
    async with connect(api.socket_url, **settings) as connection:
        yield Client(connection)


def token_payload(api: Api, sub: str = "7", *roles: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api.token(sub, *roles)}"}


# --- the protocol -----------------------------------------------------------------------------------------------------

SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": "{__typename}"}}
INIT = {"type": "connection_init"}

# What is sent, and the code the socket closes with. After INIT the server has acknowledged.
VIOLATIONS: list[tuple[str, list[object], int]] = [
    ("array", ["[]"], 4400),
    ("number", ["1"], 4400),
    ("text", ['"x"'], 4400),
    ("null", ["null"], 4400),
    ("no JSON", ["{"], 4400),
    ("nothing", [""], 4400),
    ("NaN", ['{"type": NaN}'], 4400),
    ("binary frame", [b'{"type": "connection_init"}'], 4400),
    ("no type", [{}], 4400),
    ("type is a number", [{"type": 5}], 4400),
    ("unknown type", [{"type": "start"}], 4400),
    ("array after init", [INIT, "[]"], 4400),
    ("init payload is a list", [{"type": "connection_init", "payload": []}], 4400),
    ("init payload is a text", [{"type": "connection_init", "payload": "x"}], 4400),
    ("second init", [INIT, INIT], 4429),
    ("second init with a payload", [INIT, {"type": "connection_init", "payload": {}}], 4429),
    ("subscribe before init", [SUBSCRIBE], 4401),
    ("malformed subscribe before init", [{"type": "subscribe"}], 4401),
    ("id is missing", [INIT, {"type": "subscribe", "payload": {"query": "{__typename}"}}], 4400),
    ("id is a number", [INIT, SUBSCRIBE | {"id": 1}], 4400),
    ("id is a list", [INIT, SUBSCRIBE | {"id": []}], 4400),
    ("id is an object", [INIT, SUBSCRIBE | {"id": {}}], 4400),
    ("id is null", [INIT, SUBSCRIBE | {"id": None}], 4400),
    ("id is empty", [INIT, SUBSCRIBE | {"id": ""}], 4400),
    ("id is endless", [INIT, SUBSCRIBE | {"id": "x" * 257}], 4400),
    ("payload is missing", [INIT, {"id": "1", "type": "subscribe"}], 4400),
    ("payload is null", [INIT, SUBSCRIBE | {"payload": None}], 4400),
    ("payload is a list", [INIT, SUBSCRIBE | {"payload": []}], 4400),
    ("query is missing", [INIT, SUBSCRIBE | {"payload": {}}], 4400),
    ("query is null", [INIT, SUBSCRIBE | {"payload": {"query": None}}], 4400),
    ("variables is a list", [INIT, SUBSCRIBE | {"payload": {"query": "{a}", "variables": []}}], 4400),
    ("operationName is a number", [INIT, SUBSCRIBE | {"payload": {"query": "{a}", "operationName": 1}}], 4400),
    ("extensions is a text", [INIT, SUBSCRIBE | {"payload": {"query": "{a}", "extensions": "x"}}], 4400),
    ("complete without an id", [INIT, {"type": "complete"}], 4400),
    ("complete with a number", [INIT, {"type": "complete", "id": 1}], 4400),
    ("ping with a text", [INIT, {"type": "ping", "payload": "x"}], 4400),
    ("message too large", [INIT, '{"type": "ping", "payload": {"x": "' + "x" * 70000 + '"}}'], 1009),
]


@pytest.mark.parametrize(("sent", "code"), [row[1:] for row in VIOLATIONS], ids=[row[0] for row in VIOLATIONS])
async def test_violations_close_the_socket_with_their_code(shared_api: Api, sent: list[object], code: int) -> None:
    async with opened(shared_api) as client:
        for message in sent:
            await client.send(message)
        assert (await client.closed())[0] == code


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {}}, {"payload": {"anything": [1]}}])
async def test_init_with_any_object_null_or_nothing_is_acknowledged(shared_api: Api, payload: dict[str, Any]) -> None:
    async with opened(shared_api) as client:
        await client.send(INIT | payload)
        assert await client.read() == {"type": "connection_ack"}


async def test_id_in_use_closes_with_4409(shared_api: Api) -> None:
    payment = await shared_api.payment()
    async with opened(shared_api) as client:
        await client.init(token_payload(shared_api))
        await client.subscribe("a", WATCH, id=str(payment.id))
        assert (await client.read())["type"] == "next"
        await client.subscribe("a", WATCH, id=str(payment.id))
        assert (await client.closed())[0] == 4409


async def test_pings_are_answered_before_and_after_init(shared_api: Api) -> None:
    async with opened(shared_api) as client:
        await client.send({"type": "ping"})
        assert await client.read() == {"type": "pong"}
        await client.init()
        await client.send({"type": "ping", "payload": {"x": 1}})
        assert await client.read() == {"type": "pong"}
        await client.send({"type": "pong"})
        await client.send({"type": "complete", "id": "never-started"})
        await client.send({"type": "ping", "payload": None})
        assert await client.read() == {"type": "pong"}


@pytest.mark.parametrize("offered", [None, ["graphql-ws"], ["x", "y"]])
async def test_other_protocols_close_with_4406(shared_api: Api, offered: list[Subprotocol] | None) -> None:
    async with opened(shared_api, subprotocols=offered) as client:
        assert (await client.closed())[0] == 4406


async def test_without_init_the_socket_closes_with_4408(shared_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.websocket._INIT_TIMEOUT_S", 0.05)
    async with opened(shared_api) as client:
        assert await client.closed() == (4408, "Connection initialisation timeout")
    async with opened(shared_api) as client:
        await client.send({"type": "ping"})
        assert await client.read() == {"type": "pong"}
        assert (await client.closed())[0] == 4408


# --- operations -------------------------------------------------------------------------------------------------------


async def test_one_bad_operation_ends_and_the_others_go_on(shared_api: Api) -> None:
    payment = await shared_api.payment()
    async with opened(shared_api) as client:
        await client.init(token_payload(shared_api))
        await client.subscribe("good", WATCH, id=str(payment.id))
        assert (await client.read())["payload"]["data"]["payment"]["status"] == "PENDING"
        for number, (query, code) in enumerate(
            [
                ("{", "INVALID_QUERY"),
                ("", "INVALID_QUERY"),
                ("{ nope }", "INVALID_QUERY"),
                ("query A { __typename } query B { __typename }", "INVALID_QUERY"),
                ("subscription { payment(id: 1) { id } order(id: 1) { id } }", "INVALID_QUERY"),
                ("query ($id: ID!) { payment(id: $id) { id } }", "INVALID_INPUT"),
                *((query, "QUERY_TOO_COMPLEX") for query in TOO_COMPLEX.values()),
            ]
        ):
            await client.subscribe(f"bad-{number}", query)
            answer = await client.read()
            assert (answer["id"], answer["type"]) == (f"bad-{number}", "error"), query[:60]
            assert answer["payload"][0]["extensions"]["code"] == code, query[:60]
        await client.send({"id": "good", "type": "complete"})
        await client.subscribe("good", "{ __typename }")
        assert (await client.read())["payload"] == {"data": {"__typename": "Query"}}
        assert await client.read() == {"id": "good", "type": "complete"}


async def test_named_operation_of_several_runs(shared_api: Api) -> None:
    async with opened(shared_api) as client:
        await client.init()
        payload = {"query": "query A { __typename } query B { b: __typename }", "operationName": "B"}
        await client.send({"id": "1", "type": "subscribe", "payload": payload})
        assert (await client.read())["payload"] == {"data": {"b": "Query"}}
        assert await client.read() == {"id": "1", "type": "complete"}


async def test_queries_and_mutations_run_too(shared_api: Api) -> None:
    order_id = await shared_api.shop.order()
    create = "mutation ($input: CreatePaymentInput!) { createPayment(input: $input) { status } }"
    async with opened(shared_api) as client:
        await client.init({"token": shared_api.token()})
        given = {"orderId": str(order_id), "method": "ALIPAY_PAGE", "subject": "Tea"}
        await client.subscribe("1", create, input=given)
        assert (await client.read())["payload"] == {"data": {"createPayment": {"status": "PENDING"}}}
        assert await client.read() == {"id": "1", "type": "complete"}
        await client.subscribe("2", create, input=given | {"amount": 12.3})
        answer = await client.read()
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "INVALID_AMOUNT")
    assert await shared_api.payments_of(order_id) == 1


async def test_a_fault_after_the_first_event_ends_the_operation_with_a_masked_error(api: Api) -> None:
    payment = await api.payment()
    async with opened(api) as client:
        await client.init(token_payload(api))
        # html is derived from the stored action; one of an unknown kind is a fault of ours.
        query = "subscription ($id: ID!) { payment(id: $id) { id action { __typename } } }"
        await client.subscribe("1", query, id=str(payment.id))
        assert (await client.read())["payload"]["data"]["payment"]["action"] == {"__typename": "Redirect"}
        await api.shop.connection.execute("""update shouyin.payment set action = '{"kind": "Telepathy"}'""")
        answer = await client.read()
        assert (answer["type"], answer["payload"]["errors"][0]["extensions"]["code"]) == ("next", "INTERNAL")
        assert "Telepathy" not in json.dumps(answer)
        await api.shop.connection.execute("update shouyin.payment set action = null")
        assert (await client.read())["payload"] == {"data": {"payment": {"id": str(payment.id), "action": None}}}


# --- what is watched --------------------------------------------------------------------------------------------------


async def test_payment_comes_as_it_is_and_then_with_every_change_until_final(api: Api) -> None:
    payment = await api.payment()
    query = "subscription ($id: ID!) { payment(id: $id, untilFinal: true) { status version final paidAmount } }"
    async with opened(api) as client:
        await client.init(token_payload(api))
        await client.subscribe("1", query, id=str(payment.id))
        first = (await client.read())["payload"]["data"]["payment"]
        assert first == {"status": "PENDING", "version": 2, "final": False, "paidAmount": None}
        await api.shop.connection.execute("update shouyin.payment set status = 'SUCCESSFUL', paid_amount_fen = 1230")
        last = (await client.read())["payload"]["data"]["payment"]
        assert last == {"status": "SUCCESSFUL", "version": 3, "final": True, "paidAmount": "12.30"}
        assert await client.read() == {"id": "1", "type": "complete"}
        await client.subscribe("2", query, id=str(payment.id))
        assert (await client.read())["payload"]["data"]["payment"] == last
        assert await client.read() == {"id": "2", "type": "complete"}


async def test_payments_of_an_order_and_the_order_itself(api: Api) -> None:
    order_id = await api.shop.order()
    async with opened(api) as client:
        await client.init(token_payload(api))
        of_order = "subscription ($id: ID!) { payments(orderId: $id) { id status } }"
        await client.subscribe("p", of_order, id=str(order_id))
        await client.subscribe("o", "subscription ($id: ID!) { order(id: $id) { data } }", id=str(order_id))
        first = await client.read()
        assert (first["id"], first["payload"]["data"]["order"]["data"]["status"]) == ("o", "unpaid")
        payment = await api.payment(order_id)
        seen = await client.read()
        while seen["payload"]["data"]["payments"]["status"] != "PENDING":  # it may be coalesced with the next
            seen = await client.read()
        assert (seen["id"], seen["payload"]["data"]["payments"]["id"]) == ("p", str(payment.id))
        await api.shop.connection.execute("update public.orders set status = 'paid' where id = $1", order_id)
        changed = await client.read()
        while changed["id"] == "p":
            changed = await client.read()
        assert changed["payload"]["data"]["order"]["data"]["status"] == "paid"


SUBSCRIPTIONS = {
    "payment": "subscription { payment(id: $payment) { id } }",
    "payments": "subscription { payments(orderId: $order) { id } }",
    "order": "subscription { order(id: $order) { id } }",
}


@pytest.mark.parametrize("subscription", SUBSCRIPTIONS)
@pytest.mark.parametrize(
    ("sub", "role", "code"),
    [(None, "", "UNAUTHENTICATED"), ("7", "user", None), ("8", "user", "NOT_FOUND"), ("root", "admin", None)],
)
async def test_who_may_watch(shared_api: Api, subscription: str, sub: str | None, role: str, code: str | None) -> None:
    payment = await shared_api.payment()
    query = SUBSCRIPTIONS[subscription].replace("$payment", str(payment.id)).replace("$order", str(payment.order_id))
    async with opened(shared_api) as client:
        await client.init(token_payload(shared_api, sub, role) if sub else None)
        await client.subscribe("1", query)
        answer = await client.read()
        if code is None:
            assert answer["type"] == "next"
        else:
            assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", code)


@pytest.mark.parametrize("key", ["999999999", "abc", "-1", "", "9" * 30])
async def test_what_is_not_there_cannot_be_watched(shared_api: Api, key: str) -> None:
    async with opened(shared_api) as client:
        await client.init(token_payload(shared_api, "root", "admin"))
        for name, query in SUBSCRIPTIONS.items():
            await client.subscribe(name, query.replace("$payment", f'"{key}"').replace("$order", f'"{key}"'))
            answer = await client.read()
            assert (answer["id"], answer["type"], answer["payload"][0]["extensions"]["code"]) == (
                name, "error", "NOT_FOUND",
            )  # fmt: skip


async def test_a_row_that_changes_hands_is_no_longer_shown(api: Api) -> None:
    payment = await api.payment()
    async with opened(api) as client:
        await client.init(token_payload(api))
        await client.subscribe("1", "subscription ($id: ID!) { order(id: $id) { data } }", id=str(payment.order_id))
        assert (await client.read())["type"] == "next"
        await api.shop.connection.execute("update public.orders set user_id = 8, title = 'not for 7'")
        answer = await client.read()
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "NOT_FOUND")
        assert "not for 7" not in json.dumps(answer)


async def test_nothing_loaded_for_one_event_is_served_to_the_next(api: Api) -> None:
    payment = await api.payment()
    query = "subscription ($id: ID!) { payment(id: $id) { version order { data } } }"
    async with opened(api) as client:
        await client.init(token_payload(api))
        await client.subscribe("1", query, id=str(payment.id))
        assert (await client.read())["payload"]["data"]["payment"]["order"]["data"]["title"] == "Tea"
        await api.shop.connection.execute("update public.orders set title = 'Coffee'")
        await api.shop.connection.execute("update shouyin.payment set late = true")
        assert (await client.read())["payload"]["data"]["payment"]["order"]["data"]["title"] == "Coffee"


# --- tokens, origins, limits ------------------------------------------------------------------------------------------


async def test_refused_token_closes_with_4403(shared_api: Api) -> None:
    expired = shared_api.token(ttl=timedelta(seconds=-60))
    for payload in ({"authorization": "Bearer x.y.z"}, {"token": expired}, {"Authorization": "Basic dTpw"}):
        async with opened(shared_api) as client:
            await client.send(INIT | {"payload": payload})
            assert (await client.closed())[0] == 4403


async def test_token_may_come_with_the_handshake_but_not_in_the_address(shared_api: Api) -> None:
    async with opened(shared_api, additional_headers=shared_api.headers()) as client:
        await client.init()
        await client.subscribe("1", "{ paymentFeature { active } }")
        assert (await client.read())["payload"] == {"data": {"paymentFeature": {"active": True}}}
    address = f"{shared_api.socket_url}?token={shared_api.token()}"
    cookie = {"cookie": f"token={shared_api.token()}"}
    async with connect(
        address, subprotocols=[PROTOCOL], additional_headers=cookie, compression=None, proxy=None
    ) as connection:
        client = Client(connection)
        await client.init()
        await client.subscribe("1", "{ paymentFeature { active } }")
        assert (await client.read())["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_expired_token_ends_its_streams_and_not_the_socket(api: Api) -> None:
    payment = await api.payment()
    async with opened(api) as client:
        await client.init(token_payload(api))
        await client.subscribe("1", WATCH, id=str(payment.id))
        assert (await client.read())["type"] == "next"
        api.shop.clock.advance(timedelta(hours=1, seconds=6))
        connections_of(api).sweep()
        answer = await client.read()
        assert (answer["id"], answer["type"]) == ("1", "error")
        assert answer["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        await client.subscribe("2", WATCH, id=str(payment.id))
        answer = await client.read()
        assert (answer["id"], answer["payload"][0]["extensions"]["code"]) == ("2", "UNAUTHENTICATED")
        await client.send({"type": "ping"})
        assert await client.read() == {"type": "pong"}


async def test_event_after_the_token_ended_is_not_sent(api: Api) -> None:
    payment = await api.payment()
    async with opened(api) as client:
        await client.init(token_payload(api))
        await client.subscribe("1", WATCH, id=str(payment.id))
        assert (await client.read())["type"] == "next"
        api.shop.clock.advance(timedelta(hours=1, seconds=6))
        await api.shop.connection.execute("update shouyin.payment set late = true")
        answer = await client.read()
        assert (answer["type"], answer["payload"][0]["extensions"]["code"]) == ("error", "UNAUTHENTICATED")


async def test_other_origins_are_refused(shop: Shop) -> None:
    async with serving_api(shop, allowed_origins=("https://shop.example",)) as api:
        for origin in (api.origin, "https://shop.example"):
            async with opened(api, origin=Origin(origin)) as client:
                await client.init()
        for wrong in ("https://evil.example", "null", "http://127.0.0.1:1", f"{api.origin}.evil.example"):
            with pytest.raises(InvalidStatus) as refused:
                async with opened(api, origin=Origin(wrong)):
                    pass
            assert refused.value.response.status_code == 403


async def test_operations_of_a_socket_are_limited(shop: Shop) -> None:
    async with serving_api(shop, subscriptions_per_socket=2) as api:
        payment = await api.payment()
        async with opened(api) as client:
            await client.init(token_payload(api))
            for operation_id in ("1", "2"):
                await client.subscribe(operation_id, WATCH, id=str(payment.id))
                assert (await client.read())["type"] == "next"
            await client.subscribe("3", WATCH, id=str(payment.id))
            answer = await client.read()
            assert (answer["id"], answer["type"]) == ("3", "error")
            assert answer["payload"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
            await client.send({"id": "1", "type": "complete"})
            # Ended operations free their place: many short ones after each other must not use it up.
            for number in range(10):
                await client.subscribe(f"s{number}", "{ __typename }")
                assert (await client.read())["type"] == "next"
                assert (await client.read())["type"] == "complete"


async def test_sockets_of_a_process_are_limited(shop: Shop) -> None:
    async with serving_api(shop, sockets_limit=2) as api, opened(api), opened(api):
        with pytest.raises(InvalidStatus) as refused:
            async with opened(api):
                pass
        assert refused.value.response.status_code == 503


async def test_old_sockets_are_closed_with_1012(shop: Shop) -> None:
    async with serving_api(shop, socket_lifetime=timedelta(milliseconds=1)) as api:
        payment = await api.payment()
        async with opened(api) as client:
            await client.init(token_payload(api))
            await client.subscribe("1", WATCH, id=str(payment.id))
            assert (await client.closed())[0] == 1012


# --- leaks ------------------------------------------------------------------------------------------------------------


async def test_ended_sockets_leave_nothing_behind(shared_api: Api) -> None:
    payment = await shared_api.payment()
    await _watch_and_vanish(shared_api, payment.id)
    await _settled(shared_api)
    before = len(asyncio.all_tasks())
    for _ in range(20):
        await _watch_and_vanish(shared_api, payment.id)
    await _settled(shared_api)
    assert len(asyncio.all_tasks()) <= before
    metrics = (await shared_api.http.get(f"{shared_api.origin}/metrics")).text
    for gauge in ("shouyin_sockets", "shouyin_subscriptions", "shouyin_realtime_watches"):
        assert f"\n{gauge} 0.0\n" in metrics


async def _watch_and_vanish(api: Api, payment_id: int) -> None:
    async with opened(api) as client:
        await client.init(token_payload(api))
        for number in range(3):
            await client.subscribe(str(number), WATCH, id=str(payment_id))
        await client.read()
        client.connection.transport.abort()


async def _settled(api: Api) -> None:
    """Waits until the server has noticed that everybody left."""
    async with asyncio.timeout(_WAIT_S):
        while len(connections_of(api)):
            await asyncio.sleep(0.01)


def connections_of(api: Api) -> Connections:
    return api.application.connections

"""One demo order, paid over HTTP exactly as a page would, with every event printed as it arrives."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from app.local import LocalError
from app.local.progress import Progress

USER_ID: Final = 7
AMOUNT: Final = "68.00"
_SQL: Final = Path(__file__).resolve().parent.parent.parent / "sql" / "demo"

_CREATE: Final = """mutation ($input: CreatePaymentInput!) {
  createPayment(input: $input) {
    id outTradeNo status failure { code explanation } action { ... on Redirect { url } }
  }
}"""
_WATCH_PAYMENT: Final = """subscription ($id: ID!) {
  payment(id: $id, untilFinal: true) { status version paidAmount transactionId failure { code explanation } }
}"""
_WATCH_ORDER: Final = "subscription ($id: ID!) { order(id: $id) { data } }"

# From the press of the button to the order's own status, on a laptop that has other things to do.
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a page finds the parts."""

    graphql: str
    websocket: str
    sandbox: str
    database_url: str


async def create_demo_table(database_url: str) -> None:
    """Makes `public.orders` unless it is there. Raises LocalError."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute((_SQL / "create_table.sql").read_text())
    except asyncpg.PostgresError as exc:
        raise LocalError(f"the demo table cannot be made: {exc}") from exc
    finally:
        await connection.close()


async def pay_demo_order(at: Addresses, token: str, progress: Progress) -> None:
    """Makes an order, pays it at the sandbox, prints its events until the order itself is paid. Raises LocalError."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await _pay(at, token, progress)
    except TimeoutError:
        raise LocalError(f"the demo order was not paid within {_PATIENCE_S:.0f} s") from None
    except (httpx.HTTPError, WebSocketException, OSError, asyncpg.PostgresError) as exc:
        raise LocalError(f"the demo order could not be paid: {type(exc).__name__}: {exc}") from exc


async def _pay(at: Addresses, token: str, progress: Progress) -> None:
    order_id = await _create_order(at.database_url)
    progress.line(f"  [bold]order {order_id}[/]  demo tea cup, ¥{AMOUNT}, unpaid")
    async with (
        httpx.AsyncClient(trust_env=False, timeout=15, follow_redirects=True) as http,
        _socket(at.websocket, token) as socket,
    ):
        payment = await _create_payment(http, at.graphql, token, order_id)
        progress.line(
            f"  [bold]payment {payment['id']}[/]  createPayment → {payment['status']} {payment['outTradeNo']}"
        )
        await _subscribe(socket, "payment", _WATCH_PAYMENT, payment["id"])
        await _subscribe(socket, "order", _WATCH_ORDER, str(order_id))
        page = await http.get(payment["action"]["url"])
        page.raise_for_status()
        progress.line("  payer opened the sandbox's page and presses pay")
        pressed = time.monotonic()
        pressing = asyncio.create_task(_press_pay(http, at.sandbox, payment["outTradeNo"]))
        try:
            await _print_events(socket, pressed, progress)
        finally:
            await pressing


async def _create_order(database_url: str) -> int:
    """What a merchant's own application does before it asks for a payment."""
    connection = await asyncpg.connect(database_url)
    try:
        statement = (_SQL / "create_order.sql").read_text()
        made = await connection.fetchval(statement, USER_ID, "demo tea cup", AMOUNT)
        return int(made)
    finally:
        await connection.close()


async def _create_payment(http: httpx.AsyncClient, graphql: str, token: str, order_id: int) -> Mapping[str, Any]:
    variables = {"input": {"orderId": str(order_id), "method": "ALIPAY_PAGE", "subject": "demo tea cup"}}
    answer = await http.post(
        graphql, json={"query": _CREATE, "variables": variables}, headers={"Authorization": f"Bearer {token}"}
    )
    body = answer.json()
    if body.get("errors"):
        raise LocalError(f"createPayment was refused: {body['errors'][0]['message']}")
    payment: Mapping[str, Any] = body["data"]["createPayment"]
    if payment["action"] is None:
        failure = payment["failure"] or {"code": "none", "explanation": "no reason given"}
        raise LocalError(f"createPayment ended {payment['status']}: {failure['code']}: {failure['explanation']}")
    return payment


async def _press_pay(http: httpx.AsyncClient, sandbox: str, out_trade_no: str) -> None:
    pressed = await http.post(f"{sandbox}/_control/trades/{out_trade_no}/pay")
    pressed.raise_for_status()


@asynccontextmanager
async def _socket(url: str, token: str) -> AsyncIterator[ClientConnection]:
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as socket:
        payload = {"Authorization": f"Bearer {token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        answer = json.loads(await socket.recv())
        if answer.get("type") != "connection_ack":
            raise LocalError(f"the live connection was refused: {answer}")
        yield socket


async def _subscribe(socket: ClientConnection, name: str, query: str, row_id: str) -> None:
    payload = {"query": query, "variables": {"id": row_id}}
    await socket.send(json.dumps({"id": name, "type": "subscribe", "payload": payload}))


async def _print_events(socket: ClientConnection, pressed: float, progress: Progress) -> None:
    """Prints until the payment's stream is complete and the order says paid."""
    payment_final = order_paid = False
    while not (payment_final and order_paid):
        message = json.loads(await socket.recv())
        since = f"[dim]{(time.monotonic() - pressed) * 1000:6.0f} ms[/]"
        if message["type"] == "next":
            if message["payload"].get("errors"):
                raise LocalError(f"the live stream ended: {message['payload']['errors'][0]['message']}")
            shown = message["payload"]["data"]
            if "payment" in shown:
                progress.line(f"  {since}  payment  {_describe(shown['payment'])}")
                if shown["payment"]["failure"]:
                    raise LocalError(f"the demo payment failed: {shown['payment']['failure']['explanation']}")
            else:
                status = shown["order"]["data"]["status"]
                progress.line(f"  {since}  order    {_coloured(status)}")
                order_paid = status == "paid"
        elif message["type"] == "complete" and message["id"] == "payment":
            payment_final = True
            progress.line(f"  {since}  payment  stream complete: this state is final")
        elif message["type"] == "error":
            raise LocalError(f"the live stream was refused: {message['payload'][0]['message']}")
        elif message["type"] == "ping":
            await socket.send('{"type":"pong"}')


def _describe(payment: Mapping[str, Any]) -> str:
    paid = f", paid ¥{payment['paidAmount']} as {payment['transactionId']}" if payment["paidAmount"] else ""
    return f"{_coloured(payment['status'])} (version {payment['version']}){paid}"


def _coloured(status: str) -> str:
    colour = {"SUCCESSFUL": "green", "paid": "green", "FAILED": "red"}.get(status, "yellow")
    return f"[{colour}]{status}[/]"

"""The API process: starting with one clear line or not at all, and leaving without losing anybody."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from app.api.application import Application
from app.api.asgi import respond
from app.auth import issue_token
from app.config import Config, ConfigError
from app.main import _server_config, bind
from app.payments.actions import CreatePayment
from app.providers.contract import PaymentMethod
from tests.fixtures.shop import BUYER, Shop

_WAIT_S = 30.0
WATCH = "subscription ($id: ID!) { payment(id: $id) { status } }"


@asynccontextmanager
async def process(config: Config, port: int, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An API process of its own, serving; killed if it is still there at the end."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    assert config.jwt_secret is not None
    environ |= {
        "DATABASE_URL": config.database_url,
        "REDIS_URL": config.redis_url,
        "PUBLIC_URL": config.public_url,
        "MASTER_KEYS": "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "JWT_SECRET": config.jwt_secret.reveal(),
        "SHOUYIN_HOME": str(config.home),
        "PORT": str(port),
        **settings,
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app.cli", "serve", env=environ, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def ready(origin: str, child: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_WAIT_S), httpx.AsyncClient(trust_env=False) as http:
        while True:
            assert child.returncode is None, (await child.stderr.read()).decode() if child.stderr else ""
            try:
                if (await http.get(f"{origin}/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def watch_until_closed(url: str, token: str, payment_id: int, opened: asyncio.Semaphore) -> tuple[int, float]:
    """The code a watching socket was closed with, and when."""
    protocol = Subprotocol("graphql-transport-ws")
    async with connect(url, subprotocols=[protocol], compression=None, proxy=None) as connection:
        await connection.send(json.dumps({"type": "connection_init", "payload": {"token": token}}))
        await connection.recv()
        request = {"query": WATCH, "variables": {"id": str(payment_id)}}
        await connection.send(json.dumps({"id": "1", "type": "subscribe", "payload": request}))
        await connection.recv()
        opened.release()
        with pytest.raises(ConnectionClosed):  # noqa: PT012 — whatever comes before the end
            while True:
                await connection.recv()
        assert connection.protocol.close_rcvd is not None
        return connection.protocol.close_rcvd.code, time.monotonic()


async def test_sigterm_closes_sockets_in_waves_completes_streams_and_exits_with_0(shop: Shop, port: int) -> None:
    order_id = await shop.order()
    request = CreatePayment(order_id=order_id, method=PaymentMethod.ALIPAY_PAGE, amount_fen=None, subject="Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="made-by-test")
    token = issue_token(shop.config, "7", ("user",), ttl=timedelta(hours=1))
    origin = f"http://127.0.0.1:{port}"
    async with process(shop.config, port, SHUTDOWN_GRACE_S="1") as child, httpx.AsyncClient(trust_env=False) as http:
        await ready(origin, child)
        opened, count = asyncio.Semaphore(0), 30
        url = f"ws://127.0.0.1:{port}/graphql"
        watching = [asyncio.create_task(watch_until_closed(url, token, payment.id, opened)) for _ in range(count)]
        async with asyncio.timeout(_WAIT_S):
            for _ in range(count):
                await opened.acquire()
        headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
        body = {"query": WATCH, "variables": {"id": str(payment.id)}}
        async with http.stream("POST", f"{origin}/graphql", json=body, headers=headers, timeout=_WAIT_S) as stream:
            lines = stream.aiter_lines()
            while not (await anext(lines)).startswith("event: next"):
                pass
            child.send_signal(signal.SIGTERM)
            assert "event: complete" in [line async for line in lines]
        async with asyncio.timeout(_WAIT_S):
            closed = await asyncio.gather(*watching)
            assert await child.wait() == 0
        assert {code for code, _ in closed} == {1012}
        times = sorted(at for _, at in closed)
        assert times[-1] - times[0] > 0.5, "all sockets were closed at once"


async def test_taken_port_is_one_clear_line(shop: Shop, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        async with process(shop.config, port) as child:
            async with asyncio.timeout(_WAIT_S):
                assert await child.wait() == 1
            assert child.stderr is not None
            complaint = (await child.stderr.read()).decode()
    assert complaint.splitlines()[-1].startswith(f"shouyin: PORT: 127.0.0.1:{port} is not to be had")
    assert "Traceback" not in complaint


async def test_unreachable_database_is_one_clear_line(shop: Shop, port: int) -> None:
    from dataclasses import replace

    wrong = replace(shop.config, database_url="postgresql://nobody@127.0.0.1:9/none")
    async with process(wrong, port) as child:
        async with asyncio.timeout(_WAIT_S):
            assert await child.wait() == 1
        assert child.stderr is not None
        complaint = (await child.stderr.read()).decode()
    assert complaint.splitlines()[-1].startswith("shouyin: DATABASE_URL: the database cannot be reached")
    assert "Traceback" not in complaint


@pytest.mark.skipif(sys.platform != "linux", reason="the option exists on Linux")
def test_accepted_sockets_give_up_on_clients_that_stop_reading(port: int) -> None:
    with bind("127.0.0.1", port) as listening:
        client = socket.create_connection(("127.0.0.1", port))
        listening.setblocking(True)
        accepted, _ = listening.accept()
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        accepted.close()
        client.close()


def test_address_that_is_not_ours_is_a_setting_to_change(port: int) -> None:
    with pytest.raises(ConfigError, match=f"PORT: 192.0.2.1:{port} is not to be had"):
        bind("192.0.2.1", port)


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [("127.0.0.1,::1", "203.0.113.9"), ("127.0.0.0/8", "203.0.113.9"), ("192.0.2.1", "127.0.0.1")],
)
async def test_the_caller_is_whom_a_trusted_proxy_names(shop: Shop, proxies: str, seen: str) -> None:
    """WeChat wants the payer's own address, and a login code is bound to it."""
    callers: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            callers.append(scope["client"][0])
            await respond(send, 200, b"")

    settings = _server_config(replace(shop.config, trusted_proxies=proxies), cast("Application", application))
    settings.lifespan = "off"
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            origin = f"http://127.0.0.1:{listening.getsockname()[1]}"
            await http.get(origin, headers={"X-Forwarded-For": "203.0.113.9"})
    finally:
        server.should_exit = True
        await serving
    assert callers == [seen]

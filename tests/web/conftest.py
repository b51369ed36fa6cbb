"""The whole product for a browser: sandbox, API, worker, and a shop with all of the sandbox's accounts."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from app.config import load_config
from app.local.postgres import free_port
from app.local.redis import Redis
from app.main import create_app
from app.runtime import open_runtime
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from app.shop import open_shop
from app.web.pages import BUILT
from tests.fixtures.shop import ADMIN, make_orders
from tests.fixtures.web import serving
from tests.web.browser import Browser, chromium


@dataclass
class Stack:
    """A running product. `url` and `sandbox` are base addresses; `database` is the merchant's own connection."""

    url: str
    sandbox: str
    database: "asyncpg.Connection[asyncpg.Record]"
    environ: Mapping[str, str]
    api: AbstractAsyncContextManager[str]

    async def payment(self, order_id: int) -> asyncpg.Record:
        """The newest payment of an order, as stored."""
        row = await self.database.fetchrow(
            "select * from shouyin.payment where order_id = $1 order by id desc limit 1", order_id
        )
        assert row is not None
        return row

    async def order(self, order_id: int) -> asyncpg.Record:
        """An order, as the merchant's own application sees it."""
        row = await self.database.fetchrow("select * from public.orders where id = $1", order_id)
        assert row is not None
        return row

    async def pay_at_the_sandbox(self, order_id: int, *, late: bool = False) -> None:
        """Pays the order's newest payment as its payer would, without a browser; `late`, though it is closed."""
        number = (await self.payment(order_id))["out_trade_no"]
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            answer = await client.post(f"{self.sandbox}/_control/trades/{number}/pay", json={"late": late})
        assert answer.status_code == 200, answer.text

    async def break_next_call(self, method: str, kind: str, **details: str) -> None:
        """Makes the sandbox answer the next call of a method wrongly; kinds are the sandbox's."""
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            fault = {"method": method, "kind": kind, "count": 1, **details}
            answer = await client.post(f"{self.sandbox}/_control/faults", json=fault)
        assert answer.status_code == 201, answer.text

    async def restart_api(self) -> None:
        """Stops the API, which closes every socket, and starts it on the same port."""
        await self.api.__aexit__(None, None, None)
        self.api = _serve_api(self.environ)
        await self.api.__aenter__()


def _serve_api(environ: Mapping[str, str]) -> AbstractAsyncContextManager[str]:
    return serving(create_app(load_config(environ)), port=int(environ["PORT"]), ws_per_message_deflate=False)


@asynccontextmanager
async def _working(environ: Mapping[str, str], log: Path) -> AsyncIterator[None]:
    """A worker process. One that ended by itself fails the module, with the end of its log."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.cli", "worker"), env={**os.environ, **environ}, stdout=output, stderr=output
        )
    try:
        yield
        assert process.returncode is None, log.read_text()[-2000:]
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
async def stack(
    module_database_url: str, redis_server: Redis, sandbox_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """The product, with the demo and GraphiQL on."""
    if not (BUILT / "manifest.json").exists():
        pytest.skip("the web pages are not built: run `make web`")
    home, port = tmp_path_factory.mktemp("home"), free_port()
    async with run_in_process(sandbox_home) as sandbox_url:
        environ = {
            "DATABASE_URL": module_database_url,
            "REDIS_URL": redis_server.url,
            "PUBLIC_URL": f"http://127.0.0.1:{port}",
            "PORT": str(port),
            "SHOUYIN_HOME": str(home),
            "SANDBOX_URL": sandbox_url,
            "MASTER_KEYS": "test:" + base64.b64encode(bytes(range(32))).decode(),
            "JWT_SECRET": "a secret of a test, thirty-two bytes or more",
            "DEMO": "1",
            "GRAPHIQL": "1",
            "INTROSPECTION": "1",
            "TEST_CLOCK": "1",
            "SHUTDOWN_GRACE_S": "0",
            "PROVIDER_TIMEOUT_S": "2",
        }
        database = await make_orders(module_database_url)
        runtime = await open_runtime(load_config(environ), realtime=False)
        try:
            await open_shop(
                runtime, ADMIN, [r for r in load_or_create_accounts(sandbox_home, sandbox_url) if r["mode"][:2] != "v2"]
            )
        finally:
            await runtime.close()
        api = _serve_api(environ)
        async with _working(environ, home / "worker.log"):
            made = Stack(await api.__aenter__(), sandbox_url, database, environ, api)
            try:
                yield made
            finally:
                await made.api.__aexit__(None, None, None)
                await database.close()


@pytest.fixture(scope="module")
async def module_browser() -> AsyncIterator[Browser]:
    """One Chromium for a module's tests."""
    async with chromium() as browser:
        yield browser


@pytest.fixture
async def browser(module_browser: Browser) -> Browser:
    """The browser of a new visitor: no page, no cookie, nothing stored."""
    await module_browser.start_afresh()
    return module_browser

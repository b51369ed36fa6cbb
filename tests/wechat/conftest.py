"""A deployment with the sandbox's mini-program and official account, and as many processes as a test wants."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.auth import Authenticator, Principal, issue_token
from app.clock import Clock
from app.config import Config
from app.runtime import Runtime, open_runtime
from app.sandbox.accounts import load_or_create_accounts
from app.sandbox.main import run_in_process
from app.wechat.apps import SaveWechatApp, WechatAppKind
from tests.fixtures.shop import ADMIN, config_for

MINI, OFFICIAL = "mini_program", "official_account"


@dataclass
class Site:
    """`runtime` is one process. `records` are what the sandbox publishes, by kind."""

    config: Config
    clock: Clock
    runtime: Runtime
    http: httpx.AsyncClient
    connection: "asyncpg.Connection[asyncpg.Record]"
    records: dict[str, dict[str, str]]
    opened: list[Runtime] = field(default_factory=list)

    @property
    def mini(self) -> str:
        """The mini-program's id."""
        return self.records[MINI]["app_id"]

    @property
    def official(self) -> str:
        """The official account's id."""
        return self.records[OFFICIAL]["app_id"]

    async def open(self, **settings: Any) -> Runtime:
        """Another process on the same database."""
        runtime = await open_runtime(replace(self.config, **settings), clock=self.clock, realtime=False)
        self.opened.append(runtime)
        return runtime

    async def save(self, kind: str = MINI, /, **changes: Any) -> None:
        """Saves one of the sandbox's applications, with changes."""
        record = self.records[kind]
        given = {"app_id": record["app_id"], "kind": WechatAppKind(kind), "name": kind, "secret": record["secret"]}
        gateways = {"gateway": record["gateway"], "authorize_gateway": record["authorize_gateway"]}
        await self.runtime.wechat.apps.save(ADMIN, SaveWechatApp(**(given | gateways | changes)))

    async def control(self, verb: str, path: str, /, **body: Any) -> Any:
        """One call of the sandbox's /_control; its JSON."""
        answer = await self.http.request(verb, f"{self.config.sandbox_url}/_control{path}", json=body or None)
        assert answer.status_code < 300, answer.text
        return answer.json()

    async def code(self, app_id: str | None = None, **options: Any) -> tuple[str, str]:
        """(a fresh code, the openid behind it)."""
        made = await self.control("POST", "/wechat/codes", app_id=app_id or self.mini, **options)
        return made["code"], made["openid"]

    async def calls(self, method: str) -> int:
        """How often WeChat was called."""
        found: int = (await self.control("GET", f"/calls?method={method}"))["total"]
        return found

    async def fail(self, method: str, errcode: int, count: int = 1) -> None:
        """The next calls answer with this number."""
        await self.control("POST", "/faults", method=method, kind="business_error", code=str(errcode), count=count)

    async def advance(self, by: timedelta) -> None:
        """Moves our clock and WeChat's."""
        self.clock.advance(by)
        await self.control("POST", "/clock", advance_s=by.total_seconds())

    async def principal(self, token: str) -> Principal:
        """Who a token speaks for."""
        return await Authenticator(self.config, self.clock).principal(token)

    def token(self, sub: str = "7", *roles: str, ttl: timedelta = timedelta(hours=1)) -> str:
        """A token of this deployment."""
        return issue_token(self.config, sub, roles or ("user",), ttl=ttl, clock=self.clock)

    async def caller(self, sub: str = "7", *roles: str, ttl: timedelta = timedelta(hours=1)) -> Principal:
        """A caller who came with a token."""
        return await self.principal(self.token(sub, *roles, ttl=ttl))


@pytest.fixture(scope="session")
def wechat_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory whose sandbox accounts are made once: RSA keys are slow."""
    home = tmp_path_factory.mktemp("wechat")
    load_or_create_accounts(home, "http://127.0.0.1:9")
    return home


@pytest.fixture
async def site(
    database_url: str, redis_url: str, tmp_path: Path, wechat_home: Path, clock: Clock
) -> AsyncIterator[Site]:
    """See the module."""
    connection = await asyncpg.connect(database_url)
    async with run_in_process(wechat_home) as sandbox_url, httpx.AsyncClient(trust_env=False, timeout=10) as http:
        config = config_for(database_url, redis_url, tmp_path, SANDBOX_URL=sandbox_url)
        config = replace(config, provider_timeout_s=2.0, public_url="http://127.0.0.1:9")
        runtime = await open_runtime(config, clock=clock, realtime=False)
        accounts = load_or_create_accounts(wechat_home, sandbox_url)
        records = {record["mode"]: record for record in accounts if record["provider"] == "WECHAT_APP"}
        made = Site(config, clock, runtime, http, connection, records)
        try:
            await made.save(MINI)
            await made.save(OFFICIAL)
            yield made
        finally:
            for each in [*made.opened, runtime]:
                await each.close()
            await connection.close()

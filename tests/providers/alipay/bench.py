"""An adapter with an opened account, and a gateway that answers each of its calls as a test says."""

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
import time_machine

from app.clock import Clock
from app.providers.alipay import AlipayProvider
from app.providers.alipay.account import AlipayAccount
from app.providers.contract import Agreements
from tests.providers.alipay.keyring import FIELDS_OF_MODE, public_text, signed_answer
from tests.providers.scripted import Received, ScriptedServer, answering, hang, serving

NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)

# For what makes no call.
_UNUSED = httpx.AsyncClient()


class Bench:
    """What each method is answered is set by `says`; a method that nobody set hangs up."""

    def __init__(self, provider: AlipayProvider, account: AlipayAccount, server: ScriptedServer) -> None:
        self.provider = provider
        self.account = account
        self.server = server
        self.bodies: dict[str, bytes] = {}
        server.behave = self._answer

    async def _answer(self, received: Received, writer: asyncio.StreamWriter) -> None:
        body = self.bodies.get(received.query()["method"])
        if body is not None:
            await answering(body, content_type="text/html;charset=utf-8")(received, writer)

    def says(self, method: str, fields: dict[str, Any], **how: Any) -> None:
        self.bodies[method] = signed_answer(method, fields, **how)

    @property
    def agreements(self) -> Agreements:
        assert self.provider.agreements is not None
        return self.provider.agreements

    @property
    def asked(self) -> list[str]:
        """The last words of each method called."""
        return [received.query()["method"].removeprefix("alipay.") for received in self.server.received]

    def content(self, at: int = -1) -> Any:
        """The business content of one call, after its signature was checked."""
        sent = self.server.received[at]
        official_check(sent.query() | sent.form())
        return json.loads(sent.form()["biz_content"])


@asynccontextmanager
async def bench_of(client: httpx.AsyncClient, mode: str = "public_key", **settings: str) -> AsyncIterator[Bench]:
    with time_machine.travel(NOW, tick=False):
        async with serving(hang) as server:
            provider = AlipayProvider(client, Clock(), timeout_s=5.0)
            yield Bench(provider, opened_account(mode, gateway=server.url(), **settings), server)


def opened_account(mode: str = "public_key", **settings: str) -> AlipayAccount:
    sealed, credentials = _sealed(mode)
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    return provider.open_account(mode=mode, settings=sealed | settings, credentials=credentials)


@cache
def _sealed(mode: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Sealed once per mode: testing a key takes longer than all the rest of a test."""
    provider = AlipayProvider(_UNUSED, Clock(), timeout_s=1.0)
    return provider.seal_input(mode=mode, fields=FIELDS_OF_MODE[mode]())


def official_check(params: dict[str, str]) -> None:
    """The official SDK's own rules accept the signature."""
    official = importlib.import_module("alipay.aop.api.util.SignatureUtils")
    content = official.get_sign_content({name: value for name, value in params.items() if name != "sign"})
    public = "".join(public_text("app").splitlines()[1:-1])
    assert official.verify_with_rsa(public, content.encode(), params["sign"]) is True

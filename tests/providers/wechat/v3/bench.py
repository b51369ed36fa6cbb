"""An APIv3 account, and a WeChat that says what a test tells it to, signed as WeChat signs."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any

import httpx
import time_machine

from app.clock import Clock
from app.providers.contract import PaymentMethod, PaymentRequest
from app.providers.gateways import GatewayRule
from app.providers.wechat.v3 import V3Dialect
from app.providers.wechat.v3.account import V3Account
from tests.providers.scripted import Behaviour, Received, ScriptedServer, answering, serving
from tests.providers.wechat.v3.keyring import (
    APP_ID,
    FIELDS_OF_MODE,
    NOW,
    NUMBER,
    OPENID,
    SUB_APP_ID,
    by_certificate,
    certificates_answer,
    stamped,
)

JSAPI = PaymentMethod.WECHAT_JSAPI
# For what makes no call.
UNUSED = httpx.AsyncClient()
CERTIFICATES = "/v3/certificates"


def request(method: PaymentMethod = JSAPI, **changes: Any) -> PaymentRequest:
    with_payer = method in (PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_MINI_PROGRAM)
    fields: dict[str, Any] = {
        "method": method,
        "out_trade_no": NUMBER,
        "amount_fen": 1990,
        "subject": '会员 "月卡" + 100% <b>',
        "notify_url": "https://pay.example.com/notify/wechat/1",
        "created_at": NOW,
        "expires_at": NOW + timedelta(minutes=30, microseconds=999),
        "return_url": "https://shop.example.com/done?id=1&x=%E4%B8%AD",
        "openid": OPENID if with_payer else None,
        "client_address": "203.0.113.7",
    }
    return PaymentRequest(**(fields | changes))


@cache
def sealed(mode: str, **changes: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Sealed once per input: testing a key takes longer than all the rest of a test."""
    dialect = V3Dialect(UNUSED, Clock(), timeout_s=1.0, gateways=GatewayRule())
    return dialect.seal(mode=mode, fields=FIELDS_OF_MODE[mode]() | changes, now=NOW)


def raw(headers: Mapping[str, str]) -> str:
    """Headers as they go over the wire."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


@dataclass
class Wechat:
    """WeChat's side: which certificates it publishes, with which key it signs, and what it answers to orders."""

    server: ScriptedServer
    # How what it says is signed: keywords of `stamped`. None: not at all.
    signed: dict[str, Any] | None = field(default_factory=dict)
    certificates: tuple[str, ...] | bytes | Behaviour = ()
    answer: Behaviour | None = None
    downloads: int = 0

    async def behave(self, received: Received, writer: Any) -> None:
        if received.target == CERTIFICATES:
            self.downloads += 1
            await self._certificates()(received, writer)
        else:
            assert self.answer is not None, received.target
            await self.answer(received, writer)

    def says(self, fields: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answers every order call with these fields as JSON; bytes go out as they are."""
        body = fields if isinstance(fields, bytes) else json.dumps(fields, ensure_ascii=False).encode()
        self.answer = self._signed(body, status=status, headers=headers or {})

    def refuses(self, status: int, code: str, message: str = "因为", *, signed: bool = False, **more: Any) -> None:
        body = json.dumps({"code": code, "message": message} | more, ensure_ascii=False).encode()
        self.answer = self._signed(body, status=status, headers={}) if signed else answering(body, status=status)

    @property
    def orders(self) -> list[Received]:
        """The calls it got but for those about certificates."""
        return [one for one in self.server.received if one.target != CERTIFICATES]

    def _signed(self, body: bytes, *, status: int, headers: Mapping[str, str]) -> Behaviour:
        stamps = {} if self.signed is None else stamped(body, **self.signed)
        return answering(body, status=status, extra=raw(stamps | dict(headers)))

    def _certificates(self) -> Behaviour:
        if callable(self.certificates):
            return self.certificates
        if isinstance(self.certificates, bytes):
            body = self.certificates
        elif not self.certificates:
            return answering('{"code":"RESOURCE_NOT_EXISTS","message":"无可用的平台证书"}'.encode(), status=404)
        else:
            body = certificates_answer(*self.certificates)
        how = self.signed or {}
        if "named" not in how and isinstance(self.certificates, tuple):
            how = by_certificate(self.certificates[0])
        return answering(body, extra=raw(stamped(body, **how)))


@dataclass
class Bench:
    """The dialect, an account of it, and the WeChat they talk to."""

    dialect: V3Dialect
    account: V3Account
    wechat: Wechat
    clock: Clock

    async def create(self, method: PaymentMethod = JSAPI, **changes: Any) -> Any:
        return await self.dialect.create(self.account, request(method, **changes))

    async def query(self) -> Any:
        return await self.dialect.query(self.account, NUMBER)

    async def close(self) -> Any:
        return await self.dialect.close(self.account, NUMBER)

    async def read(self, headers: Mapping[str, str], body: bytes, tail: str = "") -> Any:
        return await self.dialect.read_notification(self.account, headers, body, tail)

    @property
    def app_id(self) -> str:
        """The application that payers are known under."""
        return SUB_APP_ID if self.account.sub_appid else APP_ID


@asynccontextmanager
async def benching(client: httpx.AsyncClient, mode: str = "v3", **changes: str) -> AsyncIterator[Bench]:
    """A bench at a standing time. A certificate account meets a WeChat that publishes and uses certificate "one"."""
    with time_machine.travel(NOW, tick=False):
        async with serving(answering(b"")) as server:
            clock = Clock()
            wechat = Wechat(server)
            server.behave = wechat.behave
            if mode == "v3_certificate":
                wechat.certificates, wechat.signed = ("one",), by_certificate("one")
            dialect = V3Dialect(client, clock, timeout_s=5.0, gateways=GatewayRule())
            settings, credentials = sealed(mode, **changes)
            opened = dialect.open(mode=mode, settings=settings | {"gateway": server.origin}, credentials=credentials)
            yield Bench(dialect, opened, wechat, clock)

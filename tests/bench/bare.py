"""What createPayment could cost at best: an ASGI handler with nothing around the same statements and one signature.

No token, no checks in Python, no GraphQL, no correlation id, no metrics, no log. Same server and settings, same driver,
pool and statements, same kind of key, an answer of the same size.
"""

import base64
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus

import asyncpg
import orjson
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from app.db import load_queries

_JSON: Final = [(b"content-type", b"application/json")]


class Bare:
    """The handler: POST {"order_id", "sub", "amount_fen", "subject", "key"}."""

    def __init__(self, database_url: str, key: RSAPrivateKey) -> None:
        self._database_url = database_url
        self._key = key
        queries = load_queries()
        self._open, self._accept = queries["payment.open"], queries["payment.accept"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """An ASGI call."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["method"] == "GET":
            await _answer(send, b"{}")
            return
        body = (await receive())["body"]
        await _answer(send, orjson.dumps(await self._create(orjson.loads(body))))

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self._pool = await asyncpg.create_pool(self._database_url, min_size=10, max_size=10, reset=_no_reset)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._pool.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _create(self, given: dict[str, Any]) -> dict[str, Any]:
        now = datetime.now(UTC)
        number = f"B{secrets.token_hex(12)}"
        row = await self._pool.fetchrow(
            self._open, given["order_id"], given["sub"], False, ["*", "user"], None, "ALIPAY", "ALIPAY_PAGE",
            given["amount_fen"], given["subject"], number, None, None, None, None, given["key"], bytes(32), "bare",
            now + timedelta(hours=2), now, now + timedelta(seconds=30), 2, 10_000_000_000,
        )  # fmt: skip
        if row is None or row["refusal"] is not None:
            raise RuntimeError("refused")
        content = orjson.dumps({"out_trade_no": number, "subject": given["subject"], "total_amount": "12.30"})
        signed = b"app_id=2021000000000001&biz_content=" + content + b"&charset=utf-8&method=alipay.trade.page.pay"
        signature = base64.b64encode(self._key.sign(signed, PKCS1v15(), SHA256())).decode()
        url = f"https://openapi.alipay.com/gateway.do?{quote_plus(signed.decode())}&sign={quote_plus(signature)}"
        action = orjson.dumps({"kind": "Redirect", "url": url}).decode()
        row = await self._pool.fetchrow(self._accept, row["id"], action, None, now, now + timedelta(seconds=15))
        if row is None:
            raise RuntimeError("not accepted")
        return {"id": row["id"], "status": row["status"], "outTradeNo": number, "version": row["version"], "url": url}


async def _answer(send: Any, body: bytes) -> None:
    headers = [*_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _no_reset(_connection: Any) -> None:
    """As in the product: a reset after each use would be a round trip more."""


def _serve() -> None:
    pem = (Path(os.environ["SHOUYIN_HOME"]) / "application.pem").read_bytes()
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("an RSA key is needed")
    uvicorn.run(
        Bare(os.environ["DATABASE_URL"], key), host="127.0.0.1", port=int(os.environ["PORT"]), loop="uvloop",
        http="httptools", access_log=False, log_level="warning", server_header=False, date_header=False,
    )  # fmt: skip


if __name__ == "__main__":
    _serve()

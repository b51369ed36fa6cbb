"""One HTTP exchange with a provider, and the only place that judges how it ended.

    nothing left this machine      → NotReached   name not resolved, refused, TLS handshake failed, no free connection
    something left, no full answer → Unknown      timed out, dropped, 5xx, redirect, too large, not decodable
    a full answer                  → RawAnswer    the received bytes, for the adapter to verify and read

A write that fails half-way counts as sent: nobody can prove that the provider did not read it. Nothing is retried here
and no body, query or header is ever logged or put into a `detail`, because they carry signatures and payers.
"""

import asyncio
import logging
import secrets
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.x509 import Certificate

from app.providers.contract import NotReached, Unknown

ANSWER_LIMIT_BYTES = 1_048_576

# Waiting for a free connection, connecting and the TLS handshake get a quarter each, so that they always end before the
# whole exchange does: otherwise a slow connect would be judged as "may have acted".
_SHARE_BEFORE_SENDING = 0.25

_NOTHING_WAS_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A complete answer that is no redirect, as it was received; of 500 and above only where that was asked for.

    Header names are lower case; two answers that differ in them alone are equal."""

    status_code: int
    content_type: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


ExchangeOutcome = RawAnswer | NotReached | Unknown


def open_client(*, connections: int = 100, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """The client that every exchange shares: TLS verified, no redirects, no proxy from the environment.

    Whoever opens it closes it. There is no switch for the TLS verification; `tls` is what `tls_with_certificate` made.
    """
    # At INFO httpx logs each request's URL, and Alipay's carry the signature and the merchant's token in the query.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return httpx.AsyncClient(
        verify=True if tls is None else tls,
        follow_redirects=False,
        trust_env=False,
        timeout=httpx.Timeout(10.0),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=30.0),
    )


def tls_with_certificate(key: RSAPrivateKey, certificate: Certificate) -> ssl.SSLContext:
    """TLS that verifies the server as `open_client` does, and shows this certificate to one that asks for it.

    Takes some tens of milliseconds. The library reads certificates from files alone: what lies there for a moment is
    encrypted with a password that is made here and forgotten."""
    password = secrets.token_hex(32)
    encryption = BestAvailableEncryption(password.encode())
    context = httpx.create_ssl_context(verify=True, trust_env=False)
    with tempfile.NamedTemporaryFile(prefix="client-", suffix=".pem") as file:
        file.write(certificate.public_bytes(Encoding.PEM))
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        file.flush()
        context.load_cert_chain(file.name, password=password)
    return context


async def post_form(
    client: httpx.AsyncClient,
    url: str,
    *,
    query: str,
    body: bytes,
    timeout_s: float,
    answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
) -> ExchangeOutcome:
    """Posts an encoded form once, as `exchange` does. `query` and `body` are already encoded."""
    return await exchange(
        client,
        "POST",
        httpx.URL(url, query=query.encode("ascii")),
        headers={"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
        body=body,
        timeout_s=timeout_s,
        answer_limit_bytes=answer_limit_bytes,
    )


async def exchange(
    client: httpx.AsyncClient,
    method: str,
    url: httpx.URL | str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
    answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
    server_errors: bool = False,
) -> ExchangeOutcome:
    """Sends one request and says how the exchange ended; never raises for the network's sake.

    `body` is sent byte for byte, and so is a URL whose path and query are encoded. `timeout_s` bounds the exchange as a
    whole, however slowly the answer drips. Cancellation passes through: whoever cancels must treat the outcome as
    unknown. `server_errors` hands out answers of 500 and above too, for a protocol that signs refusals with such a
    status; unproven they stay Unknown.
    """
    share = timeout_s * _SHARE_BEFORE_SENDING
    request = client.build_request(
        method,
        url,
        content=body,
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx.Timeout(timeout_s, connect=share, pool=share),
    )
    try:
        async with asyncio.timeout(timeout_s):
            return await _receive(client, request, answer_limit_bytes, server_errors=server_errors)
    except _NOTHING_WAS_SENT as exc:
        return NotReached(type(exc).__name__)
    except (httpx.RequestError, httpx.StreamError) as exc:
        return Unknown(type(exc).__name__)
    except TimeoutError:
        return Unknown(f"no complete answer within {timeout_s:g} s")


async def _receive(
    client: httpx.AsyncClient, request: httpx.Request, limit_bytes: int, *, server_errors: bool
) -> RawAnswer | Unknown:
    """Sends and reads up to the limit. Closing early drops the connection, as a flood deserves."""
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        if response.status_code >= 500 and not server_errors:
            return Unknown(f"HTTP {response.status_code}")
        if 300 <= response.status_code < 400:
            return Unknown(f"HTTP {response.status_code}: redirects are not followed")
        received = bytearray()
        async for chunk in response.aiter_bytes():
            received += chunk
            if len(received) > limit_bytes:
                return Unknown(f"answer larger than {limit_bytes} bytes")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return RawAnswer(response.status_code, headers.get("content-type", ""), bytes(received), headers)
    finally:
        await response.aclose()

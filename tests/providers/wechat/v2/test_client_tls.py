"""The merchant's certificate over real TLS, against a server that asks for it.

The authority is made here and put in the place of the public ones; nothing of the verification is turned off."""

import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.clock import Clock
from app.providers.contract import NotReached, RefundReport, Rejected, Unknown
from app.providers.gateways import GatewayRule
from app.providers.transport import open_client, tls_with_certificate
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v2.account import V2Account
from tests.providers.scripted import Received, ScriptedServer, answering, serving
from tests.providers.wechat.refunding import REQUEST
from tests.providers.wechat.v2.merchant import MCH_ID, client_key, p12, signed, v2_fields
from tests.providers.wechat.v2.test_refunds import ASKING, FOUND, QUESTION, TAKEN


@cache
def key(name: str) -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def issued(name: str, *, by: str | None = None, address: str = "127.0.0.1") -> x509.Certificate:
    """A certificate of the key of this name for loopback; an authority's own where nobody else issues it."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, by or name)]))
        .public_key(key(name).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key(by or name), SHA256())


def own_certificate(container: str) -> x509.Certificate:
    pair = opened(container, "https://127.0.0.1:1").client_key_pair()
    assert pair is not None
    return pair[1]


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the public authorities are looked for there is only ours."""
    authority = tmp_path / "authority.pem"
    authority.write_bytes(pem(issued("authority")))
    monkeypatch.setattr(certifi, "where", lambda: str(authority))
    return tmp_path


def opened(container: str, gateway: str) -> V2Account:
    dialect = V2Dialect(httpx.AsyncClient(), Clock(), timeout_s=5.0, gateways=GatewayRule())
    fields = v2_fields(gateway=gateway) | ({"client_certificate_p12": container} if container else {})
    settings, credentials = dialect.seal(mode="v2", fields=fields, now=Clock().now())
    return dialect.open(mode="v2", settings=settings, credentials=credentials)


class Wechat:
    """A server that demands a client certificate of those it knows, and notes whose it was shown."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.shown: list[str] = []
        self.answers = {ASKING: signed(TAKEN), QUESTION: signed(FOUND)}
        server.behave = self._behave

    async def _behave(self, received: Received, writer: Any) -> None:
        subject = dict(part[0] for part in writer.get_extra_info("peercert")["subject"])
        self.shown.append(subject["commonName"])
        await answering(self.answers[received.target], content_type="text/plain")(received, writer)


@asynccontextmanager
async def demanding(
    folder: Path, *known: x509.Certificate, issuer: str = "authority", address: str = "127.0.0.1"
) -> AsyncIterator[Wechat]:
    chain, clients = folder / "server.pem", folder / "clients.pem"
    private = key("wechat").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(pem(issued("wechat", by=issuer, address=address)) + private)
    clients.write_bytes(b"".join(map(pem, known)))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(chain)
    tls.load_verify_locations(clients)
    tls.verify_mode = ssl.CERT_REQUIRED
    async with serving(answering(b""), tls=tls) as server:
        yield Wechat(server)


def dialect_with(client: httpx.AsyncClient) -> V2Dialect:
    return V2Dialect(client, Clock(), timeout_s=5.0, gateways=GatewayRule())


async def test_a_refund_shows_the_merchants_certificate(trusted: Path, client: httpx.AsyncClient) -> None:
    container = p12()
    async with demanding(trusted, own_certificate(container)) as wechat:
        account = opened(container, wechat.server.origin)
        for _ in range(3):
            outcome = await dialect_with(client).create_refund(account, REQUEST)
            assert isinstance(outcome, RefundReport)
            assert outcome.amount_fen == 501
    assert wechat.shown == [MCH_ID] * 3
    assert [one.target for one in wechat.server.received] == [ASKING] * 3
    first = await account.certified_tls()
    assert first is await account.certified_tls()


async def test_a_server_that_does_not_know_the_certificate_hears_of_no_refund(
    trusted: Path, client: httpx.AsyncClient
) -> None:
    async with demanding(trusted, issued("stranger")) as wechat:
        outcome = await dialect_with(client).create_refund(opened(p12(), wechat.server.origin), REQUEST)
    # The certificate is judged after the client may have sent its request: that cannot be told from this side.
    assert isinstance(outcome, Unknown | NotReached)
    assert wechat.server.received == []


async def test_a_server_of_an_unknown_authority_is_not_reached(trusted: Path, client: httpx.AsyncClient) -> None:
    container = p12()
    async with demanding(trusted, own_certificate(container), issuer="another authority") as wechat:
        outcome = await dialect_with(client).create_refund(opened(container, wechat.server.origin), REQUEST)
    assert outcome == NotReached("ConnectError")
    assert wechat.server.received == []


async def test_a_server_of_another_name_is_not_reached(trusted: Path, client: httpx.AsyncClient) -> None:
    container = p12()
    async with demanding(trusted, own_certificate(container), address="127.0.0.2") as wechat:
        outcome = await dialect_with(client).create_refund(opened(container, wechat.server.origin), REQUEST)
    assert outcome == NotReached("ConnectError")
    assert wechat.server.received == []


async def test_over_tls_it_never_goes_without_a_certificate(trusted: Path, client: httpx.AsyncClient) -> None:
    async with demanding(trusted, issued("stranger")) as wechat:
        outcome = await dialect_with(client).create_refund(opened("", wechat.server.origin), REQUEST)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "CLIENT_CERTIFICATE_MISSING"
    assert wechat.server.received == []


async def test_only_the_refund_itself_shows_a_certificate(trusted: Path) -> None:
    """The client that all merchants share shows nobody's, also after a refund."""
    container = p12()
    async with demanding(trusted, own_certificate(container)) as wechat, open_client() as shared:
        account = opened(container, wechat.server.origin)
        assert isinstance(await dialect_with(shared).create_refund(account, REQUEST), RefundReport)
        assert isinstance(await dialect_with(shared).query_refund(account, REQUEST), Unknown | NotReached)
    assert wechat.shown == [MCH_ID]
    assert [one.target for one in wechat.server.received] == [ASKING]


def test_the_key_never_lies_open_and_nothing_is_left(
    trusted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bytes, int]] = []
    load = ssl.SSLContext.load_cert_chain

    def watching(self: ssl.SSLContext, certfile: str, *args: Any, **named: Any) -> None:
        seen.append((Path(certfile).read_bytes(), os.stat(certfile).st_mode & 0o777))
        load(self, certfile, *args, **named)

    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watching)
    context = tls_with_certificate(client_key(), own_certificate(p12()))
    [(content, mode)] = seen
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert b"BEGIN PRIVATE KEY" not in content
    assert mode == 0o600
    assert list(folder.iterdir()) == []
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)

"""How an exchange ended, judged against a real server that misbehaves."""

import asyncio
import gzip
import logging
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.providers.contract import NotReached, Unknown
from app.providers.transport import RawAnswer, exchange, open_client, post_form
from tests.providers.scripted import Received, ScriptedServer, answering, hang, serving


async def post(client: httpx.AsyncClient, url: str, *, timeout_s: float = 5.0) -> RawAnswer | NotReached | Unknown:
    return await post_form(client, url, query="sign=S%2B1", body=b"biz_content=%7B%7D", timeout_s=timeout_s)


async def test_a_full_answer_is_returned_byte_for_byte(client: httpx.AsyncClient) -> None:
    content = '{"a":"中\\/文"}\r\n '.encode("gbk")
    async with serving(answering(content, content_type="text/html;charset=GBK")) as server:
        answer = await post(client, server.url())
    assert answer == RawAnswer(200, "text/html;charset=GBK", content)
    assert server.received[0].target == "/gateway.do?sign=S%2B1"
    assert server.received[0].body == b"biz_content=%7B%7D"
    assert server.received[0].headers["content-type"] == "application/x-www-form-urlencoded;charset=utf-8"


async def test_a_client_error_is_an_answer_for_the_adapter_to_judge(client: httpx.AsyncClient) -> None:
    async with serving(answering(b"{}", status=404)) as server:
        assert await post(client, server.url()) == RawAnswer(404, "application/json", b"{}")


async def test_a_refused_connection_was_not_reached(client: httpx.AsyncClient, port: int) -> None:
    assert await post(client, f"http://127.0.0.1:{port}/") == NotReached("ConnectError")


async def test_a_name_that_does_not_resolve_was_not_reached(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unresolved(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown name")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unresolved, raising=False)
    assert await post(client, "https://gateway.invalid/") == NotReached("ConnectError")


async def test_no_free_connection_was_not_reached() -> None:
    async with serving(hang) as server, open_client(connections=1) as narrow:
        first = asyncio.create_task(post(narrow, server.url(), timeout_s=3.0))
        await _until_received(server)
        assert await post(narrow, server.url(), timeout_s=0.4) == NotReached("PoolTimeout")
        assert len(server.received) == 1
        first.cancel()


async def test_a_self_signed_server_was_not_reached_and_read_nothing(client: httpx.AsyncClient, tmp_path: Path) -> None:
    async with serving(answering(b"{}"), tls=_self_signed(tmp_path)) as server:
        assert await post(client, server.url()) == NotReached("ConnectError")
    assert server.received == []


async def test_a_server_without_tls_behind_an_https_address_was_not_reached(client: httpx.AsyncClient) -> None:
    async with serving(answering(b"{}")) as server:
        outcome = await post(client, server.url().replace("http://", "https://"), timeout_s=1)
    assert isinstance(outcome, NotReached)
    assert server.received == []


async def test_a_connection_dropped_after_sending_is_unknown(client: httpx.AsyncClient) -> None:
    async def drop(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serving(drop) as server:
        assert isinstance(await post(client, server.url()), Unknown)
    assert len(server.received) == 1


async def test_an_answer_cut_short_is_unknown(client: httpx.AsyncClient) -> None:
    async with serving(answering(b'{"code":"10000"', length=400)) as server:
        assert await post(client, server.url()) == Unknown("RemoteProtocolError")


async def test_silence_is_unknown_and_bounded(client: httpx.AsyncClient) -> None:
    async with serving(hang) as server:
        began = time.monotonic()
        assert isinstance(await post(client, server.url(), timeout_s=0.4), Unknown)
        assert time.monotonic() - began < 3
    assert len(server.received) == 1


async def test_an_answer_that_drips_is_unknown_when_the_whole_time_is_over(client: httpx.AsyncClient) -> None:
    async with serving(_drip) as server:
        began = time.monotonic()
        assert await post(client, server.url(), timeout_s=0.6) == Unknown("no complete answer within 0.6 s")
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_server_error_is_unknown(client: httpx.AsyncClient, status: int) -> None:
    async with serving(answering(b'{"code":"40004"}', status=status)) as server:
        assert await post(client, server.url()) == Unknown(f"HTTP {status}")


async def test_a_server_error_is_an_answer_where_the_adapter_asks_for_it(client: httpx.AsyncClient) -> None:
    async with serving(answering(b'{"code":"x"}', status=500, extra="Request-ID: 7\r\n")) as server:
        answer = await exchange(client, "GET", server.url(), headers={}, body=b"", timeout_s=5.0, server_errors=True)
    assert answer == RawAnswer(500, "application/json", b'{"code":"x"}')
    assert answer.headers["request-id"] == "7"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_unknown_and_not_followed(client: httpx.AsyncClient, status: int) -> None:
    async with serving(answering(b"", status=status, extra="Location: /elsewhere\r\n")) as server:
        assert await post(client, server.url()) == Unknown(f"HTTP {status}: redirects are not followed")
    assert len(server.received) == 1


async def test_an_endless_answer_is_unknown_and_cut_off(client: httpx.AsyncClient) -> None:
    async def flood(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with serving(flood) as server:
        outcome = await post_form(client, server.url(), query="", body=b"", timeout_s=5, answer_limit_bytes=100_000)
    assert outcome == Unknown("answer larger than 100000 bytes")


async def test_a_compressed_answer_is_bounded_by_what_it_unfolds_to(client: httpx.AsyncClient) -> None:
    packed = gzip.compress(b"0" * 3_000_000)
    async with serving(answering(packed, extra="Content-Encoding: gzip\r\n")) as server:
        assert await post(client, server.url()) == Unknown("answer larger than 1048576 bytes")


async def test_an_answer_that_cannot_be_decompressed_is_unknown(client: httpx.AsyncClient) -> None:
    async with serving(answering(b"no gzip at all", extra="Content-Encoding: gzip\r\n")) as server:
        assert await post(client, server.url()) == Unknown("DecodingError")


async def test_what_is_no_http_is_unknown(client: httpx.AsyncClient) -> None:
    async def babble(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xff not http\r\n\r\n")
        await writer.drain()

    async with serving(babble) as server:
        assert await post(client, server.url()) == Unknown("RemoteProtocolError")


async def test_cancelling_passes_through(client: httpx.AsyncClient) -> None:
    async with serving(hang) as server:
        task = asyncio.create_task(post(client, server.url()))
        await _until_received(server)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_signature_reaches_the_log(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(answering(b"{}")) as server:
            await post(client, server.url())
    assert "S%2B1" not in caplog.text


def test_the_shared_client_follows_no_redirects_and_reads_no_proxy_from_the_environment() -> None:
    opened = open_client()
    assert opened.follow_redirects is False
    assert opened.trust_env is False


async def _drip(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for __ in range(200):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _until_received(server: ScriptedServer) -> None:
    async with asyncio.timeout(5):
        while not server.received:
            await asyncio.sleep(0.005)


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context

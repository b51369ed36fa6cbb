"""The notification route: bytes in, acknowledgement out, and never a 5xx for what a stranger sends."""

import asyncio

import pytest

from tests.api.conftest import Api


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe",
        b"sign=x&sign_type=RSA2",
        b"%",
        b"a=b&" * 5000,
        b'{"json": true}',
        "通知=内容".encode("gbk"),
        b"charset=nonsense&sign=AAAA",
    ],
)
async def test_bytes_that_prove_nothing_are_refused_and_change_nothing(shared_api: Api, body: bytes) -> None:
    response = await shared_api.http.post(
        f"{shared_api.origin}/notify/alipay/1",
        content=body,
        headers={"content-type": "application/x-www-form-urlencoded", "x-forwarded-for": "127.0.0.1"},
    )
    assert response.status_code < 500
    assert response.text != "success"
    assert await shared_api.shop.count("notification") == 0


@pytest.mark.parametrize(
    "path",
    ["/notify/alipay/999", "/notify/wechat/1", "/notify/alipay/0", "/notify/alipay/01", "/notify/alipay/x",
     "/notify/alipay", "/notify/alipay/1/", "/notify/alipay/" + "9" * 30, "/notify/ALIPAY/1", "/notify/../graphql"],
)  # fmt: skip
async def test_unknown_receivers_are_404(shared_api: Api, path: str) -> None:
    host, port = shared_api.origin.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 404")
    writer.close()


async def test_only_post_is_taken(shared_api: Api) -> None:
    response = await shared_api.http.get(f"{shared_api.origin}/notify/alipay/1")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_large_bodies_are_refused(shared_api: Api) -> None:
    response = await shared_api.http.post(f"{shared_api.origin}/notify/alipay/1", content=b"x" * 300_000)
    assert response.status_code == 413

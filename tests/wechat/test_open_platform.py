"""The open platform's calls against a server that answers as no decent one would."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import orjson
import pytest

from app.config import Secret
from app.providers.transport import open_client
from app.providers.wechat.open_platform import (
    OpenApp,
    OpenPlatform,
    OpenPlatformRefused,
    OpenPlatformSilent,
    authorize_url,
)
from tests.providers.scripted import ScriptedServer, answering, hang, serving

SECRET, CODE, TOKEN = "a-secret-of-a-test", "a-code-of-a-test", "a-token-of-a-test"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with serving(answering(b"{}")) as scripted:
        yield scripted


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


def app_at(server: ScriptedServer) -> OpenApp:
    return OpenApp("wx0000000000000001", Secret(SECRET), server.origin + "/", server.origin)


async def test_the_queries_are_wechat_s(server: ScriptedServer, client: httpx.AsyncClient) -> None:
    platform, app = OpenPlatform(client, 2), app_at(server)
    server.behave = answering(b'{"openid":"o1","session_key":"k","errcode":0}', content_type="text/plain")
    assert await platform.exchange_mini_program_code(app, CODE) == "o1"
    assert server.received[0].target == (
        f"/sns/jscode2session?appid={app.app_id}&secret={SECRET}&js_code={CODE}&grant_type=authorization_code"
    )
    server.behave = answering(b'{"openid":"o1","access_token":"t","is_snapshotuser":1}')
    login = await platform.exchange_page_code(app, CODE)
    assert (login.openid, login.access_token.reveal(), login.is_snapshot) == ("o1", "t", True)
    assert server.received[1].target == (
        f"/sns/oauth2/access_token?appid={app.app_id}&secret={SECRET}&code={CODE}&grant_type=authorization_code"
    )
    server.behave = answering('{"nickname":"茶"}'.encode())
    assert await platform.read_nickname(app, login) == "茶"
    server.behave = answering(rb'{"nickname":"a\u0000b"}')
    assert await platform.read_nickname(app, login) == "ab"  # a zero byte fits into no column
    assert server.received[2].target == "/sns/userinfo?access_token=t&openid=o1&lang=zh_CN"


async def test_the_bodies_are_wechat_s(server: ScriptedServer, client: httpx.AsyncClient) -> None:
    platform, app = OpenPlatform(client, 2), app_at(server)
    server.behave = answering(b'{"access_token":"t","expires_in":7200}')
    token = await platform.fetch_access_token(app, force=False)
    assert (token.text.reveal(), token.expires_in_s) == ("t", 7200)
    assert server.received[0].target == "/cgi-bin/stable_token"
    assert orjson.loads(server.received[0].body) == {
        "grant_type": "client_credential", "appid": app.app_id, "secret": SECRET, "force_refresh": False
    }  # fmt: skip
    ends = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
    server.behave = answering(b'{"errcode":0,"openlink":"weixin://dl/business/?t=x","url_link":"https://wxaurl.cn/x"}')
    made = await platform.create_scheme(app, Secret(TOKEN), path="p", query="q", expires_at=ends)
    assert made == "weixin://dl/business/?t=x"
    assert server.received[1].target == f"/wxa/generatescheme?access_token={TOKEN}"
    assert orjson.loads(server.received[1].body) == {
        "jump_wxa": {"path": "p", "query": "q", "env_version": "release"},
        "is_expire": True, "expire_type": 0, "expire_time": 1795309323,
    }  # fmt: skip
    assert (
        await platform.create_url_link(app, Secret(TOKEN), path="p", query="q", expires_at=ends)
        == "https://wxaurl.cn/x"
    )
    assert server.received[2].target == f"/wxa/generate_urllink?access_token={TOKEN}"
    assert orjson.loads(server.received[2].body) == {
        "path": "p", "query": "q", "env_version": "release",
        "is_expire": True, "expire_type": 0, "expire_time": 1795309323,
    }  # fmt: skip


NO_ANSWERS = [
    b"", b"<html>", b"[]", b"null", b'"o1"', b"{}", b'{"errcode":0}', b'{"openid":""}', b'{"openid":5}',
    b'{"openid":null}',
    b'{"openid":"' + b"o" * 129 + b'"}', '{"openid":"茶"}'.encode(), b'{"openid":"a\\u0000"}', b'{"openid":"a\\nb"}',
    b'{"errcode":"40029","openid":"o1"}', b'{"errcode":-1,"errmsg":"system error"}', b'{"errcode":null,"openid":"o1"}',
    b'{"errcode":{},"openid":"o1"}', b'{"openid":"o1"', b"\xff\xfe", b"[" * 5000,
]  # fmt: skip


async def test_what_is_no_answer_decides_nothing(server: ScriptedServer, client: httpx.AsyncClient) -> None:
    for body in NO_ANSWERS:
        server.behave = answering(body)
        with pytest.raises(OpenPlatformSilent) as silent:
            await OpenPlatform(client, 2).exchange_mini_program_code(app_at(server), CODE)
        assert silent.value.sent, body
        assert CODE not in str(silent.value)
    assert len(server.received) == len(NO_ANSWERS)


@pytest.mark.parametrize("expires_in", ["7200", "true", "0", "-1", "86401", "7200.5", "null"])
async def test_a_token_needs_its_life(server: ScriptedServer, client: httpx.AsyncClient, expires_in: str) -> None:
    text = '"7200"' if expires_in == "7200" else expires_in
    server.behave = answering(f'{{"access_token":"t","expires_in":{text}}}'.encode())
    with pytest.raises(OpenPlatformSilent):
        await OpenPlatform(client, 2).fetch_access_token(app_at(server), force=False)


async def test_how_it_ended_is_told(server: ScriptedServer, client: httpx.AsyncClient, port: int) -> None:
    async def ask(app: OpenApp, timeout_s: float = 2) -> OpenPlatformSilent:
        with pytest.raises(OpenPlatformSilent) as silent:
            await OpenPlatform(client, timeout_s).exchange_mini_program_code(app, CODE)
        assert SECRET not in repr(silent.value)
        return silent.value

    assert not (await ask(OpenApp("wx1", Secret(SECRET), f"http://127.0.0.1:{port}"))).sent
    server.behave = hang
    assert (await ask(app_at(server), 0.2)).sent
    for status, extra in ((500, ""), (302, "Location: http://127.0.0.1/elsewhere\r\n")):
        server.behave = answering(b'{"openid":"o1"}', status=status, extra=extra)
        assert (await ask(app_at(server))).sent
    server.behave = answering(b'{"openid":"' + b"o" * 70_000 + b'"}')
    assert (await ask(app_at(server))).sent


async def test_wechat_s_words_are_kept_without_what_we_sent(server: ScriptedServer, client: httpx.AsyncClient) -> None:
    words = f"invalid code {CODE} of {SECRET}\n, rid: 1-2 " + "x" * 500
    server.behave = answering(orjson.dumps({"errcode": 40029, "errmsg": words}), status=400)
    with pytest.raises(OpenPlatformRefused) as refused:
        await OpenPlatform(client, 2).exchange_mini_program_code(app_at(server), CODE)
    assert refused.value.errcode == 40029
    assert refused.value.words.startswith("invalid code … of …, rid: 1-2 x")
    assert len(refused.value.words) == 200
    assert str(refused.value) == "errcode 40029"


def test_nothing_confidential_shows_itself() -> None:
    app = OpenApp("wx1", Secret(SECRET))
    assert SECRET not in repr(app)
    assert authorize_url(app, redirect_uri="https://a.example/b?c=d", scope="snsapi_base", state="S") == (
        "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx1&redirect_uri=https%3A%2F%2Fa.example%2Fb%3Fc%3Dd"
        "&response_type=code&scope=snsapi_base&state=S#wechat_redirect"
    )

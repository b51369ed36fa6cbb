"""From outside: the mutations with and without a token, the OAuth steps in a browser, the files at the site's root."""

import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog

from app.auth import WechatIdentity
from app.log import configure_logging
from app.main import create_app
from tests.fixtures.web import serving
from tests.wechat.conftest import MINI, OFFICIAL, Site

SHOP = "http://127.0.0.1:5173"
LOGIN = (
    "mutation ($code: String!, $appId: String!) { wechatLogin(code: $code, appId: $appId) { token openid expiresAt } }"
)
COOKIE = "shouyin_wechat_login"


@dataclass
class Served:
    """The API under its public address, and a browser that keeps cookies and follows nothing by itself."""

    site: Site
    url: str
    browser: httpx.AsyncClient

    async def run(self, query: str, variables: dict[str, Any], token: str | None = None) -> dict[str, Any]:
        """One operation; the whole answer."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer = await self.browser.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, headers=headers
        )
        body: dict[str, Any] = answer.json()
        return body

    async def begin(self, page: str = "/shop", **query: str) -> httpx.Response:
        """The first step, from the page."""
        return await self.browser.get(f"{self.url}/wechat/oauth/{self.site.official}", params={"return": page, **query})

    async def come_back(self, page: str = "/shop", **query: str) -> str:
        """Through WeChat to the address it sends the browser back to."""
        begun = await self.begin(page, **query)
        assert begun.status_code == 302, begun.text
        agreed = await self.browser.get(begun.headers["location"])
        assert agreed.status_code == 302, agreed.text
        return str(agreed.headers["location"])


@pytest.fixture
async def served(site: Site, port: int) -> AsyncIterator[Served]:
    """See Served."""
    site.config = replace(site.config, public_url=f"http://127.0.0.1:{port}", allowed_origins=(SHOP,))
    async with (
        serving(create_app(site.config, clock=site.clock), port=port) as url,
        httpx.AsyncClient(trust_env=False, timeout=10) as browser,
    ):
        yield Served(site, url, browser)


def fragment(response: httpx.Response, page: str) -> dict[str, str]:
    """The fields the page gets."""
    assert response.status_code == 302, response.text
    target, _, fields = response.headers["location"].partition("#")
    assert target == page
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    return {name: values[0] for name, values in parse_qs(fields, strict_parsing=True).items()}


def explained(response: httpx.Response, status: int, code: str) -> str:
    """The page of a refusal; nothing was set and nobody sent anywhere."""
    assert response.status_code == status
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert "location" not in response.headers
    assert "set-cookie" not in response.headers
    assert f"<small>{code}</small>" in response.text
    assert "微信登录未完成" in response.text
    return response.text


# --- the API ----------------------------------------------------------------------------------------------------------


async def test_a_page_without_a_token_gets_one(served: Served) -> None:
    code, openid = await served.site.code()
    login = (await served.run(LOGIN, {"code": code, "appId": served.site.mini}))["data"]["wechatLogin"]
    assert login["openid"] == openid
    principal = await served.site.principal(login["token"])
    assert (principal.sub, principal.wechat) == (openid, WechatIdentity(served.site.mini, openid))
    assert principal.expires_at is not None
    assert login["expiresAt"] == principal.expires_at.isoformat()
    refused = await served.run("{ wechatApps { appId } }", {}, login["token"])
    assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_page_with_a_token_keeps_who_it_is(served: Served) -> None:
    code, openid = await served.site.code()
    token = served.site.token("7", ttl=timedelta(minutes=5))
    login = (await served.run(LOGIN, {"code": code, "appId": served.site.mini}, token))["data"]["wechatLogin"]
    before, after = await served.site.principal(token), await served.site.principal(login["token"])
    assert after == replace(before, wechat=WechatIdentity(served.site.mini, openid))


async def test_a_token_that_is_refused_does_not_become_nobody_s(served: Served) -> None:
    code, _ = await served.site.code()
    for token in ("nonsense", served.site.token(ttl=timedelta(seconds=-60))):
        answer = await served.run(LOGIN, {"code": code, "appId": served.site.mini}, token)
        assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    assert await served.site.calls("wechat.jscode2session") == 0


async def test_errors_carry_their_code_words_and_field(served: Served) -> None:
    await served.site.fail("wechat.jscode2session", 40163)
    answer = await served.run(LOGIN, {"code": "used", "appId": served.site.mini})
    assert answer["data"] is None
    assert answer["errors"][0]["message"] == "the code was used before; get a new one for every login"
    assert answer["errors"][0]["extensions"] == {
        "code": "WECHAT_CODE_INVALID",
        "messageZh": "微信登录凭证已被使用，请重新登录",
        "provider": {"code": "40163"},
    }
    answer = await served.run(LOGIN, {"code": "c", "appId": "wx0000000000000000"})
    assert answer["errors"][0]["extensions"]["field"] == "appId"


async def test_an_administrator_s_work(served: Served) -> None:
    root = served.site.token("root", "admin")
    save = (
        "mutation ($input: SaveWechatAppInput!) { saveWechatApp(input: $input) { appId kind name linkPages version } }"
    )
    given = {"appId": served.site.mini, "kind": "MINI_PROGRAM", "name": "Tea", "linkPages": ["pages/order"]}
    saved = (await served.run(save, {"input": given}, root))["data"]["saveWechatApp"]
    assert saved == {"appId": served.site.mini, "kind": "MINI_PROGRAM", "name": "Tea", "linkPages": ["pages/order"],
                     "version": 2}  # fmt: skip
    file = """mutation ($appId: String!, $content: String) {
      setWechatVerificationFile(appId: $appId, name: "MP_verify_x1.txt", content: $content) { verificationFiles }
    }"""
    set_ = await served.run(file, {"appId": served.site.official, "content": "x1"}, root)
    assert set_["data"]["setWechatVerificationFile"] == {"verificationFiles": ["MP_verify_x1.txt"]}
    listed = (await served.run("{ wechatApps { appId kind gateway verificationFiles } }", {}, root))["data"][
        "wechatApps"
    ]
    assert {app["appId"]: app["kind"] for app in listed} == {
        served.site.mini: "MINI_PROGRAM", served.site.official: "OFFICIAL_ACCOUNT"
    }  # fmt: skip
    link = "mutation ($input: CreateWechatLinkInput!) { createWechatLink(input: $input) { url expiresAt } }"
    wanted = {"appId": served.site.mini, "kind": "URL_LINK", "path": "pages/order", "query": "id=7"}
    made = await served.run(link, {"input": wanted}, served.site.token("7"))
    assert (await served.browser.get(made["data"]["createWechatLink"]["url"])).status_code == 200
    for seconds in (-(2**31), 0, 119, 2**31 - 1):
        refused = await served.run(link, {"input": wanted | {"expiresInSeconds": seconds}}, root)
        assert refused["errors"][0]["extensions"]["field"] == "expiresInSeconds"
    gone = await served.run(file, {"appId": served.site.official, "content": None}, root)
    assert gone["data"]["setWechatVerificationFile"] == {"verificationFiles": []}


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_verification_file_stands_at_the_root_of_every_process(served: Served, port: int) -> None:
    from tests.fixtures.shop import ADMIN

    assert (await served.browser.get(f"{served.url}/MP_verify_x1.txt")).status_code == 404
    # set by another process than the one that serves it
    apps = served.site.runtime.wechat.apps
    await apps.set_file(ADMIN, app_id=served.site.official, name="MP_verify_x1.txt", content="<b>x1")
    answer = await served.browser.get(f"{served.url}/MP_verify_x1.txt")
    assert (answer.status_code, answer.text) == (200, "<b>x1")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=60"
    assert answer.headers["x-content-type-options"] == "nosniff"
    head = await served.browser.head(f"{served.url}/MP_verify_x1.txt")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "5")
    assert (await served.browser.post(f"{served.url}/MP_verify_x1.txt")).status_code in (404, 405)
    for path in ("/MP_verify_x2.txt", "/a/MP_verify_x1.txt", "/MP_verify_x1.txt/", "/%2e%2e/MP_verify_x1.txt", "/.txt",
                 "/MP_verify_x1.TXT", "/MP_verify_x1.txt%00", "/MP_verify_x1.txt%0a"):  # fmt: skip
        assert (await served.browser.get(served.url + path)).status_code == 404, path
    assert (await served.browser.get(f"{served.url}/healthz")).status_code == 200


# --- OAuth ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["/shop?order=7", f"{SHOP}/pay"])
async def test_a_login_in_the_browser_ends_on_the_page_with_a_token(served: Served, page: str) -> None:
    callback = await served.come_back(page)
    assert callback.startswith(f"{served.url}/wechat/oauth/{served.site.official}/callback?code=")
    done = await served.browser.get(callback)
    fields = fragment(done, page if page.startswith("http") else served.url + page)
    principal = await served.site.principal(fields["token"])
    assert principal.wechat == WechatIdentity(served.site.official, fields["openid"])
    assert (principal.sub, principal.roles) == (fields["openid"], frozenset({"user"}))
    assert principal.expires_at is not None
    assert fields["expiresAt"] == principal.expires_at.isoformat()
    assert "nickname" not in fields
    assert COOKIE not in served.browser.cookies


async def test_a_user_who_is_asked_gives_a_name(served: Served) -> None:
    begun = await served.begin(scope="snsapi_userinfo")
    asked = await served.browser.get(begun.headers["location"])
    assert "同意" in asked.text
    query = urlsplit(begun.headers["location"]).query
    yes = f"{served.site.config.sandbox_url}/connect/oauth2/authorize/accept?{query}"
    agreed = await served.browser.post(yes)
    fields = fragment(await served.browser.get(agreed.headers["location"]), f"{served.url}/shop")
    assert fields["nickname"] == "林小满"


async def test_a_user_who_says_no_comes_back_to_the_page(served: Served) -> None:
    begun = await served.begin(scope="snsapi_userinfo")
    query = urlsplit(begun.headers["location"]).query
    no = await served.browser.post(f"{served.site.config.sandbox_url}/connect/oauth2/authorize/refuse?{query}")
    fields = fragment(await served.browser.get(no.headers["location"]), f"{served.url}/shop")
    assert fields == {"error": "WECHAT_LOGIN_REFUSED", "message": "你取消了微信授权"}
    begun = await served.begin()
    state = begun.headers["location"].partition("&state=")[2].removesuffix("#wechat_redirect")
    older = await served.browser.get(
        f"{served.url}/wechat/oauth/{served.site.official}/callback", params={"code": "authdeny", "state": state}
    )
    assert fragment(older, f"{served.url}/shop")["error"] == "WECHAT_LOGIN_REFUSED"
    assert await served.site.calls("wechat.oauth2.access_token") == 0


async def test_the_cookie_is_short_lived_and_out_of_reach_of_scripts(served: Served) -> None:
    begun = await served.begin()
    name, _, rest = begun.headers["set-cookie"].partition("=")
    assert (name, rest.partition("; ")[2]) == (
        COOKIE, f"Max-Age=600; Path=/wechat/oauth/{served.site.official}; HttpOnly; SameSite=Lax"
    )  # fmt: skip
    assert begun.headers["cache-control"] == "no-store"
    served.site.config = replace(served.site.config, public_url="https://pay.shop.example/api")
    async with serving(create_app(served.site.config, clock=served.site.clock)) as url:
        begun = await served.browser.get(
            f"{url}/wechat/oauth/{served.site.official}", headers={"host": "attacker.example"}
        )
    assert begun.headers["set-cookie"].endswith(
        f"; Path=/api/wechat/oauth/{served.site.official}; HttpOnly; SameSite=Lax; Secure"
    )
    assert "attacker" not in begun.headers["location"]
    assert "redirect_uri=https%3A%2F%2Fpay.shop.example%2Fapi%2Fwechat%2Foauth%2F" in begun.headers["location"]


async def test_another_browser_s_way_back_logs_nobody_in(served: Served) -> None:
    callback = await served.come_back()
    async with httpx.AsyncClient(trust_env=False) as victim:
        explained(await victim.get(callback), 400, "WECHAT_STATE_INVALID")
        await victim.get(f"{served.url}/wechat/oauth/{served.site.official}")
        cookie = victim.cookies[COOKIE]
        explained(await victim.get(callback), 400, "WECHAT_STATE_INVALID")
        assert victim.cookies[COOKIE] == cookie
    assert await served.site.calls("wechat.oauth2.access_token") == 0
    assert "token" in fragment(await served.browser.get(callback), f"{served.url}/shop")


async def test_a_way_back_that_is_loaded_again(served: Served) -> None:
    callback = await served.come_back()
    # between those of other sites, one of them malformed
    cookie = {"cookie": f'a="b; {COOKIE}={served.browser.cookies[COOKIE]}; c'}
    first = fragment(await served.browser.get(callback), f"{served.url}/shop")
    # the reload of a browser, whose cookie is gone
    assert "已失效" in explained(await served.browser.get(callback), 400, "WECHAT_STATE_INVALID")
    # WeChat's own browser sends it twice at once, both with the cookie
    again = fragment(await served.browser.get(callback, headers=cookie), f"{served.url}/shop")
    assert again["openid"] == first["openid"]
    await served.site.advance(timedelta(seconds=61))
    late = fragment(await served.browser.get(callback, headers=cookie), f"{served.url}/shop")
    assert (late["error"], "token" in late) == ("WECHAT_CODE_INVALID", False)
    assert await served.site.calls("wechat.oauth2.access_token") == 1


async def test_refusals_of_wechat_reach_the_page(served: Served) -> None:
    for errcode, code in (
        (40029, "WECHAT_CODE_INVALID"),
        (40125, "WECHAT_APP_MISCONFIGURED"),
        (45011, "WECHAT_RATE_LIMITED"),
        (-1, "PROVIDER_UNAVAILABLE"),
        (40226, "WECHAT_USER_BLOCKED"),
    ):
        callback = await served.come_back()
        await served.site.fail("wechat.oauth2.access_token", errcode)
        fields = fragment(await served.browser.get(callback), f"{served.url}/shop")
        assert (fields["error"], set(fields)) == (code, {"error", "message"})


async def test_first_steps_that_are_refused(served: Served) -> None:
    official, mini = served.site.official, served.site.mini
    for path, status, code in (
        (f"{official}?return=//attacker.example", 400, "INVALID_INPUT"),
        (f"{official}?return=https://attacker.example/", 400, "INVALID_INPUT"),
        (f"{official}?return=/%5Cattacker.example", 400, "INVALID_INPUT"),
        (f"{official}?return=/%0d%0aset-cookie:a=b", 400, "INVALID_INPUT"),
        (f"{official}?return=/shop&return=//attacker.example", 400, "INVALID_INPUT"),
        (f"{official}?return=/&scope=snsapi_login", 400, "INVALID_INPUT"),
        (f"{official}?return=/{'a' * 5000}", 400, "INVALID_INPUT"),
        (f"{official}?return=%ff", 400, "INVALID_INPUT"),
        (f"{official}?" + "&".join(f"a{number}=1" for number in range(30)), 400, "INVALID_INPUT"),
        (mini, 404, "INVALID_INPUT"),
        ("wx0000000000000000", 404, "INVALID_INPUT"),
        (f"{official}/callback", 400, "WECHAT_STATE_INVALID"),
        (f"{official}/callback?code=a&state=%ff", 400, "INVALID_INPUT"),
        (f"{official}/callback?code=a&state=b&state=c", 400, "INVALID_INPUT"),
    ):
        page = explained(await served.browser.get(f"{served.url}/wechat/oauth/{path}"), status, code)
        assert "attacker" not in page
    for path in ("", "x/y", f"{official}/callback/", f"{official}/", "<script>"):
        assert (await served.browser.get(f"{served.url}/wechat/oauth/{path}")).status_code == 404
    assert (await served.browser.post(f"{served.url}/wechat/oauth/{official}")).status_code == 405
    for cookie in (b"x", b"a=b; " * 50 + b"c", f"{COOKIE}=".encode(), f"{COOKIE}=…".encode(), b'="',
                   f"{COOKIE}=".encode() + b"A" * 9000, f'{COOKIE}="\\377"'.encode()):  # fmt: skip
        answer = await served.browser.get(
            f"{served.url}/wechat/oauth/{official}/callback?code=a&state=b", headers={b"cookie": cookie}
        )
        explained(answer, 400, "WECHAT_STATE_INVALID")
    assert await served.site.calls("wechat.oauth2.access_token") == 0


async def test_without_a_shared_secret_the_page_says_so(site: Site) -> None:
    keys: dict[str, Any] = {"jwt_jwks_url": "http://127.0.0.1:9/keys", "jwt_algorithms": ("RS256",), "jwt_secret": None}
    async with serving(create_app(replace(site.config, **keys), clock=site.clock)) as url:
        for path in ("", "/callback?code=a&state=b"):
            answer = await site.http.get(f"{url}/wechat/oauth/{site.official}{path}")
            assert "JWT_SECRET" in explained(answer, 503, "WECHAT_APP_MISCONFIGURED")


# --- logs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is written while a test runs, at the lowest level; the logging of the process is put back after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(json=True, stream=stream, level="debug")
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


async def test_logs_hold_neither_secrets_nor_codes_nor_tokens_nor_openids(served: Served, lines: io.StringIO) -> None:
    site = served.site
    hidden = [site.records[kind]["secret"] for kind in (MINI, OFFICIAL)]
    code, openid = await site.code()
    login = (await served.run(LOGIN, {"code": code, "appId": site.mini}))["data"]["wechatLogin"]
    hidden += [code, openid, login["token"]]
    callback = await served.come_back()
    fields = fragment(await served.browser.get(callback), f"{served.url}/shop")
    hidden += [callback.partition("code=")[2].partition("&")[0], fields["token"], fields["openid"]]
    hidden += [callback.partition("state=")[2]]
    root = site.token("root", "admin")
    link = "mutation ($input: CreateWechatLinkInput!) { createWechatLink(input: $input) { url } }"
    wanted = {"appId": site.mini, "kind": "URL_LINK"}
    await served.run(link, {"input": wanted}, root)
    await site.fail("wechat.generate_urllink", 40013)
    await served.run(link, {"input": wanted}, root)
    for errcode in (40164, -1):
        await site.fail("wechat.jscode2session", errcode)
        await served.run(LOGIN, {"code": f"{code}{abs(errcode)}", "appId": site.mini})
    text = lines.getvalue()
    for secret in hidden:
        assert secret not in text
    read = [json.loads(line) for line in text.splitlines()]
    told = [(line["errcode"], line["code"]) for line in read if line["event"] == "wechat_refused"]
    assert told == [(40013, "WECHAT_APP_MISCONFIGURED"), (40164, "WECHAT_APP_MISCONFIGURED")]
    assert any("127.0.0.1, not in whitelist" in line.get("words", "") for line in read)
    assert [line["detail"] for line in read if line["event"] == "wechat_silent"] == ["errcode -1"]

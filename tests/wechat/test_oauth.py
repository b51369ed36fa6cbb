"""Which pages a token may be sent to, and what a browser's cookie proves."""

from datetime import timedelta

import pytest

from app.errors import InvalidInput, WechatStateInvalid
from app.wechat.oauth import checked_page
from tests.wechat.conftest import MINI, Site

SITE = "https://pay.shop.example"
ALLOWED = ("https://shop.example", "http://127.0.0.1:5173", "https://shop.example:8443", "null", "*", "file://")


@pytest.mark.parametrize(
    ("page", "target"),
    [
        ("/", f"{SITE}/"),
        ("/shop?order=7&x=%2F", f"{SITE}/shop?order=7&x=%2F"),
        (f"{SITE}/shop", f"{SITE}/shop"),
        ("https://shop.example", "https://shop.example"),
        ("https://shop.example?a=b", "https://shop.example?a=b"),
        ("https://shop.example:8443/a/b", "https://shop.example:8443/a/b"),
        ("http://127.0.0.1:5173/pay", "http://127.0.0.1:5173/pay"),
        ("/..//attacker.example", f"{SITE}/..//attacker.example"),
    ],
)
def test_pages_of_this_site_and_of_allowed_origins(page: str, target: str) -> None:
    assert checked_page(page, SITE + "/api", ALLOWED) == target


@pytest.mark.parametrize(
    "page",
    [
        "", "shop", "?a", "//attacker.example", "///attacker.example", "/\\attacker.example", "\\\\attacker.example",
        "/\t/attacker.example", "/\n/attacker.example", " /shop", "/shop ", "/\u2028/attacker.example", "/页",
        "https://attacker.example", "https://attacker.example/https://shop.example", "https:attacker.example",
        "https://shop.example.attacker.example/", "https://shop.example@attacker.example/", "https://shop.examplE/",
        "https://shop.example:443/", "http://shop.example/", "https://shop.example:84433/", "https://shop.example\\@x/",
        "https://shop.example#a", "/shop#token=x", "javascript:alert(1)", "JaVaScRiPt:alert(1)//https://shop.example/",
        "data:text/html,x", "null", "null/", "*", "*/x", "file:///etc/passwd", "https://", "https:///shop.example",
        "/shop\r\nset-cookie: a=b", "/shop\x00", "/" + "a" * 1000, '/"><script>',
    ],
)  # fmt: skip
def test_pages_of_anybody_else(page: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_page(page, SITE, ALLOWED)
    assert refused.value.field == "return"


async def test_the_way_to_wechat_keeps_its_order_and_fragment(site: Site) -> None:
    begun = await site.runtime.wechat.oauth.begin(site.official, page="/shop", scope="snsapi_userinfo")
    assert begun.url.startswith(
        f"{site.config.sandbox_url}/connect/oauth2/authorize?appid={site.official}&redirect_uri="
        f"http%3A%2F%2F127.0.0.1%3A9%2Fwechat%2Foauth%2F{site.official}%2Fcallback"
        "&response_type=code&scope=snsapi_userinfo&state="
    )
    state = begun.url.partition("&state=")[2].removesuffix("#wechat_redirect")
    assert begun.url.endswith("#wechat_redirect")
    assert len(state) == 64
    assert state.isalnum()
    assert state != (await site.runtime.wechat.oauth.begin(site.official, page="/", scope="snsapi_base")).url[-80:-16]


async def test_steps_that_cannot_be_begun(site: Site) -> None:
    oauth = site.runtime.wechat.oauth
    for app_id, page, scope, field in [
        (site.mini, "/", "snsapi_base", "appId"),
        ("wx0000000000000000", "/", "snsapi_base", "appId"),
        (site.official, "/", "snsapi_login", "scope"),
        (site.official, "//x", "snsapi_base", "return"),
    ]:
        with pytest.raises(InvalidInput) as refused:
            await oauth.begin(app_id, page=page, scope=scope)
        assert refused.value.field == field


async def test_a_cookie_is_no_token_and_a_token_no_cookie(site: Site) -> None:
    from app.errors import Unauthenticated

    oauth = site.runtime.wechat.oauth
    begun = await oauth.begin(site.official, page="/", scope="snsapi_base")
    with pytest.raises(Unauthenticated):
        await site.principal(begun.cookie)
    state = begun.url.partition("&state=")[2].removesuffix("#wechat_redirect")
    head, body, _ = begun.cookie.split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    code, _ = await site.code(site.official)
    for cookie in (
        site.token(),
        f"{head}.{body}.",
        f"{none}.{body}.",
        f"{head}.{body}.AAAA",
        "x",
        "a.b.c",
        "…",
        "\ud800",
    ):
        with pytest.raises(WechatStateInvalid):
            await oauth.finish(site.official, cookie=cookie, state=state, code=code)
    assert await site.calls("wechat.oauth2.access_token") == 0
    assert "#token=" in await oauth.finish(site.official, cookie=begun.cookie, state=state, code=code)


async def test_a_cookie_is_good_for_ten_minutes_and_for_its_application(site: Site) -> None:
    other = site.official.replace("wx", "wy")
    await site.save("official_account", app_id=other)
    oauth = site.runtime.wechat.oauth
    begun = await oauth.begin(site.official, page="/", scope="snsapi_base")
    state = begun.url.partition("&state=")[2].removesuffix("#wechat_redirect")
    with pytest.raises(WechatStateInvalid):
        await oauth.finish(other, cookie=begun.cookie, state=state, code="c")
    await site.advance(timedelta(minutes=10))
    with pytest.raises(WechatStateInvalid):
        await oauth.finish(site.official, cookie=begun.cookie, state=state, code="c")
    assert await site.calls("wechat.oauth2.access_token") == 0


async def test_a_state_exchanges_one_code(site: Site) -> None:
    oauth = site.runtime.wechat.oauth
    begun = await oauth.begin(site.official, page="/", scope="snsapi_base")
    state = begun.url.partition("&state=")[2].removesuffix("#wechat_redirect")
    code, openid = await site.code(site.official)
    other, _ = await site.code(site.official, openid="o" + "x" * 27)
    for _ in range(2):
        target = await oauth.finish(site.official, cookie=begun.cookie, state=state, code=code)
        assert f"&openid={openid}&" in target
    target = await oauth.finish(site.official, cookie=begun.cookie, state=state, code=other)
    assert target.startswith("http://127.0.0.1:9/#error=WECHAT_CODE_INVALID&message=")
    await site.advance(timedelta(seconds=61))
    target = await oauth.finish(site.official, cookie=begun.cookie, state=state, code=code)
    assert target.startswith("http://127.0.0.1:9/#error=WECHAT_CODE_INVALID&message=")
    assert await site.calls("wechat.oauth2.access_token") == 1


async def test_a_name_that_cannot_be_read_does_not_cost_the_login(site: Site) -> None:
    oauth = site.runtime.wechat.oauth
    for fault in ({"kind": "http_500"}, None):
        begun = await oauth.begin(site.official, page="/", scope="snsapi_userinfo")
        state = begun.url.partition("&state=")[2].removesuffix("#wechat_redirect")
        code, _ = await site.code(site.official, scope="snsapi_userinfo")
        if fault:
            await site.control("POST", "/faults", method="wechat.oauth2.userinfo", **fault)
        for _ in range(2):
            target = await oauth.finish(site.official, cookie=begun.cookie, state=state, code=code)
            assert ("&nickname=" in target) == (fault is None)
    assert await site.calls("wechat.oauth2.userinfo") == 2


async def test_a_mini_program_has_no_way_back(site: Site) -> None:
    with pytest.raises(InvalidInput):
        await site.runtime.wechat.oauth.finish(site.records[MINI]["app_id"], cookie="x", state="x", code="x")

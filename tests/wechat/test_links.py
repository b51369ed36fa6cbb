"""Links into a mini-program: who may make which, what WeChat refuses, and a token that is refused once."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from app.auth import Principal
from app.errors import ShouyinError
from app.wechat.links import CreateWechatLink, WechatLink, WechatLinkKind
from tests.fixtures.shop import ADMIN, BUYER, STRANGER
from tests.wechat.conftest import MINI, Site

SCHEME, LINK = WechatLinkKind.URL_SCHEME, WechatLinkKind.URL_LINK
CALLS = {SCHEME: "wechat.generatescheme", LINK: "wechat.generate_urllink"}


async def make(site: Site, caller: Principal = ADMIN, kind: WechatLinkKind = SCHEME, **wanted: Any) -> WechatLink:
    given = {"app_id": site.mini, "kind": kind, "path": "pages/order/order", "query": "id=7"} | wanted
    return await site.runtime.wechat.links.create(caller, CreateWechatLink(**given))


async def refused(site: Site, caller: Principal = ADMIN, **wanted: Any) -> ShouyinError:
    with pytest.raises(ShouyinError) as raised:
        await make(site, caller, **wanted)
    return raised.value


async def links(site: Site) -> list[Mapping[str, Any]]:
    made: list[Mapping[str, Any]] = (await site.control("GET", "/wechat/links"))["links"]
    return made


@pytest.mark.parametrize(("kind", "start", "called"), [(SCHEME, "weixin://dl/", "scheme"), (LINK, "http", "url_link")])
async def test_both_kinds_open_the_page_until_their_end(
    site: Site, kind: WechatLinkKind, start: str, called: str
) -> None:
    made = await make(site, kind=kind, query="id=7&from=%E7%AB%99#!$'()*+,/:;=?@-._~")
    assert made.url.startswith(start)
    assert made.expires_at == (site.clock.now() + timedelta(hours=1)).replace(microsecond=0)
    assert await links(site) == [
        {
            "app_id": site.mini,
            "path": "pages/order/order",
            "query": "id=7&from=%E7%AB%99#!$'()*+,/:;=?@-._~",
            "env_version": "release",
            "expires_at": made.expires_at.isoformat(),
            "kind": called,
        }
    ]
    assert (await site.calls(CALLS[kind]), await site.calls("wechat.token")) == (1, 1)
    await make(site, kind=kind, path="", query="", expires_in=timedelta(days=30))
    assert (await links(site))[1]["path"] == ""
    assert await site.calls("wechat.token") == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "pages/a?id=1"}, "path"),
    ({"path": "pages//a"}, "path"),
    ({"path": "../a"}, "path"),
    ({"path": "页面"}, "path"),
    ({"path": "a" * 513}, "path"),
    ({"path": "pages/a\n"}, "path"),
    ({"query": "a" * 1025}, "query"),
    ({"query": "a=茶"}, "query"),
    ({"query": "a=b c"}, "query"),
    ({"query": 'a="b"'}, "query"),
    ({"query": "a\n"}, "query"),
    ({"expires_in": timedelta(seconds=119)}, "expiresInSeconds"),
    ({"expires_in": timedelta(seconds=-1)}, "expiresInSeconds"),
    ({"expires_in": timedelta(days=30, seconds=1)}, "expiresInSeconds"),
    ({"app_id": "wx0000000000000000"}, "appId"),
]


async def test_inputs_that_cannot_work_cost_no_call(site: Site) -> None:
    for wanted, field in WRONG:
        error = await refused(site, **wanted)
        assert (error.code, error.field) == ("INVALID_INPUT", field), wanted
    assert await site.calls("wechat.token") == 0


async def test_an_official_account_has_no_pages(site: Site) -> None:
    error = await refused(site, app_id=site.official)
    assert (error.code, error.field) == ("INVALID_INPUT", "appId")


async def test_callers_link_to_the_named_pages_only_and_for_a_day(site: Site) -> None:
    error = await refused(site, BUYER)
    assert (error.code, error.field) == ("FORBIDDEN", "path")
    await site.save(MINI, link_pages=["/pages/order/order"])
    assert (await make(site, BUYER)).url
    assert (await make(site, BUYER, path="/pages/order/order", expires_in=timedelta(days=1))).url
    for path in ("pages/admin", "", "pages/order"):
        assert (await refused(site, BUYER, path=path)).code == "FORBIDDEN"
    assert (await refused(site, BUYER, expires_in=timedelta(days=1, seconds=1))).field == "expiresInSeconds"
    assert len(await links(site)) == 2


async def test_callers_make_twenty_an_hour(site: Site) -> None:
    await site.save(MINI, link_pages=["pages/order/order"])
    for _ in range(20):
        await make(site, BUYER)
    assert (await refused(site, BUYER)).code == "WECHAT_RATE_LIMITED"
    assert (await make(site, STRANGER)).url
    assert (await make(site, ADMIN)).url
    await site.advance(timedelta(minutes=61))
    assert (await make(site, BUYER)).url
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_link") == 1
    assert await site.calls(CALLS[SCHEME]) == 23


@pytest.mark.parametrize("errcode", [40001, 40014, 42001])
async def test_a_refused_token_is_renewed_once(site: Site, errcode: int) -> None:
    await make(site)
    await site.advance(timedelta(seconds=31))
    await site.fail(CALLS[SCHEME], errcode)
    assert (await make(site)).url
    assert (await site.calls(CALLS[SCHEME]), len(await links(site))) == (3, 2)


async def test_a_token_that_is_refused_twice_is_the_administrator_s(site: Site) -> None:
    await site.fail(CALLS[SCHEME], 40001, count=9)
    assert (await refused(site)).code == "WECHAT_APP_MISCONFIGURED"
    assert await site.calls(CALLS[SCHEME]) == 2


async def test_a_token_that_ended_elsewhere_is_noticed(site: Site) -> None:
    await make(site)
    await site.control("POST", "/clock", advance_s=7200)  # WeChat's clock alone
    assert (await make(site, expires_in=timedelta(days=1))).url
    assert await site.calls(CALLS[SCHEME]) == 3


NUMBERS = [
    (40165, "INVALID_INPUT", "path"),
    (40212, "INVALID_INPUT", "query"),
    (85401, "INVALID_INPUT", "expiresInSeconds"),
    (40002, "WECHAT_APP_MISCONFIGURED", None),
    (40013, "WECHAT_APP_MISCONFIGURED", None),
    (48001, "WECHAT_APP_MISCONFIGURED", None),
    (85079, "WECHAT_APP_MISCONFIGURED", None),
    (44990, "WECHAT_RATE_LIMITED", None),
    (45009, "WECHAT_RATE_LIMITED", None),
    (45011, "WECHAT_RATE_LIMITED", None),
    (-1, "PROVIDER_UNAVAILABLE", None),
    (47001, "PROVIDER_REJECTED", None),
]


async def test_every_number_has_an_error(site: Site) -> None:
    for errcode, code, field in NUMBERS:
        await site.fail(CALLS[LINK], errcode)
        error = await refused(site, kind=LINK)
        assert (error.code, error.field) == (code, field), errcode
    assert await links(site) == []
    assert await site.calls(CALLS[LINK]) == len(NUMBERS)

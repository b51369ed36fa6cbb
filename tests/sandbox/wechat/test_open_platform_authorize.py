"""Web authorisation of an official account: the link, the pages, the code's exchange, the user's details."""

import re
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.open_platform_client import OpenPlatformClient, way_back


@pytest.fixture
def official(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["official_account"], sandbox)


@pytest.fixture
def mini(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["mini_program"], sandbox)


async def visit(official: OpenPlatformClient, url: str, *, user: str | None = None) -> httpx.Response:
    return await official.sandbox.http.get(url, headers={"cookie": f"wechat_user={user}"} if user else None)


async def logged_in(official: OpenPlatformClient, scope: str, *, user: str | None = None) -> dict[str, Any]:
    """The answer to the code of somebody who agreed."""
    url = official.authorize_url(scope)
    if scope == "snsapi_userinfo":
        url, status = url.replace("/authorize?", "/authorize/accept?"), 303
        response = await official.sandbox.http.post(url, headers={"cookie": f"wechat_user={user}"} if user else None)
    else:
        response, status = await visit(official, url, user=user), 302
    return await official.web_token(way_back(response, status=status)["code"][0])


async def page_error(official: OpenPlatformClient, url: str) -> str:
    """The number on WeChat's error page."""
    response = await visit(official, url)
    assert (response.status_code, "location" in response.headers) == (200, False)
    assert "无法授权" in response.text
    found = re.search(r"<code>(.*?)</code>", response.text)
    assert found is not None
    return found[1]


async def test_snsapi_base_goes_back_at_once(official: OpenPlatformClient) -> None:
    query = way_back(await visit(official, official.authorize_url()))
    assert query.keys() == {"next", "code", "state"}
    assert (query["next"], query["state"], len(query["code"][0])) == (["/shop"], ["Abc123"], 32)
    answer = await official.web_token(query["code"][0])
    assert answer.keys() == {"access_token", "expires_in", "refresh_token", "openid", "scope"}
    assert (answer["openid"], answer["scope"], answer["expires_in"]) == (await official.openid(), "snsapi_base", 7200)


async def test_the_fragment_that_wechat_wants_is_tolerated(official: OpenPlatformClient) -> None:
    url = official.authorize_url() + "&forcePopup=true#wechat_redirect"
    assert way_back(await visit(official, url))["state"] == ["Abc123"]


async def test_who_one_is_is_chosen_on_a_page(official: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    back = quote(urlsplit(official.authorize_url()).path, safe="")
    page = await sandbox.http.get(f"{sandbox.base_url}/wechat/users?back={back}")
    assert all(name in page.text for name in ("林小满", "陈立冬", "快照页访客"))
    async with httpx.AsyncClient(trust_env=False) as browser:
        chosen = await browser.post(f"{sandbox.base_url}/wechat/users/chen?back={back}")
        assert (chosen.status_code, chosen.headers["location"]) == (303, "/connect/oauth2/authorize")
        code = way_back(await browser.get(official.authorize_url()))["code"][0]
    assert (await official.web_token(code))["openid"] == await official.openid("chen")
    assert await official.openid("chen") != await official.openid("lin")


@pytest.mark.parametrize("back", ["https://example.com/", "//example.com/", "/\\example.com", ""])
async def test_the_page_sends_nobody_elsewhere(sandbox: SandboxHandle, back: str) -> None:
    chosen = await sandbox.http.post(f"{sandbox.base_url}/wechat/users/lin", params={"back": back})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/wechat/users")


async def test_snsapi_userinfo_asks_first(official: OpenPlatformClient) -> None:
    page = await visit(official, official.authorize_url("snsapi_userinfo"))
    assert (page.status_code, "location" in page.headers) == (200, False)
    assert "同意" in page.text
    assert "拒绝" in page.text
    assert "林小满" in page.text


async def test_who_agrees_is_known_by_name(official: OpenPlatformClient) -> None:
    answer = await logged_in(official, "snsapi_userinfo", user="chen")
    assert answer["scope"] == "snsapi_userinfo"
    assert len(answer["unionid"]) == 28
    details = await official.answered(
        "/sns/userinfo", access_token=answer["access_token"], openid=answer["openid"], lang="zh_CN"
    )
    assert details == {
        "openid": await official.openid("chen"),
        "nickname": "陈立冬",
        "sex": 0,
        "language": "",
        "city": "",
        "province": "",
        "country": "",
        "headimgurl": "",
        "privilege": [],
        "unionid": answer["unionid"],
    }


async def test_who_refuses_comes_back_without_a_code(official: OpenPlatformClient) -> None:
    url = official.authorize_url("snsapi_userinfo").replace("/authorize?", "/authorize/refuse?")
    query = way_back(await official.sandbox.http.post(url), status=303)
    assert query == {"next": ["/shop"], "state": ["Abc123"]}


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"appid": None}, "10012"),
        ({"appid": "wx0000000000000000"}, "10012"),
        ({"redirect_uri": ""}, "10011"),
        ({"scope": None}, "10010"),
        ({"scope": "snsapi_login"}, "10005"),
        ({"state": None}, "10013"),
        ({"state": "a-b"}, "10013"),
        ({"state": "a" * 129}, "10013"),
        ({"redirect_uri": "http://shop.example/return"}, "10003"),
        ({"redirect_uri": "http://127.0.0.1.shop.example/return"}, "10003"),
        ({"redirect_uri": "http://127.0.0.1@shop.example/return"}, "10003"),
        ({"redirect_uri": "javascript://127.0.0.1/%0aalert(1)"}, "10003"),
        ({"redirect_uri": "//127.0.0.1/return"}, "10003"),
        ({"redirect_uri": "http://[::1/return"}, "10003"),
        ({"response_type": "token"}, "链接不合规范"),
        ({"nonsense": "1"}, "链接不合规范"),
    ],
)
async def test_a_wrong_link_shows_wechats_error_page(
    official: OpenPlatformClient, changes: dict[str, str | None], number: str
) -> None:
    assert await page_error(official, official.authorize_url(**changes)) == number


async def test_a_mini_program_cannot_authorise(mini: OpenPlatformClient) -> None:
    assert await page_error(mini, mini.authorize_url()) == "10016"


async def test_parameters_in_another_order_are_no_link(official: OpenPlatformClient) -> None:
    path, _, query = official.authorize_url().partition("?")
    swapped = "&".join(sorted(query.split("&"), reverse=True))
    assert await page_error(official, f"{path}?{swapped}") == "链接不合规范"


async def test_an_answer_to_a_wrong_link_is_refused_too(official: OpenPlatformClient) -> None:
    url = official.authorize_url("snsapi_userinfo", redirect_uri="http://shop.example/")
    response = await official.sandbox.http.post(url.replace("/authorize?", "/authorize/accept?"))
    assert (response.status_code, "location" in response.headers) == (200, False)
    assert "10003" in response.text


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9"])
async def test_a_port_is_no_part_of_the_domain(official: OpenPlatformClient, host: str) -> None:
    response = await visit(official, official.authorize_url(redirect_uri=f"https://{host}/return#/pay"))
    assert response.status_code == 302
    assert re.fullmatch(
        rf"https://{re.escape(host)}/return\?code=\w{{32}}&state=Abc123#/pay", response.headers["location"]
    )


async def test_state_may_have_128_characters(official: OpenPlatformClient) -> None:
    assert way_back(await visit(official, official.authorize_url(state="z9" * 64)))["state"] == ["z9" * 64]


async def test_the_visitor_of_a_snapshot_page_is_marked(official: OpenPlatformClient) -> None:
    assert (await logged_in(official, "snsapi_base", user="guest"))["is_snapshotuser"] == 1
    assert "is_snapshotuser" not in await logged_in(official, "snsapi_base", user="nobody")
    assert (await official.web_token(await official.code(is_snapshotuser=True)))["is_snapshotuser"] == 1


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"appid": None}, 41002),
        ({"secret": ""}, 41004),
        ({"code": None}, 41008),
        ({"grant_type": None}, 40002),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"secret": "0" * 32}, 40125),
        ({"code": "0" * 32}, 40029),
    ],
)
async def test_a_wrong_exchange_has_its_number_and_leaves_the_code_good(
    official: OpenPlatformClient, changes: dict[str, str | None], errcode: int
) -> None:
    code = await official.code()
    wanted: dict[str, str | None] = {**official.named, "code": code, "grant_type": "authorization_code", **changes}
    assert await official.refused("/sns/oauth2/access_token", **wanted) == errcode
    assert "openid" in await official.web_token(code)


async def test_a_code_is_good_once_and_for_five_minutes(official: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    code, late = await official.code(), await official.code()
    assert "openid" in await official.web_token(code)
    assert (await official.web_token(code))["errcode"] == 40163
    await sandbox.advance(300)
    assert (await official.web_token(late))["errcode"] == 42003


async def test_details_need_their_scope_token_and_openid(official: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    base = await logged_in(official, "snsapi_base")
    full = await logged_in(official, "snsapi_userinfo")
    for token, openid, errcode in (
        (base["access_token"], base["openid"], 48001),
        (full["access_token"], await official.openid("chen"), 40003),
        (full["access_token"], None, 41009),
        (None, full["openid"], 41001),
        ("0", full["openid"], 40001),
        (await official.app_token(), full["openid"], 40001),  # the app's token is another thing
    ):
        assert await official.refused("/sns/userinfo", access_token=token, openid=openid) == errcode
    await sandbox.advance(7200)
    assert await official.refused("/sns/userinfo", access_token=full["access_token"], openid=full["openid"]) == 42001


async def test_a_refresh_token_renews_for_thirty_days(official: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    first = await logged_in(official, "snsapi_userinfo")
    wanted = {
        "appid": official.app["app_id"],
        "grant_type": "refresh_token",
        "refresh_token": first["refresh_token"],
    }
    assert (await official.answered("/sns/oauth2/refresh_token", **wanted))["access_token"] == first["access_token"]
    await sandbox.advance(7200)
    second = await official.answered("/sns/oauth2/refresh_token", **wanted)
    assert second["access_token"] != first["access_token"]
    details = await official.answered("/sns/userinfo", access_token=second["access_token"], openid=second["openid"])
    assert details["nickname"] == "林小满"
    for changes, errcode in (
        ({"appid": None}, 41002),
        ({"refresh_token": None}, 41003),
        ({"grant_type": None}, 40002),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"refresh_token": first["access_token"]}, 40030),
    ):
        assert await official.refused("/sns/oauth2/refresh_token", **(wanted | changes)) == errcode
    await sandbox.advance(30 * 86400)
    assert await official.refused("/sns/oauth2/refresh_token", **wanted) == 42002

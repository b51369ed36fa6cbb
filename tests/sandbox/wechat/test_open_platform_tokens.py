"""The app's own access token, and the links it makes."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.open_platform_client import OpenPlatformClient, read, refusal

SCHEME, URL_LINK = "/wxa/generatescheme", "/wxa/generate_urllink"
TARGET = {"path": "pages/pay/pay", "query": "payment=17&from=web"}


@pytest.fixture
def mini(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["mini_program"], sandbox)


@pytest.fixture
def official(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["official_account"], sandbox)


async def links_made(sandbox: SandboxHandle) -> list[dict[str, Any]]:
    links: list[dict[str, Any]] = (await sandbox.control("GET", "/wechat/links"))["links"]
    return links


async def works(mini: OpenPlatformClient, token: str) -> int:
    """0, or the errcode with which a call with this token is refused."""
    errcode: int = read(await mini.post(URL_LINK, TARGET, access_token=token))["errcode"]
    return errcode


async def in_seconds(sandbox: SandboxHandle, seconds: float) -> int:
    """A Unix time that far from the sandbox's now."""
    now = datetime.fromisoformat((await sandbox.control("GET", "/clock"))["now"])
    return int((now + timedelta(seconds=seconds)).timestamp())


async def test_a_token_lives_two_hours(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    response = await mini.get("/cgi-bin/token", grant_type="client_credential", **mini.named)
    assert response.headers["content-type"] == "application/json; encoding=utf-8"
    answer = read(response)
    assert answer.keys() == {"access_token", "expires_in"}
    assert answer["expires_in"] == 7200
    await sandbox.advance(7195)
    assert await works(mini, answer["access_token"]) == 0
    await sandbox.advance(5)
    assert await works(mini, answer["access_token"]) == 42001


async def test_a_new_token_kills_the_old_one_after_five_minutes(
    mini: OpenPlatformClient, sandbox: SandboxHandle
) -> None:
    old, new = await mini.app_token(), await mini.app_token()
    assert old != new
    await sandbox.advance(295)
    assert (await works(mini, old), await works(mini, new)) == (0, 0)
    await sandbox.advance(5)
    assert (await works(mini, old), await works(mini, new)) == (40001, 0)


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"grant_type": None}, 40002),
        ({"grant_type": "authorization_code"}, 40002),
        ({"appid": None}, 41002),
        ({"secret": None}, 41004),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"secret": "0" * 32}, 40001),
    ],
)
async def test_a_wrong_request_for_a_token_kills_none(
    mini: OpenPlatformClient, sandbox: SandboxHandle, changes: dict[str, str | None], errcode: int
) -> None:
    token = await mini.app_token()
    wanted: dict[str, str | None] = {**mini.named, "grant_type": "client_credential", **changes}
    assert await mini.refused("/cgi-bin/token", **wanted) == errcode
    body = {name: value for name, value in wanted.items() if value is not None}
    assert refusal(await mini.post("/cgi-bin/stable_token", body)) == errcode
    await sandbox.advance(301)
    assert await works(mini, token) == 0


async def test_the_daily_limit_can_be_asked_for(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    fault = {"method": "wechat.token", "kind": "error_response", "code": "45009", "count": 2}
    await sandbox.control("POST", "/faults", fault, status=201)
    assert await mini.refused("/cgi-bin/token", grant_type="client_credential", **mini.named) == 45009
    assert (await mini.stable_token())["errcode"] == 45009
    assert len(await mini.app_token()) > 100


async def test_the_stable_token_stays_until_its_last_five_minutes(
    mini: OpenPlatformClient, sandbox: SandboxHandle
) -> None:
    first = await mini.stable_token()
    assert first.keys() == {"access_token", "expires_in"}
    assert first["expires_in"] in (7199, 7200)
    await sandbox.advance(6890)
    again = await mini.stable_token()
    assert again["access_token"] == first["access_token"]
    assert 300 < again["expires_in"] <= 310
    await sandbox.advance(20)
    renewed = await mini.stable_token()
    assert renewed["access_token"] != first["access_token"]
    assert (await works(mini, first["access_token"]), await works(mini, renewed["access_token"])) == (0, 0)
    await sandbox.advance(290)
    assert await works(mini, first["access_token"]) == 42001


async def test_the_two_kinds_of_token_leave_each_other_alone(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    stable = (await mini.stable_token())["access_token"]
    plain = await mini.app_token()
    await sandbox.advance(301)
    assert (await works(mini, stable), await works(mini, plain)) == (0, 0)


async def test_a_forced_token_kills_the_old_one_at_once(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    first = (await mini.stable_token())["access_token"]
    assert (await mini.stable_token(force_refresh=True))[
        "access_token"
    ] == first  # within thirty seconds nothing happens
    await sandbox.advance(30)
    second = (await mini.stable_token(force_refresh=True))["access_token"]
    assert second != first
    assert (await works(mini, first), await works(mini, second)) == (40001, 0)


async def test_a_token_is_forced_twenty_times_a_day(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    await sandbox.control("POST", "/clock", {"to": "2027-03-01T08:00:00+08:00"})
    await mini.stable_token()
    for _ in range(20):
        await sandbox.advance(30)
        assert "access_token" in await mini.stable_token(force_refresh=True)
    await sandbox.advance(30)
    assert (await mini.stable_token(force_refresh=True))["errcode"] == 45009
    await sandbox.control("POST", "/clock", {"to": "2027-03-02T00:00:01+08:00"})
    assert "access_token" in await mini.stable_token(force_refresh=True)


async def test_the_stable_token_is_asked_for_with_json(mini: OpenPlatformClient) -> None:
    path = "/cgi-bin/stable_token"
    http, url = mini.sandbox.http, mini.base_url + path
    assert await mini.refused(path, grant_type="client_credential", **mini.named) == 43002
    assert refusal(await http.post(url)) == 44002
    assert refusal(await http.post(url, content=b"grant_type=client_credential")) == 47001
    assert refusal(await http.post(url, content=b"[" * 70000)) == 47001
    assert refusal(await mini.post(path, ["client_credential"])) == 47001
    assert (await mini.stable_token(force_refresh="true"))["errcode"] == 47001
    half_a_character = json.dumps({"grant_type": "client_credential", **mini.named, "secret": "\ud83d"}).encode()
    assert refusal(await http.post(url, content=half_a_character)) == 47001


# Links.


async def test_a_scheme_opens_a_page_of_the_mini_program(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    wanted = {"jump_wxa": {**TARGET, "env_version": "trial"}, "expire_type": 1, "expire_interval": 30}
    answer = read(await mini.post(SCHEME, wanted, access_token=await mini.app_token()))
    assert answer.keys() == {"errcode", "errmsg", "openlink"}
    assert (answer["errcode"], answer["errmsg"]) == (0, "ok")
    assert re.fullmatch(r"weixin://dl/business/\?t=[\w-]{12}", answer["openlink"])
    assert [(link["kind"], link["env_version"]) for link in await links_made(sandbox)] == [("scheme", "trial")]
    opened = await sandbox.http.get(f"{sandbox.base_url}/wechat/open", params={"openlink": answer["openlink"]})
    page = await sandbox.http.get(sandbox.base_url + opened.headers["location"])
    assert (opened.status_code, page.status_code) == (302, 200)
    assert "pages/pay/pay" in page.text
    assert "payment=17&amp;from=web" in page.text


async def test_a_url_link_leads_to_a_page_of_the_sandbox(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    wanted = {**TARGET, "is_expire": True, "expire_type": 0, "expire_time": await in_seconds(sandbox, 3600)}
    answer = read(await mini.post(URL_LINK, wanted, access_token=(await mini.stable_token())["access_token"]))
    assert answer.keys() == {"errcode", "errmsg", "url_link"}
    assert answer["url_link"].startswith(f"{sandbox.base_url}/wechat/link/")
    page = await sandbox.http.get(answer["url_link"])
    assert (page.status_code, mini.app["app_id"] in page.text) == (200, True)
    # It is no scheme, and after an hour it is nothing at all.
    ticket = answer["url_link"].rpartition("/")[2]
    opened = await sandbox.http.get(
        f"{sandbox.base_url}/wechat/open", params={"openlink": f"weixin://dl/business/?t={ticket}"}
    )
    assert opened.status_code == 404
    for nothing in ("", "weixin://[", "weixin://dl/business/?t=", ticket, answer["url_link"]):
        opened = await sandbox.http.get(f"{sandbox.base_url}/wechat/open", params={"openlink": nothing})
        assert opened.status_code == 404
    await sandbox.advance(3601)
    assert (await sandbox.http.get(answer["url_link"])).status_code == 410
    assert (await sandbox.http.get(f"{sandbox.base_url}/wechat/link/none")).status_code == 404


async def test_a_link_without_expiry_lives_thirty_days(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    await mini.post(URL_LINK, {}, access_token=await mini.app_token())
    [link] = await links_made(sandbox)
    life = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23, minutes=59) < life <= timedelta(days=30)
    assert (link["path"], link["query"], link["env_version"]) == ("", "", "release")


def wrong_targets() -> Iterator[tuple[dict[str, object], int]]:
    yield {"path": "pages/pay/pay?payment=17"}, 40165
    yield {"path": "//pages/pay"}, 40165
    yield {"path": "页面"}, 40165
    yield {"query": "a" * 1025}, 40212
    yield {"query": "name=收银"}, 40212
    yield {"query": 'a="1"'}, 40212
    yield {"env_version": "preview"}, 85402
    yield {"path": 1}, 47001
    yield {"page": "pages/pay/pay"}, 47001


def wrong_expiries() -> Iterator[tuple[dict[str, object], int]]:
    yield {"expire_type": 2}, 40097
    yield {"expire_type": 0}, 85401
    yield {"expire_type": 1}, 85401
    yield {"expire_type": 1, "expire_interval": 0}, 85401
    yield {"expire_type": 1, "expire_interval": 31}, 85401
    yield {"expire_interval": 3}, 85401
    yield {"expire_type": 1, "expire_interval": "3"}, 47001
    yield {"expire_type": True}, 47001
    yield {"expire_time": 0}, 85401
    yield {"expire_time": 10**20}, 85401
    yield {"expireType": 1}, 47001


@pytest.mark.parametrize(("fields", "errcode"), list(wrong_targets()))
async def test_a_wrong_target_makes_no_link(
    mini: OpenPlatformClient, sandbox: SandboxHandle, fields: dict[str, object], errcode: int
) -> None:
    token = await mini.app_token()
    assert refusal(await mini.post(URL_LINK, fields, access_token=token)) == errcode
    assert refusal(await mini.post(SCHEME, {"jump_wxa": fields}, access_token=token)) == errcode
    assert await links_made(sandbox) == []


@pytest.mark.parametrize(("fields", "errcode"), list(wrong_expiries()))
async def test_a_wrong_expiry_makes_no_link(
    mini: OpenPlatformClient, sandbox: SandboxHandle, fields: dict[str, object], errcode: int
) -> None:
    token = await mini.app_token()
    assert refusal(await mini.post(URL_LINK, TARGET | fields, access_token=token)) == errcode
    assert refusal(await mini.post(SCHEME, {"jump_wxa": TARGET, **fields}, access_token=token)) == errcode
    assert await links_made(sandbox) == []


@pytest.mark.parametrize("seconds", [-60, 55, 30 * 86400 + 60])
async def test_a_link_lives_a_minute_to_thirty_days(
    mini: OpenPlatformClient, sandbox: SandboxHandle, seconds: int
) -> None:
    wanted = {**TARGET, "expire_time": await in_seconds(sandbox, seconds)}
    assert refusal(await mini.post(URL_LINK, wanted, access_token=await mini.app_token())) == 85401
    assert await links_made(sandbox) == []


async def test_the_version_of_a_scheme_stands_inside_its_target(mini: OpenPlatformClient) -> None:
    wanted = {"jump_wxa": TARGET, "env_version": "release"}
    assert refusal(await mini.post(SCHEME, wanted, access_token=await mini.app_token())) == 47001
    assert refusal(await mini.post(SCHEME, {"jump_wxa": "pages"}, access_token=await mini.app_token())) == 47001


async def test_a_link_needs_a_living_token_of_a_mini_program(
    mini: OpenPlatformClient, official: OpenPlatformClient, sandbox: SandboxHandle
) -> None:
    for path in (SCHEME, URL_LINK):
        assert refusal(await mini.post(path, {})) == 41001
        assert refusal(await mini.post(path, {}, access_token="0")) == 40001
        assert refusal(await mini.post(path, {}, access_token=await official.app_token())) == 48001
        assert await mini.refused(path, access_token=await mini.app_token()) == 43002
        empty: httpx.Response = await sandbox.http.post(
            mini.base_url + path, params={"access_token": await mini.app_token()}
        )
        assert refusal(empty) == 44002
    assert await links_made(sandbox) == []

"""A mini-program's login codes: what they are exchanged for, and every way the exchange is refused."""

import asyncio
import base64

import httpx
import pytest

from tests.sandbox.handle import SandboxHandle
from tests.sandbox.wechat.open_platform_client import OpenPlatformClient, read, refusal

PATH = "/sns/jscode2session"
OPENID = "oTest_invented-openid_00000A"


@pytest.fixture
def mini(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["mini_program"], sandbox)


@pytest.fixture
def official(sandbox: SandboxHandle, accounts: dict[str, dict[str, str]]) -> OpenPlatformClient:
    return OpenPlatformClient(accounts["official_account"], sandbox)


async def exchange_refused(client: OpenPlatformClient, code: str, **changes: str | None) -> int:
    wanted = {**client.named, "js_code": code, "grant_type": "authorization_code", **changes}
    return await client.refused(PATH, **wanted)


def test_the_published_apps_have_the_agreed_keys(accounts: dict[str, dict[str, str]], sandbox_url: str) -> None:
    for mode in ("mini_program", "official_account"):
        app = accounts[mode]
        assert app.keys() == {"provider", "mode", "gateway", "authorize_gateway", "app_id", "secret"}
        assert (app["provider"], app["gateway"], app["authorize_gateway"]) == ("WECHAT_APP", sandbox_url, sandbox_url)
        assert (len(app["app_id"]), app["app_id"][:2], len(app["secret"])) == (18, "wx", 32)
    assert accounts["mini_program"]["app_id"] != accounts["official_account"]["app_id"]


async def test_a_code_is_exchanged_for_the_openid(mini: OpenPlatformClient) -> None:
    response = await mini.get(
        PATH, **mini.named, js_code=await mini.code(openid=OPENID), grant_type="authorization_code"
    )
    assert response.headers["content-type"] == "text/plain"
    session = read(response)
    assert session.keys() == {"openid", "session_key"}
    assert session["openid"] == OPENID
    assert len(base64.b64decode(session["session_key"], validate=True)) == 16


async def test_a_unionid_is_told_where_there_is_one(mini: OpenPlatformClient) -> None:
    session = await mini.session(await mini.code(unionid="oUnion00000000000000000000001"))
    assert session["unionid"] == "oUnion00000000000000000000001"
    assert session["openid"] == await mini.openid()


async def test_a_code_is_good_once(mini: OpenPlatformClient) -> None:
    code = await mini.code()
    assert (await mini.session(code))["openid"] == await mini.openid()
    assert await exchange_refused(mini, code) == 40163
    assert await exchange_refused(mini, code) == 40163


async def test_of_two_exchanges_at_once_one_succeeds(mini: OpenPlatformClient) -> None:
    code = await mini.code()
    answers = await asyncio.gather(mini.session(code), mini.session(code))
    assert sorted(answer.get("errcode", 0) for answer in answers) == [0, 40163]


async def test_a_code_lives_five_minutes(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    in_time, late = await mini.code(), await mini.code()
    await sandbox.advance(298)
    assert "openid" in await mini.session(in_time)
    await sandbox.advance(2)
    assert await exchange_refused(mini, late) == 40029


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        ({"appid": None}, 41002),
        ({"appid": ""}, 41002),
        ({"secret": None}, 41004),
        ({"js_code": None}, 41008),
        ({"js_code": ""}, 41008),
        ({"grant_type": None}, 40002),
        ({"grant_type": "client_credential"}, 40002),
        ({"appid": "wx0000000000000000"}, 40013),
        ({"secret": "0" * 32}, 40125),
        ({"js_code": "0" * 32}, 40029),
        ({"js_code": "the code is a mock one"}, 40029),
    ],
)
async def test_a_wrong_exchange_has_its_number_and_leaves_the_code_good(
    mini: OpenPlatformClient, changes: dict[str, str | None], errcode: int
) -> None:
    code = await mini.code()
    assert await exchange_refused(mini, code, **changes) == errcode
    assert "openid" in await mini.session(code)


async def test_another_apps_code_is_unknown(mini: OpenPlatformClient, official: OpenPlatformClient) -> None:
    code = await official.code()
    assert await exchange_refused(mini, code) == 40029
    assert "openid" in await official.web_token(code)


async def test_an_official_account_has_no_sessions(official: OpenPlatformClient) -> None:
    assert await exchange_refused(official, await official.code()) == 40013


async def test_more_than_a_hundred_exchanges_a_minute_of_one_user_are_too_many(
    mini: OpenPlatformClient, sandbox: SandboxHandle
) -> None:
    codes = [await mini.code(openid=OPENID) for _ in range(101)]
    for code in codes[:100]:
        assert (await mini.session(code))["openid"] == OPENID
    assert await exchange_refused(mini, codes[100]) == 45011
    assert "openid" in await mini.session(await mini.code())  # somebody else
    await sandbox.advance(61)
    assert (await mini.session(codes[100]))["openid"] == OPENID


async def test_the_same_person_has_another_openid_in_each_app(
    mini: OpenPlatformClient, official: OpenPlatformClient
) -> None:
    openids = {await client.openid(user) for client in (mini, official) for user in ("lin", "chen", "guest")}
    assert len(openids) == 6
    assert {(len(openid), openid[0]) for openid in openids} == {(28, "o")}


async def test_openids_survive_a_reset(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    before = await mini.openid()
    await sandbox.control("POST", "/reset")
    assert await mini.openid() == before


async def test_a_reset_forgets_codes(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    code = await mini.code()
    await sandbox.control("POST", "/reset")
    assert await exchange_refused(mini, code) == 40029


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"app_id": "wx0"}, 404, "APP_UNKNOWN"),
        ({}, 404, "APP_UNKNOWN"),
        ({"openid": "o123"}, 400, "OPENID_INVALID"),
        ({"openid": "x" * 28}, 400, "OPENID_INVALID"),
        ({"scope": "snsapi_login"}, 400, "OPTION_INVALID"),
        ({"open_id": OPENID}, 400, "OPTION_UNKNOWN"),
    ],
)
async def test_control_refuses_what_makes_no_code(
    mini: OpenPlatformClient, sandbox: SandboxHandle, options: dict[str, str], status: int, error: str
) -> None:
    body = options if error == "APP_UNKNOWN" else {"app_id": mini.app["app_id"], **options}
    assert (await sandbox.control("POST", "/wechat/codes", body, status=status))["error"]["code"] == error


async def test_an_openid_belongs_to_one_app(
    mini: OpenPlatformClient, official: OpenPlatformClient, sandbox: SandboxHandle
) -> None:
    await mini.code(openid=OPENID)
    for taken in (OPENID, await mini.openid("chen")):
        wanted = {"app_id": official.app["app_id"], "openid": taken}
        answer = await sandbox.control("POST", "/wechat/codes", wanted, status=400)
        assert answer["error"]["code"] == "OPENID_INVALID"


@pytest.mark.parametrize(("fault", "errcode"), [({}, -1), ({"code": "40226"}, 40226), ({"code": "45011"}, 45011)])
async def test_any_number_can_be_asked_for(
    mini: OpenPlatformClient, sandbox: SandboxHandle, fault: dict[str, str], errcode: int
) -> None:
    code = await mini.code()
    wanted = {"method": "wechat.jscode2session", "kind": "error_response", **fault}
    await sandbox.control("POST", "/faults", wanted, status=201)
    assert await exchange_refused(mini, code) == errcode
    assert "openid" in await mini.session(code)  # the fault is gone and used nothing up


async def test_a_lost_reply_uses_the_code_up(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    code = await mini.code()
    await sandbox.control("POST", "/faults", {"method": "wechat.jscode2session", "kind": "lost_reply"}, status=201)
    with pytest.raises(httpx.TransportError):
        await mini.session(code)
    assert await exchange_refused(mini, code) == 40163


@pytest.mark.parametrize("kind", ["timeout", "http_500"])
async def test_a_call_that_never_arrived_uses_nothing_up(
    mini: OpenPlatformClient, sandbox: SandboxHandle, kind: str
) -> None:
    code = await mini.code()
    fault = {"method": "wechat.jscode2session", "kind": kind, "latency_s": 0}
    await sandbox.control("POST", "/faults", fault, status=201)
    if kind == "timeout":
        with pytest.raises(httpx.TransportError):
            await mini.session(code)
    else:
        response = await mini.get(PATH, **mini.named, js_code=code, grant_type="authorization_code")
        assert (response.status_code, response.text) == (500, "Internal Server Error")
    assert "openid" in await mini.session(code)


async def test_calls_are_counted_whatever_came_of_them(mini: OpenPlatformClient, sandbox: SandboxHandle) -> None:
    await mini.session(await mini.code())
    assert await exchange_refused(mini, "0" * 32) == 40029
    assert await sandbox.calls("wechat.jscode2session", "") == 2


async def test_a_posted_exchange_is_refused(mini: OpenPlatformClient) -> None:
    code = await mini.code()
    response = await mini.post(PATH, {}, **mini.named, js_code=code, grant_type="authorization_code")
    assert refusal(response) == 43001
    assert "openid" in await mini.session(code)

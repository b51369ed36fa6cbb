"""Logins: who a code makes of whom, every number WeChat refuses with, and a code that comes twice."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest

from app.auth import Principal, WechatIdentity, issue_token
from app.config import Secret
from app.errors import (
    InvalidInput,
    ProviderRejected,
    ProviderUnavailable,
    ShouyinError,
    WechatAppMisconfigured,
    WechatCodeInvalid,
    WechatRateLimited,
    WechatSnapshotUser,
    WechatUserBlocked,
)
from app.runtime import Runtime
from app.wechat.login import Login
from tests.fixtures.shop import ADMIN
from tests.wechat.conftest import MINI, OFFICIAL, Site

HERE = "192.0.2.7"


async def log_in(
    site: Site,
    code: str,
    app_id: str | None = None,
    caller: Principal | None = None,
    *,
    address: str | None = HERE,
    runtime: Runtime | None = None,
) -> Login:
    logins = (runtime or site.runtime).wechat.logins
    return await logins.log_in(caller, app_id=app_id or site.mini, code=code, address=address)


async def refused(site: Site, code: str, app_id: str | None = None, **caller: Any) -> ShouyinError:
    with pytest.raises(ShouyinError) as raised:
        await log_in(site, code, app_id, **caller)
    return raised.value


# --- who one becomes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MINI, OFFICIAL])
async def test_a_caller_without_a_token_becomes_the_openid(site: Site, kind: str) -> None:
    app_id = site.records[kind]["app_id"]
    code, openid = await site.code(app_id)
    login = await log_in(site, code, app_id)
    assert login.openid == openid
    assert login.expires_at == (site.clock.now() + timedelta(days=1)).replace(microsecond=0)
    assert await site.principal(login.token) == Principal(
        sub=openid, roles=frozenset({"user"}), expires_at=login.expires_at, wechat=WechatIdentity(app_id, openid)
    )


async def test_a_caller_with_a_token_only_learns_its_openid(site: Site) -> None:
    caller = await site.caller("7", "user", "admin", ttl=timedelta(minutes=9))
    code, openid = await site.code()
    login = await log_in(site, code, caller=caller)
    assert await site.principal(login.token) == replace(caller, wechat=WechatIdentity(site.mini, openid))
    assert caller.is_admin
    assert login.expires_at == caller.expires_at


async def test_logging_in_again_and_again_never_lengthens_a_token(site: Site) -> None:
    caller = await site.caller(ttl=timedelta(minutes=9))
    ends = caller.expires_at
    for _ in range(3):
        await site.advance(timedelta(minutes=2))
        caller = await site.principal((await log_in(site, (await site.code())[0], caller=caller)).token)
    assert caller.expires_at == ends


async def test_a_second_app_replaces_the_identity(site: Site) -> None:
    first = await site.principal((await log_in(site, (await site.code())[0])).token)
    code, openid = await site.code(site.official)
    second = await site.principal((await log_in(site, code, site.official, first)).token)
    assert (second.sub, second.wechat) == (first.sub, WechatIdentity(site.official, openid))


async def test_no_login_makes_an_administrator_whatever_the_role_is_called(site: Site) -> None:
    site.config = replace(site.config, admin_role="user")
    runtime = await site.open()
    login = await log_in(site, (await site.code())[0], runtime=runtime)
    principal = await site.principal(login.token)
    assert (principal.is_admin, principal.roles) == (False, frozenset())


async def test_without_a_shared_secret_it_says_so_before_the_code_is_spent(site: Site) -> None:
    keys: dict[str, Any] = {"jwt_jwks_url": "http://127.0.0.1:9/keys", "jwt_algorithms": ("RS256",)}
    runtime = await site.open(jwt_secret=None, **keys)
    code, openid = await site.code()
    error = await refused(site, code, runtime=runtime)
    assert (error.code, "JWT_SECRET" in error.message) == ("WECHAT_APP_MISCONFIGURED", True)
    both = await site.open(jwt_secret=Secret("x" * 32), **keys)
    assert (await refused(site, code, runtime=both)).code == "WECHAT_APP_MISCONFIGURED"
    assert (await log_in(site, code)).openid == openid


NO_IDENTITIES: list[object] = [
    "x", 5, None, [], {}, {"app_id": "wx1"}, {"app_id": "wx1", "openid": 5}, {"app_id": "wx1", "openid": ""},
    {"app_id": "wx1", "openid": "o" * 129}, {"app_id": "wx 1", "openid": "o1"},
]  # fmt: skip


async def test_a_claim_that_is_no_identity_is_none(site: Site) -> None:
    assert site.config.jwt_secret is not None
    ends = int((site.clock.now() + timedelta(hours=1)).timestamp())
    for claim in NO_IDENTITIES:
        claims = {"sub": "7", "exp": ends, "wechat": claim}
        token = jwt.encode(claims, site.config.jwt_secret.reveal(), algorithm="HS256")
        assert (await site.principal(token)).wechat is None, claim


async def test_an_identity_survives_the_token(site: Site) -> None:
    identity = WechatIdentity("wx0000000000000001", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o")
    token = issue_token(site.config, "7", ttl=timedelta(hours=1), clock=site.clock, wechat=identity)
    assert (await site.principal(token)).wechat == identity
    assert "oUpF8" not in repr(await site.principal(token))


# --- what WeChat refuses ----------------------------------------------------------------------------------------------

NUMBERS = [
    (40029, WechatCodeInvalid, "get a new one"),
    (40163, WechatCodeInvalid, "used before"),
    (42003, WechatCodeInvalid, "expired"),
    (41008, WechatCodeInvalid, "empty"),
    (40226, WechatUserBlocked, "at risk"),
    (50001, WechatUserBlocked, "may not use"),
    (50005, WechatUserBlocked, "follow"),
    (45011, WechatRateLimited, "in a minute"),
    (45009, WechatRateLimited, "in a minute"),
    (40013, WechatAppMisconfigured, "appId"),
    (40125, WechatAppMisconfigured, "secret is wrong"),
    (40001, WechatAppMisconfigured, "secret is wrong"),
    (41002, WechatAppMisconfigured, "appId is missing"),
    (41004, WechatAppMisconfigured, "secret is missing"),
    (40164, WechatAppMisconfigured, "IP list"),
    (40243, WechatAppMisconfigured, "frozen"),
    (48001, WechatAppMisconfigured, "right"),
    (99999, ProviderRejected, "99999"),
]


@pytest.mark.parametrize(("app", "method"), [(MINI, "wechat.jscode2session"), (OFFICIAL, "wechat.oauth2.access_token")])
async def test_every_number_has_an_error(site: Site, app: str, method: str) -> None:
    app_id = site.records[app]["app_id"]
    for asked, (errcode, kind, words) in enumerate(NUMBERS, 1):
        await site.fail(method, errcode)
        error = await refused(site, f"never-issued-{asked}", app_id)
        assert type(error) is kind, errcode
        assert words in error.message
        assert error.extra == {"provider": {"code": str(errcode)}}
        assert any("一" <= letter <= "鿿" for letter in error.message_zh)
        # the server's own address is nobody's business
        assert "127.0.0.1" not in error.message + error.message_zh
        assert await site.calls(method) == asked


async def test_what_the_sandbox_itself_refuses(site: Site) -> None:
    code, _ = await site.code()
    assert (await refused(site, code, site.official)).code == "WECHAT_CODE_INVALID"
    await site.advance(timedelta(minutes=6))
    assert (await refused(site, code)).code == "WECHAT_CODE_INVALID"
    old, _ = await site.code(site.official)
    await site.advance(timedelta(minutes=6))
    assert "expired" in (await refused(site, old, site.official)).message
    await site.save(MINI, secret="0" * 32)
    error = await refused(site, (await site.code())[0])
    assert (error.code, error.message) == (
        "WECHAT_APP_MISCONFIGURED", f"WeChat refuses the application {site.mini} (40125): its secret is wrong"
    )  # fmt: skip


async def test_the_preview_s_user_is_nobody(site: Site) -> None:
    code, _ = await site.code(site.official, is_snapshotuser=True)
    for _ in range(2):
        error = await refused(site, code, site.official)
        assert isinstance(error, WechatSnapshotUser)
        assert "使用完整服务" in error.message_zh
    assert await site.calls("wechat.oauth2.access_token") == 1


@pytest.mark.parametrize("fault", [{"kind": "business_error", "code": "-1"}, {"kind": "http_500"}, {"kind": "timeout"}])
async def test_without_an_answer_the_same_code_may_be_sent_again(site: Site, fault: dict[str, str]) -> None:
    runtime = await site.open(provider_timeout_s=0.3)
    await site.control("POST", "/faults", method="wechat.jscode2session", **fault)
    code, openid = await site.code()
    assert isinstance(await refused(site, code, runtime=runtime), ProviderUnavailable)
    assert (await log_in(site, code, runtime=runtime)).openid == openid
    assert await site.calls("wechat.jscode2session") == 2


async def test_a_gateway_nobody_answers(site: Site, port: int) -> None:
    await site.save(MINI, gateway=f"http://127.0.0.1:{port}")
    code, openid = await site.code()
    assert (await refused(site, code)).code == "PROVIDER_UNAVAILABLE"
    await site.save(MINI)
    assert (await log_in(site, code)).openid == openid


async def test_a_reply_that_got_lost_between_wechat_and_us_needs_a_new_code(site: Site) -> None:
    await site.control("POST", "/faults", method="wechat.jscode2session", kind="lost_reply")
    code, _ = await site.code()
    assert (await refused(site, code)).code == "PROVIDER_UNAVAILABLE"
    assert (await refused(site, code)).code == "WECHAT_CODE_INVALID"


NO_CODES = ["", " ", "a b", "a\n", "ä", "a" * 257, "a&secret=b", "\x00", "../", "\ud800"]


async def test_what_is_no_code_costs_no_call(site: Site) -> None:
    for code in NO_CODES:
        assert (await refused(site, code)).code == "WECHAT_CODE_INVALID"
    assert await site.calls("wechat.jscode2session") == 0
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_code") == 0


@pytest.mark.parametrize(
    "app_id", ["wx0000000000000000", "", "x" * 500, "wx'--", "\x00", "\ud800", "wx５a0db00000000001"]
)
async def test_an_application_that_is_not_ours(site: Site, app_id: str) -> None:
    error = await refused(site, "c", app_id or " ")
    assert isinstance(error, InvalidInput)
    assert error.field == "appId"
    assert len(error.message) < 200
    assert await site.calls("wechat.jscode2session") == 0


# --- a code that comes twice ------------------------------------------------------------------------------------------


async def test_a_page_may_repeat_after_a_lost_answer(site: Site) -> None:
    code, openid = await site.code()
    first, again = await log_in(site, code), await log_in(site, code)
    assert (first.openid, again.openid) == (openid, openid)
    assert await site.calls("wechat.jscode2session") == 1


async def test_twice_at_once_in_two_processes_is_one_call(site: Site) -> None:
    other = await site.open()
    await site.control("POST", "/faults", method="wechat.jscode2session", kind="latency", latency_s=0.3)
    code, openid = await site.code()
    both = await asyncio.gather(*(log_in(site, code, runtime=each) for each in (site.runtime, other) * 2))
    assert {login.openid for login in both} == {openid}
    assert await site.calls("wechat.jscode2session") == 1


async def test_a_refusal_is_remembered_too(site: Site) -> None:
    for _ in range(3):
        assert (await refused(site, "never-issued")).code == "WECHAT_CODE_INVALID"
    assert await site.calls("wechat.jscode2session") == 1


async def test_a_used_code_is_worth_nothing_to_anybody_else(site: Site) -> None:
    code, _ = await site.code()
    await log_in(site, code)
    for caller in (
        {"address": "198.51.100.1"},
        {"address": None},
        {"caller": await site.caller("8")},
        {"caller": ADMIN},
    ):
        error = await refused(site, code, **caller)
        assert (error.code, "used before" in error.message) == ("WECHAT_CODE_INVALID", True)
    own, _ = await site.code()
    await log_in(site, own, caller=await site.caller("7"))
    assert (await refused(site, own)).code == "WECHAT_CODE_INVALID"
    assert (await refused(site, own, caller=await site.caller("8"))).code == "WECHAT_CODE_INVALID"
    assert await site.calls("wechat.jscode2session") == 2


async def test_without_an_address_nobody_is_the_same(site: Site) -> None:
    code, _ = await site.code()
    await log_in(site, code, address=None)
    assert (await refused(site, code, address=None)).code == "WECHAT_CODE_INVALID"


async def test_a_used_code_is_worth_nothing_a_minute_later(site: Site) -> None:
    code, _ = await site.code()
    await log_in(site, code)
    await site.advance(timedelta(seconds=59))
    await log_in(site, code)
    await site.advance(timedelta(seconds=2))
    assert "used before" in (await refused(site, code)).message
    assert await site.calls("wechat.jscode2session") == 1


async def test_a_process_that_died_while_asking_leaves_a_used_code(site: Site) -> None:
    code, _ = await site.code()
    await log_in(site, code)
    await site.connection.execute("update shouyin.wechat_code set openid = null")
    runtime = await site.open(provider_timeout_s=0.05)
    assert "used before" in (await refused(site, code, runtime=runtime)).message


async def test_waiting_for_an_answer_costs_few_looks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may send one code a thousand times while WeChat is slow."""
    code, _ = await site.code()
    await log_in(site, code)
    await site.connection.execute("update shouyin.wechat_code set openid = null")
    runtime, looks = await site.open(provider_timeout_s=1.0), 0
    look = runtime.db.one

    async def counting(name: str, *values: Any) -> Any:
        nonlocal looks
        looks += name == "wechat_app.code"
        return await look(name, *values)

    monkeypatch.setattr(runtime.db, "one", counting)
    assert "used before" in (await refused(site, code, runtime=runtime)).message
    assert 3 <= looks <= 10


async def test_what_is_remembered_is_forgotten(site: Site) -> None:
    for _ in range(3):
        await log_in(site, (await site.code())[0])
    await site.advance(timedelta(minutes=16))
    await log_in(site, (await site.code())[0])
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_code") == 1


async def test_neither_code_nor_session_key_nor_token_is_stored(site: Site) -> None:
    code, _ = await site.code()
    login = await log_in(site, code)
    rows = await site.connection.fetch("select row_to_json(c)::text as text from shouyin.wechat_code c")
    stored = "".join(row["text"] for row in rows)
    assert code not in stored
    assert login.token not in stored
    assert "session" not in stored

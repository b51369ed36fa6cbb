"""Access tokens: one call for any number of processes, renewed in time, and once more where WeChat refuses one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from app.config import Secret
from app.errors import ProviderUnavailable, WechatAppMisconfigured
from app.providers.wechat.open_platform import OpenPlatform
from app.runtime import Runtime
from app.vault import Vault
from app.wechat.tokens import AccessTokens
from tests.fixtures.shop import ADMIN
from tests.wechat.conftest import MINI, Site

TOKEN = "wechat.token"


def tokens_of(site: Site, runtime: Runtime, timeout_s: float = 2.0) -> AccessTokens:
    platform = OpenPlatform(site.http, timeout_s)
    return AccessTokens(runtime.db, Vault(site.config.master_keys), site.clock, platform, timeout_s=timeout_s)


@asynccontextmanager
async def processes(site: Site, number: int) -> AsyncIterator[list[AccessTokens]]:
    yield [tokens_of(site, await site.open()) for _ in range(number)]


async def find(site: Site, tokens: AccessTokens, refused: str | None = None) -> str:
    app = (await site.runtime.wechat.apps.open(site.mini)).app
    return (await tokens.find(app, refused=Secret(refused) if refused else None)).reveal()


async def test_two_processes_at_once_fetch_once(site: Site) -> None:
    await site.control("POST", "/faults", method=TOKEN, kind="latency", latency_s=0.3)
    async with processes(site, 2) as both:
        found = await asyncio.gather(*(find(site, each) for each in both * 4))
    assert len(set(found)) == 1
    assert await site.calls(TOKEN) == 1


async def test_it_is_kept_for_every_process_and_renewed_before_its_end(site: Site) -> None:
    async with processes(site, 2) as (one, other):
        first = await find(site, one)
        await site.advance(timedelta(minutes=110))
        assert await find(site, other) == first
        await site.advance(timedelta(minutes=6))
        second = await find(site, other)
        assert await find(site, one) == second != first
    assert await site.calls(TOKEN) == 2


async def test_it_stands_sealed_in_the_row(site: Site) -> None:
    token = await find(site, tokens_of(site, site.runtime))
    row = await site.connection.fetchrow("select * from shouyin.wechat_app where app_id = $1", site.mini)
    assert row is not None
    assert row["token_expires_at"] - site.clock.now() > timedelta(minutes=119)
    assert (row["lease"], row["leased_until"]) == (None, None)
    assert token.encode() not in row["token_sealed"]
    assert token not in str(dict(row))


async def test_in_its_last_minutes_one_renews_and_the_others_go_on_with_it(site: Site) -> None:
    async with processes(site, 2) as (one, other):
        first = await find(site, one)
        await site.advance(timedelta(minutes=116))
        await site.control("POST", "/faults", method=TOKEN, kind="latency", latency_s=0.5)
        renewing = asyncio.create_task(find(site, one))
        while not await site.connection.fetchval("select lease is not null from shouyin.wechat_app order by app_id"):
            await asyncio.sleep(0.01)
        assert await find(site, other) == first
        assert await renewing != first
    assert await site.calls(TOKEN) == 2


@pytest.mark.parametrize("kind", ["http_500", "business_error"])
async def test_an_old_one_serves_while_wechat_gives_no_new_one(site: Site, kind: str) -> None:
    tokens = tokens_of(site, site.runtime)
    first = await find(site, tokens)
    await site.advance(timedelta(minutes=116))
    await site.control("POST", "/faults", method=TOKEN, kind=kind, code="45009")
    assert await find(site, tokens) == first
    assert await find(site, tokens) != first
    assert await site.calls(TOKEN) == 3


async def test_one_that_is_refused_is_replaced_once_for_all(site: Site) -> None:
    async with processes(site, 2) as both:
        first = await find(site, both[0])
        await site.advance(timedelta(seconds=31))
        found = await asyncio.gather(*(find(site, each, refused=first) for each in both * 3))
    (second,) = set(found)
    assert second != first
    # once for the token of now, which is the refused one, and once for another
    assert await site.calls(TOKEN) == 3


async def test_one_that_somebody_else_replaced_is_not_forced(site: Site) -> None:
    tokens = tokens_of(site, site.runtime)
    first = await find(site, tokens)
    await site.advance(timedelta(seconds=31))
    record = site.records[MINI]
    named = {"appid": record["app_id"], "secret": record["secret"], "grant_type": "client_credential"}
    url = f"{site.config.sandbox_url}/cgi-bin/stable_token"
    other = (await site.http.post(url, json=named | {"force_refresh": True})).json()["access_token"]
    assert other != first
    assert await find(site, tokens, refused=first) == other
    assert await site.calls(TOKEN) == 3


async def test_a_refusal_is_told_and_frees_the_lease(site: Site) -> None:
    tokens = tokens_of(site, site.runtime)
    await site.fail(TOKEN, 40164)
    with pytest.raises(WechatAppMisconfigured, match="IP list"):
        await find(site, tokens)
    await site.control("POST", "/faults", method=TOKEN, kind="http_500")
    with pytest.raises(ProviderUnavailable):
        await find(site, tokens)
    assert await find(site, tokens)
    assert await site.calls(TOKEN) == 3


async def test_the_lease_of_a_dead_process_ends(site: Site) -> None:
    await site.connection.execute(
        "update shouyin.wechat_app set lease = 'dead', leased_until = $1", site.clock.now() + timedelta(seconds=5)
    )
    waiting = asyncio.create_task(find(site, tokens_of(site, site.runtime)))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    assert await site.calls(TOKEN) == 0
    await site.advance(timedelta(seconds=5))
    assert await waiting
    assert await site.calls(TOKEN) == 1


async def test_who_comes_late_stores_nothing(site: Site) -> None:
    await site.control("POST", "/faults", method=TOKEN, kind="latency", latency_s=0.4)
    fetching = asyncio.create_task(find(site, tokens_of(site, site.runtime)))
    while not await site.connection.fetchval("select lease is not null from shouyin.wechat_app order by app_id"):
        await asyncio.sleep(0.01)
    await site.save(MINI, secret="1" * 32)
    await fetching
    row = await site.connection.fetchrow(
        "select token_sealed, lease from shouyin.wechat_app where app_id = $1", site.mini
    )
    assert row is not None
    assert (row["token_sealed"], row["lease"]) == (None, None)


async def test_a_token_under_a_key_that_is_gone_is_fetched_again(site: Site) -> None:
    tokens = tokens_of(site, site.runtime)
    first = await find(site, tokens)
    await site.connection.execute(
        "update shouyin.wechat_app set token_sealed = overlay(token_sealed placing 'x' from 5)"
    )
    assert await find(site, tokens) == first
    assert await site.calls(TOKEN) == 2


async def test_an_application_that_went_is_no_endless_wait(site: Site) -> None:
    tokens = tokens_of(site, site.runtime)
    app = (await site.runtime.wechat.apps.open(site.mini)).app
    await site.connection.execute("delete from shouyin.wechat_app where app_id = $1", site.mini)
    with pytest.raises(ProviderUnavailable):
        await tokens.find(app)


async def test_resealing_drops_the_token_and_nothing_else(site: Site) -> None:
    await find(site, tokens_of(site, site.runtime))
    changed = await site.open(master_keys={"next": bytes(reversed(range(32))), **site.config.master_keys})
    assert await changed.wechat.apps.reseal(ADMIN) == (2, 0)
    assert await changed.wechat.apps.reseal(ADMIN) == (0, 2)
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_app where token_sealed is null") == 2
    only = await site.open(master_keys={"next": bytes(reversed(range(32)))})
    assert (await only.wechat.apps.open(site.mini)).app.secret.reveal() == site.records[MINI]["secret"]

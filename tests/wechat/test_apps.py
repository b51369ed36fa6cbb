"""Applications: what may be saved, that the secret stays in, and the files at the site's root."""

from typing import Any

import pytest

from app.errors import Forbidden, InvalidInput
from app.wechat.apps import SaveWechatApp, WechatAppKind
from tests.fixtures.shop import ADMIN, BUYER
from tests.wechat.conftest import MINI, OFFICIAL, Site

NEW: dict[str, Any] = {
    "app_id": "wx00000000000000aa",
    "kind": WechatAppKind.MINI_PROGRAM,
    "name": "Tea",
    "secret": "s" * 32,
}


async def save(site: Site, **changes: Any) -> Any:
    return await site.runtime.wechat.apps.save(ADMIN, SaveWechatApp(**(NEW | changes)))


async def test_a_new_one_has_wechat_s_addresses(site: Site) -> None:
    saved = await save(site, link_pages=["/pages/b", "pages/a", "pages/b"])
    assert (saved.gateway, saved.authorize_gateway) == ("https://api.weixin.qq.com", "https://open.weixin.qq.com")
    assert (list(saved.link_pages), saved.files, saved.version) == (["pages/a", "pages/b"], (), 1)
    opened = await site.runtime.wechat.apps.open(saved.app_id)
    assert (opened.kind, opened.app.secret.reveal()) == (WechatAppKind.MINI_PROGRAM, "s" * 32)


async def test_what_is_left_out_stays(site: Site) -> None:
    await save(site, link_pages=["pages/a"])
    saved = await save(site, name="Tea 茶", secret=None)
    assert (saved.name, list(saved.link_pages), saved.version) == ("Tea 茶", ["pages/a"], 2)
    assert (await site.runtime.wechat.apps.open(saved.app_id)).app.secret.reveal() == "s" * 32
    assert list((await save(site, link_pages=[])).link_pages) == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"app_id": "wx 1"}, "appId"),
    ({"app_id": "x" * 65}, "appId"),
    ({"app_id": "wx'or'1'='1"}, "appId"),
    ({"name": " "}, "name"),
    ({"name": "n" * 101}, "name"),
    ({"name": "a\nb"}, "name"),
    ({"secret": None}, "secret"),
    ({"secret": ""}, "secret"),
    ({"secret": "short"}, "secret"),
    ({"secret": " " + "s" * 32}, "secret"),
    ({"gateway": "http://api.weixin.qq.com"}, "gateway"),
    ({"gateway": "https://api.weixin.qq.com/?a=b"}, "gateway"),
    ({"gateway": "https://u:p@api.weixin.qq.com"}, "gateway"),
    ({"gateway": "gopher://api.weixin.qq.com"}, "gateway"),
    ({"authorize_gateway": "http://open.weixin.qq.com"}, "authorizeGateway"),
    ({"link_pages": ["a?b"]}, "linkPages"),
    ({"link_pages": [f"p{number}" for number in range(51)]}, "linkPages"),
]


async def test_what_cannot_work_is_named(site: Site) -> None:
    for changes, field in WRONG:
        with pytest.raises(InvalidInput) as refused:
            await save(site, **changes)
        assert refused.value.field == field, changes
        assert "s" * 32 not in refused.value.message
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_app") == 2


async def test_a_secret_goes_to_no_other_gateway_than_it_was_given_for(site: Site) -> None:
    for name in ("gateway", "authorize_gateway"):
        with pytest.raises(InvalidInput) as refused:
            await site.save(MINI, secret=None, **{name: "https://attacker.example"})
        assert refused.value.field == "secret"
    assert (await site.runtime.wechat.apps.open(site.mini)).app.gateway == site.config.sandbox_url


async def test_a_kind_never_changes(site: Site) -> None:
    with pytest.raises(InvalidInput) as refused:
        await site.save(MINI, kind=WechatAppKind.OFFICIAL_ACCOUNT)
    assert refused.value.field == "kind"


async def test_nothing_secret_is_stored_in_the_open_or_shown(site: Site) -> None:
    stored = await site.connection.fetchval("select json_agg(a)::text from shouyin.wechat_app a")
    audit = await site.connection.fetchval("select json_agg(a)::text from shouyin.audit a")
    listed = await site.runtime.wechat.apps.list(ADMIN)
    shown = repr(listed) + repr(await site.runtime.wechat.apps.open(site.mini))
    for kind in (MINI, OFFICIAL):
        for text in (stored, audit, shown):
            assert site.records[kind]["secret"] not in text
            assert site.records[kind]["secret"].encode().hex() not in text
    assert [app.app_id for app in listed] == sorted((site.mini, site.official))
    assert await site.connection.fetchval("select count(*) from shouyin.audit where action = 'wechat_app.save'") == 2


async def test_only_administrators_manage_them(site: Site) -> None:
    apps = site.runtime.wechat.apps
    with pytest.raises(Forbidden):
        await apps.save(BUYER, SaveWechatApp(**NEW))
    with pytest.raises(Forbidden):
        await apps.list(BUYER)
    with pytest.raises(Forbidden):
        await apps.set_file(BUYER, app_id=site.mini, name="a.txt", content="b")
    with pytest.raises(Forbidden):
        await apps.reseal(BUYER)
    assert await apps.find_file("a.txt") is None
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_app") == 2


async def test_files_are_set_replaced_and_taken_away(site: Site) -> None:
    apps = site.runtime.wechat.apps
    for content in ("first", "second"):
        await apps.set_file(ADMIN, app_id=site.official, name="MP_verify_abc.txt", content=content)
        assert await apps.find_file("MP_verify_abc.txt") == content
    assert [app.files for app in await apps.list(ADMIN) if app.app_id == site.official] == [("MP_verify_abc.txt",)]
    with pytest.raises(InvalidInput) as refused:
        await apps.set_file(ADMIN, app_id=site.mini, name="MP_verify_abc.txt", content="mine")
    assert refused.value.field == "name"
    await apps.set_file(ADMIN, app_id=site.mini, name="MP_verify_abc.txt", content=None)
    assert await apps.find_file("MP_verify_abc.txt") == "second"
    await apps.set_file(ADMIN, app_id=site.official, name="MP_verify_abc.txt", content=None)
    assert await apps.find_file("MP_verify_abc.txt") is None


WRONG_FILES = [
    ("../a.txt", "b", "name"), ("a.html", "b", "name"), (".txt", "b", "name"), ("a.txt\n", "b", "name"),
    ("a" * 81 + ".txt", "b", "name"), ("ä.txt", "b", "name"), ("a.b.txt", "b", "name"), ("a.TXT", "b", "name"),
    ("a.txt", "", "content"), ("a.txt", "b" * 1025, "content"), ("a.txt", "b\x00", "content"),
    ("a.txt", "b\nc", "content"), ("a.txt", "茶", "content"),
]  # fmt: skip


async def test_files_that_may_not_be(site: Site) -> None:
    for name, content, field in WRONG_FILES:
        with pytest.raises(InvalidInput) as refused:
            await site.runtime.wechat.apps.set_file(ADMIN, app_id=site.mini, name=name, content=content)
        assert refused.value.field == field, name
    assert await site.connection.fetchval("select count(*) from shouyin.wechat_file") == 0

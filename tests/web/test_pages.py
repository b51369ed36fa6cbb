"""The pages' server side, without a browser: headers, the demo's own calls, and what the bundles are made from."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from starlette.applications import Starlette

from app.auth import Authenticator
from app.clock import Clock
from app.config import Config
from app.db import Database
from app.web import pages
from app.web.demo import DemoBackend
from app.web.pages import page_headers, render_graphiql, web_routes
from tests.fixtures.shop import config_for, make_orders
from tests.fixtures.web import Serve

WEB = Path(pages.__file__).parent


@pytest.fixture
def config(database_url: str, redis_url: str, tmp_path: Path) -> Config:
    return config_for(database_url, redis_url, tmp_path, DEMO="1", GRAPHIQL="1", PUBLIC_URL="http://shop.test:8000")


@pytest.fixture
async def orders(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await make_orders(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def shop(
    config: Config, database: Database, clock: Clock, serve: Serve, http: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the demo shop that keeps cookies."""
    demo = DemoBackend(config, database, clock, Authenticator(config, clock))
    async with (
        serve(Starlette(routes=web_routes(config, demo))) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
    ):
        yield client


def data_of(page: str) -> Any:
    """What the server tells the scripts of a page."""
    found = re.search(r'id="page">(.*?)</script>', page)
    assert found is not None
    return json.loads(found.group(1))


async def test_front_page_without_the_demo_says_nothing_about_the_deployment(
    config: Config, serve: Serve, http: httpx.AsyncClient
) -> None:
    async with serve(Starlette(routes=web_routes(config, None))) as url:
        answer = await http.get(url)
        assert answer.status_code == 200
        assert "支付后端正在运行" in answer.text
        assert "<script" not in answer.text
        for path in ("/demo/session", "/demo/orders"):
            assert (await http.post(url + path)).status_code == 404
        for path in ("/demo/club", "/demo/clerk", "/demo/clerk/orders"):
            assert (await http.get(url + path)).status_code == 404


async def test_pages_forbid_other_hosts_inline_scripts_frames_and_caches(
    config: Config, shop: httpx.AsyncClient
) -> None:
    headers = (await shop.get("/")).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["worker-src"] == "'self'"
    assert policy["connect-src"] == "'self' ws://shop.test:8000 wss://shop.test:8000"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    # WeChat's H5 page turns away visitors who come from nowhere; it is told the site and no more.
    assert headers["referrer-policy"] == "strict-origin"
    assert page_headers(config)["Referrer-Policy"] == "no-referrer"


async def test_visitor_keeps_their_user_over_a_cookie_that_scripts_cannot_read(shop: httpx.AsyncClient) -> None:
    first = await shop.get("/")
    cookie = first.headers["set-cookie"]
    assert cookie.startswith("shouyin_demo=")
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    page = data_of(first.text)
    second = await shop.post("/demo/session")
    assert "set-cookie" not in second.headers
    assert second.json()["userId"] == page["userId"]
    assert [product["amount"] for product in page["products"]] == ["68.00", "39.90", "12.50"]
    assert [(each["amount"], each["intervalDays"]) for each in page["memberships"]] == [("9.90", 7), ("29.70", 30)]
    assert page["ways"] == []  # no merchant account yet


async def offer(connection: "asyncpg.Connection[asyncpg.Record]", offers: str, *, enabled: bool = True) -> None:
    """A merchant account as far as the shop looks at it, and an official account that can log payers in."""
    await connection.execute(
        "insert into shouyin.merchant_account (provider, mode, name, settings, enabled, offers, created_at, updated_at)"
        " values ('WECHAT', 'v3', 'Tea', '{}', $2, $1::jsonb, now(), now())",
        offers,
        enabled,
    )
    await connection.execute(
        "insert into shouyin.wechat_app (app_id, kind, name, settings, sealed, created_at, updated_at)"
        " values ('wx2', 'official_account', 'Tea', '{}', '', now(), now()) on conflict do nothing"
    )


OFFERS = '{"WECHAT_NATIVE": ["wx2"], "WECHAT_JSAPI": ["wx2"], "WECHAT_MINI_PROGRAM": ["wx1"], "WECHAT_H5": ["wx2"]}'
NO_PAYER = {"appId": None, "openid": None, "login": None}


async def test_ways_are_those_an_enabled_account_offers_and_whose_payer_can_be_known(
    shop: httpx.AsyncClient, orders: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await offer(orders, OFFERS, enabled=False)
    assert (await shop.post("/demo/session")).json()["ways"] == []
    await offer(orders, OFFERS)
    await offer(orders, OFFERS.replace("wx", "wx9"))
    # Deductions are made by us alone.
    await offer(orders, '{"ALIPAY_CYCLE": []}')
    login = {"method": "WECHAT_JSAPI", "appId": "wx2", "openid": None, "login": "/wechat/oauth/wx2"}
    others = [{"method": "WECHAT_H5"} | NO_PAYER, {"method": "WECHAT_NATIVE"} | NO_PAYER]
    at_home = await shop.post("/demo/session", headers={"host": "shop.test:8000"})
    assert at_home.json()["ways"] == [others[0], login, others[1]]
    # Under another name the login would come back to another visitor's page.
    elsewhere = await shop.post("/demo/session")
    assert elsewhere.json()["ways"] == others


async def test_sandbox_lets_its_visitor_pay_as_somebody_wherever_the_page_is(
    config: Config,
    database: Database,
    clock: Clock,
    serve: Serve,
    http: httpx.AsyncClient,
    orders: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await offer(orders, OFFERS)
    config = replace(config, sandbox_url="http://127.0.0.1:9")
    demo = DemoBackend(config, database, clock, Authenticator(config, clock))
    async with serve(Starlette(routes=web_routes(config, demo))) as url:
        first, second = [(await http.post(f"{url}/demo/session")).json()["ways"] for _ in range(2)]
        http.cookies.clear()
        stranger = (await http.post(f"{url}/demo/session")).json()["ways"]
    assert first == second
    shown = {way["method"]: way for way in first}
    assert list(shown) == ["WECHAT_H5", "WECHAT_JSAPI", "WECHAT_MINI_PROGRAM", "WECHAT_NATIVE"]
    for method, app_id in (("WECHAT_JSAPI", "wx2"), ("WECHAT_MINI_PROGRAM", "wx1")):
        assert shown[method]["appId"] == app_id
        assert re.fullmatch(r"o[A-Za-z0-9_-]{27}", shown[method]["openid"])
    assert shown["WECHAT_JSAPI"]["openid"] != shown["WECHAT_MINI_PROGRAM"]["openid"]
    assert shown["WECHAT_JSAPI"]["openid"] not in {way["openid"] for way in stranger}


async def test_forged_cookie_makes_a_new_visitor(shop: httpx.AsyncClient) -> None:
    shop.cookies.set("shouyin_demo", "eyJhbGciOiJub25lIn0.eyJzdWIiOiI3In0.")
    answer = await shop.post("/demo/session")
    assert answer.json()["userId"] != "7"
    assert "shouyin_demo=" in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    ("host", "given"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:8000", True),
        ("shop.test", False),
        ("127.0.0.1.evil.test", False),
    ],
)
async def test_operators_tokens_are_given_to_loopback_names_only(
    shop: httpx.AsyncClient, host: str, *, given: bool
) -> None:
    answer = await shop.post("/demo/session", headers={"host": host})
    for name in ("adminToken", "clerkToken"):
        assert (answer.json()[name] is not None) is given


async def test_clerks_page_and_tokens_are_for_browsers_on_this_machine(
    config: Config, clock: Clock, shop: httpx.AsyncClient, orders: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    here = await shop.get("/demo/clerk")
    assert here.status_code == 200
    assert here.headers["cache-control"] == "no-store"
    page = data_of(here.text)
    known = Authenticator(config, clock)
    clerk, admin = [await known.principal(page[name]) for name in ("clerkToken", "adminToken")]
    assert set(clerk.roles) == {config.admin_role, "clerk"}
    assert set(admin.roles) == {config.admin_role}
    # A grant is an administrator's to give: none comes with the page.
    assert await orders.fetchval("select count(*) from shouyin.permission where action = 'payment.refund'") == 0
    assert (await shop.get("/demo/clerk/orders")).json() == {"orders": []}

    for host in ("shop.test", "127.0.0.1.evil.test"):
        refused = await shop.get("/demo/clerk", headers={"host": host})
        assert refused.status_code == 403
        assert "eyJ" not in refused.text
        assert (await shop.get("/demo/clerk/orders", headers={"host": host})).status_code == 403
        session = (await shop.post("/demo/session", headers={"host": host})).json()
        assert (session["adminToken"], session["clerkToken"], session["clerk"]) == (None, None, False)


async def test_club_is_for_everybody_and_its_administrators_token_for_browsers_on_this_machine(
    config: Config, clock: Clock, shop: httpx.AsyncClient
) -> None:
    here = await shop.get("/demo/club")
    assert (here.status_code, here.headers["cache-control"]) == (200, "no-store")
    page = data_of(here.text)
    admin = await Authenticator(config, clock).principal(page["adminToken"])
    assert set(admin.roles) == {config.admin_role}
    for host in ("shop.test", "127.0.0.1.evil.test"):
        elsewhere = await shop.get("/demo/club", headers={"host": host})
        assert elsewhere.status_code == 200
        assert "adminToken" not in elsewhere.text


async def test_clerk_is_shown_the_latest_orders_that_were_paid_whoever_placed_them(
    shop: httpx.AsyncClient, orders: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    made = []
    for index, status in enumerate(["paid", "unpaid", "failed", "refunded", *["paid"] * 7]):
        values = (100 + index, f"tea {index}", status)
        made.append(await orders.fetchval(
            "insert into public.orders (user_id, title, amount, status) values ($1, $2, 1, $3) returning id", *values
        ))  # fmt: skip
    shown = (await shop.get("/demo/clerk/orders")).json()["orders"]
    assert shown == [{"orderId": str(made[index]), "title": f"tea {index}"} for index in range(10, 2, -1)]


async def test_order_is_inserted_for_the_visitor_at_our_price(
    shop: httpx.AsyncClient, orders: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    user_id = int((await shop.post("/demo/session")).json()["userId"])
    answer = await shop.post("/demo/orders", json={"product": "coffee", "amount": "0.01"})
    assert answer.status_code == 201
    row = await orders.fetchrow("select id, user_id, title, amount::text, status from public.orders")
    assert row is not None
    assert answer.json() == {"orderId": str(row["id"]), "title": "云南咖啡豆", "amount": "39.90"}
    assert (row["user_id"], row["amount"], row["status"]) == (user_id, "39.90", "unpaid")


async def test_refused_orders_insert_nothing(
    shop: httpx.AsyncClient, orders: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    assert (await shop.post("/demo/orders", json={"product": "cup"})).status_code == 401
    await shop.post("/demo/session")
    assert (await shop.post("/demo/orders", json={"product": "moon"})).status_code == 400
    assert (await shop.post("/demo/orders", json=["cup"])).status_code == 400
    assert (await shop.post("/demo/orders", data={"product": "cup"})).status_code == 400
    form = {"content-type": "text/plain"}
    assert (await shop.post("/demo/orders", content=b'{"product": "cup"}', headers=form)).status_code == 400
    large = {"content-type": "application/json"}
    assert (await shop.post("/demo/orders", content=b" " * 5000, headers=large)).status_code == 400
    assert await orders.fetchval("select count(*) from public.orders") == 0


async def test_missing_demo_table_is_one_clear_line(shop: httpx.AsyncClient) -> None:
    await shop.post("/demo/session")
    answer = await shop.post("/demo/orders", json={"product": "cup"})
    assert answer.status_code == 503
    assert answer.json() == {"error": "the demo table public.orders does not exist: start with `make run`"}


async def test_code_is_drawn_as_svg(shop: httpx.AsyncClient) -> None:
    answer = await shop.get("/demo/qr.svg", params={"text": "https://qr.alipay.com/bax00001"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.text.startswith("<svg ")
    assert (await shop.get("/demo/qr.svg")).status_code == 400
    # A link for signing carries a whole signed call.
    assert (await shop.get("/demo/qr.svg", params={"text": "x" * 2600})).status_code == 200
    assert (await shop.get("/demo/qr.svg", params={"text": "x" * 2601})).status_code == 400


async def test_unbuilt_pages_say_what_to_run(
    config: Config, shop: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "BUILT", tmp_path)
    assert "make web" in (await shop.get("/")).text
    assert "make web" in render_graphiql(config)
    assert "script" not in render_graphiql(config)


def test_text_in_a_page_cannot_end_its_element(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {"icon": {"file": "icon.svg"}, "graphiql": {"file": "graphiql.js", "css": "graphiql.css"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(pages, "BUILT", tmp_path)
    page = render_graphiql(config, "</script><script>alert(1)</script>")
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page


async def test_hashed_files_are_kept_and_others_are_asked_about_again(shop: httpx.AsyncClient, config: Config) -> None:
    if not (pages.BUILT / "manifest.json").exists():
        pytest.skip("the web pages are not built: run `make web`")
    name = json.loads((pages.BUILT / "manifest.json").read_text())["shop"]["file"]
    assert (await shop.get(f"/assets/{name}")).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await shop.get("/assets/manifest.json")).headers["cache-control"] == "no-cache"
    assert (await shop.get("/assets/..%2fpages.py")).status_code == 404
    assert "frame-ancestors" in page_headers(config)["Content-Security-Policy"]


def test_lock_file_pins_every_package_by_hash_and_names_no_address() -> None:
    text = (WEB / "package-lock.json").read_text()
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert len(packages) > 50
    assert [name for name, entry in packages.items() if not entry.get("integrity", "").startswith("sha512-")] == []
    assert "resolved" not in text
    assert re.search(r"\.tgz|registry|git\+", text) is None
    assert "omit-lockfile-registry-resolved=true" in (WEB / ".npmrc").read_text()


def test_sources_load_nothing_from_another_host() -> None:
    for path in (WEB / "source").iterdir():
        for address in re.findall(r"https?://[^\s\"'`)]+", path.read_text()):
            assert address == "http://www.w3.org/2000/svg", path.name

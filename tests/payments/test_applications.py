"""Under which application a payment runs, over which account and for whom, where a provider tells these apart."""

import asyncio
from dataclasses import replace

import pytest

from app.auth import WechatIdentity
from app.errors import InvalidInput, MethodNotConfigured
from app.payments.model import Payment
from tests.fixtures.market import OPENID, Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.payments.ways import assert_paid

V3_METHODS = {
    "WECHAT_MINI_PROGRAM": "mini_program_appid",
    "WECHAT_JSAPI": "official_account_appid",
    "WECHAT_NATIVE": "appid",
    "WECHAT_H5": "appid",
}


async def app_of(market: Market, payment: Payment) -> str:
    """The application WeChat has the trade under."""
    trade = await market.trade(payment)
    assert trade is not None
    found: str = trade["app_id"]
    return found


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner", "v2", "v2_partner"])
async def test_each_method_runs_under_its_own_application(market: Market, mode: str) -> None:
    record = market.records[mode]
    assert len({record[name] for name in V3_METHODS.values()}) == 2
    for method, name in V3_METHODS.items():
        payment = await market.create(method, mode=mode)
        assert (payment.app_id, await app_of(market, payment)) == (record[name], record[name])
        if payment.action is not None and payment.action["kind"] == "WechatPayParams":
            assert payment.action["appId"] == record[name]
        asked = await market.create(method, mode=mode, app_id=record[name])
        assert await app_of(market, asked) == record[name]


async def test_the_account_that_has_the_application_is_chosen(market: Market) -> None:
    mini, official = (market.records["v3"][name] for name in ("mini_program_appid", "official_account_appid"))
    first, second = await market.account("v3"), await market.account("v2")
    accounts = market.shop.runtime.accounts
    await accounts.change(ADMIN, first, fields={"official_account_appid": mini})
    for app_id, account_id in ((None, first), (mini, first), (official, second)):
        payment = await market.create("WECHAT_JSAPI", app_id=app_id)
        assert payment.merchant_account_id == account_id
        assert await app_of(market, payment) == (app_id or mini)
    await accounts.set_enabled(ADMIN, second, enabled=False)
    await refused(market, InvalidInput, "appId", "WECHAT_JSAPI", app_id=official)
    await accounts.set_enabled(ADMIN, first, enabled=False)
    await refused(market, MethodNotConfigured, "method", "WECHAT_JSAPI")


async def refused(market: Market, kind: type[Exception], field: str, method: str, **fields: object) -> None:
    """Told which field, and nothing is there afterwards that was not before."""
    before = await market.shop.count("payment"), await market.shop.count("event")
    calls = (await market.control("GET", "/calls"))["total"]
    with pytest.raises(kind) as told:
        await market.create(method, **fields)  # type: ignore[arg-type]  # a table of fields
    assert getattr(told.value, "field", None) == field
    assert (await market.shop.count("payment"), await market.shop.count("event")) == before
    assert (await market.control("GET", "/calls"))["total"] == calls


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("WECHAT_JSAPI", {"openid": None}, "openid"),
        ("WECHAT_JSAPI", {"openid": "o with spaces"}, "openid"),
        ("WECHAT_MINI_PROGRAM", {"openid": None}, "openid"),
        ("WECHAT_CLOUD", {"openid": None}, "openid"),
        ("WECHAT_NATIVE", {"openid": OPENID}, "openid"),
        ("WECHAT_H5", {"openid": OPENID}, "openid"),
        ("WECHAT_H5", {"client_address": None}, "method"),
        ("WECHAT_NATIVE", {"app_id": "wx00000000000000ff"}, "appId"),
        ("WECHAT_CLOUD", {"app_id": "wx00000000000000ff"}, "appId"),
    ],
)
async def test_who_pays_and_under_what_is_settled_before_anything_is_there(
    market: Market, method: str, fields: dict[str, object], field: str
) -> None:
    await market.account("cloud")
    await refused(market, InvalidInput, field, method, **fields)


async def test_a_caller_who_logged_in_with_wechat_pays_as_who_they_are(market: Market) -> None:
    record = market.records["v3"]
    await market.account("v3")
    mini = WechatIdentity(record["mini_program_appid"], "oLoggedIntoTheMiniProgram007")
    buyer = replace(BUYER, wechat=mini)
    payments = market.shop.runtime.payments
    request = replace(await market.request("WECHAT_MINI_PROGRAM"), openid=None, idempotency_key="k-1")
    made = await asyncio.gather(*(payments.create(buyer, request, correlation_id="c") for _ in range(2)))
    assert {payment.id for payment in made} == {made[0].id}
    assert (made[0].openid, made[0].app_id) == (mini.openid, mini.app_id)
    await market.pay(made[0])
    await market.shop.settle()
    paid = await assert_paid(market, made[0])
    trade = await market.trade(paid)
    assert trade is not None
    assert trade["openid"] == mini.openid
    # Who somebody is in one application says nothing in another, and needs to say nothing where anybody may pay.
    request = replace(await market.request("WECHAT_JSAPI"), openid=None)
    with pytest.raises(InvalidInput) as told:
        await payments.create(buyer, request, correlation_id="c")
    assert told.value.field == "appId"
    code = await payments.create(buyer, await market.request("WECHAT_NATIVE"), correlation_id="c")
    assert (code.openid, code.app_id) == (None, record["appid"])
    # A shop that names the payer itself is not contradicted.
    request = replace(await market.request("WECHAT_JSAPI"), app_id=record["official_account_appid"])
    other = await payments.create(buyer, request, correlation_id="c")
    assert (other.openid, other.app_id) == (OPENID, record["official_account_appid"])


async def test_an_order_paid_by_two_providers_keeps_both_and_flags_the_second(market: Market) -> None:
    order_id = await market.shop.order()
    first = await market.create("ALIPAY_QR", order_id=order_id)
    second = await market.create("WECHAT_NATIVE", order_id=order_id)
    await asyncio.gather(market.pay(first), market.pay(second))
    await market.shop.settle()
    for payment in (first, second):
        await assert_paid(market, payment)
    flags = await market.shop.connection.fetch(
        "select (details->>'surplus')::bool as surplus from shouyin.event where kind = 'payment.successful'"
    )
    assert sorted(row["surplus"] for row in flags) == [False, True]

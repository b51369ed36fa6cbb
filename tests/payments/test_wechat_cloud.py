"""What is cloud pay's alone: callbacks that nobody signs, believed only where WeChat says the same when it is asked."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.payments.model import Payment
from tests.fixtures.market import Market, Received

PROVIDER = "WECHAT"


@pytest.fixture
async def market(standing_market: Market) -> Market:
    """One market for all of these tests, cleared for each."""
    await standing_market.clear()
    return standing_market


async def paid(market: Market) -> tuple[Payment, Received]:
    """A payment the provider has money for, whose true callback was lost on its way to us."""
    payment = await market.create("WECHAT_CLOUD", mode="cloud")
    await market.pay(payment)
    callback = market.received[-1]
    await market.shop.connection.execute("delete from shouyin.notification")
    assert (await market.find(payment)).status == "PENDING"
    return payment, callback


async def assert_refused(market: Market, callback: Received, reason: str) -> None:
    """The platform is told to come again, the metric says why, and nothing else happened."""
    before = market.counted("shouyin_notifications_total", provider=PROVIDER, outcome=reason)
    answer = await market.deliver(callback)
    assert (answer.status_code, answer.json()) == (400, {"errcode": 1, "errmsg": "REFUSED"})
    assert market.counted("shouyin_notifications_total", provider=PROVIDER, outcome=reason) == before + 1
    assert await market.shop.count("notification") == 0


def told(callback: Received, **changes: Any) -> Received:
    """The callback with other words in it."""
    return replace(callback, body=json.dumps(json.loads(callback.body) | changes).encode())


async def test_a_callback_counts_on_the_internal_path_with_its_secret_only(market: Market) -> None:
    payment, callback = await paid(market)
    assert callback.path.startswith(f"/internal/notify/wechat/{payment.merchant_account_id}/")
    place, _, secret = callback.path.rpartition("/")
    assert len(secret) >= 32
    await assert_refused(market, replace(callback, path=f"{place}/{secret[::-1]}"), "token")
    # In public there is no such door; a proxy has to keep /internal to itself, and need not know more.
    for path in (callback.path.removeprefix("/internal"), place, f"{callback.path}/{secret}", f"{callback.path}/"):
        answer = await market.deliver(replace(callback, path=path))
        assert answer.status_code == 404, path
    await assert_refused(market, replace(callback, path=place.removeprefix("/internal")), "token")
    assert await market.shop.count("notification") == 0
    assert (await market.deliver(callback)).json() == {"errcode": 0, "errmsg": "SUCCESS"}
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"


async def test_a_callback_without_the_platform_s_header_is_refused(market: Market) -> None:
    _, callback = await paid(market)
    headers = {name: text for name, text in callback.headers.items() if name != "x-wx-source"}
    await assert_refused(market, replace(callback, headers=headers), "source")


async def test_a_forged_callback_pays_nothing_that_wechat_does_not_confirm(market: Market) -> None:
    _, callback = await paid(market)
    unpaid = await market.create("WECHAT_CLOUD", mode="cloud")
    await assert_refused(market, told(callback, outTradeNo=unpaid.out_trade_no), "unconfirmed")
    await assert_refused(market, told(callback, outTradeNo="SY20261121200000AAAAAAAAAA"), "unconfirmed")
    await market.shop.settle()
    assert await market.find(unpaid) == unpaid
    assert (await market.calls(unpaid))["wechat.cloud.queryorder"] == 1


async def test_a_callback_while_wechat_does_not_answer_is_asked_for_again(market: Market) -> None:
    """Storing what nobody confirmed would be believing it; refusing it loses nothing, for it is repeated."""
    payment = await market.create("WECHAT_CLOUD", mode="cloud")
    await market.control("POST", "/faults", method="wechat.cloud.queryorder", kind="http_500")
    await market.pay(payment)
    [notice] = await market.notices(payment)
    assert (notice["state"], await market.shop.count("notification")) == ("WAITING", 0)
    await market.advance(timedelta(seconds=15))
    [notice] = await market.notices(payment)
    assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [False, True]
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"totalFee": 1}, "amount_fen"),
        ({"totalFee": 12300}, "amount_fen"),
        ({"feeType": "USD"}, "currency"),
        ({"subAppid": "wx00000000000000ff"}, "sub_appid"),
        ({"subMchId": "1900009999"}, "sub_mch_id"),
        ({"subOpenid": "oPayerOfTheMarket00000000008"}, "payer"),
    ],
)
async def test_a_callback_that_contradicts_wechat_is_recorded_and_pays_nothing(
    market: Market, changes: dict[str, Any], field: str
) -> None:
    payment, callback = await paid(market)
    await market.deliver(told(callback, **changes))
    await market.shop.settle()
    assert (await market.find(payment)).status == "PENDING"
    assert await market.shop.connection.fetchval("select array_agg(field) from shouyin.difference") == [field]
    assert await market.shop.count("flow_run") == 0


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"{", b'{"returnCode":"SUCCESS"}', b"\xff\xfe", b"[" * 9999]
)
async def test_a_callback_that_is_none_is_refused(market: Market, body: bytes) -> None:
    _, callback = await paid(market)
    await assert_refused(market, replace(callback, body=body), "malformed")


async def test_a_cancelled_payment_has_no_callback_and_still_ends(market: Market) -> None:
    payment = await market.create("WECHAT_CLOUD", mode="cloud")
    await market.show(payment)
    await market.control("POST", f"/trades/{payment.out_trade_no}/fail", reason="用户取消")
    await market.shop.settle()
    assert (await market.find(payment)).status == "PENDING"
    await market.advance(timedelta(hours=2, minutes=1))
    await market.shop.settle()
    assert (await market.find(payment)).status == "CLOSED"
    assert await market.notices(payment) == []

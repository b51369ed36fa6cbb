"""What is APIv2's alone: two ways to sign, and XML from anybody at the door."""

import re
from datetime import timedelta

import pytest

from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.payments.ways import assert_paid

BOMB = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
HOSTILE = {
    "external entity": '<!DOCTYPE xml [<!ENTITY x SYSTEM "file:///etc/passwd">]><xml><out_trade_no>&x;</out_trade_no></xml>',
    "parameter entity": '<!DOCTYPE xml [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]><xml><a>1</a></xml>',
    "bomb": f'<!DOCTYPE xml [<!ENTITY e0 "ha">{BOMB}]><xml><a>&e9;</a></xml>',
    "no xml": "return_code=SUCCESS",
    "depth": "<xml>" * 5000 + "</xml>" * 5000,
    "a field twice": "<xml><sign>A</sign><sign>B</sign></xml>",
    "nothing": "",
}


@pytest.fixture
async def market(standing_market: Market) -> Market:
    """One market for all of these tests, cleared for each."""
    await standing_market.clear()
    return standing_market


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
@pytest.mark.parametrize("mode", ["v2", "v2_partner"])
@pytest.mark.parametrize("method", ["WECHAT_JSAPI", "WECHAT_NATIVE"])
async def test_either_way_to_sign_pays_tells_answers_and_closes(
    market: Market, method: str, mode: str, sign_type: str
) -> None:
    accounts, account_id = market.shop.runtime.accounts, await market.account(mode)
    await accounts.change(ADMIN, account_id, fields={"sign_type": sign_type})
    told, asked, closed = [await market.create(method, mode=mode) for _ in range(3)]
    await market.pay(told)
    sign = re.search(rb"<sign>(?:<!\[CDATA\[)?([0-9A-F]+)", market.received[-1].body)
    assert sign is not None
    assert len(sign[1]) == {"MD5": 32, "HMAC-SHA256": 64}[sign_type]
    await market.pay(asked, notify=False)
    await market.advance(timedelta(minutes=5))
    await market.shop.settle()
    for payment in (told, asked):
        await assert_paid(market, payment)
    ended = await market.shop.runtime.payments.close(BUYER, closed.id, correlation_id="c")
    assert ended.api_status == "CLOSED"
    await accounts.change(ADMIN, account_id, fields={"sign_type": ""})


@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
async def test_what_was_ordered_before_the_way_to_sign_was_changed_is_told_in_the_old_one(
    market: Market, sign_type: str
) -> None:
    accounts, account_id = market.shop.runtime.accounts, await market.account("v2")
    await accounts.change(ADMIN, account_id, fields={"sign_type": sign_type})
    payment = await market.create("WECHAT_JSAPI", mode="v2")
    other = {"MD5": "HMAC-SHA256", "HMAC-SHA256": "MD5"}[sign_type]
    await accounts.change(ADMIN, account_id, fields={"sign_type": other})
    await market.pay(payment)
    await market.shop.settle()
    await assert_paid(market, payment)
    await accounts.change(ADMIN, account_id, fields={"sign_type": ""})


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
async def test_xml_that_is_meant_to_harm_is_refused(market: Market, body: str) -> None:
    payment = await market.create("WECHAT_NATIVE", mode="v2")
    await market.pay(payment)
    true = market.received[-1]
    await market.shop.connection.execute("delete from shouyin.notification")
    answer = await market.deliver(true, body=body.encode())
    assert "FAIL" in answer.text
    assert "SUCCESS" not in answer.text
    assert await market.shop.count("notification") == 0
    await market.shop.settle()
    assert await market.find(payment) == payment
    answer = await market.deliver(true)
    assert (
        answer.text
        == "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>"
    )

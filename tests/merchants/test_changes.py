"""What becomes of payments under way when their merchant account is given other settings."""

from datetime import timedelta

import pytest

from app.errors import InvalidInput
from app.payments.model import Payment
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN

# Merchants the sandbox does not know, and whose keys are not asked for: nothing is sent.
OTHERS: dict[str, dict[str, str]] = {
    "public_key": {"app_id": "9021000100000009"},
    "v3": {"mchid": "1900000009"},
    "v3_partner": {"sub_mchid": "1900000109"},
    "v2": {"mch_id": "1900000009", "client_certificate_p12": ""},
    "cloud": {"sub_mch_id": "1900000109"},
}


async def make(market: Market, mode: str) -> Payment:
    method = {"cloud": "WECHAT_CLOUD", "public_key": "ALIPAY_PAGE"}.get(mode, "WECHAT_NATIVE")
    return await market.create(method, mode=mode)


async def settings(market: Market) -> object:
    return await market.shop.connection.fetch("select settings, sealed, version from shouyin.merchant_account")


@pytest.mark.parametrize("mode", ["v3", "v2"])
@pytest.mark.parametrize("told", [True, False], ids=["by a notice", "by a question"])
async def test_a_payment_is_paid_under_the_application_it_began_under(market: Market, mode: str, told: bool) -> None:
    payment = await market.create("WECHAT_MINI_PROGRAM", mode=mode)
    account_id = market.accounts[mode]
    changed = await market.shop.runtime.accounts.change(ADMIN, account_id, fields={"mini_program_appid": ""})
    assert payment.app_id not in changed.offers["WECHAT_MINI_PROGRAM"]
    market.shop.runtime.accounts.forget([account_id])
    await market.pay(payment, notify=told)
    await market.advance(timedelta(minutes=1))
    await market.shop.settle()
    assert (await market.find(payment)).status == "SUCCESSFUL"
    assert await market.shop.count("difference") == 0


@pytest.mark.parametrize("mode", OTHERS)
async def test_an_account_stays_its_merchants_while_it_has_payments(market: Market, mode: str) -> None:
    payment = await make(market, mode)
    before = await settings(market)
    with pytest.raises(InvalidInput, match="another account") as refused:
        await market.shop.runtime.accounts.change(ADMIN, payment.merchant_account_id, fields=OTHERS[mode])
    assert refused.value.field == "fields"
    assert await settings(market) == before
    assert await market.shop.count("audit where action = 'account.change'") == 0


@pytest.mark.parametrize("mode", ["public_key", "v3", "cloud"])
async def test_a_merchants_number_that_was_mistyped_is_mended(market: Market, mode: str) -> None:
    """Nothing was ever paid, and nothing is open: no money can be lost from sight."""
    account_id = await market.account(mode)
    changed = await market.shop.runtime.accounts.change(ADMIN, account_id, fields=OTHERS[mode])
    assert changed.settings.items() >= OTHERS[mode].items()

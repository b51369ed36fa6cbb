"""What is Alipay's alone: pages it knows nothing of until they are opened, its own word for "unknown", its clock."""

from datetime import timedelta

import httpx
import pytest

from app.errors import InvalidInput, OutcomeUnknown, ProviderRejected
from tests.fixtures.market import Market
from tests.fixtures.shop import BUYER
from tests.payments.ways import Meanwhile


@pytest.mark.parametrize("fault", ["20000", "timeout"])
async def test_an_unknown_outcome_is_not_a_failure_and_is_found_out_under_the_same_number(
    market: Market, fault: str
) -> None:
    await market.control("POST", "/faults", method="alipay.trade.precreate", kind=fault)
    payment = await market.create("ALIPAY_QR")
    assert (payment.api_status, payment.checking, payment.final, payment.action) == ("PENDING", True, False, None)
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.checking, found.out_trade_no, found.action is not None) == (False, payment.out_trade_no, True)
    await market.pay(found)
    await market.shop.settle()
    assert (await market.find(payment)).api_status == "SUCCESSFUL"
    assert len((await market.control("GET", "/trades"))["trades"]) == 1


@pytest.mark.parametrize("fault", ["20000", "timeout"])
async def test_asking_in_vain_changes_nothing_and_says_so(market: Market, fault: str) -> None:
    payment = await market.create()
    await market.pay(payment, notify=False)
    await market.control("POST", "/faults", method="alipay.trade.query", kind=fault)
    with pytest.raises(OutcomeUnknown):
        await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert await market.find(payment) == payment
    synced = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert synced.api_status == "SUCCESSFUL"


async def test_a_page_closed_before_it_was_opened_can_still_be_paid_and_the_success_is_kept(market: Market) -> None:
    payment = await market.create()
    closed = await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (closed.api_status, closed.check_at is not None) == ("CLOSED", True)
    await market.pay(payment, notify=False)
    await market.advance(timedelta(hours=3))
    await market.shop.settle()
    late = await market.find(payment)
    assert (late.api_status, late.late) == ("SUCCESSFUL", True)
    assert await market.shop.status_of(payment.order_id) == "paid"


async def test_a_clock_that_is_wrong_gives_the_documented_refusal(market: Market) -> None:
    await market.control("POST", "/clock", advance_s=0, strict_timestamps=True)
    for skew in (timedelta(minutes=-11), timedelta(minutes=22)):
        market.shop.clock.advance(skew)
        with pytest.raises(ProviderRejected) as rejected:
            await market.create("ALIPAY_QR")
        assert rejected.value.extra["provider"]["code"] == "isv.invalid-timestamp"
        assert "clock" in rejected.value.message


async def test_a_payer_who_would_never_match_is_refused(market: Market) -> None:
    """Alipay names the payer by its own id: an openid kept with the payment would make every success disagree."""
    with pytest.raises(InvalidInput) as refused:
        await market.create(openid="o-7")
    assert refused.value.field == "openid"
    assert await market.shop.count("payment") == 0


async def test_a_page_that_is_opened_while_it_is_being_closed_stays_open_here(market: Market) -> None:
    """The close finds no trade; a moment later there is one, and it can be paid."""
    payment = await market.create()
    network = Meanwhile(3, lambda: market.show(payment))
    async with httpx.AsyncClient(transport=network, trust_env=False) as http:
        process = await market.shop.open(http=http)
        network.arm()
        with pytest.raises(OutcomeUnknown):
            await process.payments.close(BUYER, payment.id, correlation_id="c")
    assert await market.find(payment) == payment
    closed = await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (closed.status, closed.check_at) == ("CLOSED", None)
    trade = await market.trade(payment)
    assert trade is not None
    assert trade["status"] == "CLOSED"

"""Money given back in the provider's own console beside refunds of ours: counted once, whatever is heard of first."""

import pytest

from app.payments.model import Payment
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentReport, ReportedStatus
from tests.fixtures.shop import ADMIN, Shop
from tests.refunds.test_reserve import find, money, opened, paid, report


@pytest.fixture
async def granted(shop: Shop) -> Shop:
    """A shop whose administrators may refund."""
    await shop.runtime.permissions.grant(ADMIN, "admin", "payment.refund")
    return shop


async def told(shop: Shop, payment: Payment, refunded_fen: int) -> None:
    """The provider says how much of a payment it has given back in all, as Alipay's notices do."""
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    said = PaymentReport(
        payment.out_trade_no, ReportedStatus.SUCCESSFUL, "query", payment.amount_fen, transaction_id="T1",
        refunded_fen=refunded_fen,
    )  # fmt: skip
    await apply_payment_report(shop.runtime.db, shop.clock, account, said, correlation_id="c")


async def test_what_is_on_its_way_is_not_counted_as_given_back_elsewhere(granted: Shop) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 500)
    # 3.00 in the console, and ours was done as well: we hear of the sum before we hear of ours.
    await told(granted, payment, 800)
    assert await money(granted, payment) == (300, 500)
    await report(granted, refund, "REFUNDED")
    assert await money(granted, payment) == (800, 0)
    assert (await find(granted, payment)).api_status == "PARTIALLY_REFUNDED"
    await told(granted, payment, 800)
    assert await money(granted, payment) == (800, 0)
    # What is left can still be given back, and no more.
    with pytest.raises(LookupError, match="REFUND_EXCEEDS_PAYMENT"):
        await opened(granted, payment, 431)
    await report(granted, await opened(granted, payment, 430), "REFUNDED")
    assert (await find(granted, payment)).api_status == "REFUNDED"


async def test_our_own_refunds_in_any_state_are_never_elsewhere(granted: Shop) -> None:
    payment = await paid(granted)
    done, waiting = await opened(granted, payment, 500), await opened(granted, payment, 730)
    await told(granted, payment, 500)
    await report(granted, done, "REFUNDED")
    for refunded_fen in (500, 1230):
        await told(granted, payment, refunded_fen)
        assert await money(granted, payment) == (500, 730)
    await report(granted, waiting, "REFUNDED")
    assert await money(granted, payment) == (1230, 0)
    assert "payment.refunded_elsewhere" not in await granted.events(payment.id)
    assert await granted.count("difference") == 0


async def test_all_of_it_elsewhere_while_one_of_ours_is_open(granted: Shop) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 500)
    await told(granted, payment, 1230)
    assert await money(granted, payment) == (730, 500)
    # The provider had nothing left for ours; the next word about the payment says where the money is.
    await report(granted, refund, "FAILED")
    await told(granted, payment, 1230)
    assert await money(granted, payment) == (1230, 0)
    assert (await find(granted, payment)).api_status == "REFUNDED"


async def test_a_sum_that_did_not_hold_ours_is_put_right_by_the_next(granted: Shop) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 200)
    await told(granted, payment, 900)
    await report(granted, refund, "REFUNDED")
    assert await money(granted, payment) == (900, 0)
    await told(granted, payment, 1100)
    assert await money(granted, payment) == (1100, 0)


async def test_one_called_failed_that_was_heard_of_as_given_back_elsewhere_is_counted_once(granted: Shop) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 500)
    await report(granted, refund, "FAILED")
    await told(granted, payment, 500)
    assert await money(granted, payment) == (500, 0)
    assert (await report(granted, refund, "REFUNDED")).changed
    assert await money(granted, payment) == (500, 0)
    await report(granted, await opened(granted, payment, 730), "REFUNDED")
    assert (await find(granted, payment)).api_status == "REFUNDED"
    assert (await granted.events(payment.id)).count("refund.refunded") == 2

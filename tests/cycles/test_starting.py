"""Starting: what is refused, who signs when, and what is paid while signing."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.cycles.model import CyclePayment, CyclePaymentStatus, DeductionStatus
from app.errors import (
    AmountMismatch,
    Forbidden,
    IdempotencyConflict,
    InvalidAmount,
    InvalidInput,
    MethodNotConfigured,
    OrderAlreadyPaid,
    OrderNotFound,
    PlanExpired,
    SceneAlreadySigned,
    SceneNotAllowed,
    ShouyinError,
)
from tests.cycles.conftest import ASK, DEDUCT, Club
from tests.fixtures.shop import ADMIN, BUYER, STRANGER

PENDING, ACTIVE, CANCELLED, EXPIRED = (
    CyclePaymentStatus.PENDING, CyclePaymentStatus.ACTIVE, CyclePaymentStatus.CANCELLED, CyclePaymentStatus.EXPIRED,
)  # fmt: skip
DAY, WEEK = timedelta(days=1), timedelta(days=7)
# The link lives for an hour, and what was signed in its last second may be told of some minutes later.
LINK_OVER = timedelta(hours=1, minutes=11)


# --- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "field"),
    [
        ({"scene": "INDUSTRY|NOWHERE"}, SceneNotAllowed, "scene"),
        ({"price_fen": 10_001}, InvalidAmount, "price"),
        ({"price_fen": 0}, InvalidAmount, "price"),
        ({"ceiling_fen": 10_001}, InvalidAmount, "maxPrice"),
        ({"ceiling_fen": 989}, InvalidAmount, "maxPrice"),
        ({"interval_days": 6}, InvalidInput, "intervalDays"),
        ({"interval_days": 0}, InvalidInput, "intervalDays"),
        ({"first_deduction_on": -1}, InvalidInput, "firstDeductionOn"),
        ({"first_deduction_on": 4000}, InvalidInput, "firstDeductionOn"),
        ({"subject": " "}, InvalidInput, "subject"),
        ({"subject": "x" * 257}, InvalidInput, "subject"),
        ({"merchant_account_id": 999}, MethodNotConfigured, "merchantAccountId"),
        ({"order_id": 10**9}, OrderNotFound, "orderId"),
        ({"pay_now": True, "price_fen": 500}, AmountMismatch, "price"),
    ],
)
async def test_what_cannot_be_agreed_on_is_refused_and_leaves_nothing(
    club: Club, fields: dict[str, Any], error: type[ShouyinError], field: str
) -> None:
    if isinstance(days := fields.get("first_deduction_on"), int):
        fields = {"first_deduction_on": club.today() + days * DAY}
    with pytest.raises(error) as refused:
        await club.start(**fields)
    assert refused.value.field == field
    await expect_nothing(club)


async def expect_nothing(club: Club) -> None:
    """No row, no event, no payment and no call."""
    for table in ("cycle_payment", "event", "payment", "kept_order"):
        assert await club.market.shop.count(table) == 0
    assert (await club.market.control("GET", "/calls"))["total"] == 0


async def test_somebody_elses_order_is_not_there(club: Club) -> None:
    order_id = await club.market.shop.order(user_id=7)
    with pytest.raises(OrderNotFound):
        await club.start(STRANGER, order_id=order_id)
    await expect_nothing(club)


async def test_an_order_that_is_paid_is_not_paid_again_while_signing(club: Club) -> None:
    payment = await club.market.create()
    await club.market.pay(payment)
    await club.settle()
    with pytest.raises(OrderAlreadyPaid) as refused:
        await club.start(order_id=payment.order_id, price="12.30", pay_now=True)
    assert refused.value.field == "orderId"
    assert await club.market.shop.count("cycle_payment") == 0
    cycle = await club.start(order_id=payment.order_id, price="12.30")
    assert cycle.status is PENDING


async def test_without_permission_or_plan_nothing_starts(own_club: Club) -> None:
    club = own_club
    permissions = club.runtime.permissions
    await permissions.revoke(ADMIN, role="*", action="cycle.start")
    with pytest.raises(Forbidden):
        await club.start()
    with pytest.raises(Forbidden):
        await club.start(scene="INDUSTRY|NOWHERE")
    await permissions.grant(ADMIN, role="*", action="cycle.start")
    await club.runtime.plan.set(ADMIN, "monthly", club.runtime.clock.now() + timedelta(hours=1))
    await club.market.advance(timedelta(hours=2))
    with pytest.raises(PlanExpired):
        await club.start()
    assert await club.market.shop.count("cycle_payment") == 0


async def test_the_same_key_gives_the_same_cycle_and_another_wish_a_conflict(club: Club) -> None:
    order_id = await club.market.shop.order(amount="9.90")
    first = await club.start(order_id=order_id, idempotency_key="k")
    again = await club.start(order_id=order_id, idempotency_key="k")
    assert again == first
    with pytest.raises(IdempotencyConflict) as refused:
        await club.start(order_id=order_id, idempotency_key="k", interval_days=8)
    assert refused.value.field == "idempotencyKey"
    assert await club.market.shop.count("cycle_payment") == 1
    assert await club.events(first) == ["cycle.created"]


async def test_two_that_race_for_a_scene_make_one_agreement(club: Club) -> None:
    other = await club.market.shop.open()
    orders = [await club.market.shop.order(amount="9.90") for _ in range(6)]
    answers = await asyncio.gather(
        *(
            club.start(order_id=order_id, runtime=runtime)
            for order_id, runtime in zip(orders, (club.runtime, other) * 3, strict=True)
        ),
        return_exceptions=True,
    )
    won = [answer for answer in answers if isinstance(answer, CyclePayment)]
    lost = [answer for answer in answers if isinstance(answer, SceneAlreadySigned)]
    assert (len(won), len(lost)) == (1, 5)
    for error in lost:
        assert (error.field, error.extra) == ("scene", {"cyclePaymentId": str(won[0].id)})
        assert "cancelCyclePayment" in str(error)
    assert await club.market.shop.count("cycle_payment") == 1
    # another scene and another user are free
    await club.start(scene="INDUSTRY|EDU")
    await club.start(STRANGER)


async def test_one_key_sent_twice_at_once_makes_one(club: Club) -> None:
    other = await club.market.shop.open()
    order_id = await club.market.shop.order(amount="9.90")
    answers = await asyncio.gather(
        *(club.start(order_id=order_id, idempotency_key="k", runtime=each) for each in (club.runtime, other) * 3)
    )
    assert len({answer.id for answer in answers}) == 1
    assert await club.market.shop.count("cycle_payment") == 1


# --- signing ----------------------------------------------------------------------------------------------------------


async def test_never_signed_it_expires_and_the_scene_is_free(club: Club) -> None:
    cycle = await club.start()
    with pytest.raises(SceneAlreadySigned):
        await club.start()
    await club.later(timedelta(hours=1))
    assert (await club.find(cycle)).status is PENDING
    await club.later(timedelta(minutes=11))
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.action, cycle.check_at) == (EXPIRED, None, None)
    assert await club.events(cycle) == ["cycle.created", "cycle.expired"]
    assert await club.calls(ASK) <= 9
    assert (await club.member()).status is ACTIVE


async def test_signed_without_a_notice_it_is_found_within_a_minute(club: Club) -> None:
    cycle = await club.start()
    await club.sign(cycle, notify=False)
    assert (await club.find(cycle)).status is PENDING
    await club.later(timedelta(seconds=31))
    assert (await club.find(cycle)).status is ACTIVE


async def test_signed_in_the_last_second_without_a_notice_it_is_found(club: Club) -> None:
    cycle = await club.start()
    await club.open(cycle)
    await club.later(timedelta(minutes=59, seconds=59))
    await club.sign(cycle, notify=False)
    await club.later(timedelta(minutes=11))
    assert (await club.find(cycle)).status is ACTIVE


async def revived(club: Club) -> CyclePayment:
    """Signed in time; by the clock of the provider's notice it is over here already."""
    cycle = await club.start()
    await club.open(cycle)
    await club.later(timedelta(minutes=59))
    club.deafen()
    await club.fault("20000", method=ASK, count=1)
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
    # nothing that is asked is answered, until the link is long over
    await club.connection.execute(
        "update shouyin.cycle_payment set status = 'EXPIRED', check_at = null, action = null, ended_at = now()"
    )
    club.hear()
    return cycle


async def test_signed_after_it_was_given_up_it_lives_unless_another_does(club: Club) -> None:
    cycle = await revived(club)
    await club.later(timedelta(minutes=10))
    found = await club.find(cycle)
    assert (found.status, found.agreement_no is None) == (ACTIVE, False)
    assert await club.status_there(cycle) == "NORMAL"


async def test_signed_after_it_was_given_up_and_replaced_it_is_ended_at_the_provider(club: Club) -> None:
    cycle = await revived(club)
    other = await club.start()
    await club.later(timedelta(minutes=10))
    found = await club.find(cycle)
    assert (found.status, found.ending, found.check_at) == (EXPIRED, False, None)
    assert await club.status_there(cycle) == "UNSIGNED"
    assert (await club.sign(other)).status is ACTIVE
    assert set(await club.events(cycle)) == {"cycle.created", "cycle.repeated"}


@pytest.mark.parametrize("notify", [True, False])
async def test_signed_after_it_was_cancelled_here_it_is_ended_at_the_provider(club: Club, notify: bool) -> None:
    cycle = await club.start()
    await club.open(cycle)
    assert (await club.cancel(cycle)).status is CANCELLED
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign", notify=notify)
    await club.settle()
    await club.later(LINK_OVER)
    found = await club.find(cycle)
    assert (found.status, found.ending, found.check_at) == (CANCELLED, False, None)
    assert await club.status_there(cycle) == "UNSIGNED"
    assert (await club.events(cycle))[:2] == ["cycle.created", "cycle.cancelled"]
    assert "cycle.started" not in await club.events(cycle)
    await club.days(2)
    assert await club.calls(DEDUCT) == 0


# --- paid while signing -----------------------------------------------------------------------------------------------


async def begun(club: Club, **fields: Any) -> CyclePayment:
    cycle = await club.start(pay_now=True, **fields)
    await club.open(cycle)
    return cycle


async def first_payment(club: Club, cycle: CyclePayment) -> tuple[str, str]:
    (payment,) = [each for each in await club.payments(cycle) if each.deduction_id is None]
    return payment.status, await club.market.shop.status_of(payment.order_id)


async def pay(club: Club, cycle: CyclePayment, **options: Any) -> None:
    (payment,) = await club.payments(cycle)
    await club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", **options)
    await club.settle()


async def test_paid_and_signed_the_first_deduction_comes_an_interval_later(club: Club) -> None:
    cycle = await begun(club)
    assert cycle.first_deduction_on == club.today() + WEEK
    await pay(club, cycle)
    found = await club.find(cycle)
    assert (found.status, found.next_deduction_on) == (ACTIVE, cycle.first_deduction_on)
    assert await first_payment(club, cycle) == ("SUCCESSFUL", "paid")
    await club.days(7)
    assert [row.status for row in await club.deductions(cycle)] == [DeductionStatus.PAID]
    assert len(await club.taken(cycle)) == 2


async def test_paid_but_not_signed_the_payment_stands_and_the_scene_is_free(club: Club) -> None:
    cycle = await begun(club)
    await pay(club, cycle, sign=False)
    assert await first_payment(club, cycle) == ("SUCCESSFUL", "paid")
    assert (await club.find(cycle)).status is PENDING
    await club.later(LINK_OVER)
    assert (await club.find(cycle)).status is EXPIRED
    await club.days(8)
    assert (await club.calls(DEDUCT), len(await club.taken(cycle))) == (0, 1)
    assert (await club.member()).status is ACTIVE


async def test_signed_but_not_paid_the_agreement_stands(club: Club) -> None:
    cycle = await begun(club)
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
    await club.settle()
    assert (await club.find(cycle)).status is ACTIVE
    await club.later(timedelta(hours=2))
    assert await first_payment(club, cycle) == ("CLOSED", "unpaid")
    await club.days(7)
    assert [row.status for row in await club.deductions(cycle)] == [DeductionStatus.PAID]


async def test_neither_paid_nor_signed_both_are_over(club: Club) -> None:
    cycle = await begun(club)
    (payment,) = await club.payments(cycle)
    closed = await club.runtime.payments.close(BUYER, payment.id, correlation_id="c-x")
    assert closed.status == "CLOSED"
    await club.later(LINK_OVER)
    assert (await club.find(cycle)).status is EXPIRED
    assert await club.taken(cycle) == []

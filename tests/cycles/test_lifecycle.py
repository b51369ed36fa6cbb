"""From the signature to the last deduction, against the sandbox."""

from datetime import timedelta

from app.cycles.model import CyclePaymentStatus, DeductionStatus
from tests.cycles.conftest import Club


async def test_a_year_begins_with_a_signature_and_the_first_deduction(club: Club) -> None:
    cycle = await club.start()
    assert (cycle.status, cycle.next_deduction_on, cycle.agreement_no) == (CyclePaymentStatus.PENDING, None, None)
    cycle = await club.sign(cycle)
    assert (cycle.status, cycle.next_deduction_on) == (CyclePaymentStatus.ACTIVE, club.today())
    assert await club.deductions(cycle) == []
    await club.at(club.today())
    (deduction,) = await club.deductions(cycle)
    assert (deduction.due_on, deduction.status, deduction.price_fen) == (club.today(), DeductionStatus.PAID, 990)
    (payment,) = await club.payments(cycle)
    assert (payment.api_status, payment.amount_fen, payment.order_id) == ("SUCCESSFUL", 990, deduction.order_id)
    assert payment.order_id != cycle.order_id
    assert await club.market.shop.status_of(payment.order_id) == "paid"
    assert await club.market.shop.status_of(cycle.order_id) == "unpaid"
    assert await club.taken(cycle) == [payment.out_trade_no]
    assert await club.events(cycle) == ["cycle.created", "cycle.started", "deduction.due", "deduction.paid"]


async def test_every_due_date_makes_an_order_and_is_charged_once(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.days(31)
    deductions = await club.deductions(cycle)
    assert [row.due_on for row in deductions] == [first + timedelta(days=7 * step) for step in range(5)]
    assert {row.status for row in deductions} == {DeductionStatus.PAID}
    assert len({row.order_id for row in deductions}) == 5
    assert len(await club.taken(cycle)) == 5
    cycle = await club.find(cycle)
    assert (cycle.paid_deductions, cycle.next_deduction_on) == (5, first + timedelta(days=35))

"""What each of the provider's answers to a deduction leads to: here, at the provider, and in the shop's own table."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.auth import Principal
from app.cycles.actions import agreements_of
from app.cycles.model import CyclePayment, CyclePaymentStatus, Deduction, DeductionStatus, SuspendedFor
from app.payments.model import Payment
from app.providers.contract import PutOff
from tests.cycles.conftest import DEDUCT, Club
from tests.fixtures.shop import BUYER, STRANGER

QUERY = "alipay.trade.query"
CLOSE = "alipay.trade.close"
DAY = timedelta(days=1)
OPENED = ["cycle.created", "cycle.started", "deduction.due"]


async def expect_paid(club: Club, cycle: CyclePayment, *, attempts: int = 1) -> tuple[Deduction, list[Payment]]:
    """One due date, paid by its last attempt, once; everybody says the same of it."""
    (deduction,) = await club.deductions(cycle)
    payments = await club.payments(cycle)
    last = payments[-1]
    assert (deduction.status, deduction.attempts, deduction.payment_id) == (DeductionStatus.PAID, attempts, last.id)
    assert (deduction.failure, deduction.attempt_at) == (None, None)
    assert [payment.status for payment in payments[:-1]] == ["FAILED"] * (attempts - 1)
    assert (last.status, last.paid_amount_fen, last.order_id) == ("SUCCESSFUL", 990, deduction.order_id)
    assert deduction.order_id is not None
    assert await club.market.shop.status_of(deduction.order_id) == "paid"
    assert await club.taken(cycle) == [last.out_trade_no]
    current = await club.find(cycle)
    assert (current.status, current.paid_deductions, current.failed_dates) == (CyclePaymentStatus.ACTIVE, 1, 0)
    assert (current.open_deduction_id, current.failure) == (None, None)
    assert str(current.plan_on) == (await club.agreement(cycle))["next_deduction_on"]
    assert await club.events(cycle) == [*OPENED, "deduction.paid"]
    return deduction, payments


# --- the classes of answers -------------------------------------------------------------------------------------------


async def test_paid_at_once_is_one_call(club: Club) -> None:
    cycle = await club.member()
    await club.at(club.today())
    deduction, _ = await expect_paid(club, cycle)
    assert (deduction.tries, await club.calls(DEDUCT), await club.calls(QUERY)) == (0, 1, 0)
    assert (await club.find(cycle)).plan_on == deduction.due_on + timedelta(days=7)


async def test_taken_in_and_paid_a_minute_later_is_waited_for(club: Club) -> None:
    await club.policy("processing", settle=60)
    cycle = await club.member()
    await club.at(club.today())
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, deduction.attempt_at, payment.status) == (DeductionStatus.CHARGING, None, "PENDING")
    await club.later(timedelta(minutes=1))
    await expect_paid(club, cycle)
    assert await club.calls(DEDUCT) == 1


async def test_taken_in_and_paid_without_a_notice_is_asked_about(club: Club) -> None:
    await club.policy("processing", settle=60)
    cycle = await club.member()
    await club.at(club.today())
    club.deafen()
    await club.later(timedelta(minutes=10))
    await expect_paid(club, cycle)
    assert await club.calls(DEDUCT) == 1
    assert await club.calls(QUERY) <= 3


async def test_taken_in_and_closed_is_tried_on_the_next_day(club: Club) -> None:
    await club.policy("processing", settle=60, **{"as": "closed"}, count=1)
    cycle = await club.member()
    await club.at(club.today())
    await club.later(timedelta(hours=7))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, deduction.tries, payment.status) == (DeductionStatus.CHARGING, 1, "CLOSED")
    assert await club.calls(DEDUCT) == 1
    await club.at(club.today() + DAY)
    deduction, payments = await club.last(cycle)
    assert (deduction.status, deduction.attempts) == (DeductionStatus.PAID, 2)
    assert [payment.status for payment in payments] == ["CLOSED", "SUCCESSFUL"]
    assert await club.taken(cycle) == [payments[1].out_trade_no]


async def test_taken_in_and_never_settled_is_closed_before_the_next_attempt(club: Club) -> None:
    await club.policy("processing", settle="hold", count=1)
    cycle = await club.member()
    await club.at(club.today())
    await club.later(timedelta(hours=6, minutes=1))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.CHARGING, "CLOSED")
    trade = await club.market.trade(payment)
    assert trade is not None
    assert trade["status"] == "CLOSED"
    await club.at(club.today() + DAY)
    deduction, payments = await club.last(cycle)
    assert [payment.status for payment in payments] == ["CLOSED", "SUCCESSFUL"]
    assert len(await club.taken(cycle)) == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("20000", {}),
        ("timeout", {"latency_s": 0}),
        ("http_500", {}),
        ("business_error", {"sub_code": "ACQ.SYSTEM_ERROR"}),
        ("business_error", {"sub_code": "ACQ.TRADE_HAS_SUCCESS"}),
    ],
)
async def test_an_unknown_outcome_is_asked_about_and_sent_again_under_its_number(
    club: Club, kind: str, options: dict[str, Any]
) -> None:
    cycle = await club.member()
    await club.fault(kind, **options)
    await club.at(club.today())
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status, payment.checking) == (DeductionStatus.CHARGING, "CREATED", True)
    assert (await club.calls(DEDUCT), await club.taken(cycle)) == (1, [])
    await club.later(timedelta(seconds=20))
    await expect_paid(club, cycle)
    assert (await club.calls(DEDUCT), await club.calls(QUERY)) == (2, 1)


@pytest.mark.parametrize("kind", ["lost_reply", "bad_signature"])
async def test_work_whose_answer_was_lost_is_found_and_not_done_again(club: Club, kind: str) -> None:
    cycle = await club.member()
    await club.fault(kind)
    club.deafen()
    await club.at(club.today())
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.CHARGING, "CREATED")
    assert await club.taken(cycle) == [payment.out_trade_no]
    await club.later(timedelta(seconds=20))
    await expect_paid(club, cycle)
    assert (await club.calls(DEDUCT), await club.calls(QUERY)) == (1, 1)


async def test_an_outage_of_hours_asks_ever_more_slowly_and_charges_once(club: Club) -> None:
    cycle = await club.member()
    await club.fault("20000", method="*", count=1000)
    await club.at(club.today())
    for _ in range(24):
        await club.later(timedelta(minutes=5))
    assert await club.calls("") < 20
    await club.market.control("DELETE", "/faults")
    await club.later(timedelta(minutes=31))
    await expect_paid(club, cycle)
    assert await club.calls(DEDUCT) == 2


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ACQ.BUYER_BALANCE_NOT_ENOUGH", "ACQ.BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR"])
async def test_without_means_it_is_tried_on_three_days_and_then_suspended(club: Club, code: str) -> None:
    cycle = await club.member()
    first = club.today()
    await club.policy(code)
    await club.at(first)
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, deduction.tries) == (DeductionStatus.CHARGING, 1)
    assert payment.failure is not None
    assert (payment.status, payment.failure.provider_code) == ("FAILED", code)
    assert deduction.attempt_at == club.runtime.cycles.schedule.on(first + DAY)
    await club.later(timedelta(hours=12))
    assert await club.calls(DEDUCT) == 1
    await club.days(2)
    deduction, payments = await club.last(cycle)
    assert (deduction.status, deduction.tries, deduction.attempts) == (DeductionStatus.FAILED, 3, 3)
    assert [payment.status for payment in payments] == ["FAILED"] * 3
    assert len({payment.out_trade_no for payment in payments}) == 3
    assert {payment.order_id for payment in payments} == {deduction.order_id}
    assert await club.market.shop.status_of(payments[0].order_id) == "failed"
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.suspended_for) == (CyclePaymentStatus.SUSPENDED, SuspendedFor.FAILURES)
    assert cycle.failure is not None
    assert (cycle.failure.provider_code, cycle.failed_dates) == (code, 1)
    assert await club.events(cycle) == [*OPENED, "deduction.failed", "cycle.suspended"]
    await club.policy("now")
    await club.days(3)
    assert (await club.calls(DEDUCT), await club.taken(cycle)) == (3, [])
    cycle = await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    assert (cycle.status, cycle.next_deduction_on) == (CyclePaymentStatus.ACTIVE, first + timedelta(days=7))
    await club.days(2)
    deductions = await club.deductions(cycle)
    assert [row.status for row in deductions] == [DeductionStatus.FAILED, DeductionStatus.PAID]
    assert deductions[1].due_on == first + timedelta(days=7)
    assert len(await club.taken(cycle)) == 1


@pytest.mark.parametrize("day", [2, 3])
async def test_money_that_comes_on_a_later_day_keeps_the_grid(club: Club, day: int) -> None:
    cycle = await club.member()
    first = club.today()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=day - 1)
    await club.at(first)
    await club.days(day - 1)
    deduction, _ = await expect_paid(club, cycle, attempts=day)
    assert deduction.due_on == first
    assert (await club.find(cycle)).next_deduction_on == first + timedelta(days=7)


async def test_outside_the_window_the_plan_is_asked_for_and_it_is_tried_at_once(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.CYCLE_PAY_DATE_NOT_MATCH", count=1)
    await club.at(club.today())
    deduction, _ = await expect_paid(club, cycle, attempts=2)
    assert deduction.tries == 1
    assert await club.calls("alipay.user.agreement.query") == 1


async def test_a_window_that_never_opens_ends_with_the_tries(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.OVER_DEDUCT_PERIOD")
    await club.at(club.today())
    deduction, payments = await club.last(cycle)
    assert (deduction.status, deduction.tries, len(payments)) == (DeductionStatus.FAILED, 3, 3)
    assert (await club.find(cycle)).suspended_for is SuspendedFor.FAILURES
    assert await club.calls(DEDUCT) == 3


async def test_what_was_agreed_on_is_used_up_suspends_at_once(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.CYCLE_PAY_TOTAL_TIMES_EXCEED")
    await club.at(club.today())
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.FAILED, "FAILED")
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.suspended_for) == (CyclePaymentStatus.SUSPENDED, SuspendedFor.RULE)
    await club.days(8)
    assert (await club.calls(DEDUCT), len(await club.deductions(cycle))) == (1, 1)
    assert await club.events(cycle) == [*OPENED, "deduction.failed", "cycle.suspended"]


@pytest.mark.parametrize("code", ["ACQ.PAYMENT_REQUEST_HAS_RISK", "ACQ.A_WORD_OF_TOMORROW"])
async def test_a_refusal_that_no_day_helps_gives_up_at_once(club: Club, code: str) -> None:
    await club.work_with(failed_dates=2)
    cycle = await club.member()
    await club.policy(code, count=1)
    await club.at(club.today())
    deduction, _ = await club.last(cycle)
    assert (deduction.status, deduction.attempts) == (DeductionStatus.FAILED, 1)
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.failed_dates) == (CyclePaymentStatus.ACTIVE, 1)
    await club.days(7)
    deductions = await club.deductions(cycle)
    assert [row.status for row in deductions] == [DeductionStatus.FAILED, DeductionStatus.PAID]
    assert (await club.find(cycle)).failed_dates == 0
    assert await club.calls(DEDUCT) == 2


@pytest.mark.parametrize("ended_as", ["STOP", "USER_AGREEMENT_NOT_EXIST", "AGREEMENT_HAS_UNSIGNED"])
async def test_an_agreement_that_ended_unheard_is_found_by_the_deduction(club: Club, ended_as: str) -> None:
    cycle = await club.member()
    await club.market.control("POST", "/alipay/agreements/policy", ended_as=ended_as)
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/unsign", notify=False)
    await club.at(club.today())
    cycle = await club.find(cycle)
    deduction, (payment,) = await club.last(cycle)
    assert (cycle.status, deduction.status, payment.status) == (
        CyclePaymentStatus.CANCELLED, DeductionStatus.SKIPPED, "FAILED",
    )  # fmt: skip
    assert await club.events(cycle) == [*OPENED, "cycle.cancelled", "deduction.skipped"]
    await club.days(8)
    assert (await club.calls(DEDUCT), len(await club.deductions(cycle))) == (1, 1)


async def test_an_agreement_that_is_refused_but_lives_is_tried_on_another_day(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.AGREEMENT_STATUS_NOT_NORMAL", count=1)
    await club.at(club.today())
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    assert await club.calls("alipay.user.agreement.query") == 1
    await club.days(1)
    await expect_paid(club, cycle, attempts=2)


async def test_a_refused_deduction_whose_trade_was_left_open_is_closed_before_it_counts(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True)
    await club.at(club.today())
    _, (payment,) = await club.last(cycle)
    trade = await club.market.trade(payment)
    assert trade is not None
    assert (trade["status"], payment.status) == ("CLOSED", "FAILED")
    await club.days(1)
    await expect_paid(club, cycle, attempts=2)


# --- the merchant at fault --------------------------------------------------------------------------------------------


async def test_a_merchant_at_fault_rests_for_everybody_and_no_payer_pays_for_it(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.MERCHANT_STATUS_NOT_NORMAL")
    await club.at(club.today())
    other = await club.member(STRANGER, price="5.00")
    assert await club.calls(DEDUCT) == 1
    first, second = (await club.deductions(cycle))[0], (await club.deductions(other))[0]
    assert (first.status, first.tries, first.attempts) == (DeductionStatus.CHARGING, 0, 1)
    assert (second.status, second.tries, second.attempts) == (DeductionStatus.CHARGING, 0, 1)
    await club.later(timedelta(hours=5))
    assert await club.calls(DEDUCT) == 1
    # still not in order: both are asked for once more, and rest again
    await club.later(timedelta(hours=1, minutes=1))
    assert await club.calls(DEDUCT) <= 3
    held = await club.connection.fetchval("select count(*) from shouyin.event where kind = 'deduction.held'")
    assert held == 1
    await club.policy("now")
    await club.later(timedelta(hours=6, minutes=1))
    for each in (cycle, other):
        deduction, _ = await club.last(each)
        assert (deduction.status, deduction.tries) == (DeductionStatus.PAID, 0)
        assert len(await club.taken(each)) == 1
        assert (await club.find(each)).status is CyclePaymentStatus.ACTIVE
    assert await club.market.shop.count("deduction_hold") == 0


async def test_an_application_that_is_turned_away_rests_and_has_charged_nobody(club: Club) -> None:
    cycle = await club.member()
    await club.fault("error_response", code="40006", sub_code="isv.insufficient-isv-permissions")
    await club.at(club.today())
    other = await club.member(STRANGER, price="5.00")
    assert await club.calls(DEDUCT) == 1
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, deduction.tries, payment.api_status) == (DeductionStatus.CHARGING, 0, "PENDING")
    assert payment.failure is not None
    assert payment.failure.provider_code == "isv.insufficient-isv-permissions"
    assert await club.market.shop.count("deduction_hold") == 1
    await club.later(timedelta(minutes=16))
    for each in (cycle, other):
        deduction, payments = await club.last(each)
        assert (deduction.status, deduction.attempts, len(payments)) == (DeductionStatus.PAID, 1, 1)
        assert len(await club.taken(each)) == 1
    assert await club.market.shop.count("deduction_hold") == 0


async def test_money_that_comes_while_the_merchant_rests_is_recorded_at_once(club: Club) -> None:
    cycle = await club.member()
    await club.policy("processing", settle=120, count=1)
    await club.at(club.today())
    other = await club.start(STRANGER, price="5.00")
    await club.policy("ACQ.MERCHANT_STATUS_NOT_NORMAL")
    await club.sign(other)
    assert await club.market.shop.count("deduction_hold") == 1
    await club.later(timedelta(minutes=3))
    await expect_paid(club, cycle)


async def test_a_cancelled_cycle_lets_go_of_its_deduction_while_the_merchant_rests(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.MERCHANT_STATUS_NOT_NORMAL")
    await club.at(club.today())
    await club.cancel(cycle)
    await club.settle()
    deduction, _ = await club.last(cycle)
    assert await club.market.shop.count("deduction_hold") == 1
    assert deduction.status is DeductionStatus.SKIPPED
    assert await club.calls(DEDUCT) == 1


async def test_one_merchant_at_fault_does_not_hold_another(club: Club) -> None:
    cycle = await club.member()
    theirs = await club.market.account("certificate")
    other = await club.member(STRANGER, merchant_account_id=theirs)
    number = cycle.external_agreement_no
    await club.policy("ACQ.MERCHANT_AGREEMENT_INVALID", external_agreement_no=number)
    await club.at(club.today())
    assert (await club.last(cycle))[0].status is DeductionStatus.CHARGING
    assert (await club.last(other))[0].status is DeductionStatus.PAID
    held = await club.connection.fetch("select merchant_account_id from shouyin.deduction_hold")
    assert [row["merchant_account_id"] for row in held] == [cycle.merchant_account_id]


async def test_a_merchant_at_fault_for_a_year_runs_out_of_no_numbers(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.MERCHANT_STATUS_NOT_NORMAL", count=3)
    await club.at(club.today())
    await club.connection.execute("update shouyin.deduction set attempts = 998")
    for _ in range(3):
        await club.later(timedelta(hours=6, minutes=1))
    deduction, payments = await club.last(cycle)
    assert (deduction.status, deduction.attempts, len(payments)) == (DeductionStatus.PAID, 1001, 4)
    assert [payment.out_trade_no[22:] for payment in payments] == ["001", "999", "1000", "1001"]


# --- side by side -----------------------------------------------------------------------------------------------------


async def test_two_workers_take_each_due_date_once(club: Club) -> None:
    members = [Principal(sub=str(number), roles=frozenset({"user"})) for number in range(20, 26)]
    cycles = [await club.member(each) for each in members]
    other = await club.market.shop.open()
    await club.market.advance(timedelta(hours=1, minutes=1))
    shop = club.market.shop
    await asyncio.gather(shop.settle(), shop.settle(other), shop.settle(), shop.settle(other))
    await club.settle()
    for cycle in cycles:
        (deduction,) = await club.deductions(cycle)
        assert (deduction.status, deduction.attempts, len(await club.taken(cycle))) == (DeductionStatus.PAID, 1, 1)
    assert await club.calls(DEDUCT) == len(cycles)
    assert await club.connection.fetchval("select count(*) from public.orders") == 2 * len(cycles)


async def test_a_notice_of_another_amount_is_recorded_and_the_provider_is_asked(club: Club) -> None:
    await club.policy("processing", settle="hold", count=1)
    cycle = await club.member()
    await club.at(club.today())
    (payment,) = await club.payments(cycle)
    await club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", amount="1.00")
    await club.settle()
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.CHARGING, "PENDING")
    assert await club.connection.fetchval("select reported from shouyin.difference") == "100"
    await club.later(timedelta(minutes=10))
    await expect_paid(club, cycle)


# --- what comes late --------------------------------------------------------------------------------------------------


async def surplus(club: Club, cycle: CyclePayment) -> list[int]:
    """Payments whose success was flagged as surplus."""
    rows = await club.connection.fetch(
        "select payment_id from shouyin.event where kind = 'payment.successful' and details @> '{\"surplus\": true}'"
    )
    return [row["payment_id"] for row in rows]


async def test_a_success_after_the_refusal_ends_the_deduction(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True, settle=3600, late=True)
    await club.at(club.today())
    await club.later(timedelta(hours=1, minutes=1))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status, payment.late) == (DeductionStatus.PAID, "SUCCESSFUL", True)
    await club.days(2)
    assert (await club.calls(DEDUCT), await club.taken(cycle)) == (1, [payment.out_trade_no])
    assert await surplus(club, cycle) == []
    cycle = await club.find(cycle)
    assert (cycle.paid_deductions, str(cycle.plan_on)) == (1, (await club.agreement(cycle))["next_deduction_on"])


async def test_a_success_that_no_notice_told_is_found_before_the_next_attempt(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True, settle=3600, late=True)
    await club.at(club.today())
    club.deafen()
    await club.days(1)
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.PAID, "SUCCESSFUL")
    assert (await club.calls(DEDUCT), await club.taken(cycle)) == (1, [payment.out_trade_no])


async def test_a_success_after_the_deduction_was_given_up_wins(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.PAYMENT_REQUEST_HAS_RISK", count=1, leave_trade=True, settle=3600, late=True)
    await club.at(club.today())
    deduction, _ = await club.last(cycle)
    assert deduction.status is DeductionStatus.FAILED
    await club.later(timedelta(hours=1, minutes=1))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, deduction.failure, payment.late) == (DeductionStatus.PAID, None, True)
    assert payment.order_id == deduction.order_id
    assert await club.market.shop.status_of(payment.order_id) == "paid"
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.paid_deductions, cycle.failed_dates) == (CyclePaymentStatus.SUSPENDED, 1, 0)
    assert await club.events(cycle) == [*OPENED, "deduction.failed", "cycle.suspended", "deduction.paid"]
    await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    await club.days(8)
    assert len(await club.taken(cycle)) == 2


async def test_a_success_after_the_cycle_was_cancelled_is_recorded(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True, settle=3600, late=True)
    await club.at(club.today())
    await club.cancel(cycle)
    await club.settle()
    assert (await club.last(cycle))[0].status is DeductionStatus.SKIPPED
    await club.later(timedelta(hours=1, minutes=1))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status, payment.late) == (DeductionStatus.PAID, "SUCCESSFUL", True)
    assert await club.market.shop.status_of(payment.order_id) == "paid"
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.paid_deductions) == (CyclePaymentStatus.CANCELLED, 1)


async def test_a_first_attempt_that_succeeds_after_the_second_is_flagged_once(club: Club) -> None:
    cycle = await club.member()
    two_days = 2 * 24 * 3600
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True, settle=two_days, late=True)
    await club.at(club.today())
    await club.days(1)
    deduction, (first, second) = await club.last(cycle)
    assert (deduction.status, deduction.payment_id) == (DeductionStatus.PAID, second.id)
    await club.days(2)
    deduction, (first, second) = await club.last(cycle)
    assert (deduction.status, deduction.payment_id) == (DeductionStatus.PAID, second.id)
    assert [first.status, second.status] == ["SUCCESSFUL", "SUCCESSFUL"]
    assert await surplus(club, cycle) == [first.id]
    cycle = await club.find(cycle)
    assert (cycle.paid_deductions, (await club.events(cycle)).count("deduction.paid")) == (1, 1)
    # the plan of the provider moved on twice: the next due date waits for its window, and is charged all the same
    await club.days(10)
    assert [row.status for row in await club.deductions(cycle)] == [DeductionStatus.PAID] * 2
    assert len(await club.taken(cycle)) == 3


async def test_a_success_while_another_attempt_waits_to_be_sent_stops_that(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1, leave_trade=True, settle=25 * 3600, late=True)
    await club.at(club.today())
    # the provider's plan was moved by somebody else: the next attempt is refused, the third waits for the window
    account = await club.runtime.accounts.open(cycle.merchant_account_id)
    later = club.today() + timedelta(days=20)
    moved = await agreements_of(account).put_off(account.account, cycle.key("http://127.0.0.1:9/n"), later)
    assert moved == PutOff(later)
    await club.at(club.today() + DAY)
    deduction, payments = await club.last(cycle)
    assert [payment.status for payment in payments] == ["FAILED", "FAILED", "CREATED"]
    assert deduction.attempt_at == club.runtime.cycles.schedule.on(later - timedelta(days=3))
    await club.later(timedelta(hours=2))
    deduction, payments = await club.last(cycle)
    assert (deduction.status, deduction.payment_id) == (DeductionStatus.PAID, payments[0].id)
    assert [payment.status for payment in payments] == ["SUCCESSFUL", "FAILED", "FAILED"]
    assert payments[2].failure is not None
    assert payments[2].failure.code == "ORDER_ALREADY_PAID"
    assert await club.market.shop.status_of(payments[0].order_id) == "paid"
    await club.days(2)
    assert await club.taken(cycle) == [payments[0].out_trade_no]
    assert await club.events(cycle) == [*OPENED, "deduction.paid"]


# --- paid in another way ----------------------------------------------------------------------------------------------


async def paid_by_hand(club: Club, deduction: Deduction) -> Payment:
    """The payer pays the deduction's order on the shop's page."""
    assert deduction.order_id is not None
    payment = await club.market.create("ALIPAY_PAGE", order_id=deduction.order_id)
    await club.market.pay(payment)
    await club.settle()
    return payment


async def test_an_order_paid_by_hand_between_tries_is_not_charged_and_the_cycle_goes_on(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1)
    await club.at(club.today())
    deduction, _ = await club.last(cycle)
    await paid_by_hand(club, deduction)
    await club.days(1)
    deduction, payments = await club.last(cycle)
    assert (deduction.status, len(payments)) == (DeductionStatus.SKIPPED, 1)
    assert (await club.calls(DEDUCT), await club.taken(cycle)) == (1, [])
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.failed_dates) == (CyclePaymentStatus.ACTIVE, 0)
    await club.days(6)
    assert [row.status for row in await club.deductions(cycle)] == [DeductionStatus.SKIPPED, DeductionStatus.PAID]


async def test_an_order_paid_by_hand_before_the_attempt_was_sent_is_not_charged(club: Club) -> None:
    other = await club.member(STRANGER, price="5.00")
    await club.policy("ACQ.MERCHANT_STATUS_NOT_NORMAL", count=1)
    await club.at(club.today())
    cycle = await club.member()
    deduction, (attempt,) = await club.last(cycle)
    assert (deduction.status, attempt.status) == (DeductionStatus.CHARGING, "CREATED")
    await paid_by_hand(club, deduction)
    await club.later(timedelta(hours=7))
    deduction, (attempt,) = await club.last(cycle)
    assert (deduction.status, attempt.status) == (DeductionStatus.SKIPPED, "FAILED")
    assert await club.taken(cycle) == []
    assert await club.market.shop.status_of(attempt.order_id) == "paid"
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    assert len(await club.taken(other)) == 1


async def test_an_order_whose_amount_changed_between_tries_is_given_up(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1)
    await club.at(club.today())
    deduction, _ = await club.last(cycle)
    await club.connection.execute("update public.orders set amount = 1 where id = $1", deduction.order_id)
    await club.days(1)
    deduction, payments = await club.last(cycle)
    assert (deduction.status, len(payments), await club.calls(DEDUCT)) == (DeductionStatus.FAILED, 1, 1)
    assert deduction.failure is not None
    assert deduction.failure.code == "ORDER_NOT_CHARGEABLE"
    assert (await club.find(cycle)).suspended_for is SuspendedFor.FAILURES

"""When money is taken: outages, the provider's plan and its window, notices, and what is changed in between."""

from datetime import date, time, timedelta
from typing import Any

import pytest

from app.cycles.model import CyclePayment, CyclePaymentStatus, DeductionStatus, SuspendedFor
from app.errors import CycleNotChangeable, InvalidAmount, InvalidInput, ProviderRejected
from app.flows.results import UpcomingDeduction
from tests.cycles.conftest import DEDUCT, EARLY, LATE, Club
from tests.fixtures.shop import ADMIN, BUYER

PUT_OFF = "alipay.user.agreement.executionplan.modify"
ASK = "alipay.user.agreement.query"
PAID, WAITING, CHARGING, SKIPPED = (
    DeductionStatus.PAID, DeductionStatus.WAITING, DeductionStatus.CHARGING, DeductionStatus.SKIPPED,
)  # fmt: skip
DAY, WEEK = timedelta(days=1), timedelta(days=7)


async def history(club: Club, cycle: CyclePayment) -> list[tuple[int, DeductionStatus]]:
    """Days since the first date, and what became of each due date."""
    first = cycle.first_deduction_on
    return [((row.due_on - first).days, row.status) for row in await club.deductions(cycle)]


async def plan(club: Club, cycle: CyclePayment) -> date:
    """Where the provider's plan stands; we know it."""
    stands_at = date.fromisoformat((await club.agreement(cycle))["next_deduction_on"])
    assert (await club.find(cycle)).plan_on == stands_at
    return stands_at


async def noticed(club: Club, cycle: CyclePayment) -> list[str]:
    """The due dates that were announced, in order."""
    rows = await club.connection.fetch(
        "select details ->> 'due_on' as due_on from shouyin.event"
        " where cycle_payment_id = $1 and kind = 'cycle.upcoming' order by id",
        cycle.id,
    )
    return [row["due_on"] for row in rows]


# --- outages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["2026-12-25", "2027-01-31", "2028-02-22"])
async def test_an_outage_of_two_days_charges_once_and_moves_no_later_date(club: Club, first: str) -> None:
    began = date.fromisoformat(first)
    await club.at(began, EARLY)
    cycle = await club.member()
    await club.at(began)
    await club.at(began + WEEK - DAY)
    # nothing worked for two days
    await club.at(began + WEEK + 2 * DAY)
    assert await history(club, cycle) == [(0, PAID), (7, PAID)]
    await club.at(began + 2 * WEEK - DAY)
    assert len(await club.deductions(cycle)) == 2
    await club.at(began + 2 * WEEK)
    assert await history(club, cycle) == [(0, PAID), (7, PAID), (14, PAID)]
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF), len(await club.taken(cycle))) == (3, 1, 3)
    assert (await club.find(cycle)).next_deduction_on == began + 3 * WEEK


async def test_a_long_outage_is_made_up_for_one_at_a_time_within_the_providers_window(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    await club.at(first + timedelta(days=20))
    # the plan was put off to this day and moved on a week from here: the next one has to wait for its window
    assert await history(club, cycle) == [(0, PAID), (7, PAID), (14, CHARGING)]
    assert await plan(club, cycle) == first + timedelta(days=27)
    await club.at(first + timedelta(days=23))
    assert await history(club, cycle) == [(0, PAID), (7, PAID), (14, CHARGING)]
    await club.at(first + timedelta(days=24))
    assert await history(club, cycle) == [(0, PAID), (7, PAID), (14, PAID), (21, CHARGING)]
    await club.at(first + timedelta(days=31))
    assert (await history(club, cycle))[3:] == [(21, PAID), (28, CHARGING)]
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF), len(await club.taken(cycle))) == (4, 1, 4)
    assert (await club.events(cycle)).count("deduction.paid") == 4


async def test_dates_missed_for_longer_than_the_bound_are_passed_over(club: Club) -> None:
    await club.work_with(missed_days=2)
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    await club.at(first + timedelta(days=20))
    assert await history(club, cycle) == [(0, PAID), (7, SKIPPED), (14, SKIPPED)]
    skipped = (await club.deductions(cycle))[1]
    assert (skipped.order_id, skipped.attempts, skipped.finished_at is None) == (None, 0, False)
    assert (await club.events(cycle))[4:] == ["deduction.skipped", "deduction.skipped", "cycle.upcoming"]
    await club.at(first + timedelta(days=21))
    assert (await history(club, cycle))[3:] == [(21, PAID)]
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.failed_dates, cycle.paid_deductions) == (CyclePaymentStatus.ACTIVE, 0, 2)
    assert await club.calls(DEDUCT) == 2


async def test_a_date_within_the_bound_is_charged_though_older_ones_are_not(club: Club) -> None:
    await club.work_with(missed_days=2)
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    await club.at(first + timedelta(days=16))
    assert await history(club, cycle) == [(0, PAID), (7, SKIPPED), (14, PAID)]


# --- the provider's plan ----------------------------------------------------------------------------------------------


async def test_a_late_charge_moves_the_plan_and_the_next_is_on_time_within_the_window(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first + 3 * DAY)
    assert await plan(club, cycle) == first + timedelta(days=10)
    await club.at(first + WEEK)
    assert await history(club, cycle) == [(0, PAID), (7, PAID)]
    assert await plan(club, cycle) == first + timedelta(days=17)
    await club.at(first + 2 * WEEK)
    assert await history(club, cycle) == [(0, PAID), (7, PAID), (14, PAID)]
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF), await club.calls(ASK)) == (3, 1, 0)


async def test_a_plan_that_drifted_past_the_window_is_waited_for_without_asking_in_vain(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first + 4 * DAY)
    await club.at(first + WEEK)
    # the provider would allow it from five days before, the contract we were told of from three
    assert await history(club, cycle) == [(0, PAID), (7, CHARGING)]
    await club.at(first + WEEK + DAY)
    assert await history(club, cycle) == [(0, PAID), (7, PAID)]
    await club.at(first + 2 * WEEK + DAY)
    assert (await history(club, cycle))[2:] == [(14, PAID)]
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF)) == (3, 1)


async def test_a_plan_that_the_provider_puts_off_no_more_ends_in_a_new_agreement(own_club: Club) -> None:
    club = own_club
    account_id = await club.market.account("public_key")
    await club.runtime.accounts.change(ADMIN, account_id, fields={"cycle_plan_changes": "1"})
    cycle = await club.member()
    first = club.today()
    await club.at(first + DAY)
    assert await history(club, cycle) == [(0, PAID)]
    await club.at(first + timedelta(days=9))
    (_, second) = await club.deductions(cycle)
    assert second.failure is not None
    assert (second.status, second.failure.provider_code) == (DeductionStatus.FAILED, "PLAN_CHANGES_USED_UP")
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.suspended_for, cycle.plan_changes) == (
        CyclePaymentStatus.SUSPENDED, SuspendedFor.RULE, 1,
    )  # fmt: skip
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF), len(await club.taken(cycle))) == (1, 1, 1)


async def test_a_provider_that_refuses_to_put_off_is_asked_where_its_plan_stands(club: Club) -> None:
    await club.market.control("POST", "/alipay/agreements/policy", max_modifications=0)
    cycle = await club.member()
    await club.at(club.today() + DAY)
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, deduction.tries) == (DeductionStatus.FAILED, 3)
    assert await club.taken(cycle) == []
    assert await club.calls(DEDUCT) == 3
    assert await club.calls(PUT_OFF) + await club.calls(ASK) <= 9


async def test_a_plan_whose_putting_off_is_unknown_is_put_off_once_and_charged_once(club: Club) -> None:
    cycle = await club.member()
    await club.fault("lost_reply", method=PUT_OFF)
    await club.at(club.today() + DAY)
    assert await club.calls(DEDUCT) == 0
    await club.later(timedelta(minutes=1))
    assert await history(club, cycle) == [(0, PAID)]
    assert (await club.calls(DEDUCT), len(await club.taken(cycle))) == (1, 1)
    await plan(club, cycle)


async def test_nothing_is_asked_for_in_the_last_minutes_of_a_day(club: Club) -> None:
    await club.at(club.today(), time(23, 50))
    first = club.today()
    cycle = await club.member()
    (deduction,) = await club.deductions(cycle)
    assert (deduction.status, await club.calls(DEDUCT)) == (CHARGING, 0)
    assert deduction.attempt_at == club.runtime.cycles.schedule.on(first + DAY)
    await club.at(first + DAY, EARLY)
    assert await club.calls(DEDUCT) == 0
    await club.at(first + DAY)
    assert await history(club, cycle) == [(0, PAID)]
    assert (await club.find(cycle)).next_deduction_on == first + WEEK


async def test_asking_while_the_provider_has_a_deduction_in_hand_does_not_move_the_plan_twice(club: Club) -> None:
    await club.policy("processing", settle="hold", count=1)
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    (payment,) = await club.payments(cycle)
    await club.market.control("POST", f"/trades/{payment.out_trade_no}/pay", notify=False)
    await club.runtime.cycles.sync(BUYER, cycle.id)
    await club.later(timedelta(hours=1))
    assert await history(club, cycle) == [(0, PAID)]
    assert await plan(club, cycle) == first + WEEK
    await club.at(first + WEEK)
    assert await history(club, cycle) == [(0, PAID), (7, PAID)]


# --- notices ----------------------------------------------------------------------------------------------------------


async def test_each_coming_deduction_is_announced_once_three_days_before(club: Club) -> None:
    seen: list[UpcomingDeduction] = []

    async def on_upcoming(coming: UpcomingDeduction, _connection: Any) -> None:
        seen.append(coming)

    await club.work_with(on_upcoming)
    cycle = await club.member(first_deduction_on=club.today() + 5 * DAY)
    first = cycle.first_deduction_on
    await club.at(first - 4 * DAY)
    assert seen == []
    await club.at(first - 3 * DAY, EARLY)
    (coming,) = seen
    assert (coming.cycle_payment_id, coming.order_id, coming.order_table) == (cycle.id, cycle.order_id, "orders")
    assert (coming.due_on, coming.price_fen, coming.subject) == (first, 990, "Club membership")
    await club.days(12)
    assert [each.due_on for each in seen] == [first, first + WEEK]
    assert await noticed(club, cycle) == [str(first), str(first + WEEK)]


async def test_pausing_and_resuming_announces_no_date_twice(club: Club) -> None:
    cycle = await club.member(first_deduction_on=club.today() + 2 * DAY)
    assert await noticed(club, cycle) == [str(cycle.first_deduction_on)]
    for _ in range(2):
        await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
        await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
        await club.settle()
    assert await noticed(club, cycle) == [str(cycle.first_deduction_on)]
    for days in (0, 4, 7):
        await club.at(cycle.first_deduction_on + days * DAY)
    assert await noticed(club, cycle) == [str(cycle.first_deduction_on), str(cycle.first_deduction_on + WEEK)]


# --- changes ----------------------------------------------------------------------------------------------------------


async def test_another_price_holds_from_the_next_deduction_on(club: Club) -> None:
    cycle = await club.member(ceiling_fen=1500)
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1)
    await club.at(club.today())
    cycles = club.runtime.cycles
    cycle = await cycles.change_price(ADMIN, cycle.id, 1500, correlation_id="c-1")
    with pytest.raises(InvalidAmount) as refused:
        await cycles.change_price(ADMIN, cycle.id, 1501, correlation_id="c-2")
    assert refused.value.field == "price"
    assert (await club.find(cycle)).price_fen == 1500
    await club.days(7)
    assert [row.price_fen for row in await club.deductions(cycle)] == [990, 1500]
    payments = await club.payments(cycle)
    assert [payment.paid_amount_fen for payment in payments] == [None, 990, 1500]
    amounts = await club.connection.fetch("select amount from public.orders order by id")
    assert [str(row["amount"]) for row in amounts] == ["9.90", "9.90", "15.00"]


async def test_a_date_is_put_off_here_and_at_the_provider(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    cycles = club.runtime.cycles
    moved = await cycles.change_date(ADMIN, cycle.id, first + timedelta(days=10), correlation_id="c-1")
    assert moved.next_deduction_on == first + timedelta(days=10)
    assert await plan(club, cycle) == first + timedelta(days=10)
    for wrong in (first + WEEK, first + timedelta(days=10), first - DAY):
        with pytest.raises(InvalidInput) as refused:
            await cycles.change_date(ADMIN, cycle.id, wrong, correlation_id="c-2")
        assert refused.value.field == "nextDeductionOn"
    await club.at(first + timedelta(days=9))
    assert await history(club, cycle) == [(0, PAID)]
    await club.at(first + timedelta(days=10))
    await club.at(first + timedelta(days=14))
    await club.at(first + timedelta(days=17))
    assert await noticed(club, cycle) == [str(first + timedelta(days=10)), str(first + timedelta(days=17))]
    assert (await history(club, cycle))[0:2] == [(0, PAID), (10, PAID)]
    assert (await club.find(cycle)).next_deduction_on == first + timedelta(days=24)


async def test_a_date_the_provider_refuses_stays_as_it_was(club: Club) -> None:
    cycle = await club.member(first_deduction_on=club.today() + 2 * DAY)
    first = cycle.first_deduction_on
    await club.fault("business_error", method=PUT_OFF, sub_code="ILLEGAL_EXECUTION_TIME")
    with pytest.raises(ProviderRejected):
        await club.runtime.cycles.change_date(ADMIN, cycle.id, first + 5 * DAY, correlation_id="c-1")
    assert (await club.find(cycle)).next_deduction_on == first
    assert await plan(club, cycle) == first
    await club.at(first)
    assert await history(club, cycle) == [(0, PAID)]
    assert await noticed(club, cycle) == [str(first)]


@pytest.mark.parametrize("kind", ["20000", "lost_reply"])
async def test_a_date_the_provider_may_not_know_is_caught_up_when_it_is_due(club: Club, kind: str) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    await club.fault(kind, method=PUT_OFF)
    wanted = first + timedelta(days=12)
    changed = await club.runtime.cycles.change_date(ADMIN, cycle.id, wanted, correlation_id="c-1")
    assert changed.next_deduction_on == wanted
    await club.at(wanted - DAY)
    assert await history(club, cycle) == [(0, PAID)]
    await club.at(wanted)
    assert await history(club, cycle) == [(0, PAID), (12, PAID)]
    assert await plan(club, cycle) == wanted + WEEK


async def test_a_date_is_put_off_while_another_is_still_tried(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1)
    await club.at(first)
    moved = await club.runtime.cycles.change_date(ADMIN, cycle.id, first + timedelta(days=12), correlation_id="c-1")
    assert moved.next_deduction_on == first + timedelta(days=12)
    await club.days(1)
    assert await history(club, cycle) == [(0, PAID)]
    await club.at(first + timedelta(days=11))
    await club.at(first + timedelta(days=12))
    assert await history(club, cycle) == [(0, PAID), (12, PAID)]
    await plan(club, cycle)


async def test_a_date_within_a_drifted_plan_is_put_off_without_the_provider(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first + 3 * DAY)
    assert await plan(club, cycle) == first + timedelta(days=10)
    await club.runtime.cycles.change_date(ADMIN, cycle.id, first + timedelta(days=9), correlation_id="c-1")
    await club.at(first + timedelta(days=8))
    assert await history(club, cycle) == [(0, PAID)]
    await club.at(first + timedelta(days=9))
    assert await history(club, cycle) == [(0, PAID), (9, PAID)]
    assert await club.calls(PUT_OFF) == 1


async def test_the_plan_of_an_account_with_a_bound_is_not_put_off_by_hand_beyond_it(own_club: Club) -> None:
    club = own_club
    account_id = await club.market.account("public_key")
    await club.runtime.accounts.change(ADMIN, account_id, fields={"cycle_plan_changes": "1"})
    cycle = await club.member(first_deduction_on=club.today() + DAY)
    first = cycle.first_deduction_on
    await club.runtime.cycles.change_date(ADMIN, cycle.id, first + DAY, correlation_id="c-1")
    with pytest.raises(CycleNotChangeable):
        await club.runtime.cycles.change_date(ADMIN, cycle.id, first + 2 * DAY, correlation_id="c-2")
    assert (await club.find(cycle)).next_deduction_on == first + DAY
    assert await club.calls(PUT_OFF) == 1


async def test_a_pause_over_several_dates_charges_none_of_them(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    cycle = await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
    assert (cycle.status, cycle.suspended_for) == (CyclePaymentStatus.SUSPENDED, SuspendedFor.PAUSE)
    await club.at(first + timedelta(days=17))
    assert await history(club, cycle) == [(0, PAID)]
    assert [each.due_on for each in club.runtime.cycles.preview(cycle, 2)] == [first + 3 * WEEK, first + 4 * WEEK]
    cycle = await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    expected = club.runtime.cycles.preview(cycle, 2)
    assert [each.due_on for each in expected] == [first + 3 * WEEK, first + 4 * WEEK]
    await club.at(first + 2 * WEEK + 4 * DAY)
    await club.at(first + 3 * WEEK)
    await club.at(first + 3 * WEEK + 4 * DAY)
    await club.at(first + 4 * WEEK)
    assert await history(club, cycle) == [(0, PAID), (21, PAID), (28, PAID)]
    happened = (await club.deductions(cycle))[1:]
    assert [(row.due_on, row.price_fen) for row in happened] == [(each.due_on, each.price_fen) for each in expected]
    assert (await club.calls(DEDUCT), await club.calls(PUT_OFF), len(await club.taken(cycle))) == (3, 1, 3)
    assert [kind for kind in await club.events(cycle) if kind.startswith("cycle.")][2:] == [
        "cycle.suspended", "cycle.resumed", "cycle.upcoming", "cycle.upcoming",
    ]  # fmt: skip


async def test_resumed_on_a_due_date_it_is_charged_that_day(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.at(first)
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
    await club.at(first + WEEK, time(20))
    await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    await club.settle()
    assert await history(club, cycle) == [(0, PAID), (7, PAID)]


async def test_paused_between_tries_the_date_is_let_go_and_resumed_in_time_it_is_not(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=2)
    await club.at(first)
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
    await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    await club.days(1)
    assert (await club.deductions(cycle))[0].tries == 2
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c-p")
    await club.days(1)
    assert await history(club, cycle) == [(0, SKIPPED)]
    assert await club.calls(DEDUCT) == 2
    await club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c-r")
    await club.at(first + WEEK, LATE)
    assert await history(club, cycle) == [(0, SKIPPED), (7, PAID)]


async def test_what_is_over_or_not_signed_cannot_be_changed(club: Club) -> None:
    cycles = club.runtime.cycles
    cycle = await club.start()
    later = club.today() + 9 * DAY
    for _ in range(2):
        before = await club.find(cycle)
        with pytest.raises(CycleNotChangeable):
            await cycles.change_price(ADMIN, cycle.id, 500, correlation_id="c-1")
        with pytest.raises(CycleNotChangeable):
            await cycles.change_date(ADMIN, cycle.id, later, correlation_id="c-2")
        with pytest.raises(CycleNotChangeable):
            await cycles.pause(BUYER, cycle.id, correlation_id="c-3")
        with pytest.raises(CycleNotChangeable):
            await cycles.resume(BUYER, cycle.id, correlation_id="c-4")
        assert await club.find(cycle) == before
        await cycles.cancel(BUYER, cycle.id, correlation_id="c-5")
    assert await club.events(cycle) == ["cycle.created", "cycle.cancelled"]
    assert await club.calls(PUT_OFF) == 0

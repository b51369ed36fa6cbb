"""How an agreement ends, by whom, and what notices and the shop's own flow say of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from app.cycles.model import CyclePayment, CyclePaymentStatus, DeductionStatus
from app.cycles.reports import apply_agreement_report
from app.errors import (
    Forbidden,
    NotFound,
    SceneAlreadySigned,
)
from app.flows.results import CycleResult
from app.providers.contract import AgreementReport, ReportedAgreement
from tests.cycles.conftest import ASK, DEDUCT, UNSIGN, Club
from tests.fixtures.shop import ADMIN, BUYER, STRANGER

PENDING, ACTIVE, CANCELLED, EXPIRED = (
    CyclePaymentStatus.PENDING, CyclePaymentStatus.ACTIVE, CyclePaymentStatus.CANCELLED, CyclePaymentStatus.EXPIRED,
)  # fmt: skip
DAY = timedelta(days=1)
# The link lives for an hour, and what was signed in its last second may be told of some minutes later.
LINK_OVER = timedelta(hours=1, minutes=11)


async def gateway(club: Club) -> None:
    """What the provider tells by itself comes to us."""
    app_id = club.market.records["public_key"]["app_id"]
    account = await club.market.account("public_key")
    url = f"{club.market.shop.config.public_url}/notify/alipay/{account}"
    await club.market.control("POST", f"/alipay/apps/{app_id}", app_gateway=url)


async def audited(club: Club, cycle: CyclePayment) -> int:
    """How often its cancellation stands in the audit log."""
    lines: int = await club.connection.fetchval(
        "select count(*) from shouyin.audit where action = 'cycle.cancel' and subject = $1", f"cycle_payment:{cycle.id}"
    )
    return lines


# --- ended by the payer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signed_by", ["V1", "V2"])
async def test_ended_in_the_providers_app_the_gateways_notice_tells(club: Club, signed_by: str) -> None:
    await gateway(club)
    await club.market.control("POST", "/alipay/agreements/policy", signed_by=signed_by)
    cycle = await club.member()
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/unsign")
    await club.settle()
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.next_deduction_on, cycle.check_at) == (CANCELLED, None, None)
    assert cycle.ended_at is not None
    by = await club.connection.fetchval("select details ->> 'by' from shouyin.event where kind = 'cycle.cancelled'")
    assert by == "payer"
    await club.days(1)
    assert await club.calls(DEDUCT) == 0
    assert (await club.member()).status is ACTIVE


async def test_ended_without_any_notice_the_monthly_question_finds_out(club: Club) -> None:
    cycle = await club.member(interval_days=60, first_deduction_on=club.today() + 60 * DAY)
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/unsign", notify=False)
    await club.later(29 * DAY)
    assert ((await club.find(cycle)).status, await club.calls(ASK)) == (ACTIVE, 0)
    await club.later(2 * DAY)
    assert ((await club.find(cycle)).status, await club.calls(ASK)) == (CANCELLED, 1)


async def test_run_out_silently_it_is_expired_at_the_next_deduction(club: Club) -> None:
    cycle = await club.member()
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/expire")
    await club.at(club.today())
    cycle = await club.find(cycle)
    (deduction,) = await club.deductions(cycle)
    assert (cycle.status, deduction.status) == (EXPIRED, DeductionStatus.SKIPPED)
    by = await club.connection.fetchval("select details ->> 'by' from shouyin.event where kind = 'cycle.expired'")
    assert by == "time"


# --- cancelled here ---------------------------------------------------------------------------------------------------


async def test_cancelled_while_in_force_it_ends_at_the_provider_once(club: Club) -> None:
    cycle = await club.member()
    cancelled = await club.cancel(cycle)
    assert (cancelled.status, cancelled.ending, await club.status_there(cycle)) == (CANCELLED, False, "UNSIGNED")
    again = await club.cancel(cycle)
    assert (again, await club.calls(UNSIGN)) == (cancelled, 1)
    await club.days(2)
    assert await club.calls(DEDUCT) == 0
    # our own unsigning is told as well, and changes nothing
    assert [kind for kind in await club.events(cycle) if kind != "cycle.repeated"] == [
        "cycle.created", "cycle.started", "cycle.cancelled",
    ]  # fmt: skip
    assert await audited(club, cycle) == 1


async def test_somebody_elses_is_not_there_and_without_permission_not_cancelled(own_club: Club) -> None:
    club = own_club
    cycle = await club.member()
    with pytest.raises(NotFound):
        await club.runtime.cycles.cancel(STRANGER, cycle.id, correlation_id="c-x")
    await club.runtime.permissions.revoke(ADMIN, role="*", action="cycle.cancel")
    with pytest.raises(Forbidden):
        await club.cancel(cycle)
    assert (await club.find(cycle)).status is ACTIVE
    assert await club.calls(UNSIGN) == 0


async def test_cancelled_twice_at_once_it_ends_once(club: Club) -> None:
    cycle = await club.member()
    other = await club.market.shop.open()
    answers = await asyncio.gather(
        *(each.cycles.cancel(BUYER, cycle.id, correlation_id="c-x") for each in (club.runtime, other) * 2)
    )
    await club.settle()
    assert (await club.find(cycle)).status is CANCELLED
    assert {answer.status for answer in answers} <= {CANCELLED, ACTIVE}
    assert (await club.events(cycle)).count("cycle.cancelled") == 1
    assert await audited(club, cycle) == 1


async def test_cancelled_before_it_was_signed_while_the_provider_is_silent(club: Club) -> None:
    cycle = await club.start()
    await club.fault("20000", method=ASK)
    cancelled = await club.cancel(cycle)
    assert (cancelled.status, cancelled.ending) == (PENDING, True)
    with pytest.raises(SceneAlreadySigned):
        await club.start()
    await club.later(timedelta(minutes=1))
    assert (await club.find(cycle)).status is CANCELLED
    assert await club.calls(UNSIGN) == 0
    assert (await club.member()).status is ACTIVE
    await club.later(LINK_OVER)
    assert await club.events(cycle) == ["cycle.created", "cycle.cancelled"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("20000", {}),
        ("lost_reply", {}),
        ("timeout", {"latency_s": 0}),
        ("business_error", {"sub_code": "MERCHANT_STATUS_IS_NOT_NORMAL"}),
    ],
)
async def test_while_the_provider_has_not_confirmed_the_end_nothing_is_taken(
    club: Club, kind: str, options: dict[str, Any]
) -> None:
    cycle = await club.member()
    club.deafen()
    await club.fault(kind, method=UNSIGN, **options)
    cancelled = await club.cancel(cycle)
    assert (cancelled.status, cancelled.ending) == (ACTIVE, True)
    await club.at(club.today())
    assert await club.deductions(cycle) == []
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.ending, await club.status_there(cycle)) == (CANCELLED, False, "UNSIGNED")
    assert (await club.events(cycle)).count("cycle.cancelled") == 1
    assert await club.calls(UNSIGN) <= 2


async def test_what_the_provider_refuses_to_end_for_days_is_not_deducted_meanwhile(club: Club) -> None:
    cycle = await club.member()
    await club.fault("business_error", method=UNSIGN, sub_code="MERCHANT_STATUS_IS_NOT_NORMAL", count=1000)
    await club.cancel(cycle)
    await club.days(2)
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.ending) == (ACTIVE, True)
    assert cycle.failure is not None
    assert cycle.failure.provider_code == "MERCHANT_STATUS_IS_NOT_NORMAL"
    assert (await club.deductions(cycle), await club.calls(DEDUCT)) == ([], 0)
    await club.market.control("DELETE", "/faults")
    await club.later(timedelta(hours=1))
    assert (await club.find(cycle)).status is CANCELLED


async def test_cancelled_while_a_deduction_is_in_hand_its_money_is_recorded(club: Club) -> None:
    await club.policy("processing", settle=3600, count=1)
    cycle = await club.member()
    await club.at(club.today())
    cancelled = await club.cancel(cycle)
    assert cancelled.status is CANCELLED
    await club.later(timedelta(hours=1, minutes=1))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.PAID, "SUCCESSFUL")
    assert await club.market.shop.status_of(payment.order_id) == "paid"
    cycle = await club.find(cycle)
    assert (cycle.status, cycle.paid_deductions) == (CANCELLED, 1)
    await club.days(8)
    assert (await club.taken(cycle), await club.calls(DEDUCT)) == ([payment.out_trade_no], 1)


async def test_cancelled_between_tries_the_date_is_let_go_at_once(club: Club) -> None:
    cycle = await club.member()
    await club.policy("ACQ.BUYER_BALANCE_NOT_ENOUGH", count=1)
    await club.at(club.today())
    await club.cancel(cycle)
    await club.settle()
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.SKIPPED, "FAILED")
    kinds = [kind for kind in await club.events(cycle) if kind != "cycle.repeated"]
    assert kinds[3:] == ["cycle.cancelled", "deduction.skipped"]
    await club.days(2)
    assert await club.calls(DEDUCT) == 1


async def test_cancelled_while_the_call_is_under_way_what_it_took_is_found(club: Club) -> None:
    """The answer is lost, the notice too, and another worker looks meanwhile: the provider knows nothing yet."""
    cycle = await club.member()
    config = replace(club.market.shop.config, provider_timeout_s=0.6)
    club.market.shop.config, former = config, club.market.shop.config
    try:
        slow = await club.market.shop.open()
    finally:
        club.market.shop.config = former
    other = await club.market.shop.open()
    await club.market.advance(timedelta(hours=1, minutes=1))
    await club.runtime.deductions.open_due()
    await club.runtime.flows.dispatch()
    await club.runtime.flows.drain()
    club.deafen()
    await club.fault("latency", latency_s=1.0)
    await club.fault("20000", method=UNSIGN, count=1)
    sending = asyncio.create_task(slow.deductions.drain())
    while await club.calls(DEDUCT) == 0:
        await asyncio.sleep(0)
    await other.cycles.cancel(BUYER, cycle.id, correlation_id="c-x")
    await other.deductions.drain()
    await sending
    while await club.taken(cycle) == []:
        await asyncio.sleep(0)
    await club.later(timedelta(minutes=10))
    deduction, (payment,) = await club.last(cycle)
    assert (deduction.status, payment.status) == (DeductionStatus.PAID, "SUCCESSFUL")
    assert ((await club.find(cycle)).status, await club.calls(DEDUCT)) == (CANCELLED, 1)


# --- what notices say -------------------------------------------------------------------------------------------------


async def test_a_notice_told_three_times_starts_it_once(club: Club) -> None:
    seen: list[CycleResult] = []

    async def on_cycle(result: CycleResult, _connection: Any) -> None:
        seen.append(result)

    await club.work_with(on_cycle)
    cycle = await club.sign(await club.start(), times=3)
    assert (cycle.status, await club.market.shop.count("notification")) == (ACTIVE, 1)
    # the three run side by side
    assert sorted((each.already_processed, each.change or "") for each in seen) == [
        (False, "STARTED"), (True, ""), (True, ""),
    ]  # fmt: skip
    assert (await club.events(cycle)).count("cycle.started") == 1


async def test_notices_replayed_after_the_end_change_nothing(club: Club) -> None:
    await gateway(club)
    cycle = await club.member()
    await club.cancel(cycle)
    await club.settle()
    before = await club.find(cycle)
    signed, unsigned = club.market.received
    for notice in (signed, unsigned, signed):
        assert (await club.market.deliver(notice)).text == "success"
        await club.settle()
    after = await club.find(cycle)
    assert (after.status, after.ending, after.ended_at) == (CANCELLED, False, before.ended_at)
    assert await club.status_there(cycle) == "UNSIGNED"
    kinds = await club.events(cycle)
    assert (kinds.count("cycle.started"), kinds.count("cycle.cancelled")) == (1, 1)
    await club.days(1)
    assert await club.calls(DEDUCT) == 0


async def test_a_sign_notice_replayed_after_it_ran_out_revives_nothing(club: Club) -> None:
    cycle = await club.member()
    (signed,) = club.market.received
    await club.at(club.today())
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/expire")
    await club.days(7)
    assert (await club.find(cycle)).status is EXPIRED
    assert (await club.market.deliver(signed)).text == "success"
    await club.settle()
    found = await club.find(cycle)
    assert (found.status, found.ending, found.next_deduction_on) == (EXPIRED, False, None)
    assert (await club.events(cycle)).count("cycle.started") == 1
    await club.days(8)
    assert await club.calls(DEDUCT) == 2


async def test_the_end_told_before_the_beginning_is_the_end(club: Club) -> None:
    await gateway(club)
    cycle = await club.start()
    await club.open(cycle)
    club.deafen()
    number = cycle.external_agreement_no
    await club.market.control("POST", f"/agreements/{number}/sign")
    await club.market.control("POST", f"/agreements/{number}/unsign")
    club.hear()
    assert await club.market.shop.count("notification") == 0
    signed, unsigned = club.market.received
    for notice in (unsigned, signed):
        assert (await club.market.deliver(notice)).text == "success"
        await club.settle()
    found = await club.find(cycle)
    assert (found.status, found.ending) == (CANCELLED, False)
    assert "cycle.started" not in await club.events(cycle)


async def test_an_altered_notice_is_refused(club: Club) -> None:
    cycle = await club.start()
    await club.open(cycle)
    club.deafen()
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
    club.hear()
    (signed, *_) = club.market.received
    other = await club.start(STRANGER)
    numbers = cycle.external_agreement_no.encode(), other.external_agreement_no.encode()
    altered = signed.body.replace(*numbers)
    assert altered != signed.body
    assert (await club.market.deliver(signed, body=altered)).text != "success"
    await club.settle()
    assert await club.market.shop.count("notification") == 0
    assert (await club.find(other)).status is PENDING


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"scene": "INDUSTRY|EDU"}, "scene"),
        ({"account_claims": {"app_id": "2021999999999999"}}, "app_id"),
        ({"external_agreement_no": "SA20260101NOBODYS0001"}, "external_agreement_no"),
        ({"agreement_no": "20269999999999999999"}, "agreement_no"),
    ],
)
@pytest.mark.parametrize("status", [ReportedAgreement.ACTIVE, ReportedAgreement.ENDED])
async def test_a_true_notice_that_does_not_fit_is_recorded_and_changes_nothing(
    club: Club, said: dict[str, Any], field: str, status: ReportedAgreement
) -> None:
    cycle = await club.member()
    before, events = await club.find(cycle), await club.events(cycle)
    account = await club.runtime.accounts.open(cycle.merchant_account_id)
    report = AgreementReport(status, "notification", cycle.external_agreement_no, cycle.agreement_no, scene=cycle.scene)
    applied = await apply_agreement_report(
        club.runtime.db, club.runtime.clock, account, replace(report, **said), notice_days=3
    )
    assert (applied.changed, applied.differences) == (False, (field,))
    assert (await club.find(cycle), await club.events(cycle)) == (before, events)
    rows = await club.connection.fetch("select field, reported from shouyin.difference")
    assert [row["field"] for row in rows] == [field]


async def test_another_merchants_word_about_ours_is_recorded_and_changes_nothing(club: Club) -> None:
    cycle = await club.member()
    other = await club.runtime.accounts.open(await club.market.account("certificate"))
    report = AgreementReport(ReportedAgreement.ENDED, "notification", cycle.external_agreement_no, cycle.agreement_no)
    applied = await apply_agreement_report(club.runtime.db, club.runtime.clock, other, report, notice_days=3)
    assert applied.differences[0] == "merchant_account"
    assert (await club.find(cycle)).status is ACTIVE


# --- what the shop learns ---------------------------------------------------------------------------------------------


async def test_the_shops_flow_learns_every_change_once(club: Club) -> None:
    seen: list[CycleResult] = []

    async def on_cycle(result: CycleResult, _connection: Any) -> None:
        seen.append(result)

    await club.work_with(on_cycle)
    cycle = await club.member()
    first = club.today()
    await club.policy("ACQ.PAYMENT_REQUEST_HAS_RISK", count=1)
    await club.at(first)
    cycles = club.runtime.cycles
    await cycles.resume(BUYER, cycle.id, correlation_id="c-1")
    await club.settle()
    await cycles.pause(BUYER, cycle.id, correlation_id="c-2")
    await club.settle()
    await club.cancel(cycle)
    club.deafen()
    await club.settle()
    seen.sort(key=lambda each: each.event_id)  # those of one moment run side by side
    told = [(each.change, each.cycle_status, each.reason, each.due_on) for each in seen if not each.already_processed]
    assert told == [
        ("STARTED", "ACTIVE", None, None),
        ("DEDUCTION_FAILED", "SUSPENDED", "ACQ.PAYMENT_REQUEST_HAS_RISK", first),
        ("SUSPENDED", "SUSPENDED", "FAILURES", None),
        ("RESUMED", "ACTIVE", None, None),
        ("SUSPENDED", "SUSPENDED", "PAUSE", None),
        ("CANCELLED", "CANCELLED", "us", None),
    ]
    assert {(each.order_id, each.order_table, each.cycle_payment_id) for each in seen} == {
        (cycle.order_id, "orders", cycle.id)
    }
    assert {each.price_fen for each in seen} == {990}
    assert len({each.event_id for each in seen}) == len(seen)

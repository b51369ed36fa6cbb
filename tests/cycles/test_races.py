"""Two at once on one cycle payment, its deduction or its attempt: never two charges, never a due date nobody knows of.

Where one order of two processes matters it is made: a call is held on the network (tests/fixtures/gate.py), or a row's
lock is held until both stand in line for it. Elsewhere many go at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.cycles.model import CyclePayment, CyclePaymentStatus, Deduction, DeductionStatus
from app.cycles.sweep import check_due_agreements
from app.errors import CycleNotChangeable, PaymentsUnresolved
from app.payments.reports import apply_payment_report
from app.providers.contract import PaymentReport, ReportedStatus
from app.runtime import Runtime
from app.worker import sweep_once
from tests.cycles.conftest import EARLY, Club
from tests.cycles.truth import check_always, check_settled, hear_of_unsigning
from tests.fixtures.gate import Gate
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER

DEDUCT = "alipay.trade.pay"
ASK = "alipay.trade.query"
PUT_OFF = "alipay.user.agreement.executionplan.modify"
POOR = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.fixture
async def club(standing_market: Market) -> AsyncIterator[Club]:
    """The module's club, on a morning; afterwards no two of its processes had waited for each other."""
    await standing_market.clear()
    made = Club(standing_market)
    await made.at(made.today() + timedelta(days=1), EARLY)
    yield made
    assert await made.connection.fetchval(DEADLOCKS) == 0
    # Rows that a test turned off are no other's to miss.
    await standing_market.clear()


@asynccontextmanager
async def gated(club: Club) -> AsyncIterator[tuple[Runtime, Gate]]:
    """Another process, whose calls can be held."""
    gate = Gate()
    async with httpx.AsyncClient(transport=gate, trust_env=False) as http:
        yield await club.market.shop.open(http=http), gate


@asynccontextmanager
async def running(act: Coroutine[Any, Any, Any]) -> AsyncIterator["asyncio.Task[Any]"]:
    """An act beside what follows; it has to come to its end well."""
    task = asyncio.create_task(act)
    try:
        yield task
    except BaseException:
        task.cancel()
        raise
    await asyncio.wait_for(task, 20)


async def queued(club: Club, statement: str, *args: Any, acts: list[Callable[[], Awaitable[Any]]]) -> list[Any]:
    """Has acts stand in line for the rows that a statement locks, in this order; then lets them go. What they said."""
    fetch = club.connection.fetchval
    waiting = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    locker = await club.runtime.db.pool.acquire()
    tasks = []
    try:
        lock = locker.transaction()
        await lock.start()
        await locker.fetch(statement, *args)
        for number, act in enumerate(acts, 1):
            tasks.append(asyncio.ensure_future(act()))
            async with asyncio.timeout(10):
                while await fetch(waiting) < number:
                    assert not tasks[-1].done(), tasks[-1]
                    await asyncio.sleep(0.005)
        await lock.rollback()
    finally:
        await club.runtime.db.pool.release(locker)
    return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20))


async def the(club: Club, cycle: CyclePayment) -> Deduction:
    """Its newest deduction."""
    return (await club.deductions(cycle))[-1]


async def fault(club: Club, method: str, kind: str, **more: Any) -> None:
    await club.market.control("POST", "/faults", method=method, kind=kind, **more)


async def calls(club: Club, method: str, cycle: CyclePayment) -> int:
    """How often the provider was called about this cycle's attempts."""
    numbers = {payment.out_trade_no for payment in await club.payments(cycle)}
    rows = (await club.market.control("GET", "/calls"))["calls"]
    return sum(row["count"] for row in rows if row["method"] == method and row["out_trade_no"] in numbers)


async def lived(club: Club, days: int) -> None:
    await club.days(days)
    await check_settled(club.market, club.runtime)


# --- what the provider says of an attempt, in another order ----------------------------------------------------------


async def test_a_notice_before_the_answer_that_it_is_in_process_is_not_forgotten(club: Club) -> None:
    cycle = await club.member()
    await club.policy("processing", settle="hold", count=1)
    async with gated(club) as (other, gate), gate.holding(DEDUCT) as held:
        await club.market.advance(timedelta(hours=2))
        await other.deductions.open_due()
        await other.flows.dispatch()
        await other.flows.drain()
        async with running(other.deductions.drain()):
            await held.arrived.wait()
            (payment,) = await club.payments(cycle)
            await club.market.control("POST", f"/trades/{payment.out_trade_no}/pay")
            await club.runtime.inbox.drain()
            held.release.set()
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    await lived(club, 8)
    assert len(await club.taken(cycle)) == 2


async def refused_today(club: Club, **policy: Any) -> tuple[CyclePayment, Any]:
    """A cycle whose first attempt was refused and left a closed trade; and that attempt."""
    cycle = await club.member()
    await club.policy(POOR, leave_trade=True, count=1, **policy)
    await club.at(club.today())
    (payment,) = await club.payments(cycle)
    assert payment.status == "FAILED"
    return cycle, payment


async def paid_late(club: Club, payment: Any, *, notify: bool = True) -> PaymentReport:
    """The provider takes the money of an attempt that it refused and closed; its word about that."""
    market = club.market
    market.deaf = not notify
    await market.control("POST", f"/trades/{payment.out_trade_no}/pay", late=True)
    market.deaf = False
    return PaymentReport(
        out_trade_no=payment.out_trade_no,
        status=ReportedStatus.SUCCESSFUL,
        source="notification",
        amount_fen=payment.amount_fen,
        paid_at=club.runtime.clock.now(),
    )


async def deliver(club: Club, report: PaymentReport, cycle: CyclePayment) -> None:
    account = await club.runtime.accounts.open(cycle.merchant_account_id)
    await apply_payment_report(club.runtime.db, club.runtime.clock, account, report, correlation_id="c")


LOCK_DEDUCTION = "select 1 from shouyin.deduction where id = $1 for no key update"
LOCK_CYCLE = "select 1 from shouyin.cycle_payment where id = $1 for no key update"


async def test_a_late_success_beside_the_skipping_of_its_date_is_known(club: Club) -> None:
    cycle, payment = await refused_today(club)
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c")
    report = await paid_late(club, payment, notify=False)
    deduction = await the(club, cycle)
    skip = club.runtime.deductions._outcomes.skip
    await queued(
        club, LOCK_DEDUCTION, deduction.id,
        acts=[lambda: deliver(club, report, cycle), lambda: skip(deduction.id, "CHARGING")],
    )  # fmt: skip
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    await check_settled(club.market, club.runtime)


async def test_a_late_success_while_its_order_is_found_paid_is_no_failure(club: Club) -> None:
    """Between the question and the next attempt: the order is paid already, and by nobody else than us."""
    cycle, payment = await refused_today(club)
    async with gated(club) as (other, gate), gate.holding(ASK) as held:
        await club.market.advance(timedelta(days=1))
        async with running(other.deductions.drain()):
            await held.arrived.wait()
            await paid_late(club, payment)
            await club.runtime.inbox.drain()
            held.release.set()
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    assert await club.taken(cycle) == [payment.out_trade_no]
    await check_settled(club.market, club.runtime)


async def test_a_late_success_beside_the_last_refusal_is_no_failure(club: Club) -> None:
    cycle, payment = await refused_today(club)
    await club.policy("refused", sub_code="ACQ.PAYMENT_REQUEST_HAS_RISK", count=1)
    async with gated(club) as (other, gate), gate.holding(DEDUCT) as held:
        await club.market.advance(timedelta(days=1))
        async with running(other.deductions.drain()):
            await held.arrived.wait()
            await paid_late(club, payment)
            await club.runtime.inbox.drain()
            held.release.set()
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    await check_settled(club.market, club.runtime)


async def test_a_late_success_ends_the_attempt_whose_answer_was_lost(club: Club) -> None:
    cycle, payment = await refused_today(club)
    await fault(club, DEDUCT, "http_500", count=1)
    await club.at(club.today() + timedelta(days=1))
    assert [each.status for each in await club.payments(cycle)] == ["FAILED", "CREATED"]
    await paid_late(club, payment)
    await club.settle()
    assert [each.status for each in await club.payments(cycle)] == ["SUCCESSFUL", "CLOSED"]
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    await club.market.advance(timedelta(hours=7))
    await lived(club, 7)


async def test_an_order_that_was_paid_by_hand_is_not_charged(club: Club) -> None:
    """While the attempt's first answer is unknown the payer finds the order and pays it."""
    cycle = await club.member()
    await fault(club, DEDUCT, "http_500", count=1)
    await club.at(club.today())
    (attempt,) = await club.payments(cycle)
    assert attempt.status == "CREATED"
    by_hand = await club.market.create("ALIPAY_QR", order_id=attempt.order_id)
    await club.market.pay(by_hand)
    await club.runtime.inbox.drain()
    await club.market.advance(timedelta(minutes=1))
    await club.settle()
    assert await club.taken(cycle) == []
    assert await calls(club, DEDUCT, cycle) == 1
    assert (await the(club, cycle)).status is DeductionStatus.SKIPPED
    await club.market.advance(timedelta(hours=7))
    await club.settle()
    assert [payment.status for payment in await club.payments(cycle)] == ["CLOSED"]


# --- the cycle changes beside its deduction ---------------------------------------------------------------------------


async def test_paused_during_the_question_nothing_is_sent(club: Club) -> None:
    cycle = await club.member()
    await fault(club, DEDUCT, "http_500", count=1)
    await club.at(club.today())
    async with gated(club) as (other, gate), gate.holding(ASK) as held:
        await club.market.advance(timedelta(minutes=1))
        async with running(other.deductions.drain()):
            await held.arrived.wait()
            await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c")
            held.release.set()
    assert await calls(club, DEDUCT, cycle) == 1
    assert (await the(club, cycle)).status is DeductionStatus.SKIPPED
    await club.market.advance(timedelta(hours=1))
    await club.settle()
    await check_settled(club.market, club.runtime)


async def test_cancelled_beside_a_deduction_whose_answer_is_lost_the_money_is_found(club: Club) -> None:
    """The provider does not hear of the cancellation, takes the money, and tells nobody."""
    cycle = await club.member()
    await fault(club, "alipay.user.agreement.unsign", "http_500", count=1)
    async with gated(club) as (other, gate), gate.holding(DEDUCT, "before") as held:
        await club.market.advance(timedelta(hours=2))
        await other.deductions.open_due()
        await other.flows.dispatch()
        await other.flows.drain()
        async with running(other.deductions.drain()):
            await held.arrived.wait()
            await club.runtime.cycles.cancel(BUYER, cycle.id, correlation_id="c")
            await club.runtime.deductions.drain()
            # Another worker has it in hand: it is left alone until its lease is over.
            assert (await the(club, cycle)).status is DeductionStatus.CHARGING
            club.deafen()
            await fault(club, DEDUCT, "lost_reply", count=1)
            held.release.set()
    assert len(await club.taken(cycle)) == 1
    await club.market.advance(timedelta(minutes=11))
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    club.hear()
    await check_settled(club.market, club.runtime)


async def test_resumed_before_its_date_is_skipped_it_is_charged(club: Club) -> None:
    cycle, _ = await refused_today(club)
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c")
    await club.market.advance(timedelta(days=1))
    await queued(
        club, LOCK_CYCLE, cycle.id,
        acts=[
            lambda: club.runtime.cycles.resume(BUYER, cycle.id, correlation_id="c"),
            club.runtime.deductions.drain,
        ],
    )  # fmt: skip
    await club.market.advance(timedelta(minutes=3))
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    await check_settled(club.market, club.runtime)


async def test_a_date_that_was_changed_beside_the_resuming_stands(club: Club) -> None:
    cycle = await club.member()
    cycles, other = club.runtime.cycles, (await club.market.shop.open()).cycles
    await cycles.pause(BUYER, cycle.id, correlation_id="c")
    await club.runtime.permissions.grant(ADMIN, "user", "cycle.change")
    later = club.today() + timedelta(days=3)
    _, refused = await queued(
        club, LOCK_CYCLE, cycle.id,
        acts=[
            lambda: cycles.change_date(BUYER, cycle.id, later, correlation_id="c"),
            lambda: other.resume(BUYER, cycle.id, correlation_id="c"),
        ],
    )  # fmt: skip
    assert isinstance(refused, CycleNotChangeable)
    await cycles.resume(BUYER, cycle.id, correlation_id="c")
    assert (await club.find(cycle)).next_deduction_on == later
    await club.days(2)
    assert await club.taken(cycle) == []
    await lived(club, 1)
    assert len(await club.taken(cycle)) == 1


async def test_a_change_of_date_leaves_the_plan_to_the_deduction_that_is_open(club: Club) -> None:
    cycle, _ = await refused_today(club)
    first = club.today()
    await club.runtime.permissions.grant(ADMIN, "user", "cycle.change")
    later = first + timedelta(days=12)
    await club.runtime.cycles.change_date(BUYER, cycle.id, later, correlation_id="c")
    await club.days(1)
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    await lived(club, 18)
    paid = [(row.due_on, row.finished_at) for row in await club.deductions(cycle)]
    assert [(due_on, at and at.astimezone(club.runtime.clock.now().tzinfo).date()) for due_on, at in paid] == [
        (first, first + timedelta(days=1)),
        (later, later),
        (later + timedelta(days=7), later + timedelta(days=7)),
    ]


async def test_signed_during_a_question_that_knew_of_nothing_it_stays_signed(club: Club) -> None:
    cycle = await club.start()
    await club.open(cycle)
    async with gated(club) as (other, gate), gate.holding("alipay.user.agreement.query") as held:
        await club.market.advance(timedelta(seconds=31))
        async with running(check_due_agreements(other.db, other.clock, other.cycles)):
            await held.arrived.wait()
            await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
            await club.runtime.inbox.drain()
            assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
            held.release.set()
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE
    await lived(club, 1)


async def test_signed_after_it_was_cancelled_and_nobody_told_us_it_is_ended(club: Club) -> None:
    cycle = await club.start()
    await club.open(cycle)
    await club.runtime.cycles.cancel(BUYER, cycle.id, correlation_id="c")
    await club.settle()
    assert (await club.find(cycle)).status is CyclePaymentStatus.CANCELLED
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign", notify=False)
    await club.market.advance(timedelta(hours=2))
    await club.settle()
    assert (await club.agreement(cycle))["status"] == "UNSIGNED"
    await check_settled(club.market, club.runtime)


async def test_an_old_notice_of_its_signing_does_not_revive_what_ran_out(club: Club) -> None:
    cycle = await club.member()
    await club.at(club.today())
    await club.connection.execute(
        "update shouyin.cycle_payment set valid_until = $2 where id = $1", cycle.id, club.runtime.clock.now()
    )
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/expire")
    await club.runtime.cycles.sync(ADMIN, cycle.id)
    assert (await club.find(cycle)).status is CyclePaymentStatus.EXPIRED
    (notify_id,) = (await club.agreement(cycle))["notify_ids"]
    await club.market.control("POST", f"/notifications/{notify_id}/resend", times=1)
    await club.settle()
    now = await club.find(cycle)
    assert (now.status, now.ending, now.next_deduction_on) == (CyclePaymentStatus.EXPIRED, False, None)
    assert (await club.events(cycle)).count("cycle.started") == 1


# --- where the plan stands --------------------------------------------------------------------------------------------


async def test_a_plan_that_was_read_after_the_payment_is_not_moved_on_twice(club: Club) -> None:
    cycle = await club.member()
    first = club.today()
    club.deafen()
    await fault(club, DEDUCT, "lost_reply", count=1)
    await club.at(first)
    await club.runtime.cycles.sync(ADMIN, cycle.id)
    club.hear()
    await club.market.advance(timedelta(minutes=1))
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    assert (await club.find(cycle)).plan_on == first + timedelta(days=7)
    await lived(club, 7)
    assert len(await club.taken(cycle)) == 2, "the next is charged on its day"


async def test_a_stale_plan_costs_no_agreement_when_its_changes_are_used_up(club: Club) -> None:
    cycle = await club.member()
    await club.connection.execute(
        "update shouyin.cycle_payment set plan_on = plan_on - 7, plan_changes = 10 where id = $1", cycle.id
    )
    await club.at(club.today())
    assert len(await club.taken(cycle)) == 1
    assert (await club.find(cycle)).status is CyclePaymentStatus.ACTIVE


async def test_a_plan_that_cannot_be_put_off_is_tried_ever_more_slowly(club: Club) -> None:
    cycle, _ = await refused_today(club)
    await fault(club, PUT_OFF, "http_500", count=1000)
    await club.market.advance(timedelta(days=1))
    for _ in range(60):
        await club.market.advance(timedelta(minutes=1))
        await club.settle()
    rows = (await club.market.control("GET", "/calls"))["calls"]
    assert 3 <= sum(row["count"] for row in rows if row["method"] == PUT_OFF) <= 9
    await club.market.control("DELETE", "/faults")
    await club.market.advance(timedelta(minutes=30))
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.PAID


async def test_a_number_that_may_have_been_sent_is_asked_about_however_long_the_plan_made_it_wait(club: Club) -> None:
    cycle = await club.member()
    club.deafen()
    await fault(club, DEDUCT, "lost_reply", count=1)
    await club.at(club.today())
    # As if the provider had known nothing of it when it was asked, and the plan stood elsewhere.
    await fault(club, ASK, "business_error", sub_code="ACQ.TRADE_NOT_EXIST", count=1)
    await club.connection.execute("update shouyin.cycle_payment set plan_on = plan_on + 4 where id = $1", cycle.id)
    await club.market.advance(timedelta(minutes=1))
    await club.settle()
    assert (await the(club, cycle)).status is DeductionStatus.CHARGING
    await club.runtime.cycles.pause(BUYER, cycle.id, correlation_id="c")
    await club.days(2)
    assert (await the(club, cycle)).status is DeductionStatus.PAID
    club.hear()


async def test_the_thousandth_attempt_has_a_number_of_its_own(club: Club) -> None:
    cycle, _ = await refused_today(club)
    await club.connection.execute("update shouyin.deduction set attempts = 999")
    await club.days(1)
    assert [payment.out_trade_no[25:] for payment in await club.payments(cycle)] == ["", "0"]
    assert (await club.payments(cycle))[1].out_trade_no.endswith("1000")
    assert (await the(club, cycle)).status is DeductionStatus.PAID


# --- many at once -----------------------------------------------------------------------------------------------------


async def members(club: Club, count: int) -> list[CyclePayment]:
    """Signed cycles, each in a scene of its own."""
    scenes = ["DIGITAL_MEDIA", "GAME_CHARGE", "PARKING", "MOBILE", "TV", "LEASE", "EDU", "TICKET", "METRO", "CATERING"]
    made = []
    for scene in scenes[:count]:
        cycle = await club.start(scene=f"INDUSTRY|{scene}")
        await club.open(cycle)
        await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/sign")
        made.append(cycle)
    await club.settle()
    return [await club.find(cycle) for cycle in made]


async def test_any_number_of_workers_charge_each_date_once(club: Club) -> None:
    cycles = await members(club, 10)
    workers = [club.runtime, *[await club.market.shop.open() for _ in range(3)]]
    for _ in range(3):
        await club.market.advance(timedelta(hours=2))
        await asyncio.gather(*(sweep_once(worker) for worker in workers for _ in range(2)))
        await club.settle()
        await club.at(club.today() + timedelta(days=7), EARLY)
    await check_settled(club.market, club.runtime)
    for cycle in cycles:
        taken = await club.taken(cycle)
        assert len(taken) == 3
        assert await calls(club, DEDUCT, cycle) == 3
        assert len(await club.deductions(cycle)) == 3


async def cancel(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.cancel(BUYER, cycle.id, correlation_id="c")


async def pause(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.pause(BUYER, cycle.id, correlation_id="c")


async def pause_and_resume(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.pause(BUYER, cycle.id, correlation_id="c")
    await process.cycles.resume(BUYER, cycle.id, correlation_id="c")


async def change_price(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.change_price(ADMIN, cycle.id, 550, correlation_id="c")


async def change_date(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.change_date(ADMIN, cycle.id, club.today() + timedelta(days=9), correlation_id="c")


async def unsign(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    """The payer, at the provider; its notice comes."""
    await hear_of_unsigning(club.market)
    await club.market.control("POST", f"/agreements/{cycle.external_agreement_no}/unsign")
    await process.inbox.drain()


async def repeat_notices(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    """All that was ever told, once more."""
    for notice in (await club.market.control("GET", "/notifications"))["notifications"]:
        await club.market.control("POST", f"/notifications/{notice['notify_id']}/resend", times=2, concurrent=True)
    await process.inbox.drain()


async def ask(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    await process.cycles.sync(ADMIN, cycle.id)
    for payment in await club.payments(cycle):
        await process.payments.sync(BUYER, payment.id, correlation_id="c")


async def turn_off(club: Club, process: Runtime, cycle: CyclePayment) -> None:
    """Refused, while anything has no end yet."""
    with pytest.raises(PaymentsUnresolved):
        await process.turning_off.turn_off(ADMIN, "orders")


ACTS = [cancel, pause, pause_and_resume, change_price, change_date, unsign, repeat_notices, ask]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("answer", ["now", "processing"])
async def test_anything_beside_the_charge_leaves_one_truth(club: Club, act: Any, answer: str) -> None:
    """Each in its own process; the act comes earlier or later in the other's work with each cycle."""
    cycles = await members(club, 6)
    await club.policy(answer, settle=20)
    other = await club.market.shop.open()
    club.market.notified = other
    await club.market.advance(timedelta(hours=2))

    async def one(number: int, cycle: CyclePayment) -> None:
        for _ in range(number * 40):
            await asyncio.sleep(0)
        with contextlib.suppress(CycleNotChangeable):
            await act(club, other, cycle)

    work = asyncio.gather(sweep_once(club.runtime), *(one(number, cycle) for number, cycle in enumerate(cycles)))
    await asyncio.wait_for(work, 30)
    await check_always(club.market)
    for _ in range(4):
        await club.market.advance(timedelta(minutes=3))
        await club.settle()
    truth = await check_settled(club.market, club.runtime)
    for cycle in cycles:
        assert len(await club.taken(cycle)) <= 1
        found = truth.cycles[cycle.id]
        assert found["status"] == {
            "cancel": "CANCELLED", "unsign": "CANCELLED", "pause": "SUSPENDED"
        }.get(act.__name__, "ACTIVE")  # fmt: skip
        if act in (change_price, repeat_notices, ask):
            assert len(await club.taken(cycle)) == 1
    assert all(row["due_on"] <= club.today() for row in truth.deductions)


async def test_turning_off_beside_the_charge_is_refused(club: Club) -> None:
    await members(club, 4)
    await club.policy("processing", settle=20)
    await club.market.advance(timedelta(hours=2))
    await club.runtime.deductions.open_due()
    other = await club.market.shop.open()
    async with running(sweep_once(club.runtime)):
        for _ in range(3):
            await turn_off(club, other, (await club.runtime.cycles.mine(BUYER))[0])
    for _ in range(3):
        await club.market.advance(timedelta(minutes=3))
        await club.settle()
    truth = await check_settled(club.market, club.runtime)
    assert [row["status"] for row in truth.deductions] == ["PAID"] * 4

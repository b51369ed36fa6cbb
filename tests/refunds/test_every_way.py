"""The same refunds over every method of every provider: in part, whole, lost on the way, refused, slow, failing late.

What differs between providers stands in conftest.py and tests/payments/ways.py; nothing here knows one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from app.errors import OutcomeUnknown, ProviderRejected, ProviderUnavailable, ShouyinError
from tests.fixtures.shop import ADMIN
from tests.payments.ways import Way, every_way, over
from tests.refunds.conftest import CLERK, SOME, Till, interface

Open = Callable[[Way], Awaitable[Till]]
some_ways = over(SOME)


@every_way
async def test_given_back_in_part_and_then_wholly(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    first = await at.give_back(payment, 230)
    await at.market.shop.settle()
    await at.market.advance(timedelta(minutes=2))
    await at.market.shop.settle()
    first = await at.find(first)
    assert (first.api_status, first.final, first.failure, first.reason) == ("REFUNDED", True, None, "cold tea")
    assert first.provider_refund_id is not None or way.method.startswith("ALIPAY")
    assert (await at.market.find(payment)).api_status == "PARTIALLY_REFUNDED"
    assert await at.market.shop.status_of(payment.order_id) == "paid"
    with pytest.raises(ShouyinError, match=r"10\.00") as refused:
        await at.give_back(payment, 1001)
    assert refused.value.code == "REFUND_EXCEEDS_PAYMENT"

    rest = await at.give_back(payment, 1000)
    await at.market.shop.settle()
    await at.market.advance(timedelta(minutes=2))
    await at.market.shop.settle()
    assert (await at.find(rest)).api_status == "REFUNDED"
    assert (await at.market.find(payment)).api_status == "REFUNDED"
    assert await at.market.shop.status_of(payment.order_id) == "refunded"
    assert await at.money(payment) == (1230, 0)
    assert await at.truth(payment) == [
        (first.out_refund_no, 230, "REFUNDED"),
        (rest.out_refund_no, 1000, "REFUNDED"),
    ]
    kinds = await at.market.shop.events(payment.id)
    assert (kinds.count("refund.created"), kinds.count("refund.refunded")) == (2, 2)
    assert await at.market.shop.count("difference") == 0


@some_ways
async def test_a_whole_refund_without_any_notice_reaches_the_flow_exactly_once(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, 1230)
    assert (refund.api_status, await at.money(payment)) == ("PENDING", (0, 1230))
    # The door is shut: whatever notice is sent is lost.
    at.market.deaf = True
    await at.settle(refund, "REFUNDED")
    at.market.deaf = False
    for _ in range(6):
        await at.market.advance(timedelta(minutes=10))
        await at.market.shop.settle()
    assert (await at.find(refund)).api_status == "REFUNDED"
    assert await at.market.shop.status_of(payment.order_id) == "refunded"
    done = await at.market.shop.connection.fetchval(
        "select count(*) from shouyin.flow_run r join shouyin.event e on e.id = r.event_id"
        " where e.kind = 'refund.refunded' and e.refund_id = $1 and r.status = 'DONE'",
        refund.id,
    )
    assert done == 1
    assert await at.money(payment) == (1230, 0)


@every_way
@pytest.mark.parametrize("fault", ["lost_reply", "http_500"])
async def test_an_unknown_outcome_keeps_its_reserve_and_is_found_out_under_the_same_number(
    till: Open, way: Way, fault: str
) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.fault(at.calls[0], fault)
    refund = await at.give_back(payment, 500, key="k-1")
    assert (refund.api_status, refund.checking, refund.final) == ("PENDING", True, False)
    assert await at.money(payment) == (0, 500)
    with pytest.raises(ShouyinError) as refused:
        await at.give_back(payment, 731)
    assert refused.value.code == "REFUND_EXCEEDS_PAYMENT"
    for _ in range(4):
        await at.market.advance(timedelta(minutes=2))
        await at.market.shop.settle()
    assert (await at.give_back(payment, 500, key="k-1")).id == refund.id
    found = await at.find(refund)
    assert (found.api_status, found.out_refund_no) == ("REFUNDED", refund.out_refund_no)
    assert await at.truth(payment) == [(refund.out_refund_no, 500, "REFUNDED")]
    assert await at.money(payment) == (500, 0)


@pytest.mark.parametrize(
    ("way", "fault"),
    [(way, fault) for way in SOME for fault in ("timeout", "bad_signature") if way.signs or fault == "timeout"],
    ids=str,
)
async def test_an_answer_that_proves_nothing_is_unknown(till: Open, way: Way, fault: str) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.fault(at.calls[0], fault, **({"latency_s": 3} if fault == "timeout" else {}))
    refund = await at.give_back(payment, 500)
    assert (refund.checking, await at.money(payment)) == (True, (0, 500))
    for _ in range(4):
        await at.market.advance(timedelta(minutes=2))
        await at.market.shop.settle()
    assert (await at.find(refund)).api_status == "REFUNDED"
    assert await at.money(payment) == (500, 0)
    assert len(await at.truth(payment)) == 1


NOT_ENOUGH = {
    "alipay": {"sub_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"},
    "v3": {"code": "NOT_ENOUGH"},
    "v2": {"code": "NOTENOUGH"},
    "cloud": {"code": "NOTENOUGH"},
}


@some_ways
async def test_a_refusal_frees_the_reserve_and_says_what_to_do(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.fault(at.calls[0], "business_error", **NOT_ENOUGH[interface(way)])
    for _ in range(2):
        with pytest.raises(ProviderRejected) as refused:
            await at.give_back(payment, 500, key="k-1")
    assert refused.value.extra["provider"]["code"] in ("ACQ.SELLER_BALANCE_NOT_ENOUGH", "NOT_ENOUGH", "NOTENOUGH")
    assert "top up" in refused.value.message.lower() or "balance" in refused.value.message.lower()
    refund = await at.market.shop.runtime.refunds.find(CLERK, int(refused.value.extra["refundId"]))
    assert refund is not None
    assert (refund.api_status, await at.money(payment), await at.truth(payment)) == ("FAILED", (0, 0), [])
    # Topped up: the whole can go back.
    await at.give_back(payment, 1230)


@some_ways
async def test_a_refund_that_fails_late_is_known_for_what_it_is(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, 1230)
    await at.market.advance(timedelta(hours=30))
    await at.market.shop.settle()
    assert ((await at.find(refund)).api_status, await at.money(payment)) == ("PENDING", (0, 1230))
    await at.policy(settle="now")
    await at.settle(refund, "FAILED")
    for _ in range(8):
        await at.market.advance(timedelta(hours=1))
        await at.market.shop.settle()
    failed = await at.find(refund)
    if interface(way) == "alipay":
        # Alipay has no word for it: the refund is not there any more, and is asked for again under its number.
        assert (failed.api_status, await at.money(payment)) == ("REFUNDED", (1230, 0))
        assert await at.truth(payment) == [(refund.out_refund_no, 1230, "REFUNDED")]
        return
    assert (failed.api_status, await at.money(payment)) == ("FAILED", (0, 0))
    assert await at.market.shop.status_of(payment.order_id) == "paid"
    again = await at.give_back(payment, 1230)
    for _ in range(3):
        await at.market.advance(timedelta(minutes=5))
        await at.market.shop.settle()
    assert (await at.find(again)).api_status == "REFUNDED"
    assert await at.money(payment) == (1230, 0)


@some_ways
async def test_notices_repeated_at_once_change_nothing_twice(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    refund = await at.give_back(payment, 300)
    await at.market.shop.settle()
    for notice in await at.market.notices(payment):
        await at.market.control("POST", f"/notifications/{notice['notify_id']}/resend", times=20, concurrent=True)
    await at.market.advance(timedelta(minutes=5))
    await at.market.shop.settle()
    assert (await at.find(refund)).api_status == "REFUNDED"
    assert await at.money(payment) == (300, 0)
    kinds = await at.market.shop.events(payment.id)
    assert (kinds.count("refund.refunded"), kinds.count("payment.successful")) == (1, 1)
    assert await at.market.shop.count("difference") == 0


@some_ways
async def test_asking_in_vain_changes_nothing_and_says_so(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, 300)
    await at.fault(at.calls[1], "http_500")
    with pytest.raises(OutcomeUnknown):
        await at.market.shop.runtime.refunds.sync(CLERK, refund.id, correlation_id="c")
    assert await at.find(refund) == refund
    assert await at.money(payment) == (0, 300)


@some_ways
async def test_a_provider_that_is_not_reached_gives_nothing_back(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    account = await at.market.account(way.mode)
    runtime = at.market.shop.runtime
    gateway = at.market.records[way.mode]["gateway"]
    nobody = "http://127.0.0.1:9" + ("/gateway.do" if way.method.startswith("ALIPAY") else "")
    changed = await runtime.accounts.change(ADMIN, account, fields={"gateway": nobody})
    await runtime.accounts.open(account, version=changed.version)
    try:
        with pytest.raises(ProviderUnavailable):
            await at.give_back(payment, 300)
    finally:
        changed = await runtime.accounts.change(ADMIN, account, fields={"gateway": gateway})
        await runtime.accounts.open(account, version=changed.version)
    assert (await at.money(payment), await at.truth(payment)) == ((0, 0), [])


@some_ways
async def test_many_at_once_in_two_processes_agree_with_the_provider_to_the_fen(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    processes = [at.market.shop.runtime, await at.market.shop.open()]

    async def one(number: int) -> str:
        try:
            await at.give_back(payment, 60 + number * 7, processes[number % 2])
        except ShouyinError as exc:
            return exc.code
        return "taken"

    outcomes = await asyncio.gather(*(one(number) for number in range(30)))
    assert set(outcomes) <= {"taken", "REFUND_EXCEEDS_PAYMENT", "PROVIDER_REJECTED", "PAYMENT_NOT_REFUNDABLE"}
    for _ in range(5):
        await at.market.advance(timedelta(minutes=5))
        await at.market.shop.settle()
    refunded, reserved = await at.money(payment)
    truth = sum(fen for _, fen, state in await at.truth(payment) if state == "REFUNDED")
    assert (refunded, reserved) == (truth, 0)
    assert 0 < refunded <= 1230
    if refunded < 1230:
        await at.give_back(payment, 1230 - refunded)


async def test_a_refund_that_failed_at_alipay_and_is_refused_again_ends(till: Open) -> None:
    at = await till(next(way for way in SOME if way.method == "ALIPAY_PAGE"))
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, 500)
    assert refund.status == "PENDING"
    await at.settle(refund, "FAILED")
    await at.fault(at.calls[0], "business_error", sub_code="ACQ.SELLER_BALANCE_NOT_ENOUGH", count=9999)
    await at.market.advance(timedelta(minutes=10))
    await at.market.shop.settle()
    # One in hand is asked about with the same answers: it stays reserved, and says what stands in its way.
    waiting = await at.find(refund)
    assert waiting.failure is not None
    assert (waiting.api_status, await at.money(payment)) == ("PENDING", (0, 500))
    await at.market.advance(timedelta(days=7))
    for _ in range(3):
        await at.market.advance(timedelta(minutes=10))
        await at.market.shop.settle()
    failed = await at.find(refund)
    assert failed.failure is not None
    assert (failed.api_status, failed.failure.provider_code) == ("FAILED", "ACQ.SELLER_BALANCE_NOT_ENOUGH")
    assert await at.money(payment) == (0, 0)


LIMITED = {
    "alipay": {"kind": "error_response", "code": "40005", "sub_code": "isv.app-call-limited"},
    "v3": {"kind": "business_error", "code": "FREQUENCY_LIMITED"},
    "v2": {"kind": "business_error", "code": "FREQUENCY_LIMITED"},
    "cloud": {"kind": "business_error", "code": "FREQUENCY_LIMITED"},
}


@some_ways
async def test_a_rate_limit_says_so_and_never_gives_back_twice(till: Open, way: Way) -> None:
    at = await till(way)
    payment = await at.paid()
    limited = dict(LIMITED[interface(way)])
    await at.fault(at.calls[0], limited.pop("kind"), **limited)
    if interface(way) == "alipay":
        # Turned away before it was read: nothing is under way, and the whole can be asked for.
        with pytest.raises(ProviderUnavailable) as refused:
            await at.give_back(payment, 500)
        assert "refundId" in refused.value.extra
        assert (await at.money(payment), await at.truth(payment)) == ((0, 0), [])
        refund = await at.give_back(payment, 500)
    else:
        # WeChat does not say whether it acted.
        refund = await at.give_back(payment, 500)
        assert refund.failure is not None
        assert (refund.checking, refund.failure.code) == (True, "OUTCOME_UNKNOWN")
        assert "often" in refund.failure.explanation
    for _ in range(4):
        await at.market.advance(timedelta(minutes=2))
        await at.market.shop.settle()
    found = await at.find(refund)
    assert (found.api_status, found.failure) == ("REFUNDED", None)
    assert (await at.money(payment), len(await at.truth(payment))) == ((500, 0), 1)


async def test_one_in_alipay_s_hands_that_is_refused_when_repeated_stays_reserved(till: Open) -> None:
    at = await till(next(way for way in SOME if way.method == "ALIPAY_PAGE"))
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, 1230)
    await at.fault(at.calls[0], "business_error", sub_code="ACQ.SELLER_BALANCE_NOT_ENOUGH")
    await at.market.advance(timedelta(minutes=2))
    await at.market.shop.settle()
    assert ((await at.find(refund)).api_status, await at.money(payment)) == ("PENDING", (0, 1230))
    # A refund in full brings no notice: only asking finds out.
    await at.settle(refund, "REFUNDED")
    for _ in range(3):
        await at.market.advance(timedelta(hours=12))
        await at.market.shop.settle()
    assert ((await at.find(refund)).api_status, await at.money(payment)) == ("REFUNDED", (1230, 0))


async def test_one_in_alipay_s_hands_whose_answer_was_lost_stays_reserved_when_a_repeat_is_refused(till: Open) -> None:
    at = await till(next(way for way in SOME if way.method == "ALIPAY_PAGE"))
    payment = await at.paid()
    await at.policy(settle="hold")
    await at.fault(at.calls[0], "lost_reply")
    refund = await at.give_back(payment, 1230)
    assert refund.checking
    await at.fault(at.calls[0], "business_error", sub_code="ACQ.SELLER_BALANCE_NOT_ENOUGH")
    await at.market.advance(timedelta(minutes=2))
    await at.market.shop.settle()
    waiting = await at.find(refund)
    assert (waiting.api_status, waiting.failure is not None, await at.money(payment)) == ("PENDING", True, (0, 1230))
    await at.settle(refund, "REFUNDED")
    for _ in range(3):
        await at.market.advance(timedelta(hours=12))
        await at.market.shop.settle()
    assert ((await at.find(refund)).api_status, await at.money(payment)) == ("REFUNDED", (1230, 0))

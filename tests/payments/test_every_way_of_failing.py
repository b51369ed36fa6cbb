"""The same disturbances over every method of every provider: notices that lie or prove nothing, and calls that fail.

What differs between providers stands in ways.py; nothing here knows one.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.errors import OutcomeUnknown, ProviderRejected, ProviderUnavailable
from app.payments.model import Payment
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER
from tests.payments.ways import WAYS, Way, assert_paid, begin, every_way, every_way_that_signs, every_way_with_a_call

# What a notice says instead of the truth, and it is properly signed.
LIES = {
    "amount": {"amount": "0.01"},
    "application": {"app_id": "wx00000000000000ff"},
    "seller": {"seller_id": "1900009999"},
    "payer": {"payer": "oPayerOfTheMarket00000000008"},
}
# How a call can end without an answer that means anything; whether its work was done nobody can know. WeChat's cloud
# signs no answers.
UNANSWERED = [
    (way, fault)
    for way in WAYS
    for fault in ("lost_reply", "http_500", "bad_signature", "timeout")
    if fault != "bad_signature" or way.signs
]


@pytest.fixture
async def market(standing_market: Market) -> Market:
    """One market for all of these tests, cleared for each."""
    await standing_market.clear()
    return standing_market


def broken(fault: str) -> dict[str, object]:
    """The fault as the sandbox takes it; a silence need not last for the whole time we would wait."""
    return {"kind": fault} | ({"latency_s": 0.05} if fault == "timeout" else {})


async def assert_untouched(market: Market, payment: Payment) -> None:
    """Nothing is paid here, whatever was said."""
    now = await market.find(payment)
    assert replace(now, check_at=None) == replace(payment, check_at=None)
    assert await market.shop.status_of(payment.order_id) == "unpaid"
    assert await market.shop.count("flow_run") == 0


# --- notices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "lie"),
    [(way, lie) for way in WAYS for lie in LIES if lie != "payer" or way.names_payer],
    ids=str,
)
async def test_a_signed_notice_that_does_not_fit_is_recorded_and_pays_nothing(
    market: Market, way: Way, lie: str
) -> None:
    field = {"amount": "amount_fen", "application": way.words.application, "seller": way.words.seller}.get(lie, lie)
    before = market.counted("shouyin_differences_total", field=field)
    payment = await begin(market, way)
    await market.pay(payment, **LIES[lie])
    await market.shop.settle()
    await assert_untouched(market, payment)
    rows = await market.shop.connection.fetch("select field, seen, payment_id, source from shouyin.difference")
    assert [tuple(row) for row in rows] == [(field, 1, payment.id, "notification")]
    assert market.counted("shouyin_differences_total", field=field) == before + 1
    assert (await market.shop.events(payment.id))[2:] == ["payment.mismatch"]
    # Whoever wrote that, the provider itself knows better.
    await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert (await market.find(payment)).status == "SUCCESSFUL"


@every_way
async def test_a_notice_without_its_proof_is_refused_and_changes_nothing(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    refused = {"provider": payment.provider, "outcome": way.words.unproven}
    before = market.counted("shouyin_notifications_total", **refused)
    await market.pay(payment, break_signature=True)
    [notice] = await market.notices(payment)
    assert [attempt["acknowledged"] for attempt in notice["attempts"]] == [False]
    assert market.counted("shouyin_notifications_total", **refused) == before + 1
    await market.shop.settle()
    assert await market.shop.count("notification") == 0
    await assert_untouched(market, payment)
    assert await market.shop.count("difference") == 0


@every_way_that_signs
async def test_a_notice_altered_anywhere_is_refused(market: Market, way: Way) -> None:
    payment = await begin(market, way)
    await market.pay(payment, times=1)
    true = market.received[-1]
    account = await market.shop.runtime.accounts.open(payment.merchant_account_id)
    no = account.provider.acknowledge(account.account, accepted=False)
    kept = await market.shop.connection.fetchval("select received_count from shouyin.notification")
    bodies = [b"", b"{}", b"<xml></xml>", true.body + b"&", b"\xff" + true.body]
    step = max(len(true.body) // 20, 1)
    bodies += [
        true.body[:at] + bytes([true.body[at] ^ 1]) + true.body[at + 1 :] for at in range(0, len(true.body), step)
    ]
    for body in bodies:
        answer = await market.deliver(true, body=body)
        assert (answer.status_code, answer.content) == (no.status_code, no.body), body
    assert await market.shop.count("notification") == 1
    assert await market.shop.connection.fetchval("select received_count from shouyin.notification") == kept == 1
    # The true one is as good as before.
    await market.deliver(true)
    assert await market.shop.connection.fetchval("select received_count from shouyin.notification") == 2
    await market.shop.settle()
    await assert_paid(market, payment)


@every_way
async def test_a_notice_at_another_account_s_door_is_refused(market: Market, way: Way) -> None:
    """Whoever has an account of their own at the same provider has notices that are truly signed."""
    payment = await begin(market, way)
    await market.pay(payment)
    true = market.received[-1]
    others = [each for each in WAYS if each.mode != way.mode and each.method[:6] == way.method[:6]]
    await market.shop.connection.execute("delete from shouyin.notification")
    for mode in dict.fromkeys(each.mode for each in others):
        account_id = await market.account(mode)
        account = await market.shop.runtime.accounts.open(account_id)
        no = account.provider.acknowledge(account.account, accepted=False)
        elsewhere = true.path.replace(f"/{payment.merchant_account_id}", f"/{account_id}")
        answer = await market.deliver(replace(true, path=elsewhere))
        assert (answer.status_code, answer.content) == (no.status_code, no.body), mode
    assert await market.shop.count("notification") == 0
    await market.shop.settle()
    await assert_untouched(market, payment)


# --- calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "fault"), [pair for pair in UNANSWERED if pair[0].words.create is not None], ids=str)
async def test_an_unknown_outcome_is_found_out_under_the_same_number(market: Market, way: Way, fault: str) -> None:
    await market.control("POST", "/faults", method=way.words.create, **broken(fault))
    payment = await market.create(way.method, mode=way.mode)
    assert (payment.api_status, payment.checking, payment.final, payment.action) == ("PENDING", True, False, None)
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.checking, found.out_trade_no, found.action is not None) == (False, payment.out_trade_no, True)
    await market.pay(found)
    await market.shop.settle()
    await assert_paid(market, payment)
    trades = (await market.control("GET", "/trades"))["trades"]
    assert [trade["out_trade_no"] for trade in trades] == [payment.out_trade_no]


@every_way_with_a_call
async def test_a_rejection_fails_the_payment_with_the_provider_s_words(market: Market, way: Way) -> None:
    await market.control("POST", "/faults", method=way.words.create, **way.words.refused)
    order_id = await market.shop.order()
    for _ in range(2):
        with pytest.raises(ProviderRejected) as rejected:
            await market.create(way.method, mode=way.mode, order_id=order_id, idempotency_key="k")
        said = rejected.value.extra["provider"]
        assert said["code"] == way.words.refusal
        assert said["message"]
        english, chinese = rejected.value.message, rejected.value.message_zh
        assert (english[0].isascii(), chinese is not None and chinese[0].isascii()) == (True, False)
    row = await market.shop.connection.fetchrow("select id, status, check_at, failure from shouyin.payment")
    assert row is not None
    assert (row["status"], row["check_at"]) == ("FAILED", None)
    assert rejected.value.extra["paymentId"] == str(row["id"])
    assert (await market.control("GET", "/trades"))["trades"] == []
    await market.shop.settle()
    assert await market.shop.status_of(order_id) == "failed"
    # The failed attempt does not stand in the way of the next.
    assert (await market.create(way.method, mode=way.mode, order_id=order_id)).api_status == "PENDING"


@every_way_with_a_call
async def test_what_is_turned_away_unread_charges_nothing(market: Market, way: Way) -> None:
    await market.control("POST", "/faults", method=way.words.create, **way.words.turned_away)
    with pytest.raises(ProviderUnavailable):
        await market.create(way.method, mode=way.mode)
    row = await market.shop.connection.fetchrow("select status, check_at, failure->>'code' from shouyin.payment")
    assert row is not None
    assert tuple(row) == ("FAILED", None, "PROVIDER_UNAVAILABLE")
    assert (await market.control("GET", "/trades"))["trades"] == []


@every_way_with_a_call
async def test_a_second_attempt_that_is_turned_away_fails_nothing_the_first_may_have_done(
    market: Market, way: Way
) -> None:
    assert way.words.create is not None
    await market.control("POST", "/faults", method=way.words.create, kind="lost_reply")
    payment = await market.create(way.method, mode=way.mode)
    assert payment.checking
    await market.control("POST", "/faults", method=way.words.create, **way.words.turned_away)
    await market.advance(timedelta(seconds=31))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.failure) == ("CREATED", None)
    assert (await market.shop.events(payment.id)) == ["payment.created"]
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.out_trade_no, found.action is not None) == ("PENDING", payment.out_trade_no, True)
    assert (await market.calls(payment))[way.words.create] == 3


@every_way_with_a_call
async def test_a_second_attempt_that_is_rejected_ends_nothing_the_provider_knows_of(market: Market, way: Way) -> None:
    await market.control("POST", "/faults", method=way.words.create, kind="lost_reply")
    payment = await market.create(way.method, mode=way.mode)
    trade = await market.trade(payment)
    assert trade is not None
    await market.control("POST", "/faults", method=way.words.create, **way.words.refused)
    await market.advance(timedelta(seconds=31))
    await market.shop.settle()
    # A code that nobody was ever shown, and that the provider calls unknown, can be paid by nobody.
    ended = trade["status"] == "UNOPENED"
    found = await market.find(payment)
    assert (found.status, found.failure is not None) == (("FAILED", True) if ended else ("CREATED", False))
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.action is not None) == (("FAILED", False) if ended else ("PENDING", True))


@every_way_with_a_call
async def test_a_provider_that_is_not_reached_leaves_a_failed_payment_and_no_trade(market: Market, way: Way) -> None:
    account_id = await market.account(way.mode)
    accounts = market.shop.runtime.accounts
    try:
        await accounts.change(ADMIN, account_id, fields={"gateway": "http://127.0.0.1:9"})
        with pytest.raises(ProviderUnavailable):
            await market.create(way.method, mode=way.mode)
    finally:
        await accounts.change(ADMIN, account_id, fields={"gateway": market.records[way.mode]["gateway"]})
    assert await market.shop.connection.fetchval("select status from shouyin.payment") == "FAILED"
    assert (await market.control("GET", "/trades"))["trades"] == []
    assert (await market.create(way.method, mode=way.mode)).api_status == "PENDING"


@pytest.mark.parametrize(("way", "fault"), UNANSWERED, ids=str)
async def test_asking_in_vain_changes_nothing_and_says_so(market: Market, way: Way, fault: str) -> None:
    payment = await begin(market, way)
    await market.pay(payment, notify=False)
    await market.control("POST", "/faults", method=way.words.query, **broken(fault))
    with pytest.raises(OutcomeUnknown):
        await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert await market.find(payment) == payment
    synced = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert synced.api_status == "SUCCESSFUL"


@every_way
async def test_a_provider_outage_of_two_days_ends_nothing_and_loses_nothing(market: Market, way: Way) -> None:
    unpaid, paid = await begin(market, way), await begin(market, way)
    await market.show(unpaid)
    await market.pay(paid, notify=False)
    await market.control("POST", "/faults", method=way.words.query, kind="http_500", count=1000)
    for _ in range(12):
        await market.advance(timedelta(hours=4))
        await market.shop.settle()
    assert {(await market.find(payment)).status for payment in (unpaid, paid)} == {"PENDING"}
    await market.control("DELETE", "/faults")
    await market.advance(timedelta(minutes=11))
    await market.shop.settle()
    assert [(await market.find(payment)).status for payment in (unpaid, paid)] == ["CLOSED", "SUCCESSFUL"]


@every_way_with_a_call
@pytest.mark.parametrize("minutes", [11, -11])
async def test_a_clock_that_is_wrong_is_explained_or_does_no_harm(market: Market, way: Way, minutes: int) -> None:
    await market.control("POST", "/clock", strict_timestamps=True)
    market.shop.clock.advance(timedelta(minutes=minutes))
    order_id = await market.shop.order()
    said: list[ProviderRejected] = []
    try:
        payment = await market.create(way.method, mode=way.mode, order_id=order_id, expires_in=timedelta(minutes=15))
    except ProviderRejected as refused:
        said.append(refused)
    market.shop.clock.advance(timedelta(minutes=-minutes))
    if said:
        assert ["clock" in refused.message for refused in said] == [True]
        assert await market.shop.connection.fetchval("select status from shouyin.payment") == "FAILED"
        assert (await market.control("GET", "/trades"))["trades"] == []
        payment = await market.create(way.method, mode=way.mode, order_id=order_id)
    await market.pay(payment)
    await market.shop.settle()
    await assert_paid(market, payment)

"""Creating, asking and closing, against the sandbox: every method and mode, every way the provider can answer."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from app.activation.binding import Binding
from app.auth import Principal
from app.errors import (
    AmountMismatch,
    IdempotencyConflict,
    InvalidAmount,
    InvalidInput,
    MethodNotConfigured,
    NotFound,
    OrderAlreadyPaid,
    OrderNotFound,
    OutcomeUnknown,
    PaymentsNotActive,
    PlanExpired,
    ProviderRejected,
    ProviderUnavailable,
    ShouyinError,
)
from app.payments.actions import CreatePayment
from app.providers.contract import PaymentMethod
from app.vault import VaultError
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER, STRANGER

METHODS = ["ALIPAY_PAGE", "ALIPAY_WAP", "ALIPAY_QR"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["public_key", "certificate", "isv"])
async def test_paid_from_click_to_order_status(market: Market, method: str, mode: str) -> None:
    payment = await market.create(method, merchant_account_id=market.accounts[mode])
    assert (payment.api_status, payment.checking, payment.version) == ("PENDING", False, 2)
    assert payment.action is not None
    assert payment.action["kind"] == ("QrCode" if method == "ALIPAY_QR" else "Redirect")
    await market.pay(payment)
    await market.shop.settle()
    paid = await market.find(payment)
    assert (paid.api_status, paid.paid_amount_fen, paid.final) == ("SUCCESSFUL", 1230, True)
    assert await market.shop.status_of(payment.order_id) == "paid"
    trade = await market.trade(payment)
    assert trade is not None
    assert (trade["trade_no"], trade["total_amount"]) == (paid.transaction_id, "12.30")
    assert await market.shop.count("difference") == 0


@pytest.mark.parametrize("method", METHODS)
async def test_a_lost_notification_is_found_by_asking(market: Market, method: str) -> None:
    payment = await market.create(method)
    await market.pay(payment, notify=False)
    await market.advance(timedelta(minutes=5))
    await market.shop.settle()
    assert (await market.find(payment)).api_status == "SUCCESSFUL"
    assert await market.shop.status_of(payment.order_id) == "paid"


@pytest.mark.parametrize("method", METHODS)
async def test_an_unpaid_payment_ends_after_its_time_at_the_provider_too(market: Market, method: str) -> None:
    payment = await market.create(method, expires_in=timedelta(minutes=30))
    await market.show(payment)
    await market.advance(timedelta(minutes=31))
    await market.shop.settle()
    assert (await market.find(payment)).api_status == "CLOSED"
    assert await market.shop.status_of(payment.order_id) == "unpaid"
    for _ in range(4):
        await market.advance(timedelta(hours=1))
        await market.shop.settle()
    assert (await market.find(payment)).check_at is None
    assert (await market.shop.events(payment.id))[-1] == "payment.closed"


async def test_a_payment_that_lands_before_the_close_wins(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment, notify=False)
    await market.advance(timedelta(hours=3))
    await market.shop.settle()
    assert (await market.find(payment)).api_status == "SUCCESSFUL"


async def test_the_provider_is_asked_on_a_schedule_and_not_more(market: Market) -> None:
    payment = await market.create()
    for _ in range(24):
        await market.advance(timedelta(minutes=10))
        await market.shop.settle()
    calls = await market.calls(payment)
    assert (await market.find(payment)).api_status == "CLOSED"
    assert calls["alipay.trade.query"] <= 24
    assert calls["alipay.trade.close"] == 1


async def test_the_same_key_twice_at_once_makes_one_payment(market: Market) -> None:
    order_id = await market.shop.order()
    other = await market.shop.open()
    payments = await asyncio.gather(
        *(
            market.create("ALIPAY_QR", process, order_id=order_id, idempotency_key="k-1")
            for process in (market.shop.runtime, other) * 5
        )
    )
    assert len({payment.id for payment in payments}) == 1
    assert await market.shop.count("payment") == 1
    assert (await market.calls(payments[0])).get("alipay.trade.precreate") == 1
    again = await market.create("ALIPAY_QR", order_id=order_id, idempotency_key="k-1")
    assert (again.id, again.action is not None) == (payments[0].id, True)


async def test_the_same_key_with_another_input_is_a_conflict(market: Market) -> None:
    order_id = await market.shop.order()
    await market.create(order_id=order_id, idempotency_key="k-1")
    for fields in (
        {"order_id": await market.shop.order()},
        {"order_id": order_id, "return_url": "https://shop.example/"},
    ):
        with pytest.raises(IdempotencyConflict):
            await market.create(idempotency_key="k-1", **fields)
    assert await market.shop.count("payment") == 1


async def test_the_same_key_of_another_caller_is_another_key(market: Market) -> None:
    mine, theirs = await market.shop.order(), await market.shop.order(user_id=8)
    await market.create(order_id=mine, idempotency_key="k-1")
    request = CreatePayment(theirs, PaymentMethod.ALIPAY_PAGE, None, "Tea", idempotency_key="k-1")
    await market.shop.runtime.payments.create(STRANGER, request, correlation_id="c")
    assert await market.shop.count("payment") == 2


@pytest.mark.parametrize(
    ("fields", "kind", "field"),
    [
        ({"order_id": 424242}, OrderNotFound, "orderId"),
        ({"amount_fen": 1229}, AmountMismatch, "amount"),
        ({"amount_fen": 1}, InvalidAmount, "amount"),
        ({"amount_fen": 0}, InvalidAmount, "amount"),
        ({"amount_fen": 10**14}, InvalidAmount, "amount"),
        ({"method": PaymentMethod.ALIPAY_CYCLE}, InvalidInput, "method"),
        ({"method": PaymentMethod.WECHAT_H5}, MethodNotConfigured, "method"),
        ({"merchant_account_id": 99}, MethodNotConfigured, "method"),
        ({"subject": "  "}, InvalidInput, "subject"),
        ({"idempotency_key": ""}, InvalidInput, "idempotencyKey"),
        ({"expires_in": timedelta(seconds=1)}, InvalidInput, "expiresInSeconds"),
    ],
)
async def test_what_is_refused_leaves_nothing(
    market: Market, fields: dict[str, object], kind: type[ShouyinError], field: str
) -> None:
    request = {
        "order_id": await market.shop.order(),
        "method": PaymentMethod.ALIPAY_QR,
        "amount_fen": None,
        "subject": "Tea",
    }
    with pytest.raises(kind) as refused:
        await market.shop.runtime.payments.create(BUYER, CreatePayment(**request | fields), correlation_id="c")  # type: ignore[arg-type]  # a table of changes
    assert refused.value.field == field
    assert (await market.shop.count("payment"), await market.shop.count("event")) == (0, 0)
    assert (await market.control("GET", "/calls"))["calls"] == []


async def test_another_user_s_order_looks_like_none(market: Market) -> None:
    order_id = await market.shop.order(user_id=8)
    with pytest.raises(OrderNotFound):
        await market.create(order_id=order_id)
    payment = await market.shop.runtime.payments.create(
        ADMIN, CreatePayment(order_id, PaymentMethod.ALIPAY_PAGE, 1230, "Tea"), correlation_id="c"
    )
    assert await market.shop.runtime.payments.find(BUYER, payment.id) is None
    assert await market.shop.runtime.payments.of_order(BUYER, order_id) == []
    for act in (market.shop.runtime.payments.sync, market.shop.runtime.payments.close):
        with pytest.raises(NotFound):
            await act(BUYER, payment.id, correlation_id="c")
    assert [p.id for p in await market.shop.runtime.payments.of_order(STRANGER, order_id)] == [payment.id]


async def test_a_paid_order_is_not_paid_again(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment)
    await market.shop.settle()
    with pytest.raises(OrderAlreadyPaid):
        await market.create(order_id=payment.order_id)
    assert await market.shop.count("payment") == 1


async def test_an_order_whose_amount_cannot_be_paid(market: Market) -> None:
    for amount in ("0.01", "0"):
        with pytest.raises(InvalidAmount) as refused:
            await market.create(order_id=await market.shop.order(amount=amount))
        assert "0.02" in refused.value.message
    assert await market.shop.count("payment") == 0


async def test_nothing_works_before_activation_or_after_the_plan(market: Market) -> None:
    await market.shop.connection.execute("update shouyin.activation set plan_expires_at = $1", market.shop.clock.now())
    with pytest.raises(PlanExpired):
        await market.create()
    await market.shop.connection.execute("update shouyin.activation set plan_expires_at = null")
    assert (await market.create()).api_status == "PENDING"
    await market.shop.connection.execute("delete from shouyin.activation")
    with pytest.raises(PaymentsNotActive):
        await market.create()


async def test_a_rejection_fails_the_payment_with_the_provider_s_words(market: Market) -> None:
    await market.control(
        "POST", "/faults", method="alipay.trade.precreate", kind="business_error", sub_code="ACQ.ACCESS_FORBIDDEN"
    )
    order_id = await market.shop.order()
    for _ in range(2):
        with pytest.raises(ProviderRejected) as rejected:
            await market.create("ALIPAY_QR", order_id=order_id, idempotency_key="k")
        assert rejected.value.extra["provider"]["code"] == "ACQ.ACCESS_FORBIDDEN"
    row = await market.shop.connection.fetchrow("select id, status, failure from shouyin.payment")
    assert row is not None
    assert (row["status"], rejected.value.extra["paymentId"]) == ("FAILED", str(row["id"]))
    await market.shop.settle()
    assert await market.shop.status_of(order_id) == "failed"
    # The failed attempt does not stand in the way of the next.
    assert (await market.create("ALIPAY_QR", order_id=order_id)).api_status == "PENDING"


@pytest.mark.parametrize("fault", ["lost_reply", "20000", "bad_signature", "http_500", "timeout"])
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


async def test_a_provider_that_is_not_reached_leaves_a_failed_payment_and_no_trade(market: Market) -> None:
    await market.shop.connection.execute(
        'update shouyin.merchant_account set settings = settings || \'{"gateway": "http://127.0.0.1:9/gateway.do"}\''
    )
    with pytest.raises(ProviderUnavailable):
        await market.create("ALIPAY_QR")
    assert await market.shop.connection.fetchval("select status from shouyin.payment") == "FAILED"
    assert (await market.control("GET", "/trades"))["trades"] == []


@pytest.mark.parametrize("fault", ["timeout", "http_500", "20000", "bad_signature"])
async def test_asking_in_vain_changes_nothing_and_says_so(market: Market, fault: str) -> None:
    payment = await market.create()
    await market.pay(payment, notify=False)
    await market.control("POST", "/faults", method="alipay.trade.query", kind=fault)
    with pytest.raises(OutcomeUnknown):
        await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert await market.find(payment) == payment
    synced = await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")
    assert synced.api_status == "SUCCESSFUL"


async def test_a_provider_outage_of_two_days_ends_nothing_and_loses_nothing(market: Market) -> None:
    unpaid, paid = await market.create(), await market.create()
    await market.show(unpaid)
    await market.pay(paid, notify=False)
    await market.control("POST", "/faults", method="alipay.trade.query", kind="http_500", count=1000)
    for _ in range(12):
        await market.advance(timedelta(hours=4))
        await market.shop.settle()
    assert {(await market.find(p)).status for p in (unpaid, paid)} == {"PENDING"}
    await market.control("DELETE", "/faults")
    await market.advance(timedelta(minutes=11))
    await market.shop.settle()
    assert [(await market.find(p)).status for p in (unpaid, paid)] == ["CLOSED", "SUCCESSFUL"]


async def test_close_ends_the_payment_at_the_provider(market: Market) -> None:
    payment = await market.create()
    await market.show(payment)
    closed = await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert closed.api_status == "CLOSED"
    trade = await market.trade(payment)
    assert trade is not None
    assert trade["trade_status"] == "TRADE_CLOSED"
    assert await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c") == closed


async def test_close_of_a_paid_payment_returns_it_paid(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment, notify=False)
    assert (await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")).api_status == "SUCCESSFUL"


async def test_close_whose_reply_is_lost_says_unknown_and_is_found_out(market: Market) -> None:
    payment = await market.create()
    await market.show(payment)
    await market.control("POST", "/faults", method="alipay.trade.close", kind="lost_reply")
    with pytest.raises(OutcomeUnknown):
        await market.shop.runtime.payments.close(BUYER, payment.id, correlation_id="c")
    assert (await market.find(payment)).status == "PENDING"
    assert (await market.shop.runtime.payments.sync(BUYER, payment.id, correlation_id="c")).api_status == "CLOSED"


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


async def test_a_wrong_amount_at_the_provider_never_pays_the_order(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment, amount="0.01")
    await market.shop.settle()
    assert (await market.find(payment)).status == "PENDING"
    assert await market.shop.status_of(payment.order_id) == "unpaid"
    assert await market.shop.connection.fetchval("select array_agg(field) from shouyin.difference") == ["amount_fen"]


async def test_a_clock_that_is_wrong_gives_the_documented_refusal(market: Market) -> None:
    await market.control("POST", "/clock", advance_s=0, strict_timestamps=True)
    for skew in (timedelta(minutes=-11), timedelta(minutes=22)):
        market.shop.clock.advance(skew)
        with pytest.raises(ProviderRejected) as rejected:
            await market.create("ALIPAY_QR")
        assert rejected.value.extra["provider"]["code"] == "isv.invalid-timestamp"
        assert "clock" in rejected.value.message


async def test_one_correlation_id_from_the_request_to_the_flow(market: Market) -> None:
    payment = await market.create()
    await market.pay(payment)
    await market.shop.settle()
    ids = await market.shop.connection.fetch("select distinct correlation_id from shouyin.event")
    assert [row["correlation_id"] for row in ids] == ["c-m"]
    assert await market.shop.connection.fetchval("select correlation_id from shouyin.notification") == "c-n"


async def test_callers_without_an_owner_column_share_the_orders(market: Market) -> None:
    await market.shop.connection.execute("update shouyin.activation set owner_column = null")
    order_id = await market.shop.order(user_id=8)
    payment = await market.create(order_id=order_id)
    assert payment.owner == "8"
    assert Principal(sub="7") != STRANGER


async def test_a_second_attempt_that_is_turned_away_fails_nothing_the_first_may_have_done(market: Market) -> None:
    await market.control("POST", "/faults", method="alipay.trade.precreate", kind="lost_reply")
    payment = await market.create("ALIPAY_QR")
    assert payment.checking
    turned_away = {"method": "alipay.trade.precreate", "kind": "error_response", "code": "40005"}
    await market.control("POST", "/faults", **turned_away, sub_code="isv.app-call-limited")
    await market.advance(timedelta(seconds=31))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.failure) == ("CREATED", None)
    assert (await market.shop.events(payment.id)) == ["payment.created"]
    await market.advance(timedelta(minutes=2))
    await market.shop.settle()
    found = await market.find(payment)
    assert (found.status, found.out_trade_no, found.action is not None) == ("PENDING", payment.out_trade_no, True)


class Slow(httpx.AsyncHTTPTransport):
    """A network that keeps answers back until it is told to deliver them."""

    def __init__(self) -> None:
        super().__init__()
        self.holds, self.deliver = asyncio.Event(), asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        await response.aread()
        self.holds.set()
        await self.deliver.wait()
        return response


async def test_a_late_refusal_does_not_undo_what_another_attempt_achieved(market: Market) -> None:
    """The process that opened the payment waits for its answer beyond its lease, and another has asked meanwhile."""
    network = Slow()
    async with httpx.AsyncClient(transport=network, trust_env=False) as http:
        slow = await market.shop.open(http=http)
        await market.control(
            "POST", "/faults", method="alipay.trade.precreate", kind="business_error", sub_code="ACQ.ACCESS_FORBIDDEN"
        )
        creating = asyncio.create_task(market.create("ALIPAY_QR", slow))
        await network.holds.wait()
        market.shop.clock.advance(timedelta(seconds=31))
        await market.shop.settle()
        network.deliver.set()
        payment = await creating
    assert (payment.status, payment.action is not None, payment.failure) == ("PENDING", True, None)
    assert (await market.shop.events(payment.id)) == ["payment.created", "payment.pending"]


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "-12.30", "12.305", "1e30"])
async def test_an_amount_that_is_none_is_refused_and_spoils_nothing_else(market: Market, amount: str) -> None:
    await market.shop.connection.execute(
        "create table public.deals (id int primary key, price numeric); delete from shouyin.activation;"
        " drop event trigger shouyin_refuse_drop; alter table shouyin.payment drop constraint payment_order"
    )
    await market.shop.runtime.activation.activate(ADMIN, Binding("deals", amount_column="price"))
    await market.shop.connection.execute(f"insert into public.deals values (1, '{amount}'), (2, 12.30)")
    with pytest.raises(InvalidAmount):
        await market.create(order_id=1)
    with pytest.raises(AmountMismatch):
        await market.shop.runtime.payments.create(
            BUYER, CreatePayment(1, PaymentMethod.ALIPAY_PAGE, 1230, "Tea"), correlation_id="c"
        )
    orders = await market.shop.runtime.payments.orders([1, 2])
    assert (orders[1].amount_fen is None or amount in ("-12.30", "1e30"), orders[2].amount_fen) == (True, 1230)
    assert await market.shop.count("payment") == 0


async def test_an_order_without_an_owner_is_an_administrator_s(market: Market) -> None:
    await market.shop.connection.execute("alter table orders alter column user_id drop not null")
    order_id = await market.shop.connection.fetchval("insert into orders (title, amount) values ('T', 1) returning id")
    payments = market.shop.runtime.payments
    assert await payments.find_order(BUYER, order_id) is None
    with pytest.raises(OrderNotFound):
        await market.create(order_id=order_id)
    payment = await payments.create(
        ADMIN, CreatePayment(order_id, PaymentMethod.ALIPAY_PAGE, None, "Tea"), correlation_id="c"
    )
    assert await payments.find(BUYER, payment.id) is None
    assert await payments.of_order(BUYER, order_id) == []
    assert (await payments.find(ADMIN, payment.id)) == payment


@pytest.mark.parametrize("text", ["\x00", "a\ud800", "\n", "", "x" * 3000])
@pytest.mark.parametrize("method", ["ALIPAY_QR", "ALIPAY_PAGE"])
async def test_text_that_cannot_be_kept_is_refused(market: Market, method: str, text: str) -> None:
    plain = CreatePayment(await market.shop.order(), PaymentMethod(method), None, "Tea")
    for request, field in (
        (replace(plain, idempotency_key=text), "idempotencyKey"),
        (replace(plain, openid=text), "openid"),
        (replace(plain, return_url=text), "returnUrl"),
    ):
        with pytest.raises(InvalidInput) as refused:
            await market.shop.runtime.payments.create(BUYER, request, correlation_id="c")
        assert refused.value.field == field
    assert await market.shop.count("payment") == 0


async def test_a_payer_who_would_never_match_is_refused(market: Market) -> None:
    """Alipay names the payer by its own id: an openid kept with the payment would make every success disagree."""
    with pytest.raises(InvalidInput) as refused:
        await market.create(openid="o-7")
    assert refused.value.field == "openid"
    assert await market.shop.count("payment") == 0


async def test_an_isolation_level_of_the_server_s_changes_nothing(market: Market) -> None:
    """What is read after a lock has to be what its last holder committed, whatever the database's default says."""
    name = await market.shop.connection.fetchval("select current_database()")
    await market.shop.connection.execute(f"alter database {name} set default_transaction_isolation = 'serializable'")
    other = await market.shop.open()
    async with other.db.transaction() as tx:
        assert await tx.connection.fetchval("show transaction_isolation") == "read committed"


async def test_an_account_that_cannot_be_opened_leaves_a_failed_payment_and_not_one_in_doubt(market: Market) -> None:
    """Its master key is gone, say: nothing was sent, and nobody has to ask what became of it."""
    await market.shop.connection.execute(
        "update shouyin.merchant_account set sealed = overlay(sealed placing 'x' from 5)"
    )
    with pytest.raises(VaultError):
        await market.create()
    row = await market.shop.connection.fetchrow("select status, check_at, failure->>'code' from shouyin.payment")
    assert row is not None
    assert tuple(row) == ("FAILED", None, "PROVIDER_UNAVAILABLE")
    assert (await market.control("GET", "/calls"))["calls"] == []

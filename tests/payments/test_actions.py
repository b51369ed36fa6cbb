"""Creating, asking and closing: what callers may ask for and are told. The flows stand in test_every_way.py."""

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
    PaymentsNotActive,
    PlanExpired,
    ShouyinError,
)
from app.payments.actions import CreatePayment
from app.providers.contract import PaymentMethod
from app.vault import VaultError
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN, BUYER, STRANGER


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
        ({"method": PaymentMethod.WECHAT_NATIVE}, MethodNotConfigured, "method"),
        ({"method": PaymentMethod.HUIFU_ALIPAY_QR}, MethodNotConfigured, "method"),
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
    await market.shop.connection.execute("create table public.deals (id int primary key, price numeric)")
    await market.shop.runtime.activation.rebind(ADMIN, Binding("deals", amount_column="price"))
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

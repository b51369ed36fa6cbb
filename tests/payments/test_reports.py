"""The one door: what a provider's word does to a payment, in every order, repeated, and where it does not fit."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest

from app.errors import InvalidInput
from app.payments.actions import CreatePayment
from app.payments.model import Payment, PaymentStatus
from app.payments.reports import Applied, apply_payment_report
from app.providers.contract import PaymentMethod, PaymentReport, Rejected, ReportedStatus
from tests.fixtures.shop import BUYER, Shop


async def pending(shop: Shop, *, order_id: int | None = None) -> Payment:
    """A payment whose page was issued."""
    request = CreatePayment(order_id or await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    return await shop.runtime.payments.create(BUYER, request, correlation_id="c-1")


async def apply(shop: Shop, payment: Payment, status: str, **words: Any) -> Applied:
    """Applies a report about the payment, as a notification unless `source` says otherwise."""
    account = await shop.runtime.accounts.open(payment.merchant_account_id)
    paid = {"amount_fen": 1230, "transaction_id": "T1"} if status == "SUCCESSFUL" else {}
    fields: dict[str, Any] = {
        "out_trade_no": payment.out_trade_no,
        "source": "notification",
        "account_claims": {"app_id": "2021000000000001"},
    }
    report = PaymentReport(status=ReportedStatus(status), **fields | paid | words)
    return await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c-2")


async def state(shop: Shop, payment: Payment) -> Payment:
    row = await shop.runtime.payments.find(BUYER, payment.id)
    assert row is not None
    return row


async def test_a_success_is_taken_once(shop: Shop) -> None:
    payment = await pending(shop)
    applied = await apply(shop, payment, "SUCCESSFUL")
    assert applied.changed
    paid = await state(shop, payment)
    assert (paid.api_status, paid.paid_amount_fen, paid.transaction_id, paid.final) == (
        PaymentStatus.SUCCESSFUL, 1230, "T1", True,
    )  # fmt: skip
    assert (paid.version, paid.check_at, paid.late) == (payment.version + 1, None, False)
    await apply(shop, payment, "SUCCESSFUL")
    assert (await state(shop, payment)).version == paid.version
    assert await shop.events(payment.id) == [
        "payment.created", "payment.pending", "payment.successful", "payment.repeated",
    ]  # fmt: skip


async def test_a_repeat_by_query_is_silent(shop: Shop) -> None:
    payment = await pending(shop)
    await apply(shop, payment, "SUCCESSFUL", source="query")
    await apply(shop, payment, "SUCCESSFUL", source="query")
    assert (await shop.events(payment.id))[2:] == ["payment.successful"]


@pytest.mark.parametrize("end", ["CLOSED", "FAILED"])
async def test_a_late_success_is_kept_and_flagged(shop: Shop, end: str) -> None:
    payment = await pending(shop)
    await apply(shop, payment, end, source="query")
    assert (await state(shop, payment)).api_status == end
    await apply(shop, payment, "SUCCESSFUL")
    paid = await state(shop, payment)
    assert (paid.status, paid.late, paid.failure) == ("SUCCESSFUL", True, None)
    details = await shop.connection.fetchval("select details from shouyin.event where kind = 'payment.successful'")
    assert details == '{"late": true, "surplus": false}'


async def test_the_second_success_of_an_order_is_flagged_as_surplus(shop: Shop) -> None:
    order_id = await shop.order()
    first, second = await pending(shop, order_id=order_id), await pending(shop, order_id=order_id)
    other = await shop.open()
    assert other is not shop.runtime
    await asyncio.gather(apply(shop, first, "SUCCESSFUL"), apply(shop, second, "SUCCESSFUL", transaction_id="T2"))
    flags = await shop.connection.fetch(
        "select (details->>'surplus')::bool as surplus from shouyin.event where kind = 'payment.successful'"
    )
    assert sorted(row["surplus"] for row in flags) == [False, True]


async def test_any_order_of_reports_ends_paid(shop: Shop) -> None:
    for order in itertools.permutations(["PENDING", "SUCCESSFUL", "CLOSED", "FAILED", "NOT_FOUND"]):
        payment = await pending(shop)
        versions = [payment.version]
        for status in order:
            await apply(shop, payment, status, source="query")
            versions.append((await state(shop, payment)).version)
        assert (await state(shop, payment)).status == "SUCCESSFUL"
        assert versions == sorted(versions)
        assert (await shop.events(payment.id)).count("payment.successful") == 1


async def test_a_failure_keeps_the_provider_s_words(shop: Shop) -> None:
    payment = await pending(shop)
    said = Rejected(code="X", message="不行", explanation="do this", explanation_zh="这样做")
    await apply(shop, payment, "FAILED", failure=said)
    failure = (await state(shop, payment)).failure
    assert failure is not None
    assert (failure.provider_code, failure.provider_message, failure.explanation) == ("X", "不行", "do this")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"amount_fen": 1229}, "amount_fen"),
        ({"amount_fen": 1}, "amount_fen"),
        ({"amount_fen": None}, "amount_fen"),
        ({"currency": "USD"}, "currency"),
        ({"account_claims": {"app_id": "2021000000000002"}}, "app_id"),
        ({"account_claims": {"seller_id": "2088000000000002"}}, "seller_id"),
    ],
)
async def test_what_does_not_fit_our_row_changes_nothing(shop: Shop, words: dict[str, Any], field: str) -> None:
    payment = await pending(shop)
    for _ in range(2):
        applied = await apply(shop, payment, "SUCCESSFUL", **words)
        assert (applied.changed, applied.differences) == (False, (field,))
    assert await state(shop, payment) == payment
    differences = await shop.connection.fetch("select field, seen, payment_id from shouyin.difference")
    assert [tuple(row) for row in differences] == [(field, 2, payment.id)]
    assert (await shop.events(payment.id))[2:] == ["payment.mismatch"]
    await shop.settle()
    assert await shop.count("flow_run") == 0
    assert await shop.status_of(payment.order_id) == "unpaid"


async def test_another_account_s_message_cannot_pay_our_payment(shop: Shop, account_fields: dict[str, str]) -> None:
    from tests.fixtures.shop import ADMIN

    payment = await pending(shop)
    other = await shop.runtime.accounts.create(
        ADMIN, provider="ALIPAY", mode="public_key", name="Other", fields=account_fields
    )
    opened = await shop.runtime.accounts.open(other.id)
    report = PaymentReport(payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230)
    applied = await apply_payment_report(shop.runtime.db, shop.clock, opened, report, correlation_id=None)
    assert applied.differences == ("merchant_account",)
    assert await state(shop, payment) == payment


async def test_an_unknown_number_is_recorded_and_the_flow_hears_not_found(shop: Shop) -> None:
    payment = await pending(shop)
    applied = await apply(shop, payment, "SUCCESSFUL", out_trade_no="SY-NOT-OURS")
    assert (applied.payment, applied.differences) == (None, ("out_trade_no",))
    assert await state(shop, payment) == payment
    assert await shop.count("difference") == 1
    assert (await shop.events())[-1] == "payment.unknown"


async def test_fifty_reports_at_once_make_one_transition(shop: Shop) -> None:
    payment = await pending(shop)
    other = await shop.open()
    account = await other.accounts.open(payment.merchant_account_id)
    report = PaymentReport(
        payment.out_trade_no, ReportedStatus.SUCCESSFUL, "notification", amount_fen=1230, transaction_id="T1"
    )
    await asyncio.gather(
        *(
            apply_payment_report(process.db, shop.clock, account, report, correlation_id=None)
            for process in (shop.runtime, other) * 25
        )
    )
    kinds = await shop.events(payment.id)
    assert (kinds.count("payment.successful"), kinds.count("payment.repeated")) == (1, 49)
    assert (await state(shop, payment)).version == payment.version + 1


async def test_every_fen_survives_the_way_through_the_database(shop: Shop) -> None:
    for amount in ("0.02", "19.90", "9999999.99", "99999999.99"):
        payment = await pending(shop, order_id=await shop.order(amount=amount))
        fen = int(amount.replace(".", ""))
        assert payment.amount_fen == fen
        await apply(shop, payment, "SUCCESSFUL", amount_fen=fen)
        assert (await state(shop, payment)).paid_amount_fen == fen


async def test_a_payment_cannot_outlive_what_its_provider_allows(shop: Shop) -> None:
    request = CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea", expires_in=timedelta(days=400))
    with pytest.raises(InvalidInput) as refused:
        await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    assert refused.value.field == "expiresInSeconds"
    assert await shop.count("payment") == 0

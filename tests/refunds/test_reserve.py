"""Giving money back: who may, how much, and the reserve that makes more than what was paid impossible."""

import asyncio
import random
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest

from app.activation.permissions import Reach
from app.auth import Principal
from app.errors import ProviderUnavailable, ShouyinError
from app.payments.actions import CreatePayment
from app.payments.model import Payment
from app.payments.reports import apply_payment_report
from app.providers.contract import (
    Account,
    NotReached,
    PaymentMethod,
    PaymentReport,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    ReportedStatus,
    Unknown,
)
from app.refunds.actions import RefundPayment
from app.refunds.model import Refund, read_refund
from app.refunds.reports import AppliedRefund, apply_refund_report
from app.refunds.sweep import check_due_refunds
from app.runtime import Runtime
from tests.fixtures.shop import ADMIN, BUYER, STRANGER, Shop

CLERK = Principal(sub="c-1", roles=frozenset({"clerk"}))


async def paid(shop: Shop, *, amount: str = "12.30", succeeded: bool = True) -> Payment:
    """A payment, paid as far as its provider says."""
    request = CreatePayment(await shop.order(amount=amount), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    payment = await shop.runtime.payments.create(BUYER, request, correlation_id="c")
    if succeeded:
        account = await shop.runtime.accounts.open(payment.merchant_account_id)
        report = PaymentReport(
            payment.out_trade_no, ReportedStatus.SUCCESSFUL, "query", payment.amount_fen, transaction_id="T1"
        )
        await apply_payment_report(shop.runtime.db, shop.clock, account, report, correlation_id="c")
    return await find(shop, payment)


async def find(shop: Shop, payment: Payment) -> Payment:
    found = await shop.runtime.payments.find(ADMIN, payment.id)
    assert found is not None
    return found


async def opened(shop: Shop, payment: Payment, fen: int, runtime: Runtime | None = None) -> Refund:
    """A refund whose provider has not answered yet: its row and the reserve, as `create` commits them first."""
    now = shop.clock.now()
    row = await (runtime or shop.runtime).db.change(
        "refund.open", payment.id, "root", True, ["admin"], fen, f"SR{random.randrange(10**12):012}", None, None,
        b"h", "c-r", now, now + timedelta(seconds=30), now - timedelta(days=365), now - timedelta(days=1), "10.0.0.1",
    )  # fmt: skip
    assert row is not None
    if row["refusal"] is not None:
        raise LookupError(row["refusal"])
    return read_refund(row)


async def report(shop: Shop, refund: Refund, status: str, **said: Any) -> AppliedRefund:
    """The provider's word about a refund, applied."""
    payment = await shop.runtime.db.pool.fetchval(
        "select out_trade_no from shouyin.payment where id = $1", refund.payment_id
    )
    account = await shop.runtime.accounts.open(refund.merchant_account_id)
    fields = {"out_trade_no": payment, "out_refund_no": refund.out_refund_no, "source": "query"} | said
    return await apply_refund_report(
        shop.runtime.db, shop.clock, account, RefundReport(status=ReportedRefund(status), **fields), correlation_id="c"
    )


async def money(shop: Shop, payment: Payment) -> tuple[int, int]:
    """(given back, on its way back) in fen."""
    now = await find(shop, payment)
    return now.refunded_amount_fen, now.reserved_refund_fen


@pytest.fixture
async def granted(shop: Shop) -> Shop:
    """A shop where clerks and administrators may refund."""
    for role in ("admin", "clerk"):
        await shop.runtime.permissions.grant(ADMIN, role, "payment.refund")
    return shop


# --- who, and how much --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "grants", "code"),
    [
        (BUYER, [], "FORBIDDEN"),
        (STRANGER, [], "NOT_FOUND"),
        (CLERK, [], "NOT_FOUND"),
        (ADMIN, [], "FORBIDDEN"),
        (CLERK, [("clerk", "ALL")], None),
        (CLERK, [("clerk", "OWN")], "NOT_FOUND"),
        (ADMIN, [("admin", "ALL")], None),
        (ADMIN, [("clerk", "ALL")], "FORBIDDEN"),
        (BUYER, [("user", "OWN")], None),
        (STRANGER, [("user", "OWN")], "NOT_FOUND"),
        (BUYER, [("*", "OWN")], None),
        # What customers may do with their own reaches nobody else's, whoever looks at it.
        (ADMIN, [("*", "OWN")], "FORBIDDEN"),
        (CLERK, [("clerk", "OWN"), ("*", "OWN")], "NOT_FOUND"),
    ],
)
async def test_who_may_refund(shop: Shop, caller: Principal, grants: list[tuple[str, Any]], code: str | None) -> None:
    payment = await paid(shop)
    for role, scope in grants:
        await shop.runtime.permissions.grant(ADMIN, role, "payment.refund", Reach(scope))
    before = await shop.count("event"), await shop.count("audit")
    with pytest.raises(ShouyinError) as refused:
        await shop.runtime.refunds.create(caller, RefundPayment(payment.id, 100), correlation_id="c")
    # The gateway of this shop is nobody: whoever may, gets as far as that.
    assert refused.value.code == (code or "PROVIDER_UNAVAILABLE")
    assert await shop.count("refund") == (0 if code else 1)
    assert await money(shop, payment) == (0, 0)
    if code:
        assert (await shop.count("event"), await shop.count("audit")) == before


@pytest.mark.parametrize(
    ("fen", "code", "field"),
    [
        (1231, "REFUND_EXCEEDS_PAYMENT", "amount"),
        (10**14, "REFUND_EXCEEDS_PAYMENT", "amount"),
        (0, "INVALID_AMOUNT", "amount"),
        (-5, "INVALID_AMOUNT", "amount"),
    ],
)
async def test_an_amount_that_cannot_go_back(granted: Shop, fen: int, code: str, field: str) -> None:
    payment = await paid(granted)
    with pytest.raises(ShouyinError) as refused:
        await granted.runtime.refunds.create(CLERK, RefundPayment(payment.id, fen), correlation_id="c")
    assert (refused.value.code, refused.value.field) == (code, field)
    assert (await granted.count("refund"), await money(granted, payment)) == (0, (0, 0))
    assert "12.30" in refused.value.message or code == "INVALID_AMOUNT"


@pytest.mark.parametrize(
    ("field", "text"), [("reason", ""), ("reason", "x" * 81), ("reason", "a\x00"), ("idempotency_key", "")]
)
async def test_text_that_cannot_be_kept(granted: Shop, field: str, text: str) -> None:
    payment = await paid(granted)
    with pytest.raises(ShouyinError) as refused:
        await granted.runtime.refunds.create(CLERK, RefundPayment(payment.id, 1, **{field: text}), correlation_id="c")
    assert refused.value.code == "INVALID_INPUT"
    assert await granted.count("refund") == 0


async def test_what_is_not_paid_or_gone_back_already_is_not_refundable(granted: Shop) -> None:
    unpaid = await paid(granted, succeeded=False)
    refunded = await paid(granted)
    await report(granted, await opened(granted, refunded, 1230), "REFUNDED")
    old = await paid(granted)
    await granted.connection.execute(
        "update shouyin.payment set paid_at = paid_at - interval '366 days' where id = $1", old.id
    )
    for payment, words in ((unpaid, "not been paid"), (refunded, "all of it"), (old, "too long ago")):
        with pytest.raises(ShouyinError, match=words) as refused:
            await granted.runtime.refunds.create(CLERK, RefundPayment(payment.id, 1), correlation_id="c")
        assert (refused.value.code, refused.value.field) == ("PAYMENT_NOT_REFUNDABLE", "paymentId")
    assert await granted.count("refund") == 1


async def test_a_refund_that_no_provider_heard_of_fails_and_frees_its_reserve(granted: Shop) -> None:
    payment = await paid(granted)
    request = RefundPayment(payment.id, 300, "cold tea", "k-1")
    for _ in range(2):
        with pytest.raises(ProviderUnavailable) as refused:
            await granted.runtime.refunds.create(CLERK, request, correlation_id="c-9", address="10.1.1.1")
    refund = await granted.runtime.refunds.find(CLERK, int(refused.value.extra["refundId"]))
    assert refund is not None
    assert (refund.api_status, refund.final, refund.reason, refund.created_by) == ("FAILED", True, "cold tea", "c-1")
    assert (await granted.count("refund"), await money(granted, payment)) == (1, (0, 0))
    audit = await granted.connection.fetchrow("select * from shouyin.audit where action = 'payment.refund'")
    assert audit is not None
    assert (audit["actor"], audit["subject"], audit["address"], audit["correlation_id"]) == (
        "c-1", f"payment:{payment.id}", "10.1.1.1", "c-9",
    )  # fmt: skip
    with pytest.raises(ShouyinError) as conflict:
        await granted.runtime.refunds.create(
            CLERK, RefundPayment(payment.id, 301, "cold tea", "k-1"), correlation_id="c"
        )
    assert conflict.value.code == "IDEMPOTENCY_CONFLICT"


@pytest.mark.parametrize("outcome", [NotReached("ConnectTimeout"), Rejected("NOTENOUGH", "", "no balance", "余额不足")])
async def test_who_is_answered_too_late_frees_nothing(
    granted: Shop, monkeypatch: pytest.MonkeyPatch, outcome: NotReached | Rejected
) -> None:
    runtime, payment, sent = granted.runtime, await paid(granted), list[str]()
    provider = runtime.accounts.providers["ALIPAY"]

    async def create_refund(account: Account, request: RefundRequest) -> RefundOutcome:
        sent.append(request.out_refund_no)
        if len(sent) > 1:
            return Unknown("taken perhaps, and the answer lost")
        # This takes longer than anybody waits: a worker hears that there is no such refund, and sends it once more.
        granted.clock.advance(timedelta(seconds=31))
        assert await check_due_refunds(runtime.db, granted.clock, runtime.refunds) == 1
        return outcome

    async def query_refund(account: Account, request: RefundRequest) -> RefundOutcome:
        return RefundReport(request.out_trade_no, request.out_refund_no, ReportedRefund.NOT_FOUND, "query")

    monkeypatch.setattr(provider, "create_refund", create_refund)
    monkeypatch.setattr(provider, "query_refund", query_refund)
    refund = await runtime.refunds.create(CLERK, RefundPayment(payment.id, 500), correlation_id="c")
    assert refund.checking
    assert sent == [refund.out_refund_no] * 2
    assert await money(granted, payment) == (0, 500)
    # Whoever asks last has the last word, once a first that was taken would be over.
    monkeypatch.setattr(provider, "create_refund", AsyncMock(return_value=Rejected("NOTENOUGH", "", "none", "无")))
    granted.clock.advance(timedelta(minutes=2))
    assert await check_due_refunds(runtime.db, granted.clock, runtime.refunds) == 1
    assert await money(granted, payment) == (0, 500)
    granted.clock.advance(timedelta(days=8))
    assert await check_due_refunds(runtime.db, granted.clock, runtime.refunds) == 1
    assert (await runtime.refunds.reload(refund.id)).status == "FAILED"
    assert await money(granted, payment) == (0, 0)


async def test_bounds_of_a_grant(granted: Shop) -> None:
    await granted.runtime.permissions.grant(ADMIN, "clerk", "payment.refund", Reach(None, 500, 800))
    payments = [await paid(granted) for _ in range(4)]
    with pytest.raises(ShouyinError, match=r"5\.00") as refused:
        await granted.runtime.refunds.create(CLERK, RefundPayment(payments[0].id, 501), correlation_id="c")
    assert (refused.value.code, refused.value.field) == ("FORBIDDEN", "amount")

    async def ask(payment: Payment) -> str:
        try:
            return str((await opened_by_clerk(granted, payment, 400)).status)
        except LookupError as exc:
            return str(exc)

    # Four at once, on four payments: a day's sum is a sum, whoever is first.
    outcomes = await asyncio.gather(*(ask(payment) for payment in payments))
    assert sorted(outcomes) == ["ABOVE_DAILY", "ABOVE_DAILY", "CREATED", "CREATED"]
    assert await granted.connection.fetchval("select sum(reserved_refund_fen) from shouyin.payment") == 800
    # What failed gave nothing back; a new day is a new sum.
    failed = await granted.connection.fetchrow("select * from shouyin.refund order by id limit 1")
    await report(granted, read_refund(failed), "FAILED")  # type: ignore[arg-type]  # the row is there
    assert await ask(payments[0]) == "CREATED"
    assert await ask(payments[1]) == "ABOVE_DAILY"
    granted.clock.advance(timedelta(days=2))
    assert await ask(payments[1]) == "CREATED"


async def test_grants_are_not_added_up_to_one_that_nobody_gave(granted: Shop) -> None:
    grant, payment = granted.runtime.permissions.grant, await paid(granted)
    # Without a bound for one's own; everybody's up to 5.00.
    await grant(ADMIN, "*", "payment.refund", Reach("OWN"))
    await grant(ADMIN, "clerk", "payment.refund", Reach("ALL", 500))
    with pytest.raises(LookupError, match="ABOVE_LARGEST"):
        await opened_by_clerk(granted, payment, 501)
    # Much at once but little a day; little at once but any number of times.
    await grant(ADMIN, "*", "payment.refund", Reach("ALL", 600, 600))
    await grant(ADMIN, "clerk", "payment.refund", Reach("ALL", 200))
    assert (await opened_by_clerk(granted, payment, 600)).status == "CREATED"
    with pytest.raises(LookupError, match="ABOVE_DAILY"):
        await opened_by_clerk(granted, payment, 201)
    assert (await opened_by_clerk(granted, payment, 200)).status == "CREATED"
    assert await money(granted, payment) == (0, 800)


async def opened_by_clerk(shop: Shop, payment: Payment, fen: int) -> Refund:
    now = shop.clock.now()
    row = await shop.runtime.db.change(
        "refund.open", payment.id, CLERK.sub, False, ["*", "clerk"], fen, f"SR{random.randrange(10**12):012}", None,
        None, b"h", "c-r", now, now + timedelta(seconds=30), now - timedelta(days=365), now - timedelta(days=1), None,
    )  # fmt: skip
    assert row is not None
    if row["refusal"] is not None:
        raise LookupError(row["refusal"])
    return read_refund(row)


async def test_nothing_goes_back_before_activation_or_after_the_plan(granted: Shop) -> None:
    payment = await paid(granted)
    await granted.runtime.plan.set(ADMIN, "pro", granted.clock.now() - timedelta(seconds=1))
    with pytest.raises(ShouyinError) as refused:
        await granted.runtime.refunds.create(CLERK, RefundPayment(payment.id, 1), correlation_id="c")
    assert refused.value.code == "PLAN_EXPIRED"
    # What is under way is still taken.
    await granted.runtime.plan.set(ADMIN, "pro", granted.clock.now() + timedelta(days=1))
    refund = await opened(granted, payment, 100)
    await granted.runtime.plan.set(ADMIN, "pro", granted.clock.now() - timedelta(seconds=1))
    assert (await report(granted, refund, "REFUNDED")).changed
    await granted.connection.execute("delete from shouyin.activation")
    with pytest.raises(ShouyinError) as refused:
        await granted.runtime.refunds.create(CLERK, RefundPayment(payment.id, 1), correlation_id="c")
    assert refused.value.code == "PAYMENTS_NOT_ACTIVE"
    assert await granted.count("refund") == 1


# --- the reserve ----------------------------------------------------------------------------------------------------


async def test_a_reserve_is_made_moved_and_freed(granted: Shop) -> None:
    payment = await paid(granted)
    first, second = await opened(granted, payment, 500), await opened(granted, payment, 700)
    assert await money(granted, payment) == (0, 1200)
    with pytest.raises(LookupError, match="REFUND_EXCEEDS_PAYMENT"):
        await opened(granted, payment, 31)
    assert (await report(granted, first, "PENDING")).changed is False
    assert await money(granted, payment) == (0, 1200)
    assert (await report(granted, first, "REFUNDED", amount_fen=500, provider_refund_id="P1")).changed
    assert await money(granted, payment) == (500, 700)
    assert (await find(granted, payment)).api_status == "PARTIALLY_REFUNDED"
    assert (await report(granted, second, "FAILED")).changed
    assert await money(granted, payment) == (500, 0)
    rest = await opened(granted, payment, 730)
    await report(granted, rest, "REFUNDED")
    assert (await find(granted, payment)).api_status == "REFUNDED"
    assert await money(granted, payment) == (1230, 0)


@pytest.mark.parametrize("status", ["REFUNDED", "FAILED", "PENDING", "NOT_FOUND"])
async def test_repeats_of_a_word_change_nothing_twice(granted: Shop, status: str) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 500)
    for _ in range(3):
        await report(granted, refund, status)
    spent = {"REFUNDED": (500, 0), "FAILED": (0, 0)}.get(status, (0, 500))
    assert await money(granted, payment) == spent
    kinds = await granted.events(payment.id)
    assert [kinds.count(f"refund.{word}") for word in ("refunded", "failed", "repeated")] == [
        int(status == "REFUNDED"), int(status == "FAILED"), 0,
    ]  # fmt: skip


async def test_a_success_after_failure_wins_and_one_that_cannot_be_is_a_difference(granted: Shop) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 1000)
    await report(granted, refund, "FAILED")
    assert (await report(granted, refund, "REFUNDED")).changed
    assert await money(granted, payment) == (1000, 0)
    assert (await report(granted, refund, "FAILED")).changed is False
    assert await money(granted, payment) == (1000, 0)

    payment = await paid(granted)
    refund = await opened(granted, payment, 1000)
    await report(granted, refund, "FAILED")
    await report(granted, await opened(granted, payment, 1230), "REFUNDED")
    applied = await report(granted, refund, "REFUNDED", amount_fen=1000)
    assert (applied.changed, applied.differences) == (False, ("refunded_fen",))
    assert await money(granted, payment) == (1230, 0)


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"amount_fen": 501}, "refund_amount_fen"),
        ({"out_trade_no": "SY00000000000000000000000X"}, "out_trade_no"),
        ({"account_claims": {"app_id": "2021999999999999"}}, "app_id"),
    ],
)
async def test_a_word_that_does_not_fit_our_row_is_recorded_and_changes_nothing(
    granted: Shop, said: dict[str, Any], field: str
) -> None:
    payment = await paid(granted)
    refund = await opened(granted, payment, 500)
    applied = await report(granted, refund, "REFUNDED", **said)
    assert (applied.changed, applied.differences) == (False, (field,))
    assert await money(granted, payment) == (0, 500)
    assert await granted.connection.fetchval("select array_agg(field) from shouyin.difference") == [field]


async def test_the_application_of_the_payment_stays_right_when_the_account_loses_it(granted: Shop) -> None:
    payment = await paid(granted)
    await granted.connection.execute("update shouyin.payment set app_id = '2021999999999999' where id = $1", payment.id)
    refund = await opened(granted, payment, 500)
    applied = await report(granted, refund, "REFUNDED", account_claims={"app_id": "2021999999999999"})
    assert (applied.changed, applied.differences) == (True, ())


async def test_a_refund_that_is_not_ours_reaches_the_flow_as_not_found(granted: Shop) -> None:
    payment = await paid(granted)
    account = await granted.runtime.accounts.open(payment.merchant_account_id)
    foreign = RefundReport(payment.out_trade_no, "R-of-the-console", ReportedRefund.REFUNDED, "notification", 100)
    applied = await apply_refund_report(granted.runtime.db, granted.clock, account, foreign, correlation_id="c")
    assert (applied.refund, applied.differences) == (None, ("out_refund_no",))
    assert await money(granted, payment) == (0, 0)
    assert "refund.unknown" in await granted.events()


async def test_what_the_provider_s_console_gave_back_cannot_be_given_back_again(granted: Shop) -> None:
    payment = await paid(granted)
    mine = await opened(granted, payment, 200)
    account = await granted.runtime.accounts.open(payment.merchant_account_id)
    # The provider's sum may hold ours, which is counted when it is known.
    for cumulative, back in ((200, 0), (900, 700), (900, 700)):
        said = PaymentReport(
            payment.out_trade_no, ReportedStatus.SUCCESSFUL, "query", 1230, transaction_id="T1", refunded_fen=cumulative
        )
        await apply_payment_report(granted.runtime.db, granted.clock, account, said, correlation_id="c")
        assert (await money(granted, payment))[0] == back
    await report(granted, mine, "REFUNDED")
    assert await money(granted, payment) == (900, 0)
    assert await granted.connection.fetchval("select array_agg(field) from shouyin.difference") == ["refunded_fen"]


async def test_the_database_itself_refuses_to_give_back_more_than_was_paid(granted: Shop) -> None:
    payment = await paid(granted)
    for change in (
        "refunded_amount_fen = 1231",
        "reserved_refund_fen = 1231",
        "refunded_amount_fen = 1000, reserved_refund_fen = 231",
        "reserved_refund_fen = -1",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await granted.connection.execute(f"update shouyin.payment set {change} where id = $1", payment.id)


@pytest.mark.timeout(120)
async def test_many_at_once_in_three_processes_never_add_up_to_more_than_was_paid(granted: Shop) -> None:
    processes = [granted.runtime, await granted.open(), await granted.open()]
    chance = random.Random(7)
    words, refusals = ["REFUNDED", "FAILED", "PENDING"], set[str]()
    for _ in range(12):
        payment = await paid(granted)

        async def one(number: int, payment: Payment = payment) -> int:
            try:
                refund = await opened(granted, payment, chance.randint(1, 400), processes[number % 3])
            except LookupError as exc:
                refusals.add(str(exc))
                return 0
            word = chance.choice(words)
            await asyncio.gather(*(report(granted, refund, word) for _ in range(2)))
            return refund.amount_fen if word == "REFUNDED" else 0

        given = sum(await asyncio.gather(*(one(number) for number in range(50))))
        refunded, reserved = await money(granted, payment)
        waiting = await granted.connection.fetchval(
            "select coalesce(sum(amount_fen), 0) from shouyin.refund"
            " where payment_id = $1 and status in ('CREATED', 'PENDING')",
            payment.id,
        )
        assert (refunded, reserved) == (given, waiting)
        assert refunded + reserved <= 1230
        if refunded + reserved < 1230:
            await opened(granted, payment, 1230 - refunded - reserved)
        with pytest.raises(LookupError):
            await opened(granted, payment, 1)
    assert refusals <= {"REFUND_EXCEEDS_PAYMENT", "ALL_REFUNDED"}


async def test_one_called_failed_that_a_notice_names_is_asked_about(
    granted: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, payment = granted.runtime, await paid(granted)
    refund = await opened(granted, payment, 500)
    await report(granted, refund, "FAILED")
    answers = iter((ReportedRefund.NOT_FOUND, ReportedRefund.REFUNDED))

    async def query_refund(account: Account, request: RefundRequest) -> RefundOutcome:
        return RefundReport(request.out_trade_no, request.out_refund_no, next(answers), "query")

    monkeypatch.setattr(runtime.accounts.providers["ALIPAY"], "query_refund", query_refund)
    for status, given_back in (("FAILED", 0), ("REFUNDED", 500)):
        assert await runtime.db.change("refund.ask_now", refund.out_refund_no, granted.clock.now()) is not None
        assert await check_due_refunds(runtime.db, granted.clock, runtime.refunds) == 1
        found = await runtime.refunds.reload(refund.id)
        assert (found.status, found.check_at) == (status, None)
        assert await money(granted, payment) == (given_back, 0)
    # One that is known is not asked about.
    assert await runtime.db.change("refund.ask_now", refund.out_refund_no, granted.clock.now()) is None


async def test_asking_about_a_refund_needs_the_same_grant_as_about_a_payment(granted: Shop) -> None:
    refund = await opened(granted, await paid(granted), 500)
    await granted.runtime.permissions.revoke(ADMIN, "*", "payment.sync")
    for caller, code in ((BUYER, "FORBIDDEN"), (STRANGER, "NOT_FOUND"), (ADMIN, "PROVIDER_UNAVAILABLE")):
        with pytest.raises(ShouyinError) as refused:
            await granted.runtime.refunds.sync(caller, refund.id, correlation_id="c")
        assert refused.value.code == code


async def test_one_key_twice_at_once_reserves_once(granted: Shop) -> None:
    payment, other = await paid(granted), await paid(granted)
    processes = [granted.runtime, await granted.open()]

    async def ask(number: int, payment_id: int) -> str:
        try:
            request = RefundPayment(payment_id, 300, None, "k-1")
            await processes[number % 2].refunds.create(CLERK, request, correlation_id="c")
        except ShouyinError as exc:
            return exc.code
        return "ok"

    outcomes = await asyncio.gather(*(ask(number, (payment.id, other.id)[number % 4 == 3]) for number in range(8)))
    # "ok" is the same refund while its first caller still waits for the provider.
    assert set(outcomes) <= {"PROVIDER_UNAVAILABLE", "IDEMPOTENCY_CONFLICT", "ok"}
    assert {"PROVIDER_UNAVAILABLE", "IDEMPOTENCY_CONFLICT"} <= set(outcomes)
    assert await granted.count("refund") == 1
    assert [await money(granted, each) for each in (payment, other)] == [(0, 0), (0, 0)]

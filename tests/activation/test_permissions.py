"""Permissions: what is granted to whom, refused to everybody else, and written down."""

import asyncio
from datetime import timedelta
from typing import Literal

import pytest

from app.activation.permissions import Action, Permission, Reach
from app.auth import Principal
from app.errors import Forbidden, InvalidInput, PaymentsNotActive, PlanExpired, ShouyinError
from app.payments.actions import CreatePayment
from app.providers.contract import PaymentMethod
from tests.fixtures.shop import ADMIN, BUYER, STRANGER, Shop

CLERK = Principal(sub="c-1", roles=frozenset({"clerk", "user"}))


async def pay(shop: Shop, caller: Principal, order_id: int | None = None) -> int:
    request = CreatePayment(order_id or await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea")
    return (await shop.runtime.payments.create(caller, request, correlation_id="c")).id


async def test_what_everybody_may_do_is_a_row_and_can_be_taken_away(shop: Shop) -> None:
    permissions = shop.runtime.permissions
    payment_id = await pay(shop, BUYER)
    granted = {(row.role, row.action) for row in await permissions.list(ADMIN)}
    everybody = ("payment.create", "payment.close", "payment.sync", "cycle.start", "cycle.cancel", "cycle.pause")
    assert granted == {("*", action) for action in everybody}
    for action, act in (
        ("payment.create", lambda: pay(shop, BUYER)),
        ("payment.sync", lambda: shop.runtime.payments.sync(BUYER, payment_id, correlation_id="c")),
        ("payment.close", lambda: shop.runtime.payments.close(BUYER, payment_id, correlation_id="c")),
    ):
        assert await permissions.revoke(ADMIN, "*", action)
        with pytest.raises(Forbidden) as refused:
            await act()
        assert refused.value.extra["action"] == action
    assert (await shop.count("payment"), await shop.events()) == (1, ["payment.created", "payment.pending"])
    # An administrator holds them without a grant, and a grant to one of a caller's roles is enough.
    assert await pay(shop, ADMIN)
    assert await permissions.grant(ADMIN, "user", "payment.create")
    assert await pay(shop, BUYER)
    with pytest.raises(Forbidden):
        await pay(shop, Principal(sub="7", roles=frozenset({"guest"})))


async def test_a_stranger_s_payment_stays_not_there_whatever_is_granted(shop: Shop) -> None:
    payment_id = await pay(shop, BUYER)
    for act in (shop.runtime.payments.sync, shop.runtime.payments.close):
        with pytest.raises(ShouyinError) as refused:
            await act(STRANGER, payment_id, correlation_id="c")
        assert refused.value.code == "NOT_FOUND"


async def test_refunds_are_nobody_s_until_granted(shop: Shop) -> None:
    permissions = shop.runtime.permissions
    for caller in (BUYER, CLERK, ADMIN):
        with pytest.raises(Forbidden, match=r"payment\.refund"):
            await permissions.require(caller, Action.PAYMENT_REFUND)
    assert await permissions.grant(ADMIN, "clerk", "payment.refund", Reach(None, 5000, 20000))
    await permissions.require(CLERK, Action.PAYMENT_REFUND)
    for caller in (BUYER, ADMIN):
        with pytest.raises(Forbidden):
            await permissions.require(caller, Action.PAYMENT_REFUND)
    assert await permissions.grant(ADMIN, "admin", "payment.refund")
    await permissions.require(ADMIN, Action.PAYMENT_REFUND)
    assert await permissions.revoke(ADMIN, "admin", "payment.refund")
    with pytest.raises(Forbidden):
        await permissions.require(ADMIN, Action.PAYMENT_REFUND)


@pytest.mark.parametrize(
    ("role", "asked", "scope"),
    [
        ("*", None, "OWN"),
        ("user", None, "OWN"),
        ("clerk", None, "ALL"),
        ("clerk", "OWN", "OWN"),
        ("user", "ALL", "ALL"),
    ],
)
async def test_a_grant_of_refunds_says_whose(
    shop: Shop, role: str, asked: Literal["OWN", "ALL"] | None, scope: str
) -> None:
    await shop.runtime.permissions.grant(ADMIN, role, "payment.refund", Reach(asked))
    found: list[Permission] = await shop.runtime.permissions.list(ADMIN)
    assert [row.scope for row in found if row.action == "payment.refund"] == [scope]


async def test_grants_are_safe_to_repeat_and_each_change_is_written_down(shop: Shop) -> None:
    permissions = shop.runtime.permissions
    other = await shop.open()
    outcomes = await asyncio.gather(
        *(
            each.permissions.grant(ADMIN, "clerk", "payment.refund", Reach(None, 5000))
            for each in (shop.runtime, other) * 5
        )
    )
    assert sorted(outcomes) == [False] * 9 + [True]
    assert await permissions.grant(
        ADMIN, "clerk", "payment.refund", Reach(None, 6000), correlation_id="c-9", address="10.1.1.1"
    )
    assert [await permissions.revoke(ADMIN, "clerk", "payment.refund") for _ in range(2)] == [True, False]
    rows = await shop.connection.fetch(
        "select actor, action, subject, details->>'role' as role, details->>'largest_refund_fen' as fen, address,"
        " correlation_id from shouyin.audit where action like 'permission.%' order by id"
    )
    assert [tuple(row) for row in rows] == [
        ("root", "permission.grant", "payment.refund", "clerk", "5000", None, None),
        ("root", "permission.grant", "payment.refund", "clerk", "6000", "10.1.1.1", "c-9"),
        ("root", "permission.revoke", "payment.refund", "clerk", None, None, None),
    ]


@pytest.mark.parametrize(
    ("role", "action", "reach", "field"),
    [
        ("clerk", "payment.steal", Reach(), "action"),
        ("clerk", "", Reach(), "action"),
        ("", "payment.refund", Reach(), "role"),
        (" clerk", "payment.refund", Reach(), "role"),
        ("x" * 65, "payment.refund", Reach(), "role"),
        ("a\x00", "payment.refund", Reach(), "role"),
        ("clerk", "payment.create", Reach(None, 5000), "action"),
        ("clerk", "payment.refund", Reach(None, 0), "largestRefund"),
        ("clerk", "payment.refund", Reach(None, None, 0), "largestRefundPerDay"),
    ],
)
async def test_what_is_no_grant_changes_nothing(shop: Shop, role: str, action: str, reach: Reach, field: str) -> None:
    before = await shop.count("permission"), await shop.count("audit")
    with pytest.raises(InvalidInput) as refused:
        await shop.runtime.permissions.grant(ADMIN, role, action, reach)
    assert refused.value.field == field
    assert (await shop.count("permission"), await shop.count("audit")) == before


async def test_only_administrators_grant(shop: Shop) -> None:
    for act in (
        lambda: shop.runtime.permissions.grant(CLERK, "clerk", "payment.refund"),
        lambda: shop.runtime.permissions.revoke(CLERK, "*", "payment.create"),
        lambda: shop.runtime.permissions.list(CLERK),
        lambda: shop.runtime.plan.set(CLERK, "pro", shop.clock.now()),
    ):
        with pytest.raises(Forbidden):
            await act()
    assert await shop.count("permission") == 6


async def test_a_plan_ends_and_its_renewal_counts_at_once_in_every_process(shop: Shop) -> None:
    other = await shop.open()
    payment_id = await pay(shop, BUYER)
    await shop.runtime.plan.set(ADMIN, "professional", shop.clock.now() + timedelta(days=30), correlation_id="c-1")
    feature = await other.activation.feature()
    assert feature.plan == "professional"
    shop.clock.advance(timedelta(days=30))
    for runtime in (shop.runtime, other):
        with pytest.raises(PlanExpired, match="setPlan"):
            await runtime.payments.create(
                BUYER, CreatePayment(await shop.order(), PaymentMethod.ALIPAY_PAGE, None, "Tea"), correlation_id="c"
            )
        with pytest.raises(PlanExpired):
            await runtime.payments.close(BUYER, payment_id, correlation_id="c")
    assert await shop.count("payment") == 1
    await other.plan.set(ADMIN, "enterprise", shop.clock.now() + timedelta(days=1))
    assert await pay(shop, BUYER)
    rows = await shop.connection.fetch("select action, correlation_id from shouyin.audit where action = 'plan.set'")
    assert [tuple(row) for row in rows] == [("plan.set", "c-1"), ("plan.set", None)]


async def test_without_a_plan_nothing_ever_ends(shop: Shop) -> None:
    shop.clock.advance(timedelta(days=3650))
    assert await pay(shop, BUYER)
    assert await shop.runtime.plan.warn() == 0


async def test_the_end_is_announced_once_fourteen_seven_and_one_day_before(shop: Shop) -> None:
    other = await shop.open()
    await shop.runtime.plan.set(ADMIN, "pro", shop.clock.now() + timedelta(days=20))
    announced = []
    for _ in range(22):
        shop.clock.advance(timedelta(days=1))
        await asyncio.gather(*(runtime.plan.warn() for runtime in (shop.runtime, other) * 3))
        rows = await shop.connection.fetch("select details from shouyin.event where kind = 'plan.expiring' order by id")
        announced.append(len(rows))
    assert announced == [0] * 5 + [1] * 7 + [2] * 6 + [3] * 4
    days = "select array_agg((details->>'days')::int order by id) from shouyin.event where kind = 'plan.expiring'"
    assert await shop.connection.fetchval(days) == [14, 7, 1]
    # A renewal is announced anew; a plan sold for three days starts with the last week's word.
    await shop.runtime.plan.set(ADMIN, "pro", shop.clock.now() + timedelta(days=3))
    assert [await shop.runtime.plan.warn() for _ in range(2)] == [1, 0]
    assert await shop.connection.fetchval(days) == [14, 7, 1, 7]


@pytest.mark.parametrize(
    ("plan", "field"), [("", "plan"), ("  ", "plan"), ("x" * 65, "plan"), ("pro\n", "plan"), ("pro", "expiresAt")]
)
async def test_a_plan_needs_a_name_and_a_date_with_an_offset(shop: Shop, plan: str, field: str) -> None:
    end = shop.clock.now() + timedelta(days=1)
    with pytest.raises(InvalidInput) as refused:
        await shop.runtime.plan.set(ADMIN, plan, end.replace(tzinfo=None) if field == "expiresAt" else end)
    assert refused.value.field == field
    assert (await shop.runtime.activation.feature()).plan is None


async def test_a_plan_is_of_a_bound_deployment(shop: Shop) -> None:
    await shop.connection.execute("delete from shouyin.activation")
    with pytest.raises(PaymentsNotActive):
        await shop.runtime.plan.set(ADMIN, "pro", shop.clock.now())

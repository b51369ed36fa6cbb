"""A crash at every commit and every call of a refund's story: after a restart always the same end.

As with payments (tests/payments/test_crashes.py) each story is told once to count its points, and then once more for
each side of each point. A crash may cost time. It may not cost a second refund, a reserve that nobody frees, or a
flow's effect done twice or never.

The suite tells a third of the points of each story, another third in each; `REFUND_CRASHES=all` tells every one, which
takes minutes.
"""

import os
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

import pytest

from app.errors import ProviderRejected
from app.payments.model import Payment
from app.refunds.actions import RefundPayment
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.crash import MORTAL, Plan
from tests.fixtures.market import Market
from tests.payments.test_crashes import living
from tests.payments.ways import Way
from tests.refunds.conftest import CLERK, SOME, Till, interface
from tests.refunds.test_every_way import NOT_ENOUGH

pytestmark = MORTAL

# A worker's passes until everything must be known, ten minutes apart.
_SWEEPS: Final = 12


async def on_refund(result: Any, connection: Any) -> None:
    """The merchant's flow: a line for each refund that came to an end."""
    if not result.already_processed:
        await connection.execute(
            "insert into public.given_back values ($1, $2, $3)",
            result.refund_id, result.payment_status, result.amount_fen,
        )  # fmt: skip


@pytest.fixture
async def story(
    till: Callable[[Way], Awaitable[Till]], standing_market: Market, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Way], Awaitable[Till]]]:
    """`till`, with the merchant's own flow and its table; only processes that a story opens run the flow."""
    module = types.ModuleType("flows_of_the_refund")
    on_refund.__module__ = module.__name__
    module.on_refund = on_refund  # type: ignore[attr-defined]  # a module made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    shop = standing_market.shop
    await shop.connection.execute(
        "create table if not exists public.given_back (refund_id bigint, status text, fen int)"
    )
    await shop.connection.execute("truncate public.given_back")
    before = shop.config
    # A busy machine is no provider that cannot be reached.
    shop.config = replace(shop.config, flows=module.__name__, provider_timeout_s=10.0)
    yield till
    shop.config = before


@dataclass(frozen=True, slots=True)
class Story:
    """One course of a refund. `told_by` is who says how it ended: the answer, the notice, the query, or a refusal."""

    told_by: str
    fen: int

    def __str__(self) -> str:
        return self.told_by

    @property
    def end(self) -> str:
        return "FAILED" if self.told_by == "refusal" else "REFUNDED"


ANSWER, NOTICE, QUERY, REFUSAL = (
    Story("answer", 1230),
    Story("notice", 500),
    Story("query", 1230),
    Story("refusal", 500),
)


async def tell(at: Till, plan: Plan, story: Story) -> tuple[Payment, int]:
    """A clerk refunds (and repeats with the key), the provider settles, we hear of it; the deaths on the way."""
    at.market.notified = at.market.shop.runtime
    payment = await at.paid()
    await at.policy(settle="hold" if story.told_by in ("notice", "query") else "now")
    if story.told_by == "refusal":
        # Whoever asks, and however often.
        await at.fault(at.calls[0], "business_error", count=50, **NOT_ENOUGH[interface(at.way)])
    async with living(at.market, plan) as life:
        request = RefundPayment(payment.id, story.fen, "cold tea", idempotency_key=f"k{payment.id}")

        async def refund(runtime: Runtime) -> None:
            try:
                made = await runtime.refunds.create(CLERK, request, correlation_id="c")
            except ProviderRejected:
                assert story is REFUSAL
            else:
                assert (made.payment_id, made.amount_fen) == (payment.id, story.fen)

        await life.survive(refund)
        await life.survive(sweep_once)
        if story.told_by in ("notice", "query"):
            # The provider has it by now, sent by this process or sent again by its successor.
            [(number, _, _)] = await at.truth(payment)
            if story.told_by == "query":
                at.market.deaf = True
            await at.market.control("POST", f"/refunds/{number}/settle", **{"as": "REFUNDED"})
            if plan.died and life.deaths == 0:
                await life.restart()
            at.market.notified, at.market.deaf = life.runtime, False
        if story is REFUSAL and await waiting(at.market, payment):
            # The dead process may have sent it: what a repeat is answered ends it only after a week.
            assert await at.money(payment) == (0, story.fen)
            await at.market.advance(timedelta(days=8))
        for _ in range(_SWEEPS):
            if not await waiting(at.market, payment):
                break
            await life.survive(sweep_once)
            await at.market.advance(timedelta(minutes=10))
        await life.survive(refund)
    await at.market.control("DELETE", "/faults")
    return payment, life.deaths


async def waiting(market: Market, payment: Payment) -> bool:
    """Whether anything of it is left to do."""
    found: bool = await market.shop.connection.fetchval(
        "select exists (select 1 from shouyin.refund where payment_id = $1 and status in ('CREATED', 'PENDING'))"
        " or exists (select 1 from shouyin.notification where due_at is not null)"
        " or exists (select 1 from shouyin.event e where e.payment_id = $1 and e.kind in ('refund.refunded',"
        " 'refund.failed') and not exists (select 1 from shouyin.flow_run r where r.event_id = e.id))"
        " or exists (select 1 from shouyin.flow_run where status <> 'DONE')",
        payment.id,
    )
    return found


async def assert_the_one_end(at: Till, payment: Payment, story: Story) -> None:
    """One refund, here and at the provider; the reserve exact; the flow's effect once."""
    rows = await at.market.shop.connection.fetch("select * from shouyin.refund where payment_id = $1", payment.id)
    assert [(row["status"], row["amount_fen"], row["check_at"]) for row in rows] == [(story.end, story.fen, None)]
    given_back = story.end == "REFUNDED"
    number = rows[0]["out_refund_no"]
    assert await at.truth(payment) == ([(number, story.fen, "REFUNDED")] if given_back else [])
    assert await at.money(payment) == (story.fen if given_back else 0, 0)
    kinds = await at.market.shop.events(payment.id)
    assert [kinds.count(f"refund.{word}") for word in ("created", "refunded", "failed")] == [
        1,
        given_back,
        not given_back,
    ]
    effects = await at.market.shop.connection.fetch(
        "select status, fen from public.given_back where refund_id = $1", rows[0]["id"]
    )
    assert [tuple(row) for row in effects] == [(story.end, story.fen)]
    expected = "refunded" if given_back and story.fen == 1230 else "paid"
    assert await at.market.shop.status_of(payment.order_id) == expected
    assert not await waiting(at.market, payment)
    assert await at.market.shop.count("difference") == 0


WAYS = {interface(way): way for way in SOME if way.mode in ("public_key", "v3", "v2", "cloud")}
TOLD = [(WAYS[name], each) for name in ("alipay", "v3") for each in (ANSWER, NOTICE, QUERY, REFUSAL)] + [
    (WAYS[name], each) for name in ("v2", "cloud") for each in (NOTICE, QUERY)
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("way", "course"), TOLD, ids=str)
async def test_a_crash_anywhere_changes_no_end(
    story: Callable[[Way], Awaitable[Till]], way: Way, course: Story
) -> None:
    at = await story(way)
    counted = Plan()
    payment, deaths = await tell(at, counted, course)
    await assert_the_one_end(at, payment, course)
    assert deaths == 0
    points = counted.points(("before", "after"))
    assert counted.passed["commit"] >= 4
    assert counted.passed["call"] >= 1
    if os.environ.get("REFUND_CRASHES") != "all":
        points = points[TOLD.index((way, course)) % 3 :: 3]
    survived = 0
    for point in points:
        plan = Plan(die_at=point)
        try:
            payment, deaths = await tell(at, plan, course)
            await assert_the_one_end(at, payment, course)
        except BaseException:
            print(f"died {point}")
            raise
        survived += deaths
    # A telling need not pass exactly the counted points (an idle sweep more or less), but nearly all must have died.
    assert survived >= len(points) * 0.9

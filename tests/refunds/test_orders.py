"""The refund's notice among everything else that can happen to a refunded payment: in many orders, and all at once, one
end, one effect, rising versions.

As tests/payments/test_races.py does with payments; the acts on the payment are those of there.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from app.errors import ProviderError
from app.payments.model import Payment
from app.refunds.model import Refund
from app.runtime import Runtime
from app.worker import sweep_once
from tests.fixtures.shop import BUYER
from tests.payments.ways import Way, over
from tests.refunds.conftest import CLERK, SOME, Till

Open = Callable[[Way], Awaitable[Till]]
Act = Callable[[Till, Runtime, Payment, Refund], Awaitable[object]]


async def refund_notice(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """The provider's last notice, which is the refund's, once more each time."""
    last = (await at.market.notices(payment))[-1]
    await at.market.control("POST", f"/notifications/{last['notify_id']}/resend", times=1)


async def payment_notice(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """The notice of the payment, long after it."""
    first = (await at.market.notices(payment))[0]
    await at.market.control("POST", f"/notifications/{first['notify_id']}/resend", times=1)


async def poll(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """A worker's pass in which the refund is due."""
    due = "update shouyin.refund set check_at = $2 where id = $1 and status in ('CREATED', 'PENDING')"
    await runtime.db.pool.execute(due, refund.id, at.market.shop.clock.now())
    await sweep_once(runtime)


async def ask(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """The clerk asks for the provider's word."""
    await runtime.refunds.sync(CLERK, refund.id, correlation_id="c")


async def ask_about_payment(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """The customer's page asks for the provider's word about the payment."""
    await runtime.payments.sync(BUYER, payment.id, correlation_id="c")


async def close(at: Till, runtime: Runtime, payment: Payment, refund: Refund) -> None:
    """A page that is late gives up the payment."""
    await runtime.payments.close(BUYER, payment.id, correlation_id="c")


ACTS: list[Act] = [refund_notice, refund_notice, payment_notice, poll, ask, ask_about_payment, close]
FEW = [way for way in SOME if way.mode in ("public_key", "v3", "v2", "cloud")]


async def watched(
    at: Till, act: Act, runtime: Runtime, payment: Payment, refund: Refund, versions: list[tuple[int, int]]
) -> None:
    """One act, and the versions of both after it. A provider that says "ask again shortly" is an answer, too."""
    with contextlib.suppress(ProviderError):
        await act(at, runtime, payment, refund)
    versions.append(((await at.market.find(payment)).version, (await at.find(refund)).version))


async def settled(at: Till, fen: int) -> tuple[Payment, Refund]:
    """A refund the provider has done, of which nobody here knows."""
    payment = await at.paid()
    await at.policy(settle="hold")
    refund = await at.give_back(payment, fen)
    at.market.deaf = True
    await at.settle(refund, "REFUNDED")
    at.market.deaf = False
    assert ((await at.find(refund)).status, await at.money(payment)) == ("PENDING", (0, fen))
    return payment, refund


async def assert_one_end(at: Till, payment: Payment, refund: Refund, versions: list[tuple[int, int]]) -> None:
    # The provider's own repeats of its notice, and our schedule.
    for _ in range(2):
        await at.market.advance(timedelta(minutes=10))
        await at.market.shop.settle()
    assert (await at.find(refund)).status == "REFUNDED"
    assert await at.money(payment) == (refund.amount_fen, 0)
    whole = refund.amount_fen == 1230
    assert (await at.market.find(payment)).api_status == ("REFUNDED" if whole else "PARTIALLY_REFUNDED")
    assert await at.market.shop.status_of(payment.order_id) == ("refunded" if whole else "paid")
    kinds = await at.market.shop.events(payment.id)
    assert [kinds.count(kind) for kind in ("refund.refunded", "refund.failed", "payment.successful")] == [1, 0, 1]
    assert "payment.closed" not in kinds
    for of_payment_or_refund in zip(*versions, strict=True):
        assert list(of_payment_or_refund) == sorted(of_payment_or_refund)
    done = await at.market.shop.connection.fetchval(
        "select count(*) from shouyin.flow_run r join shouyin.event e on e.id = r.event_id"
        " where e.refund_id = $1 and e.kind = 'refund.refunded' and r.status = 'DONE'",
        refund.id,
    )
    assert done == 1
    assert await at.truth(payment) == [(refund.out_refund_no, refund.amount_fen, "REFUNDED")]
    assert await at.market.shop.count("difference") == 0


@pytest.mark.timeout(300)
@over(FEW)
async def test_orders_of_what_can_happen_end_the_same(till: Open, way: Way) -> None:
    at = await till(way)
    orders = sorted(set(itertools.permutations(ACTS)), key=lambda acts: [act.__name__ for act in acts])
    assert len(orders) == 2520
    # Spread over all of them.
    for number, order in enumerate(orders[FEW.index(way) :: 280]):
        payment, refund = await settled(at, (500, 1230)[number % 2])
        versions: list[tuple[int, int]] = []
        for act in order:
            await watched(at, act, at.market.shop.runtime, payment, refund, versions)
        await assert_one_end(at, payment, refund, versions)


@pytest.mark.timeout(300)
@over(FEW)
async def test_all_at_once_in_two_processes_ends_the_same(till: Open, way: Way) -> None:
    at = await till(way)
    processes = at.market.shop.runtime, await at.market.shop.open()
    for round_ in range(6):
        payment, refund = await settled(at, (500, 1230)[round_ % 2])
        await asyncio.gather(
            *(
                watched(at, act, processes[(round_ + number) % 2], payment, refund, [])
                for number, act in enumerate([*ACTS, *ACTS])
            )
        )
        await assert_one_end(at, payment, refund, [])

"""Live rows. Each subscription first sends what exists now, then every later state; a slow reader skips states in
between and never the last one.

Who may see a row is asked again for every event: a token expires and an order changes hands while a stream runs.
"""

from collections.abc import AsyncGenerator

import strawberry

from app.api.context import ApiInfo, Context
from app.api.cycles import CyclePayment
from app.api.orders import Order
from app.api.payments import Payment
from app.api.refunds import Refund
from app.api.scalars import find_id
from app.cycles.actions import may_see_cycle
from app.errors import NotFound
from app.payments import actions
from app.payments.actions import may_see
from app.refunds.actions import may_see_refund


@strawberry.type
class Subscription:
    @strawberry.subscription(description="One payment. With untilFinal it completes after the first final state.")
    async def payment(
        self,
        info: ApiInfo,
        id: strawberry.ID,  # noqa: A002 — the argument's public name
        until_final: bool = False,
    ) -> AsyncGenerator[Payment, None]:
        context, key = info.context, find_id(id)
        # An idle stream would keep the whole executor alive through it.
        del info
        context.caller()
        if key is None or key < 0:
            raise _not_found("payment", id)
        async with context.runtime.realtime.watch(f"payment:{key}") as rows:
            if not await rows.exists():
                raise _not_found("payment", id)
            async for row in rows:
                if not may_see(context.caller(), row.owner):
                    raise _not_found("payment", id)
                yield Payment.of(row)
                if until_final and row.final:
                    return

    @strawberry.subscription(description="The payments of one order, each whenever it changes, new ones included.")
    async def payments(self, info: ApiInfo, order_id: strawberry.ID) -> AsyncGenerator[Payment, None]:
        context = info.context
        del info
        order = await _visible_order(context, order_id)
        async with context.runtime.realtime.watch(f"order-payments:{order.id}") as rows:
            async for row in rows:
                if row.binding_id != order.binding_id:
                    continue  # of a row with the same id in another table
                if not may_see(context.caller(), row.owner):
                    raise _not_found("order", order_id)
                yield Payment.of(row)

    @strawberry.subscription(description="One refund. With untilFinal it completes after the first final state.")
    async def refund(
        self,
        info: ApiInfo,
        id: strawberry.ID,  # noqa: A002 — the argument's public name
        until_final: bool = False,
    ) -> AsyncGenerator[Refund, None]:
        context, key = info.context, find_id(id)
        del info
        context.caller()
        if key is None or key < 0:
            raise _not_found("refund", id)
        async with context.runtime.realtime.watch(f"refund:{key}") as rows:
            if not await rows.exists():
                raise _not_found("refund", id)
            async for row in rows:
                if not may_see_refund(context.caller(), row):
                    raise _not_found("refund", id)
                yield Refund.of(row)
                if until_final and row.final:
                    return

    @strawberry.subscription(description="The refunds of one payment, each whenever it changes, new ones included.")
    async def refunds(self, info: ApiInfo, payment_id: strawberry.ID) -> AsyncGenerator[Refund, None]:
        context, key = info.context, find_id(payment_id)
        del info
        caller = context.caller()
        if key is None or key < 0 or await context.runtime.payments.find(caller, key) is None:
            raise _not_found("payment", payment_id, field="paymentId")
        async with context.runtime.realtime.watch(f"payment-refunds:{key}") as rows:
            async for row in rows:
                if not may_see_refund(context.caller(), row):
                    raise _not_found("payment", payment_id, field="paymentId")
                yield Refund.of(row)

    @strawberry.subscription(description="One cycle payment: signed, each deduction, suspended, over.")
    async def cycle_payment(
        self,
        info: ApiInfo,
        id: strawberry.ID,  # noqa: A002 — the argument's public name
    ) -> AsyncGenerator[CyclePayment, None]:
        context, key = info.context, find_id(id)
        del info
        context.caller()
        if key is None or key < 0:
            raise _not_found("cycle payment", id)
        async with context.runtime.realtime.watch(f"cycle_payment:{key}") as rows:
            if not await rows.exists():
                raise _not_found("cycle payment", id)
            async for row in rows:
                if not may_see_cycle(context.caller(), row):
                    raise _not_found("cycle payment", id)
                yield CyclePayment.of(row)

    @strawberry.subscription(description="A row of the bound order table, whoever changes it.")
    async def order(self, info: ApiInfo, id: strawberry.ID) -> AsyncGenerator[Order, None]:  # noqa: A002 — public name
        context, key = info.context, find_id(id)
        del info
        context.caller()
        if key is None or key < 0:
            raise _not_found("order", id)
        async with context.runtime.realtime.watch(f"order:{key}") as rows:
            if not await rows.exists():
                raise _not_found("order", id)
            binding_id = None
            async for row in rows:
                # Once another table is bound, the same id is another order.
                if row.binding_id != (binding_id or row.binding_id) or not may_see(context.caller(), row.owner):
                    raise _not_found("order", id)
                binding_id = row.binding_id
                yield Order.of(row)


async def _visible_order(context: Context, text: str) -> actions.Order:
    """An order may have no payments yet, so that its rows alone cannot say whether the caller may watch it."""
    caller, key = context.caller(), find_id(text)
    order = None if key is None or key < 0 else await context.runtime.payments.find_order(caller, key)
    if order is None:
        raise _not_found("order", text)
    return order


def _not_found(noun: str, text: str, *, field: str | None = None) -> NotFound:
    field = field or ("orderId" if noun == "order" else "id")
    return NotFound(f"{noun} {text[:40]!r} does not exist or is not yours", field=field)

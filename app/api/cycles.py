"""Cycle payments on the API: their types, queries and mutations."""

from datetime import date, datetime
from typing import Annotated, Self

import strawberry

from app.api.context import ApiInfo
from app.api.failures import Failure
from app.api.orders import Order
from app.api.payments import Payment, PaymentAction, read_action
from app.api.scalars import Yuan, find_id, read_id
from app.cycles import model
from app.cycles.actions import StartCyclePayment
from app.cycles.model import CyclePaymentStatus, DeductionStatus, SuspendedFor
from app.errors import NotFound

strawberry.enum(CyclePaymentStatus)
strawberry.enum(DeductionStatus)
strawberry.enum(
    SuspendedFor,
    name="SuspensionReason",
    description=(
        "PAUSE: somebody paused it. FAILURES: its money could not be taken. RULE: the provider's rules for this "
        "agreement are used up, and only a new one helps."
    ),
)


@strawberry.type(description="One due date of a cycle payment, with what became of it.")
class Deduction:
    row: strawberry.Private[model.Deduction]
    id: strawberry.ID
    due_on: date
    sequence: int = strawberry.field(description="1 for the first due date, 2 for the second, …")
    price: Yuan
    status: DeductionStatus
    order_id: strawberry.ID | None = strawberry.field(description="The order that was made for it.")
    next_attempt_at: datetime | None = strawberry.field(description="When it is tried again, while it waits.")
    failure: Failure | None = strawberry.field(description="Why the last attempt took nothing.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: model.Deduction) -> Self:
        """The deduction as clients see it."""
        waits = row.status is DeductionStatus.CHARGING and row.failure is not None
        return cls(
            row=row,
            id=strawberry.ID(str(row.id)),
            due_on=row.due_on,
            sequence=row.sequence,
            price=Yuan(row.price_fen),
            status=row.status,
            order_id=None if row.order_id is None else strawberry.ID(str(row.order_id)),
            next_attempt_at=row.attempt_at if waits else None,
            failure=Failure.of(row.failure),
            created_at=row.created_at,
            finished_at=row.finished_at,
        )

    @strawberry.field(description="Every attempt to take its money, oldest first, each with its reason.")
    async def payments(self, info: ApiInfo) -> list[Payment]:
        return [Payment.of(row) for row in await info.context.payments_of_deduction(self.row.id)]


@strawberry.type(description="A deduction that is coming, as things stand now.")
class UpcomingDeduction:
    due_on: date
    price: Yuan


@strawberry.type
class CyclePayment:
    row: strawberry.Private[model.CyclePayment]
    id: strawberry.ID
    order_id: strawberry.ID
    price: Yuan = strawberry.field(description="Of the next deduction.")
    max_price: Yuan = strawberry.field(description="The most one deduction may come to, as the payer signed it.")
    subject: str
    interval_days: int
    scene: str
    status: CyclePaymentStatus
    cancelling: bool = strawberry.field(
        description="True while the provider has not confirmed a cancellation; nothing is deducted any more."
    )
    suspended_for: SuspendedFor | None
    agreement_no: str | None = strawberry.field(description="The provider's number, once it is signed.")
    first_deduction_on: date
    next_deduction_on: date | None
    paid_deductions: int
    failure: Failure | None = strawberry.field(
        description="Why the last deduction could not be made, or what stands in the way of signing or ending it."
    )
    created_at: datetime
    updated_at: datetime
    signed_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime = strawberry.field(description="When the link for signing ends.")
    version: int = strawberry.field(description="Rises by one with every change of the row.")

    @classmethod
    def of(cls, row: model.CyclePayment) -> Self:
        """The cycle payment as clients see it."""
        return cls(
            row=row,
            id=strawberry.ID(str(row.id)),
            order_id=strawberry.ID(str(row.order_id)),
            price=Yuan(row.price_fen),
            max_price=Yuan(row.ceiling_fen),
            subject=row.subject,
            interval_days=row.interval_days,
            scene=row.scene,
            status=row.status,
            cancelling=row.ending and row.live,
            suspended_for=row.suspended_for,
            agreement_no=row.agreement_no,
            first_deduction_on=row.first_deduction_on,
            next_deduction_on=row.next_deduction_on,
            paid_deductions=row.paid_deductions,
            failure=Failure.of(row.failure),
            created_at=row.created_at,
            updated_at=row.updated_at,
            signed_at=row.signed_at,
            ended_at=row.ended_at,
            expires_at=row.expires_at,
            version=row.version,
        )

    @strawberry.field(description="Where the payer signs: a Redirect (page) with a QrCode-able link.")
    def action(self) -> PaymentAction | None:
        stored = self.row.action
        waits = self.row.status is CyclePaymentStatus.PENDING and not self.row.ending
        return read_action(stored) if waits and stored is not None else None

    @strawberry.field(description="The first payment made while signing, and every attempt to deduct; oldest first.")
    async def payments(self, info: ApiInfo) -> list[Payment]:
        return [Payment.of(row) for row in await info.context.payments_of_cycle(self.row.id)]

    @strawberry.field(description="The history, newest first; the next page is that `before` the last due date.")
    async def deductions(self, info: ApiInfo, limit: int = 20, before: date | None = None) -> list[Deduction]:
        cycles = info.context.runtime.cycles
        return [Deduction.of(row) for row in await cycles.deductions_of(self.row.id, limit=limit, before=before)]

    @strawberry.field(description="The next deductions as things stand; none once it is over.")
    def upcoming(self, info: ApiInfo, limit: int = 3) -> list[UpcomingDeduction]:
        coming = info.context.runtime.cycles.preview(self.row, limit)
        return [UpcomingDeduction(due_on=each.due_on, price=Yuan(each.price_fen)) for each in coming]

    @strawberry.field(description="The order it was started with.")
    async def order(self, info: ApiInfo) -> Annotated["Order", strawberry.lazy("app.api.orders")]:
        row = await info.context.order((self.row.binding_id, self.row.order_id))
        if row is None:
            raise NotFound(f"order {self.row.order_id} is not yours, or is a row of another table than the bound one")
        return Order.of(row)


@strawberry.input
class StartCyclePaymentInput:
    order_id: strawberry.ID
    price: Yuan = strawberry.field(description="Of each deduction; at most 100 yuan, or as the account allows.")
    subject: str
    interval_days: int = strawberry.field(description="At least 7; there is no upper limit.")
    scene: str = strawberry.field(description="A scene of Alipay's that the merchant account signs: INDUSTRY|…")
    first_deduction_on: date | None = strawberry.field(
        default=None, description="Today unless given; with `payNow` one interval from today."
    )
    return_url: str | None = None
    merchant_account_id: strawberry.ID | None = None
    max_price: Yuan | None = strawberry.field(
        default=None,
        description="The most the price can be raised to without signing again; unless given the price.",
    )
    pay_now: bool = strawberry.field(
        default=False, description="Pays the order itself while signing (支付并签约), at `price`."
    )
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Same key and same input: the first answer again. Same key, other input: IDEMPOTENCY_CONFLICT.",
    )

    def read(self) -> StartCyclePayment:
        """The same for the domain. Raises InvalidInput."""
        account = self.merchant_account_id
        return StartCyclePayment(
            order_id=read_id(self.order_id, "orderId"),
            price_fen=self.price,
            subject=self.subject,
            interval_days=self.interval_days,
            scene=self.scene,
            ceiling_fen=self.max_price,
            first_deduction_on=self.first_deduction_on,
            return_url=self.return_url,
            merchant_account_id=None if account is None else read_id(account, "merchantAccountId"),
            pay_now=self.pay_now,
            idempotency_key=self.idempotency_key,
        )


@strawberry.type
class CycleQuery:
    @strawberry.field
    async def cycle_payment(self, info: ApiInfo, id: strawberry.ID) -> CyclePayment | None:  # noqa: A002 — public name
        caller, key = info.context.caller(), find_id(id)
        row = None if key is None else await info.context.runtime.cycles.find(caller, key)
        return None if row is None else CyclePayment.of(row)

    @strawberry.field(description="The caller's own, newest first; the next page is that `before` the last id.")
    async def my_cycle_payments(
        self, info: ApiInfo, limit: int = 20, before: strawberry.ID | None = None
    ) -> list[CyclePayment]:
        before_id = None if before is None else read_id(before, "before")
        rows = await info.context.runtime.cycles.mine(info.context.caller(), limit=limit, before_id=before_id)
        return [CyclePayment.of(row) for row in rows]


@strawberry.type
class CycleMutation:
    @strawberry.mutation(
        description=(
            "Starts a cycle payment: the payer signs once (`action`), and from then on each due date makes a new order "
            "and deducts its price. One live agreement per user and scene: a second answers SCENE_ALREADY_SIGNED."
        )
    )
    async def start_cycle_payment(self, info: ApiInfo, input: StartCyclePaymentInput) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.cycles.start(context.caller(), input.read(), correlation_id=context.correlation_id)
        return CyclePayment.of(row)

    @strawberry.mutation(
        description=(
            "Ends a cycle payment, at the provider too; may be repeated. Nothing is deducted from then on, also while "
            "the provider has not confirmed it (`cancelling`)."
        )
    )
    async def cancel_cycle_payment(self, info: ApiInfo, id: strawberry.ID) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.cycles.cancel(
            context.caller(), _existing(id), correlation_id=context.correlation_id, address=context.address
        )
        return CyclePayment.of(row)

    @strawberry.mutation(description="Takes no money until it is resumed; the agreement stays signed.")
    async def pause_cycle_payment(self, info: ApiInfo, id: strawberry.ID) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.cycles.pause(
            context.caller(), _existing(id), correlation_id=context.correlation_id, address=context.address
        )
        return CyclePayment.of(row)

    @strawberry.mutation(
        description="Goes on at the next of its due dates, also after failures; those in between are not charged."
    )
    async def resume_cycle_payment(self, info: ApiInfo, id: strawberry.ID) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.cycles.resume(
            context.caller(), _existing(id), correlation_id=context.correlation_id, address=context.address
        )
        return CyclePayment.of(row)

    @strawberry.mutation(
        description="Another price from the next deduction on, at most `maxPrice`. Needs the permission cycle.change."
    )
    async def change_cycle_price(self, info: ApiInfo, id: strawberry.ID, price: Yuan) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.cycles.change_price(
            context.caller(), _existing(id), price, correlation_id=context.correlation_id, address=context.address
        )
        return CyclePayment.of(row)

    @strawberry.mutation(
        description=(
            "Puts the next deduction off to a later date, at the provider too; those after it follow from there. Needs "
            "the permission cycle.change."
        )
    )
    async def change_cycle_date(
        self,
        info: ApiInfo,
        id: strawberry.ID,  # noqa: A002 — as above
        next_deduction_on: date,
    ) -> CyclePayment:
        context = info.context
        row = await context.runtime.cycles.change_date(
            context.caller(),
            _existing(id),
            next_deduction_on,
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return CyclePayment.of(row)

    @strawberry.mutation(description="Asks the provider now what became of the agreement, and applies what it says.")
    async def sync_cycle_payment(self, info: ApiInfo, id: strawberry.ID) -> CyclePayment:  # noqa: A002 — as above
        context = info.context
        return CyclePayment.of(await context.runtime.cycles.sync(context.caller(), _existing(id)))


def _existing(text: str) -> int:
    """The key of a cycle payment that must exist. Raises NotFound for what can be no key."""
    key = find_id(text)
    if key is None:
        raise NotFound(f"cycle payment {text[:40]!r} does not exist", field="id")
    return key

"""Refunds on the API: their type, queries and mutations."""

from datetime import datetime
from typing import Self

import strawberry

from app.api.context import ApiInfo
from app.api.failures import Failure
from app.api.scalars import Yuan, find_id, read_id
from app.errors import NotFound
from app.refunds import model
from app.refunds.actions import RefundPayment
from app.refunds.model import RefundStatus

strawberry.enum(RefundStatus)


@strawberry.type
class Refund:
    id: strawberry.ID
    payment_id: strawberry.ID
    amount: Yuan
    out_refund_no: str = strawberry.field(description="Our number of the refund; the provider knows it under this one.")
    provider_refund_id: str | None
    status: RefundStatus
    final: bool = strawberry.field(description="True once the provider is done with it.")
    checking: bool = strawberry.field(description="True while the provider's answer is unknown: do not refund again.")
    reason: str | None
    failure: Failure | None = strawberry.field(
        description="Why it failed; or, while it is pending, what stands in its way and needs a person."
    )
    created_at: datetime
    updated_at: datetime
    refunded_at: datetime | None
    version: int = strawberry.field(description="Rises by one with every change of the row.")

    @classmethod
    def of(cls, row: model.Refund) -> Self:
        """The refund as clients see it."""
        return cls(
            id=strawberry.ID(str(row.id)),
            payment_id=strawberry.ID(str(row.payment_id)),
            amount=Yuan(row.amount_fen),
            out_refund_no=row.out_refund_no,
            provider_refund_id=row.provider_refund_id,
            status=row.api_status,
            final=row.final,
            checking=row.checking,
            reason=row.reason,
            failure=Failure.of(row.failure),
            created_at=row.created_at,
            updated_at=row.updated_at,
            refunded_at=row.refunded_at,
            version=row.version,
        )


@strawberry.input
class RefundPaymentInput:
    payment_id: strawberry.ID
    amount: Yuan
    reason: str | None = strawberry.field(default=None, description="Up to 80 characters; the payer may see it.")
    idempotency_key: str | None = strawberry.field(
        default=None,
        description="Same key and same input: the first answer again. Same key, other input: IDEMPOTENCY_CONFLICT.",
    )

    def read(self) -> RefundPayment:
        """The same for the domain. Raises NotFound for what can be no payment."""
        return RefundPayment(
            payment_id=read_id(self.payment_id, "paymentId"),
            amount_fen=self.amount,
            reason=self.reason,
            idempotency_key=self.idempotency_key,
        )


@strawberry.type
class RefundQuery:
    @strawberry.field
    async def refund(self, info: ApiInfo, id: strawberry.ID) -> Refund | None:  # noqa: A002 — the argument's public name
        caller, key = info.context.caller(), find_id(id)
        row = None if key is None else await info.context.runtime.refunds.find(caller, key)
        return None if row is None else Refund.of(row)


@strawberry.type
class RefundMutation:
    @strawberry.mutation(
        description=(
            "Gives money back, wholly or in part. Needs the permission payment.refund, which nobody has until it is "
            "granted. The answer is PENDING until the provider is done; `refund` watches it."
        )
    )
    async def refund_payment(self, info: ApiInfo, input: RefundPaymentInput) -> Refund:  # noqa: A002 — as above
        context = info.context
        row = await context.runtime.refunds.create(
            context.caller(), input.read(), correlation_id=context.correlation_id, address=context.address
        )
        return Refund.of(row)

    @strawberry.mutation(description="Asks the provider now what became of a refund, and applies what it says.")
    async def sync_refund(self, info: ApiInfo, id: strawberry.ID) -> Refund:  # noqa: A002 — as above
        context, key = info.context, find_id(id)
        caller = context.caller()
        if key is None:
            raise NotFound(f"refund {id[:40]!r} does not exist", field="id")
        row = await context.runtime.refunds.sync(caller, key, correlation_id=context.correlation_id)
        return Refund.of(row)

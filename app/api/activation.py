"""The payment feature on the API: whether it is on, and binding the order table."""

from datetime import datetime
from typing import Self

import strawberry

from app.activation import binding
from app.activation.binding import Binding
from app.api.context import ApiInfo
from app.api.payments import PaymentMethod


@strawberry.type
class PaymentFeature:
    active: bool
    order_table: str | None
    plan: str | None
    plan_expires_at: datetime | None
    methods: list[PaymentMethod] = strawberry.field(description="Ways to pay that an enabled merchant account offers.")

    @classmethod
    def of(cls, feature: binding.Feature) -> Self:
        """The feature as clients see it."""
        return cls(
            active=feature.active,
            order_table=feature.order_table,
            plan=feature.plan,
            plan_expires_at=feature.plan_expires_at,
            methods=list(feature.methods),
        )


@strawberry.input
class ActivatePaymentsInput:
    order_table: str = strawberry.field(
        description="schema-qualified or plain table name; its primary key is one integer column"
    )
    owner_column: str | None = None
    amount_column: str | None = None
    amount_in_fen: bool = strawberry.field(
        default=False, description="True where the amount column counts fen instead of yuan."
    )
    status_column: str | None = None
    paid_status: str | None = None
    failed_status: str | None = None
    refunded_status: str | None = None
    cycle_order_columns: list[str] | None = strawberry.field(
        default=None,
        description=(
            "Which columns the new order of each deduction takes over from the order a cycle payment was started with. "
            "Unless given: all but the key, the status, unique columns, and those that a function fills in by default."
        ),
    )

    def read(self) -> Binding:
        """The same for the domain."""
        return Binding(
            order_table=self.order_table,
            owner_column=self.owner_column,
            amount_column=self.amount_column,
            amount_in_fen=self.amount_in_fen,
            status_column=self.status_column,
            paid_status=self.paid_status,
            failed_status=self.failed_status,
            refunded_status=self.refunded_status,
            cycle_order_columns=None if self.cycle_order_columns is None else tuple(self.cycle_order_columns),
        )


@strawberry.type
class ActivationQuery:
    @strawberry.field
    async def payment_feature(self, info: ApiInfo) -> PaymentFeature:
        info.context.caller()
        return PaymentFeature.of(await info.context.runtime.activation.feature())


@strawberry.type
class ActivationMutation:
    @strawberry.mutation(
        description=(
            "Sells or renews the plan payments run under, in force at once. After `expiresAt` new actions answer "
            "PLAN_EXPIRED; results of what is under way are still taken. Administrators only."
        )
    )
    async def set_plan(self, info: ApiInfo, plan: str, expires_at: datetime) -> PaymentFeature:
        context = info.context
        await context.runtime.plan.set(
            context.administrator(),
            plan,
            expires_at,
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return PaymentFeature.of(await context.runtime.activation.feature())

    @strawberry.mutation(
        description=(
            "Turns payments off, so that another table can be bound. Refuses with PAYMENTS_UNRESOLVED, naming what, "
            "while anything has no end yet. Leaves all payments and refunds as CSV in EXPORT_DIR, then clears merchant "
            "accounts, flow runs, payments and refunds, and unbinds the table, whose rows stay. `confirm` is the bound "
            "table's name. Administrators only."
        )
    )
    async def deactivate_payments(self, info: ApiInfo, confirm: str) -> PaymentFeature:
        context = info.context
        await context.runtime.turning_off.turn_off(
            context.administrator(), confirm, correlation_id=context.correlation_id, address=context.address
        )
        return PaymentFeature.of(await context.runtime.activation.feature())

    @strawberry.mutation(
        description=(
            "Binds another order table for new payments, without clearing anything: older payments keep their table, "
            "and what is under way goes on. Afterwards `orderId` means a row of this table everywhere. Going back to a "
            "table that was bound before works too. Administrators only."
        )
    )
    async def rebind_payments(self, info: ApiInfo, input: ActivatePaymentsInput) -> PaymentFeature:  # noqa: A002 — public
        context = info.context
        feature = await context.runtime.activation.rebind(
            context.administrator(), input.read(), correlation_id=context.correlation_id, address=context.address
        )
        return PaymentFeature.of(feature)

    @strawberry.mutation(
        description=(
            "Binds the order table. Refused while one is bound: see rebindPayments and deactivatePayments. "
            "Administrators only."
        )
    )
    async def activate_payments(self, info: ApiInfo, input: ActivatePaymentsInput) -> PaymentFeature:  # noqa: A002 — public
        context = info.context
        feature = await context.runtime.activation.activate(
            context.administrator(), input.read(), correlation_id=context.correlation_id, address=context.address
        )
        return PaymentFeature.of(feature)

"""Permissions on the API, for administrators."""

from datetime import datetime
from enum import StrEnum

import strawberry

from app.activation.permissions import Reach
from app.api.context import ApiInfo
from app.api.scalars import Yuan


@strawberry.enum(description="Whose payments a grant reaches: the caller's own, or everybody's.")
class PermissionScope(StrEnum):
    OWN = "OWN"
    ALL = "ALL"


@strawberry.type(description="An action granted to a role; `*` is everybody with a token.")
class Permission:
    role: str
    action: str
    scope: PermissionScope
    largest_refund: Yuan | None = strawberry.field(description="The largest single refund; null is without a bound.")
    largest_refund_per_day: Yuan | None = strawberry.field(
        description="The largest sum of one caller's refunds in a day of Shanghai's calendar; null is without a bound."
    )
    granted_by: str
    granted_at: datetime


@strawberry.type
class PermissionQuery:
    @strawberry.field(description="All grants. For administrators.")
    async def permissions(self, info: ApiInfo) -> list[Permission]:
        rows = await info.context.runtime.permissions.list(info.context.administrator())
        return [
            Permission(
                role=row.role,
                action=row.action,
                scope=PermissionScope(row.scope),
                largest_refund=_yuan(row.largest_refund_fen),
                largest_refund_per_day=_yuan(row.largest_refund_per_day_fen),
                granted_by=row.granted_by,
                granted_at=row.granted_at,
            )
            for row in rows
        ]


@strawberry.type
class PermissionMutation:
    @strawberry.mutation(
        description=(
            "Grants an action (payment.create, payment.close, payment.sync, payment.refund, payment.export, "
            "cycle.start, cycle.cancel, cycle.pause, cycle.change) to a role, or changes how far a granted "
            "payment.refund reaches. Without `scope` the roles * and user reach their own payments, any other role "
            "everybody's. True when something changed. For administrators."
        )
    )
    async def grant_permission(
        self,
        info: ApiInfo,
        role: str,
        action: str,
        scope: PermissionScope | None = None,
        largest_refund: Yuan | None = None,
        largest_refund_per_day: Yuan | None = None,
    ) -> bool:
        context = info.context
        return await context.runtime.permissions.grant(
            context.administrator(),
            role,
            action,
            Reach(None if scope is None else scope.value, largest_refund, largest_refund_per_day),
            correlation_id=context.correlation_id,
            address=context.address,
        )

    @strawberry.mutation(description="Takes a grant back. True when there was one. For administrators.")
    async def revoke_permission(self, info: ApiInfo, role: str, action: str) -> bool:
        context = info.context
        return await context.runtime.permissions.revoke(
            context.administrator(),
            role,
            action,
            correlation_id=context.correlation_id,
            address=context.address,
        )


def _yuan(fen: int | None) -> Yuan | None:
    return None if fen is None else Yuan(fen)

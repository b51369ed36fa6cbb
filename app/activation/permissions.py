"""Who may do what, as data: actions granted to roles.

An administrator holds every action without a grant, but refunds: those are granted to nobody, the administrator's own
role included, until someone grants them. The role `*` is everybody who has a token. Rows are seen and acted on only by
their owner, whatever is granted; an administrator sees all. What configures the deployment is not granted: it is for
administrators.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.auth import Principal
from app.clock import Clock
from app.db import Database, Transaction
from app.errors import Forbidden, InvalidInput

EVERYBODY: Final = "*"
_ROLE_LIMIT: Final = 64


class Action(StrEnum):
    """What can be granted."""

    PAYMENT_CREATE = "payment.create"
    PAYMENT_CLOSE = "payment.close"
    PAYMENT_SYNC = "payment.sync"
    PAYMENT_REFUND = "payment.refund"


# Money leaves by these: no role holds them by itself.
_NEVER_BY_DEFAULT: Final = frozenset({Action.PAYMENT_REFUND})


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a grant goes. Fen; None is without a bound."""

    largest_refund_fen: int | None = None
    largest_refund_per_day_fen: int | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """One grant, as an administrator sees it."""

    role: str
    action: str
    largest_refund_fen: int | None
    largest_refund_per_day_fen: int | None
    granted_by: str
    granted_at: datetime


class Permissions:
    """The grants of this deployment. Read from the database each time: what is revoked ends at once, everywhere."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    async def require(self, caller: Principal, action: Action, *, tx: Transaction | None = None) -> Bounds:
        """The bounds under which the caller may do this; in the caller's transaction where one is given.

        Raises Forbidden."""
        if caller.is_admin and action not in _NEVER_BY_DEFAULT:
            return Bounds()
        row = await (tx or self._db).one("permission.held", roles_of(caller), action)
        if row is None:
            raise forbidden(action)
        return Bounds(**row)

    async def list(self, caller: Principal) -> list[Permission]:
        """All grants. Raises Forbidden."""
        _require_admin(caller)
        return [Permission(**row) for row in await self._db.all("permission.list")]

    async def grant(
        self,
        caller: Principal,
        role: str,
        action: str,
        bounds: Bounds = Bounds(),
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> bool:
        """Grants an action to a role, or changes its bounds; whether anything changed.

        Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        granted = _read_action(action)
        _check_role(role)
        if bounds != Bounds() and granted is not Action.PAYMENT_REFUND:
            raise InvalidInput(f"largestRefund: only {Action.PAYMENT_REFUND} has bounds", field="largestRefund")
        for field, fen in (
            ("largestRefund", bounds.largest_refund_fen),
            ("largestRefundPerDay", bounds.largest_refund_per_day_fen),
        ):
            if fen is not None and fen < 1:
                raise InvalidInput(f"{field}: more than nothing, or leave it out", field=field)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            row = await tx.one(
                "permission.grant", role, granted, bounds.largest_refund_fen, bounds.largest_refund_per_day_fen,
                caller.sub, now,
            )  # fmt: skip
            if row is None:
                return False
            details = {"role": role, "largest_refund_fen": bounds.largest_refund_fen}
            details |= {"largest_refund_per_day_fen": bounds.largest_refund_per_day_fen}
            await tx.one("audit.append", now, caller.sub, "permission.grant", granted, details, address, correlation_id)
        return True

    async def revoke(
        self,
        caller: Principal,
        role: str,
        action: str,
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> bool:
        """Takes a grant back; whether there was one. Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        revoked = _read_action(action)
        _check_role(role)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if await tx.one("permission.revoke", role, revoked) is None:
                return False
            details = {"role": role}
            await tx.one(
                "audit.append", now, caller.sub, "permission.revoke", revoked, details, address, correlation_id
            )
        return True


def _require_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden("permissions are granted by administrators: use a token with the admin role")


def roles_of(caller: Principal) -> Sequence[str]:
    """The roles a caller's grants may be under."""
    return [EVERYBODY, *sorted(caller.roles)]


def forbidden(action: str) -> Forbidden:
    """The refusal of an action, with the way to get it."""
    return Forbidden(
        f"none of your roles may do {action}: somebody who may grants it (grantPermission)",
        message_zh=f"没有权限执行此操作（{action}）：请管理员授权",
        extra={"action": str(action)},
    )


def _read_action(text: str) -> Action:
    try:
        return Action(text)
    except ValueError:
        known = ", ".join(Action)
        raise InvalidInput(f"action: {text[:64]!r} is not one of {known}", field="action") from None


def _check_role(role: str) -> None:
    if not (1 <= len(role) <= _ROLE_LIMIT and role.isprintable() and role.strip() == role):
        raise InvalidInput(f"role: write 1 to {_ROLE_LIMIT} characters, or {EVERYBODY} for everybody", field="role")

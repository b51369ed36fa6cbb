"""Who may do what, as data: actions granted to roles.

An administrator holds every action without a grant, but refunds: those are granted to nobody, the administrator's own
role included, until someone grants them. The role `*` is everybody who has a token. Rows are seen and acted on only by
their owner, and by an administrator; a grant of refunds alone may reach everybody's, and one of exports does. What
configures the deployment is not granted: it is for administrators.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

from app.auth import Principal
from app.clock import Clock
from app.db import Database
from app.errors import Forbidden, InvalidInput

EVERYBODY: Final = "*"
# Roles of people who pay: a login through WeChat gives "user".
_CUSTOMERS: Final = frozenset({EVERYBODY, "user"})
_ROLE_LIMIT: Final = 64


class Action(StrEnum):
    """What can be granted."""

    PAYMENT_CREATE = "payment.create"
    PAYMENT_CLOSE = "payment.close"
    PAYMENT_SYNC = "payment.sync"
    PAYMENT_REFUND = "payment.refund"
    PAYMENT_EXPORT = "payment.export"
    CYCLE_START = "cycle.start"
    CYCLE_CANCEL = "cycle.cancel"
    # pause and resume
    CYCLE_PAUSE = "cycle.pause"
    # another price, another date
    CYCLE_CHANGE = "cycle.change"


# Money leaves by these: no role holds them by itself.
_NEVER_BY_DEFAULT: Final = frozenset({Action.PAYMENT_REFUND})


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a grant of payment.refund goes: whose payments, and how much in fen (None is without a bound).

    `scope` None is what suits the role: customers reach their own, any other role everybody's."""

    scope: Literal["OWN", "ALL"] | None = None
    largest_refund_fen: int | None = None
    largest_refund_per_day_fen: int | None = None


@dataclass(frozen=True, slots=True)
class Permission:
    """One grant, as an administrator sees it."""

    role: str
    action: str
    scope: Literal["OWN", "ALL"]
    largest_refund_fen: int | None
    largest_refund_per_day_fen: int | None
    granted_by: str
    granted_at: datetime


class Permissions:
    """The grants of this deployment. Read from the database each time: what is revoked ends at once, everywhere."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    async def require(self, caller: Principal, action: Action) -> None:
        """Raises Forbidden unless the caller may do this, as far as rows do not matter."""
        if caller.is_admin and action not in _NEVER_BY_DEFAULT:
            return
        if await self._db.one("permission.held", roles_of(caller), action) is None:
            raise forbidden(action)

    async def list(self, caller: Principal) -> list[Permission]:
        """All grants. Raises Forbidden."""
        _require_admin(caller)
        return [Permission(**row) for row in await self._db.all("permission.list")]

    async def grant(
        self,
        caller: Principal,
        role: str,
        action: str,
        reach: Reach | None = None,
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> bool:
        """Grants an action to a role, or changes its reach; whether anything changed.

        Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        granted = _read_action(action)
        _check_role(role)
        reach = _checked_reach(granted, role, reach or Reach())
        now = self._clock.now()
        async with self._db.transaction() as tx:
            row = await tx.one(
                "permission.grant", role, granted, reach.scope, reach.largest_refund_fen,
                reach.largest_refund_per_day_fen, caller.sub, now,
            )  # fmt: skip
            if row is None:
                return False
            details = {"role": role, **asdict(reach)}
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


def _checked_reach(action: Action, role: str, reach: Reach) -> Reach:
    """The reach with its scope filled in. Raises InvalidInput."""
    if action is not Action.PAYMENT_REFUND:
        if reach != Reach():
            raise InvalidInput(f"action: only {Action.PAYMENT_REFUND} has a scope and bounds", field="action")
        return Reach("ALL" if action is Action.PAYMENT_EXPORT else "OWN")
    for field, fen in (
        ("largestRefund", reach.largest_refund_fen),
        ("largestRefundPerDay", reach.largest_refund_per_day_fen),
    ):
        if fen is not None and fen < 1:
            raise InvalidInput(f"{field}: more than nothing, or leave it out", field=field)
    return replace(reach, scope=reach.scope or ("OWN" if role in _CUSTOMERS else "ALL"))


def _check_role(role: str) -> None:
    if not (1 <= len(role) <= _ROLE_LIMIT and role.isprintable() and role.strip() == role):
        raise InvalidInput(f"role: write 1 to {_ROLE_LIMIT} characters, or {EVERYBODY} for everybody", field="role")

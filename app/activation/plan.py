"""The plan payments run under: sold until a date, renewed at once, announced before it ends.

A deployment that sells no plans has none, and never meets any of this. After its end new actions are refused; what is
under way goes on: notifications, questions and the results of money that already moved.
"""

from datetime import datetime
from typing import Final

from app.auth import Principal
from app.clock import Clock
from app.db import Database
from app.errors import Forbidden, InvalidInput, PaymentsNotActive, PlanExpired

WARNING_DAYS: Final = (14, 7, 1)
_NAME_LIMIT: Final = 64


class Plan:
    """The plan of this deployment. Read from the database each time: a renewal is in force at once, everywhere."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._db = database
        self._clock = clock

    async def require(self) -> None:
        """Raises PaymentsNotActive or PlanExpired unless payments may act now."""
        row = await self._db.one("activation.plan")
        if row is None:
            raise payments_not_active()
        ends_at = row["plan_expires_at"]
        if ends_at is not None and ends_at <= self._clock.now():
            raise plan_expired()

    async def set(
        self,
        caller: Principal,
        name: str,
        expires_at: datetime,
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> None:
        """Sells or renews a plan; an end in the past stops new actions now.

        Raises Forbidden, InvalidInput, PaymentsNotActive."""
        if not caller.is_admin:
            raise Forbidden("plans are set by administrators: use a token with the admin role")
        if not (1 <= len(name.strip()) <= _NAME_LIMIT and name.isprintable()):
            raise InvalidInput(f"plan: give it a name of 1 to {_NAME_LIMIT} characters", field="plan")
        if expires_at.tzinfo is None:
            raise InvalidInput("expiresAt: give it an offset, as in 2027-01-01T00:00:00+08:00", field="expiresAt")
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if await tx.one("activation.set_plan", name.strip(), expires_at) is None:
                raise payments_not_active()
            details = {"plan": name.strip(), "expires_at": expires_at.isoformat()}
            await tx.one("audit.append", now, caller.sub, "plan.set", "plan", details, address, correlation_id)

    async def warn(self) -> int:
        """Announces the coming end, once for each number of WARNING_DAYS; returns how many events. Any worker may."""
        return len(await self._db.change_all("activation.warn_of_plan", self._clock.now(), list(WARNING_DAYS)))


def payments_not_active() -> PaymentsNotActive:
    """What an action meets before a table is bound."""
    return PaymentsNotActive("payments are not active: an administrator binds the order table (activatePayments)")


def plan_expired() -> PlanExpired:
    """What an action meets after the plan's end."""
    return PlanExpired("the plan has expired: renew it (setPlan) and payments work again at once")

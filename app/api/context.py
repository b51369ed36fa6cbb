"""What a resolver may use: who asks, on whose behalf the log speaks, and the domain.

A context lives as long as one operation, or one event of a stream. Loaders cache for that long only: one that outlived
an event would serve the next event yesterday's rows.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Final

from strawberry.dataloader import DataLoader
from strawberry.types import Info

from app.auth import Principal
from app.errors import Forbidden, Unauthenticated
from app.payments.actions import Order, OrderKey, may_see
from app.payments.model import Payment
from app.refunds.model import Refund
from app.runtime import Runtime

_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{8,64}", re.ASCII)


def correlation_id_of(header: str | None) -> str:
    """The caller's correlation id where it is usable in a log, else a new one."""
    if header is not None and _CORRELATION_ID.fullmatch(header):
        return header
    return secrets.token_hex(8)


class Context:
    """One operation, or one event of a stream."""

    __slots__ = (
        "_cycles",
        "_deductions",
        "_orders",
        "_payments",
        "_refunds",
        "address",
        "correlation_id",
        "principal",
        "runtime",
    )

    def __init__(self, runtime: Runtime, principal: Principal | None, correlation_id: str, address: str | None) -> None:
        self.runtime = runtime
        self.principal = principal
        self.correlation_id = correlation_id
        self.address = address
        self._orders: DataLoader[OrderKey, Order | None] | None = None
        self._payments: DataLoader[OrderKey, list[Payment]] | None = None
        self._refunds: DataLoader[int, list[Refund]] | None = None
        self._cycles: DataLoader[int, list[Payment]] | None = None
        self._deductions: DataLoader[int, list[Payment]] | None = None

    def caller(self) -> Principal:
        """Who asks. Raises Unauthenticated without a token, or once the token of a stream is over."""
        principal = self.principal
        if principal is None:
            raise Unauthenticated("no token came with the request: send it as authorization: Bearer …")
        if self.runtime.auth.expired(principal):
            raise token_expired()
        return principal

    def administrator(self) -> Principal:
        """Who asks, an administrator. Raises Unauthenticated or Forbidden."""
        principal = self.caller()
        if not principal.is_admin:
            raise Forbidden(f"this needs the role {self.runtime.config.admin_role!r}")
        return principal

    def for_event(self) -> "Context":
        """The same caller, with nothing loaded yet."""
        return Context(self.runtime, self.principal, self.correlation_id, self.address)

    async def order(self, order: OrderKey) -> Order | None:
        """A payment's order as the caller may see it; asked once however often an operation names it."""
        if self._orders is None:
            self._orders = DataLoader(load_fn=self._load_orders)
        return await self._orders.load(order)

    async def payments_of(self, order: OrderKey) -> list[Payment]:
        """Payments of an order the caller may see; one statement for all orders of an operation."""
        if self._payments is None:
            self._payments = DataLoader(load_fn=self._load_payments)
        return await self._payments.load(order)

    async def refunds_of(self, payment_id: int) -> list[Refund]:
        """Refunds of a payment the caller may see; one statement for all payments of an operation."""
        if self._refunds is None:
            self._refunds = DataLoader(load_fn=self._load_refunds)
        return await self._refunds.load(payment_id)

    async def payments_of_cycle(self, cycle_id: int) -> list[Payment]:
        """Payments of a cycle the caller may see; one statement for all cycles of an operation."""
        if self._cycles is None:
            self._cycles = DataLoader(load_fn=self._load_of_cycles)
        return await self._cycles.load(cycle_id)

    async def payments_of_deduction(self, deduction_id: int) -> list[Payment]:
        """Attempts of a deduction the caller may see; one statement for all deductions of an operation."""
        if self._deductions is None:
            self._deductions = DataLoader(load_fn=self._load_of_deductions)
        return await self._deductions.load(deduction_id)

    async def _load_of_cycles(self, cycle_ids: Sequence[int]) -> Sequence[list[Payment]]:
        found = await self.runtime.cycles.payments_of(cycle_ids)
        return [found.get(cycle_id, []) for cycle_id in cycle_ids]

    async def _load_of_deductions(self, deduction_ids: Sequence[int]) -> Sequence[list[Payment]]:
        found = await self.runtime.cycles.payments_of_deductions(deduction_ids)
        return [found.get(deduction_id, []) for deduction_id in deduction_ids]

    async def _load_orders(self, keys: Sequence[OrderKey]) -> Sequence[Order | None]:
        caller = self.caller()
        found = await self.runtime.payments.orders_of_payments(keys)
        seen = (found.get(key) for key in keys)
        return [order if order is not None and may_see(caller, order.owner) else None for order in seen]

    async def _load_refunds(self, payment_ids: Sequence[int]) -> Sequence[list[Refund]]:
        found = await self.runtime.refunds.of_payments(payment_ids)
        return [found.get(payment_id, []) for payment_id in payment_ids]

    async def _load_payments(self, keys: Sequence[OrderKey]) -> Sequence[list[Payment]]:
        found = await self.runtime.payments.of_orders(keys)
        return [found[key] for key in keys]


def token_expired() -> Unauthenticated:
    """What a stream ends with when its token is over."""
    return Unauthenticated("the token has expired: connect again with a new one", message_zh="登录已过期，请重新登录")


ApiInfo = Info[Context, None]

"""What every provider in the sandbox offers to /_control and to the index page: its trades, in words of no provider.

A described trade has these keys beside the provider's own:

    provider product out_trade_no transaction_id(None while there is none) status paid amount_fen subject seller_id
    pay_url notify_ids created_at expires_at paid_at
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from app.sandbox.deliveries import Notice


class TradeState(StrEnum):
    """UNOPENED is a trade that the provider does not know yet: only the way to pay it was handed out."""

    UNOPENED = "UNOPENED"
    UNPAID = "UNPAID"
    PAID = "PAID"
    CLOSED = "CLOSED"


class DeskRefusal(Exception):
    """Something that cannot be done with a trade now; nothing was changed.

    `code` is the provider's own, `message` its words, `fix` what a test may do instead.
    """

    def __init__(self, code: str, message: str, fix: str = "look at GET /_control/trades") -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Payment:
    """One way of paying. The trade is always paid with its true amount by its true payer; only the notice may tell
    otherwise.

    `times` copies of the notice go out at once, with `distinct_ids` under an id each. `amount` (yuan, any decimal
    text), `app_id`, `seller_id` (the merchant who is paid) and `payer` stand in the notice instead of the truth;
    `overrides` replaces any other field of it, by the provider's name. `wait` returns after the first send was
    answered.
    """

    late: bool = False
    notify: bool = True
    times: int = 1
    distinct_ids: bool = False
    break_signature: bool = False
    wait: bool = True
    amount: str | None = None
    app_id: str | None = None
    seller_id: str | None = None
    payer: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)


TradeT = TypeVar("TradeT")


class Desk(Protocol[TradeT]):
    """One provider's trades and what a payer does with them. Whatever cannot be done raises DeskRefusal."""

    @property
    def provider(self) -> str: ...

    @property
    def default_failure(self) -> str:
        """Why a payment fails when the caller gives no reason."""
        ...

    def find(self, out_trade_no: str, seller_id: str | None = None) -> list[TradeT]:
        """Numbers are unique within a merchant only."""
        ...

    def find_by_token(self, token: str) -> TradeT | None:
        """The trade of a payer's link."""
        ...

    def open(self, trade: TradeT) -> None:
        """The payer arrives; repeats change nothing."""
        ...

    async def pay(self, trade: TradeT, payment: Payment) -> list[Notice]:
        """Pay and notify; returns the notices."""
        ...

    def fail(self, trade: TradeT, reason: str) -> None:
        """An attempt that did not succeed; the trade goes on waiting."""
        ...

    async def close(self, trade: TradeT, *, notify: bool) -> list[Notice]:
        """The provider closes an unpaid trade."""
        ...

    def notices_of(self, trade: TradeT) -> list[Notice]: ...

    def described(self, trade: TradeT) -> dict[str, Any]:
        """The trade as JSON; see the module."""
        ...

    def listed(self, *, out_trade_no: str | None = None) -> list[TradeT]:
        """Oldest first."""
        ...

    def reset(self) -> None:
        """Forget all trades."""
        ...


AnyDesk = Desk[Any]


def all_described(desks: Sequence[AnyDesk], *, out_trade_no: str | None = None) -> list[dict[str, Any]]:
    """The trades of all providers, oldest first."""
    described = [desk.described(trade) for desk in desks for trade in desk.listed(out_trade_no=out_trade_no)]
    return sorted(described, key=lambda trade: trade["created_at"])

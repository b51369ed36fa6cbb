"""What every provider in the sandbox offers to /_control and to the index page: its trades, in words of no provider.

A described trade has these keys beside the provider's own:

    provider product out_trade_no transaction_id(None while there is none) status paid amount_fen subject seller_id
    pay_url notify_ids created_at expires_at paid_at refunded_fen refunds

and each of its `refunds`, oldest first, these (refund_id is None where the provider gives none):

    out_refund_no refund_id amount_fen status reason(or None) created_at refunded_at(or None)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

from app.sandbox.deliveries import Notice


class TradeState(StrEnum):
    """UNOPENED is a trade that the provider does not know yet: only the way to pay it was handed out.

    PAID stays PAID however much of it is given back.
    """

    UNOPENED = "UNOPENED"
    UNPAID = "UNPAID"
    PAID = "PAID"
    CLOSED = "CLOSED"


class RefundState(StrEnum):
    """ABNORMAL waits for the merchant to do something; not every provider knows it."""

    PROCESSING = "PROCESSING"
    REFUNDED = "REFUNDED"
    FAILED = "FAILED"
    ABNORMAL = "ABNORMAL"


@dataclass(frozen=True, slots=True)
class RefundPolicy:
    """How refunds asked for from now on settle: after a time on the sandbox clock, or, with None, when told to.

    `notify_full` lets a provider that sends nothing about a refund in full send what its documents describe.
    """

    settle_after: timedelta | None = timedelta(0)
    settle_as: RefundState = RefundState.REFUNDED
    notify_full: bool = False


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
    otherwise. `buyer` says who that payer is, where the provider plays more than one, and with `sign` they also sign
    the agreement that is offered with the trade, if any is.

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
    sign: bool = True
    buyer: str | None = None
    amount: str | None = None
    app_id: str | None = None
    seller_id: str | None = None
    payer: str | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)


TradeT = TypeVar("TradeT")
TakenTradeT = TypeVar("TakenTradeT", contravariant=True)


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


@runtime_checkable
class RefundingDesk(Protocol[TakenTradeT]):
    """A desk whose trades can be given back."""

    @property
    def provider(self) -> str: ...

    def set_refund_policy(self, policy: RefundPolicy) -> None:
        """How refunds settle from now on; a reset brings the first one back. Raises DeskRefusal for what the provider
        does not know."""
        ...

    def refunds_of(self, trade: TakenTradeT) -> list[dict[str, Any]]:
        """Its refunds as JSON; see the module."""
        ...

    async def settle_refund(self, trade: TakenTradeT, out_refund_no: str, state: RefundState) -> list[Notice]:
        """Settle a refund that is held; returns the notices, each answered. Raises DeskRefusal."""
        ...


AnyDesk = Desk[Any]
AnyRefundingDesk = RefundingDesk[Any]


def refunding(desk: AnyDesk) -> AnyRefundingDesk:
    """The desk as one that gives money back. Raises DeskRefusal when the sandbox plays no refunds of this provider."""
    if not isinstance(desk, RefundingDesk):
        message = f"the sandbox plays no refunds of {desk.provider}"
        raise DeskRefusal("REFUNDS_NOT_PLAYED", message, "refund a trade of another provider")
    return desk


def all_described(desks: Sequence[AnyDesk], *, out_trade_no: str | None = None) -> list[dict[str, Any]]:
    """The trades of all providers, oldest first."""
    described = [described_trade(desk, trade) for desk in desks for trade in desk.listed(out_trade_no=out_trade_no)]
    return sorted(described, key=lambda trade: trade["created_at"])


def described_trade(desk: AnyDesk, trade: Any) -> dict[str, Any]:
    """The trade as JSON, with its refunds: none where the sandbox plays none of this provider."""
    refunds = desk.refunds_of(trade) if isinstance(desk, RefundingDesk) else []
    refunded_fen = sum(refund["amount_fen"] for refund in refunds if refund["status"] == RefundState.REFUNDED)
    return {**desk.described(trade), "refunded_fen": refunded_fen, "refunds": refunds}

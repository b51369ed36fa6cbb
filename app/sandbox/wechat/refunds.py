"""What happens to refunds: asked for by the merchant, settled by the policy, on the clock or by hand.

    asked for ──► PROCESSING ──┬──► REFUNDED
                               ├──► FAILED     closed: the amount is free again, its number is used up
                               └──► ABNORMAL ──► REFUNDED or FAILED, once the merchant did something about it

The sum of all that did not fail never exceeds what was paid. A number belongs to one refund of its merchant for ever:
asking again under it changes nothing. WeChat asks merchants to wait a minute between two refunds of one order, but does
not say how it would refuse the second; here it is taken.
Source: pay.weixin.qq.com/doc/v3/merchant/4012791862, read 2026-09.
"""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from app.sandbox.clock import SandboxClock, format_beijing
from app.sandbox.desks import RefundPolicy, RefundState
from app.sandbox.wechat.trades import Refund, RefundWish, Trade, TradeState

WINDOW = timedelta(days=365)
MAX_REFUNDS = 50


class RefundReason(StrEnum):
    """Why money is not given back; each channel has a code of its own for each."""

    UNPAID = "UNPAID"
    TOO_OLD = "TOO_OLD"
    WRONG_TOTAL = "WRONG_TOTAL"
    ABOVE_TOTAL = "ABOVE_TOTAL"
    ABOVE_REST = "ABOVE_REST"
    REFUNDED_IN_FULL = "REFUNDED_IN_FULL"
    TOO_MANY = "TOO_MANY"
    OTHER_AMOUNT = "OTHER_AMOUNT"
    OTHER_ORDER = "OTHER_ORDER"


class RefundRefusal(Exception):
    """Nothing was changed."""

    def __init__(self, reason: RefundReason, out_refund_no: str) -> None:
        super().__init__(f"{reason.value} {out_refund_no}")
        self.reason = reason


class RefundBook:
    """All refunds, by the merchant's number and by WeChat's. `policy` holds for those asked for from now on."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self.policy = RefundPolicy()
        self._by_number: dict[tuple[str, str], Refund] = {}
        self._by_refund_id: dict[tuple[str, str], Refund] = {}
        self._named: dict[str, str] = {}

    def ask(self, trade: Trade, wish: RefundWish) -> tuple[Refund, bool]:
        """The refund of this number, and whether it was begun by this call. Raises RefundRefusal."""
        seller_id = trade.merchant.seller_id
        known = self._by_number.get((seller_id, wish.out_refund_no))
        if known is not None:
            _check_same(known, trade, wish)
            return known, False
        now, after = self._clock.now(), self.policy.settle_after
        _check_refundable(trade, wish, now)
        refund = Refund(
            trade=trade,
            wish=wish,
            refund_id=_new_refund_id(now),
            created_at=now,
            settles_at=None if after is None else now + after,
            settles_as=self.policy.settle_as,
        )
        trade.refunds.append(refund)
        trade.state = TradeState.REFUND
        self._by_number[seller_id, wish.out_refund_no] = refund
        self._by_refund_id[seller_id, refund.refund_id] = refund
        return refund, True

    def settle(self, refund: Refund, state: RefundState) -> None:
        """The money moves or it does not; for a refund in process, or one the merchant had to look after."""
        assert refund.state in (RefundState.PROCESSING, RefundState.ABNORMAL), "its callers look first"
        refund.state = state
        refund.settled_at = self._clock.now()

    def find(self, seller_id: str, *, out_refund_no: str = "", refund_id: str = "") -> Refund | None:
        """The refund of one merchant; WeChat's number wins when both are given."""
        if refund_id:
            return self._by_refund_id.get((seller_id, refund_id))
        return self._by_number.get((seller_id, out_refund_no))

    def remember_named(self, out_refund_no: str, out_trade_no: str) -> None:
        """That a call, whatever became of it, named the two together; for `order_named_with`."""
        self._named[out_refund_no] = out_trade_no

    def order_named_with(self, *, out_refund_no: str, refund_id: str) -> str:
        """The order that a call naming only its refund seems to be about; for counting and faults only, as two
        merchants may use one number.
        """
        refunds = (refund for (_, known), refund in self._by_refund_id.items() if known == refund_id)
        found = next((refund.trade.out_trade_no for refund in refunds), "") if refund_id else ""
        return found or self._named.get(out_refund_no, "")

    def reset(self) -> None:
        self.policy = RefundPolicy()
        self._by_number.clear()
        self._by_refund_id.clear()
        self._named.clear()


def _check_same(known: Refund, trade: Trade, wish: RefundWish) -> None:
    """A number is asked for again only for the same order and amounts; the first call's other wishes hold."""
    if known.trade is not trade:
        raise RefundRefusal(RefundReason.OTHER_ORDER, wish.out_refund_no)
    if (known.wish.amount_fen, known.wish.total_fen) != (wish.amount_fen, wish.total_fen):
        raise RefundRefusal(RefundReason.OTHER_AMOUNT, wish.out_refund_no)


def _check_refundable(trade: Trade, wish: RefundWish, now: datetime) -> None:
    total_fen = trade.order.total_fen
    rest_fen = total_fen - trade.taken_back_fen
    taken = sum(refund.state is not RefundState.FAILED for refund in trade.refunds)
    refused: Mapping[RefundReason, bool] = {
        RefundReason.UNPAID: trade.paid_at is None,
        RefundReason.TOO_OLD: trade.paid_at is not None and now > trade.paid_at + WINDOW,
        RefundReason.WRONG_TOTAL: wish.total_fen != total_fen,
        RefundReason.ABOVE_TOTAL: wish.amount_fen > total_fen,
        RefundReason.REFUNDED_IN_FULL: rest_fen == 0,
        RefundReason.ABOVE_REST: wish.amount_fen > rest_fen,
        RefundReason.TOO_MANY: taken >= MAX_REFUNDS,
    }
    for reason, applies in refused.items():
        if applies:
            raise RefundRefusal(reason, wish.out_refund_no)


def _new_refund_id(now: datetime) -> str:
    """29 digits with the Beijing date inside, as WeChat's; random, for restarts must not repeat numbers."""
    date = format_beijing(now)[:10].replace("-", "")
    return f"5030{secrets.randbelow(10**6):06d}{date}{secrets.randbelow(10**11):011d}"

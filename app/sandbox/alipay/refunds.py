"""What happens to a trade's refunds: asked for by the merchant, settled by the policy, on the clock or by hand.

    asked for ──► PROCESSING ──► REFUNDED     at once, unless the policy says otherwise
                      └────────► FAILED ── asked for again under its number ──► PROCESSING

The sum of what is refunded and in process never exceeds what was paid. A trade refunded in full is TRADE_CLOSED.
"""

from datetime import timedelta

from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.trades import Refund, Trade, TradeStatus
from app.sandbox.clock import SandboxClock
from app.sandbox.desks import RefundPolicy, RefundState

_NOT_REFUNDABLE = {
    TradeStatus.WAIT_BUYER_PAY: ("ACQ.TRADE_STATUS_ERROR", "交易状态不合法：只有支付成功的交易可以退款"),
    TradeStatus.TRADE_CLOSED: ("ACQ.TRADE_HAS_CLOSE", "交易已经关闭"),
    TradeStatus.TRADE_FINISHED: ("ACQ.TRADE_HAS_FINISHED", "交易已经完结，不可退款"),
}


class Refunds:
    """The only ways a refund's state changes. `policy` holds for refunds asked for from now on."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self.policy = RefundPolicy()

    def ask(self, trade: Trade, number: str, *, amount_fen: int, reason: str) -> tuple[Refund, bool]:
        """The refund of this number, and whether it was begun by this call; a repeat changes nothing.

        Raises BusinessRefusal DISCORDANT_REPEAT_REQUEST for a number that was used with another amount,
        TRADE_STATUS_ERROR, TRADE_HAS_CLOSE, TRADE_HAS_FINISHED, REFUND_AMT_NOT_EQUAL_TOTAL above the total and
        REASON_TRADE_REFUND_FEE_ERR above what is left of it.
        """
        known = trade.refunds.get(number)
        if known is not None and known.amount_fen != amount_fen:
            raise BusinessRefusal("ACQ.DISCORDANT_REPEAT_REQUEST", "同一退款请求号的退款金额与上次不一致")
        if known is not None and known.state is not RefundState.FAILED:
            return known, False
        _check_refundable(trade, amount_fen)
        now, after = self._clock.now(), self.policy.settle_after
        refund = Refund(
            out_request_no=number,
            amount_fen=amount_fen,
            reason=reason,
            created_at=now,
            settles_at=None if after is None else now + after,
            settles_as=self.policy.settle_as,
        )
        trade.refunds[number] = refund
        if after == timedelta(0):
            self.settle(trade, refund, refund.settles_as)
        return refund, True

    def settle(self, trade: Trade, refund: Refund, state: RefundState) -> None:
        """The money moves or it never will; for a refund in process only."""
        assert refund.state is RefundState.PROCESSING, "its callers look first"
        refund.state = state
        if state is RefundState.REFUNDED:
            refund.refunded_at = self._clock.now()
            if trade.is_refunded_in_full:
                trade.status = TradeStatus.TRADE_CLOSED
                trade.closed_at = refund.refunded_at

    def reset(self) -> None:
        self.policy = RefundPolicy()


def check_amount_without_number(trade: Trade, amount_fen: int) -> None:
    """A refund without a number of its own is one of everything. Raises BusinessRefusal REFUND_AMT_NOT_EQUAL_TOTAL."""
    if amount_fen != trade.terms.total_amount_fen:
        raise BusinessRefusal(
            "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额与订单金额不一致：部分退款必须传 out_request_no"
        )


def _check_refundable(trade: Trade, amount_fen: int) -> None:
    if trade.status is not TradeStatus.TRADE_SUCCESS:
        raise BusinessRefusal(*_NOT_REFUNDABLE[trade.status])
    if amount_fen > trade.terms.total_amount_fen:
        raise BusinessRefusal("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超过订单总金额")
    if amount_fen > trade.terms.total_amount_fen - trade.taken_back_fen:
        raise BusinessRefusal("ACQ.REASON_TRADE_REFUND_FEE_ERR", "交易退款金额有误：超过可退金额")

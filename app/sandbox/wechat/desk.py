"""What happens at the payer's end of a WeChat order: paying in all the ways that test a merchant, and the notices.

The payer's page and /_control both come here. So do refunds, asked for through whichever channel: each one that is
settled sends a notice to where it asked for, whatever became of it.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries, Notice
from app.sandbox.desks import DeskRefusal, Payment, RefundPolicy, RefundState
from app.sandbox.desks import TradeState as NeutralState
from app.sandbox.wechat.accounts import PROVIDER
from app.sandbox.wechat.refunds import RefundBook
from app.sandbox.wechat.trades import (
    THE_TRUTH,
    Reason,
    Refund,
    RefundWish,
    Telling,
    Trade,
    TradeBook,
    TradeRefusal,
    TradeState,
)

NOTICE_TIMEOUT_S = 5.0

_REFUSALS = {
    Reason.PAID: (
        "ORDER_PAID",
        "该订单已支付",
        "to repeat the notice, POST /_control/notifications/{notify_id}/resend",
    ),
    Reason.CLOSED: ("ORDER_CLOSED", "该订单已关闭", 'pay it all the same with {"late": true}'),
}
STATES = {
    TradeState.NOTPAY: NeutralState.UNPAID,
    TradeState.SUCCESS: NeutralState.PAID,
    TradeState.REFUND: NeutralState.PAID,
    TradeState.CLOSED: NeutralState.CLOSED,
}


@contextmanager
def _refusals_translated() -> Iterator[None]:
    try:
        yield
    except TradeRefusal as exc:
        raise DeskRefusal(*_REFUSALS[exc.reason]) from exc


class Desk:
    """WeChat's side of /_control: finds, shows and changes orders of every channel."""

    provider = PROVIDER
    default_failure = "零钱余额不足"

    def __init__(
        self, book: TradeBook, refunds: RefundBook, deliveries: Deliveries, clock: SandboxClock, public_url: str
    ) -> None:
        self._book = book
        self._refunds = refunds
        self._deliveries = deliveries
        self._clock = clock
        self._public_url = public_url

    def find(self, out_trade_no: str, seller_id: str | None = None) -> list[Trade]:
        """`seller_id` is the mchid, or of a partner's order either of the two."""
        trades = self._book.listed(out_trade_no=out_trade_no)
        return [trade for trade in trades if seller_id in (None, trade.merchant.mchid, trade.merchant.sub_mchid)]

    def find_by_token(self, token: str) -> Trade | None:
        return self._book.find_by_token(token)

    def open(self, trade: Trade) -> None:
        """An order exists from the moment it was made."""
        self._book.expire(trade)

    def fail(self, trade: Trade, reason: str) -> None:
        with _refusals_translated():
            self._book.fail(trade, reason)

    async def pay(self, trade: Trade, payment: Payment) -> list[Notice]:
        """Pay and notify; returns the notices. Raises DeskRefusal and sends nothing when it cannot be paid."""
        trade.order.channel.check(payment)
        with _refusals_translated():
            self._book.pay(trade, late=payment.late)
        if not payment.notify or not trade.order.channel.notify_url(trade):
            return []
        if payment.distinct_ids:
            return [await self.notify(trade, payment, copies=1) for _ in range(payment.times)]
        return [await self.notify(trade, payment, copies=payment.times)]

    async def close(self, trade: Trade, *, notify: bool) -> list[Notice]:
        """WeChat closes an unpaid order. It never sends a notice of that."""
        with _refusals_translated():
            self._book.close(trade)
        return []

    async def notify(self, trade: Trade, payment: Payment, *, copies: int = 1) -> Notice:
        """Send the notice of a paid order whose channel has somewhere to send it to."""
        channel, notify_id = trade.order.channel, str(uuid.uuid4())
        notice = Notice(
            notify_id=notify_id,
            provider=PROVIDER,
            out_trade_no=trade.out_trade_no,
            url=channel.notify_url(trade),
            gaps=channel.retry_gaps,
            compose=lambda sent_at: channel.compose(trade, payment, notify_id, sent_at),
            is_acknowledged=channel.is_acknowledged,
            summary={
                "channel": channel.name,
                "amount": payment.amount or yuan(trade.order.total_fen),
                "app_id": payment.app_id or trade.order.appid,
                "seller_id": payment.seller_id or trade.merchant.seller_id,
            },
            timeout_s=NOTICE_TIMEOUT_S,
        )
        trade.notify_ids.append(notify_id)
        await self._deliveries.publish(notice, copies=copies, wait=payment.wait)
        return notice

    # Refunds.

    def set_refund_policy(self, policy: RefundPolicy) -> None:
        """WeChat tells of every refund, so `notify_full` changes nothing here."""
        self._refunds.policy = policy

    def refund(self, trade: Trade, wish: RefundWish) -> Refund:
        """The refund as the call that asks for it is answered: in process, when it is a new one. Raises RefundRefusal.

        What is to settle at once is settled when this returns.
        """
        refund, is_new = self._refunds.ask(trade, wish)
        answered = replace(refund)
        if is_new and refund.settles_at is not None:
            if refund.settles_at <= self._clock.now():
                self._refunds.settle(refund, refund.settles_as)
                self._deliveries.call_at(refund.settles_at, lambda: self._tell_settled(refund))
            else:
                self._deliveries.call_at(refund.settles_at, lambda: self._settle_when_due(refund))
        return answered

    async def settle_refund(self, trade: Trade, out_refund_no: str, state: RefundState) -> list[Notice]:
        """Settle a refund that is held, or that was abnormal. Raises DeskRefusal for any other."""
        refund = next(each for each in trade.refunds if each.wish.out_refund_no == out_refund_no)
        is_held = refund.state is RefundState.PROCESSING and refund.settles_at is None
        if not is_held and (refund.state is not RefundState.ABNORMAL or state is RefundState.ABNORMAL):
            waits = refund.state is RefundState.PROCESSING
            message = f"refund {out_refund_no} " + ("settles on the clock" if waits else f"is {refund.state} already")
            fix = 'POST /_control/refunds/policy {"settle": "hold"} holds those that are asked for afterwards'
            raise DeskRefusal("REFUND_NOT_HELD", message, fix)
        self._refunds.settle(refund, state)
        return await self.tell_refund(refund)

    async def tell_refund(self, refund: Refund, told: Telling = THE_TRUTH) -> list[Notice]:
        """Send the notice of a settled refund as it is now; none without somewhere to send it. Raises DeskRefusal."""
        notice = self._refund_notice(refund, told)
        if notice is None:
            return []
        refund.trade.notify_ids.append(notice.notify_id)
        await self._deliveries.publish(notice)
        return [notice]

    async def _settle_when_due(self, refund: Refund) -> None:
        self._refunds.settle(refund, refund.settles_as)
        await self._tell_settled(refund)

    async def _tell_settled(self, refund: Refund) -> None:
        await self.tell_refund(refund)

    def _refund_notice(self, refund: Refund, told: Telling) -> Notice | None:
        if refund.state is RefundState.PROCESSING:
            raise DeskRefusal("REFUND_PROCESSING", "WeChat tells nothing of a refund in process", "settle it first")
        trade, channel, notify_id = refund.trade, refund.trade.order.channel, str(uuid.uuid4())
        if not channel.refund_notify_url(refund):
            return None
        channel.check_refund(told)
        then = replace(refund)  # a repeat says what was true then
        return Notice(
            notify_id=notify_id,
            provider=PROVIDER,
            out_trade_no=trade.out_trade_no,
            url=channel.refund_notify_url(refund),
            gaps=channel.retry_gaps,
            compose=lambda sent_at: channel.compose_refund(then, told, notify_id, sent_at),
            is_acknowledged=channel.is_acknowledged,
            summary={
                "channel": channel.name,
                "out_refund_no": refund.wish.out_refund_no,
                "refund_status": refund.state.value,
                "amount": yuan(refund.wish.amount_fen),
            },
            timeout_s=NOTICE_TIMEOUT_S,
        )

    def refunds_of(self, trade: Trade) -> list[dict[str, Any]]:
        return [
            {
                "out_refund_no": refund.wish.out_refund_no,
                "refund_id": refund.refund_id,
                "amount_fen": refund.wish.amount_fen,
                "status": refund.state.value,
                "reason": refund.wish.reason or None,
                "created_at": refund.created_at.isoformat(),
                "refunded_at": refund.refunded_at.isoformat() if refund.refunded_at else None,
            }
            for refund in trade.refunds
        ]

    # What is shown.

    def notices_of(self, trade: Trade) -> list[Notice]:
        found = (self._deliveries.find(notify_id) for notify_id in trade.notify_ids)
        return [notice for notice in found if notice is not None]

    def described(self, trade: Trade) -> dict[str, Any]:
        """The order as /_control shows it: the truth, whatever a notice said."""
        self._book.expire(trade)
        order, merchant = trade.order, trade.merchant
        moments = {"paid_at": trade.paid_at, "closed_at": trade.closed_at}
        return {
            "provider": PROVIDER,
            "channel": order.channel.name,
            "product": order.product.value,
            "app_id": order.appid,
            "sub_appid": order.sub_appid or None,
            "mchid": merchant.mchid,
            "sub_mchid": merchant.sub_mchid,
            "seller_id": merchant.seller_id,
            "out_trade_no": trade.out_trade_no,
            "transaction_id": trade.transaction_id if trade.is_paid else None,
            "trade_state": trade.state.value,
            "status": STATES[trade.state].value,
            "paid": trade.is_paid,
            "amount_fen": order.total_fen,
            "subject": order.description,
            "attach": order.attach or None,
            "openid": order.openid or order.sub_openid or None,
            "payer": None if trade.payer is None else trade.payer.sub_openid or trade.payer.openid,
            "notify_url": order.channel.notify_url(trade) or None,
            "prepay_id": trade.credentials[-1].prepay_id,
            "created_at": trade.created_at.isoformat(),
            "expires_at": trade.expires_at.isoformat(),
            **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
            "last_failure": trade.last_failure or None,
            "pay_url": self.pay_url(trade),
            "notify_ids": list(trade.notify_ids),
        }

    def pay_url(self, trade: Trade) -> str:
        return f"{self._public_url}/wechat/pay/{trade.token}"

    def listed(self, *, out_trade_no: str | None = None) -> list[Trade]:
        return self._book.listed(out_trade_no=out_trade_no)

    def reset(self) -> None:
        self._book.reset()
        self._refunds.reset()


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"

"""What happens at the payer's end of a WeChat order: paying in all the ways that test a merchant, and the notices.

The payer's page and /_control both come here.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.sandbox.deliveries import Deliveries, Notice
from app.sandbox.desks import DeskRefusal, Payment
from app.sandbox.desks import TradeState as NeutralState
from app.sandbox.wechat.accounts import PROVIDER
from app.sandbox.wechat.trades import Reason, Trade, TradeBook, TradeRefusal, TradeState

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

    def __init__(self, book: TradeBook, deliveries: Deliveries, public_url: str) -> None:
        self._book = book
        self._deliveries = deliveries
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


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"

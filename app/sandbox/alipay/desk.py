"""What happens at the payer's end: paying in all the ways that test a merchant, and the notices that follow.

The payer's page and /_control both come here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.sandbox.alipay.accounts import PROVIDER
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.notices import RETRY_GAPS, compose_notification, is_acknowledged, notification_fields
from app.sandbox.alipay.trades import Trade, TradeBook, TradeStatus, new_notify_id
from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries, Notice

AMOUNT_FIELDS = ("total_amount", "receipt_amount", "invoice_amount", "buyer_pay_amount")
DEFAULT_FAILURE = "买家余额不足"


@dataclass(frozen=True, slots=True)
class Payment:
    """One way of paying. The trade is always paid with its true amount; only the notice may tell otherwise.

    `times` copies of the notice go out at once, with `distinct_ids` under a `notify_id` each. `overrides` replaces
    fields of the notice before it is signed. `wait` returns after the first send was answered.
    """

    late: bool = False
    notify: bool = True
    times: int = 1
    distinct_ids: bool = False
    break_signature: bool = False
    wait: bool = True
    overrides: Mapping[str, str] = field(default_factory=dict)


def amount_overrides(amount: str) -> dict[str, str]:
    """Another amount throughout a notice."""
    return dict.fromkeys(AMOUNT_FIELDS, amount)


class Desk:
    """Alipay's side of /_control: finds, shows and changes trades."""

    provider = PROVIDER

    def __init__(self, book: TradeBook, deliveries: Deliveries, clock: SandboxClock, public_url: str) -> None:
        self._book = book
        self._deliveries = deliveries
        self._clock = clock
        self._public_url = public_url

    def find(self, out_trade_no: str, seller_id: str | None = None) -> list[Trade]:
        trades = self._book.listed(out_trade_no=out_trade_no)
        return [trade for trade in trades if seller_id in (None, trade.account.seller_id)]

    def find_by_token(self, token: str) -> Trade | None:
        return self._book.find_by_token(token)

    def open(self, trade: Trade) -> None:
        self._book.open(trade)

    def fail(self, trade: Trade, reason: str) -> None:
        self._book.fail(trade, reason)

    async def pay(self, trade: Trade, payment: Payment) -> list[Notice]:
        """Pay and notify; returns the notices. Raises BusinessRefusal and sends nothing when it cannot be paid."""
        for name, value in payment.overrides.items():
            _check_encodable(name, value, trade.codec)
        self._book.pay(trade, late=payment.late)
        if not payment.notify or not trade.notify_url:
            return []
        if payment.distinct_ids:
            return [await self._notify(trade, payment, copies=1) for _ in range(payment.times)]
        return [await self._notify(trade, payment, copies=payment.times)]

    async def close(self, trade: Trade, *, notify: bool) -> list[Notice]:
        """The provider closes an unpaid trade; Alipay's page products send no notice of that, others do."""
        self._book.close(trade)
        if not notify or not trade.notify_url:
            return []
        return [await self._notify(trade, Payment(), copies=1)]

    async def _notify(self, trade: Trade, payment: Payment, *, copies: int) -> Notice:
        notify_id = new_notify_id(self._clock.now())
        fields = {**notification_fields(trade, notify_id), **payment.overrides}
        notice = Notice(
            notify_id=notify_id,
            provider=PROVIDER,
            out_trade_no=trade.out_trade_no,
            url=trade.notify_url,
            gaps=RETRY_GAPS,
            compose=lambda sent_at: compose_notification(
                trade.account, fields, trade.codec, sent_at, break_signature=payment.break_signature
            ),
            is_acknowledged=is_acknowledged,
            summary={name: fields[name] for name in ("trade_status", "total_amount", "app_id", "seller_id")},
        )
        trade.notify_ids.append(notify_id)
        await self._deliveries.publish(notice, copies=copies, wait=payment.wait)
        return notice

    def notices_of(self, trade: Trade) -> list[Notice]:
        found = (self._deliveries.find(notify_id) for notify_id in trade.notify_ids)
        return [notice for notice in found if notice is not None]

    def described(self, trade: Trade) -> dict[str, Any]:
        """The trade as /_control shows it: the provider's truth, with `trade_no` only once it exists."""
        self._book.expire(trade)
        terms = trade.terms
        exists = trade.status is not TradeStatus.NOT_OPENED
        moments = {"opened_at": trade.opened_at, "paid_at": trade.paid_at, "closed_at": trade.closed_at}
        return {
            "provider": PROVIDER,
            "product": terms.product.value,
            "app_id": trade.account.app_id,
            "auth_app_id": trade.account.auth_app_id,
            "seller_id": trade.account.seller_id,
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no if exists else None,
            "trade_status": trade.status.value,
            "paid": trade.is_paid,
            "total_amount": format_amount(terms.total_amount_fen),
            "subject": terms.subject,
            "notify_url": trade.notify_url or None,
            "return_url": trade.return_url or None,
            "expires_at": trade.expires_at.isoformat(),
            **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
            "last_failure": trade.last_failure or None,
            "pay_url": self.pay_url(trade),
            "notify_ids": list(trade.notify_ids),
        }

    def pay_url(self, trade: Trade) -> str:
        return f"{self._public_url}/alipay/pay/{trade.token}"

    def listed(self, *, out_trade_no: str | None = None) -> list[Trade]:
        return self._book.listed(out_trade_no=out_trade_no)

    def reset(self) -> None:
        self._book.reset()


def _check_encodable(name: str, value: str, codec: str) -> None:
    try:
        value.encode(codec)
    except UnicodeEncodeError as exc:
        raise BusinessRefusal("ACQ.INVALID_PARAMETER", f"{name} 不能用该交易的字符集 {codec} 编码") from exc

"""What all of WeChat's ways to pay share: merchants, orders, payers. Each of them brings `routes(wechat)`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from app.sandbox.wechat.accounts import Merchants
from app.sandbox.wechat.desk import Desk
from app.sandbox.wechat.open_platform import OpenPlatform
from app.sandbox.wechat.open_platform_users import DEFAULT_USER, openid_of
from app.sandbox.wechat.refunds import RefundBook
from app.sandbox.wechat.trades import Order, Payer, TradeBook
from app.sandbox.world import Callback, Ground


@dataclass(frozen=True, slots=True)
class WeChat:
    """`resets` are called when the sandbox forgets everything; whoever remembers something adds to them."""

    ground: Ground
    merchants: Merchants
    book: TradeBook
    refunds: RefundBook
    desk: Desk
    open_platform: OpenPlatform
    resets: list[Callback] = field(default_factory=list)

    @classmethod
    def on(cls, ground: Ground) -> Self:
        book, refunds = TradeBook(ground.clock, payer_of), RefundBook(ground.clock)
        open_platform = OpenPlatform(ground)
        return cls(
            ground=ground,
            merchants=Merchants(ground.records),
            book=book,
            refunds=refunds,
            desk=Desk(book, refunds, ground.deliveries, ground.clock, ground.public_url),
            open_platform=open_platform,
            resets=[open_platform.reset],
        )

    def order_named_in(self, fields: Mapping[str, object]) -> str:
        """The `out_trade_no` that a call seems to be about, by whichever number it names the order or its refund.

        Nothing is verified yet: for counting and faults only.
        """
        names = ("out_trade_no", "transaction_id", "out_refund_no", "refund_id")
        texts = (fields.get(name, "") for name in names)
        number, transaction_id, out_refund_no, refund_id = (text if isinstance(text, str) else "" for text in texts)
        number = number or self.book.number_of(transaction_id)
        if number and out_refund_no:
            self.refunds.remember_named(out_refund_no, number)
        return number or self.refunds.order_named_with(out_refund_no=out_refund_no, refund_id=refund_id)


def payer_of(order: Order) -> Payer:
    """Whom the order was made for; whoever scans is the sandbox's first user."""
    return Payer(
        openid=order.openid or openid_of(DEFAULT_USER, order.appid),
        sub_openid=order.sub_openid or (openid_of(DEFAULT_USER, order.sub_appid) if order.sub_appid else ""),
    )

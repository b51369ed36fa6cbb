"""What all of WeChat's ways to pay share: merchants, orders, payers. Each of them brings `routes(wechat)`."""

from dataclasses import dataclass, field
from typing import Self

from app.sandbox.wechat.accounts import Merchants
from app.sandbox.wechat.desk import Desk
from app.sandbox.wechat.open_platform import OpenPlatform
from app.sandbox.wechat.open_platform_users import DEFAULT_USER, openid_of
from app.sandbox.wechat.trades import Order, Payer, TradeBook
from app.sandbox.world import Callback, Ground


@dataclass(frozen=True, slots=True)
class WeChat:
    """`resets` are called when the sandbox forgets everything; whoever remembers something adds to them."""

    ground: Ground
    merchants: Merchants
    book: TradeBook
    desk: Desk
    open_platform: OpenPlatform
    resets: list[Callback] = field(default_factory=list)

    @classmethod
    def on(cls, ground: Ground) -> Self:
        book = TradeBook(ground.clock, payer_of)
        open_platform = OpenPlatform(ground)
        return cls(
            ground=ground,
            merchants=Merchants(ground.records),
            book=book,
            desk=Desk(book, ground.deliveries, ground.public_url),
            open_platform=open_platform,
            resets=[open_platform.reset],
        )


def payer_of(order: Order) -> Payer:
    """Whom the order was made for; whoever scans is the sandbox's first user."""
    return Payer(
        openid=order.openid or openid_of(DEFAULT_USER, order.appid),
        sub_openid=order.sub_openid or (openid_of(DEFAULT_USER, order.sub_appid) if order.sub_appid else ""),
    )

"""Refunds through the market: a paid payment, and a caller who may give money back."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.activation.permissions import Reach
from app.auth import Principal
from app.payments.model import Payment
from app.refunds.actions import RefundPayment
from app.refunds.model import Refund
from app.runtime import Runtime
from tests.fixtures.market import Market
from tests.fixtures.shop import ADMIN
from tests.payments.ways import Way, way_of

CLERK = Principal(sub="c-1", roles=frozenset({"clerk"}))

# (asking for a refund, asking about it), as the sandbox's faults and counters call them.
CALLS = {
    "alipay": ("alipay.trade.refund", "alipay.trade.fastpay.refund.query"),
    "v3": ("wechat.v3.refund", "wechat.v3.refund_query"),
    "v2": ("wechat.v2.refund", "wechat.v2.refundquery"),
    "cloud": ("wechat.cloud.refund", "wechat.cloud.queryrefund"),
}


# For what is heavy: each method once, and each mode.
SOME = [
    way_of(*names)
    for names in (
        ("ALIPAY_PAGE", "public_key"),
        ("ALIPAY_WAP", "certificate"),
        ("ALIPAY_QR", "isv"),
        ("WECHAT_NATIVE", "v3"),
        ("WECHAT_MINI_PROGRAM", "v3_certificate"),
        ("WECHAT_JSAPI", "v3_partner"),
        ("WECHAT_H5", "v2"),
        ("WECHAT_JSAPI", "v2_partner"),
        ("WECHAT_CLOUD", "cloud"),
    )
]


def interface(way: Way) -> str:
    """Which of the providers' interfaces a way goes through."""
    return "alipay" if way.method.startswith("ALIPAY") else way.mode.partition("_")[0]


@dataclass
class Till:
    """A market whose clerks may refund, and one way of paying."""

    market: Market
    way: Way
    payments: list[Payment] = field(default_factory=list)

    @property
    def calls(self) -> tuple[str, str]:
        return CALLS[interface(self.way)]

    async def paid(self, **fields: Any) -> Payment:
        """A paid payment."""
        payment = await self.market.create(self.way.method, mode=self.way.mode, **fields)
        await self.market.pay(payment)
        await self.market.shop.settle()
        found = await self.market.find(payment)
        assert found.api_status == "SUCCESSFUL"
        return found

    async def give_back(
        self, payment: Payment, fen: int, runtime: Runtime | None = None, *, key: str | None = None
    ) -> Refund:
        """Asks for a refund, as the clerk."""
        return await (runtime or self.market.shop.runtime).refunds.create(
            CLERK, RefundPayment(payment.id, fen, "cold tea", key), correlation_id="c-r"
        )

    async def find(self, refund: Refund) -> Refund:
        """The refund as it is now."""
        return await self.market.shop.runtime.refunds.reload(refund.id)

    async def money(self, payment: Payment) -> tuple[int, int]:
        """(given back, on its way back) in fen, as our row says."""
        now = await self.market.find(payment)
        return now.refunded_amount_fen, now.reserved_refund_fen

    async def truth(self, payment: Payment) -> list[tuple[str, int, str]]:
        """The provider's refunds of a payment: number, fen, state."""
        trade = await self.market.trade(payment)
        assert trade is not None
        return [(each["out_refund_no"], each["amount_fen"], each["status"]) for each in trade["refunds"]]

    async def policy(self, **said: Any) -> None:
        """How the provider settles refunds from now on."""
        await self.market.control("POST", "/refunds/policy", **said)

    async def settle(self, refund: Refund, outcome: str) -> None:
        """The provider settles a held refund."""
        await self.market.control("POST", f"/refunds/{refund.out_refund_no}/settle", **{"as": outcome})

    async def fault(self, call: str, kind: str, **more: Any) -> None:
        """The next call of this name goes wrong."""
        await self.market.control("POST", "/faults", method=call, kind=kind, **more)


@pytest.fixture
async def till(standing_market: Market) -> Callable[[Way], Awaitable[Till]]:
    """`await till(way)`: the module's market, cleared, with a grant of refunds to clerks."""

    async def open_till(way: Way) -> Till:
        await standing_market.clear()
        await standing_market.shop.runtime.permissions.grant(ADMIN, "clerk", "payment.refund", Reach("ALL"))
        return Till(standing_market, way)

    return open_till

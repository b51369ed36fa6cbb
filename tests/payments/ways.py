"""Every way to be paid: each method over each mode of merchant account that offers it, and the words its calls go by.

The suite of flows (test_every_way.py) runs over all of them unchanged; what stands here is all it knows of a provider.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from app.payments.model import Payment
from tests.fixtures.market import Market


@dataclass(frozen=True, slots=True)
class Words:
    """One interface of a provider as the sandbox's faults, counters and notices name its parts.

    `create` is None where the browser opens the payment itself, with a link we sign. `refused` and `turned_away` turn a
    fault of a call into the provider's no, and into its rate limit. `application` and `seller` are the identifiers by
    which a notice names its receiver; `ours` the merchant's payment number in the provider's own truth.
    """

    create: str | None
    query: str
    close: str
    refused: Mapping[str, str]
    refusal: str
    turned_away: Mapping[str, str]
    application: str
    seller: str
    unproven: str = "signature"


@dataclass(frozen=True, slots=True)
class Way:
    """One method over one mode of account."""

    method: str
    mode: str
    words: Words = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method}-{self.mode}"

    @property
    def names_payer(self) -> bool:
        """Whether the payment is made for one payer."""
        return self.method in ("WECHAT_MINI_PROGRAM", "WECHAT_JSAPI", "WECHAT_CLOUD")

    @property
    def signs(self) -> bool:
        """Whether answers and notices prove themselves; those of WeChat's cloud do not."""
        return self.mode != "cloud"


def _alipay(create: str | None) -> Words:
    return Words(
        create=create,
        query="alipay.trade.query",
        close="alipay.trade.close",
        refused={"kind": "business_error", "sub_code": "ACQ.ACCESS_FORBIDDEN"},
        refusal="ACQ.ACCESS_FORBIDDEN",
        turned_away={"kind": "error_response", "code": "40005", "sub_code": "isv.app-call-limited"},
        application="app_id",
        seller="seller_id",
    )


def _wechat(
    interface: str,
    calls: tuple[str, str, str],
    *,
    refusal: str,
    application: str,
    seller: str,
    unproven: str = "signature",
) -> Words:
    create, query, close = (f"wechat.{interface}.{call}" for call in calls)
    return Words(
        create=create,
        query=query,
        close=close,
        refused={"kind": "business_error", "code": refusal},
        refusal=refusal,
        turned_away={"kind": "business_error", "code": "FREQUENCY_LIMITED"},
        application=application,
        seller=seller,
        unproven=unproven,
    )


_V3, _V2 = ("prepay", "query", "close"), ("unifiedorder", "orderquery", "closeorder")
_ALIPAY = {"ALIPAY_PAGE": _alipay(None), "ALIPAY_WAP": _alipay(None), "ALIPAY_QR": _alipay("alipay.trade.precreate")}
_ALIPAY_MODES = ("public_key", "certificate", "isv")
_WECHAT_METHODS = ("WECHAT_MINI_PROGRAM", "WECHAT_JSAPI", "WECHAT_H5", "WECHAT_NATIVE")
_WECHAT_MODES = {
    "v3": _wechat("v3", _V3, refusal="NO_AUTH", application="appid", seller="mchid"),
    "v3_certificate": _wechat("v3", _V3, refusal="NO_AUTH", application="appid", seller="mchid"),
    "v3_partner": _wechat("v3", _V3, refusal="NO_AUTH", application="sp_appid", seller="sub_mchid"),
    "v2": _wechat("v2", _V2, refusal="NOAUTH", application="appid", seller="mch_id"),
    "v2_partner": _wechat("v2", _V2, refusal="NOAUTH", application="appid", seller="sub_mch_id"),
}
_CLOUD = _wechat(
    "cloud",
    ("unifiedorder", "queryorder", "closeorder"),
    refusal="NOAUTH",
    application="sub_appid",
    seller="sub_mch_id",
    unproven="source",
)

WAYS = [
    *(Way(method, mode, words) for method, words in _ALIPAY.items() for mode in _ALIPAY_MODES),
    *(Way(method, mode, words) for mode, words in _WECHAT_MODES.items() for method in _WECHAT_METHODS),
    Way("WECHAT_CLOUD", "cloud", _CLOUD),
]


def way_of(method: str, mode: str) -> Way:
    """One of the ways, by its names."""
    [found] = [way for way in WAYS if (way.method, way.mode) == (method, mode)]
    return found


def over(ways: Sequence[Way]) -> pytest.MarkDecorator:
    """Runs a test once for each of the ways."""
    return pytest.mark.parametrize("way", ways, ids=str)


every_way = over(WAYS)
every_way_that_signs = over([way for way in WAYS if way.signs])
every_way_with_a_call = over([way for way in WAYS if way.words.create is not None])


async def begin(market: Market, way: Way, **fields: Any) -> Payment:
    """A payment whose page was just given its next step."""
    payment = await market.create(way.method, mode=way.mode, **fields)
    assert (payment.api_status, payment.checking, payment.version) == ("PENDING", False, 2)
    return payment


async def assert_paid(market: Market, payment: Payment, *, late: bool = False) -> Payment:
    """Paid once, exactly, and everything says so."""
    paid = await market.find(payment)
    assert (paid.api_status, paid.paid_amount_fen, paid.final, paid.late) == ("SUCCESSFUL", 1230, True, late)
    assert await market.shop.status_of(payment.order_id) == "paid"
    trade = await market.trade(payment)
    assert trade is not None
    assert (trade["status"], trade["paid"], trade["amount_fen"]) == ("PAID", True, 1230)
    assert trade["transaction_id"] == paid.transaction_id
    assert (await market.shop.events(payment.id)).count("payment.successful") == 1
    assert await market.shop.count("difference") == 0
    return paid


class Meanwhile(httpx.AsyncHTTPTransport):
    """A network on which, once it is armed, something happens just before our `number`th call arrives."""

    def __init__(self, number: int, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(verify=False)
        self._number = number
        self._happens = happens
        self._calls: int | None = None

    def arm(self) -> None:
        """Counts from here."""
        self._calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._calls is not None:
            self._calls += 1
            if self._calls == self._number:
                await self._happens()
        return await super().handle_async_request(request)

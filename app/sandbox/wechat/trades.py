"""The orders WeChat knows, whichever way they were made, and the only ways their state changes.

    NOTPAY ── pays ──► SUCCESS ── a refund begins ──► REFUND
       └── closed or expired ──► CLOSED

A failed attempt stays NOTPAY. A late payment, asked for by name, also leads from CLOSED to SUCCESS. Expiry is applied
whenever an order is looked at. An order is payable through the credentials it was given: a `prepay_id` and a `code_url`
for two hours, an `h5_url` for five minutes; ordering again with the same parameters gives a new one. An order in REFUND
stays paid and stays in REFUND, whatever becomes of its refunds: those stand in refunds.py.
"""

import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.sandbox.clock import SandboxClock, format_beijing
from app.sandbox.deliveries import Message
from app.sandbox.desks import Payment, RefundState
from app.sandbox.wechat.accounts import Merchant

CREDENTIAL_LIFE = timedelta(hours=2)
H5_URL_LIFE = timedelta(minutes=5)
DEFAULT_EXPIRY = timedelta(days=7)
MIN_EXPIRY, MAX_EXPIRY = timedelta(minutes=1), timedelta(days=90)
AFTER_EXPIRY = timedelta(seconds=1)
URL_SAFE = string.ascii_letters + string.digits


class TradeState(StrEnum):
    NOTPAY = "NOTPAY"
    SUCCESS = "SUCCESS"
    REFUND = "REFUND"
    CLOSED = "CLOSED"


STATE_WORDS = {
    TradeState.NOTPAY: "订单未支付",
    TradeState.SUCCESS: "支付成功",
    TradeState.REFUND: "订单发生过退款，退款详情请查询退款单",
    TradeState.CLOSED: "订单已关闭",
}


class Product(StrEnum):
    """`trade_type` of the answers."""

    JSAPI = "JSAPI"
    NATIVE = "NATIVE"
    H5 = "MWEB"


class Reason(StrEnum):
    """Why an order cannot be had, paid or closed; each channel has a code of its own for each."""

    PAID = "PAID"
    CLOSED = "CLOSED"
    OTHER_PARAMETERS = "OTHER_PARAMETERS"
    NUMBER_USED = "NUMBER_USED"


class TradeRefusal(Exception):
    """Nothing was changed."""

    def __init__(self, reason: Reason, trade: "Trade") -> None:
        super().__init__(f"{reason.value} {trade.out_trade_no}")
        self.reason = reason
        self.trade = trade


@dataclass(frozen=True, slots=True)
class ClientCall:
    """What a page hands to WeChat's client to pay an order. All texts, as they were given."""

    app_id: str
    time_stamp: str
    nonce_str: str
    package: str
    sign_type: str
    pay_sign: str


class Channel(Protocol):
    """How an order was made (v3, v2, cloud), and so how its notices are written and answered."""

    @property
    def name(self) -> str: ...

    @property
    def retry_gaps(self) -> tuple[timedelta, ...]: ...

    def notify_url(self, trade: "Trade") -> str:
        """Where the notice goes; an empty text when it has nowhere to go."""
        ...

    def check(self, payment: Payment) -> None:
        """Raises DeskRefusal when a notice cannot be written the way `payment` asks for."""
        ...

    def compose(self, trade: "Trade", payment: Payment, notify_id: str, sent_at: datetime) -> Message:
        """One send of the notice of a paid order. `payment` says what in it is not the truth."""
        ...

    def refund_notify_url(self, refund: "Refund") -> str:
        """Where the refund's notices go; an empty text when it has nowhere to go."""
        ...

    def check_refund(self, told: "Telling") -> None:
        """Raises DeskRefusal when a refund's notice cannot be written the way `told` asks for."""
        ...

    def compose_refund(self, refund: "Refund", told: "Telling", notify_id: str, sent_at: datetime) -> Message:
        """One send of the notice of a refund that was settled."""
        ...

    def is_acknowledged(self, status: int, body: bytes) -> bool: ...

    def is_signed(self, trade: "Trade", call: ClientCall) -> bool:
        """Whether `pay_sign` is the merchant's over the other parameters, by the `sign_type` this order wants."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What the merchant asked for. A second call for the same number must agree in all of it.

    `openid` is the payer under `appid`, `sub_openid` under `sub_appid`; both are empty when whoever scans may pay.
    `others` is everything else that was asked for, as one text that is the same for the same wishes.
    """

    channel: Channel
    product: Product
    appid: str
    sub_appid: str
    description: str
    total_fen: int
    openid: str
    sub_openid: str
    notify_url: str
    attach: str = ""
    time_expire: datetime | None = None
    others: str = ""


@dataclass(slots=True)
class Trade:
    """`token` is the unguessable part of the payer's link; `transaction_id` is WeChat's number, shown once paid."""

    merchant: Merchant
    out_trade_no: str
    order: Order
    created_at: datetime
    expires_at: datetime
    token: str
    transaction_id: str
    state: TradeState = TradeState.NOTPAY
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    last_failure: str = ""
    notify_ids: list[str] = field(default_factory=list)
    credentials: list["Credential"] = field(default_factory=list)
    payer: "Payer | None" = None
    refunds: list["Refund"] = field(default_factory=list)

    @property
    def is_paid(self) -> bool:
        return self.state in (TradeState.SUCCESS, TradeState.REFUND)

    @property
    def taken_back_fen(self) -> int:
        """What is refunded, in process or waits for the merchant: all that cannot be given back once more."""
        return sum(refund.wish.amount_fen for refund in self.refunds if refund.state is not RefundState.FAILED)

    @property
    def client_appid(self) -> str:
        """The app the payer is in."""
        return self.order.sub_appid or self.order.appid


@dataclass(frozen=True, slots=True)
class Payer:
    """Who paid: `openid` under the order's `appid`, `sub_openid` under its `sub_appid`, empty when it has none."""

    openid: str
    sub_openid: str


@dataclass(frozen=True, slots=True)
class Credential:
    """One way in for a payer. `code` is the `pr` of a code_url, `package` the one of an h5_url."""

    trade: Trade
    prepay_id: str
    code: str
    package: str
    issued_at: datetime

    @property
    def code_url(self) -> str:
        return f"weixin://wxpay/bizpayurl?pr={self.code}"

    def h5_url(self, public_url: str) -> str:
        """Where the payer's browser goes; `&redirect_url=` may be appended for the way back."""
        return f"{public_url}/wechat/h5/checkmweb?prepay_id={self.prepay_id}&package={self.package}"

    @property
    def expires_at(self) -> datetime:
        life = H5_URL_LIFE if self.trade.order.product is Product.H5 else CREDENTIAL_LIFE
        return self.issued_at + life


@dataclass(frozen=True, slots=True)
class RefundWish:
    """What the merchant asked for. `funds` is the account the money shall come from, in the channel's own words, and
    `sources` its shares by account; both are empty when the merchant leaves that to WeChat.
    """

    out_refund_no: str
    amount_fen: int
    total_fen: int
    reason: str = ""
    notify_url: str = ""
    funds: str = ""
    sources: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class Refund:
    """`refund_id` is WeChat's number. `settles_at` is None for one that is held until somebody settles it."""

    trade: Trade
    wish: RefundWish
    refund_id: str
    created_at: datetime
    settles_at: datetime | None
    settles_as: RefundState
    state: RefundState = RefundState.PROCESSING
    settled_at: datetime | None = None

    @property
    def refunded_at(self) -> datetime | None:
        """When the payer got the money; None while he has not."""
        return self.settled_at if self.state is RefundState.REFUNDED else None


@dataclass(frozen=True, slots=True)
class Telling:
    """What a refund's notice says instead of the truth: `overrides` by the channel's own names, `envelope.` before
    those of what surrounds the encrypted part. With `break_signature` nobody can take it for WeChat's.
    """

    overrides: Mapping[str, str] = field(default_factory=dict)
    break_signature: bool = False


THE_TRUTH = Telling()


class TradeBook:
    """All orders, by the merchant's number, by WeChat's, by the payer's link and by their credentials."""

    def __init__(self, clock: SandboxClock, payer_of: Callable[[Order], Payer]) -> None:
        """`payer_of` names who pays an order: whom it was made for, or whoever scans."""
        self._clock = clock
        self._payer_of = payer_of
        self._by_number: dict[tuple[str, str], Trade] = {}
        self._by_transaction_id: dict[tuple[str, str], Trade] = {}
        self._by_token: dict[str, Trade] = {}
        self._by_prepay_id: dict[str, Credential] = {}
        self._by_code: dict[str, Credential] = {}

    def place(self, merchant: Merchant, out_trade_no: str, order: Order) -> Credential:
        """A new order, or a new credential for the unpaid one there is with the same parameters.

        Raises TradeRefusal: PAID, CLOSED, NUMBER_USED when it belongs to another app, channel or product,
        OTHER_PARAMETERS.
        """
        known = self._by_number.get((merchant.seller_id, out_trade_no))
        if known is not None:
            self._check_same(known, order)
            return self._issue(known)
        now = self._clock.now()
        trade = Trade(
            merchant=merchant,
            out_trade_no=out_trade_no,
            order=order,
            created_at=now,
            expires_at=_expiry(order.time_expire, now),
            token=secrets.token_urlsafe(18),
            transaction_id=new_transaction_id(now),
        )
        self._by_number[merchant.seller_id, out_trade_no] = trade
        self._by_token[trade.token] = trade
        return self._issue(trade)

    def pay(self, trade: Trade, *, late: bool = False) -> None:
        """The money moves. With `late`, also for an order that is closed or expired, dated after its expiry.

        Raises TradeRefusal: PAID, CLOSED.
        """
        self.expire(trade)
        if trade.is_paid:
            raise TradeRefusal(Reason.PAID, trade)
        if trade.state is TradeState.CLOSED and not late:
            raise TradeRefusal(Reason.CLOSED, trade)
        now = self._clock.now()
        trade.paid_at = max(now, trade.expires_at + AFTER_EXPIRY) if late else now
        trade.state = TradeState.SUCCESS
        trade.payer = self._payer_of(trade.order)
        trade.closed_at = None
        trade.last_failure = ""
        self._by_transaction_id[trade.merchant.seller_id, trade.transaction_id] = trade

    def fail(self, trade: Trade, reason: str) -> None:
        """An attempt to pay that was turned down or given up. Raises TradeRefusal: PAID, CLOSED."""
        self._check_waiting(trade)
        trade.last_failure = reason

    def close(self, trade: Trade) -> None:
        """Raises TradeRefusal: PAID, CLOSED; a channel whose close may be repeated lets the latter pass."""
        self._check_waiting(trade)
        trade.state = TradeState.CLOSED
        trade.closed_at = self._clock.now()

    def expire(self, trade: Trade) -> None:
        if trade.state is TradeState.NOTPAY and trade.expires_at <= self._clock.now():
            trade.state = TradeState.CLOSED
            trade.closed_at = trade.expires_at

    def find(self, seller_id: str, *, out_trade_no: str = "", transaction_id: str = "") -> Trade | None:
        """The order of one merchant; WeChat's number, which exists once it is paid, wins when both are given."""
        if transaction_id:
            trade = self._by_transaction_id.get((seller_id, transaction_id))
        else:
            trade = self._by_number.get((seller_id, out_trade_no))
        return self._seen(trade)

    def number_of(self, transaction_id: str) -> str:
        """The merchant's number of the order with this number of WeChat's; an empty text when there is none."""
        trades = (trade for (_, known), trade in self._by_transaction_id.items() if known == transaction_id)
        return next((trade.out_trade_no for trade in trades), "")

    def find_by_token(self, token: str) -> Trade | None:
        return self._seen(self._by_token.get(token))

    def find_credential(self, *, prepay_id: str = "", code: str = "") -> Credential | None:
        """Also one that ran out; see `is_alive`."""
        return self._by_prepay_id.get(prepay_id) if prepay_id else self._by_code.get(code)

    def is_alive(self, credential: Credential) -> bool:
        return self._clock.now() < credential.expires_at

    def listed(self, *, out_trade_no: str | None = None) -> list[Trade]:
        """Oldest first."""
        trades = [trade for trade in self._by_number.values() if out_trade_no in (None, trade.out_trade_no)]
        for trade in trades:
            self.expire(trade)
        return trades

    def reset(self) -> None:
        for index in (self._by_number, self._by_transaction_id, self._by_token, self._by_prepay_id, self._by_code):
            index.clear()

    def _seen(self, trade: Trade | None) -> Trade | None:
        if trade is not None:
            self.expire(trade)
        return trade

    def _check_same(self, known: Trade, order: Order) -> None:
        self.expire(known)
        if known.is_paid:
            raise TradeRefusal(Reason.PAID, known)
        if known.state is TradeState.CLOSED:
            raise TradeRefusal(Reason.CLOSED, known)
        if _identity(known.order) != _identity(order):
            raise TradeRefusal(Reason.NUMBER_USED, known)
        if known.order != order:
            raise TradeRefusal(Reason.OTHER_PARAMETERS, known)

    def _check_waiting(self, trade: Trade) -> None:
        self.expire(trade)
        if trade.state is not TradeState.NOTPAY:
            raise TradeRefusal(Reason.PAID if trade.is_paid else Reason.CLOSED, trade)

    def _issue(self, trade: Trade) -> Credential:
        now = self._clock.now()
        credential = Credential(
            trade=trade,
            prepay_id=f"wx{_digits(format_beijing(now))}{secrets.token_hex(9)}0000",
            code="".join(secrets.choice(URL_SAFE) for _ in range(9)),
            package=str(10**9 + secrets.randbelow(9 * 10**9)),
            issued_at=now,
        )
        trade.credentials.append(credential)
        self._by_prepay_id[credential.prepay_id] = credential
        self._by_code[credential.code] = credential
        return credential


def new_transaction_id(now: datetime) -> str:
    """28 digits with the Beijing date inside, as WeChat's; random, for restarts must not repeat numbers."""
    return f"4200{secrets.randbelow(10**6):06d}{_digits(format_beijing(now))[:8]}{secrets.randbelow(10**10):010d}"


def _expiry(wanted: datetime | None, now: datetime) -> datetime:
    """A last moment to pay outside the bounds is moved to the nearer bound, as WeChat does."""
    if wanted is None:
        return now + DEFAULT_EXPIRY
    return min(max(wanted, now + MIN_EXPIRY), now + MAX_EXPIRY)


def _identity(order: Order) -> tuple[str, str, str, str]:
    return order.channel.name, order.product.value, order.appid, order.sub_appid


def _digits(text: str) -> str:
    return "".join(char for char in text if char.isdigit())

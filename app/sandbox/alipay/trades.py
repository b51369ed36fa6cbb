"""The trades Alipay knows, and the only ways their state changes.

    NOT_OPENED ── payer opens ──► WAIT_BUYER_PAY ── pays ──► TRADE_SUCCESS
         (query: TRADE_NOT_EXIST)        │                             ├── refunded in full ──► TRADE_CLOSED
                                         │                             └── a year later ──► TRADE_FINISHED
                                         └── closed or expired ──► TRADE_CLOSED

NOT_OPENED is the sandbox's own word: a payment page or QR code was issued, but until the payer arrives there is no
trade, so query and close do not find one. A late payment, asked for by name, also leads from TRADE_CLOSED to
TRADE_SUCCESS. Expiry and the end of the refund window are applied whenever a trade is looked at. What happens to
refunds stands in refunds.py.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from app.sandbox.alipay.accounts import Account
from app.sandbox.alipay.agreements import Agreement, SignTerms
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.payers import BUYER_ID
from app.sandbox.clock import SandboxClock, format_beijing
from app.sandbox.desks import RefundState

QR_CODE_LIFE = timedelta(hours=2)
AFTER_EXPIRY = timedelta(seconds=1)
REFUND_WINDOW = timedelta(days=365)


class TradeStatus(StrEnum):
    NOT_OPENED = "NOT_OPENED"
    WAIT_BUYER_PAY = "WAIT_BUYER_PAY"
    TRADE_SUCCESS = "TRADE_SUCCESS"
    TRADE_CLOSED = "TRADE_CLOSED"
    TRADE_FINISHED = "TRADE_FINISHED"


class Product(StrEnum):
    PAGE = "page"
    WAP = "wap"
    QR = "qr"
    APP = "app"
    DEDUCTION = "deduction"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the merchant asked for. A second request for the same number must agree in all of it.

    `agreement_no` is of a deduction, `signing` of a payment with which the payer may sign an agreement.
    """

    product: Product
    app_id: str
    product_code: str
    total_amount_fen: int
    subject: str
    body: str
    passback_params: str
    agreement_no: str = ""
    signing: SignTerms | None = None


@dataclass(slots=True)
class Refund:
    """`settles_at` is when it settles by itself, as `settles_as`; None while it is held until somebody says so."""

    out_request_no: str
    amount_fen: int
    reason: str
    created_at: datetime
    settles_at: datetime | None
    settles_as: RefundState
    state: RefundState = RefundState.PROCESSING
    refunded_at: datetime | None = None


@dataclass(slots=True)
class Trade:
    """`token` is the unguessable part of the payer's link; `trade_no` is Alipay's number, shown once opened.

    `agreement` is the one a deduction is made under, or the one that is offered with a payment.
    """

    account: Account
    out_trade_no: str
    terms: Terms
    charset: str
    codec: str
    notify_url: str
    return_url: str
    quit_url: str
    created_at: datetime
    expires_at: datetime
    qr_code_expires_at: datetime | None
    token: str
    trade_no: str
    buyer_id: str = BUYER_ID
    agreement: Agreement | None = None
    status: TradeStatus = TradeStatus.NOT_OPENED
    opened_at: datetime | None = None
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    last_failure: str = ""
    notify_ids: list[str] = field(default_factory=list)
    refunds: dict[str, Refund] = field(default_factory=dict)

    @property
    def is_paid(self) -> bool:
        """Also once all of it was given back."""
        return self.paid_at is not None

    @property
    def refunded_fen(self) -> int:
        return sum(refund.amount_fen for refund in self.refunds.values() if refund.state is RefundState.REFUNDED)

    @property
    def taken_back_fen(self) -> int:
        """What is refunded or in process."""
        return sum(refund.amount_fen for refund in self.refunds.values() if refund.state is not RefundState.FAILED)

    @property
    def is_refunded_in_full(self) -> bool:
        return self.refunded_fen == self.terms.total_amount_fen


class TradeBook:
    """All trades, by the seller's number and by the payer's link."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._by_number: dict[tuple[str, str], Trade] = {}
        self._sellers: dict[str, list[str]] = {}  # of each number
        self._by_trade_no: dict[tuple[str, str], Trade] = {}
        self._by_token: dict[str, Trade] = {}

    def offer(self, trade: Trade) -> Trade:
        """Issue a payment page or QR code; the same number with the same terms gives the trade there is already.

        Raises BusinessRefusal: TRADE_HAS_SUCCESS, TRADE_HAS_CLOSE, CONTEXT_INCONSISTENT, for a QR code that ran out
        APPLY_PC_MERCHANT_CODE_ERROR, and NOW_TIME_AFTER_EXPIRE_TIME_ERROR when the new one would be over already.
        """
        known = self._by_number.get((trade.account.seller_id, trade.out_trade_no))
        if known is not None and not self._never_was(known):
            return self._resumed(known, trade)
        if trade.expires_at <= self._clock.now():
            raise BusinessRefusal("ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "当前时间已超过该笔交易的超时时间")
        seller_id, number = trade.account.seller_id, trade.out_trade_no
        if (seller_id, number) not in self._by_number:
            self._sellers.setdefault(number, []).append(seller_id)
        self._by_number[seller_id, number] = trade
        self._by_token[trade.token] = trade
        return trade

    def open(self, trade: Trade) -> None:
        """The payer arrives: from here on the trade exists. Repeats change nothing.

        Raises BusinessRefusal NOW_TIME_AFTER_EXPIRE_TIME_ERROR when the link or code ran out before anybody came.
        """
        if trade.status is TradeStatus.NOT_OPENED:
            if self._link_is_over(trade):
                raise BusinessRefusal("ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR", "付款链接已过期，请返回商户重新下单")
            self._bring_into_being(trade)
        self.expire(trade)

    def pay(self, trade: Trade, *, late: bool = False) -> None:
        """The money moves. With `late`, also for a trade that is closed or expired, dated after its expiry."""
        self.expire(trade)
        if trade.is_paid:
            raise BusinessRefusal("ACQ.TRADE_HAS_SUCCESS", "交易已经支付")
        if late:
            if trade.status is TradeStatus.NOT_OPENED:
                self._bring_into_being(trade)
            trade.paid_at = max(self._clock.now(), trade.expires_at + AFTER_EXPIRY)
        else:
            self.open(trade)
            if trade.status is TradeStatus.TRADE_CLOSED:
                raise BusinessRefusal("ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
            trade.paid_at = self._clock.now()
        trade.status = TradeStatus.TRADE_SUCCESS
        trade.closed_at = None
        trade.last_failure = ""

    def fail(self, trade: Trade, reason: str) -> None:
        """An attempt to pay that was turned down or given up; the trade goes on waiting, as Alipay's does."""
        self.open(trade)
        if trade.status is not TradeStatus.WAIT_BUYER_PAY:
            raise _not_waiting()
        trade.last_failure = reason

    def close(self, trade: Trade) -> None:
        """Raises BusinessRefusal TRADE_STATUS_ERROR unless the trade waits for its payer."""
        self.expire(trade)
        if trade.status is not TradeStatus.WAIT_BUYER_PAY:
            raise _not_waiting()
        trade.status = TradeStatus.TRADE_CLOSED
        trade.closed_at = self._clock.now()

    def expire(self, trade: Trade) -> None:
        if trade.status is TradeStatus.WAIT_BUYER_PAY and trade.expires_at <= self._clock.now():
            trade.status = TradeStatus.TRADE_CLOSED
            trade.closed_at = trade.expires_at
        if trade.status is TradeStatus.TRADE_SUCCESS and self._is_too_old_to_refund(trade):
            trade.status = TradeStatus.TRADE_FINISHED

    def find_existing(self, seller_id: str, *, trade_no: str, out_trade_no: str) -> Trade | None:
        """The trade as Alipay sees it: not before it was opened. `trade_no` wins when both are given."""
        if trade_no:
            trade = self._by_trade_no.get((seller_id, trade_no))
        else:
            trade = self._by_number.get((seller_id, out_trade_no))
        if trade is None or trade.status is TradeStatus.NOT_OPENED:
            return None
        self.expire(trade)
        return trade

    def find_issued(self, seller_id: str, out_trade_no: str) -> Trade | None:
        """Also one that was not opened yet."""
        return self._by_number.get((seller_id, out_trade_no))

    def find_by_token(self, token: str) -> Trade | None:
        trade = self._by_token.get(token)
        if trade is not None:
            self.expire(trade)
        return trade

    def listed(self, *, out_trade_no: str | None = None) -> list[Trade]:
        """Issued and existing trades, oldest first."""
        if out_trade_no is None:
            trades = list(self._by_number.values())
        else:
            trades = [self._by_number[seller_id, out_trade_no] for seller_id in self._sellers.get(out_trade_no, ())]
        for trade in trades:
            self.expire(trade)
        return trades

    def reset(self) -> None:
        self._by_number.clear()
        self._sellers.clear()
        self._by_trade_no.clear()
        self._by_token.clear()

    def _resumed(self, known: Trade, wanted: Trade) -> Trade:
        self.expire(known)
        if known.status is TradeStatus.TRADE_CLOSED:
            raise BusinessRefusal("ACQ.TRADE_HAS_CLOSE", "交易已经关闭")
        if known.is_paid:
            raise BusinessRefusal("ACQ.TRADE_HAS_SUCCESS", "交易已被支付")
        if known.terms != wanted.terms:
            raise BusinessRefusal("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改：同一商户订单号的参数与上次不一致")
        if known.status is TradeStatus.NOT_OPENED and self._link_is_over(known):
            raise BusinessRefusal("ACQ.APPLY_PC_MERCHANT_CODE_ERROR", "同一商户订单号不能重复申请二维码")
        return known

    def _never_was(self, trade: Trade) -> bool:
        """A payment page nobody opened in time leaves its number free; a QR code does not."""
        is_page = trade.terms.product is not Product.QR
        return trade.status is TradeStatus.NOT_OPENED and is_page and self._link_is_over(trade)

    def _link_is_over(self, trade: Trade) -> bool:
        over_at = min(trade.expires_at, trade.qr_code_expires_at or trade.expires_at)
        return over_at <= self._clock.now()

    def _is_too_old_to_refund(self, trade: Trade) -> bool:
        return trade.paid_at is not None and trade.paid_at + REFUND_WINDOW <= self._clock.now()

    def _bring_into_being(self, trade: Trade) -> None:
        trade.status = TradeStatus.WAIT_BUYER_PAY
        trade.opened_at = self._clock.now()
        self._by_trade_no[trade.account.seller_id, trade.trade_no] = trade


def new_trade_no(now: datetime) -> str:
    """28 digits that begin with the Beijing date, as Alipay's do; random, for restarts must not repeat numbers."""
    return f"{_date_of(now)}22001{secrets.randbelow(10**15):015d}"


def new_notify_id(now: datetime) -> str:
    return f"{_date_of(now)}00222{secrets.randbelow(10**21):021d}"


def _date_of(now: datetime) -> str:
    return format_beijing(now)[:10].replace("-", "")


def _not_waiting() -> BusinessRefusal:
    return BusinessRefusal("ACQ.TRADE_STATUS_ERROR", "交易状态不合法：只有等待买家付款的交易可以关闭")

"""Alipay (支付宝): desktop page, phone page and QR code payments, and their refunds; agreements are beside it.

A page payment is only a signed URL: nothing is sent, and Alipay knows of no trade until the payer has opened it. A QR
payment is asked for (precreate), yet its trade too begins with the scan. Hence "no such trade" is never a failure here,
and closing one is NeverOpened: the link can be paid until its own `time_expire`.

Source: https://opendocs.alipay.com/open/00f7nu and /open/02ekfs, read 2026-09-11; the models AlipayTrade*Model of
alipay-sdk-python 3.7.1411 and the error enums of alipay-sdk-php-all v3.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from app.clock import Clock
from app.errors import InvalidAmount, InvalidInput
from app.providers.alipay import account as accounts
from app.providers.alipay.account import AlipayAccount, opened
from app.providers.alipay.agreements import AlipayAgreements
from app.providers.alipay.answers import Answered, text_field
from app.providers.alipay.gateway import Gateway
from app.providers.alipay.notifications import read_notification
from app.providers.alipay.orders import (
    KNOWN_ALREADY,
    MAXIMUM_AMOUNT_FEN,
    check_number,
    check_return_url,
    check_subject,
    order_content,
)
from app.providers.alipay.refunds import (
    REFUND,
    REFUND_QUERY,
    read_refund_answer,
    read_refund_query,
    refund_content,
    refund_not_found,
    refund_query_content,
)
from app.providers.alipay.trade_calls import NO_SUCH_TRADE, close_trade, query_trade
from app.providers.contract import (
    Accepted,
    Account,
    Acknowledgement,
    Agreements,
    CloseOutcome,
    CreateOutcome,
    Notification,
    NotificationRefused,
    NotReached,
    PaymentMethod,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    ReportedRefund,
    Unknown,
)
from app.providers.gateways import GatewayRule

# A code shown as a QR image works for two hours, whatever the trade behind it allows.
QR_LIFE = timedelta(hours=2)

_PAGE_METHODS = {
    PaymentMethod.ALIPAY_PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    PaymentMethod.ALIPAY_WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
}
_PRECREATE = "alipay.trade.precreate"
_CODE_URL_LIMIT = 1024
_NUMBER_USED_ALREADY = "DISCORDANT_REPEAT_REQUEST"


class AlipayProvider:
    """The Alipay adapter; stateless but for its tools. Every method may be called again with the same input."""

    name = "ALIPAY"
    methods = frozenset(accounts.METHODS)
    methods_with_payer: frozenset[PaymentMethod] = frozenset()
    modes: Sequence[str] = accounts.MODES
    # Close together while a person is paying, then every six hours; fifteen days come to seventy questions.
    query_schedule: Sequence[timedelta] = (
        timedelta(seconds=15),
        timedelta(seconds=30),
        timedelta(minutes=1),
        timedelta(minutes=2),
        timedelta(minutes=5),
        timedelta(minutes=10),
        timedelta(minutes=15),
        timedelta(minutes=30),
        timedelta(hours=1),
        timedelta(hours=2),
        timedelta(hours=6),
        timedelta(hours=12),
    )
    # Alipay asks for ten seconds between a refund and the question about it. Most are known then; those that go back
    # to a bank take days.
    refund_schedule: Sequence[timedelta] = (
        timedelta(seconds=12),
        timedelta(seconds=30),
        timedelta(minutes=1),
        timedelta(minutes=3),
        timedelta(minutes=10),
        timedelta(minutes=30),
        timedelta(hours=1),
        timedelta(hours=3),
        timedelta(hours=9),
        timedelta(hours=15),
    )
    # By today's contracts. Older ones end after three months, which Alipay says itself: TRADE_HAS_FINISHED.
    refund_window = timedelta(days=365)
    minimum_expiry = timedelta(minutes=1)
    maximum_expiry = timedelta(days=15)

    def __init__(
        self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float, gateways: GatewayRule | None = None
    ) -> None:
        self._clock = clock
        self._gateway = Gateway(client, clock, timeout_s=timeout_s)
        self._gateways = gateways or GatewayRule()
        self.agreements: Agreements | None = AlipayAgreements(self._gateway)

    def seal_input(self, *, mode: str, fields: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Settings: app_id, seller_id, gateway, auth_app_id, qr_product_code, and cycle_… as cycle_terms says.

        Credentials: the keys and the token."""
        return accounts.seal_account(mode=mode, fields=fields, gateways=self._gateways, now=self._clock.now())

    def open_account(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> AlipayAccount:
        """Parses keys and certificates once; some ten microseconds per payment are saved by it."""
        return accounts.open_stored_account(
            mode=mode, settings=settings, credentials=credentials, gateways=self._gateways
        )

    def check_request(self, request: PaymentRequest) -> None:
        """What Alipay would refuse in any case, said before a row exists. Raises InvalidInput or InvalidAmount."""
        check_number(request.out_trade_no)
        check_subject(request.subject)
        _check_expiry(request, maximum=_maximum_expiry(request.method))
        if request.openid is not None:
            # It would be kept and later compared with whoever pays: nobody could ever pay it.
            raise InvalidInput(
                f"openid: {request.method} may be paid by anybody who opens it; leave openid out",
                message_zh="该支付方式无需指定付款人，请勿填写 openid",
                field="openid",
            )
        if request.return_url is not None and request.method in _PAGE_METHODS:
            check_return_url(request.return_url)
        if not 1 <= request.amount_fen <= MAXIMUM_AMOUNT_FEN:
            raise InvalidAmount(
                "Alipay takes amounts from 0.01 to 99999999.99 yuan",
                message_zh="支付宝的金额范围为 0.01 至 99999999.99 元",
                field="amount",
            )

    async def create_payment(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """A signed link for the page methods, made without any call; a QR code by precreate."""
        alipay = opened(account)
        if request.method is PaymentMethod.ALIPAY_QR:
            return await self._precreate(alipay, request)
        return Accepted(action={"kind": "Redirect", "url": self._page_url(alipay, request)})

    async def query_payment(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """alipay.trade.query: the report of what Alipay knows, paid and then refunded in full included."""
        return await query_trade(self._gateway, opened(account), out_trade_no)

    async def close_payment(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """alipay.trade.close: only an unpaid trade that exists can be closed."""
        return await close_trade(self._gateway, opened(account), out_trade_no)

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """alipay.trade.refund under our own number. REFUNDED is believed only of a call that moved the money itself.

        In doubt Alipay is asked at once: a repeat of a refund that succeeded is taken too and changes nothing, and a
        product that refuses may do so because this very refund was made before."""
        judged = await self._gateway.execute(opened(account), REFUND, refund_content(request))
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            taken = read_refund_answer(judged.fields, request)
            if isinstance(taken, Unknown) or taken.status is ReportedRefund.REFUNDED:
                return taken
            made = await self.query_refund(account, request)
            return made if _is_refunded(made) else taken
        if not judged.by_product:
            return judged.words
        made = await self.query_refund(account, request)
        if not isinstance(made, RefundReport):
            return Unknown(f"refused with {judged.words.code}, and Alipay did not say whether it was made before")
        if made.status is not ReportedRefund.NOT_FOUND:
            return made
        if judged.reason == _NUMBER_USED_ALREADY:
            return Unknown("Alipay knows this refund number with another amount, and no refund of it")
        return judged.words

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """alipay.trade.fastpay.refund.query: it only knows refunds that succeeded; any other is NOT_FOUND."""
        judged = await self._gateway.execute(opened(account), REFUND_QUERY, refund_query_content(request))
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return read_refund_query(judged.fields, request)
        return refund_not_found(request) if judged.reason == NO_SUCH_TRADE else judged.words

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, *, tail: str = ""
    ) -> Notification:
        """Verified on the received bytes, by rule V1 and then V2. Raises NotificationRefused for anything else."""
        if tail:
            raise NotificationRefused("malformed", "Alipay's notifications come on the account's own path")
        return read_notification(opened(account), headers, body)

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """Exactly the seven bytes of "success" end the repeats; everything else asks for another."""
        if accepted:
            return Acknowledgement(200, b"success", "text/plain; charset=utf-8")
        return Acknowledgement(400, b"fail", "text/plain; charset=utf-8")

    def _page_url(self, account: AlipayAccount, request: PaymentRequest) -> str:
        method, product_code = _PAGE_METHODS[request.method]
        content = _content(request, product_code)
        if request.return_url is not None and request.method is PaymentMethod.ALIPAY_WAP:
            content["quit_url"] = request.return_url
        query = self._gateway.signed_query(
            account, method, content, notify_url=request.notify_url, return_url=request.return_url
        )
        return f"{account.gateway}?{query}"

    async def _precreate(self, account: AlipayAccount, request: PaymentRequest) -> CreateOutcome:
        content = _content(request, account.qr_product_code)
        judged = await self._gateway.execute(account, _PRECREATE, content, notify_url=request.notify_url)
        if isinstance(judged, NotReached | Unknown):
            return judged
        if not isinstance(judged, Answered):
            if judged.reason in KNOWN_ALREADY:
                return Unknown(f"Alipay knows this number already: {judged.words.code}", judged.words)
            return judged.words
        if text_field(judged.fields, "out_trade_no") != request.out_trade_no:
            return Unknown("the answer is about another out_trade_no")
        code_url = text_field(judged.fields, "qr_code")
        if code_url is None or len(code_url) > _CODE_URL_LIMIT or urlsplit(code_url).scheme not in ("https", "http"):
            return Unknown("the answer holds no usable qr_code")
        link = f"alipays://platformapi/startapp?saId=10000007&qrcode={quote(code_url, safe='')}"
        return Accepted(action={"kind": "QrCode", "codeUrl": code_url, "deepLink": link})


def _content(request: PaymentRequest, product_code: str) -> dict[str, object]:
    return order_content(
        out_trade_no=request.out_trade_no,
        amount_fen=request.amount_fen,
        subject=request.subject,
        product_code=product_code,
        created_at=request.created_at,
        expires_at=request.expires_at,
    )


def _is_refunded(outcome: RefundOutcome) -> bool:
    return isinstance(outcome, RefundReport) and outcome.status is ReportedRefund.REFUNDED


def _maximum_expiry(method: PaymentMethod) -> timedelta:
    return QR_LIFE if method is PaymentMethod.ALIPAY_QR else AlipayProvider.maximum_expiry


def _check_expiry(request: PaymentRequest, *, maximum: timedelta) -> None:
    minimum = AlipayProvider.minimum_expiry
    if minimum <= request.expires_at - request.created_at <= maximum:
        return
    low, high = int(minimum.total_seconds()), int(maximum.total_seconds())
    raise InvalidInput(
        f"expiresInSeconds must be between {low} and {high} for {request.method}",
        message_zh=f"该支付方式的有效期须在 {low} 至 {high} 秒之间",
        field="expiresInSeconds",
    )

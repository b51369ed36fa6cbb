"""Alipay (支付宝): desktop page, phone page and QR code payments, and their refunds.

A page payment is only a signed URL: nothing is sent, and Alipay knows of no trade until the payer has opened it. A QR
payment is asked for (precreate), yet its trade too begins with the scan. Hence "no such trade" is never a failure here,
and closing one is NeverOpened: the link can be paid until its own `time_expire`.

Source: https://opendocs.alipay.com/open/00f7nu and /open/02ekfs, read 2026-09-11; the models AlipayTrade*Model of
alipay-sdk-python 3.7.1411 and the error enums of alipay-sdk-php-all v3.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx

from app.clock import SHANGHAI, Clock
from app.errors import InvalidAmount, InvalidInput
from app.money import format_yuan
from app.providers.alipay import account as accounts
from app.providers.alipay.account import AlipayAccount
from app.providers.alipay.answers import Answered, Judgement, judge_answer, text_field
from app.providers.alipay.notifications import read_trade_notification
from app.providers.alipay.refunds import (
    REFUND,
    REFUND_QUERY,
    read_refund_answer,
    read_refund_query,
    refund_content,
    refund_not_found,
    refund_query_content,
)
from app.providers.alipay.signing import sign, string_to_sign
from app.providers.alipay.trades import trade_report
from app.providers.contract import (
    Accepted,
    Account,
    Acknowledgement,
    Agreements,
    Closed,
    CloseOutcome,
    CreateOutcome,
    NeverOpened,
    NotClosed,
    Notification,
    NotificationRefused,
    NotReached,
    PaymentMethod,
    PaymentReport,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    ReportedRefund,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.transport import RawAnswer, post_form

SUBJECT_LIMIT = 256
URL_LIMIT = 256
# Documented are one hundred million yuan and eleven characters; with its decimals the round number would have twelve.
MAXIMUM_AMOUNT_FEN = 9_999_999_999
# A code shown as a QR image works for two hours, whatever the trade behind it allows.
QR_LIFE = timedelta(hours=2)
# Alipay wants time_expire at least a minute ahead when the call arrives. The shortest payments get this much, so that
# the way there does not use up the minute; our own expiry, which closes the trade, stays as it was asked for.
_SHORTEST_AT_ALIPAY = timedelta(seconds=75)

_PAGE_METHODS = {
    PaymentMethod.ALIPAY_PAGE: ("alipay.trade.page.pay", "FAST_INSTANT_TRADE_PAY"),
    PaymentMethod.ALIPAY_WAP: ("alipay.trade.wap.pay", "QUICK_WAP_WAY"),
}
_PRECREATE = "alipay.trade.precreate"
_QUERY = "alipay.trade.query"
_CLOSE = "alipay.trade.close"

_OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_FORBIDDEN_IN_SUBJECT = "/=&"
_CODE_URL_LIMIT = 1024
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

# A number that Alipay already knows as paid or closed is asked about, not failed: that would invite a second payment.
_KNOWN_ALREADY = frozenset({"TRADE_HAS_SUCCESS", "TRADE_HAS_CLOSE", "TRADE_HAS_FINISHED"})
_NOT_CLOSABLE = frozenset(
    {"TRADE_STATUS_ERROR", "REASON_TRADE_STATUS_INVALID", "REASON_ILLEGAL_STATUS", *_KNOWN_ALREADY}
)
_NO_SUCH_TRADE = "TRADE_NOT_EXIST"
_NUMBER_USED_ALREADY = "DISCORDANT_REPEAT_REQUEST"


class AlipayProvider:
    """The Alipay adapter; stateless but for its tools. Every method may be called again with the same input."""

    name = "ALIPAY"
    methods = frozenset(accounts.METHODS)
    agreements: Agreements | None = None
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
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._gateways = gateways or GatewayRule()

    def seal_input(self, *, mode: str, fields: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Settings: app_id, seller_id, gateway, auth_app_id, qr_product_code. Credentials: the keys and the token."""
        return accounts.seal_account(mode=mode, fields=fields, gateways=self._gateways, now=self._clock.now())

    def open_account(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> AlipayAccount:
        """Parses keys and certificates once; some ten microseconds per payment are saved by it."""
        return accounts.open_stored_account(
            mode=mode, settings=settings, credentials=credentials, gateways=self._gateways
        )

    def check_request(self, request: PaymentRequest) -> None:
        """What Alipay would refuse in any case, said before a row exists. Raises InvalidInput or InvalidAmount."""
        if _OUT_TRADE_NO.fullmatch(request.out_trade_no) is None:
            raise ValueError("out_trade_no is ours to make: 1 to 64 letters, digits and underscores")
        _check_subject(request.subject)
        _check_expiry(request, maximum=_maximum_expiry(request.method))
        if request.openid is not None:
            # It would be kept and later compared with whoever pays: nobody could ever pay it.
            raise InvalidInput(
                f"openid: {request.method} may be paid by anybody who opens it; leave openid out",
                message_zh="该支付方式无需指定付款人，请勿填写 openid",
                field="openid",
            )
        if request.return_url is not None and request.method in _PAGE_METHODS:
            _check_return_url(request.return_url)
        if not 1 <= request.amount_fen <= MAXIMUM_AMOUNT_FEN:
            raise InvalidAmount(
                "Alipay takes amounts from 0.01 to 99999999.99 yuan",
                message_zh="支付宝的金额范围为 0.01 至 99999999.99 元",
                field="amount",
            )

    async def create_payment(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """A signed link for the page methods, made without any call; a QR code by precreate."""
        alipay = _opened(account)
        if request.method is PaymentMethod.ALIPAY_QR:
            return await self._precreate(alipay, request)
        return Accepted(action={"kind": "Redirect", "url": self._page_url(alipay, request)})

    async def query_payment(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """alipay.trade.query: the report of what Alipay knows, paid and then refunded in full included."""
        judged = await self._execute(_opened(account), _QUERY, {"out_trade_no": out_trade_no})
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return _query_report(judged.fields, out_trade_no)
        if judged.reason == _NO_SUCH_TRADE:
            return PaymentReport(out_trade_no=out_trade_no, status=ReportedStatus.NOT_FOUND, source="query")
        return judged.words

    async def close_payment(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """alipay.trade.close: only an unpaid trade that exists can be closed."""
        judged = await self._execute(_opened(account), _CLOSE, {"out_trade_no": out_trade_no})
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            if text_field(judged.fields, "out_trade_no") not in (None, out_trade_no):
                return Unknown("the answer is about another out_trade_no")
            return Closed()
        if judged.reason == _NO_SUCH_TRADE:
            return NeverOpened()
        if judged.reason in _NOT_CLOSABLE:
            return NotClosed(judged.words.code, judged.words.message)
        return judged.words

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """alipay.trade.refund under our own number. REFUNDED is believed only of a call that moved the money itself.

        In doubt Alipay is asked at once: a repeat of a refund that succeeded is taken too and changes nothing, and a
        product that refuses may do so because this very refund was made before."""
        judged = await self._execute(_opened(account), REFUND, refund_content(request))
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
        judged = await self._execute(_opened(account), REFUND_QUERY, refund_query_content(request))
        if isinstance(judged, NotReached | Unknown):
            return judged
        if isinstance(judged, Answered):
            return read_refund_query(judged.fields, request)
        return refund_not_found(request) if judged.reason == _NO_SUCH_TRADE else judged.words

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, *, tail: str = ""
    ) -> Notification:
        """Verified on the received bytes, by rule V1 and then V2. Raises NotificationRefused for anything else."""
        if tail:
            raise NotificationRefused("malformed", "Alipay's notifications come on the account's own path")
        return read_trade_notification(_opened(account), headers, body)

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """Exactly the seven bytes of "success" end the repeats; everything else asks for another."""
        if accepted:
            return Acknowledgement(200, b"success", "text/plain; charset=utf-8")
        return Acknowledgement(400, b"fail", "text/plain; charset=utf-8")

    def _page_url(self, account: AlipayAccount, request: PaymentRequest) -> str:
        method, product_code = _PAGE_METHODS[request.method]
        biz_content = _order_content(request, product_code)
        params = self._params(account, method)
        params["notify_url"] = request.notify_url
        if request.return_url is not None:
            params["return_url"] = request.return_url
            if request.method is PaymentMethod.ALIPAY_WAP:
                biz_content["quit_url"] = request.return_url
        params["biz_content"] = _json(biz_content)
        params["sign"] = sign(account.private_key, string_to_sign(params).encode())
        return f"{account.gateway}?{_encoded(params)}"

    async def _precreate(self, account: AlipayAccount, request: PaymentRequest) -> CreateOutcome:
        content = _order_content(request, account.qr_product_code)
        judged = await self._execute(account, _PRECREATE, content, notify_url=request.notify_url)
        if isinstance(judged, NotReached | Unknown):
            return judged
        if not isinstance(judged, Answered):
            if judged.reason in _KNOWN_ALREADY:
                return Unknown(f"Alipay knows this number already: {judged.words.code}", judged.words)
            return judged.words
        if text_field(judged.fields, "out_trade_no") != request.out_trade_no:
            return Unknown("the answer is about another out_trade_no")
        code_url = text_field(judged.fields, "qr_code")
        if code_url is None or len(code_url) > _CODE_URL_LIMIT or urlsplit(code_url).scheme not in ("https", "http"):
            return Unknown("the answer holds no usable qr_code")
        link = f"alipays://platformapi/startapp?saId=10000007&qrcode={quote(code_url, safe='')}"
        return Accepted(action={"kind": "QrCode", "codeUrl": code_url, "deepLink": link})

    async def _execute(
        self, account: AlipayAccount, method: str, biz_content: Mapping[str, object], *, notify_url: str | None = None
    ) -> Judgement:
        """One call of the gateway: common parameters in the query, biz_content in the body, both signed."""
        params = self._params(account, method)
        if notify_url is not None:
            params["notify_url"] = notify_url
        content = _json(biz_content)
        params["sign"] = sign(account.private_key, string_to_sign({**params, "biz_content": content}).encode())
        exchange = await post_form(
            self._client,
            account.gateway,
            query=_encoded(params),
            body=_encoded({"biz_content": content}).encode("ascii"),
            timeout_s=self._timeout_s,
        )
        return judge_answer(account, method, exchange.body) if isinstance(exchange, RawAnswer) else exchange

    def _params(self, account: AlipayAccount, method: str) -> dict[str, str]:
        return {**account.common_params, "method": method, "timestamp": _beijing_time(self._clock.now())}


def _opened(account: Account) -> AlipayAccount:
    if not isinstance(account, AlipayAccount):
        raise TypeError("this account was not opened by the Alipay provider")
    return account


def _order_content(request: PaymentRequest, product_code: str) -> dict[str, str]:
    """The order itself. The same request gives the same content, which is what makes repeating it harmless."""
    expires_at = max(request.expires_at, request.created_at + _SHORTEST_AT_ALIPAY)
    return {
        "out_trade_no": request.out_trade_no,
        "total_amount": format_yuan(request.amount_fen),
        "subject": request.subject,
        "product_code": product_code,
        "time_expire": _beijing_time(expires_at),
    }


def _query_report(fields: Mapping[str, Any], out_trade_no: str) -> QueryOutcome:
    texts = {name: value for name, value in fields.items() if isinstance(value, str) and value}
    if texts.get("out_trade_no") != out_trade_no:
        return Unknown("the answer is about another out_trade_no")
    if "trade_status" not in texts:
        return Unknown("the answer holds no trade_status")
    try:
        return trade_report(texts, "query")
    except ValueError:
        return Unknown("the answer holds an amount that is not exact yuan")


def _is_refunded(outcome: RefundOutcome) -> bool:
    return isinstance(outcome, RefundReport) and outcome.status is ReportedRefund.REFUNDED


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _encoded(params: Mapping[str, str]) -> str:
    return urlencode(params, quote_via=quote, safe="")


def _beijing_time(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).strftime(_TIME_FORMAT)


def _maximum_expiry(method: PaymentMethod) -> timedelta:
    return QR_LIFE if method is PaymentMethod.ALIPAY_QR else AlipayProvider.maximum_expiry


def _check_subject(subject: str) -> None:
    if not subject.strip():
        raise InvalidInput("subject is empty: write what is sold", message_zh="请填写商品名称", field="subject")
    if len(subject) > SUBJECT_LIMIT:
        raise InvalidInput(
            f"subject has {len(subject)} characters: Alipay takes at most {SUBJECT_LIMIT}",
            message_zh=f"商品名称过长：支付宝最多 {SUBJECT_LIMIT} 个字符",
            field="subject",
        )
    found = [character for character in _FORBIDDEN_IN_SUBJECT if character in subject]
    if found:
        raise InvalidInput(
            f"subject contains {' '.join(found)}: Alipay refuses / = and & there, leave them out",
            message_zh=f"商品名称包含 {' '.join(found)}：支付宝不允许 / = & 字符，请删除",
            field="subject",
        )
    if not subject.isprintable() and any(_is_invisible(character) for character in subject):
        raise InvalidInput(
            "subject contains a control or other invisible character: leave it out",
            message_zh="商品名称包含不可见字符，请删除",
            field="subject",
        )


def _is_invisible(character: str) -> bool:
    """Controls, line ends, lone surrogates and format characters; not wide blanks, nor the joiner inside an emoji."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character != "\u200d"


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


def _check_return_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput(
            "returnUrl must be an absolute http or https URL, percent-encoded",
            message_zh="返回地址必须是完整的 http 或 https 网址（特殊字符须编码）",
            field="returnUrl",
        )
    if len(url) > URL_LIMIT:
        raise InvalidInput(
            f"returnUrl has {len(url)} characters: Alipay takes at most {URL_LIMIT}",
            message_zh=f"返回地址过长：支付宝最多 {URL_LIMIT} 个字符",
            field="returnUrl",
        )

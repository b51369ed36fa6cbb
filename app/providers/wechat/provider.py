"""WeChat Pay (微信支付), through whichever of its interfaces a merchant account has: the mode of the account picks it.

    WECHAT_MINI_PROGRAM   inside a mini-program    wx.requestPayment       needs the payer's openid
    WECHAT_JSAPI          a page inside WeChat     WeixinJSBridge          needs the payer's openid
    WECHAT_CLOUD          inside a mini-program    wx.requestPayment       needs the payer's openid
    WECHAT_H5             a phone's browser        a page that opens WeChat
    WECHAT_NATIVE         a desktop page           a QR code

Unlike Alipay, WeChat has the order as soon as it was asked for: a query finds it unpaid, and closing it is final.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012525167 and /4012075249, read 2026-09-11.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.clock import Clock
from app.errors import InvalidAmount, InvalidInput
from app.providers.contract import (
    Account,
    AccountInvalid,
    Acknowledgement,
    Agreements,
    CloseOutcome,
    CreateOutcome,
    Notification,
    PaymentMethod,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundRequest,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat.cloud import CloudDialect
from app.providers.wechat.dialect import Dialect
from app.providers.wechat.refunds import REFUND_NUMBER
from app.providers.wechat.v2 import V2Dialect
from app.providers.wechat.v3 import V3Dialect

# The narrowest of its interfaces: description has 127 characters in APIv3 where APIv2 has 128.
SUBJECT_LIMIT = 127
NOTIFY_URL_LIMIT = 255

_OUT_TRADE_NO = re.compile(r"[A-Za-z0-9_\-|*]{6,32}", re.ASCII)
_OPENID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class WechatAccount:
    """An opened account beside the interface that opened it."""

    dialect: Dialect
    own: Account

    @property
    def expected_claims(self) -> Mapping[str, frozenset[str]]:
        """As the interface names them."""
        return self.own.expected_claims

    @property
    def offers(self) -> Mapping[PaymentMethod, Sequence[str]]:
        """Each method with its app ids, the default first."""
        return self.own.offers


class WechatProvider:
    """All of WeChat's interfaces as one provider. Every method may be called again with the same input."""

    name = "WECHAT"
    methods = frozenset(
        {
            PaymentMethod.WECHAT_MINI_PROGRAM,
            PaymentMethod.WECHAT_JSAPI,
            PaymentMethod.WECHAT_H5,
            PaymentMethod.WECHAT_NATIVE,
            PaymentMethod.WECHAT_CLOUD,
        }
    )
    agreements: Agreements | None = None
    methods_with_payer = frozenset(
        {PaymentMethod.WECHAT_MINI_PROGRAM, PaymentMethod.WECHAT_JSAPI, PaymentMethod.WECHAT_CLOUD}
    )
    # Close together while a person is paying; WeChat asks for at most ten questions in the first ten minutes.
    query_schedule: Sequence[timedelta] = (
        timedelta(seconds=10),
        timedelta(seconds=30),
        timedelta(minutes=1),
        timedelta(minutes=2),
        timedelta(minutes=3),
        timedelta(minutes=5),
        timedelta(minutes=10),
        timedelta(minutes=20),
        timedelta(minutes=30),
        timedelta(hours=1),
    )
    # WeChat asks for a question each minute, and after five minutes for ever rarer ones. Balances take minutes, bank
    # cards up to three working days.
    refund_schedule: Sequence[timedelta] = (
        timedelta(minutes=1),
        timedelta(minutes=2),
        timedelta(minutes=3),
        timedelta(minutes=4),
        timedelta(minutes=5),
        timedelta(minutes=10),
        timedelta(minutes=20),
        timedelta(minutes=40),
        timedelta(minutes=70),
        timedelta(minutes=130),
    )
    refund_window = timedelta(days=365)
    # WeChat moves an earlier end to this.
    minimum_expiry = timedelta(minutes=1)
    # What a page or a QR code pays with lives two hours, however long the order behind it would be payable.
    maximum_expiry = timedelta(hours=2)

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float, gateways: GatewayRule) -> None:
        dialects: tuple[Dialect, ...] = (
            V3Dialect(client, clock, timeout_s=timeout_s, gateways=gateways),
            V2Dialect(client, clock, timeout_s=timeout_s, gateways=gateways),
            CloudDialect(client, clock, timeout_s=timeout_s, gateways=gateways),
        )
        self._clock = clock
        self._dialects = {mode: dialect for dialect in dialects for mode in dialect.modes}
        self.modes: Sequence[str] = tuple(self._dialects)

    def seal_input(self, *, mode: str, fields: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
        """The fields are those of the mode. Raises AccountInvalid."""
        return self._dialect(mode).seal(mode=mode, fields=fields, now=self._clock.now())

    def open_account(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> WechatAccount:
        """The account with its interface; what an interface learns meanwhile lives as long as this."""
        dialect = self._dialect(mode)
        return WechatAccount(dialect, dialect.open(mode=mode, settings=settings, credentials=credentials))

    def check_request(self, request: PaymentRequest) -> None:
        """What WeChat would refuse in any case, said before a row exists. Raises InvalidInput or InvalidAmount."""
        if _OUT_TRADE_NO.fullmatch(request.out_trade_no) is None:
            raise ValueError("out_trade_no is ours to make: 6 to 32 letters, digits and _ - * |")
        _check_notify_url(request.notify_url)
        _check_subject(request.subject)
        _check_expiry(request)
        _check_payer(request)
        if request.amount_fen < 1:
            raise InvalidAmount(
                "WeChat takes amounts from 0.01 yuan on",
                message_zh="微信支付的金额最少为 0.01 元",
                field="amount",
            )
        if request.method is PaymentMethod.WECHAT_H5:
            _check_client_address(request.client_address)
            if request.return_url is not None:
                _check_return_url(request.return_url)

    async def create_payment(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """Places the order; repeated, it renews what the page pays with."""
        opened = _opened(account)
        return await opened.dialect.create(opened.own, request)

    async def query_payment(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """What WeChat knows under our number."""
        opened = _opened(account)
        return await opened.dialect.query(opened.own, out_trade_no)

    async def close_payment(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """Closes an order that is not paid."""
        opened = _opened(account)
        return await opened.dialect.close(opened.own, out_trade_no)

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """Taken is not done: a notice or a question says later what became of it."""
        opened = _opened(account)
        _check_refund(request)
        return await opened.dialect.create_refund(opened.own, request)

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """What WeChat knows under our refund number."""
        opened = _opened(account)
        return await opened.dialect.query_refund(opened.own, request)

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, *, tail: str = ""
    ) -> Notification:
        """Verified as its interface demands. Raises NotificationRefused."""
        opened = _opened(account)
        return await opened.dialect.read_notification(opened.own, headers, body, tail)

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """JSON, XML or a status: what the account's interface reads."""
        opened = _opened(account)
        return opened.dialect.acknowledge(opened.own, accepted=accepted)

    def _dialect(self, mode: str) -> Dialect:
        dialect = self._dialects.get(mode)
        if dialect is None:
            raise AccountInvalid("mode", f"{mode!r} is no WeChat mode: use one of {', '.join(self.modes)}")
        return dialect


def _opened(account: Account) -> WechatAccount:
    if not isinstance(account, WechatAccount):
        raise TypeError("this account was not opened by the WeChat provider")
    return account


def _check_refund(request: RefundRequest) -> None:
    """All of it is ours to make."""
    if REFUND_NUMBER.fullmatch(request.out_refund_no) is None:
        raise ValueError("out_refund_no is ours to make: 1 to 64 letters, digits and _ - * @ |")
    if not 0 < request.amount_fen <= request.total_fen:
        raise ValueError("a refund gives back at least one fen and at most the whole order")
    _check_notify_url(request.notify_url)


def _check_notify_url(url: str) -> None:
    """Ours, from the configuration: WeChat calls it without a query, and refuses one."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment or len(url) > NOTIFY_URL_LIMIT:
        raise ValueError(
            f"the notification address must be absolute, without a query, of at most {NOTIFY_URL_LIMIT} characters"
        )


def _check_subject(subject: str) -> None:
    if not subject.strip():
        raise InvalidInput("subject is empty: write what is sold", message_zh="请填写商品描述", field="subject")
    if len(subject) > SUBJECT_LIMIT:
        raise InvalidInput(
            f"subject has {len(subject)} characters: WeChat takes at most {SUBJECT_LIMIT}",
            message_zh=f"商品描述过长：微信支付最多 {SUBJECT_LIMIT} 个字符",
            field="subject",
        )
    if any(character > "\uffff" for character in subject):
        raise InvalidInput(
            "subject contains an emoji or another character beyond U+FFFF: WeChat refuses those, leave it out",
            message_zh="商品描述包含表情等特殊字符，微信支付不支持，请删除",
            field="subject",
        )
    if not subject.isprintable() and any(_is_invisible(character) for character in subject):
        raise InvalidInput(
            "subject contains a control or other invisible character: leave it out",
            message_zh="商品描述包含不可见字符，请删除",
            field="subject",
        )


def _is_invisible(character: str) -> bool:
    """Controls, line ends, lone surrogates and format characters; not wide blanks. XML could not even carry some."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def _check_expiry(request: PaymentRequest) -> None:
    low, high = WechatProvider.minimum_expiry, WechatProvider.maximum_expiry
    if low <= request.expires_at - request.created_at <= high:
        return
    shortest, longest = int(low.total_seconds()), int(high.total_seconds())
    raise InvalidInput(
        f"expiresInSeconds must be between {shortest} and {longest} for {request.method}: what WeChat gives the page "
        "to pay with lives two hours",
        message_zh=f"该支付方式的有效期须在 {shortest} 至 {longest} 秒之间：微信支付凭证的有效期为 2 小时",
        field="expiresInSeconds",
    )


def _check_payer(request: PaymentRequest) -> None:
    wanted = request.method in WechatProvider.methods_with_payer
    if not wanted and request.openid is not None:
        # It would be kept and later compared with whoever pays: nobody could ever pay it.
        raise InvalidInput(
            f"openid: {request.method} may be paid by anybody who opens it; leave openid out",
            message_zh="该支付方式无需指定付款人，请勿填写 openid",
            field="openid",
        )
    if wanted and request.openid is None:
        raise InvalidInput(
            f"openid is missing: {request.method} is paid by one person; log in with wechatLogin, or pass openid",
            message_zh="缺少 openid：请先通过 wechatLogin 登录，或填写付款人的 openid",
            field="openid",
        )
    if wanted and _OPENID.fullmatch(request.openid or "") is None:
        raise InvalidInput(
            "openid is not what WeChat issues: letters, digits, _ and -; pass it whole, as wechatLogin returned it",
            message_zh="openid 格式不正确：请完整传入 wechatLogin 返回的 openid",
            field="openid",
        )


def _check_client_address(address: str | None) -> None:
    try:
        ip_address(address or "")
    except ValueError as exc:
        raise InvalidInput(
            "the payer's IP address is not known, and WECHAT_H5 needs it: let the proxy in front pass it on",
            message_zh="H5 支付需要付款人的 IP 地址：请检查反向代理是否传递了客户端 IP",
            field="method",
        ) from exc


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

"""APIv3 as one of WeChat's dialects: what each call's outcome means for a payment or a refund.

Nothing that WeChat says about an order it already has fails a payment: ORDER_PAID, ORDER_CLOSED, OUT_TRADE_NO_USED and
"differs from the first request" mean that the number is taken, perhaps paid, and so it is asked about.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from app.clock import Clock
from app.providers.contract import (
    Accepted,
    Account,
    Acknowledgement,
    Closed,
    CloseOutcome,
    CreateOutcome,
    NeverOpened,
    NotClosed,
    Notification,
    NotificationRefused,
    NotReached,
    PaymentReport,
    PaymentRequest,
    QueryOutcome,
    RefundOutcome,
    RefundRequest,
    ReportedStatus,
    Unknown,
)
from app.providers.gateways import GatewayRule
from app.providers.wechat.dialect import not_offered
from app.providers.wechat.refunds import not_found, refusal_outcome
from app.providers.wechat.v3 import account as accounts
from app.providers.wechat.v3 import orders
from app.providers.wechat.v3.account import V3Account
from app.providers.wechat.v3.calls import Answered, Calls, Refused, TurnedAway
from app.providers.wechat.v3.notifications import read_notification
from app.providers.wechat.v3.refunds import REFUNDS, read_refund_answer, refund_content, refund_target
from app.providers.wechat.v3.strict_json import Unreadable
from app.providers.wechat.v3.transactions import transaction_report

# Both spellings occur.
_NO_SUCH_ORDER = frozenset({"ORDER_NOT_EXIST", "ORDERNOTEXIST"})
_KNOWN_ALREADY = frozenset({"ORDER_PAID", "ORDERPAID", "ORDER_CLOSED", "ORDERCLOSED", "OUT_TRADE_NO_USED"})
_DIFFERS_FROM_FIRST = re.compile(r"与首次请求时不一致|请求重入|商户订单号重复")
_NOT_CLOSABLE = frozenset({"ORDER_PAID", "ORDERPAID", "USER_PAYING", "USERPAYING", "TRADE_STATE_ERROR"})
_CLOSED_BEFORE = frozenset({"ORDER_CLOSED", "ORDERCLOSED"})
# Said while the payer enters the password; the plain rate limit has another code.
_BUSY = frozenset({"FREQUENCY_LIMITED", "FREQUENCY_LIMIT"})
_NO_SUCH_REFUND = frozenset({"RESOURCE_NOT_EXISTS"})


class V3Dialect:
    """Modes v3, v3_certificate and v3_partner. Stateless but for its tools."""

    modes: Sequence[str] = accounts.MODES

    def __init__(self, client: httpx.AsyncClient, clock: Clock, *, timeout_s: float, gateways: GatewayRule) -> None:
        self._calls = Calls(client, clock, timeout_s=timeout_s)
        self._clock = clock
        self._gateways = gateways

    def seal(self, *, mode: str, fields: Mapping[str, str], now: datetime) -> tuple[dict[str, Any], dict[str, str]]:
        """Credentials: private_key, apiv3_key, public_key, platform_certificates. All else is public."""
        return accounts.seal_account(mode=mode, fields=fields, gateways=self._gateways, now=now)

    def open(self, *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str]) -> V3Account:
        """Parses keys once. What is learned of WeChat's keys later lives as long as the opened account."""
        return accounts.open_stored_account(
            mode=mode, settings=settings, credentials=credentials, gateways=self._gateways, clock=self._clock
        )

    async def create(self, account: Account, request: PaymentRequest) -> CreateOutcome:
        """Places the order, or renews what its page pays with."""
        opened = _opened(account)
        apps = opened.offers[request.method]
        app_id = request.app_id or apps[0]
        if app_id not in apps:
            return not_offered(app_id)
        content = orders.prepay_content(opened, request, app_id)
        judged = await self._calls.execute(opened, "POST", orders.prepay_target(opened, request.method), content)
        match judged:
            case Answered(fields=fields):
                try:
                    action = orders.page_action(opened, request, fields, app_id=app_id, now=self._clock.now())
                except Unreadable as exc:
                    return Unknown(f"the answer is {exc}")
                return Accepted(action=action)
            case Refused(words=words):
                if words.code in _KNOWN_ALREADY or _DIFFERS_FROM_FIRST.search(words.message):
                    return Unknown(f"WeChat knows this number already: {words.code}", words)
                return words
            case TurnedAway(words=words):
                return NotReached(f"turned away by a rate limit: {words.code}", words)
        return judged

    async def query(self, account: Account, out_trade_no: str) -> QueryOutcome:
        """What WeChat knows under our number."""
        opened = _opened(account)
        report = await self._ask(opened, orders.order_target(opened, out_trade_no))
        if report is None:
            return PaymentReport(out_trade_no=out_trade_no, status=ReportedStatus.NOT_FOUND, source="query")
        if isinstance(report, PaymentReport) and report.out_trade_no != out_trade_no:
            return Unknown("the answer is about another out_trade_no")
        return report

    async def query_transaction(self, account: Account, transaction_id: str) -> QueryOutcome | None:
        """What WeChat knows under its own number, once paid; None when it has no such transaction."""
        opened = _opened(account)
        report = await self._ask(opened, orders.transaction_target(opened, transaction_id))
        if isinstance(report, PaymentReport) and report.transaction_id != transaction_id:
            return Unknown("the answer is about another transaction_id")
        return report

    async def close(self, account: Account, out_trade_no: str) -> CloseOutcome:
        """Closes the order; closing twice is no error of WeChat's."""
        opened = _opened(account)
        target = orders.close_target(opened, out_trade_no)
        judged = await self._calls.execute(opened, "POST", target, orders.receiver(opened))
        match judged:
            case Answered():
                return Closed()
            case Refused(words=words):
                if words.code in _NO_SUCH_ORDER:
                    return NeverOpened()
                if words.code in _NOT_CLOSABLE:
                    return NotClosed(words.code, words.message)
                return Closed() if words.code in _CLOSED_BEFORE else words
            case TurnedAway(words=words):
                if words.code in _BUSY:
                    return NotClosed(words.code, words.message)
                return NotReached(f"turned away by a rate limit: {words.code}", words)
        return judged

    async def create_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """Asks for the refund; where WeChat refuses, it is asked at once whether it holds one of this number."""
        opened = _opened(account)
        judged = await self._calls.execute(opened, "POST", REFUNDS, refund_content(opened, request))
        match judged:
            case Answered(fields=fields):
                return read_refund_answer(fields, request, "answer")
            case Refused(words=words):
                return refusal_outcome(words, await self.query_refund(opened, request))
            case TurnedAway(words=words):
                # Of a refund WeChat says that its state is not known then.
                return Unknown(f"turned away by a rate limit: {words.code}", words)
        return judged

    async def query_refund(self, account: Account, request: RefundRequest) -> RefundOutcome:
        """What WeChat knows under our refund number."""
        opened = _opened(account)
        judged = await self._calls.execute(opened, "GET", refund_target(opened, request.out_refund_no))
        match judged:
            case Answered(fields=fields):
                return read_refund_answer(fields, request, "query")
            case Refused(words=words):
                return not_found(request) if words.code in _NO_SUCH_REFUND else words
            case TurnedAway(words=words):
                return NotReached(f"turned away by a rate limit: {words.code}", words)
        return judged

    async def read_notification(
        self, account: Account, headers: Mapping[str, str], body: bytes, tail: str
    ) -> Notification:
        """Verified on the received bytes. May ask for platform certificates once."""
        if tail:
            raise NotificationRefused("malformed", "APIv3 notifications come on the account's own path")
        return await read_notification(
            _opened(account), headers, body, now=self._clock.now(), is_genuine=self._calls.is_genuine
        )

    def acknowledge(self, account: Account, *, accepted: bool) -> Acknowledgement:
        """The status decides; WeChat repeats everything but 200 and 204."""
        if accepted:
            return Acknowledgement(204, b"", "application/json")
        return Acknowledgement(400, b'{"code":"FAIL","message":"refused"}', "application/json")

    async def _ask(self, account: V3Account, target: str) -> QueryOutcome | None:
        judged = await self._calls.execute(account, "GET", target)
        match judged:
            case Answered(fields=fields):
                try:
                    return transaction_report(fields, "query", payer_name=account.payer_name)
                except Unreadable as exc:
                    return Unknown(f"the answer: {exc}")
            case Refused(words=words):
                return None if words.code in _NO_SUCH_ORDER else words
            case TurnedAway(words=words):
                return NotReached(f"turned away by a rate limit: {words.code}", words)
        return judged


def _opened(account: Account) -> V3Account:
    if not isinstance(account, V3Account):
        raise TypeError("this account was not opened by the APIv3 dialect")
    return account

"""What happens at the payer's end: paying in all the ways that test a merchant, and the notices that follow.

The payer's page and /_control both come here. So do refunds once they were asked for: a partial one that succeeds sends
a notice, one that empties the trade sends none unless the policy says so, and one that fails never does. And so do
deductions that were accepted. An agreement offered with a payment is signed after it, and told of by itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from app.sandbox.alipay.accounts import PROVIDER
from app.sandbox.alipay.agreement_desk import AgreementDesk, is_signable
from app.sandbox.alipay.agreements import Agreement
from app.sandbox.alipay.deductions import NOW, DeductionPolicy, Deductions, is_deduction
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.notices import (
    RETRY_GAPS,
    compose_notification,
    is_acknowledged,
    notification_fields,
    refund_fields,
)
from app.sandbox.alipay.payers import PAYER_ID
from app.sandbox.alipay.refunds import Refunds
from app.sandbox.alipay.trades import Refund, Trade, TradeBook, TradeStatus, new_notify_id
from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries, Notice
from app.sandbox.desks import DeskRefusal, Payment, RefundPolicy, RefundState, TradeState

AMOUNT_FIELDS = ("total_amount", "receipt_amount", "invoice_amount", "buyer_pay_amount")


_FIXES = {
    "ACQ.TRADE_HAS_CLOSE": 'pay it all the same with {"late": true}',
    "ACQ.NOW_TIME_AFTER_EXPIRE_TIME_ERROR": 'pay it all the same with {"late": true}, or reset the clock',
    "ACQ.TRADE_HAS_SUCCESS": "to repeat the notice, POST /_control/notifications/{notify_id}/resend",
    "ACQ.TRADE_STATUS_ERROR": "only a trade in WAIT_BUYER_PAY can; POST /_control/trades/{out_trade_no}/open opens one",
}

_SUMMARISED = ("trade_status", "total_amount", "app_id", "seller_id", "out_biz_no", "refund_fee")

_UNPAID_STATES = {
    TradeStatus.NOT_OPENED: TradeState.UNOPENED,
    TradeStatus.WAIT_BUYER_PAY: TradeState.UNPAID,
    TradeStatus.TRADE_CLOSED: TradeState.CLOSED,
}


def state_of(trade: Trade) -> TradeState:
    return TradeState.PAID if trade.is_paid else _UNPAID_STATES[trade.status]


@contextmanager
def _refusals_translated() -> Iterator[None]:
    """Alipay's refusals as those of any desk."""
    try:
        yield
    except BusinessRefusal as exc:
        fix = _FIXES.get(exc.sub_code, "look at GET /_control/trades")
        raise DeskRefusal(exc.sub_code, exc.sub_msg, fix) from exc


class Desk:
    """Alipay's side of /_control: finds, shows and changes trades."""

    provider = PROVIDER
    default_failure = "买家余额不足"

    def __init__(
        self,
        book: TradeBook,
        refunds: Refunds,
        deductions: Deductions,
        agreements: AgreementDesk,
        deliveries: Deliveries,
        clock: SandboxClock,
        public_url: str,
    ) -> None:
        self._book = book
        self._refunds = refunds
        self._deductions = deductions
        self._agreements = agreements
        self._deliveries = deliveries
        self._clock = clock
        self._public_url = public_url

    def find(self, out_trade_no: str, seller_id: str | None = None) -> list[Trade]:
        trades = self._book.listed(out_trade_no=out_trade_no)
        return [trade for trade in trades if seller_id in (None, trade.account.seller_id)]

    def find_by_token(self, token: str) -> Trade | None:
        return self._book.find_by_token(token)

    def open(self, trade: Trade) -> None:
        with _refusals_translated():
            self._book.open(trade)

    def fail(self, trade: Trade, reason: str) -> None:
        with _refusals_translated():
            self._book.fail(trade, reason)

    async def pay(self, trade: Trade, payment: Payment) -> list[Notice]:
        """Pay and notify; returns the notices. Raises DeskRefusal and sends nothing when it cannot be paid."""
        with _refusals_translated():
            for name, value in _overrides(payment).items():
                _check_encodable(name, value, trade.codec)
            _check_buyer(trade, payment.buyer)
            if is_deduction(trade):
                self._deductions.pay(trade, late=payment.late)
            else:
                self._book.pay(trade, late=payment.late)
            trade.buyer_id = payment.buyer or trade.buyer_id
        return [*await self._tell(trade, payment), *await self._sign_offered(trade, payment)]

    async def _tell(self, trade: Trade, payment: Payment) -> list[Notice]:
        if not payment.notify or not trade.notify_url:
            return []
        if payment.distinct_ids:
            return [await self._notify(trade, payment, copies=1) for _ in range(payment.times)]
        return [await self._notify(trade, payment, copies=payment.times)]

    async def _sign_offered(self, trade: Trade, payment: Payment) -> list[Notice]:
        """The agreement offered with the payment, as far as it can be signed: the payment stands either way."""
        agreement = self.offered_with(trade)
        if agreement is None or not payment.sign:
            return []
        try:
            return await self._agreements.sign(
                agreement, payer=trade.buyer_id, notify=payment.notify, times=payment.times, wait=payment.wait
            )
        except DeskRefusal:
            return []

    def offered_with(self, trade: Trade) -> Agreement | None:
        """The agreement that waits to be signed with this payment."""
        agreement = trade.agreement
        return agreement if agreement and not is_deduction(trade) and is_signable(agreement) else None

    async def close(self, trade: Trade, *, notify: bool) -> list[Notice]:
        """The provider closes an unpaid trade; Alipay's page products send no notice of that, others do."""
        with _refusals_translated():
            self._book.close(trade)
        if not notify or not trade.notify_url:
            return []
        return [await self._notify(trade, Payment(), copies=1)]

    def follow_deduction(self, trade: Trade, policy: DeductionPolicy) -> None:
        """See to what comes after a call that deducted; nothing of it before that call is answered."""
        now = self._clock.now()
        if policy.answer == NOW:
            self._deliveries.call_at(now, lambda: self._tell_of_deduction(trade))
        elif policy.settle_after is not None and trade.opened_at is not None:
            self._deliveries.call_at(now + policy.settle_after, lambda: self._settle_deduction(trade, policy))

    async def _settle_deduction(self, trade: Trade, policy: DeductionPolicy) -> None:
        if self._deductions.settle(trade, policy):
            await self._tell_of_deduction(trade)

    async def _tell_of_deduction(self, trade: Trade) -> None:
        await self._tell(trade, Payment())

    def set_refund_policy(self, policy: RefundPolicy) -> None:
        _check_known(policy.settle_as)
        self._refunds.policy = policy

    def follow_refund(self, trade: Trade, refund: Refund) -> None:
        """See to what comes after a call that began this refund; nothing of it before that call is answered."""
        if refund.state is not RefundState.PROCESSING:
            notice = self._refund_notice(trade, refund)
            if notice is not None:
                self._deliveries.call_at(self._clock.now(), lambda: self._deliveries.publish(notice))
        elif refund.settles_at is not None:
            self._deliveries.call_at(refund.settles_at, lambda: self._settle_when_due(trade, refund))

    async def settle_refund(self, trade: Trade, out_refund_no: str, state: RefundState) -> list[Notice]:
        """Settle a refund that is held. Raises DeskRefusal for one that is not."""
        _check_known(state)
        refund = trade.refunds[out_refund_no]
        if refund.state is not RefundState.PROCESSING or refund.settles_at is not None:
            waits = refund.state is RefundState.PROCESSING
            message = f"refund {out_refund_no} " + ("settles on the clock" if waits else f"is {refund.state} already")
            fix = 'POST /_control/refunds/policy {"settle": "hold"} holds those that are asked for afterwards'
            raise DeskRefusal("REFUND_NOT_HELD", message, fix)
        self._refunds.settle(trade, refund, state)
        notice = self._refund_notice(trade, refund)
        if notice is None:
            return []
        await self._deliveries.publish(notice)
        return [notice]

    async def _settle_when_due(self, trade: Trade, refund: Refund) -> None:
        self._refunds.settle(trade, refund, refund.settles_as)
        notice = self._refund_notice(trade, refund)
        if notice is not None:
            await self._deliveries.publish(notice)

    def _refund_notice(self, trade: Trade, refund: Refund) -> Notice | None:
        """The notice of a refund that was settled just now, with the amounts as they are at this moment."""
        is_silent = trade.is_refunded_in_full and not self._refunds.policy.notify_full
        if refund.state is not RefundState.REFUNDED or is_silent or not trade.notify_url:
            return None
        notify_id = new_notify_id(self._clock.now())
        return self._notice(trade, {**notification_fields(trade, notify_id), **refund_fields(trade, refund)})

    async def _notify(self, trade: Trade, payment: Payment, *, copies: int) -> Notice:
        notify_id = new_notify_id(self._clock.now())
        fields = {**notification_fields(trade, notify_id), **_overrides(payment)}
        notice = self._notice(trade, fields, break_signature=payment.break_signature)
        await self._deliveries.publish(notice, copies=copies, wait=payment.wait)
        return notice

    def _notice(self, trade: Trade, fields: Mapping[str, str], *, break_signature: bool = False) -> Notice:
        notify_id = fields["notify_id"]
        trade.notify_ids.append(notify_id)
        return Notice(
            notify_id=notify_id,
            provider=PROVIDER,
            out_trade_no=trade.out_trade_no,
            url=trade.notify_url,
            gaps=RETRY_GAPS,
            compose=lambda sent_at: compose_notification(
                trade.account, fields, trade.codec, sent_at, break_signature=break_signature
            ),
            is_acknowledged=is_acknowledged,
            summary={name: fields[name] for name in _SUMMARISED if name in fields},
        )

    def notices_of(self, trade: Trade) -> list[Notice]:
        found = (self._deliveries.find(notify_id) for notify_id in trade.notify_ids)
        return [notice for notice in found if notice is not None]

    def described(self, trade: Trade) -> dict[str, Any]:
        """The trade as /_control shows it: the provider's truth, with `trade_no` only once it exists."""
        self._book.expire(trade)
        terms = trade.terms
        exists = trade.status is not TradeStatus.NOT_OPENED
        moments = {"opened_at": trade.opened_at, "paid_at": trade.paid_at, "closed_at": trade.closed_at}
        return {
            "provider": PROVIDER,
            "product": terms.product.value,
            "app_id": trade.account.app_id,
            "auth_app_id": trade.account.auth_app_id,
            "seller_id": trade.account.seller_id,
            "buyer_id": trade.buyer_id,
            "agreement_no": trade.agreement.agreement_no or None if trade.agreement else None,
            "external_agreement_no": trade.agreement.terms.external_agreement_no or None if trade.agreement else None,
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no if exists else None,
            "transaction_id": trade.trade_no if exists else None,
            "trade_status": trade.status.value,
            "status": state_of(trade).value,
            "paid": trade.is_paid,
            "total_amount": format_amount(terms.total_amount_fen),
            "amount_fen": terms.total_amount_fen,
            "subject": terms.subject,
            "notify_url": trade.notify_url or None,
            "return_url": trade.return_url or None,
            "created_at": trade.created_at.isoformat(),
            "expires_at": trade.expires_at.isoformat(),
            **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
            "last_failure": trade.last_failure or None,
            "pay_url": self.pay_url(trade),
            "notify_ids": list(trade.notify_ids),
        }

    def refunds_of(self, trade: Trade) -> list[dict[str, Any]]:
        return [
            {
                "out_refund_no": refund.out_request_no,
                "refund_id": None,
                "amount_fen": refund.amount_fen,
                "status": refund.state.value,
                "reason": refund.reason or None,
                "created_at": refund.created_at.isoformat(),
                "refunded_at": refund.refunded_at.isoformat() if refund.refunded_at else None,
            }
            for refund in trade.refunds.values()
        ]

    def pay_url(self, trade: Trade) -> str:
        return f"{self._public_url}/alipay/pay/{trade.token}"

    def listed(self, *, out_trade_no: str | None = None) -> list[Trade]:
        return self._book.listed(out_trade_no=out_trade_no)

    def reset(self) -> None:
        self._book.reset()
        self._refunds.reset()
        self._deductions.reset()
        self._agreements.reset()


def _check_known(state: RefundState) -> None:
    if state is RefundState.ABNORMAL:
        raise DeskRefusal("REFUND_STATE_UNKNOWN", "Alipay knows no abnormal refunds", "settle as REFUNDED or FAILED")


def _check_buyer(trade: Trade, buyer: str | None) -> None:
    if buyer is not None and not PAYER_ID.fullmatch(buyer):
        raise BusinessRefusal("ACQ.INVALID_PARAMETER", "付款人必须是 2088 开头的 16 位数字")
    if buyer is not None and is_deduction(trade) and buyer != trade.buyer_id:
        raise BusinessRefusal("ACQ.INVALID_PARAMETER", "扣款的付款人由协议决定")


def _overrides(payment: Payment) -> dict[str, str]:
    """The fields of the notice that tell something else than the truth."""
    overrides: dict[str, str] = {}
    if payment.amount is not None:
        overrides |= dict.fromkeys(AMOUNT_FIELDS, payment.amount)
    named = {"app_id": payment.app_id, "seller_id": payment.seller_id, "buyer_id": payment.payer}
    overrides |= {name: value for name, value in named.items() if value is not None}
    return overrides | dict(payment.overrides)


def _check_encodable(name: str, value: str, codec: str) -> None:
    try:
        value.encode(codec)
    except UnicodeEncodeError as exc:
        raise BusinessRefusal("ACQ.INVALID_PARAMETER", f"{name} 不能用该交易的字符集 {codec} 编码") from exc

"""What becomes of a deduction: the rules of its agreement first, then what a test ordered, then the money moves.

    asked for ──► paid at once                                      10000
       │  └─────► accepted, WAIT_BUYER_PAY ──► paid or closed       10003, the end on the clock or by hand
       └────────► refused: no trade, unless it was ordered          40004

One deduction may succeed in each period, from some days before the planned date until that date, Beijing's.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from app.sandbox.alipay.agreements import Agreement, AgreementBook, AgreementStatus
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.trades import Product, Trade, TradeBook, TradeStatus

NOW, PROCESSING = "now", "processing"
ASYNC_DELAY = timedelta(seconds=30)

_WORDS = {
    "BUYER_BALANCE_NOT_ENOUGH": "买家余额不足",
    "BUYER_BANKCARD_BALANCE_NOT_ENOUGH": "用户银行卡余额不足",
    "NO_PAYMENT_INSTRUMENTS_AVAILABLE": "没有可用的支付工具",
    "MERCHANT_STATUS_NOT_NORMAL": "商户协议状态非正常",
    "SYSTEM_ERROR": "系统错误",
}


@dataclass(frozen=True, slots=True)
class DeductionPolicy:
    """How a deduction ends that breaks no rule of its agreement.

    `answer` is "now", "processing" or the sub_code of a refusal. One in process, and a refused one that `leaves_trade`,
    settles after `settle_after` on the sandbox clock or, with None, when told to: paid, or closed with `settles_paid`
    False. `late` pays it although it was closed meanwhile. `remaining` is for how many deductions this holds.
    """

    answer: str = NOW
    settle_after: timedelta | None = None
    settles_paid: bool = True
    leaves_trade: bool = False
    late: bool = False
    remaining: int | None = None


class Deductions:
    """Decides about deductions and moves their money; what is sent about it is the desk's."""

    def __init__(self, book: TradeBook, agreements: AgreementBook) -> None:
        self._book = book
        self._agreements = agreements
        self._policy = DeductionPolicy()
        self._policies: dict[str, DeductionPolicy] = {}  # by the merchant's number of the agreement

    def order(self, policy: DeductionPolicy, number: str | None) -> None:
        """From now on, for one agreement or for all that have no policy of their own."""
        if number is None:
            self._policy = policy
        else:
            self._policies[number] = policy

    def agreement_for(self, seller_id: str, agreement_no: str, product_code: str) -> Agreement:
        """The agreement to deduct under, also one that is over. Raises BusinessRefusal."""
        agreement = self._agreements.find_signed(seller_id, agreement_no)
        if agreement is None:
            raise BusinessRefusal("ACQ.AGREEMENT_NOT_EXIST", "用户协议不存在")
        if agreement.terms.product_code != product_code:
            raise BusinessRefusal("ACQ.INVALID_PARAMETER", f"参数无效：该协议的 product_code 不是 {product_code}")
        return agreement

    def begin(self, wanted: Trade, *, is_async: bool) -> tuple[Trade, DeductionPolicy]:
        """The deduction of this number: paid, in process, or refused as ordered. Raises BusinessRefusal by the rules.

        One that may be settled later is, unless something else was ordered. A repeat of one that is in process changes
        nothing, one that was refused and left its trade is tried again.
        """
        seller_id, number = wanted.account.seller_id, wanted.out_trade_no
        agreement = wanted.agreement
        assert agreement is not None, "its caller found one"
        if self._book.find_issued(seller_id, number) is not None:
            wanted = self._book.offer(wanted)
            if agreement.under_way == number:
                return wanted, DeductionPolicy(PROCESSING)  # whose end was seen to already
        self._check_rules(agreement, wanted)
        policy = self._take_policy(agreement)
        if is_async and policy.answer == NOW:
            policy = DeductionPolicy(PROCESSING, settle_after=ASYNC_DELAY)
        if policy.answer in (NOW, PROCESSING) or policy.leaves_trade:
            wanted = self._book.offer(wanted)
            self._book.open(wanted)
        if policy.answer == NOW:
            self.pay(wanted)
        elif policy.answer == PROCESSING:
            agreement.under_way = number
        elif policy.leaves_trade:
            self._book.fail(wanted, _words_of(policy.answer))
        return wanted, policy

    def pay(self, trade: Trade, *, late: bool = False) -> None:
        """The money moves and the plan moves on. Raises what TradeBook.pay does."""
        self._book.pay(trade, late=late)
        agreement = trade.agreement
        assert agreement is not None, "a deduction has one"
        assert trade.paid_at is not None, "it was just paid"
        if agreement.under_way == trade.out_trade_no:
            agreement.under_way = ""
        self._agreements.record(agreement, trade.out_trade_no, trade.terms.total_amount_fen, trade.paid_at)

    def settle(self, trade: Trade, policy: DeductionPolicy) -> bool:
        """The end of one in process; whether money moved. Nothing, when it came to its end otherwise."""
        self._book.expire(trade)
        if trade.is_paid or (trade.status is TradeStatus.TRADE_CLOSED and not policy.late):
            return False
        if policy.settles_paid:
            self.pay(trade, late=trade.status is TradeStatus.TRADE_CLOSED)
            return True
        if trade.status is TradeStatus.WAIT_BUYER_PAY:
            self._book.close(trade)
        return False

    def reset(self) -> None:
        self._policy = DeductionPolicy()
        self._policies.clear()

    def _check_rules(self, agreement: Agreement, trade: Trade) -> None:
        if agreement.status is AgreementStatus.EXPIRED:
            raise BusinessRefusal("ACQ.AGREEMENT_INVALID", "用户协议已失效")
        if agreement.status is not AgreementStatus.NORMAL:
            raise BusinessRefusal("ACQ.AGREEMENT_NOT_EXIST", "用户协议不存在：已经解约")
        if self._is_under_way(agreement):
            message = f"同一协议下有一笔扣款 {agreement.under_way} 正在处理"
            raise BusinessRefusal("ACQ.OVER_MAX_UNDER_WAY_DEDUCT_COUNT", message)
        rule, planned_on, amount_fen = agreement.terms.rule, agreement.planned_on, trade.terms.total_amount_fen
        if rule is None or planned_on is None:
            return
        if amount_fen > rule.single_amount_fen:
            raise BusinessRefusal("ACQ.CYCLE_PAY_SINGLE_FEE_EXCEED", "扣款金额超过协议约定的单次最大金额")
        if rule.total_amount_fen is not None and agreement.deducted_fen + amount_fen > rule.total_amount_fen:
            raise BusinessRefusal("ACQ.CYCLE_PAY_TOTAL_FEE_EXCEED", "扣款总金额超过协议约定")
        if rule.total_payments is not None and len(agreement.deductions) >= rule.total_payments:
            raise BusinessRefusal("ACQ.CYCLE_PAY_TOTAL_TIMES_EXCEED", "扣款总次数超过协议约定")
        today = self._agreements.today()
        opens_on = planned_on - timedelta(days=self._agreements.policy.window_days)
        if not opens_on <= today <= planned_on:
            message = f"扣款日期不在可扣款时间内：{today} 不在 {opens_on} 到 {planned_on} 之间"
            raise BusinessRefusal("ACQ.CYCLE_PAY_DATE_NOT_MATCH", message)

    def _is_under_way(self, agreement: Agreement) -> bool:
        """Whether another deduction is in process still; one that was closed or ran out is not."""
        if not agreement.under_way:
            return False
        seller_id = agreement.account.seller_id
        trade = self._book.find_existing(seller_id, trade_no="", out_trade_no=agreement.under_way)
        if trade is not None and trade.status is TradeStatus.WAIT_BUYER_PAY:
            return True
        agreement.under_way = ""
        return False

    def _take_policy(self, agreement: Agreement) -> DeductionPolicy:
        """The policy for this deduction, counted down; the last of its count leaves the ordinary one."""
        own = self._policies.get(agreement.number)
        policy = own or self._policy
        if policy.remaining is not None:
            left = replace(policy, remaining=policy.remaining - 1)
            if own is None:
                self._policy = left if left.remaining else DeductionPolicy()
            elif left.remaining:
                self._policies[agreement.number] = left
            else:
                del self._policies[agreement.number]
        return policy


def refusal_of(policy: DeductionPolicy) -> BusinessRefusal | None:
    if policy.answer in (NOW, PROCESSING):
        return None
    return BusinessRefusal(policy.answer, _words_of(policy.answer))


def is_deduction(trade: Trade) -> bool:
    return trade.terms.product is Product.DEDUCTION


def _words_of(sub_code: str) -> str:
    return _WORDS.get(sub_code.removeprefix("ACQ."), "沙箱按要求拒绝扣款")

"""Why Alipay refuses a deduction: what helps, and what to tell whom, by the last part of its code.

A code means something else here than for a payment: nobody sits before a page, and the next try is ours. Whoever is at
fault decides what follows: a blocked merchant must not cost all its payers their agreements.

    PAYER       no money, no card                      another day, and tell the payer
    LIMIT       a limit of the day or the month        another day
    WINDOW      not a day of the plan                  the plan's date, or put it off
    RULE        more than was agreed on                a new agreement
    AGREEMENT   over, or not in force                  ask about it
    MERCHANT    the merchant's contract or account     stop all, and raise an alarm
    FINAL       cannot be tried again                  also what we do not know

Source: the error enum of alipay.trade.pay in alipay-sdk-php-all@d95249a3 (v3/src/Model); support answers at
developer.aliyun.com/ask/285581 and /285590; opendocs.alipay.com/support/01rg2g, as mirrored in 2024.
"""

from typing import NamedTuple

from app.providers.alipay.explanations import Explanation
from app.providers.contract import DeductionRefusal

_PAYER = DeductionRefusal.PAYER
_LIMIT = DeductionRefusal.LIMIT
_WINDOW = DeductionRefusal.WINDOW
_RULE = DeductionRefusal.RULE
_AGREEMENT = DeductionRefusal.AGREEMENT
_MERCHANT = DeductionRefusal.MERCHANT
_FINAL = DeductionRefusal.FINAL


class Refusal(NamedTuple):
    """Who can do something about it, and what."""

    kind: DeductionRefusal
    explanation: Explanation


def deduction_refusal(reason: str) -> Refusal | None:
    """What this last part of a code means for a deduction; None for one that is not known."""
    found = _REFUSALS.get(reason)
    if found is None and reason.startswith(_RECEIPT_LIMITS):
        return _RECEIPT_LIMIT
    return found


def _refusal(kind: DeductionRefusal, english: str, chinese: str) -> Refusal:
    return Refusal(kind, Explanation(english, chinese))


# A family: BEYOND_PER_RECEIPT_SINGLE_RESTRICTION, BEYOND_PER_RECEIPT_DAY_RESTRICTION …
_RECEIPT_LIMITS = "BEYOND_PER_RECEIPT_"
_RECEIPT_LIMIT = _refusal(
    _LIMIT,
    "The merchant may take no more from one payer for now. It is tried again on another day; ask Alipay for more.",
    "超出商户对单个用户的收款限额：系统将改日再次扣款，如需提额请联系支付宝。",
)

_REFUSALS: dict[str, Refusal] = {
    "BUYER_BALANCE_NOT_ENOUGH": _refusal(
        _PAYER,
        "The payer's Alipay balance is too low. Ask the payer to top it up; it is tried again on another day.",
        "支付宝余额不足：请充值，系统将改日再次扣款。",
    ),
    "BUYER_BANKCARD_BALANCE_NOT_ENOUGH": _refusal(
        _PAYER,
        "The payer's bank card does not cover it. Ask the payer to see to it; it is tried again on another day.",
        "银行卡余额不足：请存入款项或更换付款方式，系统将改日再次扣款。",
    ),
    "BUYER_BANKCARD_INVALID": _refusal(
        _PAYER,
        "The payer's bank card is not valid. Ask the payer to bind another one; it is tried again on another day.",
        "银行卡无效：请在支付宝更换银行卡，系统将改日再次扣款。",
    ),
    "BUYER_BANKCARD_DECLINED": _refusal(
        _PAYER,
        "The payer's bank declined. Ask the payer to use another card; it is tried again on another day.",
        "银行卡扣款被拒：请在支付宝更换银行卡，系统将改日再次扣款。",
    ),
    "NO_PAYMENT_INSTRUMENTS_AVAILABLE": _refusal(
        _PAYER,
        "The payer has no means of payment that can be used. Ask the payer to add one in Alipay.",
        "没有可用的付款方式：请在支付宝添加付款方式。",
    ),
    "ERROR_BALANCE_PAYMENT_DISABLE": _refusal(
        _PAYER,
        "The payer has switched off paying by balance. Ask the payer to switch it on or to add a card.",
        "余额支付已关闭：请在支付宝开启余额支付或添加银行卡。",
    ),
    "PAYMENT_FAIL": _refusal(
        _PAYER,
        "Alipay could not take the money from the payer. Ask the payer to check; it is tried again on another day.",
        "扣款失败：请检查支付宝付款方式，系统将改日再次扣款。",
    ),
    "BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR": _refusal(
        _LIMIT,
        "The payer's limit for today is used up. It is tried again on another day.",
        "当日付款额度已用完：系统将改日再次扣款。",
    ),
    "BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR": _refusal(
        _LIMIT,
        "The payer's limit for this month is used up. It is tried again later; the payer can raise it in Alipay.",
        "当月付款额度已用完：可在支付宝提升额度，系统稍后再次扣款。",
    ),
    "BUYER_LIMIT_EXCEEDED": _refusal(
        _LIMIT,
        "A limit of the payer's is used up. It is tried again on another day.",
        "付款额度超限：系统将改日再次扣款。",
    ),
    "PRODUCT_AMOUNT_LIMIT_ERROR": _refusal(
        _LIMIT,
        "The amount is above what deductions may come to for now. It is tried again on another day.",
        "金额超出代扣产品限额：系统将改日再次扣款，请核对金额与签约限额。",
    ),
    "OVER_MERCHANT_DAILY_DEDUCT_AMOUNT": _refusal(
        _LIMIT,
        "The merchant's limit of deductions for today is used up. It is tried again on another day.",
        "商户当日代扣额度已用完：系统将改日再次扣款，如需提额请联系支付宝。",
    ),
    "CYCLE_PAY_DATE_NOT_MATCH": _refusal(
        _WINDOW,
        "Today is not within the days of the agreement's plan. It is tried again when it is, or the plan is put off.",
        "当前不在协议约定的扣款日期内：系统将在约定日期扣款，或先修改扣款计划。",
    ),
    "OVER_DEDUCT_PERIOD": _refusal(
        _WINDOW,
        "The days in which this period could be charged are over. The plan has to be put off first.",
        "已超出本期可扣款时间：需先延后扣款计划再扣款。",
    ),
    "CYCLE_PAY_SINGLE_FEE_EXCEED": _refusal(
        _RULE,
        "The amount is above what the payer agreed to for one deduction. A new agreement is needed.",
        "单次扣款金额超过用户签约的上限：需要用户重新签约。",
    ),
    "CYCLE_PAY_TOTAL_FEE_EXCEED": _refusal(
        _RULE,
        "All that the payer agreed to has been taken. A new agreement is needed.",
        "累计扣款金额超过用户签约的总额：需要用户重新签约。",
    ),
    "CYCLE_PAY_TOTAL_TIMES_EXCEED": _refusal(
        _RULE,
        "It was charged as often as the payer agreed to. A new agreement is needed.",
        "扣款次数已达用户签约的总次数：需要用户重新签约。",
    ),
    "OVER_MAX_DEDUCT_COUNT": _refusal(
        _RULE,
        "It was charged as often as the agreement allows. A new agreement is needed.",
        "扣款次数超过协议上限：需要用户重新签约。",
    ),
    "OVER_MAX_UNDER_WAY_DEDUCT_COUNT": _refusal(
        _RULE,
        "More deductions are under way than the agreement allows. Let them end first, or agree anew.",
        "进行中的扣款笔数超过协议上限：请等待其完成，或让用户重新签约。",
    ),
    "AGREEMENT_NOT_EXIST": _refusal(
        _AGREEMENT,
        "Alipay knows no such agreement, or the payer has cancelled it. It is being asked about.",
        "协议不存在或用户已解约：系统正在查询协议状态。",
    ),
    "AGREEMENT_INVALID": _refusal(
        _AGREEMENT,
        "The agreement has run out. It is being asked about; the payer has to agree anew.",
        "协议已失效：系统正在查询协议状态，需要用户重新签约。",
    ),
    "AGREEMENT_STATUS_NOT_NORMAL": _refusal(
        _AGREEMENT,
        "The agreement is not in force. It is being asked about.",
        "协议状态不正常：系统正在查询协议状态。",
    ),
    "AGREEMENT_ERROR": _refusal(
        _AGREEMENT,
        "Alipay does not take the agreement. It is being asked about.",
        "协议信息有误：系统正在查询协议状态。",
    ),
    "MERCHANT_AGREEMENT_NOT_EXIST": _refusal(
        _MERCHANT,
        "The merchant has no contract for deductions. Sign the product on the Alipay merchant platform, and check "
        "cycle_product; no payer is at fault.",
        "商户协议不存在：请在支付宝商家平台签约扣款产品并检查 cycle_product，与用户无关。",
    ),
    "MERCHANT_AGREEMENT_INVALID": _refusal(
        _MERCHANT,
        "The merchant's contract for deductions has run out. Renew it on the Alipay merchant platform; no payer is at "
        "fault.",
        "商户协议已失效：请在支付宝商家平台续签，与用户无关。",
    ),
    "MERCHANT_STATUS_NOT_NORMAL": _refusal(
        _MERCHANT,
        "The merchant's contract is not in force. Activate it on the Alipay merchant platform; no payer is at fault.",
        "商户协议状态不正常：请在支付宝商家平台重新激活产品，与用户无关。",
    ),
    "SELLER_BEEN_BLOCKED": _refusal(
        _MERCHANT,
        "The merchant's Alipay account is blocked. Contact Alipay customer service; no payer is at fault.",
        "商家账号被冻结：请联系支付宝客服处理，与用户无关。",
    ),
    "ACCESS_FORBIDDEN": _refusal(
        _MERCHANT,
        "The merchant may not deduct. Sign the product on the Alipay merchant platform; no payer is at fault.",
        "无权使用扣款产品：请在支付宝商家平台完成产品签约，与用户无关。",
    ),
    "PARTNER_ERROR": _refusal(
        _MERCHANT,
        "The app is not set up for this merchant. Check app_id and its binding to the merchant; no payer is at fault.",
        "应用 APP_ID 填写错误或未绑定商户：请检查 app_id 及其绑定关系，与用户无关。",
    ),
    "RESTRICTED_MERCHANT_INDUSTRY": _refusal(
        _MERCHANT,
        "Alipay allows no deductions in the merchant's line of business. Contact Alipay; no payer is at fault.",
        "商户所属行业限制代扣：请联系支付宝，与用户无关。",
    ),
    "BUYER_ENABLE_STATUS_FORBID": _refusal(
        _FINAL,
        "The payer's Alipay account is in a state that cannot pay. Ask the payer to contact Alipay.",
        "支付宝账户状态异常，无法付款：请联系支付宝。",
    ),
    "BUYER_NOT_EXIST": _refusal(
        _FINAL,
        "The payer's Alipay account no longer exists. Another agreement with another account is needed.",
        "用户支付宝账户不存在：需要用户使用其他账户重新签约。",
    ),
    "PAYMENT_REQUEST_HAS_RISK": _refusal(
        _FINAL,
        "Alipay's risk control stopped it. It is not tried again; let the payer pay in another way.",
        "该笔扣款存在风险被拦截：不再重试，请引导用户以其他方式付款。",
    ),
    "UN_SUPPORT_TRADE_SCENE": _refusal(
        _FINAL,
        "The agreement's scene does not allow this deduction. Check the scene on the Alipay merchant platform.",
        "协议场景不支持该扣款：请在支付宝商家平台检查签约场景。",
    ),
    "INVALID_PARAMETER": _refusal(
        _FINAL,
        "Alipay refused a field of the deduction; its message names which one.",
        "扣款参数无效：请根据支付宝返回的信息检查对应字段。",
    ),
    "RISK_MERCHANT_IP_NOT_EXIST": _refusal(
        _FINAL,
        "Alipay's risk control wants a network address, which a deduction has not. Contact Alipay customer service.",
        "风控要求提供创建交易的 IP，代扣无法提供：请联系支付宝客服处理。",
    ),
}

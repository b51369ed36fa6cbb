"""How APIv2 refuses, on its two levels.

    TransportRefusal   return_code FAIL and a return_msg, unsigned: unreadable, badly formed, wrong signature
    BusinessRefusal    return_code SUCCESS, result_code FAIL, err_code and err_code_des, signed

The cloud calls wrap the same two.
"""

from app.sandbox.wechat.refunds import MAX_REFUNDS, RefundReason, RefundRefusal
from app.sandbox.wechat.trades import Reason, TradeRefusal


class TransportRefusal(Exception):
    """Nothing was changed. `return_msg` is what WeChat says in Chinese."""

    def __init__(self, return_msg: str) -> None:
        super().__init__(return_msg)
        self.return_msg = return_msg


class BusinessRefusal(Exception):
    """Nothing was changed."""

    def __init__(self, err_code: str, err_code_des: str) -> None:
        super().__init__(f"{err_code} {err_code_des}")
        self.err_code = err_code
        self.err_code_des = err_code_des


WRONG_SIGNATURE = "签名错误，请检查后再试"
NO_RELATION = "受理关系不存在"
NO_MERCHANT = "商户号mch_id或sub_mch_id不存在"

_OF_A_TRADE = {
    Reason.PAID: ("ORDERPAID", "该订单已支付"),
    Reason.CLOSED: ("ORDERCLOSED", "该订单已关闭"),
    Reason.OTHER_PARAMETERS: ("INVALID_REQUEST", "订单重入时，参数与首次请求时不一致"),
    Reason.NUMBER_USED: ("OUT_TRADE_NO_USED", "商户订单号重复"),
}

# Codes of the documentation, in the words and on the level that merchants report them. For a number that belongs to a
# refund of another order neither is known.
_DISCORDANT = ("REFUND_FEE_MISMATCH", "订单金额或退款金额与之前请求不一致，请核实后再试")
_OF_A_REFUND = {
    RefundReason.UNPAID: ("ORDERNOTEXIST", "订单号不存在"),
    RefundReason.TOO_OLD: ("TRADE_OVERDUE", "订单已经超过退款期限"),
    RefundReason.WRONG_TOTAL: _DISCORDANT,
    RefundReason.OTHER_AMOUNT: _DISCORDANT,
    RefundReason.ABOVE_REST: ("INVALID_REQUEST", "refund_fee大于可退金额"),
    RefundReason.REFUNDED_IN_FULL: ("ERROR", "订单已全额退款"),
    RefundReason.TOO_MANY: ("ERROR", f"每个支付订单的部分退款次数不能超过{MAX_REFUNDS}次"),
    RefundReason.OTHER_ORDER: ("ERROR", "商户退款单号已用于其他订单"),
}


def of_a_trade(refusal: TradeRefusal) -> BusinessRefusal:
    return BusinessRefusal(*_OF_A_TRADE[refusal.reason])


def of_a_refund(refusal: RefundRefusal) -> BusinessRefusal | TransportRefusal:
    if refusal.reason is RefundReason.ABOVE_TOTAL:
        return TransportRefusal("invalid refund_fee")
    return BusinessRefusal(*_OF_A_REFUND[refusal.reason])


def no_such_order() -> BusinessRefusal:
    return BusinessRefusal("ORDERNOTEXIST", "订单不存在")


def missing(name: str) -> BusinessRefusal:
    return BusinessRefusal("LACK_PARAMS", f"缺少参数：{name}")


def badly_formed(name: str, wanted: str) -> TransportRefusal:
    return TransportRefusal(f"参数格式校验错误：{name} {wanted}")

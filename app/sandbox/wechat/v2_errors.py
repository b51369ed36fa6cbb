"""How APIv2 refuses, on its two levels.

    TransportRefusal   return_code FAIL and a return_msg, unsigned: unreadable, badly formed, wrong signature
    BusinessRefusal    return_code SUCCESS, result_code FAIL, err_code and err_code_des, signed

The cloud calls wrap the same two.
"""

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


def of_a_trade(refusal: TradeRefusal) -> BusinessRefusal:
    return BusinessRefusal(*_OF_A_TRADE[refusal.reason])


def no_such_order() -> BusinessRefusal:
    return BusinessRefusal("ORDERNOTEXIST", "订单不存在")


def missing(name: str) -> BusinessRefusal:
    return BusinessRefusal("LACK_PARAMS", f"缺少参数：{name}")


def badly_formed(name: str, wanted: str) -> TransportRefusal:
    return TransportRefusal(f"参数格式校验错误：{name} {wanted}")

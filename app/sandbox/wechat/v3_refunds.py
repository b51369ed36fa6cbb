"""What APIv3 does with a verified call about a refund, of a merchant or of a service provider.

Every function returns the fields of a success or raises V3Refusal; signing and framing are v3.py's. A new refund is
answered as PROCESSING: 200 says that it was accepted, not that the payer has the money.
Source: pay.weixin.qq.com/doc/v3/merchant/4012791862 and doc/v3/partner/4012886219, read 2026-09. Which words go with
INVALID_REQUEST is not documented; those here are what merchants report.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.sandbox.clock import BEIJING
from app.sandbox.desks import RefundState
from app.sandbox.wechat.accounts import Merchant
from app.sandbox.wechat.errors import V3Refusal, parameter_error
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.refunds import MAX_REFUNDS, RefundReason, RefundRefusal
from app.sandbox.wechat.trades import Refund, RefundWish, Trade
from app.sandbox.wechat.v3_fields import Body, check_body, read_body, read_query, refund_fields

RECEIVED_BY = "支付用户零钱"
STATUSES = {
    RefundState.PROCESSING: "PROCESSING",
    RefundState.REFUNDED: "SUCCESS",
    RefundState.FAILED: "CLOSED",
    RefundState.ABNORMAL: "ABNORMAL",
}
_DISCORDANT = ("INVALID_REQUEST", "订单金额或退款金额与之前请求不一致，请核实后再试")
_REFUSALS = {
    RefundReason.UNPAID: ("RESOURCE_NOT_EXISTS", "订单不存在或未支付"),
    RefundReason.TOO_OLD: ("INVALID_REQUEST", "订单已超过可退款的最大期限"),
    RefundReason.WRONG_TOTAL: _DISCORDANT,
    RefundReason.ABOVE_TOTAL: ("INVALID_REQUEST", "退款金额大于支付金额"),
    RefundReason.ABOVE_REST: ("INVALID_REQUEST", "申请退款金额大于可退金额"),
    RefundReason.REFUNDED_IN_FULL: ("INVALID_REQUEST", "订单已全额退款"),
    RefundReason.TOO_MANY: ("INVALID_REQUEST", f"单个订单的退款次数不能超过{MAX_REFUNDS}次"),
    RefundReason.OTHER_AMOUNT: _DISCORDANT,
    RefundReason.OTHER_ORDER: ("INVALID_REQUEST", "商户退款单号已用于其他订单"),
}


@dataclass(frozen=True, slots=True)
class V3Refunds:
    wechat: WeChat

    def create(self, merchant: Merchant, raw: bytes) -> Body:
        body = read_body(raw)
        check_body(body, refund_fields(is_partner=merchant.sub_mchid is not None))
        _check_sub_merchant(merchant, body)
        wish = _wish(body)
        try:
            return _answer(self.wechat.desk.refund(self._order(merchant, body), wish))
        except RefundRefusal as refused:
            raise V3Refusal(*_REFUSALS[refused.reason]) from refused

    def query(self, merchant: Merchant, raw_query: bytes, out_refund_no: str) -> Body:
        _check_sub_merchant(merchant, read_query(raw_query, ("sub_mchid",) if merchant.sub_mchid else ()))
        refund = self.wechat.refunds.find(merchant.seller_id, out_refund_no=out_refund_no)
        if refund is None:
            raise V3Refusal("RESOURCE_NOT_EXISTS", "退款单不存在")
        return _answer(refund)

    def _order(self, merchant: Merchant, body: Body) -> Trade:
        """By either of its numbers; both have to be its own when both are given."""
        numbers = {name: body.get(name, "") for name in ("out_trade_no", "transaction_id")}
        if not any(numbers.values()):
            raise parameter_error("/out_trade_no", "transaction_id与out_trade_no须传一个")
        trade = self.wechat.book.find(merchant.seller_id, **numbers)
        if trade is None or numbers["out_trade_no"] not in ("", trade.out_trade_no):
            raise V3Refusal("RESOURCE_NOT_EXISTS", "订单不存在或未支付")
        return trade


def _wish(body: Body) -> RefundWish:
    amount = body["amount"]
    sources = tuple((source["account"], source["amount"]) for source in amount.get("from", []))
    if sources and sum(fen for _, fen in sources) != amount["refund"]:
        raise parameter_error("/amount/from", "各账户出资金额之和须等于退款金额")
    return RefundWish(
        out_refund_no=body["out_refund_no"],
        amount_fen=amount["refund"],
        total_fen=amount["total"],
        reason=body.get("reason", ""),
        notify_url=body.get("notify_url", ""),
        funds=body.get("funds_account", ""),
        sources=sources,
    )


def _answer(refund: Refund) -> Body:
    trade, wish = refund.trade, refund.wish
    fields: dict[str, Any] = {
        "refund_id": refund.refund_id,
        "out_refund_no": wish.out_refund_no,
        "transaction_id": trade.transaction_id,
        "out_trade_no": trade.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": RECEIVED_BY,
        "create_time": _beijing(refund.created_at),
        "status": STATUSES[refund.state],
        "funds_account": wish.funds or "AVAILABLE",
        "amount": {
            "total": trade.order.total_fen,
            "refund": wish.amount_fen,
            "from": [{"account": account, "amount": fen} for account, fen in wish.sources],
            "payer_total": trade.order.total_fen,
            "payer_refund": wish.amount_fen,
            "settlement_refund": wish.amount_fen,
            "settlement_total": trade.order.total_fen,
            "discount_refund": 0,
            "currency": "CNY",
            "refund_fee": 0,
        },
        "promotion_detail": [],
    }
    return fields | ({"success_time": _beijing(refund.refunded_at)} if refund.refunded_at else {})


def _beijing(instant: datetime) -> str:
    return instant.astimezone(BEIJING).isoformat(timespec="seconds")


def _check_sub_merchant(merchant: Merchant, given: Body) -> None:
    if merchant.sub_mchid and given["sub_mchid"] != merchant.sub_mchid:
        raise V3Refusal("NO_AUTH", "受理关系不存在")

"""What APIv2 does with a verified call about a refund, and the words the cloud calls share with it.

POST /secapi/pay/refund demands a client certificate (apiclient_cert.p12) of merchants. The sandbox is served on plain
http, where no caller can show one, so it asks for none: whether a merchant presents his is not tested here.

A refund may be found by any of four numbers; an order's are told ten at a time, oldest first.
Source: pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_4, 9_5, read 2026-09.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.sandbox.clock import format_beijing
from app.sandbox.desks import RefundState
from app.sandbox.wechat.accounts import Merchant
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.trades import Refund, RefundWish, Trade
from app.sandbox.wechat.v2_errors import BusinessRefusal, no_such_order

PAGE = 10
RECEIVED_BY = "支付用户零钱"
DEFAULT_ACCOUNT = "REFUND_SOURCE_UNSETTLED_FUNDS"
STATUSES = {
    RefundState.PROCESSING: "PROCESSING",
    RefundState.REFUNDED: "SUCCESS",
    RefundState.FAILED: "REFUNDCLOSE",
    RefundState.ABNORMAL: "CHANGE",
}
_ORDER_NUMBERS = ("transaction_id", "out_trade_no")
_REFUND_NUMBERS = ("refund_id", "out_refund_no")


@dataclass(frozen=True, slots=True)
class FoundRefunds:
    """Some refunds of one order; `of_order` is how many it has when it was asked for as a whole."""

    trade: Trade
    refunds: list[Refund]
    of_order: int | None


@dataclass(frozen=True, slots=True)
class V2Refunds:
    """`fields` are in form; numbers may be texts, as APIv2 writes them."""

    wechat: WeChat

    def create(self, merchant: Merchant, fields: Mapping[str, Any], notify_url: str) -> dict[str, str | int]:
        """Ask for a refund; the fields of the answer. Raises BusinessRefusal, RefundRefusal."""
        _check_given(fields, "out_refund_no", "total_fee", "refund_fee")
        wish = RefundWish(
            out_refund_no=fields["out_refund_no"],
            amount_fen=int(fields["refund_fee"]),
            total_fen=int(fields["total_fee"]),
            reason=fields.get("refund_desc", ""),
            notify_url=notify_url,
            funds=fields.get("refund_account", ""),
        )
        refund = self.wechat.desk.refund(self._order(merchant, fields), wish)
        trade = refund.trade
        return {
            "transaction_id": trade.transaction_id,
            "out_trade_no": trade.out_trade_no,
            "out_refund_no": refund.wish.out_refund_no,
            "refund_id": refund.refund_id,
            "refund_fee": refund.wish.amount_fen,
            "coupon_refund_fee": 0,
            "total_fee": trade.order.total_fen,
            "cash_fee": trade.order.total_fen,
            "coupon_refund_count": 0,
            "cash_refund_fee": refund.wish.amount_fen,
        }

    def find(self, merchant: Merchant, fields: Mapping[str, Any]) -> FoundRefunds:
        """By the first that is given of refund_id, out_refund_no, transaction_id and out_trade_no.

        Raises BusinessRefusal PARAM_ERROR, REFUNDNOTEXIST, INVALID_TRANSACTIONID.
        """
        if not fields.keys() & {*_REFUND_NUMBERS, *_ORDER_NUMBERS}:
            raise BusinessRefusal("PARAM_ERROR", "缺少参数：refund_id、out_refund_no、transaction_id 或 out_trade_no")
        numbers = {name: fields.get(name, "") for name in _REFUND_NUMBERS}
        if any(numbers.values()):
            refund = self.wechat.refunds.find(merchant.seller_id, **numbers)
            if refund is None:
                raise _no_such_refund()
            return FoundRefunds(refund.trade, [refund], None)
        trade = self._found(merchant, fields)
        if trade is None or not trade.refunds:
            raise _no_such_refund()
        offset, count = int(fields.get("offset", 0)), len(trade.refunds)
        if offset >= count:
            raise BusinessRefusal("PARAM_ERROR", "offset超过total_refund_count")
        return FoundRefunds(trade, trade.refunds[offset : offset + PAGE], count)

    def _order(self, merchant: Merchant, fields: Mapping[str, Any]) -> Trade:
        """Raises BusinessRefusal PARAM_ERROR, INVALID_TRANSACTIONID, ORDERNOTEXIST."""
        if not fields.keys() & set(_ORDER_NUMBERS):
            raise BusinessRefusal("PARAM_ERROR", "缺少参数：transaction_id 或 out_trade_no")
        trade = self._found(merchant, fields)
        if trade is None or fields.get("out_trade_no", trade.out_trade_no) != trade.out_trade_no:
            raise no_such_order()
        return trade

    def _found(self, merchant: Merchant, fields: Mapping[str, Any]) -> Trade | None:
        """By WeChat's number when it is given. Raises BusinessRefusal INVALID_TRANSACTIONID."""
        trade = self.wechat.book.find(merchant.seller_id, **{name: fields.get(name, "") for name in _ORDER_NUMBERS})
        if trade is None and "transaction_id" in fields:
            raise BusinessRefusal("INVALID_TRANSACTIONID", "无效transaction_id")
        return trade


def numbered(found: FoundRefunds) -> dict[str, str | int]:
    """The answer of APIv2's query: what is a refund's own ends in `_$n`, from 0 on every page."""
    fields: dict[str, str | int] = {**shared_fields(found), "fee_type": "CNY"}
    for n, refund in enumerate(found.refunds):
        fields |= {f"{name}_{n}": value for name, value in fields_of(refund).items() if value != ""}
    return fields


def shared_fields(found: FoundRefunds) -> dict[str, str | int]:
    """What an answer about refunds says of their order."""
    fields: dict[str, str | int] = {
        "transaction_id": found.trade.transaction_id,
        "out_trade_no": found.trade.out_trade_no,
        "total_fee": found.trade.order.total_fen,
        "cash_fee": found.trade.order.total_fen,
        "refund_count": len(found.refunds),
    }
    return fields if found.of_order is None else fields | {"total_refund_count": found.of_order}


def fields_of(refund: Refund) -> dict[str, str | int]:
    """What an answer says of one refund; without a time of success, which is empty, until there is one."""
    return {
        "out_refund_no": refund.wish.out_refund_no,
        "refund_id": refund.refund_id,
        "refund_channel": "ORIGINAL",
        "refund_fee": refund.wish.amount_fen,
        "settlement_refund_fee": refund.wish.amount_fen,
        "coupon_refund_fee": 0,
        "coupon_refund_count": 0,
        "refund_status": STATUSES[refund.state],
        "refund_account": refund.wish.funds or DEFAULT_ACCOUNT,
        "refund_recv_accout": RECEIVED_BY,  # their spelling
        "refund_success_time": format_beijing(refund.refunded_at) if refund.refunded_at else "",
    }


def _check_given(fields: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name not in fields:
            raise BusinessRefusal("PARAM_ERROR", f"缺少参数：{name}")


def _no_such_refund() -> BusinessRefusal:
    return BusinessRefusal("REFUNDNOTEXIST", "退款订单不存在")

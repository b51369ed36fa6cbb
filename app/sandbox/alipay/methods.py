"""What each method does with a verified call: its fields, the trade, the answer's fields.

Every function returns the business fields of a success, or for a page where it is, or raises a Refusal; signing and
framing are the gateway's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.sandbox.alipay.callers import Call, check_fresh
from app.sandbox.alipay.errors import BusinessRefusal, GatewayRefusal, invalid_field
from app.sandbox.alipay.fields import (
    CLOSE,
    PAGE_PAY,
    PRECREATE,
    QUERY,
    REFUND,
    REFUND_QUERY,
    WAP_PAY,
    Field,
    check_fields,
    format_amount,
    parse_amount,
    read_biz_content,
    timeout_of,
)
from app.sandbox.alipay.orders import PAGE_TIMEOUT, QR_TIMEOUT, new_trade
from app.sandbox.alipay.payers import logon_id_of
from app.sandbox.alipay.refunds import Refunds, check_amount_without_number
from app.sandbox.alipay.trades import (
    QR_CODE_LIFE,
    Product,
    Refund,
    Trade,
    TradeBook,
    TradeStatus,
)
from app.sandbox.clock import SandboxClock, format_beijing


class Methods:
    """The product behind the gateway. `public_url` is where the payer's links lead.

    `follow_refund` sees to what comes after a refund that was newly asked for: its notice, or its settling.
    """

    def __init__(
        self,
        book: TradeBook,
        refunds: Refunds,
        clock: SandboxClock,
        public_url: str,
        *,
        follow_refund: Callable[[Trade, Refund], None],
    ) -> None:
        self._book = book
        self._refunds = refunds
        self._follow_refund = follow_refund
        self._clock = clock
        self._public_url = public_url
        self.page: Mapping[str, Callable[[Call], str]] = {
            "alipay.trade.page.pay": lambda call: self._open_page(call, Product.PAGE, PAGE_PAY),
            "alipay.trade.wap.pay": lambda call: self._open_page(call, Product.WAP, WAP_PAY),
        }
        self.execute: Mapping[str, Callable[[Call], dict[str, object]]] = {
            "alipay.trade.precreate": self._precreate,
            "alipay.trade.query": self._query,
            "alipay.trade.close": self._close,
            "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._refund_query,
        }

    def _open_page(self, call: Call, product: Product, fields: dict[str, Field]) -> str:
        """Where the payment page of a page.pay or wap.pay link is; the trade itself begins when the page is shown.

        A link that names its own timeout may be opened until then; any other is as fresh as an ordinary call.
        """
        content = read_biz_content(call.biz_content)
        check_fields(content, fields)
        if not {"time_expire", "timeout_express"} & content.keys():
            check_fresh(call.generated_at, self._clock)
        trade = new_trade(call, content, product, self._clock, default_timeout=PAGE_TIMEOUT)
        return f"/alipay/pay/{self._book.offer(trade).token}"

    def _precreate(self, call: Call) -> dict[str, object]:
        content = read_biz_content(call.biz_content)
        check_fields(content, PRECREATE)
        trade = new_trade(call, content, Product.QR, self._clock, default_timeout=QR_TIMEOUT)
        code_life = timeout_of(content, "qr_code_timeout_express", generated_at=call.generated_at, default=QR_CODE_LIFE)
        trade.qr_code_expires_at = self._clock.now() + code_life
        trade = self._book.offer(trade)
        return {
            "out_trade_no": trade.out_trade_no,
            "qr_code": f"{self._public_url}/alipay/qr/{trade.token}",
        }

    def _query(self, call: Call) -> dict[str, object]:
        content = read_biz_content(call.biz_content)
        check_fields(content, QUERY)
        nothing_paid = amounts(0)
        trade = self._existing(call, content, echoed={"out_trade_no": content.get("out_trade_no", ""), **nothing_paid})
        terms = trade.terms
        answer: dict[str, object] = {
            "buyer_logon_id": logon_id_of(trade.buyer_id),
            **amounts(terms.total_amount_fen if trade.is_paid else 0),
            "buyer_user_id": trade.buyer_id,
            "buyer_user_type": "PRIVATE",
            "out_trade_no": trade.out_trade_no,
            "subject": terms.subject,
            "total_amount": format_amount(terms.total_amount_fen),
            "trade_no": trade.trade_no,
            "trade_status": trade.status.value,
        }
        if terms.body:
            answer["body"] = terms.body
        if trade.is_paid and trade.paid_at:
            amount = format_amount(terms.total_amount_fen)
            answer["send_pay_date"] = format_beijing(trade.paid_at)
            answer["fund_bill_list"] = [{"fund_channel": "ALIPAYACCOUNT", "amount": amount}]
        if trade.last_failure and trade.status is TradeStatus.WAIT_BUYER_PAY:
            answer["unpaid_reason"] = trade.last_failure
        return answer

    def _close(self, call: Call) -> dict[str, object]:
        content = read_biz_content(call.biz_content)
        check_fields(content, CLOSE)
        trade = self._existing(call, content, echoed={})
        self._book.close(trade)
        return {"out_trade_no": trade.out_trade_no, "trade_no": trade.trade_no}

    def _refund(self, call: Call) -> dict[str, object]:
        """`fund_change` says whether this very call moved the money; `refund_fee` is all that was ever refunded."""
        content = read_biz_content(call.biz_content)
        check_fields(content, REFUND)
        trade = self._existing(call, content, echoed={})
        amount_fen = parse_amount("refund_amount", content["refund_amount"])
        if "out_request_no" not in content:
            check_amount_without_number(trade, amount_fen)
        refund, is_new = self._refunds.ask(
            trade,
            content.get("out_request_no", trade.out_trade_no),
            amount_fen=amount_fen,
            reason=content.get("refund_reason", ""),
        )
        if is_new:
            self._follow_refund(trade, refund)
        answer: dict[str, object] = {
            "buyer_logon_id": logon_id_of(trade.buyer_id),
            "buyer_user_id": trade.buyer_id,
            "fund_change": "Y" if is_new and refund.refunded_at else "N",
            "out_trade_no": trade.out_trade_no,
            "refund_fee": format_amount(trade.refunded_fen),
            "trade_no": trade.trade_no,
        }
        if refund.refunded_at:
            answer["gmt_refund_pay"] = format_beijing(refund.refunded_at)
            answer |= _asked_for(refund, content.get("query_options", []))
        return answer

    def _refund_query(self, call: Call) -> dict[str, object]:
        """Nothing at all about a refund that has not succeeded."""
        content = read_biz_content(call.biz_content)
        check_fields(content, REFUND_QUERY)
        trade = self._existing(call, content, echoed={})
        refund = trade.refunds.get(content["out_request_no"])
        if refund is None or refund.refunded_at is None:
            return {}
        answer: dict[str, object] = {
            "out_request_no": refund.out_request_no,
            "out_trade_no": trade.out_trade_no,
            "refund_amount": format_amount(refund.amount_fen),
            "refund_status": "REFUND_SUCCESS",
            "total_amount": format_amount(trade.terms.total_amount_fen),
            "trade_no": trade.trade_no,
        }
        if refund.reason:
            answer["refund_reason"] = refund.reason
        options = content.get("query_options", [])
        if "gmt_refund_pay" in options:
            answer["gmt_refund_pay"] = format_beijing(refund.refunded_at)
        return answer | _asked_for(refund, options)

    def _existing(self, call: Call, content: dict[str, Any], *, echoed: dict[str, object]) -> Trade:
        trade_no, out_trade_no = content.get("trade_no", ""), content.get("out_trade_no", "")
        if not trade_no and not out_trade_no:
            raise invalid_field("out_trade_no", "与 trade_no 不能同时为空")
        trade = self._book.find_existing(call.account.seller_id, trade_no=trade_no, out_trade_no=out_trade_no)
        if trade is None:
            raise BusinessRefusal("ACQ.TRADE_NOT_EXIST", "交易不存在", echoed=echoed)
        return trade


def _asked_for(refund: Refund, options: Sequence[str]) -> dict[str, object]:
    """What an answer about a refund holds only on request. The buyer's money never went through a bank here."""
    answer: dict[str, object] = {}
    amount = format_amount(refund.amount_fen)
    if "refund_detail_item_list" in options:
        answer["refund_detail_item_list"] = [{"fund_channel": "ALIPAYACCOUNT", "amount": amount}]
        answer["send_back_fee"] = amount
    if "deposit_back_info" in options:
        answer["deposit_back_info"] = {"has_deposit_back": "false"}
    return answer


def unknown_method(method: str) -> GatewayRefusal:
    if not method:
        return GatewayRefusal("40001", "isv.missing-method", "缺少方法名参数")
    return GatewayRefusal("40002", "isv.invalid-method", "不存在的方法名")


def amounts(fen: int) -> dict[str, object]:
    """The amounts of an answer that are zero until the payer paid."""
    amount = format_amount(fen)
    return {
        "buyer_pay_amount": amount,
        "invoice_amount": amount,
        "point_amount": "0.00",
        "receipt_amount": amount,
    }

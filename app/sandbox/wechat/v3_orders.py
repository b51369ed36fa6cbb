"""What APIv3 does with a verified call: prepay, query and close, for merchants and for service providers.

Every function returns the fields of a success or raises V3Refusal; signing and framing are v3.py's.
"""

import json
from dataclasses import dataclass
from typing import Any

from app.sandbox.clock import BEIJING
from app.sandbox.wechat.accounts import Merchant
from app.sandbox.wechat.errors import V3Refusal, parameter_error
from app.sandbox.wechat.open_platform_users import OPENID_FORM
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.trades import (
    STATE_WORDS,
    Channel,
    Credential,
    Order,
    Product,
    Reason,
    Trade,
    TradeRefusal,
)
from app.sandbox.wechat.v3_fields import (
    Body,
    check_body,
    close_fields,
    order_fields,
    parse_moment,
    read_body,
    read_query,
)

_CODES = {
    Reason.PAID: "ORDER_PAID",
    Reason.CLOSED: "ORDER_CLOSED",
    Reason.OTHER_PARAMETERS: "INVALID_REQUEST",
    Reason.NUMBER_USED: "OUT_TRADE_NO_USED",
}
# What an order is known by itself; everything else in the body goes into `others`.
_KNOWN_FIELDS = {
    *("appid", "mchid", "sp_appid", "sp_mchid", "sub_appid", "sub_mchid", "payer"),
    *("description", "out_trade_no", "notify_url", "attach", "time_expire"),
}


@dataclass(frozen=True, slots=True)
class V3Orders:
    wechat: WeChat
    channel: Channel

    def prepay(self, merchant: Merchant, product: Product, raw: bytes) -> Body:
        body = read_body(raw)
        is_partner = merchant.sub_mchid is not None
        check_body(body, order_fields(product, is_partner=is_partner))
        _check_merchant(merchant, body, location="body")
        order = self._order(merchant, product, body)
        try:
            credential = self.wechat.book.place(merchant, body["out_trade_no"], order)
        except TradeRefusal as refused:
            raise V3Refusal(_CODES[refused.reason]) from refused
        return self._handed_out(credential)

    def query(self, merchant: Merchant, raw_query: bytes, *, out_trade_no: str = "", transaction_id: str = "") -> Body:
        names = ("sp_mchid", "sub_mchid") if merchant.sub_mchid else ("mchid",)
        _check_merchant(merchant, read_query(raw_query, names), location="query")
        trade = self.wechat.book.find(merchant.seller_id, out_trade_no=out_trade_no, transaction_id=transaction_id)
        if trade is None:
            raise V3Refusal("ORDER_NOT_EXIST")
        return trade_fields(trade)

    def close(self, merchant: Merchant, out_trade_no: str, raw: bytes) -> None:
        """Closing what is closed changes nothing."""
        body = read_body(raw)
        check_body(body, close_fields(is_partner=merchant.sub_mchid is not None))
        _check_merchant(merchant, body, location="body")
        trade = self.wechat.book.find(merchant.seller_id, out_trade_no=out_trade_no)
        if trade is None:
            raise V3Refusal("ORDER_NOT_EXIST")
        try:
            self.wechat.book.close(trade)
        except TradeRefusal as refused:
            if refused.reason is not Reason.CLOSED:
                raise V3Refusal(_CODES[refused.reason]) from refused

    def _order(self, merchant: Merchant, product: Product, body: Body) -> Order:
        is_partner = merchant.sub_mchid is not None
        appid, sub_appid = body["sp_appid" if is_partner else "appid"], body.get("sub_appid", "")
        if appid not in merchant.appids:
            raise V3Refusal("APPID_MCHID_NOT_MATCH")
        if sub_appid and sub_appid not in merchant.appids:
            raise V3Refusal("APPID_MCHID_NOT_MATCH", "sub_appid和sub_mch_id不匹配，请检查后再试")
        openid, sub_openid = self._openids(body, appid, sub_appid) if product is Product.JSAPI else ("", "")
        others = {name: value for name, value in body.items() if name not in _KNOWN_FIELDS}
        return Order(
            channel=self.channel,
            product=product,
            appid=appid,
            sub_appid=sub_appid,
            description=body["description"],
            total_fen=body["amount"]["total"],
            openid=openid,
            sub_openid=sub_openid,
            notify_url=body["notify_url"],
            attach=body.get("attach", ""),
            time_expire=parse_moment(body["time_expire"]) if "time_expire" in body else None,
            others=json.dumps(others, sort_keys=True),
        )

    def _openids(self, body: Body, appid: str, sub_appid: str) -> tuple[str, str]:
        """The payer under the app and under the sub-merchant's; a service provider names exactly one of the two."""
        payer = body["payer"]
        if len(payer) != 1:
            raise parameter_error("/payer", "sp_openid与sub_openid须且只能传一个")
        ((name, openid),) = payer.items()
        owner = sub_appid if name == "sub_openid" else appid
        if not owner:
            raise parameter_error("/sub_appid", "传sub_openid时不能为空")
        if OPENID_FORM.fullmatch(openid) is None:
            raise parameter_error(f"/payer/{name}", "无效的openid")
        if not self.wechat.open_platform.openid_belongs(openid, owner):
            raise V3Refusal("OPENID_MISMATCH")
        return ("", openid) if name == "sub_openid" else (openid, "")

    def _handed_out(self, credential: Credential) -> Body:
        match credential.trade.order.product:
            case Product.JSAPI:
                return {"prepay_id": credential.prepay_id}
            case Product.NATIVE:
                return {"code_url": credential.code_url}
            case Product.H5:
                return {"h5_url": credential.h5_url(self.wechat.ground.public_url)}


def trade_fields(trade: Trade) -> dict[str, Any]:
    """The answer of a query and the plaintext of a notice: the truth, without what an unpaid order does not have."""
    order, merchant = trade.order, trade.merchant
    if merchant.sub_mchid is None:
        fields: dict[str, Any] = {"appid": order.appid, "mchid": merchant.mchid}
    else:
        fields = {"sp_appid": order.appid, "sp_mchid": merchant.mchid}
        fields |= ({"sub_appid": order.sub_appid} if order.sub_appid else {}) | {"sub_mchid": merchant.sub_mchid}
    fields |= {
        "out_trade_no": trade.out_trade_no,
        "trade_state": trade.state.value,
        "trade_state_desc": STATE_WORDS[trade.state],
        "amount": {"total": order.total_fen, "currency": "CNY"},
    }
    if trade.paid_at is None or trade.payer is None:
        return fields
    return fields | {
        "transaction_id": trade.transaction_id,
        "trade_type": order.product.value,
        "bank_type": "OTHERS",
        "attach": order.attach,
        "success_time": trade.paid_at.astimezone(BEIJING).isoformat(timespec="seconds"),
        "payer": _payer_fields(trade),
        "amount": {
            "total": order.total_fen,
            "payer_total": order.total_fen,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }


def _payer_fields(trade: Trade) -> dict[str, str]:
    assert trade.payer is not None, "only a paid order has one"
    if trade.merchant.sub_mchid is None:
        return {"openid": trade.payer.openid}
    sub_openid = {"sub_openid": trade.payer.sub_openid} if trade.payer.sub_openid else {}
    return {"sp_openid": trade.payer.openid, **sub_openid}


def _check_merchant(merchant: Merchant, given: Body, *, location: str) -> None:
    """The numbers of the call are the caller's own, and a sub-merchant's is one who agreed to be paid through him."""
    name = "sp_mchid" if merchant.sub_mchid else "mchid"
    if given[name] != merchant.mchid:
        pointer = f"/{name}" if location == "body" else name
        raise parameter_error(pointer, "与Authorization中的mchid不一致", value=given[name], location=location)
    if merchant.sub_mchid and given["sub_mchid"] != merchant.sub_mchid:
        raise V3Refusal("NO_AUTH", "受理关系不存在")

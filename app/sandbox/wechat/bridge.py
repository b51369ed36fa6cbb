"""The stand-in for WeChat's JavaScript bridge, so that a browser on a desk can go the way of a page inside WeChat.

    GET /wechat/bridge?appId=&timeStamp=&nonceStr=&package=&signType=&paySign=&return_url=

checks what a page hands to `getBrandWCPayRequest` as WeChat's client does, and in its words, then leads to the cashier;
from there the browser comes back to `return_url` with `err_msg=get_brand_wcpay_request:ok|cancel|fail` appended.
A fault of `wechat.bridge`, whatever its kind, makes the client show the fault's `message`.
"""

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.wechat.pages import BRIDGE_BACK, cashier_url, error_page, way_back
from app.sandbox.wechat.platform import WeChat
from app.sandbox.wechat.trades import ClientCall, Credential, Product

METHOD = "wechat.bridge"
PACKAGE = "prepay_id="
PARAMETERS = ("appId", "timeStamp", "nonceStr", "package", "signType", "paySign")
_SECONDS = re.compile(r"[0-9]{10}")


class ClientRefusal(Exception):
    """What WeChat's client shows, and what to change."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Bridge:
    def __init__(self, wechat: WeChat) -> None:
        self._book = wechat.book
        self._faults = wechat.ground.faults
        self._calls = wechat.ground.calls

    def routes(self) -> list[Route]:
        return [Route("/wechat/bridge", self._invoke, methods=["GET"])]

    async def _invoke(self, request: Request) -> Response:
        query = request.query_params
        back = way_back({BRIDGE_BACK: query.get(BRIDGE_BACK, "")})
        number = self._number_hint(query)
        self._calls.record(METHOD, number)
        if fault := self._faults.take(METHOD, number):
            return error_page(fault.message or "系统繁忙，请稍后再试", "沙箱按要求返回的错误。", back)
        try:
            credential = self._checked(query)
        except ClientRefusal as refusal:
            return error_page(refusal.message, refusal.hint, back)
        return RedirectResponse(cashier_url(credential.trade, back), status_code=302)

    def _checked(self, query: Mapping[str, str]) -> Credential:
        """The credential of a call that WeChat's client would take. Raises ClientRefusal."""
        for name in query:
            if name not in (*PARAMETERS, BRIDGE_BACK):
                raise ClientRefusal("商家参数格式有误，请联系商家解决", f"{name} 不是调起支付的参数；区分大小写。")
        for name in PARAMETERS:
            if not query.get(name):
                raise ClientRefusal(f"JSAPI缺少参数 {name}", f"调起支付要传 {name}，注意大小写。")
        if not _SECONDS.fullmatch(query["timeStamp"]):
            raise ClientRefusal("商家参数格式有误，请联系商家解决", "timeStamp 是以秒计的时间戳，十位数字的字符串。")
        credential = self._credential(query)
        call = ClientCall(
            app_id=query["appId"],
            time_stamp=query["timeStamp"],
            nonce_str=query["nonceStr"],
            package=query["package"],
            sign_type=query["signType"],
            pay_sign=query["paySign"],
        )
        trade = credential.trade
        if not trade.order.channel.is_signed(trade, call):
            hint = "paySign 要用下单的商户的密钥、按 signType 的算法、对同样的 appId 与 package 计算。"
            raise ClientRefusal("支付验证签名失败", hint)
        return credential

    def _number_hint(self, query: Mapping[str, str]) -> str:
        """The `out_trade_no` a call seems to be about; for counting and faults only."""
        credential = self._book.find_credential(prepay_id=query.get("package", "").removeprefix(PACKAGE))
        return credential.trade.out_trade_no if credential else ""

    def _credential(self, query: Mapping[str, str]) -> Credential:
        missing = "JSAPI缺少参数 total_fee"
        package = query["package"]
        if not package.startswith(PACKAGE):
            raise ClientRefusal(missing, f"package 的值以 {PACKAGE} 开头。")
        credential = self._book.find_credential(prepay_id=package.removeprefix(PACKAGE))
        if credential is None or credential.trade.order.product is not Product.JSAPI:
            raise ClientRefusal(missing, "没有这个 prepay_id 的公众号或小程序订单。")
        if query["appId"] != credential.trade.client_appid:
            raise ClientRefusal(missing, "appId 与下单时的 appid 不同。")
        if not self._book.is_alive(credential) and not credential.trade.is_paid:
            raise ClientRefusal("该订单已过期，请重新下单", "prepay_id 两小时有效。")
        return credential

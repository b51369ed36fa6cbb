"""The payer's pages: WeChat's cashier with a button for every way a payment can go, and the ways that lead to it.

GET  /wechat/pay/{token}                the cashier; `return_url` (from the bridge) or `redirect_url` (H5) leads back
GET  /wechat/pay/{token}/live           its part that changes
POST /wechat/pay/{token}/{action}       a button
GET  /wechat/scan?code_url=             what WeChat does with the QR code of a Native order
GET  /wechat/h5/checkmweb?prepay_id=    the h5_url of an H5 order, with `redirect_url` appended by the merchant
GET  /wechat/bridge                     see bridge.py
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.cashier import Scenario, alert, button, button_sections, notices_section, refunds_section, summary
from app.sandbox.desks import DeskRefusal, Payment
from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import fragment, framed, live
from app.sandbox.wechat.desk import STATES, Desk, yuan
from app.sandbox.wechat.open_platform_users import USERS, openid_of
from app.sandbox.wechat.trades import Credential, Product, Trade, TradeBook, TradeState

CODE_URL = "weixin://wxpay/bizpayurl?pr="
WRONG_APP_ID = "wx9999999999999999"
WRONG_MCHID = "1900009999"
PRODUCT_WORDS = {Product.JSAPI: "公众号与小程序支付", Product.H5: "H5 支付", Product.NATIVE: "扫码支付"}

# How the payer's browser goes back: the bridge tells the page what happened, H5 just returns.
BRIDGE_BACK, H5_BACK = "return_url", "redirect_url"
OK, CANCEL, FAIL = "ok", "cancel", "fail"

_HEAD = """<h1>微信支付沙箱 · {product}</h1>
<p class="quiet">这里的钱不是真的。付款人的微信由这个页面代替。</p>
{live}"""

_ERROR = """<h1>微信支付沙箱</h1>
<section><p class="state bad" role="alert">{message}</p><p class="quiet">{hint}</p></section>
{back}"""


def _scenarios(trade: Trade) -> dict[str, Scenario]:
    surplus = yuan(trade.order.total_fen + 1)
    stranger = openid_of(USERS["chen"], trade.client_appid)
    return {
        "pay-twice": Scenario(
            "付款，通知两次", "同一条通知同时到达两次；商户只能入账一次。", Payment(times=2, wait=False)
        ),
        "pay-late": Scenario(
            "过期后付款",
            "订单过期或关闭之后才付成；商户要保留这笔迟到的款。",
            Payment(late=True, wait=False),
            when_closed=True,
        ),
        "lose-reply": Scenario(
            "付款，丢失回复",
            "钱已付出，但没有通知，也不返回；商户只能靠查询得知。",
            Payment(notify=False),
            returns=False,
        ),
        "wrong-amount": Scenario(
            "通知里金额不符",
            f"签名正确，金额却是 {surplus} 元；商户必须拒绝。",
            Payment(amount=surplus, wait=False),
        ),
        "wrong-app": Scenario(
            "通知里是别人的 appid",
            "签名正确，应用却不是自己的；商户必须拒绝。",
            Payment(app_id=WRONG_APP_ID, wait=False),
        ),
        "wrong-merchant": Scenario(
            "通知里是别人的商户号",
            "签名正确，收款方却不是自己；商户必须拒绝。",
            Payment(seller_id=WRONG_MCHID, wait=False),
        ),
        "wrong-payer": Scenario(
            "通知里是另一个付款人",
            "签名正确，openid 却不是下单的那一个。",
            Payment(payer=stranger, wait=False),
        ),
        "forged": Scenario(
            "通知的签名是伪造的",
            "钱已付出，第一条通知的签名却不对；商户必须拒绝，再靠查询得知。",
            Payment(break_signature=True, wait=False),
        ),
    }


class PayerPages:
    def __init__(self, desk: Desk, book: TradeBook) -> None:
        self._desk = desk
        self._book = book

    def routes(self) -> list[Route]:
        return [
            Route("/wechat/pay/{token}", self._show, methods=["GET"]),
            Route("/wechat/pay/{token}/live", self._show_live, methods=["GET"]),
            Route("/wechat/pay/{token}/{action}", self._act, methods=["POST"]),
            Route("/wechat/scan", self._scan, methods=["GET"]),
            Route("/wechat/h5/checkmweb", self._enter_h5, methods=["GET"]),
        ]

    async def _show(self, request: Request) -> Response:
        trade = self._trade(request)
        return unknown_link() if trade is None else self._page(trade, way_back(request.query_params))

    async def _show_live(self, request: Request) -> Response:
        trade = self._trade(request)
        if trade is None:
            return unknown_link()
        return fragment(self._live_part(trade, way_back(request.query_params)))

    async def _scan(self, request: Request) -> Response:
        code_url = request.query_params.get("code_url", "")
        if not code_url.startswith(CODE_URL):
            return error_page("无法识别的二维码", f"微信支付的二维码内容以 {CODE_URL} 开头。")
        credential = self._book.find_credential(code=code_url.removeprefix(CODE_URL))
        if credential is None or credential.trade.order.product is not Product.NATIVE:
            return unknown_link()
        return self._entered(credential, {})

    async def _enter_h5(self, request: Request) -> Response:
        query = request.query_params
        credential = self._book.find_credential(prepay_id=query.get("prepay_id", ""))
        if (
            credential is None
            or credential.trade.order.product is not Product.H5
            or credential.package != query.get("package")
        ):
            return unknown_link()
        # A browser says when a page led here; that page must let its address be known, as WeChat's gateway demands.
        led_by_a_page = request.headers.get("sec-fetch-site", "none") != "none"
        if led_by_a_page and not request.headers.get("referer"):
            return error_page(
                "商家参数格式有误，请联系商家解决", "浏览器没有带 Referer：请从已登记域名的页面跳转过来。"
            )
        return self._entered(credential, way_back(query))

    def _entered(self, credential: Credential, back: Mapping[str, str]) -> Response:
        if not self._book.is_alive(credential) and not credential.trade.is_paid:
            return error_page("支付请求已失效，请重新发起支付", "二维码两小时有效，H5 链接五分钟有效。", back)
        return RedirectResponse(cashier_url(credential.trade, back), status_code=302)

    async def _act(self, request: Request) -> Response:
        """A button: 303 to the merchant or back to the page; the page with the reason when it was refused."""
        trade, action = self._trade(request), request.path_params["action"]
        if trade is None:
            return unknown_link()
        back = way_back(request.query_params)
        try:
            outcome = await self._do(trade, action)
        except DeskRefusal as refusal:
            return self._page(trade, back, refusal)
        returns = returned_to(back, outcome) if outcome else ""
        return RedirectResponse(returns or cashier_url(trade, back), status_code=303)

    async def _do(self, trade: Trade, action: str) -> str:
        """Do what the button says; what the bridge reports then, or an empty text when nobody goes back."""
        if action == "cancel":
            self._desk.fail(trade, "付款人取消了支付")
            return CANCEL
        if action == "fail":
            self._desk.fail(trade, self._desk.default_failure)
            return FAIL
        if action == "close":
            await self._desk.close(trade, notify=False)
            return ""
        scenario = _scenarios(trade).get(action)
        if scenario is None and action != "pay":
            raise DeskRefusal("PARAM_ERROR", "没有这个按钮")
        await self._desk.pay(trade, scenario.payment if scenario else Payment(wait=False))
        return OK if scenario is None or scenario.returns else ""

    def _trade(self, request: Request) -> Trade | None:
        return self._desk.find_by_token(request.path_params["token"])

    def _page(self, trade: Trade, back: Mapping[str, str], refusal: DeskRefusal | None = None) -> Response:
        part = live(_with_back(f"/wechat/pay/{trade.token}/live", back), self._live_part(trade, back))
        body = fill(_HEAD, product=PRODUCT_WORDS[trade.order.product], live=part)
        title = f"{trade.order.description} · 微信支付沙箱"
        if refusal is None:
            return framed(title, body)
        return framed(title, joined([body, alert(refusal.message)]), status=409)

    def _live_part(self, trade: Trade, back: Mapping[str, str]) -> Markup:
        notices = notices_section(self._desk.notices_of(trade))
        refunds = refunds_section(self._desk.refunds_of(trade))
        return joined([_summary(trade), _buttons(trade, back), _link_back(trade, back), refunds, notices])


def _summary(trade: Trade) -> Markup:
    return summary(
        subject=trade.order.description,
        amount=yuan(trade.order.total_fen),
        out_trade_no=trade.out_trade_no,
        seller_id=trade.merchant.seller_id,
        state=STATES[trade.state],
        last_failure=trade.last_failure,
        expires_at=trade.expires_at,
        paid_at=trade.paid_at,
        closed_at=trade.closed_at,
    )


def _buttons(trade: Trade, back: Mapping[str, str]) -> Markup:
    if trade.is_paid:
        return Markup("")

    def made(action: str, label: str, explanation: str, *, primary: bool = False) -> Markup:
        url = _with_back(f"/wechat/pay/{trade.token}/{action}", back)
        return button(url, label, explanation, primary=primary)

    waiting = trade.state is TradeState.NOTPAY
    pay = f"确认付款 ¥{yuan(trade.order.total_fen)}"
    ordinary = [
        made("pay", pay, "付款成功，通知商户并返回商户页面。", primary=True),
        made("cancel", "取消付款", "付款人关掉了付款窗口，订单继续等待付款。"),
        made("fail", "付款失败", "零钱余额不足，订单继续等待付款。"),
        made("close", "关闭订单", "微信支付关闭这笔未付的订单。"),
    ]
    scenarios = [
        made(action, scenario.label, scenario.explanation)
        for action, scenario in _scenarios(trade).items()
        if waiting or scenario.when_closed
    ]
    return button_sections(ordinary if waiting else [], scenarios)


def _link_back(trade: Trade, back: Mapping[str, str]) -> Markup:
    if not back or trade.state is TradeState.NOTPAY:
        return Markup("")
    url = returned_to(back, OK if trade.is_paid else FAIL)
    return fill('<a class="button primary" href="{url}">返回商户</a>', url=url)


# Ways back, and pages without an order.


def way_back(query: Mapping[str, str]) -> dict[str, str]:
    """The one parameter that says how to go back, where there is one and it is a web address."""
    for name in (BRIDGE_BACK, H5_BACK):
        if urlsplit(query.get(name, "")).scheme in ("http", "https"):
            return {name: query[name]}
    return {}


def returned_to(back: Mapping[str, str], outcome: str) -> str:
    """Where the browser goes after paying; an empty text when the merchant named nothing."""
    if H5_BACK in back:
        return back[H5_BACK]
    if BRIDGE_BACK not in back:
        return ""
    parts = urlsplit(back[BRIDGE_BACK])
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), ("err_msg", f"get_brand_wcpay_request:{outcome}")]
    return parts._replace(query=urlencode(pairs, safe=":")).geturl()


def cashier_url(trade: Trade, back: Mapping[str, str]) -> str:
    return _with_back(f"/wechat/pay/{trade.token}", back)


def _with_back(path: str, back: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(back)}" if back else path


def error_page(message: str, hint: str, back: Mapping[str, str] | None = None, *, status: int = 400) -> Response:
    """What WeChat shows a payer instead of the cashier, in its words; `hint` says what the merchant has to change."""
    url = returned_to(back or {}, FAIL)
    link = fill('<a class="button" href="{url}">返回商户</a>', url=url) if url else Markup("")
    body = fill(_ERROR, message=message, hint=hint, back=link)
    return framed("微信支付沙箱：出错了", body, status=status)


def unknown_link() -> Response:
    hint = "链接不完整，或者沙箱已重启或清空。请从商户页面重新下单。"
    return error_page("没有这笔付款", hint, status=404)

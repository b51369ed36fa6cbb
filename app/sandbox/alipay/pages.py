"""The payer's pages: the cashier with a button for every way a payment can go, and Alipay's error page.

GET  /alipay/pay/{token}            the payer arrives: the trade exists from now on
GET  /alipay/pay/{token}/live       its part that changes
POST /alipay/pay/{token}/{action}   a button
GET  /alipay/qr/{token}             what the QR code of precreate holds; leads to the first
"""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.alipay.agreement_pages import terms_lines
from app.sandbox.alipay.agreements import Agreement
from app.sandbox.alipay.desk import Desk, state_of
from app.sandbox.alipay.errors import BusinessRefusal, Refusal
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.notices import return_url
from app.sandbox.alipay.trades import Product, Trade, TradeStatus
from app.sandbox.cashier import Scenario, alert, button, button_sections, notices_section, refunds_section, summary
from app.sandbox.clock import SandboxClock
from app.sandbox.desks import DeskRefusal, Payment
from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import fragment, framed, live

WRONG_APP_ID = "2021999999999999"
WRONG_SELLER_ID = "2088999999999999"

PRODUCT_WORDS = {
    Product.PAGE: "电脑网站支付",
    Product.WAP: "手机网站支付",
    Product.QR: "订单码支付",
    Product.APP: "APP 支付",
    Product.DEDUCTION: "自动扣款",
}


def _scenarios(trade: Trade) -> dict[str, Scenario]:
    surplus = format_amount(trade.terms.total_amount_fen + 1)
    return {
        "pay-twice": Scenario(
            "付款，通知两次", "同一条通知同时到达两次；商户只能入账一次。", Payment(times=2, wait=False)
        ),
        "pay-late": Scenario(
            "过期后付款",
            "交易过期或关闭之后才付成；商户要保留这笔迟到的款。",
            Payment(late=True, wait=False),
            when_closed=True,
        ),
        "lose-reply": Scenario(
            "付款，丢失回复",
            "钱已付出，但没有通知，也不回跳；商户只能靠查询得知。",
            Payment(notify=False),
            returns=False,
        ),
        "wrong-amount": Scenario(
            "通知里金额不符",
            f"签名正确，金额却是 {surplus} 元；商户必须拒绝。",
            Payment(amount=surplus, wait=False),
        ),
        "wrong-app": Scenario(
            "通知里是别人的 app_id",
            "签名正确，应用却不是自己的；商户必须拒绝。",
            Payment(app_id=WRONG_APP_ID, wait=False),
        ),
        "wrong-seller": Scenario(
            "通知里是别人的 seller_id",
            "签名正确，收款方却不是自己；商户必须拒绝。",
            Payment(seller_id=WRONG_SELLER_ID, wait=False),
        ),
    }


_HEAD = """<h1>支付宝沙箱 · {product}</h1>
<p class="quiet">这里的钱不是真的。付款人的手机由这个页面代替。</p>
{live}"""

# A box that is not ticked sends nothing, so the hidden one says that there was a box.
_PAY_AND_SIGN = """<section class="actions">
<h2>支付并签约</h2>
<dl>{terms}</dl>
<form method="post" action="{action}" class="choice">
<label for="buyer">付款人</label>
<input id="buyer" name="buyer" value="{buyer}" inputmode="numeric" pattern="2088[0-9]{{12}}" autocomplete="off">
<input type="hidden" name="sign" value="no">
<label class="tick"><input type="checkbox" name="sign" value="yes" checked> 同意自动扣款协议</label>
<button class="primary">确认付款 ¥{amount}</button>
<p class="quiet">先付款，再签约；两件事各有一条通知。不勾选就只付款。</p>
</form>
</section>"""

_ERROR = """<h1>支付宝沙箱：无法打开页面</h1>
<section>
<p class="state bad">{message}</p>
<dl>
<dt>错误代码</dt><dd><code>{sub_code}</code></dd>
<dt>code</dt><dd><code>{code}</code></dd>
</dl>
</section>"""


def error_page(refusal: Refusal) -> Response:
    """What a payer sees when the merchant's link is wrong: HTTP 200 but for one mistake, HTML, GBK, as from Alipay."""
    body = fill(_ERROR, message=refusal.sub_msg, sub_code=refusal.sub_code, code=refusal.code)
    status = refusal.page_status if isinstance(refusal, BusinessRefusal) else 200
    return framed("支付宝沙箱：出错了", body, charset="gbk", status=status)


class PayerPages:
    def __init__(self, desk: Desk, clock: SandboxClock) -> None:
        self._desk = desk
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route("/alipay/pay/{token}", self._show, methods=["GET"]),
            Route("/alipay/pay/{token}/live", self._show_live, methods=["GET"]),
            Route("/alipay/pay/{token}/{action}", self._act, methods=["POST"]),
            Route("/alipay/qr/{token}", self._scan, methods=["GET"]),
        ]

    async def _show(self, request: Request) -> Response:
        trade = self._trade(request)
        if trade is None:
            return _unknown_link()
        try:
            self._desk.open(trade)
        except DeskRefusal as refusal:
            return self._page(trade, refusal)
        return self._page(trade)

    async def _show_live(self, request: Request) -> Response:
        trade = self._trade(request)
        return _unknown_link() if trade is None else fragment(self._live_part(trade))

    async def _scan(self, request: Request) -> Response:
        trade = self._trade(request)
        return _unknown_link() if trade is None else RedirectResponse(f"/alipay/pay/{trade.token}", status_code=302)

    async def _act(self, request: Request) -> Response:
        """A button: 303 to the merchant or back to the page; the page with the reason when it was refused."""
        trade, action = self._trade(request), request.path_params["action"]
        if trade is None:
            return _unknown_link()
        try:
            goes_to = await self._do(trade, action, await _choices(request))
        except DeskRefusal as refusal:
            return self._page(trade, refusal)
        return RedirectResponse(goes_to or f"/alipay/pay/{trade.token}", status_code=303)

    async def _do(self, trade: Trade, action: str, choices: dict[str, list[str]]) -> str:
        """Do what the button says; the URL to go to, or an empty text for the page itself."""
        if action == "fail":
            self._desk.fail(trade, self._desk.default_failure)
            return trade.quit_url
        if action == "close":
            await self._desk.close(trade, notify=False)
            return ""
        scenario = _scenarios(trade).get(action)
        if scenario is None and action != "pay":
            raise DeskRefusal("ACQ.INVALID_PARAMETER", "没有这个按钮")
        buyer = choices.get("buyer", [""])[-1].strip() or None
        plain = Payment(wait=False, buyer=buyer, sign=choices.get("sign") != ["no"])
        await self._desk.pay(trade, scenario.payment if scenario else plain)
        returns = trade.return_url and trade.terms.product is not Product.QR and (scenario is None or scenario.returns)
        return return_url(trade, self._clock.now()) if returns else ""

    def _trade(self, request: Request) -> Trade | None:
        return self._desk.find_by_token(request.path_params["token"])

    def _page(self, trade: Trade, refusal: DeskRefusal | None = None) -> Response:
        part = live(f"/alipay/pay/{trade.token}/live", self._live_part(trade))
        body = fill(_HEAD, product=PRODUCT_WORDS[trade.terms.product], live=part)
        if refusal is None:
            return framed(f"{trade.terms.subject} · 支付宝沙箱", body)
        return framed(f"{trade.terms.subject} · 支付宝沙箱", joined([body, alert(refusal.message)]), status=409)

    def _live_part(self, trade: Trade) -> Markup:
        notices = notices_section(self._desk.notices_of(trade))
        refunds = refunds_section(self._desk.refunds_of(trade))
        parts = [_summary(trade), self._buttons(trade), self._way_back(trade), _agreement_link(trade), refunds, notices]
        return joined(parts)

    def _buttons(self, trade: Trade) -> Markup:
        if trade.is_paid:
            return Markup("")
        waiting = trade.status is TradeStatus.WAIT_BUYER_PAY
        amount = format_amount(trade.terms.total_amount_fen)
        offered = self._desk.offered_with(trade) if waiting else None
        pay = _button(trade, "pay", f"确认付款 ¥{amount}", "付款成功，通知商户并返回商户页面。", primary=True)
        main = [
            *([] if offered else [pay]),
            _button(trade, "fail", "付款失败", "余额不足，交易继续等待付款。"),
            _button(trade, "close", "关闭交易", "支付宝关闭这笔未付的交易。"),
        ]
        scenarios = [
            _button(trade, action, scenario.label, scenario.explanation)
            for action, scenario in _scenarios(trade).items()
            if waiting or scenario.when_closed
        ]
        first = _pay_and_sign(trade, offered) if offered else Markup("")
        return joined([first, button_sections(main if waiting else [], scenarios)])

    def _way_back(self, trade: Trade) -> Markup:
        if not trade.is_paid or not trade.return_url:
            return Markup("")
        # The merchant's bare address: the signed one is given once, by the redirect after paying.
        return fill('<a class="button primary" href="{url}">返回商户</a>', url=trade.return_url)


def _summary(trade: Trade) -> Markup:
    return summary(
        subject=trade.terms.subject,
        amount=format_amount(trade.terms.total_amount_fen),
        out_trade_no=trade.out_trade_no,
        seller_id=trade.account.seller_id,
        state=state_of(trade),
        last_failure=trade.last_failure,
        expires_at=trade.expires_at,
        paid_at=trade.paid_at,
        closed_at=trade.closed_at,
    )


async def _choices(request: Request) -> dict[str, list[str]]:
    """The fields of the form whose button was pressed."""
    return parse_qs((await request.body()).decode("utf-8", "replace"))


def _pay_and_sign(trade: Trade, offered: Agreement) -> Markup:
    """The button for paying, with the agreement that is signed by it unless the payer says no."""
    return fill(
        _PAY_AND_SIGN,
        terms=terms_lines(offered),
        action=f"/alipay/pay/{trade.token}/pay",
        buyer=trade.buyer_id,
        amount=format_amount(trade.terms.total_amount_fen),
    )


def _agreement_link(trade: Trade) -> Markup:
    """To the agreement that the money was taken under, or that was offered with the payment."""
    if trade.agreement is None or not trade.is_paid:
        return Markup("")
    return fill('<a class="button" href="/alipay/sign/{token}">查看协议</a>', token=trade.agreement.token)


def _button(trade: Trade, action: str, label: str, explanation: str, *, primary: bool = False) -> Markup:
    return button(f"/alipay/pay/{trade.token}/{action}", label, explanation, primary=primary)


def _unknown_link() -> Response:
    body = Markup(
        "<h1>支付宝沙箱：没有这笔付款</h1><section><p>链接不完整，或者沙箱已重启或清空。请从商户页面重新下单。</p></section>"
    )
    return framed("支付宝沙箱：没有这笔付款", body, status=404)

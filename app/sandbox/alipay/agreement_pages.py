"""The payer's pages of agreements: signing, and what the payer may do with one that is signed.

GET  /alipay/sign/{token}            the agreement, with its buttons
GET  /alipay/sign/{token}/live       its part that changes
POST /alipay/sign/{token}/{action}   sign (with `payer` as one likes), cancel, unsign, expire
"""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.alipay.agreement_desk import AgreementDesk
from app.sandbox.alipay.agreement_notices import sign_return_url
from app.sandbox.alipay.agreements import Agreement, AgreementStatus, PeriodRule, PeriodType
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.payers import PAYER_ID
from app.sandbox.cashier import alert, button, notices_section
from app.sandbox.clock import SandboxClock
from app.sandbox.desks import DeskRefusal
from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import clock_text, fragment, framed, live

NEWEST_SHOWN = 50

STATUS_WORDS = {
    AgreementStatus.OFFERED: ("等待签约", "waiting"),
    AgreementStatus.NORMAL: ("已签约，生效中", "good"),
    AgreementStatus.UNSIGNED: ("已解约", "bad"),
    AgreementStatus.EXPIRED: ("已到期", "bad"),
}

_HEAD = """<h1>支付宝沙箱 · 自动扣款签约</h1>
<p class="quiet">这里的钱不是真的。付款人的手机由这个页面代替。</p>
{live}"""

_SUMMARY = """<section>
<p class="state {tone}" role="status">{status}</p>
<dl>{lines}</dl>
</section>"""

_SIGN = """<section class="actions">
<form method="post" action="{action}/sign" class="choice">
<label for="payer">付款人</label>
<input id="payer" name="payer" value="{payer}" inputmode="numeric" pattern="2088[0-9]{{12}}" autocomplete="off">
<button class="primary">同意协议并签约</button>
<p class="quiet">签约成功，通知商户并返回商户页面。</p>
</form>
{cancel}
</section>"""

_ITEM = """<li>
<span class="spread"><a href="{url}">{title}</a><span>{amount}</span></span>
<span class="spread"><span class="state {tone}">{status}</span><code>{number}</code></span>
<span class="quiet">支付宝 · {payer} · 已扣款 {count} 次{plan}</span>
</li>"""


class AgreementPages:
    def __init__(self, desk: AgreementDesk, clock: SandboxClock) -> None:
        self._desk = desk
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route("/alipay/sign/{token}", self._show, methods=["GET"]),
            Route("/alipay/sign/{token}/live", self._show_live, methods=["GET"]),
            Route("/alipay/sign/{token}/{action}", self._act, methods=["POST"]),
        ]

    def index_section(self) -> Markup:
        """The newest agreements, for the index page; nothing while there are none."""
        items = joined(self._item(agreement) for agreement in self._desk.agreements.newest(NEWEST_SHOWN))
        if not items:
            return items
        return fill('<section><h2>协议</h2><ul class="trades">{items}</ul></section>', items=items)

    async def _show(self, request: Request) -> Response:
        agreement = self._agreement(request)
        return _unknown_link() if agreement is None else self._page(agreement)

    async def _show_live(self, request: Request) -> Response:
        agreement = self._agreement(request)
        return _unknown_link() if agreement is None else fragment(self._live_part(agreement))

    async def _act(self, request: Request) -> Response:
        """A button: 303 to the merchant or back to the page; the page with the reason when it was refused."""
        agreement, action = self._agreement(request), request.path_params["action"]
        if agreement is None:
            return _unknown_link()
        options = parse_qs((await request.body()).decode("utf-8", "replace"))
        try:
            goes_to = await self._do(agreement, action, payer=options.get("payer", [""])[0].strip())
        except DeskRefusal as refusal:
            return self._page(agreement, refusal)
        return RedirectResponse(goes_to or f"/alipay/sign/{agreement.token}", status_code=303)

    async def _do(self, agreement: Agreement, action: str, *, payer: str) -> str:
        """Do what the button says; the URL to go to, or an empty text for the page itself."""
        match action:
            case "sign":
                check_payer(payer)
                await self._desk.sign(agreement, payer=payer or None, wait=False)
                return sign_return_url(agreement, self._clock.now()) if agreement.return_url else ""
            case "cancel":
                return agreement.return_url
            case "unsign":
                await self._desk.unsign(agreement, wait=False)
            case "expire":
                self._desk.run_out(agreement)
            case _:
                raise DeskRefusal("ILLEGAL_PARAMS", "没有这个按钮")
        return ""

    def _agreement(self, request: Request) -> Agreement | None:
        return self._desk.agreements.find_by_token(request.path_params["token"])

    def _page(self, agreement: Agreement, refusal: DeskRefusal | None = None) -> Response:
        part = live(f"/alipay/sign/{agreement.token}/live", self._live_part(agreement))
        body = fill(_HEAD, live=part)
        if refusal is None:
            return framed("签约 · 支付宝沙箱", body)
        return framed("签约 · 支付宝沙箱", joined([body, alert(refusal.message)]), status=409)

    def _live_part(self, agreement: Agreement) -> Markup:
        words, tone = STATUS_WORDS[agreement.status]
        summary = fill(_SUMMARY, status=words, tone=tone, lines=terms_lines(agreement))
        notices = notices_section(self._desk.notices_of(agreement))
        return joined([summary, self._buttons(agreement), self._way_back(agreement), _deducted(agreement), notices])

    def _buttons(self, agreement: Agreement) -> Markup:
        action = f"/alipay/sign/{agreement.token}"
        if agreement.status is AgreementStatus.OFFERED and agreement.out_trade_no:
            return Markup('<section><p class="quiet">随付款一起签约：请打开那笔付款的页面。</p></section>')
        if agreement.status is AgreementStatus.OFFERED:
            cancel = button(f"{action}/cancel", "取消", "不签约，返回商户页面。")
            return fill(_SIGN, action=action, payer=agreement.payer, cancel=cancel)
        if agreement.status is not AgreementStatus.NORMAL:
            return Markup("")
        buttons = joined(
            [
                button(f"{action}/unsign", "在支付宝里解约", "付款人自己关闭自动扣款；只通知应用网关。"),
                button(f"{action}/expire", "让协议到期", "有效期到此为止；支付宝不通知任何人。"),
            ]
        )
        return fill('<section class="actions"><h2>考验商户系统</h2>{buttons}</section>', buttons=buttons)

    def _way_back(self, agreement: Agreement) -> Markup:
        if agreement.status is AgreementStatus.OFFERED or not agreement.return_url:
            return Markup("")
        return fill('<a class="button primary" href="{url}">返回商户</a>', url=agreement.return_url)

    def _item(self, agreement: Agreement) -> Markup:
        words, tone = STATUS_WORDS[agreement.status]
        rule = agreement.terms.rule
        return fill(
            _ITEM,
            url=f"/alipay/sign/{agreement.token}",
            title=agreement.terms.external_logon_id or agreement.terms.scene,
            amount=f"每次最多 ¥{format_amount(rule.single_amount_fen)}" if rule else "",
            status=words,
            tone=tone,
            number=agreement.number,
            payer=agreement.payer,
            count=len(agreement.deductions),
            plan=f" · 计划 {agreement.planned_on}" if agreement.planned_on else "",
        )


def check_payer(payer: str) -> None:
    """Raises DeskRefusal; an empty one is nobody in particular."""
    if payer and not PAYER_ID.fullmatch(payer):
        raise DeskRefusal("ILLEGAL_PARAMS", "付款人必须是 2088 开头的 16 位数字")


def terms_lines(agreement: Agreement) -> Markup:
    """What is agreed on, as lines of a description list."""
    terms, rule = agreement.terms, agreement.terms.rule
    lines: list[tuple[str, object]] = [
        ("商户协议号", _code(terms.external_agreement_no or "（没有）")),
        ("商户", _code(agreement.account.seller_id)),
        ("场景", _code(terms.scene)),
    ]
    if terms.external_logon_id:
        lines.append(("商户账号", terms.external_logon_id))
    if rule is not None:
        lines += _rule_lines(rule)
    if agreement.agreement_no:
        lines += [("支付宝协议号", _code(agreement.agreement_no)), ("付款人", _code(agreement.payer))]
    if agreement.planned_on:
        lines.append(("下次扣款", agreement.planned_on))
    moments = {"签约时间": agreement.signed_at, "有效期至": agreement.valid_until, "结束时间": agreement.ended_at}
    lines += [(name, clock_text(moment)) for name, moment in moments.items() if moment]
    return joined(fill("<dt>{name}</dt><dd>{value}</dd>", name=name, value=value) for name, value in lines)


def _rule_lines(rule: PeriodRule) -> list[tuple[str, object]]:
    unit = "天" if rule.period_type is PeriodType.DAY else "个月"
    lines: list[tuple[str, object]] = [
        ("周期", f"每 {rule.period} {unit}"),
        ("首次扣款", rule.first_on),
        ("每次最多", f"¥{format_amount(rule.single_amount_fen)}"),
    ]
    if rule.total_amount_fen is not None:
        lines.append(("总共最多", f"¥{format_amount(rule.total_amount_fen)}"))
    if rule.total_payments is not None:
        lines.append(("最多扣款", f"{rule.total_payments} 次"))
    return lines


def _code(text: str) -> Markup:
    return fill("<code>{text}</code>", text=text)


def _deducted(agreement: Agreement) -> Markup:
    items = joined(
        fill(
            '<li><span class="spread"><code>{number}</code><span>¥{amount}</span></span>'
            '<span class="quiet">{paid_at}</span></li>',
            number=deducted.out_trade_no,
            amount=format_amount(deducted.amount_fen),
            paid_at=clock_text(deducted.paid_at),
        )
        for deducted in agreement.deductions
    )
    return fill('<section><h2>扣款</h2><ul class="trades">{items}</ul></section>', items=items) if items else items


def _unknown_link() -> Response:
    body = Markup(
        "<h1>支付宝沙箱：没有这份协议</h1><section><p>链接不完整，或者沙箱已重启或清空。请从商户页面重新签约。</p></section>"
    )
    return framed("支付宝沙箱：没有这份协议", body, status=404)

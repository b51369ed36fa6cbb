"""The index page: the newest trades with their state, the clock, the faults, the accounts. No secrets."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.sandbox.cashier import STATE_WORDS
from app.sandbox.clock import format_beijing
from app.sandbox.desks import RefundState, TradeState, all_described
from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import fragment, framed, live
from app.sandbox.world import World

NEWEST_SHOWN = 50

PROVIDER_WORDS = {"ALIPAY": "支付宝", "WECHAT": "微信支付"}

_STEPS = (("4 分钟", 240), ("10 分钟", 600), ("1 小时", 3600), ("6 小时", 21600), ("1 天", 86400))

_BODY = """<h1>收银 · 支付沙箱</h1>
<p class="quiet">扮演支付宝与微信支付，钱不是真的。</p>
<p class="quiet">支付宝网关 <code>{gateway}</code>，微信接口在 <code>{public_url}</code> 之下微信自己的路径</p>
{live}
<section>
<h2>拨快时钟</h2>
<div class="row">{steps}</div>
<p class="quiet">到期的通知重试和交易关闭会随之发生。</p>
</section>
<section>
<h2>商户账号</h2>
<ul class="trades">{accounts}</ul>
</section>
<section class="choice">
<button data-post="/_control/reset">清空沙箱</button>
<p class="quiet">忘掉全部交易、通知、故障和拨快的时间；账号与密钥保留。</p>
</section>"""

_TRADE = """<li>
<span class="spread"><a href="{pay_url}">{subject}</a><span>¥{amount}</span></span>
<span class="spread"><span class="state {tone}">{status}</span><code>{out_trade_no}</code></span>
<span class="quiet">{provider} · {product} · {notices}{refunds}</span>
</li>"""

_CLOCK = """<section>
<h2>沙箱时钟</h2>
<p class="spread"><span>{now}</span><span class="quiet">{ahead}</span></p>
</section>"""

_ACCOUNT = """<li><span>{provider} · {mode}</span><span class="quiet">{ids}</span></li>"""

_ID_NAMES = ("app_id", "appid", "seller_id", "mchid", "mch_id", "sub_mchid", "sub_mch_id")


class IndexPage:
    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[Route]:
        return [
            Route("/", self._show, methods=["GET"]),
            Route("/live", self._show_live, methods=["GET"]),
        ]

    async def _show(self, _request: Request) -> Response:
        steps = joined(
            fill(
                '<button data-post="/_control/clock" data-body=\'{{"advance_s":{seconds}}}\'>+{label}</button>',
                seconds=seconds,
                label=label,
            )
            for label, seconds in _STEPS
        )
        accounts = joined(
            fill(
                _ACCOUNT,
                provider=account["provider"],
                mode=account["mode"],
                ids=" · ".join(f"{name} {account[name]}" for name in _ID_NAMES if name in account),
            )
            for account in self._world.accounts
        )
        url = self._world.public_url
        places = {"gateway": f"{url}/gateway.do", "public_url": url}
        body = fill(_BODY, **places, live=live("/live", self._live_part()), steps=steps, accounts=accounts)
        return framed("收银 · 支付沙箱", body)

    async def _show_live(self, _request: Request) -> Response:
        return fragment(self._live_part())

    def _live_part(self) -> Markup:
        return joined([self._trades(), *self._world.index_sections(), self._clock(), self._faults()])

    def _trades(self) -> Markup:
        described = all_described(self._world.desks)[-NEWEST_SHOWN:]
        if not described:
            return Markup(
                '<section><h2>交易</h2><p class="quiet">还没有交易。用任一账号下单，这里就会出现。</p></section>'
            )
        items = joined(self._trade_item(trade) for trade in reversed(described))
        return fill('<section><h2>交易</h2><ul class="trades">{items}</ul></section>', items=items)

    def _trade_item(self, trade: dict[str, Any]) -> Markup:
        words, tone = STATE_WORDS[TradeState(trade["status"])]
        notices = [notice for notify_id in trade["notify_ids"] if (notice := self._world.deliveries.find(notify_id))]
        sent = sum(len(notice.attempts) for notice in notices)
        confirmed = sum(notice.state == "ACKNOWLEDGED" for notice in notices)
        return fill(
            _TRADE,
            pay_url=trade["pay_url"],
            subject=trade["subject"],
            amount=yuan(trade["amount_fen"]),
            provider=PROVIDER_WORDS.get(trade["provider"], trade["provider"]),
            product=trade["product"],
            status=words,
            tone=tone,
            out_trade_no=trade["out_trade_no"],
            notices=f"通知 {len(notices)} 条，发送 {sent} 次，已确认 {confirmed} 条" if notices else "没有通知",
            refunds=_refunds_in_words(trade),
        )

    def _clock(self) -> Markup:
        clock = self._world.clock
        ahead_s = round(clock.offset.total_seconds())
        # To the minute: a second hand would redraw the page all the time.
        return fill(
            _CLOCK,
            now=format_beijing(clock.now())[:16],
            ahead=f"比本机快 {ahead_s} 秒" if ahead_s else "与本机一致",
        )

    def _faults(self) -> Markup:
        faults = self._world.faults.listed()
        if not faults:
            return Markup("")
        items = joined(
            fill(
                '<li><span class="spread"><code>{method}</code><span>{kind} × {remaining}</span></span></li>',
                method=fault.method,
                kind=fault.kind.value,
                remaining=fault.remaining,
            )
            for fault in faults
        )
        return fill('<section><h2>待发生的故障</h2><ul class="trades">{items}</ul></section>', items=items)


def _refunds_in_words(trade: dict[str, Any]) -> str:
    if not trade["refunds"]:
        return ""
    waiting = sum(refund["status"] == RefundState.PROCESSING for refund in trade["refunds"])
    return f" · 已退款 ¥{yuan(trade['refunded_fen'])}" + (f"，{waiting} 笔退款处理中" if waiting else "")


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"

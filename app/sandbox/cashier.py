"""What the payer's pages of all providers have in common: the summary of a trade, buttons, its refunds and notices."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.sandbox.clock import format_beijing
from app.sandbox.deliveries import Notice
from app.sandbox.desks import Payment, RefundState, TradeState
from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import clock_text

STATE_WORDS = {
    TradeState.UNOPENED: ("尚未打开", "waiting"),
    TradeState.UNPAID: ("等待付款", "waiting"),
    TradeState.PAID: ("付款成功", "good"),
    TradeState.CLOSED: ("交易已关闭", "bad"),
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A button beside the ordinary ones. `returns` says whether the payer's browser goes back to the merchant."""

    label: str
    explanation: str
    payment: Payment
    returns: bool = True
    when_closed: bool = False


_SUMMARY = """<section>
<p class="quiet">{subject}</p>
<p class="amount">¥{amount}</p>
<p class="state {tone}" role="status">{status}</p>
<dl>
<dt>商户订单号</dt><dd><code>{out_trade_no}</code></dd>
<dt>收款方</dt><dd><code>{seller_id}</code></dd>
<dt>{moment_name}</dt><dd>{moment}</dd>
</dl>
</section>"""

_BUTTON = """<form method="post" action="{action}" class="choice">
<button{kind}>{label}</button>
<p class="quiet">{explanation}</p>
</form>"""

_NOTICE = """<li>
<span class="state">{words}</span>
<span class="quiet">已发 {count} 次{after}</span>
<code>{answer}</code>
</li>"""

_REFUND = """<li>
<span class="spread"><span class="state {tone}">{words}</span><span>¥{amount}</span></span>
<span class="spread"><span class="quiet">{reason}</span><code>{out_refund_no}</code></span>
</li>"""

_REFUND_WORDS = {
    RefundState.PROCESSING: ("退款处理中", "waiting"),
    RefundState.REFUNDED: ("已退款", "good"),
    RefundState.FAILED: ("退款失败", "bad"),
    RefundState.ABNORMAL: ("退款异常，等商户处理", "bad"),
}

_NOTICE_WORDS = {
    "WAITING": "等待商户确认",
    "ACKNOWLEDGED": "商户已确认",
    "GIVEN_UP": "多次未确认，不再通知",
    "BLOCKED": "未发送：只允许发往本机地址",
}


def summary(
    *,
    subject: str,
    amount: str,
    out_trade_no: str,
    seller_id: str,
    state: TradeState,
    last_failure: str,
    expires_at: datetime,
    paid_at: datetime | None,
    closed_at: datetime | None,
) -> Markup:
    words, tone = STATE_WORDS[state]
    if state is TradeState.UNPAID and last_failure:
        words, tone = f"付款失败：{last_failure}，可以再试", "bad"
    moment_name, moment = "付款截止", expires_at
    if paid_at:
        moment_name, moment = "付款时间", paid_at
    elif closed_at:
        moment_name, moment = "关闭时间", closed_at
    return fill(
        _SUMMARY,
        subject=subject,
        amount=amount,
        status=words,
        tone=tone,
        out_trade_no=out_trade_no,
        seller_id=seller_id,
        moment_name=moment_name,
        moment=clock_text(moment),
    )


def button(action: str, label: str, explanation: str, *, primary: bool = False) -> Markup:
    """A button that posts to `action`."""
    kind = Markup(' class="primary"') if primary else Markup("")
    return fill(_BUTTON, action=action, label=label, explanation=explanation, kind=kind)


def button_sections(ordinary: Iterable[Markup], scenarios: Iterable[Markup]) -> Markup:
    """The ordinary buttons, where there are any, and those that put the merchant's system to the test."""
    first = joined(ordinary)
    return joined(
        [
            fill('<section class="actions">{buttons}</section>', buttons=first) if first else Markup(""),
            fill('<section class="actions"><h2>考验商户系统</h2>{buttons}</section>', buttons=joined(scenarios)),
        ]
    )


def alert(text: str) -> Markup:
    return fill('<section><p class="state bad" role="alert">{text}</p></section>', text=text)


def notices_section(notices: Iterable[Notice]) -> Markup:
    items = joined(_notice_item(notice) for notice in notices)
    if not items:
        return Markup("")
    return fill('<section><h2>通知</h2><ul class="trades">{items}</ul></section>', items=items)


def refunds_section(refunds: Iterable[dict[str, Any]]) -> Markup:
    """The described refunds of a trade."""
    items = joined(_refund_item(refund) for refund in refunds)
    if not items:
        return Markup("")
    return fill('<section><h2>退款</h2><ul class="trades">{items}</ul></section>', items=items)


def _refund_item(refund: dict[str, Any]) -> Markup:
    words, tone = _REFUND_WORDS[RefundState(refund["status"])]
    return fill(
        _REFUND,
        words=words,
        tone=tone,
        amount=f"{refund['amount_fen'] // 100}.{refund['amount_fen'] % 100:02d}",
        out_refund_no=refund["out_refund_no"],
        reason=refund["reason"] or "未填写原因",
    )


def _notice_item(notice: Notice) -> Markup:
    last = notice.attempts[-1] if notice.attempts else None
    answer = "" if last is None else f"{last.http_status or ''} {last.answer or last.error or ''}".strip()
    after = f" · 下次 {format_beijing(notice.next_at)}" if notice.next_at else ""
    return fill(
        _NOTICE,
        words=_NOTICE_WORDS[notice.state.value],
        count=len(notice.attempts),
        after=after,
        answer=answer[:80],
    )

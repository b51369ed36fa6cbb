"""What WeChat's words about an order mean in ours; the same words in APIv3, APIv2 and the cloud calls.

    NOTPAY, ACCEPT               → PENDING      a failed attempt stays NOTPAY and may be paid later
    USERPAYING, PAYERROR         → PENDING      documented for payment codes only, which we do not offer
    SUCCESS, REFUND              → SUCCESSFUL   REFUND: it was paid, and a refund has begun
    CLOSED, REVOKED              → CLOSED
    any other word               → PENDING, and a warning

PAYERROR is not a failure here: an order that WeChat keeps may still be paid until it is closed.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4013070354 and jsapi.php?chapter=9_2, read 2026-09-11.
"""

import structlog

from app.providers.contract import ReportedStatus

STATUSES = {
    "NOTPAY": ReportedStatus.PENDING,
    "ACCEPT": ReportedStatus.PENDING,
    "USERPAYING": ReportedStatus.PENDING,
    "PAYERROR": ReportedStatus.PENDING,
    "SUCCESS": ReportedStatus.SUCCESSFUL,
    "REFUND": ReportedStatus.SUCCESSFUL,
    "CLOSED": ReportedStatus.CLOSED,
    "REVOKED": ReportedStatus.CLOSED,
}

_log = structlog.get_logger(__name__)


def reported_status(trade_state: str, out_trade_no: str) -> ReportedStatus:
    """Our word for a `trade_state`; total, and a word that is not in the table is logged."""
    status = STATUSES.get(trade_state)
    if status is None:
        _log.warning("wechat.unknown_trade_state", trade_state=trade_state[:64], out_trade_no=out_trade_no[:64])
        return ReportedStatus.PENDING
    return status

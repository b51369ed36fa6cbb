"""What Alipay's words about a trade mean in ours, the same for an answer and for a notification; and its times.

    WAIT_BUYER_PAY                             → PENDING
    TRADE_SUCCESS, TRADE_FINISHED              → SUCCESSFUL   also after partial refunds
    TRADE_CLOSED, never paid                   → CLOSED
    TRADE_CLOSED, paid and refunded in full    → SUCCESSFUL, with the refunded amount
    any other word                             → PENDING, and a warning

Source: https://opendocs.alipay.com/open/02ekfs and /open/00f7nu, read 2026-09-11.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from app.clock import SHANGHAI
from app.money import parse_yuan
from app.providers.contract import PaymentReport, ReportedStatus

_STATUSES = {
    "WAIT_BUYER_PAY": ReportedStatus.PENDING,
    "TRADE_SUCCESS": ReportedStatus.SUCCESSFUL,
    "TRADE_FINISHED": ReportedStatus.SUCCESSFUL,
    "TRADE_CLOSED": ReportedStatus.CLOSED,
}
_CLAIMS = ("app_id", "seller_id", "auth_app_id")
# A query says send_pay_date where a notification says gmt_payment; the payer's id depends on the app's age.
_PAID_AT = ("gmt_payment", "send_pay_date")
_PAYER = ("buyer_user_id", "buyer_id", "buyer_open_id")
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"

_log = structlog.get_logger(__name__)


def trade_report(fields: Mapping[str, str], source: Literal["notification", "query", "answer"]) -> PaymentReport:
    """The report of a verified trade. `fields` are non-empty texts; status and number are there.

    Raises ValueError when an amount is not exact yuan, for then nothing may be believed about the money.
    """
    word = fields["trade_status"]
    amount_fen = _fen(fields, "total_amount")
    refunded_fen = _fen(fields, "refund_fee")
    paid_at = first_instant(fields, _PAID_AT)
    status = _STATUSES.get(word)
    if status is None:
        _log.warning("alipay.unknown_trade_status", trade_status=word[:64], out_trade_no=fields["out_trade_no"][:64])
        status = ReportedStatus.PENDING
    if status is ReportedStatus.CLOSED and _was_paid(fields, refunded_fen):
        # It can only have been closed by refunding all of it: an unpaid trade carries none of these fields.
        status = ReportedStatus.SUCCESSFUL
        refunded_fen = refunded_fen or amount_fen
    return PaymentReport(
        out_trade_no=fields["out_trade_no"],
        status=status,
        source=source,
        amount_fen=amount_fen,
        transaction_id=fields.get("trade_no"),
        payer_id=next((fields[name] for name in _PAYER if name in fields), None),
        paid_at=paid_at,
        refunded_fen=refunded_fen,
        account_claims={name: fields[name] for name in _CLAIMS if name in fields},
    )


def texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields of an answer that are texts and not empty; numbers are texts already."""
    return {name: value for name, value in fields.items() if isinstance(value, str) and value}


def _was_paid(fields: Mapping[str, str], refunded_fen: int | None) -> bool:
    return bool(refunded_fen) or "gmt_refund" in fields or any(name in fields for name in _PAID_AT)


def _fen(fields: Mapping[str, str], name: str) -> int | None:
    return parse_yuan(fields[name]) if name in fields else None


def first_instant(fields: Mapping[str, str], names: Sequence[str]) -> datetime | None:
    """The first of these times that is there, in UTC. Alipay writes Beijing time; a time that cannot be read loses only
    this detail."""
    for name in names:
        if name in fields:
            try:
                # The provider's wall clock becomes an aware instant on the next line.
                return datetime.strptime(fields[name][:19], _TIME_FORMAT).replace(tzinfo=SHANGHAI).astimezone(UTC)
            except (ValueError, OverflowError):
                _log.warning("alipay.unreadable_time", field=name, out_trade_no=fields.get("out_trade_no", "")[:64])
    return None


def beijing_time(instant: datetime) -> str:
    """An instant as Alipay writes it."""
    return instant.astimezone(SHANGHAI).strftime(_TIME_FORMAT)

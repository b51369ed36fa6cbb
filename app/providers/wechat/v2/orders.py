"""What WeChat says about an order in the fields of APIv2, the same in answers, notices and the cloud calls.

    trade_state       see states.py
    total_fee         what was ordered, in fen; settlement_total_fee and cash_fee are less where a coupon helped
    openid            the payer under appid; sub_openid the same person under sub_appid
    time_end          20250801100211, Beijing

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_2 and 9_7, read 2026-09-11.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import structlog

from app.clock import SHANGHAI
from app.providers.contract import PaymentReport, PaymentRequest, ReportedStatus

CLAIMS = ("appid", "mch_id", "sub_appid", "sub_mch_id")

# The person's own address is asked for; where nothing names it WeChat takes any, but for H5.
NO_ADDRESS = "127.0.0.1"

# WeChat refuses a time_expire that is less than a minute after the order arrives.
_SHORTEST_AT_WECHAT = timedelta(seconds=75)
_TIME_FORMAT = "%Y%m%d%H%M%S"

_FEN = re.compile(r"0|[1-9][0-9]{0,11}", re.ASCII)
_TIME = re.compile(r"[0-9]{14}", re.ASCII)

_log = structlog.get_logger(__name__)


def order_report(
    fields: Mapping[str, str],
    *,
    status: ReportedStatus,
    source: Literal["notification", "query"],
    claims: Mapping[str, str],
    payer_id: str | None,
) -> PaymentReport:
    """The report of an order from believed, non-empty fields, out_trade_no among them.

    Raises ValueError when an amount is not whole fen, for then nothing may be believed about the money."""
    return PaymentReport(
        out_trade_no=fields["out_trade_no"],
        status=status,
        source=source,
        amount_fen=fen(fields["total_fee"]) if "total_fee" in fields else None,
        currency=fields.get("fee_type", "CNY"),
        transaction_id=fields.get("transaction_id"),
        payer_id=payer_id,
        paid_at=paid_at(fields),
        account_claims=claims,
    )


def claims_among(fields: Mapping[str, str]) -> dict[str, str]:
    """The identifiers by which a message of APIv2 names its receiver, those of them that it carries."""
    return {name: fields[name] for name in CLAIMS if name in fields}


def fen(text: str) -> int:
    """A fee of APIv2; raises ValueError unless it is whole fen in plain digits."""
    if _FEN.fullmatch(text) is None:
        raise ValueError("a fee that is not whole fen")
    return int(text)


def _beijing_time(instant: datetime) -> str:
    return instant.astimezone(SHANGHAI).strftime(_TIME_FORMAT)


def paid_at(fields: Mapping[str, str]) -> datetime | None:
    """time_end in UTC; a time that cannot be read loses only this detail."""
    text = fields.get("time_end", "")
    if _TIME.fullmatch(text) is not None:
        try:
            # The provider's wall clock becomes an aware instant in the same breath.
            return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=SHANGHAI).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    if text:
        _log.warning("wechat.unreadable_time", field="time_end", out_trade_no=fields.get("out_trade_no", "")[:64])
    return None


def order_times(request: PaymentRequest) -> dict[str, str]:
    """time_start and time_expire; the shortest payments get a little more than the minute that WeChat demands."""
    expires_at = max(request.expires_at, request.created_at + _SHORTEST_AT_WECHAT)
    return {"time_start": _beijing_time(request.created_at), "time_expire": _beijing_time(expires_at)}

"""What an APIv3 transaction says, the same object in a query's answer and inside a notification.

Source: https://pay.weixin.qq.com/doc/v3/merchant/4013070354 and /4012791861, read 2026-09-11; partner names from
partnerpayments of wechatpay-go@6dbd7ce.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import structlog

from app.providers.contract import PaymentReport
from app.providers.wechat.states import reported_status
from app.providers.wechat.v3.strict_json import Unreadable, text_of

_CLAIMS = ("appid", "mchid", "sp_appid", "sp_mchid", "sub_appid", "sub_mchid")

_log = structlog.get_logger(__name__)


def transaction_report(
    fields: Mapping[str, Any], source: Literal["notification", "query"], *, payer_name: str
) -> PaymentReport:
    """The report of a verified transaction. `payer_name` is what the openid is called that the payer was asked under.

    Raises Unreadable when number, state or receiver are not there, or when the amount is not a whole number of fen, for
    then nothing may be believed about the money."""
    out_trade_no, trade_state = text_of(fields, "out_trade_no"), text_of(fields, "trade_state")
    if out_trade_no is None or trade_state is None:
        raise Unreadable("the transaction lacks out_trade_no or trade_state")
    claims = {name: claim for name in _CLAIMS if (claim := text_of(fields, name)) is not None}
    # Those of the account's own kind: of a receiver named otherwise nothing would be compared with the account.
    if not claims.keys() >= ({"appid", "mchid"} if payer_name == "openid" else {"sp_mchid", "sub_mchid"}):
        raise Unreadable("the transaction does not name its receiver")
    amount_fen, currency = _amount(fields)
    payer = fields.get("payer")
    return PaymentReport(
        out_trade_no=out_trade_no,
        status=reported_status(trade_state, out_trade_no),
        source=source,
        amount_fen=amount_fen,
        currency=currency,
        transaction_id=text_of(fields, "transaction_id"),
        payer_id=text_of(payer, payer_name) if isinstance(payer, dict) else None,
        paid_at=instant_of(fields, "success_time", out_trade_no),
        account_claims=claims,
    )


def _amount(fields: Mapping[str, Any]) -> tuple[int | None, str]:
    """`total` is the order's amount; what the payer gave after coupons, payer_total, is not compared with anything."""
    amount = fields.get("amount")
    if amount is None:
        return None, "CNY"
    if not isinstance(amount, dict):
        raise Unreadable("the amount is no object")
    total = amount.get("total")
    if total is not None and (type(total) is not int or not 0 <= total < 2**63):
        raise Unreadable("the amount is not a whole number of fen")
    if amount.get("currency") is None:
        return total, "CNY"
    currency = text_of(amount, "currency")
    if currency is None or len(currency) > 16:
        raise Unreadable("the currency is no text")
    return total, currency


def instant_of(fields: Mapping[str, Any], name: str, out_trade_no: str) -> datetime | None:
    """An RFC 3339 time in UTC; one that cannot be read loses only this detail."""
    text = text_of(fields, name)
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not None:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    _log.warning("wechat.unreadable_time", field=name, out_trade_no=out_trade_no[:64])
    return None

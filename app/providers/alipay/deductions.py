"""Taking money under an agreement: what is asked, and how much a success proves.

    10000, with its number, amount and trade   → SUCCESSFUL
    10003, or applied for only                 → PENDING      ask, or wait for the notice
    an answer about another number             → Unknown

A deduction is a trade like any other: it is asked about, closed and given back under its own number.

Source: AlipayTradePayModel, AgreementParams and AlipayTradePayResponse of alipay-sdk-python 3.7.1411;
opendocs.alipay.com/open/041bxs and /support/01rg2g, as mirrored in 2024.
"""

from collections.abc import Mapping
from typing import Any

from app.providers.alipay.orders import order_content
from app.providers.alipay.trades import texts, trade_report
from app.providers.contract import DeductionRequest, PaymentReport, ReportedStatus, Unknown

DEDUCT = "alipay.trade.pay"
# The code of a success that is not one yet.
IN_PROCESS = "10003"


def deduction_content(request: DeductionRequest, *, product_code: str) -> dict[str, object]:
    """The deduction itself. The same request gives the same content: a repeat with another would be refused."""
    content = order_content(
        out_trade_no=request.out_trade_no,
        amount_fen=request.amount_fen,
        subject=request.subject,
        product_code=product_code,
        created_at=request.created_at,
        expires_at=request.expires_at,
    )
    # An object and not its text: Alipay answers a text here with a missing page.
    content["agreement_params"] = {"agreement_no": request.agreement_no}
    return content


def read_deduction_answer(fields: Mapping[str, Any], request: DeductionRequest) -> PaymentReport | Unknown:
    """What the verified success of a deduction says: SUCCESSFUL, or PENDING where it was only taken in."""
    said = texts(fields)
    only_taken = said.get("code") == IN_PROCESS or "async_pay_apply_status" in said
    if said.get("out_trade_no", request.out_trade_no if only_taken else None) != request.out_trade_no:
        return Unknown("the answer is about another out_trade_no")
    if only_taken:
        return PaymentReport(
            out_trade_no=request.out_trade_no,
            status=ReportedStatus.PENDING,
            source="answer",
            transaction_id=said.get("trade_no"),
        )
    for name in ("trade_no", "total_amount"):
        if name not in said:
            return Unknown(f"the answer holds no {name}")
    try:
        # This answer is itself the word that it is paid; should it ever name a status, that is believed.
        return trade_report({"trade_status": "TRADE_SUCCESS"} | said, "answer")
    except ValueError:
        return Unknown("the answer holds an amount that is not exact yuan")

"""The trade that a call orders, whichever method it came by."""

import secrets
from datetime import timedelta
from typing import Any

from app.sandbox.alipay.agreements import Agreement
from app.sandbox.alipay.callers import Call
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.fields import expiry_of, parse_amount
from app.sandbox.alipay.payers import BUYER_ID
from app.sandbox.alipay.trades import Product, Terms, Trade, new_trade_no
from app.sandbox.clock import SandboxClock

PAGE_TIMEOUT, QR_TIMEOUT = timedelta(days=15), timedelta(hours=3)


def new_trade(
    call: Call,
    content: dict[str, Any],
    product: Product,
    clock: SandboxClock,
    *,
    default_timeout: timedelta,
    agreement: Agreement | None = None,
) -> Trade:
    """In no book yet. `agreement` is the one to deduct under, or the one offered with the payment."""
    if content.get("seller_id", call.account.seller_id) != call.account.seller_id:
        raise BusinessRefusal("ACQ.PARTNER_ERROR", "收款方 seller_id 与应用所属商户不一致")
    now = clock.now()
    is_deduction = product is Product.DEDUCTION
    return Trade(
        account=call.account,
        out_trade_no=content["out_trade_no"],
        terms=Terms(
            product=product,
            app_id=call.account.app_id,
            product_code=content.get("product_code", ""),
            total_amount_fen=parse_amount("total_amount", content["total_amount"]),
            subject=content["subject"],
            body=content.get("body", ""),
            passback_params=content.get("passback_params", ""),
            agreement_no=content["agreement_params"]["agreement_no"] if is_deduction else "",
            signing=agreement.terms if agreement and not is_deduction else None,
        ),
        charset=call.charset,
        codec=call.codec,
        notify_url=call.notify_url,
        return_url=call.return_url,
        quit_url=content.get("quit_url", ""),
        created_at=now,
        # A deduction begins with the call itself; a page may be opened long after its link was made.
        expires_at=expiry_of(content, generated_at=now if is_deduction else call.generated_at, default=default_timeout),
        qr_code_expires_at=None,
        token=secrets.token_urlsafe(18),
        trade_no=new_trade_no(now),
        buyer_id=agreement.payer if agreement else BUYER_ID,
        agreement=agreement,
    )

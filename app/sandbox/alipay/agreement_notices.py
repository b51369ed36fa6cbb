"""What Alipay says about agreements: the fields of notices, of the signed way back, and of an answer to a query.

Source: opendocs.alipay.com open/041bxs and open/08bpuc, support answers 285544 and 285557 (routing), read 2026-09.
"""

from datetime import datetime
from urllib.parse import urlencode, urlsplit

from app.sandbox.alipay.agreements import Agreement, AgreementStatus
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.payers import logon_id_of
from app.sandbox.alipay.signing import notification_text, sign
from app.sandbox.clock import format_beijing

NO_END = "2115-02-01 00:00:00"


def sign_fields(agreement: Agreement, notify_id: str) -> dict[str, str]:
    """A `dut_user_sign` without `notify_time` and `sign`."""
    fields = _envelope(agreement, notify_id) | {"notify_type": "dut_user_sign", "status": "NORMAL"} | _signed(agreement)
    if agreement.terms.external_logon_id:
        fields["external_logon_id"] = agreement.terms.external_logon_id
    return fields


def unsign_fields(agreement: Agreement, notify_id: str) -> dict[str, str]:
    """A `dut_user_unsign`; its status is UNSIGN where a query says STOP."""
    assert agreement.ended_at is not None, "it is told once it is over"
    return (
        _envelope(agreement, notify_id)
        | {"notify_type": "dut_user_unsign", "status": "UNSIGN", "unsign_time": format_beijing(agreement.ended_at)}
        | _identity(agreement)
    )


def query_fields(agreement: Agreement) -> dict[str, object]:
    """The answer about an agreement that was signed once."""
    terms, rule, planned_on = agreement.terms, agreement.terms.rule, agreement.planned_on
    is_in_force = agreement.status is AgreementStatus.NORMAL
    fields: dict[str, object] = {
        **_identity(agreement),
        **_signed(agreement),
        "status": "NORMAL" if is_in_force else "STOP",
        "principal_id": agreement.payer,
        "pricipal_type": "CARD",  # Alipay's own spelling
        "third_party_type": "PARTNER",
    }
    del fields["alipay_user_id"]
    if terms.external_logon_id:
        fields["external_logon_id"] = terms.external_logon_id
    if agreement.deductions:
        fields["last_deduct_time"] = format_beijing(agreement.deductions[-1].paid_at)[:10]
    if rule is not None:
        fields["single_quota"] = format_amount(rule.single_amount_fen)
    if rule is not None and planned_on is not None and is_in_force:
        fields["next_deduct_time"] = planned_on.isoformat()
        fields["execution_plans"] = [
            {
                "period_id": str(len(agreement.deductions) + 1),
                "execute_time": planned_on.isoformat(),
                "latest_execute_time": planned_on.isoformat(),
                "single_amount": format_amount(rule.single_amount_fen),
            }
        ]
    return fields


def sign_return_url(agreement: Agreement, now: datetime) -> str:
    """Where the payer's browser goes after signing; proof of nothing. Its parameters' names are not documented."""
    parameters = {
        "app_id": agreement.account.app_id,
        "auth_app_id": agreement.account.auth_app_id,
        "charset": agreement.charset,
        "method": "alipay.user.agreement.page.sign.return",
        "sign_type": "RSA2",
        "timestamp": format_beijing(now),
        "version": "1.0",
        "status": "NORMAL",
        **_identity(agreement),
        **_signed(agreement),
    }
    text = notification_text(parameters)
    parameters["sign"] = sign(agreement.account.alipay_private_key, text.encode(agreement.codec))
    parts = urlsplit(agreement.return_url)
    query = "&".join(filter(None, (parts.query, urlencode(parameters, encoding=agreement.codec))))
    return parts._replace(query=query).geturl()


def _envelope(agreement: Agreement, notify_id: str) -> dict[str, str]:
    return {
        "notify_id": notify_id,
        "app_id": agreement.account.app_id,
        "auth_app_id": agreement.account.auth_app_id,
        "charset": agreement.charset,
        "version": "1.0",
        "sign_type": "RSA2",
        **_identity(agreement),
    }


def _identity(agreement: Agreement) -> dict[str, str]:
    terms = agreement.terms
    fields = {
        "agreement_no": agreement.agreement_no,
        "personal_product_code": terms.personal_product_code,
        "sign_scene": terms.scene,
        "alipay_user_id": agreement.payer,
        "alipay_logon_id": logon_id_of(agreement.payer),
    }
    if terms.external_agreement_no:
        fields["external_agreement_no"] = terms.external_agreement_no
    return fields


def _signed(agreement: Agreement) -> dict[str, str]:
    assert agreement.signed_at is not None, "only of one that was signed"
    signed_at = format_beijing(agreement.signed_at)
    end = format_beijing(agreement.valid_until) if agreement.valid_until else NO_END
    return {"sign_time": signed_at, "valid_time": signed_at, "invalid_time": end}

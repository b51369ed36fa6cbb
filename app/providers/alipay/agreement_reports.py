"""What Alipay's words about an agreement mean in ours, the same for a query's answer and for a notice.

    TEMP           → PENDING   the payer has begun to sign
    NORMAL         → ACTIVE
    STOP, UNSIGN   → ENDED     a query says STOP where the notice says UNSIGN
    any other word → PENDING, and a warning; so is a word that contradicts the notice's own type

Source: AlipayUserAgreementQueryResponse of alipay-sdk-python 3.7.1411; opendocs.alipay.com/open/08bpuc and
/support/01rg2a, as mirrored in 2024.
"""

from collections.abc import Mapping
from datetime import date
from typing import Literal

import structlog

from app.providers.alipay.trades import first_instant
from app.providers.contract import AgreementReport, ReportedAgreement

SIGNED = "dut_user_sign"
UNSIGNED = "dut_user_unsign"

_STATUSES = {
    "TEMP": ReportedAgreement.PENDING,
    "NORMAL": ReportedAgreement.ACTIVE,
    "STOP": ReportedAgreement.ENDED,
    "UNSIGN": ReportedAgreement.ENDED,
}
_POSSIBLE = {
    SIGNED: frozenset({ReportedAgreement.PENDING, ReportedAgreement.ACTIVE}),
    UNSIGNED: frozenset({ReportedAgreement.ENDED}),
}
_CLAIMS = ("app_id", "auth_app_id")
# A notice says alipay_… where a query says principal_…; user or open id depends on the app's age.
_PAYER = ("alipay_user_id", "alipay_open_id", "principal_id", "principal_open_id")

_log = structlog.get_logger(__name__)


def agreement_report(fields: Mapping[str, str], source: Literal["notification", "query"]) -> AgreementReport:
    """The report of a verified agreement. `fields` are non-empty texts; the status is there."""
    word, kind = fields["status"], fields.get("notify_type")
    status = _STATUSES.get(word)
    if status is None or (kind is not None and status not in _POSSIBLE[kind]):
        _log.warning(
            "alipay.unknown_agreement_status",
            status=word[:64],
            notify_type=kind,
            external_agreement_no=fields.get("external_agreement_no", "")[:64],
        )
        status = ReportedAgreement.PENDING
    return AgreementReport(
        status=status,
        source=source,
        external_agreement_no=fields.get("external_agreement_no"),
        agreement_no=fields.get("agreement_no"),
        scene=fields.get("sign_scene"),
        payer_id=next((fields[name] for name in _PAYER if name in fields), None),
        signed_at=first_instant(fields, ("sign_time",)),
        ended_at=first_instant(fields, ("unsign_time",)),
        valid_until=first_instant(fields, ("invalid_time",)),
        next_deduction_on=day(fields, "next_deduct_time"),
        account_claims={name: fields[name] for name in _CLAIMS if name in fields},
    )


def day(fields: Mapping[str, str], name: str) -> date | None:
    """A date of Alipay's where it is there; one that cannot be read loses only this detail."""
    if name not in fields:
        return None
    try:
        return date.fromisoformat(fields[name][:10])
    except ValueError:
        _log.warning("alipay.unreadable_time", field=name, agreement_no=fields.get("agreement_no", "")[:64])
        return None

"""What a payer does with an agreement, and where the word of it goes.

    signed by itself                  notify_url of page.sign, else the app gateway
    signed with a payment             sign_notify_url, else notify_url of the payment, else the app gateway
    unsigned by the merchant          notify_url of unsign, else the app gateway
    unsigned by the payer in Alipay   the app gateway only
    run out                           nowhere

An app without a gateway is told nothing there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from app.sandbox.alipay.accounts import PROVIDER
from app.sandbox.alipay.agreement_notices import sign_fields, unsign_fields
from app.sandbox.alipay.agreements import Agreement, AgreementBook, AgreementStatus
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.alipay.fields import format_amount
from app.sandbox.alipay.notices import RETRY_GAPS, compose_notification, is_acknowledged
from app.sandbox.alipay.trades import new_notify_id
from app.sandbox.clock import SandboxClock
from app.sandbox.deliveries import Deliveries, Notice
from app.sandbox.desks import DeskRefusal

_SUMMARISED = ("notify_type", "status", "agreement_no", "external_agreement_no", "app_id")


@contextmanager
def refusals_translated() -> Iterator[None]:
    """Alipay's refusals as those of any desk."""
    try:
        yield
    except BusinessRefusal as exc:
        raise DeskRefusal(exc.sub_code, exc.sub_msg, "look at GET /_control/agreements") from exc


class AgreementDesk:
    """`app_gateways` are where an app is told what no call of its own asked for, by app id."""

    def __init__(self, agreements: AgreementBook, deliveries: Deliveries, clock: SandboxClock, public_url: str) -> None:
        self.agreements = agreements
        self.app_gateways: dict[str, str] = {}
        self._deliveries = deliveries
        self._clock = clock
        self._public_url = public_url

    async def sign(
        self, agreement: Agreement, *, payer: str | None = None, notify: bool = True, times: int = 1, wait: bool = True
    ) -> list[Notice]:
        """Sign and notify; returns the notices. Raises DeskRefusal and sends nothing when it cannot be signed."""
        with refusals_translated():
            self.agreements.sign(agreement, payer or agreement.payer)
        if not notify:
            return []
        fields = sign_fields(agreement, new_notify_id(self._clock.now()))
        return await self._send(self._notice(agreement, fields, agreement.notify_url), times=times, wait=wait)

    async def unsign(self, agreement: Agreement, *, notify: bool = True, wait: bool = True) -> list[Notice]:
        """The payer ends it in Alipay's app. Raises DeskRefusal unless it is in force."""
        with refusals_translated():
            self.agreements.unsign(agreement)
        if not notify:
            return []
        fields = unsign_fields(agreement, new_notify_id(self._clock.now()))
        return await self._send(self._notice(agreement, fields, ""), times=1, wait=wait)

    def run_out(self, agreement: Agreement) -> None:
        """Its validity is over at once, and nobody is told. Raises DeskRefusal unless it is in force."""
        with refusals_translated():
            self.agreements.run_out(agreement)

    def follow_unsign(self, agreement: Agreement, notify_url: str) -> None:
        """Tell of an agreement that the merchant's call has ended, once that call is answered."""
        fields = unsign_fields(agreement, new_notify_id(self._clock.now()))
        notice = self._notice(agreement, fields, notify_url)
        if notice is not None:
            self._deliveries.call_at(self._clock.now(), lambda: self._deliveries.publish(notice))

    def notices_of(self, agreement: Agreement) -> list[Notice]:
        found = (self._deliveries.find(notify_id) for notify_id in agreement.notify_ids)
        return [notice for notice in found if notice is not None]

    def sign_url(self, agreement: Agreement) -> str:
        return f"{self._public_url}/alipay/sign/{agreement.token}"

    def described(self, agreement: Agreement) -> dict[str, Any]:
        """The agreement as /_control shows it: the provider's truth."""
        self.agreements.expire(agreement)
        terms, account = agreement.terms, agreement.account
        moments = {
            "created_at": agreement.created_at,
            "link_expires_at": agreement.link_expires_at,
            "signed_at": agreement.signed_at,
            "valid_until": agreement.valid_until,
            "ended_at": agreement.ended_at,
        }
        return {
            "provider": PROVIDER,
            "app_id": account.app_id,
            "auth_app_id": account.auth_app_id,
            "seller_id": account.seller_id,
            "external_agreement_no": terms.external_agreement_no or None,
            "agreement_no": agreement.agreement_no or None,
            "out_trade_no": agreement.out_trade_no or None,
            "external_logon_id": terms.external_logon_id or None,
            "status": agreement.status.value,
            "payer": agreement.payer,
            "scene": terms.scene,
            "personal_product_code": terms.personal_product_code,
            "product_code": terms.product_code,
            **_plan(agreement),
            "under_way": agreement.under_way or None,
            "modifications": agreement.modifications,
            "notify_url": agreement.notify_url or None,
            "return_url": agreement.return_url or None,
            **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
            "sign_url": self.sign_url(agreement),
            "notify_ids": list(agreement.notify_ids),
        }

    def reset(self) -> None:
        self.agreements.reset()
        self.app_gateways.clear()

    async def _send(self, notice: Notice | None, *, times: int, wait: bool) -> list[Notice]:
        if notice is None:
            return []
        await self._deliveries.publish(notice, copies=times, wait=wait)
        return [notice]

    def _notice(self, agreement: Agreement, fields: Mapping[str, str], notify_url: str) -> Notice | None:
        """To the call's own URL, or else to the app gateway; None where there is neither."""
        url = notify_url or self.app_gateways.get(agreement.account.app_id, "")
        if not url:
            return None
        keeps_sign_type = self.agreements.policy.signed_by == "V2"
        notify_id = fields["notify_id"]
        agreement.notify_ids.append(notify_id)
        return Notice(
            notify_id=notify_id,
            provider=PROVIDER,
            out_trade_no=agreement.number,
            url=url,
            gaps=RETRY_GAPS,
            compose=lambda sent_at: compose_notification(
                agreement.account, fields, agreement.codec, sent_at, keeps_sign_type=keeps_sign_type
            ),
            is_acknowledged=is_acknowledged,
            summary={name: fields[name] for name in _SUMMARISED if name in fields},
        )


def is_signable(agreement: Agreement) -> bool:
    return agreement.status is AgreementStatus.OFFERED


def _plan(agreement: Agreement) -> dict[str, Any]:
    """The plan and what was deducted; amounts in fen and, as Alipay writes them, in yuan."""
    rule = agreement.terms.rule
    return {
        "period_type": rule.period_type.value if rule else None,
        "period": rule.period if rule else None,
        "first_deduction_on": rule.first_on.isoformat() if rule else None,
        "next_deduction_on": agreement.planned_on.isoformat() if agreement.planned_on else None,
        "single_amount": format_amount(rule.single_amount_fen) if rule else None,
        "single_amount_fen": rule.single_amount_fen if rule else None,
        "total_amount_fen": rule.total_amount_fen if rule else None,
        "total_payments": rule.total_payments if rule else None,
        "deducted_fen": agreement.deducted_fen,
        "deductions": [
            {
                "out_trade_no": deducted.out_trade_no,
                "amount_fen": deducted.amount_fen,
                "paid_at": deducted.paid_at.isoformat(),
                "planned_on": deducted.planned_on.isoformat() if deducted.planned_on else None,
            }
            for deducted in agreement.deductions
        ],
    }

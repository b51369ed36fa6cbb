"""What a caller can do with refunds: ask for one, and have the provider asked about it.

create:  permission, reserve, row (CREATED, one commit) → provider → PENDING or REFUNDED (commit)
                                                                  ├→ FAILED and the reserve free, when it said no
                                                                  └→ stays CREATED while unknown; sweep.py finds out

The number of a refund is made once. Whatever is repeated, by a caller, a worker or the provider, is repeated under it.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import orjson
import structlog

from app.activation.permissions import Action, Permissions, forbidden, roles_of
from app.activation.plan import payments_not_active, plan_expired
from app.auth import Principal
from app.clock import SHANGHAI, Clock
from app.db import Database
from app.doorbell import Doorbell
from app.errors import (
    Forbidden,
    IdempotencyConflict,
    InvalidAmount,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PaymentNotRefundable,
    ProviderError,
    ProviderRejected,
    ProviderUnavailable,
    RefundExceedsPayment,
)
from app.merchants.accounts import MerchantAccounts, OpenAccount
from app.metrics import Metrics
from app.money import format_yuan
from app.payments.actions import may_see, new_number
from app.payments.model import Failure, failure_json, failure_of
from app.providers.contract import (
    AccountInvalid,
    NotReached,
    Provider,
    RefundOutcome,
    RefundReport,
    RefundRequest,
    Rejected,
    ReportedRefund,
    Unknown,
)
from app.refunds.model import Refund, read_refund
from app.refunds.reports import AppliedRefund, apply_refund_report
from app.vault import VaultError

log = structlog.get_logger(__name__)

# How long the process that opened a refund has for the provider's answer before others ask what became of it.
_CREATE_LEASE: Final = timedelta(seconds=30)
# How long a refund that its provider took, or may have taken, can be in its hands, whatever a repeat of it is answered:
# Alipay's query does not tell one that a bank works on from one that failed.
_TAKEN_FOR: Final = timedelta(days=7)
_REASON_LIMIT: Final = 80
_KEY_LIMIT: Final = 128


@dataclass(frozen=True, slots=True)
class RefundPayment:
    """What a caller asks for; the fields of RefundPaymentInput, parsed."""

    payment_id: int
    amount_fen: int
    reason: str | None = None
    idempotency_key: str | None = None

    def input_hash(self) -> bytes:
        """SHA-256 of everything but the key: the same key with another input is a conflict."""
        return hashlib.sha256(orjson.dumps([self.payment_id, self.amount_fen, self.reason])).digest()


class Refunds:
    """Refunds of this deployment. One a process; every method may run beside itself, here and elsewhere."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: MerchantAccounts,
        clock: Clock,
        bell: Doorbell,
        metrics: Metrics,
        permissions: Permissions,
        public_url: str,
    ) -> None:
        self._db = database
        self.accounts = accounts
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._permissions = permissions
        self._public_url = public_url

    # --- reading --------------------------------------------------------------------------------------------------

    async def find(self, caller: Principal, refund_id: int) -> Refund | None:
        """The refund, or None when there is none or it is somebody else's."""
        row = await self._db.one("refund.find", refund_id)
        if row is None:
            return None
        refund = read_refund(row)
        return refund if may_see_refund(caller, refund) else None

    async def of_payments(self, payment_ids: Sequence[int]) -> dict[int, list[Refund]]:
        """Refunds by payment, oldest first, whoever asks: the caller has checked the payments."""
        found: dict[int, list[Refund]] = {}
        for row in await self._db.all("refund.by_payments", list(payment_ids)):
            found.setdefault(row["payment_id"], []).append(read_refund(row))
        return found

    async def by_ids(self, refund_ids: Sequence[int]) -> dict[int, Refund]:
        """Refunds by id, whoever asks; one statement."""
        rows = await self._db.all("refund.by_ids", list(refund_ids))
        return {row["id"]: read_refund(row) for row in rows}

    # --- creating -------------------------------------------------------------------------------------------------

    async def create(
        self, caller: Principal, request: RefundPayment, *, correlation_id: str, address: str | None = None
    ) -> Refund:
        """Gives money back and returns the refund; while the outcome is unknown it stays `checking`.

        Raises Forbidden, NotFound and the other refusals before anything is reserved; ProviderRejected and
        ProviderUnavailable with the refund FAILED and the reserve free."""
        _check_request(request)
        payment = await self._db.one("payment.find", request.payment_id)
        provider = None if payment is None else self.accounts.providers.get(payment["provider"])
        if payment is None or provider is None:
            raise _refused("NOT_FOUND", request, 0, 0)
        now = self._clock.now()
        row = await self._db.change(
            "refund.open", request.payment_id, caller.sub, caller.is_admin, roles_of(caller), request.amount_fen,
            new_number("SR", now), request.reason, request.idempotency_key, request.input_hash(), correlation_id, now,
            now + _CREATE_LEASE, now - provider.refund_window, _day_begins(now), address,
        )  # fmt: skip
        assert row is not None
        if row["refusal"] is not None:
            raise _refused(row["refusal"], request, row["refundable_fen"] or 0, row["bound_fen"] or 0)
        refund = read_refund(row)
        if row["replayed"]:
            return _first_answer_again(refund)
        try:
            account = await self.accounts.open(refund.merchant_account_id)
        except (VaultError, AccountInvalid):
            # Ours to mend, and nothing was sent: the reserve is free again.
            await self._refuse(refund, _not_reached(), ["CREATED"])
            raise
        return _first_answer_again(await self._send(refund, account, first=True))

    async def create_again(self, refund: Refund, account: OpenAccount) -> Refund:
        """Sends a refund once more, under the same number, whose provider says a moment ago that it has no such refund.

        A refusal ends it only after a week, and not being reached never does: the first attempt may have acted."""
        return await self._send(refund, account, first=False)

    async def _send(self, refund: Refund, account: OpenAccount, *, first: bool) -> Refund:
        outcome = await account.provider.create_refund(account.account, await self._request(refund))
        match outcome:
            case RefundReport(status=ReportedRefund.NOT_FOUND):
                log.warning("refund.create_unknown", refund_id=refund.id, detail="taken, and not found")
            case RefundReport():
                await self._apply(refund, account, outcome, refund.correlation_id)
            case Rejected() if first:
                return await self._refuse(refund, failure_of(outcome), ["CREATED"])
            case Rejected() if self._clock.now() - refund.created_at < _TAKEN_FOR:
                await self._obstruct(refund, account, failure_of(outcome))
            case Rejected():
                # The provider has just said that it has no such refund: one it once took has failed there.
                return await self._refuse(refund, failure_of(outcome), ["CREATED", "PENDING"])
            case NotReached(detail=detail) if first:
                log.warning("refund.create_not_reached", refund_id=refund.id, detail=detail)
                return await self._refuse(refund, _not_reached(outcome.words), ["CREATED"])
            case NotReached(detail=detail, words=words) | Unknown(detail=detail, words=words):
                log.warning("refund.create_unknown", refund_id=refund.id, detail=detail)
                if words is not None:
                    doubt = replace(failure_of(words), code=OutcomeUnknown.code)
                    await self._db.change("refund.doubt", refund.id, failure_json(doubt), self._clock.now())
        return await self.reload(refund.id)

    async def _refuse(self, refund: Refund, failure: Failure, leaving: list[str]) -> Refund:
        """FAILED and the reserve free, unless another answer was faster, or somebody else took it over meanwhile: they
        may have sent it too, and what became of that is theirs to say."""
        async with self._db.transaction() as tx:
            await tx.one("refund.lock_payment", refund.out_refund_no)
            current = await tx.one("refund.lock", refund.out_refund_no)
            if current is not None and current["check_at"] == refund.check_at:
                await tx.one("refund.fail", refund.id, failure_json(failure), self._clock.now(), leaving)
        self._bell.ring("events")
        return await self.reload(refund.id)

    async def _obstruct(self, refund: Refund, account: OpenAccount, failure: Failure) -> None:
        """Still under way as far as anybody can tell: what stands in its way is shown, and the reserve stays."""
        now = self._clock.now()
        if refund.status == "CREATED":
            # The provider may have taken it, and its answer was lost.
            doubt = replace(failure, code=OutcomeUnknown.code)
            await self._db.change("refund.doubt", refund.id, failure_json(doubt), now)
            return
        async with self._db.transaction() as tx:
            await tx.one("refund.lock_payment", refund.out_refund_no)
            check_at = next_check(account.provider, refund, now)
            await tx.one("refund.accept", refund.id, None, now, check_at, failure_json(failure))

    # --- asking ---------------------------------------------------------------------------------------------------

    async def sync(self, caller: Principal, refund_id: int, *, correlation_id: str) -> Refund:
        """Asks the provider now and applies what it says.

        Raises Forbidden, NotFound; ProviderUnavailable, OutcomeUnknown or ProviderRejected without a usable answer."""
        refund = await self.find(caller, refund_id)
        if refund is None:
            raise NotFound(f"refund {refund_id} does not exist", field="id")
        await self._permissions.require(caller, Action.PAYMENT_SYNC)
        account = await self.accounts.open(refund.merchant_account_id)
        await self.ask(refund, account, correlation_id=correlation_id)
        return await self.reload(refund_id)

    async def ask(self, refund: Refund, account: OpenAccount, *, correlation_id: str | None) -> AppliedRefund:
        """One question to the provider, its answer applied. Raises as `sync` does."""
        answer = await account.provider.query_refund(account.account, await self._request(refund))
        if not isinstance(answer, RefundReport):
            raise _no_answer(answer)
        return await self._apply(refund, account, answer, correlation_id)

    async def _apply(
        self, refund: Refund, account: OpenAccount, report: RefundReport, correlation_id: str | None
    ) -> AppliedRefund:
        check_at = next_check(account.provider, refund, self._clock.now())
        applied = await apply_refund_report(
            self._db, self._clock, account, report, correlation_id=correlation_id, check_at=check_at
        )
        if applied.changed:
            self._bell.ring("events")
        for field in applied.differences:
            self._metrics.differences.labels(field).inc()
        return applied

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _request(self, refund: Refund) -> RefundRequest:
        row = await self._db.one("refund.request", refund.id)
        assert row is not None
        return RefundRequest(
            out_trade_no=row["out_trade_no"],
            out_refund_no=refund.out_refund_no,
            amount_fen=refund.amount_fen,
            total_fen=row["total_fen"],
            notify_url=f"{self._public_url}/notify/{row['provider'].lower()}/{refund.merchant_account_id}",
            created_at=refund.created_at,
            transaction_id=row["transaction_id"],
            reason=refund.reason,
        )

    async def reload(self, refund_id: int) -> Refund:
        """The refund as it is now, whoever asks. Raises NotFound once payments were turned off."""
        row = await self._db.one("refund.find", refund_id)
        if row is None:
            raise NotFound(f"refund {refund_id} does not exist any more: payments were turned off", field="id")
        return read_refund(row)


def may_see_refund(caller: Principal, refund: Refund) -> bool:
    """The payment's owner, an administrator, and whoever asked for it."""
    return may_see(caller, refund.owner) or refund.created_by == caller.sub


def next_check(provider: Provider, refund: Refund, now: datetime) -> datetime:
    """The first moment of the provider's schedule that lies ahead. Past the schedule its last gap repeats."""
    schedule = provider.refund_schedule
    age = now - refund.created_at
    ahead = next((at for at in schedule if at > age), age + (schedule[-1] - schedule[-2]))
    return refund.created_at + ahead


def _day_begins(now: datetime) -> datetime:
    return now.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)


def _check_request(request: RefundPayment) -> None:
    if request.amount_fen < 1:
        raise InvalidAmount("amount: give back at least 0.01 yuan", field="amount", message_zh="退款金额至少 0.01 元")
    for field, text, limit in (
        ("reason", request.reason, _REASON_LIMIT),
        ("idempotencyKey", request.idempotency_key, _KEY_LIMIT),
    ):
        if text is not None and not (1 <= len(text) <= limit and text.isprintable()):
            raise InvalidInput(f"{field}: use 1 to {limit} characters, without control characters", field=field)


def _not_reached(words: Rejected | None = None) -> Failure:
    """The failure of a refund whose provider was never reached, or turned it away with these words."""
    if words is not None:
        return replace(failure_of(words), code=ProviderUnavailable.code)
    return Failure(
        code=ProviderUnavailable.code,
        provider_code=None,
        provider_message=None,
        explanation="the provider could not be reached; nothing was sent or given back, ask for a new refund",
        explanation_zh="支付渠道暂时无法连接，未产生退款，请重新发起退款",
    )


def _first_answer_again(refund: Refund) -> Refund:
    """What the first call answered: the refund, or the error it failed with."""
    failure = refund.failure
    if refund.status != "FAILED" or failure is None:
        return refund
    kind = ProviderUnavailable if failure.code == ProviderUnavailable.code else ProviderRejected
    raise kind(
        failure.explanation,
        provider_code=failure.provider_code,
        provider_message=failure.provider_message,
        message_zh=failure.explanation_zh,
        extra={"refundId": str(refund.id)},
    )


def _no_answer(outcome: RefundOutcome) -> ProviderError:
    match outcome:
        case Rejected(code=code, message=message, explanation=explanation, explanation_zh=explanation_zh):
            return ProviderRejected(
                explanation, provider_code=code, provider_message=message, message_zh=explanation_zh
            )
        case NotReached():
            return ProviderUnavailable("the provider could not be reached; nothing changed, try again shortly")
        case _:
            return OutcomeUnknown("the provider gave no usable answer; the refund stays as it is and is asked about")


def _refused(refusal: str, request: RefundPayment, refundable_fen: int, bound_fen: int) -> Exception:
    """The words for what shouyin.open_refund refused."""
    match refusal:
        case "NOT_FOUND":
            return NotFound(f"paymentId: there is no payment {request.payment_id} of yours", field="paymentId")
        case "FORBIDDEN":
            return forbidden(Action.PAYMENT_REFUND)
        case "PAYMENTS_NOT_ACTIVE":
            return payments_not_active()
        case "PLAN_EXPIRED":
            return plan_expired()
        case "IDEMPOTENCY_CONFLICT":
            return IdempotencyConflict(
                "idempotencyKey: this key was used with another input; use a new key for a new refund",
                field="idempotencyKey",
            )
        case "ABOVE_LARGEST" | "ABOVE_DAILY":
            what = "a single refund" if refusal == "ABOVE_LARGEST" else "your refunds of one day together"
            what_zh = "单笔退款上限" if refusal == "ABOVE_LARGEST" else "当日退款总额上限"
            return Forbidden(
                f"amount: {what} may come to {format_yuan(bound_fen)} yuan; somebody with more rights gives it back",
                message_zh=f"超出{what_zh} {format_yuan(bound_fen)} 元",
                field="amount",
            )
        case "REFUND_EXCEEDS_PAYMENT":
            return RefundExceedsPayment(
                f"amount: {format_yuan(refundable_fen)} yuan of this payment can still be given back",
                message_zh=f"退款金额超出可退金额 {format_yuan(refundable_fen)} 元",
                field="amount",
            )
    reasons = {
        "NOT_PAID": ("it has not been paid", "该支付未成功，无法退款"),
        "ALL_REFUNDED": ("all of it was given back already", "该支付已全额退款"),
        "TOO_OLD": ("it was paid too long ago for its provider to give it back", "已超过支付渠道允许的退款期限"),
    }
    reason, reason_zh = reasons[refusal]
    return PaymentNotRefundable(
        f"paymentId: payment {request.payment_id} cannot be refunded: {reason}", message_zh=reason_zh, field="paymentId"
    )

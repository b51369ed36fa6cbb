"""What a caller can do with cycle payments: start one, end it, pause it, change it, look ahead.

start:   row (PENDING, commit) → the provider's link → the payer signs → a report makes it ACTIVE (reports.py)
cancel:  `ending` (commit) → provider → CANCELLED; while that is unknown nothing is deducted, and sweep.py asks on
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

import orjson
import structlog

from app.activation.permissions import Action, Permissions, roles_of
from app.activation.plan import Plan
from app.auth import Principal
from app.clock import Clock
from app.cycles.calendar import Schedule, next_on_grid, upcoming
from app.cycles.model import CyclePayment, CyclePaymentStatus, Deduction, SuspendedFor, read_cycle, read_deduction
from app.cycles.refusals import refused
from app.cycles.reports import AppliedAgreement, apply_agreement_report
from app.db import Database
from app.doorbell import Doorbell
from app.errors import (
    CycleNotChangeable,
    InvalidAmount,
    InvalidInput,
    MethodNotConfigured,
    NotFound,
    ProviderError,
    SceneNotAllowed,
)
from app.merchants.accounts import MerchantAccounts, OpenAccount
from app.metrics import Metrics
from app.money import format_yuan
from app.payments.actions import CREATE_LEASE, check_text, may_see, new_number, no_answer
from app.payments.model import Payment, failure_json, failure_of, read_payment
from app.providers.contract import (
    Accepted,
    AgreementReport,
    AgreementRequest,
    Agreements,
    AgreementTerms,
    FirstPayment,
    NotReached,
    PutOff,
    Rejected,
    Unknown,
)

log = structlog.get_logger(__name__)

_PAGE_LIMIT: Final = 100
_PREVIEW_LIMIT: Final = 100
_PAYER_NAME_LIMIT: Final = 100
_FURTHEST: Final = timedelta(days=3660)


@dataclass(frozen=True, slots=True)
class StartCyclePayment:
    """What a caller asks for; the fields of StartCyclePaymentInput, parsed. `ceiling_fen` None is the price."""

    order_id: int
    price_fen: int
    subject: str
    interval_days: int
    scene: str
    ceiling_fen: int | None = None
    first_deduction_on: date | None = None
    return_url: str | None = None
    merchant_account_id: int | None = None
    pay_now: bool = False
    idempotency_key: str | None = None

    def input_hash(self) -> bytes:
        """SHA-256 of what is asked for, but the key: the same key with another input is a conflict."""
        fields = [
            self.order_id, self.price_fen, self.subject, self.interval_days, self.scene, self.ceiling_fen,
            self.first_deduction_on, self.return_url, self.merchant_account_id, self.pay_now,
        ]  # fmt: skip
        return hashlib.sha256(orjson.dumps(fields)).digest()


@dataclass(frozen=True, slots=True)
class Upcoming:
    """One coming deduction, as things stand now."""

    due_on: date
    price_fen: int


class Cycles:
    """Cycle payments of this deployment. One a process; every method may run beside itself, here and elsewhere."""

    def __init__(
        self,
        *,
        database: Database,
        accounts: MerchantAccounts,
        clock: Clock,
        bell: Doorbell,
        metrics: Metrics,
        permissions: Permissions,
        plan: Plan,
        schedule: Schedule,
        public_url: str,
    ) -> None:
        self._db = database
        self.accounts = accounts
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._permissions = permissions
        self._plan = plan
        self.schedule = schedule
        self._public_url = public_url

    # --- reading --------------------------------------------------------------------------------------------------

    async def find(self, caller: Principal, cycle_id: int) -> CyclePayment | None:
        """The cycle payment, or None when there is none or it is somebody else's."""
        row = await self._db.one("cycle.find", cycle_id)
        if row is None:
            return None
        cycle = read_cycle(row)
        return cycle if may_see_cycle(caller, cycle) else None

    async def mine(self, caller: Principal, *, limit: int = 20, before_id: int | None = None) -> list[CyclePayment]:
        """The caller's own, newest first; the next page continues before the last id. Raises InvalidInput."""
        if not 1 <= limit <= _PAGE_LIMIT:
            raise InvalidInput(f"limit: from 1 to {_PAGE_LIMIT}", field="limit")
        return [read_cycle(row) for row in await self._db.all("cycle.of_payer", caller.sub, before_id, limit)]

    async def by_ids(self, cycle_ids: Sequence[int]) -> dict[int, CyclePayment]:
        """Cycle payments by id, whoever asks; one statement."""
        return {row["id"]: read_cycle(row) for row in await self._db.all("cycle.by_ids", list(cycle_ids))}

    async def payments_of(self, cycle_ids: Sequence[int]) -> dict[int, list[Payment]]:
        """Payments by cycle, oldest first, whoever asks: the caller has checked the cycles."""
        return await self._payments("cycle.payments", cycle_ids, "cycle_payment_id")

    async def payments_of_deductions(self, deduction_ids: Sequence[int]) -> dict[int, list[Payment]]:
        """Every attempt of these deductions, oldest first."""
        return await self._payments("deduction.payments", deduction_ids, "deduction_id")

    async def _payments(self, statement: str, ids: Sequence[int], key: str) -> dict[int, list[Payment]]:
        found: dict[int, list[Payment]] = {}
        for row in await self._db.all(statement, list(ids)):
            found.setdefault(row[key], []).append(read_payment(row))
        return found

    async def deductions_of(self, cycle_id: int, *, limit: int, before: date | None) -> list[Deduction]:
        """The history, newest first; the next page continues before the last date. Raises InvalidInput."""
        if not 1 <= limit <= _PAGE_LIMIT:
            raise InvalidInput(f"limit: from 1 to {_PAGE_LIMIT}", field="limit")
        return [read_deduction(row) for row in await self._db.all("deduction.of_cycle", cycle_id, before, limit)]

    def preview(self, cycle: CyclePayment, count: int) -> list[Upcoming]:
        """The next deductions as things stand; none once it is over. Raises InvalidInput."""
        if not 1 <= count <= _PREVIEW_LIMIT:
            raise InvalidInput(f"limit: from 1 to {_PREVIEW_LIMIT}", field="limit")
        if not cycle.live or cycle.ending:
            return []
        begin = cycle.next_deduction_on or cycle.first_deduction_on
        if cycle.status is CyclePaymentStatus.SUSPENDED:
            begin = next_on_grid(begin, cycle.interval_days, self._clock.business_date())
        return [Upcoming(due_on, cycle.price_fen) for due_on in upcoming(begin, cycle.interval_days, count)]

    # --- starting -------------------------------------------------------------------------------------------------

    async def start(self, caller: Principal, request: StartCyclePayment, *, correlation_id: str) -> CyclePayment:
        """Opens a cycle payment and returns it with the payer's next step, PENDING until they have signed.

        Raises the caller's errors before anything is written; ProviderRejected and ProviderUnavailable with the row
        EXPIRED and nothing signed."""
        known = await self._known(caller, request)
        if known is not None:
            return known
        now = self._clock.now()
        account, agreements, draft = await self._drafted(caller, request, now)
        number = new_number("SY", now) if request.pay_now else None
        row = await self._db.change(
            "cycle.open", request.order_id, caller.sub, caller.is_admin, roles_of(caller), account.id,
            agreements.method, request.scene, request.subject, request.price_fen, draft.ceiling_fen,
            request.interval_days, draft.first_deduction_on, draft.external_agreement_no, request.return_url,
            request.idempotency_key, request.input_hash(), correlation_id, draft.expires_at, now, now + CREATE_LEASE,
            number,
        )  # fmt: skip
        assert row is not None
        if row["refusal"] is not None:
            raise refused(row["refusal"], request, row["order_amount_fen"], row["live_id"])
        cycle = read_cycle(row)
        return cycle if row["replayed"] else await self.offer(cycle, account)

    async def _known(self, caller: Principal, request: StartCyclePayment) -> CyclePayment | None:
        """What the same key gave before, looked at first: a date that was right then may have passed since.

        Raises IdempotencyConflict."""
        if request.idempotency_key is None:
            return None
        row = await self._db.one("cycle.by_key", caller.sub, request.idempotency_key, request.input_hash())
        if row is None:
            return None
        if not row["same"]:
            raise refused("IDEMPOTENCY_CONFLICT", request, None, None)
        return await self.reload(row["id"])

    async def offer(self, cycle: CyclePayment, account: OpenAccount) -> CyclePayment:
        """Gives a payer who has not signed the next step, and their first payment with it. May be repeated."""
        agreements = agreements_of(account)
        first = None
        if cycle.first_payment_id is not None:
            row = await self._db.one("payment.find", cycle.first_payment_id)
            assert row is not None
            first = FirstPayment(row["out_trade_no"], row["amount_fen"])
        outcome = await agreements.sign(account.account, self._request(cycle, first))
        now = self._clock.now()
        match outcome:
            case Accepted(action=action):
                check_at = min(cycle.created_at + agreements.query_schedule[0], cycle.expires_at)
                async with self._db.transaction() as tx:
                    await tx.one("cycle.accept", cycle.id, action, now, check_at)
                    if cycle.first_payment_id is not None:
                        await tx.one("payment.accept", cycle.first_payment_id, action, None, now, check_at)
            case Rejected():
                failure = failure_json(failure_of(outcome))
                async with self._db.transaction() as tx:
                    await tx.one("cycle.obstruct", cycle.id, failure, now)
                    await tx.one("cycle.finish", cycle.id, CyclePaymentStatus.EXPIRED, "provider", None, now)
                    if cycle.first_payment_id is not None:
                        await tx.one("payment.fail", cycle.first_payment_id, failure, now, ["CREATED"])
                self._bell.ring("events")
                raise no_answer(outcome)
            case NotReached() | Unknown():
                # Nobody can sign what was not handed out; the sweep offers it again.
                log.warning("cycle.not_offered", cycle_payment_id=cycle.id, detail=outcome.detail)
        return await self.reload(cycle.id)

    async def _drafted(
        self, caller: Principal, request: StartCyclePayment, now: datetime
    ) -> tuple[OpenAccount, Agreements, AgreementRequest]:
        """The account that signs this, and the agreement as it would be asked for. Raises the caller's errors."""
        check_text("subject", request.subject, limit=256)
        check_text("scene", request.scene, limit=64)
        check_text("idempotencyKey", request.idempotency_key, limit=128)
        check_text("returnUrl", request.return_url, limit=2048)
        _check_amounts(request)
        today = self._clock.business_date()
        first_on = request.first_deduction_on or _first_date(request, today)
        if not today <= first_on <= today + _FURTHEST:
            raise InvalidInput(
                f"firstDeductionOn: {first_on} is not from today ({today}) on, within ten years",
                message_zh="首次扣款日期须为今天或以后的日期",
                field="firstDeductionOn",
            )
        try:
            account, agreements = await self._account_for(caller, request)
            _check_price(request, agreements.terms(account.account))
            draft = AgreementRequest(
                external_agreement_no=new_number("SA", now),
                scene=request.scene,
                subject=request.subject,
                ceiling_fen=request.ceiling_fen or request.price_fen,
                interval_days=request.interval_days,
                first_deduction_on=first_on,
                payer_name=_shown(caller.sub),
                notify_url=self._public_url,
                created_at=now,
                expires_at=now + agreements.signing_life,
                return_url=request.return_url,
            )
            agreements.check_agreement(account.account, draft)
        except (MethodNotConfigured, SceneNotAllowed, InvalidInput, InvalidAmount) as exc:
            # Who may not start any has to hear that first.
            await self._plan.require()
            await self._permissions.require(caller, Action.CYCLE_START)
            if exc.field == "maxPrice" and request.ceiling_fen is None:
                exc.field = "price"  # which stands for it
            raise
        return account, agreements, draft

    async def _account_for(self, caller: Principal, request: StartCyclePayment) -> tuple[OpenAccount, Agreements]:
        """The first enabled account that signs this scene."""
        refusal: Exception | None = None
        for provider in self.accounts.providers.values():
            agreements = provider.agreements
            if agreements is None:
                continue
            for row in await self._db.all("cycle.accounts", agreements.method, request.merchant_account_id):
                account = await self.accounts.open(row["id"])
                scenes = agreements.terms(account.account).scenes
                if request.scene in scenes:
                    return account, agreements
                refusal = refusal or SceneNotAllowed(
                    f"scene: {request.scene!r} is none that the merchant account signs; it takes"
                    f" {', '.join(sorted(scenes)) or 'none'}",
                    field="scene",
                )
        raise refusal or MethodNotConfigured(
            "no enabled merchant account signs agreements; an administrator adds one (createMerchantAccount)",
            field="merchantAccountId" if request.merchant_account_id is not None else None,
        )

    def _request(self, cycle: CyclePayment, first: FirstPayment | None) -> AgreementRequest:
        """What the provider is asked for; the same however often."""
        return AgreementRequest(
            external_agreement_no=cycle.external_agreement_no,
            scene=cycle.scene,
            subject=cycle.subject,
            ceiling_fen=cycle.ceiling_fen,
            interval_days=cycle.interval_days,
            first_deduction_on=cycle.first_deduction_on,
            payer_name=_shown(cycle.payer),
            notify_url=self.notify_url(cycle),
            created_at=cycle.created_at,
            expires_at=cycle.expires_at,
            return_url=cycle.return_url,
            first_payment=first,
        )

    # --- ending and changing --------------------------------------------------------------------------------------

    async def cancel(
        self, caller: Principal, cycle_id: int, *, correlation_id: str, address: str | None = None
    ) -> CyclePayment:
        """Ends a cycle payment, at its provider too; safe to repeat. One that is over already is returned as it is.

        From here on nothing is deducted, whatever the provider answers; while that is unknown it comes back `ending`.
        Raises Forbidden, NotFound."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.CYCLE_CANCEL)
        if cycle.live:
            await self._changed(caller, cycle, "cycle.cancel", {}, correlation_id, address, "cycle.stop")
            self._bell.ring("deductions")
            account, current = await self.accounts.open(cycle.merchant_account_id), await self.reload(cycle.id)
            try:
                if current.ending:  # and not over meanwhile
                    await self.end(current, account)
            except ProviderError as exc:
                log.warning("cycle.cancel_unknown", cycle_payment_id=cycle.id, code=exc.code)
        return await self.reload(cycle_id)

    async def end(self, cycle: CyclePayment, account: OpenAccount) -> AppliedAgreement:
        """Has the provider end an agreement, or, never signed, makes sure that it is not. May be repeated.

        Raises ProviderError, with the words kept, when there is no usable answer."""
        agreements, key = agreements_of(account), cycle.key(self.notify_url(cycle))
        if cycle.agreement_no is None:
            applied = await self.ask(cycle, account)
            current = applied.cycle
            if current is None or current.agreement_no is None or applied.reported != "ACTIVE":
                return applied
            key = current.key(self.notify_url(cycle))
        answer = await agreements.cancel_agreement(account.account, key)
        return await self._apply(cycle, account, answer)

    async def pause(
        self, caller: Principal, cycle_id: int, *, correlation_id: str, address: str | None = None
    ) -> CyclePayment:
        """Takes no money until it is resumed; the agreement stays. Raises Forbidden, NotFound, CycleNotChangeable."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.CYCLE_PAUSE)
        if cycle.status is not CyclePaymentStatus.SUSPENDED:
            await self._changed(
                caller, cycle, "cycle.pause", {}, correlation_id, address, "cycle.suspend", SuspendedFor.PAUSE, None
            )
        return await self.reload(cycle_id)

    async def resume(
        self, caller: Principal, cycle_id: int, *, correlation_id: str, address: str | None = None
    ) -> CyclePayment:
        """Goes on with the next of its due dates, today's included; those in between are not charged.

        Raises Forbidden, NotFound, PlanExpired, CycleNotChangeable."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.CYCLE_PAUSE)
        await self._plan.require()
        if cycle.status is not CyclePaymentStatus.ACTIVE:
            begin = cycle.next_deduction_on or cycle.first_deduction_on
            next_on = next_on_grid(begin, cycle.interval_days, self._clock.business_date())
            details = {"next_deduction_on": str(next_on)}
            await self._changed(
                caller, cycle, "cycle.resume", details, correlation_id, address, "cycle.resume", next_on,
                cycle.next_deduction_on, self.schedule.notice_days,
            )  # fmt: skip
            self._bell.ring("cycles")
        return await self.reload(cycle_id)

    async def change_price(
        self, caller: Principal, cycle_id: int, price_fen: int, *, correlation_id: str, address: str | None = None
    ) -> CyclePayment:
        """Another price from the next deduction on; one that is open keeps its own.

        Raises Forbidden, NotFound, InvalidAmount above what was signed, CycleNotChangeable."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.CYCLE_CHANGE)
        if not 1 <= price_fen <= cycle.ceiling_fen:
            raise InvalidAmount(
                f"price: the payer agreed to at most {format_yuan(cycle.ceiling_fen)} yuan a deduction;"
                " for more they sign a new agreement (with maxPrice)",
                message_zh=f"超出签约的单次扣款上限 {format_yuan(cycle.ceiling_fen)} 元，需重新签约",
                field="price",
            )
        details = {"from_fen": cycle.price_fen, "to_fen": price_fen}
        await self._changed(
            caller, cycle, "cycle.change_price", details, correlation_id, address, "cycle.change_price", price_fen
        )
        return await self.reload(cycle_id)

    async def change_date(
        self, caller: Principal, cycle_id: int, next_on: date, *, correlation_id: str, address: str | None = None
    ) -> CyclePayment:
        """Puts the next deduction off to a later date; those after it follow from there.

        Ours is changed first and the provider's plan then. Should that stay unknown, or does the plan still stand at
        the date before, whose deduction is not made yet, it is put off when this one is made.

        Raises Forbidden, NotFound, InvalidInput, CycleNotChangeable; ProviderRejected with the date as it was."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.CYCLE_CHANGE)
        account = await self.accounts.open(cycle.merchant_account_id)
        self._check_date(cycle, next_on, account)
        former = cycle.next_deduction_on
        details = {"from": str(former), "to": str(next_on)}
        days = self.schedule.notice_days
        await self._changed(
            caller, cycle, "cycle.change_date", details, correlation_id, address, "cycle.change_date", next_on, former,
            days,
        )  # fmt: skip
        if cycle.open_deduction_id is not None or not _is_beyond_plan(cycle, next_on):
            return await self.reload(cycle_id)
        agreements = agreements_of(account)
        outcome = await agreements.put_off(account.account, cycle.key(self.notify_url(cycle)), next_on)
        now = self._clock.now()
        if isinstance(outcome, PutOff):
            await self._db.change("cycle.put_off", cycle.id, outcome.deduct_on, now)
        elif isinstance(outcome, Rejected):
            await self._db.change("cycle.change_date", cycle.id, former, next_on, days, now)
            raise no_answer(outcome)
        return await self.reload(cycle_id)

    def _check_date(self, cycle: CyclePayment, next_on: date, account: OpenAccount) -> None:
        former, today = cycle.next_deduction_on, self._clock.business_date()
        if former is None:
            raise _not_changeable(cycle)
        if not max(former, today) < next_on <= today + _FURTHEST:
            raise InvalidInput(
                f"nextDeductionOn: a deduction can only be put off: write a date after {max(former, today)},"
                " within ten years",
                message_zh="扣款日期只能延后",
                field="nextDeductionOn",
            )
        changes = agreements_of(account).terms(account.account).plan_changes
        if changes is not None and cycle.plan_changes >= changes and _is_beyond_plan(cycle, next_on):
            raise CycleNotChangeable(
                f"the provider puts the plan of one agreement off {changes} times, and all are used up",
                message_zh=f"该协议的扣款计划已延期 {changes} 次，不能再次修改",
            )

    async def _changed(
        self,
        caller: Principal,
        cycle: CyclePayment,
        what: str,
        details: dict[str, Any],
        correlation_id: str,
        address: str | None,
        statement: str,
        *values: Any,
    ) -> None:
        """One guarded change with its line in the audit log. Raises CycleNotChangeable when the guard refused."""
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if await tx.one(statement, cycle.id, *values, now) is None:
                if statement == "cycle.stop":
                    return  # it is ending already, or over
                raise _not_changeable(cycle)
            subject = f"cycle_payment:{cycle.id}"
            await tx.one("audit.append", now, caller.sub, what, subject, details, address, correlation_id)
        self._bell.ring("events")

    # --- asking ---------------------------------------------------------------------------------------------------

    async def sync(self, caller: Principal, cycle_id: int) -> CyclePayment:
        """Asks the provider now and applies what it says.

        Raises Forbidden, NotFound; ProviderUnavailable, OutcomeUnknown or ProviderRejected without a usable answer."""
        cycle = await self._load(caller, cycle_id)
        await self._permissions.require(caller, Action.PAYMENT_SYNC)
        await self.ask(cycle, await self.accounts.open(cycle.merchant_account_id))
        return await self.reload(cycle_id)

    async def ask(self, cycle: CyclePayment, account: OpenAccount) -> AppliedAgreement:
        """One question to the provider, its answer applied. Raises as `sync` does."""
        key = cycle.key(self.notify_url(cycle))
        return await self._apply(cycle, account, await agreements_of(account).query_agreement(account.account, key))

    async def _apply(
        self, cycle: CyclePayment, account: OpenAccount, answer: AgreementReport | Rejected | NotReached | Unknown
    ) -> AppliedAgreement:
        if not isinstance(answer, AgreementReport):
            if isinstance(answer, Rejected):
                failure = failure_json(failure_of(answer))
                await self._db.change("cycle.obstruct", cycle.id, failure, self._clock.now())
            raise no_answer(answer)
        applied = await apply_agreement_report(
            self._db, self._clock, account, answer, notice_days=self.schedule.notice_days
        )
        if applied.changed:
            self._bell.ring("events", "deductions", "cycles")
        for field in applied.differences:
            self._metrics.differences.labels(field).inc()
        return applied

    # --- inside ---------------------------------------------------------------------------------------------------

    def notify_url(self, cycle: CyclePayment) -> str:
        """Where the provider tells of this agreement."""
        return f"{self._public_url}/notify/{cycle.provider.lower()}/{cycle.merchant_account_id}"

    async def _load(self, caller: Principal, cycle_id: int) -> CyclePayment:
        cycle = await self.find(caller, cycle_id)
        if cycle is None:
            raise NotFound(f"cycle payment {cycle_id} does not exist", field="id")
        return cycle

    async def reload(self, cycle_id: int) -> CyclePayment:
        """The cycle payment as it is now, whoever asks. Raises NotFound once payments were turned off."""
        row = await self._db.one("cycle.find", cycle_id)
        if row is None:
            raise NotFound(f"cycle payment {cycle_id} does not exist any more: payments were turned off", field="id")
        return read_cycle(row)


def may_see_cycle(caller: Principal, cycle: CyclePayment) -> bool:
    """Its order's owner, whoever signs it, and an administrator."""
    return may_see(caller, cycle.owner) or cycle.payer == caller.sub


def agreements_of(account: OpenAccount) -> Agreements:
    """The provider's agreements; only accounts whose provider has some sign any."""
    agreements = account.provider.agreements
    assert agreements is not None
    return agreements


def _is_beyond_plan(cycle: CyclePayment, day: date) -> bool:
    """Whether the provider's plan ends before this day. After a late deduction it may stand later than ours."""
    return cycle.plan_on is None or day > cycle.plan_on


def _shown(payer: str) -> str:
    """The payer's account as the provider shows it while signing and repeats it in signed texts, which & and = part."""
    return payer.translate(str.maketrans("&=", "__"))[:_PAYER_NAME_LIMIT]


def _first_date(request: StartCyclePayment, today: date) -> date:
    """Paid now, the first deduction comes an interval later; otherwise it is due at once."""
    return today + timedelta(days=request.interval_days) if request.pay_now else today


def _check_amounts(request: StartCyclePayment) -> None:
    if request.price_fen < 1:
        raise InvalidAmount("price: at least 0.01 yuan", field="price", message_zh="价格至少 0.01 元")
    if request.ceiling_fen is not None and request.ceiling_fen < request.price_fen:
        raise InvalidAmount(
            f"maxPrice: {format_yuan(request.ceiling_fen)} yuan is less than the price; leave it out, or write more",
            field="maxPrice",
            message_zh="单次扣款上限不能低于价格",
        )
    if not 1 <= request.interval_days <= _FURTHEST.days:
        raise InvalidInput(
            f"intervalDays: from 1 to {_FURTHEST.days} days", field="intervalDays", message_zh="扣款间隔天数不正确"
        )


def _check_price(request: StartCyclePayment, terms: AgreementTerms) -> None:
    if request.price_fen > terms.largest_deduction_fen:
        largest = format_yuan(terms.largest_deduction_fen)
        raise InvalidAmount(
            f"price: at most {largest} yuan a deduction under this merchant account",
            message_zh=f"单次扣款金额不能超过 {largest} 元",
            field="price",
        )


def _not_changeable(cycle: CyclePayment) -> CycleNotChangeable:
    state = "being cancelled" if cycle.ending else str(cycle.status)
    return CycleNotChangeable(f"cycle payment {cycle.id} is {state}, which does not allow this")

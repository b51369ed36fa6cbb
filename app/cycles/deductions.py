"""Taking the money of due dates, each exactly once.

open:    cycles that are due → one deduction per due date, unique, with its event → the flow makes the new order and, in
         the same transaction, the payment of the first attempt (`begin`)
charge:  claim under a lease → the provider, or, where it may have heard of this number before, a question first
                             → payment and deduction brought to their end in one transaction (outcomes.py)

One number per attempt, kept through every repeat. A new attempt begins only when the provider has said of the one
before that it took nothing and will take nothing. What wakes a deduction is its `attempt_at`: the schedule, or a
trigger when whoever it was brought its payment to an end.
"""

from datetime import date, datetime, timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.cycles.actions import Cycles, agreements_of
from app.cycles.calendar import APPLICATION_REST, NotBefore, Now, when_to_ask
from app.cycles.claims import Claimed, read_claimed
from app.cycles.outcomes import CANCELLED, PAID_OTHERWISE, Outcomes
from app.db import Database, Transaction
from app.doorbell import Doorbell
from app.drain import drain
from app.errors import ProviderError
from app.merchants.accounts import OpenAccount
from app.payments.actions import Payments, yuan_of_order
from app.payments.model import Failure, Payment
from app.providers.contract import (
    AgreementKey,
    DeductionRefusal,
    DeductionRefused,
    DeductionRequest,
    NotReached,
    PaymentReport,
    PutOff,
    Rejected,
    ReportedStatus,
    Unknown,
)

log = structlog.get_logger(__name__)

_OPENED: Final = 500
_BATCH: Final = 20
# Longer than the slowest attempt: a question, a plan put off or asked for, the deduction, and what a refusal needs;
# PROVIDER_TIMEOUT_S ends at 20 s. The end of a cycle waits for it (sql/queries/cycle.sql).
_LEASE: Final = timedelta(seconds=180)
# While the outcome is unknown: again soon, then ever more slowly, without end.
_RETRY: Final = timedelta(seconds=15)
_SLOWEST: Final = timedelta(minutes=30)
# What contradicts our row waits for a person.
_RARELY: Final = timedelta(hours=6)
# How long the provider may work on an attempt; before the next one begins, the day after.
ATTEMPT_LIFE: Final = timedelta(hours=6)


class AttemptRefused(Exception):
    """The order a flow made for a deduction cannot be charged; the message says what is wrong with it."""


class Deductions:
    """The deductions of this deployment. One a process; safe in any number of workers."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        bell: Doorbell,
        payments: Payments,
        cycles: Cycles,
        outcomes: Outcomes,
    ) -> None:
        self._db = database
        self._clock = clock
        self._bell = bell
        self._payments = payments
        self._cycles = cycles
        self._outcomes = outcomes
        self._schedule = cycles.schedule

    # --- opening --------------------------------------------------------------------------------------------------

    async def open_due(self) -> int:
        """Opens the deductions of all cycles that are due, and announces the coming ones; returns how many rows."""
        handled = 0
        while True:
            now = self._clock.now()
            rows = await self._db.change_all(
                "deduction.open_due", self._schedule.last_due(now), now, _OPENED,
                self._schedule.oldest_charged(now), self._schedule.notice_days,
            )  # fmt: skip
            if rows:
                self._bell.ring("events")
            handled += len(rows)
            if not rows:
                break
        while True:
            rows = await self._db.change_all("cycle.announce", self._clock.business_date(), self._clock.now(), _OPENED)
            handled += len(rows)
            if len(rows) < _OPENED:
                return handled

    async def begin(self, tx: Transaction, deduction_id: int, order_id: int) -> int | None:
        """Opens the first attempt for the order that was made in this transaction; its payment's id, None when the
        cycle does not go on. Raises AttemptRefused, naming what is wrong with the order."""
        now = self._clock.now()
        row = await tx.one("deduction.open_attempt", deduction_id, order_id, now, now + ATTEMPT_LIFE)
        assert row is not None
        match row["refusal"]:
            case None:
                opened: int = row["payment_id"]
                return opened
            case refusal if refusal in _OVER:
                return None
            case "AMOUNT_MISMATCH":
                raise AttemptRefused(
                    f"order {order_id} of deduction {deduction_id} costs {yuan_of_order(row['order_amount_fen'])}, not"
                    " the deduction's price in yuan"
                )
            case refusal:
                raise AttemptRefused(f"order {order_id} cannot be that of deduction {deduction_id}: {refusal}")

    # --- charging -------------------------------------------------------------------------------------------------

    async def drain(self) -> int:
        """Works on every deduction that is due; returns how many."""

        async def claim() -> list[Claimed]:
            now = self._clock.now()
            rows = await self._db.change_all("deduction.claim_due", now, now + _LEASE, _BATCH)
            return [read_claimed(row) for row in rows]

        handled = await drain(claim, self._work, self._postpone)
        if handled:
            self._bell.ring("events")
        return handled

    async def _postpone(self, claimed: Claimed, exc: Exception) -> None:
        """Nothing is lost: the row stays as it was and is tried again ever more slowly."""
        expected = isinstance(exc, ProviderError)
        code = exc.code if isinstance(exc, ProviderError) else type(exc).__name__
        log.warning("deduction.postponed", deduction_id=claimed.id, code=code, exc_info=None if expected else exc)
        await self._later(claimed, self._soon(claimed))

    async def _work(self, claimed: Claimed) -> None:
        """One step of one deduction."""
        structlog.contextvars.bind_contextvars(correlation_id=claimed.correlation_id)
        if claimed.status == "WAITING":
            # Woken because its cycle ended before the flow made an order.
            if claimed.goes_on:
                await self._later(claimed, None)
            else:
                await self._outcomes.skip(claimed.id, "WAITING")
            return
        if claimed.payment_status in ("SUCCESSFUL", "FAILED", "CLOSED") and not claimed.attempt_over:
            await self._outcomes.settle(claimed.id, claimed.payment_id)
            return
        # While the only attempt is open, none can have succeeded late.
        known_open = claimed.attempts == 1 and not claimed.attempt_over
        if not known_open and await self._db.one("deduction.paid_attempt", claimed.id) is not None:
            # An attempt that was called failed has succeeded after all.
            await self._late_success(claimed)
            return
        account = await self._cycles.accounts.open(claimed.merchant_account_id)
        if claimed.attempt_over:
            await self._next_attempt(claimed, account)
        elif claimed.payment_status == "PENDING":
            # The provider has it in hand, and the payments' own questions find out.
            await self._later(claimed, None)
        else:
            await self._charge(claimed, account)

    async def _late_success(self, claimed: Claimed) -> None:
        if claimed.payment_status == "CREATED" and claimed.calls == 1:
            await self._outcomes.supersede(claimed)
            return
        if claimed.payment_status in ("CREATED", "PENDING"):
            # It may have been sent: it is closed at the provider, and a second success would be flagged as surplus.
            account = await self._cycles.accounts.open(claimed.merchant_account_id)
            payment = await self._payment(claimed)
            await self._payments.close_unpaid(payment, account, correlation_id=claimed.correlation_id)
        await self._outcomes.settle(claimed.id, claimed.payment_id)

    async def _next_attempt(self, claimed: Claimed, account: OpenAccount) -> None:
        """Another try on another day, once the provider has confirmed that the last one took and takes nothing."""
        if not claimed.goes_on or claimed.order_id is None:
            await self._outcomes.skip(claimed.id, "CHARGING")
            return
        former = await self._payment(claimed)
        applied = await self._payments.ask(former, account, correlation_id=claimed.correlation_id)
        if applied.reported is ReportedStatus.PENDING:
            await account.provider.close_payment(account.account, former.out_trade_no)
            applied = await self._payments.ask(former, account, correlation_id=claimed.correlation_id)
        if applied.reported not in (ReportedStatus.NOT_FOUND, ReportedStatus.CLOSED):
            # Paid after all, which has woken this deduction again, or still open over there.
            await self._later(claimed, self._soon(claimed))
            return
        now = self._clock.now()
        async with self._db.transaction() as tx:
            row = await tx.one("deduction.open_attempt", claimed.id, claimed.order_id, now, now + ATTEMPT_LIFE)
        assert row is not None
        if row["refusal"] == "ORDER_ALREADY_PAID":
            await self._outcomes.skip(claimed.id, "CHARGING", PAID_OTHERWISE)
        elif row["refusal"] is not None and row["refusal"] not in _OVER:
            log.warning("deduction.no_attempt", deduction_id=claimed.id, refusal=row["refusal"])
            await self._outcomes.give_up(claimed, _ORDER_CHANGED)

    async def _charge(self, claimed: Claimed, account: OpenAccount) -> None:
        """The present attempt, whose outcome is not known: sent for the first time, or once more under its number."""
        if claimed.calls > 1:
            applied = await self._payments.ask(
                await self._payment(claimed), account, correlation_id=claimed.correlation_id
            )
            if applied.differences:
                await self._later(claimed, self._clock.now() + _RARELY)
                return
            if applied.reported is ReportedStatus.PENDING:
                await self._outcomes.accept(claimed.payment_id, account)
                await self._later(claimed, None)
                return
            if applied.reported is not ReportedStatus.NOT_FOUND:
                return  # brought to its end, which has woken this deduction
        if not claimed.goes_on:
            # Nothing was sent, or the provider knows nothing of it.
            await self._outcomes.abandon(claimed, CANCELLED)
            return
        if not await self._plan_allows(claimed, account):
            return
        known = await self._db.one("deduction.before_sending", claimed.id)
        assert known is not None
        if not known["goes_on"]:
            await self._outcomes.abandon(claimed, CANCELLED)
        elif known["order_paid"]:
            await self._outcomes.abandon(claimed, PAID_OTHERWISE)
        else:
            await self._send(claimed, account)

    async def _plan_allows(self, claimed: Claimed, account: OpenAccount) -> bool:
        """Whether money may be taken now by the provider's plan; puts a plan off that has passed."""
        agreements, now = agreements_of(account), self._clock.now()
        terms = agreements.terms(account.account)
        used_up = terms.plan_changes is not None and claimed.plan_changes >= terms.plan_changes
        when = when_to_ask(self._schedule, terms, now, claimed.plan_on)
        if used_up and isinstance(when, Now) and when.put_off_to is not None:
            # Ours may not be what the plan says, and believing it would cost the payer their agreement.
            when = when_to_ask(self._schedule, terms, now, await self._learn_plan(claimed, account))
        if isinstance(when, NotBefore):
            # Nothing was sent: it is taken up then as if it had not been now.
            await self._later(claimed, when.at, calls=claimed.calls - 1)
            return False
        if when.put_off_to is None:
            return True
        if used_up:
            await self._outcomes.refuse(claimed, account, DeductionRefused(DeductionRefusal.RULE, _PLAN_USED_UP))
            return False
        outcome = await agreements.put_off(account.account, self._key(claimed), when.put_off_to)
        match outcome:
            case PutOff(deduct_on=deduct_on):
                await self._db.change("cycle.put_off", claimed.cycle_payment_id, deduct_on, now)
                return True
            case Rejected():
                # Ours may not be what the plan says: it is asked about, and the attempt decides.
                await self._learn_plan(claimed, account)
                return True
            case NotReached(detail=detail) | Unknown(detail=detail):
                log.warning("deduction.plan_unknown", deduction_id=claimed.id, detail=detail)
                await self._later(claimed, self._soon(claimed))
                return False

    async def _learn_plan(self, claimed: Claimed, account: OpenAccount) -> date | None:
        """Where the provider's plan stands."""
        await self._cycles.ask(await self._cycles.reload(claimed.cycle_payment_id), account)
        return (await self._cycles.reload(claimed.cycle_payment_id)).plan_on

    async def _send(self, claimed: Claimed, account: OpenAccount) -> None:
        assert claimed.agreement_no is not None
        assert claimed.out_trade_no is not None
        assert claimed.payment_created_at is not None
        assert claimed.payment_expires_at is not None
        request = DeductionRequest(
            out_trade_no=claimed.out_trade_no,
            agreement_no=claimed.agreement_no,
            amount_fen=claimed.price_fen,
            subject=claimed.subject,
            notify_url=self._payments.notify_url(claimed.provider, claimed.merchant_account_id),
            created_at=claimed.payment_created_at,
            # One whose answer was lost is sent again when it would be over already: it still needs a moment.
            expires_at=max(claimed.payment_expires_at, self._clock.now() + timedelta(minutes=10)),
        )
        outcome = await agreements_of(account).deduct(account.account, request)
        match outcome:
            case PaymentReport():
                differences = await self._outcomes.report(claimed, account, outcome)
                if differences:
                    await self._later(claimed, self._clock.now() + _RARELY)
            case DeductionRefused():
                if outcome.kind is DeductionRefusal.WINDOW:
                    await self._learn_plan_quietly(claimed, account)
                await self._outcomes.refuse(claimed, account, outcome)
            case NotReached(words=Rejected() as words):
                # The gateway turned the application away, its keys or its rights: nobody's deduction was looked at.
                await self._outcomes.rest(account, words)
                await self._outcomes.doubt(claimed.payment_id, outcome)
                calls = 0 if claimed.calls == 1 else claimed.calls
                await self._later(claimed, self._clock.now() + APPLICATION_REST, calls=calls)
            case NotReached(detail=detail) | Unknown(detail=detail):
                log.warning("deduction.unknown", deduction_id=claimed.id, detail=detail)
                await self._outcomes.doubt(claimed.payment_id, outcome)
                await self._later(claimed, self._soon(claimed))

    async def _learn_plan_quietly(self, claimed: Claimed, account: OpenAccount) -> None:
        try:
            await self._learn_plan(claimed, account)
        except ProviderError as exc:
            # The refusal stands whatever the plan says; the next attempt asks again.
            log.warning("deduction.plan_unknown", deduction_id=claimed.id, detail=exc.code)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _later(self, claimed: Claimed, at: datetime | None, *, calls: int | None = None) -> None:
        await self._db.change(
            "deduction.later", claimed.id, at, claimed.attempt_at, claimed.calls if calls is None else calls
        )

    def _soon(self, claimed: Claimed) -> datetime:
        return self._clock.now() + min(_RETRY * (1 << min(claimed.calls - 1, 12)), _SLOWEST)

    async def _payment(self, claimed: Claimed) -> Payment:
        assert claimed.payment_id is not None
        return await self._payments.reload(claimed.payment_id)

    def _key(self, claimed: Claimed) -> AgreementKey:
        return AgreementKey(
            external_agreement_no=claimed.external_agreement_no,
            scene=claimed.scene,
            agreement_no=claimed.agreement_no,
            notify_url=self._payments.notify_url(claimed.provider, claimed.merchant_account_id),
        )


# The cycle does not go on, or another worker was faster.
_OVER: Final = ("OVER", "UNSETTLED")
_ORDER_CHANGED: Final = Failure(
    code="ORDER_NOT_CHARGEABLE",
    provider_code=None,
    provider_message=None,
    explanation="the deduction's order was deleted, or its amount changed: it is not tried again",
    explanation_zh="本期订单已被删除或金额已变更，不再扣款",
)
_PLAN_USED_UP: Final = Rejected(
    code="PLAN_CHANGES_USED_UP",
    message="",
    explanation="the provider's plan has passed and cannot be put off any more (cycle_plan_changes of the merchant"
    " account): the payer has to sign a new agreement",
    explanation_zh="扣款计划的延期次数已用完，需用户重新签约",
)

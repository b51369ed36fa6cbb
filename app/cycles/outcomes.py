"""What the end of an attempt does to its deduction and its cycle, in the transaction that ends the attempt.

Whoever changes several of them locks the cycle first, then the payment, then the deduction: a cancellation that runs
beside it takes them in the same order.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog

from app.clock import Clock
from app.cycles.calendar import APPLICATION_REST, MERCHANT_REST, GiveUp, Schedule, TryAgain, after_refusal
from app.cycles.claims import Claimed
from app.cycles.model import SuspendedFor
from app.cycles.reports import ASK_ALIVE
from app.db import Database, Row, Transaction
from app.doorbell import Doorbell
from app.errors import OrderAlreadyPaid, OutcomeUnknown, ProviderRejected
from app.merchants.accounts import OpenAccount
from app.metrics import Metrics
from app.payments.actions import LAST_LOOK, first_check
from app.payments.model import Failure, failure_json, failure_of, read_payment
from app.payments.reports import apply_within
from app.providers.contract import (
    DeductionRefusal,
    DeductionRefused,
    NotReached,
    PaymentReport,
    Rejected,
    ReportedStatus,
    Unknown,
)

log = structlog.get_logger(__name__)

CANCELLED: Final = Failure(
    code="CYCLE_NOT_CHANGEABLE",
    provider_code=None,
    provider_message=None,
    explanation="the cycle payment was cancelled, paused or had ended before this deduction was made",
    explanation_zh="周期扣款已取消、暂停或结束，本期未扣款",
)
PAID_OTHERWISE: Final = Failure(
    code=OrderAlreadyPaid.code,
    provider_code=None,
    provider_message=None,
    explanation="the deduction's order was paid in another way meanwhile: nothing is deducted for it",
    explanation_zh="本期订单已通过其他方式支付，不再扣款",
)
_SUPERSEDED: Final = Failure(
    code=OrderAlreadyPaid.code,
    provider_code=None,
    provider_message=None,
    explanation="an earlier attempt for the same date took the money after all: this one was not made",
    explanation_zh="本期此前的扣款已成功，未再次扣款",
)
# An attempt that ended without a reason being told, such as one that its provider closed.
_UNTOLD: Final = Failure(
    code=ProviderRejected.code,
    provider_code=None,
    provider_message=None,
    explanation="the provider ended this attempt without taking money",
    explanation_zh="支付渠道未能完成扣款",
)


class Outcomes:
    """See the module. Every method opens its own transaction and may be repeated."""

    def __init__(
        self, *, database: Database, clock: Clock, bell: Doorbell, metrics: Metrics, schedule: Schedule
    ) -> None:
        self._db = database
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._schedule = schedule

    async def report(self, claimed: Claimed, account: OpenAccount, report: PaymentReport) -> tuple[str, ...]:
        """The provider's direct answer, applied like any other word of it; the fields that disagree."""
        async with self._db.transaction() as tx:
            await tx.one("deduction.lock_cycle", claimed.id)
            applied = await apply_within(
                tx, self._clock.now(), account, report, correlation_id=claimed.correlation_id, deliveries=1
            )
            if not applied.differences:
                if report.status is ReportedStatus.PENDING:
                    await self._accept(tx, claimed.payment_id, account)
                    await tx.one("deduction.await_payment", claimed.id, claimed.payment_id)
                elif report.status is ReportedStatus.SUCCESSFUL:
                    # A deduction went through: the merchant's contract is in order.
                    await self._paid(tx, claimed.id, claimed.payment_id, release=claimed.merchant_account_id)
                else:
                    await self._settle(tx, claimed.id, claimed.payment_id)
        for field in applied.differences:
            self._metrics.differences.labels(field).inc()
        return applied.differences

    async def accept(self, payment_id: int | None, account: OpenAccount) -> None:
        """The provider has the attempt in hand: from now on it is asked about like any payment."""
        async with self._db.transaction() as tx:
            await self._accept(tx, payment_id, account)

    async def _accept(self, tx: Transaction, payment_id: int | None, account: OpenAccount) -> None:
        row = await tx.one("payment.find", payment_id)
        assert row is not None
        payment = read_payment(row)
        now = self._clock.now()
        await tx.one("payment.accept", payment.id, None, None, now, max(first_check(account.provider, payment), now))

    async def doubt(self, payment_id: int | None, outcome: Unknown | NotReached) -> None:
        """What the provider said while it is not known what it did."""
        if outcome.words is not None:
            failure = replace(failure_of(outcome.words), code=OutcomeUnknown.code)
            await self._db.change("payment.doubt", payment_id, failure_json(failure), self._clock.now())

    async def refuse(self, claimed: Claimed, account: OpenAccount, refused: DeductionRefused) -> None:
        """The provider took nothing under this number and will not: the attempt is over."""
        failure, now = failure_of(refused.words), self._clock.now()
        async with self._db.transaction() as tx:
            await tx.one("deduction.lock_cycle", claimed.id)
            row = await tx.one("payment.fail", claimed.payment_id, failure_json(failure), now, ["CREATED"])
            if row is None:
                return  # another answer was faster, and has woken the deduction
            if refused.kind is DeductionRefusal.MERCHANT:
                await self._hold(tx, account, failure, MERCHANT_REST)
            if refused.kind is DeductionRefusal.AGREEMENT:
                await tx.one("cycle.ask_now", claimed.cycle_payment_id, now)
            current = await tx.one("deduction.lock", claimed.id)
            assert current is not None
            if not await self._is_paid(tx, claimed.id):
                await self._failed(tx, current, failure, refused.kind)
        log.info("deduction.refused", deduction_id=claimed.id, kind=refused.kind, code=refused.words.code)
        self._bell.ring("events", "agreements")

    async def rest(self, account: OpenAccount, words: Rejected) -> None:
        """The provider turned the merchant's application away: no deduction of this account is made for a while."""
        async with self._db.transaction() as tx:
            await self._hold(tx, account, failure_of(words), APPLICATION_REST)
        self._bell.ring("events")

    async def settle(self, deduction_id: int, payment_id: int | None) -> None:
        """Brings a deduction to where its payments are, whoever brought them there."""
        async with self._db.transaction() as tx:
            await tx.one("deduction.lock_cycle", deduction_id)
            await self._settle(tx, deduction_id, payment_id)

    async def _settle(self, tx: Transaction, deduction_id: int, payment_id: int | None) -> None:
        row = None if payment_id is None else await tx.one("payment.lock", payment_id)
        current = await tx.one("deduction.lock", deduction_id)
        assert current is not None
        if await self._is_paid(tx, deduction_id):
            return
        if row is not None and row["status"] in ("FAILED", "CLOSED") and _is_current(current, payment_id):
            failure = Failure(**row["failure"]) if row["failure"] else _UNTOLD
            await self._failed(tx, current, failure, DeductionRefusal.PAYER)

    async def _is_paid(self, tx: Transaction, deduction_id: int) -> bool:
        """Whether some attempt, perhaps one that was called failed, took the money: then the date is paid, whatever
        else was to become of it. The deduction's lock is held: a success under way waits for it, or is seen."""
        paid = await tx.one("deduction.paid_attempt", deduction_id)
        if paid is not None:
            await self._paid(tx, deduction_id, paid["id"])
        return paid is not None

    async def _paid(
        self, tx: Transaction, deduction_id: int, payment_id: int | None, *, release: int | None = None
    ) -> None:
        """This payment, whose lock is held or which is final, took the money."""
        now = self._clock.now()
        await tx.one("deduction.paid", deduction_id, payment_id, now, now + ASK_ALIVE, release)

    async def _failed(self, tx: Transaction, current: Row, failure: Failure, kind: DeductionRefusal) -> None:
        """An attempt took nothing, and no other took anything: another one, or none. `current` is the deduction,
        locked."""
        now, stored = self._clock.now(), failure_json(failure)
        if current["cycle_status"] != "ACTIVE" or current["ending"]:
            await tx.one("deduction.skip", current["id"], "CHARGING", stored, now)
            return
        match after_refusal(self._schedule, kind, tries=current["tries"], now=now):
            case TryAgain(at=at, counts=counts):
                payment_id = current["payment_id"]
                await tx.one("deduction.retry", current["id"], payment_id, stored, at, now, int(counts))
            case GiveUp(rule=rule):
                await self._give_up(tx, current, stored, rule=rule)

    async def _give_up(self, tx: Transaction, current: Row, failure: dict[str, str | None], *, rule: bool) -> None:
        now = self._clock.now()
        counted = await tx.one("deduction.failed", current["id"], current["payment_id"], failure, now)
        assert counted is not None
        if rule or counted["failed_dates"] >= self._schedule.failed_dates:
            why = SuspendedFor.RULE if rule else SuspendedFor.FAILURES
            await tx.one("cycle.suspend", current["cycle_payment_id"], why, failure, now)

    async def give_up(self, claimed: Claimed, failure: Failure) -> None:
        """No further attempt can be made for this date, for a reason of ours; a present one was never made."""
        async with self._db.transaction() as tx:
            await tx.one("deduction.lock_cycle", claimed.id)
            await self._drop(tx, claimed, failure)
            attempt = await tx.one("payment.lock", claimed.payment_id)
            current = await tx.one("deduction.lock", claimed.id)
            assert attempt is not None
            assert current is not None
            if await self._is_paid(tx, claimed.id):
                return
            is_present = (current["status"], current["payment_id"]) == ("CHARGING", claimed.payment_id)
            if is_present and attempt["status"] in ("FAILED", "CLOSED"):
                await self._give_up(tx, current, failure_json(failure), rule=False)

    async def abandon(self, claimed: Claimed, why: Failure) -> None:
        """This attempt was never made, nothing was taken, and there will be no other: the cycle does not go on
        (CANCELLED), or there is nothing to pay any more."""
        async with self._db.transaction() as tx:
            cycle = await tx.one("deduction.lock_cycle", claimed.id)
            assert cycle is not None
            resumed = why is CANCELLED and cycle["goes_on"]
            if not resumed and await self._drop(tx, claimed, why):
                await self._skip(tx, claimed.id, "CHARGING", why)

    async def supersede(self, claimed: Claimed) -> None:
        """An earlier attempt took the money after all, and this one was never made."""
        async with self._db.transaction() as tx:
            await tx.one("deduction.lock_cycle", claimed.id)
            await self._drop(tx, claimed, _SUPERSEDED)
            await self._settle(tx, claimed.id, claimed.payment_id)

    async def _drop(self, tx: Transaction, claimed: Claimed, failure: Failure) -> bool:
        """Ends the present attempt, of which the provider knows nothing; not where it came to an end otherwise.

        One that was taken up before may be on its way to the provider still: it is looked for once more."""
        now = self._clock.now()
        if claimed.calls == 1:
            return await tx.one("payment.fail", claimed.payment_id, failure_json(failure), now, ["CREATED"]) is not None
        row = await tx.one("payment.lock", claimed.payment_id)
        if row is None or row["status"] != "CREATED":
            return False
        return await tx.one("payment.close", claimed.payment_id, now, now + LAST_LOOK) is not None

    async def skip(self, deduction_id: int, status: str, why: Failure | None = None) -> None:
        """Nothing more is taken for this date, and there is no attempt that could. Only from that status."""
        async with self._db.transaction() as tx:
            cycle = await tx.one("deduction.lock_cycle", deduction_id)
            assert cycle is not None
            if why is not None or not cycle["goes_on"]:
                await self._skip(tx, deduction_id, status, why)

    async def _skip(self, tx: Transaction, deduction_id: int, status: str, why: Failure | None) -> None:
        await tx.one("deduction.lock", deduction_id)
        if not await self._is_paid(tx, deduction_id):
            stored = None if why is None else failure_json(why)
            await tx.one("deduction.skip", deduction_id, status, stored, self._clock.now())

    async def _hold(self, tx: Transaction, account: OpenAccount, failure: Failure, rest: timedelta) -> None:
        """Stops all deductions of a merchant account for a while, and says so once."""
        now = self._clock.now()
        row = await tx.one("deduction.hold", account.id, now + rest, failure_json(failure), now)
        if row is not None and row["began"]:
            details = {"merchant_account_id": account.id, "provider_code": failure.provider_code}
            await tx.one("cycle.append_event", "deduction.held", None, None, details, None, now)
        self._metrics.deductions_held.inc()
        log.error("deduction.held", merchant_account_id=account.id, provider_code=failure.provider_code)


def _is_current(current: Row, payment_id: int | None) -> bool:
    """Whether this payment is the deduction's present attempt and its end was not dealt with yet."""
    return bool(
        current["status"] == "CHARGING"
        and current["payment_id"] == payment_id
        and current["settled_payment_id"] != payment_id
    )

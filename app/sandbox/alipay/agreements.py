"""The agreements Alipay knows, and the only ways their state changes.

    OFFERED ── signed ──► NORMAL ── unsigned, by either side ──► UNSIGNED
    (query: not there)       └───── its validity is over ──────► EXPIRED      (applied whenever it is looked at)

OFFERED and EXPIRED are the sandbox's own words. A payer has one agreement in force with a merchant in a scene. One that
is for periodic deductions has a plan: the date of the next one, which a success moves on by one period and the merchant
may put off.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum

from app.sandbox.alipay.accounts import Account
from app.sandbox.alipay.errors import BusinessRefusal
from app.sandbox.clock import BEIJING, SandboxClock, format_beijing

WINDOW_DAYS = 5
LAST_DAY_OF_EVERY_MONTH = 28
NO_SCENE = "DEFAULT|DEFAULT"


class AgreementStatus(StrEnum):
    OFFERED = "OFFERED"
    NORMAL = "NORMAL"
    UNSIGNED = "UNSIGNED"
    EXPIRED = "EXPIRED"


class PeriodType(StrEnum):
    DAY = "DAY"
    MONTH = "MONTH"


@dataclass(frozen=True, slots=True)
class PeriodRule:
    """`single_amount_fen` caps one deduction; the other two cap all of them together, where they are given."""

    period_type: PeriodType
    period: int
    first_on: date
    single_amount_fen: int
    total_amount_fen: int | None = None
    total_payments: int | None = None

    def after(self, planned_on: date) -> date:
        """One period on; the day of the month stays, which is why it is at most the 28th."""
        if self.period_type is PeriodType.DAY:
            return planned_on + timedelta(days=self.period)
        return months_after(planned_on, self.period)


@dataclass(frozen=True, slots=True)
class SignTerms:
    """What the merchant wants signed. A second request for the same number must agree in all of it.

    `validity` is as documented, `2m` (months) or `90d`; empty for no end.
    """

    app_id: str
    personal_product_code: str
    product_code: str
    scene: str
    external_agreement_no: str
    external_logon_id: str
    rule: PeriodRule | None
    validity: str


@dataclass(frozen=True, slots=True)
class Deducted:
    """One deduction that succeeded. `planned_on` is the date its period was planned for."""

    out_trade_no: str
    amount_fen: int
    paid_at: datetime
    planned_on: date | None


@dataclass(slots=True)
class Agreement:
    """`payer` is who is expected to sign, then who signed. `agreement_no` is Alipay's number, given when it is signed.

    `out_trade_no` is of the payment it is offered with, empty for one that is signed by itself. `under_way` is the
    number of the deduction that is accepted and not settled.
    """

    account: Account
    terms: SignTerms
    charset: str
    codec: str
    notify_url: str
    return_url: str
    created_at: datetime
    link_expires_at: datetime
    token: str
    payer: str
    out_trade_no: str = ""
    status: AgreementStatus = AgreementStatus.OFFERED
    agreement_no: str = ""
    planned_on: date | None = None
    signed_at: datetime | None = None
    valid_until: datetime | None = None
    ended_at: datetime | None = None
    modifications: int = 0
    under_way: str = ""
    deductions: list[Deducted] = field(default_factory=list)
    deducted_fen: int = 0
    notify_ids: list[str] = field(default_factory=list)

    @property
    def number(self) -> str:
        """By which the merchant knows it best."""
        return self.terms.external_agreement_no or self.agreement_no


@dataclass(frozen=True, slots=True)
class AgreementPolicy:
    """What Alipay's documents leave open or changed over time.

    `ended_as` is how query answers for an agreement that is over: with the status STOP, or with that error.
    `signed_by` is the rule by which notices of agreements are signed: V1 leaves `sign_type` out, V2 signs it too.
    """

    window_days: int = WINDOW_DAYS
    max_modifications: int | None = None
    ended_as: str = "STOP"
    signed_by: str = "V1"


class AgreementBook:
    """All agreements, by both sides' numbers, by the payer's link, and those in force by payer, seller and scene."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self.policy = AgreementPolicy()
        self._all: dict[str, Agreement] = {}  # by token, in order of creation
        self._by_external_no: dict[tuple[str, str], Agreement] = {}
        self._by_agreement_no: dict[tuple[str, str], Agreement] = {}
        self._sellers: dict[str, list[str]] = {}  # of each external number
        self._in_force: dict[tuple[str, str, str], Agreement] = {}

    def offer(self, agreement: Agreement) -> Agreement:
        """Issue a link for signing; the same number with the same terms gives the agreement there is already.

        Raises BusinessRefusal: CONTEXT_INCONSISTENT for other terms, USER_AGREEMENT_STATUS_NOT_NORMAL for a number that
        was signed already. A link that ran out unused leaves its number free.
        """
        seller_id, external_no = agreement.account.seller_id, agreement.terms.external_agreement_no
        known = self._by_external_no.get((seller_id, external_no)) if external_no else None
        if known is not None and not self._never_was(known):
            _check_same(known, agreement)
            known.link_expires_at = max(known.link_expires_at, agreement.link_expires_at)
            return known
        if known is not None:
            self._all.pop(known.token)
        self._all[agreement.token] = agreement
        if external_no:
            if known is None:
                self._sellers.setdefault(external_no, []).append(seller_id)
            self._by_external_no[seller_id, external_no] = agreement
        return agreement

    def sign(self, agreement: Agreement, payer: str) -> None:
        """The payer agrees. Raises BusinessRefusal when the link is used or over, or a like agreement is in force."""
        now = self._clock.now()
        if agreement.status is not AgreementStatus.OFFERED:
            raise BusinessRefusal("USER_AGREEMENT_STATUS_NOT_NORMAL", "该协议已签约过")
        if agreement.link_expires_at <= now:
            raise BusinessRefusal("ILLEGAL_PARAMS", "签约链接已过期，请返回商户重新签约")
        place = (payer, agreement.account.seller_id, agreement.terms.scene)
        if self.find_in_force(*place) is not None:
            message = "商户协议状态不正常：该用户在此商户的此场景下已有生效的协议"
            raise BusinessRefusal("MERCHANT_STATUS_IS_NOT_NORMAL", message)
        agreement.status = AgreementStatus.NORMAL
        agreement.payer = payer
        agreement.agreement_no = new_agreement_no(now)
        agreement.signed_at = now
        agreement.valid_until = _end_of(agreement.terms.validity, now)
        agreement.planned_on = agreement.terms.rule.first_on if agreement.terms.rule else None
        self._in_force[place] = agreement
        self._by_agreement_no[agreement.account.seller_id, agreement.agreement_no] = agreement

    def unsign(self, agreement: Agreement) -> None:
        """Raises BusinessRefusal USER_AGREEMENT_STATUS_NOT_NORMAL unless it is in force."""
        self.expire(agreement)
        if agreement.status is not AgreementStatus.NORMAL:
            raise BusinessRefusal("USER_AGREEMENT_STATUS_NOT_NORMAL", "用户协议状态不正常：协议未签约或已经解约")
        self._end(agreement, AgreementStatus.UNSIGNED, self._clock.now())

    def run_out(self, agreement: Agreement) -> None:
        """Its validity ends now. Raises as `unsign` does."""
        self.expire(agreement)
        if agreement.status is not AgreementStatus.NORMAL:
            raise BusinessRefusal("USER_AGREEMENT_STATUS_NOT_NORMAL", "用户协议状态不正常：协议未签约或已经解约")
        agreement.valid_until = self._clock.now()
        self.expire(agreement)

    def put_off(self, agreement: Agreement, planned_on: date) -> None:
        """Move the plan to a later date. Raises BusinessRefusal ILLEGAL_AGREEMENT or ILLEGAL_EXECUTION_TIME."""
        rule, current = agreement.terms.rule, agreement.planned_on
        if agreement.status is not AgreementStatus.NORMAL or rule is None or current is None:
            raise BusinessRefusal("ILLEGAL_AGREEMENT", "协议状态不正常或没有扣款计划")
        most = self.policy.max_modifications
        if most is not None and agreement.modifications >= most:
            raise BusinessRefusal("ILLEGAL_EXECUTION_TIME", f"修改扣款时间的次数已达上限 {most}")
        if planned_on <= current or planned_on < self.today():
            raise BusinessRefusal("ILLEGAL_EXECUTION_TIME", f"只能延后：扣款时间必须晚于 {current}，且不早于今天")
        if rule.period_type is PeriodType.MONTH and planned_on.day > LAST_DAY_OF_EVERY_MONTH:
            raise BusinessRefusal("ILLEGAL_EXECUTION_TIME", "按月扣款的日期必须在 1 到 28 日之间")
        agreement.planned_on = planned_on
        agreement.modifications += 1

    def record(self, agreement: Agreement, out_trade_no: str, amount_fen: int, paid_at: datetime) -> None:
        """A deduction succeeded: it counts, and the plan moves on by one period."""
        planned_on, rule = agreement.planned_on, agreement.terms.rule
        agreement.deductions.append(Deducted(out_trade_no, amount_fen, paid_at, planned_on))
        agreement.deducted_fen += amount_fen
        if rule is not None and planned_on is not None:
            agreement.planned_on = rule.after(planned_on)

    def expire(self, agreement: Agreement) -> None:
        over_at = agreement.valid_until
        if agreement.status is AgreementStatus.NORMAL and over_at is not None and over_at <= self._clock.now():
            self._end(agreement, AgreementStatus.EXPIRED, over_at)

    def find_signed(self, seller_id: str, agreement_no: str) -> Agreement | None:
        """By Alipay's number; also one that is over."""
        return self._current(self._by_agreement_no.get((seller_id, agreement_no)))

    def find_by_external_no(self, seller_id: str, external_agreement_no: str) -> Agreement | None:
        """Also one that nobody signed yet."""
        return self._current(self._by_external_no.get((seller_id, external_agreement_no)))

    def find_in_force(self, payer: str, seller_id: str, scene: str) -> Agreement | None:
        self._current(self._in_force.get((payer, seller_id, scene)))
        return self._in_force.get((payer, seller_id, scene))

    def find_by_token(self, token: str) -> Agreement | None:
        return self._current(self._all.get(token))

    def of_number(self, external_agreement_no: str) -> list[Agreement]:
        """Those of all sellers: numbers are unique within a merchant only."""
        sellers = self._sellers.get(external_agreement_no, ())
        return [
            agreement for seller in sellers if (agreement := self.find_by_external_no(seller, external_agreement_no))
        ]

    def listed(self) -> list[Agreement]:
        """Oldest first."""
        agreements = list(self._all.values())
        for agreement in agreements:
            self.expire(agreement)
        return agreements

    def newest(self, count: int) -> Iterable[Agreement]:
        """The newest first."""
        for token in list(reversed(self._all))[:count]:
            self.expire(self._all[token])
            yield self._all[token]

    def today(self) -> date:
        return self._clock.now().astimezone(BEIJING).date()

    def reset(self) -> None:
        self.policy = AgreementPolicy()
        for index in (self._all, self._by_external_no, self._by_agreement_no, self._sellers, self._in_force):
            index.clear()

    def _current(self, agreement: Agreement | None) -> Agreement | None:
        if agreement is not None:
            self.expire(agreement)
        return agreement

    def _end(self, agreement: Agreement, status: AgreementStatus, ended_at: datetime) -> None:
        agreement.status = status
        agreement.ended_at = ended_at
        self._in_force.pop((agreement.payer, agreement.account.seller_id, agreement.terms.scene))

    def _never_was(self, agreement: Agreement) -> bool:
        is_over = agreement.link_expires_at <= self._clock.now()
        return agreement.status is AgreementStatus.OFFERED and is_over and not agreement.out_trade_no


def _check_same(known: Agreement, wanted: Agreement) -> None:
    """A payment and the agreement offered with it go together: what may still be done with them, the payment says."""
    if known.out_trade_no != wanted.out_trade_no or known.terms != wanted.terms:
        raise BusinessRefusal("CONTEXT_INCONSISTENT", "签约信息被篡改：同一外部协议号的参数与上次不一致")
    if known.status is not AgreementStatus.OFFERED and not known.out_trade_no:
        raise BusinessRefusal("USER_AGREEMENT_STATUS_NOT_NORMAL", "该外部协议号已签约过")


def new_agreement_no(now: datetime) -> str:
    """20 digits that begin with the Beijing date, as Alipay's do; random, for restarts must not repeat numbers."""
    return f"{format_beijing(now)[:10].replace('-', '')}{secrets.randbelow(10**12):012d}"


def months_after(day: date, months: int) -> date:
    """The same day of a later month, or the last of it where it is shorter."""
    month = day.month - 1 + months
    first = date(day.year + month // 12, month % 12 + 1, 1)
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    return first.replace(day=min(day.day, (after - timedelta(days=1)).day))


def _end_of(validity: str, signed_at: datetime) -> datetime | None:
    if not validity:
        return None
    count = int(validity[:-1])
    if validity[-1] == "d":
        return signed_at + timedelta(days=count)
    local = signed_at.astimezone(BEIJING)
    return datetime.combine(months_after(local.date(), count), local.timetz()).astimezone(signed_at.tzinfo)

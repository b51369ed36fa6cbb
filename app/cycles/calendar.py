"""When money is taken: due dates, attempts, and what follows a refusal. Pure: no clock, no database.

A due date is due from `deduct_at` of that day on, Shanghai's time. The dates of a cycle are first + n * interval,
whatever happened to the ones before; a late or failed deduction moves nothing.

    refused because of    then
    PAYER, LIMIT          another day, until the tries are used up
    WINDOW                as soon as the provider's plan allows, counted as a try
    AGREEMENT             the agreement is asked about at once; another day, counted as a try
    MERCHANT              when the merchant's contract is in order again; not counted, no payer is at fault
    RULE                  given up and suspended: only a new agreement helps
    FINAL                 given up
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final, Self

from app.clock import SHANGHAI
from app.config import DeductionSettings
from app.providers.contract import AgreementTerms, DeductionRefusal

# The provider counts the moment it works on a request: one sent in the last minutes of a day may fall to the next.
_DAY_ENDS: Final = time(23, 45)
# How long a merchant's deductions rest after the provider objected to the merchant itself.
MERCHANT_REST: Final = timedelta(hours=6)
# The same after its gateway turned the application away, over a key, a right or a clock that somebody is mending.
APPLICATION_REST: Final = timedelta(minutes=15)


@dataclass(frozen=True, slots=True)
class Schedule(DeductionSettings):
    """How this deployment deducts, and what follows from it."""

    @classmethod
    def of(cls, settings: DeductionSettings) -> Self:
        """The schedule of these settings."""
        return cls(**{name: getattr(settings, name) for name in DeductionSettings.__slots__})

    def last_due(self, now: datetime) -> date:
        """The last date whose deductions are due at this instant."""
        local = now.astimezone(SHANGHAI)
        return local.date() if local.time() >= self.deduct_at else local.date() - timedelta(days=1)

    def oldest_charged(self, now: datetime) -> date:
        """Dates before this one are passed over."""
        return date.min if self.missed_days is None else self.last_due(now) - timedelta(days=self.missed_days)

    def on(self, day: date) -> datetime:
        """The instant from which deductions are made on a day."""
        return datetime.combine(day, self.deduct_at, SHANGHAI)


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Another attempt at this instant. `counts` as one of the tries."""

    at: datetime
    counts: bool = True


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No attempt is left for this date. `rule`: none would be for any later one either."""

    rule: bool = False


@dataclass(frozen=True, slots=True)
class Now:
    """Money may be asked for now; with `put_off_to` only after the provider's plan was put off to that date."""

    put_off_to: date | None = None


@dataclass(frozen=True, slots=True)
class NotBefore:
    """Money may be asked for from this instant on."""

    at: datetime


def when_to_ask(schedule: Schedule, terms: AgreementTerms, now: datetime, plan_on: date | None) -> Now | NotBefore:
    """Whether the provider's plan, which stands at `plan_on`, lets money be taken now.

    Its window is the days before the planned date and that date; a date that has passed is put off to today."""
    local = now.astimezone(SHANGHAI)
    if local.time() >= _DAY_ENDS:
        return NotBefore(schedule.on(local.date() + timedelta(days=1)))
    if plan_on is None:
        return Now()
    opens = plan_on - timedelta(days=terms.window_days)
    if local.date() < opens:
        return NotBefore(schedule.on(opens))
    return Now(put_off_to=local.date() if local.date() > plan_on else None)


def after_refusal(schedule: Schedule, refusal: DeductionRefusal, *, tries: int, now: datetime) -> TryAgain | GiveUp:
    """What follows a refused attempt; `tries` are those that counted, this one not included."""
    match refusal:
        case DeductionRefusal.MERCHANT:
            return TryAgain(now + MERCHANT_REST, counts=False)
        case DeductionRefusal.RULE:
            return GiveUp(rule=True)
        case DeductionRefusal.FINAL:
            return GiveUp()
    if tries + 1 >= schedule.tries:
        return GiveUp()
    if refusal is DeductionRefusal.WINDOW:
        # The plan was asked about meanwhile; when_to_ask decides by what it said.
        return TryAgain(now)
    return TryAgain(schedule.on(now.astimezone(SHANGHAI).date() + timedelta(days=1)))


def next_on_grid(first: date, interval_days: int, earliest: date) -> date:
    """The first of first, first + interval, … that is not before `earliest`."""
    if earliest <= first:
        return first
    steps = -(-(earliest - first).days // interval_days)
    return first + timedelta(days=steps * interval_days)


def upcoming(next_on: date, interval_days: int, count: int) -> list[date]:
    """The next `count` due dates."""
    return [next_on + timedelta(days=step * interval_days) for step in range(count)]

"""When money is taken, without a clock and without a database."""

import itertools
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.clock import SHANGHAI
from app.cycles.calendar import (
    MERCHANT_REST,
    GiveUp,
    NotBefore,
    Now,
    Schedule,
    TryAgain,
    after_refusal,
    next_on_grid,
    upcoming,
    when_to_ask,
)
from app.providers.contract import AgreementTerms, DeductionRefusal

SCHEDULE = Schedule(deduct_at=time(9), tries=3, failed_dates=1, notice_days=3, missed_days=None)
TERMS = AgreementTerms(frozenset({"A|B"}), 10_000, 7, window_days=3, plan_changes=10)
DATES = st.dates(date(2024, 1, 1), date(2040, 12, 31))


def shanghai(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)


def test_a_date_is_due_from_the_hour_of_deductions_on_in_shanghai() -> None:
    assert SCHEDULE.last_due(shanghai("2026-11-26 08:59:59")) == date(2026, 11, 25)
    assert SCHEDULE.last_due(shanghai("2026-11-26 09:00:00")) == date(2026, 11, 26)
    # 23:30 UTC is the next morning there
    assert SCHEDULE.last_due(datetime(2026, 11, 26, 23, 30, tzinfo=UTC)) == date(2026, 11, 26)
    assert SCHEDULE.last_due(datetime(2026, 11, 27, 1, 0, tzinfo=UTC)) == date(2026, 11, 27)


def test_missed_dates_are_charged_however_late_unless_a_bound_is_set() -> None:
    now = shanghai("2026-11-26 10:00:00")
    assert SCHEDULE.oldest_charged(now) == date.min
    bounded = Schedule(deduct_at=time(9), tries=3, failed_dates=1, notice_days=3, missed_days=2)
    assert bounded.oldest_charged(now) == date(2026, 11, 24)


@pytest.mark.parametrize(
    ("now", "plan_on", "expected"),
    [
        ("2026-11-26 09:00", date(2026, 11, 26), Now()),
        ("2026-11-26 09:00", date(2026, 11, 29), Now()),
        ("2026-11-26 09:00", date(2026, 11, 30), NotBefore(SCHEDULE.on(date(2026, 11, 27)))),
        ("2026-11-26 09:00", date(2026, 11, 25), Now(put_off_to=date(2026, 11, 26))),
        ("2026-11-26 09:00", None, Now()),
        ("2026-11-26 23:44", date(2026, 11, 26), Now()),
        ("2026-11-26 23:45", date(2026, 11, 26), NotBefore(SCHEDULE.on(date(2026, 11, 27)))),
    ],
)
def test_money_is_asked_for_inside_the_providers_window(now: str, plan_on: date | None, expected: object) -> None:
    assert when_to_ask(SCHEDULE, TERMS, shanghai(now), plan_on) == expected


def test_what_follows_a_refusal() -> None:
    now = shanghai("2026-02-28 09:00")
    tomorrow = SCHEDULE.on(date(2026, 3, 1))
    for kind in (DeductionRefusal.PAYER, DeductionRefusal.LIMIT, DeductionRefusal.AGREEMENT):
        assert after_refusal(SCHEDULE, kind, tries=0, now=now) == TryAgain(tomorrow)
        assert after_refusal(SCHEDULE, kind, tries=1, now=now) == TryAgain(tomorrow)
        assert after_refusal(SCHEDULE, kind, tries=2, now=now) == GiveUp()
    assert after_refusal(SCHEDULE, DeductionRefusal.WINDOW, tries=0, now=now) == TryAgain(now)
    assert after_refusal(SCHEDULE, DeductionRefusal.WINDOW, tries=2, now=now) == GiveUp()
    assert after_refusal(SCHEDULE, DeductionRefusal.MERCHANT, tries=2, now=now) == TryAgain(now + MERCHANT_REST, False)
    assert after_refusal(SCHEDULE, DeductionRefusal.RULE, tries=0, now=now) == GiveUp(rule=True)
    assert after_refusal(SCHEDULE, DeductionRefusal.FINAL, tries=0, now=now) == GiveUp()


@given(kind=st.sampled_from(list(DeductionRefusal)), hours=st.integers(0, 24 * 400))
def test_every_date_comes_to_an_end_unless_only_the_merchant_is_at_fault(kind: DeductionRefusal, hours: int) -> None:
    now, tries, asked = shanghai("2026-01-31 09:00") + timedelta(hours=hours), 0, 0
    while asked < 50:
        asked += 1
        then = after_refusal(SCHEDULE, kind, tries=tries, now=now)
        if isinstance(then, GiveUp):
            break
        assert then.at >= now
        now, tries = then.at, tries + then.counts
    assert asked == 50 if kind is DeductionRefusal.MERCHANT else asked <= SCHEDULE.tries


@given(first=DATES, interval=st.integers(7, 400), days=st.integers(-10, 3000))
def test_resuming_goes_on_at_the_next_date_of_the_same_grid(first: date, interval: int, days: int) -> None:
    earliest = first + timedelta(days=days)
    found = next_on_grid(first, interval, earliest)
    assert found >= max(first, earliest)
    assert (found - first).days % interval == 0
    assert found == first or (found - earliest).days < interval


@given(first=DATES, interval=st.integers(7, 400), count=st.integers(1, 50))
def test_dates_keep_their_distance_over_month_ends_and_leap_days(first: date, interval: int, count: int) -> None:
    dates = upcoming(first, interval, count)
    assert dates[0] == first
    assert {(later - earlier).days for earlier, later in itertools.pairwise(dates)} <= {interval}


def test_29_february_is_a_date_like_any_other() -> None:
    assert upcoming(date(2028, 2, 22), 7, 3) == [date(2028, 2, 22), date(2028, 2, 29), date(2028, 3, 7)]

"""WeChat's trade states: every documented word has a meaning, and every other text is waited for."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.providers.contract import ReportedStatus
from app.providers.wechat.states import STATUSES, reported_status


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("SUCCESS", ReportedStatus.SUCCESSFUL),
        ("REFUND", ReportedStatus.SUCCESSFUL),
        ("NOTPAY", ReportedStatus.PENDING),
        ("ACCEPT", ReportedStatus.PENDING),
        ("USERPAYING", ReportedStatus.PENDING),
        ("PAYERROR", ReportedStatus.PENDING),
        ("CLOSED", ReportedStatus.CLOSED),
        ("REVOKED", ReportedStatus.CLOSED),
    ],
)
def test_every_documented_word(word: str, status: ReportedStatus) -> None:
    with structlog.testing.capture_logs() as logs:
        assert reported_status(word, "SY1") is status
    assert logs == []


def test_no_word_fails_a_payment() -> None:
    assert set(STATUSES.values()) == {ReportedStatus.SUCCESSFUL, ReportedStatus.PENDING, ReportedStatus.CLOSED}


@given(st.text().filter(lambda word: word not in STATUSES))
def test_an_unknown_word_is_waited_for_and_logged(word: str) -> None:
    with structlog.testing.capture_logs() as logs:
        assert reported_status(word, "SY1") is ReportedStatus.PENDING
    assert [(one["event"], one["log_level"]) for one in logs] == [("wechat.unknown_trade_state", "warning")]

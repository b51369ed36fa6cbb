"""Time, from one place, so that a test can move it.

Instants are aware UTC; business dates are days in Asia/Shanghai. Nothing else in the project calls datetime.now().
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

SHANGHAI = ZoneInfo("Asia/Shanghai")


class Clock:
    """Two times of this process: the machine's, and the deployment's, which only a sandbox deployment lets run ahead.

    Everything lives by `now`, the providers' time. Only what people hold in their hands, tokens and cookies, lives by
    `machine_now`: a month that passes in the sandbox must not log anybody out."""

    def __init__(self, passed: timedelta = timedelta()) -> None:
        self._passed = passed
        self._ahead = timedelta()

    def now(self) -> datetime:
        """The present instant of the deployment, aware UTC."""
        return self.machine_now() + self._ahead

    def machine_now(self) -> datetime:
        """The present instant by the machine's clock, however far the deployment's was moved."""
        return datetime.now(UTC) + self._passed

    def business_date(self) -> date:
        """Today in Asia/Shanghai."""
        return self.now().astimezone(SHANGHAI).date()

    @property
    def ahead(self) -> timedelta:
        """How far `now` is ahead of the machine's clock."""
        return self._ahead

    def set_ahead(self, ahead: timedelta) -> None:
        """Puts `now` that far ahead; see app/test_clock.py, which keeps all processes together."""
        self._ahead = ahead

    def advance(self, by: timedelta) -> None:
        """Lets time pass, the machine's too; for tests."""
        self._passed += by

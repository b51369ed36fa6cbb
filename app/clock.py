"""Time, from one place, so that a test can move it.

Instants are aware UTC; business dates are days in Asia/Shanghai. Nothing else in the project calls datetime.now().
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

SHANGHAI = ZoneInfo("Asia/Shanghai")


class Clock:
    """The time of this deployment: the host's, plus an offset that only a test or a sandbox deployment sets."""

    def __init__(self, offset: timedelta = timedelta()) -> None:
        self._offset = offset

    def now(self) -> datetime:
        """The present instant, aware UTC."""
        return datetime.now(UTC) + self._offset

    def business_date(self) -> date:
        """Today in Asia/Shanghai."""
        return self.now().astimezone(SHANGHAI).date()

    def advance(self, by: timedelta) -> None:
        """Moves this clock; for tests and sandbox deployments."""
        self._offset += by

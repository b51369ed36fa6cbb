"""The sandbox's own clock: the machine's clock plus an offset that tests move.

Retries, expiry and timestamp checks all read this clock, so that a schedule of a day runs in a moment.
"""

from datetime import UTC, datetime, timedelta, timezone

BEIJING = timezone(timedelta(hours=8), "Asia/Shanghai")
PROVIDER_FORMAT = "%Y-%m-%d %H:%M:%S"
MAX_OFFSET = timedelta(days=3660)


class ClockOutOfRange(ValueError):
    """The clock may be moved ten years at most."""


class SandboxClock:
    """Aware UTC instants; `now` keeps running after a move."""

    def __init__(self) -> None:
        self._offset = timedelta(0)
        self.strict_timestamps = False

    @property
    def offset(self) -> timedelta:
        """How far ahead of the machine's clock this one is; negative when it is behind."""
        return self._offset

    def now(self) -> datetime:
        return self.machine_now() + self._offset

    def machine_now(self) -> datetime:
        """The unmoved clock, for what really takes time."""
        return datetime.now(UTC)

    def move_to(self, instant: datetime) -> None:
        """Make `now()` be `instant` and run on from there.

        Raises ClockOutOfRange beyond `MAX_OFFSET` and leaves the clock alone.
        """
        offset = instant - self.machine_now()
        if abs(offset) > MAX_OFFSET:
            raise ClockOutOfRange(f"the sandbox clock moves at most {MAX_OFFSET.days} days, not to {instant}")
        self._offset = offset

    def reset(self) -> None:
        self._offset = timedelta(0)
        self.strict_timestamps = False


def format_beijing(instant: datetime) -> str:
    """`yyyy-MM-dd HH:mm:ss` in GMT+8, the form Chinese providers write."""
    return instant.astimezone(BEIJING).strftime(PROVIDER_FORMAT)


def parse_beijing(text: str) -> datetime | None:
    """The instant in UTC, or None when `text` is not exactly `yyyy-MM-dd HH:mm:ss`."""
    try:
        instant = datetime.strptime(text, PROVIDER_FORMAT).replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        return None
    # strptime also takes single digits and signs; the providers do not.
    return instant if format_beijing(instant) == text else None

"""The app-level access tokens of `cgi-bin/token` and `cgi-bin/stable_token`, which know nothing of each other.

    token          every call makes a new one; the one before lives five minutes more, then it is "not latest"
    stable_token   the same one until its last five minutes; force_refresh kills it at once

Source: developers.weixin.qq.com, getAccessToken and getStableAccessToken, read 2026-09.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.sandbox.clock import BEIJING, SandboxClock
from app.sandbox.wechat.open_platform_errors import OpenPlatformRefusal

TOKEN_LIFE = timedelta(seconds=7200)
OLD_TOKEN_LIFE = timedelta(minutes=5)
EARLY_RENEWAL = timedelta(minutes=5)
FORCE_GAP = timedelta(seconds=30)
MAX_FORCED_A_DAY = 20


@dataclass(slots=True)
class AppToken:
    """`replaced_at`: when a later token put an end to this one, whatever its life was to be."""

    app_id: str
    text: str
    issued_at: datetime
    expires_at: datetime
    replaced_at: datetime | None = None


class AppTokens:
    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._tokens: dict[str, AppToken] = {}
        self._latest: dict[str, AppToken] = {}
        self._stable: dict[str, AppToken] = {}
        self._forced: dict[tuple[str, str], int] = {}

    def issue(self, app_id: str) -> AppToken:
        """A new token; the one before dies in five minutes."""
        token = self._new(app_id)
        _end(self._latest.get(app_id), token.issued_at + OLD_TOKEN_LIFE)
        self._latest[app_id] = token
        return token

    def issue_stable(self, app_id: str, *, force: bool) -> tuple[AppToken, int]:
        """The token and how many seconds it has left.

        Raises OpenPlatformRefusal 45009 when it is forced more than twenty times on one Beijing day.
        """
        now = self._clock.now()
        token = self._stable.get(app_id)
        living = token is not None and now < token.expires_at - EARLY_RENEWAL
        if token is None or not living:
            token = self._stable[app_id] = self._new(app_id)
        elif force and token.issued_at + FORCE_GAP <= now:
            self._count_forced(app_id, now)
            token.replaced_at = now
            token = self._stable[app_id] = self._new(app_id)
        return token, int((token.expires_at - now).total_seconds())

    def app_id_of(self, text: str) -> str:
        """Whose token a call carries. Raises OpenPlatformRefusal: 41001 none, 40001 unknown or replaced, 42001 over."""
        if not text:
            raise OpenPlatformRefusal(41001)
        now = self._clock.now()
        token = self._tokens.get(text)
        if token is None or (token.replaced_at is not None and token.replaced_at <= now):
            raise OpenPlatformRefusal(40001)
        if token.expires_at <= now:
            raise OpenPlatformRefusal(42001)
        return token.app_id

    def reset(self) -> None:
        self._tokens.clear()
        self._latest.clear()
        self._stable.clear()
        self._forced.clear()

    def _new(self, app_id: str) -> AppToken:
        now = self._clock.now()
        text = f"{secrets.randbelow(90) + 10}_{secrets.token_urlsafe(96)}"
        token = self._tokens[text] = AppToken(app_id, text, now, now + TOKEN_LIFE)
        return token

    def _count_forced(self, app_id: str, now: datetime) -> None:
        day = app_id, now.astimezone(BEIJING).date().isoformat()
        if self._forced.get(day, 0) >= MAX_FORCED_A_DAY:
            raise OpenPlatformRefusal(45009)
        self._forced[day] = self._forced.get(day, 0) + 1


def _end(token: AppToken | None, at: datetime) -> None:
    if token is not None and token.replaced_at is None:
        token.replaced_at = at

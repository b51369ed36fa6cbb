"""Login codes and what they are exchanged for, on the sandbox clock.

    code (5 minutes, once) ── jscode2session ──► openid, session_key                    mini-program
                           └─ oauth2/access_token ──► access_token (2 h), refresh_token (30 days)   official account

Source: developers.weixin.qq.com, code2Session and 网页授权, read 2026-09.
"""

import base64
import secrets
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.sandbox.clock import SandboxClock
from app.sandbox.wechat.open_platform_apps import App, AppKind
from app.sandbox.wechat.open_platform_errors import OpenPlatformRefusal

CODE_LIFE = timedelta(minutes=5)
ACCESS_TOKEN_LIFE = timedelta(hours=2)
REFRESH_TOKEN_LIFE = timedelta(days=30)
MAX_EXCHANGES_PER_MINUTE = 100
BASE, USERINFO = "snsapi_base", "snsapi_userinfo"


@dataclass(frozen=True, slots=True)
class Login:
    """Who stands behind a code. `unionid` and `nickname` are empty where WeChat does not tell them."""

    app_id: str
    openid: str
    unionid: str = ""
    nickname: str = ""
    scope: str = BASE
    is_snapshot: bool = False


@dataclass(slots=True)
class _Code:
    login: Login
    expires_at: datetime
    used: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """A web authorisation: the answer to a code or to a refresh."""

    login: Login
    access_token: str
    refresh_token: str
    access_expires_at: datetime
    refresh_expires_at: datetime


class Codes:
    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._codes: dict[str, _Code] = {}
        self._exchanges: dict[str, deque[datetime]] = {}
        self._by_access_token: dict[str, Grant] = {}
        self._by_refresh_token: dict[str, Grant] = {}

    def issue(self, login: Login) -> str:
        """A code of 32 characters for this login."""
        code = "0" + base64.b64encode(secrets.token_bytes(24), altchars=b"ab").decode()[:31]
        self._codes[code] = _Code(login, self._clock.now() + CODE_LIFE)
        return code

    def redeem(self, app: App, text: str) -> Login:
        """Use a code up. A refused call leaves the code as it was.

        Raises OpenPlatformRefusal: 40029 for unknown, malformed, another app's and a mini-program's expired code,
        42003 for an expired OAuth code, 40163 when it was used before, 45011 beyond 100 exchanges a minute of one user.
        """
        code = self._codes.get(text)
        if code is None or code.login.app_id != app.app_id:
            raise OpenPlatformRefusal(40029)
        self._count_exchange(code.login.openid)
        if code.used:
            raise OpenPlatformRefusal(40163)
        if code.expires_at <= self._clock.now():
            raise OpenPlatformRefusal(42003 if app.kind is AppKind.OFFICIAL_ACCOUNT else 40029)
        code.used = True
        return code.login

    def grant(self, login: Login) -> Grant:
        """A fresh web authorisation."""
        now = self._clock.now()
        return self._kept(
            Grant(
                login, _new_token(), _new_token(), now + ACCESS_TOKEN_LIFE, refresh_expires_at=now + REFRESH_TOKEN_LIFE
            )
        )

    def refresh(self, app_id: str, refresh_token: str) -> Grant:
        """Two more hours for a living access token, a new one for a dead one.

        Raises OpenPlatformRefusal: 40030 unknown or another app's, 42002 over.
        """
        grant = self._by_refresh_token.get(refresh_token)
        if grant is None or grant.login.app_id != app_id:
            raise OpenPlatformRefusal(40030)
        now = self._clock.now()
        if grant.refresh_expires_at <= now:
            raise OpenPlatformRefusal(42002)
        token = grant.access_token if now < grant.access_expires_at else _new_token()
        return self._kept(replace(grant, access_token=token, access_expires_at=now + ACCESS_TOKEN_LIFE))

    def find_login(self, access_token: str) -> Login:
        """Whose token this is. Raises OpenPlatformRefusal 40001 when unknown, 42001 when it is over."""
        grant = self._by_access_token.get(access_token)
        if grant is None:
            raise OpenPlatformRefusal(40001)
        if grant.access_expires_at <= self._clock.now():
            raise OpenPlatformRefusal(42001)
        return grant.login

    def reset(self) -> None:
        self._codes.clear()
        self._exchanges.clear()
        self._by_access_token.clear()
        self._by_refresh_token.clear()

    def _kept(self, grant: Grant) -> Grant:
        self._by_access_token[grant.access_token] = grant
        self._by_refresh_token[grant.refresh_token] = grant
        return grant

    def _count_exchange(self, openid: str) -> None:
        now = self._clock.now()
        recent = self._exchanges.setdefault(openid, deque())
        # After the clock was moved back nothing would ever leave the window by itself.
        while recent and not now - timedelta(minutes=1) < recent[0] <= now:
            recent.popleft()
        if len(recent) >= MAX_EXCHANGES_PER_MINUTE:
            raise OpenPlatformRefusal(45011)
        recent.append(now)


def _new_token() -> str:
    return f"{secrets.randbelow(90) + 10}_{secrets.token_urlsafe(64)}"

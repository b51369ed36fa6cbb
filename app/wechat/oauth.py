"""An official account's login in the browser: to WeChat and back, ending on a page with a token in its fragment.

    GET /wechat/oauth/{app}?return=/shop&scope=snsapi_base      a cookie, and off to open.weixin.qq.com
    GET /wechat/oauth/{app}/callback?code=…&state=…             off to /shop#token=…&openid=…&expiresAt=…

The cookie holds the state, the page and the scope, signed, for ten minutes, and only this browser has it: a way back
that somebody else began, or that was sent in a message, logs nobody in. A state exchanges one code. The token travels
in the fragment, which no server and no referrer sees. The page is one of this site or of ALLOWED_ORIGINS, and nothing
of where the browser goes is taken from the request's Host.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import jwt

from app.clock import Clock
from app.config import Config
from app.errors import InvalidInput, ShouyinError, WechatLoginRefused, WechatStateInvalid
from app.providers.wechat.open_platform import authorize_url
from app.wechat.apps import OpenedApp, WechatAppKind, WechatApps
from app.wechat.login import WechatLogins

COOKIE_LIFE: Final = timedelta(minutes=10)
USERINFO: Final = "snsapi_userinfo"

_SCOPES: Final = ("snsapi_base", USERINFO)
_RETURN_LIMIT: Final = 1000
_ALGORITHM: Final = "HS256"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the browser goes, and what its cookie for this application holds."""

    url: str
    cookie: str


@dataclass(frozen=True, slots=True)
class _Trip:
    state: str
    page: str
    scope: str


class WechatOAuth:
    """The two steps."""

    def __init__(self, *, config: Config, clock: Clock, apps: WechatApps, logins: WechatLogins) -> None:
        self._config = config
        self._clock = clock
        self._apps = apps
        self._logins = logins

    async def begin(self, app_id: str, *, page: str, scope: str) -> Begun:
        """Raises InvalidInput naming return, scope or appId, and WechatAppMisconfigured without JWT_SECRET."""
        self._logins.check_tokens()
        if scope not in _SCOPES:
            raise InvalidInput(f"scope: one of {', '.join(_SCOPES)}", field="scope")
        target = checked_page(page, self._config.public_url, self._config.allowed_origins)
        opened = await self._official_account(app_id)
        state = secrets.token_hex(32)
        redirect_uri = f"{self._config.public_url}/wechat/oauth/{app_id}/callback"
        url = authorize_url(opened.app, redirect_uri=redirect_uri, scope=scope, state=state)
        ends = self._clock.machine_now() + COOKIE_LIFE
        claims = {"app": app_id, "state": state, "page": target, "scope": scope, "ends": ends.timestamp()}
        return Begun(url, jwt.encode(claims, self._key(), algorithm=_ALGORITHM))

    async def finish(self, app_id: str, *, cookie: str | None, state: str, code: str | None) -> str:
        """Where the browser goes: the page, with a token or an error in its fragment.

        Raises WechatStateInvalid, InvalidInput and WechatAppMisconfigured while it is not known to which page this
        browser belongs; the cookie stays good then."""
        self._logins.check_tokens()
        opened = await self._official_account(app_id)
        trip = self._read(app_id, cookie)
        if not hmac.compare_digest(trip.state.encode(), state.encode("utf-8", "surrogatepass")):
            raise WechatStateInvalid("this login was begun in another window or browser: begin it again on the page")
        try:
            # WeChat leaves the code out where the user says no; older versions send this word.
            if not code or code == "authdeny":
                raise WechatLoginRefused("the user did not agree to log in with WeChat")
            with_nickname = trip.scope == USERINFO
            login = await self._logins.finish_oauth(opened, code=code, state=state, with_nickname=with_nickname)
        except ShouyinError as exc:
            return _with_fragment(trip.page, {"error": exc.code, "message": exc.message_zh})
        fields = {"token": login.token, "openid": login.openid, "expiresAt": login.expires_at.isoformat()}
        if login.nickname is not None:
            fields["nickname"] = login.nickname
        return _with_fragment(trip.page, fields)

    async def _official_account(self, app_id: str) -> OpenedApp:
        opened = await self._apps.open(app_id)
        if opened.kind is not WechatAppKind.OFFICIAL_ACCOUNT:
            raise InvalidInput(f"appId: {app_id} is no official account", field="appId")
        return opened

    def _read(self, app_id: str, cookie: str | None) -> _Trip:
        if not cookie:
            raise WechatStateInvalid(
                "this browser began no login, or has finished it: begin again on the page, with cookies allowed"
            )
        try:
            claims: Mapping[str, Any] = jwt.decode(cookie, self._key(), algorithms=[_ALGORITHM])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            raise WechatStateInvalid("the login's cookie is not ours: begin again on the page") from exc
        if claims["app"] != app_id or claims["ends"] <= self._clock.machine_now().timestamp():
            raise WechatStateInvalid("the login took longer than 10 minutes: begin it again on the page")
        return _Trip(claims["state"], claims["page"], claims["scope"])

    def _key(self) -> bytes:
        """A key of its own: no cookie can pass for a token, nor a token for a cookie."""
        assert self._config.jwt_secret is not None
        return hmac.digest(self._config.jwt_secret.reveal().encode(), b"shouyin wechat oauth state", hashlib.sha256)


def checked_page(text: str, public_url: str, allowed_origins: Sequence[str]) -> str:
    """The whole address of a page we may send a token to. Raises InvalidInput.

    Backslashes, blanks and control characters are refused because browsers read them as something else."""
    site = _origin(public_url)
    plain = text.isascii() and text.isprintable() and not set(text) & set(' \\#"<>')
    if not plain or not 0 < len(text) <= _RETURN_LIMIT:
        raise _bad_page("return: a path of this site such as /shop, or a whole address, percent-encoded, without #")
    if text.startswith("/") and not text.startswith("//"):
        return site + text
    for origin in (site, *allowed_origins):
        if _origin(origin) == origin and (text == origin or text.startswith((f"{origin}/", f"{origin}?"))):
            return text
    raise _bad_page("return: a path of this site such as /shop, or a page of an origin in ALLOWED_ORIGINS")


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.netloc else ""


def _bad_page(message: str) -> InvalidInput:
    return InvalidInput(message, field="return", message_zh="返回地址不被允许")


def _with_fragment(page: str, fields: Mapping[str, str]) -> str:
    return f"{page}#{urlencode(fields)}"

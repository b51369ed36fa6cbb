"""WeChat's open platform, api.weixin.qq.com: codes against openids, access tokens, links into a mini-program.

Always HTTP 200 and JSON, whatever the content type says; what went wrong is `errcode`, which a good answer may omit. So
an answer is good when it holds what was asked for, and never because nothing is said to be wrong.

    a good answer      → the value
    errcode            → OpenPlatformRefused     WeChat did nothing
    -1, no answer      → OpenPlatformSilent      nobody knows; a code that was sent may be spent

The application's secret, codes and tokens travel in queries and bodies: no URL, body or WeChat's own words with one of
them inside may be logged or shown.

Source: developers.weixin.qq.com, code2Session, snsAccessToken, snsUserInfo, getStableAccessToken, generateScheme and
generateUrlLink, read 2026-11.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
import orjson

from app.config import Secret
from app.providers.contract import NotReached
from app.providers.transport import RawAnswer, exchange

GATEWAY: Final = "https://api.weixin.qq.com"
AUTHORIZE_GATEWAY: Final = "https://open.weixin.qq.com"

# The access token is refused: unknown or replaced, malformed, expired.
TOKEN_REFUSED: Final = frozenset({40001, 40014, 42001})

_BUSY: Final = -1
_ANSWER_LIMIT: Final = 65_536
_WORDS_LIMIT: Final = 200
_ID_LIMIT: Final = 128


@dataclass(frozen=True, slots=True)
class OpenApp:
    """A mini-program or official account, ready for calls."""

    app_id: str
    secret: Secret
    gateway: str = GATEWAY
    authorize_gateway: str = AUTHORIZE_GATEWAY


@dataclass(frozen=True, slots=True)
class PageLogin:
    """What an official account's code was worth. `access_token` is this user's, and not the application's."""

    openid: str = field(repr=False)
    access_token: Secret
    is_snapshot: bool


@dataclass(frozen=True, slots=True)
class AccessToken:
    """The application's token and how long it is good for."""

    text: Secret
    expires_in_s: int


class OpenPlatformRefused(Exception):
    """WeChat said no. `words` are its own, with whatever we sent in confidence taken out."""

    def __init__(self, errcode: int, words: str) -> None:
        super().__init__(f"errcode {errcode}")
        self.errcode = errcode
        self.words = words


class OpenPlatformSilent(Exception):
    """No usable answer. `sent` is false where nothing left this machine."""

    def __init__(self, detail: str, *, sent: bool) -> None:
        super().__init__(detail)
        self.sent = sent


class OpenPlatform:
    """The calls. Stateless; each costs exactly one request and raises OpenPlatformRefused or OpenPlatformSilent."""

    def __init__(self, http: httpx.AsyncClient, timeout_s: float) -> None:
        self._http = http
        self._timeout_s = timeout_s

    async def exchange_mini_program_code(self, app: OpenApp, code: str) -> str:
        """The openid behind a code of `wx.login`; the code is spent. `session_key` is dropped unread.

        Source: /miniprogram/dev/server/API/user-login/api_code2session, read 2026-11."""
        query = {
            "appid": app.app_id,
            "secret": app.secret.reveal(),
            "js_code": code,
            "grant_type": "authorization_code",
        }
        answer = await self._ask(app, "GET", "/sns/jscode2session", query, hidden=(code,))
        return _text(answer, "openid", limit=_ID_LIMIT)

    async def exchange_page_code(self, app: OpenApp, code: str) -> PageLogin:
        """The user behind an official account's OAuth code; the code is spent.

        Source: /doc/service/api/webdev/access/api_snsaccesstoken, read 2026-11."""
        query = {"appid": app.app_id, "secret": app.secret.reveal(), "code": code, "grant_type": "authorization_code"}
        answer = await self._ask(app, "GET", "/sns/oauth2/access_token", query, hidden=(code,))
        return PageLogin(
            openid=_text(answer, "openid", limit=_ID_LIMIT),
            access_token=Secret(_text(answer, "access_token", limit=1024)),
            is_snapshot=answer.get("is_snapshotuser") in (1, "1", True),
        )

    async def read_nickname(self, app: OpenApp, login: PageLogin) -> str:
        """The name the user goes by; only for a login of scope snsapi_userinfo. May be empty.

        Source: /doc/service/api/webdev/access/api_snsuserinfo, read 2026-11."""
        token = login.access_token.reveal()
        query = {"access_token": token, "openid": login.openid, "lang": "zh_CN"}
        answer = await self._ask(app, "GET", "/sns/userinfo", query, hidden=(token, login.openid))
        nickname = answer.get("nickname")
        # No text of PostgreSQL's holds a zero byte.
        return nickname.replace("\0", "")[:100] if isinstance(nickname, str) else ""

    async def fetch_access_token(self, app: OpenApp, *, force: bool) -> AccessToken:
        """The application's token; unless forced, the same one to everybody who asks until five minutes before its end.

        Forcing makes the one before invalid, and WeChat does it 20 times a day and once in 30 seconds at most.
        Source: /doc/service/api/base/api_getstableaccesstoken, read 2026-11."""
        body = {
            "grant_type": "client_credential",
            "appid": app.app_id,
            "secret": app.secret.reveal(),
            "force_refresh": force,
        }
        answer = await self._ask(app, "POST", "/cgi-bin/stable_token", {}, body)
        expires_in = answer.get("expires_in")
        if not isinstance(expires_in, int) or isinstance(expires_in, bool) or not 0 < expires_in <= 86_400:
            raise OpenPlatformSilent("an answer without a usable expires_in", sent=True)
        return AccessToken(Secret(_text(answer, "access_token", limit=2048)), expires_in)

    async def create_scheme(self, app: OpenApp, token: Secret, *, path: str, query: str, expires_at: datetime) -> str:
        """A weixin:// address that opens a page of the mini-program from any phone browser.

        Source: /miniprogram/dev/server/API/qrcode-link/url-scheme/api_generatescheme, read 2026-11."""
        target = {"path": path, "query": query, "env_version": "release"}
        body = {"jump_wxa": target, "is_expire": True, "expire_type": 0, "expire_time": int(expires_at.timestamp())}
        answer = await self._ask_with(app, token, "/wxa/generatescheme", body)
        return _text(answer, "openlink", limit=2048)

    async def create_url_link(self, app: OpenApp, token: Secret, *, path: str, query: str, expires_at: datetime) -> str:
        """An https address that opens a page of the mini-program, from a text message too.

        Source: /miniprogram/dev/server/API/qrcode-link/url-link/api_generateurllink, read 2026-11."""
        target = {"path": path, "query": query, "env_version": "release"}
        body = {**target, "is_expire": True, "expire_type": 0, "expire_time": int(expires_at.timestamp())}
        answer = await self._ask_with(app, token, "/wxa/generate_urllink", body)
        return _text(answer, "url_link", limit=2048)

    async def _ask_with(self, app: OpenApp, token: Secret, path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = token.reveal()
        return await self._ask(app, "POST", path, {"access_token": text}, body, hidden=(text,))

    async def _ask(
        self,
        app: OpenApp,
        verb: str,
        path: str,
        query: dict[str, str],
        body: dict[str, Any] | None = None,
        *,
        hidden: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        url = app.gateway.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        outcome = await exchange(
            self._http,
            verb,
            url,
            headers={} if body is None else {"Content-Type": "application/json"},
            body=b"" if body is None else orjson.dumps(body),
            timeout_s=self._timeout_s,
            answer_limit_bytes=_ANSWER_LIMIT,
        )
        if not isinstance(outcome, RawAnswer):
            raise OpenPlatformSilent(outcome.detail, sent=not isinstance(outcome, NotReached))
        return _read(outcome, (app.secret.reveal(), *hidden))


def authorize_url(app: OpenApp, *, redirect_uri: str, scope: str, state: str) -> str:
    """Where an official account's user is asked. WeChat wants this order, and the fragment.

    Source: /doc/offiaccount/OA_Web_Apps/Wechat_webpage_authorization.html, read 2026-11."""
    return (
        f"{app.authorize_gateway.rstrip('/')}/connect/oauth2/authorize?appid={quote(app.app_id, safe='')}"
        f"&redirect_uri={quote(redirect_uri, safe='')}&response_type=code&scope={scope}&state={state}#wechat_redirect"
    )


def _read(answer: RawAnswer, hidden: tuple[str, ...]) -> dict[str, Any]:
    """The answer's object. Raises OpenPlatformRefused for an errcode, OpenPlatformSilent for what is no answer."""
    try:
        fields = orjson.loads(answer.body)
    except ValueError as exc:
        raise OpenPlatformSilent(f"HTTP {answer.status_code} with a body that is no JSON", sent=True) from exc
    if not isinstance(fields, dict):
        raise OpenPlatformSilent(f"HTTP {answer.status_code} with JSON that is no object", sent=True)
    errcode = fields.get("errcode", 0)
    if not isinstance(errcode, int) or errcode == _BUSY:
        raise OpenPlatformSilent(f"errcode {str(errcode)[:20]}", sent=True)
    if errcode != 0:
        words = str(fields.get("errmsg", ""))
        for text in hidden:
            words = words.replace(text, "…")
        raise OpenPlatformRefused(errcode, "".join(each for each in words if each.isprintable())[:_WORDS_LIMIT])
    return fields


def _text(fields: dict[str, Any], name: str, *, limit: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isascii() or not value.isprintable():
        raise OpenPlatformSilent(f"an answer without a usable {name}", sent=True)
    return value

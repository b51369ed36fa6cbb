"""What a browser or WeChat itself asks of us beside the API: the OAuth steps and the files that prove a domain.

GET /wechat/oauth/{app}            app/wechat/oauth.py tells the story
GET /wechat/oauth/{app}/callback
GET /MP_verify_….txt               from the site's root, because WeChat looks nowhere else
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from app.api.asgi import Headers, Scope, Send, respond
from app.errors import (
    InvalidInput,
    ProviderUnavailable,
    ShouyinError,
    WechatAppMisconfigured,
    WechatRateLimited,
)
from app.runtime import Runtime
from app.wechat.oauth import COOKIE_LIFE

COOKIE: Final = "shouyin_wechat_login"
FILE_PATH: Final = re.compile(r"/([A-Za-z0-9_-]{1,80}\.txt)", re.ASCII)

_OAUTH_PATH: Final = re.compile(r"/wechat/oauth/([A-Za-z0-9_-]{1,64})(/callback)?", re.ASCII)
_QUERY_LIMIT: Final = 4096
_FIELDS_LIMIT: Final = 20
_TEXT: Final = b"text/plain; charset=utf-8"
_HTML: Final = b"text/html; charset=utf-8"

# A file may be set or taken away at any time; WeChat's check comes minutes later.
_KEPT: Final = (b"cache-control", b"public, max-age=60")
_SNIFFING: Final = (b"x-content-type-options", b"nosniff")
_PRIVATE: Final = (
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    (b"x-frame-options", b"DENY"),
    _SNIFFING,
)

_PAGE: Final = """<!doctype html>
<html lang="zh-CN">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>微信登录</title>
<style>body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 32rem; margin: 15vh auto; padding: 0 1.5rem }}
h1 {{ font-size: 1.25rem }} small {{ opacity: .7 }}</style>
</head>
<body>
<h1>微信登录未完成</h1>
<p>{chinese}</p>
<p lang="en">{english}</p>
<p><small>{code}</small></p>
</body>
</html>
"""


class WechatPages:
    """Both kinds of addresses; each method answers one request and returns the status it sent."""

    def __init__(self, runtime: Runtime) -> None:
        self._wechat = runtime.wechat
        public = urlsplit(runtime.config.public_url)
        self._secure = public.scheme == "https"
        self._prefix = public.path

    async def file(self, scope: Scope, send: Send) -> int | None:
        """A verification file; None, and nothing sent, where there is none of that name."""
        place = FILE_PATH.fullmatch(scope["path"])
        if place is None or scope["method"] not in ("GET", "HEAD"):
            return None
        content = await self._wechat.apps.find_file(place[1])
        if content is None:
            return None
        await respond(send, 200, content.encode("ascii"), content_type=_TEXT, headers=[_KEPT, _SNIFFING])
        return 200

    async def oauth(self, scope: Scope, send: Send) -> int:
        """One step of a login in the browser: a redirect, or a small page that says what went wrong."""
        place = _OAUTH_PATH.fullmatch(scope["path"])
        if place is None:
            await respond(send, 404, b"no such page", content_type=_TEXT, headers=_PRIVATE)
            return 404
        if scope["method"] != "GET":
            await respond(send, 405, b"GET only", content_type=_TEXT, headers=[(b"allow", b"GET"), *_PRIVATE])
            return 405
        try:
            fields = _read_query(scope["query_string"])
            if place[2] is None:
                begun = await self._wechat.oauth.begin(
                    place[1], page=fields.get("return", "/"), scope=fields.get("scope", "snsapi_base")
                )
                life = int(COOKIE_LIFE.total_seconds())
                return await _redirect(send, begun.url, self._cookie(place[1], begun.cookie, life))
            url = await self._wechat.oauth.finish(
                place[1],
                cookie=_read_cookie(dict(scope["headers"])),
                state=fields.get("state", ""),
                code=fields.get("code"),
            )
            return await _redirect(send, url, self._cookie(place[1], "", 0))
        except ShouyinError as exc:
            return await _explain(send, exc)

    def _cookie(self, app_id: str, text: str, life_s: int) -> bytes:
        secure = "; Secure" if self._secure else ""
        path = f"{self._prefix}/wechat/oauth/{app_id}"
        return f"{COOKIE}={text}; Max-Age={life_s}; Path={path}; HttpOnly; SameSite=Lax{secure}".encode("ascii")


def _read_query(query: bytes) -> dict[str, str]:
    """The fields of a query. Raises InvalidInput for one that is too long, or names a field twice."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_FIELDS_LIMIT, errors="strict")
    except ValueError as exc:
        raise InvalidInput("the address is malformed", message_zh="链接不正确") from exc
    fields = dict(pairs)
    if len(query) > _QUERY_LIMIT or len(fields) != len(pairs):
        raise InvalidInput("the address is too long, or names a field twice", message_zh="链接不正确")
    return fields


def _read_cookie(headers: Headers) -> str | None:
    """Ours among all that the browser sends. Python's own reader gives up at the first malformed one of others."""
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        name, _, text = pair.strip().partition("=")
        if name == COOKIE:
            return text
    return None


async def _redirect(send: Send, url: str, cookie: bytes) -> int:
    headers: Sequence[tuple[bytes, bytes]] = [(b"location", url.encode("ascii")), (b"set-cookie", cookie), *_PRIVATE]
    await respond(send, 302, b"", content_type=_TEXT, headers=headers)
    return 302


async def _explain(send: Send, error: ShouyinError) -> int:
    match error:
        case WechatRateLimited():
            status = 429
        case WechatAppMisconfigured() | ProviderUnavailable():
            status = 503
        case InvalidInput(field="appId"):
            status = 404
        case _:
            status = 400
    words = {"chinese": error.message_zh, "english": error.message, "code": error.code}
    page = _PAGE.format(**{name: escape(text) for name, text in words.items()})
    await respond(send, status, page.encode("utf-8", "replace"), content_type=_HTML, headers=_PRIVATE)
    return status

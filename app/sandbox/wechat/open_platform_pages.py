"""What a person sees of the open platform: web authorisation, the choice who one is, and where a link leads.

GET  /connect/oauth2/authorize            back at once with a code, or the page that asks, or WeChat's error page
POST /connect/oauth2/authorize/{answer}   accept or refuse
GET  /wechat/users   POST /wechat/users/{user}      which of the sandbox's users this browser is, kept in a cookie
GET  /wechat/link/{ticket}   GET /wechat/open?openlink=…   a URL link, a URL scheme

Source: developers.weixin.qq.com 网页授权, read 2026-09: WeChat matches the parameters in their order, and the number on
its error page says which is wrong.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from app.sandbox.markup import Markup, fill, joined
from app.sandbox.pages import clock_text, framed
from app.sandbox.wechat.open_platform_apps import AppKind, Apps
from app.sandbox.wechat.open_platform_codes import BASE, USERINFO, Codes, Login
from app.sandbox.wechat.open_platform_links import SCHEME_START, Links
from app.sandbox.wechat.open_platform_users import DEFAULT_USER, USERS, User, openid_of, unionid_of
from app.sandbox.world import Ground

USER_COOKIE = "wechat_user"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
ORDER = ["appid", "redirect_uri", "response_type", "scope", "state"]
OPTIONAL = {"forcePopup", "forceSnapShot", "connect_redirect"}
MALFORMED = "链接不合规范"

_STATE = re.compile(r"[A-Za-z0-9]{1,128}")

_ERROR = """<h1>微信沙箱：无法授权</h1>
<section>
<p class="state bad">{message}</p>
<dl><dt>错误码</dt><dd><code>{code}</code></dd></dl>
</section>"""

_CONSENT = """<h1>微信沙箱 · 网页授权</h1>
<section>
<p>{host} 申请获取你的昵称、头像</p>
<dl>
<dt>公众号</dt><dd><code>{app_id}</code></dd>
<dt>你是</dt><dd>{nickname}</dd>
</dl>
</section>
<section class="actions">
<form method="post" action="/connect/oauth2/authorize/accept?{query}"><button class="primary">同意</button></form>
<form method="post" action="/connect/oauth2/authorize/refuse?{query}"><button>拒绝</button></form>
<a class="button" href="/wechat/users?back={back}">换一个用户</a>
</section>"""

_USERS = """<h1>微信沙箱 · 你是谁</h1>
<p class="quiet">公众号网页授权时，这个浏览器以谁的身份登录。</p>
<section class="actions">{users}</section>"""

_USER = """<form method="post" action="/wechat/users/{user_id}?back={back}" class="choice">
<button{kind}>{nickname}</button>
<p class="quiet">{explanation}</p>
</form>"""

_LINK = """<h1>微信沙箱 · 打开小程序</h1>
<section>
<p class="state {tone}">{words}</p>
<dl>
<dt>小程序</dt><dd><code>{app_id}</code></dd>
<dt>页面</dt><dd><code>{path}</code></dd>
<dt>参数</dt><dd><code>{query}</code></dd>
<dt>版本</dt><dd>{env_version}</dd>
<dt>有效期至</dt><dd>{expires_at}</dd>
</dl>
</section>"""


class PageError(Exception):
    """WeChat's error page in place of an authorisation."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class _Authorisation:
    app_id: str
    redirect_uri: str
    scope: str
    state: str

    def way_back(self, code: str | None) -> str:
        """The merchant's address with `code` and `state`; without a code the user said no."""
        parts = urlsplit(self.redirect_uri)
        answer = {"code": code, "state": self.state} if code else {"state": self.state}
        return parts._replace(query="&".join(filter(None, (parts.query, urlencode(answer))))).geturl()


class OpenPlatformPages:
    """The official accounts may come back to loopback hosts and to the sandbox's own."""

    def __init__(self, ground: Ground, *, apps: Apps, codes: Codes, links: Links) -> None:
        self._clock = ground.clock
        self._apps = apps
        self._codes = codes
        self._links = links
        self._authorised_hosts = LOOPBACK_HOSTS | {urlsplit(ground.public_url).hostname}

    def routes(self) -> list[Route]:
        return [
            Route("/connect/oauth2/authorize", self._authorize, methods=["GET"]),
            Route("/connect/oauth2/authorize/{answer}", self._answer, methods=["POST"]),
            Route("/wechat/users", self._users, methods=["GET"]),
            Route("/wechat/users/{user_id}", self._choose, methods=["POST"]),
            Route("/wechat/link/{ticket}", self._show_link, methods=["GET"]),
            Route("/wechat/open", self._open, methods=["GET"]),
        ]

    # Web authorisation.

    async def _authorize(self, request: Request) -> Response:
        """302 back for snsapi_base, which asks nobody; the page that asks for snsapi_userinfo."""
        try:
            wanted = self._read(request.url.query)
        except PageError as error:
            return _error_page(error)
        user = _user_of(request)
        if wanted.scope == BASE:
            return RedirectResponse(self._accepted(wanted, user), status_code=302)
        body = fill(
            _CONSENT,
            host=urlsplit(wanted.redirect_uri).hostname or "",
            app_id=wanted.app_id,
            nickname=user.nickname,
            query=request.url.query,
            back=quote(f"/connect/oauth2/authorize?{request.url.query}", safe=""),
        )
        return framed("微信沙箱 · 网页授权", body)

    async def _answer(self, request: Request) -> Response:
        try:
            wanted = self._read(request.url.query)
        except PageError as error:
            return _error_page(error)
        accepted = request.path_params["answer"] == "accept"
        goes_to = self._accepted(wanted, _user_of(request)) if accepted else wanted.way_back(None)
        return RedirectResponse(goes_to, status_code=303)

    def _accepted(self, wanted: _Authorisation, user: User) -> str:
        tells_more = wanted.scope == USERINFO
        login = Login(
            app_id=wanted.app_id,
            openid=openid_of(user, wanted.app_id),
            unionid=unionid_of(user) if tells_more else "",
            nickname=user.nickname if tells_more else "",
            scope=wanted.scope,
            is_snapshot=user.is_snapshot,
        )
        return wanted.way_back(self._codes.issue(login))

    def _read(self, query: str) -> _Authorisation:
        """The parameters of the link. Raises PageError with WeChat's number."""
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        for name, code in (("appid", "10012"), ("redirect_uri", "10011"), ("scope", "10010"), ("state", "10013")):
            if not given.get(name):
                raise PageError(code, f"{name} 不能为空")
        names = [name for name, _ in pairs if name not in OPTIONAL]
        if names != ORDER or given["response_type"] != "code":
            raise PageError(MALFORMED, f"参数必须依次是 {'、'.join(ORDER)}，response_type 为 code")
        app = self._apps.find(given["appid"])
        if app is None:
            raise PageError("10012", "appid 参数错误")
        if app.kind is not AppKind.OFFICIAL_ACCOUNT:
            raise PageError("10016", "不支持此 appid，请使用公众号 appid")
        if given["scope"] not in (BASE, USERINFO):
            raise PageError("10005", "该公众号没有这个 scope 的权限")
        if not _STATE.fullmatch(given["state"]):
            raise PageError("10013", "state 只能是 a-zA-Z0-9，最多 128 字节")
        if not self._may_return_to(given["redirect_uri"]):
            raise PageError("10003", "redirect_uri 域名与后台配置不一致")
        return _Authorisation(given["appid"], given["redirect_uri"], given["scope"], given["state"])

    def _may_return_to(self, redirect_uri: str) -> bool:
        try:
            parts = urlsplit(redirect_uri)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.hostname in self._authorised_hosts

    # Who one is.

    async def _users(self, request: Request) -> Response:
        current, back = _user_of(request), quote(_back_of(request), safe="")
        users = joined(
            fill(
                _USER,
                user_id=user.user_id,
                back=back,
                nickname=user.nickname,
                explanation=_words_about(user, chosen=user is current),
                kind=Markup(' class="primary"') if user is current else Markup(""),
            )
            for user in USERS.values()
        )
        return framed("微信沙箱 · 你是谁", fill(_USERS, users=users))

    async def _choose(self, request: Request) -> Response:
        user = USERS.get(request.path_params["user_id"], DEFAULT_USER)
        response = RedirectResponse(_back_of(request), status_code=303)
        response.set_cookie(USER_COOKIE, user.user_id, path="/", httponly=True, samesite="lax")
        return response

    # Where links lead.

    async def _open(self, request: Request) -> Response:
        """What a phone does with `weixin://dl/business/?t=…`."""
        openlink = request.query_params.get("openlink", "")
        link = self._links.find(openlink.removeprefix(SCHEME_START))
        if link is None or link.openlink != openlink or not link.is_scheme:
            return _unknown_link()
        return RedirectResponse(f"/wechat/link/{link.ticket}", status_code=302)

    async def _show_link(self, request: Request) -> Response:
        link = self._links.find(request.path_params["ticket"])
        if link is None:
            return _unknown_link()
        living = self._clock.now() < link.expires_at
        body = fill(
            _LINK,
            tone="good" if living else "bad",
            words="在真的手机上，微信会打开这个页面" if living else "链接已过期",
            app_id=link.app_id,
            path=link.path or "（首页）",
            query=link.query or "（无）",
            env_version=link.env_version,
            expires_at=clock_text(link.expires_at),
        )
        return framed("微信沙箱 · 打开小程序", body, status=200 if living else 410)


def _user_of(request: Request) -> User:
    return USERS.get(request.cookies.get(USER_COOKIE, ""), DEFAULT_USER)


def _words_about(user: User, *, chosen: bool) -> str:
    kind = "快照页的虚拟账号，不能收款" if user.is_snapshot else "普通用户"
    return f"{kind}；现在就是。" if chosen else f"{kind}。"


def _back_of(request: Request) -> str:
    """A path of the sandbox itself; anything else would make it a redirector."""
    back = request.query_params.get("back", "")
    return back if re.match(r"/[^/\\]", back) else "/wechat/users"


def _error_page(error: PageError) -> Response:
    """HTTP 200 and HTML, as from WeChat."""
    return framed("微信沙箱：无法授权", fill(_ERROR, code=error.code, message=error.message))


def _unknown_link() -> Response:
    body = Markup("<h1>微信沙箱：没有这个链接</h1><section><p>链接不完整，或者沙箱已重启或清空。</p></section>")
    return framed("微信沙箱：没有这个链接", body, status=404)

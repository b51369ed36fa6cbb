"""`/_control/wechat`: login codes as `wx.login` or a web authorisation would give them, the users, the links made.

POST /_control/wechat/codes   {"app_id", "openid"?, "unionid"?, "scope"?, "is_snapshotuser"?} → {"code", "openid"}
GET  /_control/wechat/users   ?app_id=… → their openids under that app
GET  /_control/wechat/links
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.sandbox.options import ControlError, control_route, flag_of, read_options, text_of
from app.sandbox.wechat.open_platform_apps import App, Apps
from app.sandbox.wechat.open_platform_codes import BASE, USERINFO, Codes, Login
from app.sandbox.wechat.open_platform_links import Links
from app.sandbox.wechat.open_platform_users import DEFAULT_USER, USERS, Openids, openid_of, unionid_of


class OpenPlatformControl:
    def __init__(self, *, apps: Apps, codes: Codes, links: Links, openids: Openids) -> None:
        self._apps = apps
        self._codes = codes
        self._links = links
        self._openids = openids

    def routes(self) -> list[Route]:
        return [
            control_route("/_control/wechat/codes", self._issue_code, "POST"),
            control_route("/_control/wechat/users", self._users, "GET"),
            control_route("/_control/wechat/links", self._listed_links, "GET"),
        ]

    async def _issue_code(self, request: Request) -> Response:
        """Without an openid the sandbox's first user logs in."""
        options = await read_options(request, {"app_id", "openid", "unionid", "scope", "is_snapshotuser"})
        app = self._app(text_of(options, "app_id"))
        scope = text_of(options, "scope") or BASE
        if scope not in (BASE, USERINFO):
            raise ControlError(400, "OPTION_INVALID", f"scope is not {BASE} or {USERINFO}", f"leave it out for {BASE}")
        openid = text_of(options, "openid") or openid_of(DEFAULT_USER, app.app_id)
        if not self._openids.belongs(openid, app.app_id):
            fix = "write o and 27 of A-Z a-z 0-9 _ -, an openid that no other app has"
            raise ControlError(400, "OPENID_INVALID", f"{openid} is no openid of {app.app_id}", fix)
        self._openids.remember(openid, app.app_id)
        login = Login(
            app_id=app.app_id,
            openid=openid,
            unionid=text_of(options, "unionid") or "",
            nickname="微信用户" if scope == USERINFO else "",
            scope=scope,
            is_snapshot=flag_of(options, "is_snapshotuser", default=False),
        )
        return JSONResponse({"code": self._codes.issue(login), "openid": openid}, status_code=201)

    async def _users(self, request: Request) -> Response:
        app = self._app(request.query_params.get("app_id"))
        users = [
            {
                "user": user.user_id,
                "nickname": user.nickname,
                "openid": openid_of(user, app.app_id),
                "unionid": unionid_of(user),
                "is_snapshotuser": user.is_snapshot,
            }
            for user in USERS.values()
        ]
        return JSONResponse({"users": users})

    async def _listed_links(self, _request: Request) -> Response:
        links = [
            {
                "app_id": link.app_id,
                "path": link.path,
                "query": link.query,
                "env_version": link.env_version,
                "expires_at": link.expires_at.isoformat(),
                "kind": "scheme" if link.is_scheme else "url_link",
            }
            for link in self._links.listed()
        ]
        return JSONResponse({"links": links})

    def _app(self, app_id: str | None) -> App:
        app = self._apps.find(app_id or "")
        if app is None:
            raise ControlError(
                404, "APP_UNKNOWN", f"the sandbox has no WeChat app {app_id}", "GET /_control/accounts lists them"
            )
        return app

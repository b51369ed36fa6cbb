"""WeChat beside payments on the API: logins for everybody, links for callers, applications for administrators."""

from datetime import datetime, timedelta
from typing import Self

import strawberry

from app.api.context import ApiInfo
from app.wechat.apps import SaveWechatApp, WechatAppKind, WechatAppSummary
from app.wechat.links import CreateWechatLink, WechatLinkKind

# 30 days and a bit: beyond it an integer is no duration anybody meant, and timedelta has an end.
_LONGEST_S = 10_000_000


strawberry.enum(WechatAppKind)
strawberry.enum(WechatLinkKind, description="weixin://… for a button on a page, or https://… for text messages too")


@strawberry.type(description="A token for this API, and the openid it names.")
class Login:
    token: str
    openid: str
    expires_at: datetime


@strawberry.type(description="A mini-program or an official account, without its secret.")
class WechatApp:
    app_id: str
    kind: WechatAppKind
    name: str
    gateway: str
    authorize_gateway: str
    link_pages: list[str] = strawberry.field(
        description="Pages of the mini-program that callers who are no administrators may link to."
    )
    verification_files: list[str] = strawberry.field(description="Names of the files served from the site's root.")
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, app: WechatAppSummary) -> Self:
        """The application as administrators see it."""
        return cls(
            app_id=app.app_id,
            kind=app.kind,
            name=app.name,
            gateway=app.gateway,
            authorize_gateway=app.authorize_gateway,
            link_pages=list(app.link_pages),
            verification_files=list(app.files),
            created_at=app.created_at,
            updated_at=app.updated_at,
            version=app.version,
        )


@strawberry.input(description="What is left out stays as it is.")
class SaveWechatAppInput:
    app_id: str
    kind: WechatAppKind
    name: str
    secret: str | None = strawberry.field(
        default=None,
        description=(
            "AppSecret; needed for a new application, and when its gateway changes. Send it as a variable: a document "
            "may be logged by a proxy."
        ),
    )
    gateway: str | None = strawberry.field(default=None, description="https://api.weixin.qq.com unless given")
    authorize_gateway: str | None = strawberry.field(
        default=None, description="https://open.weixin.qq.com unless given"
    )
    link_pages: list[str] | None = None

    def read(self) -> SaveWechatApp:
        """The same for the domain."""
        return SaveWechatApp(
            app_id=self.app_id,
            kind=self.kind,
            name=self.name,
            secret=self.secret,
            gateway=self.gateway,
            authorize_gateway=self.authorize_gateway,
            link_pages=self.link_pages,
        )


@strawberry.input
class CreateWechatLinkInput:
    app_id: str
    kind: WechatLinkKind
    path: str = strawberry.field(default="", description="A page without a query; empty for the front page.")
    query: str = strawberry.field(default="", description="At most 1024 characters, percent-encoded.")
    expires_in_seconds: int | None = strawberry.field(
        default=None, description="120 to 2592000, for callers who are no administrators to 86400; 3600 unless given."
    )

    def read(self) -> CreateWechatLink:
        """The same for the domain."""
        seconds = self.expires_in_seconds
        return CreateWechatLink(
            app_id=self.app_id,
            kind=self.kind,
            path=self.path,
            query=self.query,
            expires_in=None if seconds is None else timedelta(seconds=max(1, min(seconds, _LONGEST_S))),
        )


@strawberry.type(description="An address that opens the mini-program from outside WeChat.")
class WechatLink:
    url: str
    expires_at: datetime


@strawberry.type
class WechatQuery:
    @strawberry.field(description="All WeChat applications. For administrators.")
    async def wechat_apps(self, info: ApiInfo) -> list[WechatApp]:
        rows = await info.context.runtime.wechat.apps.list(info.context.administrator())
        return [WechatApp.of(row) for row in rows]


@strawberry.type
class WechatMutation:
    @strawberry.mutation(
        description=(
            "mini-program wx.login code, or official-account OAuth code, against an openid and a token for this API. "
            "Needs no token; one that came along keeps its sub, roles and end, and only learns the openid. The same "
            "code from the same caller within a minute gives the same answer."
        )
    )
    async def wechat_login(self, info: ApiInfo, code: str, app_id: str) -> Login:
        context = info.context
        caller = None if context.principal is None else context.caller()
        login = await context.runtime.wechat.logins.log_in(caller, app_id=app_id, code=code, address=context.address)
        return Login(token=login.token, openid=login.openid, expires_at=login.expires_at)

    @strawberry.mutation(
        description=(
            "A link that opens a page of a mini-program from any browser or text message. Administrators may link to "
            "every page, other callers to the application's linkPages, 20 times an hour."
        )
    )
    async def create_wechat_link(self, info: ApiInfo, input: CreateWechatLinkInput) -> WechatLink:  # noqa: A002 — public
        context = info.context
        link = await context.runtime.wechat.links.create(context.caller(), input.read())
        return WechatLink(url=link.url, expires_at=link.expires_at)

    @strawberry.mutation(description="Adds a mini-program or official account, or changes one. For administrators.")
    async def save_wechat_app(self, info: ApiInfo, input: SaveWechatAppInput) -> WechatApp:  # noqa: A002 — public
        context = info.context
        app = await context.runtime.wechat.apps.save(
            context.administrator(),
            input.read(),
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return WechatApp.of(app)

    @strawberry.mutation(
        description=(
            "Serves a file such as MP_verify_….txt from the site's root, which proves the domain to WeChat; null takes "
            "it away. For administrators."
        )
    )
    async def set_wechat_verification_file(
        self, info: ApiInfo, app_id: str, name: str, content: str | None
    ) -> WechatApp:
        context, caller = info.context, info.context.administrator()
        apps = context.runtime.wechat.apps
        await apps.set_file(
            caller,
            app_id=app_id,
            name=name,
            content=content,
            correlation_id=context.correlation_id,
            address=context.address,
        )
        return next(WechatApp.of(row) for row in await apps.list(caller) if row.app_id == app_id)

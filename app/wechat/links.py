"""Links that wake a mini-program from outside WeChat: an ordinary phone browser, a text message, a QR code.

WeChat counts them against the application, 500,000 a day, and each opens the merchant's own brand with whatever query
it carries. So administrators may link to any page; any other caller only to the pages an administrator named for that,
for a day at the most, and twenty times an hour. The page itself must check, with the API, whose order its query names.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from app.auth import Principal
from app.clock import Clock
from app.config import Secret
from app.db import Database
from app.errors import Forbidden, InvalidInput, WechatRateLimited
from app.providers.wechat.open_platform import TOKEN_REFUSED, OpenPlatform, OpenPlatformRefused, OpenPlatformSilent
from app.wechat.apps import PAGE, PAGE_LIMIT, OpenedApp, WechatAppKind, WechatApps
from app.wechat.refusals import explain, unavailable
from app.wechat.tokens import AccessTokens

_QUERY: Final = re.compile(r"[A-Za-z0-9!#$&'()*+,/:;=?@._~%-]{0,1024}", re.ASCII)
# WeChat takes a minute at least; what it counts from is its own clock.
_SHORTEST: Final = timedelta(minutes=2)
_LONGEST: Final = timedelta(days=30)
_LONGEST_OF_CALLERS: Final = timedelta(days=1)
_USUAL: Final = timedelta(hours=1)
_PER_HOUR: Final = 20
_HOUR: Final = timedelta(hours=1)
_FORGOTTEN_AT_ONCE: Final = 100


class WechatLinkKind(StrEnum):
    """The two forms WeChat gives."""

    URL_SCHEME = "URL_SCHEME"
    URL_LINK = "URL_LINK"


@dataclass(frozen=True, slots=True)
class CreateWechatLink:
    """What to link to. `path` is empty for the mini-program's front page."""

    app_id: str
    kind: WechatLinkKind
    path: str = ""
    query: str = ""
    expires_in: timedelta | None = None


@dataclass(frozen=True, slots=True)
class WechatLink:
    """An address for a phone's browser, and until when it works."""

    url: str
    expires_at: datetime


class WechatLinks:
    """Makes links."""

    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        apps: WechatApps,
        platform: OpenPlatform,
        tokens: AccessTokens,
    ) -> None:
        self._db = database
        self._clock = clock
        self._apps = apps
        self._platform = platform
        self._tokens = tokens

    async def create(self, caller: Principal, wanted: CreateWechatLink) -> WechatLink:
        """A new link; each call makes one more. Raises InvalidInput, Forbidden, Wechat… errors, ProviderUnavailable."""
        life = _checked(caller, wanted)
        opened = await self._apps.open(wanted.app_id)
        if opened.kind is not WechatAppKind.MINI_PROGRAM:
            raise InvalidInput(f"appId: {wanted.app_id} is no mini-program", field="appId")
        if not caller.is_admin:
            await self._count(caller, wanted, opened)
        expires_at = (self._clock.now() + life).replace(microsecond=0)
        token = await self._tokens.find(opened.app)
        try:
            try:
                url = await self._make(opened, wanted, token, expires_at)
            except OpenPlatformRefused as exc:
                if exc.errcode not in TOKEN_REFUSED:
                    raise
                token = await self._tokens.find(opened.app, refused=token)
                url = await self._make(opened, wanted, token, expires_at)
        except OpenPlatformRefused as exc:
            raise explain(exc, wanted.app_id) from exc
        except OpenPlatformSilent as exc:
            raise unavailable(exc, wanted.app_id) from exc
        return WechatLink(url, expires_at)

    async def _make(self, opened: OpenedApp, wanted: CreateWechatLink, token: Secret, expires_at: datetime) -> str:
        scheme = wanted.kind is WechatLinkKind.URL_SCHEME
        make = self._platform.create_scheme if scheme else self._platform.create_url_link
        return await make(opened.app, token, path=wanted.path, query=wanted.query, expires_at=expires_at)

    async def _count(self, caller: Principal, wanted: CreateWechatLink, opened: OpenedApp) -> None:
        if wanted.path.removeprefix("/") not in opened.link_pages:
            raise Forbidden(
                "path: only an administrator may link to this page; others to the application's linkPages",
                field="path",
                message_zh="没有权限生成到该页面的链接",
            )
        now = self._clock.now()
        if await self._db.change("wechat_app.count_link", caller.sub, now, now - _HOUR, _PER_HOUR) is None:
            raise WechatRateLimited(f"{_PER_HOUR} links an hour are enough for one caller: use those you have")
        await self._db.change_all("wechat_app.forget_links", now - _HOUR, _FORGOTTEN_AT_ONCE)


def _checked(caller: Principal, wanted: CreateWechatLink) -> timedelta:
    """How long the link works. Raises InvalidInput."""
    if wanted.path and (len(wanted.path) > PAGE_LIMIT or not PAGE.fullmatch(wanted.path)):
        raise InvalidInput(
            "path: a page as app.json names it, such as pages/order/order; what follows a ? goes into query",
            field="path",
        )
    if not _QUERY.fullmatch(wanted.query):
        raise InvalidInput(
            "query: at most 1024 letters, digits and !#$&'()*+,/:;=?@-._~%; anything else percent-encoded",
            field="query",
        )
    life, longest = wanted.expires_in or _USUAL, _LONGEST if caller.is_admin else _LONGEST_OF_CALLERS
    if not _SHORTEST <= life <= longest:
        raise InvalidInput(
            f"expiresInSeconds: {int(_SHORTEST.total_seconds())} to {int(longest.total_seconds())}",
            field="expiresInSeconds",
        )
    return life

"""A WeChat login ends with a token of ours that names the openid.

Without a token the caller becomes the openid, with the role "user". A caller who came with a token stays who it was,
with its roles and its end: a shop with accounts of its own only learns the openid, and nobody stays in longer.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import structlog

from app.auth import Principal, WechatIdentity, can_issue_tokens, issue_token
from app.clock import Clock
from app.config import Config
from app.errors import WechatAppMisconfigured
from app.providers.wechat.open_platform import (
    OpenApp,
    OpenPlatform,
    OpenPlatformRefused,
    OpenPlatformSilent,
    PageLogin,
)
from app.wechat.apps import OpenedApp, WechatAppKind, WechatApps
from app.wechat.codes import Codes, WechatUser
from app.wechat.refusals import SNAPSHOT_USER

_ROLE: Final = "user"

_log = structlog.stdlib.get_logger("shouyin.wechat")


@dataclass(frozen=True, slots=True)
class Login:
    """A token for this API, and who it speaks for."""

    token: str = field(repr=False)
    openid: str = field(repr=False)
    expires_at: datetime
    nickname: str | None = field(default=None, repr=False)


class WechatLogins:
    """Logins with codes of mini-programs and official accounts."""

    def __init__(self, *, config: Config, clock: Clock, apps: WechatApps, platform: OpenPlatform, codes: Codes) -> None:
        self._config = config
        self._clock = clock
        self._apps = apps
        self._platform = platform
        self._codes = codes

    async def log_in(self, caller: Principal | None, *, app_id: str, code: str, address: str | None) -> Login:
        """A code of `wx.login` or of an official account's OAuth, against a token.

        Costs one request to WeChat at most. Raises InvalidInput for an unknown application, Wechat… errors,
        ProviderUnavailable."""
        self.check_tokens()
        opened = await self._apps.open(app_id)
        asker = _asker(caller, address)
        user = await self._codes.exchange(app_id, code, lambda: self._user(opened, code), asker=asker)
        return self._issue(caller, app_id, user)

    async def finish_oauth(self, opened: OpenedApp, *, code: str, state: str, with_nickname: bool) -> Login:
        """The same for a code that came back to the OAuth route; `state` was compared with the browser's cookie."""
        self.check_tokens()
        app_id = opened.app.app_id
        user = await self._codes.exchange(
            app_id,
            code,
            lambda: self._page_user(opened.app, code, with_nickname=with_nickname),
            asker=f"state:{state}",
            state=state,
        )
        return self._issue(None, app_id, user)

    def check_tokens(self) -> None:
        """Raises WechatAppMisconfigured where we cannot sign tokens; asked before a code is spent."""
        if not can_issue_tokens(self._config):
            raise WechatAppMisconfigured(
                "WeChat logins need tokens of our own: set JWT_SECRET, and add HS256 to JWT_ALGORITHMS",
                message_zh="微信登录未启用：请管理员设置 JWT_SECRET，并在 JWT_ALGORITHMS 中加入 HS256",
            )

    async def _user(self, opened: OpenedApp, code: str) -> WechatUser:
        if opened.kind is WechatAppKind.MINI_PROGRAM:
            return WechatUser(await self._platform.exchange_mini_program_code(opened.app, code))
        return await self._page_user(opened.app, code, with_nickname=False)

    async def _page_user(self, app: OpenApp, code: str, *, with_nickname: bool) -> WechatUser:
        login = await self._platform.exchange_page_code(app, code)
        if login.is_snapshot:
            raise OpenPlatformRefused(SNAPSHOT_USER, "is_snapshotuser")
        return WechatUser(login.openid, await self._nickname(app, login) if with_nickname else None)

    async def _nickname(self, app: OpenApp, login: PageLogin) -> str | None:
        """None where WeChat gives no answer: the code is spent by now, and the openid is what counts."""
        try:
            return await self._platform.read_nickname(app, login)
        except OpenPlatformSilent as exc:
            _log.warning("wechat_silent", app_id=app.app_id, detail=str(exc), sent=exc.sent)
            return None

    def _issue(self, caller: Principal | None, app_id: str, user: WechatUser) -> Login:
        now = self._clock.machine_now()
        if caller is None:
            # An administrator's role is given by people, whatever it is called.
            sub, roles = user.openid, [role for role in (_ROLE,) if role != self._config.admin_role]
            ends = now + self._config.wechat_login
        else:
            sub, roles = caller.sub, sorted(caller.roles)
            ends = caller.expires_at or now + self._config.wechat_login
        ends = ends.replace(microsecond=0)
        identity = WechatIdentity(app_id, user.openid)
        token = issue_token(self._config, sub, roles, ttl=ends - now, clock=self._clock, wechat=identity)
        return Login(token, user.openid, ends, user.nickname)


def _asker(caller: Principal | None, address: str | None) -> str:
    """Who may hear the answer to a code again; whoever cannot be told from others may not."""
    if caller is not None:
        return f"sub:{caller.sub}"
    return f"address:{address}" if address else secrets.token_hex(16)

"""WeChat's open platform in the sandbox: login, app tokens, links; payments share only openids.

    open_platform_api.py      the calls of a merchant's server
    open_platform_pages.py    what a person sees
    open_platform_control.py  /_control/wechat: codes as `wx.login` would give them
    open_platform_apps.py     the apps and their secrets
    open_platform_users.py    the sandbox's users and their openids
    open_platform_codes.py    login codes and web authorisations
    open_platform_tokens.py   access tokens of apps
    open_platform_links.py    URL schemes and URL links
    open_platform_json.py     JSON that comes from outside
    open_platform_errors.py   errcode and errmsg

Source of every rule: developers.weixin.qq.com as read in 2026.
"""

from starlette.routing import Route

from app.sandbox.wechat.open_platform_api import OpenPlatformApi
from app.sandbox.wechat.open_platform_apps import PROVIDER, Apps, load_app
from app.sandbox.wechat.open_platform_codes import Codes
from app.sandbox.wechat.open_platform_control import OpenPlatformControl
from app.sandbox.wechat.open_platform_links import Links
from app.sandbox.wechat.open_platform_pages import OpenPlatformPages
from app.sandbox.wechat.open_platform_tokens import AppTokens
from app.sandbox.wechat.open_platform_users import Openids
from app.sandbox.world import Ground, Part


class OpenPlatform:
    """Its apps are the account records of provider WECHAT_APP."""

    def __init__(self, ground: Ground) -> None:
        apps = Apps([load_app(record) for record in ground.records if record["provider"] == PROVIDER])
        codes, tokens, links = Codes(ground.clock), AppTokens(ground.clock), Links(ground.clock)
        self._openids = Openids(apps.ids())
        self._forget = (self._openids.reset, codes.reset, tokens.reset, links.reset)
        self._routes = [
            *OpenPlatformApi(ground, apps=apps, codes=codes, tokens=tokens, links=links).routes(),
            *OpenPlatformPages(ground, apps=apps, codes=codes, links=links).routes(),
            *OpenPlatformControl(apps=apps, codes=codes, links=links, openids=self._openids).routes(),
        ]

    def routes(self) -> list[Route]:
        return self._routes

    def openid_belongs(self, openid: str, app_id: str) -> bool:
        """Whether a payer of this openid may pay an order of `app_id`; see Openids.belongs."""
        return self._openids.belongs(openid, app_id)

    def reset(self) -> None:
        for forget in self._forget:
            forget()


def open_platform_part(ground: Ground) -> Part:
    platform = OpenPlatform(ground)
    return Part(routes=[*platform.routes()], resets=[platform.reset])

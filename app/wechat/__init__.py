"""What this deployment does with WeChat beside payments: applications, logins, links."""

from dataclasses import dataclass

import httpx

from app.clock import Clock
from app.config import Config
from app.db import Database
from app.providers.gateways import GatewayRule
from app.providers.wechat.open_platform import OpenPlatform
from app.vault import Vault
from app.wechat.apps import WechatApps
from app.wechat.codes import Codes
from app.wechat.links import WechatLinks
from app.wechat.login import WechatLogins
from app.wechat.oauth import WechatOAuth
from app.wechat.tokens import AccessTokens


@dataclass(frozen=True, slots=True)
class Wechat:
    """The parts of one process."""

    apps: WechatApps
    logins: WechatLogins
    oauth: WechatOAuth
    links: WechatLinks


def build_wechat(config: Config, clock: Clock, database: Database, http: httpx.AsyncClient) -> Wechat:
    """Hands the parts to each other; opens nothing."""
    timeout_s = config.provider_timeout_s
    vault = Vault(config.master_keys)
    platform = OpenPlatform(http, timeout_s)
    apps = WechatApps(database, vault, clock, GatewayRule(config.sandbox_url))
    codes = Codes(database, clock, wait_s=2 * timeout_s + 1)
    logins = WechatLogins(config=config, clock=clock, apps=apps, platform=platform, codes=codes)
    tokens = AccessTokens(database, vault, clock, platform, timeout_s=timeout_s)
    return Wechat(
        apps=apps,
        logins=logins,
        oauth=WechatOAuth(config=config, clock=clock, apps=apps, logins=logins),
        links=WechatLinks(database=database, clock=clock, apps=apps, platform=platform, tokens=tokens),
    )

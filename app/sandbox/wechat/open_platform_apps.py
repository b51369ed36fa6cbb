"""The apps of the open platform, and the first three questions every call of theirs is asked.

An app is not a merchant account: it logs people in and makes links, and only its app id shows up in payments.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest

from app.sandbox.wechat.open_platform_errors import OpenPlatformRefusal

PROVIDER = "WECHAT_APP"

# Fixed, so that they can be recognised; the merchant accounts are bound to them.
MINI_PROGRAM_APP_ID = "wx5a0db00000000001"
OFFICIAL_ACCOUNT_APP_ID = "wx5a0db00000000002"


class AppKind(StrEnum):
    MINI_PROGRAM = "mini_program"
    OFFICIAL_ACCOUNT = "official_account"


@dataclass(frozen=True, slots=True)
class App:
    kind: AppKind
    app_id: str
    secret: str


def _record(kind: AppKind, app_id: str) -> dict[str, str]:
    return {"provider": PROVIDER, "mode": kind.value, "app_id": app_id, "secret": secrets.token_hex(16)}


MAKERS: Mapping[str, Callable[[], dict[str, str]]] = {
    AppKind.MINI_PROGRAM.value: lambda: _record(AppKind.MINI_PROGRAM, MINI_PROGRAM_APP_ID),
    AppKind.OFFICIAL_ACCOUNT.value: lambda: _record(AppKind.OFFICIAL_ACCOUNT, OFFICIAL_ACCOUNT_APP_ID),
}


def published(record: Mapping[str, str], public_url: str) -> dict[str, str]:
    """Keys: `provider mode gateway authorize_gateway app_id secret`; both gateways are the sandbox's base URL."""
    return {**record, "gateway": public_url, "authorize_gateway": public_url}


def load_app(record: Mapping[str, str]) -> App:
    """An app from its record of the accounts file. Raises KeyError or ValueError when that is damaged."""
    return App(AppKind(record["mode"]), record["app_id"], record["secret"])


class Apps:
    def __init__(self, apps: Iterable[App]) -> None:
        self._apps = {app.app_id: app for app in apps}

    def ids(self) -> list[str]:
        return list(self._apps)

    def find(self, app_id: str, kind: AppKind | None = None) -> App | None:
        """The app, which must be of that kind where one is named."""
        app = self._apps.get(app_id)
        return app if app is not None and kind in (None, app.kind) else None

    def authenticate(
        self, parameters: Mapping[str, str], kind: AppKind | None, *, wrong_secret: int, needs_code: str = ""
    ) -> App:
        """The app that `appid` and `secret` of a call name; missing texts are complained about in WeChat's order.

        `needs_code` is the parameter of the login code, whose absence counts before a wrong appid. The number of a
        wrong secret differs between the calls.
        """
        for name, errcode in (("appid", 41002), ("secret", 41004), (needs_code, 41008)):
            if name and not parameters.get(name):
                raise OpenPlatformRefusal(errcode)
        app = self.find(parameters["appid"], kind)
        if app is None:
            raise OpenPlatformRefusal(40013)
        if not compare_digest(app.secret.encode(), parameters["secret"].encode()):
            raise OpenPlatformRefusal(wrong_secret, "invalid appsecret")
        return app

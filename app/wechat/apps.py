"""WeChat applications: what an administrator types, and what a login, a link or WeChat's domain check needs of it.

The secret is sealed like a merchant account's credentials and never comes out. It goes to the gateway it was given with
and to no other: who names another gateway gives the secret again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from app.auth import Principal
from app.clock import Clock
from app.config import Secret
from app.db import Database, Row
from app.errors import Forbidden, InvalidInput
from app.providers.contract import AccountInvalid
from app.providers.gateways import GatewayRule
from app.providers.wechat.open_platform import AUTHORIZE_GATEWAY, GATEWAY, OpenApp
from app.vault import Vault, split_key_id

APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{6,64}", re.ASCII)
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,80}\.txt", re.ASCII)
# A page of a mini-program as app.json names it; WeChat takes it with or without the first slash, never with a query.
PAGE: Final = re.compile(r"/?[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*(?:\.html)?", re.ASCII)
PAGE_LIMIT: Final = 512

_SECRET: Final = re.compile(r"[!-~]{8,128}", re.ASCII)
_CONTENT: Final = re.compile(r"[ -~]{1,1024}(?:\r?\n)?", re.ASCII)
_CONTENT_LIMIT: Final = 1024
_LINK_PAGES: Final = 50


class WechatAppKind(StrEnum):
    """What kind of application an id belongs to; it never changes."""

    MINI_PROGRAM = "mini_program"
    OFFICIAL_ACCOUNT = "official_account"


@dataclass(frozen=True, slots=True)
class WechatAppSummary:
    """An application as an operator may see it. Holds no secret."""

    app_id: str
    kind: WechatAppKind
    name: str
    gateway: str
    authorize_gateway: str
    link_pages: Sequence[str]
    files: Sequence[str]
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class SaveWechatApp:
    """What to save. For an application that is there, None keeps what it has."""

    app_id: str
    kind: WechatAppKind
    name: str
    secret: str | None = None
    gateway: str | None = None
    authorize_gateway: str | None = None
    link_pages: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class OpenedApp:
    """An application ready for use."""

    kind: WechatAppKind
    app: OpenApp
    link_pages: frozenset[str]


class WechatApps:
    """All WeChat applications of this deployment. One a process; nothing is kept in memory."""

    def __init__(self, database: Database, vault: Vault, clock: Clock, rule: GatewayRule) -> None:
        self._db = database
        self._vault = vault
        self._clock = clock
        self._rule = rule

    async def open(self, app_id: str) -> OpenedApp:
        """The application with its secret. Raises InvalidInput naming appId, VaultError."""
        row = await self._db.one("wechat_app.find", app_id) if APP_ID.fullmatch(app_id) else None
        if row is None:
            shown = app_id[:64] if app_id.isprintable() else "…"
            raise InvalidInput(f"appId: {shown!r} is no WeChat application of this deployment", field="appId")
        secret = Secret(self._vault.open(row["sealed"], row=_row_name(app_id))["secret"])
        settings = row["settings"]
        app = OpenApp(app_id, secret, settings["gateway"], settings["authorize_gateway"])
        return OpenedApp(WechatAppKind(row["kind"]), app, frozenset(row["link_pages"]))

    async def list(self, caller: Principal) -> list[WechatAppSummary]:
        """All applications, without secrets. Raises Forbidden."""
        _require_admin(caller)
        files: dict[str, list[str]] = {}
        for row in await self._db.all("wechat_app.files"):
            files.setdefault(row["app_id"], []).append(row["name"])
        return [_summary(row, files.get(row["app_id"], ())) for row in await self._db.all("wechat_app.list")]

    async def save(
        self,
        caller: Principal,
        wanted: SaveWechatApp,
        *,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> WechatAppSummary:
        """Adds an application, or changes one. Raises Forbidden, InvalidInput."""
        _require_admin(caller)
        _check_words(wanted)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            await tx.one("wechat_app.lock", wanted.app_id)
            known = await tx.one("wechat_app.find", wanted.app_id)
            settings = self._settings(wanted, known["settings"] if known else {})
            if known and known["kind"] != wanted.kind:
                raise InvalidInput(f"kind: {wanted.app_id} is known as {known['kind']}", field="kind")
            if wanted.secret is not None:
                sealed = self._vault.seal({"secret": wanted.secret}, row=_row_name(wanted.app_id))
            elif known is None or known["settings"] != settings:
                raise InvalidInput(
                    "secret: needed for a new application, and when its gateway changes",
                    field="secret",
                    message_zh="请填写 AppSecret",
                )
            else:
                sealed = known["sealed"]
            pages = wanted.link_pages if wanted.link_pages is not None else (known["link_pages"] if known else [])
            pages = sorted({page.removeprefix("/") for page in pages})
            row = await tx.one(
                "wechat_app.save", wanted.app_id, wanted.kind, wanted.name.strip(), settings, pages, sealed, now
            )
            if row is None:  # two at once added it as different kinds
                raise InvalidInput(f"kind: {wanted.app_id} is known as another kind", field="kind")
            subject, details = _row_name(wanted.app_id), {"kind": wanted.kind, "new_secret": wanted.secret is not None}
            await tx.one("audit.append", now, caller.sub, "wechat_app.save", subject, details, address, correlation_id)
            files = [each["name"] for each in await tx.all("wechat_app.files") if each["app_id"] == wanted.app_id]
        return _summary(row, files)

    async def set_file(
        self,
        caller: Principal,
        *,
        app_id: str,
        name: str,
        content: str | None,
        correlation_id: str | None = None,
        address: str | None = None,
    ) -> None:
        """Serves `content` as /`name` from the site's root, or no longer where it is None. Raises Forbidden,
        InvalidInput."""
        _require_admin(caller)
        if not FILE_NAME.fullmatch(name):
            raise InvalidInput("name: letters, digits, - and _, then .txt, such as MP_verify_abc123.txt", field="name")
        if content is not None and (len(content) > _CONTENT_LIMIT or not _CONTENT.fullmatch(content)):
            raise InvalidInput(
                f"content: one line of 1 to {_CONTENT_LIMIT} printable ASCII characters, as WeChat gave it",
                field="content",
            )
        await self.open(app_id)
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if content is None:
                await tx.one("wechat_app.remove_file", name, app_id)
            elif await tx.one("wechat_app.save_file", name, app_id, content, now) is None:
                raise InvalidInput(f"name: {name} belongs to another application", field="name")
            details = {"name": name, "removed": content is None}
            await tx.one(
                "audit.append", now, caller.sub, "wechat_app.file", _row_name(app_id), details, address, correlation_id
            )

    async def find_file(self, name: str) -> str | None:
        """The content of a verification file, None where nobody set one of that name."""
        row = await self._db.one("wechat_app.file", name) if FILE_NAME.fullmatch(name) else None
        return None if row is None else row["content"]

    async def reseal(self, caller: Principal) -> tuple[int, int]:
        """Seals every secret with the first master key; returns (re-sealed, already so). All or nothing.

        Raises Forbidden, VaultError."""
        _require_admin(caller)
        now, changed = self._clock.now(), 0
        async with self._db.transaction() as tx:
            rows = await tx.all("wechat_app.sealed_for_update")
            for row in rows:
                if split_key_id(row["sealed"])[0] == self._vault.sealing_key_id:
                    continue
                name = _row_name(row["app_id"])
                sealed = self._vault.seal(self._vault.open(row["sealed"], row=name), row=name)
                await tx.one("wechat_app.reseal", row["app_id"], sealed, now)
                changed += 1
            key = {"key": self._vault.sealing_key_id, "changed": changed}
            await tx.one("audit.append", now, caller.sub, "wechat_app.reseal", "wechat_app", key, None, None)
        return changed, len(rows) - changed

    def _settings(self, wanted: SaveWechatApp, known: Mapping[str, str]) -> dict[str, str]:
        given = {"gateway": wanted.gateway, "authorize_gateway": wanted.authorize_gateway}
        usual = {"gateway": GATEWAY, "authorize_gateway": AUTHORIZE_GATEWAY} | dict(known)
        settings = {name: usual[name] if text is None else text.rstrip("/") for name, text in given.items()}
        for name, field in (("gateway", "gateway"), ("authorize_gateway", "authorizeGateway")):
            try:
                self._rule.checked(settings[name], example=GATEWAY, field=field)
            except AccountInvalid as exc:
                raise InvalidInput(str(exc), field=field) from exc
        return settings


def _check_words(wanted: SaveWechatApp) -> None:
    """Raises InvalidInput; its message never repeats the secret."""
    if not APP_ID.fullmatch(wanted.app_id):
        raise InvalidInput("appId: the application's id, such as wx0123456789abcdef", field="appId")
    if not 1 <= len(wanted.name.strip()) <= 100 or not wanted.name.isprintable():
        raise InvalidInput("name: give the application a name of 1 to 100 characters", field="name")
    if wanted.secret is not None and not _SECRET.fullmatch(wanted.secret):
        raise InvalidInput("secret: the AppSecret, without blanks around it", field="secret")
    pages = wanted.link_pages or ()
    if len(pages) > _LINK_PAGES or not all(len(page) <= PAGE_LIMIT and PAGE.fullmatch(page) for page in pages):
        raise InvalidInput(
            f"linkPages: at most {_LINK_PAGES} pages as app.json names them, such as pages/order/order",
            field="linkPages",
        )


def _summary(row: Row, files: Sequence[str]) -> WechatAppSummary:
    named = {name: row[name] for name in ("app_id", "name", "link_pages", "created_at", "updated_at", "version")}
    return WechatAppSummary(kind=WechatAppKind(row["kind"]), files=tuple(files), **row["settings"], **named)


def _row_name(app_id: str) -> str:
    return f"wechat_app:{app_id}"


def _require_admin(caller: Principal) -> None:
    if not caller.is_admin:
        raise Forbidden("WeChat applications are managed by administrators: use a token with the admin role")

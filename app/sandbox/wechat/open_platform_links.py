"""URL schemes and URL links: ways from a phone's browser into a page of a mini-program.

Source: developers.weixin.qq.com, generateScheme and generateUrlLink, read 2026-09. Left out are NFC links and the
cloud_base relay page. `env_version` of a scheme stands inside `jump_wxa`; outside it is a format error, as at WeChat.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.sandbox.clock import SandboxClock
from app.sandbox.wechat.open_platform_errors import OpenPlatformRefusal

MIN_LIFE, MAX_LIFE = timedelta(minutes=1), timedelta(days=30)
MAX_QUERY_CHARS = 1024
AT_TIME, AFTER_DAYS = 0, 1
SCHEME_START = "weixin://dl/business/?t="

_PATH = re.compile(r"/?[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*(?:\.html)?")
_QUERY = re.compile(r"[A-Za-z0-9!#$&'()*+,/:;=?@._~%-]*")
_TARGET_FIELDS = {"path": str, "query": str, "env_version": str}
_EXPIRY_FIELDS = {"is_expire": bool, "expire_type": int, "expire_time": int, "expire_interval": int}


@dataclass(frozen=True, slots=True)
class Link:
    """`ticket` is its unguessable part."""

    ticket: str
    app_id: str
    path: str
    query: str
    env_version: str
    expires_at: datetime
    is_scheme: bool

    @property
    def openlink(self) -> str:
        return f"{SCHEME_START}{self.ticket}"


class Links:
    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._links: dict[str, Link] = {}

    def make_scheme(self, app_id: str, wanted: Mapping[str, Any]) -> Link:
        """From the body of generatescheme. Raises OpenPlatformRefusal."""
        _check_types(wanted, {"jump_wxa": dict, **_EXPIRY_FIELDS})
        target = wanted.get("jump_wxa", {})
        _check_types(target, _TARGET_FIELDS)
        return self._make(app_id, target, wanted, is_scheme=True)

    def make_url_link(self, app_id: str, wanted: Mapping[str, Any]) -> Link:
        """From the body of generate_urllink. Raises OpenPlatformRefusal."""
        _check_types(wanted, {**_TARGET_FIELDS, **_EXPIRY_FIELDS})
        return self._make(app_id, wanted, wanted, is_scheme=False)

    def find(self, ticket: str) -> Link | None:
        return self._links.get(ticket)

    def listed(self) -> list[Link]:
        return list(self._links.values())

    def reset(self) -> None:
        self._links.clear()

    def _make(self, app_id: str, target: Mapping[str, Any], expiry: Mapping[str, Any], *, is_scheme: bool) -> Link:
        path, query = target.get("path", ""), target.get("query", "")
        env_version = target.get("env_version", "release")
        if path and not _PATH.fullmatch(path):
            raise OpenPlatformRefusal(40165)
        if len(query) > MAX_QUERY_CHARS or not _QUERY.fullmatch(query):
            raise OpenPlatformRefusal(40212)
        if env_version not in ("release", "trial", "develop"):
            raise OpenPlatformRefusal(85402)
        expires_at = _expiry(expiry, self._clock.now())
        link = Link(secrets.token_urlsafe(9), app_id, path, query, env_version, expires_at, is_scheme)
        self._links[link.ticket] = link
        return link


def _check_types(fields: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Only documented fields, each of its type; a flag is no number. WeChat answers anything else with 47001."""
    for name, value in fields.items():
        if name not in known or type(value) is not known[name]:
            raise OpenPlatformRefusal(47001)


def _expiry(fields: Mapping[str, Any], now: datetime) -> datetime:
    """Thirty days when nothing is said; `is_expire` is accepted and means nothing any more."""
    expire_type = fields.get("expire_type", AT_TIME)
    if expire_type not in (AT_TIME, AFTER_DAYS):
        raise OpenPlatformRefusal(40097)
    if not fields.keys() & {"expire_type", "expire_time", "expire_interval"}:
        return now + MAX_LIFE
    read: Callable[[Mapping[str, Any], datetime], datetime | None] = _at_time if expire_type == AT_TIME else _after_days
    expires_at = read(fields, now)
    if expires_at is None or not MIN_LIFE < expires_at - now <= MAX_LIFE:
        raise OpenPlatformRefusal(85401)
    return expires_at


def _at_time(fields: Mapping[str, Any], _now: datetime) -> datetime | None:
    try:
        return datetime.fromtimestamp(fields["expire_time"], UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def _after_days(fields: Mapping[str, Any], now: datetime) -> datetime | None:
    days = fields.get("expire_interval", 0)
    return now + timedelta(days=days) if 1 <= days <= MAX_LIFE.days else None

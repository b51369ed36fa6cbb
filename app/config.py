"""Settings, from the environment; a wrong or missing one stops the start with one line naming it.

Production needs DATABASE_URL, REDIS_URL, PUBLIC_URL, MASTER_KEYS and JWT_SECRET or JWT_JWKS_URL. Everything meant for a
laptop (sandbox hosts, GraphiQL, introspection, test clock) is off unless asked for.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app.money import parse_yuan

_T = TypeVar("_T")


class ConfigError(Exception):
    """A setting is missing or wrong. The message is one line: the variable, what is wrong, what to write."""


class Secret:
    """A text that does not show itself in logs, tracebacks or repr()."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself; for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)


@dataclass(frozen=True, slots=True)
class DeductionSettings:
    """How cycle payments are deducted.

    `deduct_at` is the time of day in Shanghai, `tries` how many days in a row a due date is tried, `failed_dates` how
    many due dates in a row may fail before the cycle is suspended, `notice_days` how long before a due date it is
    announced (0: never). Dates missed by more than `missed_days` are passed over; None charges them however late."""

    deduct_at: time
    tries: int
    failed_dates: int
    notice_days: int
    missed_days: int | None


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one deployment. Amounts are fen, durations timedelta or seconds as named."""

    database_url: str
    listen_database_url: str
    redis_url: str
    public_url: str
    host: str
    port: int
    sandbox_port: int
    home: Path
    # where turning payments off leaves its archive
    export_dir: Path
    # key id → 32 bytes; the first seals, all open
    master_keys: Mapping[str, bytes]
    jwt_secret: Secret | None
    jwt_jwks_url: str | None
    jwt_algorithms: tuple[str, ...]
    jwt_audience: str | None
    jwt_issuer: str | None
    jwt_roles_claim: str
    admin_role: str
    # how long a token of a WeChat login lasts
    wechat_login: timedelta
    flows: str | None
    minimum_amount_fen: int
    maximum_amount_fen: int
    default_expiry: timedelta
    deductions: DeductionSettings
    # development conveniences
    sandbox_url: str | None
    # whether administrators may move this deployment's clock, and the sandbox's with it
    test_clock: bool
    graphiql: bool
    introspection: bool
    demo: bool
    allowed_origins: tuple[str, ...]
    # proxies whose word on the caller's address is believed, as uvicorn reads them
    trusted_proxies: str
    # limits
    pool_size: int
    statement_cache: bool
    body_limit_bytes: int
    message_limit_bytes: int
    sockets_limit: int
    subscriptions_per_socket: int
    socket_lifetime: timedelta
    shutdown_grace_s: float
    flow_timeout_s: float
    flow_attempts: int
    provider_timeout_s: float
    retention: timedelta
    # where a worker answers Prometheus; 0 is nowhere
    worker_metrics_port: int
    log_json: bool
    log_level: str


def load_config(environ: Mapping[str, str] | None = None) -> Config:
    """Reads and checks all settings. Raises ConfigError."""
    env = _Environment(os.environ if environ is None else environ)
    database_url = env.url("DATABASE_URL", schemes=("postgresql", "postgres"))
    secret, jwks = _token_keys(env)
    return Config(
        database_url=database_url,
        listen_database_url=env.optional("LISTEN_DATABASE_URL") or database_url,
        redis_url=env.url("REDIS_URL", schemes=("redis", "rediss", "unix")),
        public_url=env.url("PUBLIC_URL", schemes=("http", "https")).rstrip("/"),
        host=env.text("HOST", "127.0.0.1"),
        port=env.whole("PORT", 8000, low=1, high=65535),
        sandbox_port=env.whole("SANDBOX_PORT", 8001, low=1, high=65535),
        home=_home(env),
        export_dir=Path(env.text("EXPORT_DIR", str(_home(env) / "exports"))).resolve(),
        master_keys=env.parsed("MASTER_KEYS", parse_master_keys),
        jwt_secret=Secret(secret) if secret else None,
        jwt_jwks_url=jwks,
        jwt_algorithms=tuple(env.text("JWT_ALGORITHMS", "RS256,ES256" if jwks else "HS256").split(",")),
        jwt_audience=env.optional("JWT_AUDIENCE"),
        jwt_issuer=env.optional("JWT_ISSUER"),
        jwt_roles_claim=env.text("JWT_ROLES_CLAIM", "roles"),
        admin_role=env.text("ADMIN_ROLE", "admin"),
        wechat_login=timedelta(seconds=env.whole("WECHAT_LOGIN_S", 86400, low=60, high=86400 * 30)),
        flows=env.optional("FLOWS"),
        minimum_amount_fen=env.parsed("MINIMUM_AMOUNT", parse_yuan, "0.02"),
        maximum_amount_fen=env.parsed("MAXIMUM_AMOUNT", parse_yuan, "100000000"),
        default_expiry=timedelta(seconds=env.whole("PAYMENT_EXPIRES_S", 7200, low=60, high=86400 * 15)),
        deductions=_deductions(env),
        sandbox_url=(env.optional("SANDBOX_URL") or "").rstrip("/") or None,
        test_clock=_test_clock(env),
        graphiql=env.flag("GRAPHIQL"),
        introspection=env.flag("INTROSPECTION"),
        demo=env.flag("DEMO"),
        trusted_proxies=env.text("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"),
        allowed_origins=tuple(origin for origin in env.text("ALLOWED_ORIGINS", "").split(",") if origin),
        **_limits(env),
        provider_timeout_s=env.whole("PROVIDER_TIMEOUT_S", 10, low=1, high=20),
        retention=timedelta(days=env.whole("RETENTION_DAYS", 400, low=30, high=36500)),
        worker_metrics_port=env.whole("WORKER_METRICS_PORT", 0, low=0, high=65535),
        log_json=env.choice("LOG_FORMAT", ("json", "text")) == "json",
        log_level=env.choice("LOG_LEVEL", ("info", "debug", "warning", "error")),
    )


def _limits(env: "_Environment") -> dict[str, Any]:
    """How much of everything one process takes on, by the names of Config."""
    return {
        "pool_size": env.whole("DATABASE_POOL", 10, low=1, high=1000),
        "statement_cache": env.flag("STATEMENT_CACHE", default=True),
        "body_limit_bytes": env.whole("BODY_LIMIT", 65536, low=1024, high=1 << 24),
        "message_limit_bytes": env.whole("MESSAGE_LIMIT", 65536, low=1024, high=1 << 24),
        "sockets_limit": env.whole("SOCKETS_LIMIT", 20000, low=1, high=1_000_000),
        "subscriptions_per_socket": env.whole("SUBSCRIPTIONS_PER_SOCKET", 20, low=1, high=10000),
        "socket_lifetime": timedelta(seconds=env.whole("SOCKET_LIFETIME_S", 3600, low=1, high=86400)),
        "shutdown_grace_s": env.whole("SHUTDOWN_GRACE_S", 8, low=0, high=600),
        "flow_timeout_s": env.whole("FLOW_TIMEOUT_S", 30, low=1, high=3600),
        "flow_attempts": env.whole("FLOW_ATTEMPTS", 10, low=1, high=100),
    }


def _deductions(env: "_Environment") -> DeductionSettings:
    return DeductionSettings(
        deduct_at=env.parsed("DEDUCT_AT", parse_time, "09:00"),
        tries=env.whole("DEDUCTION_TRIES", 3, low=1, high=9),
        failed_dates=env.whole("DEDUCTION_FAILED_DATES", 1, low=1, high=100),
        notice_days=env.whole("DEDUCTION_NOTICE_DAYS", 3, low=0, high=30),
        missed_days=env.parsed("DEDUCTION_MISSED_DAYS", parse_missed_days, "charge"),
    )


def _home(env: "_Environment") -> Path:
    return Path(env.text("SHOUYIN_HOME", ".local")).resolve()


def _token_keys(env: "_Environment") -> tuple[str | None, str | None]:
    """JWT_SECRET and JWT_JWKS_URL; one of them at least."""
    secret, jwks = env.optional("JWT_SECRET"), env.optional("JWT_JWKS_URL")
    if not secret and not jwks:
        raise ConfigError("JWT_SECRET: missing; set it (32 bytes or more), or JWT_JWKS_URL, to have tokens checked")
    if secret is not None and len(secret.encode()) < 32:
        raise ConfigError("JWT_SECRET: shorter than 32 bytes; generate one with: openssl rand -hex 32")
    return secret, jwks


def _test_clock(env: "_Environment") -> bool:
    """TEST_CLOCK; nothing but a sandbox takes part in a time that is not the world's."""
    wanted = env.flag("TEST_CLOCK")
    if wanted and env.optional("SANDBOX_URL") is None:
        raise ConfigError("TEST_CLOCK: needs SANDBOX_URL; only with the sandbox as its provider can a clock be moved")
    return wanted


def parse_master_keys(text: str) -> dict[str, bytes]:
    """ "id:base64,id:base64" → {id: 32 bytes}, order kept. Raises ValueError."""
    keys: dict[str, bytes] = {}
    for part in text.split(","):
        key_id, separator, encoded = part.strip().partition(":")
        if not separator or not key_id or len(key_id) > 32 or key_id in keys:
            raise ValueError('write id:key pairs with distinct ids, such as "k1:<32 bytes in base64>"')
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error as exc:
            raise ValueError(f"key {key_id} is not base64") from exc
        if len(key) != 32:
            raise ValueError(f"key {key_id} has {len(key)} bytes, not 32; generate one with: openssl rand -base64 32")
        keys[key_id] = key
    return keys


def parse_time(text: str) -> time:
    """ "09:00" → a time of day, Shanghai's. Raises ValueError."""
    if re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text, re.ASCII) is None:
        raise ValueError(f"{text!r} is not a time of the day; write hours and minutes, such as 09:00")
    found = time.fromisoformat(text)
    if found > time(22, 0):
        raise ValueError("22:00 is the latest: what runs into the next day is refused by the provider")
    return found


def parse_missed_days(text: str) -> int | None:
    """ "charge" → None, "7" → 7 days. Raises ValueError."""
    if text == "charge":
        return None
    if not (text.isascii() and text.isdigit() and 0 <= int(text) <= 3650):
        raise ValueError(f"{text!r} is neither a number of days nor the word charge")
    return int(text)


class _Environment:
    """Reads variables; every complaint names the variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def optional(self, name: str) -> str | None:
        return self._environ.get(name, "").strip() or None

    def text(self, name: str, default: str) -> str:
        return self.optional(name) or default

    def choice(self, name: str, words: tuple[str, ...]) -> str:
        """One of a few words; the first is the default."""
        value = self.text(name, words[0]).lower()
        if value not in words:
            raise ConfigError(f"{name}: {value!r} is not one of {', '.join(words)}")
        return value

    def required(self, name: str) -> str:
        value = self.optional(name)
        if value is None:
            raise ConfigError(f"{name}: missing; set it in the environment (see .env.example)")
        return value

    def url(self, name: str, *, schemes: tuple[str, ...]) -> str:
        value = self.required(name)
        if urlsplit(value).scheme not in schemes:
            raise ConfigError(f"{name}: must start with {' or '.join(scheme + '://' for scheme in schemes)}")
        return value

    def parsed(self, name: str, parse: Callable[[str], _T], default: str | None = None) -> _T:
        value = self.required(name) if default is None else self.text(name, default)
        try:
            return parse(value)
        except ValueError as exc:
            raise ConfigError(f"{name}: {exc}") from exc

    def whole(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.text(name, str(default))
        if not (value.isascii() and value.isdigit() and low <= int(value) <= high):
            raise ConfigError(f"{name}: {value!r} is not a whole number from {low} to {high}")
        return int(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        value = self.text(name, "1" if default else "0").lower()
        if value not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
            raise ConfigError(f"{name}: {value!r} is neither on nor off")
        return value in ("1", "true", "yes", "on")

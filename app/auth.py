"""Who is calling: tokens to principals.

A token is a JWT signed with the shared secret (HS…) or with a key of the JWKS address (RS…, ES…, PS…, EdDSA). The key
is chosen by the kind of algorithm, never by the token alone: a public key of the JWKS can not be used as an HMAC
secret, and "none" is refused when the program starts. `exp` and `sub` are required. A verified token is remembered
until it expires, so that a busy caller costs one verification. Tokens live by the machine's clock, whatever the
deployment's does (see app/clock.py): who issues them knows no other.
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import jwt
import orjson
import structlog
from jwt.types import Options

from app.clock import Clock
from app.config import Config, ConfigError
from app.errors import Unauthenticated

_SYMMETRIC: Final = frozenset({"HS256", "HS384", "HS512"})
_ASYMMETRIC: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)

# The kind of key ("kty") behind the first letters of an algorithm.
_KEY_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

_WECHAT_CLAIM: Final = "wechat"
# Application ids and openids: `openid` of the payment calls is at most 128 characters.
_WECHAT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)

# The clocks of two honest machines differ by seconds.
_LEEWAY: Final = timedelta(seconds=5)
_TOKEN_LIMIT: Final = 8192
_REMEMBERED_TOKENS: Final = 10_000

# Keys are fetched again after an hour, and for a key id never seen at most every 30 seconds: anybody can invent one.
_KEYS_MAX_AGE_S: Final = 3600.0
_KEYS_MIN_GAP_S: Final = 30.0
_KEYS_BYTES: Final = 262_144
_KEYS_COUNT: Final = 100

_log = structlog.stdlib.get_logger("shouyin.auth")


@dataclass(frozen=True, slots=True)
class WechatIdentity:
    """Who a caller is at WeChat: an openid belongs to one application."""

    app_id: str
    openid: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was checked. `sub` is compared with an order's owner column."""

    sub: str
    roles: frozenset[str] = field(default_factory=frozenset)
    is_admin: bool = False
    expires_at: datetime | None = None
    # from a token that `wechatLogin` or the OAuth route gave
    wechat: WechatIdentity | None = None


class Authenticator:
    """Checks tokens. One a process; `http` is closed by whoever made it.

    Raises ConfigError at construction when the algorithms cannot work with the keys configured."""

    def __init__(self, config: Config, clock: Clock, http: httpx.AsyncClient | None = None) -> None:
        self._config = config
        self._clock = clock
        self._algorithms = _checked_algorithms(config)
        self._secret = config.jwt_secret.reveal() if config.jwt_secret else None
        if config.jwt_jwks_url and http is None:
            raise ValueError("JWT_JWKS_URL is set, and no HTTP client was given to fetch the keys with")
        self._keys = _Keys(config.jwt_jwks_url, http) if config.jwt_jwks_url and http else None
        self._verified: OrderedDict[bytes, Principal] = OrderedDict()

    async def principal(self, token: str) -> Principal:
        """Who holds `token`, the text after "Bearer ". Raises Unauthenticated; its message says which check failed."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._verified.get(digest)
        if known is not None and not self.expired(known):
            self._verified.move_to_end(digest)
            return known
        self._verified.pop(digest, None)
        principal = _read_claims(await self._verify(token), self._config, self._clock.machine_now())
        self._verified[digest] = principal
        if len(self._verified) > _REMEMBERED_TOKENS:
            self._verified.popitem(last=False)
        return principal

    def expired(self, principal: Principal) -> bool:
        """Whether the principal's token is over; asked again for every event of a stream."""
        return principal.expires_at is not None and principal.expires_at + _LEEWAY <= self._clock.machine_now()

    async def _verify(self, token: str) -> dict[str, Any]:
        if len(token) > _TOKEN_LIMIT:
            raise _refused(f"it is longer than {_TOKEN_LIMIT} characters")
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in self._algorithms:
                raise _refused(f"its algorithm is not one of {', '.join(self._algorithms)}")
            key = await self._key(algorithm, header.get("kid"))
            # Instants are checked below against the machine's clock, which a test can move.
            checks: Options = {
                "require": ["exp", "sub"],
                "verify_aud": self._config.jwt_audience is not None,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
            }
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._config.jwt_audience,
                issuer=self._config.jwt_issuer,
                options=checks,
            )
        except jwt.PyJWTError as exc:
            raise _refused(str(exc).rstrip(".")) from exc
        except (ValueError, TypeError, RecursionError) as exc:
            # What PyJWT lets through of malformed tokens: bytes that are no text, numbers where texts belong.
            raise _refused("it is malformed") from exc

    async def _key(self, algorithm: str, key_id: object) -> Any:
        if algorithm in _SYMMETRIC:
            return self._secret
        if self._keys is None:  # refused at construction
            raise _refused("no keys are configured for its algorithm")
        return await self._keys.find(algorithm, key_id if isinstance(key_id, str) else None)


def can_issue_tokens(config: Config) -> bool:
    """Whether tokens are checked with a shared secret here, so that we may sign some ourselves."""
    return config.jwt_secret is not None and any(name in _SYMMETRIC for name in config.jwt_algorithms)


def issue_token(
    config: Config,
    sub: str,
    roles: Sequence[str] = (),
    *,
    ttl: timedelta,
    clock: Clock | None = None,
    wechat: WechatIdentity | None = None,
) -> str:
    """A token this deployment accepts; for development and for logins it performs itself.

    Raises ConfigError when tokens are not checked with a shared secret here."""
    usable = [name for name in config.jwt_algorithms if name in _SYMMETRIC]
    if config.jwt_secret is None or not usable:
        raise ConfigError("JWT_SECRET: needed to issue tokens, together with HS256 in JWT_ALGORITHMS")
    now = (clock or Clock()).machine_now()
    claims: dict[str, Any] = {"sub": sub, "iat": int(now.timestamp()), "exp": int((now + ttl).timestamp())}
    if config.jwt_audience:
        claims["aud"] = config.jwt_audience
    if config.jwt_issuer:
        claims["iss"] = config.jwt_issuer
    place = claims
    *outer, last = config.jwt_roles_claim.split(".")
    for name in outer:
        place = place.setdefault(name, {})
    place[last] = list(roles)
    if wechat is not None:
        claims[_WECHAT_CLAIM] = {"app_id": wechat.app_id, "openid": wechat.openid}
    return jwt.encode(claims, config.jwt_secret.reveal(), algorithm=usable[0])


def _checked_algorithms(config: Config) -> tuple[str, ...]:
    algorithms = tuple(name.strip() for name in config.jwt_algorithms if name.strip())
    for name in algorithms:
        if name not in _SYMMETRIC | _ASYMMETRIC:
            raise ConfigError(f"JWT_ALGORITHMS: {name!r} may not be used; write HS256, or RS256,ES256")
        if name in _SYMMETRIC and config.jwt_secret is None:
            raise ConfigError(f"JWT_ALGORITHMS: {name} needs JWT_SECRET")
        if name in _ASYMMETRIC and config.jwt_jwks_url is None:
            raise ConfigError(f"JWT_ALGORITHMS: {name} needs JWT_JWKS_URL")
    if not algorithms:
        raise ConfigError("JWT_ALGORITHMS: empty; write HS256, or RS256,ES256")
    return algorithms


def _read_claims(claims: Mapping[str, Any], config: Config, now: datetime) -> Principal:
    sub = claims["sub"]
    if isinstance(sub, int) and not isinstance(sub, bool):
        sub = str(sub)
    if not isinstance(sub, str) or not 0 < len(sub) <= 255 or "\0" in sub:
        raise _refused("its sub is not a text of 1 to 255 characters")
    expires_at = _instant(claims["exp"], "exp")
    if expires_at + _LEEWAY <= now:
        raise _refused("it has expired", zh="登录已过期，请重新登录")
    if "nbf" in claims and _instant(claims["nbf"], "nbf") - _LEEWAY > now:
        raise _refused("it is not valid yet (nbf)")
    roles = _read_roles(claims, config.jwt_roles_claim)
    return Principal(
        sub=sub,
        roles=roles,
        is_admin=config.admin_role in roles,
        expires_at=expires_at,
        wechat=_read_wechat(claims.get(_WECHAT_CLAIM)),
    )


def _instant(value: object, name: str) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(f"its {name} is not a number of seconds")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError) as exc:
        raise _refused(f"its {name} is out of range") from exc


def _read_roles(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The roles claim: a text of names separated by blanks, or a list. "realm_access.roles" looks inside objects.

    Anything else grants nothing."""
    value: object = claims.get(path)
    if value is None:
        value = claims
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(role for role in value if isinstance(role, str))
    return frozenset()


def _read_wechat(claim: object) -> WechatIdentity | None:
    """The identity a login put in; None for anything that is not exactly one."""
    if not isinstance(claim, Mapping):
        return None
    app_id, openid = claim.get("app_id"), claim.get("openid")
    for text in (app_id, openid):
        if not isinstance(text, str) or _WECHAT_ID.fullmatch(text) is None:
            return None
    return WechatIdentity(app_id=str(app_id), openid=str(openid))


def _refused(reason: str, *, zh: str = "令牌无效，请重新登录") -> Unauthenticated:
    return Unauthenticated(f"the token is refused: {reason}", message_zh=zh)


@dataclass(frozen=True, slots=True)
class _Key:
    key_id: str | None
    kind: str
    # the only algorithm its owner allows, or None
    algorithm: str | None
    public_key: Any

    def fits(self, algorithm: str, key_id: str | None) -> bool:
        return (
            self.kind == _KEY_KINDS[algorithm[:2]]
            and self.algorithm in (None, algorithm)
            and (key_id is None or key_id == self.key_id)
        )


class _Keys:
    """Public keys of one JWKS address. An address that fails keeps the keys fetched before."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._keys: list[_Key] = []
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def find(self, algorithm: str, key_id: str | None) -> Any:
        """The key of that id, or the only one that fits where a token names none. Raises Unauthenticated."""
        loop = asyncio.get_running_loop()
        found = self._known(algorithm, key_id)
        if found is None or loop.time() - self._fetched_at > _KEYS_MAX_AGE_S:
            await self._refresh()
            found = self._known(algorithm, key_id)
        if found is None:
            raise _refused("no key of JWT_JWKS_URL fits it")
        return found.public_key

    def _known(self, algorithm: str, key_id: str | None) -> _Key | None:
        fitting = [key for key in self._keys if key.fits(algorithm, key_id)]
        return fitting[0] if len(fitting) == 1 or (fitting and key_id is not None) else None

    async def _refresh(self) -> None:
        async with self._fetching:
            now = asyncio.get_running_loop().time()
            if now - self._tried_at < _KEYS_MIN_GAP_S:
                return
            self._tried_at = now
            try:
                self._keys = await self._fetch()
                self._fetched_at = now
            except (httpx.HTTPError, ValueError, TypeError, jwt.PyJWTError) as exc:
                _log.warning("jwks_unreachable", error=type(exc).__name__, kept_keys=len(self._keys))

    async def _fetch(self) -> list[_Key]:
        received = b""
        async with self._http.stream("GET", self._url, timeout=5.0, follow_redirects=False) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > _KEYS_BYTES:
                    raise ValueError(f"the key set is larger than {_KEYS_BYTES} bytes")
        document = orjson.loads(received)
        listed = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise TypeError("the address holds no key set")
        return [key for entry in listed[:_KEYS_COUNT] if (key := _read_key(entry)) is not None]


def _read_key(entry: object) -> _Key | None:
    """A signature key of a key set; None for what is no such key. A symmetric key in a public document is no secret."""
    if not isinstance(entry, dict) or entry.get("kty") not in _KEY_KINDS.values() or entry.get("use", "sig") != "sig":
        return None
    key_id, algorithm = entry.get("kid"), entry.get("alg")
    try:
        public_key = jwt.PyJWK(entry).key
    except jwt.PyJWTError as exc:
        _log.warning("jwks_key_ignored", kid=str(key_id)[:64], error=type(exc).__name__)
        return None
    return _Key(
        key_id=key_id if isinstance(key_id, str) else None,
        kind=entry["kty"],
        algorithm=algorithm if isinstance(algorithm, str) else None,
        public_key=public_key,
    )

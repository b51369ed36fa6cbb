"""Tokens: what is accepted, and every refusal."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.auth import Authenticator, issue_token
from app.clock import Clock
from app.config import Config, ConfigError
from app.errors import Unauthenticated
from tests.fixtures.shop import config_for, private_pem
from tests.fixtures.web import serving

SECRET = "a secret of a test, thirty-two bytes or more"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return config_for("postgresql://u@127.0.0.1/x", "redis://127.0.0.1", tmp_path)


def claims(clock: Clock, **changes: Any) -> dict[str, Any]:
    given = {"sub": "7", "exp": int((clock.now() + timedelta(hours=1)).timestamp())} | changes
    return {name: value for name, value in given.items() if value is not None}


def sign(payload: dict[str, Any], *, secret: str = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(payload, secret, algorithm=algorithm, headers=header or None)


async def test_issued_token_is_accepted(config: Config, clock: Clock) -> None:
    token = issue_token(config, "7", ("user", "admin"), ttl=timedelta(minutes=5), clock=clock)
    principal = await Authenticator(config, clock).principal(token)
    assert (principal.sub, principal.roles, principal.is_admin) == ("7", frozenset({"user", "admin"}), True)
    assert principal.expires_at is not None
    assert timedelta(minutes=4) < principal.expires_at - clock.now() <= timedelta(minutes=5)


async def test_numeric_subject_is_its_digits(config: Config, clock: Clock) -> None:
    assert (await Authenticator(config, clock).principal(sign(claims(clock, sub=7)))).sub == "7"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda clock: "not a token", "Not enough segments"),
        (lambda clock: "", "Not enough segments"),
        (lambda clock: "x" * 8193, "longer than 8192"),
        (lambda clock: sign(claims(clock), secret="another secret, thirty-two bytes or more"), "Signature"),
        (lambda clock: sign(claims(clock))[:-4] + "AAAA", "Signature"),
        (lambda clock: sign(claims(clock), algorithm="HS512", secret=SECRET * 2), "algorithm is not one of HS256"),
        (lambda clock: jwt.encode(claims(clock), "", algorithm="none"), "algorithm is not one of HS256"),
        (lambda clock: sign(claims(clock, exp=None)), '"exp"'),
        (lambda clock: sign(claims(clock, sub=None)), '"sub"'),
        (lambda clock: sign(claims(clock, sub="")), "sub is not a text"),
        (lambda clock: sign(claims(clock, sub=True)), "sub is not a text"),
        (lambda clock: sign(claims(clock, sub=["7"])), "sub is not a text"),
        (lambda clock: sign(claims(clock, sub="7\0")), "sub is not a text"),
        (lambda clock: sign(claims(clock, sub="7" * 256)), "sub is not a text"),
        (lambda clock: sign(claims(clock, exp=int(clock.now().timestamp()) - 6)), "has expired"),
        (lambda clock: sign(claims(clock, exp=True)), "exp is not a number"),
        (lambda clock: sign(claims(clock, exp="soon")), "exp is not a number"),
        (lambda clock: sign(claims(clock, exp=1e300)), "exp is out of range"),
        (lambda clock: sign(claims(clock, nbf=int(clock.now().timestamp()) + 60)), "not valid yet"),
    ],
)
async def test_refused(config: Config, clock: Clock, make: Callable[[Clock], str], reason: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await Authenticator(config, clock).principal(make(clock))
    assert reason in refused.value.message
    assert refused.value.extensions()["code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    "mangled", ["\ud800.\ud800.\ud800", "a.b.c", "....", "e30.e30.", "W10.e30.AA", "bnVsbA.e30.AA"]
)
async def test_malformed_tokens_are_refused_and_nothing_worse(config: Config, clock: Clock, mangled: str) -> None:
    with pytest.raises(Unauthenticated):
        await Authenticator(config, clock).principal(mangled)


async def test_remembered_token_expires_with_the_clock(config: Config, clock: Clock) -> None:
    authenticator = Authenticator(config, clock)
    token = issue_token(config, "7", ttl=timedelta(minutes=5), clock=clock)
    first = await authenticator.principal(token)
    assert await authenticator.principal(token) is first
    clock.advance(timedelta(minutes=5, seconds=6))
    assert authenticator.expired(first)
    with pytest.raises(Unauthenticated, match="has expired"):
        await authenticator.principal(token)


async def test_audience_and_issuer_are_compared_when_configured(config: Config, clock: Clock) -> None:
    strict = replace(config, jwt_audience="shouyin", jwt_issuer="https://shop.example")
    authenticator = Authenticator(strict, clock)
    good = {"aud": "shouyin", "iss": "https://shop.example"}
    assert (await authenticator.principal(sign(claims(clock, **good)))).sub == "7"
    assert (await authenticator.principal(issue_token(strict, "7", ttl=timedelta(hours=1), clock=clock))).sub == "7"
    for wrong in ({"aud": "other"}, {"iss": "https://evil.example"}, {"aud": None}, {"iss": None}):
        with pytest.raises(Unauthenticated):
            await authenticator.principal(sign(claims(clock, **(good | wrong))))


@pytest.mark.parametrize(
    ("path", "payload", "roles"),
    [
        ("roles", {"roles": ["user", "admin"]}, {"user", "admin"}),
        ("roles", {"roles": "user admin"}, {"user", "admin"}),
        ("realm_access.roles", {"realm_access": {"roles": ["admin"]}}, {"admin"}),
        ("https://shop.example/roles", {"https://shop.example/roles": ["admin"]}, {"admin"}),
        ("roles", {"roles": {"admin": True}}, set()),
        ("roles", {"roles": ["user", 5, None, ["admin"]]}, {"user"}),
        ("realm_access.roles", {"realm_access": "admin"}, set()),
        ("roles", {}, set()),
    ],
)
async def test_roles(config: Config, clock: Clock, path: str, payload: dict[str, Any], roles: set[str]) -> None:
    authenticator = Authenticator(replace(config, jwt_roles_claim=path), clock)
    principal = await authenticator.principal(sign(claims(clock, **payload)))
    assert principal.roles == roles
    assert principal.is_admin is ("admin" in roles)


@pytest.mark.parametrize(
    ("algorithms", "message"),
    [
        (("none",), "may not be used"),
        (("HS256", "none"), "may not be used"),
        (("ES256K",), "may not be used"),
        (("RS256",), "needs JWT_JWKS_URL"),
        ((), "empty"),
    ],
)
def test_algorithms_that_cannot_work_stop_the_start(config: Config, algorithms: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match="JWT_ALGORITHMS") as refused:
        Authenticator(replace(config, jwt_algorithms=algorithms), Clock())
    assert message in str(refused.value)


def test_no_token_is_issued_without_a_shared_secret(config: Config) -> None:
    for other in (replace(config, jwt_secret=None), replace(config, jwt_algorithms=("RS256",))):
        with pytest.raises(ConfigError, match="JWT_SECRET"):
            issue_token(other, "7", ttl=timedelta(hours=1))


# --- keys of a JWKS address -------------------------------------------------------------------------------------------


@dataclass
class Issuer:
    """An identity provider: its keys, and how often they were asked for."""

    private: rsa.RSAPrivateKey
    keys: list[dict[str, Any]]
    url: str = ""
    fetched: int = 0
    status: int = 200
    extra: bytes = b""
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"].removeprefix("lifespan.")
                await send({"type": f"lifespan.{kind}.complete"})
                if kind == "shutdown":
                    return
        self.fetched += 1
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps({"keys": self.keys}).encode() + self.extra})

    def sign(self, payload: dict[str, Any], *, kid: str | None = "k1", algorithm: str = "RS256") -> str:
        return jwt.encode(payload, self.private, algorithm=algorithm, headers={"kid": kid} if kid else None)


def public_jwk(key: rsa.RSAPrivateKey, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return made | more


@pytest.fixture
async def issuer(rsa_keys: tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]) -> AsyncIterator[Issuer]:
    made = Issuer(rsa_keys[0], [public_jwk(rsa_keys[0], kid="k1", use="sig")])
    async with serving(made) as origin:
        made.url = f"{origin}/keys"
        yield made


@pytest.fixture
def keyed(config: Config, issuer: Issuer, clock: Clock, http: httpx.AsyncClient) -> Authenticator:
    settings = replace(config, jwt_secret=None, jwt_jwks_url=issuer.url, jwt_algorithms=("RS256", "PS256", "ES256"))
    return Authenticator(settings, clock, http)


async def test_key_of_the_address_verifies(keyed: Authenticator, issuer: Issuer, clock: Clock) -> None:
    assert (await keyed.principal(issuer.sign(claims(clock)))).sub == "7"
    assert (await keyed.principal(issuer.sign(claims(clock), algorithm="PS256"))).sub == "7"
    assert (await keyed.principal(issuer.sign(claims(clock, sub="8"), kid=None))).sub == "8"
    assert issuer.fetched == 1


async def test_many_at_once_fetch_the_keys_once(keyed: Authenticator, issuer: Issuer, clock: Clock) -> None:
    tokens = [issuer.sign(claims(clock, sub=str(number))) for number in range(20)]
    found = await asyncio.gather(*(keyed.principal(token) for token in tokens))
    assert [principal.sub for principal in found] == [str(number) for number in range(20)]
    assert issuer.fetched == 1


async def test_unknown_key_ids_do_not_make_us_fetch_again_and_again(
    keyed: Authenticator, issuer: Issuer, clock: Clock
) -> None:
    await keyed.principal(issuer.sign(claims(clock)))
    for number in range(10):
        with pytest.raises(Unauthenticated, match="no key of JWT_JWKS_URL fits"):
            await keyed.principal(issuer.sign(claims(clock), kid=f"unknown-{number}"))
    assert issuer.fetched == 1


async def test_public_key_is_no_hmac_secret(
    config: Config, issuer: Issuer, clock: Clock, http: httpx.AsyncClient
) -> None:
    both = replace(config, jwt_jwks_url=issuer.url, jwt_algorithms=("RS256", "HS256"))
    authenticator = Authenticator(both, clock, http)
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "k1"}).encode()).rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims(clock)).encode()).rstrip(b"=")
    import hashlib
    import hmac

    public = private_pem(issuer.private).encode()
    for secret in (public, json.dumps(issuer.keys[0]).encode()):
        mac = hmac.new(secret, head + b"." + body, hashlib.sha256).digest()
        forged = head + b"." + body + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
        with pytest.raises(Unauthenticated, match="Signature"):
            await authenticator.principal(forged.decode())
    assert (await authenticator.principal(sign(claims(clock)))).sub == "7"
    assert (await authenticator.principal(issuer.sign(claims(clock)))).sub == "7"


async def test_keys_that_sign_nothing_are_ignored(keyed: Authenticator, issuer: Issuer, clock: Clock) -> None:
    signing = issuer.keys[0]
    secret = {"kty": "oct", "kid": "k1", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
    broken = {"kty": "RSA", "kid": "k1", "n": 5}
    other_use = signing | {"use": "enc", "kid": "e1"}
    issuer.keys = [secret, broken, other_use, "junk", signing]  # type: ignore[list-item]  # what nobody should send
    assert (await keyed.principal(issuer.sign(claims(clock)))).sub == "7"
    with pytest.raises(Unauthenticated, match="no key"):
        await keyed.principal(issuer.sign(claims(clock), kid="e1"))


async def test_another_kind_of_key_under_the_same_id_is_refused(
    keyed: Authenticator, issuer: Issuer, clock: Clock
) -> None:
    token = jwt.encode(claims(clock), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "k1"})
    with pytest.raises(Unauthenticated, match="no key"):
        await keyed.principal(token)


@pytest.mark.parametrize("fault", ["status", "size", "shape"])
async def test_address_that_fails_refuses_and_says_so(
    keyed: Authenticator, issuer: Issuer, clock: Clock, fault: str
) -> None:
    if fault == "status":
        issuer.status = 500
    elif fault == "size":
        issuer.extra = b" " * 300_000
    else:
        issuer.keys = {"not": "a list"}  # type: ignore[assignment]  # likewise
    with pytest.raises(Unauthenticated, match="no key of JWT_JWKS_URL fits"):
        await keyed.principal(issuer.sign(claims(clock)))
    assert issuer.fetched == 1

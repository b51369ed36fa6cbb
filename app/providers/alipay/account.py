"""An Alipay merchant account: which fields it has, whether they fit together, and what is kept ready for use.

    mode          keys                                        acts for
    public_key    app_private_key + alipay_public_key         itself
    certificate   app_private_key + app_cert, alipay_cert,    itself
                  alipay_root_cert
    isv           either of the two + app_auth_token          the merchant that gave the token (服务商代开发)

The self-test runs when an account is entered, so that keys which do not belong together are named at once and not found
out by the first payer. Opening a stored account does not judge dates: an expired certificate must not stop the
notifications of payments already made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from app.providers.alipay import cycle_terms, keys
from app.providers.contract import Account, AccountInvalid, AgreementTerms, PaymentMethod
from app.providers.gateways import GatewayRule

PRODUCTION_GATEWAY = "https://openapi.alipay.com/gateway.do"

METHODS = (PaymentMethod.ALIPAY_PAGE, PaymentMethod.ALIPAY_WAP, PaymentMethod.ALIPAY_QR)

PUBLIC_KEY = "public_key"
CERTIFICATE = "certificate"
ISV = "isv"
MODES = (PUBLIC_KEY, CERTIFICATE, ISV)

# What a scanned order is sold under; which one depends on the contract the merchant signed.
QR_PRODUCT_CODES = ("QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT")

_CERTIFICATE_FIELDS = ("app_cert", "alipay_cert", "alipay_root_cert")
_SETTINGS = ("app_id", "seller_id", "gateway", "auth_app_id", "qr_product_code", *cycle_terms.SETTINGS)
# Never stored. The first lets the self-test see that the key on file at Alipay is this private key's counterpart; the
# second is the same private key once more, as tools that serve Java hand it out beside the PKCS#1 one.
_ONLY_CHECKED = ("app_public_key", "app_private_key_pkcs8")
_FIELDS = frozenset(
    (*_SETTINGS, *_ONLY_CHECKED, *_CERTIFICATE_FIELDS, "app_private_key", "alipay_public_key", "app_auth_token")
)

_APP_ID = re.compile(r"[0-9]{6,32}", re.ASCII)
_SELLER_ID = re.compile(r"2088[0-9]{12}", re.ASCII)
_TOKEN = re.compile(r"[!-~]{8,128}", re.ASCII)
# Alipay issues application certificates to "<seller>-<app>".
_CERTIFICATE_OWNER = re.compile(r"(2088[0-9]{12})-([0-9]{6,32})", re.ASCII)


@dataclass(frozen=True, slots=True)
class AlipayAccount:
    """A merchant account opened for use: keys parsed once, the constant parameters of every call laid out."""

    mode: str
    app_id: str
    gateway: str
    qr_product_code: str
    expected_claims: Mapping[str, frozenset[str]]
    # app_id, charset, … and in the modes that have them the serials and the token: all but method, time and content
    common_params: Mapping[str, str] = field(repr=False)
    private_key: RSAPrivateKey = field(repr=False)
    alipay_key: RSAPublicKey = field(repr=False)
    cycle_product: str
    terms: AgreementTerms
    alipay_cert_sn: str | None = None

    @property
    def offers(self) -> Mapping[PaymentMethod, Sequence[str]]:
        """Every method may be paid by whoever opens the link, under the one application."""
        cycle = (PaymentMethod.ALIPAY_CYCLE,) if self.terms.scenes else ()
        return dict.fromkeys((*METHODS, *cycle), ())


class _Keys(NamedTuple):
    private_key: RSAPrivateKey
    alipay_key: RSAPublicKey
    app_certs: list[keys.Certificate]
    alipay_certs: list[keys.Certificate]
    root_certs: list[keys.Certificate]


def seal_account(
    *, mode: str, fields: Mapping[str, str], gateways: GatewayRule, now: datetime
) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits typed fields into public settings and credentials, after the self-test. Raises AccountInvalid."""
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    _check_names(mode, given)
    settings = _settings(mode, given, gateways)
    parsed = _parse_keys(given, sealed=False)
    _check_pairs(given, parsed)
    if parsed.app_certs:
        _check_certificates(given, parsed, now)
    credentials = {"app_private_key": keys.private_pem(parsed.private_key)}
    if parsed.app_certs:
        credentials["app_cert"] = keys.certificates_pem(parsed.app_certs)
        credentials["alipay_cert"] = keys.certificates_pem(parsed.alipay_certs)
        credentials["alipay_root_cert"] = keys.certificates_pem(parsed.root_certs)
    else:
        credentials["alipay_public_key"] = keys.public_pem(parsed.alipay_key)
    if mode == ISV:
        credentials["app_auth_token"] = given["app_auth_token"]
    return settings, credentials


def open_stored_account(
    *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str], gateways: GatewayRule
) -> AlipayAccount:
    """Parses what `seal_account` returned. Raises AccountInvalid; does not repeat the whole self-test."""
    given = {name: str(value) for name, value in (*settings.items(), *credentials.items()) if value}
    _check_names(mode, given)
    checked = _settings(mode, given, gateways)
    parsed = _parse_keys(given, sealed=True)
    # Answers are verified with this key: were it ours, anybody's echo of our own signature would pass.
    if keys.same_key(parsed.alipay_key, parsed.private_key.public_key()):
        raise AccountInvalid("alipay_public_key", "the Alipay public key is the application's own")
    app_id = checked["app_id"]
    common = {"app_id": app_id, "charset": "utf-8", "format": "JSON", "sign_type": "RSA2", "version": "1.0"}
    if parsed.app_certs:
        common["app_cert_sn"] = keys.certificate_sn(parsed.app_certs[0])
        common["alipay_root_cert_sn"] = keys.root_sn(parsed.root_certs)
    claims = {"app_id": frozenset({app_id})}
    if "seller_id" in checked:
        claims["seller_id"] = frozenset({checked["seller_id"]})
    if mode == ISV:
        common["app_auth_token"] = given["app_auth_token"]
        claims["auth_app_id"] = frozenset({checked["auth_app_id"]})
    return AlipayAccount(
        mode=mode,
        app_id=app_id,
        gateway=checked["gateway"],
        qr_product_code=checked["qr_product_code"],
        expected_claims=claims,
        common_params=common,
        private_key=parsed.private_key,
        alipay_key=parsed.alipay_key,
        cycle_product=checked["cycle_product"],
        terms=cycle_terms.agreement_terms(checked),
        alipay_cert_sn=keys.certificate_sn(parsed.alipay_certs[0]) if parsed.alipay_certs else None,
    )


def opened(account: Account) -> AlipayAccount:
    """The account as this adapter opened it. Raises TypeError for one of another provider: a mistake of ours."""
    if not isinstance(account, AlipayAccount):
        raise TypeError("this account was not opened by the Alipay provider")
    return account


def _check_names(mode: str, given: Mapping[str, str]) -> None:
    """Exactly the fields of the mode: an optional field with a typing error must not be dropped in silence."""
    if mode not in MODES:
        raise AccountInvalid("mode", f"{mode!r} is no Alipay mode: use one of {', '.join(MODES)}")
    for name in given:
        if name not in _FIELDS:
            raise AccountInvalid(name, f"{name} is no field of an Alipay account: use {', '.join(sorted(_FIELDS))}")
    with_certificates = mode == CERTIFICATE or (mode == ISV and any(name in given for name in _CERTIFICATE_FIELDS))
    key_fields = _CERTIFICATE_FIELDS if with_certificates else ("alipay_public_key",)
    for name in ("app_id", "app_private_key", *key_fields):
        if name not in given:
            raise AccountInvalid(name, f"{name} is missing: mode {mode} needs it")
    if not with_certificates and any(name in given for name in _CERTIFICATE_FIELDS):
        raise AccountInvalid("mode", "certificates were given: use mode certificate, or leave them out")
    for name in ("app_auth_token", "auth_app_id"):
        if mode == ISV and name not in given:
            raise AccountInvalid(name, f"{name} is missing: mode isv acts for the merchant that authorised it")
        if mode != ISV and name in given:
            raise AccountInvalid(name, f"{name} is for acting on another merchant's behalf: use mode isv")


def _settings(mode: str, given: Mapping[str, str], gateways: GatewayRule) -> dict[str, str]:
    """The public part, checked and with its defaults filled in."""
    checked = {"app_id": _matching(given, "app_id", _APP_ID, "digits, such as 2021000000000000")}
    if "seller_id" in given:
        checked["seller_id"] = _matching(given, "seller_id", _SELLER_ID, "the 16 digits of the PID, 2088…")
    if mode == ISV:
        checked["auth_app_id"] = _matching(given, "auth_app_id", _APP_ID, "the merchant's app id, digits")
        _matching(given, "app_auth_token", _TOKEN, "the token as Alipay returned it")
    checked["gateway"] = gateways.checked(given.get("gateway", PRODUCTION_GATEWAY), example=PRODUCTION_GATEWAY)
    product_code = given.get("qr_product_code", QR_PRODUCT_CODES[0])
    if product_code not in QR_PRODUCT_CODES:
        raise AccountInvalid("qr_product_code", f"qr_product_code must be one of {', '.join(QR_PRODUCT_CODES)}")
    checked["qr_product_code"] = product_code
    return checked | cycle_terms.cycle_settings(given)


def _matching(given: Mapping[str, str], name: str, pattern: re.Pattern[str], wanted: str) -> str:
    if pattern.fullmatch(given[name]) is None:
        raise AccountInvalid(name, f"{name} is not what Alipay issues: write {wanted}")
    return given[name]


def _parse_keys(given: Mapping[str, str], *, sealed: bool) -> _Keys:
    private_key = keys.load_private_key(given["app_private_key"], field="app_private_key", tested_before=sealed)
    if "app_cert" not in given:
        alipay_key = keys.load_public_key(given["alipay_public_key"], field="alipay_public_key")
        return _Keys(private_key, alipay_key, [], [], [])
    alipay_certs = keys.load_certificates(given["alipay_cert"], field="alipay_cert")
    return _Keys(
        private_key,
        keys.certificate_public_key(alipay_certs[0], field="alipay_cert"),
        keys.load_certificates(given["app_cert"], field="app_cert"),
        alipay_certs,
        keys.load_certificates(given["alipay_root_cert"], field="alipay_root_cert"),
    )


def _check_pairs(given: Mapping[str, str], parsed: _Keys) -> None:
    """The mistakes people make with two key pairs, each named by the field to change."""
    own = parsed.private_key.public_key()
    if "app_private_key_pkcs8" in given:
        again = keys.load_private_key(given["app_private_key_pkcs8"], field="app_private_key_pkcs8")
        if not keys.same_key(again.public_key(), own):
            raise AccountInvalid("app_private_key_pkcs8", "app_private_key_pkcs8 is not app_private_key: leave it out")
    if "app_public_key" in given:
        stated = keys.load_public_key(given["app_public_key"], field="app_public_key")
        if not keys.same_key(stated, own):
            raise AccountInvalid(
                "app_public_key", "app_public_key does not belong to app_private_key: take both from the same pair"
            )
    if keys.same_key(parsed.alipay_key, own):
        culprit = "alipay_cert" if parsed.alipay_certs else "alipay_public_key"
        raise AccountInvalid(
            culprit,
            f"{culprit} is the application's own public key (应用公钥): copy Alipay's (支付宝公钥), which the platform "
            "shows after the application's key was uploaded",
        )
    if parsed.alipay_certs and "alipay_public_key" in given:
        stated = keys.load_public_key(given["alipay_public_key"], field="alipay_public_key")
        if not keys.same_key(stated, parsed.alipay_key):
            raise AccountInvalid("alipay_public_key", "alipay_public_key is not the key of alipay_cert: leave it out")


def _check_certificates(given: Mapping[str, str], parsed: _Keys, now: datetime) -> None:
    app_cert, alipay_cert = parsed.app_certs[0], parsed.alipay_certs[0]
    app_key = keys.certificate_public_key(app_cert, field="app_cert")
    if not keys.same_key(app_key, parsed.private_key.public_key()):
        raise AccountInvalid(
            "app_cert", "app_cert does not belong to app_private_key: use the key from which its request was made"
        )
    owner = _CERTIFICATE_OWNER.search(app_cert.subject.rfc4514_string())
    if owner is not None and owner.group(2) != given["app_id"]:
        raise AccountInvalid("app_cert", f"app_cert was issued to app {owner.group(2)}, not to app_id")
    if not keys.chains_to(alipay_cert, intermediates=parsed.alipay_certs[1:], roots=parsed.root_certs):
        raise AccountInvalid(
            "alipay_cert",
            "alipay_cert is not signed by a certificate of alipay_root_cert: paste both files whole, "
            "alipayCertPublicKey_RSA2.crt with its intermediate and alipayRootCert.crt",
        )
    for name, certificate in (("app_cert", app_cert), ("alipay_cert", alipay_cert)):
        if now >= certificate.not_valid_after_utc:
            ended = certificate.not_valid_after_utc.date().isoformat()
            raise AccountInvalid(name, f"{name} expired on {ended}: download the renewed one")
        if now < certificate.not_valid_before_utc:
            begins = certificate.not_valid_before_utc.date().isoformat()
            raise AccountInvalid(name, f"{name} is not valid before {begins}: check this server's clock")

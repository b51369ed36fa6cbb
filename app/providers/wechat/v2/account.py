"""A merchant account of APIv2: which fields it has, whether they fit together, and what is kept ready for use.

    mode          acts for
    v2            itself
    v2_partner    sub_mch_id, a merchant of this service provider (服务商)

`appid` is the application of every way to pay. The lists `mini_program_appid` and `official_account_appid` replace it
where the payer is known by an openid; with `sub_appid` it is that one they replace, for the payer is its user then.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization.pkcs12 import load_key_and_certificates
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID

from app.providers.contract import AccountInvalid, PaymentMethod
from app.providers.gateways import GatewayRule
from app.providers.wechat.v2.client_tls import CertifiedTls, ClientTls, KeyPair
from app.providers.wechat.v2.fields import APP_ID, MERCHANT_ID, app_ids, given_fields, matching
from app.providers.wechat.v2.signing import HMAC_SHA256, SIGN_TYPES

V2 = "v2"
V2_PARTNER = "v2_partner"
MODES = (V2, V2_PARTNER)

METHODS = (
    PaymentMethod.WECHAT_MINI_PROGRAM,
    PaymentMethod.WECHAT_JSAPI,
    PaymentMethod.WECHAT_H5,
    PaymentMethod.WECHAT_NATIVE,
)

PRODUCTION_GATEWAY = "https://api.mch.weixin.qq.com"

_REQUIRED = {V2: ("mch_id", "appid", "api_key"), V2_PARTNER: ("mch_id", "appid", "sub_mch_id", "api_key")}
_LIST_OF_METHOD = {
    PaymentMethod.WECHAT_MINI_PROGRAM: "mini_program_appid",
    PaymentMethod.WECHAT_JSAPI: "official_account_appid",
}
_OPTIONAL = ("client_certificate_p12", *_LIST_OF_METHOD.values(), "sign_type", "gateway")
_API_KEY = (re.compile(r"[0-9A-Za-z]{32}", re.ASCII), "the 32 letters and digits of the APIv2 key (APIv2密钥)")
_P12 = "client_certificate_p12"
_P12_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class V2Account:
    """A merchant account opened for use."""

    mode: str
    mch_id: str
    appid: str
    sub_mch_id: str | None
    # None where the payer is known under `appid` or its list.
    sub_appid: str | None
    sign_type: str
    # without a slash at its end
    gateway: str
    expected_claims: Mapping[str, frozenset[str]]
    offers: Mapping[PaymentMethod, Sequence[str]]
    api_key: str = field(repr=False)
    client_certificate_p12: bytes | None = field(repr=False, default=None)
    client_tls: ClientTls = field(repr=False, compare=False, default_factory=ClientTls)

    @property
    def payer_name(self) -> str:
        """What an openid is called under which this account's payers are asked to pay."""
        return "openid" if self.sub_appid is None else "sub_openid"

    async def certified_tls(self) -> CertifiedTls | None:
        """TLS with the merchant's certificate, built once; None where it was not given."""
        return await self.client_tls.build(self.client_key_pair)

    def client_key_pair(self) -> KeyPair | None:
        """The merchant's certificate with its key, for the calls that need mutual TLS; None where it was not given.

        Costs some milliseconds each time, and no payment needs it."""
        if self.client_certificate_p12 is None:
            return None
        return _client_key_pair(self.client_certificate_p12, mch_id=self.mch_id)


def seal_account(
    *, mode: str, fields: Mapping[str, str], gateways: GatewayRule, now: datetime
) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits typed fields into public settings and credentials, after the self-test. Raises AccountInvalid."""
    given = _given(mode, fields)
    settings = _settings(given, gateways)
    credentials = {"api_key": matching(given, "api_key", _API_KEY)}
    if _P12 in given:
        container = _decoded_p12(given)
        _check_certificate(_client_key_pair(container, mch_id=given["mch_id"])[1], given["mch_id"], now)
        credentials[_P12] = base64.b64encode(container).decode("ascii")
    return settings, credentials


def open_account(
    *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str], gateways: GatewayRule
) -> V2Account:
    """Parses what `seal_account` returned. Raises AccountInvalid; leaves the certificate's container closed."""
    given = _given(mode, {**settings, **credentials})
    checked = _settings(given, gateways)
    offers = _offers(checked)
    return V2Account(
        mode=mode,
        mch_id=checked["mch_id"],
        appid=checked["appid"],
        sub_mch_id=checked.get("sub_mch_id"),
        sub_appid=checked.get("sub_appid"),
        sign_type=checked["sign_type"],
        gateway=checked["gateway"],
        expected_claims=_expected_claims(checked, offers),
        offers=offers,
        api_key=matching(given, "api_key", _API_KEY),
        client_certificate_p12=_decoded_p12(given) if _P12 in given else None,
    )


def _given(mode: str, fields: Mapping[str, Any]) -> dict[str, str]:
    if mode not in MODES:
        raise AccountInvalid("mode", f"{mode!r} is no mode of APIv2: use one of {', '.join(MODES)}")
    optional = (*_OPTIONAL, "sub_appid") if mode == V2_PARTNER else _OPTIONAL
    return given_fields(mode, fields, required=_REQUIRED[mode], optional=optional)


def _settings(given: Mapping[str, str], gateways: GatewayRule) -> dict[str, str]:
    """The public part, checked and with its defaults filled in."""
    checked = {"mch_id": matching(given, "mch_id", MERCHANT_ID), "appid": matching(given, "appid", APP_ID)}
    if "sub_mch_id" in given:
        checked["sub_mch_id"] = matching(given, "sub_mch_id", MERCHANT_ID)
        if checked["sub_mch_id"] == checked["mch_id"]:
            raise AccountInvalid(
                "sub_mch_id", "sub_mch_id is mch_id: write the merchant's number (特约商户号), or use mode v2"
            )
    if "sub_appid" in given:
        checked["sub_appid"] = matching(given, "sub_appid", APP_ID)
    for name in _LIST_OF_METHOD.values():
        if listed := app_ids(given, name):
            checked[name] = ",".join(listed)
    checked["sign_type"] = given.get("sign_type", HMAC_SHA256).upper()
    if checked["sign_type"] not in SIGN_TYPES:
        raise AccountInvalid("sign_type", f"sign_type must be one of {', '.join(SIGN_TYPES)}")
    gateway = gateways.checked(given.get("gateway", PRODUCTION_GATEWAY), example=PRODUCTION_GATEWAY)
    checked["gateway"] = gateway.rstrip("/")
    return checked


def _offers(checked: Mapping[str, str]) -> dict[PaymentMethod, tuple[str, ...]]:
    usual = (checked.get("sub_appid", checked["appid"]),)
    return {method: app_ids(checked, _LIST_OF_METHOD.get(method, "")) or usual for method in METHODS}


def _expected_claims(
    checked: Mapping[str, str], offers: Mapping[PaymentMethod, tuple[str, ...]]
) -> dict[str, frozenset[str]]:
    offered = frozenset(app_id for apps in offers.values() for app_id in apps)
    claims = {name: frozenset({checked[name]}) for name in ("mch_id", "sub_mch_id") if name in checked}
    if "sub_appid" not in checked:
        return claims | {"appid": offered | {checked["appid"]}}
    return claims | {"appid": frozenset({checked["appid"]}), "sub_appid": offered | {checked["sub_appid"]}}


def _decoded_p12(given: Mapping[str, str]) -> bytes:
    try:
        container = base64.b64decode("".join(given[_P12].split()), validate=True)
    except ValueError as exc:
        raise AccountInvalid(_P12, f"{_P12} is not base64: write the file as `base64 apiclient_cert.p12` does") from exc
    if not 0 < len(container) <= _P12_LIMIT:
        raise AccountInvalid(_P12, f"{_P12} must have 1 to {_P12_LIMIT} bytes: that is no certificate")
    return container


def _client_key_pair(container: bytes, *, mch_id: str) -> KeyPair:
    """Key and certificate of apiclient_cert.p12, whose password is mch_id. Raises AccountInvalid."""
    try:
        key, certificate, _ = load_key_and_certificates(container, mch_id.encode())
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(
            _P12, f"{_P12} does not open with mch_id as its password: is it this merchant's apiclient_cert.p12?"
        ) from exc
    if not isinstance(key, RSAPrivateKey) or certificate is None:
        raise AccountInvalid(_P12, f"{_P12} lacks the certificate or its RSA key: take apiclient_cert.p12 unchanged")
    return key, certificate


def _check_certificate(certificate: Certificate, mch_id: str, now: datetime) -> None:
    owners = [str(one.value) for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if owners != [mch_id]:
        raise AccountInvalid(_P12, f"{_P12} was issued to {', '.join(owners)[:64] or 'nobody'}, not to mch_id")
    if now >= certificate.not_valid_after_utc:
        ended = certificate.not_valid_after_utc.date().isoformat()
        raise AccountInvalid(_P12, f"{_P12} expired on {ended}: request a new certificate in the merchant console")

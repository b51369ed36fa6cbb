"""An APIv3 merchant account: which fields it has, whether they fit together, and what is kept ready for use.

    mode             WeChat signs with                               pays for
    v3               the WeChat Pay public key (微信支付公钥)          itself
    v3_certificate   platform certificates, downloaded when needed;  itself
                     the public key too while the merchant moves
    v3_partner       either                                          a sub-merchant (特约商户)

`appid` is the application of every way to pay. The lists `mini_program_appid` and `official_account_appid` replace it
where the payer is known by an openid; with `sub_appid` it is that one they replace, for the payer is its user then.

The self-test runs when an account is entered. Opening a stored account does not judge dates: what expired meanwhile
must not stop the notifications of payments already made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import NameOID

from app.clock import Clock
from app.providers.contract import AccountInvalid, PaymentMethod
from app.providers.gateways import GatewayRule
from app.providers.wechat.v3 import keys
from app.providers.wechat.v3.platform_keys import PUBLIC_KEY_PREFIX, PlatformKey, PlatformKeys, from_certificates

PRODUCTION_GATEWAY = "https://api.mch.weixin.qq.com"

PUBLIC_KEY = "v3"
CERTIFICATE = "v3_certificate"
PARTNER = "v3_partner"
MODES = (PUBLIC_KEY, CERTIFICATE, PARTNER)

METHODS = (
    PaymentMethod.WECHAT_MINI_PROGRAM,
    PaymentMethod.WECHAT_JSAPI,
    PaymentMethod.WECHAT_H5,
    PaymentMethod.WECHAT_NATIVE,
)
_LIST_OF_METHOD = {
    PaymentMethod.WECHAT_MINI_PROGRAM: "mini_program_appid",
    PaymentMethod.WECHAT_JSAPI: "official_account_appid",
}

_REQUIRED = ("mchid", "appid", "serial_no", "private_key", "apiv3_key")
_REQUIRED_BY_MODE = {PUBLIC_KEY: ("public_key_id", "public_key"), CERTIFICATE: (), PARTNER: ("sub_mchid",)}
_OPTIONAL = (
    "public_key_id",
    "public_key",
    "mini_program_appid",
    "official_account_appid",
    "gateway",
    "platform_certificates",
    # Never stored: only the self-test reads it.
    "merchant_certificate",
)
_OF_PARTNERS = ("sub_mchid", "sub_appid")
_FIELDS = (*_REQUIRED, *_OF_PARTNERS, *_OPTIONAL)

_MCHID = re.compile(r"[0-9]{6,32}", re.ASCII)
_APP_ID = re.compile(r"wx[0-9a-f]{16}", re.ASCII)
_SERIAL = re.compile(r"[0-9A-F]{8,64}", re.ASCII)
_APIV3_KEY = re.compile(r"[!-~]{32}", re.ASCII)
_PUBLIC_KEY_ID = re.compile(rf"{PUBLIC_KEY_PREFIX}[0-9A-Za-z]{{1,64}}", re.ASCII)
_APPS_LIMIT = 20


@dataclass(frozen=True, slots=True)
class V3Account:
    """A merchant account opened for use: keys parsed once, and what was learned of WeChat's keys since."""

    mode: str
    mchid: str
    appid: str
    serial_no: str
    gateway: str
    offers: Mapping[PaymentMethod, Sequence[str]]
    expected_claims: Mapping[str, frozenset[str]]
    private_key: RSAPrivateKey = field(repr=False)
    apiv3_key: bytes = field(repr=False)
    platform_keys: PlatformKeys = field(repr=False)
    sub_mchid: str | None = None
    # None where the payer is known under `appid` or its list.
    sub_appid: str | None = None
    # The key that WeChat is asked to answer with; None leaves it to WeChat.
    answers_with: str | None = None

    @property
    def payer_name(self) -> str:
        """What an openid is called under which this account's payers are asked to pay."""
        if self.sub_mchid is None:
            return "openid"
        return "sp_openid" if self.sub_appid is None else "sub_openid"


def seal_account(
    *, mode: str, fields: Mapping[str, str], gateways: GatewayRule, now: datetime
) -> tuple[dict[str, Any], dict[str, str]]:
    """Splits typed fields into public settings and credentials, after the self-test. Raises AccountInvalid."""
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    _check_names(mode, given)
    settings = _settings(mode, given, gateways)
    private_key = keys.load_private_key(given["private_key"], field="private_key")
    credentials = {"private_key": keys.private_pem(private_key), "apiv3_key": _apiv3_key(given)}
    if "merchant_certificate" in given:
        _check_own_certificate(given, settings, private_key.public_key(), now)
    if "public_key" in given:
        public_key = keys.load_public_key(given["public_key"], field="public_key")
        _refuse_own_key(public_key, private_key, field="public_key")
        credentials["public_key"] = keys.public_pem(public_key)
    if "platform_certificates" in given:
        certificates = keys.load_certificates(given["platform_certificates"], field="platform_certificates")
        for certificate in certificates:
            _refuse_own_key(keys.rsa_key(certificate), private_key, field="platform_certificates")
            _check_dates(certificate, now, field="platform_certificates")
        credentials["platform_certificates"] = keys.certificates_pem(certificates)
    return settings, credentials


def open_stored_account(
    *, mode: str, settings: Mapping[str, Any], credentials: Mapping[str, str], gateways: GatewayRule, clock: Clock
) -> V3Account:
    """Parses what `seal_account` returned. Raises AccountInvalid; does not repeat the whole self-test."""
    given = {name: str(value) for name, value in (*settings.items(), *credentials.items()) if value}
    _check_names(mode, given)
    checked = _settings(mode, given, gateways)
    private_key = keys.load_private_key(given["private_key"], field="private_key", tested_before=True)
    return V3Account(
        mode=mode,
        mchid=checked["mchid"],
        appid=checked["appid"],
        serial_no=checked["serial_no"],
        gateway=checked["gateway"],
        offers=_offers(checked),
        expected_claims=_expected_claims(checked),
        private_key=private_key,
        apiv3_key=_apiv3_key(given).encode("ascii"),
        platform_keys=PlatformKeys(_typed_keys(given, private_key), clock),
        sub_mchid=checked.get("sub_mchid"),
        sub_appid=checked.get("sub_appid"),
        answers_with=None if mode == CERTIFICATE else checked.get("public_key_id"),
    )


def _check_names(mode: str, given: Mapping[str, str]) -> None:
    """Exactly the fields of the mode: an optional field with a typing error must not be dropped in silence."""
    if mode not in MODES:
        raise AccountInvalid("mode", f"{mode!r} is no APIv3 mode: use one of {', '.join(MODES)}")
    for name in given:
        if name not in _FIELDS:
            raise AccountInvalid(name, f"{name} is no field of an APIv3 account: use {', '.join(sorted(_FIELDS))}")
        if name in _OF_PARTNERS and mode != PARTNER:
            raise AccountInvalid(name, f"{name} is for a service provider's sub-merchant: use mode {PARTNER}")
    for name in (*_REQUIRED, *_REQUIRED_BY_MODE[mode]):
        if name not in given:
            hint = f", or use mode {CERTIFICATE}" if name.startswith("public_key") else ""
            raise AccountInvalid(name, f"{name} is missing: mode {mode} needs it{hint}")
    for one, other in (("public_key", "public_key_id"), ("public_key_id", "public_key")):
        if one in given and other not in given:
            raise AccountInvalid(other, f"{other} is missing: the WeChat Pay public key and its id come together")


def _settings(mode: str, given: Mapping[str, str], gateways: GatewayRule) -> dict[str, str]:
    """The public part, checked and with its defaults filled in."""
    checked = {
        "mchid": _matching("mchid", given["mchid"], _MCHID, "the merchant number, digits such as 1900000001"),
        "appid": _app_id("appid", given["appid"]),
        "serial_no": _matching(
            "serial_no",
            given["serial_no"].replace(":", "").upper(),
            _SERIAL,
            "the merchant certificate's serial, hexadecimal, as the merchant platform shows it",
        ),
    }
    if mode == PARTNER:
        checked["sub_mchid"] = _matching("sub_mchid", given["sub_mchid"], _MCHID, "the sub-merchant's number, digits")
        if checked["sub_mchid"] == checked["mchid"]:
            raise AccountInvalid("sub_mchid", "sub_mchid is the service provider's own: write the sub-merchant's")
        if "sub_appid" in given:
            checked["sub_appid"] = _app_id("sub_appid", given["sub_appid"])
    if "public_key_id" in given:
        checked["public_key_id"] = _matching(
            "public_key_id", given["public_key_id"], _PUBLIC_KEY_ID, f"{PUBLIC_KEY_PREFIX} and what follows it"
        )
    for name in _LIST_OF_METHOD.values():
        if name in given:
            checked[name] = ",".join(_app_ids(name, given[name]))
    checked["gateway"] = _gateway(given.get("gateway", PRODUCTION_GATEWAY), gateways)
    return checked


def _gateway(url: str, gateways: GatewayRule) -> str:
    """The address without its last slash. It has no path: the signature covers the path as WeChat sees it."""
    checked = gateways.checked(url, example=PRODUCTION_GATEWAY).rstrip("/")
    if checked.count("/") != 2:
        raise AccountInvalid("gateway", f"gateway must look like {PRODUCTION_GATEWAY}, without a path")
    return checked


def _matching(name: str, text: str, pattern: re.Pattern[str], wanted: str) -> str:
    if pattern.fullmatch(text) is None:
        raise AccountInvalid(name, f"{name} is not what WeChat issues: write {wanted}")
    return text


def _app_id(name: str, text: str) -> str:
    return _matching(name, text, _APP_ID, "an app id, wx and 16 hexadecimal digits")


def _app_ids(name: str, text: str) -> list[str]:
    """The ids of a comma-separated list, each once, in their order."""
    found = list(dict.fromkeys(_app_id(name, one.strip()) for one in text.split(",")))
    if len(found) > _APPS_LIMIT:
        raise AccountInvalid(name, f"{name} has more than {_APPS_LIMIT} app ids")
    return found


def _apiv3_key(given: Mapping[str, str]) -> str:
    key = given["apiv3_key"]
    if _APIV3_KEY.fullmatch(key) is None:
        raise AccountInvalid(
            "apiv3_key",
            "apiv3_key must have 32 characters: the APIv3 key (APIv3密钥) set in the merchant platform",
        )
    return key


def _check_own_certificate(
    given: Mapping[str, str], settings: Mapping[str, str], own: RSAPublicKey, now: datetime
) -> None:
    name = "merchant_certificate"
    certificate = keys.load_certificates(given[name], field=name)[0]
    if not keys.same_key(keys.rsa_key(certificate), own):
        raise AccountInvalid(
            "private_key", "private_key does not belong to merchant_certificate: take both files of the same download"
        )
    if keys.serial_of(certificate).lstrip("0") != settings["serial_no"].lstrip("0"):
        raise AccountInvalid(
            "serial_no",
            f"serial_no is not that of merchant_certificate: write {keys.serial_of(certificate)} "
            "(a platform certificate's serial, or an older merchant certificate's, does not work)",
        )
    owner = [text for text in _common_names(certificate) if _MCHID.fullmatch(text)]
    if owner and settings["mchid"] not in owner:
        raise AccountInvalid(name, f"merchant_certificate was issued to merchant {owner[0]}, not to mchid")
    _check_dates(certificate, now, field=name)


def _common_names(certificate: x509.Certificate) -> list[str]:
    return [str(part.value) for part in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _check_dates(certificate: x509.Certificate, now: datetime, *, field: str) -> None:
    if now >= certificate.not_valid_after_utc:
        ended = certificate.not_valid_after_utc.date().isoformat()
        raise AccountInvalid(field, f"{field} expired on {ended}: replace it, or leave it out")
    if now < certificate.not_valid_before_utc:
        begins = certificate.not_valid_before_utc.date().isoformat()
        raise AccountInvalid(field, f"{field} is not valid before {begins}: check this server's clock")


def _refuse_own_key(theirs: RSAPublicKey, own: RSAPrivateKey, *, field: str) -> None:
    """What WeChat says is verified with this key: were it ours, anybody's echo of our own signature would pass."""
    if keys.same_key(theirs, own.public_key()):
        raise AccountInvalid(
            field,
            f"{field} is the merchant's own key: take WeChat's, which the merchant platform shows under "
            "API安全 (微信支付公钥, 平台证书)",
        )


def _typed_keys(given: Mapping[str, str], private_key: RSAPrivateKey) -> dict[str, PlatformKey]:
    typed: dict[str, PlatformKey] = {}
    if "platform_certificates" in given:
        certificates = keys.load_certificates(given["platform_certificates"], field="platform_certificates")
        typed |= from_certificates(certificates)
    if "public_key" in given:
        typed[given["public_key_id"]] = PlatformKey(keys.load_public_key(given["public_key"], field="public_key"))
    for serial, known in typed.items():
        named = "public_key" if serial.startswith(PUBLIC_KEY_PREFIX) else "platform_certificates"
        _refuse_own_key(known.key, private_key, field=named)
    return typed


def _offers(checked: Mapping[str, str]) -> dict[PaymentMethod, tuple[str, ...]]:
    usual = checked.get("sub_appid", checked["appid"])
    return {method: tuple(checked.get(_LIST_OF_METHOD.get(method, ""), usual).split(",")) for method in METHODS}


def _expected_claims(checked: Mapping[str, str]) -> dict[str, frozenset[str]]:
    offered = frozenset(app_id for apps in _offers(checked).values() for app_id in apps)
    if "sub_mchid" not in checked:
        return {"appid": offered | {checked["appid"]}, "mchid": frozenset({checked["mchid"]})}
    claims = {"sp_mchid": frozenset({checked["mchid"]}), "sub_mchid": frozenset({checked["sub_mchid"]})}
    if "sub_appid" not in checked:
        return claims | {"sp_appid": offered | {checked["appid"]}}
    return claims | {"sp_appid": frozenset({checked["appid"]}), "sub_appid": offered | {checked["sub_appid"]}}

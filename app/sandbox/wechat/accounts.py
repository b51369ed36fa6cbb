"""The merchants of the pretend WeChat: one record per way of connecting, with both sides' keys.

    v3               APIv3, WeChat Pay public key
    v3_certificate   APIv3, platform certificates; has a public key too, which a migration may switch to
    v3_partner       APIv3 as a service provider for a sub-merchant, public key
    v2 · v2_partner  the API key and the client certificate of older merchants
    cloud            keyless calls from inside WeChat's cloud

The ids are fixed so that they can be recognised; the keys are made fresh in each state directory. Certificates are
self-signed: nobody is given WeChat's root to check them against.
"""

import base64
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID

from app.sandbox.wechat.open_platform_apps import MINI_PROGRAM_APP_ID, OFFICIAL_ACCOUNT_APP_ID

PROVIDER = "WECHAT"
CERTIFICATE_LIFE = timedelta(days=5 * 365)
API_KEY_CHARS = string.ascii_letters + string.digits

# WeChat's own, under which cloud merchants are sub-merchants.
CLOUD_PLATFORM_APPID, CLOUD_PLATFORM_MCHID = "wx5a0db00000000009", "1800000001"
BOUND_APPIDS = frozenset({MINI_PROGRAM_APP_ID, OFFICIAL_ACCOUNT_APP_ID})

# In a record, but not told to merchants.
WECHAT_SIDE_ONLY = frozenset(
    {"public_key_private", "platform_private_key", "platform_certificate", "unused_public_key_id"}
)

Record = dict[str, str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key WeChat signs with. `key_id` is what `Wechatpay-Serial` says; `certificate` is None for a public key."""

    key_id: str
    private_key: RSAPrivateKey
    certificate: x509.Certificate | None = None

    @property
    def public_pem(self) -> str:
        return _public_pem(self.private_key)

    @property
    def certificate_pem(self) -> str:
        assert self.certificate is not None, "a public key has none"
        return _pem(self.certificate)


@dataclass(frozen=True, slots=True)
class V3Keys:
    """`certificate` is None for a merchant who only ever had the public key, `public_key` never is."""

    serial_no: str
    merchant_key: RSAPublicKey
    apiv3_key: bytes
    public_key: SigningKey
    certificate: SigningKey | None


@dataclass(frozen=True, slots=True)
class Merchant:
    """Who signs a call and who is paid by it: with a `sub_mchid` the latter is that one.

    `v3` is set for the v3 modes, `api_key` for the v2 modes, `env_id` and `cloud_service` for cloud.
    """

    mode: str
    mchid: str
    sub_mchid: str | None
    appids: frozenset[str]
    v3: V3Keys | None = None
    api_key: str = ""
    client_certificate: x509.Certificate | None = None
    env_id: str = ""
    cloud_service: str = ""

    @property
    def seller_id(self) -> str:
        """Who gets the money."""
        return self.sub_mchid or self.mchid


class Merchants:
    """All merchants; WeChat knows none by two modes at once."""

    def __init__(self, records: Iterable[Mapping[str, str]]) -> None:
        merchants = [load_merchant(record) for record in records if record["provider"] == PROVIDER]
        self._all = merchants
        self._v3 = {each.mchid: each for each in merchants if each.v3}
        self._v2 = {each.mchid: each for each in merchants if each.api_key}
        self._cloud = {each.sub_mchid or "": each for each in merchants if each.env_id}

    def all_v3(self) -> list[Merchant]:
        return list(self._v3.values())

    def find_v3(self, mchid: str) -> Merchant | None:
        return self._v3.get(mchid)

    def find_v2(self, mch_id: str) -> Merchant | None:
        return self._v2.get(mch_id)

    def find_cloud(self, sub_mch_id: str) -> Merchant | None:
        return self._cloud.get(sub_mch_id)

    def find(self, mchid: str) -> Merchant | None:
        """By the number of either the merchant who calls or the one who is paid."""
        return next((each for each in self._all if mchid in (each.mchid, each.sub_mchid)), None)


# Records: what a merchant may know of them, and reading them.


def published(record: Mapping[str, str], public_url: str) -> Record:
    """What a merchant may know of a record, and where to send calls to."""
    shown = {name: value for name, value in record.items() if name not in WECHAT_SIDE_ONLY}
    return {"provider": shown.pop("provider"), "mode": shown.pop("mode"), "gateway": public_url, **shown}


def load_merchant(record: Mapping[str, str]) -> Merchant:
    """Raises KeyError, ValueError or TypeError when a record is damaged."""
    match record["mode"].partition("_")[0]:
        case "v3":
            return Merchant(
                mode=record["mode"],
                mchid=record["mchid"],
                sub_mchid=record.get("sub_mchid"),
                appids=BOUND_APPIDS,
                v3=_load_v3_keys(record),
            )
        case "v2":
            return Merchant(
                mode=record["mode"],
                mchid=record["mch_id"],
                sub_mchid=record.get("sub_mch_id"),
                appids=BOUND_APPIDS,
                api_key=record["api_key"],
                client_certificate=_load_client_certificate(record),
            )
        case "cloud":
            return Merchant(
                mode="cloud",
                mchid=CLOUD_PLATFORM_MCHID,
                sub_mchid=record["sub_mch_id"],
                appids=BOUND_APPIDS,
                env_id=record["env_id"],
                cloud_service=record["cloud_service"],
            )
    raise ValueError(f"no merchant mode {record['mode']}")


def _load_v3_keys(record: Mapping[str, str]) -> V3Keys:
    certificate = None
    if "platform_private_key" in record:
        key = _load_private_key(record["platform_private_key"])
        certificate = signing_certificate(key, x509.load_pem_x509_certificate(record["platform_certificate"].encode()))
    return V3Keys(
        serial_no=record["serial_no"],
        merchant_key=_load_private_key(record["private_key"]).public_key(),
        apiv3_key=record["apiv3_key"].encode("ascii"),
        public_key=SigningKey(
            key_id=record.get("public_key_id") or record["unused_public_key_id"],
            private_key=_load_private_key(record["public_key_private"]),
        ),
        certificate=certificate,
    )


def _load_client_certificate(record: Mapping[str, str]) -> x509.Certificate:
    return _open_archive(base64.b64decode(record["client_certificate_p12"], validate=True), record["mch_id"])


# Opening a key takes 30 ms, and there are few: a sandbox reads its records four times, a test suite a thousand times.
@cache
def _open_archive(archive: bytes, password: str) -> x509.Certificate:
    _, certificate, _ = pkcs12.load_key_and_certificates(archive, password.encode())
    if certificate is None:
        raise ValueError("the client certificate archive holds no certificate")
    return certificate


@cache
def _load_private_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("not an RSA key")
    return key


# New records.


def _v3_record(mode: str, mchid: str, **ids: str) -> Record:
    key, public_key = new_key(), new_key()
    certificate = new_certificate(key, mchid)
    record = {
        "provider": PROVIDER,
        "mode": mode,
        "mchid": mchid,
        **_app_ids(),
        **ids,
        "serial_no": serial_of(certificate),
        "private_key": _private_pem(key),
        "merchant_certificate": _pem(certificate),
        "apiv3_key": _new_secret(),
        "public_key_private": _private_pem(public_key),
    }
    public_key_id = f"PUB_KEY_ID_01{mchid}{datetime.now(UTC):%Y%m%d}00{secrets.randbelow(10**12):012d}"
    if mode != "v3_certificate":
        return record | {"public_key_id": public_key_id, "public_key": _public_pem(public_key)}
    platform_key = new_key()
    return record | {
        "unused_public_key_id": public_key_id,
        "platform_private_key": _private_pem(platform_key),
        "platform_certificate": _pem(new_platform_certificate(platform_key)),
    }


def _v2_record(mode: str, mch_id: str, **ids: str) -> Record:
    key = new_key()
    certificate = new_certificate(key, mch_id)
    archive = pkcs12.serialize_key_and_certificates(
        b"Tenpay Certificate", key, certificate, None, BestAvailableEncryption(mch_id.encode())
    )
    return {
        "provider": PROVIDER,
        "mode": mode,
        "mch_id": mch_id,
        **_app_ids(),
        **ids,
        "api_key": _new_secret(),
        "client_certificate_p12": base64.b64encode(archive).decode(),
    }


def _cloud_record() -> Record:
    return {
        "provider": PROVIDER,
        "mode": "cloud",
        "sub_mch_id": "1900000106",
        "appid": MINI_PROGRAM_APP_ID,
        "env_id": "prod-sandbox-7g1a2b3c4d5e6f70",
        "cloud_service": "shouyin",
    }


def _app_ids() -> Record:
    return {
        "appid": OFFICIAL_ACCOUNT_APP_ID,
        "mini_program_appid": MINI_PROGRAM_APP_ID,
        "official_account_appid": OFFICIAL_ACCOUNT_APP_ID,
    }


# Fresh key material by mode, as kept in the accounts file; each takes some tenths of a second.
MAKERS: Mapping[str, Callable[[], Record]] = {
    "v3": partial(_v3_record, "v3", "1900000001"),
    "v3_certificate": partial(_v3_record, "v3_certificate", "1900000002"),
    "v3_partner": partial(_v3_record, "v3_partner", "1900000003", sub_mchid="1900000103"),
    "v2": partial(_v2_record, "v2", "1900000004"),
    "v2_partner": partial(_v2_record, "v2_partner", "1900000005", sub_mch_id="1900000105"),
    "cloud": _cloud_record,
}


# Keys and certificates.


def new_key() -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def new_platform_certificate(key: RSAPrivateKey) -> x509.Certificate:
    return new_certificate(key, "Sandbox Tenpay.com sign")


def new_certificate(key: RSAPrivateKey, common_name: str) -> x509.Certificate:
    """Valid from a day ago for five years."""
    begins = datetime.now(UTC) - timedelta(days=1)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Shouyin Sandbox"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
        ]
    )
    # 40 hex digits like WeChat's: the first bits are set, or else the text would be shorter now and then.
    serial_number = (0x5A << 152) | secrets.randbits(152)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial_number)
        .not_valid_before(begins)
        .not_valid_after(begins + CERTIFICATE_LIFE)
        .sign(key, SHA256())
    )


def signing_certificate(key: RSAPrivateKey, certificate: x509.Certificate) -> SigningKey:
    return SigningKey(serial_of(certificate), key, certificate)


def serial_of(certificate: x509.Certificate) -> str:
    """As WeChat writes it: upper-case hex."""
    return f"{certificate.serial_number:X}"


def _new_secret() -> str:
    return "".join(secrets.choice(API_KEY_CHARS) for _ in range(32))


def _private_pem(key: RSAPrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _public_pem(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()

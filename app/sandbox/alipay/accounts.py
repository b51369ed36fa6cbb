"""The merchant's apps at the pretend Alipay: one per way of connecting, with both sides' keys.

    public_key    公钥模式
    certificate   公钥证书模式, with a small CA of its own
    isv           服务商代开发: calls carry `app_auth_token`, the trades belong to the authorising merchant

The ids are fixed so that they can be recognised; the keys are made fresh in each state directory.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from app.sandbox.alipay.signing import certificate_sn, root_certificate_sn

PROVIDER = "ALIPAY"
ALIPAY_SIDE_ONLY = "alipay_private_key"
CERTIFICATE_LIFE = timedelta(days=3650)

_Issuer = tuple[x509.Certificate, RSAPrivateKey]


@dataclass(frozen=True, slots=True)
class Account:
    """One app with its keys loaded. `seller_id` is who gets the money, `auth_app_id` the app that was authorised."""

    mode: str
    app_id: str
    auth_app_id: str
    seller_id: str
    app_auth_token: str | None
    app_public_key: RSAPublicKey
    alipay_private_key: RSAPrivateKey
    app_cert_sn: str | None
    alipay_cert_sn: str | None
    alipay_root_cert_sn: str | None


def published(record: Mapping[str, str], public_url: str) -> dict[str, str]:
    """What a merchant may know of a record, and the gateway to send calls to.

    Keys: `provider mode gateway app_id seller_id app_private_key app_private_key_pkcs8 app_public_key
    alipay_public_key`, for `certificate` also `app_cert alipay_cert alipay_root_cert`, for `isv` also `app_auth_token
    auth_app_id`.
    """
    return {
        "provider": record["provider"],
        "mode": record["mode"],
        "gateway": f"{public_url}/gateway.do",
        **{name: value for name, value in record.items() if name not in ("provider", "mode", ALIPAY_SIDE_ONLY)},
    }


def load_account(record: Mapping[str, str]) -> Account:
    app_public_key = load_pem_public_key(record["app_public_key"].encode())
    alipay_private_key = _load_private_key(record[ALIPAY_SIDE_ONLY])
    assert isinstance(app_public_key, RSAPublicKey)
    has_certificates = record["mode"] == "certificate"
    return Account(
        mode=record["mode"],
        app_id=record["app_id"],
        auth_app_id=record.get("auth_app_id", record["app_id"]),
        seller_id=record["seller_id"],
        app_auth_token=record.get("app_auth_token"),
        app_public_key=app_public_key,
        alipay_private_key=alipay_private_key,
        app_cert_sn=_sn_of(record["app_cert"]) if has_certificates else None,
        alipay_cert_sn=_sn_of(record["alipay_cert"]) if has_certificates else None,
        alipay_root_cert_sn=root_certificate_sn(record["alipay_root_cert"]) if has_certificates else None,
    )


# Opening a key takes 30 ms, and there are few: a sandbox reads its records four times, a test suite a thousand times.
@cache
def _load_private_key(pem: str) -> RSAPrivateKey:
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


def _public_key_record() -> dict[str, str]:
    return {
        "provider": PROVIDER,
        "mode": "public_key",
        "app_id": "9021000100000001",
        "seller_id": "2088720000000001",
        **_key_fields(_new_key(), _new_key()),
    }


def _certificate_record() -> dict[str, str]:
    app_key, alipay_key = _new_key(), _new_key()
    root = _self_signed_root()
    app_id, seller_id = "9021000100000002", "2088720000000002"
    return {
        "provider": PROVIDER,
        "mode": "certificate",
        "app_id": app_id,
        "seller_id": seller_id,
        **_key_fields(app_key, alipay_key),
        "app_cert": _pem(_issue(root, _name(f"{seller_id}-{app_id}", "Sandbox Merchant"), app_key.public_key())),
        "alipay_cert": _pem(_issue(root, _name("Sandbox Alipay", "Shouyin Sandbox"), alipay_key.public_key())),
        # Alipay's bundle also holds certificates that are not RSA, which a serial number must skip.
        "alipay_root_cert": _pem(_elliptic_root()) + _pem(root[0]),
    }


def _isv_record() -> dict[str, str]:
    return {
        "provider": PROVIDER,
        "mode": "isv",
        "app_id": "9021000100000003",
        "auth_app_id": "2021000100000003",
        "seller_id": "2088720000000003",
        "app_auth_token": f"202611BB{secrets.token_hex(16)}",  # 40 characters, the documented length
        **_key_fields(_new_key(), _new_key()),
    }


def _new_key() -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _key_fields(app_key: RSAPrivateKey, alipay_key: RSAPrivateKey) -> dict[str, str]:
    """`app_private_key` is PKCS#1 PEM: the official Python and Node SDKs take that unchanged, Java wants PKCS#8."""
    return {
        "app_private_key": _private_pem(app_key, PrivateFormat.TraditionalOpenSSL),
        "app_private_key_pkcs8": _private_pem(app_key, PrivateFormat.PKCS8),
        "app_public_key": _public_pem(app_key),
        "alipay_public_key": _public_pem(alipay_key),
        ALIPAY_SIDE_ONLY: _private_pem(alipay_key, PrivateFormat.PKCS8),
    }


def _private_pem(key: RSAPrivateKey, form: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def _public_pem(key: RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _sn_of(pem: str) -> str:
    return certificate_sn(x509.load_pem_x509_certificate(pem.encode()))


def _name(common_name: str, organisation: str) -> x509.Name:
    """In the order of Alipay's certificates; the serial number's text is this order reversed."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _self_signed_root() -> _Issuer:
    key = _new_key()
    name = _name("Shouyin Sandbox Root Authority R1", "Shouyin Sandbox")
    return _certificate(name, name, key.public_key(), is_authority=True).sign(key, SHA256()), key


def _elliptic_root() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Shouyin Sandbox Root Authority E1", "Shouyin Sandbox")
    return _certificate(name, name, key.public_key(), is_authority=True).sign(key, SHA256())


def _issue(issuer: _Issuer, subject: x509.Name, key: RSAPublicKey) -> x509.Certificate:
    certificate, issuer_key = issuer
    return _certificate(subject, certificate.subject, key, is_authority=False).sign(issuer_key, SHA256())


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: RSAPublicKey | ec.EllipticCurvePublicKey, *, is_authority: bool
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )


# Fresh key material for one account per mode, as kept in the accounts file; each takes some tenths of a second.
MAKERS = {"public_key": _public_key_record, "certificate": _certificate_record, "isv": _isv_record}

"""Keys, certificates and accounts for the Alipay tests, and Alipay's side of the signatures.

What Alipay signs here is put together in this file, from the documentation and not from the adapter: a rule that is
wrong in the adapter must not be wrong here for the same reason.
"""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "alipay"

APP_ID = "2021000000000000"
SELLER_ID = "2088000000000001"
MERCHANT_APP_ID = "2021000000000009"


def vectors(name: str) -> Any:
    """A file of published vectors; skips the test, visibly, where they are not beside the repository."""
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"published vectors are not at {path}")
    return json.loads(path.read_text("utf-8"))


@cache
def key(name: str, bits: int = 2048) -> RSAPrivateKey:
    """One key per name and test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def private_text(name: str, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key(name).private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def public_text(name: str, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return key(name).public_key().public_bytes(Encoding.PEM, form).decode()


def certificate(
    subject: str,
    public_key: RSAPublicKey,
    *,
    issuer: x509.Certificate | None,
    issuer_key: RSAPrivateKey | ec.EllipticCurvePrivateKey,
    authority: bool = False,
    now: datetime | None = None,
    life: timedelta = timedelta(days=100),
) -> x509.Certificate:
    """A certificate with its name in the order Alipay uses; self-signed where `issuer` is None."""
    now = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer.subject if issuer else _name(subject))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer_key, SHA256())
    )


@cache
def authority(name: str) -> x509.Certificate:
    """A self-signed root."""
    return certificate(name, key(name).public_key(), issuer=None, issuer_key=key(name), authority=True)


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def public_key_fields() -> dict[str, str]:
    """What an operator types for mode public_key."""
    return {
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "app_private_key": private_text("app"),
        "alipay_public_key": public_text("alipay"),
    }


def certificate_fields() -> dict[str, str]:
    """What an operator types for mode certificate: an intermediate beside the leaf, as in Alipay's own file."""
    root, middle = authority("root"), intermediate()
    app = certificate(f"{SELLER_ID}-{APP_ID}", key("app").public_key(), issuer=middle, issuer_key=key("intermediate"))
    alipay = certificate("Alipay", key("alipay").public_key(), issuer=middle, issuer_key=key("intermediate"))
    return {
        "app_id": APP_ID,
        "seller_id": SELLER_ID,
        "app_private_key": private_text("app"),
        "app_cert": pem(app),
        "alipay_cert": pem(alipay, middle),
        "alipay_root_cert": pem(root),
    }


@cache
def intermediate() -> x509.Certificate:
    return certificate(
        "Class 2 R1", key("intermediate").public_key(), issuer=authority("root"), issuer_key=key("root"), authority=True
    )


def isv_fields() -> dict[str, str]:
    """What an operator types for mode isv."""
    return {**public_key_fields(), "app_auth_token": "202611BB0123456789abcdef", "auth_app_id": MERCHANT_APP_ID}


FIELDS_OF_MODE = {"public_key": public_key_fields, "certificate": certificate_fields, "isv": isv_fields}


def alipay_signature(content: bytes, by: str = "alipay") -> str:
    return base64.b64encode(key(by).sign(content, padding.PKCS1v15(), SHA256())).decode()


def signed_answer(method: str, fields: Mapping[str, Any], *, charset: str = "utf-8", by: str = "alipay") -> bytes:
    """An answer as the gateway writes it: escaped slashes, the signature over the inner text alone."""
    inner = json.dumps(fields, ensure_ascii=False).replace("/", "\\/")
    signature = alipay_signature(inner.encode(charset), by)
    return f'{{"{method.replace(".", "_")}_response":{inner},"sign":"{signature}"}}'.encode(charset)


def unsigned_answer(node: str, fields: Mapping[str, Any]) -> bytes:
    return json.dumps({node: fields}).encode()


PAID_NOTICE = {
    "notify_id": "2026112200222000000000000000000001",
    "notify_time": "2026-11-22 08:00:01",
    "notify_type": "trade_status_sync",
    "app_id": APP_ID,
    "auth_app_id": APP_ID,
    "charset": "utf-8",
    "version": "1.0",
    "trade_status": "TRADE_SUCCESS",
    "out_trade_no": "SY20261122000001",
    "trade_no": "2026112222001400000000000001",
    "total_amount": "19.90",
    "receipt_amount": "19.90",
    "seller_id": SELLER_ID,
    "buyer_id": "2088000000000002",
    "gmt_create": "2026-11-22 07:59:00",
    "gmt_payment": "2026-11-22 08:00:00",
    "subject": "会员 a+b & c=d 100% ",
    "passback_params": "k%3Dv%26x%3D1",
    "body": "",
}


SIGNED_NOTICE = {
    "notify_id": "2026112200222000000000000000000011",
    "notify_time": "2026-11-22 08:00:01",
    "notify_type": "dut_user_sign",
    "app_id": APP_ID,
    "auth_app_id": APP_ID,
    "charset": "utf-8",
    "version": "1.0",
    "status": "NORMAL",
    "agreement_no": "20265522000000000001",
    "external_agreement_no": "SA20261122000001",
    "personal_product_code": "CYCLE_PAY_AUTH_P",
    "sign_scene": "INDUSTRY|DIGITAL_MEDIA",
    "alipay_user_id": "2088000000000002",
    "alipay_logon_id": "tes***@example.com",
    "external_logon_id": "会员 7 & Co=",
    "sign_time": "2026-11-22 08:00:00",
    "valid_time": "2026-11-22 08:00:00",
    "invalid_time": "2115-02-01 00:00:00",
}
UNSIGNED_NOTICE = {
    name: value
    for name, value in SIGNED_NOTICE.items()
    if name not in ("external_logon_id", "sign_time", "valid_time", "invalid_time")
} | {"notify_type": "dut_user_unsign", "status": "UNSIGN", "unsign_time": "2026-12-01 09:30:00"}


def notice_content(fields: Mapping[str, str], *, left_out: tuple[str, ...] = ("sign", "sign_type")) -> str:
    return "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name] and name not in left_out)


def form(fields: Mapping[str, str], charset: str = "utf-8") -> bytes:
    return "&".join(f"{name}={quote_plus(value, encoding=charset)}" for name, value in fields.items()).encode()


def signed_notice(
    fields: Mapping[str, str], *, rule: int = 1, charset: str = "utf-8", by: str = "alipay", sign_type: str = "RSA2"
) -> bytes:
    """A notification's form body, signed by rule V1 or V2."""
    whole = {**fields, "sign_type": sign_type}
    left_out = ("sign", "sign_type") if rule == 1 else ("sign",)
    signature = alipay_signature(notice_content(whole, left_out=left_out).encode(charset), by)
    return form({**whole, "sign": signature}, charset)


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test Financial"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Certification Authority"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )

"""Keys, certificates and accounts for the APIv3 tests, and WeChat's side of the signatures and of the encryption.

What WeChat signs here is put together in this file, from the documentation and not from the adapter: a rule that is
wrong in the adapter must not be wrong here for the same reason.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors" / "wechat"

NOW = datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC)
NUMBER = "SY20261122000001"
TRANSACTION = "4200000000202611220000000001"

MCHID = "1900000001"
SUB_MCHID = "1900000109"
APP_ID = "wx0000000000000001"
MINI_APP_ID = "wx0000000000000002"
SUB_APP_ID = "wx0000000000000009"
OPENID = "oTestOpenid0001"
APIV3_KEY = "0123456789abcdefABCDEF0123456789"
PUBLIC_KEY_ID = "PUB_KEY_ID_0119000000012026112200000001"


def vector_bytes(name: str) -> bytes:
    """A published file; skips the test, visibly, where the vectors are not beside the repository."""
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"published vectors are not at {path}")
    return path.read_bytes()


def vectors(group: str) -> Any:
    """One group of the published vectors; skips as `vector_bytes` does."""
    return json.loads(vector_bytes("vectors.json"))[group]


@cache
def key(name: str, bits: int = 2048) -> RSAPrivateKey:
    """One key per name and test run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def private_text(name: str, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    return key(name).private_bytes(Encoding.PEM, form, NoEncryption()).decode()


def public_text(name: str, form: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return key(name).public_key().public_bytes(Encoding.PEM, form).decode()


@cache
def certificate(
    name: str, *, owner: str = "Tenpay.com sign", begins: datetime = NOW, life: timedelta = timedelta(days=1825)
) -> x509.Certificate:
    """A certificate of the key of this name, in force for five years from the day before `begins`."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
    serial = int.from_bytes(name.encode().ljust(19, b"\x01")[:19], "big") | 0x5A << 152
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key(name).public_key())
        .serial_number(serial)
        .not_valid_before(begins - timedelta(days=1))
        .not_valid_after(begins - timedelta(days=1) + life)
        .sign(key("authority"), SHA256())
    )


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)


def serial(name: str) -> str:
    """The serial of the certificate of this name, as it stands in headers."""
    return f"{certificate(name).serial_number:X}"


def merchant_certificate() -> x509.Certificate:
    return certificate("merchant", owner=MCHID)


def _common_fields() -> dict[str, str]:
    return {
        "mchid": MCHID,
        "appid": APP_ID,
        "serial_no": f"{merchant_certificate().serial_number:X}",
        "private_key": private_text("merchant"),
        "apiv3_key": APIV3_KEY,
    }


def _public_key_fields() -> dict[str, str]:
    return {"public_key_id": PUBLIC_KEY_ID, "public_key": public_text("wechat")}


FIELDS_OF_MODE: dict[str, Callable[[], dict[str, str]]] = {
    "v3": lambda: _common_fields() | _public_key_fields(),
    "v3_certificate": _common_fields,
    "v3_partner": lambda: _common_fields() | _public_key_fields() | {"sub_mchid": SUB_MCHID, "sub_appid": SUB_APP_ID},
}


def stamped(
    body: bytes,
    *,
    by: str = "wechat",
    named: str = PUBLIC_KEY_ID,
    at: datetime | None = None,
    nonce: str = "d824f2e086d3c1df967785d13fcd22ef",
) -> dict[str, str]:
    """WeChat's headers over these bytes, lower case: signed with the key `by`, which they call `named`."""
    timestamp = str(int((at or NOW).timestamp()))
    message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = base64.b64encode(key(by).sign(message, padding.PKCS1v15(), SHA256())).decode()
    return {
        "wechatpay-timestamp": timestamp,
        "wechatpay-nonce": nonce,
        "wechatpay-serial": named,
        "wechatpay-signature": signature,
        "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
    }


def by_certificate(name: str) -> dict[str, Any]:
    """For `stamped`: signed with the platform certificate of this name."""
    return {"by": name, "named": serial(name)}


def encrypted(plaintext: bytes, *, apiv3_key: str = APIV3_KEY, associated_data: str = "transaction") -> dict[str, str]:
    """A resource as WeChat encrypts it."""
    nonce = base64.b32encode(os.urandom(10)).decode()[:12]
    sealed = AESGCM(apiv3_key.encode()).encrypt(nonce.encode(), plaintext, associated_data.encode())
    return {
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(sealed).decode(),
        "associated_data": associated_data,
        "nonce": nonce,
    }


def certificates_answer(*names: str, apiv3_key: str = APIV3_KEY) -> bytes:
    """What /v3/certificates says."""
    items = [
        {
            "serial_no": serial(name),
            "effective_time": certificate(name).not_valid_before_utc.isoformat(),
            "expire_time": certificate(name).not_valid_after_utc.isoformat(),
            "encrypt_certificate": encrypted(
                pem(certificate(name)).encode(), apiv3_key=apiv3_key, associated_data="certificate"
            ),
        }
        for name in names
    ]
    return json.dumps({"data": items}).encode()


PAID: dict[str, Any] = {
    "appid": APP_ID,
    "mchid": MCHID,
    "out_trade_no": NUMBER,
    "transaction_id": TRANSACTION,
    "trade_type": "JSAPI",
    "trade_state": "SUCCESS",
    "trade_state_desc": "支付成功",
    "bank_type": "OTHERS",
    "attach": "uid=7",
    "success_time": "2026-11-22T09:02:01+08:00",
    "payer": {"openid": OPENID},
    "amount": {"total": 1990, "payer_total": 1890, "currency": "CNY", "payer_currency": "CNY"},
}
PARTNER_PAID: dict[str, Any] = {
    name: value for name, value in PAID.items() if name not in ("appid", "mchid", "payer")
} | {
    "sp_appid": APP_ID,
    "sp_mchid": MCHID,
    "sub_appid": SUB_APP_ID,
    "sub_mchid": SUB_MCHID,
    "payer": {"sp_openid": "oAtTheProvider", "sub_openid": OPENID},
}
EVENT_ID = "EV-2018022511223320873"


def notice(
    transaction: Mapping[str, Any] | bytes | None = None,
    *,
    apiv3_key: str = APIV3_KEY,
    resource: Mapping[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """The body of a notification; `resource` and `changes` replace parts of it, None takes a part out."""
    content = transaction if isinstance(transaction, bytes) else json.dumps(transaction or PAID).encode()
    sealed = {"original_type": "transaction", **encrypted(content, apiv3_key=apiv3_key), **(resource or {})}
    envelope: dict[str, Any] = {
        "id": EVENT_ID,
        "create_time": "2026-11-22T09:02:02+08:00",
        "resource_type": "encrypt-resource",
        "event_type": "TRANSACTION.SUCCESS",
        "summary": "支付成功",
        "resource": {name: value for name, value in sealed.items() if value is not None},
    }
    whole = envelope | changes
    return json.dumps({name: value for name, value in whole.items() if value is not None}, ensure_ascii=False).encode()

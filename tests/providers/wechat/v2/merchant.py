"""Accounts for the tests of APIv2, and WeChat's side of its signatures and documents.

What WeChat signs here is put together in this file, from the documentation and not from the adapter: a rule that is
wrong in the adapter must not be wrong here for the same reason.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID

VECTORS = Path(__file__).resolve().parents[5] / "shared" / "vectors" / "wechat"

MCH_ID = "1900000001"
SUB_MCH_ID = "1900000109"
APP_ID = "wx0000000000000001"
SUB_APP_ID = "wx0000000000000009"
API_KEY = "0123456789abcdefABCDEF0123456789"
OPENID = "oTestOpenid0001"
NUMBER = "SY20261122000001"


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
def client_key() -> RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def p12(
    *,
    owner: str = MCH_ID,
    password: str = MCH_ID,
    begins: datetime | None = None,
    life: timedelta = timedelta(days=100),
) -> str:
    """apiclient_cert.p12 in base64, as an operator pastes it."""
    begins = begins or datetime.now(UTC) - timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(client_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + life)
        .sign(client_key(), SHA256())
    )
    encryption = BestAvailableEncryption(password.encode())
    return base64.b64encode(
        serialize_key_and_certificates(b"Tenpay", client_key(), certificate, None, encryption)
    ).decode()


def v2_fields(**changes: str) -> dict[str, str]:
    """What an operator types for mode v2."""
    return {"mch_id": MCH_ID, "appid": APP_ID, "api_key": API_KEY, "gateway": "http://127.0.0.1:1"} | changes


def partner_fields(**changes: str) -> dict[str, str]:
    """What an operator types for mode v2_partner, the payer being the sub-merchant's user."""
    return v2_fields(sub_mch_id=SUB_MCH_ID, sub_appid=SUB_APP_ID) | changes


def wechat_sign(fields: Mapping[str, str], sign_type: str = "HMAC-SHA256", *, key: str = API_KEY) -> str:
    joined = "".join(f"{name}={value}&" for name, value in sorted(fields.items()) if value and name != "sign")
    content = (joined + "key=" + key).encode()
    if sign_type == "MD5":
        return hashlib.md5(content).hexdigest().upper()
    return hmac.new(key.encode(), content, hashlib.sha256).hexdigest().upper()


def document(fields: Mapping[str, str]) -> bytes:
    """XML as WeChat writes it: line ends between the fields, texts in CDATA, fees as they are."""
    inner = "".join(
        f"  <{name}>{value}</{name}>\n" if value.isdigit() else f"  <{name}><![CDATA[{value}]]></{name}>\n"
        for name, value in fields.items()
    )
    return f"<xml>\n{inner}</xml>".encode()


def signed(fields: Mapping[str, str], sign_type: str = "HMAC-SHA256", *, key: str = API_KEY) -> bytes:
    """An answer or a notice of WeChat."""
    return document({**fields, "sign": wechat_sign(fields, sign_type, key=key)})


def fields_of(body: bytes) -> dict[str, str]:
    """The fields of a document that we sent, read without the adapter's reader."""
    found = re.findall(r"<(\w+)>([^<]*)</\1>", body.decode().removeprefix("<xml>").removesuffix("</xml>"))
    unescaped = {
        name: text.replace("&#13;", "\r").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        for name, text in found
    }
    assert len(unescaped) == len(found)
    return unescaped


ANSWER = {
    "return_code": "SUCCESS",
    "return_msg": "OK",
    "appid": APP_ID,
    "mch_id": MCH_ID,
    "nonce_str": "IITRi8Iabbblz1Jc",
    "result_code": "SUCCESS",
}

PAID = {
    "return_code": "SUCCESS",
    "appid": APP_ID,
    "mch_id": MCH_ID,
    "nonce_str": "5d2b6c2a8db53831f7eda20af46e531c",
    "result_code": "SUCCESS",
    "openid": OPENID,
    "is_subscribe": "Y",
    "trade_type": "JSAPI",
    "bank_type": "CFT",
    "total_fee": "1990",
    "fee_type": "CNY",
    "cash_fee": "1980",
    "coupon_fee": "10",
    "coupon_count": "1",
    "coupon_id_0": "10000",
    "transaction_id": "4200000000202611220000000001",
    "out_trade_no": NUMBER,
    "attach": "支付 测试 <a&b> 100%",
    "time_end": "20261122080000",
}

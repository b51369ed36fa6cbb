"""The sandbox's own APIv3 signer and cipher against what WeChat and the public SDKs published."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from app.sandbox.wechat.accounts import serial_of
from app.sandbox.wechat.signing import answer_message, encrypted, request_message, sign, verified

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "wechat"


def published(name: str) -> bytes:
    """A file of published vectors; skips the test, visibly, where they are not beside the repository."""
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"published vectors are not at {path}")
    return path.read_bytes()


def vector(group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(case for case in json.loads(published("vectors.json"))[group] if case["id"] == name)
    return found


@cache
def private_key(name: str) -> RSAPrivateKey:
    key = load_pem_private_key(published(name), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


@pytest.mark.parametrize(
    "name", ["doc-jsapi-paysign", "doc-app-paysign", "doc-authorization-jsapi-prepay", "wechatpy-get"]
)
def test_a_published_signature_comes_out_and_holds(name: str) -> None:
    case = vector("rsa_sign", name)
    key, message = private_key(case["key"]), case["message"].encode()
    assert sign(key, message) == case["signature"]
    assert verified(key.public_key(), message, case["signature"])
    assert not verified(key.public_key(), message + b"\n", case["signature"])


def test_a_requests_message_is_the_documented_one() -> None:
    case = vector("rsa_sign", "doc-authorization-jsapi-prepay")
    message = request_message(
        case["method"], case["path"].encode(), case["timestamp"], case["nonce"], case["body"].encode()
    )
    assert message == case["message"].encode()


def test_a_published_answer_holds_under_the_public_key() -> None:
    case = vector("rsa_verify", "doc-public-key-mode-response")
    key = load_pem_public_key(published(case["public_key"]))
    assert isinstance(key, RSAPublicKey)
    headers = case["headers"]
    message = answer_message(headers["Wechatpay-Timestamp"], headers["Wechatpay-Nonce"], case["body"].encode())
    assert verified(key, message, headers["Wechatpay-Signature"])
    assert not verified(key, message.replace(b"pr=J", b"pr=K"), headers["Wechatpay-Signature"])


@pytest.mark.parametrize("prefix", ["java_merchant", "java_wechat_pay"])
def test_a_certificates_serial_is_written_as_wechat_does(prefix: str) -> None:
    pairs = json.loads(published("vectors.json"))["java_key_pairs"]
    serial = next(pair["serial"] for pair in pairs if pair["private"].startswith(prefix))
    assert serial_of(x509.load_pem_x509_certificate(published(f"{prefix}_certificate.pem"))) == serial


@pytest.mark.parametrize("associated_data", ["transaction", ""])
def test_a_resource_is_decrypted_by_the_documented_rules(associated_data: str) -> None:
    key, plaintext = b"0123456789abcdef0123456789abcdef", "一杯咖啡".encode()
    resource = encrypted(key, plaintext, associated_data)
    assert (resource["algorithm"], resource["associated_data"]) == ("AEAD_AES_256_GCM", associated_data)
    assert len(resource["nonce"]) == 12
    ciphertext = base64.b64decode(resource["ciphertext"], validate=True)
    assert AESGCM(key).decrypt(resource["nonce"].encode(), ciphertext, associated_data.encode()) == plaintext


@pytest.mark.parametrize("signature", ["", "AAAA", "not base64", "WECHATPAY/SIGNTEST/AAAA"])
def test_what_is_no_signature_is_none(signature: str) -> None:
    key = private_key("java_wechat_pay_private_key.pem").public_key()
    assert not verified(key, b"message", signature)

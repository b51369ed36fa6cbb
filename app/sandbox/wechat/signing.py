"""APIv3's signatures and its cipher, written for the sandbox alone.

Request:              method, path with query, timestamp, nonce, body; each line ended by a line feed, the last one too.
Answer, notification: timestamp, nonce, body.

RSA PKCS#1 v1.5 with SHA-256, Base64. The resource of a notification and a platform certificate are AES-256-GCM under
the APIv3 key's 32 characters.

Source: pay.weixin.qq.com/doc/v3/merchant/4012365336, 4013053249, 4012071382, read 2026-09.
"""

import base64
import binascii
import secrets
import string

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

SCHEME = "WECHATPAY2-SHA256-RSA2048"
ALGORITHM = "AEAD_AES_256_GCM"
NONCE_CHARS = string.ascii_letters + string.digits


def request_message(method: str, target: bytes, timestamp: str, nonce: str, body: bytes) -> bytes:
    """`target` is the path with its query exactly as it was sent."""
    lines = (method.encode(), target, timestamp.encode(), nonce.encode(), body)
    return b"".join(line + b"\n" for line in lines)


def answer_message(timestamp: str, nonce: str, body: bytes) -> bytes:
    return f"{timestamp}\n{nonce}\n".encode() + body + b"\n"


def sign(key: RSAPrivateKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()


def verified(key: RSAPublicKey, message: bytes, signature: str) -> bool:
    """Whether `signature` (base64, strictly) is the key's over `message`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def encrypted(apiv3_key: bytes, plaintext: bytes, associated_data: str) -> dict[str, str]:
    """The four fields of an encrypted resource."""
    nonce = new_nonce(12)
    ciphertext = AESGCM(apiv3_key).encrypt(nonce.encode(), plaintext, associated_data.encode())
    return {
        "algorithm": ALGORITHM,
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "associated_data": associated_data,
        "nonce": nonce,
    }


def new_nonce(length: int = 32) -> str:
    return "".join(secrets.choice(NONCE_CHARS) for _ in range(length))

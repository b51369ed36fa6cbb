"""APIv3's cryptography: what is signed, how it is verified, and how a resource is opened.

    request     METHOD\\n target \\n timestamp \\n nonce \\n body \\n     merchant's key, SHA-256 with RSA (PKCS#1 v1.5)
    answer      timestamp \\n nonce \\n body \\n                        WeChat's key
    page        appId \\n timeStamp \\n nonceStr \\n package \\n         merchant's key
    resource    AES-256-GCM under the APIv3 key, the tag behind the ciphertext

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012365342, /4013053249 and /4012071382, read 2026-09-11.
"""

import base64
import binascii
import re
import secrets

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

SCHEME = "WECHATPAY2-SHA256-RSA2048"
_TAG_BYTES = 16
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)


def new_nonce() -> str:
    """32 random hexadecimal characters, the longest WeChat takes."""
    return secrets.token_hex(16)


def sign(key: RSAPrivateKey, message: bytes) -> str:
    """The base64 of the signature; the same message always gives the same text."""
    return base64.b64encode(key.sign(message, padding.PKCS1v15(), SHA256())).decode("ascii")


def request_message(method: str, target: str, timestamp: str, nonce: str, body: bytes) -> bytes:
    """What a request signs. `target` is path and query exactly as sent."""
    return f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode("ascii") + body + b"\n"


def authorization(
    key: RSAPrivateKey, *, mchid: str, serial_no: str, method: str, target: str, timestamp: str, nonce: str, body: bytes
) -> str:
    """The Authorization header of a request whose body is exactly `body`."""
    signature = sign(key, request_message(method, target, timestamp, nonce, body))
    return (
        f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",timestamp="{timestamp}",'
        f'serial_no="{serial_no}",signature="{signature}"'
    )


def page_signature(key: RSAPrivateKey, *, app_id: str, timestamp: str, nonce: str, package: str) -> str:
    """The paySign that wx.requestPayment and WeixinJSBridge want."""
    return sign(key, f"{app_id}\n{timestamp}\n{nonce}\n{package}\n".encode("ascii"))


def verifies(key: RSAPublicKey, *, timestamp: str, nonce: str, body: bytes, signature: str) -> bool:
    """Whether `signature` is that of WeChat over these received bytes. False for any text that is no signature."""
    decoded = _strict_base64(signature)
    if decoded is None:
        return False
    try:
        message = f"{timestamp}\n{nonce}\n".encode("ascii") + body + b"\n"
        key.verify(decoded, message, padding.PKCS1v15(), SHA256())
    except (InvalidSignature, UnicodeEncodeError):
        return False
    return True


def decrypted(key: bytes, *, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """The plaintext of an AEAD_AES_256_GCM resource. Raises ValueError for whatever was not made with `key`."""
    sealed = _strict_base64(ciphertext)
    if sealed is None or len(sealed) < _TAG_BYTES:
        raise ValueError("the ciphertext is no base64, or too short")
    try:
        return AESGCM(key).decrypt(nonce.encode(), sealed, associated_data.encode())
    except InvalidTag as exc:
        raise ValueError("the ciphertext was not made with this APIv3 key") from exc


def _strict_base64(text: str) -> bytes | None:
    """Decoded, if it is the one way to write those bytes: neither blanks nor stray bits at the end."""
    if _BASE64.fullmatch(text) is None:
        return None
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode("ascii") == text else None

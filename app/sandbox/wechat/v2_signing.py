"""APIv2's signature, of messages and of what the client is given to pay with, and the cipher of its refund notices.

Written for the sandbox alone.

All parameters that are not empty, without `sign`, sorted by name, `k=v` joined with `&`, then `&key=` and the API key;
MD5 of that, or HMAC-SHA256 under the same key; upper-case hex.
The cipher is AES-256-ECB with PKCS#7 under the 32 characters of the API key's MD5 in lower-case hex: WeChat's choice,
which hides nothing that repeats and protects nothing from change.
Source: pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=4_3, 7_7 and 9_16, read 2026-09.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.padding import PKCS7

from app.sandbox.wechat.trades import ClientCall

MD5, HMAC_SHA256 = "MD5", "HMAC-SHA256"
SIGN_TYPES = (MD5, HMAC_SHA256)
HMAC_LENGTH = 64


def sign(fields: Mapping[str, str | int], key: str, sign_type: str) -> str:
    """The signature over every field but `sign`; numbers count as they are written."""
    pairs = sorted((name, str(value)) for name, value in fields.items() if name != "sign" and value != "")
    text = "&".join([*(f"{name}={value}" for name, value in pairs), f"key={key}"]).encode()
    if sign_type == HMAC_SHA256:
        return hmac.new(key.encode(), text, hashlib.sha256).hexdigest().upper()
    return hashlib.md5(text, usedforsecurity=False).hexdigest().upper()


def is_signed(fields: Mapping[str, str], key: str, sign_type: str) -> bool:
    return hmac.compare_digest(sign(fields, key, sign_type).encode(), fields.get("sign", "").encode())


def encrypted(plaintext: bytes, key: str) -> str:
    """What stands in `req_info`, base64."""
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return base64.b64encode(ecb_encrypted(plaintext, digest.encode())).decode()


def ecb_encrypted(plaintext: bytes, key: bytes) -> bytes:
    padder = PKCS7(128).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = Cipher(AES256(key), ECB()).encryptor()  # noqa: S305 - WeChat's choice, see the module
    return encryptor.update(padded) + encryptor.finalize()


def is_client_signed(call: ClientCall, key: str) -> bool:
    """Whether `pay_sign` is right by the sign type that the call itself names; the channel knows which is right."""
    wanted = sign(_client_parameters(call), key, call.sign_type)
    return call.sign_type in SIGN_TYPES and hmac.compare_digest(wanted.encode(), call.pay_sign.encode())


def client_parameters(*, app_id: str, timestamp: int, nonce: str, prepay_id: str, key: str) -> dict[str, str]:
    """What the cloud hands out for `wx.requestPayment`, signed with MD5."""
    unsigned = ClientCall(app_id, str(timestamp), nonce, f"prepay_id={prepay_id}", MD5, "")
    parameters = _client_parameters(unsigned)
    return parameters | {"paySign": sign(parameters, key, MD5)}


def _client_parameters(call: ClientCall) -> dict[str, str]:
    return {
        "appId": call.app_id,
        "timeStamp": call.time_stamp,
        "nonceStr": call.nonce_str,
        "package": call.package,
        "signType": call.sign_type,
    }

"""The cipher of a refund notice's `req_info`: AES-256-ECB under the hex text of the API key's MD5.

The notice carries no signature and ECB has no integrity: what comes out is a hint to ask about the refund, never proof.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_16, read 2026-09-11.
"""

import base64
import binascii
import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.padding import PKCS7

from app.providers.wechat.xml import read_fields


def read_req_info(req_info: str, *, api_key: str) -> dict[str, str]:
    """The refund's fields in `req_info`. Raises ValueError for a text that this key did not encrypt."""
    # The text of the digest is the key, its leading zeros included.
    key = hashlib.md5(api_key.encode(), usedforsecurity=False).hexdigest().encode()
    return read_fields(decrypt(req_info, key=key), root="root")


def decrypt(ciphertext: str, *, key: bytes) -> bytes:
    """The plaintext of a base64 text, PKCS#7 padding removed. Raises ValueError."""
    try:
        encrypted = base64.b64decode(ciphertext, validate=True)
    except binascii.Error as exc:
        raise ValueError("req_info is not base64") from exc
    # The mode is WeChat's choice; the module's docstring says what it is not good for.
    decryptor = Cipher(AES(key), ECB()).decryptor()  # noqa: S305 — their format, see above
    unpadder = PKCS7(AES.block_size).unpadder()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()

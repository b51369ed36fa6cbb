"""Opening what WeChat encrypts for one merchant: the resource of a notification, and platform certificates.

    {"algorithm": "AEAD_AES_256_GCM", "nonce": 12 characters, "associated_data": …, "ciphertext": base64}

Source: https://pay.weixin.qq.com/doc/v3/merchant/4012071382 and /4012551764, read 2026-09-11.
"""

from collections.abc import Mapping
from typing import Any

from app.providers.contract import AccountInvalid
from app.providers.wechat.v3 import keys
from app.providers.wechat.v3.platform_keys import PlatformKey, from_certificates
from app.providers.wechat.v3.signing import decrypted
from app.providers.wechat.v3.strict_json import Unreadable

ALGORITHM = "AEAD_AES_256_GCM"
_NONCE_LENGTH = 12
_ASSOCIATED_DATA_LIMIT = 16
_CIPHERTEXT_LIMIT = 65_536
_CERTIFICATES_LIMIT = 20


class OtherKey(Exception):
    """It was encrypted with another APIv3 key than this one."""


def opened_resource(apiv3_key: bytes, resource: Mapping[str, Any]) -> bytes:
    """The plaintext of an encrypted resource. Raises Unreadable for an unknown form, OtherKey for another key."""
    nonce, ciphertext = resource.get("nonce"), resource.get("ciphertext")
    associated_data = resource.get("associated_data")
    if resource.get("algorithm") != ALGORITHM:
        raise Unreadable("encrypted with another algorithm")
    if not isinstance(nonce, str) or not nonce.isascii() or len(nonce) != _NONCE_LENGTH:
        raise Unreadable("encrypted with a nonce that has not 12 characters")
    if associated_data is None:
        associated_data = ""
    if not isinstance(associated_data, str) or not associated_data.isascii():
        raise Unreadable("encrypted with associated data that are no plain text")
    if len(associated_data) > _ASSOCIATED_DATA_LIMIT:
        raise Unreadable("encrypted with more associated data than documented")
    if not isinstance(ciphertext, str) or not 0 < len(ciphertext) <= _CIPHERTEXT_LIMIT:
        raise Unreadable("without a ciphertext, or with too long a one")
    try:
        return decrypted(apiv3_key, nonce=nonce, associated_data=associated_data, ciphertext=ciphertext)
    except ValueError as exc:
        raise OtherKey from exc


def opened_certificates(apiv3_key: bytes, fields: Mapping[str, Any]) -> dict[str, PlatformKey]:
    """The keys of all certificates in an answer of /v3/certificates. Raises Unreadable or OtherKey."""
    items = fields.get("data")
    if not isinstance(items, list) or len(items) > _CERTIFICATES_LIMIT:
        raise Unreadable("no list of certificates")
    found: dict[str, PlatformKey] = {}
    for item in items:
        sealed = item.get("encrypt_certificate") if isinstance(item, dict) else None
        if not isinstance(sealed, dict):
            raise Unreadable("a certificate in an unknown form")
        try:
            text = opened_resource(apiv3_key, sealed).decode("ascii")
            read = from_certificates(keys.load_certificates(text, field="certificate"))
        except (UnicodeDecodeError, AccountInvalid) as exc:
            raise Unreadable("something that is no certificate") from exc
        if list(read) != [item.get("serial_no")]:
            raise Unreadable("a certificate of another serial than it is listed under")
        found |= read
    return found

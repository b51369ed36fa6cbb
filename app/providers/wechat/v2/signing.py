"""APIv2's signature: every non-empty field but `sign`, sorted by name, k=v joined by &, then &key=<API key>.

    MD5            hex, upper case, 32 characters     when a message names no sign_type
    HMAC-SHA256    keyed with the API key as well     64 characters

Answers and notices are verified over all the fields they hold, known to us or not. Which of the two algorithms WeChat
uses is WeChat's choice: both prove the key, and some answers come in MD5 whatever the order was signed with.

Source: https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=4_3, read 2026-09-11.
"""

import hashlib
import hmac
from collections.abc import Mapping

MD5 = "MD5"
HMAC_SHA256 = "HMAC-SHA256"
SIGN_TYPES = (HMAC_SHA256, MD5)


def string_to_sign(fields: Mapping[str, str]) -> str:
    """What is signed of `fields`, without the key; values as they are, not URL-encoded."""
    return "&".join(f"{name}={fields[name]}" for name in sorted(fields) if name != "sign" and fields[name])


def sign(fields: Mapping[str, str], *, api_key: str, sign_type: str) -> str:
    """The signature in upper-case hex. Raises ValueError for an algorithm that is none of SIGN_TYPES."""
    content = f"{string_to_sign(fields)}&key={api_key}".encode()
    if sign_type == HMAC_SHA256:
        return hmac.new(api_key.encode(), content, hashlib.sha256).hexdigest().upper()
    if sign_type == MD5:
        # WeChat's own choice, and a secret suffix of 32 characters: not a hash that anybody could collide at will.
        return hashlib.md5(content, usedforsecurity=False).hexdigest().upper()
    raise ValueError(f"{sign_type[:32]!r} is no signature algorithm of APIv2")


def verifies(fields: Mapping[str, str], *, api_key: str) -> bool:
    """Whether `sign` is the signature of all other fields, by the algorithm that the message names; never raises."""
    given = fields.get("sign", "")
    sign_type = fields.get("sign_type") or (HMAC_SHA256 if len(given) == 64 else MD5)
    if not given.isascii() or sign_type not in SIGN_TYPES:
        return False
    return hmac.compare_digest(sign(fields, api_key=api_key, sign_type=sign_type), given)

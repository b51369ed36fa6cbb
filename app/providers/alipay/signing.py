"""What Alipay signs, and how: RSA PKCS#1 v1.5 over SHA-256 ("RSA2"), in base64.

    request        every parameter but `sign` (so `sign_type` included), empty ones left out, sorted, k=v joined by &
    answer         the exact text of `<method>_response`, from { to its matching }, as it was received
    notification   V1: like a request, without `sign_type` as well.  V2: with it

The algorithm is ours to say: a message that names another is refused, never followed.

Source: https://opendocs.alipay.com/common/02mse7, read 2026-09-11; AlipaySignature.java of alipay-sdk-java-all.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

SIGN_TYPE = "RSA2"

_PADDING = PKCS1v15()
_DIGEST = SHA256()
_WHITE_SPACE = " \t\r\n"


class Unreadable(ValueError):
    """An answer that is not the JSON object an Alipay gateway writes."""


@dataclass(frozen=True, slots=True)
class AnswerMember:
    """One top-level member of an answer: what it says, and the very bytes that say it."""

    value: Any
    raw: bytes


def string_to_sign(params: Mapping[str, str]) -> str:
    """The text of a request that is signed; values are not URL-encoded."""
    return "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "sign" and params[name])


def sign(key: RSAPrivateKey, content: bytes) -> str:
    """RSA2 signature in base64. About a quarter of a millisecond of processor time with a 2048-bit key."""
    return base64.b64encode(key.sign(content, _PADDING, _DIGEST)).decode("ascii")


def verifies(key: RSAPublicKey, content: bytes, signature: str | bytes) -> bool:
    """Whether `signature` is the RSA2 signature of `content`; never raises.

    Only the canonical base64 text counts: lenient decoders accept several texts for one signature.
    """
    try:
        decoded = base64.b64decode(signature, validate=True)
        text = signature.encode("ascii") if isinstance(signature, str) else signature
        if base64.b64encode(decoded) != text:
            return False
        key.verify(decoded, content, _PADDING, _DIGEST)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def answer_members(body: bytes) -> dict[str, AnswerMember]:
    """The top-level members of an answer with their received bytes; every number in them stays text.

    Decodes before anything is verified, but only to find where a value ends, and what is handed on for reading is the
    same stretch as what is handed on for verifying. A gateway that was asked for UTF-8 answers in GBK at times.
    Raises Unreadable.
    """
    text, charset = _decode(body)
    decoder = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse_constant, strict=False)
    try:
        return _walk(text, charset, decoder)
    except (ValueError, IndexError, RecursionError) as exc:
        raise Unreadable("the answer is not the JSON object it should be") from exc


def signed_content_of_notification(fields: Mapping[bytes, bytes], *, keep_sign_type: bool) -> bytes:
    """What a notification's signature covers, as bytes in its own charset: rule V1, or V2 where `keep_sign_type`.

    `fields` are percent-decoded exactly once and otherwise untouched.
    """
    left_out = (b"sign",) if keep_sign_type else (b"sign", b"sign_type")
    return b"&".join([name + b"=" + fields[name] for name in sorted(fields) if fields[name] and name not in left_out])


def notification_verifies(key: RSAPublicKey, fields: Mapping[bytes, bytes]) -> bool:
    """Whether a notification is signed by `key`, by rule V1 or else by V2; never raises."""
    signature = fields.get(b"sign", b"")
    if not signature or fields.get(b"sign_type", SIGN_TYPE.encode()) != SIGN_TYPE.encode():
        return False
    return any(
        verifies(key, signed_content_of_notification(fields, keep_sign_type=keep_sign_type), signature)
        for keep_sign_type in (False, True)
    )


def _decode(body: bytes) -> tuple[str, str]:
    for charset in ("utf-8", "gb18030"):
        try:
            text = body.decode(charset)
        except UnicodeDecodeError:
            continue
        # The signed bytes are found again by encoding a part of the text: that must lead back to what was received.
        if text.encode(charset) == body:
            return text, charset
    raise Unreadable("the answer is neither UTF-8 nor GBK")


def _walk(text: str, charset: str, decoder: json.JSONDecoder) -> dict[str, AnswerMember]:
    members: dict[str, AnswerMember] = {}
    at = _expect(text, 0, "{")
    while True:
        at = _skip(text, at)
        if text[at] != '"':
            raise ValueError("a member's name is missing")
        name, at = decoder.raw_decode(text, at)
        if name in members:
            raise ValueError("a member comes twice")
        start = _skip(text, _expect(text, at, ":"))
        value, end = decoder.raw_decode(text, start)
        members[name] = AnswerMember(value, text[start:end].encode(charset))
        at = _skip(text, end)
        if text[at] == "}":
            break
        at = _expect(text, at, ",")
    if _skip(text, at + 1) != len(text):
        raise ValueError("something follows the object")
    return members


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE_SPACE:
        at += 1
    return at


def _expect(text: str, at: int, character: str) -> int:
    at = _skip(text, at)
    if text[at] != character:
        raise ValueError(f"{character} expected")
    return at + 1


def _refuse_constant(word: str) -> Never:
    raise ValueError(f"{word} is not JSON")

"""APIv2's signature and cipher against published vectors, and everything that must not pass."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.padding import PKCS7

from app.providers.wechat.v2.req_info import decrypt, read_req_info
from app.providers.wechat.v2.signing import sign, string_to_sign, verifies
from app.providers.wechat.xml import read_fields
from tests.providers.wechat.v2.merchant import API_KEY, vector_bytes, vectors, wechat_sign

FIELDS = {"return_code": "SUCCESS", "total_fee": "1990", "attach": "a&b=c 中 ", "empty": "", "A": "1"}


def test_every_published_signature_is_made_and_verified() -> None:
    cases = vectors("v2_sign")
    assert len(cases) == 4
    made = 0
    for case in cases:
        for sign_type in ("MD5", "HMAC-SHA256"):
            if sign_type not in case:
                continue
            assert sign(case["params"], api_key=case["key"], sign_type=sign_type) == case[sign_type], case["id"]
            assert verifies(case["params"] | {"sign": case[sign_type]}, api_key=case["key"]), case["id"]
            assert not verifies(case["params"] | {"sign": case[sign_type]}, api_key=case["key"] + "x"), case["id"]
            made += 1
    assert made == 6


def test_what_is_signed_is_sorted_and_leaves_out_what_is_empty() -> None:
    assert string_to_sign(FIELDS | {"sign": "X"}) == "A=1&attach=a&b=c 中 &return_code=SUCCESS&total_fee=1990"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("sign_type", ["MD5", "HMAC-SHA256"])
def test_both_algorithms_verify_named_or_told_by_their_length(sign_type: str, named: bool) -> None:
    fields = FIELDS | ({"sign_type": sign_type} if named else {})
    assert verifies(fields | {"sign": wechat_sign(fields, sign_type)}, api_key=API_KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"total_fee": "1991"},
        {"total_fee": ""},
        {"added": "1"},
        {"sign_type": "MD5"},
        {"sign_type": "HMAC-SHA256", "sign": wechat_sign(FIELDS | {"sign_type": "HMAC-SHA256"}, "MD5")},
        {"sign_type": "RSA", "sign": wechat_sign(FIELDS | {"sign_type": "RSA"})},
        {"sign_type": "none", "sign": ""},
        {"sign": ""},
        {"sign": wechat_sign(FIELDS).lower()},
        {"sign": wechat_sign(FIELDS)[:-1]},
        {"sign": wechat_sign(FIELDS)[:32]},
        {"sign": wechat_sign(FIELDS) + " "},
        {"sign": wechat_sign(FIELDS, key=API_KEY[::-1])},
        {"sign": wechat_sign(FIELDS, key="")},
        {"sign": hashlib.md5(b"").hexdigest().upper()},
        {"sign": "签名"},
    ],
    ids=str,
)
def test_anything_else_does_not_verify(changes: dict[str, str]) -> None:
    assert verifies(FIELDS | {"sign": wechat_sign(FIELDS)}, api_key=API_KEY)
    assert not verifies(FIELDS | {"sign": wechat_sign(FIELDS)} | changes, api_key=API_KEY)


def test_the_published_cipher_text_is_read() -> None:
    [case] = vectors("aes_ecb")
    assert decrypt(case["ciphertext"], key=case["key"].encode()) == case["plaintext"].encode()


def _encrypted(content: bytes, *, api_key: str) -> str:
    key = hashlib.md5(api_key.encode()).hexdigest().encode()
    padder = PKCS7(128).padder()
    encryptor = Cipher(AES(key), ECB()).encryptor()
    padded = padder.update(content) + padder.finalize()
    return base64.b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


# The digest of the last begins with zeros, which a number would lose.
@pytest.mark.parametrize("api_key", [API_KEY, "exposed_your_key_here_have_risks", "a" * 27 + "01977"])
def test_a_refund_is_read_under_the_digest_of_the_key(api_key: str) -> None:
    published = vector_bytes("php_fixture_refund.notification.req_info.sample.xml")
    assert read_req_info(_encrypted(published, api_key=api_key), api_key=api_key) == read_fields(published, root="root")


@pytest.mark.parametrize("case", range(3))
def test_the_published_digests_are_ours(case: int) -> None:
    """The cipher's key is the hex text of an MD5: the same as of these."""
    published = vectors("md5")[case]
    assert hashlib.md5(published["input"].encode()).hexdigest() == published["hex"]


@pytest.mark.parametrize("req_info", ["", "a", "====", "中文", "AAAA", base64.b64encode(bytes(32)).decode()])
def test_what_this_key_did_not_encrypt_is_a_value_error(req_info: str) -> None:
    with pytest.raises(ValueError):
        read_req_info(req_info, api_key=API_KEY)


def test_another_key_reads_nothing() -> None:
    published = vector_bytes("php_fixture_refund.notification.req_info.sample.xml")
    with pytest.raises(ValueError):
        read_req_info(_encrypted(published, api_key=API_KEY[::-1]), api_key=API_KEY)

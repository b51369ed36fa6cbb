"""Signatures against published vectors, an independent signer, and everything that must not pass."""

import importlib
import json
import random
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.alipay import keys, signing
from tests.providers.alipay.keyring import (
    VECTORS,
    alipay_signature,
    key,
    private_text,
    public_text,
    signed_answer,
    vectors,
)


def test_published_signatures_are_made_alike() -> None:
    for case in vectors("rsa2_sign.json"):
        private_key = keys.load_private_key((VECTORS / case["private_key"]).read_text(), field="f")
        if "params" in case:
            assert signing.string_to_sign(case["params"]) == case["string_to_sign"]
        assert signing.sign(private_key, case["string_to_sign"].encode()) == case["signature"]
        assert signing.verifies(private_key.public_key(), case["string_to_sign"].encode(), case["signature"])


def test_published_answers_verify_and_no_change_of_them_does() -> None:
    for case in vectors("response_verify.json"):
        public_key = keys.load_public_key(case["alipay_public_key"], field="f")
        content, signature = case["signed_substring"].encode(), case["sign"]
        if case["raw"] is not None:
            members = signing.answer_members(case["raw"].encode())
            assert members[case["response_key"]].raw == content
            assert members["sign"].value == signature
        assert signing.verifies(public_key, content, signature) is case["expected"]
        for at in range(len(content)):
            changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            assert not signing.verifies(public_key, changed, signature)


def test_the_signed_part_of_published_answers_is_found_exactly() -> None:
    cases = vectors("response_substring.json")
    assert len(cases) == 3
    for case in cases:
        assert (
            signing.answer_members(case["raw"].encode())[case["response_key"]].raw.decode() == case["signed_substring"]
        )


def test_the_official_sdk_agrees_with_our_signatures() -> None:
    official = importlib.import_module("alipay.aop.api.util.SignatureUtils")
    params = {"b": "中文 a+b&c=d", "a": "1", "sign_type": "RSA2", "biz_content": '{"x":"/"}'}
    content = signing.string_to_sign({**params, "sign": "left out", "empty": ""})
    assert content == official.get_sign_content(params)
    theirs = official.sign_with_rsa2(_bare(private_text("app", PrivateFormat.TraditionalOpenSSL)), content, "utf-8")
    assert signing.sign(key("app"), content.encode()) == theirs
    assert official.verify_with_rsa(_bare(public_text("app")), content.encode(), theirs)


def test_no_changed_signature_verifies() -> None:
    content = "金额=19.90".encode()
    signature = alipay_signature(content)
    public_key = key("alipay").public_key()
    assert signing.verifies(public_key, content, signature)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
    chosen = random.Random(7)
    for at in range(len(signature)):
        for other in chosen.sample(alphabet, 3):
            if other != signature[at]:
                assert not signing.verifies(public_key, content, signature[:at] + other + signature[at + 1 :])
    for broken in ("", " " + signature, signature + "\n", signature[:-1], signature[:-4], signature * 2, "ä", "===="):
        assert not signing.verifies(public_key, content, broken)


def test_a_second_spelling_of_the_same_signature_is_refused() -> None:
    content = b"content"
    signature = alipay_signature(content)
    # 256 bytes end in one character of which four bits mean nothing: sixteen texts decode to the same signature.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(signature[-3])
    same = signature[:-3] + alphabet[last ^ 1] + "=="
    assert not signing.verifies(key("alipay").public_key(), content, same)


def test_another_key_does_not_verify() -> None:
    assert not signing.verifies(key("app").public_key(), b"content", alipay_signature(b"content"))


_TEXT = st.text(st.characters(codec="utf-8"))
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), _TEXT, st.integers(), st.sampled_from([0.5, 1e300, -19.9])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(_TEXT, _JSON, max_size=4), st.sampled_from([None, 0, 2]), st.booleans())
def test_each_member_is_found_with_its_own_bytes(value: dict[str, Any], indent: int | None, plain: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=plain)
    if not value:
        with pytest.raises(signing.Unreadable):
            signing.answer_members(body.encode())
        return
    members = signing.answer_members(f" \r\n{body}\t".encode())
    assert {name: json.loads(member.raw) for name, member in members.items()} == json.loads(body)
    assert all(member.raw in body.encode() for member in members.values())


@pytest.mark.parametrize("charset", ["utf-8", "gbk"])
def test_the_signed_bytes_are_those_received_in_either_charset(charset: str) -> None:
    # The second byte of 乗 is a backslash in GBK: whoever looks for quotes among bytes goes astray.
    method, fields = "alipay.trade.query", {"code": "10000", "subject": '乗"{亄}乗', "url": "https://a/b"}
    body = signed_answer(method, fields, charset=charset)
    members = signing.answer_members(body)
    node = members["alipay_trade_query_response"]
    assert node.value == fields
    assert node.raw in body
    assert signing.verifies(key("alipay").public_key(), node.raw, members["sign"].value)


def test_numbers_stay_text() -> None:
    members = signing.answer_members(b'{"a_response":{"total_amount":19.90,"count":12345678901234567890}}')
    assert members["a_response"].value == {"total_amount": "19.90", "count": "12345678901234567890"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"{}",
        b'{"a"}',
        b'{"a":1,}',
        b'{"a":1}x',
        b'{"a":1}{"a":1}',
        b"{1:2}",
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b'{"a":{"b":1}',
        b"<html>\xb4\xed\xce\xf3</html>",
        b"\xff\xfe{}",
        b'{"a":' + b"[" * 200_000,
    ],
)
def test_what_is_no_answer_is_unreadable(body: bytes) -> None:
    with pytest.raises(signing.Unreadable):
        signing.answer_members(body)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text('{}[]":,\\ \nabe1-.', max_size=60).map(lambda text: text.encode())))
def test_any_bytes_are_members_or_unreadable(body: bytes) -> None:
    try:
        members = signing.answer_members(body)
    except signing.Unreadable:
        return
    assert all(member.raw in body for member in members.values())


def _bare(text: str) -> str:
    return "".join(line for line in text.splitlines() if "-----" not in line)

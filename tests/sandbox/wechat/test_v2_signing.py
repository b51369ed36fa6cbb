"""The sandbox's own signer and XML reader against what WeChat and the public SDKs published."""

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.wechat.trades import ClientCall
from app.sandbox.wechat.v2_signing import (
    SIGN_TYPES,
    client_parameters,
    ecb_encrypted,
    encrypted,
    is_client_signed,
    is_signed,
    sign,
)
from app.sandbox.wechat.xml import NotUtf8, XmlRefused, read_xml, write_xml

VECTORS = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "wechat"
KEY = "0123456789abcdef0123456789ABCDEF"


def published(name: str) -> bytes:
    """A file of published vectors; skips the test, visibly, where they are not beside the repository."""
    path = VECTORS / name
    if not path.exists():
        pytest.skip(f"published vectors are not at {path}")
    return path.read_bytes()


def published_signs() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads(published("vectors.json"))["v2_sign"]
    return cases


def test_published_signatures_are_reproduced() -> None:
    reproduced = [
        (case["id"], sign_type)
        for case in published_signs()
        for sign_type in SIGN_TYPES
        if sign_type in case and sign(case["params"], case["key"], sign_type) == case[sign_type]
    ]
    assert reproduced == [
        ("official-chapter-4_3", "MD5"),
        ("official-chapter-4_3", "HMAC-SHA256"),
        ("wechatpy", "MD5"),
        ("wechatpy", "HMAC-SHA256"),
        ("easywechat-paysign-md5", "MD5"),
        ("easywechat-paysign-hmac", "HMAC-SHA256"),
    ]


@pytest.mark.parametrize("sign_type", SIGN_TYPES)
def test_published_client_signatures_are_taken(sign_type: str) -> None:
    [case] = [case for case in published_signs() if case["params"].get("signType") == sign_type]
    passed = client_call({**case["params"], "paySign": case[sign_type]})
    assert is_client_signed(passed, case["key"])
    assert not is_client_signed(passed, case["key"] + "x")
    for name in ("app_id", "time_stamp", "nonce_str", "package", "pay_sign"):
        for wrong in (getattr(passed, name) + "x", "", getattr(passed, name).swapcase() + "1"):
            assert not is_client_signed(replace(passed, **{name: wrong}), case["key"])
    for wrong in (*SIGN_TYPES, "", "RSA"):
        assert is_client_signed(replace(passed, sign_type=wrong), case["key"]) is (wrong == sign_type)


def test_the_published_cipher_of_refund_notices_is_reproduced() -> None:
    [case] = json.loads(published("vectors.json"))["aes_ecb"]
    key = case["key"].encode()
    assert base64.b64encode(ecb_encrypted(case["plaintext"].encode(), key)).decode() == case["ciphertext"]


def test_a_refund_notice_is_encrypted_under_the_lower_case_md5_of_the_api_key() -> None:
    key = hashlib.md5(KEY.encode()).hexdigest().encode()
    assert encrypted(b"<root/>", KEY) == base64.b64encode(ecb_encrypted(b"<root/>", key)).decode()
    assert encrypted(b"<root/>", KEY.lower()) != encrypted(b"<root/>", KEY)


def client_call(parameters: dict[str, str]) -> ClientCall:
    names = ("appId", "timeStamp", "nonceStr", "package", "signType", "paySign")
    return ClientCall(*(parameters[name] for name in names))


def test_empty_fields_and_the_signature_itself_are_not_signed() -> None:
    fields: dict[str, str | int] = {"b": "2", "a": 1}
    assert sign({**fields, "c": "", "sign": "old"}, KEY, "MD5") == sign(fields, KEY, "MD5")
    assert sign({**fields, "c": "0"}, KEY, "MD5") != sign(fields, KEY, "MD5")


def test_a_signature_is_upper_case_and_of_one_key() -> None:
    fields = {"a": "1"}
    fields["sign"] = sign(fields, KEY, "HMAC-SHA256")
    assert is_signed(fields, KEY, "HMAC-SHA256")
    assert not is_signed({**fields, "sign": fields["sign"].lower()}, KEY, "HMAC-SHA256")
    assert not is_signed(fields, KEY.lower(), "HMAC-SHA256")
    assert not is_signed(fields, KEY, "MD5")
    assert not is_signed({"a": "1"}, KEY, "MD5")


def test_what_the_cloud_hands_out_is_signed_with_md5() -> None:
    passed = client_parameters(app_id="wx5a0db00000000001", timestamp=1601234567, nonce="n", prepay_id="wx1", key=KEY)
    assert {name: text for name, text in passed.items() if name != "paySign"} == {
        "appId": "wx5a0db00000000001",
        "timeStamp": "1601234567",
        "nonceStr": "n",
        "package": "prepay_id=wx1",
        "signType": "MD5",
    }
    assert is_client_signed(client_call(passed), KEY)


def test_published_samples_are_read() -> None:
    order = read_xml(published("php_fixture_unifiedorder.sample.xml"))
    assert (len(order), order["body"], order["total_fee"]) == (13, "JSAPI支付测试", "1")
    assert json.loads(order["detail"])["goods_detail"][0]["goods_id"] == "iphone6s_16G"
    notice = read_xml(published("php_fixture_paysuccess.notification.sample.xml"))
    assert (len(notice), notice["attach"], notice["transaction_id"]) == (20, "支付测试", "1004400740201409030005092168")
    refund = read_xml(published("php_fixture_refund.notification.req_info.sample.xml"), root="root")
    assert refund["refund_recv_accout"] == "支付用户零钱"


@pytest.mark.parametrize(
    "name",
    [
        "php_fixture_invalid.xxe_injection.sample.xml",
        "php_fixture_invalid.bad_entity.sample.xml",
        "php_fixture_fragment_injection.sample.xml",
    ],
)
def test_published_hostile_samples_are_refused(name: str) -> None:
    for root in ("xml", "foo", "movies", "batchjob"):
        with pytest.raises(XmlRefused):
            read_xml(published(name), root=root)


def test_an_entity_is_refused_for_its_doctype_not_for_the_root() -> None:
    with pytest.raises(XmlRefused, match="DOCTYPE"):
        read_xml(published("php_fixture_invalid.xxe_injection.sample.xml"), root="foo")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:9/x.dtd"><xml></xml>', "DOCTYPE"),
        (b'<!DOCTYPE xml [<!ENTITY % a SYSTEM "file:///etc/hostname"> %a;]><xml></xml>', "DOCTYPE"),
        (b"<xml><a>1</a><a>1</a></xml>", "a is repeated"),
        (b"<xml><a><b>1</b></a></xml>", "inside an element"),
        (b"<xml><a/>1</xml>", "between the elements"),
        (b"<xml a='1'></xml>", "attributes"),
        (b"<?xml-stylesheet href='x'?><xml></xml>", "instruction"),
        (b"<yml></yml>", "root is not <xml>"),
        (b"<xml>", "not well-formed"),
        (b"", "not well-formed"),
        (b"<xml>" + b" " * 65536 + b"</xml>", "longer than 65536"),
    ],
)
def test_a_refusal_names_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(XmlRefused, match=reason):
        read_xml(body)


def test_another_encoding_is_refused_whatever_the_declaration_says() -> None:
    for declared in ("", '<?xml version="1.0" encoding="GBK"?>'):
        with pytest.raises(NotUtf8):
            read_xml(f"{declared}<xml><a>茶</a></xml>".encode("gbk"))
    assert read_xml('<?xml version="1.0" encoding="GBK"?><xml><a>茶</a></xml>'.encode()) == {"a": "茶"}


def test_what_was_written_is_read_again() -> None:
    fields: dict[str, str | int] = {"a": "]]>", "b": "]]]]>><![CDATA[", "c": "<&>\n 茶", "d": "", "e": 17}
    assert read_xml(write_xml(fields)) == {**fields, "e": "17"}

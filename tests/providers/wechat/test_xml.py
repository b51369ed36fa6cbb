"""WeChat's XML: one flat list of fields is read, everything else is refused, and no bytes do worse than that."""

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.wechat.xml import BODY_LIMIT_BYTES, XmlRefused, read_fields, write_fields
from tests.providers.wechat.v2.merchant import PAID, document, vector_bytes

_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
_TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=40)


def refusal(body: bytes) -> str:
    with pytest.raises(XmlRefused) as refused:
        read_fields(body)
    return str(refused.value)


def test_the_published_notice_is_read_whole() -> None:
    fields = read_fields(vector_bytes("php_fixture_paysuccess.notification.sample.xml"))
    assert len(fields) == 20
    assert fields["attach"] == "支付测试"
    assert fields["sign"] == "B552ED6B279343CB493C5DD0D78AB241"
    assert fields["total_fee"] == "1"


def test_the_published_order_is_read_whole() -> None:
    fields = read_fields(vector_bytes("php_fixture_unifiedorder.sample.xml"))
    assert fields["body"] == "JSAPI支付测试"
    assert fields["detail"].startswith('{ "goods_detail":[ { "goods_id":"iphone6s_16G"')
    assert fields["notify_url"] == "https://wxpay.wxutil.com/pub_v2/pay/notify.v2.php"


def test_the_published_refund_has_another_root() -> None:
    body = vector_bytes("php_fixture_refund.notification.req_info.sample.xml")
    assert read_fields(body, root="root")["refund_recv_accout"] == "支付用户零钱"
    assert refusal(body) == "the root is not <xml>"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("php_fixture_invalid.xxe_injection.sample.xml", "the document declares a document type or entities"),
        ("php_fixture_invalid.bad_entity.sample.xml", "the root is not <xml>"),
        ("php_fixture_fragment_injection.sample.xml", "the root is not <xml>"),
    ],
)
def test_the_published_attacks_are_refused(name: str, why: str) -> None:
    assert refusal(vector_bytes(name)) == why
    inside = vector_bytes(name).replace(b"<foo>", b"<xml>").replace(b"</foo>", b"</xml>")
    inside = inside.replace(b"<movies>", b"<xml>").replace(b"</movies>", b"</xml>")
    inside = inside.replace(b"<batchjob>", b"<xml>").replace(b"</batchjob>", b"</xml>")
    assert refusal(inside) in (why, "a field holds elements")


_BOMB = b'<!DOCTYPE xml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]><xml><a>&b;</a></xml>'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (_BOMB, "the document declares a document type or entities"),
        (
            b'<!DOCTYPE xml SYSTEM "http://127.0.0.1:1/x.dtd"><xml><a>1</a></xml>',
            "the document declares a document type or entities",
        ),
        (b"<!doctype xml><xml><a>1</a></xml>", "the document is not well-formed XML"),
        (b"<xml><a>&xxe;</a></xml>", "the document is not well-formed XML"),
        (b"<?xml-stylesheet href='x'?><xml><a>1</a></xml>", "the document holds comments or processing instructions"),
        (b"<xml><a>1<?php x?></a></xml>", "the document holds comments or processing instructions"),
        (b"<xml><a>1<!-- 2 -->3</a></xml>", "the document holds comments or processing instructions"),
        (b"<xml><a><b>1</b></a></xml>", "a field holds elements"),
        (b"<xml><a>1</a><a>1</a></xml>", "a field comes twice"),
        (b"<xml><a></a><a>1</a></xml>", "a field comes twice"),
        (b"<xml><a x='1'>1</a></xml>", "an element has attributes"),
        (b"<xml xmlns:xi='http://www.w3.org/2001/XInclude'><a>1</a></xml>", "an element has attributes"),
        (b"<xml><x:a>1</x:a></xml>", "a field has a name that WeChat does not use"),
        ("<xml><金额>1</金额></xml>".encode(), "a field has a name that WeChat does not use"),
        (b"<xml>1<a>1</a></xml>", "there is text between the fields"),
        (b"<xml><![CDATA[1]]><a>1</a></xml>", "there is text between the fields"),
        (b"<xml>&#xA0;<a>1</a></xml>", "there is text between the fields"),
        (b"<XML><a>1</a></XML>", "the root is not <xml>"),
        (b"<xml><a>1</a></xml><xml><a>2</a></xml>", "the document is not well-formed XML"),
        (b"<xml><a>1</a>", "the document is not well-formed XML"),
        (b"<xml><a>\xff</a></xml>", "the document is not in UTF-8"),
        (b"<xml><a>\xed\xa0\x80</a></xml>", "the document is not in UTF-8"),
        (b"<xml><a>\x00</a></xml>", "the document is not in UTF-8"),
        (b"<xml><a>&#0;</a></xml>", "the document is not well-formed XML"),
        ("<xml><a>1</a></xml>".encode("utf-16"), "the document is not in UTF-8"),
        ("<xml><a>1</a></xml>".encode("utf-16-le"), "the document is not in UTF-8"),
        ("<xml><a>1</a></xml>".encode("utf-16-be"), "the document is not in UTF-8"),
        ("<xml><a>金额</a></xml>".encode("gb18030"), "the document is not in UTF-8"),
        (b"<?xml version='1.0' encoding='GBK'?><xml><a>1</a></xml>", "the document is not in UTF-8"),
        (b'{"xml":{"a":1}}', "the document is not well-formed XML"),
        (b"", f"the document must have 1 to {BODY_LIMIT_BYTES} bytes"),
        (
            b"<xml><a>" + b"1" * BODY_LIMIT_BYTES + b"</a></xml>",
            f"the document must have 1 to {BODY_LIMIT_BYTES} bytes",
        ),
        (b"<a>" * 20_000, "the root is not <xml>"),
    ],
)
def test_everything_but_one_flat_list_of_fields_is_refused(body: bytes, why: str) -> None:
    assert refusal(body) == why


@pytest.mark.parametrize(
    "body",
    [
        b"<xml><a>1</a><b/></xml>",
        b"\xef\xbb\xbf<xml><a>1</a><b></b></xml>",
        b"<?xml version='1.0' encoding='utf-8'?>\r\n<xml>\r\n\t<a><![CDATA[1]]></a>\n<b><![CDATA[]]></b></xml>\n",
        b"<xml><a>&#49;</a><b></b></xml>",
    ],
)
def test_the_ways_to_write_the_same_fields_are_read_alike(body: bytes) -> None:
    assert read_fields(body) == {"a": "1", "b": ""}


def test_a_text_may_hold_what_looks_like_markup() -> None:
    assert read_fields(b"<xml><a><![CDATA[<b>1</b>&amp;]]]]><![CDATA[>]]></a></xml>") == {"a": "<b>1</b>&amp;]]>"}


@given(st.dictionaries(_NAMES, _TEXTS, max_size=8))
def test_what_is_written_is_what_is_read_by_us_and_by_another_parser(fields: dict[str, str]) -> None:
    written = write_fields(fields)
    assert read_fields(written) == fields
    assert {child.tag: child.text or "" for child in ElementTree.fromstring(written)} == fields


def test_line_ends_and_markup_survive_writing() -> None:
    fields = {"a": "1\r\n2\r3\t]]><b>&amp;"}
    assert read_fields(write_fields(fields)) == fields


@pytest.mark.parametrize("text", ["\x00", "\x0b", "\x1b[0m", "\ud800", "\ufffe", "\uffff"])
def test_what_xml_cannot_hold_is_never_written(text: str) -> None:
    with pytest.raises(ValueError, match="a character that XML cannot write"):
        write_fields({"a": text})


def test_a_name_cannot_bring_markup_in() -> None:
    with pytest.raises(ValueError, match="a character that XML cannot write"):
        write_fields({"a><b": "1"})


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    for candidate in (body, b"<xml>" + body + b"</xml>", b"<xml><a>" + body + b"</a></xml>"):
        try:
            read_fields(candidate)
        except XmlRefused:
            continue


def test_no_changed_bit_of_a_notice_crashes_the_reader() -> None:
    raw = document(PAID)
    for at in range(len(raw)):
        for bit in (0x01, 0x20, 0x80):
            try:
                read_fields(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
            except XmlRefused:
                continue

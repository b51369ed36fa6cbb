"""Every shape in which people hold a key is read; everything else is refused with the field and the fix."""

import base64
import contextlib
import re
import textwrap
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.alipay import keys
from app.providers.contract import AccountInvalid
from tests.providers.alipay.keyring import (
    VECTORS,
    authority,
    certificate,
    intermediate,
    key,
    pem,
    private_text,
    public_text,
    vectors,
)


def _bare(text: str) -> str:
    return "".join(line for line in text.splitlines() if "-----" not in line)


_PASTED: dict[str, Callable[[str], str]] = {
    "as the file is": lambda text: text,
    "one bare line": _bare,
    "bare lines": lambda text: "\n".join(textwrap.wrap(_bare(text), 64)),
    "bare lines of Windows": lambda text: "\r\n".join(textwrap.wrap(_bare(text), 76)) + "\r\n",
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "literal line ends of an environment file": lambda text: text.replace("\n", "\\n"),
    "byte order mark": lambda text: "\ufeff" + text,
    "blanks around and inside": lambda text: f"  \n{text.replace(chr(10), ' ' + chr(10))}\n\t",
    "one line with headers": lambda text: text.replace("\n", ""),
    "header of the other format": lambda text: _swapped(text),
}


def _swapped(text: str) -> str:
    kind = "PRIVATE" if "PRIVATE" in text else "PUBLIC"
    other = f"{kind} KEY" if f"RSA {kind}" in text else f"RSA {kind} KEY"
    return f"-----BEGIN {other}-----\n{_bare(text)}\n-----END {other}-----"


@pytest.mark.parametrize("pasted", _PASTED.values(), ids=_PASTED.keys())
@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_a_private_key_is_read_in_every_shape(form: PrivateFormat, pasted: Callable[[str], str]) -> None:
    loaded = keys.load_private_key(pasted(private_text("app", form)), field="app_private_key")
    assert loaded.private_numbers() == key("app").private_numbers()
    assert keys.private_pem(loaded) == private_text("app", PrivateFormat.PKCS8)


@pytest.mark.parametrize("pasted", _PASTED.values(), ids=_PASTED.keys())
@pytest.mark.parametrize("form", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_a_public_key_is_read_in_every_shape(form: PublicFormat, pasted: Callable[[str], str]) -> None:
    loaded = keys.load_public_key(pasted(public_text("app", form)), field="alipay_public_key")
    assert loaded.public_numbers() == key("app").public_key().public_numbers()
    assert keys.public_pem(loaded) == public_text("app")


def _encrypted(form: PrivateFormat) -> str:
    return key("app").private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")).decode()


def _elliptic_private() -> str:
    made = ec.generate_private_key(ec.SECP256R1())
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _short_private() -> str:
    made = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda: "", "is empty"),
        (lambda: " \n\t", "is empty"),
        (lambda: "我的密钥", "is not base64"),
        (lambda: private_text("app")[:-40], "damaged BEGIN or END line"),
        (lambda: _bare(private_text("app"))[:-7], "is not base64|no RSA private key"),
        (lambda: _bare(private_text("app"))[:-8], "no RSA private key"),
        (lambda: base64.b64encode(b"not a key").decode(), "no RSA private key"),
        (lambda: private_text("app") + private_text("other"), "holds 2 keys"),
        (lambda: public_text("app"), "this is a public key"),
        (lambda: _bare(public_text("app")), "this is a public key"),
        (lambda: pem(authority("root")), "this is a certificate"),
        (lambda: _encrypted(PrivateFormat.PKCS8), "protected by a pass phrase"),
        (lambda: _encrypted(PrivateFormat.TraditionalOpenSSL), "protected by a pass phrase"),
        (_elliptic_private, "not an RSA key"),
        (_short_private, "has 1024 bits: RSA2 needs at least 2048"),
        (lambda: "A" * 70_000, "longer than 65536 characters"),
    ],
)
def test_what_is_no_private_key_is_refused_with_the_reason(text: Callable[[], str], words: str) -> None:
    with pytest.raises(AccountInvalid, match=words) as refused:
        keys.load_private_key(text(), field="app_private_key")
    assert refused.value.field == "app_private_key"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lambda: private_text("app"), "this is a private key"),
        (lambda: _bare(private_text("app", PrivateFormat.TraditionalOpenSSL)), "this is a private key"),
        (lambda: pem(authority("root")), "this is a certificate"),
        (lambda: base64.b64encode(b"not a key").decode(), "no RSA public key"),
        (lambda: key("short", 1024).public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), "has 1024 bits"),
    ],
)  # fmt: skip
def test_what_is_no_public_key_is_refused_with_the_reason(text: Callable[[], str], words: str) -> None:
    with pytest.raises(AccountInvalid, match=words) as refused:
        keys.load_public_key(text(), field="alipay_public_key")
    assert refused.value.field == "alipay_public_key"


def test_a_refusal_never_repeats_what_was_pasted() -> None:
    body = _bare(private_text("app"))
    for text in (body[:-7], body[:-8], f"-----BEGIN PRIVATE KEY-----\n{body[:-8]}\n-----END PRIVATE KEY-----"):
        with pytest.raises(AccountInvalid) as refused:
            keys.load_private_key(text, field="app_private_key")
        assert not any(piece in str(refused.value) for piece in textwrap.wrap(body, 16))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=400), st.binary(max_size=300).map(lambda raw: base64.b64encode(raw).decode())))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    loads: tuple[Callable[[], object], ...] = (
        lambda: keys.load_private_key(text, field="f"),
        lambda: keys.load_public_key(text, field="f"),
        lambda: keys.load_certificates(text, field="f"),
    )
    for load in loads:
        with pytest.raises(AccountInvalid):
            load()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_certificate_is_read_or_refused(data: st.DataObject) -> None:
    der = bytearray(authority("root").public_bytes(Encoding.DER))
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] = data.draw(st.integers(0, 255))
    text = base64.b64encode(der).decode()
    with contextlib.suppress(AccountInvalid):
        found = keys.load_certificates(text, field="f")
        assert len(keys.root_sn(found)) == 32
        keys.chains_to(authority("root"), intermediates=found, roots=found)
        keys.certificate_public_key(found[0], field="f")


def test_a_negative_serial_number_is_refused_without_a_warning() -> None:
    der = authority("root").public_bytes(Encoding.DER)
    number = authority("root").serial_number
    size = (number.bit_length() + 8) // 8
    positive = bytes([2, size]) + number.to_bytes(size, "big")
    assert der.count(positive) == 1
    negative = der.replace(positive, bytes([2, size, 0x80]) + positive[3:])
    with pytest.raises(AccountInvalid, match="is no certificate"):
        keys.load_certificates(base64.b64encode(negative).decode(), field="alipay_root_cert")


def test_a_company_name_longer_than_the_standard_allows_is_read_without_a_warning() -> None:
    with pytest.warns(UserWarning, match="length must be"):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "很长的公司名称" * 5, _validate=False)])
    root = authority("root")
    made = (
        x509.CertificateBuilder(name, name, key("long").public_key(), 7)
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
        .sign(key("long"), SHA256())
    )
    [loaded] = keys.load_certificates(pem(made), field="app_cert")
    assert keys.certificate_sn(loaded) == keys.root_sn([loaded])
    assert loaded.subject.rfc4514_string() == "CN=" + "很长的公司名称" * 5
    assert keys.chains_to(loaded, intermediates=[loaded], roots=[root, loaded])


def test_published_serial_numbers_are_reproduced() -> None:
    cases = vectors("cert_sn.json")
    assert len(cases) == 3
    for case in cases:
        text = (VECTORS / case["file"]).read_text()
        loaded = keys.load_certificates(text, field="alipay_cert")
        computed = keys.root_sn(loaded) if case["is_root"] else keys.certificate_sn(loaded[0])
        assert computed == case["expected_sn"]
        if "expected_public_key_b64" in case:
            public = keys.certificate_public_key(loaded[0], field="alipay_cert")
            assert _bare(keys.public_pem(public)) == case["expected_public_key_b64"]


def test_the_production_root_bundle_counts_only_its_two_rsa_certificates() -> None:
    vectors("cert_sn.json")
    text = (VECTORS / "certs" / "alipayRootCert.crt").read_text()
    assert len(re.findall("BEGIN CERTIFICATE", text)) == 4
    assert len(keys.load_certificates(text, field="alipay_root_cert")) == 2


def test_a_key_in_place_of_a_certificate_is_named() -> None:
    with pytest.raises(AccountInvalid, match="app_cert is a key"):
        keys.load_certificates(private_text("app"), field="app_cert")


def test_a_bundle_without_an_rsa_certificate_is_refused() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    name = authority("root").subject
    only = (
        x509.CertificateBuilder(name, name, elliptic.public_key(), 7)
        .not_valid_before(authority("root").not_valid_before_utc)
        .not_valid_after(authority("root").not_valid_after_utc)
        .sign(elliptic, SHA256())
    )
    with pytest.raises(AccountInvalid, match="holds no RSA certificate"):
        keys.load_certificates(pem(only), field="alipay_root_cert")


def test_a_chain_is_followed_through_authorities_only() -> None:
    root, middle = authority("root"), intermediate()
    leaf = certificate("leaf", key("leaf").public_key(), issuer=middle, issuer_key=key("intermediate"))
    below = certificate("below", key("other").public_key(), issuer=leaf, issuer_key=key("leaf"))
    assert keys.chains_to(leaf, intermediates=[middle], roots=[root])
    assert not keys.chains_to(leaf, intermediates=[], roots=[root])
    assert not keys.chains_to(leaf, intermediates=[middle], roots=[authority("another root")])
    # A merchant's certificate may not vouch for another one, although its signature is right.
    assert not keys.chains_to(below, intermediates=[leaf, middle], roots=[root])


def test_a_forged_issuer_name_does_not_chain() -> None:
    forged = certificate("Alipay", key("alipay").public_key(), issuer=authority("root"), issuer_key=key("other"))
    assert not keys.chains_to(forged, intermediates=[], roots=[authority("root")])

"""Reading Alipay keys and certificates as people paste them.

Alipay's tool emits one line of bare base64, its Java users hold PKCS#8, everybody else PKCS#1; headers get lost or
wrong on the way, and environment files turn line ends into a literal backslash-n. The DER inside decides what a text
is; headers and white space decide nothing, except to tell a person what was pasted by mistake.

Source: https://github.com/alipay/alipay-sdk-nodejs-all/blob/e1676390/src/antcertutil.ts, read 2026-09-11.
"""

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from cryptography.utils import CryptographyDeprecationWarning

from app.providers.contract import AccountInvalid

MINIMUM_KEY_BITS = 2048
_MAXIMUM_KEY_BITS = 8192
_TEXT_LIMIT = 65_536
_CHAIN_LIMIT = 5

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
# Every RSA signature algorithm of PKCS#1. The root bundle also holds SM2 and ECDSA certificates: no part of the SN.
_RSA_SIGNATURES = "1.2.840.113549.1.1."
_RSA_SIGNATURES_DER = bytes.fromhex("2a864886f70d0101")

Certificate = x509.Certificate


def load_private_key(text: str, *, field: str, tested_before: bool = False) -> RSAPrivateKey:
    """The RSA private key in `text`: PEM or bare base64, PKCS#1 or PKCS#8. Raises AccountInvalid naming `field`.

    `tested_before` leaves out the test that its numbers belong together, some 30 ms of processor time: only for a key
    that passed it when it was entered and was sealed since.
    """
    der = _single_der(text, field=field)
    try:
        key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=tested_before)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(field, _not_a_private_key(der)) from exc
    if not isinstance(key, RSAPrivateKey):
        raise AccountInvalid(field, f"{field} is not an RSA key: Alipay's RSA2 needs one")
    _check_size(key.key_size, field=field)
    return key


def load_public_key(text: str, *, field: str) -> RSAPublicKey:
    """The RSA public key in `text`: PEM or bare base64, X.509 or PKCS#1. Raises AccountInvalid naming `field`."""
    der = _single_der(text, field=field)
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(field, _not_a_public_key(der, field=field)) from exc
    if not isinstance(key, RSAPublicKey):
        raise AccountInvalid(field, f"{field} is not an RSA key: Alipay's RSA2 needs one")
    _check_size(key.key_size, field=field)
    return key


def load_certificates(text: str, *, field: str) -> list[Certificate]:
    """The RSA certificates in `text`, in their order; those that cannot be read are left out if they are not RSA.

    The production root bundle mixes RSA with SM2 and ECDSA certificates, one of which no strict parser accepts.
    Raises AccountInvalid naming `field` when there is none.
    """
    certificates = [_load_certificate(der, field=field) for der in _certificate_ders(text, field=field)]
    usable = [certificate for certificate in certificates if certificate is not None]
    if not usable:
        raise AccountInvalid(field, f"{field} holds no RSA certificate: paste the whole .crt file")
    return usable


def certificate_sn(certificate: Certificate) -> str:
    """Alipay's serial of a certificate: md5 of its issuer, last name part first, and its decimal serial number."""
    name = certificate.issuer.rfc4514_string()
    # An identifier that Alipay chose, not a protection: nothing depends on md5 being hard to collide.
    return hashlib.md5(f"{name}{certificate.serial_number}".encode(), usedforsecurity=False).hexdigest()


def root_sn(certificates: list[Certificate]) -> str:
    """The serial of a root bundle: those of its RSA certificates, joined by underscores."""
    return "_".join(certificate_sn(certificate) for certificate in certificates)


def certificate_public_key(certificate: Certificate, *, field: str) -> RSAPublicKey:
    """The certificate's RSA key. Raises AccountInvalid naming `field` when it holds another kind, or a short one."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(field, f"{field} holds a key that is not RSA") from exc
    if not isinstance(key, RSAPublicKey):
        raise AccountInvalid(field, f"{field} holds a key that is not RSA")
    _check_size(key.key_size, field=field)
    return key


def chains_to(leaf: Certificate, *, intermediates: list[Certificate], roots: list[Certificate]) -> bool:
    """Whether `leaf` is signed, through at most a few of `intermediates`, by one of `roots`. Ignores dates."""
    current = leaf
    for _ in range(_CHAIN_LIMIT):
        if any(_issued(current, root) for root in roots):
            return True
        above = [one for one in intermediates if one != current and _may_issue(one) and _issued(current, one)]
        if not above:
            return False
        current = above[0]
    return False


def same_key(one: RSAPublicKey, other: RSAPublicKey) -> bool:
    """Whether two public keys are the same numbers."""
    return one.public_numbers() == other.public_numbers()


def private_pem(key: RSAPrivateKey) -> str:
    """The key in the one shape in which it is stored: PKCS#8 PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def public_pem(key: RSAPublicKey) -> str:
    """The key in the one shape in which it is stored: X.509 SubjectPublicKeyInfo PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def certificates_pem(certificates: list[Certificate]) -> str:
    """The certificates in the one shape in which they are stored."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode("ascii") for certificate in certificates)


def _blocks(text: str, *, field: str) -> list[tuple[str, bytes]]:
    """(label, DER) of every PEM block, or ("", DER) of a bare base64 text."""
    if len(text) > _TEXT_LIMIT:
        raise AccountInvalid(field, f"{field} is longer than {_TEXT_LIMIT} characters: that is no key")
    text = text.replace("\\r", "\n").replace("\\n", "\n").lstrip("\ufeff").strip()
    if not text:
        raise AccountInvalid(field, f"{field} is empty: paste the key, with or without its BEGIN and END lines")
    found = _BLOCK.findall(text)
    if not found:
        if "-----" in text:
            raise AccountInvalid(field, f"{field} has a damaged BEGIN or END line: paste the file unchanged")
        found = [("", text)]
    return [(label, _decode(content, label, field=field)) for label, content in found]


def _decode(content: str, label: str, *, field: str) -> bytes:
    if "ENCRYPTED" in label or "ENCRYPTED" in content:
        raise AccountInvalid(
            field, f"{field} is protected by a pass phrase: remove it first, with `openssl pkcs8 -topk8 -nocrypt`"
        )
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise AccountInvalid(field, f"{field} is not base64: a character is missing, or a wrong one came in") from exc


def _single_der(text: str, *, field: str) -> bytes:
    blocks = _blocks(text, field=field)
    if len(blocks) != 1:
        raise AccountInvalid(field, f"{field} holds {len(blocks)} keys: paste exactly one")
    return blocks[0][1]


def _certificate_ders(text: str, *, field: str) -> list[bytes]:
    blocks = _blocks(text, field=field)
    if any("KEY" in label for label, _ in blocks):
        raise AccountInvalid(field, f"{field} is a key: paste the certificate, the .crt file")
    return [der for _, der in blocks]


def _load_certificate(der: bytes, *, field: str) -> Certificate | None:
    """The certificate; None for one that is not signed with RSA."""
    try:
        with warnings.catch_warnings():
            # A company's name may be longer than the standard allows; what the library will refuse one day, such as a
            # negative serial number, is refused now. The second kind is a subclass of the first.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
            is_rsa = certificate.signature_algorithm_oid.dotted_string.startswith(_RSA_SIGNATURES)
            if is_rsa:
                # The library reads these only when asked; what is broken must show here, where the field is known.
                _ = certificate.issuer.rfc4514_string(), certificate.subject.rfc4514_string(), certificate.serial_number
                _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion, CryptographyDeprecationWarning) as exc:
        oid = _signature_oid(der)
        if oid is None or oid.startswith(_RSA_SIGNATURES_DER):
            raise AccountInvalid(field, f"{field} holds something that is no certificate: paste the .crt file") from exc
        return None
    return certificate if is_rsa else None


def _signature_oid(der: bytes) -> bytes | None:
    """The signature algorithm of a certificate that the library refuses to parse; None when it does not look like one.

    Walks Certificate → TBSCertificate → [version] → serial → AlgorithmIdentifier → OID, and nothing else.
    """
    try:
        at, _ = _enter(der, 0, 0x30)
        at, _ = _enter(der, at, 0x30)
        if der[at] == 0xA0:
            start, length = _enter(der, at, 0xA0)
            at = start + length
        start, length = _enter(der, at, 0x02)
        at, _ = _enter(der, start + length, 0x30)
        start, length = _enter(der, at, 0x06)
    except (IndexError, ValueError):
        return None
    return der[start : start + length]


def _enter(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the content of the DER element at `at` starts, and its length. Raises ValueError for another tag."""
    if der[at] != tag:
        raise ValueError("unexpected DER tag")
    length = der[at + 1]
    if length < 0x80:
        return at + 2, length
    size = length & 0x7F
    return at + 2 + size, int.from_bytes(der[at + 2 : at + 2 + size], "big")


def _check_size(bits: int, *, field: str) -> None:
    if not MINIMUM_KEY_BITS <= bits <= _MAXIMUM_KEY_BITS:
        raise AccountInvalid(field, f"{field} has {bits} bits: RSA2 needs at least {MINIMUM_KEY_BITS}, make a new pair")


def _not_a_private_key(der: bytes) -> str:
    if _loads(load_der_public_key, der):
        return "this is a public key: paste the application's private key (应用私钥) here"
    if _loads(x509.load_der_x509_certificate, der):
        return "this is a certificate: paste the application's private key (应用私钥) here"
    return "this is no RSA private key: PEM or bare base64, PKCS#1 or PKCS#8 are understood"


def _not_a_public_key(der: bytes, *, field: str) -> str:
    if _loads(lambda content: load_der_private_key(content, password=None), der):
        return f"this is a private key: paste a public key as {field}, and keep the private one to yourself"
    if _loads(x509.load_der_x509_certificate, der):
        return f'this is a certificate: {field} is a bare public key; with certificates use mode "certificate"'
    return "this is no RSA public key: PEM or bare base64, X.509 or PKCS#1 are understood"


def _loads(load: Callable[[bytes], object], der: bytes) -> bool:
    try:
        load(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _issued(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _may_issue(certificate: Certificate) -> bool:
    """Only a CA's certificate may stand between: otherwise every merchant's own certificate could vouch for another."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False

"""Reading the keys and certificates of WeChat Pay as people paste them.

The merchant platform hands out PEM files (apiclient_key.pem, apiclient_cert.pem, pub_key.pem); on their way into a form
they lose their BEGIN lines or get a literal backslash-n for each line end. The DER inside decides what a text is.
"""

import base64
import binascii
import re
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from app.providers.contract import AccountInvalid

Certificate = x509.Certificate

_KEY_BITS = range(2048, 8193)
_TEXT_LIMIT = 65_536
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def load_private_key(text: str, *, field: str, tested_before: bool = False) -> RSAPrivateKey:
    """The RSA private key in `text`: PEM or bare base64, PKCS#1 or PKCS#8. Raises AccountInvalid naming `field`.

    `tested_before` leaves out the test that its numbers belong together, some 30 ms of processor time: only for a key
    that passed it when it was entered and was sealed since.
    """
    der = _single_der(text, field=field)
    try:
        key = load_der_private_key(der, password=None, unsafe_skip_rsa_key_validation=tested_before)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(field, _not_a_private_key(der, field=field)) from exc
    if not isinstance(key, RSAPrivateKey) or key.key_size not in _KEY_BITS:
        raise AccountInvalid(field, f"{field} is not an RSA key of 2048 bits: paste apiclient_key.pem")
    return key


def load_public_key(text: str, *, field: str) -> RSAPublicKey:
    """The RSA public key in `text`: PEM or bare base64, X.509 or PKCS#1. Raises AccountInvalid naming `field`."""
    der = _single_der(text, field=field)
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise AccountInvalid(field, _not_a_public_key(der, field=field)) from exc
    if not isinstance(key, RSAPublicKey) or key.key_size not in _KEY_BITS:
        raise AccountInvalid(field, f"{field} is not an RSA key of 2048 bits: paste pub_key.pem")
    return key


def load_certificates(text: str, *, field: str) -> list[Certificate]:
    """The certificates in `text`, in their order, at least one, each with a usable RSA key.

    Raises AccountInvalid naming `field`."""
    loaded = []
    for label, der in _blocks(text, field=field):
        if "KEY" in label:
            raise AccountInvalid(field, f"{field} holds a key: paste the certificate")
        try:
            certificate = x509.load_der_x509_certificate(der)
            # The library reads these only when asked; what is broken must show here, where the field is known.
            _ = certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc
            _ = certificate.subject.rfc4514_string()
            key = certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
            raise AccountInvalid(field, f"{field} is no certificate: paste the .pem file of the certificate") from exc
        if not isinstance(key, RSAPublicKey) or key.key_size not in _KEY_BITS:
            raise AccountInvalid(field, f"{field} does not hold an RSA key of 2048 bits")
        loaded.append(certificate)
    return loaded


def rsa_key(certificate: Certificate) -> RSAPublicKey:
    """The key of a certificate that `load_certificates` returned."""
    key = certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    return key


def serial_of(certificate: Certificate) -> str:
    """The serial as WeChat writes it in headers: hexadecimal, upper case, whole bytes."""
    digits = f"{certificate.serial_number:X}"
    return digits if len(digits) % 2 == 0 else f"0{digits}"


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
    found = _BLOCK.findall(text)
    if not found:
        if "-----" in text:
            raise AccountInvalid(field, f"{field} has a damaged BEGIN or END line: paste the file unchanged")
        found = [("", text)]
    return [(label, _decoded(label, content, field=field)) for label, content in found]


def _decoded(label: str, content: str, *, field: str) -> bytes:
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


def _not_a_private_key(der: bytes, *, field: str) -> str:
    if _loads(load_der_public_key, der):
        return f"{field} is a public key: paste the merchant's private key, apiclient_key.pem"
    if _loads(x509.load_der_x509_certificate, der):
        return f"{field} is a certificate: paste the merchant's private key, apiclient_key.pem"
    return f"{field} is no RSA private key: PEM or bare base64, PKCS#1 or PKCS#8 are understood"


def _not_a_public_key(der: bytes, *, field: str) -> str:
    if _loads(lambda content: load_der_private_key(content, password=None), der):
        return f"{field} is a private key: paste the WeChat Pay public key, pub_key.pem"
    if _loads(x509.load_der_x509_certificate, der):
        return (
            f"{field} is a certificate: the WeChat Pay public key (微信支付公钥) is a bare key, pub_key.pem; "
            "a merchant who has only platform certificates uses mode v3_certificate"
        )
    return f"{field} is no RSA public key: PEM or bare base64, X.509 or PKCS#1 are understood"


def _loads(load: Callable[[bytes], object], der: bytes) -> bool:
    try:
        load(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return False
    return True

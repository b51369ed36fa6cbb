"""RSA2 and certificate serial numbers, written for the sandbox alone.

Request:      all parameters but `sign`; `sign_type` stays.
Notification: all parameters but `sign` and `sign_type`; the same for the parameters of a return URL.
Answer:       the exact bytes of the `<method>_response` value.

Empty values are left out, keys sorted, `k=v` joined with `&`, values as they are before URL encoding.
Source: opendocs.alipay.com common/02mse7 and open/00f7nu, read 2026-09.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

RSA_SIGNATURES = "1.2.840.113549.1.1"


def request_text(parameters: Mapping[str, str]) -> str:
    return _joined(parameters, left_out={"sign"})


def notification_text(parameters: Mapping[str, str]) -> str:
    return _joined(parameters, left_out={"sign", "sign_type"})


def _joined(parameters: Mapping[str, str], *, left_out: set[str]) -> str:
    return "&".join(
        f"{name}={value}" for name, value in sorted(parameters.items()) if value != "" and name not in left_out
    )


def sign(key: RSAPrivateKey, content: bytes) -> str:
    """Base64 of RSA PKCS#1 v1.5 with SHA-256."""
    return base64.b64encode(key.sign(content, PKCS1v15(), SHA256())).decode()


def verified(key: RSAPublicKey, content: bytes, signature: str) -> bool:
    """Whether `signature` (base64, strictly) is the key's over `content`."""
    try:
        key.verify(base64.b64decode(signature, validate=True), content, PKCS1v15(), SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def certificate_sn(certificate: x509.Certificate) -> str:
    """md5 of the issuer (`CN=…,OU=…,O=…,C=…`) followed by the decimal serial number, 32 hex digits."""
    text = certificate.issuer.rfc4514_string() + str(certificate.serial_number)
    # The protocol's own fingerprint; it protects nothing.
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def root_certificate_sn(bundle_pem: str) -> str:
    """The serial numbers of the bundle's RSA-signed certificates, joined with `_`; others (SM2, EC) are skipped."""
    return "_".join(
        certificate_sn(certificate)
        for certificate in x509.load_pem_x509_certificates(bundle_pem.encode())
        if certificate.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNATURES)
    )

"""Serial numbers against real certificates of Alipay's; strings to sign against the documented rules.

The certificates and their serial numbers are those of alipay/alipay-sdk-nodejs-all (MIT),
test/antcertutil.test.ts at e1676390. Signatures are tested against the official SDK in test_official_sdk.py.
"""

import re
from pathlib import Path

import pytest
from cryptography import x509

from app.sandbox.alipay.signing import certificate_sn, notification_text, request_text, root_certificate_sn

VECTORS = Path(__file__).parent / "vectors"


@pytest.mark.parametrize(
    ("name", "serial_number"),
    [
        ("appCertPublicKey_2021001161683774.crt", "866efef280dec9137a87d047ac446315"),
        ("alipayCertPublicKey_RSA2.crt", "7513daaaa48aa3ba2e4018d84402479c"),
    ],
)
def test_certificate_sn_of_real_certificates(name: str, serial_number: str) -> None:
    certificate = x509.load_pem_x509_certificates((VECTORS / name).read_bytes())[0]
    assert certificate_sn(certificate) == serial_number


def test_root_sn_joins_the_rsa_certificates_of_alipays_bundle() -> None:
    text = (VECTORS / "alipayRootCert.crt").read_text()
    sm2, rsa_root, malformed, other_rsa_root = re.findall("-----BEGIN.+?-----END CERTIFICATE-----\n?", text, re.DOTALL)
    # cryptography refuses the encoding of the third, which is not RSA; the sandbox reads only bundles of its own.
    with pytest.raises(ValueError, match="error parsing asn1 value"):
        root_certificate_sn(malformed)
    expected = "687b59193f3f462dd5336e5abf83c5d8_02941eef3187dddf3d3b83462e1dfcf6"
    assert root_certificate_sn(sm2 + rsa_root + other_rsa_root) == expected


def test_a_request_is_signed_with_its_sign_type_and_without_empty_values() -> None:
    parameters = {"b": "2 ", "a": "=&", "sign_type": "RSA2", "sign": "x", "empty": ""}
    assert request_text(parameters) == "a==&&b=2 &sign_type=RSA2"


def test_a_notification_is_signed_without_its_sign_type() -> None:
    parameters = {"b": "2", "a": "1", "sign_type": "RSA2", "sign": "x", "empty": ""}
    assert notification_text(parameters) == "a=1&b=2"

"""Published vectors, and nothing that is no signature passes."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.wechat.v3 import keys
from app.providers.wechat.v3.signing import (
    authorization,
    decrypted,
    new_nonce,
    page_signature,
    request_message,
    sign,
    verifies,
)
from tests.providers.wechat.v3.keyring import APIV3_KEY, encrypted, key, stamped, vector_bytes, vectors


def _private(name: str) -> RSAPrivateKey:
    loaded = load_pem_private_key(vector_bytes(name), password=None)
    assert isinstance(loaded, RSAPrivateKey)
    return loaded


def test_every_published_request_signature_is_reproduced() -> None:
    for vector in vectors("rsa_sign"):
        assert sign(_private(vector["key"]), vector["message"].encode()) == vector["signature"], vector["id"]


def test_the_published_page_signature_comes_out_of_its_parts() -> None:
    vector = next(one for one in vectors("rsa_sign") if one["id"] == "doc-jsapi-paysign")
    app_id, timestamp, nonce, package = vector["message"].splitlines()
    signature = page_signature(
        _private(vector["key"]), app_id=app_id, timestamp=timestamp, nonce=nonce, package=package
    )
    assert signature == vector["signature"]


def test_the_published_authorization_comes_out_of_its_parts() -> None:
    vector = next(one for one in vectors("rsa_sign") if one["id"] == "doc-authorization-jsapi-prepay")
    parts = (vector["method"], vector["path"], vector["timestamp"], vector["nonce"], vector["body"].encode())
    assert request_message(*parts) == vector["message"].encode()
    header = authorization(
        _private(vector["key"]),
        mchid=vector["mchid"],
        serial_no=vector["serial_no"],
        method=vector["method"],
        target=vector["path"],
        timestamp=vector["timestamp"],
        nonce=vector["nonce"],
        body=vector["body"].encode(),
    )
    assert header == (
        f'WECHATPAY2-SHA256-RSA2048 mchid="{vector["mchid"]}",nonce_str="{vector["nonce"]}",'
        f'timestamp="{vector["timestamp"]}",serial_no="{vector["serial_no"]}",signature="{vector["signature"]}"'
    )


def test_a_query_is_signed_as_it_is_encoded() -> None:
    [vector] = vectors("message_to_sign")
    message = request_message("GET", vector["raw_path"], "1", "n", b"")
    assert message == f"GET\n{vector['raw_path']}\n1\nn\n\n".encode()


def test_the_published_answer_verifies_and_no_change_to_it_does() -> None:
    [vector] = vectors("rsa_verify")
    public_key = load_pem_public_key(vector_bytes(vector["public_key"]))
    assert isinstance(public_key, RSAPublicKey)
    whole = {
        "timestamp": vector["headers"]["Wechatpay-Timestamp"],
        "nonce": vector["headers"]["Wechatpay-Nonce"],
        "signature": vector["headers"]["Wechatpay-Signature"],
    }
    body = vector["body"].encode()
    assert verifies(public_key, body=body, **whole)
    for part, text in whole.items():
        for at in range(len(text)):
            changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
            assert not verifies(public_key, body=body, **(whole | {part: changed}))
    for at in range(len(body)):
        assert not verifies(public_key, body=body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], **whole)
    for longer in (body + b"\n", body + b" ", b" " + body, b""):
        assert not verifies(public_key, body=longer, **whole)


@pytest.mark.parametrize("number", [0, 1])
def test_the_published_pairs_belong_together(number: int) -> None:
    pair = vectors("java_key_pairs")[number]
    private = keys.load_private_key(vector_bytes(pair["private"]).decode(), field="f")
    [certificate] = keys.load_certificates(vector_bytes(pair["certificate"]).decode(), field="f")
    assert keys.serial_of(certificate) == pair["serial"]
    assert keys.same_key(keys.rsa_key(certificate), private.public_key())
    assert load_pem_x509_certificate(vector_bytes(pair["certificate"])) == certificate
    if "public" in pair:
        public = keys.load_public_key(vector_bytes(pair["public"]).decode(), field="f")
        assert keys.same_key(public, private.public_key())


def test_every_published_ciphertext_opens() -> None:
    for vector in vectors("aes_gcm"):
        opened = decrypted(
            vector["key"].encode(),
            nonce=vector["nonce"],
            associated_data=vector["aad"],
            ciphertext=vector["ciphertext"],
        )
        assert opened == vector["plaintext"].encode(), vector["id"]


def test_no_changed_ciphertext_opens() -> None:
    resource = encrypted(b'{"a":1}', associated_data="transaction")
    whole = {name: resource[name] for name in ("nonce", "associated_data", "ciphertext")}
    assert decrypted(APIV3_KEY.encode(), **whole) == b'{"a":1}'
    sealed = base64.b64decode(whole["ciphertext"])
    changes = [sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))]
    texts = [base64.b64encode(changed).decode() for changed in [*changes, sealed[:-1], sealed[:15], b"", sealed * 2]]
    texts += [whole["ciphertext"] + "\n", whole["ciphertext"][:-1], whole["ciphertext"] + "=", "漢", "*" * 40]
    for text in texts:
        with pytest.raises(ValueError, match="ciphertext"):
            decrypted(APIV3_KEY.encode(), **(whole | {"ciphertext": text}))
    for name, text in (("nonce", "another12345"), ("associated_data", ""), ("associated_data", "transactioN")):
        with pytest.raises(ValueError, match="APIv3 key"):
            decrypted(APIV3_KEY.encode(), **(whole | {name: text}))
    with pytest.raises(ValueError, match="APIv3 key"):
        decrypted(APIV3_KEY.swapcase().encode(), **whole)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_no_text_at_all_crashes_a_verification(text: str) -> None:
    public_key = key("wechat").public_key()
    assert not verifies(public_key, timestamp="1", nonce="n", body=b"", signature=text)
    assert not verifies(public_key, timestamp=text, nonce=text, body=b"", signature="AAAA")


def test_another_writing_of_the_same_signature_is_refused() -> None:
    headers = stamped(b"{}")
    public_key = key("wechat").public_key()
    parts = {"timestamp": headers["wechatpay-timestamp"], "nonce": headers["wechatpay-nonce"]}
    signature = headers["wechatpay-signature"]
    assert verifies(public_key, signature=signature, body=b"{}", **parts)
    urlsafe = signature.replace("+", "-").replace("/", "_")
    for other in (signature + "\n", " " + signature, signature.rstrip("="), signature + "=", urlsafe + "-"):
        assert not verifies(public_key, signature=other, body=b"{}", **parts)


def test_nonces_have_32_characters_and_do_not_repeat() -> None:
    made = {new_nonce() for _ in range(100)}
    assert len(made) == 100
    assert {len(nonce) for nonce in made} == {32}

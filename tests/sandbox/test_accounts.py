"""Accounts: what a merchant gets, that keys belong together, that a restart keeps them."""

import asyncio
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from app.sandbox.accounts import FILE_NAME, AccountsUnreadable, load_or_create_accounts

BASE = "http://127.0.0.1:8001"
COMMON = {
    "provider",
    "mode",
    "gateway",
    "app_id",
    "seller_id",
    "app_private_key",
    "app_private_key_pkcs8",
    "app_public_key",
    "alipay_public_key",
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("accounts")
    load_or_create_accounts(path, BASE)
    return path


def by_mode(directory: Path) -> dict[str, dict[str, str]]:
    """Alipay's; WeChat's have tests of their own."""
    accounts = load_or_create_accounts(directory, BASE)
    return {account["mode"]: account for account in accounts if account["provider"] == "ALIPAY"}


def public_pem(private_pem: str) -> str:
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def test_there_is_one_account_per_mode_with_fixed_keys(directory: Path) -> None:
    accounts = by_mode(directory)
    assert {mode: account.keys() for mode, account in accounts.items()} == {
        "public_key": COMMON,
        "certificate": COMMON | {"app_cert", "alipay_cert", "alipay_root_cert"},
        "isv": COMMON | {"app_auth_token", "auth_app_id"},
    }
    assert {account["provider"] for account in accounts.values()} == {"ALIPAY"}
    assert {account["gateway"] for account in accounts.values()} == {f"{BASE}/gateway.do"}
    assert len({account["app_id"] for account in accounts.values()}) == 3
    assert len({account["seller_id"] for account in accounts.values()}) == 3


def test_keys_belong_together_and_no_two_apps_share_one(directory: Path) -> None:
    accounts = by_mode(directory).values()
    for account in accounts:
        assert account["app_private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----\n")
        assert account["app_private_key_pkcs8"].startswith("-----BEGIN PRIVATE KEY-----\n")
        assert public_pem(account["app_private_key"]) == account["app_public_key"]
        assert public_pem(account["app_private_key_pkcs8"]) == account["app_public_key"]
    assert len({account[side] for account in accounts for side in ("app_public_key", "alipay_public_key")}) == 6


def test_certificates_chain_to_the_root_and_carry_the_keys(directory: Path) -> None:
    account = by_mode(directory)["certificate"]
    skipped, root = x509.load_pem_x509_certificates(account["alipay_root_cert"].encode())
    assert isinstance(skipped.public_key(), ec.EllipticCurvePublicKey)
    root_key = root.public_key()
    assert isinstance(root_key, rsa.RSAPublicKey)
    for certificate_name, key_name in (("app_cert", "app_public_key"), ("alipay_cert", "alipay_public_key")):
        certificate = x509.load_pem_x509_certificate(account[certificate_name].encode())
        assert certificate.issuer == root.subject
        algorithm = certificate.signature_hash_algorithm
        assert algorithm is not None
        root_key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), algorithm)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = certificate.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
        assert pem == account[key_name]


def test_a_restart_keeps_the_accounts(directory: Path) -> None:
    before = (directory / FILE_NAME).read_bytes()
    assert by_mode(directory) == by_mode(directory)
    assert (directory / FILE_NAME).read_bytes() == before


def test_the_file_is_its_owners_alone(directory: Path) -> None:
    assert stat.S_IMODE((directory / FILE_NAME).stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == [FILE_NAME]


async def test_two_first_starts_at_once_agree(tmp_path: Path) -> None:
    one, other = await asyncio.gather(
        asyncio.to_thread(load_or_create_accounts, tmp_path / "state", BASE),
        asyncio.to_thread(load_or_create_accounts, tmp_path / "state", BASE),
    )
    assert one == other


@pytest.mark.parametrize("content", ["", "{}x", '[{"mode": "public_key"}]', '["text"]'])
def test_a_file_that_is_none_is_named_in_the_error(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(AccountsUnreadable, match=f"{FILE_NAME} cannot be read as sandbox accounts; delete it"):
        load_or_create_accounts(tmp_path, BASE)
    assert (tmp_path / FILE_NAME).read_text() == content


def test_what_alipay_alone_knows_is_not_published(directory: Path) -> None:
    records = json.loads((directory / FILE_NAME).read_text())
    kept = [record for record in records if record["provider"] == "ALIPAY"]
    published = json.dumps(load_or_create_accounts(directory, BASE))
    for record in kept:
        assert record["alipay_private_key"].splitlines()[1] not in published

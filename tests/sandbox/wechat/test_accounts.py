"""WeChat's accounts: what a merchant gets, that keys belong together, that an older file is completed."""

import asyncio
import base64
import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from app.sandbox.accounts import FILE_NAME, AccountsUnreadable, load_or_create_accounts

BASE = "http://127.0.0.1:8001"
APPS = {"appid", "mini_program_appid", "official_account_appid"}
V3 = {"provider", "mode", "gateway", "mchid", "serial_no", "private_key", "merchant_certificate", "apiv3_key"} | APPS
V2 = {"provider", "mode", "gateway", "mch_id", "api_key", "client_certificate_p12"} | APPS


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("accounts")
    load_or_create_accounts(path, BASE)
    return path


def by_mode(directory: Path, provider: str = "WECHAT") -> dict[str, dict[str, str]]:
    accounts = load_or_create_accounts(directory, f"{BASE}/")
    return {account["mode"]: account for account in accounts if account["provider"] == provider}


def public_pem(private_pem: str) -> str:
    key = serialization.load_pem_private_key(private_pem.encode(), password=None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def test_there_is_one_account_per_mode_with_fixed_keys(directory: Path) -> None:
    accounts = by_mode(directory)
    assert {mode: account.keys() for mode, account in accounts.items()} == {
        "v3": V3 | {"public_key_id", "public_key"},
        "v3_certificate": V3,
        "v3_partner": V3 | {"public_key_id", "public_key", "sub_mchid"},
        "v2": V2,
        "v2_partner": V2 | {"sub_mch_id"},
        "cloud": {"provider", "mode", "gateway", "sub_mch_id", "appid", "env_id", "cloud_service"},
    }
    assert {account["gateway"] for account in accounts.values()} == {BASE}
    assert all(isinstance(text, str) and text for account in accounts.values() for text in account.values())


def test_the_merchants_apps_are_those_that_log_payers_in(directory: Path) -> None:
    apps = by_mode(directory, "WECHAT_APP")
    mini_program, official_account = (apps[mode]["app_id"] for mode in ("mini_program", "official_account"))
    for account in by_mode(directory).values():
        if account["mode"] == "cloud":
            assert account["appid"] == mini_program
        else:
            assert (account["mini_program_appid"], account["official_account_appid"], account["appid"]) == (
                mini_program,
                official_account,
                official_account,
            )


@pytest.mark.parametrize("mode", ["v3", "v3_certificate", "v3_partner"])
def test_a_v3_merchants_keys_belong_together(directory: Path, mode: str) -> None:
    account = by_mode(directory)[mode]
    certificate = x509.load_pem_x509_certificate(account["merchant_certificate"].encode())
    assert account["serial_no"] == f"{certificate.serial_number:X}"
    assert re.fullmatch(r"[0-9A-F]{40}", account["serial_no"])
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = certificate.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    assert pem == public_pem(account["private_key"])
    assert re.fullmatch(r"[A-Za-z0-9]{32}", account["apiv3_key"])
    if "public_key" in account:
        assert re.fullmatch(r"PUB_KEY_ID_[0-9]{34}", account["public_key_id"])
        assert account["public_key"] != pem


@pytest.mark.parametrize("mode", ["v2", "v2_partner"])
def test_a_v2_merchants_certificate_opens_with_the_merchants_number(directory: Path, mode: str) -> None:
    account = by_mode(directory)[mode]
    archive = base64.b64decode(account["client_certificate_p12"], validate=True)
    key, certificate, _ = pkcs12.load_key_and_certificates(archive, account["mch_id"].encode())
    assert key is not None
    assert certificate is not None
    assert key.public_key() == certificate.public_key()
    assert re.fullmatch(r"[A-Za-z0-9]{32}", account["api_key"])


def test_no_two_merchants_share_a_secret(directory: Path) -> None:
    accounts = by_mode(directory).values()
    for name, count in (("private_key", 3), ("public_key", 2), ("apiv3_key", 3), ("api_key", 2), ("serial_no", 3)):
        assert len({account[name] for account in accounts if name in account}) == count


def test_what_wechat_alone_knows_is_not_published(directory: Path) -> None:
    published = json.dumps(load_or_create_accounts(directory, BASE))
    for record in json.loads((directory / FILE_NAME).read_text()):
        for name in ("public_key_private", "platform_private_key"):
            if name in record:
                assert record[name].splitlines()[1] not in published


async def test_an_older_file_keeps_its_records_and_is_given_the_missing_ones(directory: Path, tmp_path: Path) -> None:
    kept = json.loads((directory / FILE_NAME).read_text())
    older = [record for record in kept if record["provider"] == "ALIPAY" or record["mode"] == "v2"]
    (tmp_path / FILE_NAME).write_text(json.dumps(older))
    one, other = await asyncio.gather(
        *(asyncio.to_thread(load_or_create_accounts, tmp_path, BASE) for _ in range(2)),
    )
    assert one == other == load_or_create_accounts(tmp_path, BASE)
    now = json.loads((tmp_path / FILE_NAME).read_text())
    assert now[: len(older)] == older
    assert len(now) == len(kept)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "changes", [{"serial_no": None}, {"private_key": "x"}, {"mode": "v4"}, {"provider": "UNIONPAY"}]
)
def test_a_damaged_record_is_not_used(directory: Path, tmp_path: Path, changes: dict[str, str | None]) -> None:
    kept = json.loads((directory / FILE_NAME).read_text())
    record = next(record for record in kept if record["mode"] == "v3")
    record |= changes
    damaged = [{name: value for name, value in record.items() if value is not None}]
    (tmp_path / FILE_NAME).write_text(json.dumps(damaged))
    with pytest.raises(AccountsUnreadable):
        load_or_create_accounts(tmp_path, BASE)

"""Sealed credentials open with their key, in their row, unaltered; and with nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vault import Vault, VaultError, split_key_id

OLD, NEW = bytes(32), bytes(range(32))
SECRETS = {"app_private_key": "-----BEGIN…", "app_auth_token": "令牌"}


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=5))
def test_what_was_sealed_opens_again(credentials: dict[str, str]) -> None:
    vault = Vault({"k1": NEW})
    assert vault.open(vault.seal(credentials, row="merchant_account:1"), row="merchant_account:1") == credentials


def test_a_value_moved_to_another_row_does_not_open() -> None:
    vault = Vault({"k1": NEW})
    sealed = vault.seal(SECRETS, row="merchant_account:1")
    with pytest.raises(VaultError, match="merchant_account:2"):
        vault.open(sealed, row="merchant_account:2")


def test_every_altered_byte_is_noticed() -> None:
    vault = Vault({"k1": NEW})
    sealed = vault.seal(SECRETS, row="r")
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 1
        with pytest.raises(VaultError):
            vault.open(bytes(altered), row="r")
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            vault.open(sealed[:length], row="r")


def test_old_keys_open_and_the_first_seals() -> None:
    sealed = Vault({"old": OLD}).seal(SECRETS, row="r")
    both = Vault({"new": NEW, "old": OLD})
    assert both.open(sealed, row="r") == SECRETS
    assert split_key_id(both.seal(SECRETS, row="r"))[0] == "new"
    with pytest.raises(VaultError, match="sealed with the key 'old', which is not in MASTER_KEYS"):
        Vault({"new": NEW}).open(sealed, row="r")


def test_the_same_secret_never_seals_to_the_same_bytes() -> None:
    vault = Vault({"k1": NEW})
    assert len({vault.seal(SECRETS, row="r") for _ in range(100)}) == 100


def test_without_a_key_there_is_no_vault() -> None:
    with pytest.raises(ValueError, match="MASTER_KEYS"):
        Vault({})

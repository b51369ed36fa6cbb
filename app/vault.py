"""Sealing credentials: AES-256-GCM under one of several master keys, bound to the row that holds them.

    sealed = "S1" | len(key id) | key id | nonce (12) | ciphertext and tag

The row's identity is the associated data, so that a sealed value copied to another row does not open.
"""

import os
from collections.abc import Mapping
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC: Final = b"S1"


class VaultError(Exception):
    """A sealed value does not open: its key is missing from MASTER_KEYS, or the value or its row was altered."""


class Vault:
    """Seals with the first master key, opens with whichever key a value names."""

    def __init__(self, master_keys: Mapping[str, bytes]) -> None:
        if not master_keys:
            raise ValueError("MASTER_KEYS: at least one key is needed")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in master_keys.items()}
        self.sealing_key_id = next(iter(master_keys))

    def seal(self, credentials: Mapping[str, str], *, row: str) -> bytes:
        """Sealed bytes of `credentials`; `row` names the row for good, such as "merchant_account:7"."""
        key_id = self.sealing_key_id.encode()
        nonce = os.urandom(12)
        sealed = self._ciphers[self.sealing_key_id].encrypt(nonce, orjson.dumps(dict(credentials)), row.encode())
        return _MAGIC + bytes([len(key_id)]) + key_id + nonce + sealed

    def open(self, sealed: bytes, *, row: str) -> dict[str, str]:
        """The credentials. Raises VaultError."""
        key_id, rest = split_key_id(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise VaultError(f"{row} is sealed with the key {key_id!r}, which is not in MASTER_KEYS; add it back")
        try:
            opened: dict[str, str] = orjson.loads(cipher.decrypt(rest[:12], rest[12:], row.encode()))
        except InvalidTag as exc:
            raise VaultError(f"{row}: the credentials were altered or moved, or {key_id!r} is not their key") from exc
        return opened


def split_key_id(sealed: bytes) -> tuple[str, bytes]:
    """(id of the key it is sealed with, nonce and ciphertext). Raises VaultError when it is no sealed value."""
    if len(sealed) < 3 or sealed[:2] != _MAGIC or len(sealed) < 3 + sealed[2] + 28:
        raise VaultError("not a sealed value")
    end = 3 + sealed[2]
    return sealed[3:end].decode(errors="replace"), sealed[end:]

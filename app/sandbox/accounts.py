"""The sandbox's merchant accounts, kept in one file so that keys survive a restart.

`shouyin sandbox accounts --json` and the sandbox itself read the same file; whoever comes first makes it.
"""

import json
import os
import secrets
from pathlib import Path

from app.sandbox.alipay import accounts as alipay

FILE_NAME = "sandbox-accounts.json"

Record = dict[str, str]


class AccountsUnreadable(ValueError):
    """The accounts file cannot be used; delete it to get new accounts."""


def load_or_create_accounts(state_dir: Path, public_url: str) -> list[Record]:
    """What a merchant needs to point any SDK at the sandbox at `public_url`: one object per provider and mode.

    Keys of each object, all text: `provider mode gateway app_id seller_id app_private_key app_private_key_pkcs8
    app_public_key alipay_public_key`, for `certificate` also `app_cert alipay_cert alipay_root_cert`, for `isv` also
    `app_auth_token auth_app_id`. Makes the file when there is none, which takes a second or two; safe when several
    processes start at once. Raises AccountsUnreadable.
    """
    return [alipay.published(record, public_url.rstrip("/")) for record in load_or_create_records(state_dir)]


def load_or_create_records(state_dir: Path) -> list[Record]:
    """The same with the providers' private keys, for the sandbox alone."""
    path = state_dir / FILE_NAME
    if not path.exists():
        state_dir.mkdir(parents=True, exist_ok=True)
        _write_once(path, alipay.create_records())
    return _read(path)


def _write_once(path: Path, records: list[Record]) -> None:
    """Put the whole file in place or leave the one somebody else put there first; never half a file."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(records, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _read(path: Path) -> list[Record]:
    try:
        records: list[Record] = json.loads(path.read_text(encoding="utf-8"))
        for record in records:
            alipay.load_account(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AccountsUnreadable(f"{path} cannot be read as sandbox accounts; delete it to get new ones") from exc
    return records

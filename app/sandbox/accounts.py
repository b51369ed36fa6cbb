"""The sandbox's merchant accounts, kept in one file so that keys survive a restart.

`shouyin sandbox accounts --json` and the sandbox itself read the same file; whoever comes first makes it. A file of an
older sandbox keeps its records and is given those of the providers it does not know.
"""

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.sandbox.alipay import accounts as alipay
from app.sandbox.wechat import accounts as wechat
from app.sandbox.wechat import open_platform_apps as wechat_apps
from app.sandbox.world import Record

FILE_NAME = "sandbox-accounts.json"


class AccountsUnreadable(ValueError):
    """The accounts file cannot be used; delete it to get new accounts."""


@dataclass(frozen=True, slots=True)
class Bookkeeping:
    """How one provider's records are made, by mode; what of them is published; and a check that raises on a bad one."""

    makers: Mapping[str, Callable[[], Record]]
    published: Callable[[Mapping[str, str], str], Record]
    check: Callable[[Mapping[str, str]], object]


PROVIDERS: Mapping[str, Bookkeeping] = {
    alipay.PROVIDER: Bookkeeping(alipay.MAKERS, alipay.published, alipay.load_account),
    wechat.PROVIDER: Bookkeeping(wechat.MAKERS, wechat.published, wechat.load_merchant),
    wechat_apps.PROVIDER: Bookkeeping(wechat_apps.MAKERS, wechat_apps.published, wechat_apps.load_app),
}


def load_or_create_accounts(state_dir: Path, public_url: str) -> list[Record]:
    """What a merchant needs to point any SDK at the sandbox at `public_url`: one object per provider and mode.

    All values are text. Each has `provider`, `mode` and `gateway`; the others are the provider's (see the accounts
    module of each). Makes the file when there is none, which takes a second or two; safe when several processes start
    at once. Raises AccountsUnreadable.
    """
    base_url = public_url.rstrip("/")
    records = load_or_create_records(state_dir)
    return [PROVIDERS[record["provider"]].published(record, base_url) for record in records]


def load_or_create_records(state_dir: Path) -> list[Record]:
    """The same with the providers' private keys, for the sandbox alone."""
    path = state_dir / FILE_NAME
    if not path.exists():
        state_dir.mkdir(parents=True, exist_ok=True)
        _write_once(path, _missing([]))
    records = _read(path)
    return records if _is_complete(records) else _completed(path)


def _is_complete(records: list[Record]) -> bool:
    return _wanted() <= {(record["provider"], record["mode"]) for record in records}


def _wanted() -> set[tuple[str, str]]:
    return {(provider, mode) for provider, kept in PROVIDERS.items() for mode in kept.makers}


def _missing(records: list[Record]) -> list[Record]:
    """New records of every kind that is not among `records`."""
    there = {(record["provider"], record["mode"]) for record in records}
    return [
        make()
        for provider, kept in PROVIDERS.items()
        for mode, make in kept.makers.items()
        if (provider, mode) not in there
    ]


def _completed(path: Path) -> list[Record]:
    """The records with those an older file lacks; one process adds them, the others wait and read."""
    with path.open(encoding="utf-8") as file:
        # The lock is on the old file: whoever waited for it reads the new one by its name, and finds nothing missing.
        fcntl.flock(file, fcntl.LOCK_EX)
        records = _read(path)
        if not _is_complete(records):
            records = records + _missing(records)
            _draft(path, records).replace(path)
    return records


def _write_once(path: Path, records: list[Record]) -> None:
    """Put the whole file in place or leave the one somebody else put there first; never half a file."""
    draft = _draft(path, records)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _draft(path: Path, records: list[Record]) -> Path:
    """The file, complete and on disk, under a name of its own."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(records, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _read(path: Path) -> list[Record]:
    try:
        records: list[Record] = json.loads(path.read_text(encoding="utf-8"))
        for record in records:
            PROVIDERS[record["provider"]].check(record)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise AccountsUnreadable(f"{path} cannot be read as sandbox accounts; delete it to get new ones") from exc
    return records

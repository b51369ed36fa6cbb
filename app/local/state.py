"""The state directory of a local stack (SHOUYIN_HOME, `.local` unless set).

    lock           held while a stack runs, so that two starts never share the servers
    secrets.json   generated once: server passwords, MASTER_KEYS, JWT_SECRET
    ports.json     the servers' ports of last time
    run.json       the running stack: addresses and the environment of its parts
    postgres/      the database, or secrets.json's `data` where root keeps it for a server that cannot enter here
    sandbox/       merchant accounts and their keys
    logs/          one file for each part

Everything in it is readable by its owner alone.
"""

import base64
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.local import LocalError
from app.local.children import Account, lasting_directory, reachable

STATUS_KEYS = ("graphql", "websocket", "sandbox", "database_url", "redis_url")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a laptop's stack generates for itself once."""

    identity: str
    database_password: str
    redis_password: str
    master_keys: str
    jwt_secret: str


class Home:
    """One state directory. Nothing is created before `locked`. Every verb raises LocalError with one line."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the directory and holds it for one stack; the run file is gone afterwards."""
        with _explained(self.path):
            # Where the servers run as another user, that user passes through; what is inside is closed to it.
            self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _take(descriptor, fcntl.LOCK_EX):
                holder = os.pread(descriptor, 20, 0).decode() or "unknown"
                raise LocalError(
                    f"{self.path}: a stack already runs there (process {holder}): see `shouyin status`, or stop it"
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            self._run_file.unlink(missing_ok=True)
            try:
                yield
            finally:
                self._run_file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    @property
    def logs(self) -> Path:
        """Where the parts' logs are."""
        return self.path / "logs"

    @property
    def sandbox(self) -> Path:
        """Where the sandbox keeps its accounts."""
        return self.path / "sandbox"

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def secrets(self) -> Secrets:
        """The stack's secrets; made and stored before anything is made with them."""
        path = self.path / "secrets.json"
        if path.exists():
            stored = _read_json(path)
            try:
                return Secrets(**stored)
            except TypeError:
                raise LocalError(f"{path}: not what this program writes; remove {self.path} to start afresh") from None
        if (self.path / "postgres").exists():
            raise LocalError(
                f"{path} is missing, and {self.path / 'postgres'} cannot be opened without it: restore the file, "
                f"or remove {self.path} to start afresh"
            )
        made = Secrets(
            identity=secrets.token_hex(8),
            database_password=secrets.token_hex(24),
            redis_password=secrets.token_hex(24),
            master_keys=f"local:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            jwt_secret=secrets.token_hex(32),
        )
        _write_json(path, {name: getattr(made, name) for name in Secrets.__slots__})
        return made

    def data_directory(self, identity: str, account: Account | None) -> Path:
        """Where the database is or will be: here, or for root, when the servers' user cannot enter here, in a
        directory that it can reach and that only this home's identity names."""
        here = self.path / "postgres"
        if account is None or here.exists():
            return here
        place = lasting_directory(account) / identity
        if not place.exists() and reachable(self.path, account):
            return here
        if not place.exists():
            with _explained(place):
                _remove_predecessors(place.parent, self.path)
                place.mkdir(mode=0o711)
                (place / "home").write_text(str(self.path))
        return place / "postgres"

    def ports(self) -> dict[str, int]:
        """The servers' ports of last time; empty when there was none."""
        path = self.path / "ports.json"
        return {name: int(port) for name, port in _read_json(path).items()} if path.exists() else {}

    def remember_ports(self, ports: Mapping[str, int]) -> None:
        """Keeps the servers' ports for the next start."""
        _write_json(self.path / "ports.json", dict(ports))

    def write_run(self, addresses: Mapping[str, str], environment: Mapping[str, str]) -> None:
        """Tells `status`, `token` and the other commands where the stack is."""
        _write_json(self._run_file, {"pid": os.getpid(), **addresses, "environment": dict(environment)})

    def running(self) -> dict[str, Any]:
        """The run file of a stack that runs now. Raises LocalError when none does."""
        if not self._run_file.exists():
            raise LocalError(f"no stack is running under {self.path}: start one with `make run`")
        run = _read_json(self._run_file)
        with _explained(self.path), (self.path / "lock").open("rb") as lock:
            if _take(lock.fileno(), fcntl.LOCK_SH):
                raise LocalError(
                    f"the stack of {self._run_file} (process {run.get('pid')}) has ended without saying so: "
                    "start it again with `make run`"
                )
        return run


def _remove_predecessors(place: Path, home: Path) -> None:
    """Removes databases of state directories that stood at this very path before and were removed since: their
    passwords are gone with them."""
    for record in place.glob("*/home"):
        if record.read_text() == str(home):
            shutil.rmtree(record.parent, ignore_errors=True)


def _take(descriptor: int, kind: int) -> bool:
    """Takes the lock unless a running stack has it. A stack that was killed has it no longer."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    with _explained(path):
        text = path.read_text()
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise LocalError(f"{path}: half-written or damaged; restore it, or remove {path.parent} to start afresh")
    return value


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Whole or not at all, and closed to others from the first byte."""
    making = path.with_name(f"{path.name}.making")
    with _explained(path):
        descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as output:
            json.dump(value, output, indent=2)
            output.flush()
            os.fsync(output.fileno())
        making.replace(path)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise LocalError(
            f"{exc.filename or path}: no permission; choose another directory with SHOUYIN_HOME, or become its owner"
        ) from exc
    except OSError as exc:
        raise LocalError(f"{exc.filename or path}: {exc.strerror}") from exc

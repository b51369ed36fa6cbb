"""Child processes that never outlive this one, and the account that servers run under.

PostgreSQL refuses to run as root, so that root starts servers as another user. That user must be able to reach the
programs and the data: a clone under root's closed home is not reachable, and its permissions are never changed.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from app.local import LocalError

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Account:
    """The user that servers run as when this process is root."""

    uid: int
    gid: int


def service_account() -> Account | None:
    """None for an ordinary user, who runs the servers alone. Raises LocalError when root has nobody to run them as."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as exc:
        raise LocalError(
            "PostgreSQL does not run as root and there is no user 'nobody': run this as an ordinary user"
        ) from exc
    return Account(entry.pw_uid, entry.pw_gid)


def owner_of(path: Path) -> Account | None:
    """The account that servers of an existing directory run as: its owner, so that root and a user can take turns."""
    if os.geteuid() != 0:
        return None
    status = path.stat()
    return service_account() if status.st_uid == 0 else Account(status.st_uid, status.st_gid)


def reachable(path: Path, account: Account | None) -> bool:
    """Whether that account may pass through a directory, or run a program; the system is asked, nothing is guessed."""
    if account is None:
        return os.access(path, os.X_OK)
    command = ["/bin/sh", "-c", 'test -x "$1" && { test -d "$1" || test -r "$1"; }', "sh", str(path)]
    return run_as(account, command, timeout_s=10).returncode == 0


def temporary_directory(account: Account | None) -> Path:
    """Where throwaway servers may keep their files: the usual temporary directory, else one that all may enter."""
    return _first_usable((Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp"), Path("/dev/shm")), account)


def lasting_directory(account: Account) -> Path:
    """Where root keeps what servers must reach and what no tidying of temporary files may thin out."""
    place = Path("/var/lib/shouyin")
    try:
        place.mkdir(mode=0o755, exist_ok=True)
    except OSError:
        return _first_usable((Path("/var/tmp"), Path("/tmp")), account)
    return _first_usable((place, Path("/var/tmp")), account)


def _first_usable(places: Sequence[Path], account: Account | None) -> Path:
    for place in places:
        if place.is_dir() and os.access(place, os.W_OK) and reachable(place, account):
            return place
    raise LocalError(f"no directory that the servers' user can reach: tried {', '.join(map(str, places))}")


def run_as(
    account: Account | None, command: Sequence[str], *, timeout_s: float, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a short command to its end, from the root directory; its output is captured."""
    return subprocess.run(
        command,
        capture_output=True,
        check=False,
        cwd="/",
        env=environ,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
    )


def spawn(
    command: Sequence[str],
    *,
    log: IO[bytes] | int,
    account: Account | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | str = "/",
    stdin: bytes = b"",
    end_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Starts a long-running child in a session of its own, so that Ctrl-C reaches only us and we end it in order.

    The kernel sends it `end_signal` when this process dies, however it dies; precisely, when the calling thread does,
    so that a thread which calls this has to stay. `log` takes both its outputs;
    `stdin` is all it can read there: secrets travel that way and never stand in a list of processes.
    """
    parent = os.getpid()
    with tempfile.TemporaryFile() as text:
        text.write(stdin)
        text.seek(0)
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=text,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _end_with_parent(parent, end_signal),
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else (),
        )


def stop(process: subprocess.Popen[bytes], first: signal.Signals, *, grace_s: float) -> None:
    """Ends one child by its id: asks, waits `grace_s`, then kills. Safe on one that has ended already."""
    if process.poll() is None:
        process.send_signal(first)
        collect(process, grace_s=grace_s)


def collect(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Waits for a child that was told to end; kills it when that takes longer than `grace_s`."""
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_gone(pid: int, *, timeout_s: float) -> bool:
    """Waits until a process that is not our child has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


def tail(path: Path, lines: int = 12) -> str:
    """The last lines of a log, for a report on why its child died."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16384))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _end_with_parent(parent: int, end_signal: signal.Signals) -> None:
    """Runs in the child between fork and exec, after the change of user (which would clear the setting)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(end_signal))
        if os.getppid() != parent:  # it died before the setting took effect
            os._exit(1)

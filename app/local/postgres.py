"""An embedded PostgreSQL 18: made once, it starts and stops with this process and is reached over loopback TCP."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import asyncpg

from app.local import LocalError
from app.local.children import Account, owner_of, run_as, spawn, stop, tail, wait_gone
from app.local.programs import postgres_programs

USER: Final = "shouyin"
MAJOR: Final = "18"

# For servers that live as long as a test run: a crash of the machine may lose them.
THROWAWAY: Final = ("fsync=off", "full_page_writes=off", "shared_buffers=64MB", "max_wal_size=256MB")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server. `url("name")` works with any client."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    port: int
    password: str

    def url(self, database: str) -> str:
        """The address of one of its databases."""
        return f"postgresql://{USER}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def create_cluster(directory: Path, password: str, account: Account | None) -> bool:
    """Makes the data directory, whole or not at all, unless it is there; True when it was made.

    Raises LocalError when what is there is not a complete PostgreSQL 18 directory, or it cannot be made.
    """
    if directory.exists() and any(directory.iterdir()):
        _check_cluster(directory)
        return False
    making = directory.with_name(f"{directory.name}.making")
    try:
        # Only a start that did not finish leaves these, and the caller holds the lock of the state directory.
        shutil.rmtree(making, ignore_errors=True)
        if directory.exists():
            directory.rmdir()
        making.mkdir(mode=0o700)
        if account is not None:
            os.chown(making, account.uid, account.gid)
        _initdb(making, password, account)
        making.rename(directory)
    except OSError as exc:
        raise LocalError(f"{directory}: the database cannot be made there: {exc.strerror}") from exc
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return True


@contextmanager
def running_postgres(
    directory: Path, password: str, account: Account | None, *, port: int, log: Path, options: tuple[str, ...] = ()
) -> Iterator[Postgres]:
    """Starts the server and stops it at the end, in order. Raises LocalError with the server's own words."""
    server = start_postgres(directory, password, account, port=port, log=log, options=options)
    try:
        yield server
    finally:
        stop_postgres(server)


def start_postgres(
    directory: Path, password: str, account: Account | None, *, port: int, log: Path, options: tuple[str, ...] = ()
) -> Postgres:
    """Starts the server and waits until it accepts connections. The caller must hold the directory for itself."""
    account = owner_of(directory) if account is not None else None
    programs = postgres_programs(account)
    _clear_previous(directory)
    settings = (
        f"port={port}",
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "max_connections=200",
        "timezone=UTC",
        "log_timezone=UTC",
        "log_lock_waits=on",
        "deadlock_timeout=500ms",
        *options,
    )
    command = [str(programs / "postgres"), "-D", str(directory)]
    for setting in settings:
        command += ["-c", setting]
    with log.open("ab") as output:
        # SIGINT is its fast shutdown; SIGTERM would wait for every client to leave.
        process = spawn(command, log=output, account=account, cwd=directory, end_signal=signal.SIGINT)
    server = Postgres(process, directory, port, password)
    try:
        _wait_ready(server, log)
    except BaseException:
        stop_postgres(server)
        raise
    return server


def stop_postgres(server: Postgres) -> None:
    """Fast shutdown: ends the sessions, writes a checkpoint; killed only when that takes too long."""
    stop(server.process, signal.SIGINT, grace_s=20)


async def prepare_database(server: Postgres, name: str) -> bool:
    """Creates a database, where our tables are found without their schema's name; False when it was there."""
    connection = await asyncpg.connect(server.url("postgres"))
    try:
        if await connection.fetchval("select true from pg_database where datname = $1", name):
            return False
        await connection.execute(f'create database "{name}"')
        await connection.execute(f'alter database "{name}" set search_path = public, shouyin')
    finally:
        await connection.close()
    return True


def _check_cluster(directory: Path) -> None:
    try:
        version = (directory / "PG_VERSION").read_text().strip()
        complete = (directory / "global" / "pg_control").exists()
    except FileNotFoundError:
        version, complete = "", False
    except PermissionError as exc:
        raise LocalError(f"{directory}: no permission to read it; run this as the user who made it") from exc
    if not complete:
        raise LocalError(
            f"{directory}: not a complete PostgreSQL directory; remove it to start afresh: rm -rf {directory}"
        )
    if version != MAJOR:
        raise LocalError(f"{directory}: made by PostgreSQL {version}, but this is {MAJOR}; remove it to start afresh")


def _initdb(directory: Path, password: str, account: Account | None) -> None:
    # The file stands in the data directory's parent only as long as initdb runs; initdb wants its target empty.
    secret = directory.with_name(f"{directory.name}.password")
    secret.touch(mode=0o600)
    try:
        secret.write_text(f"{password}\n")
        if account is not None:
            os.chown(secret, account.uid, account.gid)
        command = [
            str(postgres_programs(account) / "initdb"),
            f"--pgdata={directory}",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
        ]
        done = run_as(account, command, timeout_s=120, environ={"PATH": os.defpath, "LC_ALL": "C"})
    finally:
        secret.unlink(missing_ok=True)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise LocalError(f"{directory}: initdb failed: {words[0] if words else f'status {done.returncode}'}")


def _clear_previous(directory: Path) -> None:
    """Ends a server that a killed start left behind here, and drops a lock file whose number now names another process.

    PostgreSQL removes a stale lock file itself, except when the number in it is in use again, which is usual after
    a container's restart. The working directory of the process tells the two apart.
    """
    lock = directory / "postmaster.pid"
    try:
        pid = int(lock.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    try:
        ours = Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except OSError:
        ours = False
    if ours:
        os.kill(pid, signal.SIGINT)
        if not wait_gone(pid, timeout_s=20):
            raise LocalError(
                f"{directory}: an earlier PostgreSQL (process {pid}) still runs there; end it with: kill -QUIT {pid}"
            )
    elif Path("/proc/self").exists():
        lock.unlink(missing_ok=True)


def _wait_ready(server: Postgres, log: Path, *, timeout_s: float = 60) -> None:
    """The last line of postmaster.pid is the server's word on its own state, the same that pg_ctl waits for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise LocalError(f"PostgreSQL did not start: {_last_words(log)}")
        try:
            lines = (server.directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            lines = []
        if len(lines) >= 8 and int(lines[0]) == server.process.pid and lines[7].strip() == "ready":
            return
        time.sleep(0.01)
    raise LocalError(f"PostgreSQL was not ready after {timeout_s:.0f} s; its log: {log}")


def _last_words(log: Path) -> str:
    lines = tail(log).splitlines()
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or lines or ["nothing in its log"])[-1]

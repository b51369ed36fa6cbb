"""An embedded Redis: a doorbell that keeps nothing on disk, reached over 127.0.0.1 with a password."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.local import LocalError
from app.local.children import Account, spawn, stop, tail
from app.local.programs import redis_program


@dataclass(frozen=True, slots=True)
class Redis:
    """A running server."""

    process: "subprocess.Popen[bytes]"
    port: int
    password: str

    @property
    def url(self) -> str:
        """Its address, for any client."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"


@contextmanager
def running_redis(password: str, account: Account | None, *, port: int, log: Path) -> Iterator[Redis]:
    """Starts the server on that port and stops it at the end. Raises LocalError."""
    server = start_redis(password, account, port=port, log=log)
    try:
        yield server
    finally:
        stop_redis(server)


def start_redis(password: str, account: Account | None, *, port: int, log: Path) -> Redis:
    """Starts the server and waits until it answers. The password has letters and digits only."""
    settings = (
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        'save ""',
        "appendonly no",
        "daemonize no",
        "dir /",
    )
    with log.open("ab") as output:
        process = spawn(
            [str(redis_program(account)), "-"], log=output, account=account, stdin="\n".join(settings).encode() + b"\n"
        )
    server = Redis(process, port, password)
    try:
        _wait_ready(server, log)
    except BaseException:
        stop_redis(server)
        raise
    return server


def stop_redis(server: Redis) -> None:
    """Ends the server; there is nothing to save."""
    stop(server.process, signal.SIGTERM, grace_s=5)


def _wait_ready(server: Redis, log: Path, *, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            lines = tail(log).splitlines()
            raise LocalError(f"Redis did not start: {lines[-1] if lines else 'nothing in its log'}")
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=1) as probe:
                probe.sendall(f"AUTH {server.password}\r\nPING\r\n".encode())
                answers = probe.makefile("rb")
                if (answers.readline(), answers.readline()) == (b"+OK\r\n", b"+PONG\r\n"):
                    return
        except OSError:
            pass
        time.sleep(0.01)
    raise LocalError(f"Redis was not ready after {timeout_s:.0f} s; its log: {log}")

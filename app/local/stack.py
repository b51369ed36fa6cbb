"""The local stack: servers, API, worker and sandbox as children of one process that watches and ends them.

A part that dies while the stack starts stops the start. Later it is reported with the end of its log and started
again, with a growing pause: an arq worker, for example, ends when its Redis does.
"""

import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from app.local import LocalError
from app.local.children import collect, owner_of, service_account, spawn, stop, tail
from app.local.postgres import Postgres, create_cluster, free_port, port_is_free, start_postgres
from app.local.progress import Progress
from app.local.redis import Redis, start_redis
from app.local.state import Home

# Once it served this long a part is taken for healthy, and its next death costs the shortest pause again.
HEALTHY_AFTER_S: Final = 30.0
LONGEST_PAUSE_S: Final = 30.0
DATABASE: Final = "shouyin"

_HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class Part:
    """One child and how to start it again."""

    name: str
    start: Callable[[], "subprocess.Popen[bytes]"]
    log: Path
    end_signal: signal.Signals
    grace_s: float
    process: "subprocess.Popen[bytes]"
    started_at: float = field(default_factory=time.monotonic)
    pause_s: float = 1.0
    restart_at: float | None = None


class Stack:
    """The children of one stack. Used inside `Home.locked()`; `stop` ends whatever was started."""

    def __init__(self, home: Home, progress: Progress) -> None:
        self.home = home
        self._progress = progress
        for log in home.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.before"))
        self._parts: list[Part] = []

    # --- servers ---

    def start_postgres(self, password: str, identity: str) -> Postgres:
        """Starts the embedded PostgreSQL on its port of last time; makes its directory first when there is none."""
        account = service_account()
        directory = self.home.data_directory(identity, account)
        log = self.home.logs / "postgres.log"
        create_cluster(directory, password, account)
        port = self._port("postgres")

        def start() -> Postgres:
            return start_postgres(directory, password, account and owner_of(directory), port=port, log=log)

        server = start()
        # SIGINT is PostgreSQL's fast shutdown.
        self._add(Part("postgres", lambda: start().process, log, signal.SIGINT, 20, server.process))
        return server

    def start_redis(self, password: str) -> str:
        """Starts the embedded Redis on its port of last time; its address."""
        log, port, account = self.home.logs / "redis.log", self._port("redis"), service_account()

        def start() -> Redis:
            return start_redis(password, account, port=port, log=log)

        server = start()
        self._add(Part("redis", lambda: start().process, log, signal.SIGTERM, 5, server.process))
        return server.url

    def _port(self, name: str) -> int:
        ports = self.home.ports()
        port = ports.get(name)
        if port is None or not port_is_free(port):
            port = free_port()
            self.home.remember_ports({**ports, name: port})
        return port

    # --- parts ---

    def start_part(self, name: str, arguments: list[str], environ: Mapping[str, str], *, grace_s: float = 12) -> None:
        """Starts `shouyin <arguments>` as a child."""
        log = self.home.logs / f"{name}.log"

        def start() -> "subprocess.Popen[bytes]":
            with log.open("ab") as output:
                return spawn([sys.executable, "-m", "app.cli", *arguments], log=output, environ=environ, cwd=Path.cwd())

        self._add(Part(name, start, log, signal.SIGTERM, grace_s, start()))

    def _add(self, part: Part) -> None:
        self._parts.append(part)

    def wait_ready(self, url: str, *, timeout_s: float = 60) -> None:
        """Waits until `url` answers 200. Raises LocalError when a child ends first, with the end of its log."""
        deadline, answer = time.monotonic() + timeout_s, "no answer"
        while time.monotonic() < deadline:
            self.check()
            try:
                with _without_proxy.open(url, timeout=5) as response:
                    if response.status == 200:
                        return
            except urllib.error.HTTPError as exc:
                answer = f"{exc.code} {exc.read(200).decode(errors='replace')}"
            except OSError as exc:
                answer = str(exc)
            time.sleep(0.05)
        raise LocalError(f"{url} was not ready after {timeout_s:.0f} s ({answer}); the logs are in {self.home.logs}")

    def check(self) -> None:
        """Raises LocalError when a child has ended; used while the stack starts."""
        for part in self._parts:
            status = part.process.poll()
            if status is not None:
                self._show_tail(part)
                raise LocalError(f"{part.name} ended with status {status} while starting; its log: {part.log}")

    # --- serving ---

    def serve_until_told(self, told: threading.Event) -> None:
        """Watches the children and starts again what ends, until `told` is set."""
        while not told.wait(0.2):
            for part in self._parts:
                self._watch(part)

    def _watch(self, part: Part) -> None:
        now = time.monotonic()
        status = part.process.poll()
        if status is None:
            return
        if part.restart_at is None:
            if now - part.started_at > HEALTHY_AFTER_S:
                part.pause_s = 1.0
            self._show_tail(part)
            self._progress.complain(
                f"{part.name} ended with status {status}; starting it again in {part.pause_s:.0f} s"
            )
            part.restart_at = now + part.pause_s
            part.pause_s = min(part.pause_s * 2, LONGEST_PAUSE_S)
        elif now >= part.restart_at:
            part.restart_at, part.started_at = None, now
            try:
                part.process = part.start()
            except (LocalError, OSError) as exc:
                self._progress.complain(f"{part.name}: {exc}")

    def _show_tail(self, part: Part) -> None:
        for line in tail(part.log).splitlines():
            self._progress.complain(f"  {part.name} | {line}")

    def stop(self) -> None:
        """Ends every child by its id: first the parts, together, then the servers they use."""
        servers = [part for part in reversed(self._parts) if part.name in ("postgres", "redis")]
        applications = [part for part in self._parts if part not in servers]
        # Each is told once: the API takes a second signal for impatience and cuts its connections.
        for part in applications:
            if part.process.poll() is None:
                part.process.send_signal(part.end_signal)
        for part in applications:
            collect(part.process, grace_s=part.grace_s)
        for part in servers:
            stop(part.process, part.end_signal, grace_s=part.grace_s)


# A laptop's proxy settings must not come between the parts of one machine.
_without_proxy: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Inside, the signals that end programs set the event and interrupt what the main thread does; once it is set they
    do nothing, so that an impatient second Ctrl-C cannot leave children behind."""
    told = threading.Event()

    def tell(_number: int, _frame: FrameType | None) -> None:
        if not told.is_set():
            told.set()
            raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in _HANDLED}
    for number in _HANDLED:
        # nohup ignores SIGHUP, and means it; a script's background job ignores SIGINT without anybody having asked.
        if number != signal.SIGHUP or previous[number] is not signal.SIG_IGN:
            signal.signal(number, tell)
    try:
        yield told
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def require_free_port(variable: str, port: int, host: str = "127.0.0.1") -> None:
    """Raises LocalError naming the variable when somebody listens there already."""
    if not port_is_free(port, host):
        raise LocalError(
            f"{variable}: port {port} is taken; stop what uses it, or choose another: {variable}={port + 10} make run"
        )

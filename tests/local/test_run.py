"""`shouyin run`, whole: from an empty directory to a paid order, again from what is there, and its ends."""

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg
import httpx
import pytest
from rich.console import Console

from app.local import LocalError
from app.local.children import wait_gone
from app.local.demo import USER_ID, Addresses, pay_demo_order
from app.local.postgres import free_port
from app.local.progress import Progress
from app.local.throwaway import throwaway_directory
from tests.fixtures.servers import OwnPostgres, OwnRedis

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "app.cli"]
SETTINGS = {"DATABASE_URL", "REDIS_URL", "PUBLIC_URL", "MASTER_KEYS", "JWT_SECRET", "SANDBOX_URL", "FLOWS"}

pytestmark = pytest.mark.timeout(300)


class LocalStack:
    """A `shouyin run` of this test in a home of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.port, self.sandbox_port = free_port(), free_port()
        self.output = directory / "output"
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, str] = {}

    @property
    def environ(self) -> dict[str, str]:
        inherited = {name: text for name, text in os.environ.items() if name not in SETTINGS}
        ports = {"PORT": str(self.port), "SANDBOX_PORT": str(self.sandbox_port)}
        return inherited | ports | {"SHOUYIN_HOME": str(self.home)} | self.settings

    def start(self) -> str:
        """Starts it and waits until it serves; what it printed."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "run"], cwd=ROOT, env=self.environ, stdout=output, stderr=output, start_new_session=True
            )
        return self.wait_for("Ctrl-C stops everything", timeout_s=120)

    def wait_for(self, text: str, *, timeout_s: float = 60) -> str:
        """Waits until the text was printed; everything printed so far."""
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            printed = self.output.read_text()
            if text in printed:
                return printed
            if self.process.poll() is not None:
                pytest.fail(f"the stack ended with status {self.process.returncode}:\n{self.output.read_text()}")
            time.sleep(0.02)
        pytest.fail(f"{text!r} was not printed in {timeout_s} s:\n{self.output.read_text()}")

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Another `shouyin` command beside it."""
        return subprocess.run(
            [*COMMAND, *arguments], cwd=ROOT, env=environ or self.environ, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def children(self) -> dict[int, str]:
        """Every process below it, by id."""
        assert self.process is not None
        return descendants(self.process.pid)

    def end(self) -> None:
        """For the end of a test: nothing may stay."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def descendants(root: int) -> dict[int, str]:
    """{process id: command line} of everything below a process."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found: dict[int, str] = {}
    pending = [root]
    while pending:
        above = pending.pop()
        for pid in [pid for pid, parent in parents.items() if parent == above]:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            pending.append(pid)
    return found


def part(children: Mapping[int, str], name: str) -> int:
    """The process whose command line ends like this."""
    (pid,) = [pid for pid, command in children.items() if command.rstrip().endswith(name)]
    return pid


@pytest.fixture
def stack() -> Iterator[LocalStack]:
    with throwaway_directory() as directory:
        made = LocalStack(directory)
        try:
            yield made
        finally:
            made.end()


async def test_from_nothing_to_a_paid_order_and_to_the_end(stack: LocalStack) -> None:
    printed = stack.start()
    assert re.search(r"payment 1 +createPayment → PENDING SY\w+", printed)
    assert re.search(r"ms +payment +SUCCESSFUL \(version \d+\), paid ¥68.00 as \d+", printed)
    assert re.search(r"ms +order +paid", printed)

    status = stack.run("status", "--json")
    assert status.returncode == 0
    addresses = json.loads(status.stdout)
    assert list(addresses) == ["graphql", "websocket", "sandbox", "database_url", "redis_url"]
    assert addresses["graphql"] == f"http://127.0.0.1:{stack.port}/graphql"
    assert addresses["websocket"] == f"ws://127.0.0.1:{stack.port}/graphql"
    assert addresses["sandbox"] == f"http://127.0.0.1:{stack.sandbox_port}"
    await _check_database(addresses["database_url"])
    await _check_token(stack, addresses["graphql"])

    accounts = json.loads(stack.run("sandbox", "accounts", "--json").stdout)
    gateways = {account["gateway"] for account in accounts if account["provider"] == "ALIPAY"}
    assert gateways == {f"{addresses['sandbox']}/gateway.do"}
    listed = json.loads(stack.run("account", "list", "--json").stdout)
    apps = json.loads(stack.run("wechat", "app", "list", "--json").stdout)
    assert {app["kind"]: app["gateway"] for app in apps} == {
        "mini_program": addresses["sandbox"],
        "official_account": addresses["sandbox"],
    }
    assert len(listed) + len(apps) == len(accounts)
    assert "PRIVATE KEY" not in json.dumps(listed)

    again = stack.run("run")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "a stack already runs there" in again.stderr

    moved = stack.run("clock", "--advance", "40d")
    assert (moved.returncode, moved.stderr, moved.stdout.count("\n")) == (0, "", 41)

    _check_ctrl_c(stack)

    began = time.monotonic()
    printed = stack.start()
    assert time.monotonic() - began < 15
    assert not re.search("opened [A-Z]", printed)
    assert "bound" not in printed
    # Forty days later, for the sandbox too, which had forgotten it.
    assert re.search(r"payment 2 +createPayment → PENDING", printed)
    assert re.search(r"ms +order +paid", printed)
    assert json.loads(stack.run("clock", "--json").stdout)["offset_s"] > 39 * 86400
    assert await _sandbox_ahead_s(addresses["sandbox"]) > 39 * 86400
    _check_ctrl_c(stack)


async def _sandbox_ahead_s(sandbox: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as http:
        ahead_s: float = (await http.get(f"{sandbox}/_control/clock")).json()["offset_s"]
    return ahead_s


async def _check_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select status, amount_fen from payment")
        assert [tuple(row) for row in rows] == [("SUCCESSFUL", 6800)]
        assert await connection.fetchval("select status from orders") == "paid"
    finally:
        await connection.close()


async def _check_token(stack: LocalStack, graphql: str) -> None:
    made = stack.run("token", "--sub", "7", "--role", "user", "--ttl", "60")
    assert (made.returncode, made.stderr) == (0, "")
    async with httpx.AsyncClient(trust_env=False) as http:
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        answer = await http.post(graphql, json={"query": '{ payments(orderId: "1") { status } }'}, headers=headers)
    assert answer.json() == {"data": {"payments": [{"status": "SUCCESSFUL"}]}}


def _check_ctrl_c(stack: LocalStack) -> None:
    """Ctrl-C in a terminal reaches the whole foreground group; the children are not in it and are ended in order."""
    assert stack.process is not None
    children = stack.children()
    assert len(children) > 5
    os.killpg(stack.process.pid, signal.SIGINT)
    assert stack.process.wait(60) == 0
    assert stack.output.read_text().endswith("stopped\n")
    assert [pid for pid in children if not wait_gone(pid, timeout_s=5)] == []
    for name in ("api", "worker", "sandbox"):
        log = (stack.home / "logs" / f"{name}.log").read_text()
        assert [line for line in log.splitlines() if '"level": "error"' in line or "Traceback" in line] == []
    status = stack.run("status", "--json")
    assert (status.returncode, status.stdout) == (1, "")
    assert status.stderr == f"shouyin: no stack is running under {stack.home}: start one with `make run`\n"


async def test_what_dies_is_reported_and_started_again_and_nothing_outlives_a_kill(stack: LocalStack) -> None:
    stack.start()
    before = stack.children()
    killed = {
        "worker": part(before, "app.cli worker"),
        "redis": part(before, f"127.0.0.1:{_remembered(stack, 'redis')}"),
        "postgres": next(pid for pid, command in before.items() if " -D " in command),
    }
    for name, pid in killed.items():
        os.kill(pid, signal.SIGKILL)
        stack.wait_for(f"{name} ended with status -9; starting it again in 1 s")
    await _until_paid_again(stack)
    after = stack.children()
    assert after.keys() & set(killed.values()) == set()
    assert part(after, "app.cli worker") != killed["worker"]
    assert part(after, f"127.0.0.1:{_remembered(stack, 'redis')}") != killed["redis"]

    assert stack.process is not None
    children = stack.children()
    stack.process.kill()
    stack.process.wait()
    assert [pid for pid in children if not wait_gone(pid, timeout_s=30)] == []
    status = stack.run("status", "--json")
    assert status.returncode == 1
    assert "has ended without saying so: start it again with `make run`" in status.stderr
    stack.start()
    assert "PostgreSQL 18" in stack.output.read_text()


def _remembered(stack: LocalStack, server: str) -> int:
    return int(json.loads((stack.home / "ports.json").read_text())[server])


async def _until_paid_again(stack: LocalStack) -> None:
    """A second order is paid like the first, once everything is back at its old address."""
    addresses = json.loads(stack.run("status", "--json").stdout)
    at = Addresses(**{name: addresses[name] for name in ("graphql", "websocket", "sandbox", "database_url")})
    token = stack.run("token", "--sub", str(USER_ID)).stdout.strip()
    said = io.StringIO()
    deadline = time.monotonic() + 60
    while True:
        try:
            await pay_demo_order(at, token, Progress(out=Console(file=said, width=200)))
            break
        except LocalError:
            assert time.monotonic() < deadline, said.getvalue()
            await asyncio.sleep(0.2)
    assert "SUCCESSFUL" in said.getvalue()


async def test_servers_of_ones_own_replace_the_embedded_ones(
    stack: LocalStack, own_postgres: OwnPostgres, own_redis: OwnRedis
) -> None:
    """And a state directory may have any name."""
    stack.home = stack.directory / "a home 收银"
    url = own_postgres.server.url("postgres")
    stack.settings = {"DATABASE_URL": url, "REDIS_URL": own_redis.url}
    assert re.search(r"ms +order +paid", stack.start())
    addresses = json.loads(stack.run("status", "--json").stdout)
    assert (addresses["database_url"], addresses["redis_url"]) == (url, own_redis.url)
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("select status from shouyin.payment") == "SUCCESSFUL"
    finally:
        await connection.close()
    assert not (stack.home / "postgres").exists()
    assert not any("redis-server" in command or "-D" in command for command in stack.children().values())


@pytest.mark.parametrize("variable", ["PORT", "SANDBOX_PORT"])
def test_a_taken_port_is_one_line_and_starts_nothing(stack: LocalStack, variable: str) -> None:
    with socket.create_server(("127.0.0.1", int(stack.environ[variable]))):
        refused = stack.run("run")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"shouyin: {variable}: port {stack.environ[variable]} is taken; stop what uses it, or choose another: "
        f"{variable}={int(stack.environ[variable]) + 10} make run\n"
    )
    assert not (stack.home / "postgres").exists()


def test_a_half_made_database_is_one_line(stack: LocalStack) -> None:
    (stack.home / "postgres" / "base").mkdir(parents=True)
    (stack.home / "secrets.json").write_text(
        json.dumps(
            {
                "identity": "test",
                "database_password": "x",
                "redis_password": "x",
                "master_keys": "k:" + "A" * 43 + "=",
                "jwt_secret": "x" * 32,
            }
        )
    )
    refused = stack.run("run")
    assert refused.returncode == 1
    assert refused.stderr == (
        f"shouyin: {stack.home}/postgres: not a complete PostgreSQL directory; remove it to start afresh: "
        f"rm -rf {stack.home}/postgres\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("PORT", "http", "PORT: 'http' is not a whole number from 1 to 65535"),
        ("MASTER_KEYS", "k1", 'MASTER_KEYS: write id:key pairs with distinct ids, such as "k1:<32 bytes in base64>"'),
        ("JWT_SECRET", "short", "JWT_SECRET: shorter than 32 bytes; generate one with: openssl rand -hex 32"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(stack: LocalStack, name: str, text: str, complaint: str) -> None:
    refused = stack.run("run", environ=stack.environ | {name: text})
    assert (refused.returncode, refused.stderr) == (1, f"shouyin: {complaint}\n")

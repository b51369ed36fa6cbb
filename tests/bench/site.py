"""What is measured: servers, a bound orders table with many orders, an Alipay account, and the processes."""

import base64
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg
from cryptography.hazmat.primitives.asymmetric import rsa

from app.auth import issue_token
from app.config import Config, load_config
from app.db import migrate
from app.local.children import spawn, stop, tail
from app.local.postgres import Postgres, free_port, prepare_database
from app.local.throwaway import throwaway_directory, throwaway_postgres, throwaway_redis
from app.runtime import open_runtime
from tests.fixtures.shop import ADMIN, BINDING, ORDERS, private_pem, public_pem

_DATABASE: Final = "bench"
_CALLERS: Final = 500
_FIRST_CALLER: Final = 1000
_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")

# The row of a payment that waits for its payer, with a link as long as Alipay's are.
_PENDING_PAYMENTS: Final = """
insert into shouyin.payment (order_id, owner, merchant_account_id, provider, method, amount_fen, subject, out_trade_no,
  status, action, created_by, input_hash, expires_at, created_at, updated_at)
select o.id, o.user_id::text, $1, 'ALIPAY', 'ALIPAY_PAGE', 1230, 'Tea', 'BENCH' || lpad(o.id::text, 20, '0'), 'PENDING',
  jsonb_build_object('kind', 'Redirect', 'url', 'https://openapi.alipay.com/gateway.do?' || repeat('x', 900)),
  o.user_id::text, ''::bytea, now() + interval '1 day', now(), now()
from public.orders o where o.id between $2 and $3
returning id, owner
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A running part. `port` is where it serves, 0 where it does not."""

    name: str
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def cpu_s(self) -> float:
        """Processor seconds it has used so far; 0 where the system does not tell."""
        stat = Path(f"/proc/{self.pid}/stat")
        if not stat.exists():
            return 0.0
        user, system = stat.read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / _CLOCK_TICKS

    def resident_bytes(self) -> int:
        """Its resident memory now."""
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(self.pid)], capture_output=True, text=True, check=True)
        return int(told.stdout) * 1024


@dataclass(frozen=True, slots=True)
class Site:
    """See the module. `database` is a connection of the load's own."""

    directory: Path
    postgres: Postgres
    environ: Mapping[str, str]
    config: Config
    database: "asyncpg.Connection[asyncpg.Record]"
    account_id: int
    alipay_key: rsa.RSAPrivateKey
    next_order: list[int]
    shared_api: Process | None = None

    @property
    def database_url(self) -> str:
        """The database's address."""
        return self.config.database_url

    @property
    def postgres_log(self) -> Path:
        """What the server writes."""
        return self.postgres.directory.parent / "postgres.log"

    def caller_of(self, order_id: int) -> str:
        """The `sub` an order belongs to."""
        return str(_FIRST_CALLER + order_id % _CALLERS)

    def token(self, sub: str) -> str:
        """A token of that caller."""
        return issue_token(self.config, sub, ["user"], ttl=timedelta(hours=2))

    async def orders(self, count: int) -> range:
        """That many orders nobody has used yet; their ids."""
        first = self.next_order[0]
        last = await self.database.fetchval("select max(id) from public.orders")
        if first + count - 1 > last:
            raise RuntimeError(f"{last} orders were prepared, and {first + count - 1} are needed")
        self.next_order[0] += count
        return range(first, first + count)

    async def pending_payments(self, count: int) -> dict[int, str]:
        """New payments that wait for their payers: id → owner."""
        orders = await self.orders(count)
        rows = await self.database.fetch(_PENDING_PAYMENTS, self.account_id, orders[0], orders[-1])
        await self.database.execute("vacuum analyze shouyin.payment")
        return {row["id"]: row["owner"] for row in rows}

    @contextmanager
    def api(self) -> Iterator[Process]:
        """A fresh API process, ready; the shared one where there is one."""
        if self.shared_api is not None:
            yield self.shared_api
            return
        with self.part("tests.bench.api", ready="/readyz") as process:
            yield process

    @contextmanager
    def part(self, module: str, *, ready: str, **environ: str) -> Iterator[Process]:
        """`python -m <module>` on a free port, once `ready` answers 200."""
        port, name = free_port(), module.rpartition(".")[2]
        log = self.directory / f"{name}.log"
        settings = {**self.environ, "PORT": str(port), "PUBLIC_URL": f"http://127.0.0.1:{port}", **environ}
        with log.open("wb") as output:
            child = spawn([sys.executable, "-m", module], log=output, environ=settings, cwd=_ROOT)
        process = Process(name, child, port, log)
        try:
            _wait_ready(process, ready)
            yield process
            if child.poll() is not None:
                raise RuntimeError(f"{name} ended by itself: {tail(log)}")
        finally:
            stop(child, signal.SIGTERM, grace_s=15)


@asynccontextmanager
async def open_site(orders: int) -> AsyncIterator[Site]:
    """Everything but the API. PostgreSQL runs with its default settings, so that each commit is flushed."""
    with throwaway_directory() as directory, throwaway_postgres(options=()) as postgres, throwaway_redis() as redis:
        await prepare_database(postgres, _DATABASE)
        url = postgres.url(_DATABASE)
        await migrate(url)
        environ = _environment(url, redis.url, directory)
        config = load_config(environ)
        database = await asyncpg.connect(url)
        try:
            await database.execute(ORDERS)
            await database.execute(
                "insert into public.orders (user_id, title, amount)"
                " select $1::bigint + n % $2::bigint, 'Tea', 12.30 from generate_series(1, $3::bigint) n",
                _FIRST_CALLER, _CALLERS, orders,
            )  # fmt: skip
            await database.execute("vacuum analyze public.orders")
            alipay_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            account_id = await _bind(config, alipay_key)
            yield Site(directory, postgres, environ, config, database, account_id, alipay_key, [1])
        finally:
            await database.close()


async def _bind(config: Config, alipay_key: rsa.RSAPrivateKey) -> int:
    own_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (Path(config.home) / "application.pem").write_text(private_pem(own_key))
    runtime = await open_runtime(config, realtime=False)
    try:
        await runtime.activation.activate(ADMIN, BINDING)
        fields = {
            "app_id": "2021000000000001",
            "app_private_key": private_pem(own_key),
            "alipay_public_key": public_pem(alipay_key),
            "seller_id": "2088000000000001",
            "gateway": "http://127.0.0.1:9/gateway.do",
        }
        made = await runtime.accounts.create(ADMIN, provider="ALIPAY", mode="public_key", name="bench", fields=fields)
        return made.id
    finally:
        await runtime.close()


def _environment(database_url: str, redis_url: str, home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": "http://127.0.0.1:9",
        "SANDBOX_URL": "http://127.0.0.1:9",
        "MASTER_KEYS": f"bench:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "JWT_SECRET": secrets.token_hex(32),
        "SHOUYIN_HOME": str(home),
        "SHUTDOWN_GRACE_S": "0",
    }


def _wait_ready(process: Process, path: str, *, timeout_s: float = 60) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.process.poll() is not None:
            raise RuntimeError(f"{process.name} ended while starting: {tail(process.log)}")
        try:
            with opener.open(f"http://127.0.0.1:{process.port}{path}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.HTTPError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.name} was not ready after {timeout_s:.0f} s: {tail(process.log)}")

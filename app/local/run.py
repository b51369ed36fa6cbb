"""`shouyin run`: everything on one machine, from nothing to a paid order, then serving until Ctrl-C."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import jwt

from app.config import load_config
from app.local import LocalError
from app.local.demo import USER_ID, Addresses, pay_demo_order
from app.local.postgres import prepare_database
from app.local.progress import Progress
from app.local.stack import DATABASE, Stack, interruptible, require_free_port
from app.local.state import Home, Secrets

# Stand-ins while settings are checked, before any server runs that could give the real ones.
_UNKNOWN_YET = {"DATABASE_URL": "postgresql://local", "REDIS_URL": "redis://local"}


@dataclass(frozen=True, slots=True)
class Setup:
    """What upper layers do for the stack, given its environment. Both may be repeated; both say what they did."""

    # migrations and the demo table: before any part starts
    migrate: Callable[[Mapping[str, str]], list[str]]
    # binding and the sandbox's merchant accounts: while the parts start
    open_shop: Callable[[Mapping[str, str]], list[str]]


def run_stack(environ: Mapping[str, str], setup: Setup) -> None:
    """Starts, pays a demo order, serves until Ctrl-C, ends every child. Raises LocalError, ConfigError."""
    progress = Progress()
    started = time.monotonic()
    progress.line("[bold]Shouyin 收银[/]  starting on this machine")
    home = Home(Path(environ.get("SHOUYIN_HOME") or ".local"))
    with interruptible() as told, home.locked():
        stack = Stack(home, progress)
        try:
            with suppress(KeyboardInterrupt):
                settings = _settings(home, environ)
                addresses = _start(stack, home, settings, setup, progress)
                _pay_demo(addresses, settings, progress)
                _say_where(addresses, home, time.monotonic() - started, progress)
                stack.serve_until_told(told)
        finally:
            _end(stack, told, progress)


def _settings(home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """The parts' environment without the servers' addresses; checked before anything starts."""
    given = {name: text for name, text in environ.items() if text}
    secrets = home.secrets()
    port, sandbox_port = given.get("PORT", "8000"), given.get("SANDBOX_PORT", "8001")
    sandbox_url = f"http://127.0.0.1:{sandbox_port}"
    defaults = {
        "HOST": "127.0.0.1",
        "PORT": port,
        "SANDBOX_PORT": sandbox_port,
        "PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SANDBOX_URL": sandbox_url,
        "SHOUYIN_HOME": str(home.path),
        "MASTER_KEYS": secrets.master_keys,
        "JWT_SECRET": secrets.jwt_secret,
        "GRAPHIQL": "1",
        "INTROSPECTION": "1",
        "DEMO": "1",
        "TEST_CLOCK": "1",
        "PYTHONUNBUFFERED": "1",
    }
    settings = {**defaults, **given, "SHOUYIN_HOME": str(home.path)}
    config = load_config({**_UNKNOWN_YET, **settings})
    if config.port == config.sandbox_port:
        raise LocalError(f"SANDBOX_PORT: {config.sandbox_port} is PORT as well; choose another")
    require_free_port("PORT", config.port, config.host)
    require_free_port("SANDBOX_PORT", config.sandbox_port, config.host)
    return settings


def _start(stack: Stack, home: Home, settings: dict[str, str], setup: Setup, progress: Progress) -> Addresses:
    """Starts all parts and waits until they serve; fills in the servers' addresses."""
    secrets = home.secrets()
    if "DATABASE_URL" not in settings:
        settings["DATABASE_URL"] = _start_database(stack, secrets, progress)
    if "REDIS_URL" not in settings:
        with progress.step("Redis"):
            settings["REDIS_URL"] = stack.start_redis(secrets.redis_password)
    with progress.step("migrations"):
        done = setup.migrate(settings)
    port, sandbox = settings["PORT"], settings["SANDBOX_URL"]
    with progress.step(f"API on port {port}, worker, sandbox on port {settings['SANDBOX_PORT']}"):
        stack.start_part("sandbox", ["sandbox"], settings, grace_s=5)
        stack.start_part("api", ["serve"], settings)
        stack.start_part("worker", ["worker"], settings)
        done += setup.open_shop(settings)
        stack.wait_ready(f"http://127.0.0.1:{port}/readyz")
        stack.wait_ready(f"{sandbox}/healthz")
    for what in done:
        progress.line(f"    [dim]{what}[/]")
    addresses = Addresses(
        graphql=f"http://127.0.0.1:{port}/graphql",
        websocket=f"ws://127.0.0.1:{port}/graphql",
        sandbox=sandbox,
        database_url=settings["DATABASE_URL"],
    )
    home.write_run(
        {
            "graphql": addresses.graphql,
            "websocket": addresses.websocket,
            "sandbox": addresses.sandbox,
            "database_url": addresses.database_url,
            "redis_url": settings["REDIS_URL"],
        },
        _shared(settings),
    )
    return addresses


def _start_database(stack: Stack, secrets: Secrets, progress: Progress) -> str:
    with progress.step("PostgreSQL 18"):
        server = stack.start_postgres(secrets.database_password, secrets.identity)
        asyncio.run(prepare_database(server, DATABASE))
    if server.directory.parent != stack.home.path:
        progress.line(f"    [dim]its user cannot enter {stack.home.path}: the data is in {server.directory}[/]")
    return server.url(DATABASE)


def _shared(settings: Mapping[str, str]) -> dict[str, str]:
    """What the other commands need to know of a running stack."""
    names = (
        *("DATABASE_URL", "REDIS_URL", "HOST", "PORT", "SANDBOX_PORT", "PUBLIC_URL", "SANDBOX_URL", "TEST_CLOCK"),
        *("MASTER_KEYS", "JWT_SECRET", "JWT_ALGORITHMS", "JWT_ROLES_CLAIM", "ADMIN_ROLE"),
    )
    return {name: settings[name] for name in names if name in settings}


def _pay_demo(addresses: Addresses, settings: Mapping[str, str], progress: Progress) -> None:
    """A demo that cannot be paid is told, and does not end a stack that serves."""
    claims = {"sub": str(USER_ID), settings.get("JWT_ROLES_CLAIM", "roles"): ["user"], "exp": int(time.time()) + 300}
    token = jwt.encode(claims, settings["JWT_SECRET"], algorithm="HS256")
    progress.line()
    try:
        asyncio.run(pay_demo_order(addresses, token, progress))
    except LocalError as exc:
        progress.complain(f"shouyin: {exc}; the logs are in {settings['SHOUYIN_HOME']}/logs")


def _say_where(addresses: Addresses, home: Home, took_s: float, progress: Progress) -> None:
    page = addresses.graphql.removesuffix("graphql")
    rows = (
        ("demo shop", page),
        ("GraphiQL", addresses.graphql),
        ("sandbox", addresses.sandbox),
        ("a user's token", "shouyin token --sub 7 --role user"),
        ("an admin's", "shouyin token --sub 1 --role admin"),
        ("addresses", "shouyin status"),
        ("a month later", "shouyin clock --advance 31d"),
        ("logs", str(home.logs)),
    )
    progress.line()
    for name, text in rows:
        progress.line(f"  {name:15} [bold]{text}[/]")
    progress.line(f"\nServing after {took_s:.1f} s. The command is .venv/bin/shouyin. Ctrl-C stops everything.")


def _end(stack: Stack, told: threading.Event, progress: Progress) -> None:
    told.set()  # from here on a further Ctrl-C changes nothing
    progress.line("\nstopping")
    stack.stop()
    progress.line("stopped")

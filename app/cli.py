"""The `shouyin` command: the parts for production, the whole stack for a laptop, and an operator's tools.

Settings come from the environment. Where a local stack runs under SHOUYIN_HOME, what the environment leaves open is
taken from it, so that `shouyin token` and `shouyin account list` work beside `make run` without any setting.
"""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from app.config import Config, ConfigError, load_config
from app.errors import ShouyinError

# The rest is imported by the command that needs it: a status should not wait for a schema to be built.
if TYPE_CHECKING:
    from app.auth import Principal
    from app.cli_clock import StackClock
    from app.runtime import Runtime

_T = TypeVar("_T")
_STATUS_KEYS: Final = ("graphql", "websocket", "sandbox", "database_url", "redis_url")


class OneLine(click.ClickException):
    """A refusal: one line on standard error and exit status 1."""

    def show(self, file: Any = None) -> None:
        """Prints the line without click's usage text."""
        click.echo(f"shouyin: {self.message}", err=True)


def main() -> None:
    """The entry point."""
    # A module named by FLOWS may stand in the working directory, as it may for `python -m`.
    sys.path.insert(0, str(Path.cwd()))
    commands()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shouyin")
def commands() -> None:
    """Shouyin 收银: a payment backend you run yourself."""


# --- the parts --------------------------------------------------------------------------------------------------------


@commands.command()
def run() -> None:
    """Start everything on this machine, pay a demo order, serve until Ctrl-C."""
    from app.local import LocalError
    from app.local.run import Setup, run_stack
    from app.shop import migrate_shop, open_shop

    def opened(environ: Mapping[str, str]) -> list[str]:
        records = _sandbox_accounts(environ)
        return _with_runtime(lambda runtime: open_shop(runtime, _operator(), records), environ)

    def migrated(environ: Mapping[str, str]) -> list[str]:
        return _guarded(lambda: asyncio.run(migrate_shop(environ["DATABASE_URL"])))

    try:
        run_stack(os.environ, Setup(migrate=migrated, open_shop=opened))
    except (LocalError, ConfigError) as exc:
        raise OneLine(str(exc)) from exc


@commands.command()
def serve() -> None:
    """Serve the API: GraphQL, notifications, pages."""
    from app.main import serve_api

    _guarded(lambda: serve_api(load_config()))


@commands.command()
def worker() -> None:
    """Work through notifications, questions to providers, and flows."""
    from app.worker import serve_worker

    _guarded(lambda: serve_worker(load_config()))


@commands.command()
def migrate() -> None:
    """Bring the database to this release; safe to repeat and to run at once."""
    from app.db import migrate as apply_migrations

    applied = _guarded(lambda: asyncio.run(apply_migrations(_config().database_url)))
    click.echo(f"applied {', '.join(applied)}" if applied else "nothing to apply")


@commands.command()
def schema() -> None:
    """Print the GraphQL schema."""
    from app.api.schema import export_schema

    click.echo(export_schema(), nl=False)


# --- sandbox ----------------------------------------------------------------------------------------------------------


@commands.group(invoke_without_command=True)
@click.pass_context
def sandbox(context: click.Context) -> None:
    """Serve the pretend providers; `sandbox accounts` shows their merchant accounts."""
    if context.invoked_subcommand is None:
        from app.sandbox.main import serve as serve_sandbox

        environ = _environment()
        host, port = environ.get("HOST", "127.0.0.1"), _sandbox_port(environ)
        url = environ.get("SANDBOX_URL") or f"http://127.0.0.1:{port}"
        hosts = [name for name in environ.get("SANDBOX_NOTIFY_HOSTS", "").split(",") if name]
        _guarded(lambda: serve_sandbox(host, port, _home(environ) / "sandbox", url, notify_hosts=hosts))


# What a person recognises an account by; the keys come with --json only.
_ACCOUNT_IDS = frozenset(
    {"provider", "mode", "gateway", "app_id", "seller_id", "appid", "mchid", "mch_id", "sub_mch_id"}
)


@sandbox.command("accounts")
@click.option("--json", "as_json", is_flag=True, help="All fields, keys included.")
def sandbox_accounts(*, as_json: bool) -> None:
    """Show the sandbox's merchant accounts: what any SDK needs to be pointed at it."""
    accounts = _guarded(lambda: _sandbox_accounts(_environment()))
    if as_json:
        click.echo(json.dumps(accounts, indent=2))
        return
    for account in accounts:
        ids = [f"{name}={text}" for name, text in account.items() if name in _ACCOUNT_IDS]
        click.echo("  ".join(ids))


# --- a running local stack --------------------------------------------------------------------------------------------


@commands.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(*, as_json: bool) -> None:
    """Show where the local stack's parts are."""
    from app.local import LocalError
    from app.local.state import Home

    try:
        running = Home(_home(os.environ)).running()
    except LocalError as exc:
        raise OneLine(str(exc)) from exc
    shown = {key: running[key] for key in _STATUS_KEYS}
    click.echo(json.dumps(shown, indent=2) if as_json else "\n".join(f"{key:13} {shown[key]}" for key in shown))


@commands.command()
@click.option("--sub", required=True, help="The caller's id, compared with the order's owner column.")
@click.option("--role", "roles", multiple=True, default=("user",), show_default=True, help="May be repeated.")
@click.option("--ttl", default=86400, show_default=True, type=click.IntRange(1, 31_536_000), help="Seconds.")
def token(*, sub: str, roles: tuple[str, ...], ttl: int) -> None:
    """Print a development token, signed with JWT_SECRET."""
    from app.auth import issue_token

    environ = _environment()
    if not environ.get("JWT_SECRET"):
        raise OneLine(f"no stack is running under {_home(environ)}: start one with `make run`, or set JWT_SECRET")
    # A token needs none of the settings that a server does.
    unused = {"DATABASE_URL": "postgresql://unused", "REDIS_URL": "redis://unused", "PUBLIC_URL": "http://unused"}
    keys = {"MASTER_KEYS": "unused:" + base64.b64encode(bytes(32)).decode()}
    click.echo(
        _guarded(
            lambda: issue_token(load_config({**unused, **keys, **environ}), sub, roles, ttl=timedelta(seconds=ttl))
        )
    )


@commands.command()
@click.option("--advance", "span", metavar="SPAN", help="How far: days, hours or minutes, such as 31d, 12h or 90m.")
@click.option("--to", "instant", metavar="TIME", help="Until when, such as 2026-12-31T09:00+08:00.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with every day.")
def clock(*, span: str | None, instant: str | None, as_json: bool) -> None:
    """Show the local stack's time; move it, its worker and its sandbox forward, day by day."""
    from rich.console import Console

    from app.cli_clock import ClockStays, move, target

    try:
        running = _stack_clock()
        if span is None and instant is None:
            state = running.state()
            shown = {"now": state["now"], "offset_s": state["offsetSeconds"], "movable": state["movable"]}
            click.echo(json.dumps(shown, indent=2) if as_json else "\n".join(f"{key:9} {shown[key]}" for key in shown))
            return
        now = running.require_movable()
        days = move(running, now, target(now, span=span, instant=instant), Console(stderr=as_json))
    except ClockStays as exc:
        raise OneLine(str(exc)) from exc
    if as_json:
        click.echo(json.dumps({"now": running.state()["now"], "days": [day.shown() for day in days]}, indent=2))


def _stack_clock() -> "StackClock":
    from app.auth import issue_token
    from app.cli_clock import StackClock
    from app.local import LocalError
    from app.local.state import Home

    try:
        graphql = Home(_home(os.environ)).running()["graphql"]
    except LocalError as exc:
        raise OneLine(str(exc)) from exc
    config, operator = _guarded(_config), _operator()

    def token() -> str:
        return issue_token(config, operator.sub, (config.admin_role,), ttl=timedelta(minutes=15))

    _guarded(token)
    return StackClock(graphql, token)


# --- operators --------------------------------------------------------------------------------------------------------


@commands.group()
def account() -> None:
    """Merchant accounts. Nothing ever shows a secret again."""


@account.command("add")
@click.option("--provider", required=True, help="ALIPAY, …")
@click.option("--mode", required=True, help="What the provider calls it: public_key, certificate, isv, …")
@click.option("--name", help="How people call it; the provider and mode unless given.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=TEXT", help="A field, such as app_id=…")
@click.option(
    "--file", "files", multiple=True, metavar="FIELD=PATH", help="A field's text from a file, such as a PEM key."
)
@click.option(
    "--from-json", type=click.File("rb"), help="Fields from a JSON object, or a list of accounts; - is standard input."
)
def account_add(
    *, provider: str, mode: str, name: str | None, fields: tuple[str, ...], files: tuple[str, ...], from_json: Any
) -> None:
    """Add a merchant account, after testing that its keys belong together."""
    given = {} if from_json is None else _json_fields(provider, mode, from_json)
    given |= _account_fields(fields, files)

    title = name or f"{provider} {mode}"
    added = _with_runtime(
        lambda runtime: runtime.accounts.create(_operator(), provider=provider, mode=mode, name=title, fields=given)
    )
    click.echo(f"added merchant account {added.id}: {added.provider} {added.mode} {added.name}")


@account.command("set")
@click.argument("account_id", type=int)
@click.option("--set", "fields", multiple=True, metavar="FIELD=TEXT", help="A field; an empty text takes it away.")
@click.option("--file", "files", multiple=True, metavar="FIELD=PATH", help="A field whose text is a file's, as keys.")
def account_set(*, account_id: int, fields: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Give a merchant account other keys or settings; what is not named stays."""
    given = _account_fields(fields, files)
    if not given:
        raise OneLine("nothing to change: name fields with --set or --file")
    changed = _with_runtime(lambda runtime: runtime.accounts.change(_operator(), account_id, fields=given))
    click.echo(f"changed merchant account {changed.id}: {changed.provider} {changed.mode}, {', '.join(sorted(given))}")


@account.command("list")
@click.option("--json", "as_json", is_flag=True)
def account_list(*, as_json: bool) -> None:
    """List the merchant accounts, without secrets."""
    rows = _with_runtime(lambda runtime: runtime.accounts.list(_operator()))
    if as_json:
        names = ("id", "provider", "mode", "name", "settings", "enabled")
        click.echo(json.dumps([{key: getattr(row, key) for key in names} for row in rows], indent=2, default=dict))
        return
    for row in rows:
        click.echo(f"{row.id:4}  {row.provider:8} {row.mode:12} {'on ' if row.enabled else 'off'}  {row.name}")


@commands.group()
def wechat() -> None:
    """WeChat applications: logins, links, and files that prove a domain."""


@wechat.group("app")
def wechat_app() -> None:
    """Mini-programs and official accounts. Nothing ever shows a secret again."""


@wechat_app.command("add")
@click.option("--app-id", required=True, help="AppID, wx…")
@click.option("--kind", required=True, type=click.Choice(["mini_program", "official_account"]))
@click.option("--name", help="How people call it; the id unless given.")
@click.option("--secret-file", type=click.File("r"), help="AppSecret; - is standard input. Asked for unless given.")
@click.option("--gateway", help="https://api.weixin.qq.com unless given.")
@click.option("--authorize-gateway", help="https://open.weixin.qq.com unless given.")
@click.option("--link-page", "link_pages", multiple=True, help="A page that any caller may link to; may be repeated.")
def wechat_app_add(
    *,
    app_id: str,
    kind: str,
    name: str | None,
    secret_file: Any,
    gateway: str | None,
    authorize_gateway: str | None,
    link_pages: tuple[str, ...],
) -> None:
    """Add an application, or change one: what is left out stays, but for the secret."""
    from app.wechat.apps import SaveWechatApp, WechatAppKind

    secret = secret_file.read().strip() if secret_file else click.prompt("AppSecret", hide_input=True)
    wanted = SaveWechatApp(
        app_id=app_id,
        kind=WechatAppKind(kind),
        name=name or app_id,
        secret=secret,
        gateway=gateway,
        authorize_gateway=authorize_gateway,
        link_pages=link_pages or None,
    )
    saved = _with_runtime(lambda runtime: runtime.wechat.apps.save(_operator(), wanted))
    click.echo(f"saved {saved.kind} {saved.app_id}: {saved.name}")


@wechat_app.command("list")
@click.option("--json", "as_json", is_flag=True)
def wechat_app_list(*, as_json: bool) -> None:
    """List the applications, without secrets."""
    rows = _with_runtime(lambda runtime: runtime.wechat.apps.list(_operator()))
    if as_json:
        names = ("app_id", "kind", "name", "gateway", "authorize_gateway", "link_pages", "files")
        click.echo(json.dumps([{key: getattr(row, key) for key in names} for row in rows], indent=2, default=list))
        return
    for row in rows:
        click.echo(f"{row.app_id:20} {row.kind:16} {row.name}  {' '.join(row.files)}".rstrip())


@wechat.command("file")
@click.option("--app-id", required=True, help="Whose file it is.")
@click.option("--remove", is_flag=True, help="Serve it no longer.")
@click.argument("path", type=click.Path(path_type=Path))
def wechat_file(*, app_id: str, remove: bool, path: Path) -> None:
    """Serve a file that WeChat's console gave, such as MP_verify_….txt, from the site's root."""
    try:
        content = None if remove else path.read_text("ascii")
    except (OSError, ValueError) as exc:
        raise OneLine(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    _with_runtime(
        lambda runtime: runtime.wechat.apps.set_file(_operator(), app_id=app_id, name=path.name, content=content)
    )
    click.echo(f"/{path.name} is {'gone' if remove else 'served'}")


@commands.group()
def flows() -> None:
    """Runs of the merchant's flows."""


@flows.command("list")
@click.option("--status", "wanted", type=click.Choice(["WAITING", "DONE", "FAILED"]), help="Only these.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 100))
def flows_list(*, wanted: str | None, limit: int) -> None:
    """List the newest runs; for a failed one the last line of its traceback."""
    for run in _with_runtime(
        lambda runtime: runtime.flows.runs(_operator(), status=wanted, payment_id=None, limit=limit, before_id=None)
    ):
        reason = run.error.strip().splitlines()[-1] if run.error and run.status != "DONE" else ""
        click.echo(
            f"{run.id:6}  {run.status:8} {run.flow:24} payment {run.payment_id}  {run.attempts} attempts  {reason}"
        )


@flows.command("retry")
@click.argument("run_id", type=int)
def flows_retry(*, run_id: int) -> None:
    """Run a failed or waiting run again, now. One that is done stands."""
    run = _with_runtime(lambda runtime: runtime.flows.retry(_operator(), run_id))
    click.echo(f"flow run {run.id} ({run.flow}) is due now")


@commands.command("export")
@click.argument("name", type=click.Choice(["payments", "refunds"]))
@click.option("--from", "first", required=True, metavar="DATE", help="Business date in Shanghai, such as 2026-11-01.")
@click.option("--to", "last", required=True, metavar="DATE", help="The last date, included.")
@click.option("--status", "statuses", multiple=True, help="Only these; may be repeated.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The CSV file to write.")
def export_books(*, name: str, first: str, last: str, statuses: tuple[str, ...], out: Path) -> None:
    """Write what was paid, or refunded, from one date to another as CSV."""
    totals = _with_runtime(lambda runtime: _write_book(runtime, name, first, last, statuses, out))
    click.echo(f"{out}: {', '.join(f'{key} {text}' for key, text in totals.items())}")


async def _write_book(
    runtime: "Runtime", name: str, first: str, last: str, statuses: tuple[str, ...], out: Path
) -> Mapping[str, Any]:
    """Reads the book page by page into the file; its totals."""
    from app.exports.table import Writer

    book = await runtime.exports.open(_operator(), name, first, last, statuses)
    writer, seen = Writer(book.table), 0
    with (
        _whole_file(out) as file,
        click.progressbar(length=book.about_rows, label=name, file=sys.stderr) as bar,
    ):
        async for page in runtime.exports.pages(book, writer):
            file.write(page)
            bar.update(writer.totals.rows - seen)
            seen = writer.totals.rows
    return writer.totals.shown()


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when all of it was written; its owner's to read."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    opened = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(opened, "wb") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@commands.group()
def keys() -> None:
    """Master keys."""


@keys.command("reseal")
def keys_reseal() -> None:
    """Seal all credentials with the first key of MASTER_KEYS; afterwards the others may be removed."""

    async def resealed(runtime: "Runtime") -> tuple[int, int]:
        accounts = await runtime.accounts.reseal(_operator())
        apps = await runtime.wechat.apps.reseal(_operator())
        return accounts[0] + apps[0], accounts[1] + apps[1]

    changed, kept = _with_runtime(resealed)
    click.echo(f"re-sealed {changed}, already sealed with the first key {kept}")


def _json_fields(provider: str, mode: str, from_json: Any) -> dict[str, str]:
    """The fields of an object, or, of a list such as `sandbox accounts --json` prints, of the one for this mode."""
    try:
        loaded = json.load(from_json)
    except ValueError:
        raise OneLine("--from-json: not JSON; write one object of field names and texts") from None
    if isinstance(loaded, list):
        wanted = {"provider": provider, "mode": mode}
        loaded = next((each for each in loaded if isinstance(each, dict) and wanted.items() <= each.items()), None)
    if not isinstance(loaded, dict) or not all(isinstance(text, str) for text in loaded.values()):
        raise OneLine(
            f"--from-json: write one object of field names and texts, or a list with one for {provider} {mode}"
        )
    return {name: text for name, text in loaded.items() if name not in ("provider", "mode")}


def _account_fields(fields: tuple[str, ...], files: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in fields:
        name, separator, text = pair.partition("=")
        if not separator:
            raise OneLine(f"--set {pair}: write FIELD=TEXT")
        given[name] = text
    for pair in files:
        name, _, path = pair.partition("=")
        try:
            given[name] = Path(path).expanduser().read_text()
        except (OSError, ValueError) as exc:
            raise OneLine(f"--file {pair}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    return given


# --- what they share --------------------------------------------------------------------------------------------------


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("SHOUYIN_HOME") or ".local").absolute()


def _sandbox_port(environ: Mapping[str, str]) -> int:
    text = environ.get("SANDBOX_PORT") or "8001"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise OneLine(f"SANDBOX_PORT: {text!r} is not a whole number from 1 to 65535")
    return int(text)


def _environment() -> dict[str, str]:
    """The environment, completed by that of the local stack when one runs."""
    from app.local import LocalError
    from app.local.state import Home

    try:
        running = Home(_home(os.environ)).running()["environment"]
    except LocalError:
        running = {}
    return {**running, **{name: text for name, text in os.environ.items() if text}}


def _config() -> Config:
    return load_config(_environment())


def _guarded(act: Callable[[], _T]) -> _T:
    """Runs a command's work; everything a person can put right becomes one line."""
    from app.db import DatabaseUnusable
    from app.vault import VaultError

    try:
        return act()
    except ShouyinError as exc:
        raise OneLine(exc.message) from exc
    except (ConfigError, DatabaseUnusable, VaultError) as exc:
        raise OneLine(str(exc)) from exc
    except OSError as exc:
        raise OneLine(f"{exc.filename or 'system'}: {exc.strerror or exc}") from exc


def _operator() -> "Principal":
    """Whoever may run this command with the deployment's secrets is its administrator."""
    from app.auth import Principal

    return Principal(sub=f"cli:{os.environ.get('USER') or os.geteuid()}", is_admin=True)


def _with_runtime(act: "Callable[[Runtime], Awaitable[_T]]", environ: Mapping[str, str] | None = None) -> _T:
    from app.runtime import open_runtime

    async def opened() -> _T:
        runtime = await open_runtime(load_config(environ) if environ is not None else _config(), realtime=False)
        try:
            return await act(runtime)
        finally:
            await runtime.close()

    return _guarded(lambda: asyncio.run(opened()))


def _sandbox_accounts(environ: Mapping[str, str]) -> list[dict[str, str]]:
    from app.sandbox.accounts import load_or_create_accounts

    url = environ.get("SANDBOX_URL") or f"http://127.0.0.1:{_sandbox_port(environ)}"
    return load_or_create_accounts(_home(environ) / "sandbox", url)


if __name__ == "__main__":
    main()

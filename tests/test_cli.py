"""The `shouyin` command beside a deployment: tokens, merchant accounts, master keys, migrations, flow runs."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import jwt
import pytest
from click.testing import CliRunner, Result

from app.cli import commands
from app.sandbox.accounts import load_or_create_accounts

SECRET = "a secret of a test, thirty-two bytes or more"
OLD_KEY = "old:" + base64.b64encode(bytes(32)).decode()
NEW_KEY = "new:" + base64.b64encode(bytes(range(32))).decode()

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def environ(database_url: str, redis_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": "http://127.0.0.1:9",
        "SANDBOX_URL": "http://127.0.0.1:10",
        "MASTER_KEYS": OLD_KEY,
        "JWT_SECRET": SECRET,
        "SHOUYIN_HOME": str(tmp_path / "home"),
    }


@pytest.fixture
def shouyin(environ: dict[str, str]) -> Command:
    """Runs a command in a thread, where it may have an event loop of its own."""

    async def run(*arguments: str, stdin: str | None = None, **changes: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, commands, arguments, input=stdin, env=environ | changes)

    return run


@pytest.fixture(scope="module")
def sandbox_accounts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    records = load_or_create_accounts(tmp_path_factory.mktemp("sandbox"), "http://127.0.0.1:10")
    return {record["mode"]: record for record in records if record["provider"] == "ALIPAY"}


async def rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_a_token_names_its_holder_roles_and_end(shouyin: Command) -> None:
    made = await shouyin("token", "--sub", "7", "--role", "user", "--role", "clerk", "--ttl", "60")
    assert (made.exit_code, made.stderr) == (0, "")
    claims = jwt.decode(made.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["roles"], claims["exp"] - claims["iat"]) == ("7", ["user", "clerk"], 60)


async def test_a_token_needs_a_secret(shouyin: Command, tmp_path: Path) -> None:
    refused = await shouyin("token", "--sub", "7", JWT_SECRET="")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"shouyin: no stack is running under {tmp_path}/home: start one with `make run`, or set JWT_SECRET\n"
    )


async def test_migrate_says_what_it_applied_and_may_be_repeated(shouyin: Command, empty_database_url: str) -> None:
    first = await shouyin("migrate", DATABASE_URL=empty_database_url)
    assert first.exit_code == 0
    assert first.stdout.startswith("applied 0001_foundation")
    again = await shouyin("migrate", DATABASE_URL=empty_database_url)
    assert (again.exit_code, again.stdout) == (0, "nothing to apply\n")


async def test_an_unreachable_database_is_one_line(shouyin: Command, port: int) -> None:
    refused = await shouyin("migrate", DATABASE_URL=f"postgresql://nobody@127.0.0.1:{port}/none")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert refused.stderr.startswith("shouyin: DATABASE_URL: the database cannot be reached")


async def test_an_account_is_added_from_json_and_nothing_shows_its_keys(
    shouyin: Command, environ: dict[str, str], sandbox_accounts: dict[str, dict[str, str]]
) -> None:
    record = json.dumps(list(sandbox_accounts.values()))
    added = await shouyin(
        "account", "add", "--provider", "ALIPAY", "--mode", "certificate", "--from-json", "-", stdin=record
    )
    assert (added.exit_code, added.stderr) == (0, "")
    assert added.stdout == "added merchant account 1: ALIPAY certificate ALIPAY certificate\n"
    listed = await shouyin("account", "list", "--json")
    (account,) = json.loads(listed.stdout)
    assert (account["id"], account["provider"], account["mode"], account["enabled"]) == (
        1,
        "ALIPAY",
        "certificate",
        True,
    )
    assert "PRIVATE" not in listed.stdout
    (found,) = await rows(environ["DATABASE_URL"], "select actor, action, subject from shouyin.audit")
    assert str(found[0]).startswith("cli:")
    assert found[1:] == ("account.create", "merchant_account:1")


async def test_an_account_is_added_from_fields_and_files(
    shouyin: Command, tmp_path: Path, sandbox_accounts: dict[str, dict[str, str]]
) -> None:
    record = sandbox_accounts["public_key"]
    for name in ("app_private_key", "alipay_public_key"):
        (tmp_path / name).write_text(record[name])
    added = await shouyin(
        *("account", "add", "--provider", "ALIPAY", "--mode", "public_key", "--name", "shop"),
        *("--set", f"app_id={record['app_id']}", "--set", f"gateway={record['gateway']}"),
        *("--file", f"app_private_key={tmp_path / 'app_private_key'}"),
        *("--file", f"alipay_public_key={tmp_path / 'alipay_public_key'}"),
    )
    assert (added.exit_code, added.stderr) == (0, "")
    listed = await shouyin("account", "list")
    assert listed.stdout == "   1  ALIPAY   public_key   on   shop\n"
    changed = await shouyin("account", "set", "1", "--set", f"seller_id={record['seller_id']}")
    assert changed.stdout == "changed merchant account 1: ALIPAY public_key, seller_id\n"
    refused = await shouyin("account", "set", "1", "--set", "seller_id=1")
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("shouyin: seller_id is not what Alipay issues")
    assert (await shouyin("account", "set", "1")).exit_code == 1


async def test_keys_that_do_not_belong_together_are_refused(
    shouyin: Command, environ: dict[str, str], sandbox_accounts: dict[str, dict[str, str]]
) -> None:
    record = sandbox_accounts["public_key"] | {"app_public_key": sandbox_accounts["isv"]["app_public_key"]}
    refused = await shouyin(
        *("account", "add", "--provider", "ALIPAY", "--mode", "public_key", "--from-json", "-"),
        stdin=json.dumps(record),
    )
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "app_public_key" in refused.stderr
    assert await rows(environ["DATABASE_URL"], "select 1 from shouyin.merchant_account") == []
    assert await rows(environ["DATABASE_URL"], "select 1 from shouyin.audit") == []


@pytest.mark.parametrize(
    ("arguments", "stdin", "complaint"),
    [
        (["--set", "app_id"], None, "--set app_id: write FIELD=TEXT"),
        (["--file", "app_private_key=/no/such/file"], None, "--file app_private_key=/no/such/file: cannot be read"),
        (["--from-json", "-"], "[1]", "--from-json: write one object of field names and texts"),
        (["--from-json", "-"], "{", "--from-json: not JSON"),
    ],
)
async def test_unreadable_fields_are_one_line(
    shouyin: Command, arguments: list[str], stdin: str | None, complaint: str
) -> None:
    refused = await shouyin("account", "add", "--provider", "ALIPAY", "--mode", "public_key", *arguments, stdin=stdin)
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert refused.stderr.startswith(f"shouyin: {complaint}")


async def test_reseal_moves_every_account_to_the_first_key(
    shouyin: Command, sandbox_accounts: dict[str, dict[str, str]]
) -> None:
    record = json.dumps(sandbox_accounts["public_key"])
    add = ("account", "add", "--provider", "ALIPAY", "--mode", "public_key", "--from-json", "-")
    assert (await shouyin(*add, stdin=record)).exit_code == 0
    lost = await shouyin("keys", "reseal", MASTER_KEYS=NEW_KEY)
    assert (lost.exit_code, lost.stdout) == (1, "")
    assert lost.stderr.startswith(
        "shouyin: merchant_account:1 is sealed with the key 'old', which is not in MASTER_KEYS"
    )
    moved = await shouyin("keys", "reseal", MASTER_KEYS=f"{NEW_KEY},{OLD_KEY}")
    assert moved.stdout == "re-sealed 1, already sealed with the first key 0\n"
    again = await shouyin("keys", "reseal", MASTER_KEYS=NEW_KEY)
    assert again.stdout == "re-sealed 0, already sealed with the first key 1\n"


async def test_sandbox_accounts_are_the_same_every_time(shouyin: Command) -> None:
    first = await shouyin("sandbox", "accounts", "--json")
    accounts = json.loads(first.stdout)
    assert {account["mode"] for account in accounts if account["provider"] == "ALIPAY"} == {
        "public_key",
        "certificate",
        "isv",
    }
    wanted = {"provider", "mode", "gateway", "app_id", "app_private_key", "alipay_public_key", "seller_id"}
    alipay = [account for account in accounts if account["provider"] == "ALIPAY"]
    assert all(wanted <= account.keys() for account in alipay)
    assert {account["gateway"] for account in alipay} == {"http://127.0.0.1:10/gateway.do"}
    assert (await shouyin("sandbox", "accounts", "--json")).stdout == first.stdout
    listed = (await shouyin("sandbox", "accounts")).stdout
    assert listed.count("\n") == len(accounts)
    secrets = {
        text
        for account in accounts
        for name, text in account.items()
        if ("key" in name or name in ("secret", "app_auth_token")) and name != "public_key_id"
    }
    assert not [text for text in secrets if text in listed]


async def test_flow_runs_are_listed_and_a_missing_one_is_one_line(shouyin: Command) -> None:
    listed = await shouyin("flows", "list", "--status", "FAILED")
    assert (listed.exit_code, listed.stdout) == (0, "")
    refused = await shouyin("flows", "retry", "5")
    assert (refused.exit_code, refused.stderr) == (1, "shouyin: flow run 5 does not exist\n")


async def test_the_schema_is_the_exported_one(shouyin: Command) -> None:
    exported = await shouyin("schema")
    assert exported.stdout == (Path(__file__).parent.parent / "schema.graphql").read_text()


@pytest.mark.parametrize("part", ["serve", "worker"])
async def test_a_missing_setting_stops_a_part_with_one_line(shouyin: Command, part: str) -> None:
    refused = await shouyin(part, DATABASE_URL="")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "shouyin: DATABASE_URL: missing; set it in the environment (see .env.example)\n"

"""`shouyin wechat …`, master keys, and what `make run` opens."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.cli import commands
from app.runtime import open_runtime
from app.shop import migrate_shop, open_shop
from tests.fixtures.shop import ADMIN
from tests.wechat.conftest import Site

Command = Callable[..., Awaitable[Result]]
SECRET = "0123456789abcdef0123456789abcdef"
OLD, NEW = (f"{name}:{base64.b64encode(bytes([number]) * 32).decode()}" for number, name in enumerate(("old", "new")))
ADD = ("wechat", "app", "add", "--app-id", "wx0000000000000001")


@pytest.fixture
def shouyin(database_url: str, redis_url: str, tmp_path: Path) -> Command:
    """Runs a command in a thread, where it may have an event loop of its own."""
    environ = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "PUBLIC_URL": "http://127.0.0.1:9",
        "MASTER_KEYS": OLD,
        "JWT_SECRET": "a secret of a test, thirty-two bytes or more",
        "SHOUYIN_HOME": str(tmp_path / "home"),
    }

    async def run(*arguments: str, stdin: str | None = None, **changes: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, commands, arguments, input=stdin, env=environ | changes)

    return run


async def test_an_application_is_added_changed_and_listed(shouyin: Command) -> None:
    options = ("--kind", "mini_program", "--secret-file", "-")
    added = await shouyin(*ADD, *options, "--link-page", "pages/order", stdin=f"{SECRET}\n")
    assert (added.exit_code, added.stdout) == (0, "saved mini_program wx0000000000000001: wx0000000000000001\n")
    named = await shouyin(*ADD, *options, "--name", "Tea", stdin=SECRET)
    assert named.stdout == "saved mini_program wx0000000000000001: Tea\n"
    listed = await shouyin("wechat", "app", "list", "--json")
    assert json.loads(listed.stdout) == [
        {
            "app_id": "wx0000000000000001",
            "kind": "mini_program",
            "name": "Tea",
            "gateway": "https://api.weixin.qq.com",
            "authorize_gateway": "https://open.weixin.qq.com",
            "link_pages": ["pages/order"],
            "files": [],
        }
    ]
    assert SECRET not in listed.output + named.output + added.output


async def test_a_secret_that_is_typed_is_not_shown(shouyin: Command) -> None:
    added = await shouyin(*ADD, "--kind", "official_account", stdin=f"{SECRET}\n")
    assert (added.exit_code, SECRET in added.output) == (0, False)


async def test_what_is_wrong_is_one_line(shouyin: Command, tmp_path: Path) -> None:
    refused = await shouyin(*ADD, "--kind", "mini_program", "--secret-file", "-", stdin="short")
    assert (refused.exit_code, refused.stderr) == (1, "shouyin: secret: the AppSecret, without blanks around it\n")
    missing = await shouyin("wechat", "file", "--app-id", "wx0000000000000001", str(tmp_path / "MP_verify_a.txt"))
    assert missing.stderr == f"shouyin: {tmp_path}/MP_verify_a.txt: cannot be read: No such file or directory\n"


async def test_a_file_is_served_and_taken_away(shouyin: Command, tmp_path: Path) -> None:
    await shouyin(*ADD, "--kind", "official_account", "--secret-file", "-", stdin=SECRET)
    (tmp_path / "MP_verify_a.txt").write_text("a1")
    path = str(tmp_path / "MP_verify_a.txt")
    served = await shouyin("wechat", "file", "--app-id", "wx0000000000000001", path)
    assert served.stdout == "/MP_verify_a.txt is served\n"
    assert "MP_verify_a.txt" in (await shouyin("wechat", "app", "list")).stdout
    gone = await shouyin("wechat", "file", "--app-id", "wx0000000000000001", "--remove", path)
    assert gone.stdout == "/MP_verify_a.txt is gone\n"
    assert "MP_verify_a.txt" not in (await shouyin("wechat", "app", "list")).stdout


async def test_new_master_keys_seal_applications_too(shouyin: Command) -> None:
    await shouyin(*ADD, "--kind", "official_account", "--secret-file", "-", stdin=SECRET)
    resealed = await shouyin("keys", "reseal", MASTER_KEYS=f"{NEW},{OLD}")
    assert resealed.stdout == "re-sealed 1, already sealed with the first key 0\n"
    again = await shouyin("keys", "reseal", MASTER_KEYS=NEW)
    assert again.stdout == "re-sealed 0, already sealed with the first key 1\n"


async def test_a_local_stack_opens_the_sandbox_s_applications(site: Site) -> None:
    await migrate_shop(site.config.database_url)
    records = list(site.records.values())
    runtime = await open_runtime(site.config, clock=site.clock, realtime=False)
    try:
        await site.connection.execute("delete from shouyin.wechat_app")
        done = await open_shop(runtime, ADMIN, records)
        assert done[-2:] == ["opened WECHAT_APP mini_program", "opened WECHAT_APP official_account"]
        assert await open_shop(runtime, ADMIN, records) == []
        changed = [record | {"secret": SECRET} for record in records]
        assert len(await open_shop(runtime, ADMIN, changed)) == 2
        opened = await runtime.wechat.apps.open(site.mini)
        assert (opened.app.secret.reveal(), opened.app.gateway) == (SECRET, site.config.sandbox_url)
    finally:
        await runtime.close()

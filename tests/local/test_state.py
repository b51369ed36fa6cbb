"""The state directory: one stack at a time, whole files, one line for whatever is wrong with it."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.local import LocalError, state
from app.local.children import service_account
from app.local.state import Home
from app.local.throwaway import throwaway_directory
from tests.local.ordinary import run_as_ordinary_user

ADDRESSES = {key: f"{key}://address" for key in state.STATUS_KEYS}


@pytest.fixture
def home() -> Iterator[Home]:
    with throwaway_directory() as directory:
        yield Home(directory / "home")


def test_secrets_are_made_once_and_for_the_owner_alone(home: Home) -> None:
    with home.locked():
        made = home.secrets()
        assert home.secrets() == made
    assert Home(home.path).secrets() == made
    assert stat.S_IMODE((home.path / "secrets.json").stat().st_mode) == 0o600
    assert made.master_keys.startswith("local:")
    assert len(bytes.fromhex(made.jwt_secret)) == 32


def test_two_stacks_never_share_a_directory(home: Home) -> None:
    said = rf"a stack already runs there \(process {os.getpid()}\)"
    with home.locked(), pytest.raises(LocalError, match=said), Home(home.path).locked():
        pytest.fail("two at once")
    with home.locked():
        pass


def test_a_running_stack_is_found_and_an_ended_one_is_not(home: Home) -> None:
    with pytest.raises(LocalError, match=r"no stack is running under .*: start one with `make run`"):
        home.running()
    with home.locked():
        home.write_run(ADDRESSES, {"PORT": "1"})
        assert home.running() == {"pid": os.getpid(), **ADDRESSES, "environment": {"PORT": "1"}}
        assert stat.S_IMODE((home.path / "run.json").stat().st_mode) == 0o600
    with pytest.raises(LocalError, match="no stack is running under"):
        home.running()


def test_a_stack_that_was_killed_is_told_from_one_that_runs(home: Home) -> None:
    with home.locked():
        home.write_run(ADDRESSES, {})
        left = (home.path / "run.json").read_text()
    (home.path / "run.json").write_text(left)
    with pytest.raises(LocalError, match=rf"\(process {os.getpid()}\) has ended without saying so: start it again"):
        home.running()
    with home.locked(), pytest.raises(LocalError, match="no stack is running"):
        home.running()


@pytest.mark.parametrize("text", ['{"identity": "a', "[]", "", '{"identity": "a"}'])
def test_a_damaged_file_is_one_line(home: Home, text: str) -> None:
    with home.locked():
        (home.path / "secrets.json").write_text(text)
        with pytest.raises(LocalError, match=r"secrets.json: .* to start afresh$") as refused:
            home.secrets()
    assert "\n" not in str(refused.value)
    assert (home.path / "secrets.json").read_text() == text


def test_a_database_whose_password_is_gone_is_not_overwritten(home: Home) -> None:
    with home.locked():
        (home.path / "postgres").mkdir()
        with pytest.raises(LocalError, match=r"secrets.json is missing, and .*postgres cannot be opened without it"):
            home.secrets()
    assert not (home.path / "secrets.json").exists()


def test_ports_are_remembered(home: Home) -> None:
    with home.locked():
        assert home.ports() == {}
        home.remember_ports({"postgres": 5})
    assert json.loads((home.path / "ports.json").read_text()) == {"postgres": 5}
    assert home.ports() == {"postgres": 5}


def test_a_missing_permission_is_one_line() -> None:
    with throwaway_directory() as directory:
        (directory / "user").mkdir()
        (directory / "closed").mkdir(mode=0o700)
        work = """
try:
    with app.local.state.Home(home.parent / "closed" / "home").locked():
        print("entered")
except LocalError as exc:
    print(exc)
"""
        if os.geteuid() != 0:
            (directory / "closed").chmod(0)
        done = run_as_ordinary_user(work, directory / "user")
        assert done.stderr == ""
        assert done.stdout == (
            f"{directory}/closed/home: no permission; choose another directory with SHOUYIN_HOME, or become its owner\n"
        )
        (directory / "closed").chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="about what root does differently")
def test_a_home_that_the_servers_user_cannot_enter_keeps_its_data_elsewhere(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone under root's closed home. A directory that was removed takes its database with it."""
    outside = home.path.parent / "outside"
    outside.mkdir()
    monkeypatch.setattr(state, "lasting_directory", lambda account: outside)
    account = service_account()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    first = Home(closed / ".local")
    with first.locked():
        assert first.data_directory("one", account) == outside / "one" / "postgres"
        assert first.data_directory("one", account) == outside / "one" / "postgres"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    with first.locked():
        assert first.data_directory("two", account) == outside / "two" / "postgres"
    assert [path.name for path in outside.iterdir()] == ["two"]
    with home.locked():
        assert home.data_directory("three", account) == home.path / "postgres"

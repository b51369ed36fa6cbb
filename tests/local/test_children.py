"""Children end with their parent, whatever ends it, and leave in order when asked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.local.children import spawn, stop, tail, wait_gone

_PARENT = """
import sys, time
from app.local.children import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=1)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert wait_gone(child, timeout_s=10)


def test_a_child_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    """So that Ctrl-C in the terminal reaches the supervisor alone, which ends its children in order."""
    with (tmp_path / "log").open("wb") as log:
        child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], log=log)
    try:
        assert os.getsid(child.pid) == child.pid
    finally:
        stop(child, signal.SIGTERM, grace_s=5)
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    path = tmp_path / "log"
    with path.open("wb") as log:
        child = spawn([sys.executable, "-c", deaf], log=log)
    deadline = time.monotonic() + 20
    while tail(path) != "deaf" and time.monotonic() < deadline:
        time.sleep(0.01)
    stop(child, signal.SIGTERM, grace_s=0.2)
    assert child.returncode == -signal.SIGKILL


def test_a_secret_on_standard_input_stands_in_no_list_of_processes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as log:
        child = spawn([sys.executable, "-c", "print(input()[::-1])"], log=log, stdin=b"terces\n")
    assert child.wait(20) == 0
    assert path.read_text() == "secret\n"
    assert "terces" not in " ".join(map(str, child.args if isinstance(child.args, list) else []))


def test_the_tail_of_a_missing_log_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "none") == ""


@pytest.mark.parametrize("lines", [1, 3])
def test_the_tail_is_the_last_lines(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(5000)))
    assert tail(path, lines).splitlines() == [f"line {number}" for number in range(5000 - lines, 5000)]

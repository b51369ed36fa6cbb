"""Runs a piece of a test as an ordinary user, for a suite that root runs.

The interpreter and this checkout may stand where no other user can reach them, so that a process of root's loads what
it needs, turns into the other user for good, and then does the work.
"""

import os
import subprocess
import sys
from pathlib import Path

from app.local.children import service_account

_TURN = """
import asyncio, asyncpg, os, signal, sys, encodings.idna, ssl
from pathlib import Path
import app.local.children, app.local.postgres, app.local.redis, app.local.state, app.local.programs as programs
from app.local import LocalError
account = app.local.children.service_account()
places = programs.postgres_programs(account), programs.redis_program(account)
app.local.postgres.postgres_programs = lambda account: places[0]
app.local.redis.redis_program = lambda account: places[1]
os.setgroups([]); os.setgid(account.gid); os.setuid(account.uid)
"""


def run_as_ordinary_user(work: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """Runs Python text as a user who owns `home` and nothing else; `home` is its working directory and variable."""
    account = service_account()
    turn = ""
    if account is not None:
        os.chown(home, account.uid, account.gid)
        turn = _TURN
    else:
        turn = _TURN.partition("account =")[0]
    text = f"{turn}\nhome = Path({str(home)!r})\nos.chdir(home)\n{work}"
    environ = os.environ | {"HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=100, check=False, env=environ
    )

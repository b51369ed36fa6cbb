"""A month of daily deductions, lived through day by day on the test clock by real processes: every due date is charged
exactly once at the provider, its truth and our tables are equal, every flow ran once.

The suite lives it with a tenth of the agreements; `MONTH_AGREEMENTS=1000 pytest tests/cycles/test_month.py` with that
many. `MONTH_SEED` chooses who has which story; a failure prints its own. `make bench BENCH="--only month"` times it.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.fixtures.month import open_month

AGREEMENTS: Final = int(os.environ.get("MONTH_AGREEMENTS", "100"))
SEED: Final = int(os.environ.get("MONTH_SEED", str(random.randrange(10**6))))


@pytest.mark.timeout(120 + AGREEMENTS)
async def test_a_month_of_deductions_charges_every_due_date_once(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    sandbox_home: Path,
    record_property: Callable[[str, object], None],
) -> None:
    print(f"MONTH_SEED={SEED}")
    async with open_month(database_url, redis_url, tmp_path, sandbox_home) as month:
        await month.sign_up(AGREEMENTS, random.Random(SEED))
        took_s = await month.live()
        outcomes = await month.check()
    print(f"{AGREEMENTS} agreements, {outcomes.total()} due dates: 31 days in {took_s:.1f} s, {dict(outcomes)}")
    record_property("seconds", took_s)
    assert outcomes["PAID"] > 2 * AGREEMENTS

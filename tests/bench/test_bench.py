"""Each benchmark runs and reports its figures, with counts too small to say anything about speed."""

import math

from tests.bench.__main__ import BENCHES, run
from tests.bench.figures import Figure, percentile, table
from tests.bench.scale import SMOKE


async def test_every_bench_measures_and_checks_what_it_did() -> None:
    # A month is lived by tests/cycles/test_month.py.
    where, figures = await run([name for name in BENCHES if name != "month"], SMOKE)
    assert "fsync" in where
    assert [figure.bench for figure in figures if figure.kept is not None] == [
        *("create", "create", "inbox", "latency", "latency", "memory", "statements", "commits", "claims", "day")
    ]
    assert all(math.isfinite(figure.value) for figure in figures)


def test_a_bound_is_kept_up_to_its_edge_and_shown_in_the_table() -> None:
    figures = [
        Figure("create", "payments", 800.0, "/s", low=800),
        Figure("latency", "p99", 10.1, "ms", high=10),
        Figure("memory", "whole process", 75.5, "MB"),
    ]
    assert [figure.kept for figure in figures] == [True, False, None]
    assert table(figures).splitlines()[2:] == [
        "| create  | payments      | 800 /s   | ≥ 800  | kept   |",
        "| latency | p99           | 10.1 ms  | ≤ 10   | MISSED |",
        "| memory  | whole process | 75.5 MB  |        |        |",
    ]


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0

"""What a benchmark reports, and how it is shown."""

import math
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `low`/`high` is the bound it has to keep, None where there is none."""

    bench: str
    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None

    @property
    def kept(self) -> bool | None:
        """Whether the bound is kept; None without one."""
        if self.low is None and self.high is None:
            return None
        return (self.low is None or self.value >= self.low) and (self.high is None or self.value <= self.high)

    def as_json(self) -> dict[str, object]:
        """The same for machines."""
        return {
            "bench": self.bench, "what": self.what, "value": round(self.value, 4), "unit": self.unit,
            "low": self.low, "high": self.high, "kept": self.kept,
        }  # fmt: skip


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table, aligned to be read as it is."""
    rows = [("bench", "figure", "measured", "target", "")]
    rows += [
        (
            figure.bench,
            figure.what,
            f"{_shown(figure.value)} {figure.unit}".strip(),
            _bound(figure),
            {True: "kept", False: "MISSED", None: ""}[figure.kept],
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in rows]
    lines.insert(1, f"| {' | '.join('-' * width for width in widths)} |")
    return "\n".join(lines)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def machine(directory: Path) -> str:
    """One line on where this was measured; the flush is what a commit waits for."""
    described = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    flush_us = _flush_s(directory) * 1e6
    return (
        f"{os.cpu_count()} x {processor}, Python {platform.python_version()}; load average before {load};"
        f" an fsync of 8 kB takes {flush_us:.0f} µs"
    )


def _flush_s(directory: Path) -> float:
    times = []
    path = directory / "flush"
    with path.open("wb") as file:
        for _ in range(50):
            file.write(bytes(8192))
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    path.unlink()
    return median(times)


def _shown(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _bound(figure: Figure) -> str:
    bounds = [f"≥ {_trimmed(figure.low)}" if figure.low is not None else ""]
    bounds.append(f"≤ {_trimmed(figure.high)}" if figure.high is not None else "")
    return " ".join(part for part in bounds if part)


def _trimmed(value: float | None) -> str:
    return f"{value:,g}" if value is not None else ""

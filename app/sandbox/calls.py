"""Counts of the calls each provider received, so that a test can bound how often a provider is asked.

Every call counts, also refused and faulted ones: the question is what was sent, not what was answered.
"""

from collections import Counter
from typing import TypedDict


class CallCount(TypedDict):
    method: str
    out_trade_no: str
    count: int


class CallCounter:
    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def record(self, method: str, out_trade_no: str) -> None:
        self._counts[method, out_trade_no] += 1

    def listed(self, *, method: str | None = None, out_trade_no: str | None = None) -> list[CallCount]:
        """The counts in order of first call, filtered by what is given."""
        return [
            {"method": called, "out_trade_no": number, "count": count}
            for (called, number), count in self._counts.items()
            if method in (None, called) and out_trade_no in (None, number)
        ]

    def reset(self) -> None:
        self._counts.clear()

"""How much is measured: the whole, a short look, or just enough to see that it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Counts and seconds of one run."""

    connections: int
    rounds: int
    round_s: float
    # most requests of one round; a faster server ends early and is measured all the same
    round_requests: int
    notices: int
    few_watchers: int
    many_watchers: int
    idle_watchers: int
    changes_per_s: float
    changes: int
    commit_round_s: int
    # agreements that live through a month; deductions of one day; how many cycles stand in the table beside them
    agreements: int
    due: int
    cycles: tuple[int, ...]
    # how long memory has to stay as it is before it is read
    settle_s: float = 1.0
    # one API process for all benches instead of a fresh one for each
    one_api: bool = False

    @property
    def orders(self) -> int:
        """Orders that the whole run uses up, at most."""
        creating = self.rounds * 2 * self.round_requests + 1000
        return creating + 3 * self.many_watchers + 2 * (self.idle_watchers + self.few_watchers) + 10_000


FULL = Scale(
    connections=16, rounds=5, round_s=5, round_requests=20_000, notices=5_000, few_watchers=100, many_watchers=3_000,
    idle_watchers=4_000, changes_per_s=200, changes=2_000, commit_round_s=5,
    agreements=1_000, due=10_000, cycles=(10_000, 100_000, 1_000_000),
)  # fmt: skip
BRIEF = Scale(
    connections=16, rounds=3, round_s=3, round_requests=10_000, notices=3_000, few_watchers=100, many_watchers=3_000,
    idle_watchers=3_000, changes_per_s=200, changes=1_000, commit_round_s=3,
    agreements=100, due=1_000, cycles=(1_000, 10_000, 100_000),
)  # fmt: skip
SMOKE = Scale(
    connections=2, rounds=1, round_s=1, round_requests=10, notices=10, few_watchers=2, many_watchers=4,
    idle_watchers=4, changes_per_s=100, changes=8, commit_round_s=1, settle_s=0.05, one_api=True,
    agreements=20, due=8, cycles=(8, 40),
)  # fmt: skip

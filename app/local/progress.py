"""Progress for a person (one line a step, with a spinner) and for a log (plain lines), from the first second."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Says what happens and how long it took. `out` is a terminal or not; both are served."""

    def __init__(self, out: Console | None = None, err: Console | None = None) -> None:
        self.out = out or Console(highlight=False, soft_wrap=True)
        self.err = err or Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """`✓ what (0.3 s)` when it is over. An error passes through and leaves no tick."""
        started = time.monotonic()
        if self.out.is_terminal:
            with self.out.status(f"{what} …"):
                yield
        else:
            self.out.print(f"  … {what}", markup=False)
            yield
        self.out.print(f"  [green]✓[/] {what} [dim]({time.monotonic() - started:.1f} s)[/]")
        sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """A line of rich markup."""
        self.out.print(text)
        sys.stdout.flush()

    def complain(self, text: str) -> None:
        """A line on standard error, as it is."""
        self.err.print(text, markup=False)

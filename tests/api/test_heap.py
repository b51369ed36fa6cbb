"""Sockets are frozen once they stay, and what they leave behind is collected all the same."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from app.api.heap import Heap


class Knot:
    """Two references in a circle: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Leaves the heap of the test process as it was: nothing frozen."""
    yield
    gc.unfreeze()


def test_sockets_are_frozen_once_enough_were_opened() -> None:
    heap = Heap()
    gc.unfreeze()
    for _ in range(149):
        heap.opened()
    heap.tidy(500)
    assert gc.get_freeze_count() == 0
    heap.opened()
    heap.tidy(500)
    assert gc.get_freeze_count() > 0


def test_a_frozen_circle_is_collected_once_enough_sockets_were_closed() -> None:
    heap = Heap()
    knot = Knot()
    left = weakref.ref(knot)
    for _ in range(100):
        heap.opened()
    heap.tidy(0)
    del knot
    gc.collect()
    assert left() is not None
    for _ in range(5_000):
        heap.closed()
    heap.tidy(5_001)
    assert left() is not None
    heap.tidy(5_000)
    assert left() is None
    assert gc.get_freeze_count() > 0

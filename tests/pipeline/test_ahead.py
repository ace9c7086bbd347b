"""Working ahead: the same items, faults where they belong, and no thread left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.storage.ahead import ahead


def counting(n: int, made: list[int], *, fail_at: int | None = None) -> Iterator[int]:
    for i in range(n):
        if i == fail_at:
            raise ValueError("no more")
        made.append(i)
        yield i


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_all_items_come_in_order(n: int) -> None:
    assert list(ahead(counting(n, []), 2)) == list(range(n))


def test_a_fault_comes_after_the_items_before_it() -> None:
    """And is the fault itself, not a description."""
    items = ahead(counting(10, [], fail_at=3), 2)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_no_more_is_made_than_was_allowed_and_nothing_once_nobody_wants_it() -> None:
    """Memory stays bounded; a reader that gives up stops the work."""
    made: list[int] = []
    before = threading.active_count()
    items = ahead(counting(1000, made), 3)
    assert next(items) == 0
    items.close()
    assert len(made) <= 6
    assert threading.active_count() == before

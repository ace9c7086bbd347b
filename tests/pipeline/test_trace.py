"""What the chain behind a record says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.report.trace import Chain, _delivery, as_lines

from .review_data import WHOLE, refused

GONE: dict[str, Any] = {"version": 3, "gone": "removed"}
CONTRACT = {"hash": "c", "now": "c", "unchanged": True, "file": "f"}


def test_a_check_of_the_same_content_is_no_delivery() -> None:
    """Beside "model version 1", "version 2" of a batch would be taken for a model's."""
    kept = [replace(refused("b"), version=i + 1, fingerprint=one) for i, one in enumerate("aabba")]
    assert [_delivery(one, kept) for one in kept] == [1, 1, 2, 2, 3]
    batch = {"delivery": 2, "n_read": 9, "n_accepted": 9, "n_flagged": 1, "fingerprint": "f"}
    lines = dict(as_lines(Chain(WHOLE, GONE, CONTRACT, batch, {"unchanged": None, "files": []})))
    assert lines["batch"].startswith("delivery 2, 9 records, ")


@pytest.mark.parametrize(
    ("key", "name"),
    [("k-7", "k-7"), (f"{'0a' * 12}-1", "row 477 (2026-01-30)")],
    ids=["keyed", "without a key"],
)
def test_a_record_is_called_as_everywhere(key: str, name: str) -> None:
    """By its key; without one by its place, and not by the hash that stands for its content."""
    row = replace(WHOLE, record_key=key, row_number=477)
    month = {"file": "/data/tripdata_2026-01.parquet", "gone": "it is not there any more"}
    chain = Chain(row, GONE, CONTRACT, {"gone": "unknown"}, {"unchanged": None, "files": [month]})
    lines = dict(as_lines(chain))
    assert lines["lies in"] == "row 477 of tripdata_2026-01.parquet, counted from 0"
    assert lines["record"] == f"0123456789abcdef  payments, {name}"
    assert chain.as_dict()["record"]["record_key"] == key

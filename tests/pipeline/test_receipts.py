"""What a step says about one batch, in a line."""

from __future__ import annotations

import pytest

from pipeline.steps.receipts import BatchReceipt, sentence


@pytest.mark.parametrize(
    ("receipt", "said"),
    [
        (BatchReceipt("d", "accepted", n_accepted=7, n_set_aside=2), "d: 7 accepted, 2 set aside"),
        (BatchReceipt("d", "scored", n_accepted=7, n_flagged=1), "d: 7 scored, 1 flagged"),
        (BatchReceipt("d", "refused", "it is empty"), "d: refused: it is empty"),
        (BatchReceipt("d", "unchanged"), "d: unchanged"),
    ],
    ids=lambda value: value.outcome if isinstance(value, BatchReceipt) else "",
)
def test_a_batch_is_told_in_one_line_that_says_nothing_twice(receipt: BatchReceipt, said: str) -> None:
    """Hundreds of them pass by."""
    assert sentence(receipt) == said


def test_lines_below_one_another_are_aligned() -> None:
    """Three hundred of them are a table, in which a number that is not like the others is seen."""
    few = BatchReceipt("2026-01-01", "accepted", n_accepted=7, n_set_aside=0)
    many = BatchReceipt("2026-01_undated", "accepted", n_accepted=12345, n_set_aside=1234)
    assert [
        sentence(receipt, 15) for receipt in (few, many, BatchReceipt("2026-01-02", "refused", "empty"))
    ] == [
        "2026-01-01:            7 accepted,     0 set aside",
        "2026-01_undated:  12,345 accepted, 1,234 set aside",
        "2026-01-02:      refused: empty",
    ]

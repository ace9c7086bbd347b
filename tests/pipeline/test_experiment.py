"""What a training tells MLflow."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa

from pipeline.training.experiment import typical


def test_the_example_of_a_models_input_is_nobodys_record() -> None:
    """Whoever may read an experiment sees it; each value is usual, and no record has them together."""
    records = pa.table({
        "amount": [1.5, 9.0, 3.0, None],
        "items": [7, None, 8, 9],
        "fee": [Decimal("0.30"), Decimal("0.10"), Decimal("0.20"), None],
        "shop": ["a", "b", "b", "b"],
        "is_new": [True, False, True, None],
        "at": [datetime(2026, 1, day, tzinfo=UTC) for day in (3, 1, 2, 4)],
        "unused": pa.nulls(4, pa.string()),
    })
    found = typical(records)
    assert found.schema == records.schema
    assert found.to_pylist() == [
        {
            "amount": 3.0,
            "items": 8,
            "fee": Decimal("0.20"),
            "shop": "b",
            "is_new": True,
            "at": datetime(2026, 1, 3, tzinfo=UTC),
            "unused": None,
        }
    ]
    assert found.to_pylist()[0] not in records.to_pylist()

"""A dataset of payments, and batches of it that were checked and scored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from pipeline.detection.scoring import scores_schema
from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id
from pipeline.storage.ledger import BatchState

from .review_data import reason

DATASET = """\
dataset: payments
incoming: {path: ../incoming}
time: at
entity: card
columns:
  at: {type: timestamp_utc}
  card: {type: string}
  amount: {type: float, role: numeric}
review: {sample_share: 0.5}
"""
RECORD = pa.struct([("at", pa.timestamp("us", "UTC")), ("card", pa.string()), ("amount", pa.float64())])
N = 40


@pytest.fixture
def payments_yaml() -> str:
    return DATASET


@pytest.fixture
def publish(here: Installation) -> Callable[..., BatchState]:
    """Put a batch of 40 records into the tables, some of them flagged, and into the ledger as scored."""

    def batch(
        batch_id: str = "2026-01-30",
        flagged: tuple[int, ...] = (3, 4),
        version: int = 3,
        without: tuple[str, ...] = (),
    ) -> BatchState:
        at = datetime.fromisoformat(batch_id).replace(tzinfo=UTC)
        values = [{"at": at.replace(hour=i % 24), "card": f"c{i % 5}", "amount": float(i)} for i in range(N)]
        keys = [f"{batch_id}-{i:03}" for i in range(N)]
        records = pa.table({
            "batch_id": [batch_id] * N,
            "set_aside": [False] * N,
            "row_number": list(range(N)),
            "record_key": keys,
            "reasons": pa.nulls(N, pa.list_(pa.string())),
            "record": pa.array(values, RECORD),
        })
        tables = here.tables(here.dataset("payments"))
        tables.replace("records", batch_id, records.to_reader(), note={})
        rows = [_scored(batch_id, i, keys[i], values[i], i in flagged, version) for i in range(N)]
        scores = pa.Table.from_pylist(rows, scores_schema(RECORD)).drop_columns(list(without))
        tables.replace("scores", batch_id, scores.to_reader(), note={})
        state = BatchState(
            "payments", batch_id, 1, "accepted", "", f"f{version}", "s", "c", [], [], {}, N, N,
            at.replace(hour=23), at,
        )  # fmt: skip
        written = here.ledger.record_validation(state)
        return here.ledger.record_scores(
            written, model_version=version, threshold=4.5, n_flagged=len(flagged)
        )

    return batch


def _scored(
    batch_id: str, i: int, key: str, values: dict[str, Any], flagged: bool, version: int
) -> dict[str, Any]:
    row = {
        "batch_id": batch_id, "flagged": flagged, "row_number": i, "record_key": key, "anomaly_score": float(i),
        "reconstruction": 1.0, "kl_divergence": 1.0, "p_value": 0.1, "severity": i / 10, "threshold": 4.5,
        "model_version": version, "kl_weight": 0.5,
    }  # fmt: skip
    more = {
        "anomaly_id": anomaly_id("payments", batch_id, key),
        "kl_share": 0.1,
        "reasons": [reason()],
        "terms": [{"column": "amount", "nats": i - 0.75}],
        "record": values,
    }
    return row | (more if flagged else {})

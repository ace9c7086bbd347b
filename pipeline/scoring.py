"""Score one batch and publish it: every record's scores and the flagged records with their reasons, in one commit.

Belongs here: streaming a batch through a detector with bounded memory. Does not: the maths (detector.py,
calibration.py) or which model serves (registry/).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.calibration import Threshold
from pipeline.config import Dataset
from pipeline.detector import REASON, SCORE_COLUMNS, Detector
from pipeline.tables import Tables

SLICE = 16_384


@dataclass(frozen=True)
class ScoredBatch:
    """What scoring a batch came to."""

    n_records: int
    n_flagged: int
    threshold: Threshold


def anomaly_id(dataset: str, batch_id: str, record_key: str) -> str:
    """Sixteen hex digits that name a record for good: the same after re-scoring and under any model."""
    return hashlib.sha256(f"{dataset}\x1f{batch_id}\x1f{record_key}".encode()).hexdigest()[:16]


def score_batch(
    dataset: Dataset, batch_id: str, detector: Detector, model_version: int, tables: Tables, *, scratch: Path
) -> ScoredBatch:
    """Score a batch's accepted records and replace the batch in the `scores` table.

    Args:
        scratch: a folder of our own, removed on return.

    Raises:
        ModelUnusable: the model does not fit the records.
        StorageFailed: nothing was published.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    spool = scratch / "scores.arrow"
    try:
        anomaly_scores = _spool_scores(detector, tables, batch_id, spool)
        flagged, threshold = detector.calibration.flags(
            anomaly_scores, dataset.flag, detector.records_per_day
        )
        fixed = {
            "batch_id": pa.scalar(batch_id),
            "model_version": pa.scalar(model_version, pa.int32()),
            "threshold": pa.scalar(threshold.value, pa.float64()),
        }
        reasons = _flagged_rows(dataset, batch_id, detector, tables, spool, flagged)
        schema = _schema(tables)

        def rows() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(schema, _compose(schema, spool, flagged, reasons, fixed))

        tables.replace("scores", batch_id, rows, note={"model_version": str(model_version)})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return ScoredBatch(len(flagged), int(flagged.sum()), threshold)


def _spool_scores(detector: Detector, tables: Tables, batch_id: str, spool: Path) -> Any:
    """First pass: score everything into a local file; returns the anomaly scores, (n_records,) float32."""
    kept: list[Any] = [np.empty(0, np.float32)]
    schema = pa.schema([("row_number", pa.int64()), ("record_key", pa.string()), *SCORE_COLUMNS])
    with pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in _accepted(tables, batch_id, detector.features.columns):
            scores = detector.score_table(table)
            for column in ("record_key", "row_number"):
                scores = scores.add_column(0, column, table[f"vaewatch {column}"])
            writer.write_table(scores.select(schema.names).cast(schema))
            kept.append(scores["anomaly_score"].to_numpy())
    return np.concatenate(kept)


def _accepted(tables: Tables, batch_id: str, columns: list[str]) -> Iterator[pa.Table]:
    """The batch's accepted records in slices, with bounded read-ahead (the defaults hold four times the memory)."""
    projection = {f"vaewatch {name}": pc.field(name) for name in ("row_number", "record_key")}
    projection |= {name: pc.field("record", name) for name in columns}
    scanner = tables.dataset("records").scanner(
        columns=projection,
        filter=(pc.field("batch_id") == batch_id) & ~pc.field("set_aside"),
        batch_size=SLICE,
        batch_readahead=2,
        fragment_readahead=1,
    )
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _flagged_rows(
    dataset: Dataset, batch_id: str, detector: Detector, tables: Tables, spool: Path, flagged: Any
) -> pa.Table:
    """The flagged records with their reasons, by row_number."""
    with pa.memory_map(str(spool)) as source:
        row_numbers = pa.ipc.open_file(source).read_all().column("row_number").filter(pa.array(flagged))
        records = tables.dataset("records").to_table(
            columns=["row_number", "record_key", "record"],
            filter=(pc.field("batch_id") == batch_id)
            & ~pc.field("set_aside")
            & pc.field("row_number").isin(row_numbers.combine_chunks()),
        )
    flat = pa.Table.from_struct_array(records["record"].combine_chunks()) if records.num_rows else None
    found = detector.explain(flat, dataset) if flat is not None else []
    ids = [anomaly_id(dataset.dataset, batch_id, key) for key in records["record_key"].to_pylist()]
    return pa.table({
        "row_number": records["row_number"],
        "anomaly_id": pa.array(ids, pa.string()),
        "kl_share": pa.array([one.kl_share for one in found], pa.float32()),
        "reasons": pa.array([one.reasons for one in found], pa.list_(REASON)),
        "record": records["record"],
    })


def _schema(tables: Tables) -> pa.Schema:
    return pa.schema([
        ("batch_id", pa.string()),
        ("flagged", pa.bool_()),
        ("row_number", pa.int64()),
        ("record_key", pa.string()),
        *SCORE_COLUMNS,
        ("threshold", pa.float64()),
        ("model_version", pa.int32()),
        ("anomaly_id", pa.string()),
        ("kl_share", pa.float32()),
        ("reasons", pa.list_(REASON)),
        ("record", tables.dataset("records").schema.field("record").type),
    ])


def _compose(
    schema: pa.Schema, spool: Path, flagged: Any, reasons: pa.Table, fixed: dict[str, pa.Scalar]
) -> Iterator[pa.RecordBatch]:
    """Second pass: the scores with their flags; what only flagged records have is null elsewhere."""
    first = 0
    with pa.memory_map(str(spool)) as source:
        reader = pa.ipc.open_file(source)
        for i in range(reader.num_record_batches):
            scores = pa.Table.from_batches([reader.get_batch(i)])
            marks = pa.array(flagged[first : first + scores.num_rows])
            first += scores.num_rows
            for flag, mask in ((False, pc.invert(marks)), (True, marks)):
                chosen = scores.filter(mask)
                if chosen.num_rows:
                    yield from _complete(schema, chosen, flag, reasons, fixed).to_batches()


def _complete(
    schema: pa.Schema, scores: pa.Table, flag: bool, reasons: pa.Table, fixed: dict[str, pa.Scalar]
) -> pa.Table:
    n = scores.num_rows
    columns = {name: scores[name] for name in scores.column_names}
    columns |= {name: pa.repeat(value, n) for name, value in fixed.items()}
    columns["flagged"] = pa.repeat(flag, n)
    if flag:
        found = pc.index_in(scores["row_number"], value_set=reasons["row_number"].combine_chunks())
        columns |= {name: reasons[name].take(found) for name in reasons.column_names if name != "row_number"}
    columns |= {field.name: pa.nulls(n, field.type) for field in schema if field.name not in columns}
    return pa.table([columns[name] for name in schema.names], schema=schema)

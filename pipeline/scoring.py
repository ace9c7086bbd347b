"""Score one batch and publish it: every record's scores and the flagged records with their reasons, in one commit.

Belongs here: streaming a batch through a detector with bounded memory. Does not: the maths (detector.py,
calibration.py) or which model serves (registry/).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import derived, sql
from pipeline.calibration import BatchShift, Threshold
from pipeline.config import Dataset
from pipeline.detector import REASON, SCORE_COLUMNS, Detector
from pipeline.errors import ModelUnusable
from pipeline.ledger import BatchState
from pipeline.tables import Tables

SLICE = 16_384


@dataclass(frozen=True)
class ScoredBatch:
    """What scoring a batch came to."""

    n_records: int
    n_flagged: int
    threshold: Threshold
    shift: BatchShift


def anomaly_id(dataset: str, batch_id: str, record_key: str) -> str:
    """Sixteen hex digits that name a record for good: the same after re-scoring and under any model."""
    return hashlib.sha256(f"{dataset}\x1f{batch_id}\x1f{record_key}".encode()).hexdigest()[:16]


def score_batch(
    dataset: Dataset,
    state: BatchState,
    detector: Detector,
    model_version: int,
    tables: Tables,
    *,
    batches: Sequence[BatchState] = (),
    scratch: Path,
    threads: int = 1,
) -> ScoredBatch:
    """Score a batch's accepted records and replace the batch in the `scores` table.

    Args:
        batches: all that there are; derived columns look back into the earlier ones.
        scratch: a folder of our own, removed on return.

    Raises:
        ModelUnusable: the model does not fit the records.
        StorageFailed: nothing was published.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    spool, batch_id = scratch / "scores.arrow", state.batch_id
    source = _Source(dataset, state, tables, batches, detector.features.columns, scratch, threads)
    try:
        _check_derived(dataset, detector)
        anomaly_scores = _spool_scores(detector, source, spool)
        flagged, threshold = detector.calibration.flags(
            anomaly_scores, dataset.flag, detector.records_per_day
        )
        fixed = {
            "batch_id": pa.scalar(batch_id),
            "model_version": pa.scalar(model_version, pa.int32()),
            "threshold": pa.scalar(threshold.value, pa.float64()),
        }
        reasons = _flagged_rows(dataset, source, detector, spool, flagged)
        schema = scores_schema(tables.dataset("records").schema.field("record").type)

        def rows() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(schema, _compose(schema, spool, flagged, reasons, fixed))

        tables.replace("scores", batch_id, rows, note={"model_version": str(model_version)})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shift = detector.calibration.batch_shift(anomaly_scores)
    return ScoredBatch(len(flagged), int(flagged.sum()), threshold, shift)


def _check_derived(dataset: Dataset, detector: Detector) -> None:
    known = detector.about.get("derived", {})
    if known != derived.definitions(dataset):
        raise ModelUnusable(
            f"{dataset.dataset}: derived columns changed since the model was trained; train again (vaewatch train)"
        )


@dataclass(frozen=True)
class _Source:
    """The accepted records of one batch, as the model reads them."""

    dataset: Dataset
    state: BatchState
    tables: Tables
    batches: Sequence[BatchState]
    columns: list[str]
    scratch: Path
    threads: int

    def slices(self) -> Iterator[pa.Table]:
        """Slices of the records, in no particular order, with row_number and record_key as "vaewatch …" columns."""
        return self._with_derived() if self.dataset.derived else self._plain()

    def _plain(self) -> Iterator[pa.Table]:
        """With bounded read-ahead: the defaults hold four times the memory."""
        projection = {f"vaewatch {name}": pc.field(name) for name in ("row_number", "record_key")}
        projection |= {name: pc.field("record", name) for name in self.columns}
        scanner = self.tables.dataset("records").scanner(
            columns=projection,
            filter=(pc.field("batch_id") == self.state.batch_id) & ~pc.field("set_aside"),
            batch_size=SLICE,
            batch_readahead=2,
            fragment_readahead=1,
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                yield pa.Table.from_batches([batch])

    def _with_derived(self) -> Iterator[pa.Table]:
        batch_id = self.state.batch_id
        own = self.tables.files("records", [batch_id], flag=False)
        with sql.database(self.scratch, threads=self.threads, memory_gb=2.0) as connection:
            earlier, since = derived.look_back(connection, self.dataset, own, self.state, self.batches)
            files = self.tables.files("records", [batch_id, *earlier], flag=False)
            columns = ", ".join(map(sql.name, self.columns))
            query = f"""SELECT {derived.ROW} AS "vaewatch row_number", {derived.KEY} AS "vaewatch record_key", {columns}
                FROM ({derived.accepted(self.dataset, files, since=since)})
                WHERE {derived.BATCH} = {sql.text(batch_id)} ORDER BY 1"""
            for batch in connection.sql(query).to_arrow_reader(SLICE):
                yield pa.Table.from_batches([batch])

    def rows(self, row_numbers: pa.Array) -> tuple[pa.Table, pa.Table]:
        """Chosen records whole (row_number, record_key, record) and as the model reads them, in one order."""
        records = self.tables.dataset("records").to_table(
            columns=["row_number", "record_key", "record"],
            filter=(pc.field("batch_id") == self.state.batch_id)
            & ~pc.field("set_aside")
            & pc.field("row_number").isin(row_numbers),
        )
        if not self.dataset.derived or not records.num_rows:
            return records, pa.Table.from_struct_array(
                records["record"].combine_chunks()
            ) if records.num_rows else pa.table({})
        read = pa.concat_tables(
            part.filter(pc.is_in(part["vaewatch row_number"], value_set=row_numbers))
            for part in self.slices()
        )
        return records.sort_by("row_number"), read.sort_by("vaewatch row_number")


def _spool_scores(detector: Detector, source: _Source, spool: Path) -> Any:
    """First pass: score everything into a local file; returns the anomaly scores, (n_records,) float32."""
    kept: list[Any] = [np.empty(0, np.float32)]
    schema = pa.schema([("row_number", pa.int64()), ("record_key", pa.string()), *SCORE_COLUMNS])
    with pa.OSFile(str(spool), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in source.slices():
            scores = detector.score_table(table)
            for column in ("record_key", "row_number"):
                scores = scores.add_column(0, column, table[f"vaewatch {column}"])
            writer.write_table(scores.select(schema.names).cast(schema))
            kept.append(scores["anomaly_score"].to_numpy())
    return np.concatenate(kept)


def _flagged_rows(
    dataset: Dataset, source: _Source, detector: Detector, spool: Path, flagged: Any
) -> pa.Table:
    """The flagged records with their reasons, by row_number."""
    with pa.memory_map(str(spool)) as spooled:
        numbers = pa.ipc.open_file(spooled).read_all().column("row_number").filter(pa.array(flagged))
        records, flat = source.rows(numbers.combine_chunks())
    found = detector.explain(flat, dataset) if records.num_rows else []
    batch_id = source.state.batch_id
    ids = [anomaly_id(dataset.dataset, batch_id, key) for key in records["record_key"].to_pylist()]
    return pa.table({
        "row_number": records["row_number"],
        "anomaly_id": pa.array(ids, pa.string()),
        "kl_share": pa.array([one.kl_share for one in found], pa.float32()),
        "reasons": pa.array([one.reasons for one in found], pa.list_(REASON)),
        "record": records["record"],
    })


def scores_schema(record: pa.DataType) -> pa.Schema:
    """The columns of the `scores` table. record: the type of a record's original columns."""
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
        ("record", record),
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

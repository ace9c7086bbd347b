"""Score one batch and publish it in one commit: every record's scores, and reasons for the flagged ones.

Belongs here: streaming a batch through a detector with bounded memory. Reading, scoring and writing run at
the same time, slice by slice, and nothing is buffered on disk in between. Does not: the maths (detector.py,
calibration.py) or which model serves (registry/).
"""

from __future__ import annotations

import heapq
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.dataset import Dataset
from pipeline.detection.calibration import Threshold
from pipeline.detection.detector import SCORE_COLUMNS, Detector
from pipeline.detection.measures import MOST_HIGHEST, chosen
from pipeline.detection.reasons import REASON, TERM
from pipeline.errors import ModelUnusable
from pipeline.records.accepted import KEY, ROW, AcceptedRecords
from pipeline.records.looking_back import looked_back_on
from pipeline.records.verdicts import anomaly_id
from pipeline.storage.ahead import ahead
from pipeline.storage.ledger import BatchState
from pipeline.storage.table_files import Part
from pipeline.storage.tables import Tables

EXPLAINED_TOGETHER = 512  # flagged records


@dataclass(frozen=True)
class ScoredBatch:
    """What scoring a batch came to.

    Attributes:
        above: chance that one of its records scores above a normal one; one half is usual.
        sample: records chosen by detection.measures.chosen: the model's columns, anomaly_score and p_value.
        highest: its highest scores, each with the column that leads its reasons, or ""; highest first.
        looks_since, looked_back: what its derived columns saw of earlier batches, see ledger.BatchState.
    """

    n_records: int
    n_flagged: int
    threshold: Threshold
    above: float
    sample: pa.Table
    highest: tuple[tuple[float, str], ...] = ()
    looks_since: datetime | None = None
    looked_back: str | None = None


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
    source = AcceptedRecords(dataset, state, tables, batches, detector.features.columns, scratch, threads)
    try:
        check_derived(dataset, detector)
        done = _Publication(dataset, source, detector, model_version, _cut(dataset, detector, source))
        # scoring goes on while rows are written
        parts = ahead(done.parts(), 2)
        note = {"model_version": str(model_version)}
        tables.replace_parted("scores", state.batch_id, done.schema, parts, note=note)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    above = done.above / done.n_records
    return ScoredBatch(
        done.n_records,
        done.n_flagged,
        done.cut.threshold,
        above,
        pa.concat_tables(done.sampled),
        tuple(done.highest),
        source.looks_since,
        looked_back_on(source.looks_at) if source.looks_since else None,
    )


def check_derived(dataset: Dataset, detector: Detector) -> None:
    """Refuse a model that learned other derived columns than today's.

    Raises:
        ModelUnusable: their definitions have changed.
    """
    if changed := detector.other_derived(dataset):
        raise ModelUnusable(
            f"{dataset.name}: derived columns changed since the model was trained ({', '.join(changed)}); train again "
            f"(vaewatch train {dataset.name})"
        )


def _scored(source: AcceptedRecords, detector: Detector) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield each slice and its scores, one slice at a time for each thread.

    At most one read slice waits for each that is being scored.
    """

    def work(part: pa.Table) -> tuple[pa.Table, pa.Table]:
        return part, detector.score_table(part, threads=1)

    under_way: deque[Future[tuple[pa.Table, pa.Table]]] = deque()
    try:
        for part in source.slices():
            under_way.append(_pool(source.threads).submit(work, part))
            if len(under_way) > 2 * source.threads:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        wait([future for future in under_way if not future.cancel()])


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads that do all that torch does.

    They are kept: what new ones allocate for each batch of a sweep is never given back.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix="vaewatch-score")


@dataclass(frozen=True)
class _Cut:
    """The lowest score that is flagged, and the threshold behind it."""

    threshold: Threshold
    lowest: np.float32


def _cut(dataset: Dataset, detector: Detector, source: AcceptedRecords) -> _Cut:
    """Find the lowest flagged score.

    A false-discovery rate and a cap look at all of a batch's scores, which costs a pass of its own.
    """
    flag, calibration, per_day = dataset.flag, detector.calibration, detector.records_per_day
    if flag.false_discovery_rate is None and flag.cap is None:
        threshold = calibration.threshold(flag, per_day)
        return _Cut(threshold, np.nextafter(np.float32(threshold.value), np.float32(np.inf)))
    scores = [found["anomaly_score"].to_numpy() for _, found in _scored(source, detector)]
    anomaly_scores = np.concatenate([np.empty(0, np.float32), *scores])
    flagged, threshold = calibration.flags(anomaly_scores, flag, per_day)
    return _Cut(threshold, np.min(anomaly_scores, where=flagged, initial=np.inf))


def scores_schema(record: pa.DataType) -> pa.Schema:
    """Return the columns of the `scores` table. record: the type of a record's original columns."""
    return pa.schema([
        ("batch_id", pa.string()),
        ("flagged", pa.bool_()),
        ("row_number", pa.int64()),
        ("record_key", pa.string()),
        *SCORE_COLUMNS,
        ("threshold", pa.float64()),
        ("model_version", pa.int32()),
        ("kl_weight", pa.float32()),
        ("anomaly_id", pa.string()),
        ("kl_share", pa.float32()),
        ("reasons", pa.list_(REASON)),
        ("terms", pa.list_(TERM)),
        ("record", record),
    ])


class _Publication:
    """A batch's rows for the `scores` table, scored while they are written.

    Flagged rows follow with their reasons. n_records, n_flagged, sampled, highest: so far. above: sum over
    the records of the chance to be above a normal one.
    """

    def __init__(
        self, dataset: Dataset, source: AcceptedRecords, detector: Detector, model_version: int, cut: _Cut
    ) -> None:
        self.dataset, self.source, self.detector, self.cut = dataset, source, detector, cut
        self.batch_id = source.state.batch_id
        self.schema = scores_schema(source.record_type)
        self.fixed = {
            "model_version": pa.scalar(model_version, pa.int32()),
            "threshold": pa.scalar(cut.threshold.value, pa.float64()),
            "kl_weight": pa.scalar(detector.kl_weight, pa.float32()),
        }
        self.n_records, self.n_flagged, self.above = 0, 0, 0.0
        self.sampled: list[pa.Table] = []
        self.highest: list[tuple[float, str]] = []

    def parts(self) -> Iterator[Part]:
        """Yield the rows, in no particular order, unflagged and flagged ones apart."""
        flagged: list[tuple[pa.Table, pa.Table]] = []
        n_waiting = 0
        for part, scores in _scored(self.source, self.detector):
            marks = self._count(scores)
            self._sample(part, scores)
            if marks.any():
                mask = pa.array(marks)
                flagged.append((part.filter(mask), scores.filter(mask)))
                n_waiting += flagged[-1][0].num_rows
                part, scores = (x.filter(pc.invert(mask)) for x in (part, scores))
            if part.num_rows:
                self._rank(scores)
                yield False, self._completed(part, scores)
            if n_waiting >= EXPLAINED_TOGETHER:
                yield True, self._explained(flagged)
                flagged, n_waiting = [], 0
        if flagged:
            yield True, self._explained(flagged)

    def _count(self, scores: pa.Table) -> Any:
        """Add a slice to the sums. Returns which records are flagged, (n_records,) bool."""
        values = scores["anomaly_score"].to_numpy()
        marks = values >= self.cut.lowest
        self.n_records += len(values)
        self.n_flagged += int(marks.sum())
        above = self.detector.calibration.share_above(values, scores["p_value"].to_numpy())
        self.above += above * len(values)
        return marks

    def _rank(self, scores: pa.Table, leading: Sequence[str] = ()) -> None:
        """Keep the highest scores so far. leading: the column that leads each one's reasons, where known."""
        values = scores["anomaly_score"].to_numpy()
        if not leading and len(values) > MOST_HIGHEST:
            values = np.partition(values, -MOST_HIGHEST)[-MOST_HIGHEST:]
        these = zip(values.tolist(), leading or [""] * len(values), strict=True)
        self.highest = heapq.nlargest(MOST_HIGHEST, [*self.highest, *these])

    def _sample(self, part: pa.Table, scores: pa.Table) -> None:
        mask = chosen(part[ROW].to_numpy(), self.source.state.n_accepted)
        kept = part.select(self.source.columns)
        for name in ("anomaly_score", "p_value"):
            kept = kept.append_column(name, scores[name])
        self.sampled.append(kept if mask.all() else kept.filter(pa.array(mask)))

    def _explained(self, flagged: list[tuple[pa.Table, pa.Table]]) -> pa.RecordBatch:
        part, scores = (pa.concat_tables(tables).combine_chunks() for tables in zip(*flagged, strict=True))
        columns = part.select(self.source.columns)
        found = _pool(self.source.threads).submit(self.detector.explain, columns, self.dataset).result()
        self._rank(scores, [one.reasons[0]["column"] if one.reasons else "" for one in found])
        ids = [anomaly_id(self.dataset.name, self.batch_id, key) for key in part[KEY].to_pylist()]
        return self._completed(
            part,
            scores,
            anomaly_id=pa.array(ids, pa.string()),
            kl_share=pa.array([one.kl_share for one in found], pa.float32()),
            reasons=pa.array([one.reasons for one in found], pa.list_(REASON)),
            terms=pa.array([one.terms for one in found], pa.list_(TERM)),
            record=self.source.whole(part),
        )

    def _completed(self, part: pa.Table, scores: pa.Table, **more: Any) -> pa.RecordBatch:
        """Add the table's other columns, except those that only flagged records have."""
        columns = {name: pa.repeat(value, part.num_rows) for name, value in self.fixed.items()}
        columns |= {name: scores[name] for name in scores.column_names} | more
        columns |= {"row_number": part[ROW], "record_key": part[KEY]}
        fields = [field for field in self.schema if field.name in columns]
        table = pa.table([columns[field.name] for field in fields], schema=pa.schema(fields))
        return table.combine_chunks().to_batches()[0]

"""One record against others and against itself as it might have been: nearest normal records, smallest
change.

Belongs here: what needs a batch's records or the model, and is looked up when somebody asks. Does not: what
the queue knows by itself (record.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import numerals
from pipeline.config import derived
from pipeline.config.dataset import Dataset
from pipeline.detection.values import describe
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.records.verdicts import name_of
from pipeline.review import cells
from pipeline.review.answers import known
from pipeline.review.filling import plain
from pipeline.review.queued import OTHER, Reason, Whole
from pipeline.review.versions import loaded, stored

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.registry import ModelVersion

MOST_READ = 20_000  # records compared
MOST_TOLD = 6  # columns that differ
MOST_CHANGED = 20  # columns changed together to clear a flag
LONGEST = 10  # seconds after which no further column is tried
STEPS = 33  # values tried on the way from the observed to the expected one


@dataclass(frozen=True)
class Near:
    """A record of the same batch that was not flagged.

    Its distance is the mean over columns of a difference in ranks, or of being another category.
    """

    batch_id: str
    row_number: int
    record_key: str
    record: dict[str, Any]
    distance: Annotated[float, Field(description="Gower's: 0, alike in every column, to 1")]
    differs: Annotated[
        tuple[str, ...], Field(description="columns in which it differs most, the most telling first")
    ]

    @property
    def name(self) -> str:
        """What people know it by, see `name_of`."""
        return name_of(self.record_key, self.batch_id, self.row_number)


def nearest(here: Installation, dataset: Dataset, row: Whole, *, n: int = 3) -> list[Near]:
    """Return the unflagged records of a record's batch that are most like it, the nearest first.

    The batch's first `MOST_READ` records are compared, by the file's own columns: derived ones are not
    stored, those that they are computed from are.

    Raises:
        NotReady: the record is no longer stored as it was scored; or its batch was delivered again and is not
            scored yet, so that nobody knows which records are flagged.
    """
    modelled = dataset.columns_with("numeric", "categorical", "context")
    own = [name for name in modelled if name in dataset.columns]
    names = tuple(dict.fromkeys([*own, *dataset.sources(dataset.derived)]))
    return known(here, "nearest", row, n, names, answer=lambda: _nearest(here, dataset, row, names, n))


def _nearest(here: Installation, dataset: Dataset, row: Whole, names: Sequence[str], n: int) -> list[Near]:
    batch_id, number = row.batch_id, row.row_number
    cells.check_stored(here, dataset, row)
    state = here.ledger.newest(dataset.name, batch_id)
    if state is None or state.scored_at is None:
        raise NotReady(f"{dataset.name} {batch_id}: it was delivered again, and is not scored yet")
    table = cells.read(here, dataset, [batch_id], names, most=MOST_READ) if names else None
    this = cells.read(here, dataset, [batch_id], names, only={batch_id: [number]})
    if table is None or not this:
        return []
    flagged = here.tables(dataset).read("scores", batch_id=batch_id, flag=True, columns=["row_number"])
    left_out = pa.array([*flagged["row_number"].to_pylist(), number], pa.int64())
    table = table.filter(pc.invert(pc.is_in(table["row_number"], value_set=left_out)))
    if not table.num_rows:
        return []
    apart = np.stack([
        _apart(table[f"{i}"], this[f"{i}"], is_quantity=dataset.columns[name].is_quantity)
        for i, name in enumerate(names)
    ])  # (columns, records)
    distance = apart.mean(axis=0)
    chosen = np.argsort(distance, kind="stable")[:n]
    at = dict(zip(table["row_number"].take(pa.array(chosen)).to_pylist(), chosen.tolist(), strict=True))
    whole = cells.whole(here, dataset, [(batch_id, number) for number in at])
    return [
        _near(names, apart[:, at[place[1]]], place, key, plain(record))
        for place, (key, record) in whole.items()
    ]


def _near(names: Sequence[str], apart: Any, place: tuple[str, int], key: str, record: dict[str, Any]) -> Near:
    """Return one of the nearest records.

    Args:
        apart: how far each column is from one's own. (columns,)
    """
    differs = tuple(names[i] for i in np.argsort(-apart) if apart[i] > 0)[:MOST_TOLD]
    return Near(*place, key, record, float(apart.mean()), differs)


def _apart(values: Any, own: Any, *, is_quantity: bool) -> Any:
    """Return how far each value is from one's own, 0 to 1. (n,)"""
    if pa.types.is_timestamp(values.type):
        values, own, is_quantity = pc.cast(values, pa.int64()), pc.cast(own, pa.int64()), True
    if not is_quantity:
        texts, mine = pc.cast(values, pa.string()).to_pylist(), pc.cast(own, pa.string()).to_pylist()[0]
        return np.array([float(text != mine) for text in texts])
    numbers = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
    mine = own.to_pylist()[0]
    if mine is None:
        return np.isfinite(numbers).astype(float)
    known = np.sort(np.append(numbers[np.isfinite(numbers)], float(mine)))
    ranks = np.searchsorted(known, numbers) / len(known)
    return np.where(
        np.isfinite(numbers), np.abs(ranks - np.searchsorted(known, float(mine)) / len(known)), 1.0
    )


@dataclass(frozen=True)
class Change:
    """A column of a record, as it was and as it would have to be."""

    column: str
    observed: str
    needed: str


@dataclass(frozen=True)
class Clearing:
    """The smallest change that was found after which a record would not have been flagged: along its reasons
    first, then along whatever is most at odds with what was changed already.
    """

    changes: Annotated[tuple[Change, ...], Field(description="all of them together; empty: see why_not")]
    score: Annotated[float | None, Field(description="with the changes, nats")]
    why_not: Annotated[str, Field(description="where there is no such change, or nothing can be said")]


def clearing(here: Installation, dataset: Dataset, row: Whole) -> Clearing:
    """Find what would have to be different for a flag to go.

    The reasons' columns move, one after another, towards what was expected; then those that surprise the
    model most in the record as changed so far. At most MOST_CHANGED columns change, and none is begun after
    LONGEST seconds.

    Raises:
        NotReady: the record is no longer stored as it was scored.
        RegistryUnreachable, ModelUnusable: the model version that flagged it cannot be read.
    """
    if row.kind != "flagged":
        return Clearing((), None, "it is not flagged")
    version = next((v for v in here.registry.versions(dataset.name) if v.version == row.model_version), None)
    if version is None:
        return Clearing((), None, f"model version {row.model_version} is no longer in the registry")
    made = json.dumps([derived.definitions(dataset), list(dataset.columns)])
    return known(
        here, "clearing", row, version.run_id, made, answer=lambda: _clearing(here, dataset, row, version)
    )


def _clearing(here: Installation, dataset: Dataset, row: Whole, version: ModelVersion) -> Clearing:
    detector = loaded(here.model(version))
    if detector.about.get("derived", {}) != derived.definitions(dataset):
        return Clearing((), None, "its derived columns are defined differently now")
    needs = [*detector.features.columns, *(reason.column for reason in row.reasons)]
    if gone := [name for name in needs if name not in dataset.with_derived]:
        return Clearing((), None, f"column {gone[0]!r} is not in the dataset's file any more")
    way, began = _Way(detector, dataset, stored(here, dataset, row), row.anomaly_score), time.monotonic()
    asks: tuple[Callable[[], Sequence[Reason]], ...] = (lambda: row.reasons, way.others)
    for ask in asks:
        for reason in ask():
            if len(way.changed) == MOST_CHANGED or time.monotonic() - began >= LONGEST:
                break
            if way.goes_below(row.threshold, reason):
                return Clearing(tuple(way.changed), way.score, "")
    return Clearing((), None, _not_found(len(way.changed), way.score, time.monotonic() - began))


@dataclass
class _Way:
    """A record on its way below a threshold, with what was changed in it so far."""

    detector: Detector
    dataset: Dataset
    record: pa.Table
    score: float
    changed: list[Change] = field(default_factory=list)

    def goes_below(self, threshold: float, reason: Reason) -> bool:
        """Change one more column, no further than is needed; return whether that suffices."""
        # what a derived column is computed from cannot change alone
        left_out = {*self.dataset.sources(self.dataset.derived), *(one.column for one in self.changed)}
        tried = None if reason.column in left_out else _on_the_way(self.record, reason, self.dataset)
        if tried is None:
            return False
        scores = self.detector.score_table(tried)["anomaly_score"].to_numpy()
        below = np.flatnonzero(scores < threshold)
        at = int(below[0]) if len(below) else tried.num_rows - 1
        self.record, self.score = tried.slice(at, 1), float(scores[at])
        (value,) = self.record[reason.column].to_pylist()
        needed = describe(value, self.dataset.with_derived[reason.column])
        self.changed.append(Change(reason.column, reason.observed, needed))
        return bool(len(below))

    def others(self) -> list[Reason]:
        """Return what surprises the model in the record as it is now, the most telling first."""
        (found,) = self.detector.explain(self.record, self.dataset, every=True)
        return [Reason(**one) for one in found.reasons]


def _not_found(n: int, score: float, seconds: float) -> str:
    ends = {
        n >= MOST_CHANGED: "; more are not tried",
        seconds >= LONGEST: f"; no more were begun after {LONGEST} seconds",
    }
    end = ends.get(True, "")
    if not n:
        return f"none of its columns could be changed alone to what was expected{end}"
    what = "column" if n == 1 else "columns"
    return f"not found: with {n} {what} as expected the score is still {numerals.number(score)} nats, not below the threshold{end}"


def _on_the_way(record: pa.Table, reason: Reason, dataset: Dataset) -> pa.Table | None:
    """Return the record with one column in steps from observed to expected; None where it cannot move."""
    name = reason.column
    if name not in record.schema.names:  # it was stored before the dataset's file had it
        return None
    field = record.schema.field(name)
    if dataset.with_derived[name].is_quantity:
        observed = record[name].to_pylist()[0]
        end = float(reason.expected)
        start = end if observed is None else float(observed)
        values: list[Any] = np.linspace(start, end, STEPS)[1:].tolist()
        if pa.types.is_integer(field.type):
            values = [round(value) for value in values]
        filled = pc.cast(pa.array(values), field.type, safe=False)
    else:
        likely = reason.expected.rpartition(" (")[0]
        if likely == OTHER:
            return None
        try:
            filled = pc.cast(pa.array([None if likely == "missing" else likely], pa.string()), field.type)
        except pa.ArrowException:
            return None
    table = pa.concat_tables([record] * len(filled))
    return table.set_column(table.schema.get_field_index(name), field, filled)

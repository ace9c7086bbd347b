"""One record against others, and against itself as it might have been: nearest normal records, smallest change.

Belongs here: what needs a batch's records or the model, and is looked up when somebody asks. Does not: what the queue
knows by itself (record.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Dataset
from pipeline.installation import Installation
from pipeline.review.filling import plain
from pipeline.review.versions import loaded, stored

MOST_READ = 20_000  # records that are compared
STEPS = 33  # values tried on the way from what was observed to what was expected


@dataclass(frozen=True)
class Near:
    """A record that was not flagged, and how like the one asked about it is.

    Attributes:
        distance: Gower's: the mean over columns of a difference in ranks, or of being another category; 0 to 1.
        differs: columns in which it differs most, the most telling first.
    """

    record_key: str
    record: dict[str, Any]
    distance: float
    differs: tuple[str, ...]


def nearest(here: Installation, dataset: Dataset, row: dict[str, Any], *, n: int = 3) -> list[Near]:
    """The unflagged records of a record's batch that are most like it, the nearest first."""
    tables = here.tables(dataset)
    names = [
        name for name in dataset.columns_with("numeric", "categorical", "context") if name in dataset.columns
    ]
    if not names or not tables.exists("records"):
        return []
    columns = {f"{i}": pc.field("record", name) for i, name in enumerate(names)} | {
        "row": pc.field("row_number")
    }
    accepted = tables.dataset("records", [row["batch_id"]], flag=False)
    table = accepted.scanner(columns=columns).head(MOST_READ)
    this = accepted.to_table(columns=columns, filter=pc.field("row_number") == row["row_number"])
    flagged = tables.read("scores", batch_id=row["batch_id"], flag=True, columns=["row_number"])["row_number"]
    table = table.filter(pc.invert(pc.is_in(table["row"], value_set=flagged.combine_chunks())))
    if not this.num_rows or not table.num_rows:
        return []
    apart = np.stack([
        _apart(table[f"{i}"], this[f"{i}"], is_number=dataset.columns[name].is_number)
        for i, name in enumerate(names)
    ])  # (columns, records)
    distance = apart.mean(axis=0)
    chosen = np.argsort(distance, kind="stable")[:n]
    whole = _whole(here, dataset, row["batch_id"], table["row"].take(pa.array(chosen)).to_pylist())
    return [
        Near(
            key,
            record,
            float(distance[at]),
            tuple(names[i] for i in np.argsort(-apart[:, at]) if apart[i, at] > 0)[:6],
        )
        for at, (key, record) in zip(chosen, whole, strict=True)
    ]


def _apart(values: Any, own: Any, *, is_number: bool) -> Any:
    """How far each value is from one's own, 0 to 1. (n,)"""
    if pa.types.is_timestamp(values.type):
        values, own, is_number = pc.cast(values, pa.int64()), pc.cast(own, pa.int64()), True
    if not is_number:
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


def _whole(
    here: Installation, dataset: Dataset, batch_id: str, numbers: Sequence[int]
) -> list[tuple[str, dict[str, Any]]]:
    found = (
        here
        .tables(dataset)
        .dataset("records", [batch_id], flag=False)
        .to_table(columns=["row_number", "record_key", "record"], filter=pc.field("row_number").isin(numbers))
    )
    rows = {one["row_number"]: (one["record_key"], plain(one["record"])) for one in found.to_pylist()}
    return [rows[number] for number in numbers]


@dataclass(frozen=True)
class Clearing:
    """The smallest change along the reasons after which a record would not be flagged.

    Attributes:
        changes: (column, observed, what it would have to be); empty where no such change was found.
        score: with the changes, nats.
        why_not: in words, where nothing can be said.
    """

    changes: tuple[tuple[str, str, str], ...]
    score: float
    why_not: str = ""


def clearing(here: Installation, dataset: Dataset, row: dict[str, Any]) -> Clearing:
    """What would have to be otherwise for a flag to go: the reasons' columns, one after another, on the way to what was expected.

    Args:
        row: as `record.one` gives it.

    Raises:
        NotReady: the record is no longer stored as it was scored.
        RegistryUnreachable, ModelUnusable: the model version that flagged it cannot be read.
    """
    if dataset.derived:
        return Clearing(
            (),
            0.0,
            "derived columns look back at earlier records: a change of one value is not the whole change",
        )
    version = next(
        (v for v in here.registry.versions(dataset.dataset) if v.version == row["model_version"]), None
    )
    if version is None:
        return Clearing((), 0.0, f"model version {row['model_version']} is no longer in the registry")
    detector = loaded(here.registry.fetch(version, here.settings.home / "models"))
    record = stored(here, dataset, row)
    changed: list[tuple[str, str, str]] = []
    for reason in row["reasons"]:
        tried = _on_the_way(record, reason, dataset)
        if tried is None:
            continue
        scores = detector.score_table(tried)["anomaly_score"].to_numpy()
        below = np.flatnonzero(scores < row["threshold"])
        at = int(below[0]) if len(below) else tried.num_rows - 1
        record = tried.slice(at, 1)
        value = record[reason["column"]].to_pylist()[0]
        changed.append((
            reason["column"],
            reason["observed"],
            f"{value:.6g}" if isinstance(value, float) else str(value),
        ))
        if len(below):
            return Clearing(tuple(changed), float(scores[at]))
    return Clearing((), 0.0, "no change of the columns named brings the score below the threshold")


def _on_the_way(record: pa.Table, reason: dict[str, Any], dataset: Dataset) -> pa.Table | None:
    """The record with one column going, in steps, from what was observed to what was expected; None where it cannot."""
    name, field = reason["column"], record.schema.field(reason["column"])
    if dataset.columns[name].is_number:
        observed = record[name].to_pylist()[0]
        end = float(reason["expected"])
        start = end if observed is None else float(observed)
        values: list[Any] = np.linspace(start, end, STEPS)[1:].tolist()
        if pa.types.is_integer(field.type):
            values = [round(value) for value in values]
        filled = pc.cast(pa.array(values), field.type, safe=False)
    else:
        likely = reason["expected"].rpartition(" (")[0]
        if likely == "(other)":
            return None
        try:
            filled = pc.cast(pa.array([None if likely == "missing" else likely], pa.string()), field.type)
        except pa.ArrowException:
            return None
    table = pa.concat_tables([record] * len(filled))
    return table.set_column(table.schema.get_field_index(name), field, filled)

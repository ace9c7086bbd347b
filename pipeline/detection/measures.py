"""Numbers of one batch, from a sample of its scored records: how far each column is from training.

Belongs here: arithmetic; the effect of chance is subtracted, so that small batches and large ones compare.
Does not: what is usual and what is too much (monitoring/judgement.py).

Jensen–Shannon divergence: Lin (1991). For two samples of one distribution, n and m records, 8 ln 2 · nm / (n
+ m) times the divergence in bits is χ² distributed, with one degree of freedom less than there are bins
(Menéndez et al. 1997). Wasserstein's distance on the line is the area between the two distribution functions.
scipy.special has the terms; scipy.stats would cost a second at every start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detection.reference import (
    Array,
    CategoryShape,
    NumberShape,
    Reference,
    correlations,
    not_among,
)
from pipeline.detection.values import floats

if TYPE_CHECKING:
    from pipeline.detection.features import Features

MOST_SAMPLED = 20_000  # records of a batch: chance is then 0.0003 bits a column, a twentieth of a finding
# 2^64 over the golden ratio: its multiples are spread evenly (Knuth's multiplicative hashing)
SPREAD = 11_400_714_819_323_198_485
TAIL = 0.01  # the smallest p-values: one record in a hundred if nothing has changed
NAMED = 3  # new categories reported by name
MOST_HIGHEST = 50  # scores of a batch that are kept
LONGEST = 80  # characters of a category that are kept
EXTENT = (0.005, 0.5, 0.995)  # quantiles: 99 % of the values lie between the outer two
CHANCE = 1e-4  # how often chance alone may exceed the noise, a column and a measure


@dataclass(frozen=True)
class ColumnDrift:
    """One column of a batch against training.

    Attributes:
        divergence: Jensen–Shannon, bits in [0, 1], of the values present; the average effect of chance is
            subtracted.
        noise: the divergence that chance alone exceeds once in ten thousand columns.
        psi: population stability index; empty bins count as half a record.
        shift: Wasserstein distance in standard deviations of training; None for a category.
        missing: share of records without a value. usual_missing: in training.
        new: share of values that training did not have or had too seldom to learn; None for a number.
            usual_new: in training, where such values are rare ones. new_values: the most frequent of them.
        correlation: largest change of Pearson's r with another column; None for a category. other: that
            column.
        r, usual_r: with that column, in the batch and in training.
        counts, usual: values in each bin, in the batch and in training.
        bins: of a number the edges between bins, of a category the values (the last bin holds the others).
        low, median, high: of a number's values in the batch, 99 % of which lie from low to high; a histogram
            does not say where in its outermost bins they are. None for a category, and where no value is.
    """

    divergence: float
    noise: float
    psi: float
    shift: float | None
    missing: float
    usual_missing: float
    new: float | None
    new_values: tuple[str, ...] = ()
    usual_new: float = 0.0
    correlation: float | None = None
    other: str = ""
    r: float | None = None
    usual_r: float | None = None
    counts: tuple[int, ...] = ()
    usual: tuple[int, ...] = ()
    bins: tuple[float, ...] | tuple[str, ...] = ()
    low: float | None = None
    median: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Measures:
    """One batch in numbers; None where something cannot be known.

    Attributes:
        n_records: scored. n_sampled: how many of them the columns were measured on.
        n_flagged, expected_flagged: flagged, and as many as normal records would give.
        above: chance that a record scores above a normal one of training; one half is usual.
        tail: share of sampled records with a p-value of 0.01 or less.
        n_read, n_set_aside: in the delivery, and set aside by the contract.
        champion_days: since the model was trained. backlog: flagged records that had then waited for a person
            for more than a day.
        highest: its highest scores, nats, the highest first. highest_by: the column that leads each one's
            reasons; empty for a record that is not flagged, or odd in no single column.
        normal: of the records that calibrated the version, the median score and the one that a record in a
            hundred exceeds; None where both are equal, and in measures from before this was recorded.
        n_earlier: batches it was compared with; None in measures from before this was recorded.
        learned: the model that scored it was also trained on it.
        is_newest: no batch of a later day was there when it was scored.
        columns: drift by column; empty for a detector without a reference.
    """

    n_records: int
    n_sampled: int
    n_flagged: int
    expected_flagged: float
    above: float | None
    tail: float | None
    n_read: int
    n_set_aside: int
    champion_days: float | None = None
    backlog: int | None = None
    n_earlier: int | None = None
    learned: bool = False
    is_newest: bool = True
    highest: tuple[float, ...] = ()
    highest_by: tuple[str, ...] = ()
    normal: tuple[float, float] | None = None
    columns: Mapping[str, ColumnDrift] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        columns = {name: _drift_from(column) for name, column in state["columns"].items()}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items()}
        return cls(**{**fields, "columns": columns})

    def reach(self, rank: int) -> float | None:
        """Return how far the rank-th highest score is from normal records' median; the first has rank 1.

        In the distance of the score that one normal record in a hundred exceeds: so versions compare whose
        scores differ in level and scale. None where it is not on record.
        """
        if self.normal is None or len(self.highest) < rank:
            return None
        middle, rare = self.normal
        return (self.highest[rank - 1] - middle) / (rare - middle)


def _drift_from(state: Mapping[str, Any]) -> ColumnDrift:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in state.items()}
    return ColumnDrift(**fields)


def chosen(row_numbers: Array, n_records: int) -> Array:
    """Return which of a batch's records are sampled. (n,) bool

    By their row numbers alone: the same ones however a batch is split.

    n_records: of the batch; up to MOST_SAMPLED, all of them are chosen.
    """
    share = min(1.0, MOST_SAMPLED / max(1, n_records))
    place = row_numbers.astype(np.uint64) * np.uint64(SPREAD)
    return np.asarray((place >> np.uint64(11)) < np.uint64(share * 2**53))


def column_drift(reference: Reference, features: Features, sample: pa.Table) -> dict[str, ColumnDrift]:
    """Compare every watched column of a sample of a batch's records with training."""
    known = {**features.categorical, **features.context_categorical}
    together = _correlation_shift(reference, features, sample)
    found = {}
    for name, shape in reference.shapes.items():
        counts, n_missing = shape.count(sample[name])
        usual = np.asarray(shape.counts)
        divergence, noise = _divergence(counts, usual)
        new, names = _unknown(sample[name], known[name]) if name in known else (None, ())
        found[name] = ColumnDrift(
            divergence=divergence,
            noise=noise,
            psi=_psi(counts, usual),
            shift=_shift(shape, counts) if isinstance(shape, NumberShape) else None,
            missing=n_missing / max(1, len(sample)),
            usual_missing=shape.n_missing / max(1, reference.n_records),
            new=new,
            new_values=names,
            usual_new=shape.n_rare / max(1, sum(shape.counts)) if isinstance(shape, CategoryShape) else 0.0,
            counts=tuple(counts.tolist()),
            usual=shape.counts,
            bins=shape.edges
            if isinstance(shape, NumberShape)
            else tuple(value[:LONGEST] for value in shape.values),
            **(_extent(sample[name]) if isinstance(shape, NumberShape) else {}),
            **together.get(name, {}),
        )
    return found


def _extent(column: pa.ChunkedArray) -> dict[str, Any]:
    """Return what a histogram cannot tell of a number; the sample bounds the work."""
    values = floats(column)
    seen = values[np.isfinite(values)]
    if not len(seen):
        return {}
    low, median, high = (float(x) for x in np.quantile(seen, EXTENT, method="nearest"))
    return {"low": low, "median": median, "high": high}


def _divergence(counts: Array, usual: Array) -> tuple[float, float]:
    """Return the divergence beyond chance's average, and what chance may add to that; both in bits."""
    from scipy.special import chdtri

    n, m = int(counts.sum()), int(usual.sum())
    n_bins = int(((counts > 0) | (usual > 0)).sum())
    if not n or not m or n_bins < 2:
        return 0.0, 0.0
    unit = (1 / n + 1 / m) / (8 * math.log(2))
    average = unit * (n_bins - 1)
    found = jensen_shannon(counts / n, usual / m)
    return max(0.0, found - average), unit * float(chdtri(n_bins - 1, CHANCE)) - average


def _shift(shape: NumberShape, counts: Array) -> float:
    usual = np.asarray(shape.counts)
    if not counts.sum() or not usual.sum():
        return 0.0
    return wasserstein(np.asarray(shape.centres), counts / counts.sum(), usual / usual.sum())


def jensen_shannon(p: Array, q: Array) -> float:
    """Return the divergence of two distributions over the same bins, bits in [0, 1]."""
    from scipy.special import rel_entr

    middle = (p + q) / 2
    return float(rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / (2 * math.log(2))


def wasserstein(places: Array, p: Array, q: Array) -> float:
    """Return the distance of two distributions over the same ascending places, in their unit."""
    return float(np.abs(np.cumsum(p - q)[:-1]) @ np.diff(places))


def _psi(counts: Array, usual: Array) -> float:
    n, m = int(counts.sum()), int(usual.sum())
    there = (counts > 0) | (usual > 0)
    if not n or not m:
        return 0.0
    now, before = (np.maximum(x[there], 0.5) / total for x, total in ((counts, n), (usual, m)))
    return float(((now - before) * np.log(now / before)).sum())


def _unknown(column: pa.ChunkedArray, known: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
    new = not_among(known, column)
    if not len(new):
        return 0.0, ()
    counted = pc.value_counts(new.combine_chunks()).to_pylist()
    counted.sort(key=lambda entry: (-entry["counts"], entry["values"]))
    return len(new) / (len(column) - column.null_count), tuple(
        entry["values"][:LONGEST] for entry in counted[:NAMED]
    )


def _correlation_shift(
    reference: Reference, features: Features, sample: pa.Table
) -> dict[str, dict[str, Any]]:
    """Return by column the pair that changed most beyond chance.

    Chance reaches 4.5 standard errors of Fisher's z.
    """
    names = reference.correlated
    if len(names) < 2:
        return {}
    usual = np.zeros((len(names), len(names)))
    usual[np.tril_indices(len(names), -1)] = reference.correlations
    usual += usual.T
    now, n = correlations(features, names, sample)
    edge = 1 - 1e-6
    apart = np.abs(np.arctanh(now.clip(-edge, edge)) - np.arctanh(usual.clip(-edge, edge)))
    noise = 4.5 / np.sqrt(np.maximum(n - 3, 1))
    change = np.where((apart > noise) & (n > 30), np.abs(now - usual), 0.0)
    np.fill_diagonal(change, 0.0)
    most = change.argmax(axis=1)
    return {
        name: {
            "correlation": float(change[i, most[i]]),
            "other": names[most[i]] if change[i, most[i]] else "",
            "r": float(now[i, most[i]]),
            "usual_r": float(usual[i, most[i]]),
        }
        for i, name in enumerate(names)
    }

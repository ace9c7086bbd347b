"""How each modelled column was distributed in training, saved with the detector as plain JSON.

Belongs here: what drift is measured against: histograms and correlations of bounded size, and counting other
records into the same bins. Does not: how far two histograms are apart (measures.py), or what the model makes
of a value (features.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detection.values import as_text, floats

if TYPE_CHECKING:  # they import torch, which reading a histogram does not need
    from pipeline.detection.features import Features
    from pipeline.detection.numbers import Number

N_BINS = 20
MOST_VALUES = 30  # categories counted one by one; the others share a bin
MOST_CORRELATED = 40  # numeric columns; beyond them 800 pairs would be compared
# standard deviations at which values are clipped in correlations, or one outlier would decide them
FAR = 3.0

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class NumberShape:
    """A numeric column as a histogram with bins of about equal counts.

    A value of many records has a bin of its own.

    Attributes:
        edges: between bins, ascending; a bin begins with its lower edge. (n_bins - 1,)
        centres: mean of each bin's values, in standard deviations of what the model reads. (n_bins,)
        counts: training records in each bin. (n_bins,)
        n_missing: training records without a value.
    """

    edges: tuple[float, ...]
    centres: tuple[float, ...]
    counts: tuple[int, ...]
    n_missing: int

    @classmethod
    def fit(cls, column: pa.ChunkedArray, number: Number) -> Self:
        """Choose the bins by the training values' quantiles."""
        values = floats(column)
        seen = values[np.isfinite(values)]
        if not len(seen):
            return cls((), (0.0,), (0,), len(values))
        cuts, n_equal = np.unique(
            np.quantile(seen, np.linspace(0, 1, N_BINS + 1)[1:-1], method="higher"), return_counts=True
        )
        alone = np.nextafter(cuts[n_equal > 1], np.inf)
        edges = np.unique(np.concatenate([cuts, alone]))
        edges = edges[np.isfinite(edges)]
        place = np.searchsorted(edges, seen, side="right")
        counts = np.bincount(place, minlength=len(edges) + 1)
        z = number.standardise(seen)
        sums = np.bincount(place, weights=z / (float(z.std()) or 1.0), minlength=len(edges) + 1)
        full = np.flatnonzero(counts)
        centres = np.interp(np.arange(len(counts)), full, sums[full] / counts[full])
        return cls(
            tuple(edges.tolist()),
            tuple(round(float(c), 6) for c in centres),
            tuple(counts.tolist()),
            len(values) - len(seen),
        )

    def count(self, column: pa.ChunkedArray) -> tuple[Array, int]:
        """Count the records in each bin, and those without a value."""
        values = floats(column)
        seen = values[np.isfinite(values)]
        place = np.searchsorted(np.asarray(self.edges), seen, side="right")
        return np.bincount(place, minlength=len(self.counts)), len(values) - len(seen)


@dataclass(frozen=True)
class CategoryShape:
    """A categorical column: its most frequent values, and how many records had each.

    Attributes:
        values: the most frequent first. (n_values,)
        counts: training records with each, and with any other. (n_values + 1,)
        n_missing: training records without a value.
        n_rare: training records with a value that the model did not learn by name; 0 in older references.
    """

    values: tuple[str, ...]
    counts: tuple[int, ...]
    n_missing: int
    n_rare: int = 0

    @classmethod
    def fit(cls, column: pa.ChunkedArray, known: tuple[str, ...]) -> Self:
        """known: the column's values, the most frequent first, as the model knows them."""
        shape = cls(known[:MOST_VALUES], (0,) * (min(len(known), MOST_VALUES) + 1), 0)
        counts, n_missing = shape.count(column)
        return cls(shape.values, tuple(counts.tolist()), n_missing, len(not_among(known, column)))

    def count(self, column: pa.ChunkedArray) -> tuple[Array, int]:
        """Count the records with each value and with any other, and those without a value."""
        texts = as_text(column).drop_null()
        place = pc.index_in(texts, value_set=pa.array(self.values, pa.string()))
        counted = np.bincount(pc.fill_null(place, len(self.values)).to_numpy(), minlength=len(self.counts))
        return counted, len(column) - len(texts)


@dataclass(frozen=True)
class Reference:
    """The training window's columns, and the correlations of the numeric ones.

    Attributes:
        n_records: training records.
        correlated: numeric columns in the order of `correlations`.
        correlations: of each pair, row by row below the diagonal; 0 where one of them did not vary.
    """

    n_records: int
    numbers: Mapping[str, NumberShape]
    categories: Mapping[str, CategoryShape]
    correlated: tuple[str, ...]
    correlations: tuple[float, ...]

    @classmethod
    def fit(cls, features: Features, table: pa.Table) -> Self:
        """Count the records that the features were fitted on."""
        numbers = {**features.numeric, **features.context_numeric}
        categories = {**features.categorical, **features.context_categorical}
        correlated = tuple(features.numeric)[:MOST_CORRELATED]
        found, _ = correlations(features, correlated, table)
        return cls(
            table.num_rows,
            {name: NumberShape.fit(table[name], number) for name, number in numbers.items()},
            {name: CategoryShape.fit(table[name], known) for name, known in categories.items()},
            correlated,
            tuple(round(float(r), 4) for r in found[np.tril_indices(len(correlated), -1)]),
        )

    @property
    def shapes(self) -> dict[str, NumberShape | CategoryShape]:
        """Every column that is watched."""
        return {**self.numbers, **self.categories}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        def tuples(shape: Mapping[str, Any]) -> dict[str, Any]:
            return {name: tuple(x) if isinstance(x, list | tuple) else x for name, x in shape.items()}

        return cls(
            state["n_records"],
            {name: NumberShape(**tuples(shape)) for name, shape in state["numbers"].items()},
            {name: CategoryShape(**tuples(shape)) for name, shape in state["categories"].items()},
            tuple(state["correlated"]),
            tuple(state["correlations"]),
        )


def not_among(known: tuple[str, ...], column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values, as text, that a model does not know by name."""
    texts = as_text(column).drop_null()
    return texts.filter(pc.invert(pc.is_in(texts, value_set=pa.array(known, pa.string()))))


def correlations(features: Features, names: tuple[str, ...], table: pa.Table) -> tuple[Array, Array]:
    """Return Pearson's r of each pair of columns as the model reads them, and the records that have both.

    Returns:
        r, n_records: (n_columns, n_columns) each; r is 0 where fewer than three records have both, or one
            does not vary.
    """
    z = np.empty((len(names), table.num_rows))
    for i, name in enumerate(names):
        values = features.numeric[name].standardise(floats(table[name]))
        seen = values[np.isfinite(values)]
        if len(seen):
            z[i] = ((values - seen.mean()) / (float(seen.std()) or 1.0)).clip(-FAR, FAR)
        else:
            z[i] = np.nan
    there = np.isfinite(z)
    z, both = np.where(there, z, 0.0), there.astype(np.float64)
    n = both @ both.T
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (z @ both.T) / n
        covariance = (z @ z.T) / n - means * means.T
        variance = (z**2 @ both.T) / n - means**2
        r = covariance / np.sqrt(variance * variance.T)
    return np.where(np.isfinite(r) & (n >= 3), r, 0.0).clip(-1, 1), n

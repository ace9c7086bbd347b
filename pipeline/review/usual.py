"""How a column's values usually lie: what an observed value is drawn against.

Belongs here: histograms and shares of one column. Does not: the record whose value it is (record.py), or how
they are drawn (web/plots.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.dataset import Dataset
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.review import cells

N_BINS = 36
MOST_READ = 200_000  # records behind a column's distribution
SKEWED = 8.0  # 99 % quantile over the median, above which a positive column is drawn on a logarithmic axis
MOST_CATEGORIES = 5
LONGEST_CATEGORY = 200  # characters
MARGIN = 0.1  # share of a column's known range by which its plot goes beyond it


@dataclass(frozen=True)
class Distribution:
    """How a column's values usually lie.

    Attributes:
        n_records, of: what it was read from, e.g. "records of 2026-01-30".
        edges, counts: a numeric column's histogram; there is one count fewer. Values beyond the edges are
            left out.
        is_logarithmic: the edges are equally far apart in their logarithm.
        known: the range in which each value's bin is known. Beyond it only the number of values is, and the
            counts are spread evenly. None: everywhere.
        categories: a categorical column's (value, share), the most frequent first, then those asked about.
    """

    n_records: int
    of: str
    edges: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()
    is_logarithmic: bool = False
    known: tuple[float, float] | None = None
    categories: tuple[tuple[str, float], ...] = ()


def usual(
    here: Installation,
    dataset: Dataset,
    batch_id: str,
    column: str,
    *,
    asked: Sequence[str] = (),
    around: Sequence[float] = (),
) -> Distribution | None:
    """Return a column's distribution among the accepted records of a batch.

    A column that is not stored with them, such as a derived one, is taken from the records that the model
    learned from. None where it is in neither, or empty.

    Args:
        asked: categories to include whatever their share.
        around: numbers that a histogram of the model's records reaches to.
    """
    if column not in dataset.columns:
        return _learned(here, dataset, batch_id, column, around)
    read = cells.read(here, dataset, [batch_id], [column], most=MOST_READ)
    if read is None:
        return None
    values = read["0"].combine_chunks()
    n_records, of = len(values), f"records of {batch_id}"
    if dataset.columns[column].is_quantity:
        numbers = pc.cast(values.drop_null(), pa.float64()).to_numpy()
        numbers = numbers[np.isfinite(numbers)]
        return _histogram(numbers, n_records, of) if len(numbers) else None
    if not n_records:
        return None
    counted = pc.value_counts(pc.cast(values, pa.string())).to_pylist()
    pairs = sorted(((one["counts"], one["values"]) for one in counted), key=lambda pair: -pair[0])
    shares = {
        "missing" if value is None else value[:LONGEST_CATEGORY] or "(empty)": n / n_records
        for n, value in pairs
    }
    told = dict.fromkeys([*list(shares)[:MOST_CATEGORIES], *(text[:LONGEST_CATEGORY] for text in asked)])
    return Distribution(n_records, of, categories=tuple((name, shares.get(name, 0.0)) for name in told))


def _histogram(numbers: Any, n_records: int, of: str) -> Distribution:
    low, middle, high = np.quantile(numbers, [0.005, 0.5, 0.99])
    logarithmic = bool(low > 0 and high / max(middle, 1e-300) > SKEWED)
    if high <= low:
        low, high = low - 0.5, low + 0.5
    # a bin per whole number: else some bins hold two, some none
    if high - low < N_BINS and not (numbers % 1).any():
        edges, logarithmic = np.arange(low, high + 2) - 0.5, False
    elif logarithmic:
        edges = np.geomspace(low, high, N_BINS + 1)
    else:
        edges = np.linspace(low, high, N_BINS + 1)
    counts, _ = np.histogram(numbers, edges)
    return Distribution(n_records, of, tuple(map(float, edges)), tuple(map(int, counts)), logarithmic)


def _learned(
    here: Installation, dataset: Dataset, batch_id: str, column: str, around: Sequence[float]
) -> Distribution | None:
    """Return a distribution from the model's reference, as monitoring kept it for the batch.

    Neither the model nor a record is read. The reference's bins hold about as many records each; they are cut
    anew into equal ones, or a narrow bin would look as if it held few.
    """
    watched = store.one(here.ledger, dataset.name, batch_id)
    drift = watched.measures.columns.get(column) if watched else None
    if drift is None or drift.shift is None or not drift.bins:
        return None
    inner = np.array(drift.bins, np.float64)
    low, high = min(inner[0], *around), max(inner[-1], *around)
    if np.isclose(low, high, rtol=1e-9, atol=1e-300):  # a single value, and the number after it
        low, high = low - 0.5, high + 0.5
    margin = MARGIN * (high - low)
    edges = np.linspace(low - margin, high + margin, N_BINS + 1)
    edges += _centring(edges, inner, drift.usual)
    up_to = np.interp(edges, [edges[0], *inner, edges[-1]], np.cumsum([0, *drift.usual]))
    known = float(inner[0]), float(inner[-1])
    counts = tuple(map(float, np.diff(up_to)))
    return Distribution(
        sum(drift.usual), "records that the model learned from", tuple(map(float, edges)), counts, known=known
    )


def _centring(edges: Any, inner: Any, counts: Sequence[int]) -> float:
    """Return how far to move edges so that the commonest value lies in the middle of a bin."""
    at = int(np.argmax(counts[1:-1])) if len(inner) > 1 else 0
    step = edges[1] - edges[0]
    return float((inner[at] - edges[0]) % step - step / 2)

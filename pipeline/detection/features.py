"""Table to model input and back: standardised numbers, category codes, context; the state is plain JSON.

Belongs here: what a column becomes, and what a model's expectation means in the column's own units.
Does not: the model (vae_core), or which record is odd (detector.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.config.columns import Column
from pipeline.config.dataset import Dataset
from pipeline.detection.recipe import recipe_of
from vae_core import Layout, Records
from vae_core.noise import UNSCALED

MOST_CATEGORIES = 2_000
MOST_CONTEXT_CATEGORIES = 48
# a category seen less often in training is learned as "other", which then resembles an unseen one
RARE = 5
DAY = 86_400
WEEKDAYS_FROM = (
    56  # days: in a shorter window a weekday identifies a few days, which the model learns by heart
)
HEAVY = 4.0  # standard deviation over robust one, above which a column is heavy-tailed
BY_FACTORS = (
    0.25  # robust deviation over median above which a column's values differ by factors: amounts, distances
)
SELDOM = 0.05  # share of values that may be negative where values differ by factors: refunds
RIM = 1e-3  # share of values at or beyond the lowest or highest expected value
MOST_DECIMALS, MOST_LOOKED_AT = 6, 20_000  # digits after the point, values examined for them
LARGEST = 1e150  # numbers are clipped here: a larger one's square, or its inverse's, is no float

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Number:
    """How a numeric column is standardised: z = (w(x) − mean) / std.

    w is the identity or, for heavy tails, arsinh: a few huge values would otherwise set the scale and make
    all ordinary ones look alike. It applies only where values differ by factors. A sensor that stands at 775
    ± 10 and fails for a day has outliers, not a heavy tail; changes and deviations, as often below zero as
    above, are odd because they are large.

    Attributes:
        mean, std: of w(x) over the training records.
        lowest, highest: bounds of the expected value that is shown. Seen in training, with a share RIM of the
            values, or one, at or beyond each: one distance of 178,920 miles in 200,000 taxi rides must not be
            expected.
        centre, spread: of w(x) = arsinh((x − centre) / spread); spread 0 means w(x) = x.
        decimals: digits after the point that suffice for all values but RIM; None: over six, or not known.
    """

    mean: float
    std: float
    lowest: float = -math.inf
    highest: float = math.inf
    centre: float = 0.0
    spread: float = 0.0
    decimals: int | None = None

    @classmethod
    def fit(cls, values: Floats, noise: str = "") -> Self:
        """Learn from training values; NaN is missing.

        Counts and yes or no stay as they are where their noise model requires it.
        """
        seen = values[np.isfinite(values)].clip(-LARGEST, LARGEST)
        if not len(seen):
            return cls(0.0, 1.0, 0.0, 0.0)
        decimals = _decimals(seen)
        if noise in UNSCALED:
            return cls(0.0, 1.0, *_rim(seen), decimals=decimals)
        low, centre, high = np.quantile(seen, [0.25, 0.5, 0.75])
        robust = float(high - low) / 1.349
        if not robust and (elsewhere := np.abs(seen[seen != centre] - centre)).size:
            robust = float(np.median(elsewhere)) / 0.6745  # half of all values are the same, mostly 0
        amounts = float(np.quantile(seen, SELDOM)) >= 0
        by_factors = amounts and robust > BY_FACTORS * abs(float(centre))
        heavy = by_factors and 1 / LARGEST < robust * HEAVY < float(seen.std())
        warp = cls(0.0, 1.0, centre=float(centre) if heavy else 0.0, spread=robust if heavy else 0.0)
        warped = warp.standardise(seen)
        mean, std = float(warped.mean()), float(warped.std())
        constant = std <= max(
            1 / LARGEST, 1e-12 * abs(mean)
        )  # whatever the unit: picofarads are 1e-12 farads
        return cls(mean, 1.0 if constant else std, *_rim(seen), warp.centre, warp.spread, decimals)

    @property
    def is_constant(self) -> bool:
        """Whether training had one value only, or none."""
        return self.lowest == self.highest and self.std == 1.0

    def standardise(self, values: Floats) -> Floats:
        """Return values in standard deviations from the mean.

        NaN stays NaN, infinities become very large numbers.
        """
        values = values.clip(-LARGEST, LARGEST)  # a copy
        if self.spread:
            values -= self.centre
            values /= self.spread
            np.arcsinh(values, out=values)
        values -= self.mean
        values /= self.std
        return values

    def log_slope(self, values: Floats) -> Floats:
        """Return ln |dz/dx|, which turns a log-density of z into one of x in the column's own units.

        NaN stays NaN.
        """
        if not self.spread:
            return np.where(np.isnan(values), np.nan, -math.log(self.std))
        away = (values.clip(-LARGEST, LARGEST) - self.centre) / self.spread
        return -math.log(self.std) - math.log(self.spread) - 0.5 * np.log1p(away * away)

    def restore(self, z: Floats) -> Floats:
        """Return standardised values in the column's own units."""
        warped = np.asarray(z, np.float64) * self.std + self.mean
        return self.centre + self.spread * np.sinh(np.clip(warped, -300, 300)) if self.spread else warped


def _rim(seen: Floats) -> tuple[float, float]:
    lowest, highest = np.quantile(seen, [RIM, 1 - RIM], method="inverted_cdf")
    return float(lowest), float(highest)


def _decimals(seen: Floats) -> int | None:
    some = seen[:: max(1, len(seen) // MOST_LOOKED_AT)]
    for digits in range(MOST_DECIMALS + 1):  # float32 keeps no more than seven digits of what was typed
        if np.isclose(some.round(digits), some, rtol=1e-7, atol=0).mean() >= 1 - RIM:
            return digits
    return None


@dataclass(frozen=True)
class Features:
    """What every column becomes. Fitted on training records, saved as JSON with the model.

    Attributes:
        context_time: by time column, whether the model sees the weekday beside the hour of the day.
    """

    numeric: Mapping[str, Number]
    categorical: Mapping[str, tuple[str, ...]]
    context_numeric: Mapping[str, Number]
    context_categorical: Mapping[str, tuple[str, ...]]
    context_time: Mapping[str, bool]

    @classmethod
    def fit(cls, dataset: Dataset, table: pa.Table) -> Self:
        """Learn the state from training records, with an Arrow column for each modelled column."""
        columns = dataset.with_derived
        recipe = recipe_of(dataset)
        numbers = {
            n: Number.fit(floats(table[n]), recipe.column_noise.get(n, recipe.noise))
            for n in dataset.columns_with("numeric")
        }
        context = dataset.columns_with("context")
        times = tuple(n for n in context if columns[n].type in {"date", "timestamp", "timestamp_utc"})
        named = [n for n in context if columns[n].type in {"string", "bool"}]
        return cls(
            numbers,
            {n: _vocabulary(table[n], MOST_CATEGORIES) for n in dataset.columns_with("categorical")},
            {n: Number.fit(floats(table[n])) for n in context if n not in times and n not in named},
            {n: _vocabulary(table[n], MOST_CONTEXT_CATEGORIES) for n in named},
            {n: _spans(table[n]) >= WEEKDAYS_FROM for n in times},
        )

    @property
    def columns(self) -> list[str]:
        """The table columns that are read."""
        return [
            *self.numeric,
            *self.categorical,
            *self.context_numeric,
            *self.context_categorical,
            *self.context_time,
        ]

    @cached_property
    def layout(self) -> Layout:
        """The model's view of the columns."""
        context = [f"{n}" for n in self.context_numeric]
        context += [f"{n}={value}" for n, values in self.context_categorical.items() for value in values]
        context += [f"{n}:{part}" for n, weekday in self.context_time.items() for part in time_names(weekday)]
        return Layout(
            tuple(self.numeric),
            tuple((n, max(1, len(values))) for n, values in self.categorical.items()),
            tuple(f"context {name}" for name in context),
        )

    def records(self, table: pa.Table) -> Records:
        """Return a table's columns as model input; rows keep their order."""
        n = table.num_rows
        numeric = np.empty((len(self.numeric), n), np.float32)  # a column's values side by side, as in Arrow
        for i, (name, number) in enumerate(self.numeric.items()):
            _narrow(number.standardise(floats(table[name])), numeric[i])
        codes = np.empty((n, len(self.categorical)), np.int64)
        for i, (name, values) in enumerate(self.categorical.items()):
            codes[:, i] = _codes(table[name], values)
        context = np.zeros((n, len(self.layout.context)), np.float32)
        for i, part in enumerate(self._context(table)):
            context[:, i] = part
        return Records(torch.from_numpy(numeric.T), torch.from_numpy(codes), torch.from_numpy(context))

    def log_slope(self, table: pa.Table) -> Floats:
        """Return the sum of ln |dz/dx| over the observed numbers. (n_records,)"""
        found = np.zeros(table.num_rows)
        for name, number in self.numeric.items():
            found += np.nan_to_num(number.log_slope(floats(table[name])))
        return found

    def knows(self, records: Records) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return whether every category of a record was seen in training. (n_records,)"""
        return np.asarray(self.known_cells(records).all(axis=1))

    def known_cells(self, records: Records) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
        """Return whether a cell's category was seen in training, at least RARE times.

        True where it is missing. (n_records, n_categorical)
        """
        sizes = torch.tensor([max(1, len(values)) for values in self.categorical.values()])
        return np.asarray((records.categorical < sizes).numpy())

    def _context(self, table: pa.Table) -> list[Floats]:
        parts = [
            number.standardise(floats(table[n])).clip(-10, 10) for n, number in self.context_numeric.items()
        ]
        for name, values in self.context_categorical.items():
            codes = _codes(table[name], values)
            parts += [(codes == code).astype(np.float64) for code in range(len(values))]
        for name, weekday in self.context_time.items():
            parts += time_parts(table[name], weekday=weekday)
        return parts

    def to_dict(self) -> dict[str, Any]:
        return {
            "numeric": {n: asdict(number) for n, number in self.numeric.items()},
            "categorical": {n: list(values) for n, values in self.categorical.items()},
            "context_numeric": {n: asdict(number) for n, number in self.context_numeric.items()},
            "context_categorical": {n: list(values) for n, values in self.context_categorical.items()},
            "context_time": dict(self.context_time),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        return cls(
            {n: Number(**number) for n, number in state["numeric"].items()},
            {n: tuple(values) for n, values in state["categorical"].items()},
            {n: Number(**number) for n, number in state["context_numeric"].items()},
            {n: tuple(values) for n, values in state["context_categorical"].items()},
            dict(state["context_time"]),
        )


def time_names(weekday: bool) -> list[str]:
    """Return the names of `time_parts`."""
    day = ["sin day", "cos day", "sin half day", "cos half day", "part of day"]
    return day + [f"weekday {day}" for day in range(1, 8) if weekday]


def time_parts(column: pa.ChunkedArray, *, weekday: bool) -> list[Floats]:
    """Return what the model sees of the time; 0 where it is missing. (n_records,) each.

    The hour of the day is two circles, for what has a rhythm, and a line from midnight to midnight, for what
    grows by the hour and starts anew; both of deviation 1. The weekday is one-hot.
    """
    times = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)))
    seconds = times.cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64) / 1e6
    part = (seconds % DAY) / DAY
    angle = 2 * math.pi * part
    circles = [math.sqrt(2) * f(k * angle) for k in (1, 2) for f in (np.sin, np.cos)]
    day = [np.nan_to_num(x) for x in (*circles, math.sqrt(12) * (part - 0.5))]
    which = (seconds // DAY + 3) % 7  # 1970-01-01 was a Thursday
    return day + [(which == i).astype(np.float64) for i in range(7) if weekday]


def _spans(column: pa.ChunkedArray) -> float:
    """Return the days between the first time and the last."""
    first, last = (bound.as_py() for bound in pc.min_max(column).values())
    return (last - first).days if first is not None else 0


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def floats(column: pa.ChunkedArray) -> Floats:
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(values, np.float64)


def _narrow(values: Floats, to: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Write values as float32; overwrites them."""
    largest = float(np.finfo(np.float32).max)
    np.clip(values, -largest, largest, out=values)
    to[:] = values


def _vocabulary(column: pa.ChunkedArray, most: int) -> tuple[str, ...]:
    counts = pc.value_counts(as_text(column).combine_chunks().drop_null()).to_pylist()
    common = [entry for entry in counts if entry["counts"] >= RARE] or counts
    ordered = sorted(common, key=lambda entry: (-entry["counts"], entry["values"]))
    return tuple(entry["values"] for entry in ordered[:most])


def _codes(column: pa.ChunkedArray, values: tuple[str, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    texts = as_text(column)
    known = pc.index_in(texts, value_set=pa.array(values, pa.string()))
    codes = pc.if_else(pc.is_null(texts), -1, pc.fill_null(known, max(1, len(values))))
    return np.asarray(codes.to_numpy(zero_copy_only=False), np.int64)


def describe(value: Any, column: Column) -> str:
    """Format a cell for a reader."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "(empty)"
    if column.is_quantity and not isinstance(value, str):
        return f"{float(value):.6g}" if column.type != "int" else f"{round(value):d}"
    if isinstance(value, float):  # a code, named as categories are, not rounded
        return str(as_text(pa.chunked_array([[value]]))[0].as_py())
    return str(value)

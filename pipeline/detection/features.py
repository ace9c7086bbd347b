"""Table to model input: standardised numbers, category codes, context; the state is plain JSON.

Belongs here: what each column becomes. Does not: how one number is standardised, and back (numbers.py), the
model (vae_core), or which record is odd (detector.py).
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

from pipeline.config.dataset import Dataset
from pipeline.detection.numbers import Number
from pipeline.detection.recipe import recipe_of
from pipeline.detection.values import Floats, as_text, floats
from vae_core import Layout, Records

MOST_CATEGORIES = 2_000
MOST_CONTEXT_CATEGORIES = 48
# a category seen less often in training is learned as "other", which then resembles an unseen one
RARE = 5
DAY = 86_400
# days: in a shorter window a weekday identifies a few days, which the model learns by heart
WEEKDAYS_FROM = 56


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

    @cached_property
    def rims(self) -> torch.Tensor:
        """The lowest and the highest value that is expected of each number, standardised. (2, n_numeric)"""
        ends = [
            number.standardise(np.array([number.lowest, number.highest])) for number in self.numeric.values()
        ]
        return torch.from_numpy(np.array(ends, np.float32).reshape(-1, 2).T.copy())

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

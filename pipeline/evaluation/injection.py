"""Anomalies made from real accepted records, so that detection can be measured before anybody has judged one.

Belongs here: what is falsified in which record. The record's key decides, so that every version on every
night gets the same anomalies. Does not: scoring them (measurement.py). Values stay within the contract's
bounds: what breaks the contract is set aside and never scored.

    shifted    one number moved by a half to sixteen times the distance between the column's 1st and 99th
               percentile, every order of magnitude as likely: where ordinary records are wild, only
               the largest can be found
    swapped    one value taken from elsewhere in its column, a number's from half the ranks away: ordinary
               by itself, wrong here
    category   one category replaced by any other that the column has, each as likely, however rare
    several    a third of the columns swapped at once, two at least

Groups of similar anomalies are not a kind of their own: a record's score is independent of other records.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.dataset import Dataset
from pipeline.records.holdout import RECORD_KEY

MOST = 2_000  # records of each kind
SMALLEST, LARGEST, GROSS = 0.5, 16.0, 10.0  # by how many spans a number is moved

Array = np.ndarray[tuple[int], np.dtype[Any]]
Changes = dict[str, tuple[Array, list[Any]]]  # by column: which rows, and a new value for every row


def injected(dataset: Dataset, records: pa.Table) -> dict[str, pa.Table]:
    """Return falsified copies of the records by kind, row for row; a kind that no column allows is left out.

    Args:
        records: the model's columns and RECORD_KEY.
    """
    columns = _columns(dataset, records)
    numbers = [column for column in columns if isinstance(column, _Number)]
    categories = [column for column in columns if isinstance(column, _Category)]
    draw = _Draws(records[RECORD_KEY].to_pylist())
    kinds: dict[str, Changes] = {
        "shifted": {
            column.name: (rows, column.shifted(draw("how far"), draw("up or down")))
            for column, rows in _one(numbers, draw("which number"))
        },
        "swapped": {
            column.name: (rows, column.swapped(draw(f"{column.name} from where")))
            for column, rows in _one(columns, draw("which column"))
        },
        "category": {
            column.name: (rows, column.replaced(draw("which value")))
            for column, rows in _one(categories, draw("which category"))
        },
        "several": {
            column.name: (rows, column.swapped(draw(f"{column.name} from where")))
            for column, rows in _several(columns, draw)
        },
    }
    return {kind: _with(records, changes) for kind, changes in kinds.items() if changes}


def gross(dataset: Dataset, records: pa.Table) -> pa.Table:
    """Return copies with one number ten spans off.

    Where there are no numbers, every category becomes one that nobody has seen, or yes and no the other.
    """
    columns, draw = _columns(dataset, records), _Draws(records[RECORD_KEY].to_pylist())
    numbers = [column for column in columns if isinstance(column, _Number)]
    everywhere = np.ones(records.num_rows, bool)
    if numbers:
        return _with(records, {c.name: (rows, c.gross()) for c, rows in _one(numbers, draw("gross"))})
    categories = [column for column in columns if isinstance(column, _Category)]
    return _with(records, {column.name: (everywhere, column.gross()) for column in categories})


def falsifiable(dataset: Dataset, records: pa.Table) -> Array:
    """Return which records have a value to falsify, (n_records,) bool.

    A copy of a record without any would be the record itself.
    """
    there = np.zeros(records.num_rows, bool)
    for column in _columns(dataset, records):
        there |= column.there
    return there


class _Draws:
    """Numbers in [0, 1) by a record's key and a purpose: the same on every machine and night. (n_records,)"""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = keys

    def __call__(self, purpose: str) -> Array:
        words = (hashlib.blake2b(f"{purpose}\x1f{key}".encode(), digest_size=6).digest() for key in self.keys)
        return np.array([int.from_bytes(word, "big") / 2.0**48 for word in words])


class _Number:
    def __init__(self, name: str, values: pa.ChunkedArray, low: float, high: float) -> None:
        self.name, self.low, self.high = name, low, high
        self.whole = pa.types.is_integer(values.type)
        self.values = np.asarray(
            values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64
        )
        self.there = np.isfinite(self.values)
        self.ordered = np.sort(self.values[self.there])
        self.span = float(np.subtract(*np.quantile(self.ordered, [0.99, 0.01]))) if len(self.ordered) else 0.0

    @property
    def falsifiable(self) -> bool:
        return 0 < self.span < math.inf

    def shifted(self, far: Array, up: Array) -> list[Any]:
        by = np.where(up < 0.5, 1, -1) * self.span * SMALLEST * (LARGEST / SMALLEST) ** far
        there, back = ((self.values + sign * by).clip(self.low, self.high) for sign in (1, -1))
        further = np.abs(there - self.values) >= np.abs(back - self.values)
        return self._rounded(np.where(further, there, back))

    def swapped(self, _: Array) -> list[Any]:
        ranks = np.searchsorted(self.ordered, self.values)
        return self._rounded(self.ordered[(ranks + len(self.ordered) // 2) % len(self.ordered)])

    def gross(self) -> list[Any]:
        return self._rounded(np.full(len(self.values), self.ordered[-1] + GROSS * self.span))

    def _rounded(self, values: Array) -> list[Any]:
        values = np.where(self.there, values, 0.0)
        return [round(value) for value in values.tolist()] if self.whole else list(values.tolist())


class _Category:
    def __init__(self, name: str, values: pa.ChunkedArray) -> None:
        self.name, self.values = name, values.to_pylist()
        self.there = np.array([value is not None for value in self.values], bool)
        seen = Counter(value for value in self.values if value is not None)
        self.counts = sorted(seen.items(), key=lambda entry: (entry[1], str(entry[0])))

    @property
    def falsifiable(self) -> bool:
        return len(self.counts) > 1

    def swapped(self, drawn: Array) -> list[Any]:
        """Draw another value by frequency."""
        values = [value for value, count in self.counts for _ in range(count)]
        starts = dict(
            zip((v for v, _ in self.counts), np.cumsum([0] + [n for _, n in self.counts]), strict=False)
        )
        counts = dict(self.counts)

        def another(own: Any, u: float) -> Any:
            at = int(u * (len(values) - counts[own]))
            return values[at if at < starts[own] else at + counts[own]]

        return [None if v is None else another(v, u) for v, u in zip(self.values, drawn, strict=True)]

    def gross(self) -> list[Any]:
        """Return a value that the column does not have."""
        seen = [value for value, _ in self.counts]
        if isinstance(seen[0], bool):
            return [None if value is None else not value for value in self.values]
        if isinstance(seen[0], str):
            return ["vaewatch: a gross error"] * len(self.values)
        unseen = next(n for n in range(len(seen) + 1) if n not in seen)
        return [type(seen[0])(unseen)] * len(self.values)

    def replaced(self, drawn: Array) -> list[Any]:
        """Draw another value, each as likely."""
        others = {own: [value for value, _ in self.counts if value != own] for own, _ in self.counts}
        return [
            None if own is None else others[own][int(u * len(others[own]))]
            for own, u in zip(self.values, drawn, strict=True)
        ]


def _columns(dataset: Dataset, records: pa.Table) -> list[_Number | _Category]:
    found: list[_Number | _Category] = []
    for name in dataset.columns_with("numeric", "categorical"):
        column = dataset.with_derived[name]
        if column.role == "numeric" and column.type != "bool":
            low, high = (b if b is not None else s * math.inf for b, s in ((column.min, -1), (column.max, 1)))
            found.append(_Number(name, records[name], low, high))
        else:
            found.append(_Category(name, records[name]))
    return [column for column in found if column.falsifiable]


def _one(columns: Sequence[Any], drawn: Array) -> list[tuple[Any, Array]]:
    """Return for every column the rows that chose it: each row one of the columns in which it has a value."""
    if not columns:
        return []
    there = np.stack([column.there for column in columns], axis=1)
    wanted = (drawn * there.sum(axis=1)).astype(np.int64)
    chosen = there & (there.cumsum(axis=1) == wanted[:, None] + 1)
    return [(column, chosen[:, i]) for i, column in enumerate(columns) if chosen[:, i].any()]


def _several(columns: Sequence[Any], draw: _Draws) -> list[tuple[Any, Array]]:
    if len(columns) < 2:
        return []
    most = max(2, round(len(columns) / 3))
    order = np.stack([draw(f"{column.name} among several") for column in columns], axis=1).argsort(axis=1)
    chosen = order.argsort(axis=1) < most
    return [(c, rows) for i, c in enumerate(columns) if (rows := chosen[:, i] & c.there).any()]


def _with(records: pa.Table, changes: Changes) -> pa.Table:
    for name, (rows, values) in changes.items():
        at, old = records.column_names.index(name), records[name]
        type_ = pa.int64() if pa.types.is_integer(old.type) else old.type
        kept = zip(old.to_pylist(), values, rows.tolist(), strict=True)
        new = pa.array([value if changed else own for own, value, changed in kept], type_)
        records = records.set_column(at, name, new)
    return records

"""What goes into the model: which columns a record has, and the records as tensors.

Belongs here: names, shapes, codes and their checks. Does not: how a table becomes standardised
numbers and category codes (the caller's), or what the model makes of them (model.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from vae_core.device import sent

MISSING = -1  # the code of a missing category; a missing number is NaN
FARTHEST = 1e6  # standardised numbers beyond ±FARTHEST count as FARTHEST: finite scores, still in order


@dataclass(frozen=True)
class Layout:
    """Which columns a record has, in order.

    ``numeric`` are modelled numbers, already standardised by the caller. ``categorical`` are pairs of a name
    and its number of known categories K: codes 0..K-1 are known, K stands for any other, -1 for missing.
    ``context`` are numbers (one-hot, sine and cosine, as the caller likes) that encoder and decoder see but
    do not model: a record is judged given them.
    """

    numeric: tuple[str, ...]
    categorical: tuple[tuple[str, int], ...] = ()
    context: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for kind in ("numeric", "categorical", "context"):
            object.__setattr__(self, kind, _as_tuple(kind, getattr(self, kind)))
        if strangers := [pair for pair in self.categorical if not _is_named_count(pair)]:
            raise TypeError(
                "layout:\n  categorical must be pairs of a name and its number of known categories, "
                f"such as (('valve', 3),), has {strangers[0]!r}"
            )
        # plain integers: numpy's are no JSON
        pairs = tuple((name, int(n_known)) for name, n_known in self.categorical)
        object.__setattr__(self, "categorical", pairs)
        unnamed = [name for name in (*self.columns, *self.context) if not isinstance(name, str)]
        if unnamed:
            raise TypeError(f"layout:\n  columns must be named by strings, has {unnamed[0]!r}")
        faults = []
        if not self.columns:
            faults.append("a layout needs at least one numeric or categorical column")
        names = (*self.columns, *self.context)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            faults.append(f"columns appear more than once: {', '.join(repeated)}")
        faults += [
            f"categorical column {name!r} must have at least 1 known category, has {n_known}"
            for name, n_known in self.categorical
            if n_known < 1
        ]
        if faults:
            raise ValueError("layout:\n  " + "\n  ".join(faults))

    @property
    def columns(self) -> tuple[str, ...]:
        """The modelled columns in the order of every (n_records, n_columns) result: numeric, categorical."""
        return (*self.numeric, *(name for name, _ in self.categorical))

    @property
    def n_codes(self) -> tuple[int, ...]:
        """How many codes each categorical column's head predicts: its known categories and 'other'."""
        return tuple(n_known + 1 for _, n_known in self.categorical)

    def to_dict(self) -> dict[str, Any]:
        return {
            "numeric": list(self.numeric),
            "categorical": [[name, n_known] for name, n_known in self.categorical],
            "context": list(self.context),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Layout:
        return cls(
            numeric=tuple(values["numeric"]),
            categorical=tuple((name, n_known) for name, n_known in values["categorical"]),
            context=tuple(values["context"]),
        )

    def check(self, records: Records) -> None:
        """Raise a ValueError that names every way in which the records do not fit this layout.

        Raises a TypeError where they are no Records.
        """
        if not isinstance(records, Records):
            raise TypeError(
                f"records must be Records(numeric, categorical, context), with (n, 0) where there are no such columns, "
                f"not a {type(records).__name__}"
            )
        faults = [
            f"{kind} records have {tensor.shape[1]} columns, the layout has {len(names)}"
            for kind, tensor, names in (
                ("numeric", records.numeric, self.numeric),
                ("categorical", records.categorical, self.categorical),
                ("context", records.context, self.context),
            )
            if tensor.shape[1] != len(names)
        ]
        if not faults and self.categorical and len(records):
            lowest, highest = (bound.tolist() for bound in torch.aminmax(records.categorical, dim=0))
            faults = [
                f"categorical column {name!r} has codes {low}..{high}, allowed are {MISSING}..{n_known}"
                for (name, n_known), low, high in zip(self.categorical, lowest, highest, strict=True)
                if low < MISSING or high > n_known
            ]
        if faults:
            raise ValueError("records do not fit the layout:\n  " + "\n  ".join(faults))


@dataclass(frozen=True, eq=False)
class Records:
    """Records as tensors, one row each.

    numeric: (n_records, n_numeric) float32, NaN where missing, infinite where the source says so.
    categorical: (n_records, n_categorical) int64 codes, -1 where missing.
    context: (n_records, n_context) float32, NaN where missing (read as 0).
    """

    numeric: Tensor
    categorical: Tensor
    context: Tensor

    def __post_init__(self) -> None:
        parts = {"numeric": self.numeric, "categorical": self.categorical, "context": self.context}
        expected = {"numeric": torch.float32, "categorical": torch.int64, "context": torch.float32}
        if strangers := [
            f"{n}, which is a {type(x).__name__}" for n, x in parts.items() if not torch.is_tensor(x)
        ]:
            raise TypeError(
                f"records:\n  must be torch tensors: {', '.join(strangers)} (numpy's: torch.from_numpy)"
            )
        faults = [
            f"{name} must be two-dimensional {expected[name]}, is {part.dim()}-dimensional {part.dtype}"
            for name, part in parts.items()
            if part.dim() != 2 or part.dtype != expected[name]
        ]
        if not faults and len({len(part) for part in parts.values()}) > 1:
            lengths = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
            faults = [f"parts must have equally many rows, have {lengths}"]
        if faults:
            raise ValueError("records:\n  " + "\n  ".join(faults))

    def __len__(self) -> int:
        return len(self.numeric)

    def __getitem__(self, index: int | slice | Tensor) -> Records:
        """Return the chosen records; a single index gives one record, still with its row axis."""
        if isinstance(index, int):
            position = range(len(self))[index]
            index = slice(position, position + 1)
        return Records(self.numeric[index], self.categorical[index], self.context[index])

    def to(self, device: torch.device | str) -> Records:
        """Copy the records to a device, unless they are there."""
        return Records(self.numeric.to(device), self.categorical.to(device), self.context.to(device))

    def sent(self, device: torch.device) -> Records:
        """Copy the records to a device; to a GPU without waiting for their arrival, see ``device.sent``."""
        return Records(*(sent(x, device) for x in (self.numeric, self.categorical, self.context)))

    @property
    def device(self) -> torch.device:
        return self.numeric.device

    @cached_property
    def observed(self) -> Tensor:
        """(n_records, n_columns) float32: 1 where a modelled cell has a value, 0 where it is missing."""
        # NaN equals nothing
        numeric = torch.eq(self.numeric, self.numeric, out=torch.empty_like(self.numeric))
        if not self.categorical.shape[1]:
            return numeric
        return torch.cat([numeric, (self.categorical != MISSING).to(numeric.dtype)], dim=1)

    @cached_property
    def values(self) -> Tensor:
        """(n_records, n_numeric) the numbers, safe to compute with: within ±FARTHEST, 0 where missing."""
        return _bounded(self.numeric)

    @cached_property
    def context_values(self) -> Tensor:
        """(n_records, n_context) the context, safe to compute with: within ±FARTHEST, 0 where missing."""
        return _bounded(self.context)


def _as_tuple(kind: str, given: object) -> tuple[object, ...]:
    """A layout of lists would not equal the one that is read back with its model."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"layout:\n  {kind} must be a tuple of columns, such as ('speed',), is {given!r}")
    return tuple(given)


def _is_named_count(pair: object) -> bool:
    return isinstance(pair, tuple | list) and len(pair) == 2 and isinstance(pair[1], Integral)


def _bounded(numbers: Tensor) -> Tensor:
    return numbers.nan_to_num(nan=0.0).clamp_(-FARTHEST, FARTHEST)

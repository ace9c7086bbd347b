"""What records can teach, examined before anything is trained on them.

Belongs here: columns that teach nothing, cells that are missing. Does not: whether the records fit the layout
(records.py).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.records import MISSING, Layout, Records

_SAME = 1e-4  # standard deviations
_MOST_SORTED = 4096  # values: among many more, neighbours are closer than _SAME even without steps


class DataWarning(UserWarning):
    """The training records are usable but odd in a way that someone should know."""


@dataclass(frozen=True)
class Stock:
    """What each column can teach.

    learned: whether it has any value. indicated: positions of the numbers that have some and miss some.
    steps: of each number, how far apart its values lie.
    """

    learned: tuple[bool, ...]
    indicated: tuple[int, ...]
    steps: tuple[float, ...]


def take_stock(layout: Layout, records: Records, on_doubt: Callable[[str], None] | None = None) -> Stock:
    """Examine every column.

    Raises ValueError where the records do not fit or nothing can be learned. Warns once about all columns
    that teach nothing, or tells ``on_doubt`` a sentence about each kind.
    """
    layout.check(records)
    n = len(records)
    if n == 0:
        raise ValueError("cannot train on 0 records")
    n_seen, empty, constant = [], [], []
    cells = [*records.numeric.unbind(dim=1), *records.categorical.unbind(dim=1)]
    for name, column in zip(layout.columns, cells, strict=True):
        missing = column.isnan() if column.is_floating_point() else column == MISSING
        n_seen.append(n - int(missing.sum()))
        first = column[missing.to(torch.uint8).argmin()]
        if n_seen[-1] == 0:
            empty.append(name)
        elif n_seen[-1] > 1 and ((column == first) | missing).all():
            constant.append(name)
    if not any(n_seen):
        raise ValueError(f"cannot train: every cell of all {n} records is missing")
    notes = []
    if empty:
        notes.append(f"columns never observed, left out of every score: {', '.join(empty)}")
    if constant:
        notes.append(f"columns constant, so that any other value will stand out: {', '.join(constant)}")
    if on_doubt is not None:
        for note in notes:
            on_doubt(note)
    elif notes:
        warnings.warn("training " + "; ".join(notes), DataWarning, stacklevel=3)
    gaps = (i for i in range(len(layout.numeric)) if 0 < n_seen[i] < n)
    steps = tuple(step(column) for column in records.numeric.unbind(dim=1))
    return Stock(tuple(seen > 0 for seen in n_seen), tuple(gaps), steps)


def step(column: Tensor) -> float:
    """Return how far apart the values (n_records,) of a column of rounded or whole numbers lie.

    Nine in ten have no other value nearer. It is next to nothing for values without steps, and 0 where no two
    differ. Differences below _SAME are rounding errors.
    """
    values = column[column.isfinite()]
    values = values[:: max(1, len(values) // _MOST_SORTED)].sort().values
    is_new = values.diff() > _SAME
    if not is_new.any():
        return 0.0
    first = torch.cat([is_new.new_ones(1), is_new]).nonzero()[:, 0]
    counts = torch.diff(first, append=first.new_tensor([len(values)]))
    gaps = torch.nn.functional.pad(values[first].diff(), (1, 1), value=torch.inf)
    nearest, order = torch.minimum(gaps[:-1], gaps[1:]).sort()
    tenth = torch.searchsorted(counts[order].cumsum(dim=0), math.ceil(len(values) / 10))
    return float(nearest[tenth])

"""What records can teach, looked at before anything is trained on them.

Belongs here: columns that teach nothing, cells that are missing. Does not: whether the records fit the layout (records.py).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from vae_core.records import MISSING, Layout, Records


class DataWarning(UserWarning):
    """The training records are usable but odd in a way that someone should know."""


@dataclass(frozen=True)
class Stock:
    """learned: of each column, whether it has any value. indicated: positions of the numbers that have some and miss some."""

    learned: tuple[bool, ...]
    indicated: tuple[int, ...]


def take_stock(layout: Layout, records: Records) -> Stock:
    """Look at every column.

    Raises where the records do not fit or nothing can be learned, and warns, once, about all columns that teach nothing.
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
        notes.append(f"never observed, left out of every score: {', '.join(empty)}")
    if constant:
        notes.append(f"constant, so that any other value will stand out: {', '.join(constant)}")
    if notes:
        warnings.warn("training columns " + "; ".join(notes), DataWarning, stacklevel=3)
    gaps = (i for i in range(len(layout.numeric)) if 0 < n_seen[i] < n)
    return Stock(tuple(seen > 0 for seen in n_seen), tuple(gaps))

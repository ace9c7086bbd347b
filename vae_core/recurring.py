"""Numbers that come back: what a model of densities says too much of them is taken off.

Belongs here: which values of a column recur, and the rule. Does not: the score's terms (scoring.py,
fused.py).

A Gaussian that has learned a column which is 0 in most records takes every other value for an outlier,
though it be the same one in each fiftieth record: the toll of one bridge, a surcharge, a quantity of -1. How
often a value comes back bounds how surprising it can be. Let f be the share of records with x = v, and
p(v|c) its probability given the rest c of a record. By Bayes' rule p(v|c) = f p(c|v) / p(c), so that among
the records with x = v

    E[-log p(v|c) | x = v] = -log f - KL(p(c|v) || p(c)) <= -log f.

A model whose typical term of a value, among the training records that have it, is above -log f + log 100
holds it a hundred times rarer than it is. What is above, e nats, is taken off the value's terms, though none
falls below -log f + log 100 by it. A value that its context explains has no e, and stays as surprising in a
context that it does not fit.
"""

# B records, N numeric columns, J columns, R recurring values

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MARGIN = math.log(100)  # nats; without it, attributes that tell few records apart would count for less
_FEWEST = 3  # values of a column; one of two is an attribute, and its rarer value all that it has to say
_LEAST = 20  # training records with a value, for a median of theirs to say much
Recurring = list[tuple[int, Tensor, Tensor, Tensor]]  # by column: value, bound, excess, by value


class RecurringValues(nn.Module):
    """The recurring values of a model's columns whose terms are too high, in order of column and value.

    column: (R,) position of the numeric column. value: (R,) in standardised units. bound: (R,) MARGIN less
    the logarithm of the share of records that have it, nats. excess: (R,) by how much their typical term is
    above that, nats.
    """

    column: Tensor
    value: Tensor
    bound: Tensor
    excess: Tensor

    def __init__(self, n_values: int = 0) -> None:
        super().__init__()
        self.register_buffer("column", torch.zeros(n_values, dtype=torch.int64))
        for name in ("value", "bound", "excess"):
            self.register_buffer(name, torch.zeros(n_values))

    def fit(self, numeric: Tensor, terms: Tensor, *, share: float) -> None:
        """Find them in training records.

        Args:
            numeric: (B, N) in standardised units, NaN where missing.
            terms: (B, >= N) of the score, relative to what is typical of the column.
            share: of all records, from which on a value counts as recurring; 0: none does.
        """
        found = [
            (torch.full_like(value, column, dtype=torch.int64), value, bound, excess)
            for column in range(numeric.shape[1] if share else 0)
            for value, bound, excess in [_excessive(numeric[:, column], terms[:, column], share)]
        ]
        if found:
            self.column, self.value, self.bound, self.excess = map(torch.cat, zip(*found, strict=True))

    def by_column(self) -> Recurring:
        """Return the values of each column that has any; on a GPU, that waits for it."""
        if not len(self.column):
            return []
        columns, counts = torch.unique_consecutive(self.column, return_counts=True)
        parts = (torch.split(x, counts.tolist()) for x in (self.value, self.bound, self.excess))
        return list(zip(columns.tolist(), *parts, strict=True))


def soften(terms: Tensor, numeric: Tensor, recurring: Iterable[tuple[int, Tensor, Tensor, Tensor]]) -> None:
    """Take the excess off the terms of recurring values, in place.

    Args:
        terms: (>= N, B), relative to what is typical of the column.
        numeric: (N, B) in standardised units, NaN where missing.
        recurring: from ``RecurringValues.by_column``.
    """
    for column, value, bound, excess in recurring:
        at = torch.searchsorted(value, numeric[column]).clamp_(max=len(value) - 1)
        term, highest = terms[column], bound[at]
        softened = torch.maximum(term - excess[at], highest).minimum(term)
        terms[column] = torch.where(value[at] == numeric[column], softened, term)


def _excessive(cells: Tensor, terms: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return one column's recurring values whose terms are too high, with bound and excess."""
    n, observed = len(cells), ~cells.isnan()
    order = terms[observed].argsort(stable=True)
    cells, terms = cells[observed][order], terms[observed][order]
    value, which, counts = torch.unique(cells, return_inverse=True, return_counts=True)
    if len(value) < _FEWEST:
        return value[:0], terms[:0], terms[:0]
    terms = terms[which.argsort(stable=True)]  # by value, and ascending for each
    median = terms[counts.cumsum(0) - counts + (counts - 1) // 2]
    bound = MARGIN + math.log(n) - counts.log()
    chosen = (counts >= max(_LEAST, share * n)) & (median > bound)
    return value[chosen], bound[chosen], (median - bound)[chosen]

"""p(x|z): what the decoder says about every column of a record.

Belongs here: categories, missing cells, and a record's columns as one. Does not: noise models of numbers
(noise.py), how their parameters are computed (model.py) or how a score is made of them (scoring.py). All
log-probabilities are in nats.

A likelihood is any object with ``log_prob(records) -> (..., n_records, n_columns)``, 0 where a cell is
missing.
"""

# M members, B records, N numeric columns, C categorical columns, K codes of one column

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vae_core.noise import Noise
from vae_core.records import MISSING, Records


class Likelihood(Protocol):
    """A distribution over records, given latents."""

    def log_prob(self, records: Records) -> Tensor:
        """Return each cell's log-probability or density, (..., n_records, n_columns); 0 where missing."""
        ...


@dataclass(frozen=True)
class Categorical:
    """Independent categories, each with a floor under its probability.

    p(code) = (1 - floor) * softmax(logits)[code] + floor / n_codes: whatever the network believes, a category
    costs at most log(n_codes / floor) nats. A record can then be surprising but never infinitely so. logits:
    one tensor (..., n_records, n_codes) per column.
    """

    logits: tuple[Tensor, ...]
    floor: float

    @cached_property
    def _even_share(self) -> Tensor:
        """(n_categorical,) log of the least probability of a column's codes.

        Made where the logits lie: to a copy from the host, a GPU's stream would wait in every step.
        """
        return torch.cat([x.new_full((1,), math.log(self.floor / x.shape[-1])) for x in self.logits])

    def log_prob(self, codes: Tensor) -> Tensor:
        """Return log-probabilities (..., n_records, n_categorical) of codes (n_records, n_categorical).

        They are in nats; that of a missing code is meaningless.
        """
        from_softmax = torch.stack(
            [
                -functional.cross_entropy(
                    logits.flatten(0, -2),
                    codes[:, column].expand(logits.shape[:-1]).flatten(),
                    ignore_index=MISSING,
                    reduction="none",
                ).view(logits.shape[:-1])
                for column, logits in enumerate(self.logits)
            ],
            dim=-1,
        )
        return torch.logaddexp(from_softmax + math.log1p(-self.floor), self._even_share)

    def probabilities(self, column: int) -> Tensor:
        """Return one column's probabilities, (..., n_records, n_codes)."""
        logits = self.logits[column]
        return logits.softmax(dim=-1) * (1 - self.floor) + self.floor / logits.shape[-1]


@dataclass(frozen=True)
class ColumnLikelihood:
    """p(x|z) of a whole record: its numeric and its categorical columns, independent given the latents."""

    numeric: Noise
    categorical: Categorical

    def log_prob(self, records: Records) -> Tensor:
        """Return (..., n_records, n_columns) nats, numeric columns first; 0 where a cell is missing."""
        log_prob = self.numeric.log_prob(records.values)
        if self.categorical.logits:
            log_prob = torch.cat([log_prob, self.categorical.log_prob(records.categorical)], dim=-1)
        return log_prob * records.observed

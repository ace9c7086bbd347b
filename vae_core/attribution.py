"""Why a flagged record scores high: which columns, and what they should have been.

Belongs here: counterfactuals, which cost several scorings per column and are meant for few records. Does not: the
per-column terms that every record has for free (scoring.py).
"""

# F records asked about, J columns

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.model import VAE
from vae_core.records import MISSING, Records
from vae_core.scoring import Expected, score

_ROUNDS = 5
_MOST_CELLS = 2**22  # of the altered records scored at once


@dataclass(frozen=True, eq=False)
class Attribution:
    """What raised the scores of records, and what was expected instead.

    drop: (n_records, n_columns) nats by which the score falls when this cell alone takes its expected value; 0 for a
        missing cell.
    share: (n_records, n_columns) of what is to explain: drops, none below 0, over their sum with ``kl_share``'s part.
    kl_share: (n_records,) the part of no single column: what the KL term keeps above its mean in training when the
        column with the largest drop takes its expected value.
    expected: each cell given the other columns of its record.
    """

    drop: Tensor
    share: Tensor
    kl_share: Tensor
    expected: Expected


def attribute(vae: VAE, records: Records) -> Attribution:
    """Explain records; costs about six scorings per record and column.

    What a number should have been given the other columns is found by leaving it out, putting the decoder's mean
    in its place and asking again (missing data imputation as in Rezende et al. 2014, with means instead of draws). On
    10 ADBench sets this named a column shifted by 4 standard deviations first in 98 % of cases (per-column terms
    83 %, the reconstruction 91 %, the median 97 %) and missed the true value by a third of the reconstruction's
    distance.
    """
    step = max(1, _MOST_CELLS // len(vae.layout.columns) ** 2)
    parts = [_attribute(vae, records[start : start + step]) for start in range(0, max(1, len(records)), step)]
    expected = [part.expected for part in parts]
    return Attribution(
        drop=torch.cat([part.drop for part in parts]),
        share=torch.cat([part.share for part in parts]),
        kl_share=torch.cat([part.kl_share for part in parts]),
        expected=Expected(
            mean=torch.cat([e.mean for e in expected]),
            std=torch.cat([e.std for e in expected]),
            code=torch.cat([e.code for e in expected]),
            probability=torch.cat([e.probability for e in expected]),
        ),
    )


def _attribute(vae: VAE, records: Records) -> Attribution:
    variants = _Variants(records)
    altered = variants.with_cells(
        torch.full_like(records.numeric, math.nan), torch.full_like(records.categorical, MISSING)
    )
    for _ in range(_ROUNDS):
        expected = variants.own_cells(score(vae, altered).expected)
        altered = variants.with_cells(expected.mean, expected.code)
    before, after = score(vae, records), score(vae, altered)
    shape = records.observed.shape
    drop_FJ = (before.anomaly_score[:, None] - after.anomaly_score.view(shape)) * records.observed
    kl_FJ = torch.minimum(after.kl_divergence.view(shape), before.kl_divergence[:, None])
    kl_left_F = kl_FJ.gather(1, drop_FJ.argmax(dim=1, keepdim=True)).squeeze(1)
    kl_part_F = (kl_left_F - vae.typical_kl.to(kl_left_F.device)).clamp(min=0)
    parts_FJ = drop_FJ.clamp(min=0)
    whole_F = (parts_FJ.sum(dim=1) + kl_part_F).clamp(min=torch.finfo(parts_FJ.dtype).tiny)
    return Attribution(drop_FJ, parts_FJ / whole_F[:, None], kl_part_F / whole_F, expected)


@dataclass(frozen=True)
class _Variants:
    """Each record once for every column, to change that one cell: rows in order of record, then column."""

    records: Records

    def with_cells(self, numeric: Tensor, categorical: Tensor) -> Records:
        """The F * J variants in which the cell of variant (f, j) is cell (f, j) of these values."""
        n_records, n_columns = self.records.observed.shape
        rows = torch.arange(n_records, device=self.records.device).repeat_interleave(n_columns)
        variants = self.records[rows]
        self._own(variants.numeric, 0).copy_(numeric)
        self._own(variants.categorical, numeric.shape[1]).copy_(categorical)
        return variants

    def own_cells(self, expected: Expected) -> Expected:
        """Of what is expected of the variants, the cell that each one is about."""
        n_numeric = expected.mean.shape[1]
        return Expected(
            self._own(expected.mean, 0).clone(),
            self._own(expected.std, 0).clone(),
            self._own(expected.code, n_numeric).clone(),
            self._own(expected.probability, n_numeric).clone(),
        )

    def _own(self, values: Tensor, first: int) -> Tensor:
        """A view of values (F * J, n) at the cells that the variants are about, (F, n); the n columns start at first."""
        n = values.shape[1]
        cube = values.view(*self.records.observed.shape, n)
        return cube[:, first : first + n].diagonal(dim1=1, dim2=2)

"""What a fitted model keeps of its training records: a linear model, and what is typical and what recurs.

Belongs here: filling the model's buffers once, at the end of a fit. Does not: what scores make of them
(scoring.py).
"""

# M members, B records of a slice, N numeric columns, J columns

from __future__ import annotations

import math

import torch

from vae_core.model import VAE
from vae_core.records import Records
from vae_core.scoring import cell_terms
from vae_core.slices import LARGEST_SLICE, in_slices

_NORMAL_MEDIAN = 0.4549364  # median of the square of a standard normal
_LOWEST_SCALE = 1e-3
_LEAST_TRIM = 0.01
_MOST_SUMMARISED = 65_536  # training records that are looked at
_MOST_CELLS = 2**24


def summarise_training(vae: VAE, records: Records, *, trim: float, seed: int) -> None:
    """Fill the model's buffers from its training records (a sample of them where there are very many).

    trim: share of the records, the highest-scoring, left out of the columns' typical terms; at least 1 %,
        because one absurd value would move a mean anywhere.
    """
    layout, n_training = vae.layout, len(records)
    n_most = max(
        LARGEST_SLICE, min(_MOST_SUMMARISED, _MOST_CELLS // (vae.recipe.n_members * len(layout.columns)))
    )
    if len(records) > n_most:
        chosen = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))[:n_most]
        records = records[chosen.sort().values.to(records.device)]
    records = records.to(vae.device)
    n, n_numeric = len(records), len(layout.numeric)

    squared_MBN = records.numeric.new_empty(vae.recipe.n_members, n, n_numeric)

    def keep_residuals(part: Records, rows: slice) -> None:
        likelihood = vae.decode(vae.encode(part).mean, part)
        squared = (part.values - likelihood.numeric.mean).square()
        squared_MBN[:, rows] = squared[:, : rows.stop - rows.start]

    in_slices(vae, records, keep_residuals)
    squared_MBN.masked_fill_(records.numeric.isnan(), math.nan)
    scale = squared_MBN.flatten(0, 1).nanmedian(dim=0).values / _NORMAL_MEDIAN
    vae.scale.copy_(scale.nan_to_num(nan=1.0).clamp(min=_LOWEST_SCALE))

    if vae.linear is not None:
        recipe = vae.recipe
        vae.linear.fit(records, trim=recipe.linear_trim, floor=recipe.sigma_floor)
        vae.linear.weight.fill_(recipe.linear_records / (recipe.linear_records + n_training))
    terms_BJ, kl_B = records.numeric.new_empty(n, len(layout.columns)), records.numeric.new_empty(n)

    def keep_terms(part: Records, rows: slice) -> None:
        terms = cell_terms(vae, part)
        terms_BJ[rows] = terms.columns[: rows.stop - rows.start]
        kl_B[rows] = terms.kl_divergence[: rows.stop - rows.start]

    in_slices(vae, records, keep_terms)
    terms_BJ *= records.observed
    n_kept = max(1, round(n * (1 - max(trim, _LEAST_TRIM))))
    kept = (terms_BJ.sum(dim=1) + kl_B).argsort(stable=True)[:n_kept]
    vae.typical.copy_(terms_BJ[kept].sum(dim=0) / records.observed[kept].sum(dim=0).clamp(min=1))
    vae.typical_kl.copy_(kl_B[kept].mean())
    vae.recurring.fit(records.numeric, terms_BJ - vae.typical, share=vae.recipe.recurring_share)

"""How far a number of a normal record may lie from what the others say: the interval of an expected value.

Belongs here: its bounds, learned from records that the model has not seen. Does not: the expected value and
its deviation (vae_core), or how they are shown (reasons.py).

The decoder's deviation says how far cells lie from their mean where the latents are known. A cell's interval
is asked for without the cell, so that the latents are less certain, and few columns are Gaussian. So the
bounds are the quantiles of (value − expected) / deviation on later records: split conformal prediction (Lei
et al. 2018), each end with half of what is left out. They hold for a share HELD of normal records, on average
over all; a column's interval may be too wide for one kind of record and too narrow for another.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from pipeline.detection.values import Floats
from vae_core import VAE, Records, expect_from_others

HELD = 0.95  # share of normal records' values
GAUSSIAN = 1.959964  # deviations either side that hold as much of a Gaussian
_MOST, _MOST_CELLS = 1000, 2**15  # records, and their cells, that are asked about

Bounds = tuple[tuple[float, float], ...]  # of each numeric column, in deviations: at most 0, at least 0


def gaussian(n_columns: int) -> Bounds:
    """Return the bounds of columns about which nothing was learned."""
    return ((-GAUSSIAN, GAUSSIAN),) * n_columns


def learned(vae: VAE, records: Records) -> Bounds:
    """Return the bounds that hold for records which the model has not seen; of many, some are asked about."""
    n_numeric, n = records.numeric.shape[1], len(records)
    if not n_numeric:
        return ()
    n_asked = min(n, _MOST, max(1, _MOST_CELLS // records.observed.shape[1]))
    asked = records[torch.linspace(0, n - 1, n_asked).long()]
    expected = expect_from_others(vae, asked)
    away = ((asked.numeric - expected.mean) / expected.std).numpy().astype(np.float64)
    return tuple(of_values(column[np.isfinite(column)]) for column in away.T)


def carried_over(bounds: Bounds, before: Bounds, after: Bounds) -> Bounds:
    """Return the bounds of a model trained anew: stretched as those of records that both models learned are.

    Args:
        bounds: of the earlier model, on records that it has not seen.
        before, after: of the earlier model and of this one, on records that both have seen.
    """

    def stretched(end: float, known: float, now: float) -> float:
        return end * now / known if known else end

    columns = zip(bounds, before, after, strict=True)
    return tuple((stretched(a[0], b[0], c[0]), stretched(a[1], b[1], c[1])) for a, b, c in columns)


def of_values(away: Floats) -> tuple[float, float]:
    """Return the bounds that hold the next value with probability HELD at least, if there are enough."""
    away, n = np.sort(away), len(away)
    outside = math.floor((n + 1) * (1 - HELD) / 2)  # values beyond each bound, and the bound itself
    if not outside:
        return min([-GAUSSIAN, *away[:1].tolist()]), max([GAUSSIAN, *away[-1:].tolist()])
    return min(0.0, float(away[outside - 1])), max(0.0, float(away[n - outside]))

"""Means of the differences between two versions, and how far chance alone moves them.

Belongs here: statistics of arrays. Does not: whose they are (measurement.py), or bounds on them (judging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.evaluation.evidence import Difference, Excess

TRIM = 0.05  # of the values on either side, for means of nats: one absurd value would dominate them

Array = np.ndarray[Any, np.dtype[Any]]


def paired(differences: Sequence[Array]) -> Difference:
    """Return the mean; a record's kinds belong together: their mean is one observation."""
    each = np.mean(differences, axis=0)
    return Difference(float(each.mean()), float(each.std() / np.sqrt(max(1, len(each)))), len(each))


def trimmed_mean(values: Array) -> Difference:
    """Return the mean without the lowest and highest 5 %.

    Its standard error is from the winsorised deviation (Tukey & McLaughlin 1963).
    """
    values = np.sort(values[np.isfinite(values)])
    cut = int(TRIM * len(values))
    kept = values[cut : len(values) - cut]
    if not len(kept):
        return Difference(0.0, float("inf"), 0)
    winsorised = values.clip(kept[0], kept[-1])
    error = winsorised.std() / ((1 - 2 * TRIM) * np.sqrt(len(values)))
    return Difference(float(kept.mean()), float(error), len(values))


def excess(values: Array, others: Array) -> Excess | None:
    """Return by how much more of the first lie above a level, where that is most; None without any."""
    if not len(values) or not len(others):
        return None
    levels = np.concatenate([values, others])
    above = (1 - np.searchsorted(np.sort(x), levels, "right") / len(x) for x in (values, others))
    of_values, of_others = above
    return Excess(float(max(0.0, (of_values - of_others).max())), len(values), len(others))


def chance_above(high: Array, low: Array) -> float:
    """Return the chance that one of the first is above one of the second, ties by half.

    Mann & Whitney 1947.
    """
    low = np.sort(low)
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(np.mean(below)) / 2 / max(1, len(low))

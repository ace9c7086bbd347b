"""Whether methods differ over many sets, after Demšar (2006): ranks, Friedman's test, Nemenyi's critical
difference.

Pure functions of a (n_methods, n_sets) matrix in which more is better and NaN stands for a method that
failed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import chi2, rankdata, studentized_range

Array = np.ndarray[Any, np.dtype[Any]]


def ranks(values: Array) -> Array:
    """(n_methods, n_sets): 1 for the best of each set; ties share the mean of their ranks, failures the last
    ones.
    """
    return np.asarray(rankdata(-np.where(np.isnan(values), -np.inf, values), axis=0))


def friedman_p(ranked: Array) -> float:
    """The chance of mean ranks as different as these if no method were better than another (Demšar 2006,
    3.2.2).
    """
    n_methods, n_sets = ranked.shape
    spread = ((ranked.mean(axis=1) - (n_methods + 1) / 2) ** 2).sum()
    statistic = 12 * n_sets / (n_methods * (n_methods + 1)) * spread
    return float(chi2.sf(statistic, n_methods - 1))


def critical_difference(n_methods: int, n_sets: int, level: float = 0.05) -> float:
    """Mean ranks farther apart than this differ at the level, all pairs considered (Nemenyi 1963)."""
    q = studentized_range.ppf(1 - level, n_methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_sets)))


def not_told_apart(mean_ranks: Array, difference: float) -> list[tuple[int, int]]:
    """First and last of each largest run of methods within a critical difference; ``mean_ranks`` ascend.
    (n_methods,)
    """
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(mean_ranks):
        last = int(np.searchsorted(mean_ranks, rank + difference, side="right")) - 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def mean_and_error(values: Array) -> tuple[float, float]:
    """Mean over the sets and its standard error, without those where the method failed. (n_sets,)"""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return float(values.mean()) if len(values) else math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))

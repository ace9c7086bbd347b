"""From a score to how unusual it is: p-values, severity, and the threshold above which a record is flagged.

Belongs here: statements about normal records, learned from scores of records kept from training. Does not:
how a score comes about (vae_core), or a person's wishes (config/dataset.py's Flagging, which is read here).

Split-conformal prediction: Vovk, Gammerman & Shafer (2005); false-discovery rate: Benjamini & Hochberg (1995)
on conformal p-values, Bates et al. (2023); tail: generalised Pareto by probability-weighted moments, Hosking
& Wallis (1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.config.dataset import Flagging
from pipeline.errors import NotReady

MOST_KEPT = 100_000
FEWEST = 20
TAIL_SHARE = 0.05
FEWEST_IN_TAIL = 30
FEWEST_COUNTED = 10  # records that score higher; a count of fewer says little
INCREDIBLE = 16  # above it severity grows with its logarithm: nobody knows a tail to one in 10^16
MAPPED = (0.01, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)  # quantiles
FEWEST_BEYOND = 20  # records above a quantile that may be mapped
FEWEST_DAYS = 3  # needed to tell that one is unlike the others

Array = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True)
class Threshold:
    """A score above which a record is flagged.

    Attributes:
        error_rate: share of normal records expected above it.
        extrapolated: taken from the fitted tail, beyond the calibration records: a rough value.
    """

    value: float
    error_rate: float
    extrapolated: bool


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto tail: P(score > start + x) = share · (1 + shape · x / scale)^(−1/shape)."""

    start: float
    share: float
    shape: float
    scale: float

    def probability(self, scores: Array) -> Array:
        """Return P(score > s) for scores above the tail's start. (n,)"""
        return np.exp(self.log_probability(scores))

    def log_probability(self, scores: Array) -> Array:
        """Return ln P(score > s); finite for every finite score."""
        x = np.maximum(np.asarray(scores, np.float64) - self.start, 0) / self.scale
        decay = np.log1p(self.shape * x) / self.shape if self.shape > 1e-6 else x
        return np.asarray(math.log(self.share) - decay)

    def quantile(self, probability: float) -> float:
        """Return the score exceeded with this probability, which must be at most `share`."""
        ratio = self.share / probability
        x = (ratio**self.shape - 1) / self.shape if self.shape > 1e-6 else math.log(ratio)
        return self.start + self.scale * x


@dataclass(frozen=True)
class Calibration:
    """Scores of calibration records, ascending, float32. None of them was trained on. (n,)"""

    scores: Array

    @classmethod
    def fit(cls, scores: Array, days: Array | None = None) -> Calibration:
        """Keep scores, without a day's excess where days are given; very many are thinned evenly by rank.

        Args:
            days: a number for the day of each record. (n,)

        Raises:
            NotReady: there are fewer than 20 records.
        """
        if len(scores) < FEWEST:
            raise NotReady(
                f"{len(scores)} records are too few to calibrate on (at least {FEWEST}): "
                "wait for more batches or raise train.calibration"
            )
        scores = np.asarray(scores, np.float32)
        kept = np.sort(scores if days is None else scores[without_excess(scores, days)])
        if len(kept) > MOST_KEPT:
            kept = kept[np.linspace(0, len(kept) - 1, MOST_KEPT).round().astype(np.int64)]
        return cls(kept)

    def carried_over(self, before: Array, after: Array) -> Calibration:
        """Map the calibration to another model that was trained by the same recipe.

        Two trainings never end in the same model, and one may score everything higher. How much higher is
        seen on records that both have learned, by quantile mapping (Panofsky & Brier 1968): a line through
        the quantiles of one model's scores against the other's. Beyond the last quantile it continues with
        the slope from the median on.

        Args:
            before, after: scores of the same records by the calibrated model and by the other. (n_records,)
        """
        levels = [x for x in MAPPED if x <= 0.5 or (1 - x) * len(before) >= FEWEST_BEYOND]
        old, new = (np.quantile(np.asarray(x, np.float64), levels) for x in (before, after))
        rising = np.concatenate([[True], np.diff(old) > 0])
        old, new = old[rising], new[rising]
        scores = np.asarray(self.scores, np.float64)
        middle = min(MAPPED.index(0.5), len(old) - 1)
        slope = (new[-1] - new[middle]) / (old[-1] - old[middle]) if old[-1] > old[middle] else 1.0
        mapped = np.interp(scores, old, new) + np.minimum(scores - old[0], 0)
        return Calibration((mapped + slope * np.maximum(scores - old[-1], 0)).astype(np.float32))

    @property
    def n(self) -> int:
        return len(self.scores)

    @property
    def spread(self) -> tuple[float, float] | None:
        """The median, and the score that one record in a hundred exceeds; None where both are equal."""
        middle, rare = (float(x) for x in np.quantile(self.scores, [0.5, 0.99]))
        return (middle, rare) if rare > middle else None

    def p_values(self, scores: Array) -> Array:
        """Return conformal p-values. (n_records,) float64

        Each is (1 + calibration records that score at least as high) / (n + 1).
        """
        return np.asarray((1 + self.n - self._below(scores)) / (self.n + 1))

    def _below(self, scores: Array) -> Array:
        """Return how many calibration records score lower. (n_records,)

        In sorted order, the search walks through memory in order.
        """
        order = np.argsort(scores)
        found = np.empty(len(scores), np.int64)
        found[order] = np.searchsorted(self.scores, np.asarray(scores)[order], side="left")
        return found

    def severity(self, scores: Array, p_values: Array | None = None) -> Array:
        """Return −log10 of the p-value, or of the tail's probability. (n_records,)

        The tail takes over where p-values count fewer than ten records: so severity goes on rising where they
        have hit their floor 1/(n+1).

        p_values: of these scores, where they are known.
        """
        scores = np.asarray(scores)
        found = np.asarray(-np.log10(self.p_values(scores) if p_values is None else p_values))
        far = scores > self.tail.start
        beyond = -self.tail.log_probability(scores[far]) / math.log(10)
        beyond = np.where(
            beyond > INCREDIBLE, INCREDIBLE + np.log10(np.maximum(beyond - INCREDIBLE, 0) + 1), beyond
        )
        found[far] = np.maximum(beyond, -math.log10(self.tail.share))
        return found

    def share_above(self, scores: Array, p_values: Array | None = None) -> float:
        """Return the chance that one of these scores is above one of the calibration records.

        Equal ones count by half: Mann & Whitney's U (1947).

        p_values: of these scores, where they are known.
        """
        p_values = self.p_values(scores) if p_values is None else p_values
        below = self.n + 1 - np.rint(p_values * (self.n + 1)).astype(np.int64)
        ties = np.asarray(scores)[self.scores[np.minimum(below, self.n - 1)] == scores]
        n_equal = np.searchsorted(self.scores, ties, side="right") - np.searchsorted(self.scores, ties)
        return float(below.sum() + n_equal.sum() / 2) / (self.n * len(scores))

    @cached_property
    def tail(self) -> Tail:
        """The tail from where fewer than ten calibration records are higher.

        Its shape is that of the highest twentieth: a generalised Pareto tail stays one from any later start,
        its scale growing by its shape. If it started at the twentieth, it would contradict records that can
        be counted: water's scores go from 5 to 3,000 nats within their highest twentieth, which no such tail
        does. The shape is kept in [0, 0.9]: no score is called impossible, every mean exists.
        """
        n_tail = min(self.n // 2, max(FEWEST_IN_TAIL, math.ceil(TAIL_SHARE * self.n)))
        fitted_from, start = float(self.scores[-n_tail - 1]), float(self.scores[-FEWEST_COUNTED - 1])
        excess = np.asarray(self.scores[-n_tail:], np.float64) - fitted_from
        mean = max(float(excess.mean()), 1e-9 * max(1.0, abs(fitted_from)))
        weights = (n_tail - 0.65 - np.arange(n_tail)) / n_tail
        weighted = float((weights * excess).mean())
        shape = min(max(2 - mean / (mean - 2 * weighted), 0.0), 0.9)
        # the share equals the conformal p-value at the start, so that severity has no step
        share = float(self.p_values(np.array([np.nextafter(np.float32(start), np.float32(math.inf))]))[0])
        return Tail(start, share, shape, mean * (1 - shape) + shape * (start - fitted_from))

    def threshold(self, flag: Flagging, records_per_day: float) -> Threshold:
        """Return the score above which records are flagged, for a review budget or an error rate.

        The ceil((n + 1)(1 − α))-th calibration score where there is one, else the tail's quantile. A
        false-discovery rate has no fixed threshold: its largest possible one is returned, see `flags`.
        """
        rate = flag.error_rate or flag.false_discovery_rate
        if flag.review_budget is not None:
            rate = min(0.5, flag.review_budget / max(records_per_day, 1.0))
        assert rate is not None  # noqa: S101  # Flagging holds exactly one rule
        return self._exceeded_by(rate)

    def _exceeded_by(self, rate: float) -> Threshold:
        rank = math.ceil((self.n + 1) * (1 - rate))
        if rank <= self.n:
            return Threshold(float(self.scores[rank - 1]), rate, extrapolated=False)
        value = np.nextafter(np.float32(self.tail.quantile(rate)), np.float32(math.inf))
        return Threshold(max(float(value), float(self.scores[-1])), rate, extrapolated=True)

    def flags(self, scores: Array, flag: Flagging, records_per_day: float) -> tuple[Array, Threshold]:
        """Return which records of a batch are flagged, (n_records,) bool, and the score they must exceed."""
        threshold = self.threshold(flag, records_per_day)
        if flag.false_discovery_rate is not None:
            threshold = self._benjamini_hochberg(scores, flag.false_discovery_rate)
        flagged = np.asarray(scores) > threshold.value
        if flag.cap is not None and flagged.sum() > flag.cap:
            least = np.sort(np.asarray(scores)[flagged])[-flag.cap]
            # records that tie with the last are kept: order must not matter
            flagged &= np.asarray(scores) >= least
        return flagged, threshold

    def _benjamini_hochberg(self, scores: Array, rate: float) -> Threshold:
        p = np.sort(self.p_values(scores))
        passing = np.flatnonzero(p <= rate * np.arange(1, len(p) + 1) / max(1, len(p)))
        if not len(passing):  # what a single record of this batch would have had to exceed
            single = self._exceeded_by(rate / max(1, len(p)))
            return replace(single, value=max(single.value, float(np.max(scores, initial=-np.inf))))
        largest = float(p[passing[-1]])
        n_as_high = round(largest * (self.n + 1) - 1)  # calibration records, of a score with this p-value
        rank = self.n - n_as_high
        return Threshold(float(self.scores[rank - 1]), largest, extrapolated=False)


def most_of_a_day(usual: float) -> float:
    """Return how many records above a level a day may have where `usual` are usual.

    Twice as many, or two deviations of a Poisson count and one more, which is the larger where there are few.
    """
    return usual + max(usual, 2 * math.sqrt(usual) + 1)


def usual_hits(hits: Array, days: Array) -> int:
    """Return how many records would be hits if no day exceeded `most_of_a_day` by the other days.

    Thresholds are set with the same bound.

    Args:
        hits, days: whether each record is a hit, and a number for its day. (n,)
    """
    _, day_of, sizes = np.unique(days, return_inverse=True, return_counts=True)
    counted: list[float] = np.bincount(day_of, hits, minlength=len(sizes)).tolist()
    to_others = (sizes / np.maximum(1, len(hits) - sizes)).tolist()
    total, before = sum(counted), math.inf
    while len(sizes) >= FEWEST_DAYS and before - total > 0.5:
        counted = [min(n, most_of_a_day((total - n) * to)) for n, to in zip(counted, to_others, strict=True)]
        total, before = sum(counted), total
    return round(total)


def without_excess(scores: Array, days: Array) -> Array:
    """Return which records stay so that no day exceeds `most_of_a_day` at any level. (n,) bool

    The others' mean is what is usual. An event fills its day with high scores. Counted like others, one such
    day among six takes all that an error rate allows, and other days flag nothing. With this bound it decides
    no more than any other day: the promised number of flags becomes Huber's M-estimate (1964) of the days'
    numbers. With fewer than three days nobody can say which is the unusual one, so all stay.

    Args:
        days: a number for the day of each record. (n,)
    """
    _, day_of, sizes = np.unique(days, return_inverse=True, return_counts=True)
    if len(sizes) < FEWEST_DAYS:
        return np.ones(len(scores), bool)
    highest_first = np.argsort(-scores, kind="stable")
    to_others, n_of_day, n_staying = (sizes / (len(scores) - sizes)).tolist(), [0] * len(sizes), 0
    staying = np.zeros(len(scores), bool)
    for record, day in zip(highest_first.tolist(), day_of[highest_first].tolist(), strict=True):
        of_others = n_staying - n_of_day[day]
        if n_of_day[day] + 1 <= most_of_a_day((of_others + 1) * to_others[day]):
            staying[record] = True
            n_of_day[day] += 1
            n_staying += 1
    return staying

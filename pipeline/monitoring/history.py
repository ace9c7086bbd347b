"""What is usual of a dataset's batches, learned from the earlier ones.

Usual is the median of batches of the same weekday, where there are three of them and weekdays predict better
than all days do; else of all batches. Allowed is the larger of a floor, an effect that a person would want to
know of, and five times the error that one batch in ten exceeds when predicted from the others. With less than
a week of history, it is ten floors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import takewhile

import numpy as np

from pipeline.detection.measures import Measures
from pipeline.detection.reference import Array
from pipeline.monitoring.findings import Finding

MOST_EARLIER = 56  # batches: eight weeks of days
FEWEST_SIMILAR, FEWEST_EARLIER = 3, 7  # of the same weekday, of any
# times the error that one batch in ten exceeds is allowed: differences between days have long tails
SPREAD, SHARE = 5.0, 0.9
FEW = 10.0  # times the floor, while too little is known


@dataclass(frozen=True)
class Past:
    """An earlier batch: its day, its numbers, and its findings."""

    batch_id: str
    day: date
    measures: Measures
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What similar batches did.

    floor: an effect that a person would want to know of. below, above: how far from the median days go by
    themselves. known: False while they are too few.
    """

    median: float
    floor: float
    below: float
    above: float
    known: bool

    def allowed(self, value: float) -> float:
        """Return the distance from the median that is not reported, on a value's side."""
        return max(self.floor, self.above if value > self.median else self.below)

    def beyond(self, value: float, *, noise: float) -> float:
        """Return the distance from the median, in multiples of what is allowed.

        It must be beyond the floor without chance's part, and beyond the days' spread, which chance is part
        of.
        """
        apart = abs(value - self.median)
        spread = self.above if value > self.median else self.below
        by_floor = max(0.0, apart - noise) / self.floor if self.floor else np.inf
        return float(min(by_floor, apart / spread if spread else np.inf))

    def above_by(self, value: float, *, noise: float) -> float:
        """Return the same for a number of which less is no news."""
        return self.beyond(value, noise=noise) if value > self.median else 0.0


@dataclass(frozen=True)
class History:
    """Earlier batches, oldest first, as those of one day see them."""

    past: Sequence[Past]
    day: date

    def usual(
        self, key: str, read: Callable[[Measures], float | None], floor: float, expected: float
    ) -> Usual:
        """Return what is usual of one number.

        expected: while too little is known. The latest unbroken run of batches with the same finding is left
        out, so that lasting drift is reported every day; unless they are most, and it is usual by now.
        """
        known = [(p, value) for p in self.past if (value := read(p.measures)) is not None]
        recent = known[-MOST_EARLIER:]
        if len(recent) < FEWEST_EARLIER:
            return Usual(expected, FEW * floor, 0.0, 0.0, known=False)
        in_a_row = sum(1 for _ in takewhile(lambda x: _is_told(x[0], key), reversed(recent)))
        if 2 * in_a_row <= len(recent):  # else it is usual by now
            recent = recent[: len(recent) - in_a_row]
        values = np.array([value for _, value in recent])
        weekdays, today = np.array([p.day.weekday() for p, _ in recent]), self.day.weekday()
        median, apart = _foretold(values, weekdays, today)
        same = values[weekdays == today]
        if len(same) < FEWEST_SIMILAR:  # one or two of the same weekday say a little
            apart = np.concatenate([apart, np.repeat(same - median, len(values))])
        share = min(1.0, SHARE * (1 + 1 / len(values)))  # the largest of few errors: the next may be larger
        low, high = (float(x) for x in np.quantile(apart, [1 - share, share]))
        return Usual(median, floor, max(0.0, -SPREAD * low), max(0.0, SPREAD * high), known=True)


def _foretold(values: Array, weekdays: Array, today: int) -> tuple[float, Array]:
    """Predict a batch of a weekday from the earlier ones, and return how wrong that is for each of them.

    The prediction is the median of its weekday where weekdays predict better than all days do, else of all.
    Each batch is predicted by the others alone: three equal weekdays that agree by chance would promise too
    much.

    Returns:
        median, errors: errors of the earlier batches, (n,).
    """
    overall = values - _medians_of_others(values)
    weekly = overall.copy()
    for d in set(weekdays.tolist()):
        same = weekdays == d
        if same.sum() >= FEWEST_SIMILAR:
            weekly[same] = values[same] - _medians_of_others(values[same])
    if np.abs(weekly).mean() >= np.abs(overall).mean():
        return float(np.median(values)), overall
    same = weekdays == today
    return float(np.median(values[same] if same.sum() >= FEWEST_SIMILAR else values)), weekly


def _medians_of_others(values: Array) -> Array:
    """Return for each value the median of all others, which would have predicted it. (n,), n at least 2"""
    n = len(values)
    order = np.argsort(values, kind="stable")
    rank = np.empty(n, dtype=int)
    rank[order] = np.arange(n)
    low, high = (n - 2) // 2, (n - 1) // 2
    return np.asarray((values[order[low + (low >= rank)]] + values[order[high + (high >= rank)]]) / 2)


def _is_told(past: Past, key: str) -> bool:
    return any(finding.key == key for finding in past.findings)

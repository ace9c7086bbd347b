"""What is usual of a dataset's batches, learned from the earlier ones.

Usual is the median of batches of the same weekday where there are three of them, else of all. Allowed is the
larger of a floor, an effect that a person would want to know of, and five times as far as one batch in ten is
from its own weekday's median. While there is less than a week of history, ten floors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import takewhile

import numpy as np

from pipeline.monitoring.findings import Finding
from pipeline.monitoring.measures import Measures

MOST_EARLIER = 56  # batches: eight weeks of days
FEWEST_SIMILAR, FEWEST_EARLIER = 3, 7  # of the same weekday, of any
# times what one batch in ten exceeds is allowed: where days differ by themselves, they do so with long tails
SPREAD = 5.0
FEW = 10.0  # times the floor, while too little is known


@dataclass(frozen=True)
class Past:
    """An earlier batch: its day, its numbers, and what was told of it."""

    batch_id: str
    day: date
    measures: Measures
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What similar batches did. floor: an effect that a person would want to know of.
    below, above: how far from the median days go by themselves. known: false while they are too few."""

    median: float
    floor: float
    below: float
    above: float
    known: bool

    def allowed(self, value: float) -> float:
        """How far from the median is not told of, on a value's side."""
        return max(self.floor, self.above if value > self.median else self.below)


@dataclass(frozen=True)
class History:
    """Earlier batches, oldest first, as those of one day see them."""

    past: Sequence[Past]
    day: date

    def usual(
        self, key: str, read: Callable[[Measures], float | None], floor: float, expected: float
    ) -> Usual:
        """What is usual of one number. expected: while too little is known. The batches just before of which
        the same was told are left out, so that drift that stays is told every day, unless they are most: then
        it is usual by now.
        """
        known = [(p, value) for p in self.past if (value := read(p.measures)) is not None]
        recent = known[-MOST_EARLIER:]
        if len(recent) < FEWEST_EARLIER:
            return Usual(expected, FEW * floor, 0.0, 0.0, known=False)
        in_a_row = sum(1 for _ in takewhile(lambda x: _is_told(x[0], key), reversed(recent)))
        if 2 * in_a_row <= len(recent):  # else it is usual by now
            recent = recent[: len(recent) - in_a_row]
        by_weekday = defaultdict[int, list[float]](list)
        for p, value in recent:
            by_weekday[p.day.weekday()].append(value)
        overall = float(np.median([value for _, value in recent]))
        middle = {
            d: float(np.median(v)) if len(v) >= FEWEST_SIMILAR else overall for d, v in by_weekday.items()
        }
        apart = [value - middle[p.day.weekday()] for p, value in recent]
        today = by_weekday[self.day.weekday()]
        median = middle.get(self.day.weekday(), overall)
        if len(today) < FEWEST_SIMILAR:  # one or two of the same weekday say little, but more than none
            apart += [value - overall for value in today] * len(recent)
        low, high = (float(x) for x in np.quantile(apart, [0.1, 0.9]))
        return Usual(median, floor, max(0.0, -SPREAD * low), max(0.0, SPREAD * high), known=True)


def _is_told(past: Past, key: str) -> bool:
    return any(finding.key == key for finding in past.findings)

"""Bounds that are proposed for a number: beyond what any delivery should hold, not where the sample ended.

Belongs here: from how a sample lies to its bounds. Does not: which columns are numbers (guesses.py).

A record beyond a bound is set aside: nobody is asked about it, and it is never scored. A bound that is too
tight hides the best anomalies; one that is too wide leaves them to the model (docs/decisions/bounds.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

UNUSUAL, FEWEST_UNUSUAL = 0.001, 2  # share and number of records on either side of what is usual
ROOM = 20  # widths of the usual that lie between it and a bound
FAR = 5  # widths beyond the usual; where the sample goes farther, a bound would be a guess
MOST_DIGITS = 1e15  # below it every whole number is a float of its own

Side = Literal["min", "max"]


def unusual_share(n: int) -> float:
    """Share of n records at either end that say nothing of how wide the usual is."""
    return min(0.25, max(UNUSUAL, FEWEST_UNUSUAL / max(1, n - 1)))


@dataclass(frozen=True)
class Spread:
    """How the numbers of a column lie: its extremes, what is usual between them, and its median."""

    low: float
    usual_low: float
    middle: float
    usual_high: float
    high: float

    @property
    def width(self) -> float:
        return self.usual_high - self.usual_low

    @property
    def is_bounded(self) -> bool:
        """Whether there is a width to go by: nearly all values are not the same, and floats can tell it."""
        return 0 < self.width < 1e300

    @property
    def bounds(self) -> dict[str, float]:
        """Those that there are: not across zero where the sample is on one side of it, and none on a side
        where the sample goes far beyond the usual.
        """
        if not self.is_bounded:
            return {}
        room = max(ROOM * self.width, abs(self.middle))
        found: dict[str, float] = {}
        if "min" not in self.far:
            low = self.usual_low - room
            found["min"] = 0 if low <= 0 <= self.low else _rounded(low, room)
        if "max" not in self.far:
            high = self.usual_high + room
            found["max"] = 0 if self.high <= 0 <= high else _rounded(high, room)
        return found

    @property
    def far(self) -> dict[Side, float]:
        """Of a side on which the sample goes far beyond the usual: where far begins."""
        if not self.is_bounded:
            return {}
        way = FAR * self.width
        lines: dict[Side, float] = {
            "min": _rounded(self.usual_low - way, way),
            "max": _rounded(self.usual_high + way, way),
        }
        return {s: x for s, x in lines.items() if (self.low < x if s == "min" else self.high > x)}


def _rounded(value: float, room: float) -> float:
    """To two digits of the room that was given; without a point and nought where it has no use."""
    short = round(value, 1 - math.floor(math.log10(room)))
    return int(short) if short.is_integer() and abs(short) < MOST_DIGITS else short

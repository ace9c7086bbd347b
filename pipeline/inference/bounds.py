"""Bounds that are proposed for a number: beyond what any delivery should hold, not where the sample ended.

Belongs here: from a sample's spread to its bounds. Does not: which columns are numbers (guesses.py).

A record beyond a bound is set aside: nobody is asked about it, and it is never scored. A bound that is too
tight hides the best anomalies; one that is too wide leaves them to the model (docs/decisions/bounds.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

UNUSUAL, FEWEST_UNUSUAL = 0.001, 2  # share and number of records on either side of the usual range
ROOM = 20  # room between the usual range and a bound, in widths of that range
FAR = 5  # widths beyond the usual range; if the sample goes farther, a bound would be a guess
MOST_DIGITS = 1e15  # below it, a float holds every whole number exactly

Side = Literal["min", "max"]


def unusual_share(n: int) -> float:
    """Return the share of n records at either end that is left out of the usual range."""
    return min(0.25, max(UNUSUAL, FEWEST_UNUSUAL / max(1, n - 1)))


@dataclass(frozen=True)
class Spread:
    """How the numbers of a column lie: the extremes, the usual range between them, and the median."""

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
        """Whether the usual range has a width to go by: values differ, and floats can tell it."""
        return 0 < self.width < 1e300

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds to propose.

        None crosses zero if the sample is on one side of it. A side on which the sample goes far beyond the
        usual range gets none.
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
        """Where "far" begins, for each side on which the sample goes far beyond the usual range."""
        if not self.is_bounded:
            return {}
        way = FAR * self.width
        lines: dict[Side, float] = {
            "min": _rounded(self.usual_low - way, way),
            "max": _rounded(self.usual_high + way, way),
        }
        return {s: x for s, x in lines.items() if (self.low < x if s == "min" else self.high > x)}


def _rounded(value: float, room: float) -> float:
    """Round to two digits of the room that was given; return a whole number as an int."""
    short = round(value, 1 - math.floor(math.log10(room)))
    return int(short) if short.is_integer() and abs(short) < MOST_DIGITS else short

"""Bounds that are proposed for a number: beyond what any delivery should hold, not where the sample ended.

Belongs here: from a sample's spread to its bounds. Does not: which columns are numbers (guesses.py).

A record beyond a bound is set aside: nobody is asked about it, and it is never scored. A bound that is too
tight hides the best anomalies; one that is too wide leaves them to the model (docs/decisions/bounds.md).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

UNUSUAL, FEWEST_UNUSUAL = 0.001, 2  # share and number of records on either side of the usual range
ROOM = 20  # room between the usual range and a bound, in widths of that range
FAR = 5  # widths beyond the usual range; if the sample goes farther, a bound would be a guess
MOST_DIGITS = 1e15  # below it, a float holds every whole number exactly

WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])")  # of a name like shop_amount, shopAmount

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
    def has_both_signs(self) -> bool:
        return self.low < 0 < self.high

    def bounds(self, *, stop_at_zero: bool = True) -> dict[str, float]:
        """Return the bounds to propose.

        A side on which the sample goes far beyond the usual range gets none.

        Args:
            stop_at_zero: let none cross zero if the sample is on one side of it.
        """
        if not self.is_bounded:
            return {}
        room = max(ROOM * self.width, abs(self.middle))
        found: dict[str, float] = {}
        if "min" not in self.far:
            low = self.usual_low - room
            found["min"] = 0 if stop_at_zero and low <= 0 <= self.low else _rounded(low, room)
        if "max" not in self.far:
            high = self.usual_high + room
            found["max"] = 0 if stop_at_zero and self.high <= 0 <= high else _rounded(high, room)
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


def crossing_zero(spreads: Mapping[str, Spread]) -> dict[str, list[str]]:
    """Return which columns may cross zero though their sample does not, and because of which others.

    These are the columns whose name ends in the same word and whose sample has both signs: where fare_amount
    is below zero in reversals, so will tolls_amount be once a toll is reversed.
    """
    both = [(name, _kind(name)) for name, spread in spreads.items() if spread.has_both_signs]
    found = {
        name: [other for other, kind in both if kind == _kind(name)]
        for name, spread in spreads.items()
        if spread.bounds() != spread.bounds(stop_at_zero=False)
    }
    return {name: others for name, others in found.items() if others}


def _kind(name: str) -> str:
    """Return the last word of a column's name: amount of tolls_amount, TollsAmount and amount_2."""
    words = WORD.findall(name)
    return words[-1].casefold() if words else name


def _rounded(value: float, room: float) -> float:
    """Round to two digits of the room that was given; return a whole number as an int."""
    short = round(value, 1 - math.floor(math.log10(room)))
    return int(short) if short.is_integer() and abs(short) < MOST_DIGITS else short

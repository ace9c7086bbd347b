"""How a numeric column is standardised for the model, and a model's number put back into the column's units.

Belongs here: one column's numbers, learned from training values. Does not: other kinds of columns, and all of
them together (features.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from pipeline.detection.values import Floats
from vae_core.noise import UNSCALED

# standard deviation over robust one, above which a column is heavy-tailed
HEAVY = 4.0
# robust deviation over median above which a column's values differ by factors: amounts, distances
BY_FACTORS = 0.25
SELDOM = 0.05  # share of values that may be negative where values differ by factors: refunds
RIM = 1e-3  # share of values at or beyond the lowest or highest expected value
MOST_DECIMALS, MOST_LOOKED_AT = 6, 20_000  # digits after the point, values examined for them
LARGEST = 1e150  # numbers are clipped here: a larger one's square, or its inverse's, is no float


@dataclass(frozen=True)
class Number:
    """How a numeric column is standardised: z = (w(x) − mean) / std.

    w is the identity or, for heavy tails, arsinh: a few huge values would otherwise set the scale and make
    all ordinary ones look alike. It applies only where values differ by factors. A sensor that stands at 775
    ± 10 and fails for a day has outliers, not a heavy tail; changes and deviations, as often below zero as
    above, are odd because they are large.

    Attributes:
        mean, std: of w(x) over the training records.
        lowest, highest: bounds of the expected value that is shown. Seen in training, with a share RIM of the
            values, or one, at or beyond each: one distance of 178,920 miles in 200,000 taxi rides must not be
            expected.
        centre, spread: of w(x) = arsinh((x − centre) / spread); spread 0 means w(x) = x.
        decimals: digits after the point that suffice for all values but RIM; None: over six, or not known.
    """

    mean: float
    std: float
    lowest: float = -math.inf
    highest: float = math.inf
    centre: float = 0.0
    spread: float = 0.0
    decimals: int | None = None

    @classmethod
    def fit(cls, values: Floats, noise: str = "") -> Self:
        """Learn from training values; NaN is missing.

        Counts and yes or no stay as they are where their noise model requires it.
        """
        seen = values[np.isfinite(values)].clip(-LARGEST, LARGEST)
        if not len(seen):
            return cls(0.0, 1.0, 0.0, 0.0)
        decimals = _decimals(seen)
        if noise in UNSCALED:
            return cls(0.0, 1.0, *_rim(seen), decimals=decimals)
        low, centre, high = np.quantile(seen, [0.25, 0.5, 0.75])
        robust = float(high - low) / 1.349
        if not robust and (elsewhere := np.abs(seen[seen != centre] - centre)).size:
            robust = float(np.median(elsewhere)) / 0.6745  # half of all values are the same, mostly 0
        amounts = float(np.quantile(seen, SELDOM)) >= 0
        by_factors = amounts and robust > BY_FACTORS * abs(float(centre))
        heavy = by_factors and 1 / LARGEST < robust * HEAVY < float(seen.std())
        warp = cls(0.0, 1.0, centre=float(centre) if heavy else 0.0, spread=robust if heavy else 0.0)
        warped = warp.standardise(seen)
        mean, std = float(warped.mean()), float(warped.std())
        # whatever the unit: picofarads are 1e-12 farads
        constant = std <= max(1 / LARGEST, 1e-12 * abs(mean))
        return cls(mean, 1.0 if constant else std, *_rim(seen), warp.centre, warp.spread, decimals)

    @property
    def is_constant(self) -> bool:
        """Whether training had one value only, or none."""
        return self.lowest == self.highest and self.std == 1.0

    def standardise(self, values: Floats) -> Floats:
        """Return values in standard deviations from the mean.

        NaN stays NaN, infinities become very large numbers.
        """
        values = values.clip(-LARGEST, LARGEST)  # a copy
        if self.spread:
            values -= self.centre
            values /= self.spread
            np.arcsinh(values, out=values)
        values -= self.mean
        values /= self.std
        return values

    def log_slope(self, values: Floats) -> Floats:
        """Return ln |dz/dx|, which turns a log-density of z into one of x in the column's own units.

        NaN stays NaN.
        """
        if not self.spread:
            return np.where(np.isnan(values), np.nan, -math.log(self.std))
        away = (values.clip(-LARGEST, LARGEST) - self.centre) / self.spread
        return -math.log(self.std) - math.log(self.spread) - 0.5 * np.log1p(away * away)

    def restore(self, z: Floats) -> Floats:
        """Return standardised values in the column's own units."""
        warped = np.asarray(z, np.float64) * self.std + self.mean
        return self.centre + self.spread * np.sinh(np.clip(warped, -300, 300)) if self.spread else warped


def _rim(seen: Floats) -> tuple[float, float]:
    lowest, highest = np.quantile(seen, [RIM, 1 - RIM], method="inverted_cdf")
    return float(lowest), float(highest)


def _decimals(seen: Floats) -> int | None:
    some = seen[:: max(1, len(seen) // MOST_LOOKED_AT)]
    for digits in range(MOST_DECIMALS + 1):  # float32 keeps no more than seven digits of what was typed
        if np.isclose(some.round(digits), some, rtol=1e-7, atol=0).mean() >= 1 - RIM:
            return digits
    return None

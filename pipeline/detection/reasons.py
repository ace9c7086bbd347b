"""Why a record was flagged, in the dataset's own units and words.

Belongs here: from shares and standardised expectations to named columns with what was observed and what was
expected. Does not: what explains a score (vae_core.attribute), or how it is laid out for a reader (display/,
review/).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.dataset import Dataset
from pipeline.detection.features import Features
from pipeline.detection.intervals import Bounds
from pipeline.detection.values import Floats, describe
from vae_core import Attribution, Expected, Records

N_REASONS = 3
N_TERMS = 8  # largest terms of the score kept for a flagged record
N_DIGITS = 4  # of a number's expected value; more would claim what nobody knows
LEAST_SHARE = 0.05  # share of the score that a further reason must explain

REASON = pa.struct([
    ("column", pa.string()),
    ("observed", pa.string()),
    ("expected", pa.string()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("share", pa.float32()),
    ("unknown", pa.bool_()),  # a category that training had fewer than features.RARE times
])
TERM = pa.struct([("column", pa.string()), ("nats", pa.float32())])


@dataclass(frozen=True)
class Explanation:
    """Why one record was flagged.

    Attributes:
        reasons: its columns by their share of what is to explain, as REASON; kl_share: the share of no single
            column.
        terms: the largest terms that columns add to its score, as TERM.
    """

    reasons: list[dict[str, Any]]
    kl_share: float
    terms: list[dict[str, Any]]


def explanations(
    dataset: Dataset,
    features: Features,
    table: pa.Table,
    records: Records,
    found: Attribution,
    intervals: Bounds,
    *,
    every: bool = False,
) -> list[Explanation]:
    """Return one explanation for each record of a table.

    Args:
        records, found: the table as a model reads it, and what raised the scores of its records.
        intervals: of each number, around its expected value.
        every: each column that is not as expected is a reason, however little it explains.
    """
    is_known = features.known_cells(records)
    most = (len(features.layout.columns), 0.0) if every else (N_REASONS, LEAST_SHARE)
    cases = [_Case(dataset, features, found, intervals, i, *most) for i in range(table.num_rows)]
    rows = zip(cases, table.to_pylist(), is_known, strict=True)
    return [case.explained(row, cells) for case, row, cells in rows]


@dataclass(frozen=True)
class _Case:
    dataset: Dataset
    features: Features
    found: Attribution
    intervals: Bounds
    i: int
    n_reasons: int
    least_share: float

    def explained(self, row: dict[str, Any], is_known: Any) -> Explanation:
        names, n_numeric = self.features.layout.columns, len(self.features.numeric)
        shares = self.found.share[self.i].tolist()
        best, *others = sorted(range(len(names)), key=lambda j: -shares[j])[: self.n_reasons]
        reasons = []
        for j in [best] * (shares[best] > 0) + [j for j in others if shares[j] >= self.least_share]:
            observed = describe(row[names[j]], self.dataset.with_derived[names[j]])
            expected, low, high = self._expected(j)
            if j != best and observed in {expected, expected.rpartition(" (")[0]}:
                continue  # to a reader, an expected value is no reason
            reasons.append({
                "column": names[j],
                "observed": observed,
                "expected": expected,
                "low": low,
                "high": high,
                "share": shares[j],
                "unknown": j >= n_numeric and not is_known[j - n_numeric],
            })
        terms = zip(names, self.found.column_terms[self.i].tolist(), strict=True)
        told = [
            {"column": name, "nats": nats} for name, nats in sorted(terms, key=lambda term: -abs(term[1]))
        ]
        return Explanation(reasons, float(self.found.kl_share[self.i]), told[:N_TERMS])

    def _expected(self, j: int) -> tuple[str, float | None, float | None]:
        """Return what is expected in words, with the interval of a number."""
        expected: Expected = self.found.expected
        name = self.features.layout.columns[j]
        number = self.features.numeric.get(name)
        if number is None:
            j -= len(self.features.numeric)
            values, code = self.features.categorical[name], int(expected.code[self.i, j])
            likely = values[code] if code < len(values) else "(other)"
            return f"{likely} ({float(expected.probability[self.i, j]):.0%})", None, None
        mean, std = float(expected.mean[self.i, j]), float(expected.std[self.i, j])
        below, above = self.intervals[j]
        bounds = number.restore(np.array([mean + below * std, mean, mean + above * std]))
        bounds = bounds.clip(number.lowest, number.highest)
        column = self.dataset.with_derived[name]
        if column.type != "int":
            bounds[1] = _to_digits(bounds)
        told, low, high = _in_steps(bounds, 0 if column.type == "int" else number.decimals)
        return describe(told, column), low, high


def _to_digits(bounds: Floats) -> float:
    """Round the middle bound to the digits of the largest: between −0.5 and 0.5, 1e-05 is not expected."""
    largest = float(np.abs(bounds).max())
    if not largest or not math.isfinite(largest):
        return float(bounds[1])
    return round(float(bounds[1]), N_DIGITS - 1 - math.floor(math.log10(largest)))


def _in_steps(bounds: Floats, decimals: int | None) -> tuple[float, float, float]:
    """Return the expected value, lowest and highest, rounded into the interval: 1.6 does not reach 2."""
    if decimals is None:
        return float(bounds[1]) + 0.0, float(bounds[0]), float(bounds[2])
    low, told, high = (bounds * 10**decimals).round(6)  # 0.57 gives 57, not 56.99999999999999
    told = told.round()
    low, high = min(np.ceil(low), told), max(np.floor(high), told)
    told, low, high = (float(end) / 10**decimals + 0.0 for end in (told, low, high))
    return told, low, high

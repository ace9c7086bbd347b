"""Shares and recall with their intervals, from counts of what people judged.

Belongs here: the estimates. Does not: where the counts come from (statistics.py).

Shares have Wilson's interval. Of verdicts that come in groups, it is that of as many independent ones as say
as much (Kish's effective size, 1965).

Recall is a ratio of two estimates, over the batches whose random sample was looked at. Flagged anomalies are
those that are known, and in each severity band the same share of those not judged. Unflagged anomalies are
estimated by batch, from its sample. The interval takes the ends of both, each at 97.5 %, so that together
they hold at 95 % at least (Bonferroni). Within a band, and within a batch's sample, what was judged counts as
chosen at random: the queue shows a batch's sample in an order that says nothing (queue.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pipeline.evaluation.evidence import wilson

Z95, Z975 = 1.959964, 2.241403
WIDE = 0.3  # length of an interval above which no point in it is shown
FEWEST_TOLD = 10  # judged records; fewer make no headline
PRIOR = 2  # groups of one mind that are imagined beside those seen: few groups look less alike than they are
FEW = 20  # judged records of a stratum; one with fewer joins the next
ALIKE = 2.0  # most by which the weights of a stratum's batches differ, as a factor
Range = tuple[float, float, float]  # low, estimate, high


@dataclass(frozen=True)
class Share:
    """hits of n, with the interval that holds the true share 19 times in 20."""

    hits: int
    n: int
    low: float
    high: float
    value: float | None

    @property
    def is_wide(self) -> bool:
        """Whether the interval is all that can be said."""
        return self.high - self.low > WIDE

    @property
    def is_untold(self) -> bool:
        """Whether too few were judged for a headline: the interval of one verdict goes from 0.21 to 1."""
        return self.n < FEWEST_TOLD


@dataclass(frozen=True)
class Missed:
    """The false-negative rate: of the anomalies, the share that was not flagged."""

    value: Annotated[float | None, Field(description="one minus recall; null where that is")]
    low: float
    high: float

    @property
    def is_wide(self) -> bool:
        """Whether the interval is all that can be said."""
        return self.high - self.low > WIDE


@dataclass(frozen=True)
class Recall:
    """How many of the anomalies were flagged, as the random sample tells."""

    value: Annotated[float | None, Field(description="null where the sample tells nothing yet")]
    low: float
    high: float
    missed: Annotated[
        float,
        Field(description="estimated, among the unflagged records of the batches whose sample was looked at"),
    ]
    sampled: Annotated[Share, Field(description="judged records of the sample, and those that are anomalies")]
    why_not: Annotated[str, Field(description="where another reason than too few verdicts makes it null")] = (
        ""
    )

    @property
    def is_wide(self) -> bool:
        """Whether the interval is all that can be said."""
        return self.high - self.low > WIDE

    @property
    def false_negative_rate(self) -> Missed:
        """What recall leaves: it has the same interval, seen from the other end."""
        return Missed(None if self.value is None else 1 - self.value, 1 - self.high, 1 - self.low)


def share_of(hits: int, n: int, *, witnesses: float | None = None) -> Share:
    """Return a share with its interval; without observations it may be anything.

    Args:
        witnesses: how many independent records say as much as these n; by default n.
    """
    low, high = wilson(hits / n if n else 0.0, n if witnesses is None else witnesses, Z95)
    return Share(hits, n, low, high, hits / n if n else None)


def witnesses(groups: Sequence[tuple[int, int]]) -> float:
    """Return how many independent records say as much as these groups of similar ones.

    Groups of one record each count every record. Groups that are each of one mind count as one record each,
    if they are equally large. In between, it goes by how alike the records of a group are: the intraclass
    correlation by analysis of variance, and a little more (PRIOR).

    Args:
        groups: (hits, records) of each.
    """
    n, hits = sum(size for _, size in groups), sum(found for found, _ in groups)
    if not n:
        return 0.0
    squares = sum(size * size for _, size in groups)
    if squares == n:
        return float(n)
    fewest = n * n / squares  # if all groups are of one mind
    inside = hits - sum(found * found / size for found, size in groups)
    alike = 1.0
    if inside > 0:
        within = inside / (n - len(groups))
        apart = max(1, len(groups) - 1)
        between, usual = (hits - inside - hits * hits / n) / apart, (n - squares / n) / apart
        alike = max(0.0, (between - within) / (between + (usual - 1) * within)) if usual else 1.0
    alike += (1 - alike) * PRIOR / (PRIOR + fewest)
    return n / (1 + alike * (n / fewest - 1))


@dataclass(frozen=True)
class Looked:
    """Some records that count alike, and those of them that were judged.

    Attributes:
        n: how many there are, judged or not: a batch's unflagged records, or the flagged ones of a severity
            band.
        n_judged, hits: how many were judged, and how many of those are anomalies or data errors.
    """

    n: int
    n_judged: int
    hits: int


def recall(bands: Sequence[Looked], batches: Sequence[Looked]) -> Recall:
    """Estimate recall from what was judged of the flagged records, and of the unflagged ones' random sample.

    Args:
        bands: flagged records by severity, in order.
        batches: unflagged records by batch, without the batches of which none was judged.
    """
    judged = sum(band.n_judged for band in bands)
    n, hits = sum(batch.n_judged for batch in batches), sum(batch.hits for batch in batches)
    sampled = share_of(hits, n)
    if not judged or not n:
        return Recall(None, 0.0, 1.0, 0.0, sampled)
    found, missed = _found(bands), _missed(batches)
    value, low, high = (
        _ratio(mine, theirs)
        for mine, theirs in ((found[1], missed[1]), (found[0], missed[2]), (found[2], missed[0]))
    )
    return Recall(
        value, low if low is not None else 0.0, high if high is not None else 1.0, missed[1], sampled
    )


def _found(bands: Sequence[Looked]) -> Range:
    """Estimate the anomalies among flagged records: those known, and each band's share of those not judged.

    People begin with the most severe: in a band that nobody came to, anything from none to all may be
    anomalies.
    """
    known, others = sum(band.hits for band in bands), sum(band.n - band.n_judged for band in bands)
    parts = []
    for at, band in enumerate(bands):
        if not (left := band.n - band.n_judged):
            continue
        # the effective size: the interval is of the others' count, not of the rate alone
        n = band.n_judged * left / (band.n_judged + left)
        low, high = wilson(band.hits / band.n_judged if n else 0.0, n, Z975)
        parts.append((left, min(max(_like(bands, at), low), high), (low, high)))
    low, middle, high = _summed(parts)
    return known + low, known + middle, known + min(high, others)


def _like(bands: Sequence[Looked], at: int) -> float:
    """Return a band's share of anomalies; if few are judged, with its neighbours, the more severe first."""
    together = bands[at]
    for other in [*bands[at + 1 :], *bands[:at][::-1]]:
        if together.n_judged < FEW:
            together = both(together, other)
    return together.hits / together.n_judged


def _missed(batches: Sequence[Looked]) -> Range:
    """Estimate the anomalies among unflagged records, by batch; the interval is by strata of like weight."""
    strata: list[list[Looked]] = []
    for batch in sorted(batches, key=_weight):
        few = bool(strata) and sum(one.n_judged for one in strata[-1]) < FEW
        if not strata or (not few and _weight(batch) > ALIKE * _weight(strata[-1][0])):
            strata.append([])
        strata[-1].append(batch)
    if len(strata) > 1 and sum(one.n_judged for one in strata[-1]) < FEW:
        strata[-2:] = [strata[-2] + strata[-1]]
    parts = []
    for stratum in strata:
        n = sum(one.n for one in stratum)
        if not n:
            continue
        share = sum(one.n * one.hits / one.n_judged for one in stratum) / n
        effective = n * n / sum(one.n * one.n / one.n_judged for one in stratum)
        parts.append((n, share, wilson(share, effective, Z975)))
    return _summed(parts)


def _weight(batch: Looked) -> float:
    """Return how many unflagged records one judged record speaks for."""
    return batch.n / batch.n_judged


def both(one: Looked, other: Looked) -> Looked:
    return Looked(one.n + other.n, one.n_judged + other.n_judged, one.hits + other.hits)


def _summed(parts: Sequence[tuple[int, float, tuple[float, float]]]) -> Range:
    """Return the sum of n × share, with an interval from the shares' own (Zou and Donner's MOVER, 2008)."""
    middle = sum(n * share for n, share, _ in parts)
    below = math.sqrt(sum((n * (share - low)) ** 2 for n, share, (low, _) in parts))
    above = math.sqrt(sum((n * (high - share)) ** 2 for n, share, (_, high) in parts))
    return max(0.0, middle - below), middle, middle + above


def _ratio(found: float, missed: float) -> float | None:
    return found / (found + missed) if found + missed else None

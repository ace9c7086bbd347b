"""How a column moved, in words.

Belongs here: quantiles and shares read off histograms. Does not: whether it moved enough to be reported
(judgement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.detection.measures import EXTENT, ColumnDrift
from pipeline.numerals import number

STILL = 0.99  # share of a batch's values in one bin of training
NARROW = 0.1  # of the distance between training's outermost edges: values within it hardly vary
# the first that moved is reported
QUANTILES = {"the median": EXTENT[1], "the 90 % quantile": 0.9, "the 10 % quantile": 0.1}
BEYOND = ("below", "above")  # an outermost edge


def is_elsewhere(drift: ColumnDrift) -> bool:
    """Return whether nearly all values of a number are in one bin, where most of training's were not.

    An event moves some of a batch's values. This is all of them: a unit, a scale, or a source that is stuck.
    """
    place = _only_bin(drift)
    return place is not None and drift.usual[place] <= sum(drift.usual) / 2


def stands_still(drift: ColumnDrift) -> bool:
    """Return whether a number no longer varies: nearly all its values are in one bin, and close together.

    The outermost bins have no end: values of any size are there together. Where nothing is known of the
    values themselves (measured by an earlier release), an inner bin is taken for narrow.
    """
    place = _only_bin(drift)
    if place is None:
        return False
    if drift.low is None or drift.high is None:
        return 0 < place < len(drift.bins)
    if not drift.bins:
        return drift.high == drift.low
    return drift.high - drift.low <= NARROW * (float(drift.bins[-1]) - float(drift.bins[0]))


def _only_bin(drift: ColumnDrift) -> int | None:
    """Return the bin that nearly all values of a number are in; None where there is none."""
    n = max(1, sum(drift.counts))
    if drift.shift is None or max(drift.counts, default=0) < STILL * n:
        return None
    return int(np.argmax(drift.counts))


def moved_words(drift: ColumnDrift, *, whole: bool = False) -> str:
    """Say how a column moved.

    For a number: its median, or another quantile where medians read alike, or the share beyond the outermost
    edge. For a category: the value that gained and the one that lost.

    Args:
        whole: the column holds whole numbers, and so do its quantiles.
    """
    if stands_still(drift):
        return _still_words(drift)
    n, m = max(1, sum(drift.counts)), max(1, sum(drift.usual))
    if drift.shift is not None:
        far = f"{drift.shift:.2g}"
        # values beyond the last edge count as if they were where training's beyond it were
        more = " or more" if _only_bin(drift) in {0, len(drift.bins)} else ""
        moved = f"values moved by {far} standard deviation{'s' * (far != '1')}{more}"
        for name, share in QUANTILES.items():
            now, before = (_quantile(share, x, drift.bins, whole) for x in (drift.counts, drift.usual))
            if now == before:
                continue
            if share == EXTENT[1] and drift.median is not None and now.startswith(BEYOND):
                now = plain(drift.median)
            for side, word in zip((0, -1), BEYOND, strict=True):
                if word in f"{now} {before}":
                    shares = f"{drift.counts[side] / n:.1%} of them {word} {plain(float(drift.bins[side]))}"
                    return f"{moved}, {shares} (in training {drift.usual[side] / m:.1%})"
            return f"{moved}, {name} from {before} to {now}"
        return moved
    names = [*map(str, drift.bins), "other values"]
    gain = [now / n - before / m for now, before in zip(drift.counts, drift.usual, strict=True)]
    order = sorted(range(len(gain)), key=gain.__getitem__)
    told = (
        f"{names[i]} {drift.counts[i] / n:.1%} (in training {drift.usual[i] / m:.1%})"
        for i in (order[-1], order[0])
    )
    return ", ".join(told)


def _still_words(drift: ColumnDrift) -> str:
    place = int(np.argmax(drift.counts))
    share, usual = (x[place] / max(1, sum(x)) for x in (drift.counts, drift.usual))
    where = _bin(place, drift.bins)
    if 0 < place < len(drift.bins) or drift.low is None or drift.high is None:
        return f"hardly varies, {share:.1%} of the values are {where} (in training {usual:.1%})"
    low, high = plain(drift.low), plain(drift.high)
    there = low if low == high else f"between {low} and {high}"
    return f"hardly varies, 99% of the values are {there} (in training, {usual:.1%} are {where})"


def _quantile(share: float, counts: Sequence[int], edges: Sequence[Any], whole: bool) -> str:
    """Return the value that this share of the records lies below, or the edge that it lies beyond."""
    if not sum(counts) or not edges:
        return "none"
    place = int(np.searchsorted(np.cumsum(counts), sum(counts) * share))
    if place == 0:
        return f"{BEYOND[0]} {plain(edges[0])}"
    if place == len(edges):
        return f"{BEYOND[1]} {plain(edges[-1])}"
    low, high = edges[place - 1], edges[place]
    part = (sum(counts) * share - sum(counts[:place])) / max(1, counts[place])
    value = low + part * (high - low)
    return plain(round(value) if whole else value)


def _bin(place: int, edges: Sequence[Any]) -> str:
    """Describe a bin; one that begins with a value and ends just above it is that value."""
    if not edges:
        return "alike"
    if place in {0, len(edges)}:
        return f"below {plain(edges[0])}" if place == 0 else f"{plain(edges[-1])} or more"
    low, high = plain(edges[place - 1]), plain(edges[place])
    return low if low == high else f"between {low} and {high}"


def plain(edge: float) -> str:
    """Format an edge between bins; the one just above a value is that value."""
    return number(edge if abs(edge) > 1e-300 else 0.0)

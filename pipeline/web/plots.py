"""Small plots as inline SVG: drawn by the server, coloured by the style sheet, read without a script.

Belongs here: geometry. Does not: numbers (review/statistics.py, review/usual.py) or colours
(assets/review.css). Every text goes through Markup.format, which escapes it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline import numerals
from pipeline.review.estimates import Share
from pipeline.review.queued import Reason
from pipeline.review.statistics import Day, share_text
from pipeline.review.usual import LONGEST_CATEGORY, Distribution

WIDE, HIGH, FOOT = 420, 84, 16
WIDEST_DAY = 120  # room for a day's name
DIGIT = 7  # wide, with the style sheet's letters


def usual(found: Distribution | None, reason: Reason) -> Markup:
    """Draw a reason's column: its usual values, the expected one with its interval, and the observed one."""
    if found is None:
        return Markup("")
    return _categories(found, reason) if found.categories else _histogram(found, reason)


def _histogram(found: Distribution, reason: Reason) -> Markup:
    axis = _Axis(found)
    top, tallest = HIGH - FOOT, max(max(found.counts), 1)
    parts = []
    low, high = axis.at(reason.low), axis.at(reason.high)
    if low is not None and high is not None and axis.beyond(reason.low) <= 0 <= axis.beyond(reason.high):
        width = max(high - low, 2.0)
        band = '<rect class="interval" x="{:.1f}" y="0" width="{:.1f}" height="{}"/>'
        parts.append(_draw(band, low, width, top))
    for i, count in enumerate(found.counts):
        left, right = axis.x(found.edges[i]), axis.x(found.edges[i + 1])
        height = (top - 4) * math.sqrt(count / tallest)
        kind = "bar" if _is_known(found, i) else "bar somewhere"
        bar = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        parts.append(_draw(bar, kind, left + 0.5, top - height, max(right - left - 1, 0.5), height))
    expected, observed = axis.at(reason.expected), axis.at(reason.observed)
    if expected is not None:
        beyond = axis.beyond(reason.expected)
        line = '<line class="expected" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/>'
        parts.append(_arrow("expected", top / 4, beyond) if beyond else _draw(line, expected, top))
    if observed is not None:
        parts.append(_observed(observed, top, axis.beyond(reason.observed)))
    parts.append(Markup('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDE, top, top))
    scale = " (log)" if found.is_logarithmic else ""
    ends = '<text x="2" y="{0}">{1}</text><text x="{2}" y="{0}" text-anchor="end">{3}{4}</text>'
    parts.append(
        _draw(
            ends, HIGH - 3, numerals.number(found.edges[0]), WIDE - 2, numerals.number(found.edges[-1]), scale
        )
    )
    said = (
        f"{reason.column}: observed {reason.observed_text}, expected {reason.expected_text}; "
        f"the usual values of {found.n_records:,} {found.of}"
    )
    return _svg(WIDE, HIGH, said, parts)


def _is_known(found: Distribution, i: int) -> bool:
    """Return whether part of a bin lies where the values' bins are known."""
    return found.known is None or (found.edges[i] < found.known[1] and found.edges[i + 1] > found.known[0])


def _observed(x: float, top: float, beyond: int) -> Markup:
    """Draw a line; where the value lies beyond the plot, an arrow at that edge."""
    if not beyond:
        line = '<line class="observed" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/><circle class="observed" cx="{0:.1f}" cy="5" r="4"/>'
        return _draw(line, x, top)
    return _arrow("observed", top / 2, beyond)


def _arrow(kind: str, y: float, beyond: int) -> Markup:
    """Draw that a value lies beyond an edge of the plot."""
    tip, back = (WIDE - 1, WIDE - 12) if beyond > 0 else (1, 12)
    arrow = '<path class="{6}" d="M{0} {2} L{1} {3} L{1} {4} Z"/><line class="{6} beyond" x1="{1}" x2="{5}" y1="{2}" y2="{2}"/>'
    reach = back - 18 * (1 if beyond > 0 else -1)
    return _draw(arrow, tip, back, y, y - 6, y + 6, reach, kind)


class _Axis:
    """Maps a value to a place along the plot."""

    def __init__(self, found: Distribution) -> None:
        self.edges, self.is_logarithmic = found.edges, found.is_logarithmic
        self.low, self.high = self._scaled(found.edges[0]), self._scaled(found.edges[-1])

    def x(self, value: float) -> float:
        along = (self._scaled(value) - self.low) / ((self.high - self.low) or 1.0)
        return min(max(along, 0.0), 1.0) * WIDE

    def at(self, value: Any) -> float | None:
        found = number(value)
        return None if found is None else self.x(found)

    def beyond(self, value: Any) -> int:
        """Return 1 above the last edge, -1 below the first, else 0."""
        found = number(value)
        if found is None:
            return 0
        return (found > self.edges[-1]) - (found < self.edges[0])

    def _scaled(self, value: float) -> float:
        return math.log(max(value, 1e-300)) if self.is_logarithmic else value


def number(value: Any) -> float | None:
    """Return a reason's number, which may be text; None where it is not a number, or infinite."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def likely(reason: Reason) -> tuple[str, float | None]:
    """Return the expected category and its chance, from "DE (93%)"; a number's reason has neither."""
    value, _, chance = str(reason.expected).rpartition(" (")
    if reason.low is not None or not chance.endswith("%)"):
        return "", None
    share = number(chance.removesuffix("%)"))
    return value, None if share is None else share / 100


def _categories(found: Distribution, reason: Reason) -> Markup:
    """Draw a bar for each value's frequency; below the expected one, how likely the model held it here."""
    observed, (expected, chance) = str(reason.observed)[:LONGEST_CATEGORY], likely(reason)
    longest = max([share for _, share in found.categories] + [chance or 0.0, 0.01])
    high, parts = 0, []
    for value, share in found.categories:
        kind = "observed" if value == observed else "expected" if value == expected else ""
        width, told = _along(share, longest), _frequency(share)
        if kind == "observed" and reason.unknown:
            told += ", not seen in training"
        row = (
            '<text class="{0}" x="146" y="{1}" text-anchor="end">{2}</text>'
            '<rect class="bar {3}" x="152" y="{4}" width="{5:.1f}" height="11"/><text x="{6:.1f}" y="{1}">{7}</text>'
        )
        own = kind if kind == "observed" else ""
        parts.append(_draw(row, kind, high + 12, value[:20], own, high + 3, width, 158 + width, told))
        high += 17
        if kind == "expected" and chance is not None:
            width = _along(chance, longest)
            bar = '<rect class="bar expected" x="152" y="{0}" width="{1:.1f}" height="7"/><text x="{2:.1f}" y="{3}">{4:.0%} expected here</text>'
            parts.append(_draw(bar, high, width, 158 + width, high + 8, chance))
            high += 13
    said = (
        f"{reason.column}: observed {observed}, expected {reason.expected_text}; "
        f"how often the values are among {found.n_records} {found.of}"
    )
    return _svg(WIDE, high + 2, said, parts)


def _along(share: float, longest: float) -> float:
    return max((WIDE - 290) * share / longest, 1)


def _frequency(share: float) -> str:
    """Format a share of a batch's records; one of very many is not none."""
    return "none of the batch" if not share else f"{share:.1%}" if share >= 0.001 else "less than 0.1%"


def per_day(days: Sequence[Day], refused: Mapping[str, int]) -> Markup:
    """Draw a bar of flagged records per day: worth a person's time, judged otherwise, not judged yet.

    A day of which batches were refused has a cross: nothing was scored is not nothing flagged.

    Drawn twice, for the style sheet to show one: scaled to a small screen, the wide one could not be read.
    """
    if not days:
        return Markup("")
    wide = _per_day(days, refused, "plot wide", 720, 180)
    return wide + _per_day(days, refused, "plot small", 330, 150)


def _per_day(days: Sequence[Day], refused: Mapping[str, int], kind: str, wide: int, high: int) -> Markup:
    top, foot = _round_up(max(1, *(day.n_flagged for day in days))), 20
    left = 9 + DIGIT * len(numerals.number(top))
    step = min((wide - left) / len(days), WIDEST_DAY)
    parts = [_grid(value, left, wide, high, foot, top) for value in (0, top // 2, top)]
    for i, day in enumerate(days):
        x, y = left + i * step, float(high - foot)
        layers = (("confirmed", day.n_confirmed), ("judged", day.n_judged - day.n_confirmed), ("waiting", day.n_flagged - day.n_judged))  # fmt: skip
        n_refused = refused.get(day.day, 0)
        said = f"; {n_refused} batch{'es' if n_refused > 1 else ''} refused" if n_refused else ""
        title = Markup("<title>{}: {} flagged, {} judged, {} confirmed{}</title>")
        bars = [title.format(*vars(day).values(), said)]
        for layer, n in layers:
            height = (high - foot - 6) * n / top
            y -= height
            bar = '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
            bars.append(_draw(bar, layer, x + 1, y, max(step - 2, 1), height))
        if n_refused:
            cross = '<path class="refused" d="M{0:.1f} {1:.1f}l5 5m0 -5l-5 5"/>'
            bars.append(_draw(cross, x + step / 2 - 2.5, max(y - 9, 1)))
        parts.append(Markup("<g>{}</g>").format(Markup("").join(bars)))
    parts += _names(days, left, step, high - 5)
    n_flagged, n_judged = sum(day.n_flagged for day in days), sum(day.n_judged for day in days)
    said = (
        f"Flagged records a day, {days[0].day} to {days[-1].day}: {n_flagged}, of which {n_judged} are judged"
    )
    if crossed := [day.day for day in days if day.day in refused]:
        said += f"; batches were refused of {', '.join(crossed)}"
    return _svg(wide, high, said, parts, kind)


def _names(days: Sequence[Day], left: int, step: float, y: int) -> list[Markup]:
    """Name the first day, the last, and one between them."""
    last, names = len(days) - 1, []
    for i in sorted({0, len(days) // 2, last}):
        anchor, along = ("start", 0.0) if i == 0 else ("end", 1.0) if i == last else ("middle", 0.5)
        label = '<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>'
        names.append(_draw(label, left + (i + along) * step, y, anchor, days[i].day))
    return names


def _grid(value: int, left: int, wide: int, high: int, foot: int, top: int) -> Markup:
    y = high - foot - (high - foot - 6) * value / top
    line = '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/><text x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
    return _draw(line, left, wide, y, left - 5, y + 4, numerals.number(value))


def _round_up(n: int) -> int:
    steps = sorted({int(digit * 10**power) for power in range(9) for digit in (2, 3, 4, 5, 6, 8, 10)})
    return steps[min(bisect.bisect_left(steps, n), len(steps) - 1)]


def shares(rows: Sequence[tuple[str, Share]]) -> Markup:
    """Draw shares with their intervals on one axis from 0 to 1.

    The name of each stands above it, so that it can be read on a small screen, too.
    """
    rows = rows[-12:]
    if not rows:
        return Markup("")
    wide, line, left, foot = 720, 46, 16, 26
    high, span = line * len(rows) + foot, wide - 2 * left
    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + span * tick
        mark = '<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}"/><text x="{0:.1f}" y="{2}" text-anchor="middle">{3:g}</text>'
        parts.append(_draw(mark, x, high - foot, high - 4, tick))
    for i, (name, share) in enumerate(rows):
        y = line * i + 34
        row = (
            '<text class="name" x="{0}" y="{1}">{2}: {3}</text><line class="range" x1="{4:.1f}" x2="{5:.1f}" y1="{6}" y2="{6}"/>'
            '<circle class="point" cx="{7:.1f}" cy="{6}" r="5"/>'
        )
        ends = (left + span * share.low, left + span * share.high)
        parts.append(
            _draw(
                row, left + 4, y - 14, name, share_text(share), *ends, y, left + span * (share.value or 0.0)
            )
        )
    said = "; ".join(f"{name} {share_text(share)}" for name, share in rows)
    return _svg(wide, high, said, parts)


def _draw(shape: str, *values: Any) -> Markup:
    """Fill one of the shapes above with values, which are escaped."""
    return Markup(shape).format(*values)  # noqa: S704  # no shape is made of anything that was read


def _svg(wide: int, high: float, said: str, parts: Sequence[Markup], kind: str = "plot") -> Markup:
    """Return a plot that scales with its place, and says in words what it shows."""
    opening = '<svg class="{3}" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img" aria-label="{2}">'
    return Markup("{}{}</svg>").format(_draw(opening, wide, high, said[:600], kind), Markup("").join(parts))

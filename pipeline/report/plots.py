"""Small plots as inline SVG, coloured by the page's style sheet.

Belongs here: geometry. Does not: numbers. Every text goes through Markup.format, which escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from pipeline.detection.measures import ColumnDrift
from pipeline.monitoring.movement import plain
from pipeline.numerals import number

WIDE, HIGH, FOOT = 420, 110, 18
MOST_ROWS = 7


def column(name: str, drift: ColumnDrift) -> Markup:
    """Draw a column in this batch against training: bars and a line for a number, a row per category."""
    if not sum(drift.counts) or not sum(drift.usual):
        return Markup("")
    return _bins(name, drift) if drift.shift is not None else _values(name, drift)


def _shares(counts: Sequence[int]) -> list[float]:
    total = max(1, sum(counts))
    return [count / total for count in counts]


def _bins(name: str, drift: ColumnDrift) -> Markup:
    """Draw a number's bins at equal width: each holds about as many training records, whatever its range."""
    kept = [i for i, (a, b) in enumerate(zip(drift.counts, drift.usual, strict=True)) if a or b]
    now, usual = ([_shares(x)[i] for i in kept] for x in (drift.counts, drift.usual))
    top, step, foot = max([*now, *usual, 1e-9]), WIDE / len(kept), HIGH - FOOT
    parts, line = [], []
    for i, (a, b) in enumerate(zip(now, usual, strict=True)):
        high = (foot - 4) * a / top
        bar = '<rect class="now" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        parts.append(_draw(bar, i * step + 1, foot - high, max(step - 2, 1), high))
        y = foot - (foot - 4) * b / top
        line.append(f"{'L' if i else 'M'}{i * step:.1f} {y:.1f} L{(i + 1) * step:.1f} {y:.1f}")
    parts.append(_draw('<path class="usual" d="{}"/>', " ".join(line)))
    parts.append(_draw('<line class="axis" x1="0" x2="{}" y1="{}" y2="{}"/>', WIDE, foot, foot))
    edges = [float(e) for e in drift.bins]
    marks = [
        (1, "start", edges[0]),
        (WIDE / 2, "middle", edges[len(edges) // 2]),
        (WIDE - 1, "end", edges[-1]),
    ]
    for x, anchor, value in marks if len(edges) > 2 else marks[:1]:
        text = {"start": "< ", "middle": "", "end": "≥ "}[anchor] + plain(value)
        parts.append(_draw('<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>', x, HIGH - 4, anchor, text))
    return _svg(WIDE, HIGH, f"{name}: this batch (bars) against training (line)", parts)


def _values(name: str, drift: ColumnDrift) -> Markup:
    """Draw the values that changed most, in order of how frequent they were."""
    names = [*map(str, drift.bins), "other values"]
    now, usual = _shares(drift.counts), _shares(drift.usual)
    changed = sorted(range(len(names)), key=lambda i: -abs(now[i] - usual[i]))[:MOST_ROWS]
    rows = sorted((i for i in changed if now[i] or usual[i]), key=lambda i: -usual[i])
    top, high, left, right = max([now[i] for i in rows] + [usual[i] for i in rows]), 18 * len(rows), 130, 52
    parts = []
    for place, i in enumerate(rows):
        y, span = 18 * place, WIDE - left - right
        row = (
            '<text x="{0}" y="{1}" text-anchor="end">{2}</text><rect class="now" x="{3}" y="{4}" width="{5:.1f}" height="12"/>'
            '<line class="usual" x1="{6:.1f}" x2="{6:.1f}" y1="{7}" y2="{8}"/><text x="{9:.1f}" y="{1}">{10}</text>'
        )
        wide, mark = span * now[i] / top, left + span * usual[i] / top
        after = max(left + wide, mark) + 6
        said = f"{now[i]:.1%}"
        parts.append(_draw(row, left - 8, y + 13, names[i][:18], left, y + 3, max(wide, 0.5), mark, y, y + 18, after, said))  # fmt: skip
    return _svg(WIDE, high, f"{name}: shares in this batch (bars) and in training (marks)", parts)


def line(values: Sequence[float | None], labels: Sequence[str], marked: Sequence[bool], said: str) -> Markup:
    """Draw a number over batches, oldest first, with a dot on each marked one and on the last, this batch."""
    wide, high, foot = 260, 64, 8
    seen = [value for value in values if value is not None]
    if not seen:
        return Markup("")
    low, top = min(seen), max(seen)
    span = (top - low) or max(abs(top), 1e-9)
    step = (wide - 14) / max(1, len(values) - 1)
    places = [
        (
            7 + i * step,
            high - foot - (high - foot - 8) * ((value - low) / span if top > low else 0.5),
            i,
            value,
        )
        for i, value in enumerate(values)
        if value is not None
    ]
    parts = [_draw('<path class="trend" d="M{}"/>', " L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in places))]
    for x, y, i, value in places:
        last = i == len(values) - 1
        if not (marked[i] or last):
            continue
        dot = '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>'
        kind = f"dot{' told' if marked[i] else ''}{' last' if last else ''}"
        parts.append(_draw(dot, kind, x, y, 4 if last else 3, f"{labels[i]}: {number(value)}"))
    return _svg(wide, high, said, parts)


def curve(points: Sequence[tuple[float, float]], said: str) -> Markup:
    """Draw a line through points, lowest at the bottom, and write above it where it begins and ends.

    The style sheet gives it any width and height: letters in it would be stretched.
    """
    if len(points) < 2:
        return Markup("")
    xs, ys = zip(*points, strict=True)
    ordered = sorted(ys)
    low, top = ordered[0], ordered[int(0.98 * (len(ys) - 1))]  # the first steps may be far above all others
    span, length = (top - low) or 1.0, (xs[-1] - xs[0]) or 1.0
    path = " L".join(
        f"{WIDE * (x - xs[0]) / length:.1f} {HIGH - 4 - (HIGH - 12) * min(1.05, (y - low) / span):.1f}"
        for x, y in points
    )
    begins = f"begins above {number(top)}, cut there" if ordered[-1] > top else f"at most {number(top)}"
    ends = _draw('<p class="ends"><span>{}</span><span>ends at {}</span></p>', begins, number(ys[-1]))
    drawn = _draw('<path class="trend" vector-effect="non-scaling-stroke" d="M{}"/>', path)
    return ends + _svg(WIDE, HIGH, said, [drawn], stretches=True)


def _draw(shape: str, *values: Any) -> Markup:
    """Fill one of the shapes above with values, which are escaped."""
    return Markup(shape).format(*values)  # noqa: S704  # no shape is made of anything that was read


def _svg(wide: int, high: float, said: str, parts: Sequence[Markup], *, stretches: bool = False) -> Markup:
    opening = '<svg class="plot" viewBox="0 0 {0} {1}" role="img" aria-label="{2}"{3}>'
    free = Markup(' preserveAspectRatio="none"') if stretches else ""
    return Markup("{}{}</svg>").format(_draw(opening, wide, high, said[:400], free), Markup("").join(parts))

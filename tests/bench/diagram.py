"""Critical-difference diagrams (Demšar 2006, figure 1): methods on a line of mean ranks, with bars over those
that are not told apart.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.bench.ranking import Array, critical_difference, not_told_apart

INK, OURS_INK, BAR = "#24292f", "#0a58ca", "#8c959f"
ROW = 0.34  # height of a label's row, in the axes' units


def draw(path: Path, panels: dict[str, dict[str, float]], n_sets: int, ours: str) -> None:
    """One panel under another, each a title and the mean rank of every method."""
    n_rows = max(len(of) for of in panels.values()) // 2 + 4
    figure = Figure(
        figsize=(8.4, len(panels) * (0.6 + 0.27 * n_rows)), facecolor="white", layout="constrained"
    )
    for axes, (title, mean_ranks) in zip(
        np.atleast_1d(figure.subplots(len(panels), 1)), panels.items(), strict=True
    ):
        _panel(axes, title, mean_ranks, n_sets, ours)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vaewatch", "font.family": "sans-serif"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)


def _panel(axes: Axes, title: str, mean_ranks: dict[str, float], n_sets: int, ours: str) -> None:
    names = sorted(mean_ranks, key=lambda name: mean_ranks[name])
    at = np.array([mean_ranks[name] for name in names])
    difference = critical_difference(len(names), n_sets)
    runs = not_told_apart(at, difference)
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=10, color=INK, fontweight="bold")
    _scale(axes, len(names), difference)
    for row, (first, last) in enumerate(runs):
        y = -0.22 - 0.17 * row
        axes.plot(
            [at[first] - 0.06, at[last] + 0.06], [y, y], color=BAR, lw=4, solid_capstyle="round", zorder=1
        )
    _labels(axes, names, at, top=-0.22 - 0.17 * len(runs) - 0.25, ours=ours)
    axes.set_xlim(-1.8, len(names) + 2.8)
    axes.margins(y=0.08)


def _scale(axes: Axes, n_methods: int, difference: float) -> None:
    """The line of ranks, and how long a critical difference is."""
    axes.plot([1, n_methods], [0, 0], color=INK, lw=1.2)
    for rank in range(1, n_methods + 1):
        axes.plot([rank, rank], [0, 0.1], color=INK, lw=1.2)
        axes.text(rank, 0.16, str(rank), ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.plot([1, 1 + difference], [0.85, 0.85], color=INK, lw=1.6)
    for end in (1, 1 + difference):
        axes.plot([end, end], [0.78, 0.92], color=INK, lw=1.6)
    text = f"critical difference {difference:.2f} (Nemenyi, 5 %)"
    axes.text(1 + difference + 0.2, 0.85, text, va="center", fontsize=8.5, color=INK)


def _labels(axes: Axes, names: list[str], at: Array, *, top: float, ours: str) -> None:
    """The better half on the left from the best down, the others on the right from the worst down: no line
    crosses.
    """
    n_left = (len(names) + 1) // 2
    for place, (name, rank) in enumerate(zip(names, at, strict=True)):
        left = place < n_left
        y = top - ROW * (place if left else len(names) - 1 - place)
        edge, align = (0.6, "right") if left else (len(names) + 0.4, "left")
        colour = OURS_INK if name == ours else INK
        axes.plot([rank, rank, edge], [0, y, y], color=colour, lw=1.0, zorder=2)
        label = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
        weight = "bold" if name == ours else "normal"
        x = edge - 0.12 if left else edge + 0.12
        axes.text(x, y, label, ha=align, va="center", fontsize=9, color=colour, fontweight=weight)

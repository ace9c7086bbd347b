"""Four pictures of a trained detector, drawn from the records it was calibrated on.

Belongs here: what a model owner looks at before trusting a version. Does not: numbers
(training/experiment.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.config.dataset import Dataset
from pipeline.detection.calibration import FEWEST, Calibration
from pipeline.detection.detector import Detector
from pipeline.numerals import number
from vae_core import Scores, encode, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DRAWN = 20_000
MOST_COLUMNS = 25
LONGEST = 24  # characters of a column's name
WIDE, DOTS = 4.6, 190  # inches, and dots in each: letters can still be read at the width of a phone


@dataclass(frozen=True)
class Palette:
    """Colours that are readable on a page: of what is drawn, and of letters and axes."""

    ink: str
    accent: str
    warn: str
    text: str


LIGHT = Palette("#334155", "#2563eb", "#dc2626", "#4b5565")
DARK = Palette("#cbd5e1", "#60a5fa", "#f87171", "#aab4c4")


def draw(detector: Detector, dataset: Dataset, calibrating: pa.Table, folder: Path) -> dict[str, Path]:
    """Draw the plots into a folder; of each there is one for dark pages, too, without a background.

    Args:
        detector: of the first fit, which has not learned the records.

    Returns:
        file by title: score_histogram, calibration, columns, latent_map; see in_the_dark.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step = max(1, calibrating.num_rows // MOST_DRAWN)
    records = detector.features.records(calibrating.take(pa.array(range(0, calibrating.num_rows, step))))
    scores = score(detector.vae, records)
    latents = encode(detector.vae, records).mean[0].numpy()
    values = scores.anomaly_score.numpy()
    pictures: dict[str, Callable[[Axes, Palette], None]] = {
        "score_histogram": lambda axes, of: _histogram(axes, of, detector, dataset, values),
        "calibration": lambda axes, of: _calibration(axes, of, values),
        "columns": lambda axes, of: _columns(axes, of, detector, scores),
        "latent_map": lambda axes, of: _latents(axes, of, latents, values),
    }
    files = {title: folder / f"{title}.png" for title in pictures}
    for title, paint in pictures.items():
        rows = scores.column_terms.shape[1] if title == "columns" else 0
        _save(files[title], paint, LIGHT, rows=rows)
        _save(in_the_dark(files[title]), paint, DARK, rows=rows)
    return files


def in_the_dark(file: Path) -> Path:
    """Return the file of the same picture for a dark page."""
    return file.with_stem(f"{file.stem}_dark")


def _save(file: Path, paint: Callable[[Axes, Palette], None], palette: Palette, *, rows: int) -> None:
    """rows: how many labelled rows must not touch."""
    high = max(3.2, 1.2 + 0.2 * min(rows, MOST_COLUMNS))
    letters = "text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"
    style: dict[Any, Any] = {"font.size": 9, "axes.titlesize": 9.5, "legend.fontsize": 8.5}
    with rc_context(style | dict.fromkeys(letters, palette.text)):
        figure = Figure(figsize=(WIDE, high), layout="constrained", dpi=DOTS)
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        paint(axes, palette)
        figure.savefig(file, transparent=palette is DARK)  # elsewhere, a light one may be on dark


def _histogram(axes: Axes, of: Palette, detector: Detector, dataset: Dataset, values: Any) -> None:
    """Draw scores on an axis that is straight where most of them are and logarithmic beyond.

    They may be negative and span decades.
    """
    threshold = detector.threshold(dataset.flag)
    first, centre, last = np.quantile(values, [0.05, 0.5, 0.95])
    spread = float(last - first) / 2 or 1.0

    def along(score: Any) -> Any:
        return np.arcsinh((np.asarray(score) - centre) / spread)

    def back(place: Any) -> Any:
        return centre + spread * np.sinh(place)

    line = [threshold.value] if np.isfinite(threshold.value) else []
    low, high = min([values.min(), *line]), max([values.max(), values.min() + spread, *line])
    between = back(np.linspace(along(low), along(high), 81))[1:-1]
    axes.hist(values, bins=[low, *between, high], color=of.accent, alpha=0.75)
    note = ", extrapolated" if threshold.extrapolated else ""
    axes.axvline(threshold.value, color=of.warn, label=f"threshold {number(threshold.value)} nats{note}")
    axes.set_xscale("function", functions=(along, back))
    margin = 0.03 * (along(high) - along(low))
    axes.set_xlim(back(along(low) - margin), back(along(high) + margin))
    ticks = _apart(along, low, high, MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(first, last))
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.set(yscale="log", xlabel="anomaly score by the first fit (nats)", ylabel="calibration records")
    axes.set_title(f"{dataset.name}: anomaly scores of the calibration records")
    axes.legend(frameon=False, loc="upper right")


def _apart(along: Any, low: float, high: float, inner: Any) -> list[float]:
    """Return those inner ticks and powers of ten within low and high whose labels have room."""
    decades = [sign * 10.0**power for power in range(15, -1, -1) for sign in (1, -1)]
    room, kept = 0.11 * (along(high) - along(low)), list[float]()
    for tick in [*inner, *decades]:
        if low <= tick <= high and all(abs(along(tick) - along(other)) >= room for other in kept):
            kept.append(float(tick))
    return kept


def _short(tick: float) -> str:
    """Label a tick, as a power of ten where digits would not fit."""
    if abs(tick) < 1e6:
        return f"{tick:,.10g}"
    return f"${'-' if tick < 0 else ''}10^{{{np.log10(abs(tick)):.0f}}}$"


def _calibration(axes: Axes, of: Palette, values: Any) -> None:
    """Draw p-values of every other record against a calibration on the rest.

    They are uniform if records are exchangeable.
    """
    if len(values) >= 2 * FEWEST:
        p = np.sort(Calibration.fit(values[::2]).p_values(values[1::2]))
        expected = (np.arange(len(p)) + 0.5) / len(p)
        band = 1.96 * np.sqrt(expected * (1 - expected) * (1 / len(p) + 2 / len(values)))
        axes.fill_between(
            expected,
            np.clip(expected - band, 1e-6, 1),
            expected + band,
            color=of.ink,
            alpha=0.15,
            label="95 % band",
        )
        axes.plot(expected, p, color=of.accent, label="calibration records, half against half")
    axes.plot([1e-4, 1], [1e-4, 1], color=of.ink, lw=0.8, ls="--", label="uniform")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="share of records",
        ylabel="p-value",
        title="Calibration of p-values",
    )
    axes.legend(frameon=False, loc="upper left")


def _columns(axes: Axes, of: Palette, detector: Detector, scores: Scores) -> None:
    terms = scores.column_terms.numpy()
    worst = scores.anomaly_score.numpy() >= np.quantile(scores.anomaly_score.numpy(), 0.99)
    names, mean = detector.features.layout.columns, terms[worst].mean(axis=0)
    order = np.argsort(mean)[-MOST_COLUMNS:]
    places = range(len(order))  # not the names, which may be equal once shortened
    axes.barh(places, mean[order], color=of.warn, alpha=0.8, label="highest-scoring 1 %")
    axes.barh(places, terms.mean(axis=0)[order], color=of.ink, label="all")
    axes.set_yticks(
        places, [names[i] if len(names[i]) <= LONGEST else f"{names[i][: LONGEST - 1]}…" for i in order]
    )
    some = f", {MOST_COLUMNS} of {len(names)}" if len(names) > MOST_COLUMNS else ""
    axes.set(xlabel="nats above the column's mean in training", title=f"Which columns make scores high{some}")
    axes.set_xscale("symlog")
    axes.legend(frameon=False, loc="lower right")


def _latents(axes: Axes, of: Palette, latents: Any, values: Any) -> None:
    """Draw the plane in which all but the highest-scoring 1 % vary most.

    Those are clipped to its edge, or they would be all one sees.
    """
    usual = values <= np.quantile(values, 0.99)
    centre = latents[usual].mean(axis=0)
    _, _, directions = np.linalg.svd(latents[usual] - centre, full_matrices=False)
    flat = (latents - centre) @ directions[:2].T
    flat = np.pad(flat, ((0, 0), (0, max(0, 2 - flat.shape[1]))))
    low, high = flat[usual].min(axis=0), flat[usual].max(axis=0)
    margin = 0.05 * (high - low) + 1e-6
    flat = flat.clip(low - margin, high + margin)
    for which, colour, size, label in (
        (usual, of.ink, 4, "the others"),
        (~usual, of.warn, 12, "highest-scoring 1 %"),
    ):
        axes.scatter(
            flat[which, 0], flat[which, 1], color=colour, s=size, alpha=0.5, linewidths=0, label=label
        )
    # points are everywhere, so it is not among them; and one of theirs would be too small to see its colour
    legend = axes.figure.legend(frameon=False, loc="outside lower center", ncols=2)
    for handle in filter(None, legend.legend_handles):
        handle.set(sizes=[36], alpha=1)
    axes.set(
        xlabel="first direction",
        ylabel="second direction",
        title="Posterior means, first member; the farthest at the edge",
    )

"""Four pictures of a trained detector, drawn from the records it was calibrated on.

Belongs here: what a model owner looks at before trusting a version. Does not: numbers
(training/experiment.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
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
INK, ACCENT, WARN = "#334155", "#2563eb", "#dc2626"


def draw(detector: Detector, dataset: Dataset, calibrating: pa.Table, folder: Path) -> dict[str, Path]:
    """Draw the plots into a folder.

    Returns:
        file by title: score_histogram, calibration, columns, latent_map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    step = max(1, calibrating.num_rows // MOST_DRAWN)
    records = detector.features.records(calibrating.take(pa.array(range(0, calibrating.num_rows, step))))
    scores = score(detector.vae, records)
    latents = encode(detector.vae, records).mean[0].numpy()
    values = scores.anomaly_score.numpy()
    return {
        "score_histogram": _save(
            folder, "score_histogram", lambda axes: _histogram(axes, detector, dataset, values)
        ),
        "calibration": _save(folder, "calibration", lambda axes: _calibration(axes, values)),
        "columns": _save(
            folder,
            "columns",
            lambda axes: _columns(axes, detector, scores),
            rows=scores.column_terms.shape[1],
        ),
        "latent_map": _save(folder, "latent_map", lambda axes: _latents(axes, latents, values)),
    }


def _save(folder: Path, title: str, paint: Any, *, rows: int = 0) -> Path:
    """rows: how many labelled rows must not touch."""
    high = max(4.8, 1.2 + 0.25 * min(rows, MOST_COLUMNS))
    figure = Figure(figsize=(8, high), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    paint(axes)
    figure.savefig(folder / f"{title}.png")
    return folder / f"{title}.png"


def _histogram(axes: Axes, detector: Detector, dataset: Dataset, values: Any) -> None:
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
    axes.hist(values, bins=[low, *between, high], color=ACCENT, alpha=0.75)
    note = ", extrapolated" if threshold.extrapolated else ""
    axes.axvline(threshold.value, color=WARN, label=f"threshold {number(threshold.value)} nats{note}")
    axes.set_xscale("function", functions=(along, back))
    margin = 0.03 * (along(high) - along(low))
    axes.set_xlim(back(along(low) - margin), back(along(high) + margin))
    ticks = _apart(along, low, high, MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(first, last))
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.set(yscale="log", xlabel="anomaly score (nats)", ylabel="calibration records")
    axes.set_title(f"{dataset.name}: anomaly scores of the calibration records")
    axes.legend(frameon=False, loc="upper right")


def _apart(along: Any, low: float, high: float, inner: Any) -> list[float]:
    """Return those inner ticks and powers of ten within low and high whose labels have room."""
    decades = [sign * 10.0**power for power in range(15, -1, -1) for sign in (1, -1)]
    room, kept = 0.09 * (along(high) - along(low)), list[float]()
    for tick in [*inner, *decades]:
        if low <= tick <= high and all(abs(along(tick) - along(other)) >= room for other in kept):
            kept.append(float(tick))
    return kept


def _short(tick: float) -> str:
    """Label a tick, as a power of ten where digits would not fit."""
    if abs(tick) < 1e6:
        return f"{tick:,.10g}"
    return f"${'-' if tick < 0 else ''}10^{{{np.log10(abs(tick)):.0f}}}$"


def _calibration(axes: Axes, values: Any) -> None:
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
            color=INK,
            alpha=0.15,
            label="95 % band",
        )
        axes.plot(expected, p, color=ACCENT, label="calibration records, half against half")
    axes.plot([1e-4, 1], [1e-4, 1], color=INK, lw=0.8, ls="--", label="uniform")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="share of records",
        ylabel="p-value",
        title="Calibration of p-values",
    )
    axes.legend(frameon=False, loc="upper left")


def _columns(axes: Axes, detector: Detector, scores: Scores) -> None:
    terms = scores.column_terms.numpy()
    worst = scores.anomaly_score.numpy() >= np.quantile(scores.anomaly_score.numpy(), 0.99)
    names, mean = detector.features.layout.columns, terms[worst].mean(axis=0)
    order = np.argsort(mean)[-MOST_COLUMNS:]
    places = range(len(order))  # not the names, which may be equal once shortened
    axes.barh(places, mean[order], color=WARN, alpha=0.8, label="highest-scoring 1 %")
    axes.barh(places, terms.mean(axis=0)[order], color=INK, label="all")
    axes.set_yticks(places, [names[i] if len(names[i]) <= 32 else f"{names[i][:31]}…" for i in order])
    some = f", {MOST_COLUMNS} of {len(names)}" if len(names) > MOST_COLUMNS else ""
    axes.set(xlabel="nats above the column's mean in training", title=f"Which columns make scores high{some}")
    axes.set_xscale("symlog")
    axes.legend(frameon=False, loc="lower right")


def _latents(axes: Axes, latents: Any, values: Any) -> None:
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
        (usual, INK, 4, "the others"),
        (~usual, WARN, 12, "highest-scoring 1 %"),
    ):
        axes.scatter(
            flat[which, 0], flat[which, 1], color=colour, s=size, alpha=0.5, linewidths=0, label=label
        )
    axes.legend(frameon=False, loc="upper right")
    axes.set(
        xlabel="first direction",
        ylabel="second direction",
        title="Posterior means, first member; the farthest at the edge",
    )

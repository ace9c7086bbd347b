"""Four pictures of a trained detector, drawn from the records it was calibrated on.

Belongs here: what a model owner looks at before trusting a version. Does not: numbers (experiment.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure

from pipeline.calibration import FEWEST, Calibration
from pipeline.config import Dataset
from pipeline.detector import Detector
from vae_core import Scores, encode, score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_DRAWN = 20_000
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
        "columns": _save(folder, "columns", lambda axes: _columns(axes, detector, scores)),
        "latent_map": _save(folder, "latent_map", lambda axes: _latents(axes, latents, values)),
    }


def _save(folder: Path, title: str, paint: Any) -> Path:
    figure = Figure(figsize=(8, 4.8), layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    paint(axes)
    figure.savefig(folder / f"{title}.png")
    return folder / f"{title}.png"


def _histogram(axes: Axes, detector: Detector, dataset: Dataset, values: Any) -> None:
    threshold = detector.calibration.threshold(dataset.flag, detector.records_per_day)
    shift = float(values.min()) - 1.0  # scores may be negative: the axis shows their distance from the lowest
    axes.hist(
        values - shift,
        bins=np.geomspace(1, max(2.0, float(values.max()) - shift), 80).tolist(),
        color=ACCENT,
        alpha=0.75,
    )
    note = ", extrapolated" if threshold.extrapolated else ""
    axes.axvline(threshold.value - shift, color=WARN, label=f"threshold {threshold.value:.4g} nats{note}")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="anomaly score above the lowest (nats)",
        ylabel="calibration records",
    )
    axes.set_title(f"{dataset.dataset}: anomaly scores of the calibration records")
    axes.legend(frameon=False)


def _calibration(axes: Axes, values: Any) -> None:
    """p-values of every other record against a calibration on the rest: uniform if records are
    exchangeable.
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
    axes.legend(frameon=False)


def _columns(axes: Axes, detector: Detector, scores: Scores) -> None:
    terms = scores.column_terms.numpy()
    worst = scores.anomaly_score.numpy() >= np.quantile(scores.anomaly_score.numpy(), 0.99)
    names, mean = detector.features.layout.columns, terms[worst].mean(axis=0)
    order = np.argsort(mean)[-25:]
    axes.barh([names[i][:32] for i in order], mean[order], color=WARN, alpha=0.8, label="highest-scoring 1 %")
    axes.barh([names[i][:32] for i in order], terms.mean(axis=0)[order], color=INK, label="all")
    axes.set(xlabel="nats above the column's mean in training", title="Which columns make scores high")
    axes.set_xscale("symlog")
    axes.legend(frameon=False, loc="lower right")


def _latents(axes: Axes, latents: Any, values: Any) -> None:
    """The plane in which all but the highest-scoring 1 % vary most; those are clipped to its edge, or they
    would be all one sees.
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
    axes.legend(frameon=False)
    axes.set(
        xlabel="first direction",
        ylabel="second direction",
        title="Posterior means, first member; the farthest at the edge",
    )

"""The page of one training, and the facts on it.

Belongs here: what was learned from what, how the newest days compare with the rest, how training went. Does
not: whether the version deserves to serve (standing.py, gates.py), or how it looks (templates/).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.detection.calibration import FEWEST_DAYS
from pipeline.detection.measures import ColumnDrift, column_drift
from pipeline.monitoring.judgement import SHIFT
from pipeline.records.window import Window
from pipeline.report import plots, sheet
from pipeline.report.standing import standing

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector
    from pipeline.installation import Installation
    from pipeline.registry import ModelVersion

FILE = "report.html"
DRAWN = 6  # columns
FEWEST_MEANT = 8  # flags a day; from so many on, half or fewer is no chance
MUCH = 0.03  # bits; the newest days are a fifth of what they are compared with


def path_of(here: Installation, dataset: Dataset, version: ModelVersion) -> Path | None:
    """Return the path of a training's page; None if it is not on this machine: made elsewhere, or pruned."""
    path = here.training_page(dataset, version.training_key)
    return path if path.exists() else None


def write(
    path: Path,
    dataset: Dataset,
    window: Window,
    trained: Detector,
    newest: Sequence[tuple[str, ColumnDrift]],
    doubts: Sequence[str],
    metrics: Mapping[str, float],
    curves: Sequence[tuple[int, Mapping[str, float]]],
    pictures: Mapping[str, Path],
) -> Path:
    """Write a training's page.

    Args:
        newest: what newest_days returned.
        doubts: what speaks against the version, a sentence each.
        curves: (step, values) of what was trained in this process; empty if both fits had ended earlier.
        pictures: PNG by title, embedded in the page with its like for dark pages.

    Raises:
        StorageFailed: it could not be written.
    """
    from pipeline.detection.plots import in_the_dark  # loads matplotlib, which only a training needs

    recipe = trained.vae.recipe
    html = sheet.render(
        "training.html",
        dataset=dataset,
        judgement=None,
        answer=standing(dataset, None, None),
        window=window,
        contract=contract_hash(dataset),
        metrics=metrics,
        doubts=doubts,
        columns=newest,
        drawn=[(name, plots.column(name, drift)) for name, drift in newest[:DRAWN]],
        loss=plots.curve([(float(step), terms["loss"]) for step, terms in curves], "loss by step, nats"),
        pictures={title: (_inline(path), _inline(in_the_dark(path))) for title, path in pictures.items()},
        trimmed=recipe.trim,
        trimmed_after=recipe.trim_after,
        loss_of_all=curves[-1][1]["loss_of_all"] if curves else None,
        about=trained.about,
    )
    return sheet.write(path, html)


def newest_days(trained: Detector, calibrating: pa.Table) -> list[tuple[str, ColumnDrift]]:
    """Return how the newest records differ from the whole window, by column, the farthest first."""
    if trained.reference is None:
        return []
    found = column_drift(trained.reference, trained.features, calibrating)
    return sorted(found.items(), key=lambda item: (-item[1].divergence, item[0]))


def doubts_of(metrics: Mapping[str, float], newest: Sequence[tuple[str, ColumnDrift]]) -> list[str]:
    """Return what a model owner should think about before the version serves."""
    said = []
    if metrics.get("threshold_extrapolated"):
        said.append(
            "the threshold lies beyond the newest records that calibrated it, so it is rough; more records, or a larger "
            "budget, make it firm"
        )
    said += _unusual_days(metrics)
    moved = [n for n, d in newest if d.divergence > MUCH and (d.shift is None or d.shift > SHIFT)]
    if moved:
        said.append(
            f"the newest days differ from the window in {', '.join(moved[:5])}: what is usual may be changing"
        )
    return said


def _unusual_days(metrics: Mapping[str, float]) -> Iterator[str]:
    """Say what event days among those that calibrate mean for the threshold."""
    days, unusual = (int(metrics.get(name, 0)) for name in ("calibration_days", "calibration_days_unusual"))
    meant, median, largest = (
        metrics.get(f"calibration_flags_{of}_day", 0.0) for of in ("meant_a", "median", "largest")
    )
    if days < FEWEST_DAYS:
        return
    if unusual:
        yield (
            f"{unusual} of the {days} newest days of the window, which calibrate the threshold, {'has' if unusual == 1 else 'have up to'} {largest:.0f} records above "
            f"it where {meant:.0f} are meant: an event, or days of another kind. Such a day counts at most twice as much as the "
            "others, so that it does not set the threshold; days like it will flag as many"
        )
    if meant >= FEWEST_MEANT and median < meant / 2:
        yield (
            f"of the days that calibrate the threshold, the median one flags {median:.0f} where {meant:.0f} are meant: there are too "
            "many unusual days to tell them from usual ones; train again when they are no longer the newest, or raise the budget until then"
        )


def _inline(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"

"""Pictures of a trained detector: labels do not overlap, and the axis says what it shows."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.config.dataset import Dataset
from pipeline.detection import plots
from pipeline.detection.detector import Detector

N_COLUMNS = 27


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return Dataset.model_validate({
        "dataset": "plant",
        "incoming": {"path": "incoming"},
        "columns": {name(i): {"type": "float", "role": "numeric"} for i in range(N_COLUMNS)},
        "train": {"recipe": {"steps": 5, "n_members": 1}},
    })


def name(i: int) -> str:
    """Two of them are the same in their first forty letters."""
    return f"{'pressure_in_the_second_pipe_from_the_left' if i < 2 else 'level'}_{i}"


def readings(n: int, seed: int, scale: float = 1.0) -> pa.Table:
    values = np.random.default_rng(seed).normal(0.0, 1.0, (n, N_COLUMNS))
    values[:3] *= scale
    return pa.table({name(i): values[:, i] for i in range(N_COLUMNS)})


@pytest.fixture(scope="module")
def plant(dataset: Dataset) -> Detector:
    return Detector.train(dataset, readings(300, 1), readings(100, 2), records_per_day=50, device="cpu")


@pytest.fixture
def drawn(
    plant: Detector, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Figure]:
    """Figures by title, as they were saved; three records are thousands of times as odd as the others."""
    figures: dict[str, Figure] = {}
    save = Figure.savefig

    def keep(figure: Figure, path: Path, *given: Any, **more: Any) -> None:
        figures[path.stem] = figure
        save(figure, path, *given, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    files = plots.draw(plant, dataset, readings(200, 3, scale=1e4), tmp_path)
    both = [*files.values(), *map(plots.in_the_dark, files.values())]
    assert {file.name for file in both} == {f"{title}.png" for title in figures}
    assert all(file.stat().st_size for file in both)
    return figures


def labels_along(axis: Any) -> list[tuple[float, float, str]]:
    """Where each label begins and ends, pixels, and what it says."""
    boxes = [(label.get_window_extent(), label.get_text()) for label in axis.get_ticklabels()]
    ends = ("x0", "x1") if axis.axis_name == "x" else ("y0", "y1")
    return sorted((*(getattr(box, end) for end in ends), text) for box, text in boxes if text)


def stands_apart(axis: Any) -> bool:
    return all(before[1] < after[0] for before, after in pairwise(labels_along(axis)))


def test_each_of_many_columns_has_a_label_of_its_own(drawn: dict[str, Figure]) -> None:
    (axes,) = drawn["columns"].axes
    texts = [text for *_, text in labels_along(axes.yaxis)]
    assert len(texts) == plots.MOST_COLUMNS
    assert stands_apart(axes.yaxis)
    assert axes.get_title().endswith("25 of 27")


def test_the_threshold_is_read_off_the_axis_of_scores(drawn: dict[str, Figure], plant: Detector) -> None:
    """Most scores are below zero or near it, three are thousands; each is in the histogram."""
    (axes,) = drawn["score_histogram"].axes
    assert sum(bar.get_height() for bar in axes.patches) == 200  # type: ignore[attr-defined]
    assert stands_apart(axes.xaxis)
    legend = axes.get_legend()
    assert legend
    (told,) = re.findall(r"threshold (\S+) nats", legend.get_texts()[0].get_text())
    assert where(axes, float(told)) == pytest.approx(axes.lines[0].get_window_extent().x0, abs=1.0)
    marked = [(number(text), (start + end) / 2) for start, end, text in labels_along(axes.xaxis)]
    assert len(marked) >= 4
    for value, middle in marked:
        assert where(axes, value) == pytest.approx(middle, abs=2.0)


def test_the_map_of_latents_has_its_legend_beside_the_points_and_marks_that_can_be_seen(
    drawn: dict[str, Figure],
) -> None:
    for figure in (drawn["latent_map"], drawn["latent_map_dark"]):
        (axes,), (legend,) = figure.axes, figure.legends
        assert legend.get_window_extent().y1 < axes.get_window_extent().y0
        assert all(handle.get_sizes()[0] >= 30 for handle in legend.legend_handles)  # type: ignore[union-attr]


def test_letters_on_a_dark_page_are_light_and_nothing_is_behind_them(
    drawn: dict[str, Figure], tmp_path: Path
) -> None:
    for title, is_light in (("columns", False), ("columns_dark", True)):
        shade = np.mean(to_rgb(drawn[title].axes[0].title.get_color()))
        assert (shade > 0.5) == is_light
        assert imread(tmp_path / f"{title}.png")[0, 0, 3] == (
            not is_light
        )  # the corner of a dark one is see-through


def number(text: str) -> float:
    """Of a label: 1,000 or a power of ten."""
    return float(re.sub(r"\$(-?)10\^\{(\d+)\}\$", r"\g<1>1e\2", text.replace(",", "")))


def where(axes: Axes, score: float) -> float:
    """Pixels from the left."""
    return float(axes.transData.transform((score, 1.0))[0])

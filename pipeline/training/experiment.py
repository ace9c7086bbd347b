"""One training from start to end.

Belongs here: reading the window, training, measuring on the calibration records, and what is logged under
which name. Does not: how it is logged (registry/), or the model itself (detection/detector.py).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import vae_core
from pipeline.config.contracts import contract_hash
from pipeline.config.dataset import Dataset
from pipeline.detection import calibration, plots
from pipeline.detection.detector import Detector
from pipeline.errors import ModelUnusable, NotReady
from pipeline.records.window import DAY, SPAN, WITHOUT, Window
from pipeline.registry import DOUBTS, DatasetInput, TrainingRun
from pipeline.report import training as training_page
from pipeline.storage.tables import Tables
from pipeline.training import training_set
from pipeline.training.provenance import note
from vae_core import Progress

MOST_COMPARED = 10_000  # records on which the two fits are compared
LONGEST_DOUBT = (
    600  # characters; there are seven at most, and MLflow refuses a version's tag of more than 5,000
)
OURS = Path(__file__).parents[1]
# of the package `pipeline`, the modules by which a training on the same records could end otherwise
OF_THE_MODEL = (
    "config/derived.py", "detection/calibration.py", "detection/detector.py", "detection/features.py", "detection/fitting.py",
    "detection/intervals.py", "detection/numbers.py", "detection/recipe.py", "detection/reference.py", "detection/values.py",
    "records/holdout.py", "records/window.py", "training/experiment.py", "training/training_set.py",
)  # fmt: skip


@cache
def code_version() -> str:
    """Return the package's version and a digest of the code that determines a model."""
    files = [*(OURS / name for name in OF_THE_MODEL), *sorted(Path(vae_core.__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return f"{version('vaewatch')}+{digest[:12]}"


def train(
    dataset: Dataset,
    window: Window,
    tables: Tables,
    key: str,
    scratch: Path,
    checkpoints: Path,
    threads: int,
    on_progress: Callable[[Progress], None] | None,
    doubts: Sequence[str] = (),
) -> TrainingRun:
    """Train a detector into `scratch` and describe it.

    Args:
        checkpoints: folder where progress is kept, so that a killed training can resume.
        doubts: what is known against the records before they are read, a sentence each.

    Raises:
        NotReady: too few records to calibrate on.
        ModelUnusable: the training diverged, or the trained model's scores are not finite or all the same.
    """
    started = time.monotonic()
    tables = replace(tables, as_of=tables.version("records"))  # the version noted must be the one read
    fitted = fit(dataset, window, tables, scratch, checkpoints, threads, on_progress)
    known, trained, learned, calibrating = fitted.known, fitted.trained, fitted.learned, fitted.calibrating
    metrics = _measure(dataset, known, learned, calibrating) | _compared(known, trained, learned)
    plotted = plots.draw(known, dataset, calibrating, scratch / "plots")
    trained.save(scratch / "detector")
    metrics["threshold"] = trained.threshold(dataset.flag).value
    metrics["training_seconds"] = time.monotonic() - started
    newest = training_page.newest_days(trained, calibrating)
    doubts = (*doubts, *trained.doubts, *training_page.doubts_of(metrics, newest))
    page = training_page.write(
        scratch / training_page.FILE,
        dataset,
        window,
        trained,
        newest,
        doubts,
        metrics,
        fitted.curves,
        plotted,
    )
    return TrainingRun(
        dataset=dataset.name,
        training_key=key,
        detector=scratch / "detector",
        input_example=typical(calibrating.select(trained.features.columns)),
        params=_params(dataset, window, trained),
        metrics=metrics,
        curves=fitted.curves,
        inputs=_inputs(dataset, window, tables, {"training": learned, "calibration": calibrating}),
        tags=_tags(dataset, window, doubts),
        plots=plotted,
        report=page,
        note=note(
            dataset, window, records_version=tables.version("records"), code_version=code_version()
        ).as_dict(),
    )


@dataclass(frozen=True)
class Fitted:
    """A training's outcome.

    Attributes:
        known: the detector that was calibrated.
        trained: the one that also learned the calibration records, and will serve.
        learned, calibrating: the records, in order of time.
        curves: (step, values) of both fits.
    """

    known: Detector
    trained: Detector
    learned: pa.Table
    calibrating: pa.Table
    curves: list[tuple[int, dict[str, float]]]


def fit(
    dataset: Dataset,
    window: Window,
    tables: Tables,
    scratch: Path,
    checkpoints: Path,
    threads: int,
    on_progress: Callable[[Progress], None] | None,
) -> Fitted:
    """Read the window and train on it. The arguments alone decide the result.

    Raises:
        NotReady: too few records to calibrate on.
    """
    records = training_set.read_window(dataset, window, tables, scratch=scratch, threads=threads)
    learned, calibrating = training_set.split_calibration(dataset, records.table)
    if not learned.num_rows or not calibrating.num_rows:
        raise NotReady(
            f"{dataset.name}: {records.table.num_rows} records are too few to learn from some and calibrate on others; wait for more batches"
        )
    parts = dataset, learned, calibrating, records.anomalies
    curves: list[tuple[int, dict[str, float]]] = []
    known = Detector.train(
        *parts,
        records_per_day=window.records_per_day,
        on_progress=_noted(curves, on_progress),
        checkpoint=checkpoints / "train.safetensors",
    )
    trained = known.refit(
        *parts,
        on_progress=_noted(curves, on_progress, after=known.vae.recipe.steps),
        checkpoint=checkpoints / "refit.safetensors",
    )
    return Fitted(known, trained, learned, calibrating, curves)


def _inputs(
    dataset: Dataset, window: Window, tables: Tables, parts: Mapping[str, pa.Table]
) -> list[DatasetInput]:
    source = tables.uri("records")
    return [
        DatasetInput(f"{dataset.name} {name}", source, window.fingerprint, part.num_rows, name)
        for name, part in parts.items()
    ]


def _tags(dataset: Dataset, window: Window, doubts: Sequence[str]) -> dict[str, str]:
    told = {DOUBTS: "\n".join(shorten(doubt, LONGEST_DOUBT) for doubt in doubts)} if doubts else {}
    return {
        **told,
        "contract_hash": contract_hash(dataset),
        "code_version": code_version(),
        "data_fingerprint": window.fingerprint,
        "holdout": str(dataset.promote.holdout),
        "seed": str(dataset.train.seed),
        SPAN: f"{window.batch_ids[0]}..{window.batch_ids[-1]}",
        **({WITHOUT: ", ".join(window.without)} if window.without else {}),
    }


def _noted(
    curves: list[tuple[int, dict[str, float]]],
    on_progress: Callable[[Progress], None] | None,
    after: int = 0,
) -> Callable[[Progress], None]:
    """Record the curves, counting on from the `after` steps of an earlier fit."""

    def note(progress: Progress) -> None:
        terms = ("loss", "reconstruction", "kl_divergence", "loss_of_all", "learning_rate")
        curves.append((after + progress.step, {term: getattr(progress, term) for term in terms}))
        if on_progress:
            on_progress(progress)

    return note


def _params(
    dataset: Dataset, window: Window, trained: Detector
) -> dict[str, str | int | float | bool | None]:
    settings = {f"train.{k}": v for k, v in dataset.train.model_dump(exclude={"recipe", "leave_out"}).items()}
    recipe = {f"recipe.{k}": v for k, v in trained.vae.recipe.to_dict().items()}
    flag = {f"flag.{k}": v for k, v in dataset.flag.model_dump().items() if v is not None}
    return {
        **settings,
        **recipe,
        **flag,
        "n_batches": len(window.batches),
        "n_known_anomalies": len(window.left_out),
        "n_known_normals": len(window.normal),
        "records_per_day": window.records_per_day,
        "n_columns": len(trained.features.layout.columns),
        "device": trained.about["device"],
    }


def _measure(
    dataset: Dataset, trained: Detector, learned: pa.Table, calibrating: pa.Table
) -> dict[str, float]:
    table = trained.score_table(calibrating)
    scores = {name: table[name].to_numpy() for name in table.column_names}
    anomaly_score = scores["anomaly_score"]
    if not np.isfinite(anomaly_score).all() or float(anomaly_score.std()) == 0:
        raise ModelUnusable(
            f"{dataset.name}: the trained model gives every record the same score, or none; "
            "look at the training curves and the columns' values"
        )
    threshold, bound = trained.threshold(dataset.flag), trained.negative_elbo(calibrating)
    return {
        "n_training": learned.num_rows,
        "n_calibrating": calibrating.num_rows,
        "calibration_reconstruction": float(scores["reconstruction"].mean()),
        "calibration_kl_divergence": float(scores["kl_divergence"].mean()),
        **({} if bound is None else {"calibration_negative_elbo": float(bound.mean())}),
        "calibration_anomaly_score_median": float(np.median(anomaly_score)),
        "calibration_anomaly_score_p99": float(np.quantile(anomaly_score, 0.99)),
        "threshold_error_rate": threshold.error_rate,
        "threshold_extrapolated": float(threshold.extrapolated),
        **flags_by_day(anomaly_score > threshold.value, calibrating[DAY].to_numpy(), threshold.error_rate),
    }


def _compared(known: Detector, trained: Detector, learned: pa.Table) -> dict[str, float]:
    """Return the median of each fit's loss on records that both learned, nats.

    Their own losses are means over different records, and a few outliers dominate a mean.
    """
    some = learned.take(pa.array(range(0, learned.num_rows, 1 + learned.num_rows // MOST_COMPARED)))
    medians = []
    for fitted in (known, trained):
        scores = fitted.score_table(some)
        medians.append(
            float(np.median(scores["reconstruction"].to_numpy() + scores["kl_divergence"].to_numpy()))
        )
    return dict(zip(("first_fit_median", "second_fit_median"), medians, strict=True))


def flags_by_day(flagged: Any, days: Any, rate: float) -> dict[str, float]:
    """Return how the calibration records above the threshold are spread over days.

    Args:
        flagged: (n_records,) bool. days: a number for the day of each. (n_records,)
        rate: share of them that is meant to be flagged.
    """
    _, day_of, sizes = np.unique(days, return_inverse=True, return_counts=True)
    by_day = np.bincount(day_of, flagged)
    many = [2 * calibration.most_of_a_day(rate * size) for size in sizes.tolist()]  # more than chance
    return {
        "calibration_days": len(sizes),
        "calibration_days_unusual": int((by_day > many).sum()),
        "calibration_flags_meant_a_day": rate * float(sizes.mean()),
        "calibration_flags_median_day": float(np.median(by_day)),
        "calibration_flags_largest_day": float(by_day.max()),
    }


def typical(records: pa.Table) -> pa.Table:
    """Return one record that nobody is: each column's middle value, or its commonest text or flag.

    MLflow shows it to whoever may read a model. A column without values gets null.
    """
    columns = {field.name: _middle(records[field.name].drop_null()) for field in records.schema}
    return pa.table(columns, schema=records.schema)


def _middle(values: pa.ChunkedArray) -> pa.Array:
    if not len(values):
        return pa.nulls(1, values.type)
    if any(kind(values.type) for kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean)):
        counted = values.value_counts()
        place = counted.field("counts").index(pc.max(counted.field("counts"))).as_py()
        return counted.field("values").slice(place, 1)
    return values.take(pc.sort_indices(values).slice(len(values) // 2, 1)).combine_chunks()

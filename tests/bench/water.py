"""Detection on the water data, run as the product runs: `make bench-water`.

Every night (or every so many) the detector is trained on the trailing 30 days and scores what comes until it
is trained again, without a label; so are the rivals, on the same columns of the same records. Labels are read
at the very end, to measure. Printed: average precision and AUROC over the days from the 31st on that have
labels (before 2016-11-08), mean and spread over seeds. The columns are those that `vaewatch init` proposes,
27 derived from nine: change, deviation from the hour's and the day's median; or the nine themselves.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from pipeline.config.dataset import Dataset
from pipeline.config.derived import BATCH, KEY, ROW, beside
from pipeline.detection.detector import Detector
from pipeline.training.training_set import split_calibration

DATA = Path(os.environ.get("VAEWATCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "water"
SENSORS = ["Tp", "Cl", "pH", "Redox", "Leit", "Trueb", "Cl_2", "Fm", "Fm_2"]
WINDOW, LABELLED = 30, "2016-11-08"

Scorer = Callable[[pa.Table], Any]


LOOKS_BACK = {
    "change": "{0} - lag({0}) OVER by_time",
    "from_hour": "{0} - median({0}) OVER the_hour",
    "from_day": "{0} - median({0}) OVER the_day",
}
DERIVED = {f"{name}_{kind}": sql.format(f'"{name}"') for name in SENSORS for kind, sql in LOOKS_BACK.items()}


def dataset(seed: int, *, look_back: bool, **train: Any) -> Dataset:
    """What `vaewatch init` infers for this data."""
    role = "ignored" if look_back else "numeric"
    numeric = {name: {"type": "float", "role": role} for name in SENSORS}
    time_column = {"time": {"type": "timestamp", "role": train.pop("time_role", "context")}}
    return Dataset.model_validate({
        "dataset": "water",
        "incoming": {"path": "."},
        "time": "time",
        "columns": numeric | time_column,
        "derived": DERIVED if look_back else {},
        "train": {"seed": seed, **train},
        "flag": {"review_budget": 20},
    })


def ours(**train: Any) -> Callable[[pa.Table, int], Scorer]:
    recipe = {"critic_steps": 0} | train.pop("recipe", {})  # a critic has no part in scores

    def learn(window: pa.Table, seed: int) -> Scorer:
        look_back = set(DERIVED) <= set(window.column_names)
        config = dataset(seed, look_back=look_back, recipe=recipe, **train)
        parts = split_calibration(config, window)
        detector = Detector.train(config, *parts, records_per_day=1440).refit(config, *parts)
        return lambda table: detector.score_table(table)["anomaly_score"].to_numpy()

    return learn


class Complete:
    """What rivals see: standardised, missing values at the training median."""

    def __init__(self, window: pa.Table) -> None:
        raw = self.raw(window)
        self.median = np.nanmedian(raw, axis=0)
        filled = np.where(np.isnan(raw), self.median, raw)
        self.mean, self.std = filled.mean(axis=0), filled.std(axis=0) + 1e-12

    @staticmethod
    def raw(table: pa.Table) -> Any:
        columns = DERIVED if set(DERIVED) <= set(table.column_names) else SENSORS
        return np.stack([table[name].to_numpy() for name in columns], axis=1)

    def __call__(self, table: pa.Table) -> Any:
        raw = self.raw(table)
        return (np.where(np.isnan(raw), self.median, raw) - self.mean) / self.std


def isolation_forest(window: pa.Table, seed: int) -> Scorer:
    complete = Complete(window)
    model = IsolationForest(random_state=seed).fit(complete(window))
    return lambda table: -model.score_samples(complete(table))


def nearest_neighbours(window: pa.Table, seed: int) -> Scorer:
    complete = Complete(window)
    rows = complete(window)
    reference = rows[np.random.default_rng(seed).permutation(len(rows))[:5000]]
    model = NearestNeighbors(n_neighbors=5).fit(reference)
    return lambda table: model.kneighbors(complete(table))[0][:, -1]


def mahalanobis(window: pa.Table, _seed: int) -> Scorer:
    complete = Complete(window)
    model = EmpiricalCovariance().fit(complete(window))
    return lambda table: model.mahalanobis(complete(table))


def principal_components(window: pa.Table, _seed: int) -> Scorer:
    """What the components that explain 90 % of the variance leave over."""
    complete = Complete(window)
    model = PCA(0.9).fit(complete(window))

    def left_over(table: pa.Table) -> Any:
        rows = complete(table)
        return ((rows - model.inverse_transform(model.transform(rows))) ** 2).sum(axis=1)

    return left_over


def retrained(
    days: list[pa.Table], learn: Callable[[pa.Table, int], Scorer], seed: int, every: int
) -> list[Any]:
    """Scores of every day from the 31st on, trained every so many days on the 30 before."""
    found: list[Any] = []
    for first in range(WINDOW, len(days), every):
        scorer = learn(pa.concat_tables(days[first - WINDOW : first]), seed)
        found += [scorer(day) for day in days[first : first + every]]
    return found


def read_days(*, look_back: bool) -> list[pa.Table]:
    """A table a day; derived columns as the product computes them, which never look ahead."""
    files = [f for f in sorted((DATA / "batches").glob("*.parquet")) if f.stem < LABELLED]
    if not look_back:
        return [pq.read_table(f) for f in files]
    records = " UNION ALL ".join(
        f"SELECT '{f.stem}' AS {BATCH}, row_number() OVER () AS {ROW}, '' AS {KEY}, * FROM read_parquet('{f}')"
        for f in files
    )
    query = f"SELECT * FROM ({beside(dataset(0, look_back=True), records)}) ORDER BY {BATCH}, {ROW}"
    table = duckdb.sql(query).to_arrow_table()
    return [table.filter(pc.equal(table[BATCH.strip('"')], f.stem)) for f in files]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--every", type=int, default=1, help="days between trainings")
    arguments.add_argument("--raw", action="store_true", help="the nine columns as they are")
    every = ", ".join(METHODS | VARIANTS).replace("%", "%%")
    arguments.add_argument(
        "--only", nargs="+", choices=METHODS | VARIANTS, metavar="METHOD", help=f"of: {every}"
    )
    arguments.add_argument("--variants", action="store_true", help="also settings that are not the default")
    chosen = arguments.parse_args()
    labels = pq.read_table(DATA / "labels_before_2016-11-08.parquet")
    console = Console(width=None if sys.stdout.isatty() else 120)
    compare(read_days(look_back=not chosen.raw), labels, chosen, console)


def compare(days: list[pa.Table], labels: pa.Table, chosen: argparse.Namespace, console: Console) -> None:
    """Print a line for each method."""
    scored = pa.concat_tables(days[WINDOW:])
    events = (
        labels["event"]
        .take(pc.index_in(scored["record_id"], value_set=labels["record_id"]))
        .to_numpy()
        .astype(bool)
    )
    methods = VARIANTS if chosen.variants else METHODS
    if chosen.only:
        methods = {label: (METHODS | VARIANTS)[label] for label in chosen.only}
    table = Table("method", "average precision", "AUROC", "seconds a training and scoring", box=None)
    for label, learn in methods.items():
        rows, started = [], time.monotonic()
        for seed in range(chosen.seeds):
            scores = np.concatenate(retrained(days, learn, seed, chosen.every))
            rows.append([average_precision_score(events, scores), roc_auc_score(events, scores)])
            console.print(f"  {label}, seed {seed}: {rows[-1][0]:.3f} {rows[-1][1]:.3f}")
        n_trainings = chosen.seeds * len(range(WINDOW, len(days), chosen.every))
        mean, std = np.mean(rows, axis=0), np.std(rows, axis=0)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, std, strict=True)]
        table.add_row(label, *cells, f"{(time.monotonic() - started) / n_trainings:.1f}")
    console.print(table)
    console.print(
        f"{len(events)} records of {len(days) - WINDOW} days, {events.mean():.2%} events; trained every {chosen.every} days on "
        f"{'the nine columns' if chosen.raw else '27 derived columns'}; {chosen.seeds} seeds (± their standard "
        f"deviation); {platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}"
    )


METHODS: dict[str, Callable[[pa.Table, int], Scorer]] = {
    "vaewatch": ours(),
    "IsolationForest": isolation_forest,
    "kNN (k=5, 5,000 reference records)": nearest_neighbours,
    "Mahalanobis": mahalanobis,
    "PCA (90 % of the variance)": principal_components,
}
VARIANTS = {
    "time ignored": ours(time_role="ignored"),
    "calibration 0.1": ours(calibration=0.1),
    "not trimmed": ours(recipe={"trim": 0.0}),
}

if __name__ == "__main__":
    main()

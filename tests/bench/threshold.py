"""Whether a promised rate of flags on normal records is kept: `make bench-threshold`.

On each set normal records are parted at random into those the product's Detector trains on, a part it
calibrates on, and a test. A cell is a set at a level (5 %, 1 %, 0.1 %) for which that part is large enough,
1/level records. Reported is in how many cells the number of test records flagged lies in the central 95 %
interval of

- a binomial of the nominal level: as if the threshold were exact; - a beta-binomial: a conformal threshold is
itself a random order statistic of n calibration records, and the rate beyond the
  k-th of them is Beta(n + 1 − k, k) distributed (Vovk 2012).

Both for the model that was calibrated and, as every night, for the one trained anew on training and
calibration records, to which the calibration is carried over.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import betabinom, binom

from pipeline.config.dataset import Dataset, Flagging
from pipeline.detection.detector import Detector
from tests.bench.adbench import Array, generator, names, rows
from vae_core import DataWarning

LEVELS = (0.05, 0.01, 0.001)
MOST_ROWS = 20_000
TRAINED, MOST_TRAINED = (
    0.4,
    4000,
)  # share and number of the normal records; the rest is halved into calibration records and test
FEWEST = 20  # calibration records, 1 / the highest level
MODELS = ("calibrated", "trained anew")


@dataclass(frozen=True)
class Cell:
    """One set, seed, level and model."""

    set_name: str
    seed: int
    level: float
    model: str
    n_calibrating: int
    n_test: int
    n_flagged: int

    @property
    def in_binomial(self) -> bool:
        low, high = binom.interval(0.95, self.n_test, self.level)
        return bool(low <= self.n_flagged <= high)

    @property
    def expected_in_binomial(self) -> float:
        """How often a threshold that is conformal to the letter gets there."""
        low, high = binom.interval(0.95, self.n_test, self.level)
        return float(self._conformal.cdf(high) - self._conformal.cdf(low - 1))

    @property
    def beta_binomial(self) -> tuple[float, float]:
        low, high = self._conformal.interval(0.95)
        return float(low), float(high)

    @property
    def _conformal(self) -> Any:
        rank = math.ceil((self.n_calibrating + 1) * (1 - self.level))
        return betabinom(self.n_test, self.n_calibrating + 1 - rank, rank)

    @property
    def side(self) -> int:
        """Of the beta-binomial interval: −1 below, 0 inside, 1 above."""
        low, high = self.beta_binomial
        return int(self.n_flagged > high) - int(self.n_flagged < low)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--no-refit", action="store_true", help="only the model that was calibrated: half the time"
    )
    chosen, console = parser.parse_args(), Console(width=None if sys.stdout.isatty() else 130)
    progress = Console(stderr=True, width=130)
    cells: list[Cell] = []
    for seed in range(chosen.seeds):
        for name in names():
            for cell in cells_of(name, seed, refit=not chosen.no_refit):
                cells.append(cell)
                progress.print(described(cell), highlight=False)
    for model in MODELS[: 1 if chosen.no_refit else 2]:
        console.print(table(model, [cell for cell in cells if cell.model == model]))
    console.print(
        f"{chosen.seeds} seeds; {platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}"
    )


def cells_of(name: str, seed: int, *, refit: bool) -> Iterator[Cell]:
    x, y = rows(name, seed, MOST_ROWS)
    normal = generator(name, seed + 3000).permutation(x[~y])
    n_trained = min(round(TRAINED * len(normal)), MOST_TRAINED)
    n_calibrating = (len(normal) - n_trained) // 2
    if n_calibrating < FEWEST:
        return
    config = dataset(x.shape[1], seed)
    parts = [table_of(part) for part in np.split(normal, [n_trained, n_trained + n_calibrating])]
    for model, detector in detectors(config, *parts[:2], refit=refit):
        scores = detector.score_table(parts[2])["anomaly_score"].to_numpy()
        for level in LEVELS:
            flagged, threshold = detector.calibration.flags(scores, Flagging(error_rate=level), 1.0)
            if not threshold.extrapolated:
                yield Cell(name, seed, level, model, n_calibrating, len(scores), int(flagged.sum()))


def detectors(
    config: Dataset, training: pa.Table, calibration: pa.Table, *, refit: bool
) -> Iterator[tuple[str, Detector]]:
    """The model that was calibrated and, as every night, the one trained anew on all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        detector = Detector.train(config, training, calibration, records_per_day=1.0)
        yield MODELS[0], detector
        if refit:
            yield MODELS[1], detector.refit(config, training, calibration)


def dataset(n_columns: int, seed: int) -> Dataset:
    """A dataset's file as for any table of numbers."""
    return Dataset.model_validate({
        "dataset": "adbench",
        "incoming": {"path": "."},
        "columns": {f"x{i}": {"type": "float", "role": "numeric"} for i in range(n_columns)},
        "train": {"seed": seed},
        "flag": {"error_rate": 0.01},
    })


def table_of(x: Array) -> pa.Table:
    return pa.table({f"x{i}": column for i, column in enumerate(x.T.copy())})


def described(cell: Cell) -> str:
    low, high = cell.beta_binomial
    return (
        f"{cell.set_name}, seed {cell.seed}, {cell.model}: {cell.n_flagged} of {cell.n_test} flagged at {cell.level:.1%} "
        f"(interval {low:.0f} to {high:.0f}, {cell.n_calibrating} calibration records)"
    )


def table(title: str, cells: list[Cell]) -> Table:
    """A line a level, and one for all."""
    shown = Table(
        "level", "cells a seed", "rate, mean", "in binomial", "(expected)", "in beta-binomial", "below", "above",
        title=title, box=None, title_justify="left",
    )  # fmt: skip
    n_seeds = len({cell.seed for cell in cells})
    for level in LEVELS:
        of = [cell for cell in cells if cell.level == level]
        rate = np.mean([cell.n_flagged / cell.n_test for cell in of]) if of else math.nan
        shown.add_row(f"{level:.1%}", f"{len(of) / n_seeds:.1f}", f"{rate:.3%}", *shares(of))
    shown.add_row("all", f"{len(cells) / n_seeds:.1f}", "", *shares(cells))
    return shown


def shares(cells: Iterable[Cell]) -> list[str]:
    """Of cells within the binomial (and how many should be), within, below and above the beta-binomial
    interval.
    """
    cells = list(cells)
    side = np.array([cell.side for cell in cells])
    values = [
        np.mean([cell.in_binomial for cell in cells]),
        np.mean([cell.expected_in_binomial for cell in cells]),
        *(np.mean(side == where) for where in (0, -1, 1)),
    ]
    return [f"{value:.1%}" for value in values]


if __name__ == "__main__":
    main()

"""Whether the corrupted column is the one that is blamed: `make bench-explanation`.

On each set the recipe for clean records, with one draw a record, is trained on half of the normal records. Of
the other half, 200 records get one column spoiled: (a) moved by four standard deviations, up or down; (b)
replaced by the value that another of these records has there. Reported is how often the column is blamed
first and among the first three, by the shares of vae_core.attribute, with a critic as the product has it and
without, by what they are made of (the critic's suspicion, the falls of the score), the per-column terms of
the score that every record has for free, and |z| of the input.

The sets: all that have 6 to 60 columns, whatever their labels or results. Columns that are constant in
training have no standard deviation to be moved by and are not spoiled; a swap that leaves the value as it was
is drawn again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pipeline.detection.numbers import RIM
from tests.bench.adbench import Array, Split, generator, layout, names, records, split
from tests.bench.ranking import mean_and_error
from vae_core import VAE, CellCritic, DataWarning, Recipe, attribute, fit, fit_critic

FEWEST_COLUMNS, MOST_COLUMNS = 6, 60
N_CORRUPTED = 200
SHIFT = 4.0  # standard deviations
BY = (
    "share, with the critic",
    "share, without it",
    "suspicion of the critic",
    "fall of the score",
    "term of the score",
    "|z| of the input",
)
KINDS = {"shift": "moved by 4 standard deviations", "swap": "another record's value"}


@dataclass(frozen=True)
class Corrupted:
    """Rows with one wrong cell each (n, d), and its column (n,)."""

    rows: Array
    column: Array


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", type=int, help="so many, the first by number; default: all")
    told = "settings beside those for clean records, as JSON; default: the product's one draw"
    parser.add_argument("--recipe", type=json.loads, default={"samples": 1}, help=told)
    options = parser.parse_args()
    n_seeds, console = options.seeds, Console(width=None if sys.stdout.isatty() else 120)
    progress = Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    chosen = suited(names())[: options.sets]
    found: dict[str, list[Array]] = {kind: [] for kind in KINDS}
    for name in chosen:
        by_seed = [one_set(name, seed, Recipe.clean(**options.recipe)) for seed in range(n_seeds)]
        for kind in KINDS:
            found[kind].append(np.mean([of[kind] for of in by_seed], axis=0))
            progress.print(f"{name}, {KINDS[kind]}: {described(found[kind][-1])}", highlight=False)
    for kind, label in KINDS.items():
        console.print(table(label, np.array(found[kind])))
    console.print(
        f"{n_seeds} seeds, {N_CORRUPTED} records each, of {', '.join(chosen)}; ± the standard error over sets; "
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}"
    )


def suited(sets: list[str]) -> list[str]:
    """Those with 6 to 60 columns, by number."""
    width = {name: split(name, "clean", 0).train.shape[1] for name in sets}
    return [name for name in sets if FEWEST_COLUMNS <= width[name] <= MOST_COLUMNS]


def one_set(name: str, seed: int, recipe: Recipe) -> dict[str, Array]:
    """(n_orders, 2) for each kind of corruption: share of the records whose column came first, and among the
    first three.
    """
    part, random = split(name, "clean", seed), generator(name, seed + 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        vae = fit(layout(part.train), records(part.train), recipe, seed=seed)
    critic = fit_critic(layout(part.train), records(part.train), seed=seed)
    rims = torch.from_numpy(
        np.quantile(part.train, [RIM, 1 - RIM], axis=0, method="inverted_cdf").astype(np.float32)
    )
    spoiled = {"shift": shifted(part, random), "swap": swapped(part, random)}
    return {
        kind: np.array([blamed(order, of) for order in orders(vae, critic, of, rims)])
        for kind, of in spoiled.items()
    }


def shifted(part: Split, random: np.random.Generator) -> Corrupted:
    normal = part.test[~part.anomalous]
    varying = np.flatnonzero(np.ptp(part.train, axis=0) > 0)
    rows = normal[random.integers(len(normal), size=N_CORRUPTED)].copy()
    column = random.choice(varying, size=N_CORRUPTED)
    rows[np.arange(N_CORRUPTED), column] += SHIFT * random.choice([-1.0, 1.0], size=N_CORRUPTED)
    return Corrupted(rows, column)


def swapped(part: Split, random: np.random.Generator) -> Corrupted:
    """Drawn until the value differs."""
    normal = part.test[~part.anomalous]
    varying = np.flatnonzero((np.ptp(part.train, axis=0) > 0) & (np.ptp(normal, axis=0) > 0))
    rows: list[Array] = []
    columns: list[int] = []
    while len(rows) < N_CORRUPTED:
        mine, donor = random.choice(len(normal), size=2, replace=False)
        column = random.choice(varying)
        if normal[mine, column] != normal[donor, column]:
            row = normal[mine].copy()
            row[column] = normal[donor, column]
            rows.append(row)
            columns.append(column)
    return Corrupted(np.array(rows), np.array(columns))


def orders(vae: VAE, critic: CellCritic | None, of: Corrupted, rims: torch.Tensor) -> list[Array]:
    """What each way of blaming says of every cell, in the order of BY; more is more to blame. (n, d) each."""
    given = records(of.rows)
    alone = attribute(vae, given, within=rims)
    suspicion = torch.zeros_like(alone.share) if critic is None else critic.suspicion(given)
    tensors = (
        attribute(vae, given, critic, within=rims).share,
        alone.share,
        suspicion,
        alone.drop,
        alone.column_terms,
    )
    return [*(x.numpy() for x in tensors), np.abs(of.rows)]


def blamed(blame: Array, of: Corrupted) -> tuple[float, float]:
    """How often the corrupted column came first and among the first three; a tie counts against it."""
    mine = blame[np.arange(len(blame)), of.column][:, None]
    others = (blame >= mine).sum(axis=1) - 1
    return float((others < 1).mean()), float((others < 3).mean())


def described(of: Array) -> str:
    return ", ".join(f"{label} {first:.2f}/{three:.2f}" for label, (first, three) in zip(BY, of, strict=True))


def table(title: str, values: Array) -> Table:
    """values: (n_sets, n_orders, 2)."""
    shown = Table("blamed by", "first", "among the first three", title=title, box=None, title_justify="left")
    for row, label in enumerate(BY):
        shown.add_row(label, *(plus_minus(values[:, row, place]) for place in range(2)))
    return shown


def plus_minus(values: Array) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:.3f}" if math.isnan(error) else f"{mean:.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()

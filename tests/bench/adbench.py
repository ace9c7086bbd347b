"""The ADBench sets and how they are split, for every bench that uses them.

Labels serve to split and to measure, never to choose a setting.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.bench import keel
from vae_core import Layout, Records

DATA = Path(os.environ.get("VAEWATCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "adbench"
TOO_WIDE = 500  # columns: InternetAds, with 1,555 of them, is left out
MOST_ROWS = 4000
MOST_COUNTED = 1e6  # beyond it all counts are alike to vae_core
PROTOCOLS = ("contaminated", "clean")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Split:
    """Standardised rows to learn from, rows to score, and which of the latter are anomalous.

    Under the contaminated protocol ``test`` is ``train`` itself. own_train, own_test: the same rows in the
    columns' own values.
    """

    protocol: str
    train: Array
    test: Array
    anomalous: Array
    own_train: Array
    own_test: Array

    @property
    def is_same(self) -> bool:
        return self.protocol == "contaminated"


def names() -> list[str]:
    """The sets by number, without those that are too wide."""
    files = sorted(DATA.glob("*.npz"), key=lambda file: int(file.stem.split("_")[0]))
    if not files:
        raise SystemExit(f"no ADBench sets in {DATA}; VAEWATCH_DATA names the folder above")
    return [file.stem for file in files if _n_columns(file) <= TOO_WIDE]


def _n_columns(file: Path) -> int:
    with np.load(file, allow_pickle=False) as arrays:
        return int(arrays["X"].shape[1])


@cache
def rows(name: str, seed: int, most: int = MOST_ROWS) -> tuple[Array, Array]:
    """At most so many rows (n, d) of a set and their labels (n,), drawn at random without a look at the
    labels.

    A draw without a single anomaly (smtp has 30 in 95,156) leaves nothing to measure and is drawn again.
    """
    x, y = _table(name)
    random = generator(name, seed)
    chosen = np.arange(len(x))
    while len(x) > most:
        chosen = random.permutation(len(x))[:most]
        if y[chosen].any():
            break
    return x[chosen].astype(np.float64), y[chosen]


def _table(name: str) -> tuple[Array, Array]:
    if name.startswith(keel.PREFIX):
        if (found := keel.table(name)) is None:
            raise ValueError(f"{name} is not among the sets kept back")
        return found
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as arrays:
        return arrays["X"], arrays["y"].astype(bool)


def generator(name: str, seed: int) -> np.random.Generator:
    """Random numbers that depend on set and seed alone."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def split(name: str, protocol: str, seed: int) -> Split:
    """Contaminated: learn from all rows, score them all. Clean: learn from half of the normal rows, score the
    rest.
    """
    x, y = rows(name, seed)
    if protocol == "contaminated":
        z = standardised(x, x)
        return Split(protocol, z, z, y, x, x)
    normal = generator(name, seed + 1000).permutation(np.flatnonzero(~y))
    learned = np.zeros(len(x), bool)
    learned[normal[: len(normal) // 2]] = True
    z = standardised(x, x[learned])
    return Split(protocol, z[learned], z[~learned], y[~learned], x[learned], x[~learned])


def standardised(x: Array, reference: Array) -> Array:
    """(x − mean) / std of the reference's columns; the std of a constant column counts as 1."""
    constant = np.ptp(reference, axis=0) == 0
    std = np.where(constant, 1.0, reference.std(axis=0))
    return np.asarray((x - reference.mean(axis=0)) / std)


def counting(x: Array) -> list[int]:
    """Columns of whole numbers from 0 on, of more than two values, that a rate can reach."""
    is_count = (x >= 0).all(axis=0) & (x == x.round()).all(axis=0) & (x.max(axis=0) < MOST_COUNTED)
    return [i for i in np.flatnonzero(is_count).tolist() if len(np.unique(x[:, i])) > 2]


def binary(x: Array) -> list[int]:
    """Columns of 0 and 1."""
    return [i for i in range(x.shape[1]) if np.array_equal(np.unique(x[:, i]), [0, 1])]


def layout(x: Array) -> Layout:
    """Every column a number."""
    return Layout(numeric=tuple(f"x{i}" for i in range(x.shape[1])))


def records(x: Array) -> Records:
    """The rows as vae_core takes them."""
    nothing = torch.empty(len(x), 0)
    return Records(torch.from_numpy(x.astype(np.float32)), nothing.long(), nothing)

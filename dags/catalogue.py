"""Which datasets there are, and which files in the folder are none.

Belongs here: a broken file must not stop the other datasets. Does not: what a dataset file may say
(pipeline/config/dataset.py). Every parse of every DAG file passes here: nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.dataset import Dataset
from pipeline.config.files import read_datasets


@dataclass(frozen=True)
class Catalogue:
    """The datasets that can be scheduled, by name, and what is wrong with the other files."""

    datasets: dict[str, Dataset]
    faults: tuple[str, ...]


def read_catalogue(folder: Path, only: str | None = None) -> Catalogue:
    """Read every dataset of a folder, or `only` one; if that has a file of its own, no other file is read."""
    if not folder.is_dir():
        missing = f"{folder} is not there: set VAEWATCH_DATASETS to the folder of dataset files"
        return Catalogue({}, (missing,))
    datasets, faults = read_datasets(folder, only)
    return Catalogue(datasets, tuple(faults))

"""Which datasets there are, and which files in the folder are none.

Belongs here: reading dataset files one by one, so that a broken one costs nobody else a night. Does not: what
a dataset file may say (pipeline/config.py). Every parse of every DAG file passes here: nothing heavy is
imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airflow.sdk import CronTriggerTimetable

from pipeline.config import Dataset
from pipeline.dataset_files import load_dataset
from pipeline.errors import ConfigError


@dataclass(frozen=True)
class Catalogue:
    """The datasets that can be scheduled, by name, and what is wrong with the other files."""

    datasets: dict[str, Dataset]
    faults: tuple[str, ...]


def read_catalogue(folder: Path, only: str | None = None) -> Catalogue:
    """Every dataset of a folder, or `only` one: where it has a file of its own, no other is read."""
    if not folder.is_dir():
        return Catalogue(
            {}, (f"{folder} is not there: set VAEWATCH_DATASETS to the folder of dataset files",)
        )
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if only is not None:
        paths = [path for path in paths if path.stem == only] or paths
    datasets: dict[str, Dataset] = {}
    faults = []
    for path in paths:
        try:
            dataset = load_dataset(path)
            _check_crons(dataset)
        except ConfigError as fault:
            faults.append(str(fault))
            continue
        if only not in {None, dataset.dataset}:
            continue
        first = datasets.setdefault(dataset.dataset, dataset)
        if first is not dataset:
            faults.append(
                f"{path}: dataset {dataset.dataset!r} is also in {first.file}, which is the one in use"
            )
    return Catalogue(datasets, tuple(faults))


def _check_crons(dataset: Dataset) -> None:
    crons = {
        "schedule.discover": dataset.schedule.discover,
        "train.schedule": dataset.train.schedule,
        "retention.schedule": dataset.retention.schedule,
    }
    for key, cron in crons.items():
        try:
            CronTriggerTimetable(cron, timezone="UTC").validate()
        except Exception as fault:
            raise ConfigError(f"{dataset.file}: {key}: {cron!r} is not a cron schedule: {fault}") from fault

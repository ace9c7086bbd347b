"""Which datasets there are, and which files in the folder are none.

Belongs here: a broken file must not stop the other datasets, and what Airflow asks of a file on top. Does
not: what a dataset file may say (pipeline/config/dataset.py). Every parse of every DAG file passes here:
nothing heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airflow.sdk import CronTriggerTimetable

from pipeline.config.dataset import Dataset
from pipeline.config.files import read_datasets
from pipeline.errors import ConfigError


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
    for dataset in list(datasets.values()):
        try:
            _check_crons(dataset)
        except ConfigError as fault:
            faults.append(str(fault))
            del datasets[dataset.name]
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

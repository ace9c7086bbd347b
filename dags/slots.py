"""How many cores a task takes where Airflow runs others beside it.

Belongs here: how many tasks Airflow may run at once on one machine. Does not: how many cores there are
(pipeline/config/settings.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow.sdk.configuration import conf

from pipeline.config.files import dataset_files, read_datasets
from pipeline.config.settings import Settings

# tasks beside those that score: a training, and a rescoring that somebody asks for
BY_HAND_OR_AT_NIGHT = 2
TASKS = 2 + BY_HAND_OR_AT_NIGHT  # tasks at once of a dataset whose file cannot be read: two of these score


def with_its_share(settings: Settings) -> Settings:
    """Return a task's settings, leaving the other slots their cores; unchanged if VAEWATCH_THREADS is set."""
    if settings.threads:
        return settings
    at_once = min(_slots(), _tasks(settings.datasets))
    return settings.model_copy(update={"threads": max(1, settings.cores // max(1, at_once))})


def _tasks(folder: Path) -> int:
    """Return the most tasks of all datasets that compute at once.

    A file that cannot be read today may have tasks tomorrow, and counts.
    """
    found, _ = read_datasets(folder)
    n_unread = len(dataset_files(folder)) - len(found)
    return sum(dataset.scored_at_once + BY_HAND_OR_AT_NIGHT for dataset in found.values()) + TASKS * n_unread


def _slots() -> int:
    """Return the most tasks that Airflow runs on one machine; 1 where each gets a machine or a container."""
    executor = conf.get("core", "executor")
    if "Local" in executor:
        return int(conf.getint("core", "parallelism")) or sys.maxsize  # 0: no limit
    if "Celery" in executor:
        return int(conf.getint("celery", "worker_concurrency", fallback=16))
    return 1

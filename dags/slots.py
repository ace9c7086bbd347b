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

BY_HAND_OR_AT_NIGHT = 2  # beside the batches that are scored: a training, and a rescoring that somebody asks for
TASKS = 2 + BY_HAND_OR_AT_NIGHT  # of a dataset that compute at once where its file says nothing


def with_its_share(settings: Settings) -> Settings:
    """The settings of a task that leaves the other slots their cores; as they are where VAEWATCH_THREADS is
    set.
    """
    if settings.threads:
        return settings
    at_once = min(_slots(), _tasks(settings.datasets))
    return settings.model_copy(update={"threads": max(1, settings.cores // max(1, at_once))})


def _tasks(folder: Path) -> int:
    """The most tasks of all datasets that compute at once. A file that is not in order today has tasks
    tomorrow.
    """
    found, _ = read_datasets(folder)
    n_unread = len(dataset_files(folder)) - len(found)
    return sum(dataset.scored_at_once + BY_HAND_OR_AT_NIGHT for dataset in found.values()) + TASKS * n_unread


def _slots() -> int:
    """The most tasks that Airflow runs on one machine; one where each has a container or a machine of its
    own.
    """
    executor = conf.get("core", "executor")
    if "Local" in executor:
        return int(conf.getint("core", "parallelism")) or sys.maxsize  # 0: no limit
    if "Celery" in executor:
        return int(conf.getint("celery", "worker_concurrency", fallback=16))
    return 1

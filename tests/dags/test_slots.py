"""Tasks that run at once share the cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from dags.installation import installation
from dags.slots import TASKS
from pipeline.config.settings import load_settings

from .conftest import DatasetFile


@pytest.fixture(autouse=True)
def of_this_machine(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two datasets, and no word of the deployment on threads."""
    monkeypatch.delenv("VAEWATCH_THREADS", raising=False)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    for name in ("one", "two"):  # unreadable ones have tasks tomorrow
        (datasets / f"{name}.yaml").write_text("", encoding="utf-8")
    return datasets


def threads(monkeypatch: pytest.MonkeyPatch, n_cores: int) -> int:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(n_cores)))
    monkeypatch.setattr("pipeline.config.settings.quota", lambda: None)
    return installation().settings.cores


@pytest.mark.parametrize("n_cores", [1, 2, 6, 64])
@pytest.mark.parametrize("slots", [1, 3, 32])
def test_there_is_no_thread_more_than_cores(
    monkeypatch: pytest.MonkeyPatch, n_cores: int, slots: int
) -> None:
    """With every slot taken that our tasks can take."""
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", str(slots))
    at_once = min(slots, TASKS * len(list(load_settings().datasets.glob("*.yaml"))))
    share = threads(monkeypatch, n_cores)
    assert share == 1 or at_once * share <= n_cores < at_once * (share + 1)


def test_without_a_limit_the_datasets_are_counted(
    monkeypatch: pytest.MonkeyPatch, of_this_machine: Path
) -> None:
    """Airflow reads a parallelism of 0 as none."""
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "0")
    n_datasets = len(list(of_this_machine.glob("*.yaml")))
    assert threads(monkeypatch, 64) == 64 // (TASKS * n_datasets)


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [("schedule: {parallel: 7}", 9), ("schedule: {parallel: 1}", 3), ("", 4), ("derived: {twice: 2 * a}", 3)],
)
def test_as_many_are_counted_as_a_dataset_s_file_lets_run(
    monkeypatch: pytest.MonkeyPatch,
    of_this_machine: Path,
    dataset_file: DatasetFile,
    settings: str,
    tasks: int,
) -> None:
    """Its batches that are scored at once, a training and a rescoring."""
    for file in of_this_machine.glob("*.yaml"):
        file.unlink()
    dataset_file("feed", settings)
    assert threads(monkeypatch, 64) == 64 // tasks


def test_a_celery_worker_has_slots_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its machine runs so many, whatever the whole of Airflow does."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW__CELERY__WORKER_CONCURRENCY", "2")
    assert threads(monkeypatch, 8) == 4


def test_a_task_in_a_container_of_its_own_has_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes starts one for each task."""
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    assert threads(monkeypatch, 8) == 8


def test_a_deployments_own_word_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows what else runs there."""
    monkeypatch.setenv("VAEWATCH_THREADS", "7")
    assert threads(monkeypatch, 2) == 7

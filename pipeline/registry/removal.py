"""Training runs and models that no version needs any more, and removing them for good.

Belongs here: what MLflow keeps of a training beside its version, and the order in which it goes. Does not:
which versions are kept (pipeline/evaluation/retention.py).

MLflow's own `delete_run` and `delete_logged_model` only mark: files and rows stay. Files are deleted through
MLflow's artifact store, rows by what `mlflow gc` calls. Only a database has that: a tracking server's rows
stay marked until somebody runs `mlflow gc` there.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from pipeline.registry.entities import Removal
from pipeline.registry.versions import KEY, Versions, tolerating

if TYPE_CHECKING:
    from mlflow.entities import Run

ONE_WEEK = 7 * 24 * 3600 * 1000  # milliseconds, as MLflow counts
PAGE = 1000


def prune(versions: Versions, going: Collection[int], *, dry_run: bool) -> list[Removal]:
    """Remove versions, and every ended run without a version; what has an alias stays."""
    experiment = versions.client.get_experiment_by_name(versions.experiment)
    remover = Remover(versions)
    # runs first, versions second: a run that ends in between has its version listed
    ended = remover.runs(experiment.experiment_id) if experiment else []
    there = versions.all()
    leaving = {v.run_id: v.version for v in there if v.version in going and not v.aliases}
    needed = {v.run_id for v in there} - set(leaving)
    gone = []
    for run in ended:
        run_id = run.info.run_id
        if run_id not in needed:
            gone.append(Removal(run_id, leaving.get(run_id), remover.size(run)))
            if not dry_run and _drop(versions, leaving.get(run_id)):
                remover.remove(run)
    return gone


def _drop(versions: Versions, number: int | None) -> bool:
    """Delete a version; False where somebody has just given it an alias."""
    found = versions.find(number) if number is not None else None
    if found is not None and found.aliases:
        return False
    if found is not None:
        versions.client.delete_model_version(versions.name, str(number))
    return True


class Remover:
    """Removes one dataset's training runs."""

    def __init__(self, versions: Versions) -> None:
        from mlflow.tracking._tracking_service.utils import _get_store

        self.versions, self.uri = versions, versions.uri
        self.store: Any = _get_store(self.uri)  # type: ignore[no-untyped-call]
        self.is_final = hasattr(self.store, "_hard_delete_run")

    def runs(self, experiment_id: str) -> list[Run]:
        """Return training runs that have ended, the oldest first; where rows can go, deleted ones, too.

        An open or failed run is left out for a week: it may be at work, or somebody may ask why it failed.
        """
        from mlflow.entities import ViewType

        view = ViewType.ALL if self.is_final else ViewType.ACTIVE_ONLY
        since, found, token = time.time() * 1000 - ONE_WEEK, [], None
        while True:
            page = self.versions.client.search_runs(
                [experiment_id], f"tags.{KEY} != ''", view, PAGE, ["attributes.start_time"], token
            )
            found += [run for run in page if run.info.status == "FINISHED" or run.info.start_time < since]
            if not (token := page.token):
                return found

    def size(self, run: Run) -> int:
        """Return the bytes of the files of a run and of the models that it logged."""
        return sum(_size(_repository(uri, self.uri)) for uri in self._places(run))

    def remove(self, run: Run) -> None:
        """Delete a run and its models, files first: a repeat resumes after an interruption."""
        client, run_id = self.versions.client, run.info.run_id
        for uri in self._places(run):
            _repository(uri, self.uri).delete_artifacts()
        for model_id in _models(run):
            tolerating(client.delete_logged_model, model_id)
            if self.is_final:
                tolerating(self.store._hard_delete_logged_model, model_id)
        if run.info.lifecycle_stage == "active":
            client.delete_run(run_id)
        if self.is_final:
            tolerating(self.store._hard_delete_run, run_id)

    def _places(self, run: Run) -> Iterator[str]:
        for model_id in _models(run):
            if model := tolerating(self.store.get_logged_model, model_id, True):  # also if marked as deleted
                yield model.artifact_location
        yield run.info.artifact_uri


def copies(versions: Versions, run_id: str) -> list[str]:
    """Return versions of other registered models that were copied from a run's: they share its files."""
    found = versions.client.search_model_versions(f"run_id = '{run_id}'") if run_id else []
    return [f"{other.name} version {other.version}" for other in found if other.name != versions.name]


def _models(run: Run) -> list[str]:
    return [model.model_id for model in run.outputs.model_outputs] if run.outputs else []


def _repository(uri: str, tracking_uri: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=tracking_uri)


def _size(repository: Any, path: str | None = None) -> int:
    return sum(
        _size(repository, entry.path) if entry.is_dir else int(entry.file_size or 0)
        for entry in repository.list_artifacts(path)
    )

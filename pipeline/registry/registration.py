"""From a logged model to a version of it, once for each training.

Belongs here: two processes with the same training, and one that died. Does not: what is logged (runs.py,
copying.py), or which version serves (serving.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pipeline.registry import runs
from pipeline.registry.entities import ModelVersion, TrainingRun
from pipeline.registry.versions import DIGEST, KEY, METRICS, Versions, tolerating

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

EXISTS = ("RESOURCE_ALREADY_EXISTS",)
Log = Callable[["MlflowClient", str], "LoggedModel"]


def register_training(versions: Versions, artifacts: str | None, run: TrainingRun) -> ModelVersion:
    """Return the version of a training, which is logged where there is none yet.

    Args:
        artifacts: where models and plots of every dataset have their place; None where MLflow decides.
    """
    tags = {**run.tags, METRICS: json.dumps(dict(run.metrics)), DIGEST: runs.digest(run.detector)}

    def log(client: MlflowClient, experiment_id: str) -> LoggedModel:
        return runs.log_run(client, experiment_id, run)

    return register(versions, artifacts, run.training_key, tags, log)


def register(
    versions: Versions, artifacts: str | None, key: str, tags: Mapping[str, str], log: Log
) -> ModelVersion:
    """Return the version of a training key, and end its run.

    Where there is none, a model is logged and made one.
    """
    made = versions.made_by(key) or _make(versions, artifacts, key, tags, log)
    if versions.client.get_run(made.run_id).info.status != "FINISHED":
        versions.client.set_terminated(made.run_id, "FINISHED")
    return made


def _make(
    versions: Versions, artifacts: str | None, key: str, tags: Mapping[str, str], log: Log
) -> ModelVersion:
    """Log a model and make it a version last, in one request with its key."""
    client = versions.client
    experiment_id = _experiment(versions, artifacts)
    unfinished = f"tags.{KEY} = '{key}' and attributes.status = 'RUNNING'"
    for dead in client.search_runs([experiment_id], unfinished):
        runs.abandon(client, dead.info.run_id, "its process ended before the model was registered")
    model = log(client, experiment_id)
    tolerating(client.create_registered_model, versions.name, codes=EXISTS)
    number = client.create_model_version(
        versions.name,
        model.artifact_location,
        model.source_run_id,
        {**tags, KEY: key},
        model_id=model.model_id,
    ).version
    link = json.dumps([{"name": versions.name, "version": number}])
    client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": link})  # for MLflow's pages
    first = versions.made_by(key)
    assert first is not None  # noqa: S101  # just made
    if first.version != int(number):  # two processes with the same training: the first version counts
        client.delete_model_version(versions.name, number)
        runs.abandon(client, str(model.source_run_id), f"version {first.version} is of the same training")
    return first


def _experiment(versions: Versions, artifacts: str | None) -> str:
    client, name = versions.client, versions.experiment
    found = client.get_experiment_by_name(name)
    if found is None:
        location = f"{artifacts}/{versions.dataset}" if artifacts else None
        tolerating(client.create_experiment, name, location, codes=EXISTS)
        found = client.get_experiment_by_name(name)
    assert found is not None  # noqa: S101  # just made, here or by another process
    return str(found.experiment_id)

"""A version's run and model, logged again at another MLflow, or under another name at the same one.

Belongs here: what is copied: all evidence and the files. Does not: whether it may be
(pipeline/evaluation/copying.py), or making a version of it (registration.py). Unlike a copy by MLflow's
`copy_model_version`, this one has files of its own, so it survives the original.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelUnusable
from pipeline.registry import runs
from pipeline.registry.entities import EVALUATION, NEWEST_BATCH, ModelVersion
from pipeline.registry.versions import METRICS, REPLACED, RULE, Versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

OF_ITS_PLACE = (  # tags of a version about decisions on it, beside another champion
    "promoted_", "rejected_", "rolled_back_", "arrival", REPLACED, "decision", "evaluated_", "evaluation_", RULE,
)  # fmt: skip
OF_MLFLOW = "mlflow."  # tags that MLflow sets itself
KEPT = ("mlflow.note.content", "mlflow.runName")


def tags_of_copy(version: ModelVersion, copied: Mapping[str, str]) -> dict[str, str]:
    """Return a copy's tags, and those that say where it comes from.

    Decisions about the version at another place get the prefix `source.`.
    """
    traveling = {
        f"source.{name}" if name.startswith(OF_ITS_PLACE) else name: value
        for name, value in version.tags.items()
    }
    return {METRICS: json.dumps(dict(version.metrics)), **traveling, **copied}


def log_copy(
    source: Versions, number: int, client: MlflowClient, experiment_id: str, copied: dict[str, str]
) -> LoggedModel:
    """Log a version's run and model again; on any error the new run is marked as failed.

    Args:
        copied: tags that say where it comes from.
    """
    original = source.client.get_model_version(source.name, str(number))
    run = source.client.get_run(str(original.run_id))
    tags = {k: v for k, v in run.data.tags.items() if not k.startswith(OF_MLFLOW) or k in KEPT}
    made = client.create_run(experiment_id, run.info.start_time, tags | copied, run.info.run_name)
    run_id = made.info.run_id
    with runs.failed_unless_done(client, run_id), TemporaryDirectory() as scratch:
        _copy_numbers(source.client, run, client, run_id)
        if run.inputs and run.inputs.dataset_inputs:
            client.log_inputs(run_id, datasets=run.inputs.dataset_inputs)
        for entry in source.client.list_artifacts(run.info.run_id):
            if entry.path == NEWEST_BATCH:  # shows records of the other place, which the copy has not scored
                continue
            path = source.client.download_artifacts(run.info.run_id, entry.path, scratch)
            if entry.path == EVALUATION:
                _without_values(Path(path))
            client.log_artifact(run_id, path)
        return _copy_model(source, run, client, experiment_id, run_id, Path(scratch))


def _without_values(evaluation: Path) -> None:
    """Leave out what the records were that two versions disagree on, see NEWEST_BATCH."""
    kept = json.loads(evaluation.read_text(encoding="utf-8"))
    for example in (kept["evidence"].get("churn") or {}).get("examples", ()):
        example.pop("reasons", None)
    evaluation.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _copy_numbers(source: MlflowClient, run: Run, client: MlflowClient, run_id: str) -> None:
    from mlflow.entities import Param

    params = [Param(name, value) for name, value in run.data.params.items()]
    for part in _parts(params, runs.MOST_PARAMS):
        client.log_batch(run_id, params=part)
    points = [
        point for name in run.data.metrics for point in source.get_metric_history(run.info.run_id, name)
    ]
    for part in _parts(points, runs.MOST_METRICS):
        client.log_batch(run_id, metrics=[_without_model(point) for point in part])


def _without_model(point: Any) -> Any:
    """Return a measured value without its model, which has another id here."""
    from mlflow.entities import Metric

    return Metric(point.key, point.value, point.timestamp, point.step)


def _copy_model(
    source: Versions, run: Run, client: MlflowClient, experiment_id: str, run_id: str, scratch: Path
) -> LoggedModel:
    from mlflow.artifacts import download_artifacts
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    if not run.outputs or not run.outputs.model_outputs:
        raise ModelUnusable(
            f"{source.name}: run {run.info.run_id} has no model any more; copy another version"
        )
    known = source.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    logged = client.create_logged_model(
        experiment_id,
        name=known.name,
        source_run_id=run_id,
        tags={k: v for k, v in known.tags.items() if not k.startswith(OF_MLFLOW)},
        params=dict(known.params),
        model_type=known.model_type,
    )
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    place = known.artifact_location
    folder = Path(
        download_artifacts(artifact_uri=place, dst_path=str(scratch / "model"), tracking_uri=source.uri)
    )
    described = Model.load(folder)
    described.run_id, described.artifact_path = run_id, logged.artifact_location
    described.model_id = described.model_uuid = logged.model_id
    described.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    return client.finalize_logged_model(logged.model_id, "READY")


def _parts(items: list[Any], most: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]

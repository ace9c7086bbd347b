"""One training in MLflow: a run with its numbers, inputs and plots, and a model that loads without pickle.

Belongs here: all that is written before a version exists. Does not: versions (registration.py) and aliases
(serving.py). MLflow's client is used throughout, never its "active run": nothing here depends on what else
the process does.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelUnusable
from pipeline.registry.connection import without_credentials
from pipeline.registry.entities import DatasetInput, TrainingRun
from pipeline.registry.versions import tolerating

if TYPE_CHECKING:
    import pyarrow as pa
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

SCRIPT = Path(__file__).with_name("scorer.py")
NOTE = "training.json"  # of a run: what the training was made from
DETECTOR = "artifacts/detector"  # where a model keeps its detector
SCORES = {
    "anomaly_score": "float",
    "reconstruction": "float",
    "kl_divergence": "float",
    "p_value": "double",
    "severity": "float",
}
PACKAGES = ("vaewatch", "mlflow", "torch", "safetensors", "pyarrow", "pandas", "numpy")
MOST_METRICS, MOST_PARAMS = 1000, 100  # in one request, by MLflow's rules
LONGEST_DIGEST = 36  # of a dataset, by MLflow's rules


def log_run(client: MlflowClient, experiment_id: str, run: TrainingRun) -> LoggedModel:
    """Log everything, the model last; on any error the run is marked as failed.

    Raises:
        ModelUnusable: what was logged cannot score its own example.
    """
    tags = {"training_key": run.training_key, "dataset": run.dataset, **run.tags}
    if "window" in run.tags:  # what MLflow's page shows as the run's description
        tags["mlflow.note.content"] = f"{run.dataset}, learned from the batches {run.tags['window']}"
    run_name = f"{run.dataset}-{run.training_key[:8]}"
    started = time.time() - run.metrics.get("training_seconds", 0.0)
    run_id = client.create_run(experiment_id, int(started * 1000), tags, run_name).info.run_id
    with failed_unless_done(client, run_id), TemporaryDirectory() as scratch:
        _log_numbers(client, run_id, run)
        _log_inputs(client, run_id, run)
        if run.note:
            client.log_text(run_id, json.dumps(run.note, indent=1), NOTE)
        for title, plot in run.plots.items():
            named = Path(scratch, "plots", f"{title}{plot.suffix}")
            named.parent.mkdir(exist_ok=True)
            shutil.copy(plot, named)
            client.log_artifact(run_id, str(named), "plots")
        if run.report is not None:
            client.log_artifact(run_id, str(run.report))
        return _log_model(client, experiment_id, run_id, run, Path(scratch))


def abandon(client: MlflowClient, run_id: str, why: str) -> None:
    """Mark a run, and the model it logged, as failed."""
    outputs = client.get_run(run_id).outputs
    for model in outputs.model_outputs if outputs else []:
        client.finalize_logged_model(model.model_id, "FAILED")
    client.set_tag(run_id, "failed_because", why)
    client.set_terminated(run_id, "FAILED")


def read_note(client: MlflowClient, run_id: str) -> dict[str, Any] | None:
    """Return what a run's training was made from; None where that was not noted, or is gone."""
    return read_json(client, run_id, NOTE)


def read_json(client: MlflowClient, run_id: str, name: str) -> dict[str, Any] | None:
    """Return a file that was logged with a run, as JSON; None where it or the run is gone."""
    text = read_text(client, run_id, name)
    found: dict[str, Any] | None = None if text is None else json.loads(text)
    return found


def read_text(client: MlflowClient, run_id: str, name: str) -> str | None:
    """Return a file that was logged with a run; None where it or the run is gone."""
    if not tolerating(client.get_run, run_id) or name not in {
        file.path for file in client.list_artifacts(run_id)
    }:
        return None
    with TemporaryDirectory() as scratch:
        return Path(client.download_artifacts(run_id, name, scratch)).read_text(encoding="utf-8")


def digest(folder: Path) -> str:
    """Return the SHA-256 over the names and contents of a folder's files."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        found.update(f"{file.relative_to(folder).as_posix()} {content}\n".encode())
    return found.hexdigest()


@contextmanager
def failed_unless_done(client: MlflowClient, run_id: str) -> Iterator[None]:
    try:
        yield
    except BaseException as fault:
        with suppress(Exception):  # if MLflow is gone, the next try finds the run and marks it
            abandon(client, run_id, f"{type(fault).__name__}: {fault}"[:1000])
        raise


def _log_numbers(client: MlflowClient, run_id: str, run: TrainingRun) -> None:
    from mlflow.entities import Metric, Param

    now = time.time_ns() // 1_000_000
    curves = [
        Metric(f"training/{name}", value, now, step)
        for step, values in run.curves
        for name, value in values.items()
    ]
    for start in range(0, len(curves), MOST_METRICS):
        client.log_batch(run_id, metrics=curves[start : start + MOST_METRICS])
    params = [Param(name, str(value)) for name, value in run.params.items()]
    for start in range(0, len(params), MOST_PARAMS):
        client.log_batch(run_id, params=params[start : start + MOST_PARAMS])


def _log_inputs(client: MlflowClient, run_id: str, run: TrainingRun) -> None:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as LoggedInput

    def logged(records: DatasetInput) -> LoggedInput:
        profile = {"num_rows": records.n_records, "fingerprint": records.digest}
        return LoggedInput(
            Dataset(
                name=records.name,
                digest=records.digest[:LONGEST_DIGEST],
                source_type="local" if "://" not in records.source else records.source.partition(":")[0],
                source=json.dumps({"uri": without_credentials(records.source)}),
                profile=json.dumps(profile),
            ),
            tags=[InputTag("mlflow.data.context", records.context)],
        )

    if run.inputs:
        client.log_inputs(run_id, datasets=[logged(records) for records in run.inputs])


def _log_model(
    client: MlflowClient, experiment_id: str, run_id: str, run: TrainingRun, scratch: Path
) -> LoggedModel:
    from mlflow.entities import LoggedModelOutput, Metric

    logged = client.create_logged_model(
        experiment_id,
        name="detector",
        source_run_id=run_id,
        tags=dict(run.tags),
        params={name: str(value) for name, value in run.params.items()},
        model_type="anomaly-detector",
    )
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    now = time.time_ns() // 1_000_000
    measured = [
        Metric(f"calibration/{name}", value, now, 0, model_id=logged.model_id)
        for name, value in run.metrics.items()
    ]
    if measured:
        client.log_batch(run_id, metrics=measured)
    _save_model(scratch, logged, run_id, run)
    client.log_model_artifacts(logged.model_id, str(scratch / "model"))
    return client.finalize_logged_model(logged.model_id, "READY")


def _save_model(scratch: Path, logged: LoggedModel, run_id: str, run: TrainingRun) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    detector = scratch / "detector"  # this name ends up in DETECTOR
    shutil.copytree(run.detector, detector)
    example = run.input_example.to_pandas()
    with warnings.catch_warnings():  # MLflow's warnings are about its own use of pandas and type hints
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        pyfunc.save_model(
            scratch / "model",
            python_model=SCRIPT,
            artifacts={"detector": str(detector)},
            signature=signature(run.input_example),
            input_example=example,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in PACKAGES],
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            ),
        )
    try:
        pyfunc.load_model(str(scratch / "model")).predict(example)
    except MlflowException as fault:
        raise ModelUnusable(f"{run.dataset}: the new model cannot score its own example: {fault}") from fault


def signature(example: pa.Table) -> ModelSignature:
    """Return the types that the model reads and returns.

    Integers, times and decimals are declared as any type: pandas turns integers into floats where one is
    missing, and MLflow would then refuse either the batches with missing values or those without.
    """
    import pyarrow as pa
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    def declared(type_: pa.DataType) -> Any:
        if pa.types.is_floating(type_):
            return DataType.double
        if pa.types.is_string(type_) or pa.types.is_large_string(type_):
            return DataType.string
        return DataType.boolean if pa.types.is_boolean(type_) else AnyType()  # type: ignore[no-untyped-call]

    inputs: list[Any] = [ColSpec(declared(field.type), field.name) for field in example.schema]
    outputs: list[Any] = [ColSpec(type_, name) for name, type_ in SCORES.items()]
    return ModelSignature(Schema(inputs), Schema(outputs))

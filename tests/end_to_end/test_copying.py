"""From one environment to the next: a version arrives with all that is known of it, or is refused before
anything is made.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline import steps
from pipeline.errors import ConfigError, ModelUnusable, NotReady
from pipeline.evaluation import copying
from pipeline.installation import Installation
from pipeline.registry import NEWEST_BATCH, runs
from pipeline.steps.receipts import Receipt

from .conftest import Place

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's


@pytest.fixture
def production(trained: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Another installation's home and dataset files, with an MLflow of its own that nobody has used yet."""
    place = Place(tmp_path / "production", trained.name)
    place.yaml.parent.mkdir(parents=True)
    shutil.copy(trained.yaml, place.yaml)
    monkeypatch.setenv("VAEWATCH_TO_PROD_HOME", str(place.settings.home))
    monkeypatch.setenv("VAEWATCH_TO_PROD_DATASETS", str(place.settings.datasets))
    return place


def copy(place: Place, version: int = 1, to: str = "prod") -> Receipt:
    return steps.copy(place.here, place.name, version, to=to, by="ann")


def client(here: Installation) -> Any:
    return here.registry._connection.client


def told(here: Installation, run_id: str) -> dict[str, Any]:
    """All evidence of a run."""
    mlflow = client(here)
    run = mlflow.get_run(run_id)
    return {
        "params": run.data.params,
        "curves": {
            name: [(point.step, point.value) for point in mlflow.get_metric_history(run_id, name)]
            for name in run.data.metrics
        },
        "inputs": [read.dataset.profile for read in run.inputs.dataset_inputs],
        "files": sorted(file.path for path in ("", "plots") for file in mlflow.list_artifacts(run_id, path)),
        "status": run.info.status,
    }


def test_a_copy_has_the_evidence_and_files_of_its_own(
    trained: Place, production: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The team in production asks MLflow's pages there, and must not depend on what becomes of the
    original.
    """
    before = trained.here.registry.champion(trained.name)
    assert before
    trained.here.registry.log_newest_batch(before, "records of this place")
    judged = {"evidence": {"churn": {"examples": [{"record_key": "k", "reasons": [{"observed": "secret"}]}]}}}
    trained.here.registry.log_evaluation(trained.name, before.version, judged, {})
    done = copy(trained)
    assert (done.outcome, done.model_version, done.alias) == ("copied", 1, "")
    there = production.here
    (made,) = there.registry.versions(production.name)
    assert made.aliases == ()
    assert (made.metrics, made.training_key) == (before.metrics, before.training_key)
    kept = {name: value for name, value in before.tags.items() if f"source.{name}" not in made.tags}
    assert {"code_version", "contract_hash", "data_fingerprint", "detector_digest", "window"} <= kept.keys()
    assert kept.items() <= made.tags.items()
    assert made.tags["source.promoted_by"] == "ann"  # whoever let it serve elsewhere did not do so here
    assert "promoted_by" not in made.tags
    assert (made.tags["copied_by"], made.tags["copied_from"]) == (
        "ann",
        f"version 1 of {trained.here.registry.shown}",
    )
    evidence = told(trained.here, before.run_id)
    assert evidence["curves"]
    assert "training.json" in evidence["files"]
    evidence["files"].remove(NEWEST_BATCH)
    assert told(there, made.run_id) == evidence
    assert there.registry.evaluation(made) == {"evidence": {"churn": {"examples": [{"record_key": "k"}]}}}
    places = [client(there).get_run(made.run_id).info.artifact_uri]
    places += [client(there).get_model_version_download_uri(f"vaewatch.{production.name}", "1")]
    assert all(str(production.settings.home) in unquote(place) for place in places)

    again = copy(trained)
    assert (again.outcome, again.model_version) == ("unchanged", 1)
    with pytest.raises(NotReady, match="version 1 was never judged"):  # here, whatever was said of it there
        steps.promote(there, production.name, 1, by="ann", reason="good in staging")
    steps.promote(there, production.name, 1, by="ann", reason="good in staging", override=True)
    folder = there.registry.fetch(made, production.settings.home / "models")
    assert runs.digest(folder) == before.tags["detector_digest"]
    with pytest.raises(NotReady, match="none of the batches"):
        steps.reproduce(there, production.name, 1)

    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", production.settings.tracking)  # mlflow would set it for good
    loaded = mlflow.pyfunc.load_model(f"models:/vaewatch.{production.name}@champion")
    assert (loaded.metadata.run_id, loaded.metadata.model_id) == (
        made.run_id,
        client(there).get_run(made.run_id).outputs.model_outputs[0].model_id,
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("max: 1000}", "max: 999}", "its contract is"),
        (
            "items: {type: int, role: numeric",
            "items: {type: int, role: ignored",
            "column 'items'.*is ignored",
        ),
        (
            "batch:",
            "derived: {jump: amount - lag(amount) OVER by_time}\nbatch:",
            "its derived columns are defined differently",
        ),
    ],
    ids=["contract", "features", "derived"],
)
def test_a_version_that_does_not_fit_is_refused_before_anything_is_made(
    old: str, new: str, says: str, trained: Place, production: Place
) -> None:
    """A model that reads a column which nobody delivers there would fail tonight, not now."""
    production.edit(old, new)
    with pytest.raises(ModelUnusable, match=says):
        copy(trained)
    assert production.here.registry.versions(production.name) == []


def test_an_interrupted_copy_is_completed_by_a_repeat(
    trained: Place, production: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a model must not be registered anywhere."""
    from mlflow import MlflowClient

    class Killed(BaseException):
        """Stands for the end of a process."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    for moment in ("log_model_artifacts", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, moment, killed)
            with pytest.raises(Killed):
                copy(trained)
        assert production.here.registry.versions(production.name) == []
    assert copy(trained).outcome == "copied"
    there = production.here
    (made,) = there.registry.versions(production.name)
    mlflow = client(there)
    experiment = mlflow.get_experiment_by_name(f"vaewatch/{production.name}")
    found = {run.info.run_id: run.info.status for run in mlflow.search_runs([experiment.experiment_id])}
    assert found.pop(made.run_id) == "FINISHED"
    assert set(found.values()) == {"FAILED"}


def test_environments_may_share_an_mlflow_under_different_prefixes(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One server for all stages is the most common set-up; each stage has registered models of its own."""
    monkeypatch.setenv("VAEWATCH_TO_STAGING_REGISTRY_PREFIX", "staging")
    assert copy(trained, to="staging").outcome == "copied"
    registry = trained.with_settings(registry_prefix="staging").registry
    (made,) = registry.versions(trained.name)
    assert made.aliases == ()
    assert trained.here.registry.versions(trained.name)[0].aliases == ("champion",)
    assert trained.here.registry.copies(trained.name) == {1: []}  # no files are shared
    assert client(trained.here).get_model_version(f"staging.{trained.name}", "1").run_id == made.run_id


def test_an_environment_that_is_not_one_is_refused(trained: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it goes is written down once, by name: an address in a command would put passwords into shell
    histories.
    """
    settings = trained.settings
    with pytest.raises(ConfigError, match="set VAEWATCH_TO_PROD_TRACKING_URI"):
        copying.environment("prod", settings)
    with pytest.raises(ConfigError, match="letters and digits"):
        copying.environment("sqlite:///x", settings)
    monkeypatch.setenv("VAEWATCH_TO_PROD_TRACKING_URI", settings.tracking)
    with pytest.raises(ConfigError, match="of this installation"):
        copying.environment("prod", settings)
    monkeypatch.setenv("VAEWATCH_TO_PROD_TRACKING_URI", "https://mlflow.example")
    there = copying.environment("prod", settings).settings
    assert (there.tracking, there.datasets) == ("https://mlflow.example", settings.datasets)
    monkeypatch.setenv("VAEWATCH_TO_PROD_TRACKING_URI", f"sqlite:///{trained.root}/other.db")
    with pytest.raises(NotReady, match="has no version 9"):
        copy(trained, 9)

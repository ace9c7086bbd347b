"""What nobody refers to goes for good, and nothing else does; wherever it is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import httpx
import pytest
import sqlalchemy as sa

from infra.layout import any_free_port
from pipeline.evaluation import retention
from pipeline.registry import ModelVersion, Registry, TrainingRun
from pipeline.review import judging
from pipeline.review.filters import Filters
from pipeline.review.queue import page
from pipeline.storage.ledger import Ledger

from .registry_data import ELSEWHERE, client, tracking_uri
from .review_data import put, row

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's
DAY = 24 * 3600 * 1000


def train(mlflow: Any, dataset: str = "orders", *, status: str = "FINISHED", days_ago: float = 0) -> Any:
    """A training as the registry leaves it, with a thousand bytes for a model: its run and the model."""
    from mlflow.entities import LoggedModelOutput

    name = f"vaewatch/{dataset}"
    found = mlflow.get_experiment_by_name(name)
    experiment_id = found.experiment_id if found else mlflow.create_experiment(name)
    started = int(time.time() * 1000 - days_ago * DAY)
    run = mlflow.create_run(experiment_id, started, {"training_key": "a1" * 16})
    mlflow.log_text(run.info.run_id, "x" * 100, "training.json")
    model = mlflow.create_logged_model(experiment_id, name="detector", source_run_id=run.info.run_id)
    mlflow.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    folder = Path(unquote(urlparse(model.artifact_location).path))
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"w" * 1000)
    mlflow.finalize_logged_model(model.model_id, "READY")
    mlflow.set_terminated(run.info.run_id, status)
    return mlflow.get_run(run.info.run_id), model


def register(mlflow: Any, n: int, dataset: str = "orders") -> None:
    """n versions, each of a training of its own."""
    if not mlflow.search_registered_models(f"name = 'vaewatch.{dataset}'"):
        mlflow.create_registered_model(f"vaewatch.{dataset}")
    for _ in range(n):
        run, model = train(mlflow, dataset)
        mlflow.create_model_version(
            f"vaewatch.{dataset}", model.artifact_location, run.info.run_id, model_id=model.model_id
        )


@pytest.fixture
def mlflow(registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's own client on the same database; its files lie in a folder beside it."""
    registry.prepare()
    monkeypatch.chdir(home)  # where a database of MLflow's keeps files, if it is not told
    return client(home)


def rows(home: Path, *tables: str) -> dict[str, int]:
    engine = sa.create_engine(tracking_uri(home))
    with engine.connect() as connection:
        found = {t: connection.scalar(sa.text(f"SELECT count(*) FROM {t}")) for t in tables}
    engine.dispose()
    return found


def files(home: Path) -> set[str]:
    return {
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and not path.name.startswith(("mlflow.db", ELSEWHERE))
    }


def test_what_goes_is_gone_from_database_and_disk_and_the_rest_is_untouched(
    registry: Registry, home: Path, mlflow: Any, training: TrainingRun
) -> None:
    """MLflow only marks as deleted: a year of nights would fill the disk all the same."""
    kept = registry.register(training)
    before = rows(home, "runs", "logged_models", "metrics", "params"), files(home)
    register(mlflow, 1)  # version 2
    registry.promote("orders", 1, by="ann", reason="the first")
    (would,) = registry.prune("orders", [2], dry_run=True)
    assert [v.version for v in registry.versions("orders")] == [1, 2]
    (gone,) = registry.prune("orders", [1, 2])  # the champion stays, whoever asks
    assert gone == would
    assert (gone.version, gone.n_bytes) == (2, 1100)
    assert registry.versions("orders") == [registry.champion("orders")]
    assert (rows(home, "runs", "logged_models", "metrics", "params"), files(home)) == before
    assert registry.fetch(kept, home / "cache").is_dir()
    assert registry.prune("orders", [2]) == []
    assert registry.register(training).version == 1
    mlflow.create_model_version("vaewatch.orders", "file:///nowhere")
    assert [v.version for v in registry.versions("orders")] == [1, 3]  # a number is never given twice


class Killed(BaseException):
    """Stands for the end of a process between two requests."""


def test_interrupted_anywhere_a_repeat_ends_the_same(
    registry: Registry, home: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weekly job that leaves halves behind makes more work than room."""
    from mlflow import MlflowClient
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    steps = [
        (MlflowClient, "delete_model_version"),
        (LocalArtifactRepository, "delete_artifacts"),
        (MlflowClient, "delete_logged_model"),
        (SqlAlchemyStore, "_hard_delete_logged_model"),
        (MlflowClient, "delete_run"),
        (SqlAlchemyStore, "_hard_delete_run"),
    ]

    def interrupted(dataset: str, after: int) -> bool:
        done = count()

        def step(method: Callable[..., Any], *args: Any) -> Any:
            if next(done) >= after:
                raise Killed
            return method(*args)

        with monkeypatch.context() as patch:
            for owner, name in steps:
                method = getattr(owner, name)
                patch.setattr(owner, name, lambda *args, method=method: step(method, *args))
            try:
                registry.prune(dataset, [1, 2])
            except Killed:
                return True
            return False

    register(mlflow, 1, "bystander")
    outcomes = []
    before = rows(home, "runs", "logged_models"), files(home)
    for after in range(16):
        dataset = f"killed-after-{after}"
        register(mlflow, 3, dataset)
        registry.set_challenger(dataset, 3)
        outcomes.append(interrupted(dataset, after))
        registry.prune(dataset, [1, 2])
        assert [v.version for v in registry.versions(dataset)] == [3]
        left = registry.prune(dataset, [1, 2, 3])
        assert left == []  # the challenger is kept, nothing else is there
        mlflow.delete_registered_model_alias(f"vaewatch.{dataset}", "challenger")
        registry.prune(dataset, [3])
        assert (rows(home, "runs", "logged_models"), files(home)) == before
    assert outcomes == [True] * 14 + [False] * 2  # seven requests a version


def test_a_run_without_a_version_goes_unless_it_may_be_at_work_or_asked_about(
    registry: Registry, mlflow: Any
) -> None:
    """A training that runs tonight must not be cleaned away under its process, nor last night's failure."""
    register(mlflow, 1)
    fresh = [train(mlflow, status=status)[0].info.run_id for status in ("RUNNING", "FAILED")]
    old = [train(mlflow, status=status, days_ago=8)[0].info.run_id for status in ("RUNNING", "FAILED")]
    orphan = train(mlflow)[0].info.run_id  # whose version was removed by a process that died
    by_hand = mlflow.create_run(mlflow.get_experiment_by_name("vaewatch/orders").experiment_id)
    mlflow.set_terminated(by_hand.info.run_id)
    assert {gone.run_id for gone in registry.prune("orders", [])} == {*old, orphan}
    left = {run.info.run_id for run in mlflow.search_runs([by_hand.info.experiment_id])}
    assert {*fresh, by_hand.info.run_id} <= left
    assert left.isdisjoint({*old, orphan})
    assert len(registry.versions("orders")) == 1


def test_a_dataset_that_was_never_trained_has_nothing_to_remove(registry: Registry) -> None:
    """The weekly job runs from the first week on."""
    assert registry.prune("orders", []) == []
    assert registry.copies("orders") == {}


def test_a_version_that_mlflow_copied_elsewhere_is_named(registry: Registry, mlflow: Any) -> None:
    """MLflow's copies share their files: removing the original would break another team's model."""
    register(mlflow, 2)
    mlflow.copy_model_version("models:/vaewatch.orders/1", "production.orders")
    assert registry.copies("orders") == {1: ["production.orders version 1"], 2: []}


def test_every_version_that_stays_says_why() -> None:
    """Somebody will ask why the disk is still full."""
    versions = [version(n, "champion" if n == 3 else "challenger" if n == 6 else "") for n in range(1, 7)]
    found = retention.reasons_to_keep(
        versions,
        newest=2,
        previous=2,
        judged={1: 1},
        published={3: 12},
        copies={4: ["prod.orders version 1"]},
    )
    assert found == {
        1: ("1 record that it flagged was judged",),
        2: ("previous",),
        3: ("champion", "it gave the published scores of 12 batches"),
        4: ("prod.orders version 1 shares its files",),
        5: ("one of the newest 2",),
        6: ("challenger", "one of the newest 2"),
    }
    nothing: dict[str, Any] = {"previous": None, "judged": {}, "published": {}, "copies": {}}
    assert retention.reasons_to_keep(versions, newest=1, **nothing)[5] == ()


def version(number: int, alias: str) -> ModelVersion:
    aliases = (alias,) if alias else ()
    return ModelVersion("orders", number, f"run{number}", "", aliases, {}, datetime.now(UTC), {})


def test_a_verdict_keeps_the_version_that_put_the_record_before_a_person(ledger: Ledger) -> None:
    """Precision by version is measured on it for good; what was taken back counts there no more, nor here."""
    put(ledger, [row("a"), row("b")])
    assert retention.judged(ledger, "payments") == {}
    first, _ = page(ledger, Filters()).rows
    given = judging.give(ledger, [first.anomaly_id], "normal", by="ann")
    assert retention.judged(ledger, "payments") == {3: 1}
    other = judging.give(ledger, [first.anomaly_id], "anomaly", by="bob")
    judging.undo(ledger, given.act, by="ann")
    assert retention.judged(ledger, "payments") == {3: 1}, "bob's stands"
    judging.undo(ledger, other.act, by="bob")
    assert retention.judged(ledger, "payments") == {}
    assert retention.judged(ledger, "orders") == {}


def test_only_abandoned_checkpoints_go(tmp_path: Path) -> None:
    """A training that was killed tonight goes on from them tomorrow."""
    for name in ("tonight", "last month"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "last month", (0, time.time() - 30 * 24 * 3600))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")  # as one that was removed since it was listed
    assert [path.name for path in retention.stopped(tmp_path)] == ["last month"]


@pytest.fixture
def server(home: Path) -> Iterator[str]:
    """A tracking server on the same database, which hands files on."""
    port = any_free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracking_uri(home),
        "--artifacts-destination", str(home / "served"), "--workers", "1", "--port", str(port),
    ]  # fmt: skip
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "log").open("wb") as log:
        served = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        try:
            return httpx.get(f"{address}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    until = time.monotonic() + 180
    while not is_up():
        assert served.poll() is None, (home / "log").read_text()
        assert time.monotonic() < until
        time.sleep(0.2)
    yield address
    os.killpg(served.pid, 15)
    served.wait(timeout=30)


@pytest.mark.slow
def test_through_a_server_the_files_go_and_the_rows_are_marked(
    server: str, home: Path, training: TrainingRun
) -> None:
    """Only who has the database can remove rows; the files are what fills a disk."""
    registry = Registry(server)
    for key in ("a1", "b2"):
        registry.register(replace(training, training_key=key * 16))
    registry.promote("orders", 2, by="ann", reason="better")
    before = files(home / "served")
    (gone,) = registry.prune("orders", [1])
    assert gone.n_bytes > 1000
    left = files(home / "served")
    assert left < before
    assert len(left) * 2 == len(before)
    assert [v.version for v in registry.versions("orders")] == [2]
    assert registry.prune("orders", [1]) == []
    assert rows(home, "runs", "logged_models") == {"runs": 2, "logged_models": 2}

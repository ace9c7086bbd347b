"""The registry on a real MLflow, with SQLite and with PostgreSQL: one training is one version, and there is
always a champion to serve.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pipeline.doctor import examine
from pipeline.errors import ConfigError, ModelUnusable, NotReady, RegistryUnreachable, StorageFailed
from pipeline.registry import Registry, TrainingRun, runs
from pipeline.storage.ledger import Ledger

from .registry_data import add_versions, client, finish, logged_runs, orders, start, tracking_uri
from .review_data import refused

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's

promote = partial(Registry.promote, by="ann", reason="better")
rollback = partial(Registry.rollback, by="ann", reason="too many flags")


def test_importing_and_preparing_a_ready_registry_imports_no_mlflow(prepared: Path) -> None:
    """Every task pays for its imports; MLflow's are two seconds."""
    code = f"""
        import sys
        from pipeline.registry import Registry
        Registry("sqlite:///{prepared}/mlflow.db").prepare()
        sys.exit("mlflow" in sys.modules or "sqlalchemy" in sys.modules)
        """
    assert finish(start(code)) == 0


def test_a_dataset_without_models_has_no_champion(registry: Registry) -> None:
    """The first nights have none: that is an answer, not an error."""
    assert registry.champion("orders") is None
    assert registry.challenger("orders") is None
    assert registry.previous("orders") is None
    assert registry.versions("orders") == []


def test_the_same_training_twice_is_one_version_and_one_run(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """A retried training task must not fill the registry with copies."""
    assert registry.made_by("orders", training.training_key) is None
    first = registry.register(training)
    assert registry.made_by("orders", training.training_key) == first
    assert registry.register(replace(training, metrics={"elbo": 0.0})) == first
    assert registry.versions("orders") == [first]
    assert [run.info.status for run in logged_runs(home)] == ["FINISHED"]
    other = registry.register(replace(training, training_key="b2" * 16))
    assert (first.version, other.version) == (1, 2)
    assert (first.training_key, first.metrics) == (training.training_key, {"elbo": -6.5})


def test_a_home_folder_that_was_moved_says_where_its_models_are_looked_for(
    registry: Registry, home: Path, training: TrainingRun, tmp_path: Path
) -> None:
    """MLflow records whole addresses: the next training would write into the old place, unseen."""
    assert registry.kept_elsewhere("orders") is None
    registry.register(training)
    assert registry.kept_elsewhere("orders") is None
    moved = home.rename(tmp_path / "a new home")
    there, here = home / "mlartifacts" / "orders", moved / "mlartifacts" / "orders"
    after = Registry(tracking_uri(moved), moved / "mlartifacts")
    assert after.kept_elsewhere("orders") == (there, here)
    home.symlink_to(moved)
    assert after.kept_elsewhere("orders") is None
    assert after.fetch(after.versions("orders")[0], tmp_path / "models").is_dir()
    address = Registry(tracking_uri(moved), "s3://lake/mlartifacts")
    assert address.kept_elsewhere("orders") is None


def test_the_doctor_tells_a_home_folder_that_was_moved_from_a_copy_beside_its_original(
    registry: Registry, home: Path, training: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link in the original's place would take its models away, as pruning the copy would."""
    registry.register(training)
    with_batch = Ledger(f"sqlite:///{home}/ledger.db")
    with_batch.record_validation(replace(refused("2026-01-01"), dataset="orders"))
    with_batch.close()
    copied = Path(shutil.copytree(home, tmp_path / "copied"))
    monkeypatch.setenv("VAEWATCH_HOME", str(copied))
    monkeypatch.setenv("VAEWATCH_TRACKING_URI", tracking_uri(copied))
    for mend in ("do not use this copy beside the original", f"make {home}/mlartifacts a link to"):
        found = {x["what"]: x for x in examine()}["registry"]
        assert not found["ok"]
        assert mend in found["found"]
        shutil.rmtree(home, ignore_errors=True)


def test_everything_of_a_training_can_be_found_in_mlflow(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """The model owner asks MLflow's pages what a version was made of."""
    curves = [(step, {"loss": 1 / (step + 1)}) for step in range(1200)]  # more than one request holds
    version = registry.register(replace(training, curves=curves))
    mlflow = client(home)
    run = mlflow.get_run(version.run_id)
    assert run.data.params == {"steps": "3", "device": "None"}
    assert run.data.metrics["calibration/elbo"] == -6.5
    assert len(mlflow.get_metric_history(version.run_id, "training/loss")) == 1200
    assert run.data.tags["contract_hash"] == version.tags["contract_hash"] == "c0ffee"
    (records,) = run.inputs.dataset_inputs
    assert "s3cret" not in records.dataset.source
    assert "f" * 64 in records.dataset.profile
    assert [plot.path for plot in mlflow.list_artifacts(version.run_id, "plots")] == [
        "plots/loss by step.html"
    ]
    model = mlflow.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert str(model.status) == "READY"
    assert [metric.key for metric in model.metrics] == ["calibration/elbo"]
    kinds = {path.suffix for path in home.joinpath("mlartifacts").rglob("*") if path.is_file()}
    assert kinds == {"", ".html", ".json", ".yaml", ".txt", ".py", ".safetensors"}


def test_what_a_version_was_judged_by_is_read_as_it_was_logged(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """The newest evaluation; none where it was not judged, or somebody removed its files."""
    version = registry.register(training)
    assert registry.evaluation(version) is None
    for n in (1, 2):
        registry.log_evaluation(
            "orders", version.version, {"evidence": {"n_newest": n}}, {"decision": "wait"}
        )
    assert registry.evaluation(version) == {"evidence": {"n_newest": 2}}
    assert registry.evaluation(replace(version, run_id="")) is None
    (file,) = home.joinpath("mlartifacts").rglob("evaluation.json")
    file.unlink()
    assert registry.evaluation(version) is None


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded:DeprecationWarning"
)  # the child has one thread and dies soon
def test_a_killed_registration_is_completed_by_the_next_try(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """A half-logged run must never serve, and must not stop the version from coming into being."""
    moments = ["log_model_artifacts", "create_model_version", "set_terminated"]
    for moment in moments:
        assert killed_at(moment, lambda: registry.register(replace(training, dataset=moment)))  # noqa: B023
    for moment in moments:
        version = registry.register(replace(training, dataset=moment))
        assert registry.versions(moment) == [version]
        statuses = {run.info.run_id: run.info.status for run in logged_runs(home, moment)}
        assert statuses.pop(version.run_id) == "FINISHED"
        # killed at last, the version was there already: only its run had been left open
        assert list(statuses.values()) == ([] if moment == "set_terminated" else ["FAILED"])
        for run_id in statuses:
            (model,) = client(home).get_run(run_id).outputs.model_outputs
            assert str(client(home).get_logged_model(model.model_id).status) == "FAILED"


def killed_at(request: str, act: Callable[[], object]) -> bool:
    """Act in a child process that is killed when it makes this request of MLflow."""
    import torch
    from mlflow import MlflowClient

    child = os.fork()
    if not child:
        torch.set_num_threads(1)  # threads do not survive a fork
        setattr(MlflowClient, request, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
        try:
            act()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_the_same_training_in_two_processes_is_one_version(
    registry: Registry, home: Path, training: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler that believes a task dead starts it a second time."""
    log_run = runs.log_run

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(runs, "log_run", log_run)
        Registry(tracking_uri(home), home / "mlartifacts").register(training)
        return log_run(*args)

    monkeypatch.setattr(runs, "log_run", overtaken)
    version = registry.register(training)
    assert registry.versions("orders") == [version]
    statuses = {run.info.run_id: run.info.status for run in logged_runs(home)}
    assert statuses.pop(version.run_id) == "FINISHED"
    assert list(statuses.values()) == ["FAILED"]


def test_a_model_that_cannot_score_its_own_example_is_no_version(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """What cannot be loaded at noon cannot be loaded at night."""
    broken = Path(shutil.copytree(training.detector, home / "broken"))
    (broken / "weights.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(ModelUnusable):
        registry.register(replace(training, detector=broken))
    assert registry.versions("orders") == []
    assert [run.info.status for run in logged_runs(home)] == ["FAILED"]


def test_a_fresh_process_scores_bit_for_bit_the_same_through_mlflow(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """Spark jobs and notebooks load the model by MLflow alone; with and without missing values, and without
    pickle.
    """
    from pipeline.detection.detector import Detector

    registry.register(training)
    frames = {"whole": orders(40, 4), "gaps": orders(40, 5, missing=0.2), "one": orders(1, 6)}
    for name, table in frames.items():
        pq.write_table(table, home / f"{name}.parquet")
    code = f"""
        import os, sys
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        import mlflow.pyfunc, pandas as pd
        mlflow.set_tracking_uri({tracking_uri(home)!r})
        unpickled = []
        sys.addaudithook(lambda event, args: unpickled.append(args) if event == "pickle.find_class" else None)
        model = mlflow.pyfunc.load_model("models:/vaewatch.orders/1")
        for name in {list(frames)}:
            model.predict(pd.read_parquet(f"{home}/{{name}}.parquet")).to_parquet(f"{home}/{{name}}.scores")
        print(unpickled)
        sys.exit(len(unpickled))
        """
    assert finish(start(code)) == 0
    detector = Detector.load(training.detector)
    for name, table in frames.items():
        assert (
            pq
            .read_table(home / f"{name}.scores")
            .cast(detector.score_table(table).schema)
            .equals(detector.score_table(table))
        )


def test_a_pickled_model_is_refused_in_our_processes(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a pickle runs whatever its writer wished, and MLflow would by default."""
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    registry.champion("orders")
    from mlflow.exceptions import MlflowException

    with warnings.catch_warnings():  # at its import MLflow warns of its own type hints
        warnings.simplefilter("ignore")
        from mlflow.pyfunc import PythonModel, load_model, save_model

    class Pickled(PythonModel):
        def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
            return model_input

    save_model(tmp_path / "model", python_model=Pickled(), pip_requirements=[])
    with pytest.raises(MlflowException, match="pickle is disallowed"):
        load_model(str(tmp_path / "model"))


def test_a_fetched_detector_is_the_registered_one_and_is_copied_once(
    registry: Registry, home: Path, training: TrainingRun
) -> None:
    """Every scoring task fetches: side by side, and mostly what is there already."""
    version = registry.register(training)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: registry.fetch(version, home / "cache"), range(4)))
    (folder,) = folders
    assert runs.digest(folder) == runs.digest(training.detector)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    nobody = Registry("http://127.0.0.1:9")
    assert nobody.fetch(version, home / "cache") == folder


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, partial(Path.write_bytes, data=b"other"), lambda file: shutil.rmtree(file.parents[2])],
    ids=["lost file", "other content", "lost model"],
)
def test_files_that_are_not_what_was_registered_are_not_served(
    damage: Callable[[Path], object], registry: Registry, home: Path, training: TrainingRun
) -> None:
    """A bucket can lose a file, or be written by somebody else."""
    version = registry.register(training)
    (stored,) = home.joinpath("mlartifacts").rglob("weights.safetensors")
    damage(stored)
    with pytest.raises(ModelUnusable, match="orders version 1"):
        registry.fetch(version, home / "cache")
    assert list(home.joinpath("cache", "orders").iterdir()) == []


def test_a_promotion_says_who_when_and_why(registry: Registry, home: Path) -> None:
    """Months later somebody asks why this model served."""
    add_versions(home, "orders", 2)
    promote(registry, "orders", 1)
    registry.set_challenger("orders", 2)
    receipt = registry.promote("orders", by="ann", reason="fewer false flags")
    assert (receipt.champion, receipt.previous, receipt.changed) == (2, 1, True)
    champion = registry.champion("orders")
    assert champion is not None
    assert champion.aliases == ("champion",)
    assert champion.tags["promoted_by"] == "ann"
    assert champion.tags["promoted_reason"] == "fewer false flags"
    assert champion.tags["promoted_at"].endswith("+00:00")


def test_what_people_found_is_on_record_with_the_version(
    registry: Registry, training: TrainingRun, home: Path
) -> None:
    """Beside what calibration says; told again, it is no news."""
    registry.register(training)
    found = {"review_precision": 0.75, "review_judged": 40.0}
    assert registry.log_review("orders", 1, found)
    assert not registry.log_review("orders", 1, found)
    assert registry.log_review("orders", 1, found | {"review_precision": 0.8})
    (version,) = registry.versions("orders")
    assert json.loads(version.tags["review"])["review_precision"] == 0.8
    history = client(home).get_metric_history(version.run_id, "review_precision")
    assert [point.value for point in history] == [0.75, 0.8]
    with pytest.raises(NotReady, match="no version 9"):
        registry.log_review("orders", 9, found)


def test_rollback_restores_the_previous_champion_once(registry: Registry, home: Path) -> None:
    """A command given twice in alarm must not bring the bad model back."""
    add_versions(home, "orders", 3)
    for version in (1, 2, 3):
        promote(registry, "orders", version)
    receipt = rollback(registry, "orders")
    assert (receipt.champion, receipt.previous) == (2, None)
    with pytest.raises(NotReady, match="version 2 is champion, with no earlier one to go back to"):
        rollback(registry, "orders")
    taken_back = registry.versions("orders")[2]
    assert taken_back.tags["rolled_back_reason"] == "too many flags"
    champion = registry.champion("orders")
    assert champion is not None
    assert champion.version == 2


def test_promoting_what_is_not_there_says_what_is(registry: Registry, home: Path) -> None:
    """A mistyped number is a person's error, told with the numbers that exist."""
    with pytest.raises(NotReady, match="orders has no version 7; versions: none, train first"):
        promote(registry, "orders", 7)
    add_versions(home, "orders", 2)
    with pytest.raises(NotReady, match="orders has no version 7; versions: 1, 2"):
        promote(registry, "orders", 7)
    with pytest.raises(NotReady, match="orders has no challenger"):
        promote(registry, "orders")


class Killed(BaseException):
    """Stands for the end of a process between two requests."""


@pytest.mark.parametrize("act", [partial(promote, version=3), rollback], ids=["promote", "rollback"])
def test_an_interrupted_promotion_leaves_a_champion_and_is_completed_by_a_repeat(
    act: Callable[..., object], registry: Registry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scoring goes on whatever happens to the process that promotes."""
    from mlflow import MlflowClient

    def state(dataset: str) -> list[tuple[str, ...]]:
        return [version.aliases for version in registry.versions(dataset)]

    def interrupted(dataset: str, after: int) -> bool:
        writes = count()

        def write(method: Callable[..., Any], *args: Any) -> Any:
            if next(writes) >= after:
                raise Killed
            return method(*args)

        with monkeypatch.context() as patch:
            for name in vars(MlflowClient):
                if name.startswith(("set_", "delete_")):
                    method = getattr(MlflowClient, name)
                    patch.setattr(MlflowClient, name, lambda *args, method=method: write(method, *args))
            try:
                act(registry, dataset)
            except Killed:
                return True
            return False

    expected = None
    for after in reversed(range(12)):
        dataset = f"killed-after-{after}"
        add_versions(home, dataset, 3)
        promote(registry, dataset, 1)
        promote(registry, dataset, 2)
        registry.set_challenger(dataset, 3)
        was_killed = interrupted(dataset, after)
        expected = expected or state(dataset)
        assert was_killed or state(dataset) == expected
        champion = registry.champion(dataset)
        assert champion is not None
        committed = ("champion" in aliases for aliases in expected)
        assert champion.version in {2, 1 + list(committed).index(True)}
        if was_killed:
            try:
                act(registry, dataset)
            except NotReady:  # a rollback that was done already is refused, and tidied up all the same
                assert act is rollback
        assert state(dataset) == expected
    assert was_killed


class Promotions(RuleBasedStateMachine):
    """Any order of promotions and rollbacks, beside a model of four lines."""

    registry: Registry
    home: Path
    examples = count()
    versions = st.integers(1, 4)

    @initialize()
    def begin(self) -> None:
        self.dataset = f"example-{next(self.examples)}"
        add_versions(self.home, self.dataset, 4)
        self.champion: int | None = None
        self.previous: int | None = None
        self.challenger: int | None = None

    def serve(self, champion: int, previous: int | None) -> None:
        self.champion, self.previous = champion, previous
        self.challenger = None if self.challenger == champion else self.challenger

    @rule(version=versions)
    def name_challenger(self, version: int) -> None:
        self.registry.set_challenger(self.dataset, version)
        self.challenger = self.challenger if version == self.champion else version

    @rule(version=versions)
    def promote(self, version: int) -> None:
        receipt = promote(self.registry, self.dataset, version)
        assert receipt.changed == (version != self.champion)
        if receipt.changed:
            self.serve(version, self.champion)

    @precondition(lambda self: self.challenger is not None)
    @rule()
    def promote_challenger(self) -> None:
        receipt = promote(self.registry, self.dataset)
        assert receipt.champion == self.challenger
        self.serve(receipt.champion, self.champion)

    @rule()
    def roll_back(self) -> None:
        if self.previous is None:
            with pytest.raises(NotReady):
                rollback(self.registry, self.dataset)
        else:
            assert rollback(self.registry, self.dataset).champion == self.previous
            self.serve(self.previous, None)

    @invariant()
    def registry_agrees(self) -> None:
        """The champion is never lost, and the aliases say what the registry says."""
        expected = {"champion": self.champion, "previous": self.previous, "challenger": self.challenger}
        versions = self.registry.versions(self.dataset)
        named = {alias: version.version for version in versions for alias in version.aliases}
        assert named == {alias: version for alias, version in expected.items() if version is not None}
        previous = self.registry.previous(self.dataset)
        assert (previous.version if previous else None) == self.previous


def test_no_order_of_promotions_and_rollbacks_loses_the_champion(registry: Registry, home: Path) -> None:
    """The rules hold for every history, not for the three that somebody thought of."""
    Promotions.registry, Promotions.home = registry, home
    Promotions.TestCase.settings = settings(
        max_examples=6, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Promotions.TestCase().runTest()


@pytest.fixture
def failing_server() -> Iterator[str]:
    """A server that answers every request with 500."""

    class Failing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("address", ["closed_port", "failing_server"])
def test_an_unreachable_server_is_told_in_seconds_without_the_password(
    address: str, request: pytest.FixtureRequest
) -> None:
    """MLflow's own patience is four minutes, and its messages hold the address as it was given."""
    host, password = request.getfixturevalue(address), "s3%2Fcret"
    started = time.monotonic()
    with pytest.raises(RegistryUnreachable) as caught:
        Registry(f"http://ann:{password}@{host}").champion("orders")
    assert time.monotonic() - started < 30
    assert f"http://***@{host} could not look up the champion of orders" in str(caught.value)
    assert "try again" in str(caught.value)
    assert caught.value.retry_can_help
    told = "".join(traceback.format_exception(caught.value))
    assert password not in told
    assert unquote(password) not in told


def test_an_address_that_holds_no_registry_is_refused_at_once(tmp_path: Path) -> None:
    """A mistake in the settings is told before anything is imported, and without its password."""
    for address in ("mlruns", "file:///mlruns", "sqlite://", "ftp://ann:s3cret@host/"):
        with pytest.raises(ConfigError, match="VAEWATCH_TRACKING_URI") as caught:
            Registry(address)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(ConfigError, match="give a folder"):
        Registry("postgresql://ann:s3cret@host/mlflow")
    (tmp_path / "mlflow.db").write_text("these are my notes")
    with pytest.raises(StorageFailed, match="not a SQLite database"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db").champion("orders")


def test_what_a_killed_preparation_left_is_no_obstacle(prepared: Path, tmp_path: Path) -> None:
    """The first start of an installation may be cut short by anything."""
    (tmp_path / "mlflow.db.draft").write_bytes(b"half")
    (tmp_path / "mlflow.db").touch()
    Registry(f"sqlite:///{tmp_path}/mlflow.db").prepare()
    assert Registry(f"sqlite:///{tmp_path}/mlflow.db").champion("orders") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "mlflow.db.prepared"]


def test_a_database_of_another_mlflow_is_looked_at_again(registry: Registry, home: Path) -> None:
    """After an upgrade of MLflow the tables have to follow, with a copy of what was before."""
    if not (home / "mlflow.db").exists():
        pytest.skip("MLflow's own note of its version: only SQLite's preparation keeps one beside it")
    (home / "mlflow.db.prepared").write_text("1.0.0")
    engine = sa.create_engine(f"sqlite:///{home}/mlflow.db")
    registry.prepare()
    assert (home / "mlflow.db.prepared").read_text() != "1.0.0"
    assert registry.champion("orders") is None
    engine.dispose()


def test_a_rejection_is_on_record_and_ends_the_challenge(registry: Registry, home: Path) -> None:
    """Somebody looked and said no: the next `promote` without a number must not find it. Told twice, it is no
    news.
    """
    add_versions(home, "orders", 2)
    promote(registry, "orders", 1)
    registry.set_challenger("orders", 2)
    said = {"by": "ann", "reason": "flags every holiday"}
    assert registry.reject("orders", 2, **said)
    assert not registry.reject("orders", 2, **said)
    assert registry.challenger("orders") is None
    tags = registry.versions("orders")[1].tags
    assert (tags["rejected_by"], tags["rejected_reason"]) == ("ann", "flags every holiday")
    assert tags["rejected_at"].endswith("+00:00")
    assert not registry.reject("orders", 1, **said)  # it serves: that is for a rollback to end
    with pytest.raises(NotReady, match="no version 7"):
        registry.reject("orders", 7, **said)

"""The DAGs run for real, in this process: real Airflow, real steps, a small dataset on a temporary path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.xcom import XComModel
from airflow.utils import db
from airflow.utils.session import create_session
from sqlalchemy import select

from pipeline.installation import Installation
from tests.pipeline.mail_server import Mailbox, mail_server

from .conftest import REPOSITORY, DatasetFile

# a warning of any library that a task imports would be a failed task here; the steps are tested without,
# elsewhere
pytestmark = pytest.mark.filterwarnings("default")

Land = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def airflow_database() -> None:
    """Airflow's own tables, once."""
    db.initdb()


@pytest.fixture
def land(dataset_file: DatasetFile, tmp_path: Path) -> Land:
    """A dataset `orders`; lands one day's batch of it, whole or with a column missing."""
    dataset_file("orders", "train: {min_records: 300, recipe: {steps: 30}}")

    def write(day: int, *, broken: bool = False) -> Path:
        random = np.random.default_rng(day)
        a = random.normal(size=200)
        start = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(days=day)
        columns: dict[str, Any] = {
            "id": [f"{day}-{n}" for n in range(a.size)],
            "at": pa.array([start + timedelta(minutes=n) for n in range(a.size)], pa.timestamp("us", "UTC")),
            "a": a,
            "b": 2 * a + random.normal(scale=0.1, size=a.size),
            "c": random.choice(["x", "y", "z"], size=a.size),
        }
        if broken:
            del columns["b"]
        path = tmp_path / "incoming" / "orders" / f"day{day:02}.parquet"
        pq.write_table(pa.table(columns), path)
        return path

    return write


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server that takes anything."""
    with mail_server() as box:
        yield box


class Run:
    """One run of a DAG, and what it left in Airflow's database."""

    def __init__(self, dag_id: str, **conf: Any) -> None:
        bag = DagBag(REPOSITORY / "dags")
        assert not bag.import_errors
        dag = bag.dags[dag_id]
        dag.deadline = None  # Airflow 3.3 cannot store one from a run in process
        for task in dag.tasks:
            task.retries = 0  # a run in process sleeps through every delay
        self.dag = dag
        self.run = dag.test(run_conf=conf)
        self.state = str(self.run.state)
        self.tasks = {task.task_id: str(task.state) for task in self.run.get_task_instances()}

    def result(self, task_id: str) -> Any:
        """What a task returned."""
        query = select(XComModel).where(
            XComModel.run_id == self.run.run_id, XComModel.task_id == task_id, XComModel.key == "return_value"
        )
        with create_session() as session:
            row = session.scalars(query).one()
            return XComModel.deserialize_value(row)

    def link(self, task_id: str, name: str) -> str:
        """Where a task's link leads, as Airflow's pages and API have it; empty where it leads nowhere."""
        from airflow.serialization.serialized_objects import DagSerialization

        dag = DagSerialization.from_dict(DagSerialization.to_dict(self.dag))
        (instance,) = (ti for ti in self.run.get_task_instances() if ti.task_id == task_id)
        found: str = dag.get_task(task_id).get_extra_links(instance, name)
        return found

    def keys(self, asset: str) -> list[str | None]:
        """The partition keys that the run put on an asset."""
        query = (
            select(AssetEvent.partition_key)
            .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            .where(AssetEvent.source_run_id == self.run.run_id, AssetModel.name == asset)
            .order_by(AssetEvent.id)
        )
        with create_session() as session:
            return list(session.scalars(query))


def test_the_first_night(
    land: Land, dataset_file: DatasetFile, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovered, accepted, waiting for a model; trained; scored; told by e-mail; and nothing left to do."""
    dataset_file("orders", "train: {min_records: 300, recipe: {steps: 30}}\nreview: {email: ann@example.com}")
    server = f"smtp://127.0.0.1:{mailbox.port}/?disable_ssl=true&disable_tls=true"
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", server)
    monkeypatch.setenv("VAEWATCH_MLFLOW_PAGE", "http://mlflow.example")
    for day in (1, 2, 3):
        land(day)
    found = Run("orders.discover")
    assert found.keys("orders.batch_landed") == ["day01..day03"]
    assert Run("orders.discover").tasks == {"look": "skipped"}  # handed out, not handed out twice

    early = Run("orders.score", batch="day01..day03")
    assert early.link("score", "Batch report") == ""  # no model, no report
    assert early.state == "success"
    assert early.result("validate")["batches"] == {"accepted": 3}
    assert early.tasks["score"] == "skipped"
    assert early.keys("orders.batch_scored") == []

    trained = Run("orders.train")
    assert trained.result("train") == {"outcome": "trained", "model_version": 1, "alias": ""}
    judged = trained.result("evaluate")
    assert (judged["outcome"], judged["model_version"], judged["alias"]) == ("passed", 1, "champion"), judged
    assert trained.keys("orders.model_trained") == [None]  # no version's key: it wakes no promotion
    assert trained.keys("orders.champion") == [None]  # an unkeyed event: discover listens to it

    version = Installation().registry.version("orders", 1)
    assert trained.link("train", "Training report") == f"/review/training/orders/{version.training_key}"
    assert (
        trained.link("train", "Model version") == "http://mlflow.example/#/models/vaewatch.orders/versions/1"
    )

    scored = Run("orders.score", batch="day01..day03")
    assert scored.link("validate", "Batch report") == "/review/report/orders/day03/index.html"
    assert scored.link("score", "Batch report") == "/review/report/orders/day03/run.html"
    assert scored.link("score", "Records to review") == "/review/?dataset=orders"
    assert scored.result("score")["batches"] == {"scored": 3}
    assert scored.keys("orders.batch_scored") == [None]
    flagged = {day: state.n_flagged for day, state in Installation().ledger.current("orders").items()}
    assert all(flagged.values())
    subjects = [message["subject"].split(": ")[0] for message in mailbox.messages]
    assert subjects == ["orders day01 to day02", "orders day03"]  # what had piled up, and the newest
    assert Run("orders.discover").tasks == {"look": "skipped"}


def test_a_refused_batch_turns_its_run_red_and_stops_no_other(
    land: Land, dataset_file: DatasetFile, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is told at once, with the reason, by Airflow's own mail; the good batches of the run are
    done.
    """
    dataset_file("orders", "train: {min_records: 300, recipe: {steps: 30}}\nreview: {email: ann@example.com}")
    server = f"smtp://127.0.0.1:{mailbox.port}/?disable_ssl=true&disable_tls=true"
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", server)
    land(1)
    land(2, broken=True)
    land(3)
    run = Run("orders.score", batch="day01..day03")
    assert run.state == "failed"
    assert run.tasks == {"validate": "success", "score": "skipped", "contract": "failed"}
    assert list(run.result("validate")["refused"]) == ["day02"]
    assert run.link("validate", "Batch report") == "/review/report/orders/day02/run.html"
    assert "b" in run.result("validate")["refused"]["day02"]
    (alarm,) = mailbox.messages
    assert alarm["subject"] == "orders day02: 1 alarm"
    text = alarm.get_body(("html",))
    assert text
    assert "the delivery was refused" in text.get_content()
    states = Installation().ledger.current("orders")
    assert {batch: state.status for batch, state in states.items()} == {
        "day01": "accepted",
        "day02": "refused",
        "day03": "accepted",
    }
    edited = "train: {min_records: 299, recipe: {steps: 30}}\nbatch: {max_set_aside: 0.2}\nreview: {email: ann@example.com}"
    dataset_file("orders", edited)
    land(4)
    again = Run("orders.score", batch="day01..day04")
    assert again.tasks == {"validate": "success", "score": "skipped", "contract": "success"}
    assert len(mailbox.messages) == 1  # what was told of the same delivery is no news


def test_a_challenger_is_promoted_under_its_version(land: Land) -> None:
    """The second model is the challenger; its key starts the promotion, which goes on record."""
    for day in (1, 2, 3):
        land(day)
    Run("orders.score", batch="day01..day03")
    Run("orders.train")
    land(4)
    Run("orders.score", batch="day04")
    trained = Run("orders.train")
    assert trained.result("train") == {"outcome": "trained", "model_version": 2, "alias": ""}
    judged = trained.result("evaluate")
    assert (judged["outcome"], judged["alias"]) == ("passed", "challenger"), judged
    assert trained.keys("orders.model_trained") == ["2"]
    promoted = Run("orders.promote", version=2, reason="looks better")
    done = promoted.result("promote")
    assert {key: done[key] for key in ("outcome", "model_version", "previous")} == {
        "outcome": "promoted",
        "model_version": 2,
        "previous": 1,
    }

    assert Run("orders.prune").result("prune")["outcome"] == "unchanged"  # ten are kept
    again = Run("orders.rescore", first="day01", last="day02", check_again=True)
    assert again.result("rescore")["batches"] == {"scored": 2}
    assert sorted(again.keys("orders.batch_scored")) == ["day01", "day02"]
    states = Installation().ledger.current("orders")
    assert [states[f"day0{day}"].model_version for day in (1, 2, 3, 4)] == [2, 2, None, 1]

    unsaid = Run("orders.promote", version=1)  # it was judged before version 2 served
    assert (unsaid.state, Installation().registry.champion("orders").version) == ("failed", 2)
    assert Run("orders.promote", version=1, reason="2 is too loud").result("promote")["model_version"] == 1


def test_a_dry_pruning_says_what_would_go_and_removes_nothing(land: Land) -> None:
    """Whoever works in Airflow alone can look before anything goes for good."""
    land(1)
    left = Installation().settings.home / "models" / "orders" / "9-of-a-version-that-went"
    left.mkdir(parents=True)
    (left / "weights").write_bytes(b"x" * 300)
    would = Run("orders.prune", dry_run=True).result("prune")
    assert (would["outcome"], would["local"]) == ("dry run", [f"models/orders/{left.name}"])
    assert (would["versions"], would["kept"], would["n_bytes"]) == ([], {}, 300)
    assert left.exists()
    assert Run("orders.prune").result("prune") == would | {"outcome": "pruned"}
    assert not left.exists()
    assert Run("orders.prune").result("prune")["outcome"] == "unchanged"


def test_training_before_there_are_records_is_no_failure(land: Land) -> None:
    """A new dataset must not be red every night until it has enough; a running one must."""
    land(1)
    Run("orders.score", batch="day01")
    assert Run("orders.train").tasks == {"train": "skipped", "evaluate": "skipped"}
    Installation().ledger.set_serving("orders", 1)
    assert Run("orders.train").tasks == {"train": "failed", "evaluate": "upstream_failed"}


def test_a_night_without_an_occasion_is_skipped_and_rings_for_nobody(land: Land, datasets: Path) -> None:
    """Nothing has happened since the last training: no GPU, no version, no red task, and the reason in the
    log.
    """
    file = datasets / "orders.yaml"
    file.write_text(
        file.read_text().replace(
            "{min_records: 300,", "{min_records: 300, seed: 9, when: {new_records: 100},"
        )
    )
    for day in (1, 2):
        land(day)
    Run("orders.score", batch="day01..day02")
    assert Run("orders.train").result("evaluate")["alias"] == "champion"
    file.write_text(file.read_text().replace("seed: 9", "seed: 10"))
    skipped = Run("orders.train")
    assert (skipped.state, set(skipped.tasks.values())) == ("success", {"skipped"})
    assert skipped.keys("orders.champion") == skipped.keys("orders.model_trained") == []
    assert Run("orders.train", force=True).result("train")["outcome"] == "trained"
    land(3)
    Run("orders.score", batch="day03")
    assert Run("orders.train").result("train")["model_version"] == 3


def test_a_run_without_a_key_says_what_to_give_it(land: Land) -> None:
    """The button in Airflow's page sends no key; the reason must be in the first red task's log."""
    land(1)
    run = Run("orders.score")
    assert run.tasks["validate"] == "failed"

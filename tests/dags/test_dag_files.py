"""What Airflow finds in dags/: all of it, quickly, whatever one dataset's file says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import RetryAction
from airflow.utils.file import list_py_file_paths

from pipeline import steps
from pipeline.errors import ContractRefused, NotReady, StorageFailed, VaewatchError
from pipeline.installation import Installation

from .conftest import AIRFLOW_WARNINGS, REPOSITORY, DatasetFile

pytestmark = AIRFLOW_WARNINGS

VERBS = ("discover", "promote", "prune", "rescore", "score", "train")
HEAVY = ("torch", "mlflow", "great_expectations", "pandas", "numpy", "pyarrow", "deltalake")


def parse() -> DagBag:
    return DagBag(REPOSITORY / "dags")


def test_airflow_reads_two_files() -> None:
    """Whatever else lies beside them, it would import every half minute."""
    read = {Path(found).name for found in list_py_file_paths(REPOSITORY / "dags", safe_mode=True)}
    assert read == {"vaewatch.py", "broken_datasets.py"}


def test_every_dataset_has_its_dags(dataset_file: DatasetFile) -> None:
    """An empty folder, or a file that Airflow skips, must not pass for a schedule."""
    for name in ("orders", "pay-ments", "x_1"):
        dataset_file(name)
    bag = parse()
    assert not bag.import_errors
    assert sorted(bag.dags) == sorted(
        f"{name}.{verb}" for name in ("orders", "pay-ments", "x_1") for verb in VERBS
    )


def test_whoever_is_woken_reads_what_to_do(dataset_file: DatasetFile) -> None:
    """Every DAG's note names the dataset and a command to type, and has no gap left to fill in."""
    dataset_file("orders")
    for dag in parse().dags.values():
        assert dag.doc_md
        assert "vaewatch " in dag.doc_md
        assert "What to do" in dag.doc_md or "When it fails" in dag.doc_md
        assert "{" not in dag.doc_md
        assert dag.tags >= {"vaewatch", "orders"}


def test_every_task_tries_again_and_no_dag_catches_up(dataset_file: DatasetFile) -> None:
    """A start date in the past runs the last missed slot the moment a DAG is switched on."""
    dataset_file("orders")
    for dag in parse().dags.values():
        assert dag.start_date is None
        assert dag.catchup is False
        assert dag.tasks
        assert all(task.retries >= 2 and task.retry_policy for task in dag.tasks)


def test_only_training_asks_for_the_gpu(dataset_file: DatasetFile) -> None:
    """One training at a time, and scoring never waits for it."""
    dataset_file("orders")
    pools = {(dag_id, task.pool) for dag_id, dag in parse().dags.items() for task in dag.tasks}
    assert [dag_id for dag_id, pool in pools if pool != "default_pool"] == ["orders.train"]


@pytest.mark.parametrize(("mode", "by_itself"), [("automatic", True), ("manual", False), ("approval", False)])
def test_promotion_follows_training_only_where_it_is_automatic(
    mode: str, by_itself: bool, dataset_file: DatasetFile
) -> None:
    """promote.mode: manual means that no model serves before a person says so."""
    dataset_file("orders", f"promote: {{mode: {mode}}}")
    dags = parse().dags
    assert ("Asset" in type(dags["orders.promote"].timetable).__name__) is by_itself
    assert ("orders.approve" in dags) is (mode == "approval")


def test_a_question_that_nobody_answers_is_no(dataset_file: DatasetFile) -> None:
    """Without a default Airflow fails the task when its time is up, and asks again."""
    dataset_file("orders", "promote: {mode: approval, approval_hours: 6}")
    dag = parse().dags["orders.approve"]
    assert "Asset" in type(dag.timetable).__name__
    asked = dag.get_task("approve")
    assert (asked.defaults, asked.response_timeout.total_seconds()) == (["Reject"], 6 * 3600)
    assert "{" not in dag.doc_md


class Answers:
    """What `settle` is handed by the tasks before it."""

    def __init__(self, evidence: dict[str, Any], note: str, choice: str) -> None:
        user = {"id": "7", "name": "ann"}
        answer = {"chosen_options": [choice], "params_input": {"note": note}, "responded_by_user": user}
        self.by_task = {"evidence": evidence, "approve": answer}

    def xcom_pull(self, task_ids: str) -> dict[str, Any]:
        return self.by_task[task_ids]


def test_an_approval_over_an_objection_needs_a_note(dataset_file: DatasetFile, tmp_path: Path) -> None:
    """As in a shell, and in the DAG `promote`. Without one nothing changes; a rejection needs none."""
    dataset_file("orders", "promote: {mode: approval}")
    with closing(Installation()) as here:
        here.registry.prepare()
        from mlflow import MlflowClient

        place = f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}"
        client = MlflowClient(place, registry_uri=place)
        experiment = client.create_experiment("any", artifact_location=(tmp_path / "runs").as_uri())
        client.create_registered_model("vaewatch.orders")
        for _ in (1, 2, 3):
            run = client.create_run(experiment).info.run_id
            client.create_model_version("vaewatch.orders", "file:///nowhere", run)
        here.registry.promote("orders", 1, by="vaewatch", reason="the first model")
        asked = steps.evidence(here, "orders", 2)
        assert "version 2 was never judged" in asked.objection
        assert "needs a note that says why" in asked.markdown
        settle = parse().dags["orders.approve"].get_task("settle").python_callable
        seen = {"version": 2, "objection": asked.objection, "is_challenger": asked.is_challenger}
        for note in ("", " \n"):
            with pytest.raises(
                NotReady, match=r"nothing was changed; .* give a reason: vaewatch promote orders --version 2"
            ):
                settle(ti=Answers(seen, note, "Approve"))
        champion, untouched = here.registry.champion("orders"), here.registry.version("orders", 2)
        assert champion
        assert (champion.version, untouched.tags) == (1, {})
        assert settle(ti=Answers(seen, "a trial", "Approve"))["outcome"] == "promoted"
        assert here.registry.version("orders", 2).tags["promoted_reason"].startswith("a trial; overrides: ")
        assert settle(ti=Answers(seen | {"version": 3}, "", "Reject"))["outcome"] == "rejected"
        assert here.registry.version("orders", 3).tags["rejected_reason"] == "no reason was given"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("trane: {seed: 1}", "did you mean 'train'?"),
        ("train: {schedule: every night}", "train.schedule: 'every night' is not a cron schedule"),
        ("schedule: {discover: 61 * * * *}", "schedule.discover: '61 * * * *' is not a cron schedule"),
        ("description: [", "broken.yaml"),
    ],
)
def test_a_broken_dataset_file_costs_only_its_own_dags(
    settings: str, says: str, dataset_file: DatasetFile
) -> None:
    """The other datasets run on, and Airflow's import errors say which file to mend and how."""
    dataset_file("orders")
    dataset_file("broken", settings)
    bag = parse()
    assert sorted(bag.dags) == [f"orders.{verb}" for verb in VERBS]
    assert [Path(path).name for path in bag.import_errors] == ["broken_datasets.py"]
    assert says in next(iter(bag.import_errors.values()))


def test_two_files_for_one_dataset_are_a_fault(dataset_file: DatasetFile) -> None:
    """Which of two contracts holds must not depend on the order of files."""
    first = dataset_file("orders")
    first.with_name("zz_copy.yaml").write_text(first.read_text())
    bag = parse()
    assert len(bag.dags) == len(VERBS)
    assert "zz_copy.yaml: dataset 'orders' is also in" in next(iter(bag.import_errors.values()))


def test_two_datasets_that_the_same_variable_would_set_are_a_fault(dataset_file: DatasetFile) -> None:
    """VAEWATCH_ORDERS_EU__… would change the night of both."""
    dataset_file("orders-eu")
    dataset_file("orders_eu")
    found = next(iter(parse().import_errors.values()))
    assert (
        "datasets 'orders-eu' and 'orders_eu' share the environment variables VAEWATCH_ORDERS_EU__*" in found
    )


def test_a_missing_folder_of_datasets_is_said(datasets: Path) -> None:
    """An empty list of DAGs with no reason is what a wrong mount looks like otherwise."""
    datasets.rmdir()
    assert "set VAEWATCH_DATASETS" in next(iter(parse().import_errors.values()))


def test_a_task_reads_only_its_own_dataset(
    dataset_file: DatasetFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every task parses the DAG file again: fifty datasets must not slow each of their tasks."""
    dataset_file("orders")
    dataset_file("payments")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "orders.score")
    assert sorted(parse().dags) == [f"orders.{verb}" for verb in VERBS]


def test_the_demo_leaves_other_datasets_alone(
    dataset_file: DatasetFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has written a file for their own data and then tries the demo has not asked for theirs to be
    worked on.
    """
    dataset_file("orders")
    dataset_file("payments")
    dataset_file("broken", "trane: {seed: 1}")
    monkeypatch.setenv("VAEWATCH_DEMO", "payments")
    bag = parse()
    assert sorted(bag.dags) == [f"payments.{verb}" for verb in VERBS if verb != "prune"]
    assert not bag.import_errors


def test_parsing_fifty_datasets_is_quick_and_imports_nothing_heavy(dataset_file: DatasetFile) -> None:
    """Airflow parses every half minute, and gives up after thirty seconds."""
    for number in range(50):
        dataset_file(f"dataset{number:02}", "promote: {mode: approval}")  # the mode with the most to import
    program = f"""
import json, sys, time
from airflow.dag_processing.dagbag import DagBag
began = time.process_time()
bag = DagBag({str(REPOSITORY / "dags")!r})
heavy = [name for name in {HEAVY} if name in sys.modules]
print(json.dumps([len(bag.dags), heavy, time.process_time() - began]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    n_dags, heavy, cpu_seconds = json.loads(done.stdout.splitlines()[-1])
    assert n_dags == 50 * (len(VERBS) + 1)
    assert heavy == []
    assert cpu_seconds < 6


def errors(of: type[VaewatchError]) -> Iterator[type[VaewatchError]]:
    yield of
    for kind in of.__subclasses__():
        yield from errors(kind)


@pytest.mark.parametrize("kind", list(errors(VaewatchError)), ids=lambda kind: kind.__name__)
def test_airflow_tries_again_exactly_where_a_retry_can_help(
    kind: type[VaewatchError], datasets: Path
) -> None:
    """A refused batch tried three times wakes somebody an hour later and helps nobody."""
    from dags.frame import POLICY

    decision = POLICY.evaluate(kind("what happened"), 1, 3)
    assert decision.action is (RetryAction.RETRY if kind.retry_can_help else RetryAction.FAIL)


@pytest.mark.parametrize(
    ("fault", "action"),
    [
        (OSError(28, "No space left on device"), RetryAction.RETRY),
        (ConnectionRefusedError(), RetryAction.RETRY),
        (ValueError(), RetryAction.DEFAULT),
        (StorageFailed("disk"), RetryAction.RETRY),
        (ContractRefused("rows"), RetryAction.FAIL),
    ],
)
def test_a_fault_of_the_machine_is_tried_again(fault: Exception, action: RetryAction, datasets: Path) -> None:
    """What is no error of ours falls under Airflow's own rule, which tries again too."""
    from dags.frame import POLICY

    assert POLICY.evaluate(fault, 1, 3).action is action

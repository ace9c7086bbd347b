"""What the command line prints about itself, whatever the width of the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.cli.arguments import finish, told
from pipeline.doctor import examine
from pipeline.report.trust import Trust
from pipeline.steps.receipts import Receipt


@pytest.mark.parametrize("group", [(), ("review",), ("review", "rules"), ("quarantine",)], ids=" ".join)
def test_help_says_of_each_verb_a_whole_sentence(group: tuple[str, ...]) -> None:
    """Half a sentence and three dots do not say what a verb does."""
    commands = CliRunner().invoke(app, [*group, "--help"], terminal_width=80).stdout.partition("Commands:")[2]
    assert len(re.findall(r"^  [a-z]+  ", commands, re.MULTILINE)) >= 3
    assert "..." not in commands


def test_a_run_without_datasets_says_how_to_come_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence reads like success, and the wrong folder is soon taken."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    outcome = CliRunner().invoke(app, ["run"])
    assert outcome.exit_code == 0
    assert "no dataset file in the folder" in outcome.stdout
    assert "vaewatch init" in outcome.stdout
    assert CliRunner().invoke(app, ["run", "--json"]).stdout.strip() == "[]"


def test_hints_of_a_sample_and_of_a_report_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone, the shell does not find `vaewatch`; what is stored of a page names it by that alone."""
    program = tmp_path / "bin" / "vaewatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    for path in ("feed/a/2026-01-01.parquet", "feed/b/2026-01-02.parquet", "feed/b/2026-01-03.parquet"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [0.1 * i for i in range(200)]}), tmp_path / path)
    trust = Trust("good", "ok", "Trusted", "Well", unscored="1 set aside (vaewatch quarantine show feed b1)")
    page = SimpleNamespace(batch_id="b1", trust=trust, path=tmp_path / "run.html")
    monkeypatch.setattr("pipeline.report.batch.rewrite", lambda *_: page)
    monkeypatch.setattr("pipeline.report.newest.follow", lambda *_: None)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    made = CliRunner().invoke(app, ["init", str(tmp_path / "feed")]).stdout
    assert f"{program} init {tmp_path / 'feed'}" in made
    told = CliRunner().invoke(app, ["report", "feed"]).stdout
    assert f"feed b1: Trusted. Well 1 set aside ({program} quarantine show feed b1)" in told


@pytest.mark.parametrize(
    ("is_terminal", "given", "kept"),
    [
        (True, [], "flags by the hundred"),
        (True, ["--reason", "told before"], "told before"),
        (True, ["--json"], ""),
        (False, [], ""),
    ],
    ids=["in a terminal", "with a reason", "for a program", "in a script"],
)
def test_a_rollback_asks_why_where_there_is_somebody_to_ask(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, given: list[str], kept: str
) -> None:
    """A history without reasons helps nobody, and an emergency in a script waits for nobody."""
    asked: list[str] = []

    def rollback(*_: Any, by: str, reason: str, say: Any = None) -> Receipt:
        asked.append(reason)
        return Receipt("rollback", "feed", "rolled back")

    monkeypatch.setattr("pipeline.steps.rollback", rollback)
    monkeypatch.setattr("pipeline.installation.Installation", lambda: SimpleNamespace(dataset=lambda _: None))
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: is_terminal))
    monkeypatch.setattr("pipeline.cli.models.sys", terminal)
    done = CliRunner().invoke(app, ["rollback", "feed", *given], input=" flags by the hundred\n")
    assert done.exit_code == 0, done.output
    assert asked == [kept]
    assert "why" not in done.stdout


def test_a_run_of_every_dataset_does_the_others_where_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Payments, which comes with a clone, has no folder before a demo; one file may stop no night."""
    datasets = tmp_path / "datasets"
    for name in ("datasets", "pumps"):
        (tmp_path / name).mkdir()
    (tmp_path / "orders").write_text("no folder")
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(datasets))

    def run(*named: str) -> tuple[int, dict[str, str]]:
        done = CliRunner().invoke(app, ["run", *named, "--json"])
        receipts = json.loads(done.stdout) if done.stdout else []
        return done.exit_code, {
            one["dataset"]: f"{one['outcome']}: {one['reason']}" for one in receipts[::-1]
        }

    text = Path("dags/datasets/payments.yaml").read_text(encoding="utf-8")
    (datasets / "payments.yaml").write_text(text, encoding="utf-8")
    code, said = run()
    assert code == 0
    assert said["payments"].startswith("waiting: no delivery yet: ")
    for name in ("orders", "pumps"):
        (datasets / f"{name}.yaml").write_text(
            f"dataset: {name}\nincoming: {{path: ../{name}}}\ncolumns: {{a: {{type: float, role: numeric}}}}\n"
        )
    (datasets / "broken.yaml").write_text("dataset: broken\nkye: id\n")
    code, said = run()
    assert code == 4
    assert said["pumps"] == "unchanged: "
    assert re.match(r"failed: orders: incoming folder .* \(a retry may help\)", said["orders"])
    assert "broken.yaml" in said[""]
    (datasets / "pumps.yaml").unlink()
    (datasets / "payments.yaml").unlink()
    assert run()[0] == 1


def test_an_interrupted_step_says_what_it_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who stops a training of an hour wants to know whether it was for nothing."""

    def stopped(say: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        told(False, stopped)
    assert "a training of the same records goes on from its last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("validated", "trained", "scored", "code"),
    [
        ("refused", "unchanged", "unchanged", 3),
        ("refused", "waiting", "waiting", 3),
        ("refused", "trained", "done", 4),
        ("partly done", "unchanged", "done", 4),
        ("done", "unchanged", "refused", 4),
    ],
)
def test_a_night_whose_only_delivery_is_refused_is_refused(
    validated: str, trained: str, scored: str, code: int
) -> None:
    """Partly done would mean that something was."""
    outcomes = {"validate": validated, "train": trained, "score": scored}
    with pytest.raises(typer.Exit) as ended:
        finish([Receipt(step, "orders", outcome) for step, outcome in outcomes.items()], as_json=True)
    assert ended.value.exit_code == code


def test_the_doctor_finds_nothing_amiss_with_a_dataset_that_waits_for_its_first_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a fresh clone the demo's own folder is not there yet, and nobody has to mend it."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    (tmp_path / "datasets").mkdir()
    text = Path("dags/datasets/payments.yaml").read_text(encoding="utf-8")
    (tmp_path / "datasets" / "payments.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    found = {x["what"]: x for x in examine()}["dataset payments"]
    assert found["ok"]
    assert found["found"].startswith("no delivery yet: ")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("{samples: 5}", "0 batches in "),
        ("{samples: 5, kl_weight: 2}", "pumps.yaml: train.recipe: samples above 1 .* leave no KL to weigh"),
        ("{steps: 10.5}", "pumps.yaml: train.recipe: steps must be a whole number .*, is 10.5"),
    ],
)
def test_the_doctor_says_which_recipe_no_night_could_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, said: str
) -> None:
    for name in ("datasets", "incoming"):
        (tmp_path / name).mkdir()
    columns = "{flow: {type: float, role: numeric}, speed: {type: float, role: numeric}}"
    (tmp_path / "datasets" / "pumps.yaml").write_text(
        f"dataset: pumps\nincoming: {{path: ../incoming}}\ncolumns: {columns}\ntrain: {{recipe: {recipe}}}\n"
        "flag: {review_budget: 5}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    found = {x["what"]: x for x in examine()}["dataset pumps"]
    assert found["ok"] == said.startswith("0 batches"), found["found"]
    assert re.search(said, " ".join(found["found"].split()))


@pytest.mark.parametrize(
    ("review", "variable", "said"),
    [
        (
            "{webhook: MY_HOOK}",
            "MY_HOOK",
            "the environment variable MY_HOOK holds no address",
        ),
        (
            "{email: ann@x.example}",
            "VAEWATCH_SMTP_URL",
            "no mail server is named: set VAEWATCH_SMTP_URL",
        ),
    ],
)
def test_the_doctor_says_which_messages_would_not_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, review: str, variable: str, said: str
) -> None:
    """Found by the first alarm, it would be found by nobody."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    (tmp_path / "datasets").mkdir()
    text = Path("dags/datasets/payments.yaml").read_text(encoding="utf-8")
    (tmp_path / "datasets" / "payments.yaml").write_text(f"{text}review: {review}\n", encoding="utf-8")
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    found = {x["what"]: x for x in examine()}["messages of payments"]
    assert not found["ok"]
    assert said in found["found"]
    monkeypatch.setenv(variable, "smtp://mail.example:25")
    assert {x["what"]: x for x in examine()}["messages of payments"]["ok"]


def test_the_doctor_looks_at_every_dataset_whatever_its_file_is_called_and_at_files_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may be called otherwise than its dataset, and one with faults has no dataset to be called by."""
    (tmp_path / "datasets").mkdir()
    text = Path("dags/datasets/payments.yaml").read_text(encoding="utf-8")
    (tmp_path / "datasets" / "cards.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "datasets" / "pumps.yml").write_text("dataset: pumps\n", encoding="utf-8")
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    found = [x for x in examine() if x["what"].startswith("dataset")]
    assert [(x["what"], x["ok"]) for x in found] == [("dataset payments", True), ("dataset file", False)]
    assert "pumps.yml" in found[1]["found"]


def test_init_leaves_a_dataset_file_and_no_scratch_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links to somebody's data in a folder that nobody looks into."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path / "var"))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path / "datasets"))
    (tmp_path / "orders").mkdir()
    pq.write_table(pa.table({"amount": [i / 7 for i in range(200)]}), tmp_path / "orders/2026-01-01.parquet")
    outcome = CliRunner().invoke(app, ["init", str(tmp_path / "orders")])
    assert outcome.exit_code == 0, outcome.output
    assert (tmp_path / "datasets" / "orders.yaml").exists()
    assert list((tmp_path / "var" / "work").iterdir()) == []
    settling = r"`vaewatch run orders` \(in \d+ s: 1 file may still be written until then\)"
    assert re.search(settling, outcome.stdout), outcome.stdout

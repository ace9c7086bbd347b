"""The verbs of review, as a shell calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.installation import Installation
from pipeline.review import judging, suppression

from .review_data import put, row


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a verb of review and reads its JSON; of one that fails, the error."""
    (tmp_path / "payments.yaml").write_text(
        "dataset: payments\nincoming: {path: in}\ncolumns: {amount: {type: float, role: numeric}}\n"
    )
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(tmp_path))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["review", *arguments, "--json"])
        return json.loads(done.stdout) if done.exit_code == 0 else done.exception

    return run


def test_a_rule_is_tried_kept_and_ended_from_a_shell(shell: Callable[..., Any]) -> None:
    """As on the page: what it would have hidden is said before it hides anything."""
    here = Installation()
    german = [row(f"k{i}", record={"country": "DE", "at": "night", "amount": i}) for i in range(3)]
    others = [row("day", record={"country": "DE", "at": "day"}), row("fr", record={"country": "FR"})]
    put(here.ledger, [*german, *others])
    judging.give(here.ledger, [german[0]["anomaly_id"]], "anomaly", by="ann")
    here.close()
    chosen = [
        "payments",
        "--like",
        german[1]["anomaly_id"][:8],
        "--where",
        "country=DE",
        "--where",
        "at=night",
    ]
    tried = shell("rules", "preview", *chosen)
    assert (tried["n_hidden"], tried["n_judged"], tried["n_confirmed"]) == (3, 1, 1)
    assert tried["examples"][0] == german[0]["anomaly_id"]
    assert shell("rules", "list") == []
    last = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    kept = shell("rules", "add", *chosen, "--until", last, "--note", "known", "--by", "bob")
    assert (kept["conditions"], kept["by"]) == ({"country": "DE", "at": "night"}, "bob")
    waiting = {one["record_key"] for one in shell("list")}
    assert waiting == {"day", "fr"}  # k0 was judged: no rule hides that
    assert shell("rules", "end", str(kept["number"]), "--by", "cem")["n_released"] == 2
    (ended,) = shell("rules", "list", "payments")
    assert ended["ended_by"] == "cem"
    assert len(shell("list")) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rules", "preview", "payments"], "hide everything"),
        (["rules", "preview", "payments", "--where", "country"], "COLUMN=VALUE"),
        (["rules", "preview", "payments", "--where", "a=1", "--where", "a=2"], "two values"),
        (["rules", "preview", "payments", "--like", "5"], "was not flagged"),
        (["rules", "preview", "nothing", "--signature", "a↑"], "no dataset"),
        (
            ["rules", "add", "payments", "--signature", "a↑", "--until", "2020-01-01", "--note", "x"],
            "last day",
        ),
        (["rules", "end", "7"], "no suppression rule 7"),
    ],
)
def test_a_rule_that_is_none_is_refused(shell: Callable[..., Any], arguments: list[str], said: str) -> None:
    """With what is wrong, before anything is written."""
    here = Installation()
    sampled = row("s", anomaly_id="5" * 16, kind="sampled", signature="", driver="", reasons=[])
    put(here.ledger, [sampled])
    assert said in str(shell(*arguments))
    assert suppression.rules(here.ledger) == []
    here.close()


def test_days_are_compared_as_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, 2026-1-5 lies after every day of the year; what is no day is refused."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path))
    here = Installation()
    put(here.ledger, [row("early", "2026-01-04"), row("late", "2026-01-30")])
    here.close()
    shell = CliRunner()
    for argument, expected in (("--since", ["late"]), ("--until", ["early"])):
        listed = shell.invoke(app, ["review", "list", "--json", argument, "2026-1-5"])
        assert [one["record_key"] for one in json.loads(listed.stdout)] == expected
    refused = shell.invoke(app, ["review", "list", "--since", "2026-99-99"])
    assert refused.exit_code == 2

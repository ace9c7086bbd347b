"""What a person reads before a model serves: all that is known, and no text that Markdown would interpret."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from pipeline.config.gates import Gates
from pipeline.evaluation import decide
from pipeline.evaluation.approval import evidence
from pipeline.registry import ModelVersion

from .evidence_data import evidence_of


def version(number: int, *aliases: str, metrics: dict[str, float] | None = None, **tags: str) -> ModelVersion:
    made = datetime(2026, 1, number, tzinfo=UTC)
    return ModelVersion("orders", number, f"run{number}", "", aliases, tags, made, metrics or {})


def judged(*, against: int | None = 1, **changed: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """An evaluation of version 2 as it is kept, and the tags that it leaves."""
    found = evidence_of(against=against, **changed)
    decision = decide(found, Gates())
    tags = {"decision": decision.outcome, "decision_reason": decision.sentence}
    return {"decision": decision.as_dict(), "evidence": found.as_dict()}, tags


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_evidence_puts_challenger_beside_champion_on_the_holdout() -> None:
    """What a person decides by: each gate with both values and what passes, records in dispute, what each is
    made of.
    """
    kept, tags = judged()
    precision = {"review_precision": 0.75, "review_precision_low": 0.6, "review_precision_high": 0.86}
    recall = {"review_recall_low": 0.004, "review_recall_high": 1.0, "review_sampled": 12.0}  # wide: no point
    review = json.dumps(precision | {"review_judged": 40.0} | recall)
    learned = {"n_training": 800, "n_calibrating": 200, "calibration_negative_elbo": 7.3}
    champion = version(1, "champion", metrics=learned, seed="7", contract_hash="c1", review=review)
    challenger = version(
        2, "challenger", metrics=learned, seed="8", contract_hash="c1", code_version="0.1.0+c6", **tags
    )
    lines = evidence(challenger, champion, kept).splitlines()
    told = {row[0]: row[1:] for line in lines if line.startswith("|") for row in [cells(line)]}
    assert lines[0] == "**Version 2** of orders, of 2026-01-02 00:00 UTC, beside version 1, which serves."
    assert lines[2].startswith(
        "The gates say **passed**: as good as version 1 by collapse, learned, recall, recall\\_floor"
    )
    assert told["Gate"][:4] == ["Level", "Outcome", "Version 2", "Version 1"]
    assert told["recall"] == [
        "required", "passed", "61.0%", "63.0%",
        "injected anomalies found, each version at its own threshold; up to 10 percentage points fewer pass",
    ]  # fmt: skip
    assert told["baselines"][3] == "IsolationForest: 50.0%"
    assert told["p\\_values"][0] == "advisory"
    assert "precision" not in told  # not judged: told with its reason
    assert any(line.startswith("- precision, required, not judged: ") for line in lines)
    assert told["shifted"] == ["70.0%", "72.0%"]
    assert told["Flagged by"] == ["Batch", "Record", "Odd in", "Version 2, above 20", "Version 1, above 22"]
    assert told["version 1"] == ["2026-01-30", "r\\_7", "fee", "12.5", "41"]
    assert told["contract"] == ["c1", "the same"]
    assert told["digest of the code"] == ["0.1.0+c6", "–"]  # "code" alone looks like a Git commit
    assert told["seed"] == ["8", "7"]
    assert told["train.recipe.steps"] == ["150", "1200"]
    assert told["verdicts say"] == [
        "–", "precision 0.75 (0.60 to 0.86; 40 judged); recall 0.00 to 1.00 (12 sampled: too few to say more)"
    ]  # fmt: skip
    assert lines[-1] == "To compare the two on the records of now: `vaewatch compare orders 2 1`"
    text = "\n".join(lines)
    assert "not the challenger" not in text
    assert "calibration" not in text  # numbers of its own days tell nothing beside another's


def test_a_first_version_and_one_that_was_overtaken_are_told_as_such() -> None:
    """Approving last week's challenger by mistake must take some doing."""
    text = evidence(version(3), None, None)
    assert "beside none: no version serves yet" in text
    assert "**not the challenger**: " in text
    assert "It was not judged here: `vaewatch evaluate orders --version 3` does that." in text
    assert "vaewatch compare" not in text  # with what?
    kept, tags = judged(against=None)
    alone = evidence(version(2, "challenger", **tags), None, kept)
    assert "good enough to be first" in alone
    assert "| Made of | Version 2 |\n|---|---|" in alone
    assert "only one of the two versions" not in alone


def test_what_speaks_against_a_version_comes_first() -> None:
    """Whoever approves a refused version does so knowingly."""
    lines = evidence(version(2, "challenger"), None, None, "version 2 was refused: recall 0.1").splitlines()
    assert (
        lines[2]
        == "**Against it**: version 2 was refused: recall 0.1. Approving overrides that, and needs a note that says why."
    )


def test_an_advisory_gate_that_failed_is_told_with_the_decision() -> None:
    """It refuses nobody: whoever approves is the one to weigh it."""
    kept, tags = judged(against=None, recall=0.002, above=0.001)
    text = evidence(version(2, "challenger", **tags), None, kept)
    assert "failed, but advisory: recall\\_floor" in text
    assert (
        "- recall\\_floor, advisory, failed: at its threshold it finds 0.2% of the injected anomalies" in text
    )


def test_what_was_in_the_data_stays_text() -> None:
    """A reason quotes values, and a value may be a link or a script."""
    hostile: Any = "a | b\n# [click](http://evil.example) <script>alert(1)</script>"
    kept, _ = judged(record_key=hostile)
    tags = {"decision": "refuse", "decision_reason": hostile, "window": hostile}
    text = evidence(version(2, "challenger", **tags), version(1, "champion"), kept)
    assert "\n# " not in text
    assert re.findall(r"(?<!\\)[\[\]<>]", text) == []
    assert text.count("| a \\| b \\# ") == 2
    broken = evidence(version(2, decision="promote"), None, None)
    assert "The gates say **passed**: no reason given." in broken


def test_what_was_decided_of_a_copy_is_told_as_decided_elsewhere() -> None:
    """The champion there was another one: its word is evidence here, not a decision."""
    tags = {
        "copied_from": "version 12 of vaewatch at https://mlflow.example", "copied_by": "release",
        "source.decision": "promote", "source.decision_reason": "recall 0.7", "source.promoted_by": "bob",
    }  # fmt: skip
    text = evidence(version(2, "challenger", **tags), version(1, "champion"), None)
    for line in (
        "It was copied from version 12 of vaewatch at https://mlflow.example by release.",
        "The gates there said **passed**: recall 0.7.",
        "It became champion there by bob: no reason given.",
        "It was not judged here",
    ):
        assert line in text

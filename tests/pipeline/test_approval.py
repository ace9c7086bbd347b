"""What a person reads before a model serves: all that is known, and nothing that Markdown could make of
it.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from pipeline.approval import evidence
from pipeline.registry import ModelVersion


def version(number: int, *aliases: str, metrics: dict[str, float] | None = None, **tags: str) -> ModelVersion:
    made = datetime(2026, 1, number, tzinfo=UTC)
    return ModelVersion("orders", number, f"run{number}", "", aliases, tags, made, metrics or {})


def test_the_evidence_puts_challenger_beside_champion() -> None:
    """One table to compare in; what only one of them has is shown as missing on the other side."""
    review = json.dumps({"review_precision": 0.75})
    champion = version(1, "champion", metrics={"threshold": 9.5}, seed="7", review=review)
    challenger = version(
        2, "challenger", metrics={"threshold": 8, "n_holdout": 1234567}, seed="8", decision="promote",
        decision_reason="recall 0.61 against 0.58", decision_notes=json.dumps(["churn 0.1", "lost: none"]),
    )  # fmt: skip
    lines = evidence(challenger, champion).splitlines()
    for line in (
        "**Version 2** of orders, of 2026-01-02 00:00 UTC, beside version 1, which serves.",
        "The gates say **promote**: recall 0.61 against 0.58.",
        "- churn 0.1",
        "| n holdout | 1.2346e+06 | – |",
        "| threshold | 8 | 9.5 |",
        "| seed | 8 | 7 |",
        "| MLflow run | run2 | run1 |",
        "| verdicts say |  | review precision 0.75 |",
        "Every gate, and records that the two disagree on: `vaewatch compare orders 2 1`",
    ):
        assert line in lines
    assert "not the challenger" not in "\n".join(lines)


def test_a_first_version_and_one_that_was_overtaken_are_told_as_such() -> None:
    """Approving last week's challenger by mistake must take some doing."""
    text = evidence(version(3), None)
    assert "beside none: no version serves yet" in text
    assert "**not the challenger**: " in text
    assert "It was not evaluated here" in text
    assert "champion, version" not in text
    assert "vaewatch compare" not in text  # with what?


def test_what_speaks_against_a_version_comes_first() -> None:
    """Whoever approves a refused version does so knowingly."""
    lines = evidence(version(2, "challenger"), None, "version 2 was refused: recall 0.1").splitlines()
    assert lines[2] == "**Against it**: version 2 was refused: recall 0.1. Approving overrides that."


def test_what_was_in_the_data_stays_text() -> None:
    """A reason quotes values, and a value may be a link or a script."""
    hostile: Any = "a | b\n# [click](http://evil.example) <script>alert(1)</script>"
    text = evidence(
        version(2, "challenger", decision="refuse", decision_reason=hostile, window=hostile), None
    )
    assert "\n# " not in text
    assert re.findall(r"(?<!\\)[\[\]<>]", text) == []
    assert "| a \\| b \\# " in text
    broken = evidence(version(2, decision="promote", decision_notes="{broken"), None)
    assert "The gates say **promote**: no reason given." in broken


def test_what_was_decided_of_a_copy_is_told_as_decided_elsewhere() -> None:
    """The champion there was another one: its word is evidence here, not a decision."""
    tags = {
        "copied_from": "version 12 of vaewatch at https://mlflow.example", "copied_by": "release",
        "source.decision": "promote", "source.decision_reason": "recall 0.7", "source.promoted_by": "bob",
    }  # fmt: skip
    text = evidence(version(2, "challenger", **tags), version(1, "champion"))
    for line in (
        "It was copied from version 12 of vaewatch at https://mlflow.example by release.",
        "The gates there said **promote**: recall 0.7.",
        "It became champion there by bob: no reason given.",
        "It was not evaluated here",
    ):
        assert line in text

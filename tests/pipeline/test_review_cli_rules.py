"""Suppression rules from a shell: tried, saved, ended, and what they say they do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.settings import Settings
from pipeline.errors import ConfigError
from pipeline.installation import Installation
from pipeline.review import (
    effects,
    judging,
    rule_words,
    suppression,
)
from pipeline.review.filling import plain
from pipeline.storage.ledger import Ledger

from .review_data import put, row


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
    assert (ended["ended_by"], ended["ended_at"][:10]) == ("cem", datetime.now(UTC).date().isoformat())
    assert len(shell("list")) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rules", "preview", "payments"], "hide everything"),
        (["rules", "preview", "payments", "--where", "country"], "COLUMN=VALUE"),
        (["rules", "preview", "payments", "--where", "a=1", "--where", "a=2"], "two values"),
        (["rules", "preview", "payments", "--where", "contry=FR"], "did you mean country?"),
        (
            ["rules", "preview", "payments", "--where", "amount=abc"],
            "amount is of type float, and 'abc' is not",
        ),
        (["rules", "preview", "payments", "--signature", "nonsense↑"], "no column 'nonsense'"),
        (["rules", "preview", "payments", "--signature", "country≠ amount"], "no direction"),
        (["rules", "preview", "payments", "--signature", "country≠ amount↑"], "'amount↑ country≠'"),
        (["rules", "preview", "payments", "--like", "5"], "was not flagged"),
        (["rules", "preview", "nothing", "--signature", "a↑"], "no dataset"),
        (
            ["rules", "add", "payments", "--signature", "amount↑", "--until", "2020-01-01", "--note", "x"],
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


def test_a_rule_that_hides_nothing_is_saved_and_says_so(shell: Callable[..., Any], tmp_path: Path) -> None:
    """It may be about what is to come."""
    here = Installation()
    put(here.ledger, [row("k")])
    here.close()
    last = (datetime.now(UTC).date() + timedelta(days=9)).isoformat()
    rule = ["payments", "--where", "country=FR", "--until", last, "--note", "the sale in France"]
    said = CliRunner().invoke(app, ["review", "rules", "add", *rule])
    assert said.exit_code == 0
    assert "would have hidden no record" in said.stdout
    assert [kept["conditions"] for kept in shell("rules", "list")] == [{"country": "FR"}]


@pytest.mark.parametrize(
    ("type_", "held", "typed"),
    [
        ("float", 12.0, "12"),
        ("float", math.nan, "NaN"),
        ("int", 12, " 12"),
        ("bool", True, "true"),
        ("decimal(9,2)", Decimal("12.50"), "12.5"),
        ("date", date(2026, 1, 5), "2026-01-05"),
        ("timestamp", datetime(2026, 1, 5), "2026-01-05"),  # noqa: DTZ001  # the column has no zone
        ("timestamp_utc", datetime(2026, 1, 5, 12, tzinfo=UTC), "2026-01-05T13:00+01:00"),
        ("string", "12", "12"),
        ("float", None, "missing"),
    ],
)
def test_a_value_is_compared_as_records_hold_it(tmp_path: Path, type_: str, held: Any, typed: str) -> None:
    """However a person writes it; what is none of the type is refused."""
    (tmp_path / "payments.yaml").write_text(
        f"dataset: payments\nincoming: {{path: in}}\ncolumns:\n  it: {{type: '{type_}'}}\n"
        "  amount: {type: float, role: numeric}\n"
    )
    here = Installation(Settings(home=tmp_path, datasets=tmp_path))
    put(here.ledger, [row("k", record=plain({"it": held}))])
    draft = suppression.Rule("payments", "", {"it": typed}, "", "", "")
    assert effects.preview(here.ledger, rule_words.fitted(here, draft)).n_hidden == 1
    if type_ != "string":
        with pytest.raises(ConfigError, match="'tomorrow' is not"):
            rule_words.fitted(here, replace(draft, conditions={"it": "tomorrow"}))
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


def test_each_rule_says_what_it_hides_and_what_was_confirmed_of_its_like(shell: Callable[..., Any]) -> None:
    """One that hides much is looked at again; one whose like were anomalies hides some."""
    here = Installation()
    french = [row(f"f{i}", record={"country": "FR"}) for i in range(3)]
    danish = [row(f"d{i}", record={"country": "DK"}, signature="fee↓") for i in range(2)]
    put(here.ledger, [*french, *danish, row("other", dataset="payments", record={"country": "DE"})])
    put(here.ledger, [row("elsewhere", dataset="orders", record={"country": "FR"}, driver="amount")])
    for one, opinion in ((french[0], "anomaly"), (french[1], "normal"), (danish[0], "data_error")):
        judging.give(here.ledger, [one["anomaly_id"]], opinion, by="ann")
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    for arguments in (["--where", "country=FR"], ["--signature", "fee↓"], ["--where", "country=NL"]):
        shell("rules", "add", "payments", *arguments, "--until", last, "--note", "known")
    shell("rules", "end", "3")

    def told() -> dict[int, tuple[int, int]]:
        return {rule["number"]: (rule["n_hidden"], rule["n_confirmed"]) for rule in shell("rules", "list")}

    assert told() == {1: (1, 1), 2: (1, 1), 3: (0, 0)}
    judging.give(
        here.ledger, [french[2]["anomaly_id"]], "anomaly", by="ann"
    )  # found by its id: hidden no longer
    assert told() == {1: (0, 2), 2: (1, 1), 3: (0, 0)}
    shell("rules", "end", "2")
    assert told() == {1: (0, 2), 2: (0, 0), 3: (0, 0)}


def test_hidden_records_are_counted_without_reading_the_others(ledger: Ledger) -> None:
    """Of a million records the hidden ones are few."""
    said: list[str] = []
    with ledger.transaction() as connection:
        engine = connection.engine
    sa.event.listen(engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    effects.effects(ledger, [])
    (query,) = (one for one in said if "suppressed !=" in one)
    with ledger.transaction() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert [line[3] for line in plan] == ["SCAN queue USING COVERING INDEX ix_queue_hidden"]

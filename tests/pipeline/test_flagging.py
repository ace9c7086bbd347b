"""The rules by which model versions flag: each written down once, as it takes effect, and never changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError
from pipeline.installation import Installation
from pipeline.results import flagging
from pipeline.storage.ledger import Ledger
from pipeline.storage.ledger_schema import flag_rules

from .review_data import put, row


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"review_budget": 20}, {"review_budget": 12.5}, "review_budget 12.5 instead of review_budget 20: above 9 nats, 7 before"),
        ({"error_rate": 0.001}, {"review_budget": 5}, "review_budget 5 instead of error_rate 0.001: above 9 nats, 7 before"),
        ({"review_budget": 5}, {"review_budget": 5, "cap": 9}, "review_budget 5, cap 9 instead of review_budget 5: above 9 nats, 7 before"),
        ({"review_budget": 5}, {"false_discovery_rate": 0.1}, "false_discovery_rate 0.1 instead of review_budget 5: each batch has its own threshold, 7 before"),
    ],
    ids=["budget", "rate", "cap", "false-discovery rate"],
)  # fmt: skip
def test_a_change_of_any_rule_is_written_down_once(
    store: Ledger, make_dataset: Callable[..., Dataset], old: dict[str, Any], new: dict[str, Any], words: str
) -> None:
    """Whoever scores says it before each group of batches: a step that is killed and done again, too."""
    for flag, threshold in ((old, 7.0), (old, 7.0), (new, 9.0), (new, 9.0)):
        flagging.write_down(store, make_dataset(flag=flag), 3, threshold)
    newest, first = flagging.rules(store, "payments")
    assert (first.before, first.is_change, newest.is_change) == (None, False, True)
    assert (newest.words, newest.by) == (words, flagging.THE_FILE)
    assert flagging.changes(store, "payments") == [newest]
    assert flagging.rules(store, "claims") == []


def test_each_version_has_rules_of_its_own(store: Ledger, make_dataset: Callable[..., Dataset]) -> None:
    """Another version by the same rule is no change; one that comes back after the rule changed is."""
    old, new = make_dataset(flag={"review_budget": 20}), make_dataset(flag={"review_budget": 2})
    for dataset, version, threshold in ((old, 1, 7.0), (old, 2, 6.0), (new, 2, 8.0), (new, 1, 9.0)):
        flagging.write_down(store, dataset, version, threshold)
    assert [(one.model_version, one.threshold, one.threshold_before) for one in flagging.changes(store, "payments")] == [
        (1, 9.0, 7.0),
        (2, 8.0, 6.0),
    ]  # fmt: skip
    assert [one.rule for one in flagging.rules(store, "payments", 1)] == [
        "review_budget 2",
        "review_budget 20",
    ]


def test_a_reason_may_be_given_while_the_rule_holds(
    store: Ledger, make_dataset: Callable[..., Dataset]
) -> None:
    """The one who knows why may come after the one who scored; two may say it, each once."""
    dataset = make_dataset(flag={"review_budget": 20})
    flagging.write_down(store, dataset, 1, 7.0)
    for by, why in (("ann", "as agreed"), ("ann", "as agreed"), ("bob", "too many"), ("", "")):
        flagging.write_down(store, dataset, 1, 7.0, by=by, reason=why)
    assert [(one.by, one.reason) for one in flagging.changes(store, "payments")] == [
        ("bob", "too many"),
        ("ann", "as agreed"),
    ]
    (told, _) = flagging.in_words(flagging.changes(store, "payments"))
    assert told.endswith("UTC, version 1, bob: review_budget 20: above 7 nats; too many")


def test_a_reason_that_is_sent_again_after_another_ones_is_not_written_again(
    store: Ledger, make_dataset: Callable[..., Dataset]
) -> None:
    """Its answer was lost, and somebody else spoke meanwhile; after a change of the rule it is new."""
    this, other = make_dataset(flag={"review_budget": 20}), make_dataset(flag={"review_budget": 2})
    said = [
        (this, "ann", "x"),
        (this, "bob", "y"),
        (this, "ann", "x"),
        (other, "cid", "z"),
        (this, "ann", "x"),
    ]
    for dataset, by, why in said:
        flagging.write_down(store, dataset, 1, 7.0, by=by, reason=why)
    told = [(one.by, one.reason) for one in reversed(flagging.rules(store, "payments"))]
    assert told == [("ann", "x"), ("bob", "y"), ("cid", "z"), ("ann", "x")]


def test_two_rules_that_differ_in_a_late_digit_are_two(
    store: Ledger, make_dataset: Callable[..., Dataset]
) -> None:
    """Six digits made one rule of both, and the change was never told."""
    for budget, words in (
        (1234567.0, "1234567"),
        (1234567.5, "1234567.5"),
        (0.1234567, "0.1234567"),
        (20, "20"),
    ):
        dataset = make_dataset(flag={"review_budget": budget})
        assert flagging.rule_of(dataset) == f"review_budget {words}"
        assert flagging.write_down(store, dataset, 1, 7.0) is not None


@pytest.mark.parametrize("change", [sa.update(flag_rules).values(by="x"), sa.delete(flag_rules)])
def test_the_database_itself_keeps_what_was_written(
    store: Ledger, make_dataset: Callable[..., Dataset], change: Any
) -> None:
    """Append-only, whatever program writes."""
    flagging.write_down(store, make_dataset(), 1, 7.0)
    with pytest.raises(Exception, match="append-only"), store.transaction(write=True) as connection:
        connection.execute(change)


def test_the_overview_and_a_shell_tell_what_changed(
    here: Installation,
    browser: TestClient,
    make_dataset: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside the suggestion, where somebody would change it again."""
    put(here.ledger, [row("k")])
    flagging.write_down(here.ledger, make_dataset(flag={"review_budget": 30}), 3, 7.0)
    assert "Changes of the rule" not in browser.get("/overview").text
    flagging.write_down(here.ledger, make_dataset(), 3, 9.0, by="<ann>", reason="half of it was noise")
    told = "review_budget 20 instead of review_budget 30: above 9 nats, 7 before; half of it was noise"
    page = browser.get("/overview").text
    assert "&lt;ann&gt;" in page
    assert told in page
    monkeypatch.setenv("VAEWATCH_HOME", str(here.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(here.settings.datasets))
    for arguments, n_told in ((["review", "stats"], 1), (["review", "budget", "payments"], 2)):
        done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.exception
        lines = " ".join(done.stdout.split())
        assert told in lines
        assert lines.count("UTC, version 3") == n_told


@pytest.mark.parametrize("reason", [" ", "x" * 4001], ids=["none", "too long"])
def test_a_reason_is_a_reason(here: Installation, reason: str) -> None:
    """Nothing is written without one."""
    with pytest.raises(ConfigError, match="a reason of 1 to 4000 characters"):
        flagging.give_reason(here, here.dataset("payments"), by="ann", reason=reason)
    assert flagging.rules(here.ledger, "payments") == []


def test_a_name_that_the_database_has_no_room_for_is_refused(here: Installation) -> None:
    """SQLite would take it."""
    with pytest.raises(ConfigError, match="payments: the name has 251 characters, 250 at most"):
        flagging.give_reason(here, here.dataset("payments"), by="x" * 251, reason="why")

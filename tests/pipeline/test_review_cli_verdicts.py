"""Verdicts from a shell: on one record, on several, on a group, and taken back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.review import (
    claims,
    queue,
)
from pipeline.review.filters import Filters
from pipeline.storage.ledger import Ledger

from .review_data import DATASET, put, row


def test_several_records_are_labelled_at_once_and_taken_back_at_once(shell: Callable[..., Any]) -> None:
    """One act, as where records are ticked on the page: one line undoes it."""
    here = Installation()
    rows = [row(f"k{i}") for i in range(4)]
    put(here.ledger, rows)
    names = [one["anomaly_id"] for one in rows]
    assert shell("label", names[0], "normal", "--by", "ann")["anomaly_ids"] == [names[0]]
    said = shell("label", *(name[:12] for name in names[:3]), "normal", "--by", "ann")
    assert sorted(said["anomaly_ids"]) == sorted(names[1:3])  # the first stood so already
    assert said["states"] == dict.fromkeys(names[:3], "normal")
    with_one_unknown = shell("label", names[3], "unheard", "normal", "--by", "ann")
    assert "begins with 'unheard'" in str(with_one_unknown)
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 1, "normal": 3}
    assert sorted(shell("undo", "--by", "ann")["anomaly_ids"]) == sorted(names[1:3])
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 3, "normal": 1}


def test_what_a_record_was_before_is_said_and_what_it_is_after_an_undo(shell: Callable[..., Any]) -> None:
    """Who overrules an earlier verdict, or takes that back, sees which one."""
    put(Installation().ledger, rows := [row(f"k{i}") for i in range(3)])
    names = [one["anomaly_id"] for one in rows]
    shell("label", names[0], "anomaly", "--by", "ann")
    shell("label", names[1], "expected_change", "--by", "ann")

    def printed(*arguments: str) -> str:
        return CliRunner().invoke(app, ["review", *arguments, "--by", "ann"]).stdout.splitlines()[0]

    assert printed("label", names[0], "normal") == f"{names[0]}: normal, says ann; before: anomaly"
    assert printed("undo") == f"withdrawn: 1 verdict of ann ({names[0]}); now: anomaly"
    several = printed("label", *names, "unsure")
    assert several.endswith("; before: 1 anomaly, 1 expected change, 1 open")
    assert printed("undo").endswith("; now: 1 anomaly, 1 expected change, 1 open")
    assert printed("label", names[2], "normal") == f"{names[2]}: normal, says ann"  # nothing was said before
    with_a_note = printed("label", names[2], "normal", "--note", "seen")
    assert with_a_note == f"{names[2]}: normal, says ann"


def test_the_verdict_that_holds_is_the_last_line_of_a_record(shell: Callable[..., Any]) -> None:
    """Of three lines of history, nobody has to work out which one counts."""
    put(Installation().ledger, [given := row("k")])
    one = given["anomaly_id"]

    def last() -> str:
        text = CliRunner().invoke(app, ["review", "show", one]).stdout.replace("\n", " ")
        return text[text.rindex("UTC ") if "UTC " in text else 0 :]

    assert "open: no verdict holds" in last()
    shell("label", one, "anomaly", "--by", "ann")
    shell("label", one, "expected_change", "--by", "ann")
    assert "what holds: expected_change (ann)" in last()
    shell("label", one, "normal", "--by", "bob")
    assert "reviewers differ (ann, bob): no verdict counts until they agree" in last()
    shell("label", one, "normal", "--by", "bob", "--settle")
    assert "what holds: normal (bob)" in last()
    shell("undo", "--by", "bob")
    assert "reviewers differ (ann, bob)" in last()


def test_a_group_is_labelled_by_its_name_or_by_a_record_of_it(shell: Callable[..., Any]) -> None:
    """As on the page of groups: every open record of it, and how many are said; of another number nothing is
    written.
    """
    here = Installation()
    alike, other = [row(f"k{i}") for i in range(3)], row("other", signature="fee↓")
    old = row("old", "2026-01-02", signature="amount↑")
    put(here.ledger, [*alike, other, old, row("of no column", signature="·")])
    assert [(one["signature"], one["n"]) for one in shell("groups", "payments")][:1] == [("amount↑", 4)]
    for wrong, refused in {
        ("anomaly", "--group", "amount↓"): "no open record is odd in 'amount↓'",
        ("anomaly", "--group", "amount↑", "--expect", "3"): "4 open records now, not 3",
        ("anomaly", "--group", "amount↑", "--settle"): "--settle",
        ("anomaly", "--group", "amount↑", "--like", other["anomaly_id"]): "in one way",
        (other["anomaly_id"], "anomaly", "--group", "amount↑"): "in one way",
        (other["anomaly_id"], "anomaly", "--since", "2026-01-20"): "go with a group",
        ("anomaly",): "say which records",
    }.items():
        assert refused in str(shell("label", *wrong))
    assert queue.counts(here.ledger, Filters())["state"] == {"open": 6}
    said = shell(
        "label", "--like", alike[1]["anomaly_id"][:10], "anomaly", "--since", "2026-01-20", "--expect", "3"
    )
    assert sorted(said["anomaly_ids"]) == sorted(one["anomaly_id"] for one in alike)
    shell("undo")
    done = CliRunner().invoke(app, ["review", "label", "--group", "amount↑", "data_error", "--by", "ann"])
    assert "4 records of payments, odd in amount↑: data_error, says ann" in done.stdout
    act = re.search(r"vaewatch review undo (\w+)", done.stdout)
    assert act
    assert len(shell("undo", act[1], "--by", "ann")["anomaly_ids"]) == 4
    assert len(shell("label", "--group", "no single column", "normal")["anomaly_ids"]) == 1


def test_a_group_that_several_datasets_have_is_asked_about(shell: Callable[..., Any], tmp_path: Path) -> None:
    """Columns of one name are common: a verdict must not land in another dataset."""
    (tmp_path / "orders.yaml").write_text(DATASET.replace("payments", "orders"))
    here = Installation()
    put(here.ledger, [row("a"), row("b", dataset="orders"), row("c", dataset="orders")])
    refused = str(shell("label", "--group", "amount↑", "normal"))
    assert "orders (2 open), payments (1 open)" in refused
    assert "--dataset" in refused
    assert len(shell("label", "--group", "amount↑", "--dataset", "orders", "normal")["anomaly_ids"]) == 2
    assert queue.counts(here.ledger, Filters())["dataset"] == {"orders": 2, "payments": 1}


def test_a_shell_is_told_who_is_at_a_record_and_may_say_it_anyway(shell: Callable[..., Any]) -> None:
    """Refused where it is all; of several it is left out and named."""
    ledger = Ledger(Settings().ledger)
    ids = [row(key)["anomaly_id"] for key in ("k0", "k1")]
    put(ledger, [row("k0"), row("k1")])
    claims.claim(ledger, ids[0], by="bob")
    refused = str(shell("label", ids[0], "normal", "--by", "ann"))
    assert "bob is at record 'k0' until" in refused
    assert "wait, or give the verdict anyway (--anyway)" in refused
    told = CliRunner().invoke(app, ["review", "label", *ids, "normal", "--by", "ann"]).stdout
    assert f"left out, because somebody else is at them: 1 ({ids[0]}); --anyway includes them" in told
    assert queue.states(ledger, ids) == {ids[0]: "open", ids[1]: "normal"}
    assert "bob is at it" in CliRunner().invoke(app, ["review", "list"], env={"COLUMNS": "200"}).stdout
    assert shell("label", ids[0], "normal", "--by", "ann", "--anyway")["anomaly_ids"] == ids[:1]
    ledger.close()

"""Lists of the queue, and one record whole, as a shell shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline import display
from pipeline.cli import app
from pipeline.config.settings import Settings
from pipeline.display import beside
from pipeline.display.review import print_queue
from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.review import (
    compare,
    judging,
    record,
    suppression,
    versions,
)
from pipeline.review.queued import ODDNESSES, Reason

from .review_data import DATASET, WHOLE, put, reason, row, score


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (["--severity", "6"], ["severe"]),
        (["--model-version", "2"], ["earlier"]),
        (["--reviewer", "ann", "--state", "any"], ["judged"]),
        (["--hidden"], ["french"]),
        ([], ["severe", "plain", "earlier"]),
    ],
)
def test_a_shell_has_the_filters_of_the_page(
    shell: Callable[..., Any], arguments: list[str], keys: list[str]
) -> None:
    """By severity, by model version, by who judged, and what rules hide."""
    here = Installation()
    judged, french = row("judged", severity=3.0), row("french", record={"country": "FR"})
    put(here.ledger, [row("severe", severity=7.0), row("plain"), judged, french])
    put(here.ledger, [row("earlier", "2026-01-29", model_version=2)])
    judging.give(here.ledger, [judged["anomaly_id"]], "normal", by="ann")
    last = (datetime.now(UTC).date() + timedelta(days=5)).isoformat()
    suppression.save(here.ledger, suppression.Rule("payments", "", {"country": "FR"}, last, "known", "ann"))
    here.close()
    assert [one["record_key"] for one in shell("list", *arguments)] == keys


def test_a_shell_lists_by_how_records_are_odd(shell: Callable[..., Any]) -> None:
    """By each name that the queue has, and by no other."""
    put(Installation(Settings()).ledger, [row(f"{how}", oddness=how) for how in ODDNESSES])
    for how in ODDNESSES:
        assert [one["record_key"] for one in shell("list", "--oddness", how)] == [how]
    assert len(shell("list", "--oddness", "any")) == len(ODDNESSES)
    text = CliRunner().invoke(app, ["review", "list", "--oddness", "missing"]).stdout
    assert "1 flagged record without a verdict" in text
    assert CliRunner().invoke(app, ["review", "list", "--oddness", "odd"]).exit_code == 2


def test_the_shares_of_reasons_are_explained_once_below_the_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two are behind "(expected DE, 93% likely, 16%)"."""
    odd = replace(WHOLE, reasons=(Reason("country", "FR", "DE (93%)", None, None, 0.16),))
    print_queue([odd, odd], "open", None, has_more=False)
    assert capsys.readouterr().out.count("the last share in brackets: how much of what makes") == 1
    print_queue([replace(WHOLE, kind="sampled")], "open", None, has_more=False)
    assert "the last share" not in capsys.readouterr().out


@pytest.mark.parametrize(("share", "shown"), [(0.004, False), (0.2, True), (None, False)])
def test_what_no_single_column_explains_is_shown_where_it_is_something(
    share: float | None, shown: bool, shell: Callable[..., Any]
) -> None:
    """A line that says 0 % of nothing is a riddle."""
    given = row("r1", kl_share=share)
    put(Installation(Settings()).ledger, [given])
    text = CliRunner().invoke(app, ["review", "show", given["anomaly_id"]]).stdout
    assert ("of no single column" in text) is shown


def test_observed_expected_and_what_would_clear_a_flag_mark_thousands_alike(
    shell: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A 7262 beside 1,208 is read twice. A code stays the name that it is."""
    quantity = reason("ms", 0.6, observed="7262", expected="1706", low=203.0, high=1208.4)
    code = reason("code", 0.4, observed="5411", expected="5912 (93%)", low=None, high=None)
    given = row("r1", reasons=[quantity, code], record={"ms": 7262, "code": 5411})
    put(Installation(Settings()).ledger, [given])
    text = CliRunner().invoke(app, ["review", "show", given["anomaly_id"]]).stdout
    lines = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
    assert lines["ms"][:5] == ["7,262", "1,706", "203", "…", "1,208.4"]
    assert lines["code"][:4] == ["5411", "5912,", "93%", "likely"]
    changes = (compare.Change("ms", "7262", "3369.5"), compare.Change("code", "5411", "5912"))
    found = compare.Clearing((*changes, compare.Change("fee", "710.338523123427", "1")), 1234.5, "")
    whole = record.one(Installation(Settings()).ledger, given["anomaly_id"])
    beside.print_clearing(whole, found, quantities={"fee"})  # which no reason names
    said = " ".join(capsys.readouterr().out.split())
    assert "had ms been 3,369.5 instead of 7,262 and code been 5912 instead of 5411" in said
    assert "and fee been 1 instead of 710.339 (anomaly_score 1,234.50" in said


def test_every_table_of_one_record_marks_thousands(
    shell: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own values, those of records like it and around it, thresholds; codes stay names."""
    columns = "\n  ms: {type: int, role: numeric}\n  code: {type: int, role: categorical}\n"
    (tmp_path / "payments.yaml").write_text(DATASET.rstrip() + columns)
    ledger = Installation().ledger
    put(ledger, [given := row("r1", record={"ms": 98521, "code": 5411, "amount": 2090.77, "fee": "1234.50"})])
    text = CliRunner().invoke(app, ["review", "show", given["anomaly_id"]]).stdout
    lines = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
    assert [lines[name][0] for name in ("ms", "code", "amount")] == ["98,521", "5411", "2,090.77"]
    found, other = record.one(ledger, given["anomaly_id"]), {"ms": 1000, "code": 5912, "amount": 1e4}
    rows = [
        record.Neighbour("b", 0, "r0", other, False, None),
        record.Neighbour("b", 1, "r1", found.record, True, None),
    ]
    looked = {
        "nearest": [compare.Near("b", 0, "r0", other, 0.1, ("ms", "code", "amount"))],
        "neighbours": record.Neighbours("", tuple(rows), ("ms", "code", "amount")),
        "scored_by": [versions.Scored(3, (), datetime(2026, 1, 1, tzinfo=UTC), 2345.6, 3.5, 1234.5, True)],
    }
    beside.print_beside(found, looked, Installation().dataset("payments").quantities)
    said = " ".join(capsys.readouterr().out.split())
    assert "ms 1,000 (98,521); code 5912 (5411); amount 10,000 (2,090.77)" in said
    assert "r0 1,000 5912 10,000" in said
    assert "2,345.60 1,234.50 flagged" in said
    assert shell("show", given["anomaly_id"])["record"]["ms"] == 98521, "machines read numbers"


def test_what_a_column_explains_and_what_it_adds_stand_beside_each_other(shell: Callable[..., Any]) -> None:
    """Two numbers of one column, each with its name and what it means; what is added adds up to the score."""
    reasons = [reason("amount", 0.9), reason("since_last", 0.05, observed="7", expected="900")]
    given = row(
        "r1", kl_share=0.0, reasons=reasons, anomaly_score=81.5, kl_divergence=4.0, kl_weight=0.5, record={"amount": 900.0, "country": "DE"},
        terms=[{"column": "country", "nats": 50.25}, {"column": "amount", "nats": 30.0}],
    )  # fmt: skip
    put(Installation(Settings()).ledger, [given])
    text = CliRunner().invoke(app, ["review", "show", given["anomaly_id"]]).stdout
    lines = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
    assert lines["amount"] == ["900", "12.5", "10", "…", "15", "90%", "30.00"]
    assert lines["since_last"] == ["7", "900", "10", "…", "15", "5%"]  # derived: not in the record
    assert lines["country"] == ["DE", "50.25"]
    assert lines["(KL"] == ["divergence,", "4.00", "×", "0.5)", "2.00"]
    assert lines["(other"] == ["columns)", "5%", "-0.75"]
    assert lines["anomaly_score"] == ["81.50"]
    assert "explains: how much of what makes the record odd would go if" in text
    assert "adds: nats that its own value adds to the score" in text


def test_names_are_whole_where_the_terminal_is_wide_and_cut_where_it_is_not(
    shell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of which the end is missing may be another's."""
    name = "the_column_" + "q" * 90 + "_end"
    given = row(
        "key_" + "j" * 90 + "_end", reasons=[reason(name)], record={name: "value_" + "z" * 90 + "_end"}
    )
    put(Installation(Settings()).ledger, [given])

    def printed(*arguments: str) -> str:
        return re.sub(r"\s", "", CliRunner().invoke(app, ["review", *arguments]).stdout)

    wide = printed("show", given["anomaly_id"])
    assert "z" * 10 in wide
    assert len(re.findall("[qjz]", printed("list"))) == 180
    assert len(re.findall("[qjz]", wide)) == 270
    narrow = Console(width=80, highlight=False)
    for module in (display, display.review):
        monkeypatch.setattr(module, "console", lambda **_: narrow)
    with narrow.capture() as captured:
        CliRunner().invoke(app, ["review", "list"])
    assert "…" in captured.get()
    assert len(re.findall("j", captured.get())) < 28


@pytest.mark.parametrize("width", [60, 80, 119, 120, 200])
def test_ids_and_names_of_columns_are_whole_in_any_terminal(
    width: int, shell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are copied into the next command."""
    name = "authorisation_milliseconds"
    given = row("k", reasons=[reason(name), reason("merchant_category_code", 0.2)], signature=f"{name}↑")
    put(Installation(Settings()).ledger, [given])
    terminal = Console(width=width, highlight=False)
    monkeypatch.setattr(display.review, "console", lambda: terminal)
    for verb in ("list", "groups"):
        with terminal.capture() as captured:
            assert CliRunner().invoke(app, ["review", verb]).exit_code == 0
        text = captured.get()
        assert given["anomaly_id"] in text
        assert name in text
        assert ("merchant_category_code" in text) is (verb == "list")
        assert max(map(len, text.splitlines())) <= width


def test_the_random_sample_is_listed_only_where_it_is_asked_for(shell: Callable[..., Any]) -> None:
    """Nothing is odd about it: among what to look at it would be in the way. How much there is, is said."""
    sampled = row("drawn", anomaly_id="5" * 16, kind="sampled", signature="", driver="", reasons=[])
    put(Installation(Settings()).ledger, [sampled])
    text = CliRunner().invoke(app, ["review", "list"]).stdout
    assert "no record in the queue matches" in text
    assert "1 drawn at random" in text
    put(Installation(Settings()).ledger, [row("odd"), sampled])
    listed = {
        kind: {one["record_key"] for one in shell("list", *kind)}
        for kind in ((), ("--kind", "sampled"), ("--kind", "any"))
    }
    assert list(listed.values()) == [{"odd"}, {"drawn"}, {"odd", "drawn"}]
    text = CliRunner().invoke(app, ["review", "list"]).stdout
    assert "1 flagged record without a verdict; beside them 1 drawn at random" in text


def test_scores_in_a_list_have_as_many_digits_each(shell: Callable[..., Any]) -> None:
    """They are compared down the column."""
    put(
        Installation(Settings()).ledger,
        [row(f"r{i}", anomaly_score=score) for i, score in enumerate((7195.4421, 83.056, 30.8))],
    )
    text = CliRunner().invoke(app, ["review", "list"]).stdout
    scores = re.findall(r"\S+ +2026-01-30 +r\d +3\.5 (.{14})", text)
    assert sorted(scores) == ["         30.80", "         83.06", "      7,195.44"]


def test_what_is_not_known_is_answered_with_what_is(shell: Callable[..., Any]) -> None:
    """In words of ours, and with a name to go on from."""
    here = Installation()
    put(here.ledger, rows := [row(f"k{i}") for i in range(2)])
    one = rows[0]["anomaly_id"]
    misspelled = CliRunner().invoke(app, ["review", "label", one, "expected change"])
    assert misspelled.exit_code == 2
    assert "'expected change' is not one of 'anomaly'" in misspelled.output
    assert "Value error" not in misspelled.output
    assert "ids look like " in str(shell("show", "zzz"))
    every = str(shell("show", ""))
    assert all(one["anomaly_id"] in every for one in rows)
    assert "did you mean 'payments'?" in str(shell("list", "paymnets"))
    act = shell("label", one, "normal", "--by", "ann")["act"]
    undone = [CliRunner().invoke(app, ["review", "undo", act, "--by", "ann"]).stdout for _ in range(2)]
    assert undone[0].startswith(f"withdrawn: 1 verdict of ann ({one}); now: open\n")
    assert undone[1].startswith("nothing changed: those verdicts were already taken back")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("list", "payments", "--driver", "amuont"),
            "no column 'amuont' of payments: did you mean 'amount'?",
        ),
        (("list", "payments", "--driver", "zz"), "no column 'zz' of payments: there are amount, at, country"),
        (("list", "--driver", "zz"), "no column 'zz': there are amount, at, country"),
        (("list", "--batch", "2026-01-3"), "no batch '2026-01-3': did you mean '2026-01-31'?"),
        (("undo", "999", "--by", "ann"), "there is no act '999'; acts are named where a verdict is given"),
    ],
)
def test_a_name_that_is_none_is_answered_with_those_there_are(
    shell: Callable[..., Any], arguments: tuple[str, ...], said: str
) -> None:
    """An empty list of a column that is none looks as if all was well."""
    here = Installation()
    score(here, [row("k", "2026-01-31")])
    refused = shell(*arguments)
    assert isinstance(refused, ConfigError | NotReady)
    assert said in str(refused)


@pytest.mark.usefixtures("shell")
def test_no_file_is_written_of_a_batch_that_is_none(tmp_path: Path) -> None:
    """The same of an export."""
    out = tmp_path / "out.csv"
    refused = CliRunner().invoke(app, ["review", "export", "payments", str(out), "--batch", "nope"])
    assert "no batch 'nope' of payments: there is none" in str(refused.exception)
    assert not out.exists()


def test_columns_and_batches_of_before_are_listed_still(shell: Callable[..., Any]) -> None:
    """The queue keeps what it held when the dataset's file named them; a column that nothing is odd in is no
    mistake.
    """
    put(Installation().ledger, [row("k", driver="gone")])
    assert [one["driver"] for one in shell("list", "payments", "--driver", "gone")] == ["gone"]
    assert len(shell("list", "--batch", "2026-01-30")) == 1
    assert shell("list", "--driver", "country") == []


def test_where_a_choice_has_no_records_others_are_named(shell: Callable[..., Any]) -> None:
    """Who misspells a reviewer, or asks of a version that scored nothing, sees which there are."""
    ledger = Installation().ledger
    put(ledger, rows := [*(row(f"k{i}") for i in range(3)), row("fee", driver="fee")])
    judging.give(ledger, [rows[0]["anomaly_id"]], "normal", by="ann")
    for arguments, said in {
        ("--driver", "country"): "with another --driver: amount (2), fee (1)",
        ("--model-version", "9"): "with another --model-version: 3 (3)",
        ("--reviewer", "an", "--state", "any"): "with another --reviewer: ann (1)",
    }.items():
        text = CliRunner().invoke(app, ["review", "list", *arguments]).stdout
        assert text.splitlines()[1] == said
    text = CliRunner().invoke(app, ["review", "list", "--state", "conflict"]).stdout
    assert "with another" not in text
    assert shell("list", "--model-version", "9") == []

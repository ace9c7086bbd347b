"""Tables on a terminal: nothing about a batch or a version is cut where there is room for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command

from pipeline import display
from pipeline.cli import app
from pipeline.config.gates import Gates
from pipeline.display import models, nightly
from pipeline.evaluation import decide
from pipeline.report.glance import Glance
from pipeline.steps.receipts import BatchReceipt, Receipt

from .evidence_data import evidence_of

REASON = "2026-01-26.parquet: the file is cut short: 88536 bytes and no footer; deliver it again, whole, and [1] run validate"


def batch(batch_id: str, **said: Any) -> dict[str, Any]:
    """A batch as the views tell it."""
    counts = dict.fromkeys(("n_read", "n_accepted", "n_set_aside"), 5000)
    unknown = dict.fromkeys(("n_flagged", "model_version", "threshold", "above_usual", "reason"))
    return {
        "batch_id": batch_id,
        "status": "refused",
        **counts,
        **unknown,
        "is_odd": False,
        "notes": [],
        "set_aside": {},
        "files": ["shop/a.parquet"],
        **said,
    }


def printed(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of two batches in a terminal of this width."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=width, highlight=False))
    nightly.print_batches(
        [
            batch("2026-01-25", status="scored", set_aside={"duplicate_key:id": 3}),
            batch("2026-01-26", reason=REASON),
        ],
        Glance({"2026-01-25": "Look before you rely"}, ("9 flagged [where] 4 are expected",)),
        whole="",
    )
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 119, 120, 140, 300])
def test_what_is_said_of_a_batch_is_whole_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to do next stands at the end of a reason."""
    lines = printed(width, monkeypatch, capsys)
    said = "".join("".join(lines).split())
    assert "Lookbeforeyourely;duplicate_key:id3" in said
    assert lines[-1] == "9 flagged [where] 4 are expected"
    assert all(word in said for word in REASON.split())
    assert max(map(len, lines)) <= width


def test_notes_stand_beside_the_counts_only_where_they_have_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column of two letters is no column."""
    narrow, wide = (printed(width, monkeypatch, capsys) for width in (80, 140))
    assert [line.split()[0] for line in narrow[1:5]] == [
        "2026-01-25",
        "2026-01-26",
        "2026-01-25:",
        "2026-01-26:",
    ]
    assert [line.split()[0] for line in wide[1:3]] == ["2026-01-25", "2026-01-26"]
    assert wide[1].rstrip().endswith("duplicate_key:id 3")


def test_a_dataset_without_batches_has_no_table_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A heading over nothing looks as if something had gone missing."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=140, highlight=False))
    counts = dict.fromkeys(("n_read", "n_accepted", "n_flagged"), 0)
    empty = {"dataset": "new", "champion": None, "counts": {}, "batches": [], "tables": "var/tables/new"}
    nightly.print_status([{**empty, **counts}], Glance({}), {}, whole=False)
    first, last = capsys.readouterr().out.splitlines()
    assert "no batches yet" in first
    assert last == "tables: var/tables/new"


def test_values_of_a_record_that_was_set_aside_are_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that broke a rule is asked for, and so are those beside it that explain it."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=80, highlight=False))
    record = {f"column_{i}": f"value-{i}" for i in range(30)}
    row = {"row_number": 3, "record_key": "k", "reasons": ["out_of_range:column_29"], "record": record}
    found = batch("2026-01-26", records=[row], report="index.html")
    nightly.print_set_aside(found)
    out = capsys.readouterr().out
    assert {f"value-{i}" for i in range(30)} <= set(out.replace(",", " ").split())
    assert "--json" not in out
    nightly.print_set_aside(found | {"records": [row | {"record": record | {"note": "x" * 5000}}]})
    assert "whole: --json" in capsys.readouterr().out


NUMBERS = {"n_training": 40232, "n_calibrating": 10058, "threshold": 21.2379}


def listed(number: int, *aliases: str, **said: Any) -> dict[str, Any]:
    """A version as the steps tell it."""
    return {
        "version": number, "aliases": list(aliases), "trained_at": "2026-01-29T02:00:00.000+00:00",
        "window": "2026-01-01..2026-01-28", "metrics": NUMBERS, "holdout": {"n": 6295, "recall": 0.678, "negative_elbo": 51.5},
        "decision": "promote", "decision_reason": "as good as version 1 by collapse, recall", "rejected_by": "", "copied_from": "",
        "kept": ["it gave the published scores of 28 batches", "one of the newest 10"], **said,
    }  # fmt: skip


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The lines that a call prints in a terminal of a width."""

    def shown(width: int, call: Callable[..., None], *arguments: Any) -> list[str]:
        for module in (models, display):
            monkeypatch.setattr(module, "console", lambda: Console(width=width, highlight=False))
        call(*arguments)
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return shown


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_version_is_a_line(width: int, terminal: Callable[..., list[str]]) -> None:
    """Ten versions are looked over at a glance, in a terminal as it opens."""
    versions = [
        listed(11, "previous"),
        listed(
            12, rejected_by="ann", kept=[], against=11, holdout={"recall": 0.678, "champion_recall": 0.724}
        ),
        listed(13, "challenger", holdout={}, decision=""),
    ]
    lines = terminal(width, models.print_versions, "payments", versions)
    assert [line.split() for line in lines[1:4]] == [
        ["11", "previous", "2026-01-29", "2026-01-01", "to", "2026-01-28", "68%", "passed", "yes"],
        ["12", "2026-01-29", "2026-01-01", "to", "2026-01-28", "68%", "(72%)", "rejected", "no"],
        ["13", "challenger", "2026-01-29", "2026-01-01", "to", "2026-01-28", "–", "not", "judged", "yes"],
    ]
    assert lines[0].split()[-1] == "kept"
    assert lines[4].startswith("finds: the share of anomalies injected")
    assert "Lines of two nights are of different records" in " ".join(lines[4:])
    assert max(map(len, lines)) <= width


def test_a_step_says_once_what_became_of_its_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said "unchanged: 60 unchanged": that is one word too many."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=120, highlight=False))
    same = tuple(BatchReceipt(f"b{i}", "unchanged") for i in range(60))
    refused = BatchReceipt("b60", "refused")
    nightly.print_receipt(Receipt("validate", "taxi", "unchanged", same))
    nightly.print_receipt(Receipt("validate", "taxi", "refused", (refused,)))
    nightly.print_receipt(Receipt("validate", "taxi", "refused", (*same, refused)))
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.startswith("validate")] == [
        "validate taxi: unchanged: 60 batches",
        "validate taxi: refused: 1 batch",
        "validate taxi: refused: 1 refused, 60 unchanged",
    ]


def test_a_refusal_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its reason is in its own line, as soon as it is known; the summary below names the batches."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=160, highlight=False))
    refused = tuple(BatchReceipt(f"b{i}", "refused", "the file is cut short") for i in range(7))
    nightly.print_receipt(Receipt("validate", "taxi", "refused", refused))
    said = capsys.readouterr().out
    assert (
        "refused: b0, b1, b2, b3, b4 and 2 more (why is said above, and by vaewatch quarantine list taxi)"
        in said
    )
    assert "cut short" not in said


def test_a_delivery_without_records_is_not_counted_in_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nightly, "console", lambda: Console(width=120, highlight=False))
    nothing = dict.fromkeys(("n_read", "n_accepted", "n_set_aside"), 0)
    nightly.print_set_aside(batch("b", records=[], report="p", **nothing))
    assert capsys.readouterr().out.startswith("b refused: no record was read\n")


def test_of_a_refused_batch_nothing_is_set_aside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is set aside is kept in a table; of a refused batch, nothing is kept but the files."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=160, highlight=False))
    refused = batch("b1", n_read=5000, n_accepted=0, n_set_aside=0, reason="cut short")
    partly = batch("b2", status="accepted", n_read=4000, n_accepted=3997, n_set_aside=3)
    dataset = {
        "dataset": "shop",
        "champion": None,
        "tables": "t",
        "n_read": 9000,
        "n_accepted": 3997,
        "n_flagged": 0,
    }
    nightly.print_status([{**dataset, "batches": [refused, partly]}], Glance({}), {}, whole=False)
    nightly.print_quarantined([refused, partly])
    nightly.print_set_aside(refused | {"records": [], "report": "p"})
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(said[0]).endswith("9,000 read, 3,997 accepted, 3 set aside, 5,000 refused, 0 flagged")
    assert said[2][:5] == ["b1", "refused", "5,000", "0", "–"]
    assert said[3][:5] == ["b2", "accepted", "4,000", "3,997", "3"]
    assert said[6][:4] == ["b1", "refused", "5,000", "–"]
    assert said[8] == ["b1", "refused:", "none", "of", "5,000", "records", "is", "kept"]


def test_all_that_is_known_of_a_version_is_told_when_it_is_asked_for(
    terminal: Callable[..., list[str]],
) -> None:
    """What the list leaves out, and every gate."""
    evidence = evidence_of(recall=0.002, above=0.001)
    decision = decide(evidence, Gates())
    found = {
        **listed(2, "champion", decision_reason=decision.sentence), "dataset": "payments",
        "made_of": {"contract": "c1", "code": "0.1.0"}, "notes": list(decision.notes), "evaluated_at": evidence.measured_at,
        "page": "/home/trainings/payments/k.html",
        "became": {
            "promoted": {"at": "2026-02-01T03:00:00.000+00:00", "by": "ann", "reason": "[newer] days"},
            "rolled_back": {"at": "2026-02-02T03:00:00.000+00:00", "by": "bob", "reason": "too many flags"},
        },
        "evaluation": {"decision": decision.as_dict(), "evidence": evidence.as_dict()},
    }  # fmt: skip
    lines = terminal(100, models.print_version, found)
    said = " ".join(" ".join(lines).split())
    for words in (
        "payments version 2: champion",
        "contract c1",
        "threshold 21.24 nats",
        "promoted 2026-02-01 03:00 UTC by ann: [newer] days",
        "rolled back 2026-02-02 03:00 UTC by bob: too many flags",
        "keeps it: it gave the published scores of 28 batches; one of the newest 10",
        "passed 2026-02-01 02:00 UTC: as good as version 1 by",
        "note recall_floor: at its threshold it finds 0.2% of the injected anomalies",
        "measured on 1,000 held-out records that neither has seen, 500 of them of the newest days",
        "flags are compared on 5,000 records drawn from these days, held out or not",
        "shifted 70.0% 72.0%",
    ):
        assert words in said
    (floor,) = (i for i, line in enumerate(lines) if line.startswith(" recall_floor"))
    assert lines[floor].split()[:5] == ["recall_floor", "advisory", "failed", "0.2%", "unaltered:"]
    assert max(map(len, lines)) <= 100
    unjudged = terminal(100, models.print_version, found | {"evaluation": None, "decision": "", "became": {}})
    assert any("not judged" in line for line in unjudged)


def test_a_value_that_is_missing_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    """`None` is Python's word."""
    record = {
        "row_number": 4,
        "record_key": "k4",
        "reasons": ["missing_value:country"],
        "record": {"country": None, "amount": 3.5},
    }
    nightly.print_set_aside({
        "batch_id": "b", "status": "scored", "n_set_aside": 1, "n_read": 9, "reason": "", "records": [record], "files": ["a.parquet"], "report": "p",
        "set_aside": {},
    })  # fmt: skip
    assert "country missing, amount 3.5" in capsys.readouterr().out


def test_why_records_were_set_aside_is_told_before_what_is_in_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many for which reason, the most first; then each record's reasons and the value to blame, in lines
    of their own.
    """
    monkeypatch.setattr(nightly, "console", lambda: Console(width=80, highlight=False))
    record = {**{f"column_{i}": i for i in range(40)}, "currency": "??"}
    row = {"row_number": 7, "record_key": "k7", "reasons": ["pattern:currency"], "record": record}
    found = batch("b", records=[row], report="p", set_aside={"not_in_set:a": 2, "pattern:currency": 1_300})
    nightly.print_set_aside(found)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == ["1,300  pattern:currency", "2  not_in_set:a", "pattern:currency  row 7, k7"]
    assert lines[4].startswith("currency ??, column_0 0, ")


def test_of_a_refused_batch_it_is_told_where_its_records_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of it was published; whoever looks for a record looks in the files."""
    nightly.print_set_aside(batch("b", records=[], report="p", set_aside={"missing_value:at": 879}))
    assert "they are where they landed: shop/a.parquet" in " ".join(capsys.readouterr().out.split())
    stands = "its 9 records and 6 flags of before stand"
    nightly.print_set_aside(batch("b", records=[], report="p", stands=stands))
    told = " ".join(capsys.readouterr().out.split())
    assert f"{stands}; the records that were refused are where they landed: shop/a.parquet" in told
    assert "nowhere" not in told
    nightly.print_batches([batch("b", stands={"words": stands})], Glance({}), whole="")
    assert stands in " ".join(capsys.readouterr().out.split())
    nightly.print_set_aside(batch("b", status="scored", records=[], report="p"))
    assert "landed" not in capsys.readouterr().out


def test_a_command_is_printed_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the path that it was called with, unless its name alone finds it; what is no command stays."""
    program = tmp_path / "my tools" / "vaewatch"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    told = "this vaewatch reads 3; see `vaewatch status a`, then /opt/vaewatch run"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [str(program), "run"])
    assert display.as_typed(told) == told.replace("`vaewatch", f"`'{program}'")
    display.console().print("vaewatch run", soft_wrap=True)
    display.print_lines([("next", "vaewatch train a")])
    printed = "".join(capsys.readouterr().out.split())
    assert printed.count("".join(f"'{program}'".split())) == 2
    monkeypatch.setenv("PATH", str(program.parent))
    assert display.as_typed(told) == told
    monkeypatch.setattr("sys.argv", ["/opt/airflow", "scheduler"])
    monkeypatch.setenv("PATH", "")
    assert display.as_typed(told) == told


def test_every_verb_is_known_as_a_command() -> None:
    """One that is not would be printed in a way that cannot be typed."""
    assert set(display.VERBS) == set(get_command(app).commands)


def test_the_rest_of_many_batches_has_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Old ones fall out of the table, but those that somebody should look at not in silence."""
    many = [batch(f"b{i:02}", status="scored", n_set_aside=0) for i in range(36)]
    nightly.print_batches(many, Glance({}), whole="vaewatch status feed --all")
    all_of_them = "(all of them: vaewatch status feed --all)"
    assert f"the newest 30 of 36 batches {all_of_them}" in capsys.readouterr().out
    many[0] |= {"n_set_aside": 7, "batch_id": "b00_undated"}
    many[2]["status"] = "refused"
    nightly.print_batches(
        many, Glance({"b01": "Look", "b03": "Look", "b30": "Look"}), whole="vaewatch status feed --all"
    )
    said = "of the 6 others 1 refused, 2 in doubt, 1 with records set aside"
    out = capsys.readouterr().out
    assert f"the newest 30 of 36 batches; {said} {all_of_them}" in out
    assert "b00_undated" not in out
    nightly.print_batches(many, Glance({}), whole="", most=len(many))
    out = capsys.readouterr().out
    assert "b00_undated" in out
    assert "newest" not in out


def test_of_all_datasets_each_line_tells_how_many_of_its_newest_batches_are_in_doubt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever looks at all of them has to know at which to look first."""
    counts = dict.fromkeys(("n_read", "n_accepted", "n_flagged"), 0) | {"champion": 1, "tables": "t"}
    well = [batch(f"b{i:02}", status="scored", n_set_aside=2) for i in range(36)]
    worse = [*well, batch("b36"), batch("b37", status="scored")]
    found = [{"dataset": "calm", "batches": well, **counts}, {"dataset": "feed", "batches": worse, **counts}]
    nightly.print_status(found, None, {"calm": ["b00"], "feed": ["b00", "b20", "b37"]}, whole=False)
    calm, feed = capsys.readouterr().out.splitlines()
    assert calm.endswith("0 flagged")
    assert feed.endswith("; of the newest 30 batches 1 refused, 2 in doubt: vaewatch status feed")


def test_what_is_not_printed_to_a_terminal_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that ends in the next line of a log cannot be copied."""
    why = f"{'none is due ' * 12}sooner: vaewatch train retail"
    nightly.print_receipt(Receipt("train", "retail", "unchanged", reason=why, notes=(why,)))
    assert [line.endswith("vaewatch train retail") for line in capsys.readouterr().out.splitlines()] == [
        True,
        True,
    ]

"""What people and programs ask of the results: the most severe first, nothing invented, nothing that runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.detection.scoring import scores_schema
from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.results import export, views
from pipeline.review import judging
from pipeline.storage.ledger import BatchState

from .review_data import put, row

DATASET = """\
dataset: payments
incoming: {path: ../incoming}
columns:
  amount: {type: float, role: numeric}
  "=note": {type: string}
"""
FORMULAS = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1+1", "\r=1+1", '=HYPERLINK("http://evil","click")']
RECORD = pa.struct([("amount", pa.float64()), ("=note", pa.string())])
SCORES = scores_schema(RECORD)
REASONS = [
    {"column": "amount", "observed": "900", "expected": "12.5", "low": 10.0, "high": 15.0, "share": 0.81},
    {"column": "=note", "observed": "=2+2", "expected": "x (93%)", "low": None, "high": None, "share": 0.1},
]


def scored(batch_id: str, row_number: int, *, severity: float = 0.5, **more: Any) -> dict[str, Any]:
    """A row of the table `scores`; with an anomaly_id it is flagged."""
    row = {
        "batch_id": batch_id,
        "flagged": "anomaly_id" in more,
        "row_number": row_number,
        "record_key": f"key{row_number}",
        "anomaly_score": severity * 3,
        "reconstruction": severity,
        "kl_divergence": severity * 2,
        "p_value": 10**-severity,
        "severity": severity,
        "threshold": 4.5,
        "model_version": 3,
    }
    flagged = {"kl_share": 0.09, "reasons": REASONS, "record": {"amount": -900.0, "=note": "plain"}}
    return row | (flagged if row["flagged"] else {}) | more


def csv_rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


@pytest.fixture
def payments_yaml() -> str:
    return DATASET


@pytest.fixture
def publish(here: Installation) -> Callable[..., None]:
    """Put rows into the table `scores`."""

    def replace(batch_id: str, *rows: dict[str, Any]) -> None:
        table = pa.Table.from_pylist(list(rows), SCORES)
        here.tables(here.dataset("payments")).replace("scores", batch_id, table.to_reader(), note={})

    return replace


@pytest.fixture
def judge(here: Installation) -> Callable[..., BatchState]:
    """Put a verdict into the ledger."""

    def record(batch_id: str, **given: Any) -> BatchState:
        plain: dict[str, Any] = {
            "dataset": "payments",
            "batch_id": batch_id,
            "version": 0,
            "status": "accepted",
            "reason": "",
            "fingerprint": "f",
            "signature": "s",
            "contract_hash": "c",
            "files": [f"{batch_id}.parquet"],
            "notes": [],
            "set_aside": {},
            "n_read": 10,
            "n_accepted": 10,
            "newest_record_at": None,
            "validated_at": datetime(2026, 1, 2, tzinfo=UTC),
        }
        return here.ledger.record_validation(BatchState(**(plain | given)))

    return record


@pytest.fixture
def flagged_rows(publish: Callable[..., None]) -> None:
    publish(
        "a",
        scored("a", 0),
        scored("a", 1, severity=5, anomaly_id="aa11"),
        scored("a", 2, severity=9, anomaly_id="aa22"),
    )
    publish("b", scored("b", 0, severity=7, anomaly_id="bb33"), scored("b", 1, severity=5, anomaly_id="0b44"))


@pytest.mark.usefixtures("flagged_rows")
def test_flagged_records_come_with_the_most_severe_first(here: Installation) -> None:
    """A person reads from the top and stops when the day is over; equals have a fixed order."""
    found = views.flagged(here, "payments")
    assert [row["anomaly_id"] for row in found] == ["aa22", "bb33", "aa11", "0b44"]
    assert set(found[0]) == {*views.LISTED, "verdict"}
    assert [row["anomaly_id"] for row in views.flagged(here, "payments", batch_id="a")] == ["aa22", "aa11"]
    assert [row["anomaly_id"] for row in views.flagged(here, "payments", limit=2)] == ["aa22", "bb33"]
    assert views.flagged(here, "payments", limit=0) == []
    assert len(views.flagged(here, "payments", limit=99)) == 4
    assert views.flagged(here, "payments", batch_id="unknown") == []


def test_before_anything_was_scored_there_is_nothing_or_a_next_step(
    here: Installation, tmp_path: Path
) -> None:
    """A list may be empty; who asks for a file is told what to run."""
    assert views.flagged(here, "payments") == []
    with pytest.raises(NotReady, match="run `vaewatch run payments`"):
        export.records(here, "payments", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_an_unknown_dataset_is_said_with_the_known_ones(here: Installation) -> None:
    """A typing error must not look like an empty queue."""
    with pytest.raises(ConfigError, match=r"no dataset 'payment' .*did you mean 'payments'\?"):
        views.flagged(here, "payment")


def test_the_state_of_a_dataset_adds_up(here: Installation, judge: Callable[..., BatchState]) -> None:
    """One line that an operator believes: what was read is accepted, set aside, or refused and not kept."""
    judge("a", n_read=10, n_accepted=8, set_aside={"missing_value:amount": 2})
    state = judge("b", n_read=5, n_accepted=5)
    here.ledger.record_scores(state, model_version=3, threshold=1.0, n_flagged=2)
    judge("c", status="refused", reason="row_count: 0", n_read=3, n_accepted=0)
    here.ledger.set_serving("payments", 3)
    (found,) = views.status(here)
    assert views.status(here, "payments") == [found]
    assert found["counts"] == {"accepted": 1, "scored": 1, "refused": 1}
    assert (found["n_read"], found["n_accepted"], found["n_flagged"], found["champion"]) == (18, 13, 2, 3)
    assert [(batch["batch_id"], batch["n_set_aside"]) for batch in found["batches"]] == [
        ("a", 2),
        ("b", 0),
        ("c", 0),
    ]
    assert json.dumps(found, default=str)


def test_flags_that_stand_are_counted_where_their_batch_was_refused_since(
    here: Installation, judge: Callable[..., BatchState]
) -> None:
    """The queue has them still: two counts of the same flags must agree."""
    scored = here.ledger.record_scores(
        judge("a", n_read=5, n_accepted=5), model_version=3, threshold=1.0, n_flagged=2
    )
    judge("a", status="refused", reason="amount: beyond 9", n_read=5, n_accepted=0)
    judge("b", n_read=5, n_accepted=5)
    (found,) = views.status(here)
    first, second = found["batches"]
    assert (found["n_flagged"], views.n_flagged(here, "payments")) == (2, 2)
    assert (first["status"], first["n_flagged"], first["model_version"], first["threshold"]) == (
        "refused",
        2,
        3,
        1.0,
    )
    assert first["stands"]["words"] == "its 5 records and 2 flags of before stand"
    assert first["stands"]["version"] == scored.version
    assert second["stands"] is None
    assert views.set_aside(here, "payments", "a", limit=9)["stands"] == first["stands"]["words"]


def test_flags_of_a_delivery_before_stand_until_the_new_one_is_scored(
    here: Installation, judge: Callable[..., BatchState]
) -> None:
    """Its records are replaced when it is accepted, its scores when it is scored."""
    here.ledger.record_scores(judge("a", n_read=5, n_accepted=5), model_version=3, threshold=1.0, n_flagged=1)
    again = judge("a", fingerprint="corrected", n_read=6, n_accepted=6)
    (found,) = views.status(here)
    assert found["batches"][0]["stands"]["words"] == "its 1 flag of before stands until it is scored"
    here.ledger.record_scores(again, model_version=3, threshold=1.0, n_flagged=0)
    (found,) = views.status(here)
    assert (found["n_flagged"], found["batches"][0]["stands"]) == (0, None)


def test_a_dataset_of_which_nothing_is_known_yet_has_a_state(here: Installation) -> None:
    """The first thing that anybody asks, before anything ran."""
    (found,) = views.status(here)
    assert (found["dataset"], found["batches"], found["champion"], found["n_read"]) == (
        "payments",
        [],
        None,
        0,
    )


def test_the_quarantine_lists_what_waits_and_why(
    here: Installation, judge: Callable[..., BatchState]
) -> None:
    """Refused batches and batches with records set aside, not those that are well."""
    judge("well")
    judge("some", n_accepted=8, set_aside={"missing_value:amount": 2})
    judge("none", status="refused", reason="row_count: 0 (at least 1)", n_read=0, n_accepted=0)
    found = {row["batch_id"]: row for row in views.quarantined(here, "payments")}
    assert set(found) == {"some", "none"}
    assert found["some"]["set_aside"] == {"missing_value:amount": 2}
    assert found["none"]["reason"] == "row_count: 0 (at least 1)"


def test_records_set_aside_are_shown_with_their_reasons(
    here: Installation, judge: Callable[..., BatchState]
) -> None:
    """The first ones in the file's order: enough to see what is wrong with the source."""
    judge("a", n_read=4, n_accepted=1, set_aside={"missing_value:amount": 3})
    records = pa.table({
        "batch_id": ["a"] * 4,
        "set_aside": [True, False, True, True],
        "row_number": [3, 0, 1, 2],
        "record_key": ["k3", "k0", "k1", "k2"],
        "reasons": pa.array([["x:amount"], None, ["x:amount"], ["x:amount"]], pa.list_(pa.string())),
        "record": pa.array([{"amount": float(i), "=note": None} for i in (3, 0, 1, 2)], RECORD),
    })
    here.tables(here.dataset("payments")).replace("records", "a", records.to_reader(), note={})
    found = views.set_aside(here, "payments", "a", limit=2)
    assert [row["record_key"] for row in found["records"]] == ["k1", "k2"]
    assert found["records"][0] == {
        "row_number": 1,
        "record_key": "k1",
        "reasons": ["x:amount"],
        "record": {"amount": 1.0, "=note": None},
    }
    assert (found["n_read"], found["n_set_aside"]) == (4, 3)
    with pytest.raises(
        NotReady, match=r"batch 'z' was never validated; there .* \(see `vaewatch status payments`\)"
    ):
        views.set_aside(here, "payments", "z", limit=2)


def test_a_refused_batch_has_reasons_and_no_records(
    here: Installation, judge: Callable[..., BatchState]
) -> None:
    """None of its records was published: none may be shown as if it had been."""
    judge("a", status="refused", reason="column 'amount' is missing", n_accepted=0)
    found = views.set_aside(here, "payments", "a", limit=5)
    assert (found["status"], found["reason"], found["records"]) == (
        "refused",
        "column 'amount' is missing",
        [],
    )


@pytest.mark.usefixtures("flagged_rows")
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_all_flagged_records_are_exported_most_severe_first(
    here: Installation, tmp_path: Path, suffix: str
) -> None:
    """Three formats, one content: for a notebook, a program, a spreadsheet."""
    out = tmp_path / "new folder" / f"out{suffix}"
    assert export.records(here, "payments", out) == (4, 0)
    if suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        header, *cells = csv_rows(out)
        rows = [dict(zip(header, row, strict=True)) for row in cells]
    assert [float(row["severity"]) for row in rows] == [9, 7, 5, 5]
    assert {row["anomaly_id"] for row in rows} == {"aa11", "aa22", "bb33", "0b44"}
    assert [row["oddness"] for row in rows] == ["above"] * 4
    if suffix == ".csv":
        assert (
            rows[0]["reasons"] == "amount 900 (expected 12.5, 81%); =note =2+2 (expected x, 93% likely, 10%)"
        )
        assert (rows[0]["record.amount"], rows[0]["record.=note"]) == ("-900.0", "plain")
        assert "flagged" not in rows[0]
    else:
        assert rows[0]["record"] == {"amount": -900.0, "=note": "plain"}
        assert rows[0]["reasons"][0]["expected"] == "12.5"


@pytest.mark.usefixtures("flagged_rows")
def test_one_batch_is_exported_alone(here: Installation, tmp_path: Path) -> None:
    """The day that somebody asks about."""
    assert export.records(here, "payments", tmp_path / "a.jsonl", batch_id="a") == (2, 0)
    assert export.records(here, "payments", tmp_path / "none.csv", batch_id="unknown") == (0, 0)
    header, *rows = (tmp_path / "none.csv").read_text().splitlines()
    assert header.endswith("reasons,record.amount,record.=note")
    assert rows == []


@pytest.mark.usefixtures("flagged_rows")
@pytest.mark.parametrize("name", ["out.xlsx", "out", "out.csv.gz"])
def test_an_unknown_format_is_refused_and_nothing_is_written(
    here: Installation, tmp_path: Path, name: str
) -> None:
    """A file with the wrong content under the right name is worse than none."""
    with pytest.raises(ConfigError, match=r"write to \.parquet, \.csv or \.jsonl"):
        export.records(here, "payments", tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_line_of_json_is_read_by_strict_readers(
    here: Installation, publish: Callable[..., None], tmp_path: Path
) -> None:
    """An interval without an end: JSON has no word for infinity."""
    publish("a", scored("a", 0, anomaly_id="aa11", reasons=[REASONS[0] | {"high": float("inf")}]))
    assert export.records(here, "payments", tmp_path / "out.jsonl") == (1, 0)

    def refuse(word: str) -> None:
        raise ValueError(word)

    (line,) = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line, parse_constant=refuse)["reasons"][0]["high"] == "inf"


def test_a_spreadsheet_runs_nothing_that_a_stranger_wrote(
    here: Installation, publish: Callable[..., None], tmp_path: Path
) -> None:
    """Whoever can write a record could otherwise make the reviewer's spreadsheet send the others away."""
    rows = []
    for i, formula in enumerate(FORMULAS):
        reasons = [REASONS[1] | {"column": formula}]
        record = {"amount": -1.5, "=note": formula}
        given = {"record": record, "reasons": reasons, "terms": [{"column": formula, "nats": 1.0}]}
        rows.append(scored("a", i, anomaly_id=f"{i}", record_key=formula, **given))
    publish("a", *rows)
    export.records(here, "payments", tmp_path / "out.csv")
    cells = [cell for row in csv_rows(tmp_path / "out.csv") for cell in row]
    for cell in cells:
        harmless = not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert harmless or float(cell) < 0, "a negative number is a number"
    assert sum(cell.startswith("'") for cell in cells) == 4 * len(FORMULAS)


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(note=TEXTS | st.sampled_from(FORMULAS), key=TEXTS)
def test_text_comes_through_a_csv_file_whole(note: str, key: str) -> None:
    """Quotes, commas and line breaks of a record stay in its cell; only a formula gets its apostrophe."""
    row = scored("a", 0, anomaly_id="x", record_key=key, record={"amount": 1.0, "=note": note})
    export._write_csv(stream := io.StringIO(newline=""), pa.Table.from_pylist([row], SCORES))
    header, cells = csv.reader(io.StringIO(stream.getvalue(), newline=""))
    written = dict(zip(header, cells, strict=True))
    for text, cell in ((note, written["record.=note"]), (key, written["record_key"])):
        assert cell in {text, f"'{text}"}
        assert not cell.startswith(("=", "+", "-", "@"))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_everything_that_was_said_is_exported_in_its_order(
    here: Installation, tmp_path: Path, suffix: str
) -> None:
    """Who said what, when and why; what was taken back stays, with who took it back; an audit asks for no
    less.
    """
    rows = [row("k0"), row("k1"), row("k2", "2026-01-29")]
    put(here.ledger, rows)
    names = [one["anomaly_id"] for one in rows]
    first = judging.give(here.ledger, names[:2], "anomaly", by="ann", note="=1+1")
    judging.give(here.ledger, names[2:], "normal", by="bob")
    judging.undo(here.ledger, first.act, by="ann")
    out = tmp_path / f"history{suffix}"
    assert export.history(here, "payments", out) == 5
    if suffix == ".parquet":
        table = pq.read_table(out)
        assert table.schema.equals(export.HISTORY)
        found = table.to_pylist()
    elif suffix == ".jsonl":
        found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        header, *cells = csv_rows(out)
        found = [dict(zip(header, cell, strict=True)) for cell in cells]
        assert found[0]["note"] == "'=1+1"
    said = [(one["record_key"], one["verdict"], one["by"], str(one["undone"])) for one in found]
    assert said == [
        ("k0", "anomaly", "ann", "True"),
        ("k1", "anomaly", "ann", "True"),
        ("k2", "normal", "bob", "False"),
        ("k0", "withdrawn", "ann", "False"),
        ("k1", "withdrawn", "ann", "False"),
    ]
    assert str(found[0]["undone_at"]) == str(found[3]["decided_at"])
    assert [str(one["withdraws"]) for one in found[3:]] == [str(found[0]["number"]), str(found[1]["number"])]
    assert export.history(here, "payments", out, batch_id="2026-01-29") == 1
    assert export.history(here, "payments", out, batch_id="unknown") == 0

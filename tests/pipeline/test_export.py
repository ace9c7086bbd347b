"""Labels as a file: everything that was judged, with its values, however it came into the queue."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id
from pipeline.results import export
from pipeline.review import judging, queue
from pipeline.review.filling import fill
from pipeline.review.filters import Filters
from pipeline.storage.ledger import BatchState

from .published import payments_yaml as payments_yaml  # fixtures
from .published import publish as publish

SCORED_AT = datetime(2026, 1, 31, 3, tzinfo=UTC)


@pytest.fixture
def judged(here: Installation, publish: Callable[..., BatchState]) -> dict[str, str]:
    """The keys of three flagged records, one of them judged, of a judged one that was drawn at random and of
    one that is flagged no longer; what was said of another random one was taken back.
    """
    dataset, names = here.dataset("payments"), dict[str, str]()
    fill(here, dataset, publish(flagged=(3, 4, 5)), scored_at=SCORED_AT)
    for why, i in {"flagged": 3, "open": 4, "cleared": 5, "new": 6}.items():
        names[why] = f"2026-01-30-{i:03}"
    drawn = queue.page(here.ledger, Filters(kind="sampled")).rows
    names["sampled"], names["withdrawn"] = (one.record_key for one in drawn)
    ids = {why: anomaly_id("payments", "2026-01-30", key) for why, key in names.items()}
    judging.give(here.ledger, [ids["flagged"], ids["cleared"]], "anomaly", by="ann")
    judging.give(here.ledger, [ids["sampled"]], "normal", by="ann")
    taken_back = judging.give(here.ledger, [ids["withdrawn"]], "anomaly", by="ann")
    judging.undo(here.ledger, taken_back.act, by="ann")
    fill(here, dataset, publish(flagged=(3, 4, 6), version=4), scored_at=SCORED_AT)
    return names


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    """A file's rows by key, the values of a record as text beside the others."""
    if file.suffix == ".csv":
        with file.open(encoding="utf-8", newline="") as stream:
            return {row["record_key"]: row for row in csv.DictReader(stream)}
    rows = (
        pq.read_table(file).to_pylist()
        if file.suffix == ".parquet"
        else [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    )
    for row in rows:
        row |= {f"record.{name}": str(value) for name, value in (row["record"] or {}).items()}
    return {row["record_key"]: row for row in rows}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_every_judged_record_is_exported_with_its_values(
    here: Installation, judged: dict[str, str], tmp_path: Path, suffix: str
) -> None:
    """What is trained elsewhere needs both kinds, and the honest sample above all."""
    out = tmp_path / f"labels{suffix}"
    assert export.records(here, "payments", out) == (3, 2)
    found = rows_of(out)
    assert {key: (row["kind"], row["verdict"] or None) for key, row in found.items()} == {
        judged["flagged"]: ("flagged", "anomaly"),
        judged["open"]: ("flagged", None),
        judged["new"]: ("flagged", None),
        judged["cleared"]: ("cleared", "anomaly"),
        judged["sampled"]: ("sampled", "normal"),
    }
    for why in ("sampled", "cleared"):
        key = judged[why]
        number = float(key[-3:])
        row = found[key]
        assert (row["record.amount"], row["record.card"]) == (str(number), f"c{int(number) % 5}")
        assert (float(row["anomaly_score"]), int(row["model_version"])) == (number, 4)
        assert row["anomaly_id"] == anomaly_id("payments", "2026-01-30", key)
        assert not row["oddness"], "that is said of flagged records"
    assert found[judged["flagged"]]["oddness"] == "above"


def test_only_judged_records_of_a_batch_come_with_it(
    here: Installation, publish: Callable[..., BatchState], judged: dict[str, str], tmp_path: Path
) -> None:
    """The day that somebody asks about."""
    fill(here, here.dataset("payments"), publish("2026-01-31", flagged=(7,)), scored_at=SCORED_AT)
    out = tmp_path / "labels.jsonl"
    assert export.records(here, "payments", out, batch_id="2026-01-31") == (1, 0)
    assert export.records(here, "payments", out, batch_id="2026-01-30") == (3, 2)
    assert set(rows_of(out)) == set(judged.values()) - {judged["withdrawn"]}


def test_a_judged_record_that_is_not_stored_any_more_keeps_its_verdict(
    here: Installation, judged: dict[str, str], tmp_path: Path
) -> None:
    """Its batch was delivered again without it: a row without values says so."""
    tables = here.tables(here.dataset("payments"))
    for table in ("records", "scores"):
        kept = tables.read(table)
        others = kept.filter(pa.compute.not_equal(kept["record_key"], judged["sampled"]))
        tables.replace(table, "2026-01-30", others.to_reader(), note={})
    out = tmp_path / "labels.jsonl"
    assert export.records(here, "payments", out) == (3, 2)
    gone = rows_of(out)[judged["sampled"]]
    assert (gone["verdict"], gone["batch_id"]) == ("normal", "2026-01-30")
    assert (gone["record"], gone["severity"]) == (None, None)


@pytest.mark.usefixtures("judged")
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_an_export_that_fails_leaves_the_earlier_file(
    here: Installation, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file looks like a whole one with fewer records."""
    out = tmp_path / f"labels{suffix}"
    export.records(here, "payments", out)
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        export.records(here, "payments", out)
    assert out.read_bytes() == before
    assert [*tmp_path.glob("*labels*")] == [out]


def test_a_shell_says_how_many_of_either_it_wrote(
    here: Installation, judged: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asked for flagged records is not to wonder where the others come from."""
    monkeypatch.setenv("VAEWATCH_HOME", str(here.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(here.settings.datasets))
    out = tmp_path / "labels.csv"
    done = CliRunner().invoke(app, ["review", "export", "payments", str(out)])
    assert done.output == f"wrote 3 flagged records and 2 others with a verdict to {out}\n"
    assert set(rows_of(out)) == set(judged.values()) - {judged["withdrawn"]}

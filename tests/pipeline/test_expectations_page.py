"""The page and the JSON of a check: whole, harmless and replaced as one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import expectations
from pipeline.config.contracts import BatchRule, RowRule
from pipeline.errors import StorageFailed
from pipeline.expectations import dialect, wording
from pipeline.expectations.page import render

from .expectations_data import LANDED, check, numbers, relation

pytestmark = pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
    "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a batch with hostile text in it."""
    folder = tmp_path_factory.mktemp("report")
    database = relation(
        folder,
        """SELECT CASE WHEN i % 10 = 0 THEN '<img src="https://evil.example/x.png" onerror="alert(1)">' || chr(8238)
           ELSE 'ok' END AS "<b>name", repeat('long', 1000) AS long, i AS vaewatch_row, i % 10 = 0 AS vaewatch_set_aside
           FROM range(100) AS r(i)""",
    )
    rules: list[Any] = [
        RowRule("not_in_set", "<b>name", """ "<b>name" <> 'ok' """, values=("ok", "<i>'&")),
        RowRule("pattern", "long", "true", pattern="<script>"),
        RowRule("missing_value", "long", "false"),
        BatchRule("share_set_aside", maximum=0.05),
        BatchRule("row_count", minimum=1, maximum=1000),
    ]
    check(database, rules, dataset="</title><script>", mostly=0.95)
    return folder / "report"


def test_the_page_needs_nothing_from_elsewhere(report: Path) -> None:
    """It is read where there is no internet, and reading it must tell nobody."""
    page = (report / "index.html").read_text(encoding="utf-8")
    resources = re.findall(r"""<[^>]+?\b(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", page)
    assert resources == ["data:,", "run.html"]  # the page beside it
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_shows_hostile_text_as_text(report: Path) -> None:
    """Values and names come from outside; the reader's browser must not obey them."""
    page = (report / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|b>name|i>')", page)
    assert "&lt;img src=" in page
    assert "&lt;/title&gt;&lt;script&gt; / 2026-03-01" in page
    assert "long" * 21 not in page


def test_the_page_gives_the_verdict_and_every_count(report: Path) -> None:
    """A minute is what it gets."""
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "✕ Refused" in page
    assert "10 of 100 records (10 %). Promised: at most 5 % of records." in page
    assert "2 of 5" in page  # rules kept
    assert "Great Expectations 1." in page


def test_the_json_holds_great_expectations_own_result(report: Path) -> None:
    """An auditor wants what the engine said, not our reading of it."""
    document = json.loads((report / "checkpoint.json").read_text(encoding="utf-8"))
    own = document["great_expectations"]
    assert own["statistics"]["evaluated_expectations"] == 6
    assert {
        r["expectation_config"]["meta"]["code"]: r["result"].get("unexpected_count") for r in own["results"]
    } == {
        "not_in_set": 10,
        "pattern": 100,
        "missing_value": 0,
        "share_set_aside": 10,
        "row_count": None,
        "records": None,
    }
    assert not document["success"]
    assert document["outcomes"][0]["n_unexpected"] == 10


def test_a_second_run_replaces_the_report_and_leaves_no_drafts(tmp_path: Path) -> None:
    """A task is repeated: one report is left, whole."""
    database = numbers(tmp_path, "(1)")
    check(database, [BatchRule("row_count", minimum=2)])
    check(database, [BatchRule("row_count", minimum=1)])
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["checkpoint.json", "index.html"]
    assert "✓ Accepted" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    """A full disk is not a verdict either."""
    (tmp_path / "report").write_text("a file where the folder should be")
    with pytest.raises(StorageFailed, match="the report was not written"):
        check(numbers(tmp_path, "(1)"), [])


@given(part=st.integers(0, 10**9), whole=st.integers(1, 10**9))
def test_a_share_never_hides_a_record(part: int, whole: int) -> None:
    """One of a million must not read as none, nor all but one as all."""
    text = wording.share(min(part, whole), whole)
    assert (text == "0 %") == (part == 0)
    assert (text == "100 %") == (part >= whole)


def test_the_page_holds_thousands_of_rules(tmp_path: Path) -> None:
    """A wide table's page opens with what is wrong; what was kept is folded away."""
    rule = expectations.Outcome(
        "missing_value", "c", "warning", True, 0, "never missing", "0 of 1 record", "expect"
    )
    many = expectations.CheckpointResult(True, tuple(replace(rule, column=f"c{i}") for i in range(3000)), 1)
    page = render(many, dataset="d", batch_id="b", mostly=0.95, checked_at=LANDED, version="1")
    assert "<details>" in page
    assert len(page) < 1_000_000


def test_what_describes_a_result_holds_no_object_of_duckdb() -> None:
    """SQLAlchemy keeps descriptions to the end of the process, at which DuckDB prints a page about each type
    that is left.
    """
    cursor = dialect._Cursor(duckdb.connect().cursor())
    assert cursor.description is None or cursor.description == []
    cursor.execute("SELECT 1 AS a, 2.5 AS b, [1] AS c, current_date AS d")
    described = [cell for column in cursor.description for cell in column if cell is not None]
    assert described == ["a", "INTEGER", "b", "DECIMAL(2,1)", "c", "INTEGER[]", "d", "DATE"]

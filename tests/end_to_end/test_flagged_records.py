"""What is said of a flagged record, by the models that are registered: its reasons, the smallest change that
would clear it, and how each version scores it.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pytest

from pipeline.errors import NotReady
from pipeline.results import views
from pipeline.review import compare, queue, record, versions
from pipeline.review.filters import Filters

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


def test_every_flagged_record_has_its_reasons_and_its_values_and_no_other_has(scored: Place) -> None:
    """A flag without a reason is work without a clue."""
    scores = scored.table("scores")
    flagged, others = scores.filter(scores["flagged"]), scores.filter(pc.invert(scores["flagged"]))
    assert flagged.num_rows > 0
    for row in flagged.to_pylist():
        assert row["reasons"]
        assert all(reason["column"] in row["record"] and reason["observed"] for reason in row["reasons"])
        assert 0 < sum(reason["share"] for reason in row["reasons"]) <= 1 + 1e-6
        assert row["record"]["transaction_id"] == row["record_key"]
        assert row["anomaly_score"] >= row["threshold"]
    assert len(set(flagged["anomaly_id"].to_pylist())) == flagged.num_rows
    for name in ("reasons", "record", "anomaly_id"):
        assert others[name].null_count == others.num_rows
    shown = views.flagged(scored.here, scored.name, limit=3)
    assert [row["severity"] for row in shown] == sorted(flagged["severity"].to_pylist(), reverse=True)[:3]
    ledger = scored.here.ledger
    whole = record.one(ledger, record.find(ledger, shown[0]["anomaly_id"][:10]))
    assert whole.record_key == shown[0]["record_key"]


def test_the_smallest_change_that_would_clear_a_flag_does(scored: Place) -> None:
    """Said to a reviewer as a fact: the model itself must agree."""
    here = scored.here
    dataset = here.dataset(scored.name)
    rows = queue.page(here.ledger, Filters(kind="flagged")).rows[:5]
    assert rows
    found = [compare.clearing(here, dataset, record.one(here.ledger, row.anomaly_id)) for row in rows]
    assert any(one.changes for one in found)
    for row, one in zip(rows, found, strict=True):
        assert bool(one.changes) != bool(one.why_not)
        assert one.score is None or one.score < row.threshold
        named, changed = ([x.column for x in some] for some in (row.reasons, one.changes))
        assert changed[: len(named)] == named[: len(changed)]
        assert len(set(changed)) == len(changed)


def test_a_flag_is_cleared_by_as_many_columns_as_it_takes(
    scored: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a record whose first reason alone is known, columns that the model names next go along; where all of
    them do not do, that is said. A column that left the dataset's file is said to be gone.
    """
    here = scored.here
    dataset = here.dataset(scored.name)
    rows = [
        record.one(here.ledger, one.anomaly_id)
        for one in queue.page(here.ledger, Filters(kind="flagged")).rows
    ]
    monkeypatch.setattr(compare, "LONGEST", 3600)  # a busy machine says the same
    row = next(row for row in rows[:12] if len(compare.clearing(here, dataset, row).changes) > 1)
    alone = replace(row, reasons=row.reasons[:1], scored_at=row.scored_at - timedelta(days=1))
    found = compare.clearing(here, dataset, alone)
    assert len(found.changes) > len(alone.reasons)
    assert found.changes[0].column == row.reasons[0].column
    never = replace(alone, threshold=-1e9, scored_at=row.scored_at - timedelta(days=2))
    why_not = compare.clearing(here, dataset, never).why_not
    assert re.fullmatch(
        r"not found: with \d+ columns as expected the score is still \S+ nats, not below the threshold",
        why_not,
    )
    without = {name: column for name, column in dataset.columns.items() if name != row.reasons[0].column}
    left = dataset.model_copy(update={"columns": without})
    left.__dict__.pop("with_derived", None)
    gone = f"column {row.reasons[0].column!r} is not in the dataset's file any more"
    assert compare.clearing(here, left, row).why_not == gone
    old = replace(row.reasons[0], column="of an older file")
    asked = replace(row, reasons=(old, *row.reasons), scored_at=row.scored_at - timedelta(days=3))
    assert (
        compare.clearing(here, dataset, asked).why_not
        == "column 'of an older file' is not in the dataset's file any more"
    )


def test_no_more_columns_are_changed_than_is_said(scored: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wide record must not keep who reads it waiting."""
    here = scored.here
    (row,) = queue.page(here.ledger, Filters(kind="flagged"), limit=1).rows
    whole = record.one(here.ledger, row.anomaly_id)
    for name, most, said in (
        ("MOST_CHANGED", 1, "; more are not tried"),
        ("LONGEST", 0, "none of its columns"),
    ):
        monkeypatch.setattr(compare, name, most)
        asked = replace(whole, threshold=-1e9, scored_at=whole.scored_at - timedelta(days=len(said)))
        assert said in compare.clearing(here, here.dataset(scored.name), asked).why_not


def test_every_registered_version_says_how_it_scores_a_record_now(scored: Place) -> None:
    """The one that scored it says what it published, to the bit; an earlier or later one has a word of its
    own.
    """
    here = scored.here
    dataset = here.dataset(scored.name)
    flagged, sampled = (
        [record.one(here.ledger, row.anomaly_id) for row in queue.page(here.ledger, Filters(kind=kind)).rows[:3]]
        for kind in ("flagged", "sampled")
    )  # fmt: skip
    rows = [*flagged, *sampled]
    assert len(rows) == 6
    for row in rows:
        (said,) = versions.scored_by(here, dataset, row)
        assert (said.model_version, said.aliases) == (1, ("champion",))
        assert (said.anomaly_score, said.severity) == (row.anomaly_score, row.severity)
        assert (said.threshold, said.would_flag) == (row.threshold, row.kind == "flagged")
    scored.edit("steps: 60", "steps: 90")
    assert scored.train().model_version == 2
    later, earlier = versions.scored_by(here, dataset, rows[0])
    assert (later.model_version, later.aliases) == (2, ())
    assert later.anomaly_score != earlier.anomaly_score == rows[0].anomaly_score
    assert [one.model_version for one in versions.scored_by(here, dataset, rows[0], most=1)] == [2]
    shutil.rmtree(here.tables(dataset).root)
    assert versions.scored_by(here, dataset, rows[0]) == [later, earlier]  # known by now
    with pytest.raises(NotReady, match="not stored"):
        versions.scored_by(here, dataset, rows[-1])

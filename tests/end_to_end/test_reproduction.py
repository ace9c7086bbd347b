"""A registered version trained again: the same to the bit, or a reason in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.detection import detector
from pipeline.errors import ModelUnusable, NotReady
from pipeline.records import verdicts
from pipeline.registry import runs
from pipeline.review import judging, queue, record
from pipeline.review.filters import Filters
from pipeline.sample import SampleReceipt
from pipeline.steps.receipts import Receipt
from pipeline.training import experiment

from .conftest import Place


def reproduce(place: Place, version: int = 1) -> Receipt:
    return steps.reproduce(place.here, place.name, version)


def test_an_untouched_version_is_reproduced_to_the_bit_and_leaves_nothing(trained: Place) -> None:
    """What cannot be made again cannot be explained; and asking must not fill the registry."""
    before = trained.models()
    code, output, errors = trained.run("reproduce", trained.name, "1", "--json")
    assert code == 0, errors
    (receipt,) = json.loads(output)
    assert (receipt["outcome"], receipt["since"]) == ("equal", [])
    assert trained.models() == before
    assert trained.left_over() == []


def test_a_batch_delivered_again_is_read_as_it_was_and_named_when_that_is_gone(
    trained: Place, sample: SampleReceipt
) -> None:
    """A late correction must not make last month's model a riddle, nor be kept quiet."""
    day = sample.batch_ids[1]
    file = trained.incoming / f"{day}.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows - 7), file)
    trained.validate(day)
    kept = reproduce(trained)
    assert kept.outcome == "equal"
    (since,) = kept.since
    assert since.startswith(f"batch {day} was delivered again")
    assert "400 records accepted then, 393 now; read as of version" in since

    here = trained.here
    here.tables(here.dataset(trained.name)).vacuum("records", keep_hours=0)
    code, output, _ = trained.run("reproduce", trained.name, "1")
    assert code == 1
    assert "different: model version 1: features.numeric." in output
    assert f"likely because: batch {day} was delivered again" in output


def test_settings_of_today_are_named_and_have_no_part_in_it(trained: Place) -> None:
    """The seed that counts is the one the version was trained with."""
    trained.edit('schedule: "0 2 * * *"', 'schedule: "0 3 * * *"\n  seed: 8')
    trained.edit("steps: 60", "steps: 70")
    trained.edit("max: 1000}", "max: 900}")
    found = reproduce(trained)
    assert found.outcome == "equal"
    assert found.since == (
        "columns.items.max was 1000.0, is 900.0",
        "train.seed was 7, is 8",
        "train.recipe.steps was 60, is 70",
    )


def test_other_code_is_blamed_where_another_model_comes_out(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that changes what a model is must not pass for the same."""
    monkeypatch.setattr(experiment, "code_version", lambda: "9.9.9+changed")
    same = reproduce(trained)
    assert same.outcome == "equal"
    (since,) = same.since
    assert since.endswith("here it is 9.9.9+changed")
    monkeypatch.setattr(detector, "MOST_COMPARED", 50)
    other = reproduce(trained)
    assert other.outcome == "different"
    assert "calibration.scores:" in other.difference
    assert other.likely == same.since


def test_verdicts_are_those_of_then(scored: Place) -> None:
    """People go on judging, and take back; a version is what it learned. Its note names no record by its
    key.
    """
    here = scored.here
    first, second = queue.page(here.ledger, Filters(kind="flagged"), limit=2).rows
    given = judging.give(here.ledger, [first.anomaly_id], "anomaly", by="ann")
    judging.give(here.ledger, [second.anomaly_id], "normal", by="ann")
    version = scored.train().model_version
    assert version == 2
    _, note = here.registry.note(scored.name, version)
    assert (note["left_out"], note["normal"]) == ([first.anomaly_id], [second.anomaly_id])
    keys = [record.one(here.ledger, row.anomaly_id).record_key for row in (first, second)]
    assert not [key for key in keys if key in json.dumps(note)]

    judging.undo(here.ledger, given.act, by="ann")
    assert verdicts.judged(here.ledger, scored.name)[0] == []
    found = reproduce(scored, version)
    assert found.outcome == "equal"
    assert found.since == ("verdicts: 0 anomalies added since, 1 no longer judged so",)
    assert reproduce(scored, 1).since == ("verdicts: 1 normal records added since, 0 no longer judged so",)


@pytest.mark.parametrize(
    ("noted", "says"),
    [
        (lambda _: None, "has no training.json"),
        (lambda note: note | {"format": 99}, "has format 99"),
        (
            lambda note: note | {"batches": note["batches"][1:]},
            "describes other data than this version learned",
        ),
    ],
    ids=["none", "format", "another's"],
)
def test_a_note_that_cannot_be_gone_by_is_refused(
    noted: Callable[[dict[str, Any]], dict[str, Any] | None],
    says: str,
    trained: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Saying equal or different of the wrong training would be worse than saying nothing."""
    _, note = trained.here.registry.note(trained.name, 1)
    monkeypatch.setattr(runs, "read_note", lambda *_: noted(note))
    with pytest.raises(ModelUnusable, match=says):
        reproduce(trained)
    with pytest.raises(NotReady, match="no version 9"):
        reproduce(trained, 9)

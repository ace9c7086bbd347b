"""From published scores to the queue: every flagged record, an honest sample of the others, nothing that
breaks a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id
from pipeline.review import effects, judging, parts, queue, record, statistics, suppression
from pipeline.review.filling import catch_up, direction, fill, plain, signature_of
from pipeline.review.filters import Filters
from pipeline.review.groups import groups
from pipeline.review.queued import ODDNESSES, Reason, oddness
from pipeline.storage.ledger import BatchState, Ledger
from pipeline.storage.review_schema import NO_COLUMN

from .published import payments_yaml as payments_yaml  # fixtures
from .published import publish as publish
from .review_data import ODD, put, reason, row


def test_a_scored_batch_is_in_the_queue_whole_and_once(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Flagged records with reasons and values; half as many sampled ones; filled again, the same."""
    publish()
    dataset = here.dataset("payments")
    assert catch_up(here, dataset) == ["2026-01-30"]
    rows = queue.page(here.ledger, Filters()).rows
    assert [(one.record_key, one.kind) for one in rows if one.kind == "flagged"] == [
        ("2026-01-30-004", "flagged"),
        ("2026-01-30-003", "flagged"),
    ]
    assert [one.kind for one in rows].count("sampled") == 1
    found = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    assert found.record == {"at": "2026-01-30T04:00:00+00:00", "card": "c4", "amount": 4.0}
    assert (found.driver, found.signature, found.band) == ("amount", "amount↑", 0)
    assert {one.kind: one.oddness for one in rows} == {"flagged": "above", "sampled": ""}
    assert catch_up(here, dataset) == []
    assert catch_up(here, dataset, force=True) == ["2026-01-30"]
    assert queue.page(here.ledger, Filters()).rows == rows


@pytest.mark.parametrize(("first", "how"), ODD)
def test_a_record_is_odd_as_its_first_reason_is(first: dict[str, Any], how: str) -> None:
    """Whatever the others are; a category may be a number, and is above nothing."""
    others = [Reason(**reason("fee", observed="missing")), Reason(**reason("items"))]
    assert oddness([Reason(**first), *others]) == how
    assert {one for _, one in ODD} | {oddness([])} == {*ODDNESSES}


def test_a_score_is_the_sum_that_was_published(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Of a flagged record by columns, of a sampled one as a whole; of a batch of before it was kept, nothing
    is made up.
    """
    publish()
    publish("2026-01-31", without=("kl_weight", "terms"))
    catch_up(here, here.dataset("payments"))
    found, scores = {}, {}
    for one in queue.page(here.ledger, Filters()).rows:
        scores[one.day, one.kind] = one.anomaly_score
        whole = record.one(here.ledger, one.anomaly_id)
        found[one.day, one.kind] = [(part.kind, part.nats) for part in parts.of_score(whole)]
    assert found["2026-01-30", "flagged"] == [("column", 2.25), ("others", 0.25), ("kl", 0.5)]
    assert found["2026-01-30", "sampled"] == [("others", scores["2026-01-30", "sampled"] - 0.5), ("kl", 0.5)]
    assert found["2026-01-31", "flagged"] == found["2026-01-31", "sampled"] == []


def test_the_sample_is_the_same_whichever_model_scored(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """A sample that moved with the model could be steered by it; records that were judged would be judged
    again.
    """
    dataset = here.dataset("payments")
    chosen = []
    for version in (3, 4):
        publish(flagged=(0, 1, 2, 3), version=version)
        catch_up(here, dataset)
        chosen.append({one.record_key for one in queue.page(here.ledger, Filters(kind="sampled")).rows})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 2
    others = dataset.model_copy(update={"review": dataset.review.model_copy(update={"seed": 8})})
    catch_up(here, others, force=True)
    assert {one.record_key for one in queue.page(here.ledger, Filters(kind="sampled")).rows} != chosen[0]


def test_the_queue_follows_a_batch_that_was_scored_again(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """A verdict names a record: it is there under the next model, too, and both models' words are kept."""
    dataset = here.dataset("payments")
    publish(flagged=(3, 4), version=3)
    catch_up(here, dataset)
    name = anomaly_id("payments", "2026-01-30", "2026-01-30-004")
    judging.give(here.ledger, [name], "anomaly", by="ann")
    publish(flagged=(4, 5), version=4)
    assert catch_up(here, dataset) == ["2026-01-30"]
    found = record.one(here.ledger, name)
    assert (found.state, found.model_version) == ("anomaly", 4)
    assert [version.model_version for version in found.versions] == [3, 4]
    publish(flagged=(5,), version=5)
    for _ in range(2):
        catch_up(here, dataset, force=True)
    words = [
        (word.model_version, word.kind, round(word.severity, 3))
        for word in record.one(here.ledger, name).versions
    ]
    assert words == [(3, "flagged", 0.4), (4, "flagged", 0.4), (5, "cleared", 0.4)]


def test_records_that_no_column_explains_are_a_group_of_their_own(store: Ledger) -> None:
    """An empty signature is every signature's: a link to such a group, or a rule of it, would mean all
    records.
    """
    put(store, [row("whole", signature=NO_COLUMN, reasons=[]), row("amount")])
    (lone,) = [group for group in groups(store, Filters()) if group.signature == NO_COLUMN]
    assert lone.n == 1
    assert [one.record_key for one in queue.page(store, Filters(signature=lone.signature)).rows] == ["whole"]
    last = datetime.now(UTC).date().isoformat()
    suppression.save(store, suppression.Rule("payments", lone.signature, {}, last, "known", "ann"))
    assert [one.record_key for one in queue.page(store, Filters()).rows] == ["amount"]


def test_a_record_dated_in_the_future_does_not_move_the_windows(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """One clock set to 2099 would leave groups and drafts looking at thirty empty days."""
    dataset, ledger = here.dataset("payments"), here.ledger
    state = replace(publish("2026-01-30"), newest_record_at=datetime(2099, 1, 1, tzinfo=UTC))
    assert fill(here, dataset, state, scored_at=datetime.now(UTC)).day == "2026-01-30"
    put(ledger, [row("late", "2099-01-01")])
    assert queue.newest_day(ledger) == "2026-01-30"
    last = datetime.now(UTC).date().isoformat()
    draft = suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann")
    assert effects.preview(ledger, draft).n_hidden == 3
    assert statistics.review(ledger).days[-1].day == "2026-01-30"


def test_a_batch_without_accepted_records_is_held_as_empty(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Or it would be looked for again every night."""
    state = replace(publish(), n_accepted=0)
    done = fill(here, here.dataset("payments"), state, scored_at=datetime.now(UTC))
    assert (done.n_flagged, done.n_unflagged, done.n_sampled) == (0, 0, 0)


@pytest.mark.parametrize(
    ("batch_id", "day"),
    [
        ("2026-01-15", "2026-01-15"),
        ("2026-01-15T06", "2026-01-15"),
        ("2026-01_undated", "2026-01-01"),
        ("2026-01-15_undated", "2026-01-15"),
        ("y-2026_undated", "2026-01-01"),
        ("2026-01", "2026-04-02"),
        ("north", "2026-04-02"),
    ],
)
def test_without_a_time_of_its_records_a_batch_is_of_the_day_that_its_name_says(
    here: Installation, publish: Callable[..., BatchState], batch_id: str, day: str
) -> None:
    """Not of the day it was checked on: of an archive that would be today, and whoever looks at the thirty
    newest days of the queue would find them empty.
    """
    checked = datetime(2026, 4, 2, 1, tzinfo=UTC)
    state = replace(publish(), batch_id=batch_id, n_accepted=0, newest_record_at=None, validated_at=checked)
    assert fill(here, here.dataset("payments"), state, scored_at=checked).day == day


@pytest.mark.parametrize(
    ("given", "arrow"),
    [
        ({"observed": "900", "expected": "12.5"}, "↑"),
        ({"observed": "-1", "expected": "12.5"}, "↓"),
        ({"observed": "missing", "expected": "12.5"}, "∅"),
        ({"observed": "US", "expected": "DE (93%)"}, "≠"),
    ],
)
def test_a_reason_has_a_direction(given: dict[str, str], arrow: str) -> None:
    """Too much and too little seldom have one cause."""
    assert direction(reason(**given)) == arrow


def test_a_signature_is_of_the_columns_that_matter_in_one_order() -> None:
    """Two records with one cause must not be told apart by which of two columns came first."""
    both = [reason("b", 0.5), reason("a", 0.4, observed="1"), reason("c", 0.05)]
    assert signature_of(both) == signature_of([both[1], both[0], both[2]]) == "a↓ b↑"
    assert signature_of([reason("c", 0.05)]) == "c↑"
    assert signature_of([]) == NO_COLUMN


def test_any_value_becomes_json() -> None:
    """What Parquet holds and JSON has no word for."""
    odd = {
        "inf": float("inf"),
        "day": date(2026, 1, 1),
        "raw": b"\x00",
        "money": Decimal("1.10"),
        "list": [float("nan")],
    }
    assert json.loads(json.dumps(plain(odd), allow_nan=False)) == {
        "inf": "inf", "day": "2026-01-01", "raw": "00", "money": "1.10", "list": ["nan"],
    }  # fmt: skip

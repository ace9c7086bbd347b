"""From published scores to the queue: every flagged record, an honest sample of the others, nothing that
breaks a page.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipeline.config.columns import Derived
from pipeline.detection.features import Number
from pipeline.detection.measures import ColumnDrift, Measures
from pipeline.detection.reference import NumberShape
from pipeline.detection.scoring import scores_schema
from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.records.verdicts import anomaly_id
from pipeline.review import (
    cells,
    compare,
    filling,
    judging,
    parts,
    queue,
    record,
    statistics,
    suppression,
    usual,
    versions,
)
from pipeline.review.filling import catch_up, direction, fill, plain, signature_of
from pipeline.review.filters import Filters
from pipeline.review.groups import groups
from pipeline.review.intake import replace_batch
from pipeline.review.queued import ODDNESSES, Reason, oddness
from pipeline.storage.ledger import BatchState, Ledger
from pipeline.storage.review_schema import NO_COLUMN, suppressions

from .review_data import BATCH, ODD, put, reason, row
from .review_page import as_role

DATASET = """\
dataset: payments
incoming: {path: ../incoming}
time: at
entity: card
columns:
  at: {type: timestamp_utc}
  card: {type: string}
  amount: {type: float, role: numeric}
review: {sample_share: 0.5}
"""
RECORD = pa.struct([("at", pa.timestamp("us", "UTC")), ("card", pa.string()), ("amount", pa.float64())])
N = 40


@pytest.fixture
def payments_yaml() -> str:
    return DATASET


@pytest.fixture
def publish(here: Installation) -> Callable[..., BatchState]:
    """Put a batch of 40 records into the tables, some of them flagged, and into the ledger as scored."""

    def batch(
        batch_id: str = "2026-01-30",
        flagged: tuple[int, ...] = (3, 4),
        version: int = 3,
        without: tuple[str, ...] = (),
    ) -> BatchState:
        at = datetime.fromisoformat(batch_id).replace(tzinfo=UTC)
        values = [{"at": at.replace(hour=i % 24), "card": f"c{i % 5}", "amount": float(i)} for i in range(N)]
        keys = [f"{batch_id}-{i:03}" for i in range(N)]
        records = pa.table({
            "batch_id": [batch_id] * N,
            "set_aside": [False] * N,
            "row_number": list(range(N)),
            "record_key": keys,
            "reasons": pa.nulls(N, pa.list_(pa.string())),
            "record": pa.array(values, RECORD),
        })
        tables = here.tables(here.dataset("payments"))
        tables.replace("records", batch_id, records.to_reader, note={})
        rows = [_scored(batch_id, i, keys[i], values[i], i in flagged, version) for i in range(N)]
        scores = pa.Table.from_pylist(rows, scores_schema(RECORD)).drop_columns(list(without))
        tables.replace("scores", batch_id, scores.to_reader, note={})
        state = BatchState(
            "payments", batch_id, 1, "accepted", "", f"f{version}", "s", "c", [], [], {}, N, N,
            at.replace(hour=23), at,
        )  # fmt: skip
        written = here.ledger.record_validation(state)
        return here.ledger.record_scores(
            written, model_version=version, threshold=4.5, n_flagged=len(flagged)
        )

    return batch


def _scored(
    batch_id: str, i: int, key: str, values: dict[str, Any], flagged: bool, version: int
) -> dict[str, Any]:
    row = {
        "batch_id": batch_id, "flagged": flagged, "row_number": i, "record_key": key, "anomaly_score": float(i),
        "reconstruction": 1.0, "kl_divergence": 1.0, "p_value": 0.1, "severity": i / 10, "threshold": 4.5,
        "model_version": version, "kl_weight": 0.5,
    }  # fmt: skip
    more = {
        "anomaly_id": anomaly_id("payments", batch_id, key),
        "kl_share": 0.1,
        "reasons": [reason()],
        "terms": [{"column": "amount", "nats": i - 0.75}],
        "record": values,
    }
    return row | (more if flagged else {})


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
    assert suppression.preview(ledger, draft).n_hidden == 3
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


def test_neighbours_are_the_entitys_records_around_it(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What the same card did before and after, across batches."""
    for day in ("2026-01-29", "2026-01-30"):
        publish(day)
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    found = record.neighbours(here, dataset, row, each_side=2)
    assert found.of == "card c4"
    times = [one.record["at"] for one in found.rows]
    assert times == sorted(times)
    assert {one.record["card"] for one in found.rows} == {"c4"}
    assert [one.is_this for one in found.rows].count(True) == 1
    assert len({one.batch_id for one in found.rows}) == 2
    flagged = {one.anomaly_id for one in queue.page(here.ledger, Filters(kind="flagged")).rows}
    names = [anomaly_id("payments", one.batch_id, one.record_key) for one in found.rows]
    assert [one.anomaly_id for one in found.rows] == [name if name in flagged else None for name in names]
    at = [one.is_this for one in found.rows].index(True)
    assert found.before == found.rows[at - 1]


def test_a_column_has_the_distribution_of_its_batch(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What an observed value is drawn against."""
    publish()
    dataset = here.dataset("payments")
    amount = usual.usual(here, dataset, "2026-01-30", "amount")
    assert amount
    assert (
        sum(amount.counts) == N - 2
    )  # the outermost are beyond the edges, or one outlier would hide the rest
    card = usual.usual(here, dataset, "2026-01-30", "card", asked=["c9"])
    assert card
    assert dict(card.categories) == dict.fromkeys((f"c{i}" for i in range(5)), 0.2) | {"c9": 0.0}
    assert usual.usual(here, dataset, "2026-01-30", "no such column") is None


@pytest.mark.parametrize(
    "share_same", [0.0, 0.6, 1.0], ids=["all different", "mostly one value", "always that value"]
)
def test_a_derived_column_has_the_distribution_that_the_model_learned(
    here: Installation, share_same: float
) -> None:
    """It is not stored with the records; against numpy's count of the same values in the same bins."""
    random = np.random.default_rng(7)
    values = random.normal(0.0, 2.0, 20_000)
    values[: int(share_same * 20_000)] = 0.25
    shape = NumberShape.fit(pa.chunked_array([values]), Number.fit(values))
    drift = ColumnDrift(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, usual=shape.counts, bins=shape.edges)
    found = Measures(9, 9, 0, 0.0, None, None, 9, 0, columns={"amount_change": drift})
    watched = store.Watched("b", date(2026, 1, 30), found, (), 3, datetime(2026, 1, 31, tzinfo=UTC))
    store.replace(here.ledger, "payments", watched)

    drawn = usual.usual(here, here.dataset("payments"), "b", "amount_change", around=[-4.5, 4.0])
    assert drawn
    assert drawn.known
    assert (drawn.n_records, sum(drawn.counts)) == (20_000, pytest.approx(20_000))
    assert drawn.edges[0] < -4.5
    assert drawn.edges[-1] > 4.0
    counted, _ = np.histogram(values, drawn.edges)
    inside = [
        i
        for i in range(len(counted))
        if drawn.known[0] <= drawn.edges[i] and drawn.edges[i + 1] <= drawn.known[1]
    ]
    np.testing.assert_allclose(np.array(drawn.counts)[inside], counted[inside], rtol=0.2)
    if share_same:
        most = int(np.argmax(drawn.counts))
        assert drawn.counts[most] >= share_same * 20_000
        assert (drawn.edges[most] + drawn.edges[most + 1]) / 2 == pytest.approx(0.25)


def test_a_rule_hides_what_it_said_it_would_until_it_is_ended(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Tried first, then kept; hidden records stay, are counted, and come back."""
    dataset, ledger = here.dataset("payments"), here.ledger
    publish(flagged=(3, 4, 8))
    catch_up(here, dataset)
    ids = [anomaly_id("payments", "2026-01-30", f"2026-01-30-{i:03}") for i in (3, 4, 8)]
    judging.give(ledger, ids[1:2], "anomaly", by="ann")
    last = datetime.now(UTC).date().isoformat()
    draft = suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann")
    tried = suppression.preview(ledger, draft)
    assert (tried.n_hidden, tried.n_judged, tried.n_confirmed, tried.examples[0]) == (3, 1, 1, ids[1])
    narrow = replace(draft, conditions={"card": "c3"})
    assert suppression.preview(ledger, narrow).n_hidden == 2
    kept = suppression.save(ledger, narrow)
    shown = {one.anomaly_id for one in queue.page(ledger, Filters(kind="flagged")).rows}
    assert shown == {ids[1]}
    assert queue.total(ledger, Filters(suppressed=True)) == 2
    catch_up(here, dataset, force=True)
    assert queue.total(ledger, Filters(suppressed=True)) == 2
    assert suppression.end(ledger, kept.number, by="bob") == 2
    assert queue.total(ledger, Filters(kind="flagged")) == 3


def test_a_rule_that_is_saved_while_a_batch_is_filled_in_hides_its_records(
    here: Installation, publish: Callable[..., BatchState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows were made before, and are written after: in sight until they are scored again, else."""
    look, last = filling.judged_keys, datetime.now(UTC).date().isoformat()
    rule = suppression.Rule("payments", "", {"card": "c3"}, last, "the sale", "ann")

    def look_while_somebody_saves(ledger: Ledger, dataset: str, batch_id: str) -> dict[str, str]:
        suppression.save(ledger, rule)
        return look(ledger, dataset, batch_id)

    monkeypatch.setattr(filling, "judged_keys", look_while_somebody_saves)
    done = fill(here, here.dataset("payments"), publish(flagged=(3, 4, 8)), scored_at=datetime.now(UTC))
    assert (done.n_flagged, done.n_suppressed) == (3, 2)
    hidden = queue.page(here.ledger, Filters(suppressed=True)).rows
    assert {one.record_key for one in hidden} == {"2026-01-30-003", "2026-01-30-008"}


def test_a_batch_that_is_filled_in_while_a_rule_is_saved_is_hidden_by_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the look for what the rule matches, for which nobody waits, and the rule."""
    put(ledger, [row("first")])
    last, look = datetime.now(UTC).date().isoformat(), suppression._matching
    rule = suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann")

    def fill_in() -> None:
        with ledger.transaction(write=True) as connection:
            rows = suppression.hidden(connection, "payments", [row("second", "2026-01-31")])
            replace_batch(connection, replace(BATCH, batch_id="2026-01-31", day="2026-01-31"), rows)

    other = threading.Thread(target=fill_in)

    def look_and_linger(*given: Any) -> list[Any]:
        found = list(look(*given))
        if other.ident is None:
            other.start()
            other.join()
        return found

    monkeypatch.setattr(suppression, "_matching", look_and_linger)
    number = suppression.save(ledger, rule).number
    hidden = queue.page(ledger, Filters(suppressed=True)).rows
    assert {(one.record_key, one.suppressed) for one in hidden} == {("first", number), ("second", number)}
    assert queue.total(ledger, Filters()) == 0


def test_a_rule_that_is_sent_twice_is_one_rule(store: Ledger) -> None:
    """A double click, or a request whose answer was lost; once it was ended, or in other words, it is new."""
    put(store, [row("de")])
    last = datetime.now(UTC).date()
    rule = suppression.Rule("payments", "amount↑", {"country": "DE"}, last.isoformat(), "the\0 sale", "ann")
    kept = suppression.save(store, rule)
    assert suppression.save(store, rule) == kept
    assert suppression.rules(store) == [kept]
    later = (last + timedelta(days=1)).isoformat()
    others: list[dict[str, Any]] = [
        {"by": "bob"}, {"note": "a sale"}, {"ends_on": later}, {"conditions": {}}, {"signature": ""}, {"dataset": "o"},
    ]  # fmt: skip
    for number, changed in enumerate(others, kept.number + 1):
        assert suppression.save(store, replace(rule, **changed)).number == number
    suppression.end(store, kept.number, by="ann")
    assert suppression.save(store, rule).number == kept.number + len(others) + 1


def test_what_a_rule_hid_stays_hidden_by_another(store: Ledger) -> None:
    """Ending one of two rules must not undo the other."""
    put(store, [row("de"), row("fr", record={"country": "FR"})])
    last = datetime.now(UTC).date().isoformat()
    everyone = suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann")
    first = suppression.save(store, everyone).number
    second = suppression.save(store, replace(everyone, signature="", conditions={"country": "FR"})).number
    assert queue.total(store, Filters(suppressed=True)) == 2
    assert suppression.end(store, first, by="bob") == 1
    assert [one.record_key for one in queue.page(store, Filters()).rows] == ["de"]
    assert suppression.end(store, second, by="bob") == 1
    assert queue.total(store, Filters()) == 2
    for number in (first, 99, 10**23):
        with pytest.raises(NotReady, match="no suppression rule"):
            suppression.end(store, number, by="bob")
    with pytest.raises(ConfigError, match="the name has 251 characters, 250 at most"):
        suppression.end(store, 99, by="x" * 251)


def test_records_come_back_after_a_rules_last_day(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """When the next batch is filled in, and that batch is not hidden: whatever its own day."""
    dataset, ledger = here.dataset("payments"), here.ledger
    publish("2026-01-29")
    catch_up(here, dataset)
    last = datetime.now(UTC).date().isoformat()
    kept = suppression.save(ledger, suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann"))
    assert queue.total(ledger, Filters(kind="flagged")) == 0
    with ledger.transaction(write=True) as connection:  # the last day passes
        rule = suppressions.c.number == kept.number
        connection.execute(sa.update(suppressions).where(rule).values(ends_on="2026-02-01"))
    assert catch_up(here, dataset) == []
    assert queue.total(ledger, Filters(kind="flagged")) == 2
    publish("2026-01-30")
    catch_up(here, dataset)
    assert queue.total(ledger, Filters(kind="flagged")) == 4
    assert queue.total(ledger, Filters(suppressed=True)) == 0


def test_no_rule_hides_what_was_judged(here: Installation, publish: Callable[..., BatchState]) -> None:
    """Judged while hidden, or before the batch is filled in again: a record with a verdict is in sight."""
    dataset, ledger = here.dataset("payments"), here.ledger
    publish(flagged=(3, 4, 8))
    catch_up(here, dataset)
    first, second, third = (anomaly_id("payments", "2026-01-30", f"2026-01-30-{i:03}") for i in (3, 4, 8))
    judging.give(ledger, [first], "anomaly", by="ann")
    last = datetime.now(UTC).date().isoformat()
    suppression.save(ledger, suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann"))
    judging.give(ledger, [second], "anomaly", by="ann")
    for _ in range(2):
        judged = queue.page(ledger, Filters(kind="flagged", state="anomaly")).rows
        assert {one.anomaly_id for one in judged} == {first, second}
        hidden = queue.page(ledger, Filters(suppressed=True)).rows
        assert [one.anomaly_id for one in hidden] == [third]
        catch_up(here, dataset, force=True)


def test_a_verdict_that_is_taken_back_leaves_its_record_to_the_rules(ledger: Ledger) -> None:
    """One that was hidden, or that a rule made since matches, is hidden again; any other one is in sight."""
    put(
        ledger,
        [row("before"), row("since"), row("fr", record={"country": "FR"}), row("drawn", kind="sampled")],
    )
    last = datetime.now(UTC).date().isoformat()
    acts = [judging.give(ledger, [row("since")["anomaly_id"]], "normal", by="ann").act]
    rule = suppression.Rule("payments", "", {"country": "DE"}, last, "the sale", "ann")
    number = suppression.save(ledger, rule).number
    others = [row(key)["anomaly_id"] for key in ("before", "fr", "drawn")]
    acts.append(judging.give(ledger, others, "normal", by="ann").act)
    assert queue.total(ledger, Filters(suppressed=True)) == 0
    for act in acts:
        judging.undo(ledger, act, by="ann")
    hidden = queue.page(ledger, Filters(suppressed=True)).rows
    assert {(one.record_key, one.suppressed) for one in hidden} == {("before", number), ("since", number)}
    assert {one.record_key for one in queue.page(ledger, Filters()).rows} == {"fr", "drawn"}
    assert queue.total(ledger, Filters()) == 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"signature": ""}, "it would hide everything"),
        ({"note": " "}, "needs a note"),
        ({"by": "x" * 251}, "the name has 251 characters, 250 at most"),
        ({"ends_on": "soon"}, "'soon' is not a day"),
        ({"ends_on": "2020-01-01"}, "must lie within 366 days"),
    ],
)
def test_a_rule_that_would_hide_too_much_is_refused(
    here: Installation, changed: dict[str, Any], says: str
) -> None:
    """A rule nobody remembers is how real anomalies are missed."""
    plain_rule = suppression.Rule(
        "payments", "amount↑", {}, datetime.now(UTC).date().isoformat(), "why", "ann"
    )
    with pytest.raises(ConfigError, match=says):
        suppression.save(here.ledger, replace(plain_rule, **changed))


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


def test_what_was_looked_up_holds_until_the_batch_is_scored_again(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """A record is looked at more than once, and its batch read once."""
    dataset = here.dataset("payments")

    def nearest() -> list[str]:
        catch_up(here, dataset)
        row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
        return [one.record_key[-3:] for one in compare.nearest(here, dataset, row)]

    publish(flagged=(3, 4))
    assert nearest() == ["005", "002", "006"]
    tables = here.tables(dataset).root
    shutil.move(tables, f"{tables}.gone")
    assert nearest() == ["005", "002", "006"]
    shutil.move(f"{tables}.gone", tables)
    publish(flagged=(3, 4, 5), version=4)
    assert "005" not in nearest()


def deliver_again(here: Installation, order: list[int]) -> None:
    """The same records in another order, checked and not scored."""
    dataset, day = here.dataset("payments"), "2026-01-30"
    tables, state = here.tables(dataset), here.ledger.newest("payments", "2026-01-30")
    assert state is not None
    before = tables.read("records", batch_id=day).sort_by("row_number")
    moved = before.take(order).set_column(
        before.column_names.index("row_number"), before.field("row_number"), before["row_number"]
    )
    tables.replace("records", day, moved.to_reader, note={})
    here.ledger.record_validation(replace(state, fingerprint="again", scored_at=None))


def test_a_record_that_lies_elsewhere_by_now_is_not_mistaken_for_the_one_in_its_place(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Delivered again in another order, not scored yet: the queue's row numbers are those of before."""
    publish(flagged=(3, 4))
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    (this,) = (one for one in record.neighbours(here, dataset, row).rows if one.is_this)
    assert this.record_key == row.record_key
    deliver_again(here, list(range(N))[::-1])
    for look in (record.neighbours, compare.nearest, versions.stored):
        with pytest.raises(NotReady, match="delivered again since, or is not stored"):
            look(here, dataset, row)
    browser = as_role(here, may_write=False)
    for part in ("neighbours", "nearest"):
        shown = browser.get(f"/record/{row.anomaly_id}/{part}", params={"part": True})
        assert (shown.status_code, "delivered again since" in shown.text) == (200, True)
        assert "2026-01-30-035" not in shown.text
        assert browser.get(f"/api/records/{row.anomaly_id}/{part}").status_code == 404


def test_which_records_are_normal_is_not_told_by_the_scores_of_an_earlier_delivery(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """The record lies where it lay, the other flagged one does not."""
    publish(flagged=(3, 4))
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    deliver_again(here, [0, 1, 2, 5, 4, 3, *range(6, N)])
    with pytest.raises(NotReady, match="not scored yet"):
        compare.nearest(here, dataset, row)
    (this,) = (one for one in record.neighbours(here, dataset, row).rows if one.is_this)
    assert this.record_key == row.record_key


@pytest.mark.parametrize("rows_at_once", [1, 7, N, 1000])
def test_columns_are_read_as_they_are_stored_however_many_rows_at_once(
    here: Installation, publish: Callable[..., BatchState], monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """All of some batches, the first of one, or a few by their place; a column that is not stored is
    missing.
    """
    monkeypatch.setattr(cells, "SLICE", rows_at_once)
    monkeypatch.setattr(cells, "SOME", rows_at_once)
    dataset, days = here.dataset("payments"), ["2026-01-29", "2026-01-30"]
    assert cells.read(here, dataset, days, ["card"]) is None
    for day in days:
        publish(day)
    found = cells.read(here, dataset, days, ["card", "unheard of"])
    assert found is not None
    rows = sorted(found.to_pylist(), key=lambda one: (one["batch_id"], one["row_number"]))
    assert rows == [
        {"batch_id": day, "row_number": i, "0": f"c{i % 5}", "1": None} for day in days for i in range(N)
    ]
    first = cells.read(here, dataset, days[:1], ["amount"], most=9)
    assert first is not None
    assert first["0"].to_pylist() == [float(i) for i in range(9)]
    places = [(days[1], N - 1), (days[0], 3), (days[1], 0), (days[0], N)]
    whole = cells.whole(here, dataset, places)
    assert [(place, key, values["amount"]) for place, (key, values) in whole.items()] == [
        ((day, i), f"{day}-{i:03}", float(i)) for day, i in places[:3]
    ]
    assert cells.whole(here, dataset, []) == {}


def test_nearest_are_the_unflagged_records_that_are_most_alike(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What a normal record like this one looks like, and in what it differs."""
    publish(flagged=(3, 4))
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    found = compare.nearest(here, dataset, row)
    assert [one.record_key[-3:] for one in found] == ["005", "002", "006"]
    assert [round(one.distance, 3) for one in found] == sorted(round(one.distance, 3) for one in found)
    assert found[0].differs == ("amount",)
    ignored = {name: one.model_copy(update={"role": "ignored"}) for name, one in dataset.columns.items()}
    step = Derived(sql='"amount" - lag("amount") OVER by_time')
    by_steps = dataset.model_copy(update={"columns": ignored, "derived": {"step": step}})
    by_steps.__dict__.pop("with_derived", None)  # what it was before
    near = compare.nearest(here, by_steps, row)  # the model reads what is derived from it alone
    assert (near[0].record_key[-3:], near[0].differs) == ("005", ("amount",))
    sampled = record.one(here.ledger, queue.page(here.ledger, Filters(kind="sampled")).rows[0].anomaly_id)
    assert sampled.record_key not in {one.record_key for one in compare.nearest(here, dataset, sampled)}
    assert compare.clearing(here, dataset, sampled).why_not == "it is not flagged"
    assert compare.clearing(here, dataset, row).why_not == "model version 3 is no longer in the registry"

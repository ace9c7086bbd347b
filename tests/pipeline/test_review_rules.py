"""Suppression: a rule hides what it said it would, keeps it, counts it, and gives it back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipeline.errors import ConfigError, NotReady
from pipeline.installation import Installation
from pipeline.records.verdicts import anomaly_id
from pipeline.review import effects, filling, judging, queue, suppression
from pipeline.review.filling import catch_up, fill
from pipeline.review.filters import Filters
from pipeline.review.intake import replace_batch
from pipeline.storage.ledger import BatchState, Ledger
from pipeline.storage.review_schema import suppressions

from .published import payments_yaml as payments_yaml  # fixtures
from .published import publish as publish
from .review_data import BATCH, put, row


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
    tried = effects.preview(ledger, draft)
    assert (tried.n_hidden, tried.n_judged, tried.n_confirmed, tried.examples[0]) == (3, 1, 1, ids[1])
    narrow = replace(draft, conditions={"card": "c3"})
    assert effects.preview(ledger, narrow).n_hidden == 2
    kept = suppression.save(ledger, narrow)
    shown = {one.anomaly_id for one in queue.page(ledger, Filters(kind="flagged")).rows}
    assert shown == {ids[1]}
    assert queue.total(ledger, Filters(suppressed=True)) == 2
    catch_up(here, dataset, force=True)
    assert queue.total(ledger, Filters(suppressed=True)) == 2
    assert suppression.end(ledger, kept.number, by="bob") == 2
    assert queue.total(ledger, Filters(kind="flagged")) == 3


@pytest.mark.parametrize("newest", [date(2016, 8, 31), datetime.now(UTC).date()], ids=["old", "of today"])
def test_a_draft_is_tried_on_the_newest_30_days_of_its_dataset(ledger: Ledger, newest: date) -> None:
    """Counted from its newest batch, whatever today is. One of tomorrow, a clock's error, moves nothing."""
    backs = {"newest": 0, "29": 29, "30": 30, "31": 31}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    days = {key: newest - timedelta(days=back) for key, back in backs.items()} | {"tomorrow": tomorrow}
    rows = {key: row(key, day.isoformat()) for key, day in days.items()}
    put(ledger, [*rows.values(), row("other", dataset="orders")])
    for key in ("29", "31"):
        judging.give(ledger, [rows[key]["anomaly_id"]], "anomaly", by="ann")
    last = datetime.now(UTC).date().isoformat()
    tried = effects.preview(ledger, suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann"))
    shown = {key for key, one in rows.items() if one["anomaly_id"] in tried.examples}
    assert shown == {"newest", "29", "tomorrow"}
    assert (tried.n_hidden, tried.n_judged, tried.n_confirmed) == (3, 1, 1)
    assert tried.text.startswith("in the last 30 days it would have hidden 3 records;")
    assert tried.n_open == 3  # of any day: "30" too, while "29" is judged
    assert tried.text.endswith("; saved, it hides 3 records of the whole queue")


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
    last, look = datetime.now(UTC).date().isoformat(), suppression.matching
    rule = suppression.Rule("payments", "amount↑", {}, last, "the sale", "ann")

    def fill_in() -> None:
        with ledger.transaction(write=True) as connection:
            rows = suppression.marked(connection, "payments", [row("second", "2026-01-31")])
            replace_batch(connection, replace(BATCH, batch_id="2026-01-31", day="2026-01-31"), rows)

    other = threading.Thread(target=fill_in)

    def look_and_linger(*given: Any) -> list[Any]:
        found = list(look(*given))
        if other.ident is None:
            other.start()
            other.join()
        return found

    monkeypatch.setattr(suppression, "matching", look_and_linger)
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

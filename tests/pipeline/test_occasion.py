"""Whether a night is worth a training, and what is reported either way."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from pipeline.config.training import TrainingWhen
from pipeline.detection.measures import Measures
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.records.verdicts import anomaly_id
from pipeline.records.window import Window
from pipeline.storage.ledger import BatchState, Ledger
from pipeline.training import occasion
from pipeline.training.occasion import Since
from pipeline.training.provenance import Note

QUIET = Since(n_records=0, n_learned=1000, n_verdicts=0, age_days=0.5, drifted=())


@pytest.mark.parametrize(
    ("when", "happened", "says"),
    [
        ({"new_records": 100}, {"n_records": 100}, "100 new records (trains at 100)"),
        ({"new_share": 0.1}, {"n_records": 100}, "10.0% new records (trains at 10.0%)"),
        ({"new_share": 0.1}, {"n_learned": 0}, "inf% new records (trains at 10.0%)"),
        ({"new_verdicts": 3}, {"n_verdicts": 4}, "4 new verdicts (trains at 3)"),
        ({"age_days": 7}, {"age_days": 7.0}, "the newest version is 7.0 days old (trains at 7)"),
        ({"drift": True}, {"drifted": ("day4 (b: moved)",)}, "1 batch has drifted since: day4 (b: moved)"),
    ],
)
def test_any_one_thing_is_enough_and_none_is_a_reason_to_skip(
    when: dict[str, Any], happened: dict[str, Any], says: str
) -> None:
    """The bound itself is enough; everything asked for that is not reached is said, so that nobody
    wonders.
    """
    found = occasion.decide(TrainingWhen(**when), Since(**{**vars(QUIET), **happened}))
    assert (found.train, found.reasons) == (True, (says,))
    alone = occasion.decide(TrainingWhen(**when), QUIET)
    assert not alone.train
    both = occasion.decide(TrainingWhen(**{"age_days": 30, "new_verdicts": 99, **when}), QUIET)
    assert (both.train, len(both.reasons)) == (False, len({"age_days", "new_verdicts", *when}))


def test_what_is_new_is_what_the_newest_version_has_not_learned() -> None:
    """A batch delivered again is new; one that left the window is not; a verdict taken back counts like one
    given.
    """
    learned = [
        {"batch_id": day, "fingerprint": "a", "contract_hash": "c", "n_accepted": 500} for day in ("d1", "d2")
    ]
    ids = [anomaly_id("orders", "d2", key) for key in ("kept", "taken back")]
    then = Note({}, learned, ids, [], 500.0, 1, "code", {})
    batches = (state("d2", "a"), state("d3", "a"), state("d4", "b"))
    odd, normal = (("d2", "kept"), ("d3", "new")), (("d2", "fine"),)
    window = Window(batches, 1500, 500.0, "", odd, normal)
    found = occasion.since("orders", then, window, (odd, normal), 2.0, ["d3 (b: moved)"])
    assert found == Since(
        n_records=1000, n_learned=1000, n_verdicts=3, age_days=2.0, drifted=("d3 (b: moved)",)
    )
    assert [batch.batch_id for batch in occasion.fresh(then, window)] == ["d3", "d4"]
    again = occasion.since("orders", then, Window((state("d1", "new"),), 500, 500.0, ""), ((), ()), 0)
    assert (again.n_records, again.n_verdicts) == (500, 2)


def state(batch_id: str, fingerprint: str) -> BatchState:
    now = datetime.now(UTC)
    return BatchState(
        "orders",
        batch_id,
        1,
        "scored",
        "",
        fingerprint,
        "",
        "c",
        [],
        [],
        {},
        500,
        500,
        now,
        now,
    )


def test_drift_is_what_monitoring_told_of_the_batches_since(ledger: Ledger) -> None:
    """There is one notion of drift: a full backlog is told, too, and no training would answer it."""
    measures = Measures(500, 500, 5, 5.0, 0.5, 0.01, 500, 0)
    moved = Finding("drift:b", "warning", "b: values moved", "ask the source")
    backlog = Finding("backlog", "warning", "900 records wait", "review them")
    for day, found in ((1, (moved,)), (3, (backlog, moved)), (4, (backlog,))):
        when = date(2026, 1, day)
        store.replace(ledger, "orders", store.Watched(f"d{day}", when, measures, found, 1, datetime.now(UTC)))
    batches = [state(f"d{day}", "a") for day in (3, 4, 5)]
    assert occasion._drifted(ledger, "orders", batches) == ["d3 (b: values moved)"]
    assert occasion._drifted(ledger, "payments", batches) == []

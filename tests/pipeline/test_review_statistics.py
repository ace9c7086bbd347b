"""What verdicts add up to: intervals that hold as often as they say, and counts that add up."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.ledger import Ledger
from pipeline.review import judging, statistics
from pipeline.review.statistics import recall, wilson

from .review_data import SCORED_AT, put, row

FALSE_ALARM_RATE = 1e-6


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_share_has_wilsons_interval(hits: int, more: int) -> None:
    """Against scipy's; without observations it may be anything."""
    n = hits + more
    share = wilson(hits, n)
    if n == 0:
        assert (share.value, share.low, share.high) == (None, 0, 1)
        return
    known = binomtest(hits, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((known.low, known.high), abs=1e-6)


def test_the_interval_of_recall_holds_as_often_as_it_says() -> None:
    """True recall is inside in 95 of 100 reviews at least; a test of 400, wrong once in a million runs."""
    rng, n_flagged, n_unflagged, inside = np.random.default_rng(3), 500, 50_000, 0
    precision, missed_rate = 0.8, 0.004
    truth = n_flagged * precision / (n_flagged * precision + n_unflagged * missed_rate)
    for _ in range(400):
        found = wilson(int(rng.binomial(200, precision)), 200)
        sample = wilson(int(rng.binomial(300, missed_rate)), 300)
        estimate = recall(found, n_flagged, sample, n_unflagged)
        inside += estimate.low <= truth <= estimate.high
    assert binom.cdf(inside, 400, 0.95) > FALSE_ALARM_RATE


def test_recall_is_not_told_before_both_samples_were_looked_at() -> None:
    """A recall of 1.00 from nothing is the number that everybody would quote."""
    for flagged, sampled in ((wilson(3, 3), wilson(0, 0)), (wilson(0, 0), wilson(0, 9))):
        found = recall(flagged, 100, sampled, 1000)
        assert (found.value, found.low, found.high) == (None, 0, 1)


def test_verdicts_add_up(store: Ledger) -> None:
    """Precision is that of the version that flagged a record, whoever scored it since."""
    put(store, [row(f"k{i}") for i in range(4)], scored_at=SCORED_AT)
    flagged = [row("hidden", "2026-01-28", suppressed=1), row("early", "2026-01-28")]
    put(store, [*flagged, *(row(key, "2026-01-28", kind="sampled") for key in ("s1", "s2"))])
    ids = {key: row(key)["anomaly_id"] for key in ("k0", "k1", "k2", "k3")}
    judging.give(store, [ids["k0"]], "anomaly", by="ann")
    judging.give(store, [ids["k1"]], "data_error", by="ann")
    judging.give(store, [ids["k2"]], "normal", by="ann")
    judging.give(store, [ids["k2"]], "normal", by="bob")
    judging.give(store, [ids["k0"]], "anomaly", by="bob")
    judging.give(store, [ids["k0"]], "unsure", by="cid")
    judging.give(store, [row("s1", "2026-01-28")["anomaly_id"]], "normal", by="ann")
    put(store, [row("k1", model_version=4), row("k3", model_version=4)])  # version 4 clears k0 and k2
    found = statistics.review(store)
    shares = {key: (share.hits, share.n) for key, share in found.precision.items()}
    assert shares == {
        ("payments", 3): (1, 2),
        ("payments", 4): (1, 1),
    }  # k0 is in conflict: it counts for nobody
    assert (found.backlog, found.oldest_open, found.suppressed) == (2, "2026-01-28", 1)
    assert (found.agreement.hits, found.agreement.n) == (1, 2)
    assert found.reviewers == {"ann": 4, "bob": 2, "cid": 1}
    assert (found.recall.sampled.hits, found.recall.sampled.n) == (0, 1)
    assert found.recall.value == 1.0
    assert found.recall.low < 0.5
    assert found.hours_to_verdict
    assert found.hours_to_verdict > timedelta(days=1).total_seconds() / 3600
    days = {day.day: (day.n_flagged, day.n_judged, day.n_confirmed) for day in found.days}
    assert days == {"2026-01-28": (2, 0, 0), "2026-01-29": (0, 0, 0), "2026-01-30": (2, 1, 1)}
    assert dict(statistics.as_lines(found))["backlog"] == "2 open, the oldest of 2026-01-28"


def test_before_anything_was_judged_every_line_says_so(store: Ledger) -> None:
    """The first look at an empty installation is at words, not at a division by zero."""
    lines = dict(statistics.as_lines(statistics.review(store)))
    assert lines["time to verdict"] == "no verdict yet"
    assert "sampled" in lines["recall, estimated"]
    assert lines["backlog"] == "0 open"

"""What verdicts add up to: intervals that hold as often as they say, and counts that add up."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from pipeline.review import judging, statistics
from pipeline.review.estimates import Looked, both, recall, share_of, witnesses
from pipeline.storage.ledger import Ledger

from .review_data import SCORED_AT, put, row

FALSE_ALARM_RATE = 1e-6


@given(st.integers(0, 500), st.integers(0, 500))
def test_a_share_has_wilsons_interval(hits: int, more: int) -> None:
    """Against scipy's; without observations it may be anything."""
    n = hits + more
    share = share_of(hits, n)
    if n == 0:
        assert (share.value, share.low, share.high) == (None, 0, 1)
        return
    known = binomtest(hits, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((known.low, known.high), abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 50))
def test_equal_groups_of_one_mind_are_as_many_witnesses_as_groups(minds: list[bool], size: int) -> None:
    """A verdict on fifty records alike is one opinion; fifty records that are each alone are fifty."""
    assert witnesses([(size * mind, size) for mind in minds]) == pytest.approx(len(minds))
    assert witnesses([(int(mind), 1) for mind in minds]) == len(minds)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(any), min_size=1, max_size=40))
def test_there_are_never_more_witnesses_than_records_nor_fewer_than_groups_of_one_mind_give(
    counts: list[tuple[int, int]],
) -> None:
    """Whatever the verdicts; and to swap right and wrong changes nothing."""
    groups = [(hits, hits + more) for hits, more in counts]
    sizes = [size for _, size in groups]
    found = witnesses(groups)
    assert sum(sizes) ** 2 / sum(size**2 for size in sizes) - 1e-9 <= found <= sum(sizes) + 1e-9
    assert witnesses([(size - hits, size) for hits, size in groups]) == pytest.approx(found)
    assert witnesses([]) == 0


SIZES = {
    "alone": np.ones(300, int),
    "alike": np.full(40, 20),
    "few": np.full(15, 20),
    "uneven": np.r_[np.full(4, 60), np.full(40, 5), np.ones(60, int)],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("alike", [0.0, 0.1, 0.4, 1.0])
def test_the_interval_of_verdicts_in_groups_holds_as_often_as_it_says(
    sizes: np.ndarray, alike: float
) -> None:
    """The true share is inside in 92 of 100 reviews at least; a test of 1,000, wrong once in a million runs.

    Each group has its own share of records worth the time, with this intraclass correlation around .7.
    Wilson's interval of so few misses 95 by up to three, by where its ends fall between counts.
    """
    rng, inside, naive, spread = np.random.default_rng(5), 0, 0, 1 / max(alike, 1e-6) - 1
    for _ in range(1000):
        shares = rng.beta(0.7 * spread, 0.3 * spread, len(sizes)) if spread else rng.random(len(sizes)) < 0.7
        hits = rng.binomial(sizes, shares).tolist()
        n, worth = int(sizes.sum()), witnesses(list(zip(hits, sizes.tolist(), strict=True)))
        grouped, single = share_of(sum(hits), n, witnesses=worth), share_of(sum(hits), n)
        inside += grouped.low <= 0.7 <= grouped.high
        naive += single.low <= 0.7 <= single.high
    assert binom.cdf(inside, 1000, 0.92) > FALSE_ALARM_RATE
    if alike >= 0.4 and sizes.max() > 1:
        assert naive < 700  # what records that are counted one by one would promise


def reviewed(
    rng: np.random.Generator, batches: list[tuple[int, int, float]]
) -> tuple[list[Looked], list[Looked], float]:
    """Batches of (flagged, unflagged, share of anomalies among the unflagged) as people look at them, and the
    true recall.

    The more severe a flagged record, the likelier an anomaly; the most severe two thirds of a batch are
    judged, and all of its random sample: a tenth of what it flagged, one at least.
    """
    bands, sample, found, missed = [Looked(0, 0, 0)] * 4, [], 0, 0
    for n_flagged, n_unflagged, share in batches:
        severity = np.sort(rng.random(n_flagged))[::-1]
        odd = rng.random(n_flagged) < 0.3 + 0.65 * severity
        judged = np.arange(n_flagged) < 2 * n_flagged // 3
        for at in range(4):
            mine = (4 * severity).astype(int) == at
            counted = Looked(int(mine.sum()), int((mine & judged).sum()), int((mine & judged & odd).sum()))
            bands[at] = both(bands[at], counted)
        n_missed, n_sampled = int(rng.binomial(n_unflagged, share)), math.ceil(n_flagged / 10)
        hits = int(rng.hypergeometric(n_missed, n_unflagged - n_missed, n_sampled))
        sample.append(Looked(n_unflagged, n_sampled, hits))
        found, missed = found + int(odd.sum()), missed + n_missed
    return bands, sample, found / (found + missed)


ALIKE = [(30, 3000, 0.004)] * 60
LARGE_ONES_ARE_WORSE = [(40, 20_000, 0.02)] * 6 + [
    (40, 500, 0.001)
] * 60  # in one pool they would count like small ones
SMALL_ONES_ARE_WORSE = [(20, 30_000, 0.0005)] * 10 + [(60, 600, 0.05)] * 40
QUIET = [(3, 2000, 0.001)] * 40


@pytest.mark.parametrize("batches", [ALIKE, LARGE_ONES_ARE_WORSE, SMALL_ONES_ARE_WORSE, QUIET])
def test_the_interval_of_recall_holds_as_often_as_it_says(batches: list[tuple[int, int, float]]) -> None:
    """True recall is inside in 95 of 100 reviews at least; a test of 300, wrong once in a million runs."""
    rng, inside = np.random.default_rng(3), 0
    for _ in range(300):
        bands, sample, truth = reviewed(rng, batches)
        estimate = recall(bands, sample)
        inside += estimate.low <= truth <= estimate.high
    assert binom.cdf(inside, 300, 0.95) > FALSE_ALARM_RATE


@pytest.mark.parametrize("batches", [ALIKE, LARGE_ONES_ARE_WORSE, SMALL_ONES_ARE_WORSE])
def test_missed_anomalies_are_estimated_without_bias(batches: list[tuple[int, int, float]]) -> None:
    """The mean of 300 reviews is that of the truth, whatever batches the anomalies hide in; |z| > 5 once in a
    million.
    """
    rng, wrong = np.random.default_rng(4), []
    expected = sum(n * share for _, n, share in batches)
    for _ in range(300):
        bands, sample, _ = reviewed(rng, batches)
        wrong.append(recall(bands, sample).missed - expected)
    assert abs(np.mean(wrong)) < 5 * np.std(wrong, ddof=1) / math.sqrt(300)


def test_recall_of_a_band_that_nobody_came_to_is_anybodys_guess() -> None:
    """All that was judged is severe and odd; the mild ones, ten times as many, may all be false alarms."""
    estimate = recall([Looked(1000, 0, 0), Looked(100, 100, 100)], [Looked(100_000, 1000, 1)])
    assert estimate.low < 0.5
    assert estimate.high == pytest.approx(1100 / (1100 + 100_000 * share_of(1, 1000).low), rel=0.05)


def test_recall_is_not_told_before_both_samples_were_looked_at() -> None:
    """A recall of 1.00 from nothing is the number that everybody would quote."""
    for flagged, sampled in ((Looked(100, 3, 3), []), (Looked(100, 0, 0), [Looked(1000, 9, 0)])):
        found = recall([flagged], sampled)
        assert (found.value, found.low, found.high) == (None, 0, 1)


def test_recall_of_which_little_is_known_is_told_as_an_interval_alone() -> None:
    """Everybody would quote the 1.00 of seven records."""
    wide = recall([Looked(530, 11, 8)], [Looked(90_000, 7, 0)])
    assert wide.value == 1.0
    assert statistics.recall_text(wide).startswith("0.0")
    assert "too few judged to say more; 0 of 7 sampled records are anomalies" in statistics.recall_text(wide)
    narrow = recall([Looked(1000, 1000, 800)], [Looked(2000, 2000, 10)])
    assert statistics.recall_text(narrow).startswith("0.99 (")


def test_the_share_missed_is_told_beside_recall_with_its_own_interval() -> None:
    """A sentence about what was not found must not be read off the wrong end of recall's interval."""
    narrow = recall([Looked(1000, 1000, 800)], [Looked(2000, 2000, 100)])
    missed = narrow.false_negative_rate
    assert missed.value == pytest.approx(100 / 900)  # everything was looked at: counted, not estimated
    assert 0 < missed.low < 100 / 900 < missed.high < 0.2
    assert statistics.missed_text(missed) == f"0.11 ({missed.low:.2f} to {missed.high:.2f})"
    wide = recall([Looked(530, 11, 8)], [Looked(90_000, 7, 0)])
    assert statistics.missed_text(wide.false_negative_rate) == f"0.00 to {1 - wide.low:.2f}"


def test_recall_is_of_one_dataset_and_of_batches_whose_sample_was_looked_at(store: Ledger) -> None:
    """What was judged elsewhere says nothing of what was missed here."""
    put(store, [row("f1"), row("f2"), row("s1", kind="sampled")])
    put(store, [row("f3", "2026-01-29"), row("s3", "2026-01-29", kind="sampled")])
    judging.give(store, [row("f1")["anomaly_id"], row("f3", "2026-01-29")["anomaly_id"]], "anomaly", by="ann")
    judging.give(store, [row("s1")["anomaly_id"]], "anomaly", by="ann")
    found = statistics.review(store, "payments").recall
    assert (found.sampled.hits, found.sampled.n, found.missed) == (1, 1, 998)
    assert found.value == pytest.approx(2 / 1000)
    missed = statistics.review(store, "payments").false_negative_rate
    assert missed.value == pytest.approx(
        found.missed / (found.missed + 2)
    )  # of all anomalies, those unflagged
    assert (missed.low, missed.high) == pytest.approx((1 - found.high, 1 - found.low))
    put(store, [row("other", dataset="logins")])
    assert statistics.review(store).recall.value is None
    assert statistics.review(store).false_negative_rate.value is None
    assert "one dataset" in dict(statistics.as_lines(statistics.review(store)))["recall, estimated"]
    assert statistics.review(store, "payments").recall == found


def test_agreement_does_not_rise_because_somebody_settles(store: Ledger) -> None:
    """Two who differed did differ, whatever a third said of it afterwards."""
    put(store, [row("k0"), row("k1")])
    for key, word in (("k0", "normal"), ("k1", "anomaly")):
        judging.give(store, [row(key)["anomaly_id"]], "anomaly", by="ann")
        judging.give(store, [row(key)["anomaly_id"]], word, by="bob")  # type: ignore[arg-type]
    for by in ("ann", "cid"):
        judging.give(store, [row("k0")["anomaly_id"]], "normal", by=by, settle=True)
    found = statistics.review(store).agreement
    assert (found.hits, found.n) == (1, 2)


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
    shares = {(one.dataset, one.model_version): (one.hits, one.n) for one in found.precision}
    assert shares == {
        ("payments", 3): (1, 2),
        ("payments", 4): (1, 1),
    }  # k0 is in conflict: it counts for nobody
    assert (found.backlog, found.oldest_open, found.suppressed) == (2, "2026-01-28", 1)
    assert (found.agreement.hits, found.agreement.n) == (1, 2)
    assert found.reviewers == {"ann": 4, "bob": 2, "cid": 1}
    assert (found.recall.sampled.hits, found.recall.sampled.n) == (0, 1)
    assert found.recall.value is None  # nothing flagged is judged in the batch of s1
    assert found.hours_to_verdict
    assert found.hours_to_verdict > timedelta(days=1).total_seconds() / 3600
    days = {day.day: (day.n_flagged, day.n_judged, day.n_confirmed) for day in found.days}
    assert days == {"2026-01-28": (2, 0, 0), "2026-01-29": (0, 0, 0), "2026-01-30": (2, 1, 1)}
    assert dict(statistics.as_lines(found))["backlog"] == "2 open, the oldest of 2026-01-28"


def flag_and_judge(ledger: Ledger, version: int, n: int, n_worth: int) -> None:
    """n records that a version flagged on a day of its own, each of its own cause, and their verdicts."""
    rows = [
        row(f"v{version}-{i}", f"2026-01-0{version}", model_version=version, signature=f"c{i}↑")
        for i in range(n)
    ]
    put(ledger, rows)
    names = [one["anomaly_id"] for one in rows]
    for some, verdict in ((names[:n_worth], "anomaly"), (names[n_worth:], "normal")):
        judging.give(ledger, some, verdict, by="ann")  # type: ignore[arg-type]


def test_the_headline_is_of_the_version_that_serves(store: Ledger) -> None:
    """Version 3 is promoted and rolled back to 1. Where few are judged, another is named beside it."""

    def told() -> tuple[int, bool, int | None, int | None] | None:
        first = statistics.review(store).headline("payments")
        if first is None:
            return None
        n = first.share.n if first.share else None
        return first.version, first.is_serving, n, first.beside.model_version if first.beside else None

    assert told() is None
    store.set_serving("payments", 1)
    assert told() is None  # nothing is judged
    flag_and_judge(store, 1, 142, 25)
    store.set_serving("payments", 3)
    assert told() == (3, True, None, 1)
    lines = dict(statistics.as_lines(statistics.review(store)))
    assert lines["precision of payments version 3, which serves"] == "no verdict yet"
    flag_and_judge(store, 3, 8, 7)
    assert told() == (3, True, 8, 1)
    store.set_serving("payments", 1)
    assert told() == (1, True, 142, None)
    lines = dict(statistics.as_lines(statistics.review(store)))
    assert lines["precision of payments version 1, which serves, of those judged"].startswith(
        "0.18 (25 of 142;"
    )
    assert lines["precision of payments version 3, of those judged"].endswith("(7 of 8: too few)")
    flag_and_judge(store, 2, 20, 10)  # ten to twenty are told as an interval: not enough for a value
    store.set_serving("payments", 2)
    assert told() == (2, True, 20, 1)


def test_where_no_version_is_known_to_serve_the_newest_is_told(store: Ledger) -> None:
    """A ledger that a training wrote to, and no promotion, names none."""
    store.set_trained("payments", SCORED_AT)
    flag_and_judge(store, 1, 60, 30)
    flag_and_judge(store, 3, 60, 30)
    found = statistics.review(store)
    first = found.headline("payments")
    assert found.serving == {}
    assert first
    assert (first.version, first.is_serving, first.beside) == (3, False, None)


def test_a_verdict_on_a_group_is_one_witness(store: Ledger) -> None:
    """Sixty records judged by two presses, on two days, are not sixty opinions."""
    days = ("2026-01-29", "2026-01-30")
    alike = {
        mark: [row(f"{mark}{i}", day, signature=mark) for i in range(15) for day in days]
        for mark in ("amount↑", "fee↓")
    }
    put(store, [*alike["amount↑"], *alike["fee↓"]])
    for mark, verdict in (("amount↑", "anomaly"), ("fee↓", "normal")):
        judging.give(store, [one["anomaly_id"] for one in alike[mark]], verdict, by="ann")  # type: ignore[arg-type]
    (found,) = statistics.review(store).precision
    assert (found.hits, found.n, found.n_groups) == (30, 60, 2)
    assert found.witnesses == pytest.approx(2)
    known = share_of(1, 2)
    assert (found.low, found.high) == pytest.approx((known.low, known.high))
    assert found.is_untold
    assert statistics.share_text(found) == "0.09 to 0.91 (30 of 60 in 2 groups: too few)"


def test_a_verdict_that_was_taken_back_took_no_time(store: Ledger) -> None:
    """Nobody has given one; the next that holds is the first."""
    put(store, [row("k0")], scored_at=SCORED_AT)
    name = row("k0")["anomaly_id"]
    judging.undo(store, judging.give(store, [name], "anomaly", by="ann").act, by="ann")
    assert statistics.review(store).hours_to_verdict is None
    judging.give(store, [name], "normal", by="bob")
    again = statistics.review(store).hours_to_verdict
    assert again
    judging.give(store, [name], "normal", by="cid")
    assert statistics.review(store).hours_to_verdict == again


def test_the_wait_for_a_verdict_outlives_scoring_again(store: Ledger) -> None:
    """It is counted from the first time, whether a record was judged before or since."""
    names = [row(f"k{i}")["anomaly_id"] for i in range(3)]
    later = datetime.now(UTC) + timedelta(hours=1)
    put(store, [row(f"k{i}") for i in range(3)])
    judging.give(store, names[:1], "anomaly", by="ann")
    waited = statistics.review(store).hours_to_verdict
    assert waited
    for version in (3, 3, 4):
        again = {"scored_at": later, "model_version": version}
        put(store, [row(f"k{i}", **again) for i in range(2)], scored_at=later)
        assert statistics.review(store).hours_to_verdict == waited
    judging.give(store, names[1:2], "normal", by="ann")
    both = statistics.review(store).hours_to_verdict
    assert both
    assert waited <= both < waited + 1


def test_a_wait_that_is_not_known_is_not_told_as_no_verdict(store: Ledger) -> None:
    """As where the only scoring that is kept came after the verdict."""
    put(store, [row("k0", scored_at=datetime.now(UTC) + timedelta(hours=1))])
    judging.give(store, [row("k0")["anomaly_id"]], "anomaly", by="ann")
    told = dict(statistics.as_lines(statistics.review(store)))["time to verdict"]
    assert told == "not known: no scoring from before a verdict is kept"


def test_before_anything_was_judged_every_line_says_so(store: Ledger) -> None:
    """The first look at an empty installation is at words, not at a division by zero."""
    lines = dict(statistics.as_lines(statistics.review(store)))
    assert lines["time to verdict"] == "no verdict yet"
    assert "sampled" in lines["recall, estimated"]
    assert lines["backlog"] == "0 open"

"""From scores to statements about normal records: exact where a law says what to expect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pipeline.config.dataset import Flagging
from pipeline.detection.calibration import (
    FEWEST,
    MOST_KEPT,
    Calibration,
    Tail,
    most_of_a_day,
    usual_hits,
    without_excess,
)
from pipeline.errors import NotReady

FALSE_ALARM_RATE = 1e-6  # one needless failure in a million runs of a statistical test
FLOATS = st.floats(-1e6, 1e6, width=32)
HOLDOUTS = st.lists(FLOATS | st.sampled_from([0.0, 1.0, 2.0]), min_size=FEWEST, max_size=80)
RATES = st.floats(0.001, 0.9)
CURVES: dict[str, Any] = {
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "heavy": stats.pareto(2.5),
    "bounded": stats.uniform(),
    "chi-squared": stats.chi2(9),
}


def fitted(scores: list[float]) -> Calibration:
    return Calibration.fit(np.array(scores, np.float32))


def drawn(curve: str, n: int, seed: int) -> np.ndarray[Any, Any]:
    return CURVES[curve].rvs(n, random_state=seed).astype(np.float32)


def assert_flagged_as_often(n_flagged: int, n_new: int, n_calibrating: int, rate: float) -> None:
    """Of n_new records exchangeable with the calibrating, those above its k-th score are beta-binomial,
    whatever the curve.
    """
    k = math.ceil((n_calibrating + 1) * (1 - rate))
    expected = stats.betabinom(n_new, n_calibrating + 1 - k, k)
    assert 2 * min(expected.cdf(n_flagged), expected.sf(n_flagged - 1)) > FALSE_ALARM_RATE, n_flagged / n_new


@given(HOLDOUTS, st.lists(FLOATS, max_size=20))
def test_a_p_value_is_the_share_of_normal_records_at_least_as_high(
    calibrating: list[float], scores: list[float]
) -> None:
    """The record counts itself, so that no finite calibrating calls anything impossible."""
    by_hand = [(1 + sum(h >= s for h in calibrating)) / (len(calibrating) + 1) for s in scores]
    assert fitted(calibrating).p_values(np.array(scores, np.float32)).tolist() == pytest.approx(by_hand)


@given(st.lists(FLOATS | st.sampled_from([0.0, 1.0]), min_size=2, max_size=60), RATES)
def test_p_values_are_valid_exactly(scores: list[float], rate: float) -> None:
    """Any one of n + 1 exchangeable records may be the new one: at most a share `rate` of them gets p <=
    rate.
    """
    values = np.array(scores, np.float32)
    n_small = 0
    for i in range(len(values)):
        others = Calibration(np.sort(np.delete(values, i)))
        n_small += int(others.p_values(values[i : i + 1])[0] <= rate)
    assert n_small <= rate * len(values) + 1e-9
    if len(set(scores)) == len(scores):
        assert n_small == math.floor(rate * len(values) + 1e-9), "and no fewer, where there are no ties"


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3])
def test_clean_records_are_flagged_at_the_error_rate(curve: str, rate: float) -> None:
    """1 % means 1 %, for any model and any data: a reviewer's day is planned on it. 3 % for 2 % is 11
    deviations.
    """
    n = 50_000
    flag = Flagging(review_budget=None, error_rate=rate)
    flagged, threshold = Calibration.fit(drawn(curve, n, 1)).flags(
        drawn(curve, n, 2), flag, records_per_day=1.0
    )
    assert not threshold.extrapolated
    assert_flagged_as_often(int(flagged.sum()), n, n, rate)


def test_ties_make_fewer_flags_never_more() -> None:
    """A model that knows ten scores only must not flag a tenth of the day."""
    n, rate = 50_000, 0.02
    calibrating, new = (np.floor(drawn("chi-squared", n, seed)) for seed in (1, 2))
    flagged, _ = Calibration.fit(calibrating).flags(new, Flagging(review_budget=None, error_rate=rate), 1.0)
    k = math.ceil((n + 1) * (1 - rate))
    assert stats.betabinom(n, n + 1 - k, k).sf(int(flagged.sum()) - 1) > FALSE_ALARM_RATE


@pytest.mark.parametrize("budget", [5, 60])
def test_a_review_budget_is_what_a_normal_day_flags(budget: float) -> None:
    """Twenty a day were promised; ten days of a thousand records flag two hundred, within what chance
    explains.
    """
    n_days, records_per_day = 10, 2000
    calibration = Calibration.fit(drawn("chi-squared", 40_000, 3))
    new = drawn("chi-squared", n_days * records_per_day, 4)
    flagged, threshold = calibration.flags(new, Flagging(review_budget=budget), records_per_day)
    assert threshold.error_rate == budget / records_per_day
    assert_flagged_as_often(int(flagged.sum()), len(new), 40_000, budget / records_per_day)


def test_a_review_budget_is_kept_where_days_are_told_apart() -> None:
    """Bounding what a day decides must cost nothing where days differ by chance alone."""
    n_days, records_per_day, budget = 20, 2000, 20
    calibration = Calibration.fit(drawn("heavy", 40_000, 3), np.repeat(np.arange(n_days), records_per_day))
    new = drawn("heavy", 40_000, 4)
    flagged, _ = calibration.flags(new, Flagging(review_budget=budget), records_per_day)
    assert_flagged_as_often(int(flagged.sum()), len(new), 40_000, budget / records_per_day)
    assert calibration.n > 39_990


@given(st.integers(1, 1000), st.floats(5, 1e30), st.sampled_from([5, 20, 60]))
def test_a_day_of_an_event_does_not_decide_for_the_others(n_odd: int, score: float, budget: int) -> None:
    """Sensors fail on one of six days, for a minute or for all of it, by little or by much: usual days flag
    at least six tenths of what was promised, and no more than the seventh part beyond it that a day left out
    would give.
    """
    days, scores = np.repeat(np.arange(6), 1000), drawn("bounded", 6000, 5)
    usual = np.sort(scores[:5000])
    scores[5000 : 5000 + n_odd] = score
    threshold = Calibration.fit(scores, days).threshold(Flagging(review_budget=budget), 1000).value
    n_usual = int((usual > threshold).sum())
    assert 6 * budget - most_of_a_day(budget) - 2 <= n_usual <= 6 * budget + 1


@pytest.mark.parametrize("n_odd", [(40, 130, 70, 4), (200, 200, 200, 0), (1000, 1000, 1000, 0)])
def test_events_on_half_of_the_days_leave_the_others_flags(n_odd: tuple[int, ...]) -> None:
    """Three of six, as on water: with x flags on a usual day an odd one counts as m = 2 (2 m + 3 x) / 5 = 6 x
    at most, so that of all that is promised a 21st comes to each usual day.
    """
    days, scores = np.repeat(np.arange(6), 1000), drawn("bounded", 6000, 5)
    for day, n in enumerate(n_odd):
        scores[1000 * day : 1000 * day + n] = 1e6 + np.arange(n)
    calibration = Calibration.fit(scores, days)
    threshold = calibration.threshold(Flagging(review_budget=20), 1000).value
    assert (scores[4000:] > threshold).sum() >= 2 * (0.02 * calibration.n) / 21 - 2


@given(st.lists(st.tuples(FLOATS | st.sampled_from([0.0, 1.0]), st.integers(0, 4)), min_size=1, max_size=120))
def test_no_day_has_more_of_the_highest_than_is_allowed_at_any_level(
    records: list[tuple[float, int]],
) -> None:
    """Budgets change after a training: what stays must suit each of them. Checked by counting anew."""
    scores, days = np.array([s for s, _ in records], np.float32), np.array([d for _, d in records])
    stays = without_excess(scores, days)
    if len(set(days.tolist())) < 3:
        assert stays.all()
        return
    highest = [i for i in np.argsort(-scores, kind="stable") if stays[i]]
    for n in range(1, len(highest) + 1):
        for day in set(days.tolist()):
            mine, size = sum(days[i] == day for i in highest[:n]), int((days == day).sum())
            assert mine <= most_of_a_day((n - mine + 1) * size / (len(days) - size)) + 1e-9


def test_a_day_of_an_event_is_counted_as_it_is_where_thresholds_are_set() -> None:
    """Else the version whose threshold an event did not raise would be refused for flagging too much. One
    that flags too much on every day still is.
    """
    days, hits = np.repeat(np.arange(5), 1000), np.zeros(5000, bool)
    hits[::50] = True
    assert usual_hits(hits, days) == 100
    hits[2000:2700] = True
    usual = usual_hits(hits, days)
    assert usual == 4 * 20 + most_of_a_day(20)
    assert usual_hits(hits[1000:3000], days[1000:3000]) == 20 + 706, "of two days which is the unusual one?"
    assert usual_hits(np.arange(5000) % 2 == 0, days) == 2500
    assert usual_hits(hits[:0], days[:0]) == 0


def test_a_budget_larger_than_the_day_flags_half_of_it() -> None:
    """A list of everything is no list."""
    threshold = fitted([float(i) for i in range(100)]).threshold(Flagging(review_budget=500), 10)
    assert (threshold.error_rate, threshold.value) == (0.5, 50.0)


@given(HOLDOUTS, st.lists(FLOATS, max_size=30), RATES)
def test_a_record_is_flagged_exactly_when_its_p_value_is_at_most_the_rate(
    calibrating: list[float], scores: list[float], rate: float
) -> None:
    """Flag, threshold and p-value stand beside each other in the table: they must not contradict."""
    calibration, new = fitted(calibrating), np.array(scores, np.float32)
    flagged, threshold = calibration.flags(new, Flagging(review_budget=None, error_rate=rate), 1.0)
    assert (flagged == (new > threshold.value)).all()
    if threshold.extrapolated:
        assert rate < 1 / (len(calibrating) + 1)
        assert not flagged[new <= max(calibrating)].any()
    else:
        p = calibration.p_values(new)
        assert ((p <= rate - 1e-12) <= flagged).all()
        assert (flagged <= (p <= rate + 1e-12)).all()


@given(HOLDOUTS, st.lists(FLOATS, min_size=2, max_size=30))
def test_severity_rises_with_the_score(calibrating: list[float], scores: list[float]) -> None:
    """A reviewer sorts by it: a stranger record must never stand below a more ordinary one."""
    new = np.sort(np.array([*scores, *calibrating], np.float32))
    severity = fitted(calibrating).severity(new)
    assert np.isfinite(severity).all()
    assert (np.diff(severity) >= -1e-9).all()


@given(HOLDOUTS, st.lists(FLOATS, max_size=30))
def test_severity_in_the_body_is_the_p_value_in_other_words(
    calibrating: list[float], scores: list[float]
) -> None:
    """2 means one in a hundred; only where the calibrating has nothing left to say does the tail speak."""
    calibration = fitted(calibrating)
    new = np.array([*scores, *calibrating], np.float32)
    body = new <= calibration.tail.start
    assert calibration.severity(new)[body] == pytest.approx(-np.log10(calibration.p_values(new[body])))
    beyond = calibration.severity(new)[~body]
    assert (beyond >= -math.log10(calibration.tail.share) - 1e-9).all()


def test_severity_agrees_with_the_p_value_whatever_shape_the_tail_has() -> None:
    """Every hundredth record is an event's, hundreds of nats beyond the others: 'one in a hundred' is what
    both say of the first of them.
    """
    ordinary, event = (
        stats.expon(scale=1.5).isf(np.linspace(0.001, 0.999, 9_900)),
        np.geomspace(30, 3_000, 100),
    )
    calibration = Calibration.fit(np.concatenate([ordinary, event]))
    first = np.array([30.0], np.float32)
    assert calibration.p_values(first) == pytest.approx(0.01, rel=0.02)
    assert calibration.severity(first) == pytest.approx(2, abs=0.01)
    counted = event[:-10].astype(np.float32)
    assert calibration.severity(counted) == pytest.approx(-np.log10(calibration.p_values(counted)))


@pytest.mark.parametrize("score", [3.4e38, 1e30, 1e9])
@pytest.mark.parametrize(
    "calibrating",
    [[1.0] * 50, [0.0] * 49 + [1.0], [float(i) for i in range(50)]],
    ids=["equal", "one", "spread"],
)
def test_severity_is_a_number_however_extreme_the_score(calibrating: list[float], score: float) -> None:
    """A broken sensor gives 1e38; the row must still be sorted, stored and shown."""
    calibration = fitted(calibrating)
    (severity,) = calibration.severity(np.array([score], np.float32))
    assert math.isfinite(severity)
    assert severity >= -math.log10(calibration.p_values(np.array([score], np.float32))[0]) - 1e-9


TAILS = st.builds(
    Tail, st.floats(-10, 10), st.floats(0.001, 0.5), st.just(0.0) | st.floats(1e-3, 0.9), st.floats(1e-3, 100)
)


@given(TAILS, st.floats(0, 1e4))
def test_the_tail_is_the_generalised_pareto_distribution(tail: Tail, excess: float) -> None:
    """The formula of the textbooks, in scipy's hand."""
    known = stats.genpareto(tail.shape, loc=tail.start, scale=tail.scale)
    score = tail.start + excess
    expected = math.log(tail.share) + known.logsf(score)
    if math.isfinite(expected):
        assert tail.log_probability(np.array([score]))[0] == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(TAILS, st.floats(1e-9, 1))
def test_a_tails_quantile_is_the_score_exceeded_with_that_probability(tail: Tail, fraction: float) -> None:
    """A threshold beyond the calibrating is only as good as this inversion."""
    probability = tail.share * fraction
    value = tail.quantile(probability)
    assert tail.probability(np.array([value]))[0] == pytest.approx(probability, rel=1e-6)


@pytest.mark.parametrize(("shape", "kept"), [(0.0, 0.0), (0.3, 0.3), (0.6, 0.6), (-0.5, 0.0)])
def test_the_tail_finds_the_shape_it_was_drawn_from(shape: float, kept: float) -> None:
    """Evenly spaced quantiles of a known tail instead of random ones: no chance is involved."""
    known = stats.genpareto(shape, scale=2.0)
    scores = known.isf((np.arange(40_000) + 0.5) / 40_000)
    calibration = Calibration.fit(scores)
    tail = calibration.tail
    assert tail.shape == pytest.approx(kept, abs=0.03)
    assert tail.share == pytest.approx(11 / 40_001)
    if shape >= 0:
        far = known.isf([1e-3, 1e-4, 1e-5])
        assert calibration.severity(far) == pytest.approx([3, 4, 5], abs=0.1)


@pytest.mark.parametrize("curve", CURVES)
def test_the_tails_shape_is_that_of_its_l_moments(curve: str) -> None:
    """An independent way to the same estimate: for this family, shape = 2 − l1 / l2 (Hosking & Wallis)."""
    calibration = Calibration.fit(drawn(curve, 20_000, 5))
    twentieth = float(calibration.scores[-1001])
    excess = calibration.scores[-1000:].astype(float) - twentieth
    l1, l2 = stats.lmoment(excess, order=[1, 2])
    assert calibration.tail.shape == pytest.approx(min(max(2 - l1 / l2, 0), 0.9), abs=0.01)


def test_a_threshold_beyond_the_calibration_records_is_marked_and_above_all_of_it() -> None:
    """One in ten thousand from a thousand records is a guess along the tail: it says so."""
    scores = stats.expon().isf((np.arange(1000) + 0.5) / 1000).astype(np.float32)
    calibration = Calibration.fit(scores)
    within = calibration.threshold(Flagging(review_budget=None, error_rate=1 / 1000), 1.0)
    beyond = calibration.threshold(Flagging(review_budget=None, error_rate=1 / 10_000), 1.0)
    assert (within.extrapolated, beyond.extrapolated) == (False, True)
    assert beyond.value > scores.max()
    assert beyond.value == pytest.approx(math.log(10_000), rel=0.1)
    assert calibration.severity(np.array([beyond.value]))[0] == pytest.approx(4, abs=0.01)


@given(HOLDOUTS, st.lists(FLOATS | st.sampled_from([0.0, 1.0, 2.0]), max_size=30), RATES)
def test_false_discoveries_are_bounded_as_benjamini_and_hochberg_say(
    calibrating: list[float], scores: list[float], rate: float
) -> None:
    """Against the definition, spelled out: the largest k of which the k-th smallest p is at most k·rate/m."""
    calibration, new = fitted(calibrating), np.array(scores, np.float32)
    flagged, threshold = calibration.flags(new, Flagging(review_budget=None, false_discovery_rate=rate), 1.0)
    p = [(1 + sum(h >= s for h in calibrating)) / (len(calibrating) + 1) for s in new]
    largest = max([k for k in range(1, len(p) + 1) if sorted(p)[k - 1] <= rate * k / len(p)], default=0)
    cut = sorted(p)[largest - 1] if largest else 0.0
    assert flagged.tolist() == [value <= cut for value in p]
    assert (flagged == (new > threshold.value)).all()
    assert np.isfinite(threshold.value)


def test_batches_without_an_anomaly_seldom_have_a_discovery() -> None:
    """Where nothing is wrong every flag is false: at most a share `rate` of batches may have one."""
    n_batches, rate = 3000, 0.1
    random = np.random.default_rng(6)
    flag = Flagging(review_budget=None, false_discovery_rate=rate)
    n_with = 0
    for _ in range(n_batches):  # each with a calibrating of its own: the law is about both
        calibrating, batch = random.normal(size=(2, 60)).astype(np.float32)
        n_with += int(Calibration(np.sort(calibrating)).flags(batch, flag, 1.0)[0].any())
    assert stats.binom(n_batches, rate).sf(n_with - 1) > FALSE_ALARM_RATE
    assert n_with > 0


def test_true_anomalies_are_discovered() -> None:
    """A bound on false flags is worth nothing to somebody who gets no flags at all."""
    batch = np.concatenate([drawn("normal", 900, 7), np.full(100, 8.0, np.float32)])
    flag = Flagging(review_budget=None, false_discovery_rate=0.1)
    flagged, _ = Calibration.fit(drawn("normal", 5000, 8)).flags(batch, flag, 1.0)
    assert flagged[900:].all()
    assert flagged[:900].sum() < 40


@given(HOLDOUTS, st.lists(FLOATS, max_size=30), st.integers(1, 5))
def test_a_cap_keeps_the_most_severe_and_all_that_tie_with_the_last(
    calibrating: list[float], scores: list[float], cap: int
) -> None:
    """A flood on a broken day must not drown the worst of it; chance must not choose among equals."""
    calibration, new = fitted(calibrating), np.array(scores, np.float32)
    free, _ = calibration.flags(new, Flagging(review_budget=None, error_rate=0.5), 1.0)
    capped, _ = calibration.flags(new, Flagging(review_budget=None, error_rate=0.5, cap=cap), 1.0)
    assert (capped <= free).all()
    best = sorted(new[free], reverse=True)
    expected = best if len(best) <= cap else [score for score in best if score >= best[cap - 1]]
    assert sorted(new[capped], reverse=True) == expected


@given(HOLDOUTS, st.lists(FLOATS, max_size=20), st.data())
def test_order_decides_nothing(calibrating: list[float], scores: list[float], data: st.DataObject) -> None:
    """Neither the calibrating's order nor the batch's."""
    order = data.draw(st.permutations(range(len(scores))))
    new = np.array(scores, np.float32)
    for flag in (Flagging(review_budget=3, cap=2), Flagging(review_budget=None, false_discovery_rate=0.3)):
        flagged, _ = fitted(calibrating).flags(new, flag, 30)
        again, _ = fitted(calibrating[::-1]).flags(new[list(order)], flag, 30)
        assert again.tolist() == flagged[list(order)].tolist()


@given(st.lists(FLOATS, min_size=FEWEST, max_size=300), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_model_that_scores_on_another_scale_flags_the_same_records(
    scores: list[float], factor: float, shift: float
) -> None:
    """Two trainings end in different models; where one is the other's straight line, the budget must not
    notice.
    """
    before = drawn("heavy", 5000, 11).astype(np.float64)
    calibration = fitted(scores)
    moved = calibration.carried_over(before, factor * before + shift)
    expected = factor * calibration.scores.astype(np.float64) + shift
    inside = calibration.scores >= np.quantile(before, 0.01)
    size = np.abs(expected) + factor * np.abs(calibration.scores) + abs(shift)
    assert (np.abs(moved.scores - expected)[inside] <= 1e-5 * size[inside] + 1e-5).all()


@given(st.lists(FLOATS, min_size=FEWEST, max_size=100), st.integers(0, 3))
def test_carrying_over_keeps_the_order(scores: list[float], kind: int) -> None:
    """Whatever the two models say of the records between them: constants, few records, opposite opinions."""
    before = [np.zeros(50), np.arange(5.0), drawn("normal", 3000, 12), np.round(drawn("normal", 500, 13))][
        kind
    ]
    moved = fitted(scores).carried_over(before, drawn("chi-squared", len(before), 14))
    assert np.isfinite(moved.scores).all()
    assert (np.diff(moved.scores) >= 0).all()


def test_the_second_model_s_error_rate_is_the_promised_one() -> None:
    """A model that spreads the tail further, as badly fitted ones do: 1 % stay 1 %."""
    learned, calibrating, new = (
        drawn("heavy", n, seed).astype(np.float64) for n, seed in ((20_000, 15), (5000, 16), (100_000, 17))
    )

    def other(scores: Any) -> Any:
        return scores + np.maximum(scores - 2, 0) ** 1.5

    calibration = Calibration.fit(calibrating.astype(np.float32)).carried_over(learned, other(learned))
    flagged, _ = calibration.flags(other(new), Flagging(review_budget=None, error_rate=0.01), 1.0)
    assert_flagged_as_often(int(flagged.sum()), len(new), 5000, 0.01)


@pytest.mark.parametrize("n", [0, FEWEST - 1])
def test_too_few_calibration_records_are_refused_with_a_way_out(n: int) -> None:
    """From five records every statement about one in a hundred is made up."""
    with pytest.raises(NotReady, match=rf"^{n} records are too few .* raise train\.calibration"):
        Calibration.fit(np.zeros(n, np.float32))


def test_very_many_scores_are_thinned_without_moving_a_p_value_much() -> None:
    """The model on disk stays small; a statement about one in a thousand stays the same."""
    scores = drawn("heavy", 3 * MOST_KEPT + 17, 9)
    calibration = Calibration.fit(scores)
    assert calibration.n == MOST_KEPT
    assert (calibration.scores[0], calibration.scores[-1]) == (scores.min(), scores.max())
    new = drawn("heavy", 2000, 10)
    exact = Calibration(np.sort(scores)).p_values(new)
    assert abs(calibration.p_values(new) - exact).max() < 3 / MOST_KEPT


def test_an_empty_batch_has_no_flags() -> None:
    """Nothing arrived: that is the contract's matter, not the model's."""
    empty = np.empty(0, np.float32)
    calibration = fitted([float(i) for i in range(30)])
    for flag in (Flagging(review_budget=3, cap=1), Flagging(review_budget=None, false_discovery_rate=0.1)):
        assert calibration.flags(empty, flag, 100)[0].tolist() == []
    assert calibration.p_values(empty).tolist() == calibration.severity(empty).tolist() == []


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-3, 3), n=st.integers(1, 300))
def test_a_batch_s_place_is_mann_and_whitney_s_u(seed: int, shift: float, n: int) -> None:
    """Scipy counts the same pairs, ties by half; scores are rounded so that there are some."""
    random = np.random.default_rng(seed)
    usual, batch = random.normal(0, 1, 200).round(1), (random.normal(0, 1, n) + shift).round(1)
    found = Calibration.fit(usual).share_above(batch.astype(np.float32))
    u = stats.mannwhitneyu(batch.astype(np.float32), usual.astype(np.float32)).statistic
    assert found == pytest.approx(u / (200 * n))


@given(st.lists(st.integers(-3, 3), min_size=20, max_size=60), st.lists(st.integers(-4, 4), min_size=1))
def test_a_batchs_place_is_counted_pair_by_pair(calibrating: list[int], scores: list[int]) -> None:
    """Mann and Whitney's count over all pairs, ties by half; and a batch's parts add up to it."""
    calibration, batch = Calibration.fit(np.array(calibrating, np.float32)), np.array(scores, np.float32)
    pairs = [(s > h) + (s == h) / 2 for s in scores for h in calibrating]
    assert calibration.share_above(batch) == pytest.approx(np.mean(pairs))
    halves = [part for part in np.array_split(batch, 2) if len(part)]
    above = sum(len(part) * calibration.share_above(part) for part in halves) / len(batch)
    assert calibration.share_above(batch) == pytest.approx(above)

"""How far a batch is from what the model learned, by numbers that chance does not move."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom, wasserstein_distance

from pipeline.detection.features import Features
from pipeline.detection.measures import (
    CHANCE,
    MOST_SAMPLED,
    chosen,
    column_drift,
    jensen_shannon,
    wasserstein,
)
from pipeline.detection.reference import Reference
from pipeline.monitoring.movement import moved_words
from tests.pipeline.monitoring_data import PLAIN, QUIET, readings, told

FALSE_ALARM_RATE = 1e-6

counts = st.lists(st.integers(0, 1_000), min_size=5, max_size=5).filter(any)


@pytest.fixture(scope="module")
def learned() -> tuple[Features, Reference]:
    training = readings(20_000, 0)
    features = Features.fit(PLAIN, training)
    return features, Reference.fit(features, training)


@given(p=counts, q=counts)
def test_distances_are_those_of_scipy(p: list[int], q: list[int]) -> None:
    """scipy.stats takes a second to import, so its two lines are written out."""
    one, other = (np.array(x) / sum(x) for x in (p, q))
    places = np.array([-2.0, -1.0, 0.5, 3.0, 3.5])
    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2) ** 2, abs=1e-9)
    assert wasserstein(places, one, other) == pytest.approx(wasserstein_distance(places, places, one, other))


def test_what_is_called_noise_is_what_chance_does(learned: tuple[Features, Reference]) -> None:
    """A small batch differs from training more than a large one, and neither drifts."""
    features, reference = learned
    n, beyond, means = 500, 0, []
    for seed in range(n):
        found = column_drift(reference, features, readings(300, seed + 1))
        beyond += sum(drift.divergence > drift.noise for drift in found.values())
        means.append(found["level"].divergence)
    most = binom.isf(FALSE_ALARM_RATE, 3 * n, 3 * CHANCE)  # the bins of training are samples, too
    assert beyond <= most
    assert np.mean(means) < 0.003


def test_a_reference_survives_json_and_stays_small(learned: tuple[Features, Reference]) -> None:
    """It travels with every model version."""
    _, reference = learned
    text = json.dumps(reference.to_dict(), allow_nan=False)
    assert Reference.from_dict(json.loads(text)) == reference
    assert len(text) < 3_000


def test_codes_that_were_rare_in_training_are_not_told_as_new_of_a_day_like_it() -> None:
    """Of a shop's articles many sell a few times a month: a training day has as many of them as training."""

    def articles(codes: Sequence[str]) -> pa.Table:
        return readings(len(codes), 1).set_column(2, "site", pa.array(codes))

    rare = [f"r{i}" for i in range(200)]
    training = articles(["a"] * 1_800 + rare)
    features = Features.fit(PLAIN, training)
    reference = Reference.fit(features, training)
    alike = column_drift(reference, features, articles(["a"] * 900 + rare[:100]))
    unseen = column_drift(reference, features, articles(["a"] * 600 + [f"n{i}" for i in range(400)]))
    assert (alike["site"].new, alike["site"].usual_new) == (pytest.approx(0.1), pytest.approx(0.1))
    keys = [[f.key for f in told([replace(QUIET, columns=columns)])[0]] for columns in (alike, unseen)]
    assert keys[0] == []
    assert "new:site" in keys[1]


def test_a_hundredfold_is_told_by_its_median_and_a_stuck_sensor_by_its_value(
    learned: tuple[Features, Reference],
) -> None:
    """Either is beyond the last bin of training, whichever sign it has."""
    features, reference = learned
    flow = np.asarray(readings(1_000, 5)["flow"])
    for sign in (1, -1):
        for values, words in (
            (sign * (300 + 100 * flow), "standard deviations or more, the median from "),
            (
                np.full(1_000, sign * 300.0),
                f"hardly varies, 99% of the values are {300 * sign} (in training, ",
            ),
        ):
            odd = readings(1_000, 5).set_column(1, "flow", pa.array(values))
            drift = column_drift(reference, features, odd)["flow"]
            assert words in moved_words(drift)
            assert drift.median == pytest.approx(np.median(values), abs=1)
            assert (drift.low, drift.high) == pytest.approx(np.quantile(values, [0.005, 0.995]), abs=20)


def test_hostile_columns_can_be_counted() -> None:
    """All missing, constant, infinite, two values, more categories than are kept."""
    n = 500
    table = pa.table({
        "level": pa.array([None] * n, pa.float64()),
        "flow": pa.array([float("inf"), 1e308, -1e308, 0.0, 1.0] * (n // 5)),
        "site": [f"{i % 97}" for i in range(n)],
    })
    features = Features.fit(PLAIN, table)
    reference = Reference.fit(features, table)
    json.dumps(reference.to_dict(), allow_nan=False)
    found = column_drift(reference, features, table)
    assert all(drift.divergence == 0.0 for drift in found.values())
    assert found["level"].missing == 1.0
    assert len(reference.categories["site"].values) == 30
    json.dumps(replace(QUIET, columns=found).to_dict(), allow_nan=False)
    empty = column_drift(reference, features, table.slice(0, 0))
    json.dumps(replace(QUIET, columns=empty).to_dict(), allow_nan=False)


@given(cuts=st.lists(st.integers(0, 400), max_size=5).map(sorted))
def test_counts_do_not_depend_on_how_records_are_cut(
    learned: tuple[Features, Reference], cuts: list[int]
) -> None:
    _, reference = learned
    table = readings(400, 9)
    edges = [0, *cuts, 400]
    parts = [table.slice(a, b - a) for a, b in pairwise(edges)]
    for name, shape in reference.shapes.items():
        whole, missing = shape.count(table[name])
        split = [shape.count(part[name]) for part in parts]
        assert np.array_equal(sum(counts for counts, _ in split), whole)
        assert sum(n for _, n in split) == missing


def test_the_records_that_are_looked_at_are_the_same_however_a_batch_is_cut() -> None:
    """And as many as are wanted, evenly over the batch."""
    rows = np.arange(1_000_000)
    mask = chosen(rows, len(rows))
    assert abs(mask.sum() - MOST_SAMPLED) < 10
    parts = np.array_split(rows[::-1], 7)
    assert np.array_equal(np.concatenate([chosen(part, len(rows)) for part in parts])[::-1], mask)
    assert np.ptp([part.sum() for part in np.array_split(mask, 50)]) < 10
    assert chosen(rows[:MOST_SAMPLED], MOST_SAMPLED).all()

"""The interval beside an expected value holds as many normal records' values as it says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from pipeline.config.dataset import Dataset
from pipeline.detection.detector import Detector
from pipeline.detection.intervals import GAUSSIAN, HELD, carried_over, of_values
from vae_core import expect_from_others

DATASET = Dataset.model_validate({
    "dataset": "pipes",
    "incoming": {"path": "."},
    "columns": {name: {"type": "float", "role": "numeric"} for name in ("flow", "loss", "alone", "switched")},
    "train": {"min_records": 50, "recipe": {"steps": 300, "n_members": 2, "width": 32}},
})


def pipes(n: int, seed: int) -> pa.Table:
    """Loss follows flow with heavy tails; nothing tells of the two others, of which one is 0 or 1."""
    random = np.random.default_rng(seed)
    flow = random.normal(size=n)
    return pa.table({
        "flow": flow,
        "loss": flow + 0.1 * random.standard_t(2, n),
        "alone": random.exponential(size=n),
        "switched": (random.random(n) < 0.1).astype(float),
    })


@pytest.mark.parametrize("n", [39, 200, 1000])
def test_the_next_value_is_inside_as_often_as_promised(n: int) -> None:
    """Over 4,000 draws from a skewed distribution; false alarm 1e-6 (Hoeffding: 0.043 either side).

    Split conformal prediction promises at least 0.95 and at most 2 / (n + 1) more.
    """
    random = np.random.default_rng(n)
    drawn = random.lognormal(size=(4000, n + 1)) - 1
    inside = 0
    for row in drawn:
        low, high = of_values(row[:-1])
        inside += low <= row[-1] <= high
    assert HELD - 0.043 <= inside / 4000 <= HELD + 2 / (n + 1) + 0.043


@given(st.lists(st.floats(-100, 100), max_size=38))
def test_few_values_never_make_the_interval_narrower_than_a_gaussian_s(values: list[float]) -> None:
    """Of fewer than 39 values no end leaves out a fortieth."""
    low, high = of_values(np.array(values))
    assert low == min([-GAUSSIAN, *values])
    assert high == max([GAUSSIAN, *values])


def test_a_model_trained_anew_has_its_bounds_stretched_as_those_of_known_records_are() -> None:
    """An end that is at the expected value itself stays there."""
    assert carried_over(((-2.0, 3.0), (0.0, 1.0)), ((-1.0, 2.0), (0.0, 4.0)), ((-2.0, 1.0), (-1.0, 4.0))) == (
        (-4.0, 1.5),
        (0.0, 1.0),
    )


@pytest.mark.parametrize("again", [False, True])
def test_the_share_of_later_records_inside_is_the_promised_one(again: bool) -> None:
    """Of each column, by the first fit and by the model that serves.

    False alarm 1e-6 for each end that is looked at: a quantile of 1,000 is off by a beta distribution, and
    the share among 5,000 others by little beside it; a model trained anew is allowed .02 more.
    """
    training, calibrating = pipes(3000, 1), pipes(1000, 2)
    detector = Detector.train(DATASET, training, calibrating, records_per_day=1000)
    if again:
        detector = detector.refit(DATASET, training, calibrating)
    records = detector.features.records(pipes(5000, 3))
    expected = expect_from_others(detector.vae, records)
    away = ((records.numeric - expected.mean) / expected.std).numpy()
    low, high = np.array(detector.intervals).T
    inside = ((low <= away) & (away <= high)).mean(axis=0)
    least, most = beta.ppf([1e-6, 1 - 1e-6], 951, 50)
    assert (inside > least - 0.01 - 0.02 * again).all()
    assert (inside[:3] < most + 0.01 + 0.02 * again).all()  # of a value that is 0 or 1 it may be more
    by_gaussian = (np.abs(away) <= GAUSSIAN).mean(axis=0)
    assert (np.abs(by_gaussian - HELD) > 0.03).any()  # what the decoder's deviation alone would say

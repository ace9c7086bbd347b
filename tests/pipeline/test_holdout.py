"""What no training sees: a share of all records by the hash of their keys, the same on every night."""

from __future__ import annotations

import math

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.derived import KEY
from pipeline.detection.numbers import Number
from pipeline.records import holdout

N = 40_000


def chosen(*tests: str) -> list[np.ndarray]:
    """Which of N keys meet each test."""
    columns = ", ".join(f"{test} AS c{i}" for i, test in enumerate(tests))
    query = f"SELECT {columns} FROM (SELECT 'record ' || i AS {KEY} FROM range({N}) t(i)) ORDER BY {KEY}"
    with duckdb.connect() as own:  # the module's connection may be in use by another test's unread result
        return [np.asarray(column) for column in own.sql(query).fetchnumpy().values()]


@pytest.mark.parametrize("share", [0.01, 0.1, 1 / 3])
def test_so_large_a_share_is_held_out_whatever_else_is_sampled(share: float) -> None:
    """Bounds of 4.5 standard deviations: a false alarm in 150,000 runs, each of two tests at three shares."""
    held, sampled = chosen(holdout.below(share), holdout.below(0.4, "newest"))
    assert abs(held.mean() - share) < 4.5 * math.sqrt(share * (1 - share) / N)
    n = held.sum()
    assert abs(sampled[held].mean() - 0.4) < 4.5 * math.sqrt(0.24 / n)


def test_a_larger_share_holds_out_the_same_records_and_more() -> None:
    """Versions trained under two shares have the smaller one in common."""
    none, small, large, whole = chosen(*(holdout.below(share) for share in (0, 0.1, 0.25, 1)))
    assert not none.any()
    assert whole.all()
    assert large[small].all()
    assert large.sum() > small.sum()


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=40),
    st.booleans(),
)
def test_the_slope_turns_densities_back_into_the_columns_own_units(values: list[float], heavy: bool) -> None:
    """∫ p(x) dx is 1 in any units, so ln |dz/dx| is that of the standardisation itself."""
    seen = np.array(values)
    number = Number(1.5, 2.5, centre=3.0, spread=7.0 if heavy else 0.0)
    step = 1e-3 * np.maximum(1, np.abs(seen))
    rise = number.standardise(seen + step) - number.standardise(seen - step)
    assert number.log_slope(seen) == pytest.approx(np.log(rise / (2 * step)), abs=1e-3)
    assert np.isnan(number.log_slope(np.array([np.nan]))).all()

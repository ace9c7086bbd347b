"""Bounds that `vaewatch init` proposes: far beyond the sample, or none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.contracts import row_rules
from pipeline.inference.bounds import Spread, unusual_share

from .inference_data import Guessed, N

SPREADS: dict[str, list[float | None]] = {
    "year": [2010 + i % 2 for i in range(N)],
    "epoch": [1_700_000_000 + 431 * i for i in range(N)],
    "height": [1.702 + 0.001 * (i % 9) for i in range(N)],
    "altitude": [-430.0 + i for i in range(N)],
    "debt": [-5.0 * i for i in range(N)],
    "price": [0.01 * i for i in range(N)],
    "tiny": [1e-12 * (1 + i % 5) for i in range(N)],
    "holes": [None if i % 4 else float(i) for i in range(N)],
}


def test_bounds_are_far_out(guess: Callable[..., Guessed]) -> None:
    """Who starts with a week of one season must not have the next one set aside; zero is not crossed."""
    guessed = guess({"2026-01-01.parquet": SPREADS})
    for name, values in SPREADS.items():
        column, seen = guessed.column(name), [v for v in values if v is not None]
        assert column.role == "numeric", name
        assert column.min is not None
        assert column.max is not None
        low, high, span = min(seen), max(seen), max(seen) - min(seen)
        assert column.min <= (0 if low >= 0 else low - 15 * span), name
        assert column.max >= (0 if high <= 0 else max(high + 15 * span, 1.9 * high)), name
    assert {guessed.column(n).min for n in ("year", "epoch", "height", "price", "tiny", "holes")} == {0}
    assert guessed.column("debt").max == 0
    assert {rule.code for rule in row_rules(guessed.dataset)} >= {"out_of_range"}


REVERSED: dict[str, list[float | None]] = {
    "fare_amount": [9.5 * (-1 if i % 50 == 0 else 1) + 0.01 * i for i in range(N)],
    "tollsAmount": [6.55 * (i % 2) for i in range(N)],
    "refund_amount_2": [-1.5 * (i % 7) for i in range(N)],
    "discount_sum": [-1.5 * (i % 7) for i in range(N)],
    "order_sum": [9.5 * (i % 9) for i in range(N)],
    "distance": [0.1 * (i % 60) for i in range(N)],
}


def test_no_bound_is_zero_where_columns_of_the_same_kind_have_both_signs(
    guess: Callable[..., Guessed],
) -> None:
    """Fares are reversed, so tolls will be. A discount is always below zero, which says nothing of orders."""
    guessed = guess({"2026-01-01.parquet": REVERSED})
    tolls, refund = guessed.column("tollsAmount"), guessed.column("refund_amount_2")
    assert tolls.min is not None
    assert tolls.min <= -15 * 6.55
    assert refund.max is not None
    assert refund.max >= 15 * 9
    assert "zero is no bound here: fare_amount has values on both sides of it" in guessed.proposal.text
    assert (guessed.column("discount_sum").max, guessed.column("order_sum").min) == (0, 0)
    assert guessed.column("distance").min == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_one_absurd_value_does_not_set_a_bound(guess: Callable[..., Guessed], sign: int) -> None:
    """A trip of 300,000 miles is no reason to call 600,000 right, nor to hide the next one from the model."""
    miles = [sign * 0.1 * (1 + i % 50) for i in range(2000)]
    miles[77] = sign * 300_000.0
    guessed = guess({"2026-01-01.parquet": {"miles": miles}})
    side, word, way = ("max", "above", "up") if sign > 0 else ("min", "below", "down")
    bounds = {"min": guessed.column("miles").min, "max": guessed.column("miles").max}
    assert bounds.pop(side) is None
    assert list(bounds.values()) == [0]
    assert f"no {side}: 1 of 2,000 are {word} {30 * sign}" in guessed.proposal.text
    (warning,) = guessed.proposal.warnings
    assert f"no {side}: 1 of 2,000 records {word} {30 * sign} ({way} to {sign * 300000:,})" in warning


def test_a_column_of_hardly_ever_another_value_has_no_bounds(guess: Callable[..., Guessed]) -> None:
    """One exception in five thousand says nothing of where the next one will lie."""
    guessed = guess({"2026-01-01.parquet": {"x": [i / 7 for i in range(5000)], "fee": [0.0] * 4999 + [9.5]}})
    assert (guessed.column("fee").role, guessed.column("fee").min, guessed.column("fee").max) == (
        "numeric",
        None,
        None,
    )
    assert "almost always 0: no bounds" in guessed.proposal.text


FINITE = st.floats(-1e200, 1e200)


@given(st.lists(FINITE, min_size=3, max_size=60))
def test_the_sample_keeps_its_own_bounds(values: list[float]) -> None:
    """What was delivered yesterday is not set aside tomorrow."""
    share = unusual_share(len(values))
    low, middle, high = (float(x) for x in np.quantile(values, [share, 0.5, 1 - share]))
    found = Spread(min(values), low, middle, high, max(values)).bounds()
    assert found.get("min", -math.inf) <= min(values)
    assert max(values) <= found.get("max", math.inf)


@given(st.floats(1.0, 1e100))
def test_bounds_do_not_follow_the_farthest_value(factor: float) -> None:
    """However far out it lies, the other side stays where it is and this one opens."""
    usual = Spread(-3.1, -3.0, 0.0, 3.0, 3.1)
    found = Spread(-3.1, -3.0, 0.0, 3.0, 40.0 * factor).bounds()
    assert found == {"min": usual.bounds()["min"]}


def test_numbers_that_are_not_finite_make_no_bounds(guess: Callable[..., Guessed]) -> None:
    """One infinity in the sample must not become `max: .inf`, nor NaN a category of its own."""
    columns = {
        "huge": [1.7e308 * (-1) ** i for i in range(N)],
        "infinite": [float("inf") if i % 5 == 0 else float(i) for i in range(N)],
        "nan": [float("nan") if i % 5 == 0 else float(i) for i in range(N)],
        "nothing": [float("nan")] * N,
    }
    guessed = guess({"2026-01-01.parquet": columns})
    assert (guessed.column("huge").min, guessed.column("huge").max) == (None, None)
    assert (guessed.column("infinite").min, guessed.column("infinite").max) == (0, 4100)
    assert (guessed.column("nan").min, guessed.column("nan").max) == (0, 4100)
    assert guessed.column("nothing").role == "ignored"

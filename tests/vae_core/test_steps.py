"""Columns whose values come in steps: how far apart they are, and that no decoder claims to know them more
precisely than rounding leaves them.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from vae_core import Layout, Recipe, Records, fit, score
from vae_core.column_noise import NumericNoise
from vae_core.stock import step


def drawn(n: int = 5000, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@given(size=st.floats(0.05, 3.0), seed=st.integers(0, 20))
def test_the_step_of_rounded_values_is_what_they_were_rounded_to(size: float, seed: int) -> None:
    rounded = (drawn(seed=seed) / size).round() * size
    assert step(rounded) == pytest.approx(size, rel=1e-4)


def test_noise_of_arithmetic_is_no_step() -> None:
    """Differences and medians of rounded values differ in their last digits."""
    rounded = (drawn() / 0.5).round() * 0.5 + 1e-5 * drawn(seed=1)
    assert step(rounded) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("n", [30, 500, 5000, 300_000])
def test_values_without_steps_have_next_to_none(n: int) -> None:
    """The floor of the default is a tenth: a step below 0.35 does not raise it."""
    heavy = drawn(n).exp().exp().clamp(max=1e6)
    for values in (drawn(n), heavy / heavy.std(), drawn(n) * (drawn(n, 1) > 0)):
        assert step(values) < 0.2


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_of_yes_and_no_the_step_is_from_one_to_the_other(share: float) -> None:
    column = (torch.rand(5000, generator=torch.Generator().manual_seed(2)) < share).float()
    standardised = (column - column.mean()) / column.std()
    assert step(standardised) == pytest.approx(float(1 / column.std()), rel=1e-4)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0], [2.0] * 50, [math.inf, 1.0, math.nan]])
def test_of_values_that_do_not_differ_there_is_no_step(values: list[float]) -> None:
    assert step(torch.tensor(values)) == 0


def test_a_rare_yes_costs_about_as_much_as_it_is_rare() -> None:
    """The variance of rounding, (1/s)²/12 with s the column's deviation, makes it ½ · 12 (1 − p)² nats at the
    mean, whatever p is; a tenth of a deviation as the floor would make it 50 / p.
    """
    layout, recipe = Layout(("rare",)), Recipe(n_members=1)
    noise = NumericNoise(layout, recipe)
    share = 0.01
    deviation = math.sqrt(share * (1 - share))
    noise.know_steps(torch.tensor([1 / deviation]))
    nothing = torch.zeros(1, 1, 1)
    said = noise(nothing, nothing - 100)
    yes, usual = (said.log_prob(torch.tensor([[x]])) for x in ((1 - share) / deviation, -share / deviation))
    assert_close(usual - yes, torch.full((1, 1, 1), 6 * ((1 - share) ** 2 - share**2)))


def test_the_floor_is_rounding_to_steps_or_the_recipes_whichever_is_more() -> None:
    layout = Layout(("smooth", "stepped", "wide"))
    for factor in (1.0, 0.5, 0.0):
        noise = NumericNoise(layout, Recipe(n_members=2, step_floor=factor))
        noise.know_steps(torch.tensor([0.01, 2.0, 1e9]))
        expected = [0.01, max(0.01, factor**2 * 4 / 12), math.exp(4) if factor else 0.01]
        assert_close(noise.lowest_variance, torch.tensor(expected).expand(2, 1, 3))


def test_one_step_of_a_column_that_mostly_stands_still_is_no_anomaly() -> None:
    """A sensor that reads 7.01 and then 7.02 has changed by what it can show: eight deviations, and nothing
    to look at.
    """
    random = torch.Generator().manual_seed(4)
    n = 3000
    still = torch.zeros(n)
    still[torch.randperm(n, generator=random)[: n // 60]] = 0.01
    numeric = torch.stack([(still - still.mean()) / still.std(), torch.randn(n, generator=random)], dim=1)
    records = Records(numeric, torch.empty(n, 0).long(), torch.empty(n, 0))
    moved = still > 0
    medians = {}
    for factor in (1.0, 0.0):
        recipe = Recipe(steps=300, n_members=2, step_floor=factor, linear_records=0)
        found = score(fit(Layout(("change", "other")), records, recipe, seed=0), records).anomaly_score
        medians[factor] = float(found[moved].median() - found[~moved].median())
    assert medians[1.0] < 20 < 100 < medians[0.0]

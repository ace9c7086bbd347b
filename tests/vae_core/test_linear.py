"""The linear model beside the networks, against Gaussians that are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from vae_core import Layout, Recipe, Records, fit, score
from vae_core.linear import LinearGaussian

seeds = st.integers(0, 2**32 - 1)


def records(numeric: Tensor, context: Tensor | None = None) -> Records:
    n = len(numeric)
    given_that = torch.zeros(n, 0) if context is None else context
    return Records(numeric.float(), torch.zeros(n, 0, dtype=torch.int64), given_that.float())


def known(seed: int, n_columns: int = 5) -> tuple[LinearGaussian, Tensor, Tensor]:
    """A model with a mean and a covariance; and both."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(n_columns, n_columns, generator=generator)
    covariance = root @ root.T + 0.5 * torch.eye(n_columns)
    mean = torch.randn(n_columns, generator=generator)
    model = LinearGaussian((True,) * n_columns, 0)
    model.coefficients.copy_(mean[None])
    model.precision.copy_(torch.linalg.inv(covariance.double()).float())
    return model, mean, covariance


@given(seed=seeds)
def test_the_columns_parts_add_up_to_minus_log_p_and_a_constant(seed: int) -> None:
    """torch.distributions agrees on every difference between two records."""
    model, mean, covariance = known(seed)
    x = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(seed + 1))
    ours = model.surprise(records(x)).sum(dim=1)
    theirs = -MultivariateNormal(mean, covariance).log_prob(x)
    assert_close(ours - ours[0], theirs - theirs[0], rtol=1e-3, atol=1e-2)


@given(seed=seeds, pattern=st.lists(st.booleans(), min_size=5, max_size=5).filter(any))
def test_a_missing_cell_leaves_the_marginal_of_the_others(seed: int, pattern: list[bool]) -> None:
    """Half the squared Mahalanobis distance of what is there, under its own mean and covariance; nothing for
    the gap.
    """
    model, mean, covariance = known(seed)
    there = torch.tensor(pattern)
    x = 2 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed + 1))
    gaps = x.masked_fill(~there, torch.nan)
    ours = model.surprise(records(gaps))
    assert (ours[:, ~there] == 0).all()
    away = (x - mean)[:, there].double()
    inverse = torch.linalg.inv(covariance[there][:, there].double())
    expected = 0.5 * (away @ inverse * away).sum(dim=1)
    assert_close(ours.sum(dim=1), expected.float(), rtol=2e-3, atol=1e-2)


def test_a_complete_record_is_not_touched_by_the_gaps_of_others() -> None:
    """To the bit: a batch is only a batch."""
    model, *_ = known(3)
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(4))
    gaps = x.clone()
    gaps[::2, 1] = torch.nan
    assert torch.equal(model.surprise(records(gaps))[1::2], model.surprise(records(x))[1::2])


def test_a_cluster_of_anomalies_does_not_pull_the_fit() -> None:
    """A fifth of the records lies elsewhere, close together. Trimmed, their squared distance is what the true
    Gaussian says, within a factor of two; untrimmed, a quarter of it or less.
    """
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(4000, 4, generator=generator) @ torch.tensor([
        [1.0, 0.8, 0, 0],
        [0, 0.6, 0, 0],
        [0, 0, 1, 0.5],
        [0, 0, 0, 1],
    ])
    cluster = torch.tensor([3.0, -3.0, 3.0, -3.0]) + 0.2 * torch.randn(1000, 4, generator=generator)
    true = MultivariateNormal(torch.zeros(4), normal.T @ normal / len(normal))
    distance = -2 * (true.log_prob(cluster) - true.log_prob(torch.zeros(4))).median()
    found = {}
    for trim in (0.0, 0.25):
        model = LinearGaussian((True,) * 4, 0)
        model.fit(records(torch.cat([normal, cluster])), trim=trim, floor=0.01)
        found[trim] = float(2 * model.surprise(records(cluster)).sum(dim=1).median())
    assert 0.5 * distance < found[0.25] < 2 * distance
    assert found[0.0] < 0.25 * distance


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_the_mean_follows_the_context_and_gaps_do_not_bias_it(missing: float) -> None:
    """x = 2c + 1 + noise and y = −x + noise, in 5,000 records: coefficients within 0.05, precision within a
    tenth.
    """
    generator = torch.Generator().manual_seed(6)
    context = torch.randn(5000, 1, generator=generator)
    x = 2 * context + 1 + 0.5 * torch.randn(5000, 1, generator=generator)
    both = torch.cat([x, -x + 0.5 * torch.randn(5000, 1, generator=generator)], dim=1)
    both[torch.rand(both.shape, generator=generator) < missing] = torch.nan
    model = LinearGaussian((True, True), 1)
    model.fit(records(both, context), trim=0.0, floor=0.01)
    assert_close(model.coefficients, torch.tensor([[2.0, -2.0], [1.0, -1.0]]), rtol=0, atol=0.05)
    precision = torch.linalg.inv(torch.tensor([[0.25, -0.25], [-0.25, 0.5]]))
    assert_close(model.precision, precision, rtol=0.1, atol=0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_few_records_constant_and_empty_columns_give_a_finite_model(n: int) -> None:
    """More columns than records, one of them constant, one never observed."""
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(7))
    x[:, 1], x[:, 2] = 0.0, torch.nan
    model = LinearGaussian((True,) * 6, 0)
    model.fit(records(x), trim=0.25, floor=0.1)
    far = torch.full((1, 6), 1e6)
    assert model.surprise(records(torch.cat([x, far]))).isfinite().all()
    assert model.surprise(records(far)).sum() > 1e6


def test_half_as_many_records_as_columns_say_nothing_of_pairs() -> None:
    """The covariance is shrunk to its diagonal, whose inverse is each column's own; one record more and pairs
    count.
    """
    x = torch.randn(21, 1, generator=torch.Generator().manual_seed(9)) + 0.1 * torch.randn(21, 40)
    for n, is_diagonal in ((20, True), (21, False)):
        model = LinearGaussian((True,) * 40, 0)
        model._fit_to(records(x[:n]), 0.1)
        own = 1 / (x[:n].var(dim=0, correction=0) + 0.01)
        off = model.precision - model.precision.diag().diag()
        assert bool((off == 0).all()) == is_diagonal
        if is_diagonal:
            assert_close(model.precision.diag(), own, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("settings", [{}, {"column_noise": {"h": "poisson"}}])
def test_it_finds_what_networks_learn_by_heart(settings: dict[str, Any]) -> None:
    """100 records, 15 of them shifted together: networks alone learn those, too. Columns of counts are left
    to the networks.
    """
    generator = torch.Generator().manual_seed(8)
    x = 0.5 * torch.randn(100, 8, generator=generator) + torch.randn(100, 1, generator=generator)
    x[:15] += torch.tensor([1.5, -1.5]).repeat(4)
    if settings:
        x[:, 7] = x[:, 7].abs().floor()
    found = {}
    for linear_records in (0, 1000):
        recipe = Recipe(steps=800, n_members=2, linear_records=linear_records, **settings)
        vae = fit(Layout(tuple("abcdefgh")), records(x), recipe, seed=0)
        scores = score(vae, records(x)).anomaly_score
        found[linear_records] = float((scores[:15, None] > scores[15:]).float().mean())  # AUROC
    assert vae.linear is not None
    assert float(vae.linear.weight) == pytest.approx(1000 / 1100)
    assert found[1000] > max(0.9, found[0] + 0.05)


def test_columns_that_are_mostly_one_value_do_not_blow_the_precision_up() -> None:
    """80 % of the records all zero: most lie as near as can be, whatever the spread, and that says nothing of
    its scale.
    """
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(1000, 3, generator=generator) * (torch.rand(1000, 1, generator=generator) < 0.2)
    model = LinearGaussian((True,) * 3, 0)
    model.fit(records(x), trim=0.25, floor=0.1)
    assert model.precision.max() <= 2.001 / 0.1**2
    wide = torch.randn(1000, 12, generator=generator)
    wide[:, 2:] = 0.0  # ten constant columns beside two that vary
    model = LinearGaussian((True,) * 12, 0)
    model.fit(records(wide), trim=0.0, floor=0.1)
    assert_close(model.precision[:2, :2], torch.eye(2), rtol=0, atol=0.15)


def test_gaps_neither_stop_the_scale_nor_choose_the_records() -> None:
    """A column that nobody ever saw changes nothing for the others, and one seen ten times has the mean of
    those ten.
    """
    generator = torch.Generator().manual_seed(10)
    x = torch.randn(2000, 3, generator=generator)
    both = []
    for extra in (x[:, :0], torch.full((2000, 1), torch.nan)):
        model = LinearGaussian((True,) * (3 + extra.shape[1]), 0)
        model.fit(records(torch.cat([x, extra], dim=1)), trim=0.25, floor=0.1)
        both.append(model.precision[:3, :3])
    assert_close(both[0], both[1], rtol=0.02, atol=0.02)
    x[10:, 2] = torch.nan
    x[:10, 2] += 2
    model = LinearGaussian((True,) * 3, 0)
    model.fit(records(x), trim=0.0, floor=0.1)
    assert_close(model.coefficients[0, 2], x[:10, 2].mean(), rtol=0.02, atol=0.0)

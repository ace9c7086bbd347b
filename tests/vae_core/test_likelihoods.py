"""Noise models against torch.distributions and scipy."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from vae_core.likelihoods import Categorical, ColumnLikelihood
from vae_core.noise import Gaussian
from vae_core.records import MISSING, Records

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds)
def test_gaussian_log_density_is_that_of_torch_and_scipy(seed: int) -> None:
    """Two independent implementations agree with ours, per cell."""
    generator = torch.Generator().manual_seed(seed)
    x, mean, log_variance = (torch.randn(3, 4, generator=generator) for _ in range(3))
    ours = Gaussian(mean, log_variance.exp()).log_prob(x)
    std = (log_variance / 2).exp()
    assert_close(ours, torch.distributions.Normal(mean, std).log_prob(x))
    expected = torch.as_tensor(stats.norm(mean.numpy(), std.numpy()).logpdf(x.numpy()))
    assert_close(ours, expected.float(), rtol=1e-4, atol=1e-5)


@given(seed=seeds, n_codes=st.integers(2, 40), floor=st.floats(1e-6, 0.5))
def test_categorical_log_probability_is_that_of_the_mixture(seed: int, n_codes: int, floor: float) -> None:
    """torch.distributions, given the softmax mixed with an even share, agrees."""
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(2, 6, n_codes, generator=generator)
    codes = torch.randint(0, n_codes, (6, 1), generator=generator)
    ours = Categorical((logits,), floor)
    mixed = (1 - floor) * logits.double().softmax(-1) + floor / n_codes
    expected = torch.distributions.Categorical(probs=mixed).log_prob(codes[:, 0])
    assert_close(ours.log_prob(codes)[..., 0], expected.float(), rtol=1e-4, atol=1e-5)
    assert_close(ours.probabilities(0).sum(-1), torch.ones(2, 6))


def test_no_category_costs_more_than_the_floor_allows() -> None:
    """One impossible category must not outweigh every other column."""
    logits = torch.tensor([[[80.0, -80.0]]])
    surprise = -Categorical((logits,), 1e-3).log_prob(torch.tensor([[1]]))
    assert_close(surprise.item(), math.log(2 / 1e-3), rtol=1e-5, atol=0.0)


@given(seed=seeds)
def test_a_missing_cell_has_log_probability_zero_and_no_gradient(seed: int) -> None:
    """What was not observed says nothing, neither about the record nor to the weights."""
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(3, 5, 6, generator=generator, requires_grad=True)
    mean, log_variance, logits = parameters.split([1, 1, 4], dim=-1)
    likelihood = ColumnLikelihood(Gaussian(mean, log_variance.exp()), Categorical((logits,), 0.01))
    numeric, codes = torch.randn(5, 1, generator=generator), torch.zeros(5, 1, dtype=torch.int64)
    numeric[2], codes[2] = torch.nan, MISSING
    log_prob = likelihood.log_prob(Records(numeric, codes, torch.zeros(5, 0)))
    assert (log_prob[:, 2] == 0).all()
    (gradient,) = torch.autograd.grad(log_prob.sum(), parameters)
    assert (gradient[:, 2] == 0).all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("value", [1e6, 1e30, math.inf, -1e30, -math.inf])
def test_extreme_numbers_stay_finite_and_in_order(value: float) -> None:
    """A unit mix-up gives values like these; it must rank first, not crash the night's run."""
    gaussian = Gaussian(torch.zeros(1, 1), torch.full((1, 1), 0.01))
    likelihood = ColumnLikelihood(gaussian, Categorical((), 0.01))
    extreme, large = (
        likelihood.log_prob(
            Records(torch.tensor([[x]]), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0))
        )
        for x in (value, 1e5)
    )
    assert extreme.isfinite().all()
    assert (extreme <= large).all()

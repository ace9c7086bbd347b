"""Gaussian posteriors against torch.distributions and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vae_core.posteriors import DiagonalGaussian, FullGaussian

seeds = st.integers(0, 2**32 - 1)


def full(seed: int, n_latents: int, n_records: int = 5) -> tuple[FullGaussian, Tensor]:
    """A posterior from random encoder outputs, in double precision, and noise for it."""
    generator = torch.Generator().manual_seed(seed)
    n_outputs = FullGaussian.n_outputs(n_latents)
    outputs = torch.randn(2, n_records, n_outputs, generator=generator, dtype=torch.float64)
    noise = torch.randn(2, n_records, n_latents, generator=generator, dtype=torch.float64)
    return FullGaussian.of(outputs), noise


@given(seed=seeds, n_latents=st.integers(1, 6))
def test_a_full_covariance_has_the_density_and_the_kl_of_torch_s(seed: int, n_latents: int) -> None:
    """log q(z|x) from the noise alone is that of the multivariate normal at the latents drawn."""
    posterior, noise = full(seed, n_latents)
    theirs = MultivariateNormal(posterior.mean, scale_tril=posterior.factor)
    latents = posterior.draw(noise)
    assert_close(posterior.log_density(noise), theirs.log_prob(latents))
    identity = torch.eye(n_latents, dtype=torch.float64)
    prior = MultivariateNormal(torch.zeros(n_latents, dtype=torch.float64), identity)
    assert_close(posterior.kl_to_prior(), kl_divergence(theirs, prior))
    assert_close(posterior.variance, theirs.variance)
    assert (posterior.factor.triu(1) == 0).all()


@given(seed=seeds, n_latents=st.integers(1, 6))
def test_a_diagonal_factor_is_the_diagonal_posterior(seed: int, n_latents: int) -> None:
    """The one family is inside the other."""
    posterior, noise = full(seed, n_latents)
    std = posterior.factor.diagonal(dim1=-2, dim2=-1)
    wide, narrow = FullGaussian(posterior.mean, torch.diag_embed(std)), DiagonalGaussian(posterior.mean, std)
    for name in ("draw", "log_density"):
        assert_close(getattr(wide, name)(noise), getattr(narrow, name)(noise))
    assert_close(wide.kl_to_prior(), narrow.kl_to_prior())
    assert_close(wide.variance, narrow.variance)


def test_draws_have_the_covariance_they_claim() -> None:
    """100,000 draws: an entry of the sample covariance deviates by 1/sqrt(100,000) of the scale; six of those
    are allowed.
    """
    posterior, _ = full(3, 3, n_records=1)
    noise = torch.randn(100_000, 2, 1, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    draws = torch.stack([posterior.draw(one) for one in noise.split(1)]).reshape(100_000, 2, 3)
    for member in range(2):
        expected = posterior.factor[member, 0] @ posterior.factor[member, 0].T
        scale = expected.diagonal().max()
        assert_close(
            draws[:, member].T.cov(), expected, rtol=0, atol=float(6 * 2**0.5 * scale / 100_000**0.5)
        )


@pytest.mark.parametrize("kind", [DiagonalGaussian, FullGaussian])
def test_outputs_however_extreme_give_a_finite_posterior(kind: type) -> None:
    """An encoder that was fed 1e30 must not end the night."""
    outputs = torch.tensor([[1e30, -1e30, 0.0, 5.0, -1e4, 1e4, 1e30, -1e30, 1e30]])[:, : kind.n_outputs(3)]
    posterior = kind.of(outputs)
    assert posterior.variance.isfinite().all()
    assert posterior.draw(torch.ones(1, 3)).isfinite().all()
    assert posterior.kl_to_prior().isfinite().all()
    assert (posterior.kl_to_prior() >= 0).all()


@pytest.mark.parametrize("kind", [DiagonalGaussian, FullGaussian])
@given(seed=seeds)
def test_the_score_function_estimator_agrees_with_the_reparameterised_gradient(kind: type, seed: int) -> None:
    """Two ways to the gradient of E[f(z)], f(z) = z'Az + b'z with A symmetric, by the mean and by L: through
    the draw, and f(z) times the gradient of the posterior's own log-density at a fixed z.

    Both are 2A mean + b and the lower part of 2AL. Five Gauss-Hermite nodes an axis are exact up to degree 9,
    and the degree here is 4.
    """
    generator = torch.Generator().manual_seed(seed)
    a, scale = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    b, mean = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    a, lower = a + a.T, scale.tril(-1) + torch.diag(scale.diagonal().abs() + 0.2)
    mean.requires_grad_()
    scale = (lower if kind is FullGaussian else lower.diagonal().clone()).requires_grad_()
    noise, weight = _nodes(2)
    posterior = kind(mean.expand(25, 2), scale.expand(25, *scale.shape))
    z = posterior.draw(noise)
    value = ((z @ a) * z).sum(dim=1) + z @ b
    through_noise = torch.autograd.grad((weight * value).sum(), (mean, scale), retain_graph=True)
    away = z.detach() - mean
    factor = scale if kind is FullGaussian else torch.diag(scale)
    same_noise = torch.linalg.solve_triangular(factor, away.T, upper=False).T
    log_density = posterior.log_density(same_noise)
    by_score = torch.autograd.grad((weight * value.detach() * log_density).sum(), (mean, scale))
    by_scale = (2 * a @ lower).tril() if kind is FullGaussian else 2 * a.diagonal() * lower.diagonal()
    for found in (through_noise, by_score):
        assert_close(found[0], 2 * a @ mean.detach() + b)
        assert_close(found[1].tril() if kind is FullGaussian else found[1], by_scale)


def _nodes(n_axes: int) -> tuple[Tensor, Tensor]:
    """Nodes (5^n, n) and weights (5^n,) of an expectation over N(0, I)."""
    nodes, weights = (torch.as_tensor(x) for x in np.polynomial.hermite_e.hermegauss(5))
    grid = torch.cartesian_prod(*[nodes] * n_axes)
    weight = torch.cartesian_prod(*[weights / (2 * math.pi) ** 0.5] * n_axes).prod(dim=1)
    return grid, weight

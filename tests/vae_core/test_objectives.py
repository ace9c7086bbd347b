"""The bound against what is known in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from vae_core.likelihoods import Gaussian
from vae_core.objectives import ElboTerms, elbo_terms, kl_to_standard_normal
from vae_core.records import Records

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, spread=st.floats(0.01, 5.0))
def test_kl_is_that_of_torch_and_never_negative(seed: int, spread: float) -> None:
    """The closed form agrees with torch.distributions' own."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = spread * torch.randn(2, 3, 7, 4, generator=generator)
    posterior = Normal(mean, log_std.clamp(-6, 3).exp())
    ours = kl_to_standard_normal(posterior)
    assert_close(ours, kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1), rtol=1e-4, atol=1e-4)
    assert (ours >= 0).all()


def test_kl_of_the_prior_itself_is_zero() -> None:
    """Exactly, not nearly: an unused latent adds nothing to a score."""
    assert kl_to_standard_normal(Normal(torch.zeros(2, 3), torch.ones(2, 3))).tolist() == [0.0, 0.0]


@dataclass(frozen=True)
class _Decoded:
    """A likelihood of numeric columns alone."""

    gaussian: Gaussian

    def log_prob(self, records: Records) -> Tensor:
        return self.gaussian.log_prob(records.values)


@dataclass(frozen=True)
class ProbabilisticPca:
    """x = W z + noise with orthogonal columns in W: a VAE whose evidence and posterior are known (Tipping & Bishop 1999)."""

    weight: Tensor  # (n_features, n_latents), orthogonal columns
    variance: float

    def decode(self, latents: Tensor) -> _Decoded:
        mean = latents @ self.weight.T
        return _Decoded(Gaussian(mean, torch.full_like(mean, self.variance)))

    def posterior(self, x: Tensor) -> Normal:
        precision = self.weight.square().sum(0) / self.variance + 1
        return Normal(x @ self.weight / self.variance / precision, precision.rsqrt().expand(len(x), -1))

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(len(self.weight))
        return MultivariateNormal(torch.zeros(len(self.weight)), covariance).log_prob(x)


def probabilistic_pca(seed: int) -> tuple[ProbabilisticPca, Records]:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(6, 3, generator=generator)).Q
    pca = ProbabilisticPca(basis * torch.rand(3, generator=generator).add(0.5), variance=0.2)
    x = 1.5 * torch.randn(10, 6, generator=generator)
    return pca, Records(x, torch.zeros(10, 0, dtype=torch.int64), torch.zeros(10, 0))


def expected_elbo_terms(pca: ProbabilisticPca, records: Records, posterior: Normal) -> ElboTerms:
    """The expectation over the noise, exactly: -log p(x|z) is quadratic in z, so 2k points suffice (cubature of degree 3)."""
    k = posterior.mean.shape[-1]
    nodes = torch.cat([torch.eye(k), -torch.eye(k)]) * math.sqrt(k)
    at_nodes = [elbo_terms(records, posterior, pca.decode, node.expand_as(posterior.mean)) for node in nodes]
    return ElboTerms(torch.stack([t.reconstruction for t in at_nodes]).mean(0), at_nodes[0].kl_divergence)


@given(seed=seeds)
def test_the_bound_is_tight_at_the_exact_posterior(seed: int) -> None:
    """With the true posterior as encoder, -ELBO is -log p(x)."""
    pca, records = probabilistic_pca(seed)
    terms = expected_elbo_terms(pca, records, pca.posterior(records.numeric))
    assert_close(terms.loss(), -pca.log_evidence(records.numeric), rtol=1e-4, atol=1e-3)


@given(seed=seeds, shift=st.floats(-2, 2), stretch=st.floats(0.3, 3))
def test_the_bound_is_never_below_the_evidence(seed: int, shift: float, stretch: float) -> None:
    """Any other posterior costs exactly its KL to the true one, which is never negative."""
    pca, records = probabilistic_pca(seed)
    exact = pca.posterior(records.numeric)
    other = Normal(exact.mean + shift, exact.stddev * stretch)
    gap = expected_elbo_terms(pca, records, other).loss() + pca.log_evidence(records.numeric)
    assert_close(gap, kl_divergence(other, exact).sum(-1), rtol=1e-3, atol=2e-3)


@given(seed=seeds)
def test_the_reparameterised_gradient_is_the_closed_form_one(seed: int) -> None:
    """Gradients through the noise, averaged over exact nodes, equal those of the expectation written out."""
    pca, records = probabilistic_pca(seed)
    exact = pca.posterior(records.numeric)
    mean = (exact.mean + 0.3).requires_grad_()
    log_std = (exact.stddev.log() + 0.2).requires_grad_()
    loss = expected_elbo_terms(pca, records, Normal(mean, log_std.exp())).loss().sum()
    through_noise = torch.autograd.grad(loss, (mean, log_std))
    squares, variance = pca.weight.square().sum(0), log_std.detach().exp().square()
    by_mean = (mean @ pca.weight.T - records.numeric) @ pca.weight / pca.variance + mean
    by_log_std = variance * squares / pca.variance + variance - 1
    assert_close(through_noise, (by_mean, by_log_std), rtol=1e-3, atol=2e-3)


def test_the_kl_weight_scales_the_kl_alone() -> None:
    """The beta-VAE's loss."""
    terms = ElboTerms(torch.tensor([1.0]), torch.tensor([2.0]))
    assert terms.loss(0.5).tolist() == [2.0]
    assert terms.loss().tolist() == [3.0]

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

from vae_core.noise import Gaussian
from vae_core.objectives import ElboTerms, elbo_terms, importance_weighted_loss
from vae_core.posteriors import DiagonalGaussian, FullGaussian, Posterior
from vae_core.priors import StandardNormal
from vae_core.records import Records

seeds = st.integers(0, 2**32 - 1)
NORMAL = StandardNormal(1, 3, 1)


@given(seed=seeds, spread=st.floats(0.01, 5.0))
def test_kl_is_that_of_torch_and_never_negative(seed: int, spread: float) -> None:
    """The closed form agrees with torch.distributions' own."""
    generator = torch.Generator().manual_seed(seed)
    mean, log_std = spread * torch.randn(2, 3, 7, 4, generator=generator)
    posterior = DiagonalGaussian(mean, log_std.clamp(-6, 3).exp())
    ours = posterior.kl_to_prior()
    assert_close(
        ours,
        kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum(-1),
        rtol=1e-4,
        atol=1e-4,
    )
    assert (ours >= 0).all()


def test_kl_of_the_prior_itself_is_zero() -> None:
    """Exactly, not nearly: an unused latent adds nothing to a score."""
    assert DiagonalGaussian(torch.zeros(2, 3), torch.ones(2, 3)).kl_to_prior().tolist() == [0.0, 0.0]


@dataclass(frozen=True)
class _Decoded:
    """A likelihood of numeric columns alone."""

    gaussian: Gaussian

    def log_prob(self, records: Records) -> Tensor:
        return self.gaussian.log_prob(records.values)


@dataclass(frozen=True)
class ProbabilisticPca:
    """x = W z + noise with orthogonal columns in W: a VAE whose evidence and posterior are known (Tipping &
    Bishop 1999).
    """

    weight: Tensor  # (n_features, n_latents), orthogonal columns
    variance: float

    def decode(self, latents: Tensor) -> _Decoded:
        mean = latents @ self.weight.T
        return _Decoded(Gaussian(mean, torch.full_like(mean, self.variance)))

    def posterior(self, x: Tensor) -> DiagonalGaussian:
        precision = self.weight.square().sum(0) / self.variance + 1
        return DiagonalGaussian(
            x @ self.weight / self.variance / precision, precision.rsqrt().expand(len(x), -1)
        )

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(len(self.weight))
        return MultivariateNormal(torch.zeros(len(self.weight)), covariance).log_prob(x)


def probabilistic_pca(seed: int) -> tuple[ProbabilisticPca, Records]:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(6, 3, generator=generator)).Q
    pca = ProbabilisticPca(basis * torch.rand(3, generator=generator).add(0.5), variance=0.2)
    x = 1.5 * torch.randn(10, 6, generator=generator)
    return pca, Records(x, torch.zeros(10, 0, dtype=torch.int64), torch.zeros(10, 0))


def expected_elbo_terms(pca: ProbabilisticPca, records: Records, posterior: Posterior) -> ElboTerms:
    """The expectation over the noise, exactly: -log p(x|z) is quadratic in z, so 2k points suffice (cubature
    of degree 3).
    """
    k = posterior.mean.shape[-1]
    nodes = torch.cat([torch.eye(k), -torch.eye(k)]) * math.sqrt(k)
    at_nodes = [
        elbo_terms(records, posterior, NORMAL, pca.decode, node.expand_as(posterior.mean)) for node in nodes
    ]
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
    other = DiagonalGaussian(exact.mean + shift, exact.std * stretch)
    gap = expected_elbo_terms(pca, records, other).loss() + pca.log_evidence(records.numeric)
    assert_close(
        gap,
        kl_divergence(Normal(other.mean, other.std), Normal(exact.mean, exact.std)).sum(-1),
        rtol=1e-3,
        atol=2e-3,
    )


@given(seed=seeds)
def test_the_reparameterised_gradient_is_the_closed_form_one(seed: int) -> None:
    """Gradients through the noise, averaged over exact nodes, equal those of the expectation written out."""
    pca, records = probabilistic_pca(seed)
    exact = pca.posterior(records.numeric)
    mean = (exact.mean + 0.3).requires_grad_()
    log_std = (exact.std.log() + 0.2).requires_grad_()
    loss = expected_elbo_terms(pca, records, DiagonalGaussian(mean, log_std.exp())).loss().sum()
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


def draws(k: int, posterior: Posterior, seed: int, repeats: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, repeats, *posterior.mean.shape, generator=generator)


def mean_loss(
    k: int, pca: ProbabilisticPca, records: Records, posterior: Posterior, repeats: int = 4000
) -> Tensor:
    """The expectation of the importance-weighted loss, by many draws, mean over records."""
    noise = draws(k, posterior, seed=k, repeats=repeats)
    return importance_weighted_loss(records, posterior, NORMAL, pca.decode, noise).mean()


def test_more_draws_tighten_the_bound_towards_the_evidence() -> None:
    """−ELBO >= K = 1 >= 3 >= 10 >= 50 >= −log p(x), from a posterior that is off.

    Means over 40,000 losses: the gaps between them are above 0.05 nats, and their standard errors below
    0.005.
    """
    pca, records = probabilistic_pca(5)
    exact = pca.posterior(records.numeric)
    off = DiagonalGaussian(exact.mean + 0.4, exact.std * 1.3)
    evidence = -pca.log_evidence(records.numeric).mean()
    elbo = expected_elbo_terms(pca, records, off).loss().mean()
    losses = [mean_loss(k, pca, records, off) for k in (1, 3, 10, 50)]
    assert_close(losses[0], elbo, rtol=0, atol=0.03)
    assert losses[0] > losses[1] + 0.02 > losses[2] + 0.03 > losses[3] + 0.03
    assert -0.01 < losses[3] - evidence < 0.1


@given(seed=seeds, k=st.integers(1, 5))
def test_at_the_exact_posterior_every_draw_gives_the_evidence(seed: int, k: int) -> None:
    """p(x, z) / q(z|x) is then p(x), whatever z: no variance is left, with one draw or five."""
    pca, records = probabilistic_pca(seed)
    posterior = pca.posterior(records.numeric)
    loss = importance_weighted_loss(
        records, posterior, NORMAL, pca.decode, draws(k, posterior, seed, repeats=2)
    )
    assert_close(loss, -pca.log_evidence(records.numeric).expand(2, -1), rtol=1e-4, atol=2e-3)


@given(seed=seeds)
def test_a_full_posterior_reaches_the_evidence_where_latents_vary_together(seed: int) -> None:
    """With columns of W at an angle the true posterior has a full covariance: the full family gives −log
    p(x). The best diagonal one, of the same mean and of the precision's diagonal, stays above it by its KL to
    the true one, ½ (Σ log P_ii − log|P|); one of other deviations by more.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 3, generator=generator)
    pca = ProbabilisticPca(weight, variance=0.3)
    x = torch.randn(10, 6, generator=generator)
    records = Records(x, torch.zeros(10, 0, dtype=torch.int64), torch.zeros(10, 0))
    precision = weight.T @ weight / pca.variance + torch.eye(3)
    covariance = torch.linalg.inv(precision)
    mean = x @ weight @ covariance / pca.variance
    exact = FullGaussian(mean, torch.linalg.cholesky(covariance).expand(10, -1, -1))
    assert_close(expected_elbo_terms(pca, records, exact).loss(), -pca.log_evidence(x), rtol=1e-3, atol=5e-3)
    diagonal = DiagonalGaussian(
        mean, precision.diagonal().rsqrt().expand(10, -1)
    )  # of all diagonal ones the nearest
    gap = expected_elbo_terms(pca, records, diagonal).loss() + pca.log_evidence(x)
    known = 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision).logabsdet)
    assert known > 0
    assert_close(gap, known.expand(10), rtol=1e-3, atol=5e-3)
    for stretch in (0.8, 1.25):
        other = DiagonalGaussian(diagonal.mean, diagonal.std * stretch)
        assert (expected_elbo_terms(pca, records, other).loss() + pca.log_evidence(x) > gap + 0.05).all()


def test_free_nats_cost_nothing_and_pull_nothing() -> None:
    """A member whose mean KL is below them pays them without a gradient; one above pays its own KL."""
    kl = torch.tensor([[0.1, 0.5], [1.0, 3.0]], requires_grad=True)
    freed = ElboTerms(torch.zeros(2, 2), kl).with_free(1.0)
    assert freed.kl_divergence.tolist() == [[1.0, 1.0], [1.0, 3.0]]
    (gradient,) = torch.autograd.grad(freed.loss().sum(), kl)
    assert gradient.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert ElboTerms(torch.zeros(2, 2), kl).with_free(0.0).kl_divergence is kl

"""Probabilistic principal component analysis (Tipping & Bishop 1999): the linear model to beat.

Belongs here: x = W z + mean + noise with z ~ N(0, I) and noise ~ N(0, σ² I), its fit by expectation
maximisation, its exact density and posterior, which is also that of a recipe's encoder ``exact``. Does not:
networks (model.py), or posteriors without a closed form (inference.py).

A missing cell (NaN) is left out exactly, in the fit as well: every formula is that of the observed cells'
marginal distribution. Everything is computed in double precision and in nats.
"""

# B records, N numbers of a record, Z latents, A latents and a constant 1

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.layers import even_product
from vae_core.likelihoods import Categorical, ColumnLikelihood
from vae_core.noise import Gaussian
from vae_core.posteriors import FullGaussian
from vae_core.records import FARTHEST, Records

_LOG_2_PI = math.log(2 * math.pi)
_LEAST_VARIANCE = 1e-6  # of the noise, as a share of the mean variance of the columns
_RIDGE = 1e-9  # for columns with too few observed cells to have weights


@dataclass(frozen=True, eq=False)
class Ppca:
    """A fitted model.

    weight: (n_numeric, n_latents), orthogonal columns, longest first. mean: (n_numeric,). variance: () σ².
    history: (n_steps,) mean log-likelihood per record before each step of the fit; it never falls.
    """

    weight: Tensor
    mean: Tensor
    variance: Tensor
    history: Tensor

    def posterior(self, values: Tensor) -> FullGaussian:
        """Return p(z | observed cells), exactly, of values (n_records, n_numeric)."""
        return self._condition(values).posterior

    def log_prob(self, values: Tensor) -> Tensor:
        """Return log p(observed cells), (n_records,) nats; 0 where a record has none (eq. 4)."""
        return self._condition(values).log_prob

    def surprise(self, values: Tensor) -> Tensor:
        """Return how far −log p(observed cells) is above its mean for the same cells, (n_records,) nats.

        It is half of the squared Mahalanobis distance less half of the number of observed cells: comparable
        between records with different gaps.
        """
        condition = self._condition(values)
        return 0.5 * (condition.distance - condition.n_observed)

    def decode(self, latents: Tensor, _: Records) -> ColumnLikelihood:
        """Return p(x|z) as the networks do, in the precision of latents (..., n_records, n_latents)."""
        mean = latents @ self.weight.T.to(latents.dtype) + self.mean.to(latents.dtype)
        return ColumnLikelihood(
            Gaussian(mean, self.variance.to(latents.dtype).expand_as(mean)), Categorical((), 0.5)
        )

    def _condition(self, values: Tensor) -> _Condition:
        _refuse_other_shapes(values, len(self.weight))
        residual = (values.double().clamp(-FARTHEST, FARTHEST) - self.mean).nan_to_num(nan=0.0)
        return _condition(self.weight, self.variance, residual, (~values.isnan()).double())


@dataclass(frozen=True, eq=False)
class _Condition:
    """Records given their observed cells. covariance: (B, Z, Z); the others (B,), distance squared."""

    posterior: FullGaussian
    covariance: Tensor
    distance: Tensor
    n_observed: Tensor
    log_prob: Tensor


def exact_posterior(weight: Tensor, variance: Tensor, residual: Tensor, observed: Tensor) -> FullGaussian:
    """Return p(z | observed cells) where x = W z + place + noise, noise ~ N(0, diag variance).

    weight: (..., n_numeric, n_latents). variance: (..., n_numeric). residual: (..., n_records, n_numeric)
    from the place, 0 where missing; observed: (n_records, n_numeric) 1 or 0. In their precision, from I + Wᵀ
    W / variance over observed cells (section 3.2, eq. 6).
    """
    scaled = weight / variance[..., None]
    identity = torch.eye(weight.shape[-1], dtype=weight.dtype, device=weight.device)
    products = (scaled[..., :, None] * weight[..., None, :]).flatten(-2)
    summed = even_product(observed, products)
    precision = identity + summed.reshape(*summed.shape[:-1], *identity.shape)
    # flipped, the factor is upper triangular, and its inverse transposed is the covariance's lower factor
    upper = torch.linalg.cholesky_ex(precision.flip(-1, -2)).L.flip(-1, -2)
    factor = torch.linalg.solve_triangular(upper, identity.expand_as(upper), upper=True).mT
    towards = factor.mT @ even_product(residual, scaled)[..., None]
    return FullGaussian((factor @ towards)[..., 0], factor)


def _condition(weight: Tensor, variance: Tensor, residual: Tensor, observed: Tensor) -> _Condition:
    """residual: (B, N) from the mean, 0 where missing; observed: (B, N) 1 or 0."""
    posterior = exact_posterior(weight, variance.expand(len(weight)), residual, observed)
    explained = (residual @ weight / variance * posterior.mean).sum(dim=1)
    distance = residual.square().sum(dim=1) / variance - explained
    n_observed = observed.sum(dim=1)
    log_det = n_observed * variance.log() - 2 * posterior.log_volume
    return _Condition(
        posterior=posterior,
        covariance=posterior.factor @ posterior.factor.mT,
        distance=distance,
        n_observed=n_observed,
        log_prob=-0.5 * (n_observed * _LOG_2_PI + log_det + distance),
    )


def _refuse_other_shapes(values: Tensor, n_numeric: int | None = None) -> None:
    if values.dim() != 2 or n_numeric not in (None, values.shape[1]):
        wanted = "n_numeric" if n_numeric is None else n_numeric
        raise ValueError(f"values must be (n_records, {wanted}), are {tuple(values.shape)}")


@torch.no_grad()
def fit_ppca(
    values: Tensor, n_latents: int, *, steps: int = 1000, tolerance: float = 1e-8, seed: int = 0
) -> Ppca:
    """Maximise the likelihood by expectation maximisation (Tipping & Bishop 1999, section 3.3, appendix B).

    values: (n_records, n_numeric), NaN where missing. Ends when a step gains less than ``tolerance`` nats per
    record, or after ``steps``. Weights, means and variance are estimated from observed cells alone (Ilin &
    Raiko 2010, section 4.1).

    Raises ValueError where there are no latents, no records or no observed cells.
    """
    _refuse_other_shapes(values)
    n_numeric = values.shape[1]
    if n_latents < 1 or not len(values):
        raise ValueError(f"cannot fit {n_latents} latents to {len(values)} records")
    if values.isnan().all():
        raise ValueError(f"cannot fit: every cell of all {len(values)} records is missing")
    observed = (~values.isnan()).double()
    values = values.double().clamp(-FARTHEST, FARTHEST)
    mean = values.nanmean(dim=0).nan_to_num(nan=0.0)
    values = values.nan_to_num(nan=0.0)
    spread = ((values - mean).square() * observed).sum() / observed.sum().clamp(min=1)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(n_numeric, n_latents, generator=generator, dtype=torch.float64).to(values.device)
    weight, variance = start * (spread / n_latents).sqrt(), spread.clamp(min=1e-12)
    history: list[float] = []
    for _ in range(steps):
        condition = _condition(weight, variance, (values - mean) * observed, observed)
        history.append(float(condition.log_prob.mean()))
        if len(history) > 1 and history[-1] - history[-2] < tolerance:
            break
        weight, mean, variance = _step(values, observed, condition)
        variance = variance.clamp(min=max(float(_LEAST_VARIANCE * spread), 1e-12))
    return Ppca(_principal(weight), mean, variance, torch.tensor(history))


def _step(values: Tensor, observed: Tensor, condition: _Condition) -> tuple[Tensor, Tensor, Tensor]:
    """Maximise: regress each column on the latents for its weights and mean; the rest is the variance."""
    latents = condition.posterior.mean
    design = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1)
    uncertain = torch.nn.functional.pad(condition.covariance, (0, 1, 0, 1))
    second = (design[:, :, None] * design[:, None, :] + uncertain).flatten(1)
    identity = torch.eye(design.shape[1], dtype=values.dtype, device=values.device)
    gram_NAA = (observed.T @ second).view(-1, *identity.shape)
    both = torch.linalg.solve(gram_NAA + _RIDGE * identity, (values.T @ design)[..., None])[..., 0]
    residual = (values - design @ both.T) * observed
    left = (observed.T @ uncertain.flatten(1)).view(-1, *identity.shape)
    unexplained = residual.square().sum() + (both[:, None] @ left @ both[..., None]).sum()
    return both[:, :-1], both[:, -1], unexplained / observed.sum().clamp(min=1)


def _principal(weight: Tensor) -> Tensor:
    """Rotate the columns until they are orthogonal, longest first, their largest entries positive.

    The model is the same under any rotation (eq. 7).
    """
    axes, lengths, _ = torch.linalg.svd(weight, full_matrices=False)
    turned = axes * lengths
    largest = turned.gather(0, turned.abs().argmax(dim=0, keepdim=True))
    return torch.where(largest < 0, -turned, turned)

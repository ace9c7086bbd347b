"""Distances of a batch of latents, as a whole, to the prior N(0, I): replacements for the KL.

Belongs here: distances between samples and N(0, I), one value per member. Does not: what they are weighed
against (losses.py), or how unusual one record's latents are (scoring.py).

A KL term asks every record's posterior to look like the prior; a distance asks it only of all together. Each
is 0 in the limit for samples of the prior and above 0 for samples of any other distribution
(``gaussian_wasserstein``: of any with other means or covariances). "Unbiased" ones are so for every number of
records, and thus sometimes below 0.
"""

# M members, B records, Z latents, P prior draws, K scales of a kernel, D directions, Q nodes of a quadrature

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

_GAUSSIAN_SCALES = (0.25, 1.0, 4.0)  # of a kernel's variance, times n_latents
_IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of C, times 2 n_latents (Tolstikhin et al. 2018, code)
_N_DIRECTIONS = 64
_N_NODES = 48


def mmd(z: Tensor, prior: Tensor) -> Tensor:
    """(...) squared maximum mean discrepancy of z (..., B, Z) from draws of the prior (..., P, Z); unbiased.

    MMD² = E k(z, z') − 2 E k(z, y) + E k(y, y') as a U-statistic (Gretton et al. 2012, eq. 3) with Gaussian
    kernels exp(−‖a − b‖² / 2s²), mean over s² = n_latents · (¼, 1, 4). The distance of the MMD-VAE (Zhao et
    al. 2019, eq. 6).
    """
    return _u_statistic(z, prior, _gaussian_kernel)


def wasserstein(z: Tensor, prior: Tensor) -> Tensor:
    """(...) penalty of the Wasserstein autoencoder of z (..., B, Z), prior draws (..., P, Z); unbiased.

    MMD² with inverse multiquadratic kernels C / (C + ‖a − b‖²), whose tails still pull at latents far away,
    mean over C = 2 n_latents · (0.1, …, 10) (Tolstikhin et al. 2018, algorithm 2). The cost of decoding plus
    this penalty relaxes a Wasserstein distance between records and what the decoder makes of the prior;
    between latents and the prior itself, that is ``gaussian_wasserstein`` and ``sliced_wasserstein``.
    """
    return _u_statistic(z, prior, _inverse_multiquadratic_kernel)


def kernel(z: Tensor) -> Tensor:
    """(...) mean of ``mmd`` of z (..., B, Z) over the prior's draws; unbiased, without their noise.

    E_y k(z, y) = (s²/(s²+1))^{n/2} exp(−‖z‖² / 2(s²+1)) and E k(y, y') = (s²/(s²+2))^{n/2}, n = n_latents
    (Rustamov 2021, prop. 1; as a test of normality: Baringhaus & Henze 1988).
    """
    n = z.shape[-1]
    squares = z.square().sum(dim=-1)
    to_prior, of_prior = 0.0, 0.0
    for scale in _GAUSSIAN_SCALES:
        s2 = scale * n
        to_prior = to_prior + (s2 / (s2 + 1)) ** (n / 2) * torch.exp(-squares / (2 * (s2 + 1))).mean(dim=-1)
        of_prior += (s2 / (s2 + 2)) ** (n / 2)
    return _between(_gaussian_kernel(_distances(z, z), n)) + (of_prior - 2 * to_prior) / len(_GAUSSIAN_SCALES)


def energy(z: Tensor) -> Tensor:
    """(...) squared energy distance of z (..., B, Z) to N(0, I); unbiased, without draws of the prior.

    2 E‖z − y‖ − E‖z − z'‖ − E‖y − y'‖ (Székely & Rizzo 2013, eq. 5), with the two expectations over the prior
    in closed form; the distance of the Radon–Sobolev VAE (Turinici 2021). E‖y − y'‖ = 2 Γ((n+1)/2) / Γ(n/2).
    """
    n = z.shape[-1]
    of_prior = 2 * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
    return 2 * mean_distance_to_prior(z).mean(dim=-1) - _between(_distances(z, z)) - of_prior


def mean_distance_to_prior(z: Tensor) -> Tensor:
    """(...) E‖z − y‖ over y ~ N(0, I) of each point z (..., Z).

    The relative error is 3e-5 with one latent, 1e-8 with more. This is √2 Γ((n+1)/2)/Γ(n/2) · ₁F₁(−½; n/2;
    −‖z‖²/2), which torch does not have. As √a = c/√π ∫ (1 − exp(−a t²/c²)) / t² dt over t > 0, and E exp(−u‖z
    − y‖²) = (1+2u)^{−n/2} exp(−u‖z‖² / (1+2u)), it is an integral of a function smooth in φ = arctan t and
    even about 0 and π/2: the midpoint rule converges faster than any power. Any c > 0 is right; c² = ‖z‖² + n
    puts the slope where the nodes are.
    """
    n = z.shape[-1]
    squares = z.square().sum(dim=-1, keepdim=True)
    c2 = squares.detach() + n
    angles_Q = (torch.arange(_N_NODES, device=z.device, dtype=z.dtype) + 0.5) * (math.pi / 2 / _N_NODES)
    tangents = angles_Q.tan().square()
    stretch = 2 * tangents / c2
    exponent = -0.5 * n * stretch.log1p() - squares / c2 * tangents / (1 + stretch)
    integrand = -exponent.expm1() / angles_Q.sin().square()
    return (c2 / math.pi).sqrt().squeeze(-1) * integrand.mean(dim=-1) * (math.pi / 2)


def sliced_wasserstein(z: Tensor, directions: Tensor) -> Tensor:
    """(...) squared 2-Wasserstein distance of z (..., B, Z) to N(0, 1), mean over directions (D, Z).

    The distance of the sliced-Wasserstein autoencoder (Kolouri et al. 2019, eq. 12), exact along each
    direction (of length 1) instead of against sorted draws. With x_(i) the sorted projections and m_i the
    mean of N(0, 1) between its quantiles (i−1)/B and i/B, it is mean (x_(i) − m_i)² + 1 − mean m_i². Unbiased
    in the directions. For samples of the prior it is above 0 by 2 − 2 mean m_i E x_(i), from 128 records on
    (log log B + 1.4) / B to 3 % (0.024 at 128; the order is that of Bobkov & Ledoux 2019). Latents scaled
    about 1 % below 1 minimise it.
    """
    sorted_BD = (z @ directions.T).sort(dim=-2).values
    steps = torch.arange(1, z.shape[-2], device=z.device, dtype=z.dtype) / z.shape[-2]
    densities = torch.exp(-0.5 * torch.special.ndtri(steps).square()) / math.sqrt(2 * math.pi)
    none = densities.new_zeros(1)
    means_B = (torch.cat([none, densities]) - torch.cat([densities, none])) * z.shape[-2]
    along_D = (sorted_BD - means_B[:, None]).square().mean(dim=-2)
    return along_D.mean(dim=-1) + 1 - means_B.square().mean()


def gaussian_wasserstein(z: Tensor) -> Tensor:
    """(...) squared 2-Wasserstein distance to N(0, I) of the Gaussian with z's mean and covariance.

    z: (..., B, Z). ‖mean‖² + Σ (s_i − 1)², s_i the covariance's roots (Bures–Wasserstein; Gelbrich 1990,
    prop. 7): never above the distance of z itself, blind to all but two moments, cheap. Above 0 by about n (n
    + 5) / 4B for samples of the prior, n = n_latents.
    """
    n_records, n = z.shape[-2:]
    mean = z.mean(dim=-2)
    centred = (z - mean[..., None, :]) / math.sqrt(n_records)
    # svdvals raises on NaN; the mean below carries it on
    finite = torch.where(centred.isfinite(), centred, 0.0)
    roots: Tensor = torch.linalg.svdvals(finite)
    return mean.square().sum(dim=-1) + (roots - 1).square().sum(dim=-1) + (n - roots.shape[-1])


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """(..., A, B) Euclidean, without the cancellation of ‖a‖² + ‖b‖² − 2ab; the gradient at 0 is 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _gaussian_kernel(distance: Tensor, n_latents: int) -> Tensor:
    squares = distance.square()
    total = torch.zeros_like(squares)
    for scale in _GAUSSIAN_SCALES:
        total = total + torch.exp(squares * (-0.5 / (scale * n_latents)))
    return total / len(_GAUSSIAN_SCALES)


def _inverse_multiquadratic_kernel(distance: Tensor, n_latents: int) -> Tensor:
    squares = distance.square()
    total = torch.zeros_like(squares)
    for scale in _IMQ_SCALES:
        total = total + (1 + squares * (0.5 / (scale * n_latents))).reciprocal()
    return total / len(_IMQ_SCALES)


def _u_statistic(z: Tensor, prior: Tensor, of: Callable[[Tensor, int], Tensor]) -> Tensor:
    n = z.shape[-1]
    within = _between(of(_distances(z, z), n)) + _between(of(_distances(prior, prior), n))
    return within - 2 * of(_distances(z, prior), n).mean(dim=(-2, -1))


def _between(pairs: Tensor) -> Tensor:
    """(...) mean of (..., B, B) over pairs of different records; 0 where there is one record."""
    n = pairs.shape[-1]
    total = pairs.sum(dim=(-2, -1)) - pairs.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return total / max(1, n * (n - 1))


def _prior_like(z: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(z).normal_(generator=generator)


def _directions(z: Tensor, generator: torch.Generator) -> Tensor:
    """(D, Z) unit vectors, uniform on the sphere."""
    normal = z.new_empty(_N_DIRECTIONS, z.shape[-1]).normal_(generator=generator)
    return functional.normalize(normal, dim=-1)


# (M, B, Z) latents -> (M,)
DISTANCES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "mmd": lambda z, generator: mmd(z, _prior_like(z, generator)),
    "wasserstein": lambda z, generator: wasserstein(z, _prior_like(z, generator)),
    "sliced_wasserstein": lambda z, generator: sliced_wasserstein(z, _directions(z, generator)),
    "gaussian_wasserstein": lambda z, _: gaussian_wasserstein(z),
    "energy": lambda z, _: energy(z),
    "kernel": lambda z, _: kernel(z),
}

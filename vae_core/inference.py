"""p(z|x) without an encoder: the latents of every record, found by optimisation.

Belongs here: the search for the Gaussian nearest to p(z|x). Does not: encoders (model.py), or the closed form
for linear models (ppca.py).
"""

# M members, B records, Z latents, P points around a mean

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from vae_core.likelihoods import Likelihood
from vae_core.posteriors import FullGaussian
from vae_core.records import FARTHEST, Records

_PRECISION = (1.0, 1.6e5)  # of a posterior: no wider than N(0, I), no narrower than an encoder's (e^12)
_STEEPEST = 1e15
_SHORTER = 0.3  # factor on the step after one that lowered the bound
_SETTLED = 1e-2  # nats: a record whose bound changes by less is done
_MOST_TOGETHER = 2**13  # points decoded at once
_MOST_DECOMPOSED = 2**14  # matrices in one call: a GPU's solver (cuSOLVER) refuses more than some 32,000

Decode = Callable[[Tensor, Records], Likelihood]
LogJoint = Callable[[Tensor, Records], Tensor]


def standard_normal(latents: Tensor) -> Tensor:
    """Return log N(0, I), (..., n_records) nats."""
    return -0.5 * (latents.square() + math.log(2 * math.pi)).sum(dim=-1)


def infer(
    records: Records,
    decode: Decode,
    start: Tensor,
    *,
    log_prior: Callable[[Tensor], Tensor] = standard_normal,
    steps: int = 10,
) -> FullGaussian:
    """Return the full-covariance Gaussian q(z) with the highest evidence lower bound for each record.

    start: (..., n_records, n_latents) its mean before the first step; its covariance is I then. log_prior:
    log p(z) in nats, (..., n_records), of such latents.

    Newton's method solves E_q[∇ log p(x, z)] = 0 and covariance⁻¹ = −E_q[∇² log p(x, z)] (Opper & Archambeau
    2009, eqs. 14 and 15), with expectations by 2 n_latents points (cubature of degree 3). A step is taken if
    the bound rises and shortened if not. Where the decoder is linear and its noise Gaussian, the first step
    leads to the exact posterior. Where it has kinks, the curvature is that between the points; Laplace's
    approximation, which sees a single point, misjudges it there.

    No Gaussian wider than N(0, I) along any axis is considered: without that bound the search ended 0.9 nats
    short. Where a learned prior is wider and a record says next to nothing, q is therefore narrower than it
    could be.

    A record's result does not depend on the others: its search ends when it has settled, or after ``steps``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        own = Records(records.numeric.clone(), records.categorical.clone(), records.context.clone())
        identity = torch.eye(start.shape[-1], dtype=start.dtype, device=start.device)

        def log_joint(latents: Tensor, at: Records) -> Tensor:
            return decode(latents, at).log_prob(at).sum(dim=-1) + log_prior(latents)

        best = _look_around(own, log_joint, start.clone().detach(), identity.expand(*start.shape, -1))
        share, settled = torch.ones_like(best.bound), torch.zeros_like(best.bound, dtype=torch.bool)
        for _ in range(steps):
            mean, precision = best.ahead(share)
            candidate = _look_around(own, log_joint, mean, precision)
            gain = candidate.bound - best.bound
            better = (gain > 0) & ~settled
            best = best.replaced(candidate, better)
            settled |= gain.abs() < _SETTLED
            if settled.all():
                break
            share = torch.where(better, (2 * share).clamp(max=1.0), _SHORTER * share)
    return FullGaussian(best.mean, _factor(best.precision))


@dataclass(frozen=True, eq=False)
class _View:
    """A Gaussian, its bound, and the Newton step from it.

    mean, step: (..., B, Z). precision and target, its next: (..., B, Z, Z). bound: (..., B) nats.
    """

    mean: Tensor
    precision: Tensor
    bound: Tensor
    step: Tensor
    target: Tensor

    def ahead(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and precision after a share (..., B) of the step."""
        mean = (self.mean + share[..., None] * self.step).clamp(-FARTHEST, FARTHEST)
        return mean, torch.lerp(self.precision, self.target, share[..., None, None])

    def replaced(self, other: _View, where: Tensor) -> _View:
        """Return the other's where ``where`` (..., B), else its own."""
        parts = []
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            parts.append(
                torch.where(where.view(*where.shape, *[1] * (mine.dim() - where.dim())), theirs, mine)
            )
        return _View(*parts)


def _look_around(records: Records, log_joint: LogJoint, mean: Tensor, precision: Tensor) -> _View:
    """Return the bound of N(mean, precision⁻¹) and the Newton step from there."""
    n_latents = mean.shape[-1]
    precisions, axes = _decomposed(precision)
    root = axes * precisions.rsqrt()[..., None, :]
    away = math.sqrt(n_latents) * root.mT
    points = mean[..., None, :] + torch.cat([away, -away], dim=-2)
    values, gradient = _at_points(records, log_joint, points)
    ahead, behind = (gradient @ root).chunk(2, dim=-2)  # in units of the Gaussian's own axes
    curvature = (behind - ahead) / (2 * math.sqrt(n_latents))
    back = axes * precisions.sqrt()[..., None, :]
    target, turned = _decomposed(back @ curvature @ back.mT)
    along = (turned.mT @ gradient.mean(dim=-2)[..., None]) / target[..., None]
    return _View(
        mean=mean,
        precision=precision,
        bound=values.mean(dim=-1) - 0.5 * precisions.log().sum(dim=-1),
        step=(turned @ along)[..., 0],
        target=(turned * target[..., None, :]) @ turned.mT,
    )


def _at_points(records: Records, log_joint: LogJoint, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p(x, z) (..., B, P) and its gradient (..., B, P, Z) at points of that shape."""
    n_together = max(1, _MOST_TOGETHER // math.prod(points.shape[:-2]))
    found = []
    for some in torch.split(points, n_together, dim=-2):
        n_points = some.shape[-2]
        rows = torch.arange(len(records), device=points.device).repeat_interleave(n_points)
        repeated = records if n_points == 1 else records[rows]
        latents = some.flatten(-3, -2).detach().requires_grad_()
        value = log_joint(latents, repeated)
        (gradient,) = torch.autograd.grad(value.sum(), latents)
        found.append((value.detach().view(some.shape[:-1]), gradient.view(some.shape)))
    values, gradients = (torch.cat(parts, dim=points.dim() - 2) for parts in zip(*found, strict=True))
    return values, gradients.nan_to_num(0.0).clamp(-_STEEPEST, _STEEPEST)


def _decomposed(precision: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues (..., Z), within bounds, and eigenvectors (..., Z, Z) of the symmetric part."""
    symmetric = ((precision + precision.mT) / 2).flatten(0, -3)
    found = [torch.linalg.eigh(part) for part in torch.split(symmetric, _MOST_DECOMPOSED)]
    precisions, axes = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
    return precisions.clamp(*_PRECISION).view(precision.shape[:-1]), axes.view(precision.shape)


def _factor(precision: Tensor) -> Tensor:
    """Return the lower triangular L (..., Z, Z) with L Lᵀ = precision⁻¹; rounding cannot make QR fail."""
    precisions, axes = _decomposed(precision)
    # without Q, which a GPU computes matrix by matrix
    upper = torch.linalg.qr((axes * precisions.rsqrt()[..., None, :]).mT, mode="r").R
    signs = upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]
    factor: Tensor = (signs * upper).mT.tril()
    return factor

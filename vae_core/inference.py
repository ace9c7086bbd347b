"""p(z|x) without an encoder: the latents of every record, found by optimisation.

Belongs here: the search for the mode of p(x, z) and the Gaussian around it. Does not: encoders (model.py), or the closed
form that linear models have (ppca.py).
"""

# M members, B records, Z latents

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vae_core.likelihoods import Likelihood
from vae_core.posteriors import FullGaussian
from vae_core.records import FARTHEST, Records

_SHARES = (1.0, 0.3, 0.1, 0.03)  # of a Newton step, tried one after another until the density rises
_HIGHEST_PRECISION = 1.6e5  # of a posterior; e^12, as an encoder's


def infer(
    records: Records, decode: Callable[[Tensor, Records], Likelihood], start: Tensor, *, steps: int = 10
) -> FullGaussian:
    """Laplace's approximation to p(z|x): the mode of log p(x|z) + log p(z), and the inverse curvature there.

    start: (..., n_records, n_latents) where the search begins. Newton's method (MacKay 2003, ch. 27 and 41), every record by itself: a
    record's result depends on no other. Directions in which the likelihood curves upwards count as flat, so that no variance
    exceeds the prior's. Where the decoder is linear and its noise Gaussian the result is exact after one step.
    """
    with torch.inference_mode(False), torch.enable_grad():
        own = Records(records.numeric.clone(), records.categorical.clone(), records.context.clone())

        def log_joint(latents: Tensor) -> Tensor:
            return decode(latents, own).log_prob(own).sum(dim=-1) - 0.5 * latents.square().sum(dim=-1)

        latents = start.clone().detach()
        for _ in range(steps):
            gradient, precisions, axes = _quadratic(log_joint, latents)
            along = (axes.mT @ gradient[..., None]) / precisions[..., None]
            latents = _climb(log_joint, latents, (axes @ along).squeeze(-1))
        _, precisions, axes = _quadratic(log_joint, latents)
    return FullGaussian(latents, _factor(precisions.clamp(max=_HIGHEST_PRECISION), axes))


def _quadratic(log_joint: Callable[[Tensor], Tensor], latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient (..., Z) of log p(x, z), and its negative curvature as eigenvalues (..., Z), at least 1, and eigenvectors."""
    latents = latents.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(log_joint(latents).sum(), latents, create_graph=True)
    rows = [
        torch.autograd.grad(part.sum(), latents, retain_graph=True)[0] for part in gradient.unbind(dim=-1)
    ]
    curvature = -torch.stack(rows, dim=-1).nan_to_num(0.0)
    precisions, axes = torch.linalg.eigh((curvature + curvature.mT) / 2)
    return gradient.detach().nan_to_num(0.0), precisions.clamp(min=1.0), axes


@torch.no_grad()
def _climb(log_joint: Callable[[Tensor], Tensor], latents: Tensor, step: Tensor) -> Tensor:
    """The latents after the largest share of the step that makes each record's density rise, or where they were."""
    before = log_joint(latents)
    found = torch.zeros_like(before, dtype=torch.bool)
    moved = latents
    for share in _SHARES:
        candidate = (latents + share * step).clamp(-FARTHEST, FARTHEST)
        better = (log_joint(candidate) > before) & ~found
        moved = torch.where(better[..., None], candidate, moved)
        found |= better
        if found.all():
            break
    return moved


def _factor(precisions: Tensor, axes: Tensor) -> Tensor:
    """(..., Z, Z) lower triangular L with L Lᵀ = axes · precisions⁻¹ · axesᵀ; by QR, which rounding cannot make fail."""
    upper = torch.linalg.qr((axes * precisions.rsqrt()[..., None, :]).mT).R
    signs = upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]
    factor: Tensor = (signs * upper).mT.tril()
    return factor

"""Bounds on the evidence of each record: the ELBO, whole and by column, and the importance-weighted one.

Belongs here: the expectation over the posterior, by draws. Does not: the anomaly score, which takes the
likelihood at the posterior mean (scoring.py: one decoding in place of many, and no bound), or what training
minimises (objectives.py: one draw a step).
"""

# M members, B records of a slice, D draws, Z latents, J columns

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.fused import HIGHEST_TERM
from vae_core.model import VAE
from vae_core.records import Records
from vae_core.slices import in_slices

N_DRAWS = 32
N_WEIGHTED = 64
_SEED = 0  # every record takes the same draws: its bound does not depend on the others


@dataclass(frozen=True, eq=False)
class NegativeElbo:
    """−ELBO of records in its parts, nats, means over members (Kingma & Welling 2014, eq. 7).

    reconstruction: (n_records, n_columns) E_q[−log p(x_j|z)], numeric columns first; 0 where the cell is
        missing or training never saw the column.
    kl_divergence: (n_records,) KL(q(z|x) || p(z)), or a bound above it (priors.py); never negative.
    """

    reconstruction: Tensor
    kl_divergence: Tensor

    @property
    def whole(self) -> Tensor:
        """(n_records,) the sum: at least −log p(x), but for the error of the draws."""
        return self.reconstruction.sum(dim=1) + self.kl_divergence


def negative_elbo(vae: VAE, records: Records, *, n_draws: int = N_DRAWS) -> NegativeElbo:
    """Return the bound of records, on their device.

    n_draws: at least this many; four for each latent are taken if that is more.

    Raises ValueError where the regulariser is not the KL, so that there is no bound, or the records do not
    fit.
    """
    _check(vae, records, n_draws)
    n, new = len(records), records.numeric.new_empty
    found = NegativeElbo(new(n, len(vae.layout.columns)), new(n))
    n_latents = vae.recipe.latents_for(vae.layout)
    draws_DM1Z = _draws(n_draws, vae.recipe.n_members, n_latents)[:, :, None].to(vae.device)

    def write(part: Records, rows: slice) -> None:
        n_rows = rows.stop - rows.start
        reconstruction_BJ, kl_B = _parts(vae, part, draws_DM1Z)
        found.reconstruction[rows] = reconstruction_BJ[:n_rows]
        found.kl_divergence[rows] = kl_B[:n_rows]

    with torch.no_grad():
        in_slices(vae, records, write)
    return found


def importance_weighted_bound(vae: VAE, records: Records, *, n_draws: int = N_WEIGHTED) -> Tensor:
    """Return −log of the mean of p(x, z) / q(z|x) over draws of q, (n_records,) nats, mean over members.

    In expectation it is at least −log p(x) and at most −ELBO, and falls with n_draws (Burda et al. 2016, eq.
    8 and theorem 1). One decoding per draw. Every record takes the same draws, so the mean over records keeps
    their error: with few draws it may lie below that of many.

    Raises ValueError where the regulariser is not the KL, where the prior gives only a bound on log p(z), or
    where the records do not fit.
    """
    _check(vae, records, n_draws)
    if vae.recipe.prior == "hierarchical":
        raise ValueError("prior 'hierarchical' gives only a bound on log p(z): use negative_elbo")
    found = records.numeric.new_empty(len(records))
    random, n_latents = torch.Generator().manual_seed(_SEED), vae.recipe.latents_for(vae.layout)
    draws_DM1Z = torch.randn(n_draws, vae.recipe.n_members, 1, n_latents, generator=random).to(vae.device)

    def write(part: Records, rows: slice) -> None:
        found[rows] = _weighted(vae, part, draws_DM1Z)[: rows.stop - rows.start]

    with torch.no_grad():
        in_slices(vae, records, write)
    return found


def _check(vae: VAE, records: Records, n_draws: int) -> None:
    if n_draws < 1:
        raise ValueError(f"n_draws must be at least 1, is {n_draws}")
    if vae.recipe.regulariser != "kl":
        raise ValueError(
            f"regulariser {vae.recipe.regulariser!r} has no evidence lower bound: train with regulariser kl for one, or "
            f"compare models by what their anomaly scores find"
        )
    vae.layout.check(records)


def _draws(at_least: int, n_members: int, n_latents: int) -> Tensor:
    """Return (D, M, Z) standard-normal draws, each with its negative, whose second moments are the identity.

    They are stretched for that (moment matching, Barraquand 1995). Every record takes the same draws, so the
    mean over records keeps their error: now it has none in what is quadratic in the latents, as −log p(x|z)
    nearly is within a posterior.
    """
    n_half = max((at_least + 1) // 2, 2 * n_latents)
    half_MHZ = torch.randn(n_members, n_half, n_latents, generator=torch.Generator().manual_seed(_SEED))
    factor_MZZ = torch.linalg.cholesky(half_MHZ.mT @ half_MHZ / n_half)
    half_MHZ = torch.linalg.solve_triangular(factor_MZZ.mT, half_MHZ, upper=True, left=False)
    return torch.cat([half_MHZ, -half_MHZ], dim=1).transpose(0, 1)


def _parts(vae: VAE, part: Records, draws_DM1Z: Tensor) -> tuple[Tensor, Tensor]:
    """Return a slice's reconstruction (B, J) and KL divergence (B,), means over members."""
    posterior = vae.encode(part)
    total_BJ = part.numeric.new_zeros(len(part), len(vae.layout.columns))
    for draw_M1Z in draws_DM1Z:
        latents_MBZ = posterior.draw(draw_M1Z.expand_as(posterior.mean))
        total_BJ -= vae.decode(latents_MBZ, part).log_prob(part).mean(dim=0)
    mean_BJ = (total_BJ / len(draws_DM1Z)).clamp_(-HIGHEST_TERM, HIGHEST_TERM) * vae.learned
    return mean_BJ, vae.prior.kl(posterior).mean(dim=0).clamp_(max=HIGHEST_TERM)


def _weighted(vae: VAE, part: Records, draws_DM1Z: Tensor) -> Tensor:
    """Return a slice's bound (B,), mean over members."""
    posterior = vae.encode(part)
    total_MB = torch.full_like(posterior.mean[..., 0], -math.inf)
    for draw_M1Z in draws_DM1Z:
        draw_MBZ = draw_M1Z.expand_as(posterior.mean)
        latents_MBZ = posterior.draw(draw_MBZ)
        likelihood_MB = (vae.decode(latents_MBZ, part).log_prob(part) * vae.learned).sum(dim=-1)
        weight_MB = likelihood_MB + vae.prior.log_prob(latents_MBZ) - posterior.log_density(draw_MBZ)
        total_MB = torch.logaddexp(total_MB, weight_MB)
    return (math.log(len(draws_DM1Z)) - total_MB).mean(dim=0).clamp_(max=HIGHEST_TERM)

"""What training minimises.

Belongs here: how posterior, likelihood and prior make one loss per record. Does not: the networks (model.py)
or the loop (run.py). An objective's terms stay separate, per member and record, and are averaged later.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.likelihoods import Likelihood
from vae_core.posteriors import Posterior
from vae_core.priors import Prior
from vae_core.records import Records


@dataclass(frozen=True)
class ElboTerms:
    """The two halves of the negative evidence lower bound.

    reconstruction: (..., n_records) -log p(x|z) in nats; negative where the density exceeds one.
    kl_divergence: (..., n_records) KL(q(z|x) || p(z)) in nats, or a bound above it (priors.py); never
        negative.
    """

    reconstruction: Tensor
    kl_divergence: Tensor

    def loss(self, kl_weight: Tensor | float = 1.0) -> Tensor:
        """Return the beta-VAE's loss, (..., n_records) nats (Higgins et al. 2017, eq. 4); −ELBO with weight
        1.
        """
        return self.reconstruction + kl_weight * self.kl_divergence

    def with_free(self, nats: float) -> ElboTerms:
        """Make ``nats`` of the mean KL free: a smaller KL costs that much and has no gradient.

        Free bits (Kingma et al. 2016, appendix C.8), all latents as one group.
        """
        if not nats:
            return self
        charged = self.kl_divergence.mean(dim=-1, keepdim=True) > nats
        return ElboTerms(self.reconstruction, torch.where(charged, self.kl_divergence, nats))


def elbo_terms(
    records: Records,
    posterior: Posterior,
    prior: Prior,
    decode: Callable[[Tensor], Likelihood],
    noise: Tensor,
    generator: torch.Generator | None = None,
) -> ElboTerms:
    """Estimate the bound from one sample of reparameterised latents (Kingma & Welling 2014, eq. 7).

    noise: standard-normal draws shaped like the posterior, (..., n_records, n_latents); zeros give the
    bound's reconstruction at the posterior mean. generator: for priors whose KL takes a draw, see
    ``Prior.kl``.
    """
    return ElboTerms(
        reconstruction=-decode(posterior.draw(noise)).log_prob(records).sum(dim=-1),
        kl_divergence=prior.kl(posterior, generator),
    )


def importance_weighted_loss(
    records: Records,
    posterior: Posterior,
    prior: Prior,
    decode: Callable[[Tensor], Likelihood],
    noise: Tensor,
) -> Tensor:
    """(..., n_records) −log of the mean of p(x, z) / q(z|x) over K draws, in nats (Burda et al. 2016, eq. 8).

    Its expectation is at least −log p(x), at most −ELBO, and falls with K. noise: (K, ..., n_records,
    n_latents).
    """
    log_weights = []
    for draw in noise:
        latents = posterior.draw(draw)
        log_prob = decode(latents).log_prob(records).sum(dim=-1)
        log_weights.append(log_prob + prior.log_prob(latents) - posterior.log_density(draw))
    return math.log(len(noise)) - torch.stack(log_weights).logsumexp(dim=0)

"""What training minimises.

Belongs here: how posterior, likelihood and prior make one loss per record. Does not: the networks (model.py)
or the loop (training.py). An objective's terms stay apart, per member and record, and are averaged later.

The prior p(z) is the standard normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.distributions import Normal

from vae_core.likelihoods import Likelihood
from vae_core.records import Records


@dataclass(frozen=True)
class ElboTerms:
    """The two halves of the negative evidence lower bound.

    reconstruction: (..., n_records) -log p(x|z) in nats; negative where the density exceeds one.
    kl_divergence: (..., n_records) KL(q(z|x) || p(z)) in nats; never negative.
    """

    reconstruction: Tensor
    kl_divergence: Tensor

    def loss(self, kl_weight: float = 1.0) -> Tensor:
        """(..., n_records) -ELBO in nats; with another weight the beta-VAE's loss (Higgins et al. 2017, eq. 4)."""
        return self.reconstruction + kl_weight * self.kl_divergence


def kl_to_standard_normal(posterior: Normal) -> Tensor:
    """(..., n_records) KL(posterior || N(0, I)) in nats, closed form (Kingma & Welling 2014, appendix B).

    posterior: (..., n_records, n_latents). Two non-negative parts, of the mean and of the spread;
    rounding below zero is cut off.
    """
    std = posterior.stddev
    excess = (0.5 * (std.square() - 1) - std.log()).clamp(min=0)
    return (0.5 * posterior.mean.square() + excess).sum(dim=-1)


def elbo_terms(
    records: Records, posterior: Normal, decode: Callable[[Tensor], Likelihood], noise: Tensor
) -> ElboTerms:
    """One-sample estimate of the bound with reparameterised latents (Kingma & Welling 2014, eq. 7).

    noise: standard-normal draws shaped like the posterior, (..., n_records, n_latents); zeros give the bound's
    reconstruction at the posterior mean.
    """
    latents = posterior.mean + posterior.stddev * noise
    return ElboTerms(
        reconstruction=-decode(latents).log_prob(records).sum(dim=-1),
        kl_divergence=kl_to_standard_normal(posterior),
    )

"""p(z): what latents are like before a record is seen.

Belongs here: the standard normal and learned priors, the KL of a posterior to each, their density and draws. Does not: the
posteriors (posteriors.py), or distances between many latents and the prior (distances.py). Everything is in nats.

A prior is what a normal record's latents are measured against: with a learned one, a place between two kinds of normal
records is as unlikely as it is.
"""

# M members, B records, Z latents, K components

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_core.exact import even_product
from vae_core.posteriors import Posterior

_LOG_2_PI = math.log(2 * math.pi)
_LOG_STD = (-6.0, 3.0)  # of a component


class Prior(Protocol):
    """A distribution over latents, the same for every record."""

    def kl(self, posterior: Posterior) -> Tensor:
        """(n_members, n_records) KL(q(z|x) || p(z)) in nats, or a bound above it; never negative."""
        ...

    def log_prob(self, latents: Tensor) -> Tensor:
        """(..., n_members, n_records) log p(z) in nats of latents (..., n_members, n_records, n_latents)."""
        ...

    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """(n_members, n_records, n_latents) draws."""
        ...

    def reset(self, generator: torch.Generator) -> None:
        """Start anew."""
        ...


class StandardNormal(nn.Module):
    """N(0, I)."""

    def __init__(self, n_members: int, n_latents: int, _n_components: int) -> None:
        super().__init__()
        self.shape = n_members, n_latents
        self.register_buffer("place", torch.zeros(()), persistent=False)
        self.place: Tensor

    def reset(self, generator: torch.Generator) -> None:
        """There is nothing to draw."""

    def kl(self, posterior: Posterior) -> Tensor:
        """In closed form."""
        return posterior.kl_to_prior()

    def log_prob(self, latents: Tensor) -> Tensor:
        return -0.5 * (latents.square() + _LOG_2_PI).sum(dim=-1)

    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        n_members, n_latents = self.shape
        return self.place.new_empty(n_members, n_records, n_latents).normal_(generator=generator)


class Mixture(nn.Module):
    """Σ_k π_k N(m_k, diag s_k²), learned with the networks (a VAE with one: Dilokthanakul et al. 2016; Tomczak & Welling 2018).

    mean, log_std: (n_members, n_components, n_latents); logits: (n_members, 1, n_components).
    """

    def __init__(self, n_members: int, n_latents: int, n_components: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_members, n_components, n_latents))
        self.log_std = nn.Parameter(torch.zeros(n_members, n_components, n_latents))
        self.logits = nn.Parameter(torch.zeros(n_members, 1, n_components))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Components of equal weight and deviation 1, spread like N(0, I)."""
        self.mean.normal_(generator=generator)
        self.log_std.zero_()
        self.logits.zero_()

    def kl(self, posterior: Posterior) -> Tensor:
        """−log Σ_k π_k exp(−KL(q || N_k)): never below the KL, equal to it for one component (Hershey & Olsen 2007, section 7).

        So −ELBO with it is still above −log p(x), and it needs no draws: a score stays a function of its record.
        """
        log_std = self.log_std.clamp(*_LOG_STD)
        precision_MKZ = (-2 * log_std).exp()
        weighted_MKZ = precision_MKZ * self.mean
        second_MBZ = posterior.variance + posterior.mean.square()
        constant_MK = (weighted_MKZ * self.mean + 2 * log_std - 1).sum(dim=-1)
        to_each_MBK = 0.5 * (
            even_product(second_MBZ, precision_MKZ.mT)
            - 2 * even_product(posterior.mean, weighted_MKZ.mT)
            + constant_MK[:, None]
        )
        to_each_MBK = to_each_MBK - posterior.log_volume[..., None]
        return -(self.logits.log_softmax(dim=-1) - to_each_MBK).logsumexp(dim=-1).clamp(max=0)

    def log_prob(self, latents: Tensor) -> Tensor:
        log_std = self.log_std.clamp(*_LOG_STD)[:, None]
        away = (latents[..., None, :] - self.mean[:, None]) / log_std.exp()
        to_each = -(0.5 * away.square() + log_std + 0.5 * _LOG_2_PI).sum(dim=-1)
        return (self.logits.log_softmax(dim=-1) + to_each).logsumexp(dim=-1)

    @torch.no_grad()
    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """A component for each record, and a draw of it."""
        shares = self.logits[:, 0].softmax(dim=-1)
        chosen = torch.multinomial(shares, max(1, n_records), replacement=True, generator=generator)
        chosen = chosen[:, :n_records, None]
        mean, log_std = (x.take_along_dim(chosen, dim=1) for x in (self.mean, self.log_std.clamp(*_LOG_STD)))
        return mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)


PRIORS: dict[str, type[StandardNormal] | type[Mixture]] = {"normal": StandardNormal, "mixture": Mixture}

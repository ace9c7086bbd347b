"""p(z): what latents are like before a record is seen.

Belongs here: the standard normal and learned priors, the KL of a posterior to each, their density and draws.
Does not: the posteriors (posteriors.py), or distances between many latents and the prior (distances.py).
Everything is in nats.

A record's latents are judged by the prior: under a learned one, a place between two kinds of normal records
is as unlikely as it should be.
"""

# M members, B records, Z latents, K components

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from vae_core.layers import MemberLinear, even_product
from vae_core.noise import LOG2_E
from vae_core.posteriors import DiagonalGaussian, Posterior

_LOG_2_PI = math.log(2 * math.pi)
LOG_STD = (-6.0, 3.0)  # of a component


class Prior(Protocol):
    """A distribution over latents, the same for every record."""

    def kl(self, posterior: Posterior, generator: torch.Generator | None = None, /) -> Tensor:
        """Return KL(q(z|x) || p(z)), (n_members, n_records) nats, never negative.

        It may be a bound above the KL, or near such a bound (``Hierarchical``).
        generator: for priors that estimate it by a draw in training; without one the answer is always the
            same.
        """
        ...

    def log_prob(self, latents: Tensor) -> Tensor:
        """Return log p(z), (..., n_members, n_records) nats, or a bound below it, or near such a bound.

        latents: (..., n_members, n_records, n_latents).
        """
        ...

    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Return draws (n_members, n_records, n_latents)."""
        ...

    def reset(self, generator: torch.Generator) -> None:
        """Draw the parameters anew."""
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

    def kl(self, posterior: Posterior, _generator: torch.Generator | None = None) -> Tensor:
        """In closed form."""
        return posterior.kl_to_prior()

    def log_prob(self, latents: Tensor) -> Tensor:
        return -0.5 * (latents.square() + _LOG_2_PI).sum(dim=-1)

    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        n_members, n_latents = self.shape
        return self.place.new_empty(n_members, n_records, n_latents).normal_(generator=generator)


class Mixture(nn.Module):
    """Σ_k π_k N(m_k, diag s_k²), learned with the networks.

    VAEs with such a prior: Dilokthanakul et al. 2016; Tomczak & Welling 2018. mean, log_std: (n_members,
    n_components, n_latents); logits: (n_members, 1, n_components).
    """

    def __init__(self, n_members: int, n_latents: int, n_components: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(n_members, n_components, n_latents))
        self.log_std = nn.Parameter(torch.zeros(n_members, n_components, n_latents))
        self.logits = nn.Parameter(torch.zeros(n_members, 1, n_components))

    @torch.no_grad()
    def reset(self, generator: torch.Generator) -> None:
        """Start with components of equal weight and deviation 1, spread like N(0, I)."""
        self.mean.normal_(generator=generator)
        self.log_std.zero_()
        self.logits.zero_()

    def kl(self, posterior: Posterior, _generator: torch.Generator | None = None) -> Tensor:
        """Return −log Σ_k π_k exp(−KL(q || N_k)) (Hershey & Olsen 2007, section 7).

        It is never below the KL, and equal to it for one component, so −ELBO with it is still above −log
        p(x). It needs no draws: a score stays a function of its record.
        """
        of_means_MKZ, of_seconds_MKZ, constants_MK = self.exponents()
        second_MBZ = posterior.variance + posterior.mean.square()
        if self.training:
            moments_MBZ = torch.cat([posterior.mean, second_MBZ], dim=-1)
            weights_MZK = torch.cat([of_means_MKZ, of_seconds_MKZ], dim=-1).mT
            of_each_MBK = torch.baddbmm(constants_MK.mT, moments_MBZ, weights_MZK)
        else:
            of_each_MBK = even_product(posterior.mean, of_means_MKZ.mT)
            of_each_MBK = of_each_MBK + even_product(second_MBZ, of_seconds_MKZ.mT) + constants_MK.mT
        return -(_log_sum_exp(of_each_MBK) + posterior.log_volume).clamp(max=0)

    def exponents(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return log π_k − KL(q || N_k), less the posterior's log-volume, as an affine map of q's moments.

        Weights of means and of second moments (n_members, n_components, n_latents), constant (n_members,
        n_components, 1).
        """
        log_std = self.log_std.clamp(*LOG_STD)
        precision_MKZ = (-2 * log_std).exp()
        weighted_MKZ = precision_MKZ * self.mean
        constant_MK = 0.5 * (weighted_MKZ * self.mean + 2 * log_std - 1).sum(dim=-1)
        return (
            weighted_MKZ,
            -0.5 * precision_MKZ,
            (self.logits[:, 0].log_softmax(dim=-1) - constant_MK)[..., None],
        )

    def log_prob(self, latents: Tensor) -> Tensor:
        log_std = self.log_std.clamp(*LOG_STD)[:, None]
        away = (latents[..., None, :] - self.mean[:, None]) / log_std.exp()
        to_each = -(0.5 * away.square() + log_std + 0.5 * _LOG_2_PI).sum(dim=-1)
        return (self.logits.log_softmax(dim=-1) + to_each).logsumexp(dim=-1)

    @torch.no_grad()
    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a component for each record, and from it."""
        shares = self.logits[:, 0].softmax(dim=-1)
        chosen = torch.multinomial(shares, max(1, n_records), replacement=True, generator=generator)
        chosen = chosen[:, :n_records, None]
        mean, log_std = (x.take_along_dim(chosen, dim=1) for x in (self.mean, self.log_std.clamp(*LOG_STD)))
        return mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)


def _log_sum_exp(values: Tensor) -> Tensor:
    """Return log Σ exp over the last axis.

    torch's own takes a hundred times as long where that axis is not the innermost in memory.
    """
    if torch.is_grad_enabled():
        return values.logsumexp(dim=-1)
    top = values.amax(dim=-1, keepdim=True)
    return ((values - top).mul_(LOG2_E).exp2_().sum(dim=-1).log_()).add_(top[..., 0])


class Hierarchical(nn.Module):
    """Two learned levels: top latents t ~ N(0, I), latents z ~ N(m(t), diag s(t)²).

    Rezende et al. 2014, section 2; Sønderby et al. 2016. A second, smaller encoder gives q(t|x) from the mean
    of q(z|x). In training, one draw estimates expectations over it, because networks would learn to be right
    at fixed points alone. Elsewhere they are taken at 2 n_top points on its axes (cubature of degree 3), so
    that a score needs no draws.
    """

    def __init__(self, n_members: int, n_latents: int, _n_components: int) -> None:
        super().__init__()
        self.n_top = max(1, n_latents // 2)
        self.up = _Net(n_members, n_latents, 2 * self.n_top)
        self.down = _Net(n_members, self.n_top, 2 * n_latents)

    def reset(self, generator: torch.Generator) -> None:
        """The model draws all weights of affine maps."""

    def kl(self, posterior: Posterior, generator: torch.Generator | None = None) -> Tensor:
        """Return E_q(t)[KL(q(z|x) || p(z|t))] + KL(q(t|x) || N(0, I)).

        With an exact expectation it is above KL(q(z|x) || p(z)), by Jensen's inequality over t. A draw
        estimates it without bias; cubature, used without a generator, comes near it and is no bound.
        """
        top = self.top(posterior.mean)
        entropy_free = -posterior.log_volume - 0.5 * posterior.mean.shape[-1]

        def to_one(mean: Tensor, log_std: Tensor) -> Tensor:
            away = (posterior.variance + (posterior.mean - mean).square()) * (-2 * log_std).exp()
            return (0.5 * away + log_std).sum(dim=-1) + entropy_free

        return (self._expected(top, to_one, generator) + top.kl_to_prior()).clamp(min=0)

    def log_prob(self, latents: Tensor) -> Tensor:
        """Return log p(z) from below, by the same second encoder.

        A bound where cubature is exact, near one elsewhere.
        """
        leading, shape = latents.shape[:-3], latents.shape[-3:]
        each = [self._log_prob(part) for part in latents.reshape(-1, *shape)]
        return torch.stack(each).view(*leading, *shape[:-1])

    def _log_prob(self, latents: Tensor) -> Tensor:
        top = self.top(latents)

        def of_one(mean: Tensor, log_std: Tensor) -> Tensor:
            away = (latents - mean) * (-log_std).exp()
            return -(0.5 * away.square() + log_std + 0.5 * _LOG_2_PI).sum(dim=-1)

        return self._expected(top, of_one) - top.kl_to_prior()

    @torch.no_grad()
    def sample(self, n_records: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw from the top down."""
        weight = self.down.inputs.weight
        top = weight.new_empty(len(weight), n_records, self.n_top).normal_(generator=generator)
        mean, log_std = self._below(top)
        return mean + log_std.exp() * torch.empty_like(mean).normal_(generator=generator)

    def top(self, latents: Tensor) -> DiagonalGaussian:
        """Return q(t|x), latents (n_members, n_records, n_top), from the means of q(z|x)."""
        return DiagonalGaussian.of(self.up(latents))

    def _below(self, top: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.down(top).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD)

    def _expected(
        self,
        top: DiagonalGaussian,
        of: Callable[[Tensor, Tensor], Tensor],
        generator: torch.Generator | None = None,
    ) -> Tensor:
        if generator is not None:
            return of(*self._below(top.draw(torch.empty_like(top.mean).normal_(generator=generator))))
        nodes = math.sqrt(self.n_top) * torch.eye(self.n_top, device=top.mean.device)
        values = [of(*self._below(top.draw(sign * node))) for node in nodes for sign in (1, -1)]
        return torch.stack(values).mean(dim=0)


class _Net(nn.Module):
    def __init__(self, n_members: int, n_inputs: int, n_outputs: int, width: int = 32) -> None:
        super().__init__()
        self.inputs = MemberLinear(n_members, n_inputs, width)
        self.outputs = MemberLinear(n_members, width, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.outputs(self.inputs(inputs).relu())
        return outputs


PRIORS: dict[str, type[StandardNormal] | type[Mixture] | type[Hierarchical]] = {
    "normal": StandardNormal,
    "mixture": Mixture,
    "hierarchical": Hierarchical,
}

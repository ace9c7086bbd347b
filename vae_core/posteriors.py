"""q(z|x): what the encoder says about the latents of every record.

Belongs here: Gaussians with diagonal and with full covariance, their draws, densities and KL to the prior
N(0, I). Does not: how their parameters are computed (model.py) or what a loss is made of (objectives.py).
Everything is in nats.

A posterior draws by z = mean + L noise (Kingma & Welling 2014, section 2.4), so that the density of a draw is
known from its noise: log q(z|x) = −½‖noise‖² − log|det L| − n/2 · log 2π.
"""

# M members, B records, Z latents

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vae_core.records import FARTHEST

_LOG_2_PI = math.log(2 * math.pi)
LOG_VARIANCE = (-12.0, 6.0)  # of each latent given the ones before it


class Posterior(Protocol):
    """A distribution over latents for every record; ``mean`` is (..., n_records, n_latents)."""

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor:
        """(..., n_records, n_latents) marginal variances."""
        ...

    @property
    def log_volume(self) -> Tensor:
        """(..., n_records) log|det L| in nats."""
        ...

    def draw(self, noise: Tensor) -> Tensor:
        """(..., n_records, n_latents) latents from standard-normal noise of that shape."""
        ...

    def log_density(self, noise: Tensor) -> Tensor:
        """(..., n_records) log q(z|x) in nats of the latents that this noise draws."""
        ...

    def kl_to_prior(self) -> Tensor:
        """(..., n_records) KL(q(z|x) || N(0, I)) in nats; never negative."""
        ...


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent latents. mean, std: (..., n_records, n_latents)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def n_outputs(n_latents: int) -> int:
        """Return how many encoder outputs make up one posterior."""
        return 2 * n_latents

    @classmethod
    def of(cls, outputs: Tensor) -> DiagonalGaussian:
        """Build from an encoder's outputs (..., n_records, n_outputs), means then log-variances."""
        mean, log_variance = outputs.chunk(2, dim=-1)
        return cls(mean.clamp(-FARTHEST, FARTHEST), (log_variance.clamp(*LOG_VARIANCE) / 2).exp())

    @property
    def variance(self) -> Tensor:
        return self.std.square()

    @property
    def log_volume(self) -> Tensor:
        return self.std.log().sum(dim=-1)

    def draw(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise

    def log_density(self, noise: Tensor) -> Tensor:
        return -(0.5 * noise.square() + self.std.log() + 0.5 * _LOG_2_PI).sum(dim=-1)

    def kl_to_prior(self) -> Tensor:
        """Add the closed forms of the mean's and the spread's part (Kingma & Welling 2014, appendix B).

        Neither is negative; rounding below zero is cut off.
        """
        excess = (0.5 * (self.std.square() - 1) - self.std.log()).clamp(min=0)
        return (0.5 * self.mean.square() + excess).sum(dim=-1)


@dataclass(frozen=True)
class FullGaussian:
    """Correlated latents: covariance L Lᵀ by its Cholesky factor.

    mean: (..., n_records, n_latents). factor: (..., n_records, n_latents, n_latents) lower triangular, its
    diagonal positive. Kingma & Welling 2019, section 2.5.1, algorithm 2.
    """

    mean: Tensor
    factor: Tensor

    @staticmethod
    def n_outputs(n_latents: int) -> int:
        return 2 * n_latents + n_latents * (n_latents - 1) // 2

    @classmethod
    def of(cls, outputs: Tensor) -> FullGaussian:
        """Build from an encoder's outputs: means, log-variances of the diagonal, the entries below it by row.

        Those entries are bounded like means, so that their squares stay within float32.
        """
        n_outputs = outputs.shape[-1]
        n_latents = (math.isqrt(8 * n_outputs + 9) - 3) // 2
        mean, log_variance, below = outputs.tensor_split([n_latents, 2 * n_latents], dim=-1)
        factor = torch.diag_embed((log_variance.clamp(*LOG_VARIANCE) / 2).exp())
        rows, columns = torch.tril_indices(n_latents, n_latents, offset=-1, device=outputs.device)
        factor[..., rows, columns] = below.clamp(-FARTHEST, FARTHEST)
        return cls(mean.clamp(-FARTHEST, FARTHEST), factor)

    @property
    def variance(self) -> Tensor:
        return self.factor.square().sum(dim=-1)

    @property
    def _log_diagonal(self) -> Tensor:
        return self.factor.diagonal(dim1=-2, dim2=-1).log()

    @property
    def log_volume(self) -> Tensor:
        return self._log_diagonal.sum(dim=-1)

    def draw(self, noise: Tensor) -> Tensor:
        return self.mean + (self.factor @ noise[..., None]).squeeze(-1)

    def log_density(self, noise: Tensor) -> Tensor:
        return -(0.5 * noise.square() + self._log_diagonal + 0.5 * _LOG_2_PI).sum(dim=-1)

    def kl_to_prior(self) -> Tensor:
        """Return ½ (tr LLᵀ + ‖mean‖² − n) − log|det L|, cut off at zero where rounding goes below."""
        spread = 0.5 * (self.factor.square().sum(dim=-1) - 1) - self._log_diagonal
        return (0.5 * self.mean.square() + spread).sum(dim=-1).clamp(min=0)


POSTERIORS: dict[str, type[DiagonalGaussian] | type[FullGaussian]] = {
    "diagonal": DiagonalGaussian,
    "full": FullGaussian,
}

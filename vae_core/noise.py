"""p(x|z) of numbers: the noise models that a numeric column may have.

Belongs here: densities, moments and draws of numbers given what the decoder says, and which columns of a
record follow which model. Does not: categories and missing cells (likelihoods.py), or how the decoder
computes its outputs (model.py).

The decoder has two outputs for every number, ``place`` and ``spread``, and a model may learn one more
parameter per column. Log-densities are in nats; those of counts and of yes or no are log-probabilities.
"""

# M members, B records, N numeric columns

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional

_LOG_2_PI = math.log(2 * math.pi)
LOG2_E = math.log2(math.e)
HIGHEST_LOG_VARIANCE = 4.0  # of the decoder, before the recipe's sigma_floor is added
_LOGS = 15.0  # bound of log rates, log odds and log dispersions
_IMPOSSIBLE = 100.0  # nats for each unit by which a number lies outside its model's range


class Noise(Protocol):
    """A distribution of numbers.

    mean, variance, and whatever they are computed from: (..., n_records, n_numeric).
    """

    @property
    def mean(self) -> Tensor: ...

    @property
    def variance(self) -> Tensor: ...

    def log_prob(self, values: Tensor) -> Tensor:
        """Return nats (..., n_records, n_numeric) of values (n_records, n_numeric)."""
        ...

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return one draw of each number, (..., n_records, n_numeric)."""
        ...


@dataclass(frozen=True)
class Outputs:
    """What a noise model is made of.

    place, spread: (..., n_records, n_numeric) from the decoder. extra: (..., 1, n_numeric) learned, the same
    for every record. sigma: the recipe's. lowest_variance: (..., n_numeric), of learned variances.
    n_multiplied: see Gaussian.
    """

    place: Tensor
    spread: Tensor
    extra: Tensor
    sigma: float
    lowest_variance: Tensor
    n_multiplied: int = 1

    @property
    def variance(self) -> Tensor:
        """The decoder's variance, never below the lowest."""
        if torch.is_grad_enabled():
            return self.spread.clamp(max=HIGHEST_LOG_VARIANCE).exp() + self.lowest_variance
        binary = (self.spread * LOG2_E).clamp_(max=HIGHEST_LOG_VARIANCE * LOG2_E)
        return binary.exp2_().add_(self.lowest_variance)  # powers of two cost a third of those of e

    def of(self, columns: Tensor) -> Outputs:
        """Return the outputs of some of the columns, by position."""
        place, spread, extra, lowest = (
            x[..., columns] for x in (self.place, self.spread, self.extra, self.lowest_variance)
        )
        return Outputs(place, spread, extra, self.sigma, lowest, self.n_multiplied)


@dataclass(frozen=True)
class Gaussian:
    """Independent normals with a mean and a variance for every cell.

    n_multiplied: how many variances may be multiplied without leaving the range of float32.
    """

    mean: Tensor
    variance: Tensor
    n_multiplied: int = 1

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        """Take mean and variance from the decoder (Kingma & Welling 2014, appendix C.2)."""
        return cls(outputs.place, outputs.variance, outputs.n_multiplied)

    @classmethod
    def fixed(cls, outputs: Outputs) -> Self:
        """Take the recipe's sigma for every cell: −log p is ½ ‖x − mean‖² / σ² and a constant."""
        return cls(outputs.place, torch.full_like(outputs.place, outputs.sigma**2))

    @classmethod
    def shared(cls, outputs: Outputs) -> Self:
        """Take one learned sigma for all such columns (Rybkin et al. 2021, section 3.1).

        It is the mean of their log-variances, so that one value is left.
        """
        log_variance = outputs.extra.mean(dim=-1, keepdim=True)
        return cls(outputs.place, (log_variance.exp() + outputs.lowest_variance).expand_as(outputs.place))

    @classmethod
    def per_column(cls, outputs: Outputs) -> Self:
        return cls(outputs.place, (outputs.extra.exp() + outputs.lowest_variance).expand_as(outputs.place))

    def squared_residual(self, values: Tensor) -> Tensor:
        """Return squared distances (..., n_records, n_numeric) of values (n_records, n_numeric) from the
        mean.
        """
        return (values - self.mean).square()

    def mean_surprise(self, squared_residual: Tensor) -> Tensor:
        """Return the mean of ``surprise`` over the members, (n_records, n_numeric) nats.

        squared_residual: (n_members, n_records, n_numeric).
        """
        total = squared_residual[0] / self.variance[0]
        for squared, variance in zip(squared_residual[1:], self.variance[1:], strict=True):
            total.addcdiv_(squared, variance)
        total.add_(sum_of_logs(self.variance, self.n_multiplied))
        return total.mul_(0.5 / len(self.variance)).add_(0.5 * _LOG_2_PI)

    def surprise(self, squared_residual: Tensor) -> Tensor:
        """Return −log-density, nats, at a squared distance from the mean; all (..., n_records, n_numeric)."""
        return torch.addcdiv(self.variance.log(), squared_residual, self.variance).add_(_LOG_2_PI).mul_(0.5)

    def log_prob(self, values: Tensor) -> Tensor:
        return -self.surprise(self.squared_residual(values))

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self.mean + self.variance.sqrt() * _normal(self.mean, generator)


@dataclass(frozen=True)
class StudentT:
    """Heavier tails than a normal's: location and scale for every cell, degrees of freedom per column.

    Its variance, scale² ν / (ν − 2), is finite because ν is above 2 (Takahashi et al. 2018 use this
    likelihood in a VAE).
    """

    mean: Tensor
    squared_scale: Tensor
    freedom: Tensor

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        freedom = 2 + (outputs.extra + 1).clamp(max=_LOGS / 3).exp()
        return cls(outputs.place, outputs.variance, freedom.expand_as(outputs.place))

    @property
    def variance(self) -> Tensor:
        return self.squared_scale * self.freedom / (self.freedom - 2)

    def log_prob(self, values: Tensor) -> Tensor:
        half = self.freedom / 2
        distance = (values - self.mean).square() / (self.freedom * self.squared_scale)
        norm = torch.lgamma(half + 0.5) - torch.lgamma(half)
        norm = norm - 0.5 * (math.pi * self.freedom * self.squared_scale).log()
        return norm - (half + 0.5) * distance.log1p()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Divide a normal draw by the root of a gamma draw."""
        half = self.freedom / 2
        precision = torch._standard_gamma(half, generator) / half
        return self.mean + (self.squared_scale / precision).sqrt() * _normal(self.mean, generator)


@dataclass(frozen=True)
class Bernoulli:
    """Yes (1) or no (0), by log odds."""

    log_odds: Tensor

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        return cls(outputs.place.clamp(-_LOGS, _LOGS))

    @property
    def mean(self) -> Tensor:
        return self.log_odds.sigmoid()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def log_prob(self, values: Tensor) -> Tensor:
        """A share between 0 and 1 counts as that much of either."""
        allowed = values.clamp(0, 1)
        return allowed * self.log_odds - functional.softplus(self.log_odds) - _outside(values, allowed)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.bernoulli(self.mean, generator=generator)


@dataclass(frozen=True)
class Poisson:
    """Counts whose variance is their mean. Densities are computed in double precision, see ``_exact``."""

    log_rate: Tensor

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        return cls(outputs.place.clamp(-_LOGS, _LOGS))

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def log_prob(self, values: Tensor) -> Tensor:
        counts, log_rate = values.clamp(min=0), _exact(self.log_rate)
        log_prob = counts * log_rate - log_rate.exp() - torch.lgamma(_exact(counts) + 1)
        return log_prob.to(self.log_rate.dtype) - _outside(values, counts)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.poisson(self.mean, generator=generator)


@dataclass(frozen=True)
class NegativeBinomial:
    """Counts that spread more than a Poisson's: variance mean + dispersion · mean² (Lawless 1987, eq. 1).

    Densities are computed in double precision, see ``_exact``.
    """

    log_mean: Tensor
    log_dispersion: Tensor

    @classmethod
    def of(cls, outputs: Outputs) -> Self:
        return cls(outputs.place.clamp(-_LOGS, _LOGS), outputs.spread.clamp(-_LOGS / 2, HIGHEST_LOG_VARIANCE))

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + self.log_dispersion.exp() * self.mean.square()

    def log_prob(self, values: Tensor) -> Tensor:
        allowed = values.clamp(min=0)
        counts, log_mean, log_dispersion = map(_exact, (allowed, self.log_mean, self.log_dispersion))
        shape, log_odds = (-log_dispersion).exp(), log_mean + log_dispersion
        ways = torch.lgamma(counts + shape) - torch.lgamma(shape) - torch.lgamma(counts + 1)
        log_prob = ways + counts * log_odds - (counts + shape) * functional.softplus(log_odds)
        return log_prob.to(self.log_mean.dtype) - _outside(values, allowed)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw from a Poisson whose rate is a gamma draw."""
        shape = (-self.log_dispersion).exp()
        return torch.poisson(torch._standard_gamma(shape, generator) * self.mean / shape, generator=generator)


NOISES: dict[str, Callable[[Outputs], Noise]] = {
    "gaussian": Gaussian.of,
    "gaussian_fixed_sigma": Gaussian.fixed,
    "gaussian_shared_sigma": Gaussian.shared,
    "gaussian_column_sigma": Gaussian.per_column,
    "student_t": StudentT.of,
    "bernoulli": Bernoulli.of,
    "poisson": Poisson.of,
    "negative_binomial": NegativeBinomial.of,
}
ALIKE = ("gaussian_shared_sigma", "gaussian_column_sigma", "gaussian_fixed_sigma")  # the same for all records
LEARN_EXTRA = ("gaussian_shared_sigma", "gaussian_column_sigma", "student_t")
COUNTS = ("poisson", "negative_binomial")
ALLOWED = {"bernoulli": (0.0, 1.0), **dict.fromkeys(COUNTS, (0.0, math.inf))}  # lowest and highest number
UNSCALED = tuple(ALLOWED)  # these take a column's own values, not standardised ones


@dataclass(frozen=True)
class Mixed:
    """Columns of several noise models, each part with its positions (n,) among the numeric columns."""

    parts: tuple[tuple[Tensor, Noise], ...]

    @property
    def mean(self) -> Tensor:
        return self._assembled([noise.mean for _, noise in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._assembled([noise.variance for _, noise in self.parts])

    def log_prob(self, values: Tensor) -> Tensor:
        return self._assembled([noise.log_prob(values[..., columns]) for columns, noise in self.parts])

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return self._assembled([noise.sample(generator) for _, noise in self.parts])

    def _assembled(self, parts: list[Tensor]) -> Tensor:
        order = torch.cat([columns for columns, _ in self.parts]).argsort()
        return torch.cat(parts, dim=-1)[..., order]


def n_multiplied(sigma_floor: float) -> int:
    """Return how many decoder variances, four at most, multiply within float32."""
    highest = math.exp(HIGHEST_LOG_VARIANCE)
    bounds = sigma_floor**2, highest + max(highest, sigma_floor**2)
    return max(n for n in (1, 2, 4) if n == 1 or (bounds[0] ** n > 1e-36 and bounds[1] ** n < 1e36))


def sum_of_logs(factors: Tensor, n_multiplied: int) -> Tensor:
    """Return the sum of logarithms over the first axis.

    A logarithm costs ten products, so it is taken of ``n_multiplied`` factors' product.
    """
    total = None
    for some in torch.split(factors, n_multiplied):
        product = some[0] * some[1] if len(some) > 1 else some[0].clone()
        for factor in some[2:]:
            product.mul_(factor)
        product.log_()
        total = product if total is None else total.add_(product)
    return factors.new_zeros(factors.shape[1:]) if total is None else total


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(like).normal_(generator=generator)


def _exact(x: Tensor) -> Tensor:
    """Return x in double precision: of a count of a million, single precision leaves a log-density a nat off.

    It is the difference of numbers as large as the count times its logarithm.
    """
    return x.double()


def _outside(values: Tensor, allowed: Tensor) -> Tensor:
    return _IMPOSSIBLE * (values - allowed).abs()

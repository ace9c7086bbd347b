"""Every setting of the model and of its training, with the defaults that were measured best.

The defaults come from 24 ADBench sets (docs and log have the tables); nothing here is tuned per data set.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from typing import Any

from vae_core.distances import DISTANCES
from vae_core.noise import ALIKE, NOISES
from vae_core.posteriors import POSTERIORS
from vae_core.priors import PRIORS
from vae_core.records import Layout


@dataclass(frozen=True)
class Recipe:
    """Settings of the model and of its training; checked as a whole, every fault in one message."""

    n_members: int = 4  # independent networks whose scores are averaged
    width: int = 64  # hidden units of each encoder and decoder
    n_latents: int | None = None  # None: grows with the columns, see latents_for
    # or none: latents are found for each record by optimisation (inference.py); or exact: they have a closed
    # form, because the decoder is linear (ppca.py)
    encoder: str = "network"
    posterior: str = "diagonal"  # covariance of q(z|x): diagonal, or full by its Cholesky factor
    # p(z) under regulariser kl: N(0, I), a learned mixture of Gaussians, or hierarchical (priors.py)
    prior: str = "mixture"
    n_components: int = 10  # of a mixture
    noise: str = "gaussian"  # of the numeric columns, one of noise.NOISES
    column_noise: Mapping[str, str] = field(default_factory=dict, hash=False)  # exceptions, by column
    sigma: float = 1.0  # standard deviation of gaussian_fixed_sigma
    sigma_floor: float = 0.1  # smallest standard deviation the decoder may claim, in standardised units
    step_floor: float = 1.0  # the same for a column of stepped values, in deviations of rounding to the steps
    category_floor: float = 1e-5  # share of probability spread evenly over a column's categories
    hidden_categories: float = 0.1  # share of categories that the encoder does not get to see in training
    regulariser: str = "kl"  # what holds latents to the prior: the KL, a distance or a discriminator
    distance_weight: float = 10.0  # of a distance (distances.py), relative to nats per record
    reconstruction: str = "likelihood"  # or vae_gan, with a discriminator of records (Larsen et al. 2016)
    adversarial_weight: float = 1.0  # of what either discriminator (adversarial.py) costs the model
    kl_weight: float = 1.0  # beta of the loss (Higgins et al. 2017); 1 is the evidence lower bound
    kl_warm_up: float = (
        0.0  # share of the steps (of each cycle) over which the weight rises from 0 (Bowman et al. 2016)
    )
    kl_cycles: int = 1  # how often the weight does so (Fu et al. 2019)
    free_nats: float = 0.0  # of the KL without cost (free bits, Kingma et al. 2016), against unused latents
    samples: int = 1  # above 1: the importance-weighted bound of that many draws (Burda et al. 2016)
    steps: int = 1500  # optimiser steps, whatever the number of records
    minibatch: int = 128  # records per step
    learning_rate: float = 1e-2  # Adam's, after the warm-up
    warm_up: int = 50  # steps over which the learning rate rises from 0
    final_learning_rate: float = 0.03  # where the cosine ends, as a share of learning_rate
    gradient_clip: float = 10.0  # largest gradient norm, per member
    trim: float = 0.1  # share of each minibatch with the highest loss left out; 0 for data known to be clean
    trim_after: float = 0.3  # share of the steps before trimming begins
    known_margin: float = 0.0  # nats by which training pushes known anomalies out (known.py); 0: not at all
    weight_spread: float = (
        0.3  # deviation of the terms' log weights, learned from verdicts (feedback.py); 0: all stay at 1
    )
    linear_records: int = 1000  # at this many, the linear model counts as much as the networks; 0: none
    linear_trim: float = 0.25  # share of the records, the farthest out, left out of the linear fit
    recurring_share: float = 0.002  # of the records: from there on a value recurs (recurring.py); 0: none
    critic_steps: int | None = None  # of fit_critic, for explanations; None: as many as steps, 0: no critic

    def __post_init__(self) -> None:
        if not isinstance(self.column_noise, Mapping):
            raise TypeError(
                f"recipe:\n  column_noise must be a mapping of columns to models, is {self.column_noise!r}"
            )
        object.__setattr__(self, "column_noise", dict(self.column_noise))
        faults = [*self._outside(), *self._unknown(), *self._contradictions()]
        if faults:
            raise ValueError("recipe:\n  " + "\n  ".join(faults))
        for name in _ALLOWED:  # numpy's numbers are no JSON
            value = getattr(self, name)
            if value is not None and type(value) not in (int, float):
                object.__setattr__(self, name, int(value) if isinstance(value, Integral) else float(value))

    def _outside(self) -> Iterator[str]:
        for name, allowed in _ALLOWED.items():
            value = getattr(self, name)
            is_left_open = value is None and _default(name) is None
            if not is_left_open and value not in allowed:
                yield f"{name} must be {allowed}, is {value!r}"

    def _unknown(self) -> Iterator[str]:
        chosen = {name: getattr(self, name) for name in _CHOICES}
        chosen |= {f"column_noise of {column}": noise for column, noise in self.column_noise.items()}
        for name, value in chosen.items():
            known = _CHOICES.get(name, _CHOICES["noise"])
            if value not in known:
                yield f"{name} must be one of {', '.join(known)}, is {value!r}"

    def _contradictions(self) -> Iterator[str]:
        weighed = [name for name in _WEIGH_THE_KL if getattr(self, name) != _default(name)]
        if self.encoder == "none":
            settings = ("posterior", "regulariser", "reconstruction", *_WEIGH_THE_KL)
            if any(getattr(self, name) != _default(name) for name in settings):
                yield f"encoder none finds the latents with the highest evidence lower bound: leave out {_listed(settings)}"
        if self.encoder == "exact":
            yield from self._contradictions_of_the_closed_form()
        if self.regulariser != "kl" and weighed:
            weight = "adversarial_weight" if self.regulariser == "adversarial" else "distance_weight"
            yield f"{_listed(_WEIGH_THE_KL)} weigh the KL, which regulariser {self.regulariser!r} leaves out: set {weight}"
        if self.kl_cycles > 1 and not self.kl_warm_up:
            yield "kl_cycles repeat the KL's warm-up: set kl_warm_up, its share of a cycle, or leave kl_cycles out"
        if self.samples > 1:
            yield from self._contradictions_of_the_bound(weighed)

    def _contradictions_of_the_closed_form(self) -> Iterator[str]:
        settings = ("posterior", "regulariser", "reconstruction", "samples", *_WEIGH_THE_KL)
        if any(getattr(self, name) != _default(name) for name in settings):
            yield f"encoder exact lowers −log p(x) itself: leave out {_listed(settings)}"
        if self.prior != "normal":
            yield f"encoder exact works with prior normal only, not {self.prior}: set prior: normal"
        others = sorted({self.noise, *self.column_noise.values()} - set(ALIKE))
        if others:
            yield (
                f"encoder exact works only with noise that is the same for all records, not {', '.join(others)}: "
                f"set noise to one of {', '.join(ALIKE)}"
            )

    def _contradictions_of_the_bound(self, weighed: Sequence[str]) -> Iterator[str]:
        bound = "samples above 1 (the importance-weighted bound on log p(x))"
        if weighed:
            yield f"{bound} leave no KL to weigh: leave out {_listed(_WEIGH_THE_KL)}"
        if self.prior == "hierarchical":
            yield f"{bound} need log p(z), and prior 'hierarchical' gives only a bound on it"
        if self.regulariser != "kl":
            yield f"{bound} include the KL, which regulariser {self.regulariser!r} leaves out"
        if self.reconstruction != "likelihood":
            yield f"{bound} cannot include what reconstruction {self.reconstruction!r} adds"

    @property
    def weighs_the_kl(self) -> bool:
        """Whether the loss has a weighted KL, so that kl_weight, kl_warm_up and free_nats have an effect."""
        return self.encoder == "network" and self.regulariser == "kl" and self.samples == 1

    def latents_for(self, layout: Layout) -> int:
        """Return how many latents a model of this layout gets: unless set, the root of its size, rounded up.

        A number counts as one and a category as the bits of its code. Where 400 categories determine one of
        50, a wrong one was found with an AUROC of 0.90; counting columns instead gives half the latents and
        0.78.
        """
        size = len(layout.numeric) + sum(math.log2(n_codes) for n_codes in layout.n_codes)
        return self.n_latents or math.ceil(math.sqrt(size))

    @classmethod
    def clean(cls, **settings: Any) -> Recipe:
        """Return the recipe for records known to hold no anomalies: the default in all but three settings.

        Nothing is trimmed, no robust model stands in for networks that anomalies mislead, and the bound is
        that of five draws: tighter, which among anomalies would only learn more of them.

        settings: exceptions.
        """
        return cls(**{"trim": 0.0, "linear_records": 0, "samples": 5} | settings)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe that ``to_dict`` wrote; a missing setting takes its default.

        Raises ValueError where a setting is unknown.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"recipe must be a mapping of settings to values, is {values!r}")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"recipe: unknown settings {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class _Interval:
    """Numbers from low to high, the ends included unless open.

    NaN, True, False and non-numbers are in none.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = True
    whole: bool = False

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Integral if self.whole else Real):
            return False
        number = float(value)
        above = number > self.low if self.open_low else number >= self.low
        return above and (number < self.high if self.open_high else number <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"


_COUNT, _COUNT_OR_0 = _Interval(1, whole=True), _Interval(0, whole=True)
_NOT_NEGATIVE = _Interval(0)
_POSITIVE = _Interval(0, open_low=True)
_SHARE, _SHARE_BELOW_1 = _Interval(0, 1, open_high=False), _Interval(0, 1)
_ALLOWED = {
    **dict.fromkeys(("n_members", "width", "n_latents", "n_components", "steps", "minibatch"), _COUNT),
    **dict.fromkeys(("samples", "kl_cycles"), _COUNT),
    **dict.fromkeys(("warm_up", "linear_records", "critic_steps"), _COUNT_OR_0),
    **dict.fromkeys(("sigma", "sigma_floor", "learning_rate", "gradient_clip"), _POSITIVE),
    **dict.fromkeys(
        (
            "kl_weight",
            "step_floor",
            "free_nats",
            "distance_weight",
            "adversarial_weight",
            "known_margin",
            "weight_spread",
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(("kl_warm_up", "final_learning_rate", "trim_after"), _SHARE),
    **dict.fromkeys(("trim", "linear_trim", "hidden_categories", "recurring_share"), _SHARE_BELOW_1),
    "category_floor": _Interval(0, 1, open_low=True),
}
_CHOICES = {
    "encoder": ("network", "none", "exact"),
    "posterior": tuple(POSTERIORS),
    "prior": tuple(PRIORS),
    "noise": tuple(NOISES),
    "regulariser": ("kl", *DISTANCES, "adversarial"),
    "reconstruction": ("likelihood", "vae_gan"),
}
_WEIGH_THE_KL = ("kl_weight", "kl_warm_up", "kl_cycles", "free_nats")


def _default(name: str) -> Any:
    return Recipe.__dataclass_fields__[name].default


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"

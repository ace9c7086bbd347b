"""Every setting of the model and of its training, with the defaults that were measured best.

The defaults come from 24 ADBench sets (docs and log have the tables); nothing here is tuned per data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vae_core.distances import DISTANCES
from vae_core.noise import NOISES
from vae_core.posteriors import POSTERIORS
from vae_core.priors import PRIORS
from vae_core.records import Layout

REGULARISERS = ("kl", *DISTANCES, "adversarial")
RECONSTRUCTIONS = ("likelihood", "vae_gan")


@dataclass(frozen=True)
class Recipe:
    """Settings of the model and of its training; checked as a whole, every fault in one message."""

    n_members: int = 4  # independent networks whose scores are averaged
    width: int = 64  # hidden units of each encoder and decoder
    n_latents: int | None = None  # None: grows with the columns, see latents_for
    encoder: str = "network"  # or none: latents are found for each record by optimisation (inference.py)
    posterior: str = "diagonal"  # covariance of q(z|x): diagonal, or full by its Cholesky factor
    prior: str = "mixture"  # p(z) under regulariser kl: N(0, I), a learned mixture of Gaussians, or hierarchical (priors.py)
    n_components: int = 10  # of a mixture
    noise: str = "gaussian"  # of the numeric columns, one of noise.NOISES
    column_noise: Mapping[str, str] = field(
        default_factory=dict, hash=False
    )  # the same by column, where it is another
    sigma: float = 1.0  # standard deviation of gaussian_fixed_sigma
    sigma_floor: float = 0.1  # smallest standard deviation the decoder may claim, in standardised units
    category_floor: float = 1e-5  # share of probability spread evenly over a column's categories
    hidden_categories: float = 0.1  # share of categories that the encoder does not get to see in training
    regulariser: str = "kl"  # what holds latents to the prior: the KL, a distance or a discriminator
    distance_weight: float = 10.0  # of a distance (distances.py), beside nats per record
    reconstruction: str = "likelihood"  # or vae_gan, with a discriminator of records (Larsen et al. 2016)
    adversarial_weight: float = 1.0  # of what either discriminator (adversarial.py) costs the model
    kl_weight: float = 1.0  # beta of the loss (Higgins et al. 2017); 1 is the evidence lower bound
    kl_warm_up: float = (
        0.0  # share of the steps (of each cycle) over which the weight rises from 0 (Bowman et al. 2016)
    )
    kl_cycles: int = 1  # how often it does so (Fu et al. 2019)
    free_nats: float = (
        0.0  # of the KL that cost nothing (free bits, Kingma et al. 2016), against unused latents
    )
    samples: int = 1  # above 1: the importance-weighted bound of so many draws (Burda et al. 2016)
    steps: int = 1500  # optimiser steps, whatever the number of records
    minibatch: int = 128  # records per step
    learning_rate: float = 1e-2  # Adam's, after the warm-up
    warm_up: int = 50  # steps over which the learning rate rises from 0
    final_learning_rate: float = 0.03  # where the cosine ends, as a share of learning_rate
    gradient_clip: float = 10.0  # largest gradient norm, per member
    trim: float = 0.1  # share of each minibatch with the highest loss left out; 0 for data known to be clean
    trim_after: float = 0.3  # share of the steps before trimming begins
    known_margin: float = 20.0  # nats by which known anomalies are pushed above the usual loss (known.py)
    linear_records: int = (
        1000  # among how many the linear model counts as much as the networks; 0 leaves it out
    )
    linear_trim: float = (
        0.25  # share of the records, the farthest out, that the linear model is not fitted to
    )

    def __post_init__(self) -> None:
        if not isinstance(self.column_noise, Mapping):
            raise TypeError(
                f"recipe:\n  column_noise must be a mapping of columns to models, is {self.column_noise!r}"
            )
        object.__setattr__(self, "column_noise", dict(self.column_noise))
        faults = [
            f"{name} must be at least {least}, is {value}"
            for name, value, least in (
                ("n_members", self.n_members, 1),
                ("width", self.width, 1),
                ("n_latents", 1 if self.n_latents is None else self.n_latents, 1),
                ("steps", self.steps, 1),
                ("minibatch", self.minibatch, 1),
                ("warm_up", self.warm_up, 0),
                ("linear_records", self.linear_records, 0),
                ("kl_cycles", self.kl_cycles, 1),
                ("samples", self.samples, 1),
                ("n_components", self.n_components, 1),
            )
            if value < least
        ]
        faults += [
            f"{name} must be above 0 and finite, is {value}"
            for name, value in (
                ("sigma", self.sigma),
                ("sigma_floor", self.sigma_floor),
                ("learning_rate", self.learning_rate),
                ("gradient_clip", self.gradient_clip),
            )
            if not 0 < value < math.inf
        ]
        faults += [
            f"{name} must be in {interval}, is {value}"
            for name, value, interval, allowed in (
                ("category_floor", self.category_floor, "(0, 1)", 0 < self.category_floor < 1),
                ("kl_warm_up", self.kl_warm_up, "[0, 1]", 0 <= self.kl_warm_up <= 1),
                ("kl_weight", self.kl_weight, "[0, inf)", 0 <= self.kl_weight < math.inf),
                ("free_nats", self.free_nats, "[0, inf)", 0 <= self.free_nats < math.inf),
                ("known_margin", self.known_margin, "[0, inf)", 0 <= self.known_margin < math.inf),
                (
                    "distance_weight",
                    self.distance_weight,
                    "[0, inf)",
                    0 <= self.distance_weight < math.inf,
                ),
                (
                    "adversarial_weight",
                    self.adversarial_weight,
                    "[0, inf)",
                    0 <= self.adversarial_weight < math.inf,
                ),
                (
                    "final_learning_rate",
                    self.final_learning_rate,
                    "[0, 1]",
                    0 <= self.final_learning_rate <= 1,
                ),
                ("trim", self.trim, "[0, 1)", 0 <= self.trim < 1),
                ("linear_trim", self.linear_trim, "[0, 1)", 0 <= self.linear_trim < 1),
                ("hidden_categories", self.hidden_categories, "[0, 1)", 0 <= self.hidden_categories < 1),
                ("trim_after", self.trim_after, "[0, 1]", 0 <= self.trim_after <= 1),
            )
            if not allowed
        ]
        faults += [
            f"{setting} must be one of {', '.join(known)}, is {chosen!r}"
            for setting, chosen, known in (
                ("encoder", self.encoder, ["network", "none"]),
                ("posterior", self.posterior, list(POSTERIORS)),
                ("prior", self.prior, list(PRIORS)),
                ("noise", self.noise, list(NOISES)),
                *(
                    (f"column_noise of {name}", noise, list(NOISES))
                    for name, noise in self.column_noise.items()
                ),
            )
            if chosen not in known
        ]
        if self.samples > 1 and (self.kl_weight, self.kl_warm_up, self.free_nats) != (1.0, 0.0, 0.0):
            faults.append(
                "samples above 1 (the importance-weighted bound) leave no KL to weigh: kl_weight 1, kl_warm_up 0, free_nats 0"
            )
        if self.samples > 1 and self.prior == "hierarchical":
            faults.append("samples above 1 need log p(z), of which prior 'hierarchical' knows a bound alone")
        faults += self._regulariser_faults()
        if self.encoder == "none":
            faults += self._searched_faults()
        if self.reconstruction not in RECONSTRUCTIONS:
            faults.append(
                f"reconstruction must be one of {', '.join(RECONSTRUCTIONS)}, is {self.reconstruction!r}"
            )
        if self.reconstruction != "likelihood" and self.samples > 1:
            faults.append(
                f"samples above 1 are a bound on log p(x), to which reconstruction {self.reconstruction!r} adds"
            )
        if faults:
            raise ValueError("recipe:\n  " + "\n  ".join(faults))

    def _searched_faults(self) -> list[str]:
        chosen = (
            self.posterior,
            self.regulariser,
            self.reconstruction,
            self.kl_weight,
            self.kl_warm_up,
            self.kl_cycles,
            self.free_nats,
        )
        if chosen == ("diagonal", "kl", "likelihood", 1.0, 0.0, 1, 0.0):
            return []
        return [
            "encoder none finds the latents with the highest evidence lower bound: leave out posterior, regulariser, "
            "reconstruction, kl_weight, kl_warm_up, kl_cycles and free_nats"
        ]

    def _regulariser_faults(self) -> list[str]:
        if self.regulariser not in REGULARISERS:
            return [f"regulariser must be one of {', '.join(REGULARISERS)}, is {self.regulariser!r}"]
        if self.regulariser == "kl":
            return []
        faults = []
        if self.samples > 1:
            faults.append(
                f"samples above 1 are a bound with the KL in it, which regulariser {self.regulariser!r} leaves out"
            )
        if (self.kl_weight, self.kl_warm_up, self.kl_cycles, self.free_nats) != (1.0, 0.0, 1, 0.0):
            faults.append(
                f"kl_weight, kl_warm_up, kl_cycles and free_nats weigh the KL, which regulariser {self.regulariser!r} leaves out: "
                f"set {'adversarial_weight' if self.regulariser == 'adversarial' else 'distance_weight'}"
            )
        return faults

    def latents_for(self, layout: Layout) -> int:
        """How many latents a model of this layout gets: unless set, the root of its size, rounded up.

        A number counts as one and a category as the bits of its code: with 400 categories that determine one of 50,
        a wrong one was found with an AUROC of 0.90 with twice the latents that counting columns gives, and 0.78 without.
        """
        size = len(layout.numeric) + sum(math.log2(n_codes) for n_codes in layout.n_codes)
        return self.n_latents or math.ceil(math.sqrt(size))

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that ``to_dict`` wrote; an unknown setting is an error, a missing one takes its default."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ValueError(f"recipe: unknown settings {', '.join(unknown)}")
        return cls(**values)

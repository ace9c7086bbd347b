"""What `make bench-quality` compares: our default, other recipes of ours, and rivals with their own defaults.

A method takes a split and a seed and returns a score per test row, higher is more anomalous. A fingerprint of
its settings and code identifies it, so that a cached result never comes from an older one.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import vae_core
from tests.bench.adbench import Array, Split, binary, counting, layout, records, rows
from tests.bench.dte import DteC, DteNp
from vae_core import DataWarning, Recipe, Scores, fit, score


class Method(Protocol):
    """What a bench needs to know of a method."""

    @property
    def cost(self) -> float:
        """Rough seconds a fit, for the order of work only."""

    def settings(self, protocol: str, /) -> dict[str, Any]:
        """What tells this method from another, as JSON."""

    def __call__(self, split: Split, seed: int, /) -> Array:
        """A score per test row."""


def fingerprint(method: Method, protocol: str) -> str:
    """Changes with the method's settings or with the version of the code behind it."""
    text = json.dumps(method.settings(protocol), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def vae_core_hash() -> str:
    """Of the source of vae_core."""
    digest = hashlib.sha256()
    for file in sorted(Path(vae_core.__path__[0]).glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def plain_elbo(scores: Scores) -> torch.Tensor:
    """−ELBO at the posterior mean, the textbook score."""
    return scores.reconstruction + scores.kl_divergence


MOST_COLUMNS, MOST_RECORDS = 20, 1000  # of sets for variants that cost more
MISSING_SHARE = 0.2  # of the cells, where some are left out


def every_second(sets: list[str]) -> list[str]:
    """What is not the default is worth less of a machine's time."""
    return sets[::2]


def narrow(sets: list[str]) -> list[str]:
    """Of every second set those of at most 20 columns, for what costs more."""
    return [name for name in every_second(sets) if rows(name, 0)[0].shape[1] <= MOST_COLUMNS]


def small(sets: list[str]) -> list[str]:
    """Of every second set those of at most 1,000 records, for what costs most."""
    return [name for name in every_second(sets) if len(rows(name, 0)[0]) <= MOST_RECORDS]


@dataclass(frozen=True)
class Ours:
    """A recipe of vae_core: under the clean protocol its own for clean records.

    on: which of the sets a variant is measured on.
    """

    recipe: dict[str, Any] = field(default_factory=dict)
    read: Callable[[Scores], torch.Tensor] | None = None
    cost: float = 10.0
    on: Callable[[list[str]], list[str]] = every_second

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that are not the protocol's own."""
        return self.recipe

    def for_protocol(self, protocol: str) -> Recipe:
        return (Recipe.clean if protocol == "clean" else Recipe)(**self.chosen)

    def settings(self, protocol: str) -> dict[str, Any]:
        return {
            "recipe": self.for_protocol(protocol).to_dict(),
            "read": self.read and self.read.__name__,
            "vae_core": vae_core_hash(),
            "torch": torch.__version__.split("+")[0],
        }

    def __call__(self, split: Split, seed: int) -> Array:
        return self.scored(split.train, split.test, self.for_protocol(split.protocol), seed)

    def scored(self, train: Array, test: Array, recipe: Recipe, seed: int) -> Array:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            vae = fit(layout(train), records(train), recipe, seed=seed)
        scores = score(vae, records(test))
        return (self.read(scores) if self.read else scores.anomaly_score).double().numpy()


@dataclass(frozen=True)
class Variant(Ours):
    """A recipe beside the default, under both protocols with one draw a record: the clean recipe's five go
    with few other settings.
    """

    @property
    def chosen(self) -> dict[str, Any]:
        return {"samples": 1} | self.recipe


@dataclass(frozen=True)
class OwnNoise(Variant):
    """Our default, but columns of counts or of 0 and 1 in their own values, with a noise model made for them.
    On all sets of so many columns that have any.
    """

    noise: str = "poisson"
    most_columns: int = MOST_COLUMNS

    def settings(self, protocol: str) -> dict[str, Any]:
        return super().settings(protocol) | {"own noise": self.noise}

    def columns(self, x: Array) -> list[int]:
        return binary(x) if self.noise == "bernoulli" else counting(x)

    def having(self, sets: list[str]) -> list[str]:
        tables = {name: rows(name, 0)[0] for name in sets}
        return [name for name, x in tables.items() if x.shape[1] <= self.most_columns and self.columns(x)]

    def __call__(self, split: Split, seed: int) -> Array:
        chosen = self.columns(np.concatenate([split.own_train, split.own_test]))
        train, test = split.train.copy(), split.test.copy()
        train[:, chosen], test[:, chosen] = split.own_train[:, chosen], split.own_test[:, chosen]
        names = layout(train).numeric
        recipe = replace(
            self.for_protocol(split.protocol), column_noise={names[i]: self.noise for i in chosen}
        )
        return self.scored(train, test, recipe, seed)


@dataclass(frozen=True)
class Gaps(Variant):
    """Our default where a fifth of the cells is missing completely at random, of what is learned and what is
    scored.

    filled: with the mean of the cells of their column that training has, as one would for a model that takes
    no gaps.
    """

    filled: bool = False

    def settings(self, protocol: str) -> dict[str, Any]:
        return super().settings(protocol) | {"missing": MISSING_SHARE, "filled": self.filled}

    def __call__(self, split: Split, seed: int) -> Array:
        train, test = with_gaps(split, seed)
        if self.filled:
            means = np.nanmean(train, axis=0)
            train, test = (np.where(np.isnan(x), means, x) for x in (train, test))
        return self.scored(train, test, self.for_protocol(split.protocol), seed)


def with_gaps(split: Split, seed: int) -> tuple[Array, Array]:
    """What is learned and what is scored, both with gaps; where the two are the same rows, the same gaps."""
    random = np.random.default_rng([seed, *split.train.shape])
    train, test = (
        np.where(random.random(x.shape) < MISSING_SHARE, np.nan, x) for x in (split.train, split.test)
    )
    return train, train if split.is_same else test


def sets_of(method: Method, sets: list[str]) -> list[str]:
    """Which of the sets a variant is measured on."""
    if isinstance(method, OwnNoise):
        return method.having(sets)
    return method.on(sets) if isinstance(method, Ours) else every_second(sets)


@dataclass(frozen=True)
class PyOD:
    """A detector of PyOD with its defaults, seeded where it takes a seed (Zhao et al. 2019; Chen et al.
    2024).

    Rows that were learned from are scored as PyOD itself does while fitting (``decision_scores_``): KNN then
    does not count a row as its own neighbour.
    """

    module: str
    name: str
    seeded: bool = True
    quiet: bool = False
    cost: float = 1.0

    def settings(self, _protocol: str) -> dict[str, Any]:
        return {"pyod": version("pyod"), "detector": self.name, "sklearn": version("scikit-learn")}

    def __call__(self, split: Split, seed: int) -> Array:
        detector = getattr(importlib.import_module(f"pyod.models.{self.module}"), self.name)
        chosen = {"random_state": seed} if self.seeded else {}
        model = detector(**chosen, **({"verbose": 0} if self.quiet else {}))
        model.fit(split.train)
        scores = model.decision_scores_ if split.is_same else model.decision_function(split.test)
        return np.asarray(scores, np.float64)


OURS = "vaewatch"
METHODS: dict[str, Method] = {
    OURS: Ours(),
    "DTE-NP": DteNp(),
    "KNN": PyOD("knn", "KNN", seeded=False, cost=0.3),
    "IForest": PyOD("iforest", "IForest", cost=0.5),
    "MCD": PyOD("mcd", "MCD", cost=2.0),
    "CBLOF": PyOD("cblof", "CBLOF", cost=0.6),
    "ECOD": PyOD("ecod", "ECOD", seeded=False, cost=0.4),
    "PCA": PyOD("pca", "PCA", cost=0.1),
    "AutoEncoder": PyOD("auto_encoder", "AutoEncoder", quiet=True, cost=15.0),
    "VAE (PyOD)": PyOD("vae", "VAE", quiet=True, cost=40.0),
}
LINEAR: dict[str, Any] = {
    "encoder": "exact",
    "noise": "gaussian_shared_sigma",
    "prior": "normal",
    "n_members": 1,
}
BASE = "default"  # what variants are held against
VARIANTS: dict[str, Method] = {  # settings that are not the default, a line each, and a slow rival
    BASE: Variant(),
    "trim: 0": Variant({"trim": 0.0}, cost=11.0),
    "linear_records: 0": Variant({"linear_records": 0}, cost=11.0),
    "plain −ELBO": Variant(read=plain_elbo, cost=11.0),
    "posterior: full": Variant({"posterior": "full"}, cost=12.0),
    "prior: normal": Variant({"prior": "normal"}, cost=11.0),
    "prior: hierarchical": Variant({"prior": "hierarchical"}, cost=11.1),
    "kl_weight: 0.25": Variant({"kl_weight": 0.25}, cost=11.0),
    "kl_weight: 4": Variant({"kl_weight": 4.0}, cost=11.0),
    "kl_warm_up: 0.3": Variant({"kl_warm_up": 0.3}, cost=11.0),
    "kl_cycles: 4": Variant({"kl_cycles": 4, "kl_warm_up": 0.5}, cost=11.0, on=narrow),
    "free_nats: 2": Variant({"free_nats": 2.0}, cost=11.0),
    **{
        f"noise: {noise}": Variant({"noise": noise}, cost=12.0)
        for noise in ("gaussian_fixed_sigma", "gaussian_shared_sigma", "gaussian_column_sigma", "student_t")
    },
    **{
        f"column_noise: {noise}": OwnNoise(noise=noise, cost=12.1, most_columns=most)
        for noise, most in (("poisson", MOST_COLUMNS), ("negative_binomial", MOST_COLUMNS), ("bernoulli", 64))
    },
    **{
        f"regulariser: {distance}": Variant({"regulariser": distance}, cost=13.0)
        for distance in (
            "kernel",
            "mmd",
            "wasserstein",
            "sliced_wasserstein",
            "gaussian_wasserstein",
            "energy",
            "adversarial",
        )
    },
    "reconstruction: vae_gan": Variant({"reconstruction": "vae_gan"}, cost=20.1),
    "samples: 5": Variant({"samples": 5}, cost=20.0),
    "steps: 500": Variant({"steps": 500}, cost=4.0),
    "missing cells": Gaps(cost=11.2),
    "missing cells filled with means": Gaps(filled=True, cost=11.2),
    "sigma_floor: 0.2": Variant({"sigma_floor": 0.2}, cost=11.0),
    "sigma_floor: 0.3": Variant({"sigma_floor": 0.3}, cost=11.0),
    "encoder: none": Variant({"encoder": "none", "n_members": 1}, cost=100.0, on=small),
    "encoder: exact": Variant(LINEAR, cost=12.2, on=narrow),
    "probabilistic PCA": Variant(
        LINEAR | {"trim": 0.0, "linear_records": 0}, read=plain_elbo, cost=12.2, on=narrow
    ),
    "DTE-C": DteC(),
}
EVERY = METHODS | VARIANTS

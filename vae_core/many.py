"""Several independent models trained in one pass: small nets leave a device idle, many of them do not.

Belongs here: which models can share a pass, and how they are put together and taken apart. Does not: the
steps (run.py).

A model's members are computed together anyway; here the members of all models are. Each model has its own
records, seed, minibatches and noise. Its weights are those of its own fit but for rounding.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from vae_core.adversarial import TrainingWarning
from vae_core.device import own_stream
from vae_core.gradient import is_known_by_hand
from vae_core.known import Known
from vae_core.model import VAE
from vae_core.recipe import Recipe
from vae_core.records import Layout, Records
from vae_core.run import Run, TrainingDiverged
from vae_core.stock import take_stock
from vae_core.threads import one_thread_per_kernel
from vae_core.training import finish, fit, start


def fit_many(
    layout: Layout,
    sets: Sequence[Records],
    recipe: Recipe | None = None,
    *,
    seeds: Sequence[int],
    device: torch.device | str | None = None,
) -> list[VAE]:
    """Return a model for each set of records, as ``fit`` would train it.

    All have one layout and one recipe. In the default family (numbers, no categories, default noise,
    posterior and prior), models with gaps in the same columns and minibatches of one size share a pass. Other
    families get a fit each, and so do the models of a pass in which a loss is not finite.

    seeds: one for each set. device: where to train; by default that of the first set.

    Raises and warns as ``fit`` does.
    """
    recipe = recipe or Recipe()
    if len(seeds) != len(sets):
        raise ValueError(f"{len(sets)} sets of records need as many seeds, got {len(seeds)}")
    if not sets:
        return []
    device = sets[0].device if device is None else torch.device(device)
    if not is_known_by_hand(VAE(layout, recipe), Known()):
        each = zip(sets, seeds, strict=True)
        return [fit(layout, records, recipe, seed=seed, device=device) for records, seed in each]
    passes: dict[tuple[tuple[int, ...], int], list[_Part]] = {}
    parts = []
    for records, seed in zip(sets, seeds, strict=True):
        stock = take_stock(layout, records)
        parts.append(_Part(start(layout, recipe, stock, records, seed), records, seed))
        passes.setdefault((stock.indicated, min(recipe.minibatch, len(records))), []).append(parts[-1])
    failed: list[_Part] = []
    for together in passes.values():
        try:
            _train(together, device)
        except TrainingDiverged:
            failed += together
    return [
        fit(layout, p.records, recipe, seed=p.seed, device=device) if p in failed else p.vae for p in parts
    ]


@dataclass(frozen=True, eq=False)
class _Part:
    """One model of a pass."""

    vae: VAE
    records: Records
    seed: int


def _train(parts: Sequence[_Part], device: torch.device) -> None:
    """Train models in one pass.

    Raises TrainingDiverged where a loss is not finite, which any of the models may have caused.
    """
    first = parts[0].vae
    n_each = first.recipe.n_members
    joint = VAE(first.layout, replace(first.recipe, n_members=n_each * len(parts)), first.indicated)
    with one_thread_per_kernel(), own_stream(device), torch.no_grad():
        for name, parameter in joint.named_parameters():
            parameter.copy_(torch.cat([part.vae.get_parameter(name) for part in parts]))
        joint.noise.lowest_variance.copy_(torch.cat([part.vae.noise.lowest_variance for part in parts]))
        run = Run(joint.to(device), [part.records for part in parts], [part.seed for part in parts])
        run.train()
        run.release()
        for i, part in enumerate(parts):
            for name, parameter in part.vae.to(device).named_parameters():
                parameter.copy_(joint.get_parameter(name)[i * n_each : (i + 1) * n_each])
            notes = finish(part.vae, part.records, part.seed)
            if notes:
                warnings.warn("trained, but " + "; ".join(notes), TrainingWarning, stacklevel=3)

"""Which noise model each numeric column of a layout has.

Belongs here: from a recipe's ``noise`` and ``column_noise`` to the distribution of all numbers of a record.
Does not: the noise models themselves (noise.py).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_core.noise import (
    COUNTS,
    HIGHEST_LOG_VARIANCE,
    LEARN_EXTRA,
    NOISES,
    Mixed,
    Noise,
    Outputs,
    n_multiplied,
)
from vae_core.recipe import Recipe
from vae_core.records import Layout


class NumericNoise(nn.Module):
    """Which noise model each numeric column has, and what a model learns of it outside the decoder.

    names: of each column's model.
    extra: (n_members, 1, n_numeric), there if some column's model learns a parameter that is the same for
        every record.
    lowest_variance: (n_members, 1, n_numeric) that a decoder may claim, see ``know_steps``.
    share_in_terms: (n_numeric,) how much of a column's score term is −log p, see scoring.Scores.
    """

    columns: Tensor
    counts: Tensor
    lowest_variance: Tensor
    share_in_terms: Tensor

    def __init__(self, layout: Layout, recipe: Recipe) -> None:
        super().__init__()
        names = [recipe.column_noise.get(name, recipe.noise) for name in layout.numeric]
        strangers = sorted(set(recipe.column_noise) - set(layout.numeric))
        if strangers:
            raise ValueError(
                f"column_noise names {', '.join(strangers)}, not among the layout's numeric columns"
            )
        self.recipe = recipe
        self.names = tuple(names)
        self.models = tuple(dict.fromkeys(names))
        self.extra: nn.Parameter | None = None
        if set(names) & set(LEARN_EXTRA):
            self.extra = nn.Parameter(torch.zeros(recipe.n_members, 1, len(names)))
        which = torch.tensor([self.models.index(name) for name in names], dtype=torch.int64)
        self.n_each = [int((which == i).sum()) for i in range(len(self.models))]
        self.register_buffer("columns", which.argsort(stable=True), persistent=False)
        self.register_buffer(
            "counts", torch.tensor([name in COUNTS for name in names], dtype=torch.bool), persistent=False
        )
        shares = [0.5 if name.startswith("gaussian") else 1.0 for name in names]
        self.register_buffer("share_in_terms", torch.tensor(shares), persistent=False)
        lowest = torch.full((recipe.n_members, 1, len(names)), recipe.sigma_floor**2)
        self.register_buffer("lowest_variance", lowest)
        self.n_multiplied = n_multiplied(recipe.sigma_floor)
        self.any_counts = bool(self.counts.any())

    def forward(self, place: Tensor, spread: Tensor) -> Noise:
        """Return the distribution of all numbers.

        place, spread: the decoder's outputs, (n_members, n_records, n_numeric) each.
        """
        extra = place[:, :1] if self.extra is None else self.extra
        outputs = Outputs(place, spread, extra, self.recipe.sigma, self.lowest_variance, self.n_multiplied)
        if len(self.models) < 2:
            return NOISES[self.models[0] if self.models else "gaussian"](outputs)
        parts = torch.split(self.columns, self.n_each)
        models = zip(self.models, parts, strict=True)
        return Mixed(tuple((columns, NOISES[name](outputs.of(columns))) for name, columns in models))

    def know_steps(self, steps: Tensor) -> None:
        """Keep each number's variance above what rounding to its column's steps (n_numeric,) leaves.

        That is (step_floor · step)² / 12, the variance of a uniform distribution. Where nearly all values are
        the same and a step is many deviations wide, another value then costs about as much as its rarity in
        bits says, and not its distance from the mean in deviations.
        """
        rounding = (self.recipe.step_floor * steps).square().div(12)
        floor, highest = self.recipe.sigma_floor**2, math.exp(HIGHEST_LOG_VARIANCE)
        self.lowest_variance.copy_(rounding.clamp(floor, max(floor, highest)))

    def seen(self, values: Tensor) -> Tensor:
        """Return what the encoder gets of values (n_records, n_numeric): log(1 + x) of counts."""
        return torch.where(self.counts, values.clamp(min=0).log1p(), values) if self.any_counts else values

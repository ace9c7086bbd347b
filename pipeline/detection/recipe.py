"""A dataset's recipe as vae_core takes it.

Belongs here: the error for settings that it refuses. Does not: names and kinds of settings, which are known
without torch (config/training.py), or what they mean (vae_core/recipe.py).
"""

from __future__ import annotations

from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError
from vae_core import Recipe


def recipe_of(dataset: Dataset) -> Recipe:
    """Return the settings of `train.recipe`, the others at their defaults.

    Raises:
        ConfigError: with every value that is out of its range, or contradicts another.
    """
    try:
        return Recipe.from_dict(dataset.train.recipe)
    except (TypeError, ValueError) as fault:
        faults = str(fault).removeprefix("recipe:\n").splitlines()
        said = "\n".join(f"  train.recipe: {line.strip()}" for line in faults)
        raise ConfigError(f"{dataset.name}: {dataset.named_file}:\n{said}") from fault

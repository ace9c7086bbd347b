"""Settings: their checks and their way through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vae_core import Layout, Recipe


def test_a_recipe_survives_json() -> None:
    """The recipe is stored with the model and shown with the run."""
    recipe = Recipe(n_latents=3, trim=0.0)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_every_fault_of_a_recipe_is_in_one_message() -> None:
    """Fixing a settings file one error at a time costs a start each."""
    with pytest.raises(ValueError, match="n_members") as caught:
        Recipe(n_members=0, learning_rate=-1.0, trim=1.0, steps=0, category_floor=0.0, kl_weight=float("nan"))
    for name in ("n_members", "learning_rate", "trim", "steps", "category_floor", "kl_weight"):
        assert f"\n  {name} must be " in str(caught.value)


def test_an_unknown_setting_is_an_error() -> None:
    """A misspelt setting must not silently mean the default."""
    with pytest.raises(ValueError, match="unknown settings widht"):
        Recipe.from_dict({"widht": 32})


def test_numpy_s_numbers_are_python_s() -> None:
    """A model's config is JSON, and its fit is the same whichever way a number was written."""
    recipe = Recipe(steps=np.int64(3), trim=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(recipe.to_dict())) == Recipe(steps=3, trim=0.5).to_dict()


def test_yes_and_no_are_no_numbers() -> None:
    with pytest.raises(ValueError, match=r"samples must be a whole number in \[1, inf\), is True"):
        Recipe(samples=True)
    with pytest.raises(TypeError, match=r"recipe must be a mapping of settings to values, is \[1\]"):
        Recipe.from_dict([1])  # type: ignore[arg-type]


def test_latents_grow_with_the_square_root_of_the_columns() -> None:
    """A category counts as the bits of its code, 12 here; an explicit number wins."""
    layout = Layout(numeric=tuple(f"x{i}" for i in range(17)), categorical=(("k", 4095),))
    assert Recipe().latents_for(Layout(layout.numeric)) == 5
    assert Recipe().latents_for(layout) == 6
    assert Recipe(n_latents=2).latents_for(layout) == 2


def test_a_recipe_is_a_value() -> None:
    """Equal ones are equal, hash alike, and no longer change with the mapping they were made of."""
    noise = {"calls": "poisson"}
    recipe = Recipe(column_noise=noise)
    assert hash(recipe) == hash(Recipe(column_noise={"calls": "poisson"}))
    noise["calls"] = "bernoulli"
    assert recipe.column_noise == {"calls": "poisson"}
    with pytest.raises(TypeError, match="column_noise must be a mapping"):
        Recipe(column_noise=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="need log p"):
        Recipe(prior="hierarchical", samples=3)


def test_the_recipe_for_clean_records_differs_in_what_anomalies_among_them_ask_for() -> None:
    """In three settings, each of which may be given all the same."""
    usual, clean = Recipe().to_dict(), Recipe.clean().to_dict()
    assert {name for name in usual if usual[name] != clean[name]} == {"trim", "linear_records", "samples"}
    assert Recipe.clean(trim=0.05, steps=200) == Recipe(trim=0.05, linear_records=0, samples=5, steps=200)

"""The networks: members apart, categories as one-hots, records without a column."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

import vae_core
from vae_core import MISSING, VAE, Layout, Recipe, Records
from vae_core.layers import CodeTable, MemberLinear


def test_the_public_names_are_these() -> None:
    """The pipeline is written against them; a change here is a change for others."""
    assert sorted(vae_core.__all__) == sorted([
        "MISSING",
        "VAE",
        "Attribution",
        "CellCritic",
        "Checkpoint",
        "DataWarning",
        "Expected",
        "Imputed",
        "Known",
        "Latents",
        "Layout",
        "NegativeElbo",
        "OtherFit",
        "Ppca",
        "Progress",
        "Ranks",
        "Recipe",
        "Records",
        "Scorer",
        "Scores",
        "TrainingDiverged",
        "TrainingWarning",
        "attribute",
        "encode",
        "expect",
        "expect_from_others",
        "fit",
        "fit_critic",
        "fit_many",
        "fit_ppca",
        "importance_weighted_bound",
        "impute",
        "joined",
        "negative_elbo",
        "sample",
        "score",
        "weigh",
    ])


def test_members_are_computed_as_if_each_were_alone() -> None:
    """One batched product equals a plain linear layer per member."""
    layer = MemberLinear(3, 5, 2)
    layer.reset(torch.Generator().manual_seed(0))
    shared = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    expected = [functional.linear(shared, w.T, b[0]) for w, b in zip(layer.weight, layer.bias, strict=True)]
    assert_close(layer(shared), torch.stack(expected))
    assert_close(layer(shared, slice(1, 2)), torch.stack(expected)[..., 1:])


def test_a_code_table_is_the_affine_map_of_one_hots() -> None:
    """Looking a row up is what multiplying a one-hot does; the missing value has its own."""
    table = CodeTable(2, (3, 2), 4)
    nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[0, 1], [2, MISSING], [MISSING, 0]])
    one_hot = torch.cat(
        [functional.one_hot(codes[:, 0] + 1, 4), functional.one_hot(codes[:, 1] + 1, 3)], dim=1
    )
    assert_close(table(codes), one_hot.float() @ table.weight)


def test_removing_a_column_is_the_same_as_its_missing_value() -> None:
    """Leaving a column out by subtraction equals encoding the record without it."""
    table = CodeTable(2, (3, 2), 4)
    nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[0, 1], [2, MISSING], [MISSING, 0]])
    without = codes.clone()
    without[:, 1] = MISSING
    assert_close(table(codes) + table.removal(codes, 1), table(without))


def test_a_category_is_predicted_without_being_seen(vae: VAE, draw: Callable[..., Records]) -> None:
    """Whether a value fits the others must not depend on the value itself."""
    records = draw(64, seed=40)
    other = Records(records.numeric, (records.categorical + torch.tensor([0, 1])) % 4, records.context)
    with torch.no_grad():
        before, after = (vae.decode_categories_from_the_others(r).probabilities(1) for r in (records, other))
    assert_close(before, after, rtol=1e-4, atol=1e-5)


def test_context_moves_the_expectation_and_is_not_modelled(vae: VAE, draw: Callable[..., Records]) -> None:
    """The column that follows the context is expected elsewhere when the context changes."""
    records = draw(1, seed=41)
    means = []
    for hour in (-1.0, 1.0):
        given = Records(torch.full((1, 5), torch.nan), records.categorical, torch.full((1, 1), hour))
        with torch.no_grad():
            means.append(vae.decode(vae.encode(given).mean, given).numeric.mean[..., 4].mean())
    assert means[1] - means[0] > 1
    assert "hour" not in vae.layout.columns


def test_a_column_that_was_always_there_gets_no_missing_indicator(vae: VAE, vae_with_gaps: VAE) -> None:
    """An input that training never used would add untrained noise the first time it is used."""
    assert vae.indicated == ()
    assert vae_with_gaps.indicated == (0, 1, 2, 3, 4)


def test_the_config_is_plain_json_and_enough_to_rebuild(vae: VAE) -> None:
    """No pickle: JSON for what the model is, tensors for what it learned."""
    config = vae.config()
    assert json.loads(json.dumps(config)) == config
    rebuilt = VAE.from_config(config, vae.state_dict())
    assert rebuilt.config() == config
    assert not rebuilt.training


def test_a_model_of_categories_alone_works() -> None:
    """No numeric column is a layout like any other."""
    layout = Layout(numeric=(), categorical=(("k", 3), ("l", 3)))
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 3, (400, 1), generator=generator).expand(-1, 2).contiguous()
    records = Records(torch.zeros(400, 0), codes, torch.zeros(400, 0))
    vae = vae_core.fit(layout, records, Recipe(steps=200, n_members=2, width=16), seed=0)
    odd = Records(torch.zeros(1, 0), torch.tensor([[0, 2]]), torch.zeros(1, 0))
    assert vae_core.score(vae, odd).anomaly_score > vae_core.score(vae, records).anomaly_score.max()
    assert vae_core.attribute(vae, odd).expected.mean.shape == (1, 0)


def test_a_category_that_training_never_saw_says_nothing_about_the_others(vae: VAE) -> None:
    """'Other' never occurred: it is surprising itself, and must not throw the rest of the record off
    course.
    """
    numbers, hour = torch.tensor([[1.5, -1.5, 1.5, 0.0, -1.0]]), torch.tensor([[-1.0]])
    known, other = (Records(numbers, torch.tensor([[0, shade]]), hour) for shade in (1, 4))
    terms, unseen_terms = (vae_core.score(vae, records).column_terms[0] for records in (known, other))
    assert unseen_terms[6] > terms[6] + 5
    assert_close(unseen_terms[:5], terms[:5], rtol=0.0, atol=1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_whose_tensors_are_not_finite_is_refused_by_name(vae: VAE, value: float) -> None:
    """A rectifier turns NaN into 0, so scores would be finite and mean nothing."""
    state = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    state["encoder_inputs.weight"][0, 0, 0] = value
    with pytest.raises(
        ValueError, match=r"not finite, so it was damaged .*: encoder_inputs\.weight; read it again"
    ):
        VAE.from_config(vae.config(), state)


@pytest.mark.parametrize("n_kept", [0, 5])
def test_a_model_without_all_of_its_tensors_is_refused_by_name(vae: VAE, n_kept: int) -> None:
    """A file that was cut off, or none of a model: callers know RuntimeError."""
    kept = dict(list(vae.state_dict().items())[:n_kept])
    with pytest.raises(RuntimeError, match=r"Missing key.*decoder_outputs\.weight"):
        VAE.from_config(vae.config(), kept)

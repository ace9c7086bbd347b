"""A failed training is explained in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vae_core import VAE, Layout, Recipe, Records, TrainingWarning, fit
from vae_core.diagnosis import diagnose

LAYOUT = Layout(tuple("abcd"))


def records(x: Tensor) -> Records:
    return Records(x, torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0))


def one_cause(n: int = 1000) -> Records:
    generator = torch.Generator().manual_seed(1)
    return records(torch.randn(n, 1, generator=generator) + 0.3 * torch.randn(n, 4, generator=generator))


def test_latents_that_carry_a_cause_are_active() -> None:
    """One cause, two latents: each member uses one at least, and there is nothing to say."""
    found = diagnose(fit(LAYOUT, one_cause(), Recipe(steps=300, n_members=3), seed=0), one_cause())
    assert found.n_latents == 2
    assert len(found.active) == 3
    assert all(1 <= n <= 2 for n in found.active)
    assert found.notes == ()


def test_a_collapsed_posterior_is_said() -> None:
    """A KL that weighs a thousand leaves nothing in the latents."""
    with pytest.warns(
        TrainingWarning, match="posterior collapse: all members ignore the records, none of their 2 latents"
    ):
        fit(LAYOUT, one_cause(), Recipe(steps=300, n_members=2, kl_weight=1000.0), seed=0)


def test_members_that_collapsed_beside_others_are_counted() -> None:
    """Three of four whose encoder says the same of every record; the fourth does not make up for them."""
    vae = fit(LAYOUT, one_cause(), Recipe(steps=300, n_members=4), seed=0)
    assert diagnose(vae, one_cause()).notes == ()
    with torch.no_grad():
        vae.encoder_outputs.weight[:3] = 0
    found = diagnose(vae, one_cause())
    assert found.active[:3] == (0, 0, 0)
    (said,) = found.notes
    assert said.startswith(
        "posterior collapse: 3 of 4 members ignore the records, none of their 2 latents varies with them"
    )


WITHOUT_A_WEIGHT: list[dict[str, Any]] = [
    {"encoder": "exact", "prior": "normal", "noise": "gaussian_shared_sigma"},
    {"encoder": "none", "n_members": 1, "width": 16},
    {"regulariser": "kernel"},
    {"samples": 2},
]


@pytest.mark.parametrize("settings", WITHOUT_A_WEIGHT)
def test_nobody_is_told_to_set_what_the_recipe_refuses(settings: dict[str, Any]) -> None:
    """Latents that reach no column, or an encoder that says nothing: none varies, and no KL is weighed."""
    with pytest.raises(ValueError, match="kl_weight"):
        Recipe(**settings, kl_weight=0.5)
    vae = VAE(LAYOUT, Recipe(**settings), ())
    vae.initialise(one_cause().categorical, torch.Generator().manual_seed(0))
    with torch.no_grad():
        vae.decoder_outputs.weight.zero_()
        if vae.recipe.encoder == "network":
            vae.encoder_outputs.weight.zero_()
    (said,) = diagnose(vae.eval(), one_cause(60)).notes
    assert said.startswith("posterior collapse")
    assert "try" in said
    assert "kl_" not in said
    assert "free_nats" not in said


def test_an_exact_posterior_is_as_narrow_as_many_columns_make_it() -> None:
    """300 columns of one cause leave a deviation of 0.006: nothing was copied, and nothing is to be said."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(100, 1, generator=generator) + 0.1 * torch.randn(100, 300, generator=generator)
    recipe = Recipe(**WITHOUT_A_WEIGHT[0], n_members=1, n_latents=1)
    vae = VAE(Layout(tuple(f"x{i}" for i in range(300))), recipe, ())
    assert vae.noise.extra is not None
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        vae.noise.extra.fill_(-20)
        vae.decoder_outputs.weight[..., :300] = 1
        assert vae.encode(records(x)).variance.max() < 1e-4
    assert diagnose(vae.eval(), records(x)).notes == ()


def test_posteriors_that_became_points_are_said() -> None:
    """Without a KL latents copy records."""
    with pytest.warns(TrainingWarning, match="% of the posteriors have shrunk to points"):
        fit(LAYOUT, one_cause(), Recipe(steps=800, n_members=2, kl_weight=0.0, n_latents=4), seed=0)


@pytest.mark.parametrize("noises", [{}, {"noise": "student_t"}, {"column_noise": {"d": "student_t"}}])
def test_a_decoder_that_gave_a_column_up_is_said(noises: dict[str, Any]) -> None:
    """Values far beyond the standardised range, without a pattern: the variance runs to its bound, and
    so does the scale of heavier tails.
    """
    x = one_cause().numeric.clone()
    x[:, 3] = 300 * torch.randn(1000, generator=torch.Generator().manual_seed(2))
    with pytest.warns(TrainingWarning, match="the decoder's variance of .*d ran off"):
        fit(LAYOUT, records(x), Recipe(steps=300, n_members=2, linear_records=0, **noises), seed=0)


def test_a_value_seen_once_in_a_thousand_is_no_column_given_up() -> None:
    """Its step, 32 deviations, is the least that a decoder may claim to know: a bound set, not run to."""
    x = one_cause().numeric.clone()
    x[:, 3] = 0.0
    x[7, 3] = 1.0
    x[:, 3] = (x[:, 3] - x[:, 3].mean()) / x[:, 3].std()
    vae = fit(LAYOUT, records(x), Recipe(steps=300, n_members=2), seed=0)  # a warning would be an error
    assert vae.noise.lowest_variance[0, 0, 3] > 50


def test_heavy_tails_alone_are_no_column_given_up() -> None:
    """With 2.05 degrees of freedom the variance is 41 times the squared scale: 68 where that is 1.65."""
    vae = VAE(LAYOUT, Recipe(noise="student_t", n_members=2), ())
    vae.initialise(one_cause().categorical, torch.Generator().manual_seed(0))
    assert vae.noise.extra is not None
    with torch.no_grad():
        vae.noise.extra.fill_(math.log(0.05) - 1)
        vae.decoder_outputs.bias[..., 4:8] = 0.5
        vae.decoder_outputs.weight[..., 4:8] = 0
    assert not [note for note in diagnose(vae.eval(), one_cause()).notes if "ran off to the bound" in note]


@pytest.mark.parametrize(
    ("noise", "said"),
    [("poisson", "from 0 in"), ("negative_binomial", "from 0 in"), ("bernoulli", "from 0 to 1 in")],
)
def test_a_noise_model_of_another_kind_of_numbers_is_said(noise: str, said: str) -> None:
    """Standardised numbers where counts are meant; not of the few that are anomalies, nor of missing ones."""
    x = one_cause(200).numeric.clone()
    recipe = Recipe(steps=5, n_members=1, column_noise={"b": noise})
    with pytest.warns(
        TrainingWarning, match=f"% of the values of b are outside the range of noise model {noise} .*{said}"
    ):
        fit(LAYOUT, records(x), recipe, seed=0)
    x[:, 1] = (x[:, 1] > 0).float()
    x[:5, 1], x[5:100, 1] = -3.0, torch.nan
    assert not [n for n in diagnose(fit(LAYOUT, records(x), recipe, seed=0), records(x)).notes if "of b" in n]


def test_numbers_in_units_of_their_own_are_said() -> None:
    """A table that nobody standardised trains without an error, and its scores mean little; counts with a
    noise model of their own keep their unit, and a few absurd values are anomalies.
    """
    layout, hour = Layout(tuple("abcd"), (), ("hour",)), torch.arange(1000.0)[:, None]
    x = one_cause().numeric * torch.tensor([1e3, 1.0, 1e-2, 1.0]) + torch.tensor([0.0, 0.0, 0.0, 300.0])
    x[:9, 1], x[9:20, 1] = 1e6, torch.nan
    x[:, 3] = x[:, 3].round()
    unscaled = Records(x, torch.zeros(1000, 0, dtype=torch.int64), hour)
    vae = VAE(layout, Recipe(n_members=1, column_noise={"d": "poisson"}))
    vae.initialise(unscaled.categorical, torch.Generator().manual_seed(0))
    notes = [note for note in diagnose(vae.eval(), unscaled).notes if "standardise them" in note]
    assert [note.split(":")[0] for note in notes] == [
        "half or more of the values of a, hour lie beyond ±10",
        "the values of c vary by far less than sigma_floor, 0.1, so few stand out",
    ]


def test_whoever_asks_to_be_told_is_told_in_place_of_a_warning() -> None:
    """A warning would be an error here."""
    told: list[str] = []
    recipe = Recipe(steps=300, n_members=2, kl_weight=1000.0)
    fit(LAYOUT, one_cause(), recipe, seed=0, on_doubt=told.append)
    (said,) = told
    assert said.startswith(
        "posterior collapse: all members ignore the records, none of their 2 latents varies with them"
    )
    told.clear()
    still = one_cause().numeric.clone()
    still[:, 3] = 1.0
    fit(LAYOUT, records(still), Recipe(steps=25, n_members=2), seed=0, on_doubt=told.append)
    assert told[0] == "columns constant, so that any other value will stand out: d"

"""Models trained in one pass equal those trained one by one, but for rounding."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from vae_core import VAE, DataWarning, Layout, Recipe, Records, fit, fit_many, score
from vae_core import many as many_module

NUMBERS = Layout(("a", "b", "c", "d", "e"), (), ("hour",))
SHORT = Recipe(steps=40, n_members=2, width=16, warm_up=5)


def numbers(records: Records) -> Records:
    return Records(records.numeric, records.categorical[:, :0], records.context)


def agree(found: Sequence[VAE], expected: Sequence[VAE]) -> None:
    for one, other in zip(found, expected, strict=True):
        for name, tensor in other.state_dict().items():
            assert_close(
                one.state_dict()[name], tensor, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("samples", [1, 2])
def test_they_are_those_of_separate_fits(samples: int, draw: Callable[..., Records]) -> None:
    """Sets of unlike size, gaps and number of records, some of which can share a pass, come back in order."""
    recipe = replace(SHORT, samples=samples)
    sets = [
        numbers(draw(n, seed=n, missing=gaps))
        for n, gaps in ((300, 0), (700, 0), (400, 0.1), (60, 0), (500, 0.1))
    ]
    found = fit_many(NUMBERS, sets, recipe, seeds=[1, 2, 3, 4, 5])
    expected = [fit(NUMBERS, records, recipe, seed=seed) for seed, records in enumerate(sets, 1)]
    agree(found, expected)
    assert_close(
        score(found[1], sets[1]).anomaly_score,
        score(expected[1], sets[1]).anomaly_score,
        rtol=1e-3,
        atol=1e-2,
    )
    assert not torch.equal(found[0].encoder_inputs.weight, found[1].encoder_inputs.weight)


def test_other_families_get_a_fit_each(layout: Layout, draw: Callable[..., Records]) -> None:
    """Categories: the same to the bit."""
    sets = [draw(200, seed=seed) for seed in (1, 2)]
    found = fit_many(layout, sets, SHORT, seeds=[1, 2])
    for vae, records, seed in zip(found, sets, (1, 2), strict=True):
        alone = fit(layout, records, SHORT, seed=seed)
        assert all(torch.equal(a, b) for a, b in zip(vae.parameters(), alone.parameters(), strict=True))


def test_one_that_diverges_does_not_take_the_others_along(
    draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are trained one by one instead."""
    sets = [numbers(draw(300, seed=seed)) for seed in (1, 2)]
    expected = [fit(NUMBERS, records, SHORT, seed=seed) for seed, records in enumerate(sets)]
    genuine = many_module.Run.advance

    def poisoned(run: many_module.Run, stop: int) -> None:
        genuine(run, stop)
        if len(run.minibatches.sizes) > 1:
            run.totals += math.nan

    monkeypatch.setattr(many_module.Run, "advance", poisoned)
    for one, other in zip(fit_many(NUMBERS, sets, SHORT, seeds=[0, 1]), expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_each_set_is_looked_at(draw: Callable[..., Records]) -> None:
    """Faults and oddities are said as by a fit."""
    records = numbers(draw(50, seed=1))
    records.numeric[:, 2] = 1.0
    with pytest.warns(DataWarning, match="constant.*: c"):
        fit_many(NUMBERS, [records, numbers(draw(50, seed=2))], SHORT, seeds=[1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        with pytest.raises(ValueError, match="cannot train on 0 records"):
            fit_many(NUMBERS, [records, records[:0]], SHORT, seeds=[1, 2])
    with pytest.raises(ValueError, match="2 sets of records need as many seeds, got 1"):
        fit_many(NUMBERS, [records, records], SHORT, seeds=[1])
    assert fit_many(NUMBERS, [], SHORT, seeds=[]) == []

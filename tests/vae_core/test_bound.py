"""−ELBO is a bound for each record by itself, in parts that add up."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from tests.vae_core.test_priors import two_kinds
from vae_core import VAE, Layout, Recipe, Records, fit, importance_weighted_bound, negative_elbo, score
from vae_core.bound import _draws
from vae_core.objectives import elbo_terms, importance_weighted_loss

ERRORS = 5.0  # standard errors: one false alarm in 1.7 million
COLUMNS = tuple("abcd")


def records(x: torch.Tensor) -> Records:
    return Records(x, torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0))


@pytest.fixture(scope="module", params=["normal", "mixture", "hierarchical"])
def fitted(request: pytest.FixtureRequest) -> VAE:
    recipe = Recipe(prior=request.param, n_components=4, n_latents=2, steps=600, trim=0.0, linear_records=0)
    return fit(Layout(COLUMNS), records(two_kinds(1000, 1)), recipe, seed=2)


def known() -> torch.Tensor:
    """(1000,) −log of the density that `two_kinds` draws from."""
    x, centre = two_kinds(1000, 2), torch.tensor([2.0, -2.0, 2.0, -2.0])
    of_each = [MultivariateNormal(s * centre, 0.04 * torch.eye(4) + 0.25).log_prob(x) for s in (1, -1)]
    return math.log(2) - torch.stack(of_each).logsumexp(dim=0)


def test_it_is_not_below_what_it_bounds(fitted: VAE) -> None:
    """Neither below −log p(x) of the model, which many weighted draws come near from above, nor in the mean
    below that of the truth, which no model beats. At the posterior mean alone it would be.
    """
    new = records(two_kinds(1000, 2))
    bound = negative_elbo(fitted, new).whole
    with torch.no_grad():
        q = fitted.encode(new)
        noise = torch.randn(300, *q.mean.shape, generator=torch.Generator().manual_seed(1))
        weighted = importance_weighted_loss(new, q, fitted.prior, lambda z: fitted.decode(z, new), noise)
    for lower in (weighted.mean(dim=0), known()):
        above = bound - lower
        assert above.mean() > -ERRORS * above.std() / math.sqrt(len(above))
    scores = score(fitted, new)
    assert (scores.reconstruction + scores.kl_divergence).mean() < bound.mean() - 0.2


def test_it_is_what_independent_draws_come_to(fitted: VAE) -> None:
    """The estimate that training takes, by 1,000 draws of its own, record by record."""
    new = records(two_kinds(50, 3))
    generator, drawn = torch.Generator().manual_seed(9), []
    with torch.no_grad():
        q = fitted.encode(new)
        for _ in range(1000):
            noise = torch.randn(q.mean.shape, generator=generator)
            terms = elbo_terms(new, q, fitted.prior, lambda z: fitted.decode(z, new), noise)
            drawn.append(terms.loss().mean(dim=0))
    theirs = torch.stack(drawn)
    error = theirs.std(dim=0) / math.sqrt(1000)
    ours = negative_elbo(fitted, new, n_draws=1000).whole
    assert ((ours - theirs.mean(dim=0)).abs() < ERRORS * math.sqrt(2) * error + 1e-4).all()


def test_few_draws_have_no_error_that_all_records_share(fitted: VAE) -> None:
    """As 300 draws of each record's own say, whose errors cancel over a thousand records."""
    new = records(two_kinds(1000, 5))
    with torch.no_grad():
        q, generator = fitted.encode(new), torch.Generator().manual_seed(11)
        drawn = [
            elbo_terms(
                new,
                q,
                fitted.prior,
                lambda z: fitted.decode(z, new),
                torch.randn(q.mean.shape, generator=generator),
            ).loss()
            for _ in range(300)
        ]
    theirs = float(torch.stack(drawn).mean())
    assert abs(float(negative_elbo(fitted, new).whole.mean()) - theirs) < 0.05


@given(n_latents=st.integers(1, 40), n_draws=st.integers(1, 100))
def test_draws_have_the_moments_of_the_normal(n_latents: int, n_draws: int) -> None:
    draws = _draws(n_draws, 2, n_latents)
    assert len(draws) >= max(n_draws, 4 * n_latents)
    assert_close(draws.mean(dim=0), torch.zeros(2, n_latents), atol=1e-5, rtol=0)
    second = torch.einsum("dmi,dmj->mij", draws, draws) / len(draws)
    assert_close(second, torch.eye(n_latents).expand(2, -1, -1), atol=1e-4, rtol=0)


def test_a_record_has_the_same_bound_alone_and_a_missing_cell_adds_nothing(fitted: VAE) -> None:
    x = two_kinds(64, 4)
    x[:, 1] = math.nan
    whole = negative_elbo(fitted, records(x))
    alone = negative_elbo(fitted, records(x[7:8]))
    assert torch.equal(whole.reconstruction[7:8], alone.reconstruction)
    assert torch.equal(whole.kl_divergence[7:8], alone.kl_divergence)
    assert (whole.reconstruction[:, 1] == 0).all()
    assert (whole.reconstruction[:, [0, 2, 3]] != 0).all()


def test_the_weighted_bound_tightens_with_draws_and_is_never_below_the_truth(fitted: VAE) -> None:
    """Nor looser than the ELBO; in the mean over records, as it bounds in expectation."""
    if fitted.recipe.prior == "hierarchical":
        with pytest.raises(ValueError, match="use negative_elbo"):
            importance_weighted_bound(fitted, records(two_kinds(4, 1)))
        return
    new = records(two_kinds(1000, 2))
    falling = [
        negative_elbo(fitted, new, n_draws=200).whole,
        *(importance_weighted_bound(fitted, new, n_draws=k) for k in (5, 50, 500)),
    ]
    for looser, tighter in pairwise(falling):
        difference = looser - tighter
        assert difference.mean() > -ERRORS * difference.std() / math.sqrt(1000)
    assert falling[0].mean() - falling[-1].mean() > 0.02
    above = falling[-1] - known()
    assert above.mean() > -ERRORS * above.std() / math.sqrt(1000)


def test_with_the_exact_posterior_every_draw_gives_the_evidence() -> None:
    """A linear decoder with one variance: log p(x) is that of a normal, record by record, gaps or not."""
    x = two_kinds(300, 6)
    x[::3, 1] = math.nan
    recipe = Recipe(
        encoder="exact", prior="normal", noise="gaussian_shared_sigma", steps=200, linear_records=0
    )
    vae = fit(Layout(COLUMNS), records(x), recipe, seed=1)
    exact = negative_elbo(vae, records(x)).whole
    for n_draws in (1, 7):
        assert_close(importance_weighted_bound(vae, records(x), n_draws=n_draws), exact, atol=1e-3, rtol=1e-4)


def test_a_record_has_the_same_weighted_bound_alone(fitted: VAE) -> None:
    if fitted.recipe.prior != "hierarchical":
        x = records(two_kinds(64, 4))
        assert torch.equal(
            importance_weighted_bound(fitted, x)[7:8], importance_weighted_bound(fitted, x[7:8])
        )


@pytest.mark.parametrize("bound", [negative_elbo, importance_weighted_bound])
def test_no_draws_are_refused(bound: Callable[..., Any], fitted: VAE) -> None:
    with pytest.raises(ValueError, match="n_draws must be at least 1, is 0"):
        bound(fitted, records(two_kinds(4, 1)), n_draws=0)


@pytest.mark.parametrize("bound", [negative_elbo, importance_weighted_bound])
def test_what_has_no_bound_is_refused(bound: Callable[..., Any]) -> None:
    vae = VAE(Layout(COLUMNS), Recipe(regulariser="mmd"))
    with pytest.raises(ValueError, match="'mmd' has no evidence lower bound"):
        bound(vae, records(two_kinds(4, 1)))

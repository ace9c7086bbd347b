"""New records, missing cells, latents: against data whose distribution is known."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from vae_core import (
    MISSING,
    VAE,
    DataWarning,
    Imputed,
    Layout,
    Recipe,
    Records,
    encode,
    fit,
    impute,
    sample,
)


def numbers(values: Tensor) -> Records:
    n = len(values)
    return Records(values, torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0))


def covariance() -> Tensor:
    """Of six numbers with unit variance that share two causes."""
    weight = 0.7 * torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    whole = weight @ weight.T + 0.3 * torch.eye(6)
    scale = whole.diagonal().rsqrt()
    return scale[:, None] * whole * scale


def gaussian_records(n: int, seed: int) -> Records:
    noise = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return numbers(noise @ torch.linalg.cholesky(covariance()).T)


@pytest.fixture(scope="module")
def gaussian_vae() -> VAE:
    recipe = Recipe(steps=800, n_members=2, width=32, n_latents=2, trim=0.0)
    return fit(Layout(tuple("abcdef")), gaussian_records(3000, seed=1), recipe, seed=0)


@pytest.fixture(scope="module")
def mixed_vae(layout: Layout, draw: Callable[..., Records]) -> VAE:
    """Numbers, categories and context, without trimming, which would leave the rarest records out."""
    return fit(layout, draw(3000, seed=1), Recipe(steps=600, n_members=2, trim=0.0), seed=0)


def equal(one: Records, other: Records) -> bool:
    return (
        torch.equal(one.numeric.nan_to_num(7e7), other.numeric.nan_to_num(7e7))
        and torch.equal(one.categorical, other.categorical)
        and torch.equal(one.context, other.context)
    )


def test_samples_have_the_moments_of_a_known_gaussian(gaussian_vae: VAE) -> None:
    """20,000 samples: means, standard deviations and correlations have standard errors of 0.007 at most. Four
    of them, 0.03, are exceeded in 1 of 10,000 cases; the model itself may be off by 0.07 more.
    """
    drawn = sample(gaussian_vae, 20_000, seed=3).numeric
    assert_close(drawn.mean(dim=0), torch.zeros(6), rtol=0.0, atol=0.1)
    assert_close(drawn.std(dim=0), torch.ones(6), rtol=0.0, atol=0.1)
    assert_close(torch.corrcoef(drawn.T), covariance(), rtol=0.0, atol=0.1)


def test_samples_follow_context_and_go_together_as_the_records_do(
    mixed_vae: VAE, draw: Callable[..., Records]
) -> None:
    """20,000 samples beside as many records: standard errors are below 0.01, an error of 0.15 is the
    model's.
    """
    records = draw(20_000, seed=2)
    drawn = sample(mixed_vae, 20_000, context=records.context, seed=5)
    assert torch.equal(drawn.context, records.context)
    for moment in (lambda x: x.mean(dim=0), lambda x: x.std(dim=0), lambda x: torch.corrcoef(x.T)):
        assert_close(moment(drawn.numeric), moment(records.numeric), rtol=0.0, atol=0.15)
    early = records.context[:, 0] < 0
    assert_close(
        drawn.numeric[early, 4].mean(), records.numeric[early, 4].mean(), rtol=0.0, atol=0.15
    )  # e follows the hour
    for column in range(2):
        shares = [r.categorical[:, column].bincount(minlength=5) / 20_000 for r in (drawn, records)]
        assert_close(*shares, rtol=0.0, atol=0.05)
    colour, shade = drawn.categorical.T
    assert (
        shade == (colour + 1) % 4
    ).float().mean() > 0.65  # by chance 0.25; between codes the prior has no gaps


def test_a_seed_gives_the_same_samples_again(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """And another seed gives others; no records are records, too."""
    context = draw(1500, seed=2).context
    first = sample(mixed_vae, 1500, context=context, seed=1)
    assert equal(first, sample(mixed_vae, 1500, context=context, seed=1))
    assert not equal(first, sample(mixed_vae, 1500, context=context, seed=2))
    assert len(sample(mixed_vae, 0, context=context[:0], seed=1)) == 0
    mixed_vae.layout.check(first)


def test_samples_of_a_conditional_model_need_their_context(mixed_vae: VAE) -> None:
    """Zeros in its place would be an hour that nobody asked for."""
    with pytest.raises(ValueError, match=r"pass hour for each of the 5 records, as a tensor \(5, 1\)"):
        sample(mixed_vae, 5, seed=0)
    with pytest.raises(ValueError, match=r"context must be float32 of shape \(5, 1\), is .* of \(4, 1\)"):
        sample(mixed_vae, 5, context=torch.zeros(4, 1), seed=0)
    with pytest.raises(ValueError, match="n_records must be at least 0, is -1"):
        sample(mixed_vae, -1, seed=0)


def known_conditional(values: Tensor, gaps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the missing cells given the others, by Gaussian conditioning; 0
    elsewhere.
    """
    whole = covariance()
    mean, std = torch.zeros_like(values), torch.zeros_like(values)
    for i, u in enumerate(gaps):
        weight = torch.linalg.solve(whole[~u][:, ~u], whole[~u][:, u]).T
        mean[i, u] = weight @ values[i, ~u]
        std[i, u] = (whole[u][:, u] - weight @ whole[~u][:, u]).diagonal().sqrt()
    return mean, std


def test_imputation_of_a_known_gaussian_is_its_conditional_distribution(gaussian_vae: VAE) -> None:
    """300 records with 30 % of their cells missing. The means are within 0.1 (root mean square) of the exact
    ones and take away at least nine tenths of the squared error that the exact ones take away from the column
    means'; standard deviations are within 10 %; of the true values 95 % lie within ±1.96 of them (0.92 to
    0.98: four standard errors at 540 cells); draws scatter as they should (within 15 %, four standard errors
    at 2700 draws).
    """
    records = gaussian_records(300, seed=4)
    truth = records.numeric.clone()
    gaps = torch.rand(300, 6, generator=torch.Generator().manual_seed(5)) < 0.3
    records.numeric[gaps] = math.nan
    imputed = impute(gaussian_vae, records, draws=5, seed=0)
    mean, std = known_conditional(truth, gaps)
    ours = imputed.records.numeric
    assert (ours - mean)[gaps].square().mean().sqrt() < 0.1
    by_column, exact, model = (x[gaps].square().mean() for x in (truth, truth - mean, truth - ours))
    assert by_column - model > 0.9 * (by_column - exact)
    ratio = (imputed.std / std)[gaps]
    assert ((ratio - 1).abs() < 0.1).float().mean() > 0.9
    covered = (((truth - ours) / imputed.std)[gaps].abs() < 1.96).float().mean()
    assert 0.92 < covered < 0.98
    draws = torch.stack([table.numeric for table in imputed.draws])
    assert_close(((draws - mean) / std)[:, gaps].square().mean(), torch.ones(()), rtol=0.0, atol=0.15)


def gappy(draw: Callable[..., Records], n: int = 60) -> Records:
    records = draw(n, seed=6, missing=0.3)
    records.numeric[0] = math.nan
    records.categorical[0] = MISSING
    records.numeric[1, 0], records.numeric[2, 0] = math.inf, -0.0
    return records


def test_observed_cells_come_back_untouched(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """To the bit, infinities and negative zeros as well; nothing is missing any more, in the table or in a
    draw.
    """
    records = gappy(draw)
    before = Records(records.numeric.clone(), records.categorical.clone(), records.context.clone())
    imputed = impute(mixed_vae, records, draws=2, seed=0)
    assert equal(records, before)
    seen, named = ~records.numeric.isnan(), records.categorical != MISSING
    for table in (imputed.records, *imputed.draws):
        bits = [x.numeric.view(torch.int32)[seen] for x in (table, records)]
        assert torch.equal(*bits)
        assert torch.equal(table.categorical[named], records.categorical[named])
        assert (table.observed == 1).all()
        mixed_vae.layout.check(table)
    assert (imputed.std[seen] == 0).all()
    assert (imputed.std[~seen] > 0).all()


def test_a_missing_category_is_told_by_the_others(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """Shade follows colour: it comes back right, as likely as in the model's samples (0.74); without either,
    every shade is as likely.
    """
    truth = draw(50, seed=7)
    records = Records(truth.numeric, truth.categorical.clone(), truth.context)
    records.categorical[:40, 1] = MISSING
    records.categorical[40:] = MISSING
    imputed = impute(mixed_vae, records, seed=0)
    assert (imputed.records.categorical[:40] == truth.categorical[:40]).float().mean() > 0.95
    shade = imputed.probabilities[1]
    assert shade.shape == (50, 5)
    assert_close(shade.sum(dim=1), torch.ones(50))
    assert shade[:40].amax(dim=1).median() > 0.6
    assert shade[40:].amax(dim=1).max() < 0.5
    assert imputed.probabilities[0][:40].amax(dim=1).tolist() == [1.0] * 40  # observed


def parts(imputed: Imputed, row: slice) -> list[Tensor]:
    tables = [imputed.records, *imputed.draws]
    own = [x[row] for table in tables for x in (table.numeric, table.categorical)]
    return [*own, imputed.std[row], *(chances[row] for chances in imputed.probabilities)]


def test_a_record_is_imputed_alone_as_among_others(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """To the bit, draws included; the seed gives the same again, and another seed gives other draws."""
    records = gappy(draw)
    whole = impute(mixed_vae, records, seed=0)
    for i in (0, 1, 17, 59):
        alone = impute(mixed_vae, records[i], seed=0)
        same = [
            torch.equal(a, b)
            for a, b in zip(parts(alone, slice(None)), parts(whole, slice(i, i + 1)), strict=True)
        ]
        assert all(same)
    assert not equal(impute(mixed_vae, records, seed=1).draws[0], whole.draws[0])


def test_nothing_missing_nothing_done(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """Complete tables and empty ones come back as they are."""
    for records in (draw(5, seed=8), draw(0, seed=8)):
        imputed = impute(mixed_vae, records, draws=1, seed=0)
        assert equal(imputed.records, records)
        assert equal(imputed.draws[0], records)
        assert imputed.std.shape == records.numeric.shape
    with pytest.raises(ValueError, match="draws must be at least 1, is 0"):
        impute(mixed_vae, records, draws=0, seed=0)


def test_a_column_that_training_never_saw_stays_missing() -> None:
    """Nothing is known about it: no value is made up."""
    records = gaussian_records(200, seed=9)
    records.numeric[:, 5] = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        vae = fit(Layout(tuple("abcdef")), records, Recipe(steps=20, n_members=2), seed=0)
    records.numeric[0, :2] = math.nan
    imputed = impute(vae, records[:3], seed=0)
    assert imputed.records.numeric[:, 5].isnan().all()
    assert imputed.std[:, 5].isnan().all()
    assert imputed.records.numeric[:, :5].isfinite().all()
    assert sample(vae, 4, seed=0).numeric.isnan().sum(dim=0).tolist() == [0, 0, 0, 0, 0, 4]


def test_latents_for_plots_are_the_encoders(mixed_vae: VAE, draw: Callable[..., Records]) -> None:
    """Of every member, with standard deviations, and of a record alone as among others."""
    records = draw(40, seed=10)
    latents = encode(mixed_vae, records)
    with torch.no_grad():
        posterior = mixed_vae.encode(records)
    assert latents.mean.shape == latents.std.shape == posterior.mean.shape == (2, 40, 4)
    assert_close(latents.mean, posterior.mean, rtol=1e-4, atol=1e-5)
    assert_close(latents.std.square(), posterior.variance, rtol=1e-4, atol=1e-6)
    assert torch.equal(encode(mixed_vae, records[9]).mean[:, 0], latents.mean[:, 9])

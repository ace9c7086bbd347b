"""Noise models of numbers against scipy, and what a fit makes of data whose noise is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.testing import assert_close

from vae_core import VAE, Layout, Recipe, Records, expect, fit, score
from vae_core.noise import NOISES, Mixed, NegativeBinomial, Noise, Outputs, Poisson, StudentT

seeds = st.integers(0, 2**32 - 1)
REAL = ("gaussian", "gaussian_fixed_sigma", "gaussian_shared_sigma", "gaussian_column_sigma", "student_t")


def outputs(seed: int, n_records: int = 6, n_members: int = 2) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, n_members, n_records, 3, generator=generator, dtype=torch.float64)
    place, spread = drawn.clamp(-3, 3)
    extra = torch.randn(n_members, 1, 3, generator=generator, dtype=torch.float64).clamp(-3, 3)
    return Outputs(place, spread, extra, sigma=0.7, lowest_variance=torch.full((place.shape[-1],), 0.01))


def scipys(name: str, out: Outputs) -> Any:
    """The same distribution, frozen, of scipy."""
    place, extra, floor = out.place.numpy(), out.extra.numpy(), 0.01
    variance = out.spread.exp().numpy() + floor
    match name:
        case "gaussian":
            return stats.norm(place, variance**0.5)
        case "gaussian_fixed_sigma":
            return stats.norm(place, 0.7)
        case "gaussian_shared_sigma":
            return stats.norm(place, (out.extra.mean(-1, keepdim=True).exp().numpy() + floor) ** 0.5)
        case "gaussian_column_sigma":
            return stats.norm(place, (out.extra.exp().numpy() + floor) ** 0.5)
        case "student_t":
            return stats.t(2 + (out.extra + 1).exp().numpy(), place, variance**0.5)
        case "bernoulli":
            return stats.bernoulli(1 / (1 + (-out.place).exp().numpy()))
        case "poisson":
            return stats.poisson(out.place.exp().numpy())
        case "negative_binomial":
            shape = (-out.spread).exp().numpy()
            return stats.nbinom(shape, shape / (shape + out.place.exp().numpy()))
    raise AssertionError(extra)


@pytest.mark.parametrize("name", NOISES)
@given(seed=seeds)
def test_density_mean_and_variance_are_those_of_scipy(name: str, seed: int) -> None:
    """Per cell, in double precision."""
    out = outputs(seed)
    noise, theirs = NOISES[name](out), scipys(name, out)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    if name not in REAL:
        values = (3 * values).abs().floor()
    if name == "bernoulli":
        values = (values > 1).double()
    density = theirs.logpdf if name in REAL else theirs.logpmf
    assert_close(noise.log_prob(values), torch.as_tensor(density(values.numpy())), rtol=1e-6, atol=1e-6)
    for ours, moment in ((noise.mean, theirs.mean()), (noise.variance, theirs.var())):
        assert_close(ours, torch.as_tensor(moment).broadcast_to(ours.shape), rtol=1e-6, atol=1e-6)


def test_a_students_t_is_never_as_good_as_normal() -> None:
    """Its freedom ends at 2 + exp(5), 150, whatever is learned."""
    far = torch.full((1, 1, 1), 4.04)
    out = Outputs(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), far, 1.0, torch.tensor([0.0]))
    assert_close(StudentT.of(out).freedom, torch.full((1, 1, 1), 2 + math.exp(5)))


@pytest.mark.parametrize("log_mean", [3.0, 9.0, 11.5, 13.8])
@pytest.mark.parametrize("away", [0.0, -3.0, 3.0])
def test_counts_have_the_density_of_scipy_in_single_precision(log_mean: float, away: float) -> None:
    """As models compute: up to a million, a few deviations off, a hundredth of a nat right. It is the
    difference of numbers near ten million, of which single precision keeps one digit after the point at best.
    """
    place, spread = torch.full((1, 1, 1), log_mean), torch.full((1, 1, 1), -7.0)
    out = Outputs(place, spread, torch.zeros(1, 1, 1), 1.0, torch.tensor([0.01]))
    mean, dispersion = float(place.double().exp()), math.exp(-7.0)
    shape = 1 / dispersion
    for noise, theirs in (
        (Poisson.of(out), stats.poisson(mean)),
        (NegativeBinomial.of(out), stats.nbinom(shape, shape / (shape + mean))),
    ):
        count = max(0, round(mean + away * theirs.std()))
        ours = noise.log_prob(torch.tensor([[float(count)]]))
        assert ours.dtype == torch.float32
        assert abs(float(ours) - theirs.logpmf(count)) < 0.01


@pytest.mark.parametrize("name", NOISES)
def test_draws_have_the_mean_and_the_spread_that_are_claimed(name: str) -> None:
    """20,000 draws of 6 cells: a mean within 5 standard errors of its own, a false alarm in 1 of 10⁵ runs
    (Student's t, whose variance has none, excepted: for it the share below the mean, a half).
    """
    noise = NOISES[name](outputs(3, n_records=1))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([noise.sample(generator) for _ in range(20_000)])
    if name == "student_t":
        assert ((draws < noise.mean).double().mean(0) - 0.5).abs().max() < 5 * 0.5 / 20_000**0.5
        return
    assert (((draws.mean(0) - noise.mean) / (noise.variance / 20_000).sqrt()).abs() < 5).all()
    assert_close(draws.var(0), noise.variance, rtol=0.15, atol=0.0)


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 0.5, 1e6, -1e6])
def test_any_number_has_a_finite_density_with_a_finite_gradient(name: str, value: float) -> None:
    """A negative count costs much, and the night's run goes on."""
    parameters = torch.zeros(2, 1, 4, 1, requires_grad=True)
    out = Outputs(
        parameters[0], parameters[1], torch.zeros(1, 1, 1), sigma=1.0, lowest_variance=torch.tensor([0.01])
    )
    log_prob = NOISES[name](out).log_prob(torch.full((4, 1), value))
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


@given(low=st.integers(0, 50))
def test_outside_its_support_a_number_costs_more_the_farther_it_is(low: int) -> None:
    """Minus one sale, or 1.5 where only yes and no are known."""
    out = Outputs(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), 1.0, torch.tensor([0.01]))
    for name in ("poisson", "negative_binomial", "bernoulli"):
        noise = NOISES[name](out)
        inside, near, far = (noise.log_prob(torch.tensor([[x]])) for x in (0.0, -1.0 - low, -2.0 - low))
        assert inside > near + 50 > far + 50


@given(seed=seeds)
def test_poisson_is_the_limit_of_the_negative_binomial(seed: int) -> None:
    """As the dispersion goes to 0."""
    place = outputs(seed).place
    counts = torch.arange(6.0, dtype=torch.float64)[:, None].expand(6, 3)
    limit = NegativeBinomial(place, torch.full_like(place, -14.0))
    assert_close(limit.log_prob(counts), Poisson(place).log_prob(counts), rtol=1e-3, atol=1e-3)


@given(seed=seeds)
def test_mixed_columns_keep_their_order(seed: int) -> None:
    """Each column gets what its own model says."""
    out = outputs(seed)
    chosen = ("poisson", "gaussian", "student_t")
    parts: list[tuple[Tensor, Noise]] = []
    for i, name in ((1, chosen[1]), (0, chosen[0]), (2, chosen[2])):
        columns = torch.tensor([i])
        parts.append((columns, NOISES[name](out.of(columns))))
    values = torch.tensor([[2.0, -0.3, 1.7]], dtype=torch.float64).expand(6, 3)
    mixed = Mixed(tuple(parts))
    for i, name in enumerate(chosen):
        alone = NOISES[name](out)
        assert_close(mixed.log_prob(values)[..., i], alone.log_prob(values)[..., i])
        assert_close(mixed.mean[..., i], alone.mean[..., i])
        assert_close(mixed.variance[..., i], alone.variance[..., i])
    assert mixed.sample(torch.Generator().manual_seed(1)).shape == out.place.shape


def numbers(values: Tensor) -> Records:
    n = len(values)
    return Records(values.float(), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0))


def one_cause(n: int, seed: int) -> Tensor:
    """(n, 6) all driven by one cause, before any noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, generator=generator) * torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 1.0])


@pytest.mark.parametrize("name", ["gaussian_shared_sigma", "gaussian_column_sigma", "gaussian"])
def test_a_fitted_sigma_recovers_the_known_noise(name: str) -> None:
    """One cause, noise of 0.4 in three columns and of 0.8 in the others; one sigma for all lies between them.

    Over six other draws and fits a column's sigma scattered by 2.0 % of itself, one for all by 0.8 %. Five
    standard deviations of the one and six of the other are allowed: 1 false alarm in 10⁵ runs, were they
    normal.
    """
    clean, generator = one_cause(3000, seed=1), torch.Generator().manual_seed(2)
    known = torch.tensor([0.4, 0.4, 0.4, 0.8, 0.8, 0.8])
    records = numbers(clean + known * torch.randn(clean.shape, generator=generator))
    layout = Layout(tuple("abcdef"))
    vae = fit(layout, records, Recipe(noise=name, n_latents=1, steps=800, trim=0.0, n_members=2), seed=0)
    with torch.no_grad():
        sigma = vae.decode(vae.encode(records).mean, records).numeric.variance.mean(dim=(0, 1)).sqrt()
    if name == "gaussian_shared_sigma":
        assert_close(sigma, known.square().mean().sqrt().expand(6), rtol=0.05, atol=0.0)
    else:
        assert_close(sigma, known, rtol=0.1, atol=0.0)


def test_heavy_tails_and_counts_are_learned_as_such() -> None:
    """Student's t finds its degrees of freedom; the rates of counts follow the cause that they share with a
    number.
    """
    generator = torch.Generator().manual_seed(3)
    cause = torch.randn(4000, 1, generator=generator)
    heavy = torch.as_tensor(stats.t(3).rvs((4000, 1), random_state=4)) * 0.5 + cause
    counts = torch.poisson((1 + 0.5 * cause).exp(), generator=generator)
    records = numbers(
        torch.cat([cause + 0.1 * torch.randn(4000, 1, generator=generator), heavy, counts], dim=1)
    )
    recipe = Recipe(
        column_noise={"heavy": "student_t", "count": "poisson"},
        n_latents=1,
        steps=1200,
        trim=0.0,
        n_members=2,
    )
    vae = fit(Layout(("plain", "heavy", "count")), records, recipe, seed=0)
    with torch.no_grad():
        noise = vae.decode(vae.encode(records).mean, records).numeric
    assert isinstance(noise, Mixed)
    heavy_part = next(part for _, part in noise.parts if isinstance(part, StudentT))
    assert ((heavy_part.freedom > 2.3) & (heavy_part.freedom < 5)).all()
    rate = noise.mean.mean(dim=0)[:, 2]
    assert torch.corrcoef(torch.stack([rate.log(), cause[:, 0]]))[0, 1] > 0.95
    odd = records[0:2]
    odd.numeric[:, 2] = torch.tensor([float(rate[0].round()), 60.0])
    terms = score(vae, odd).column_terms
    assert terms[1, 2] > 20 > 5 > terms[0, 2]


def test_a_noise_model_for_a_column_that_is_not_there_is_refused() -> None:
    """A misspelt column must not silently keep the default."""
    with pytest.raises(ValueError, match="column_noise names amuont"):
        VAE(Layout(("amount",)), Recipe(column_noise={"amuont": "poisson"}))
    with pytest.raises(ValueError, match=r"column_noise of amount must be one of gaussian, .* is 'possion'"):
        Recipe(column_noise={"amount": "possion"})


@pytest.mark.parametrize("noise", ["poisson", "negative_binomial"])
def test_rates_far_from_one_are_reached(noise: str) -> None:
    """Of a hundred thousand a record: a fit that begins at one spends its steps on the way there."""
    random = torch.Generator().manual_seed(0)
    cause = torch.randn(2000, 1, generator=random)
    rates = 1e5 * (0.3 * cause).exp()
    numbers = torch.cat([cause, torch.poisson(rates, generator=random)], dim=1)
    records = Records(numbers, torch.empty(2000, 0, dtype=torch.int64), torch.empty(2000, 0))
    vae = fit(Layout(("cause", "n")), records, Recipe(steps=500, column_noise={"n": noise}), seed=0)
    wrong_by = (expect(vae, records).mean[:, 1:] / rates - 1).abs()
    assert wrong_by.median() < 0.05

"""Latents found by optimisation: exact where the answer is known, and each record for itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from vae_core import VAE, DataWarning, Layout, Recipe, Records, fit, inference, score
from vae_core.inference import infer
from vae_core.noise import Bernoulli, Gaussian, Noise
from vae_core.objectives import elbo_terms

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Cells:
    """A likelihood of numeric columns alone."""

    noise: Noise

    def log_prob(self, records: Records) -> Tensor:
        return self.noise.log_prob(records.values) * records.observed


def numbers(values: Tensor) -> Records:
    n = len(values)
    return Records(values.float(), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0))


@given(seed=seeds)
def test_of_a_linear_gaussian_model_it_is_the_exact_posterior(seed: int) -> None:
    """Conditioning in closed form, of the observed cells alone: covariance (I + Wᵀ W / σ²)⁻¹ and its mean, in
    one step.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 3, generator=generator)
    records = numbers(torch.randn(10, 6, generator=generator))
    records.numeric[torch.rand(10, 6, generator=generator) < 0.3] = math.nan

    def decode(latents: Tensor, _: Records) -> Cells:
        mean = latents @ weight.T
        return Cells(Gaussian(mean, torch.full_like(mean, 0.3)))

    posterior = infer(records, decode, torch.zeros(10, 3), steps=1)
    for i in range(10):
        seen = records.observed[i].bool()
        covariance = torch.linalg.inv(torch.eye(3) + weight[seen].T @ weight[seen] / 0.3)
        mean = covariance @ weight[seen].T @ records.numeric[i, seen] / 0.3
        assert_close(posterior.mean[i], mean, rtol=1e-3, atol=1e-4)
        assert_close(posterior.factor[i] @ posterior.factor[i].T, covariance, rtol=1e-3, atol=1e-4)
        assert (posterior.factor[i].diagonal() > 0).all()
        assert (posterior.factor[i].triu(1) == 0).all()


def test_of_a_logistic_model_it_meets_the_conditions_of_the_best_gaussian() -> None:
    """Five answers yes to a question whose log odds are 2 z. With one latent the points lie one standard
    deviation s on either
    side: there the mean gradient of 5 log sigmoid(2 z) − z² / 2 is 0, and its slope between them −1 / s².
    """
    records = numbers(torch.ones(1, 5))
    posterior = infer(
        records, lambda z, _: Cells(Bernoulli((2 * z).expand(-1, 5))), torch.zeros(1, 1), steps=30
    )
    mean, std = posterior.mean.item(), posterior.variance.sqrt().item()
    ahead, behind = (10 / (1 + math.exp(2 * z)) - z for z in (mean + std, mean - std))
    assert abs(ahead + behind) / 2 < 0.1  # a bound short by gradient² · s² / 2 = 0.001 nats
    assert math.isclose((behind - ahead) / (2 * std), 1 / std**2, rel_tol=0.05)


def test_a_record_alone_gets_the_latents_that_it_gets_among_others(
    vae: VAE, draw: Callable[..., Records]
) -> None:
    """To rounding; in slices of one size (scoring.in_slices) to the bit. Whatever comes in, the result is
    finite.
    """
    records = draw(50, seed=70, missing=0.2)
    records.numeric[3] = 1e30
    whole = infer(records, vae.decode, torch.zeros(4, 50, 4))
    alone = infer(records[7], vae.decode, torch.zeros(4, 1, 4))
    assert_close(whole.mean[:, 7:8], alone.mean, rtol=1e-3, atol=1e-3)
    for tensor in (whole.mean, whole.factor, whole.kl_to_prior()):
        assert tensor.isfinite().all()
        assert not tensor.requires_grad


def test_many_records_are_within_what_a_gpu_s_solver_takes(
    vae: VAE, draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuSOLVER refuses more than some 32,000 matrices in one call, here 64; the same latents come out in
    parts.
    """
    records, decompose = draw(50, seed=70, missing=0.2), torch.linalg.eigh

    def limited(matrices: Tensor) -> tuple[Tensor, Tensor]:
        if matrices[..., 0, 0].numel() > 64:
            raise RuntimeError("cusolver error: CUSOLVER_STATUS_INVALID_VALUE")
        values, vectors = decompose(matrices)
        return values, vectors

    expected = infer(records, vae.decode, torch.zeros(4, 50, 4))
    monkeypatch.setattr(torch.linalg, "eigh", limited)
    monkeypatch.setattr(inference, "_MOST_DECOMPOSED", 64)
    found = infer(records, vae.decode, torch.zeros(4, 50, 4))
    assert_close(found.mean, expected.mean, rtol=1e-3, atol=1e-3)
    assert_close(found.factor, expected.factor, rtol=1e-3, atol=1e-3)


def test_its_bound_is_tighter_than_the_encoders(layout: Layout, draw: Callable[..., Records]) -> None:
    """For each record its own Gaussian, with full covariance, is nearer to p(z|x) than what an encoder gives
    for all of them.

    Mean −ELBO of 200 records by 200 draws each: standard error of the difference below 0.01 nats. Inside
    inference mode, as scoring needs it to work.
    """
    vae = fit(layout, draw(2000, seed=1), Recipe(steps=400, n_members=2, prior="normal"), seed=0)
    records, generator = draw(200, seed=71), torch.Generator().manual_seed(1)
    noise = torch.randn(200, 2, 200, vae.recipe.latents_for(layout), generator=generator)
    with torch.inference_mode():
        encoded = vae.encode(records)
        found = infer(records, vae.decode, torch.zeros_like(encoded.mean))
        losses = [
            elbo_terms(records, q, vae.prior, lambda z: vae.decode(z, records), one).loss().mean()
            for q in (encoded, found)
            for one in noise
        ]
    before, after = torch.stack(losses).view(2, -1).mean(dim=1)
    assert after < before - 0.03


def test_without_an_encoder_scores_do_not_depend_on_place_or_threads(
    layout: Layout, draw: Callable[..., Records], threads: Callable[[int], None]
) -> None:
    """To the bit, with widths off the beaten track; a column that training never saw says nothing about the
    others.
    """
    records, unseen = draw(150, seed=72, missing=0.1), draw(200, seed=73)
    unseen.numeric[:, 3] = math.nan
    recipe = Recipe(steps=10, n_members=2, width=50, n_latents=3, encoder="none")
    with pytest.warns(DataWarning, match="never observed, left out of every score: d"):
        vae = fit(layout, unseen, recipe, seed=0)
    assert not [name for name in vae.state_dict() if name.startswith("encoder")]
    threads(1)
    whole = score(vae, records)
    threads(2)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(score(vae, records[order]).column_terms, whole.column_terms[order])
    assert torch.equal(score(vae, records[17]).column_terms, whole.column_terms[17:18])
    without = Records(records.numeric.clone(), records.categorical, records.context)
    without.numeric[:, 3] = math.nan
    assert torch.equal(score(vae, without).anomaly_score, whole.anomaly_score)

"""Records with a part that is only given, or not there at all: context columns and missing cells."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from vae_core import VAE, Layout, Recipe, Records, fit, score
from vae_core.likelihoods import Likelihood
from vae_core.objectives import elbo_terms


def test_a_record_normal_in_one_context_is_found_in_another() -> None:
    """Loads follow the hour: high by day, low at night. A high load at night is odd to a model that is told
    the hour (AUROC above 0.95) and nothing to one that is not (below 0.65).

    Over six other draws and fits the one was 1.000 to four digits, the other 0.51 ± 0.02: seven standard
    deviations are allowed, which no run exceeds by chance.
    """
    generator = torch.Generator().manual_seed(1)

    def loads(n: int, *, swapped: bool) -> tuple[Tensor, Tensor]:
        day = torch.randint(0, 2, (n, 1), generator=generator).float() * 2 - 1
        level = (-day if swapped else day) + 0.3 * torch.randn(n, 1, generator=generator)
        return torch.cat([level, level + 0.3 * torch.randn(n, 1, generator=generator)], dim=1), day

    learned, normal, odd = loads(2000, swapped=False), loads(500, swapped=False), loads(500, swapped=True)
    found = {}
    for told in (True, False):
        layout = Layout(("load", "current"), context=("day",) if told else ())
        parts = [
            Records(x, torch.zeros(len(x), 0, dtype=torch.int64), day if told else torch.zeros(len(x), 0))
            for x, day in (learned, normal, odd)
        ]
        vae = fit(layout, parts[0], Recipe(steps=400, n_members=2, trim=0.0), seed=0)
        usual, unusual = (score(vae, part).anomaly_score for part in parts[1:])
        found[told] = float((unusual[:, None] > usual).float().mean())
    assert found[True] > 0.95
    assert found[False] < 0.65


def test_with_a_gap_a_score_s_parts_are_those_of_the_known_marginal() -> None:
    """x = W z + b + noise of 0.5, written into a decoder whose hidden units stay where they are linear.

    With the exact posterior, which the search for latents finds, −log p(x|mean) + KL is −log p(x) less what
    the posterior's spread costs, ½ tr(W S W') / 0.25: of the cells that are there, whichever they are.
    """
    recipe = Recipe(
        encoder="none", prior="normal", noise="gaussian_fixed_sigma", sigma=0.5, n_members=1, n_latents=2,
        width=2, linear_records=0,
    )  # fmt: skip
    vae, far = VAE(Layout(tuple("abcd")), recipe), 20.0
    generator = torch.Generator().manual_seed(3)
    weight, shift = torch.randn(4, 2, generator=generator), torch.randn(4, generator=generator)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        vae.decoder_inputs.weight[0], vae.decoder_inputs.bias[0] = torch.eye(2), far
        vae.decoder_outputs.weight[0, :, :4] = weight.T
        vae.decoder_outputs.bias[0, 0, :4] = shift - far * weight.sum(dim=1)
    causes = torch.randn(50, 2, generator=generator)
    x = causes @ weight.T + shift + 0.5 * torch.randn(50, 4, generator=generator)
    for there in ([0, 1, 2, 3], [0, 2, 3], [1]):
        part = torch.full((50, 4), torch.nan)
        part[:, there] = x[:, there]
        found = score(vae.eval(), Records(part, torch.zeros(50, 0, dtype=torch.int64), torch.zeros(50, 0)))
        w = weight[there]
        spread = torch.linalg.inv(torch.eye(2) + w.T @ w / 0.25)
        known = MultivariateNormal(shift[there], w @ w.T + 0.25 * torch.eye(len(there))).log_prob(x[:, there])
        parts = found.reconstruction + found.kl_divergence + (w @ spread @ w.T).trace() / 0.5
        assert_close(parts, -known, rtol=1e-4, atol=1e-3)


def test_with_a_gap_the_bound_is_near_the_marginal_density_of_the_rest() -> None:
    """Gaussian records, a fifth of the cells missing. −ELBO of records without column 1 is above −log of the
    known marginal density of the other three, by less than a twentieth of a nat on average: as for complete
    records.

    Over six other draws and fits the gap was 0.008 ± 0.006, of 1,000 records' noise for the most part: the
    bounds are six standard deviations away, 1 false alarm in 10⁷ runs were it normal.
    """
    generator = torch.Generator().manual_seed(2)
    covariance = torch.tensor([
        [1.0, 0.8, 0.6, 0.0],
        [0.8, 1.0, 0.7, 0.0],
        [0.6, 0.7, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ])
    x = torch.randn(6000, 4, generator=generator) @ torch.linalg.cholesky(covariance).T
    learned = x[:5000].clone()
    learned[torch.rand(5000, 4, generator=generator) < 0.2] = torch.nan

    def records(values: Tensor) -> Records:
        return Records(values, torch.zeros(len(values), 0, dtype=torch.int64), torch.zeros(len(values), 0))

    recipe = Recipe(steps=1500, n_members=2, trim=0.0, n_latents=2, linear_records=0, prior="normal")
    vae = fit(Layout(tuple("abcd")), records(learned), recipe, seed=0)

    def decode(part: Records, latents: Tensor) -> Likelihood:
        return vae.decode(latents, part)

    for there in ([0, 1, 2, 3], [0, 2, 3]):
        new = torch.full((1000, 4), torch.nan)
        new[:, there] = x[5000:, there]
        part, draws = records(new), []
        with torch.no_grad():
            posterior = vae.encode(part)
            for _ in range(20):
                noise = torch.empty_like(posterior.mean).normal_(generator=generator)
                terms = elbo_terms(part, posterior, vae.prior, partial(decode, part), noise)
                draws.append(terms.loss())
        known = MultivariateNormal(torch.zeros(len(there)), covariance[there][:, there])
        gap = torch.stack(draws).mean() + known.log_prob(x[5000:, there]).mean()
        assert -0.03 < gap < 0.05

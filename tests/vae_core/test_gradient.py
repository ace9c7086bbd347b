"""The gradient by hand is autograd's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from vae_core import VAE, Known, Layout, Recipe, Records
from vae_core.gradient import gradient, is_known_by_hand
from vae_core.objectives import elbo_terms, importance_weighted_loss

LAYOUT = Layout(("a", "b", "c", "d", "e"), (), ("hour",))


def numbers(records: Records) -> Records:
    return Records(records.numeric, records.categorical[:, :0], records.context)


@pytest.mark.parametrize("n_trimmed", [0, 12])
@pytest.mark.parametrize(
    ("samples", "kl_weight", "far"),
    [(1, 1.0, 1.0), (1, 1.0, 30.0), (1, 0.3, 1.0), (1, 0.3, 30.0), (5, 1.0, 1.0), (5, 1.0, 8.0)],
)  # at 30 a float's steps are 64 nats, by which several draws are not told apart
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_it_agrees_with_autograd(
    n_trimmed: int,
    samples: int,
    kl_weight: float,
    missing: float,
    far: float,
    draw: Callable[..., Records],
) -> None:
    """Every parameter, of both bounds, with gaps and context, with clamped log-variances and records that are
    trimmed.
    """
    batch = numbers(draw(128, seed=41, missing=missing))
    vae = VAE(LAYOUT, Recipe(n_members=3, width=16, n_components=4), (1, 2) if missing else ())
    generator = torch.Generator().manual_seed(0)
    vae.initialise(batch.categorical, generator)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(far).add_(torch.randn(parameter.shape, generator=generator), alpha=0.1 * far)
    noise = torch.randn(samples, 3, 128, vae.recipe.latents_for(LAYOUT), generator=generator)
    posterior, decode = vae.encode(batch), lambda z: vae.decode(z, batch)
    terms = elbo_terms(batch, posterior, vae.prior, decode, noise[0])
    if samples > 1:
        loss = importance_weighted_loss(batch, posterior, vae.prior, decode, noise)
    else:
        loss = terms.loss(kl_weight)
    kept = loss.topk(128 - n_trimmed, dim=1, largest=False).values
    expected = torch.autograd.grad(kept.mean(dim=1).sum(), list(vae.parameters()))
    found = gradient(vae, batch, noise, kl_weight=kl_weight, n_trimmed=n_trimmed)
    assert_close(found.loss, loss.detach(), rtol=1e-4, atol=1e-3)
    assert_close(found.reconstruction, terms.reconstruction.detach(), rtol=1e-4, atol=1e-3)
    assert_close(found.kl_divergence, terms.kl_divergence.detach(), rtol=1e-4, atol=1e-3)
    for (name, _), one in zip(vae.named_parameters(), expected, strict=True):
        scale = float(one.abs().max()) + 1e-6
        assert_close(
            found.by_name[name], one, rtol=1e-3, atol=2e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    "recipe",
    [{"posterior": "full"}, {"noise": "student_t"}, {"prior": "normal"}, {"regulariser": "mmd"}, {"free_nats": 1.0}],
)  # fmt: skip
def test_other_losses_go_through_autograd(recipe: dict[str, object], draw: Callable[..., Records]) -> None:
    """What was not derived by hand is not guessed."""
    assert not is_known_by_hand(VAE(LAYOUT, Recipe(**recipe)), Known())  # type: ignore[arg-type]
    assert not is_known_by_hand(VAE(LAYOUT, Recipe()), Known(anomalies=numbers(draw(3, seed=1))))
    assert is_known_by_hand(VAE(LAYOUT, Recipe()), Known())

"""The gradient by hand is autograd's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from vae_core import VAE, Known, Layout, Recipe, Records
from vae_core.gradient import gradient, is_known_by_hand
from vae_core.objectives import elbo_terms

LAYOUT = Layout(("a", "b", "c", "d", "e"), (), ("hour",))


def numbers(records: Records) -> Records:
    return Records(records.numeric, records.categorical[:, :0], records.context)


@pytest.mark.parametrize("n_trimmed", [0, 12])
@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("far", [1.0, 30.0])
def test_it_agrees_with_autograd(
    n_trimmed: int, kl_weight: float, missing: float, far: float, draw: Callable[..., Records]
) -> None:
    """Every parameter, with gaps and context, with clamped log-variances and records that are trimmed."""
    batch = numbers(draw(128, seed=41, missing=missing))
    vae = VAE(LAYOUT, Recipe(n_members=3, width=16, n_components=4), (1, 2) if missing else ())
    generator = torch.Generator().manual_seed(0)
    vae.initialise(batch.categorical, generator)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.mul_(far).add_(torch.randn(parameter.shape, generator=generator), alpha=0.1 * far)
    noise = torch.randn(3, 128, vae.recipe.latents_for(LAYOUT), generator=generator)
    terms = elbo_terms(batch, vae.encode(batch), vae.prior, lambda z: vae.decode(z, batch), noise)
    loss = terms.loss(kl_weight)
    kept = loss.topk(128 - n_trimmed, dim=1, largest=False).values
    expected = torch.autograd.grad(kept.mean(dim=1).sum(), list(vae.parameters()))
    found = gradient(vae, batch, noise, kl_weight=kl_weight, n_trimmed=n_trimmed)
    assert_close(found.loss, loss.detach(), rtol=1e-4, atol=1e-3)
    assert_close(found.kl_divergence, terms.kl_divergence.detach(), rtol=1e-4, atol=1e-3)
    for (name, _), one in zip(vae.named_parameters(), expected, strict=True):
        scale = float(one.abs().max()) + 1e-6
        assert_close(
            found.by_name[name], one, rtol=1e-3, atol=2e-5 * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    "recipe",
    [{"posterior": "full"}, {"noise": "student_t"}, {"prior": "normal"}, {"regulariser": "mmd"}, {"samples": 5}, {"free_nats": 1.0}],
)  # fmt: skip
def test_other_losses_go_through_autograd(recipe: dict[str, object], draw: Callable[..., Records]) -> None:
    """What was not derived by hand is not guessed."""
    assert not is_known_by_hand(VAE(LAYOUT, Recipe(**recipe)), Known())  # type: ignore[arg-type]
    assert not is_known_by_hand(VAE(LAYOUT, Recipe()), Known(anomalies=numbers(draw(3, seed=1))))
    assert is_known_by_hand(VAE(LAYOUT, Recipe()), Known())

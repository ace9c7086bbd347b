"""Networks that a fit plays against: what they can tell from the real thing, it does not match yet.

Belongs here: discriminators of latents (adversarial autoencoder), what they and the model lose
to each other. Does not: when either takes a step (training.py). A fitted model is stored without them.
"""

# M members, B records, Z latents, I inputs, H hidden units

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae_core.model import VAE, MemberLinear
from vae_core.records import Records

ADVERSARY_BETAS = (0.5, 0.9)  # of Adam: a player whose aim moves must forget sooner (Radford et al. 2016)
_SLOPE = 0.2  # of the leaky ReLU below 0
_TOO_SURE = 0.9  # share told rightly, of latents and prior's draws, from which a fit is not believed
_MOST_JUDGED = 4096  # records


class TrainingWarning(UserWarning):
    """The fit ended, and not where it should have."""


class Discriminator(nn.Module):
    """Tells real points from made ones: inputs -> width -> width -> 1 for each member, leaky ReLU between."""

    def __init__(self, n_members: int, n_inputs: int, width: int) -> None:
        super().__init__()
        self.inputs = MemberLinear(n_members, n_inputs, width)
        self.hidden = MemberLinear(n_members, width, width)
        self.outputs = MemberLinear(n_members, width, 1)

    def features(self, points: Tensor) -> Tensor:
        """(M, B, H) of points (M, B, I)."""
        first = functional.leaky_relu(self.inputs(points), _SLOPE)
        return functional.leaky_relu(self.hidden(first), _SLOPE)

    def forward(self, points: Tensor) -> Tensor:
        """(M, B) log-odds that points (M, B, I) are real."""
        odds: Tensor = self.outputs(self.features(points))
        return odds.squeeze(-1)


def telling_apart_loss(real: Tensor, made: Tensor) -> Tensor:
    """(M,) nats that a discriminator pays for log-odds (M, B) of real and of made points, −log D − log(1 − D).

    Goodfellow et al. 2014, eq. 1. Where both are alike no discriminator pays less than log 4 (theorem 1).
    """
    return functional.softplus(-real).mean(dim=1) + functional.softplus(made).mean(dim=1)


def fooling_loss(made: Tensor) -> Tensor:
    """(M,) nats, −log D, that a model pays for the log-odds (M, B) of what it made; log 2 where none can tell.

    The one that does not saturate (Goodfellow et al. 2014, section 3): it pulls hardest where the discriminator is sure.
    """
    return functional.softplus(-made).mean(dim=1)


class LatentAdversary(nn.Module):
    """The adversarial autoencoder's discriminator, of draws of the prior and latents (Makhzani et al. 2016, section 2)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        recipe = vae.recipe
        self.discriminator = Discriminator(recipe.n_members, recipe.latents_for(vae.layout), recipe.width)

    def play(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(M,) what the encoder pays for latents (M, B, Z), and what the discriminator does."""
        prior = torch.empty_like(latents).normal_(generator=generator)
        told = telling_apart_loss(self.discriminator(prior), self.discriminator(latents.detach()))
        return fooling_loss(self.discriminator(latents)), told

    @torch.no_grad()
    def judge(self, vae: VAE, records: Records, generator: torch.Generator) -> Tensor:
        """(M,) share of latents and of draws of the prior that are told rightly, ½ where none can tell.

        Warns with a TrainingWarning where it is nearly all: the fit is not the one that was asked for.
        """
        chosen = torch.randint(len(records), (_MOST_JUDGED,), generator=generator, device=generator.device)
        posterior = vae.encode(records[chosen])
        noise = torch.empty_like(posterior.mean).normal_(generator=generator)
        prior = torch.empty_like(posterior.mean).normal_(generator=generator)
        right = (self.discriminator(prior) > 0, self.discriminator(posterior.draw(noise)) <= 0)
        share_M = torch.stack(right).float().mean(dim=(0, 2))
        if share_M.max() > _TOO_SURE:
            warnings.warn(
                f"the discriminator still tells latents from the prior: {share_M.max():.0%} rightly, where 50 % is "
                f"chance; take more steps, a higher adversarial_weight or regulariser 'kernel'",
                TrainingWarning,
                stacklevel=4,
            )
        return share_M


def start_adversaries(
    adversaries: Sequence[nn.Module], device: torch.device, generator: torch.Generator
) -> dict[str, nn.Parameter]:
    """Put discriminators where the model lies and draw their weights. Returns those by name."""
    for module in nn.ModuleList(adversaries).to(device).modules():
        if isinstance(module, MemberLinear):
            module.reset(generator)
    return {
        f"{type(adversary).__name__}.{name}": parameter
        for adversary in adversaries
        for name, parameter in adversary.named_parameters()
    }

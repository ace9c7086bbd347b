"""Discriminators that a fit trains against: what they can tell from the real thing, it does not match yet.

Belongs here: discriminators of latents (adversarial autoencoder) and of records (VAE-GAN), what they and the
model lose to each other. Does not: when either takes a step (run.py). A fitted model is stored without them.
"""

# M members, B records, Z latents, N numeric columns, I inputs, H hidden units

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae_core.layers import MemberLinear
from vae_core.model import VAE
from vae_core.records import Records

ADVERSARY_BETAS = (0.5, 0.9)  # of Adam: a player whose target moves must forget sooner (Radford et al. 2016)
_SLOPE = 0.2  # of the leaky ReLU below 0
_TOO_SURE = 0.9  # share told rightly above which a fit is not trusted
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
        """Return the last hidden layer (M, B, H) of points (M, B, I)."""
        first = functional.leaky_relu(self.inputs(points), _SLOPE)
        return functional.leaky_relu(self.hidden(first), _SLOPE)

    def forward(self, points: Tensor) -> Tensor:
        """Return log-odds (M, B) that points (M, B, I) are real."""
        odds: Tensor = self.outputs(self.features(points))
        return odds.squeeze(-1)


def telling_apart_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return a discriminator's loss (M,), nats, from its log-odds (M, B) of real and of made points.

    −log D(real) − log(1 − D(made)) (Goodfellow et al. 2014, eq. 1). Where both are alike, it is at least log
    4 (theorem 1).
    """
    return functional.softplus(-real).mean(dim=1) + functional.softplus(made).mean(dim=1)


def fooling_loss(made: Tensor) -> Tensor:
    """Return a model's loss (M,), nats, −log D, from the log-odds (M, B) of what it made.

    It is log 2 where none can tell. This form does not saturate (Goodfellow et al. 2014, section 3): its
    gradient is largest where the discriminator is sure.
    """
    return functional.softplus(-made).mean(dim=1)


class LatentAdversary(nn.Module):
    """Discriminates prior draws from latents: adversarial autoencoder (Makhzani et al. 2016, section 2)."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        recipe = vae.recipe
        self.discriminator = Discriminator(recipe.n_members, recipe.latents_for(vae.layout), recipe.width)

    def play(self, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the losses (M,) of the encoder and of the discriminator for latents (M, B, Z)."""
        prior = torch.empty_like(latents).normal_(generator=generator)
        told = telling_apart_loss(self.discriminator(prior), self.discriminator(latents.detach()))
        return fooling_loss(self.discriminator(latents)), told

    def verdicts(self, vae: VAE, batch: Records, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return log-odds (M, B) of draws of the prior, and of latents of a batch."""
        posterior = vae.encode(batch)
        noise, prior = (torch.empty_like(posterior.mean).normal_(generator=generator) for _ in range(2))
        return self.discriminator(prior), self.discriminator(posterior.draw(noise))


@dataclass(frozen=True)
class Round:
    """Losses of one minibatch's game about records, in nats.

    unlike: (M, B) the model's, for reconstructions. fooled: (M,) the decoder's, for records it makes. told:
    (M,) the discriminator's.
    """

    unlike: Tensor
    fooled: Tensor
    told: Tensor


class RecordAdversary(nn.Module):
    """The VAE-GAN's discriminator of records and what the decoder makes (Larsen et al. 2016, algorithm 1).

    It sees the context and the numbers whose noise is Gaussian, 0 where missing. The decoder contributes
    draws, because the lack of noise would give means away. Categories and counts are left out: their draws
    have no gradient, and what has one, a probability or a rate, is no code or count. Unlike in the paper,
    feature likeness is added to p(x|z), which every column's score needs.
    """

    columns: Tensor

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        layout, recipe = vae.layout, vae.recipe
        noises = [recipe.column_noise.get(name, recipe.noise) for name in layout.numeric]
        seen = [i for i, noise in enumerate(noises) if noise.startswith("gaussian")]
        if not seen:
            raise ValueError(
                "reconstruction 'vae_gan' needs a numeric column with Gaussian noise, and there is none"
            )
        self.register_buffer("columns", torch.tensor(seen), persistent=False)
        self.discriminator = Discriminator(recipe.n_members, len(seen) + len(layout.context), recipe.width)

    def play(self, vae: VAE, batch: Records, latents: Tensor, generator: torch.Generator) -> Round:
        """Play one round: a batch against what the decoder makes of its latents (M, B, Z) and of prior draws.

        The encoder is trained on feature likeness alone, ½‖f(x) − f(x̃)‖² (eq. 7), the decoder also on
        fooling the discriminator, which neither changes.
        """
        real = self._seen(batch.values, batch).expand(len(latents), -1, -1)
        again = self._seen(vae.decode(latents, batch).numeric.mean, batch)
        made = self._made(vae, batch, latents.detach(), generator)
        unlike = self.discriminator.features(real) - self.discriminator.features(again)
        return Round(
            unlike=0.5 * unlike.square().sum(dim=-1),
            fooled=fooling_loss(self.discriminator(made)),
            told=telling_apart_loss(self.discriminator(real), self.discriminator(made.detach())),
        )

    def verdicts(self, vae: VAE, batch: Records, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return log-odds of the records of a batch (M, B), and of what the decoder makes (M, 2B)."""
        latents = vae.encode(batch).mean
        made = self._made(vae, batch, latents, generator)
        real = self._seen(batch.values, batch).expand(len(latents), -1, -1)
        return self.discriminator(real), self.discriminator(made)

    def _made(self, vae: VAE, batch: Records, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Return draws (M, 2B, I) of p(x|z), for latents (M, B, Z) of a batch and for draws of the prior."""
        prior = vae.prior.sample(len(batch), generator)
        twice = batch[torch.arange(len(batch), device=batch.device).repeat(2)]
        numeric = vae.decode(torch.cat([latents, prior], dim=1), twice).numeric
        return self._seen(numeric.sample(generator), twice)

    def _seen(self, numbers: Tensor, batch: Records) -> Tensor:
        """Return the compared numbers of (..., B, N), 0 where missing, and the context: (..., B, I)."""
        present = numbers[..., self.columns] * batch.observed[:, self.columns]
        return torch.cat([present, batch.context_values.expand(*present.shape[:-1], -1)], dim=-1)


Adversary = LatentAdversary | RecordAdversary
_TOLD = {LatentAdversary: "latents drawn from the prior", RecordAdversary: "records that the decoder made"}


def start_adversaries(
    adversaries: Sequence[Adversary], device: torch.device, generator: torch.Generator
) -> dict[str, nn.Parameter]:
    """Move discriminators to the model's device and draw their weights. Returns those by name."""
    for module in nn.ModuleList(adversaries).to(device).modules():
        if isinstance(module, MemberLinear):
            module.reset(generator)
    return {
        f"{type(adversary).__name__}.{name}": parameter
        for adversary in adversaries
        for name, parameter in adversary.named_parameters()
    }


@torch.no_grad()
def judge(adversary: Adversary, vae: VAE, records: Records, generator: torch.Generator) -> tuple[str, ...]:
    """Return what is wrong with the model, in words.

    A member's discriminator that is right about nearly all points, real and made counting equally, shows that
    the fit is not the one asked for.
    """
    chosen = torch.randint(len(records), (_MOST_JUDGED,), generator=generator, device=generator.device)
    sample = records[chosen.to(records.device)].to(vae.device)
    real, made = adversary.verdicts(vae, sample, generator)
    share_M = 0.5 * ((real > 0).float().mean(dim=1) + (made <= 0).float().mean(dim=1))
    if share_M.max() <= _TOO_SURE:
        return ()
    return (
        f"the discriminator still recognises {_TOLD[type(adversary)]}: right in {share_M.max():.0%} of cases, "
        f"where 50 % is chance; take more steps or a higher adversarial_weight, or train without it: regulariser "
        f"'kernel', reconstruction 'likelihood'",
    )

"""A minibatch's loss, by autograd: every recipe's, with what discriminators and known records add.

Belongs here: how a recipe's parts make one loss per member. Does not: a part itself (objectives.py,
distances.py, adversarial.py, known.py), the default family's shorter way (gradient.py), or the loop (run.py).
"""

# M members, B records of a minibatch, Z latents, K draws a record

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.adversarial import LatentAdversary, RecordAdversary
from vae_core.distances import DISTANCES
from vae_core.known import Known
from vae_core.minibatches import Minibatch, without
from vae_core.model import VAE
from vae_core.objectives import ElboTerms, elbo_terms, importance_weighted_loss
from vae_core.posteriors import Posterior
from vae_core.records import Records


@dataclass(frozen=True, eq=False)
class Costs:
    """What the model and the discriminators minimise.

    model, discriminators: (M,) each. means: () of loss, reconstruction and KL or its stand-in over the
    records kept, and of the loss over all, to report.
    """

    model: Tensor
    discriminators: Tensor
    means: list[Tensor]


class Losses:
    """The losses of one fit. generator: for what they draw themselves, on the model's device."""

    def __init__(self, vae: VAE, known: Known, generator: torch.Generator) -> None:
        self.vae, self.recipe, self.known, self.generator = vae, vae.recipe, known, generator
        self.of_latents = LatentAdversary(vae) if self.recipe.regulariser == "adversarial" else None
        self.of_records = RecordAdversary(vae) if self.recipe.reconstruction == "vae_gan" else None
        self.adversaries = [x for x in (self.of_latents, self.of_records) if x is not None]
        self.needs_latents = self.recipe.regulariser in DISTANCES or self.of_latents is not None

    def __call__(self, batch: Minibatch, kl_weight: Tensor, n_trimmed: int) -> Costs:
        """Return a minibatch's losses, leaving out the n_trimmed records with the highest."""
        recipe, vae, records, noise = self.recipe, self.vae, batch.records, batch.noise
        posterior = vae.encode(batch.visible)
        terms = elbo_terms(
            records, posterior, vae.prior, lambda z: vae.decode(z, records), noise[0], self.generator
        )
        loss_MB = self._bound(records, posterior, terms, noise, kl_weight)
        penalty_M, told_M = loss_MB.new_zeros(2, recipe.n_members)
        if self.of_records is not None:
            game = self.of_records.play(vae, records, posterior.draw(noise[0]), self.generator)
            loss_MB = loss_MB + recipe.adversarial_weight * game.unlike
            penalty_M, told_M = recipe.adversarial_weight * game.fooled, game.told
        kept_MB, reconstruction_MB, divergence = loss_MB, terms.reconstruction, terms.kl_divergence
        latents_MBZ = posterior.draw(noise[0]) if self.needs_latents else None
        if n_trimmed:
            kept = loss_MB.topk(len(records) - n_trimmed, dim=1, largest=False, sorted=False)
            kept_MB = kept.values
            reconstruction_MB, divergence = (
                x.gather(1, kept.indices) for x in (reconstruction_MB, divergence)
            )
            if latents_MBZ is not None:
                latents_MBZ = latents_MBZ.take_along_dim(kept.indices[..., None], dim=1)
        if latents_MBZ is not None:
            divergence, weight, told = self._stand_in(latents_MBZ)
            penalty_M, told_M = penalty_M + weight * divergence, told_M + told
        if self.known:
            penalty_M = penalty_M + self._of_known(terms)
        lowered_M = kept_MB.mean(dim=1) + penalty_M
        of_all_MB = loss_MB + penalty_M[:, None]
        reported = (lowered_M, reconstruction_MB, divergence, of_all_MB)
        return Costs(lowered_M, told_M, [x.detach().mean() for x in reported])

    def _bound(
        self, records: Records, posterior: Posterior, terms: ElboTerms, noise: Tensor, kl_weight: Tensor
    ) -> Tensor:
        """Return each record's loss (M, B) from the networks and the prior alone."""
        recipe = self.recipe
        # at the exact posterior every draw, even one, gives −log p(x) itself, and its gradient without noise
        if recipe.samples > 1 or recipe.encoder == "exact":
            return importance_weighted_loss(
                records, posterior, self.vae.prior, lambda z: self.vae.decode(z, records), noise
            )
        if recipe.regulariser == "kl":
            return terms.with_free(recipe.free_nats).loss(kl_weight)
        return terms.reconstruction

    def _stand_in(self, latents: Tensor) -> tuple[Tensor, float, Tensor | float]:
        """Return what replaces the KL of latents (M, B, Z), (M,) nats, its weight, its adversary's loss."""
        recipe = self.recipe
        if self.of_latents is None:
            return DISTANCES[recipe.regulariser](latents, self.generator), recipe.distance_weight, 0.0
        divergence, told = self.of_latents.play(latents, self.generator)
        return divergence, recipe.adversarial_weight, told

    def _of_known(self, terms: ElboTerms) -> Tensor:
        """Return the penalty (M,) of the records that people judged."""
        usual_MB = terms.loss() if self.recipe.regulariser == "kl" else terms.reconstruction
        usual_M = usual_MB.detach().median(dim=1).values
        return self.known.penalty(self._plain_loss, usual_M, self.generator, self.recipe.known_margin)

    def _plain_loss(self, records: Records) -> Tensor:
        """Return −ELBO (M, B), nats, by one draw; under another regulariser the reconstruction."""
        posterior = self.vae.encode(self._with_gaps(records))
        noise = torch.empty_like(posterior.mean).normal_(generator=self.generator)
        terms = elbo_terms(
            records, posterior, self.vae.prior, lambda z: self.vae.decode(z, records), noise, self.generator
        )
        return terms.loss() if self.recipe.regulariser == "kl" else terms.reconstruction

    def _with_gaps(self, records: Records) -> Records:
        """Hide some of the records' categories, as a minibatch does."""
        codes, share = records.categorical, self.recipe.hidden_categories
        if not codes.shape[1] or not share or self.recipe.encoder == "none":
            return records
        chance = torch.rand(codes.shape, generator=self.generator, device=codes.device)
        return without(records, chance < share)

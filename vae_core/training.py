"""The loop that fits a model to records.

Belongs here: minibatches, optimiser, trimming, progress, checkpoints, recovery from divergence. Does not: the
loss (objectives.py) or what scoring needs to know afterwards (scoring.py).

The same records, seed and kind of machine give the same weights, whatever the number of threads, and a fit that
resumes from a checkpoint gives the weights of one that was never interrupted, to the bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.adversarial import (
    ADVERSARY_BETAS,
    LatentAdversary,
    RecordAdversary,
    TrainingWarning,
    judge,
    start_adversaries,
)
from vae_core.diagnosis import diagnose
from vae_core.distances import DISTANCES
from vae_core.flat import FlatParameters
from vae_core.gradient import gradient, is_known_by_hand
from vae_core.known import Known
from vae_core.model import VAE
from vae_core.objectives import elbo_terms, importance_weighted_loss
from vae_core.posteriors import Posterior
from vae_core.recipe import Recipe
from vae_core.records import MISSING, Layout, Records
from vae_core.scoring import summarise_training
from vae_core.threads import one_thread_per_kernel

_REPORT_EVERY = 25  # steps between looks at the loss: each look waits for the device
_MOST_ROLLBACKS = 5
_SLOWER = 0.3  # factor on the learning rate after each rollback


class DataWarning(UserWarning):
    """The training records are usable but odd in a way that someone should know."""


class TrainingDiverged(RuntimeError):
    """The loss stayed non-finite although the learning rate was lowered again and again."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands. loss, reconstruction and kl_divergence are nats per record, means since the last report.

    Where the recipe's regulariser is another, kl_divergence is that distance, or the encoder's loss to the discriminator
    (log 2 where it cannot tell), before its weight.
    """

    step: int
    steps: int
    loss: float
    reconstruction: float
    kl_divergence: float
    learning_rate: float


@dataclass(frozen=True)
class Checkpoint:
    """All that a fit needs to go on: after how many steps, and tensors by name (no other state, no pickle)."""

    step: int
    tensors: dict[str, Tensor]


def fit(
    layout: Layout,
    records: Records,
    recipe: Recipe | None = None,
    *,
    seed: int,
    known: Known | None = None,
    device: torch.device | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    checkpoint: Callable[[Checkpoint], None] | None = None,
    checkpoint_every: int = 250,
    resume: Checkpoint | None = None,
) -> VAE:
    """Train a model on records and measure on them what scoring needs.

    known: what people said of some records; known anomalies are pushed out, known normals kept in.
    device: where to train; by default where the records lie. The model is returned there.
    on_progress: called every 25 steps and after the last one.
    checkpoint: called every ``checkpoint_every`` steps; pass what it got as ``resume``, with otherwise equal
    arguments, to go on from there.

    Raises ValueError where the records cannot be trained on and TrainingDiverged where the loss stays
    non-finite; warns with a DataWarning about columns that are constant or never observed, with a TrainingWarning about
    what a discriminator still tells from what it should be like, collapsed posteriors and variances at their bounds.
    """
    recipe = recipe or Recipe()
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, is {checkpoint_every}")
    known = known or Known()
    for part in (records, known.anomalies, known.normals):
        if part is not None:
            layout.check(part)
    learned, indicated = _take_stock(layout, records)
    device = records.device if device is None else torch.device(device)
    with one_thread_per_kernel():
        vae = VAE(layout, recipe, indicated)
        vae.initialise(records.categorical.cpu(), torch.Generator().manual_seed(seed))
        vae.learned.copy_(torch.tensor(learned))
        vae.to(device)
        run = _Run(vae, torch.Generator(device).manual_seed(seed), known.to(device))
        if resume is not None:
            run.restore(resume)
        run.train(records.to(device), on_progress, checkpoint, checkpoint_every)
        for player in run.players:
            player.release()
        vae.eval()
        for adversary in run.adversaries:
            judge(adversary, vae, records.to(device), torch.Generator(device).manual_seed(seed))
        summarise_training(vae, records, trim=recipe.trim, seed=seed)
        notes = diagnose(vae, records).notes
    if notes:
        warnings.warn("trained, but " + "; ".join(notes), TrainingWarning, stacklevel=2)
    return vae


def _take_stock(layout: Layout, records: Records) -> tuple[list[bool], tuple[int, ...]]:
    """Which columns have any value, and the positions of the numeric ones that have some and miss some.

    Raises where nothing can be learned and warns, once, about all columns that teach nothing.
    """
    n = len(records)
    if n == 0:
        raise ValueError("cannot train on 0 records")
    n_seen, empty, constant = [], [], []
    cells = [*records.numeric.unbind(dim=1), *records.categorical.unbind(dim=1)]
    for name, column in zip(layout.columns, cells, strict=True):
        missing = column.isnan() if column.is_floating_point() else column == MISSING
        n_seen.append(n - int(missing.sum()))
        first = column[missing.to(torch.uint8).argmin()]
        if n_seen[-1] == 0:
            empty.append(name)
        elif n_seen[-1] > 1 and ((column == first) | missing).all():
            constant.append(name)
    if not any(n_seen):
        raise ValueError(f"cannot train: every cell of all {n} records is missing")
    notes = []
    if empty:
        notes.append(f"never observed, left out of every score: {', '.join(empty)}")
    if constant:
        notes.append(f"constant, so that any other value will stand out: {', '.join(constant)}")
    if notes:
        warnings.warn("training columns " + "; ".join(notes), DataWarning, stacklevel=3)
    return [seen > 0 for seen in n_seen], tuple(i for i in range(len(layout.numeric)) if 0 < n_seen[i] < n)


class _Run:
    """The state of one fit: weights and what the optimiser remembers, random numbers, the step and how often it was rolled back."""

    def __init__(self, vae: VAE, generator: torch.Generator, known: Known | None = None) -> None:
        self.vae, self.recipe, self.generator = vae, vae.recipe, generator
        self.known = known or Known()
        self.of_latents = LatentAdversary(vae) if self.recipe.regulariser == "adversarial" else None
        self.of_records = RecordAdversary(vae) if self.recipe.reconstruction == "vae_gan" else None
        self.adversaries = [x for x in (self.of_latents, self.of_records) if x is not None]
        self.needs_latents = self.recipe.regulariser in DISTANCES or self.of_latents is not None
        against = start_adversaries(self.adversaries, vae.device, generator)
        self.players = [FlatParameters(list(vae.parameters()))]  # each with losses of its own
        if against:
            self.players.append(FlatParameters(list(against.values()), ADVERSARY_BETAS))
        self.parameters = {**dict(vae.named_parameters()), **against}
        named = {parameter: name for name, parameter in vae.named_parameters()}
        by_hand = is_known_by_hand(vae, self.known)
        self.by_hand = [named[parameter] for parameter in self.players[0].ordered] if by_hand else []
        self.step = 0
        self.n_rollbacks = 0

    def snapshot(self) -> Checkpoint:
        """A copy of the state."""
        tensors = {"random": self.generator.get_state(), "n_rollbacks": torch.tensor(self.n_rollbacks)}
        for name, parameter in self.parameters.items():
            tensors[f"weights.{name}"] = parameter.detach().clone(memory_format=torch.contiguous_format)
        for i, player in enumerate(self.players):
            tensors |= {f"adam.{i}.{name}": value.clone() for name, value in player.state.items()}
        return Checkpoint(self.step, tensors)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Make the state what it was at the checkpoint."""
        tensors = checkpoint.tensors
        shapes = {
            name.removeprefix("weights."): x.shape
            for name, x in tensors.items()
            if name.startswith("weights.")
        }
        if shapes != {name: parameter.shape for name, parameter in self.parameters.items()}:
            raise ValueError("the checkpoint is of another fit: its layout or recipe gives other weights")
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weights.{name}"])
        for i, player in enumerate(self.players):
            for name, value in player.state.items():
                value.copy_(tensors[f"adam.{i}.{name}"])
        self.generator.set_state(tensors["random"].cpu())
        self.n_rollbacks = int(tensors["n_rollbacks"])
        self.step = checkpoint.step

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to the recipe's final share (Loshchilov & Hutter 2017, eq. 5)."""
        recipe = self.recipe
        warm = min(1.0, (self.step + 1) / (recipe.warm_up + 1))
        through = max(0.0, (self.step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up))
        final = recipe.final_learning_rate
        cosine = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * through))
        return recipe.learning_rate * warm * cosine * _SLOWER**self.n_rollbacks

    def kl_weight(self) -> float:
        """The recipe's, after a linear warm-up within each cycle."""
        recipe = self.recipe
        part = self.step * recipe.kl_cycles / recipe.steps % 1
        return recipe.kl_weight * (min(1.0, part / recipe.kl_warm_up) if recipe.kl_warm_up else 1.0)

    def train(
        self,
        records: Records,
        on_progress: Callable[[Progress], None] | None,
        checkpoint: Callable[[Checkpoint], None] | None,
        checkpoint_every: int,
    ) -> None:
        """Take the steps that are left."""
        steps, good, since = self.recipe.steps, self.snapshot(), self.step
        totals = torch.zeros(4, device=self.vae.device)
        while self.step < steps:
            rate = self.learning_rate()
            totals += self.advance(records, rate)
            self.step += 1
            report = self.step % _REPORT_EVERY == 0 or self.step == steps
            if not report and self.step % checkpoint_every:
                continue
            loss, reconstruction, kl_divergence, gradient = (totals / (self.step - since)).tolist()
            totals.zero_()
            if math.isfinite(loss + gradient):
                good = self.snapshot()
                if report and on_progress is not None:
                    on_progress(Progress(self.step, steps, loss, reconstruction, kl_divergence, rate))
                if checkpoint is not None and self.step % checkpoint_every == 0:
                    checkpoint(good)
            else:
                self.roll_back(good)
            since = self.step

    def roll_back(self, good: Checkpoint) -> None:
        """Return to the last good state at a lower learning rate, or give up."""
        n_rollbacks = self.n_rollbacks + 1
        if n_rollbacks > _MOST_ROLLBACKS:
            raise TrainingDiverged(
                f"loss not finite by step {self.step} of {self.recipe.steps}, after {_MOST_ROLLBACKS} returns to an "
                f"earlier step at ever lower learning rates (last: {self.learning_rate():.1e}); look for columns "
                f"whose standardised values are huge, or lower learning_rate"
            )
        self.restore(good)
        self.n_rollbacks = n_rollbacks

    def advance(self, records: Records, rate: float) -> Tensor:
        """One step of every member. Returns (4,): loss, reconstruction, KL or its stand-in, gradient norm."""
        recipe, vae = self.recipe, self.vae
        n_rows = min(recipe.minibatch, len(records))
        batch = records[torch.randint(len(records), (n_rows,), generator=self.generator, device=vae.device)]
        if self.by_hand:
            means = self.lay_gradient(batch)
        else:
            posterior = vae.encode(self.with_gaps(batch))
            noise = posterior.mean.new_empty(recipe.samples, *posterior.mean.shape).normal_(
                generator=self.generator
            )
            losses_M, means = self.losses(batch, posterior, noise)
            for loss_M, player in zip(losses_M, self.players, strict=False):
                player.differentiate(loss_M.sum())
        norms = [player.clip(recipe.gradient_clip) for player in self.players]
        gradient_norm = norms[0] if len(norms) == 1 else torch.stack(norms).mean()
        for player in self.players:
            player.step(rate)
        return torch.stack([*means, gradient_norm])

    def lay_gradient(self, batch: Records) -> list[Tensor]:
        """The default family's gradient, without autograd. Returns the means to report, see ``advance``."""
        shape = self.recipe.n_members, len(batch), self.recipe.latents_for(self.vae.layout)
        noise = batch.numeric.new_empty(shape).normal_(generator=self.generator)
        found = gradient(
            self.vae, batch, noise, kl_weight=self.kl_weight(), n_trimmed=self.n_trimmed(len(batch))
        )
        self.players[0].lay([found.by_name[name] for name in self.by_hand])
        return [x.mean() for x in (found.loss, found.reconstruction, found.kl_divergence)]

    def n_trimmed(self, n_records: int) -> int:
        """How many of a minibatch's records are left out."""
        recipe = self.recipe
        return int(recipe.trim * n_records) if self.step >= recipe.trim_after * recipe.steps else 0

    def losses(
        self, batch: Records, posterior: Posterior, noise: Tensor
    ) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        """What a minibatch costs the model and its discriminators, (M,) each; and (), means to report, see ``advance``."""
        recipe, vae = self.recipe, self.vae
        terms = elbo_terms(
            batch, posterior, vae.prior, lambda latents: vae.decode(latents, batch), noise[0], self.generator
        )
        if recipe.samples > 1:
            loss_MB = importance_weighted_loss(
                batch, posterior, vae.prior, lambda latents: vae.decode(latents, batch), noise
            )
        elif recipe.regulariser == "kl":
            loss_MB = terms.with_free(recipe.free_nats).loss(self.kl_weight())
        else:
            loss_MB = terms.reconstruction
        penalty_M, told_M = loss_MB.new_zeros(2, recipe.n_members)
        if self.of_records is not None:
            game = self.of_records.play(vae, batch, posterior.draw(noise[0]), self.generator)
            loss_MB = loss_MB + recipe.adversarial_weight * game.unlike
            penalty_M, told_M = recipe.adversarial_weight * game.fooled, game.told
        kept_MB, latents_MBZ = loss_MB, posterior.draw(noise[0]) if self.needs_latents else None
        n_trimmed = self.n_trimmed(len(batch))
        if n_trimmed:
            kept = loss_MB.topk(len(batch) - n_trimmed, dim=1, largest=False, sorted=False)
            kept_MB = kept.values
            if latents_MBZ is not None:
                latents_MBZ = latents_MBZ.take_along_dim(kept.indices[..., None], dim=1)
        divergence = terms.kl_divergence
        if recipe.regulariser in DISTANCES and latents_MBZ is not None:
            divergence = DISTANCES[recipe.regulariser](latents_MBZ, self.generator)
            penalty_M = penalty_M + recipe.distance_weight * divergence
        if self.of_latents is not None and latents_MBZ is not None:
            divergence, told = self.of_latents.play(latents_MBZ, self.generator)
            penalty_M, told_M = penalty_M + recipe.adversarial_weight * divergence, told_M + told
        if self.known:
            plain_MB = terms.loss() if recipe.regulariser == "kl" else terms.reconstruction
            penalty_M = penalty_M + self.known.penalty(
                self.plain_loss, plain_MB.detach().median(dim=1).values, self.generator, recipe.known_margin
            )
        means = [x.detach().mean() for x in (loss_MB + penalty_M[:, None], terms.reconstruction, divergence)]
        return (kept_MB.mean(dim=1) + penalty_M, told_M), means

    def plain_loss(self, batch: Records) -> Tensor:
        """(n_members, n_records) −ELBO in nats, by one draw; under another regulariser its reconstruction."""
        posterior = self.vae.encode(self.with_gaps(batch))
        noise = torch.empty_like(posterior.mean).normal_(generator=self.generator)
        terms = elbo_terms(
            batch, posterior, self.vae.prior, lambda z: self.vae.decode(z, batch), noise, self.generator
        )
        return terms.loss() if self.recipe.regulariser == "kl" else terms.reconstruction

    def with_gaps(self, batch: Records) -> Records:
        """The records with some of their categories hidden, so that the encoder learns to do without them."""
        codes, share = batch.categorical, self.recipe.hidden_categories
        if not codes.shape[1] or not share or self.recipe.encoder == "none":
            return batch
        chance = torch.rand(codes.shape, generator=self.generator, device=codes.device)
        return Records(batch.numeric, codes.masked_fill(chance < share, MISSING), batch.context)

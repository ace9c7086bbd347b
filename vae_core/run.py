"""The steps of a fit.

Belongs here: a step, the optimiser's schedule, trimming, progress, the state, recovery from divergence. Does
not: which records a step sees (minibatches.py), the loss (losses.py, gradient.py), which fit a checkpoint is
of (checkpoint.py), or what comes before and after (training.py).

The same records, seed and kind of machine give the same weights, whatever the number of threads. A fit that
resumes from a checkpoint gives the weights of one that was never interrupted, to the bit. A GPU gets the same
minibatches and noise, but rounds differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from vae_core.adversarial import ADVERSARY_BETAS, start_adversaries
from vae_core.checkpoint import Checkpoint
from vae_core.device import Recorded, graph, sent
from vae_core.flat import FlatParameters
from vae_core.gradient import gradient, is_known_by_hand
from vae_core.known import Known
from vae_core.losses import Losses
from vae_core.minibatches import Minibatch, Minibatches
from vae_core.model import VAE
from vae_core.parallel import Ranks, Share
from vae_core.records import Records

_REPORT_EVERY = 25  # steps between checks of the loss, each of which waits for the device
_MOST_ROLLBACKS = 5
_SLOWER = 0.3  # factor on the learning rate after each rollback


class TrainingDiverged(RuntimeError):
    """The loss stayed non-finite although the learning rate was lowered repeatedly."""


@dataclass(frozen=True)
class Progress:
    """Where a fit stands.

    loss, reconstruction and kl_divergence are nats per record, means since the last report over the records
    that are learned from: where the recipe trims, those described worst are left out. loss_of_all is the mean
    over all; a few outliers dominate it.

    Under a regulariser other than the KL, kl_divergence is that distance, or the encoder's loss to the
    discriminator (log 2 where it cannot tell), before its weight.
    """

    step: int
    steps: int
    loss: float
    reconstruction: float
    kl_divergence: float
    loss_of_all: float
    learning_rate: float


class Run:
    """The state of one fit: weights, optimiser state, random numbers, the step, the number of rollbacks."""

    def __init__(
        self,
        vae: VAE,
        sets: Sequence[Records],
        seeds: Sequence[int],
        *,
        known: Known | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        """sets, seeds: one of each for each model trained in ``vae``, see ``fit_many``."""
        self.vae, self.recipe, device = vae, vae.recipe, vae.device
        known = known if known and vae.recipe.known_margin else Known()
        chosen = [torch.Generator().manual_seed(seed) for seed in seeds]
        own = chosen[0] if device.type == "cpu" else torch.Generator(device).manual_seed(seeds[0])
        self.own = None if device.type == "cpu" else own
        self.losses = Losses(vae, known, own)
        against = start_adversaries(self.losses.adversaries, device, own)
        self.players = [FlatParameters(list(vae.parameters()))]  # each with losses of its own
        if against:
            self.players.append(FlatParameters(list(against.values()), ADVERSARY_BETAS))
        self.parameters = {**dict(vae.named_parameters()), **against}
        named = {parameter: name for name, parameter in vae.named_parameters()}
        by_hand = is_known_by_hand(vae, known)
        self.by_hand = [named[parameter] for parameter in self.players[0].ordered] if by_hand else []
        self.n_rows = min(self.recipe.minibatch, *map(len, sets))
        self.share = self._shared(ranks)
        self.minibatches = Minibatches(vae, sets, chosen, self.share)
        # of loss, reconstruction, KL or its stand-in, loss of all records, gradient norm
        self.totals = torch.zeros(5, device=device)
        self.recorder = graph if device.type == "cuda" and self.share is None else None
        self.recorded: tuple[int, Recorded] | None = None
        # if one of several models diverges, the others must not go back with it
        self.most_rollbacks = _MOST_ROLLBACKS if len(sets) == 1 else 0
        self.step = self.n_rollbacks = 0

    def snapshot(self) -> Checkpoint:
        """Return a copy of the state."""
        tensors = {f"random.{i}": state for i, state in enumerate(self.minibatches.random_states)}
        if self.own is not None:
            tensors["random.own"] = self.own.get_state()
        tensors["n_rollbacks"] = torch.tensor(self.n_rollbacks)
        for name, parameter in self.parameters.items():
            tensors[f"weights.{name}"] = parameter.detach().clone(memory_format=torch.contiguous_format)
        for i, player in enumerate(self.players):
            tensors |= {f"adam.{i}.{name}": value.clone() for name, value in player.state.items()}
        return Checkpoint(self.step, tensors)

    @torch.no_grad()
    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint of this fit."""
        tensors = checkpoint.tensors
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[f"weights.{name}"])
        for i, player in enumerate(self.players):
            for name, value in player.state.items():
                value.copy_(tensors[f"adam.{i}.{name}"])
        self.minibatches.restore([tensors[f"random.{i}"] for i in range(len(self.minibatches.generators))])
        if self.own is not None and "random.own" in tensors:  # a fit on a CPU has none
            self.own.set_state(tensors["random.own"].cpu())
        self.n_rollbacks = int(tensors["n_rollbacks"])
        self.step = checkpoint.step

    def learning_rate(self, step: int) -> float:
        """Return a step's learning rate.

        Linear warm-up, then a cosine down to the recipe's final share (Loshchilov & Hutter 2017, eq. 5).
        """
        recipe = self.recipe
        warm = min(1.0, (step + 1) / (recipe.warm_up + 1))
        through = max(0.0, (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up))
        final = recipe.final_learning_rate
        cosine = final + (1 - final) * 0.5 * (1 + math.cos(math.pi * through))
        return recipe.learning_rate * warm * cosine * _SLOWER**self.n_rollbacks

    def kl_weight(self, step: int) -> float:
        """Return the recipe's KL weight, warmed up linearly within each cycle."""
        recipe = self.recipe
        part = step * recipe.kl_cycles / recipe.steps % 1
        return recipe.kl_weight * (min(1.0, part / recipe.kl_warm_up) if recipe.kl_warm_up else 1.0)

    def schedule(self, steps: range) -> Tensor:
        """Return all that changes from step to step, (n_steps, …) on the device.

        The weight of the KL, and each player's ``sizes``.
        """
        rows = [
            [
                self.kl_weight(step),
                *(x for p in self.players for x in p.sizes(self.learning_rate(step), step + 1)),
            ]
            for step in steps
        ]
        return sent(torch.tensor(rows), self.vae.device)

    def n_trimmed(self, step: int) -> int:
        """Return how many of a minibatch's records are left out."""
        recipe = self.recipe
        return int(recipe.trim * self.n_rows) if step >= recipe.trim_after * recipe.steps else 0

    def train(
        self,
        on_progress: Callable[[Progress], None] | None = None,
        checkpoint: Callable[[Checkpoint], None] | None = None,
        checkpoint_every: int = _REPORT_EVERY,
    ) -> None:
        """Take the remaining steps."""
        steps, good, since = self.recipe.steps, self.snapshot(), self.step
        while self.step < steps:
            stop = self._next_stop(self.step, checkpoint_every)
            self.advance(stop)
            self.minibatches.ahead(self._next_stop(stop, checkpoint_every) - stop)
            loss, reconstruction, kl_divergence, of_all, norm = (self.totals / (stop - since)).tolist()
            self.totals.zero_()
            if math.isfinite(loss + of_all + norm):
                good = self.snapshot()
                if on_progress is not None and (stop % _REPORT_EVERY == 0 or stop == steps):
                    rate = self.learning_rate(stop - 1)
                    on_progress(Progress(stop, steps, loss, reconstruction, kl_divergence, of_all, rate))
                if checkpoint is not None and stop % checkpoint_every == 0:
                    checkpoint(good)
            else:
                self.roll_back(good)
            since = self.step

    def _next_stop(self, step: int, checkpoint_every: int) -> int:
        """Return the step after which the loss is checked next."""
        every = (_REPORT_EVERY, checkpoint_every)
        return min(self.recipe.steps, *((step // n + 1) * n for n in every))

    def roll_back(self, good: Checkpoint) -> None:
        """Return to the last good state at a lower learning rate, or raise TrainingDiverged."""
        n_rollbacks = self.n_rollbacks + 1
        if n_rollbacks > self.most_rollbacks:
            raise TrainingDiverged(
                f"loss not finite by step {self.step} of {self.recipe.steps}, after {self.most_rollbacks} returns to an "
                f"earlier step at ever lower learning rates (last: {self.learning_rate(self.step):.1e}); look for columns "
                f"whose standardised values are huge, or lower learning_rate"
            )
        self.restore(good)
        self.n_rollbacks = n_rollbacks

    def advance(self, stop: int) -> None:
        """Take the steps up to ``stop`` without checking the loss."""
        while self.step < stop:
            batches = self.minibatches.take(stop - self.step)
            sizes = self.schedule(range(self.step, self.step + len(batches)))
            for batch, sizes_of_step in zip(batches, sizes, strict=True):
                self._take(batch, sizes_of_step)
                self.step += 1
            self.minibatches.ahead(stop - self.step)

    def _take(self, batch: Minibatch, sizes: Tensor) -> None:
        """Take one step of every member. sizes: a row of ``schedule``."""
        n_trimmed = self.n_trimmed(self.step)
        if not self.by_hand:
            costs = self.losses(batch, sizes[0], n_trimmed)
            for loss_M, player in zip((costs.model, costs.discriminators), self.players, strict=False):
                player.differentiate(loss_M.sum())
            self._move(costs.means, sizes)
            return
        tensors = batch.records.numeric, batch.records.categorical, batch.records.context, batch.noise, sizes
        if self.recorder is None:
            self._take_by_hand(n_trimmed, *tensors)
            return
        if self.recorded is None or self.recorded[0] != n_trimmed:
            self.recorded = n_trimmed, Recorded(partial(self._take_by_hand, n_trimmed), self.recorder)
        self.recorded[1](*tensors)

    def _take_by_hand(
        self,
        n_trimmed: int,
        numeric: Tensor,
        categorical: Tensor,
        context: Tensor,
        noise: Tensor,
        sizes: Tensor,
    ) -> None:
        """Take a step of the default family without autograd. Takes only tensors, to be recordable."""
        records = Records(numeric, categorical, context)
        found = gradient(self.vae, records, noise, kl_weight=sizes[0], n_trimmed=n_trimmed, share=self.share)
        self.players[0].lay([found.by_name[name] for name in self.by_hand])
        means = found.means(self.share)
        if self.share is not None:
            self.share.add_up(*self.players[0].gradients, means)
        self._move(list(means), sizes)

    def _move(self, means: Sequence[Tensor], sizes: Tensor) -> None:
        """Clip the stored gradients, take the step and add up what is reported."""
        norms = [player.clip(self.recipe.gradient_clip) for player in self.players]
        for i, player in enumerate(self.players):
            player.step(sizes[1 + 2 * i], sizes[2 + 2 * i])
        self.totals += torch.stack([*means, norms[0] if len(norms) == 1 else torch.stack(norms).mean()])

    def release(self) -> None:
        for player in self.players:
            player.release()

    def _shared(self, ranks: Ranks | None) -> Share | None:
        if ranks is None:
            return None
        if not self.by_hand:
            raise ValueError(
                "several processes can train the default family on numeric columns only (default encoder, posterior, prior, noise, "
                "no categories, no known_margin): other losses need the whole minibatch; leave ranks out"
            )
        return ranks.share(self.n_rows)

"""Which records and which noise each step of a fit sees, and how they get to the device.

Belongs here: drawing, gathering, sending ahead. Does not: what a step makes of them (run.py).

All is drawn on the CPU, in the order of the steps: a seed gives the same minibatches and noise on a CPU, a
GPU or several, wherever the records lie.
"""

# S sets of records, M members of all sets, B records of a minibatch, Z latents, C categorical columns, K
# draws a record

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_core.device import fits, sent, stream
from vae_core.model import VAE
from vae_core.parallel import Share
from vae_core.records import MISSING, Records

log = logging.getLogger(__name__)

_MOST_CELLS = 2**24  # drawn and sent together


@dataclass(frozen=True, eq=False)
class Minibatch:
    """What one step sees.

    records: (S · B) the minibatches of all sets, one after another.
    visible: the same, with some categories hidden.
    noise: (K, M, B, Z).
    """

    records: Records
    visible: Records
    noise: Tensor


class Minibatches:
    """Draws minibatches for models of one or several sets of records, with one generator each."""

    def __init__(
        self,
        vae: VAE,
        sets: Sequence[Records],
        generators: Sequence[torch.Generator],
        share: Share | None = None,
    ) -> None:
        """vae: of all sets together, its members in their order. share: this process's part."""
        recipe, self.device, self.share = vae.recipe, vae.device, share
        self.sizes, self.generators = [len(records) for records in sets], list(generators)
        self.starts = torch.tensor([0, *self.sizes[:-1]]).cumsum(dim=0)[
            :, None
        ]  # of each set among all records
        self.n_rows = min(recipe.minibatch, *self.sizes)
        n_latents = recipe.latents_for(vae.layout)
        self.noise_shape = recipe.samples * recipe.n_members // len(sets), self.n_rows, n_latents
        self.n_draws = recipe.samples
        self.hidden_share = recipe.hidden_categories
        hides = self.hidden_share and recipe.encoder == "network"
        self.n_hideable = len(vae.layout.categorical) if hides else 0
        parts = ([getattr(r, name) for r in sets] for name in ("numeric", "categorical", "context"))
        records = Records(*(torch.cat(part) if len(part) > 1 else part[0] for part in parts))
        whole = records.numeric, records.categorical, records.context
        self.records = self._resident(records) if fits(whole, self.device) else records
        n_cells = n_latents * self.noise_shape[0] * len(sets) + sum(x.shape[1] for x in whole)
        self.most = max(1, _MOST_CELLS // (self.n_rows * n_cells))
        self.side = stream(self.device) if self.device.type == "cuda" else None
        self.ready: list[Minibatch] = []
        self.states: list[Tensor] = []

    def _resident(self, records: Records) -> Records:
        """Move the records to the device; leave them where they are if its memory was taken meanwhile."""
        try:
            return records.to(self.device)
        except torch.OutOfMemoryError as fault:
            log.warning(
                "the records do not fit in the memory of %s and are sent to it step by step: %s",
                self.device,
                fault,
            )
            return records

    def take(self, n_steps: int) -> list[Minibatch]:
        """Return the next minibatches, at most ``n_steps``.

        On a CPU it is one, because other draws of the same generator come in between.
        """
        ready = self.ready or self._drawn(min(n_steps, self.most) if self.side is not None else 1)
        self.ready, self.states = [], []
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)
        return ready

    def ahead(self, n_steps: int) -> None:
        """Draw and send the next steps' minibatches while a GPU computes."""
        if self.side is None or not n_steps:
            return
        states = self.random_states
        with torch.cuda.stream(self.side):
            self.ready = self._drawn(min(n_steps, self.most))
        self.states = states
        for tensor in _tensors(self.ready):
            tensor.record_stream(torch.cuda.current_stream(self.device))

    @property
    def random_states(self) -> list[Tensor]:
        """The generators' states after the minibatches taken so far."""
        return self.states or [generator.get_state() for generator in self.generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Continue from these states of the generators."""
        self.ready, self.states = [], []
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state.cpu())

    def _drawn(self, n_steps: int) -> list[Minibatch]:
        n_sets, (n_members, n_rows, n_latents) = len(self.sizes), self.noise_shape
        index = torch.empty(n_steps, n_sets, n_rows, dtype=torch.int64)
        chance = torch.empty(n_steps, n_sets, n_rows, self.n_hideable)
        noise = torch.empty(n_steps, n_sets, n_members, n_rows, n_latents)
        for step in range(n_steps):
            for i, (size, generator) in enumerate(zip(self.sizes, self.generators, strict=True)):
                torch.randint(size, (n_rows,), generator=generator, out=index[step, i])
                if self.n_hideable:
                    chance[step, i].uniform_(generator=generator)
                noise[step, i].normal_(generator=generator)
        if n_sets > 1:
            index += self.starts
        if self.share is not None:
            mine = self.share.mine
            index, chance, noise = index[..., mine], chance[..., mine, :], noise[..., mine, :].contiguous()
        return list(self._minibatches(index, chance, noise))

    def _minibatches(self, index: Tensor, chance: Tensor, noise: Tensor) -> Iterator[Minibatch]:
        n_steps, n_sets, n_rows = index.shape
        rows = index.flatten() if self.records.device.type == "cpu" else sent(index.flatten(), self.device)
        chosen = self.records[rows]
        if chosen.device != self.device:
            chosen = chosen.sent(self.device)
        noise, hidden = sent(noise, self.device), None
        if self.n_hideable:
            hidden = sent(chance < self.hidden_share, self.device)
        n = n_sets * n_rows
        for step in range(n_steps):
            records = chosen if n_steps == 1 else chosen[step * n : (step + 1) * n]
            visible = records if hidden is None else without(records, hidden[step].flatten(0, 1))
            # drawn set by set: a model that shares its pass gets the noise of its own fit
            draws = noise[step].view(n_sets, self.n_draws, -1, *noise.shape[-2:])
            yield Minibatch(records, visible, draws.transpose(0, 1).flatten(1, 2))


def without(records: Records, hidden: Tensor) -> Records:
    """Hide the categories marked in hidden (n_records, n_categorical).

    An encoder thus learns to do without them.
    """
    return Records(records.numeric, records.categorical.masked_fill(hidden, MISSING), records.context)


def _tensors(minibatches: Sequence[Minibatch]) -> Iterator[Tensor]:
    for one in minibatches:
        for records in (one.records, one.visible):
            yield from (records.numeric, records.categorical, records.context)
        yield one.noise

"""Which cell of a record does not belong there: a network trained to tell.

Belongs here: the critic, its training on records with one changed cell, its verdict. Does not: how odd a
record is (scoring.py), or what a cell should have been and the naming of columns, for which this is one of
two witnesses (attribution.py).

A model of p(x) finds the wrong cell by what leaving it out does to the density, and sees only through a
bottleneck whether ordinary values go together. Telling which cell was replaced is a task of its own, whose
answers need no labels: replaced token detection (Clark et al. 2020, section 2), mask estimation (Yoon et al.
2020, eq. 4).
"""

# M members, B records, N numeric columns, C categorical columns, J columns, H hidden units

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae_core.device import sent
from vae_core.layers import CodeTable, MemberLinear
from vae_core.records import Layout, Records
from vae_core.slices import filled_up
from vae_core.threads import one_thread_per_kernel

_MEMBERS = 2
_WIDTH = 128
_MINIBATCH = 256
_LEARNING_RATE = 1e-2  # Adam's, after the warm-up
_WARM_UP = 0.05  # of the steps
_MOVED = 0.2  # share of the changes that move a number or draw any category; the rest copy another record's
_MOVE = 4.0  # standard deviation of a number's move, in standard deviations of its column
_FARTHEST = 20.0  # standard deviations at which numbers are clipped
_IMPOSSIBLE = -1e4  # logit of a cell that cannot be the wrong one
_PIECES = 4  # of a number's range, each with as many of the training records
_FEWEST_FOR_PIECES = 1000  # training records; with fewer, pieces were learned by heart (docs/log.md)
_MOST_SORTED = 20_000  # records by which the pieces are cut
# records judged together, padded to this many: a record gets the same verdict in any company
_TOGETHER = 64


class CellCritic(nn.Module):
    """How likely each cell of a record with one wrong cell is to be that cell.

    Numbers in standard deviations, marks where they are missing, how far a number lies outside of its
    column's range and how far through each piece of it (piecewise linear encoding: Gorishniy et al. 2022,
    eq. 1), categories, context -> width -> width -> a logit a column; ReLU between. Cells that are missing,
    and columns that training never saw, cannot be the one. Two members judge.

    Buffers: ``mean`` and ``std`` (n_numeric,) of the training records; ``learned`` (n_columns,) bool;
    ``rim`` (2, n_numeric) the lowest and highest number of every second training record, so that ordinary
    records lie outside now and then, as tomorrow's will; ``knots`` (n_pieces + 1, n_numeric) where the pieces
    end, (1, n_numeric) where there are none. ``layout`` is that of the records that it judges.
    """

    mean: Tensor
    std: Tensor
    learned: Tensor
    rim: Tensor
    knots: Tensor

    def __init__(
        self, layout: Layout, n_members: int = _MEMBERS, width: int = _WIDTH, n_pieces: int = 0
    ) -> None:
        super().__init__()
        self.layout = layout
        n_numeric, n_columns = len(layout.numeric), len(layout.columns)
        self.inputs = MemberLinear(n_members, (3 + n_pieces) * n_numeric + len(layout.context), width)
        self.codes = CodeTable(n_members, layout.n_codes, width) if layout.categorical else None
        self.hidden = MemberLinear(n_members, width, width)
        self.outputs = MemberLinear(n_members, width, n_columns)
        self.register_buffer("mean", torch.zeros(n_numeric))
        self.register_buffer("std", torch.ones(n_numeric))
        self.register_buffer("learned", torch.ones(n_columns, dtype=torch.bool))
        self.register_buffer("rim", torch.zeros(2, n_numeric))
        self.register_buffer("knots", torch.zeros(n_pieces + 1, n_numeric))

    @classmethod
    def from_state(cls, layout: Layout, state: Mapping[str, Tensor]) -> Self:
        """Return the critic with this ``state_dict()``. Raises RuntimeError where it is of another layout."""
        n_members, _, width = state["hidden.weight"].shape
        critic = cls(layout, n_members, width, len(state["knots"]) - 1)
        critic.load_state_dict(dict(state))
        return critic.eval()

    def forward(self, records: Records) -> Tensor:
        """Return log-probabilities (M, B, J) that a cell is the wrong one, given that one is."""
        values = records.values
        inputs = (values - self.mean).div_(self.std).clamp_(-_FARTHEST, _FARTHEST)
        absent = 1 - records.observed[:, : len(self.mean)]
        outside, through = self.outside(values) * (1 - absent), self.through_pieces(values)
        hidden = self.inputs(torch.cat([inputs, absent, outside, through, records.context_values], dim=1))
        if self.codes is not None:
            hidden = hidden + self.codes(records.categorical)
        logits = self.outputs(functional.relu(self.hidden(functional.relu(hidden))))
        impossible = (records.observed == 0) | ~self.learned
        return torch.log_softmax(logits.masked_fill(impossible, _IMPOSSIBLE), dim=-1)

    def outside(self, values: Tensor) -> Tensor:
        """Return how many standard deviations numbers (B, N) lie below (negative) or above the rim."""
        inside = torch.minimum(torch.maximum(values, self.rim[0]), self.rim[1])
        return (values - inside).div_(self.std).clamp_(-_FARTHEST, _FARTHEST)

    def through_pieces(self, values: Tensor) -> Tensor:
        """Return how far numbers (B, N) are through each piece, −½ before it to ½ after, (B, n_pieces · N).

        0 throughout a piece without width, where many training records have the same value.
        """
        starts_PN, widths_PN = self.knots[:-1], self.knots.diff(dim=0)
        through_BPN = (values[:, None] - starts_PN).div_(torch.where(widths_PN > 0, widths_PN, 1.0))
        return through_BPN.clamp_(0, 1).sub_(0.5).mul_(widths_PN > 0).flatten(1)

    @torch.inference_mode()
    def suspicion(self, records: Records) -> Tensor:
        """Return the members' joint log-probabilities (n_records, n_columns), on the records' device.

        They are the members' normalised geometric mean: a pure function of the record.
        """
        found = records.numeric.new_empty(len(records), len(self.learned))
        with one_thread_per_kernel():
            for start in range(0, len(records), _TOGETHER):
                part = records[start : start + _TOGETHER]
                judged_MBJ = self(filled_up(part, _TOGETHER).to(self.mean.device))
                judged = torch.log_softmax(judged_MBJ.mean(dim=0), dim=-1)
                found[start : start + _TOGETHER] = judged[: len(part)]
        return found


@torch.inference_mode(False)  # whatever mode the caller is in
def fit_critic(layout: Layout, records: Records, *, seed: int, steps: int = 1500) -> CellCritic | None:
    """Train a critic on records, on their device.

    The same records, seed and kind of machine give the same critic. In each step 256 records get one cell
    changed, in a column drawn uniformly: four in five take another record's value there, the others move by a
    normal draw of four standard deviations (numbers) or take any category. The loss is the cross-entropy of
    the column. Anomalies among the records do little harm: what is changed beside them is wrong, too.

    Returns None where there is nothing to learn: fewer than two columns that vary, or no steps. Raises
    ValueError where the records do not fit the layout or there are none.
    """
    layout.check(records)
    if not len(records):
        raise ValueError("cannot train a critic on 0 records")
    n_pieces = _PIECES if len(records) >= _FEWEST_FOR_PIECES else 0
    critic, generator = CellCritic(layout, n_pieces=n_pieces), torch.Generator().manual_seed(seed)
    for module in critic.modules():
        if isinstance(module, MemberLinear):
            module.reset(generator)
    n_numeric = len(layout.numeric)
    with torch.no_grad():  # a missing mark that never occurs in training must say nothing
        critic.inputs.weight[:, n_numeric : 2 * n_numeric] = 0
    critic.to(records.device)
    if steps < 1 or _know(critic, records) < 2:
        return None
    n_codes = torch.tensor(layout.n_codes, device=records.device)
    changes = _Changes(layout, records, critic.std, generator, n_codes)
    optimiser = torch.optim.Adam(critic.parameters(), lr=_LEARNING_RATE, fused=True)
    with one_thread_per_kernel():
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = _LEARNING_RATE * _rise_and_fall(step / steps)
            changed, column, is_other = changes.draw()
            told_MB = critic(changed).gather(2, column.expand(_MEMBERS, -1)[..., None])[..., 0]
            loss = -(told_MB * is_other).sum() / is_other.sum().clamp(min=1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return critic.eval()


def _know(critic: CellCritic, records: Records) -> int:
    """Fill the buffers. Returns how many columns vary."""
    n_numeric = len(critic.mean)
    seen = records.observed
    critic.learned.copy_(seen.any(dim=0))
    if n_numeric:
        present = seen[:, :n_numeric]
        n_seen = present.sum(dim=0).clamp(min=1)
        critic.mean.copy_((records.values * present).sum(dim=0) / n_seen)
        away = (records.values - critic.mean).square_().mul_(present)
        std = (away.sum(dim=0) / n_seen).sqrt_()
        critic.std.copy_(torch.where(std > 0, std, 1.0))
        critic.rim.copy_(_rim(records[::2]))
        critic.knots.copy_(_knots(records, len(critic.knots)))
    numbers, codes = records.values, records.categorical
    vary = [(column != column[:1]).any() for column in (*numbers.unbind(dim=1), *codes.unbind(dim=1))]
    return int(sum(vary))


def _rim(records: Records) -> Tensor:
    """Return the lowest and the highest of each column's numbers (2, N); 0 in columns without values."""
    absent = records.observed[:, : records.numeric.shape[1]] == 0
    lowest = records.values.masked_fill(absent, math.inf).amin(dim=0)
    highest = records.values.masked_fill(absent, -math.inf).amax(dim=0)
    return torch.stack([lowest, highest]).nan_to_num_(posinf=0.0, neginf=0.0)


def _knots(records: Records, n_knots: int) -> Tensor:
    """Return equally spaced quantiles of the numbers (n_knots, N); 0 in columns without values."""
    few = records[:: max(1, len(records) // _MOST_SORTED)]
    numbers = few.values.masked_fill(few.observed[:, : few.numeric.shape[1]] == 0, math.nan)
    ranks = torch.linspace(0, 1, n_knots, device=numbers.device)
    return numbers.nanquantile(ranks, dim=0).nan_to_num_(nan=0.0)


def _rise_and_fall(share: float) -> float:
    """Return the learning rate's factor after this share of the steps (Smith & Topin 2019).

    It rises linearly and falls as half a cosine.
    """
    if share < _WARM_UP:
        return share / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - _WARM_UP) / (1 - _WARM_UP)))


@dataclass(frozen=True, eq=False)
class _Changes:
    """Draws minibatches of records with one changed cell each, all draws on the CPU. std: (N,).

    n_codes: (C,) of each categorical column, on the records' device.
    """

    layout: Layout
    records: Records
    std: Tensor
    generator: torch.Generator
    n_codes: Tensor

    def draw(self) -> tuple[Records, Tensor, Tensor]:
        """Return changed records, the column (B,), and whether its value differs now, (B,) bool."""
        layout, device, n = self.layout, self.records.device, len(self.records)
        n_numeric = len(layout.numeric)
        mine, theirs = (self.records[self._whole(n)] for _ in range(2))
        column, moves = self._whole(len(layout.columns)), self._real(1)[:, 0] < _MOVED
        way = sent(torch.randn(_MINIBATCH, 1, generator=self.generator), device) * _MOVE
        there = column[:, None] == torch.arange(len(layout.columns), device=device)
        number_BN, code_BC = there.tensor_split([n_numeric], dim=1)
        moved = torch.where(moves[:, None], mine.values + way * self.std, theirs.values)
        any_code = self._real(len(layout.categorical)) * self.n_codes
        drawn = torch.where(moves[:, None], any_code.long(), theirs.categorical)
        both = mine.observed * torch.where(moves[:, None], 1.0, theirs.observed)
        is_other = torch.cat([moved != mine.values, drawn != mine.categorical], dim=1) & (both > 0) & there
        changed = Records(
            torch.where(number_BN, moved, mine.numeric),
            torch.where(code_BC, drawn, mine.categorical),
            mine.context,
        )
        return changed, column, is_other.any(dim=1)

    def _whole(self, below: int) -> Tensor:
        return sent(torch.randint(below, (_MINIBATCH,), generator=self.generator), self.records.device)

    def _real(self, n_columns: int) -> Tensor:
        return sent(torch.rand(_MINIBATCH, n_columns, generator=self.generator), self.records.device)

"""Building blocks of the networks: affine maps for all members at once, category tables, even products.

Belongs here: layers and their initialisation. Does not: how they are put together (model.py, adversarial.py,
priors.py).
"""

# M members, B records, I inputs, O outputs, C categorical columns

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vae_core.records import MISSING

_EVEN_WIDTH = 16
HAS_ONEDNN = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def even_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """Return inputs (..., n_rows, n_inputs) @ weight (..., n_inputs, n_outputs), rounding all rows alike.

    That holds for equal numbers of rows. Outside of training, rows lie side by side in memory, (...,
    n_outputs, n_rows) seen transposed: what follows adds over columns and works column by column, at full
    width. Where a gradient is wanted, rows lie one after another. Some processors' kernels then round them
    differently by position where the outputs are few and uneven (seen: 5 to 11), so they are computed at a
    width that is a multiple of 16.
    """
    if not torch.is_grad_enabled():
        return torch.matmul(weight.mT, inputs.mT).mT
    n_outputs = weight.shape[-1]
    if n_outputs % _EVEN_WIDTH == 0:
        return inputs @ weight
    return torch.matmul(inputs, widened(weight, -1))[..., :n_outputs]


def product(weight: Tensor, inputs: Tensor, *, rectified: bool = False) -> Tensor:
    """Return weight (n_outputs, n_inputs) @ inputs (n_inputs, n_records), in new memory and without gradient.

    On a CPU by oneDNN, where torch was built with it. torch.mm calls MKL there, which uses half of the width
    of some makers' processors and is slow for matrices as narrow as these.
    rectified: whether negative outputs become 0.
    """
    if HAS_ONEDNN and inputs.is_cpu:
        then = "relu" if rectified else "none"
        found: Tensor = torch.ops.mkldnn._linear_pointwise(weight, inputs.mT, None, then, [], "")
        return found
    found = torch.mm(weight, inputs)
    return found.relu_() if rectified else found


def widened(matrix: Tensor, axis: int) -> Tensor:
    """Pad a matrix with zeros to a multiple of 16 in its last axis (-1) or the one before (-2)."""
    n_more = -matrix.shape[axis] % _EVEN_WIDTH
    return functional.pad(matrix, (0, n_more) if axis == -1 else (0, 0, 0, n_more)) if n_more else matrix


class MemberLinear(nn.Module):
    """One affine map per member, computed together.

    weight: (n_members, n_inputs, n_outputs); bias: (n_members, 1, n_outputs). Both start uniform in
    ±1/sqrt(n_inputs), as torch.nn.Linear does.
    """

    def __init__(self, n_members: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_members, n_inputs, n_outputs))
        self.bias = nn.Parameter(torch.empty(n_members, 1, n_outputs))

    def reset(self, generator: torch.Generator) -> None:
        bound = 1 / math.sqrt(max(1, self.weight.shape[1]))
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def forward(self, inputs: Tensor, outputs: slice = slice(None)) -> Tensor:
        """Return outputs (n_members, n_records, n_outputs).

        inputs: (n_members, n_records, n_inputs) or, shared, (n_records, n_inputs). outputs: which of them to
        compute.
        """
        shared = inputs.expand(len(self.weight), -1, -1)
        weight, bias = self.weight[..., outputs], self.bias[..., outputs]
        if self.training:
            return torch.bmm(shared, weight).add_(bias)
        if not torch.is_grad_enabled():
            return torch.baddbmm(bias.mT, weight.mT, shared.mT).mT
        # a search for latents, whose gradient must be an even product, too
        return even_product(widened(shared, -1), widened(weight, -2)) + bias


class CodeTable(nn.Module):
    """What each category adds to the hidden units: a one-hot input's affine map, without the one-hot.

    weight: (n_members, n_rows, n_outputs), a row for each code of each column and one for its missing value.
    Rows start at zero, so that a code that training never saw adds nothing.
    """

    def __init__(self, n_members: int, n_codes: tuple[int, ...], n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_members, sum(n_codes) + len(n_codes), n_outputs))
        starts = [0]
        for n in n_codes[:-1]:
            starts.append(starts[-1] + n + 1)
        offsets_MC = torch.arange(n_members)[:, None] * self.weight.shape[1] + torch.tensor(starts) - MISSING
        self.offsets: Tensor
        self.register_buffer("offsets", offsets_MC[:, None, :], persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Return summed rows (n_members, n_records, n_outputs) for codes (n_records, n_categorical)."""
        rows_MBC = codes + self.offsets
        summed = functional.embedding_bag(rows_MBC.flatten(0, 1), self.weight.flatten(0, 1), mode="sum")
        return summed.view(len(self.weight), len(codes), -1)

    def removal(self, codes: Tensor, column: int) -> Tensor:
        """Return what to add so that a column counts as missing, (n_members, n_records, n_outputs)."""
        rows_MB = (codes + self.offsets)[..., column]
        absent_M = self.offsets[:, 0, column] + MISSING
        table = self.weight.flatten(0, 1)
        return table[absent_M][:, None] - table[rows_MB]

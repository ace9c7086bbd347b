"""Matrix products in which a row comes out the same to the bit wherever it stands."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_EVEN_WIDTH = 16


def even_product(inputs: Tensor, weight: Tensor) -> Tensor:
    """inputs (..., n_rows, n_inputs) @ weight (..., n_inputs, n_outputs), for equal numbers of rows.

    Some processors' kernels round rows unlike by their place where the outputs are few and uneven (seen: 5 to 11), so
    they are computed at a width that is a multiple of 16.
    """
    n_outputs = weight.shape[-1]
    if n_outputs % _EVEN_WIDTH == 0:
        return inputs @ weight
    return torch.matmul(inputs, functional.pad(weight, (0, -n_outputs % _EVEN_WIDTH)))[..., :n_outputs]

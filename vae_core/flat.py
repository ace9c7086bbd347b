"""Weights of several networks as one tensor, so that what is done to all of them is one kernel and not one for each.

Belongs here: where parameters lie, their gradient, and its length by member. Does not: the optimiser or the loss (training.py).
"""

# M members, W weights of one member

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_SMALL = 2**14  # weights of a member; what is larger keeps its own memory: lookups in it must not copy it


class FlatParameters:
    """Parameters (n_members, …) as few tensors (n_members, n_weights): ``tensors``, leaves for an optimiser.

    The parameters become views of them, until ``release``.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = list(parameters)
        small = [p for p in self.parameters if p[0].numel() <= _SMALL]
        self.ordered = [*small, *(p for p in self.parameters if p[0].numel() > _SMALL)]
        self.n_small = len(small)
        self.tensors: list[Tensor] = []
        if small:
            self.tensors.append(torch.cat([p.detach().flatten(1) for p in small], dim=1))
            first = 0
            for parameter in small:
                n = parameter[0].numel()
                parameter.data = self.tensors[0][:, first : first + n].view(parameter.shape)
                first += n
        self.tensors += [p.data.view(len(p), -1) for p in self.ordered[self.n_small :]]
        for tensor in self.tensors:
            tensor.requires_grad_()

    def differentiate(self, loss: Tensor) -> None:
        """Lay the gradient of a loss beside the tensors."""
        gradients = torch.autograd.grad(loss, self.ordered, allow_unused=True, materialize_grads=True)
        flat = [gradient.flatten(1) for gradient in gradients]
        if self.n_small:
            flat[: self.n_small] = [torch.cat(flat[: self.n_small], dim=1)]
        for tensor, gradient in zip(self.tensors, flat, strict=True):
            tensor.grad = gradient

    @torch.no_grad()
    def clip(self, longest: float) -> Tensor:
        """Shorten each member's gradient to that norm. Returns the members' mean norm before, ()."""
        gradients = [tensor.grad for tensor in self.tensors if tensor.grad is not None]
        norms = [torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients]
        norm_M = norms[0] if len(norms) == 1 else torch.stack(norms).norm(dim=0)
        factor_M = (longest / (norm_M + 1e-6)).clamp(max=1)[:, None]
        for gradient in gradients:
            gradient.mul_(factor_M)
        mean: Tensor = norm_M.mean()
        return mean

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

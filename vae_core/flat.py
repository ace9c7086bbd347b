"""Weights of several networks as one tensor, so that one kernel serves all of them.

Belongs here: where parameters lie, their gradient, its length by member, and Adam's step. Does not: the loss
(run.py). torch's own Adam makes the same step, but importing it takes a second and 800 modules, among them a
compiler's.
"""

# M members, W weights of one member

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_TINY = 1e-8
_SMALL = 2**14  # weights of a member; a larger parameter keeps its own memory: lookups in it must not copy it


class FlatParameters:
    """Parameters (n_members, …) as few tensors (n_members, n_weights).

    The parameters become views of ``tensors``, until ``release``. state: by name, all that Adam remembers.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.betas = betas
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
        self.gradients = [torch.zeros_like(tensor) for tensor in self.tensors]
        self.state: dict[str, Tensor] = {}
        for i, tensor in enumerate(self.tensors):
            self.state |= {f"first.{i}": torch.zeros_like(tensor), f"second.{i}": torch.zeros_like(tensor)}

    def differentiate(self, loss: Tensor) -> None:
        """Store the gradient of a loss in ``gradients``."""
        self.lay(torch.autograd.grad(loss, self.ordered, allow_unused=True, materialize_grads=True))

    def lay(self, gradients: Sequence[Tensor]) -> None:
        """Store gradients, one for each of ``ordered``, in ``gradients``."""
        flat = [gradient.flatten(1) for gradient in gradients]
        if self.n_small:
            flat[: self.n_small] = [torch.cat(flat[: self.n_small], dim=1)]
        self.gradients = flat

    def clip(self, longest: float) -> Tensor:
        """Shorten each member's gradient to this norm. Returns the members' mean norm before, ()."""
        norms = [torch.linalg.vector_norm(gradient, dim=1) for gradient in self.gradients]
        norm_M = norms[0] if len(norms) == 1 else torch.stack(norms).norm(dim=0)
        factor_M = (longest / (norm_M + 1e-6)).clamp(max=1)[:, None]
        for gradient in self.gradients:
            gradient.mul_(factor_M)
        mean: Tensor = norm_M.mean()
        return mean

    def sizes(self, rate: float, n_steps: int) -> tuple[float, float]:
        """Return the two numbers that ``step`` takes in the n-th step at this learning rate."""
        of_first, of_second = (1 - beta**n_steps for beta in self.betas)
        return -rate / of_first, math.sqrt(of_second)

    @torch.no_grad()
    def step(self, scale: Tensor, root: Tensor) -> None:
        """Take Adam's step (Kingma & Ba 2015, algorithm 1).

        All that changes from step to step is in two tensors (), see ``sizes``.
        """
        for i, (tensor, gradient) in enumerate(zip(self.tensors, self.gradients, strict=True)):
            first, second = self.state[f"first.{i}"], self.state[f"second.{i}"]
            first.lerp_(gradient, 1 - self.betas[0])
            second.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
            away = second.sqrt().div_(root).add_(_TINY)
            tensor.addcdiv_(first * scale, away)

    def release(self) -> None:
        """Give every parameter memory of its own again."""
        for parameter in self.parameters:
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)

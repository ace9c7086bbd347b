"""One fit by several processes: each takes its share of every minibatch, all take the same step.

Belongs here: joining the processes that torch's launcher started, and what they tell each other. Does not:
the step (run.py).

    torchrun --nproc-per-node 2 -m my.program

Every process runs `with joined() as ranks: fit(…, ranks=ranks)`.
"""

# M members, B records of a minibatch

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Ranks:
    """The processes of one fit: how many there are, which of them this is, and its device."""

    rank: int
    n_ranks: int
    device: torch.device

    def share(self, n_records: int) -> Share:
        """Return this process's share of minibatches of ``n_records``; ValueError if they are too few."""
        if n_records < self.n_ranks:
            raise ValueError(
                f"a minibatch of {n_records} records cannot be shared by {self.n_ranks} processes: start fewer"
            )
        return Share(self.rank, self.n_ranks, n_records)


@dataclass(frozen=True)
class Share:
    """This process's part of minibatches of n_records."""

    rank: int
    n_ranks: int
    n_records: int

    @property
    def mine(self) -> slice:
        """Which records of a minibatch are this process's."""
        first, last = (self.n_records * rank // self.n_ranks for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def gathered(self, part: Tensor) -> Tensor:
        """Return all processes' values (M, n_records) from each one's part (M, B)."""
        whole = part.new_zeros(len(part), self.n_records)
        whole[:, self.mine] = part
        distributed.all_reduce(whole)
        return whole

    def add_up(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""
        for tensor in tensors:
            distributed.all_reduce(tensor)


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that torchrun started: by NCCL with a GPU each, or by gloo without GPUs.

    Raises RuntimeError where no launcher started them.
    """
    if "LOCAL_RANK" not in os.environ:
        raise RuntimeError(
            "not started by torch's launcher; start with: torchrun --nproc-per-node N -m MODULE"
        )
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()

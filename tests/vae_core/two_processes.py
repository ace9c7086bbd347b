"""What torchrun starts in test_parallel.py: one process of a fit, which writes its weights.

torchrun --nproc-per-node 2 tests/vae_core/two_processes.py FOLDER STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from vae_core import Layout, Recipe, Records, fit, joined

LAYOUT = Layout(("a", "b", "c", "d", "e"), (), ("hour",))


def records() -> Records:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator)
    x[torch.rand(x.shape, generator=generator) < 0.05] = torch.nan
    return Records(x[:, :5].clone(), torch.empty(400, 0, dtype=torch.int64), x[:, 5:].nan_to_num())


def recipe(steps: int) -> Recipe:
    """An odd minibatch, which two cannot share evenly, and trimming from a third of the steps on."""
    return Recipe(steps=steps, n_members=2, width=16, warm_up=5, minibatch=127)


if __name__ == "__main__":
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    with joined() as ranks:
        seen: list[float] = []
        vae = fit(
            LAYOUT, records(), recipe(steps), seed=3, device=ranks.device, ranks=ranks,
            on_progress=lambda p: seen.append(p.loss),
        )  # fmt: skip
        save_file(vae.state_dict() | {"loss": torch.tensor(seen)}, folder / f"{ranks.rank}.safetensors")

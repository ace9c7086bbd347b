"""Several processes fit one model: the same as one process does, but for rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.vae_core.two_processes import LAYOUT, recipe, records
from vae_core import Layout, Recipe, Records, fit, joined
from vae_core.gradient import gradient
from vae_core.model import VAE
from vae_core.parallel import Ranks, Share
from vae_core.run import Run

ROOT = Path(__file__).parent.parent.parent


def test_two_processes_of_torchs_launcher_give_the_weights_of_one(tmp_path: Path) -> None:
    """40 steps, half of them trimmed, over gloo on the loopback interface; both processes' weights are equal
    to the bit.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--local-addr", "127.0.0.1"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, str(ROOT / "tests/vae_core/two_processes.py"), str(tmp_path), "40"],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    losses: list[float] = []
    alone = fit(LAYOUT, records(), recipe(40), seed=3, on_progress=lambda p: losses.append(p.loss))
    assert_close(first.pop("loss"), torch.tensor(losses), rtol=1e-4, atol=1e-4)
    for name, expected in alone.state_dict().items():
        assert_close(first[name], expected, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("n_trimmed", [0, 12])
@pytest.mark.parametrize("samples", [1, 5])
def test_shares_of_a_gradient_add_up_to_it(
    samples: int, n_trimmed: int, monkeypatch: pytest.MonkeyPatch, draw: Callable[..., Records]
) -> None:
    """Whichever records are trimmed: they are found among the losses of all."""
    drawn = draw(128, seed=41)
    batch = Records(drawn.numeric, drawn.categorical[:, :0], drawn.context)
    vae = VAE(LAYOUT, Recipe(n_members=3, width=16))
    generator = torch.Generator().manual_seed(0)
    vae.initialise(batch.categorical, generator)
    noise = torch.randn(samples, 3, 128, vae.recipe.latents_for(LAYOUT), generator=generator)
    whole = gradient(vae, batch, noise, kl_weight=1.0, n_trimmed=n_trimmed)
    monkeypatch.setattr(Share, "gathered", lambda _share, _part: whole.loss)
    shares = [Share(rank, 3, 128) for rank in range(3)]
    parts = [
        gradient(vae, batch[s.mine], noise[:, :, s.mine], kl_weight=1.0, n_trimmed=n_trimmed, share=s)
        for s in shares
    ]
    for name, expected in whole.by_name.items():
        assert_close(sum(part.by_name[name] for part in parts), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_shared_is_refused(layout: Layout, draw: Callable[..., Records]) -> None:
    """Other losses look at a minibatch as a whole; and someone's share would be empty."""
    ranks = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(ValueError, match="several processes can train the default family"):
        Run(VAE(layout, Recipe()), [draw(50, seed=1)], [0], ranks=ranks)
    with pytest.raises(ValueError, match="minibatch of 1 records cannot be shared by 2"):
        Run(VAE(LAYOUT, Recipe()), [records()[:1]], [0], ranks=ranks)


def test_without_a_launcher_it_says_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of torch's words about a missing environment variable."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="torchrun --nproc-per-node"), joined():
        pass

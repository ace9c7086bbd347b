"""Records with a known structure, and one small model trained on them for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

from vae_core import MISSING, VAE, Layout, Recipe, Records, fit

settings.register_profile(
    "vae_core", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("vae_core")

LAYOUT = Layout(
    numeric=("a", "b", "c", "d", "e"),
    categorical=(("colour", 4), ("shade", 4)),
    context=("hour",),
)


def draw_records(n: int, seed: int, *, missing: float = 0.0) -> Records:
    """Records in which a..c share one cause, e follows the context and shade follows colour; d is noise."""
    generator = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, 1, generator=generator)
    hour = torch.randint(0, 2, (n, 1), generator=generator).float() * 2 - 1
    noise = torch.randn(n, 5, generator=generator)
    numeric = noise * torch.tensor([0.3, 0.3, 0.3, 1.0, 0.3])
    numeric[:, :3] += cause * torch.tensor([1.0, -1.0, 1.0])
    numeric[:, 4:] += hour
    colour = torch.randint(0, 4, (n, 1), generator=generator)
    codes = torch.cat([colour, (colour + 1) % 4], dim=1)
    numeric[torch.rand(n, 5, generator=generator) < missing] = torch.nan
    codes[torch.rand(n, 2, generator=generator) < missing] = MISSING
    return Records(numeric, codes, hour)


@pytest.fixture(scope="session")
def layout() -> Layout:
    return LAYOUT


@pytest.fixture(scope="session")
def draw() -> Callable[..., Records]:
    return draw_records


@pytest.fixture(scope="session")
def vae() -> VAE:
    """Trained on complete records."""
    return fit(LAYOUT, draw_records(2000, seed=1), Recipe(steps=400), seed=0)


@pytest.fixture(scope="session")
def vae_with_gaps() -> VAE:
    """Trained on records of which a tenth of the cells are missing."""
    return fit(LAYOUT, draw_records(2000, seed=1, missing=0.1), Recipe(steps=400), seed=0)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

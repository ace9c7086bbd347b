"""The pages on vae_core: what a reader would type runs, and the numbers that they state are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from vae_core import Known, Layout, Recipe, Records, slices
from vae_core.column_noise import NumericNoise

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "vae-core.md"


def test_the_examples_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is asserted on the page itself."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102  # our own page
    assert len(blocks) > 5


def test_the_largest_slice_on_a_gpu_is_the_page_s() -> None:
    """Of a GPU with room for anything."""
    largest = f"{slices._largest(slices._LARGEST_ON_GPU):,} records at most"
    assert largest in (PAGE.parent / "gpu.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("noise", ["gaussian_shared_sigma", "gaussian_column_sigma"])
def test_a_learned_variance_has_the_floor_added_as_the_page_says(noise: str) -> None:
    """v + σ², σ the floor or, where that is more, a rounding to the column's steps."""
    model = NumericNoise(Layout(("a", "b")), Recipe(noise=noise, n_members=1, sigma_floor=0.1))
    model.know_steps(torch.tensor([0.0, 0.6]))
    assert model.extra is not None
    with torch.no_grad():
        model.extra.fill_(-1.0)
        variance = model(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2)).variance
    expected = torch.tensor(-1.0).exp() + torch.tensor([0.1**2, 0.6**2 / 12])
    torch.testing.assert_close(variance[0, 0], expected)


@pytest.mark.parametrize(("n", "share"), [(8, 1 / 16), (32, 1 / 4), (100, 1 / 4)])
def test_known_normals_pay_a_quarter_of_their_loss_as_the_page_says(n: int, share: float) -> None:
    """Each costs two nats here."""
    normals = Records(torch.zeros(n, 1), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0))
    known = Known(normals=normals)
    found = known.penalty(lambda r: torch.full((1, len(r)), 2.0), torch.zeros(1), torch.Generator(), 5.0)
    assert found.tolist() == pytest.approx([2 * share])

"""Matrix products outside of training: right, and the same for a record wherever it stands."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from vae_core import layers
from vae_core.layers import product

SHAPES = [(1, 1), (5, 3), (10, 13), (13, 65), (65, 7), (65, 33), (260, 74)]


@pytest.mark.parametrize("by_onednn", [True, False])
@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize(("n_outputs", "n_inputs"), SHAPES)
def test_a_product_is_right_and_rounds_every_place_alike(
    n_outputs: int, n_inputs: int, rectified: bool, by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against double precision, whichever library computes it; a shuffled slice gives shuffled bits."""
    if by_onednn and not layers.HAS_ONEDNN:
        pytest.skip("this torch was built without oneDNN")
    monkeypatch.setattr(layers, "HAS_ONEDNN", by_onednn)
    generator = torch.Generator().manual_seed(n_outputs)
    weight = torch.randn(n_outputs, n_inputs, generator=generator)
    for n_records in (48, 6144):
        inputs = torch.randn(n_inputs, n_records, generator=generator)
        order = torch.randperm(n_records, generator=generator)
        found = product(weight, inputs, rectified=rectified)
        exact = weight.double() @ inputs.double()
        assert_close(found.double(), exact.relu() if rectified else exact, rtol=1e-5, atol=1e-5)
        assert torch.equal(product(weight, inputs[:, order], rectified=rectified), found[:, order])

"""A training that is retried after both of its fits had ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import steps
from pipeline.errors import RegistryUnreachable
from pipeline.registry import Registry

from .conftest import Place


def test_a_registry_that_was_away_costs_no_second_fit(
    validated: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is left is to register: the retry goes on from the last checkpoint of the second fit."""
    place = validated
    place.edit("steps: 60", "steps: 250")

    def away(*_: object) -> None:
        raise RegistryUnreachable("MLflow does not answer")

    with monkeypatch.context() as night:
        night.setattr(Registry, "register", away)
        with pytest.raises(RegistryUnreachable):
            steps.train(place.here, place.name)
    fits: list[object] = []
    receipt = steps.train(place.here, place.name, on_progress=fits.append)
    assert receipt.outcome == "trained"
    assert not fits
    assert "this one went on from their checkpoints" in Path(receipt.page).read_text(encoding="utf-8")
    assert place.left_over() == []

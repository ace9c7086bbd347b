"""What a training says against the model that it made, with real parts."""

from __future__ import annotations

from html import unescape
from typing import TYPE_CHECKING

import pytest

from pipeline import steps

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's
QUICK = "steps: 60, n_members: 2"


def test_a_collapsed_model_is_told_wherever_its_training_is(landed: Place) -> None:
    """In the process that checked the batches, whose Great Expectations takes Python's warnings away."""
    landed.edit(QUICK, f"{QUICK}, kl_weight: 1000")
    code, output, errors = landed.run("run", landed.name)
    assert code == 4, errors  # the feed has deliveries to refuse
    assert "TrainingWarning" not in errors
    shown = " ".join(output.split())
    assert "note trained, but posterior collapse: all members ignore the records" in shown
    here = landed.here
    (version,) = here.registry.versions(landed.name)
    assert version.tags["doubts"].startswith("posterior collapse: ")
    page = here.training_page(here.dataset(landed.name), version.training_key).read_text(encoding="utf-8")
    assert "<p>Posterior collapse: all members ignore the records" in unescape(page)
    again = steps.train(here, landed.name)
    assert (again.outcome, again.notes) == ("unchanged", (f"trained, but {version.doubts}",))

"""A night without Airflow: which step comes when, with real parts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pipeline import steps

from .test_promotion import LENIENT, evaluate, with_gates

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings("ignore::vae_core.DataWarning"),
]


@pytest.mark.parametrize(("mode", "serves"), [("automatic", 2), ("manual", 1)])
def test_a_night_promotes_by_itself_what_passed_where_the_dataset_says_so(
    trained: Place, mode: str, serves: int
) -> None:
    """And tells each step; nobody is asked, nobody has to look."""
    with_gates(trained, f"{LENIENT}\n  mode: {mode}")
    trained.edit("steps: 60", "steps: 70")
    here = trained.here
    here.ledger.set_trained(trained.name, datetime.now(UTC) - timedelta(days=2))
    receipts = {receipt.step: receipt for receipt in steps.run(here, trained.name)}
    judged = ["evaluate", "promote"] if mode == "automatic" else ["evaluate"]
    assert list(receipts) == ["validate", "score", "train", *judged]
    assert receipts["evaluate"].outcome == "passed"
    assert bool(receipts["evaluate"].next) == (mode == "manual")
    assert receipts["score"].model_version == 1, "it must not have learned what it scores"
    assert {row["model_version"] for row in trained.ledger() if row["status"] == "scored"} == {1}
    assert here.ledger.serving_version(trained.name) == serves


def test_a_run_promotes_what_was_trained_and_passed_by_hand_the_same_day(trained: Place) -> None:
    """No training is due, and nobody is to be asked: it would wait for tomorrow's."""
    with_gates(trained, f"{LENIENT}\n  mode: automatic")
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, trained.name)
    assert evaluate(trained).alias == "challenger"
    receipts = {receipt.step: receipt for receipt in steps.run(trained.here, trained.name)}
    assert receipts["train"].outcome == "unchanged"
    assert (receipts["evaluate"].outcome, receipts["promote"].model_version) == ("passed", 2)
    assert receipts["score"].model_version == 2
    assert "evaluate" not in {receipt.step for receipt in steps.run(trained.here, trained.name)}


def test_what_the_champion_cannot_score_is_scored_by_what_the_night_trains(trained: Place) -> None:
    """Its derived columns are new: nothing would be scored until the next night."""
    with_gates(trained, f"{LENIENT}\n  mode: automatic")
    trained.edit("batch:", "derived: {fee_share: fee / (amount + 1)}\nbatch:")
    trained.here.ledger.set_trained(trained.name, datetime.now(UTC) - timedelta(days=2))
    receipts = {receipt.step: receipt for receipt in steps.run(trained.here, trained.name)}
    assert list(receipts) == ["validate", "train", "evaluate", "promote", "score"]
    assert (receipts["score"].outcome, receipts["score"].model_version) == ("done", 2)
    assert receipts["promote"].next == ""

"""What a training says against the model that it made, with real parts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from typing import TYPE_CHECKING

import pytest

from pipeline import steps
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.records.window import choose_window
from pipeline.training import alarmed

if TYPE_CHECKING:
    from pipeline.installation import Installation
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
    assert version.doubts[0].startswith("posterior collapse: ")
    page = here.training_page(here.dataset(landed.name), version.training_key).read_text(encoding="utf-8")
    assert "<p>Posterior collapse: all members ignore the records" in unescape(page)
    again = steps.train(here, landed.name)
    assert (again.outcome, again.notes) == ("unchanged", version.notes)
    assert version.notes[0] == f"trained, but {version.doubts[0]}"
    (event,) = (one for one in steps.history(here, landed.name) if one["what"] == "trained")
    assert f", but {version.doubts[0][:100]}" in event["reason"]
    assert event["reason"].endswith(f": vaewatch versions {landed.name} {version.version}")


def test_a_batch_under_an_alarm_is_told_of_by_the_training_that_learns_it_and_alerted_once(
    scored: Place,
) -> None:
    """A night's fault would otherwise be normal from the next training on, without a word."""
    here, name, day = scored.here, scored.name, "2026-01-09"
    scored.edit("window_days: 30", "window_days: 29")  # or the records make the version that is there
    told = scored.settings.home / "alerts.txt"
    scored.edit("flag:", "review: {digest_file: alerts.txt}\nflag:")
    raised(here, name, day)
    trained = steps.train(here, name)
    (note,) = (one for one in trained.notes if "under an alarm" in one)
    assert note.startswith("trained, but 1 of the ")
    assert f" batches learned is under an alarm: {day} (amount moved far); look: " in note
    assert f"vaewatch report {name} {day}. If that is a fault, have it delivered again" in note
    page = here.training_page(here.dataset(name), trained.training_key).read_text(encoding="utf-8")
    assert f"batches learned is under an alarm: {day}" in unescape(page)
    judged = steps.evaluate(here, name)
    assert note in judged.notes
    assert f"{name}: version 2 is trained, but\n  warning: 1 of the" in told.read_text(encoding="utf-8")
    told.unlink()
    scored.edit("window_days: 29", "window_days: 28")
    assert note in steps.train(here, name).notes
    assert not told.exists()
    assert f"leave it out (train.leave_out: [{day}] in " in note
    scored.edit("window_days: 28", f"window_days: 28\n  leave_out: [{day}]")
    trained = steps.train(here, name)
    assert not any("under an alarm" in one for one in trained.notes)
    version = here.registry.version(name, trained.model_version or 0)
    assert version.tags["window_without"] == day
    _, output, _ = scored.run("versions", name, str(version.version))
    assert f"without the batches {day}" in " ".join(output.split())


def test_what_was_found_in_an_earlier_delivery_is_not_said_of_the_one_that_is_learned(scored: Place) -> None:
    """It was mended, and is not scored yet."""
    here, name, day = scored.here, scored.name, "2026-01-09"
    raised(here, name, day)
    window = choose_window(here.dataset(name), list(here.ledger.current(name).values()))
    assert [one.batch_id for one in alarmed.of(here.ledger, name, window)] == [day]
    scored.validate(day, force=True)
    window = choose_window(here.dataset(name), list(here.ledger.current(name).values()))
    assert alarmed.of(here.ledger, name, window) == []


def raised(here: Installation, name: str, batch_id: str) -> None:
    """Put an alarm on a batch that was measured."""
    found = store.one(here.ledger, name, batch_id)
    assert found is not None
    alarm = Finding("drift:amount", "alarm", "amount moved far", "ask", column="amount")
    store.replace(here.ledger, name, replace(found, findings=(alarm,), measured_at=datetime.now(UTC)))

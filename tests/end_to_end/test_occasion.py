"""A night on which `train.when` finds no occasion to train: nothing is trained, and the rest is done."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import steps
from pipeline.report import metrics
from pipeline.results import views
from pipeline.review import judging

from .conftest import Place


def without_an_occasion(place: Place) -> None:
    """Other settings, so that it is no training that was done already; and too few new records."""
    place.edit("steps: 60", "steps: 61")
    place.edit("train:\n", "train:\n  when: {new_records: 1000000}\n")


def test_a_skipped_night_counts_as_a_good_one(scored: Place) -> None:
    """An alert that rings after three quiet nights is switched off by whoever is woken."""
    without_an_occasion(scored)
    here, long_ago = scored.here, datetime.now(UTC) - timedelta(days=4)
    here.ledger.set_trained(scored.name, long_ago)
    assert steps.train(here, scored.name).outcome == "skipped"
    assert here.ledger.trained_at(scored.name) == long_ago
    ended = here.ledger.train_ended_at(scored.name)
    assert ended is not None
    assert datetime.now(UTC) - ended < timedelta(hours=1)
    written = text_string_to_metric_families(
        (here.settings.home / "metrics" / metrics.FILE).read_text(encoding="utf-8")
    )
    values = {family.name: [sample.value for sample in family.samples] for family in written}
    assert values["vaewatch_last_train_ended_timestamp_seconds"] == [pytest.approx(ended.timestamp())]
    assert values["vaewatch_last_trained_timestamp_seconds"] == [pytest.approx(long_ago.timestamp())]


def test_a_training_that_changes_nothing_is_not_the_newest_one(scored: Place) -> None:
    """Or a version grows old, and every page says that it was trained last night."""
    here = scored.here
    (version,) = here.registry.versions(scored.name)
    for noted, said in ((-1, 0), (1, 1)):  # killed before it was noted; another one was trained since
        here.ledger.set_trained(scored.name, version.created_at + timedelta(seconds=noted))
        before = datetime.now(UTC)
        assert steps.train(here, scored.name).outcome == "unchanged"
        assert here.ledger.trained_at(scored.name) == version.created_at + timedelta(seconds=said)
        ended = here.ledger.train_ended_at(scored.name)
        assert ended is not None
        assert ended >= before


def test_verdicts_reach_the_registry_on_a_skipped_night(scored: Place) -> None:
    """Who asks for few trainings has verdicts on record as soon as who asks for many."""
    without_an_occasion(scored)
    here = scored.here
    worst = views.flagged(here, scored.name)[0]
    judging.give(here.ledger, [worst["anomaly_id"]], "anomaly", by="ann")
    assert steps.train(here, scored.name).outcome == "skipped"
    (version,) = here.registry.versions(scored.name)
    assert json.loads(version.tags["review"])["review_judged"] == 1

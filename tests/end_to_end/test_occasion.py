"""A night on which `train.when` finds no occasion to train: nothing is trained, and the rest is done."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipeline import steps
from pipeline.report import metrics
from pipeline.results import views
from pipeline.review import judging
from pipeline.sample import generate
from pipeline.sample.drift import drifted

from .conftest import PLAN, Place


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


def test_a_drift_alone_is_an_occasion_and_a_day_like_the_others_is_none(
    scored: Place, tmp_path: Path
) -> None:
    """Of the batches since the newest version, which are new records either way."""
    later = replace(PLAN, days=PLAN.days + 2, hostile=False)
    usual, moved = generate(tmp_path, later).batch_ids[-2:]
    scored.edit("train:\n", "train:\n  when: {drift: true}\n")
    land(scored, usual, pq.read_table(tmp_path / f"incoming/payments/{usual}.parquet"))
    night = steps.train(scored.here, scored.name)
    assert (night.outcome, night.reason) == ("skipped", "0 batches have drifted since")
    table = pq.read_table(tmp_path / f"incoming/payments/{moved}.parquet")
    land(scored, moved, drifted(table, "slower", np.random.default_rng(0)))
    said: list[str] = []
    assert steps.train(scored.here, scored.name, say=said.append).outcome == "trained"
    (why,) = (line for line in said if line.startswith("an occasion to train: "))
    assert why.startswith(f"an occasion to train: 1 batch has drifted since: {moved} (authorisation_ms")
    scored.edit("steps: 60", "steps: 61")  # a drift that was learned is none any more
    assert steps.train(scored.here, scored.name).reason == "0 batches have drifted since"


def land(place: Place, batch_id: str, table: pa.Table) -> None:
    """Another batch is delivered, checked and scored."""
    pq.write_table(table, place.incoming / f"{batch_id}.parquet")
    place.validate(batch_id)
    place.score(batch_id)


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

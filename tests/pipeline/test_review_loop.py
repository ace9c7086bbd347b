"""What people found, on record with the model versions: a value where the interval is narrow enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.registry import TrainingRun
from pipeline.review import judging, statistics
from pipeline.review.loop import log_review

from .registry_data import client, tracking_uri
from .review_data import put, row


@pytest.mark.parametrize(("n", "is_wide"), [(2, True), (500, False)])
def test_of_a_wide_interval_no_point_is_logged(
    home: Path, training: TrainingRun, make_dataset: Callable[..., Dataset], n: int, is_wide: bool
) -> None:
    """Whoever charts MLflow's metrics, or is asked to promote, would read 1 flag as recall 1."""
    settings = Settings(home=home, datasets=home, tracking_uri=tracking_uri(home))
    dataset = make_dataset(dataset="orders")
    with closing(Installation(settings)) as here:
        version = here.registry.register(training).version
        here.ledger.set_serving("orders", version)
        alike = {"dataset": "orders", "model_version": version}
        flagged = [row(f"f{i}", signature=f"c{i}↑", **alike) for i in range(n)]
        sample = [row(f"s{i}", kind="sampled", **alike) for i in range(n)]
        put(here.ledger, [*flagged, *sample], n_unflagged=500)
        for rows, verdict in ((flagged, "anomaly"), (sample, "normal")):
            judging.give(here.ledger, [one["anomaly_id"] for one in rows], verdict, by="ann")
        assert log_review(here, dataset) == [version]
        assert log_review(here, dataset) == []
        (found,) = here.registry.versions("orders")
        recall = statistics.review(here.ledger, "orders").recall
    assert (recall.value, recall.is_wide) == (1.0, is_wide)
    kept = json.loads(found.tags["review"])
    intervals = {
        f"review_{name}_{end}"
        for name in ("precision", "recall", "false_negative_rate")
        for end in ("low", "high")
    }
    points = set() if is_wide else {"review_precision", "review_recall", "review_false_negative_rate"}
    assert set(kept) == intervals | points | {"review_judged", "review_sampled"}
    assert (kept["review_recall_low"], kept["review_sampled"]) == (pytest.approx(recall.low), n)
    assert kept["review_false_negative_rate_high"] == pytest.approx(1 - recall.low)
    logged = client(home).get_run(found.run_id).data.metrics
    assert {name: value for name, value in logged.items() if name.startswith("review_")} == kept

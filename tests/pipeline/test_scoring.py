"""One pass from records to published scores: what the detector says, flagged by the dataset's rule, or
nothing at all.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.dataset import Dataset, Flagging
from pipeline.detection import scoring
from pipeline.detection.detector import Detector
from pipeline.detection.measures import MOST_HIGHEST
from pipeline.detection.reasons import N_TERMS
from pipeline.detection.scoring import ScoredBatch, score_batch
from pipeline.errors import ModelUnusable
from pipeline.records import accepted
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import Tables
from tests.bench.speed_scoring import BATCH, NAMES, dataset, drawn, land

N = 1_500
NOW = datetime(2026, 11, 21, tzinfo=UTC)
STATE = BatchState(
    dataset="speed", batch_id=BATCH, version=1, status="accepted", reason="", fingerprint="", signature="", contract_hash="",
    files=[], notes=[], set_aside={}, n_read=N, n_accepted=N, newest_record_at=None, validated_at=NOW,
)  # fmt: skip


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Hardly trained: what it thinks is not the question."""
    quick = dataset().model_copy(
        update={"train": dataset().train.model_copy(update={"recipe": {"steps": 40}})}
    )
    training, calibrating = (pa.table(dict(zip(NAMES, drawn(1000, i).T.copy(), strict=True))) for i in (0, 1))
    return Detector.train(quick, training, calibrating, records_per_day=1000.0)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    landed = Tables(tmp_path / "tables")
    land(landed, N)
    return landed


def flagging(rule: dict[str, Any]) -> Dataset:
    return dataset().model_copy(update={"flag": Flagging(**rule)})


def scored(of: Dataset, detector: Detector, tables: Tables, scratch: Path, threads: int = 2) -> ScoredBatch:
    return score_batch(of, STATE, detector, 3, tables, scratch=scratch / "scratch", threads=threads)


RULES: list[dict[str, Any]] = [
    {"error_rate": 0.02},
    {"review_budget": 20},
    {"false_discovery_rate": 0.3},
    {"error_rate": 0.02, "cap": 7},
    {"error_rate": 0.1},
]


@pytest.mark.parametrize("rule", RULES)
def test_every_record_is_published_as_the_detector_scores_it(
    rule: dict[str, Any], detector: Detector, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In slices, by threads, under every rule: the same scores, flags and place among normal ones as for the
    table in one piece.
    """
    monkeypatch.setattr(accepted, "SLICE", 700)
    monkeypatch.setattr(scoring, "EXPLAINED_TOGETHER", 16)
    done = scored(flagging(rule), detector, tables, tmp_path)
    records = tables.read("records").sort_by("row_number")
    expected = detector.score_table(pa.Table.from_struct_array(records["record"].combine_chunks()))
    found = tables.read("scores").sort_by("row_number")
    for name in expected.column_names:
        assert found[name].equals(expected[name])
    scores = expected["anomaly_score"].to_numpy()
    flags, threshold = detector.calibration.flags(scores, Flagging(**rule), detector.records_per_day)
    assert found["flagged"].to_numpy().tolist() == flags.tolist()
    assert (done.n_records, done.n_flagged, done.threshold) == (N, int(flags.sum()), threshold)
    assert done.above == pytest.approx(detector.calibration.share_above(scores))
    assert found["record_key"].equals(records["record_key"])
    chosen = pa.array(flags)
    assert found["record"].filter(chosen).equals(records["record"].filter(chosen))
    assert found["record"].null_count == found["reasons"].null_count == N - flags.sum()
    assert found["kl_weight"].to_pylist() == [detector.kl_weight] * N
    assert {len(terms) for terms in found.filter(chosen)["terms"].to_pylist()} <= {N_TERMS}
    leading = (reasons[0]["column"] if reasons else "" for reasons in found["reasons"].to_pylist())
    ranked = sorted(zip(scores.tolist(), leading, strict=True), reverse=True)
    assert list(done.highest) == ranked[:MOST_HIGHEST]


def test_a_model_of_other_columns_publishes_nothing_and_says_why(
    detector: Detector, tables: Tables, tmp_path: Path
) -> None:
    """The fault comes out of the writer's threads as itself: nobody tries again what cannot be."""
    numeric = dict(detector.features.numeric)
    numeric["elsewhere"] = numeric.pop(NAMES[0])
    other = replace(detector, features=replace(detector.features, numeric=numeric))
    with pytest.raises(ModelUnusable, match="needs columns 'elsewhere'"):
        scored(dataset(), other, tables, tmp_path)
    assert not tables.exists("scores") or not tables.read("scores").num_rows


def test_scoring_again_changes_nothing(detector: Detector, tables: Tables, tmp_path: Path) -> None:
    """Whatever the number of threads."""
    of = flagging({"error_rate": 0.02})
    found = []
    for threads in (1, 3):
        scored(of, detector, tables, tmp_path, threads)
        found.append(tables.read("scores").sort_by("row_number"))
    assert found[0].equals(found[1])
    assert np.all(found[0]["model_version"].to_numpy() == 3)

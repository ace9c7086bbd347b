"""A dataset of categories alone, numeric codes included, from files to flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.config.settings import Settings
from pipeline.evaluation.injection import gross
from pipeline.installation import Installation
from pipeline.records.holdout import RECORD_KEY

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)  # MLflow's
DATASET = """\
dataset: tills
incoming: {path: ../incoming, settle_seconds: 0}
train: {min_records: 500, recipe: {steps: 300, n_members: 2, critic_steps: 0}}
key: [id]
columns:
  id: {type: int, required: true}
  article: {type: int, role: categorical}
  till: {type: int, role: categorical}
  paid: {type: bool, role: categorical}
"""


def receipts(n: int, seed: int) -> pa.Table:
    """An article is sold at its own till; nearly all are paid."""
    random = np.random.default_rng(seed)
    article = random.integers(0, 6, n)
    till = np.where(random.random(n) < 0.97, article % 3, random.integers(0, 3, n))
    return pa.table({
        "id": np.arange(n) + 10_000 * seed,
        "article": article + 5_410,
        "till": till,
        "paid": random.random(n) < 0.98,
    })


def test_its_first_model_serves_and_scores(tmp_path: Path) -> None:
    """Few records differ, so few scores do: that is no model that broke down."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "tills.yaml").write_text(DATASET, encoding="utf-8")
    (tmp_path / "incoming").mkdir()
    for day in range(1, 7):
        pq.write_table(receipts(400, day), tmp_path / "incoming" / f"2026-01-{day:02}.parquet")
    here = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets"))
    steps.validate(here, "tills")
    steps.train(here, "tills")
    judged = steps.evaluate(here, "tills")
    assert (judged.outcome, judged.alias) == ("passed", "champion"), judged.reason
    scored = steps.score(here, "tills")
    assert [batch.outcome for batch in scored.batches] == ["scored"] * 6
    here.close()


def test_a_gross_error_is_a_value_that_no_record_has(tmp_path: Path) -> None:
    """Of yes and no there is none: there it is the other one."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "tills.yaml").write_text(DATASET, encoding="utf-8")
    dataset = Installation(Settings(home=tmp_path, datasets=tmp_path / "datasets")).dataset("tills")
    records = receipts(50, 1)
    records = records.append_column(RECORD_KEY, records["id"].cast(pa.string()))
    wrong = gross(dataset, records)
    for name in ("article", "till"):
        assert not set(wrong[name].to_pylist()) & set(records[name].to_pylist())
    assert wrong["paid"].to_pylist() == [not paid for paid in records["paid"].to_pylist()]

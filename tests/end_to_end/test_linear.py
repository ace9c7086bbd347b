"""Probabilistic PCA instead of networks: a dataset's file says so, and everything else is as on any night."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.results import views

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")
DATASET = """\
dataset: pumps
incoming: {path: ../incoming, settle_seconds: 0}
key: [id]
columns:
  id: {type: int, required: true}
  speed: {type: float, role: numeric}
  flow: {type: float, role: numeric}
  pressure: {type: float, role: numeric}
  power: {type: float, role: numeric}
train:
  min_records: 500
  recipe: {encoder: exact, noise: gaussian_shared_sigma, prior: normal, n_members: 1, steps: 500, critic_steps: 0}
flag: {review_budget: 20}
"""
A_DAY = 400
BROKEN = 7  # the row of the last day whose flow does not go with its speed


def readings(day: int) -> pa.Table:
    """Flow, pressure and power follow speed and an unmeasured valve; one flow in fifty is missing."""
    random = np.random.default_rng(day)
    speed, valve = random.normal(0, 1, (2, A_DAY))
    flow = speed + valve
    columns = {"speed": speed, "flow": flow, "pressure": speed - valve, "power": speed + 0.5 * flow}
    noisy = {name: 50 + 10 * x + random.normal(0, 1, A_DAY) for name, x in columns.items()}
    noisy["flow"] = np.where(random.random(A_DAY) < 0.02, np.nan, noisy["flow"])
    if day == 6:
        noisy["flow"][BROKEN] = noisy["speed"][BROKEN] - 40
    table = pa.table({"id": np.arange(A_DAY) + 1000 * day, **noisy})
    return table.set_column(2, "flow", pa.array(noisy["flow"], from_pandas=True))


def test_it_is_trained_judged_and_finds_what_breaks_the_law(tmp_path: Path) -> None:
    """Its first model passes the gates; the broken record has the highest score, and flow is the reason."""
    for folder in ("datasets", "incoming"):
        (tmp_path / folder).mkdir()
    (tmp_path / "datasets" / "pumps.yaml").write_text(DATASET, encoding="utf-8")
    for day in range(1, 7):
        pq.write_table(readings(day), tmp_path / "incoming" / f"2026-01-{day:02}.parquet")
    here = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets", threads=1))
    steps.validate(here, "pumps")
    steps.train(here, "pumps")
    judged = steps.evaluate(here, "pumps")
    assert (judged.outcome, judged.alias) == ("passed", "champion"), judged.reason
    scored = steps.score(here, "pumps")
    assert [batch.outcome for batch in scored.batches] == ["scored"] * 6
    worst = views.flagged(here, "pumps", limit=1)[0]
    assert worst["record_key"] == str(6000 + BROKEN)
    assert worst["reasons"][0]["column"] == "flow"
    here.close()

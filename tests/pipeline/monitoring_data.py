"""Readings of sensors, their measures, and what monitoring finds in days of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import ColumnDrift, Measures
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.history import Past
from pipeline.monitoring.judgement import judge

START = date(2026, 1, 5)  # a Monday
PLAIN = Dataset.model_validate({
    "dataset": "sensors",
    "incoming": {"path": "."},
    "columns": {
        "level": {"type": "float", "role": "numeric"},
        "flow": {"type": "float", "role": "numeric"},
        "site": {"type": "string", "role": "categorical"},
    },
})
STILL = ColumnDrift(
    divergence=0.0,
    noise=0.0,
    psi=0.0,
    shift=0.0,
    missing=0.0,
    usual_missing=0.0,
    new=0.0,
    correlation=0.0,
    counts=(500, 500),
    usual=(5_000, 5_000),
    bins=(0.0,),
)
QUIET = Measures(1_000, 1_000, 20, 20.0, 0.5, 0.01, 1_000, 0, columns={"level": STILL})


def readings(n: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    levels = random.normal(0, 1, n)
    return pa.table({
        "level": levels,
        "flow": levels + random.normal(0, 0.2, n),
        "site": random.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1]).tolist(),
    })


def told(
    per_day: Sequence[Measures], start: date = START, dataset: Dataset = PLAIN
) -> list[tuple[Finding, ...]]:
    """What is told of each of consecutive days, each judged by those before it."""
    past: list[Past] = []
    for i, measures in enumerate(per_day):
        day = start + timedelta(days=i)
        name = day.isoformat()
        findings = judge(measures, past, day, dataset=dataset, batch_id=name)
        past.append(Past(name, day, measures, findings))
    return [one.findings for one in past]


def moved(by: float) -> Measures:
    return replace(QUIET, columns={"level": replace(STILL, divergence=by, shift=by * 4)})

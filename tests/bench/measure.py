"""One fit, scored and measured; the cache of results; the processes that do the work.

A result is a line of JSON, identified by its set, protocol, seed and the fingerprint of its method. Lines are
appended as they come, so that an interrupted run continues where it stopped.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.bench.adbench import Array, split
from tests.bench.methods import EVERY, fingerprint

CACHE = Path("var/bench/quality.jsonl")
BUDGET = 0.01  # share of the records that a person looks at
MEASURES = ("auroc", "average_precision", "recall")


@dataclass(frozen=True)
class Task:
    """One fit. Two names of a method with the same fingerprint are the same method."""

    set_name: str
    protocol: str
    seed: int
    method: str = field(compare=False)
    fingerprint: str


@dataclass(frozen=True)
class Result:
    """What came of a task; measures are None where the method failed, and ``failed`` says why."""

    set_name: str
    protocol: str
    seed: int
    method: str
    fingerprint: str
    seconds: float
    auroc: float | None = None
    average_precision: float | None = None
    recall: float | None = None
    failed: str | None = None

    @property
    def task(self) -> Task:
        return Task(self.set_name, self.protocol, self.seed, self.method, self.fingerprint)


def tasks(
    sets: Iterable[str], protocols: Iterable[str], seeds: Iterable[int], methods: Iterable[str]
) -> list[Task]:
    """Every combination, the cheapest method first."""
    by_cost = sorted(methods, key=lambda name: EVERY[name].cost)
    prints = {(m, p): fingerprint(EVERY[m], p) for m in by_cost for p in protocols}
    return [
        Task(s, p, seed, m, prints[m, p]) for m in by_cost for seed in seeds for s in sets for p in protocols
    ]


def work(task: Task) -> Result:
    """Fit, score, measure. A method that raises is a result, too."""
    part = split(task.set_name, task.protocol, task.seed)
    started = time.monotonic()
    failed: str | None = None
    measures: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scores = EVERY[task.method](part, task.seed)
        measures = measured(scores, part.anomalous)
    except Exception as error:  # noqa: BLE001  # whatever a rival raises is reported in the table
        failed = f"{type(error).__name__}: {error}"[:300]
    seconds = round(time.monotonic() - started, 3)
    return replace(Result(**asdict(task), seconds=seconds, failed=failed), **measures)


def measured(scores: Array, anomalous: Array) -> dict[str, float]:
    """AUROC, average precision, and the share of the anomalies among the highest-scoring 1 % of the
    records.
    """
    if scores.shape != anomalous.shape:
        raise ValueError(f"scores of shape {scores.shape} for {len(anomalous)} records")
    if not np.isfinite(scores).all():
        raise ValueError("scores that are not finite")
    return {
        "auroc": float(roc_auc_score(anomalous, scores)),
        "average_precision": float(average_precision_score(anomalous, scores)),
        "recall": recall_at(scores, anomalous, math.ceil(BUDGET * len(scores))),
    }


def recall_at(scores: Array, anomalous: Array, budget: int) -> float:
    """Share of the anomalies among the ``budget`` highest scores; of records that tie with the last, the
    expected share.
    """
    least = np.sort(scores)[-budget]
    above, level = scores > least, scores == least
    share = (budget - above.sum()) / level.sum()
    return float((anomalous[above].sum() + share * anomalous[level].sum()) / anomalous.sum())


def read(cache: Path) -> dict[Task, Result]:
    """All cached results; a last line that was cut off by an interruption is left out."""
    found: dict[Task, Result] = {}
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.exists() else []:
        try:
            result = Result(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            continue
        found[result.task] = result
    return found


def run(todo: list[Task], cache: Path, jobs: int) -> Iterator[Result]:
    """Do the tasks in so many processes of one thread each; every result is in the cache when it is
    yielded.
    """
    cache.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = (
        "1"  # read by numpy, scikit-learn and torch in the processes started from here
    )
    spawn = multiprocessing.get_context("spawn")
    with (
        cache.open("a", encoding="utf-8") as lines,
        ProcessPoolExecutor(jobs, mp_context=spawn) as pool,
    ):
        if lines.tell() and not cache.read_text(encoding="utf-8").endswith("\n"):
            lines.write("\n")  # after a line that an interruption cut off
        try:
            for future in as_completed([pool.submit(work, task) for task in todo]):
                result = future.result()
                lines.write(json.dumps(asdict(result)) + "\n")
                lines.flush()
                yield result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

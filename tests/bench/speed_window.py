"""Memory of a training whose window does not fit into it, for `make bench-speed`. As a program: land a
window, or train on it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from tests.bench.speed import Line, Plan, child

if TYPE_CHECKING:
    from pipeline.config.dataset import Dataset
    from pipeline.storage.ledger import BatchState

N_DAYS, BLOCK, CORES = 30, 131_072, 2
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
FLOATS = [f"x{i:02d}" for i in range(12)]
COUNTS, KINDS = [f"n{i}" for i in range(3)], [f"c{i}" for i in range(3)]


def dataset() -> Dataset:
    """Twenty columns: a key, the time, twelve floats, three integers and three categories; the rest as
    `vaewatch init` leaves it.
    """
    from pipeline.config.dataset import Dataset

    columns: dict[str, dict[str, str]] = {"id": {"type": "int"}, "time": {"type": "timestamp_utc"}}
    columns |= {name: {"type": "float", "role": "numeric"} for name in FLOATS}
    columns |= {name: {"type": "int", "role": "numeric"} for name in COUNTS}
    columns |= {name: {"type": "string", "role": "categorical"} for name in KINDS}
    return Dataset.model_validate({
        "dataset": "window",
        "incoming": {"path": "."},
        "key": ["id"],
        "time": "time",
        "columns": columns,
    })


def cells(first: int, n: int, day: int) -> pa.StructArray:
    """Records of which no two are alike."""
    random = np.random.default_rng([7, first])
    causes = random.standard_normal((n, 3))
    numbers = np.arange(first, first + n)
    times = pa.array(numbers % 86_400_000 * 1000 + round((FIRST + timedelta(days=day)).timestamp()) * 10**6)
    arrays = [pa.array(numbers), times.cast(pa.timestamp("us", "UTC"))]
    arrays += [pa.array(causes[:, i % 3] + 0.5 * random.standard_normal(n)) for i in range(len(FLOATS))]
    arrays += [pa.array(random.poisson(np.exp(1 + 0.3 * causes[:, i]))) for i in range(len(COUNTS))]
    words = pa.array([f"kind {i}" for i in range(20)])
    arrays += [words.take(pa.array(random.integers(0, 20, n))) for _ in KINDS]
    return pa.StructArray.from_arrays(arrays, names=["id", "time", *FLOATS, *COUNTS, *KINDS])


def land(root: Path, n: int) -> dict[str, Any]:
    """A `records` table of so many accepted records in thirty daily batches."""
    from pipeline.storage.tables import Tables

    per_day = n // N_DAYS
    for day in range(N_DAYS):

        def batches(day: int) -> Iterator[pa.RecordBatch]:
            for at in range(0, per_day, BLOCK):
                record = cells(day * per_day + at, min(BLOCK, per_day - at), day)
                keys = record.field("id")
                columns = [
                    pa.repeat(_name(day), len(keys)),
                    pa.repeat(False, len(keys)),
                    keys,
                    keys.cast(pa.string()),
                ]
                yield pa.record_batch(
                    [*columns, pa.nulls(len(keys), pa.list_(pa.string())), record], names=NAMES
                )

        schema = pa.schema([*zip(NAMES, [pa.string(), pa.bool_(), pa.int64(), pa.string(), pa.list_(pa.string())], strict=False), ("record", cells(0, 1, 0).type)])  # fmt: skip
        rows = pa.RecordBatchReader.from_batches(schema, batches(day))
        Tables(root / "tables").replace("records", _name(day), rows, note={})
    return {}


NAMES = ["batch_id", "set_aside", "row_number", "record_key", "reasons", "record"]


def _name(day: int) -> str:
    return f"{FIRST + timedelta(days=day):%Y-%m-%d}"


def states(n: int) -> list[BatchState]:
    from pipeline.storage.ledger import BatchState

    ends = [FIRST + timedelta(days=day, hours=23) for day in range(N_DAYS)]
    return [
        BatchState(
            dataset="window", batch_id=_name(day), version=1, status="accepted", reason="", fingerprint=str(day), signature="",
            contract_hash="", files=[], notes=[], set_aside={}, n_read=n // N_DAYS, n_accepted=n // N_DAYS, newest_record_at=end,
            validated_at=end,
        )
        for day, end in enumerate(ends)
    ]  # fmt: skip


def train(root: Path, n: int) -> dict[str, Any]:
    """Both fits of a nightly training, from reading the window on. Peak, MB; seconds; records that were
    learned.
    """
    import torch

    from pipeline.records.window import choose_window
    from pipeline.storage.tables import Tables
    from pipeline.training import experiment

    torch.set_num_threads(CORES)
    began = time.perf_counter()
    window = choose_window(dataset(), states(n))
    found = experiment.fit(
        dataset(), window, Tables(root / "tables"), root / "scratch", root / "scratch", CORES, None
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    learned = found.learned.num_rows + found.calibrating.num_rows
    return {"peak": peak, "seconds": time.perf_counter() - began, "learned": learned}


def window_lines(plan: Plan) -> list[Line]:
    """Peak of a process that reads the window, samples it and trains."""
    n = 3 * plan.records
    root = plan.scratch / f"window-{n}"
    child("speed_window", "land", root, n)
    found = child("speed_window", "train", root, n)
    work = f"train on a window of {n / 1e6:g} M records of 20 mixed columns: memory"
    ours = f"{found['peak']:.0f} MB, {found['learned']} records learned, {found['seconds']:.0f} s"
    return [Line(work, "", ours, [found["peak"] / 1024], 2.0, False, "GB")]


ROWS = {"window": window_lines}


if __name__ == "__main__":
    what, root, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print(json.dumps({"land": land, "train": train}[what](root, n)))

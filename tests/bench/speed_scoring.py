"""Scoring for `make bench-speed`: from Parquet to published tables, beside decoding, matrix products and
rivals.

As a program: one measurement, printed as JSON; see `measure`.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.speed import Line, Plan, child, ratios

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.dataset import Dataset
    from pipeline.detection.detector import Detector
    from pipeline.storage.tables import Tables
    from vae_core import VAE

N_COLUMNS, BATCH, CORES = 32, "b1", 2
NAMES = [f"x{i:02d}" for i in range(N_COLUMNS)]
BLOCK = 65_536
RIVAL_ROWS = 100_000
Array = np.ndarray[Any, np.dtype[np.float32]]


def drawn(n: int, seed: int) -> Array:
    """Records (n, 32) that six causes explain but for noise."""
    mixing = np.random.default_rng(1).standard_normal((6, N_COLUMNS)).astype(np.float32)
    random = np.random.default_rng([2, seed])
    causes = random.standard_normal((n, 6), dtype=np.float32)
    return causes @ mixing + np.float32(0.5) * random.standard_normal((n, N_COLUMNS), dtype=np.float32)


def dataset() -> Dataset:
    """32 numbers and a key, the rest as `vaewatch init` leaves it."""
    from pipeline.config.dataset import Dataset

    numbers = {name: {"type": "float", "role": "numeric"} for name in NAMES}
    return Dataset.model_validate({
        "dataset": "speed",
        "incoming": {"path": "."},
        "key": ["id"],
        "flag": {"review_budget": 20},
        "columns": {"id": {"type": "int"}, **numbers},
    })


def detector(folder: Path) -> Detector:
    """The default one, trained once."""
    from pipeline.detection.detector import Detector

    if not folder.exists():
        parts = (drawn(20_000, 0), drawn(20_000, 1))
        training, calibrating = (pa.table(dict(zip(NAMES, part.T.copy(), strict=True))) for part in parts)
        Detector.train(dataset(), training, calibrating, records_per_day=1e7).save(folder)
    return Detector.load(folder)


def land(tables: Tables, n: int) -> None:
    """A `records` table with one accepted batch; its blocks of records are drawn anew sixteen times, then
    again.
    """
    cells = pa.struct([("id", pa.int64()), *[(name, pa.float32()) for name in NAMES]])
    blocks = [drawn(BLOCK, 10 + i).T.copy() for i in range(min(16, 1 + n // BLOCK))]
    schema = pa.schema([
        ("batch_id", pa.string()),
        ("set_aside", pa.bool_()),
        ("row_number", pa.int64()),
        ("record_key", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("record", cells),
    ])

    def batches() -> Iterator[pa.RecordBatch]:
        for first in range(0, n, BLOCK):
            block = blocks[first // BLOCK % len(blocks)][:, : n - first]
            m = block.shape[1]
            numbers = pa.array(np.arange(first, first + m))
            record = pa.StructArray.from_arrays([numbers, *map(pa.array, block)], fields=list(cells))
            columns = [pa.repeat(BATCH, m), pa.repeat(False, m), numbers, numbers.cast(pa.string())]
            yield pa.record_batch(
                [*columns, pa.nulls(m, schema.field("reasons").type), record], schema=schema
            )

    tables.replace("records", BATCH, pa.RecordBatchReader.from_batches(schema, batches()), note={})


def products(vae: VAE) -> int:
    """Floating-point operations of a record's matrix products, as the model defines them."""
    from vae_core.layers import MemberLinear
    from vae_core.priors import Mixture

    n_weights = sum(m.weight.numel() for m in vae.modules() if isinstance(m, MemberLinear))
    if isinstance(vae.prior, Mixture):
        n_weights += 2 * vae.prior.mean.numel()
    return 2 * (n_weights + (vae.linear.precision.numel() if vae.linear is not None else 0))


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _decode(tables: Tables) -> None:
    """Every record into a float32 matrix, a slice at a time, and nothing else."""
    numbers: Array = np.empty((N_COLUMNS, BLOCK), np.float32)
    for file in tables.files("records", [BATCH], flag=False):
        for batch in pq.ParquetFile(file).iter_batches(BLOCK, columns=["record"]):
            for i, name in enumerate(NAMES):
                numbers[i, : batch.num_rows] = batch["record"].field(name)


def _multiply(operations: float, by: Callable[[Tensor, Tensor], Tensor]) -> None:
    """So many floating-point operations in matrix products of a size that suits the machine."""
    import torch

    left, right = (torch.randn(1024, 1024) for _ in range(2))
    for _ in range(max(1, round(operations / (2 * 1024**3)))):
        by(left, right)


def measure(what: str, root: Path, n: int, repeats: int) -> dict[str, Any]:
    """rates: seconds (wall and CPU) of ours, decoding, products (by the faster of two libraries) and the
    rivals in turn; memory: the peak of one scoring, MB.
    """
    import torch

    from pipeline.detection import scoring
    from pipeline.storage.ledger import BatchState
    from pipeline.storage.tables import Tables
    from vae_core.layers import product

    torch.set_num_threads(CORES)
    model, tables = detector(root / "detector"), Tables(root / f"tables-{n}")
    if not tables.exists("records"):
        land(tables, n)
        return {}
    now = datetime.now(UTC)
    state = BatchState(
        dataset="speed", batch_id=BATCH, version=1, status="accepted", reason="", fingerprint="", signature="",
        contract_hash="", files=[], notes=[], set_aside={}, n_read=n, n_accepted=n, newest_record_at=None, validated_at=now,
    )  # fmt: skip

    def ours() -> None:
        shutil.rmtree(tables.root / "scores", ignore_errors=True)
        scoring.score_batch(dataset(), state, model, 1, tables, scratch=root / "scratch", threads=CORES)

    if what == "memory":
        ours()
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    works = {"ours": ours, "decode": lambda: _decode(tables)}
    for name, by in (("torch.mm", torch.mm), ("ours", product)):
        works[f"products by {name}"] = partial(_multiply, n * products(model.vae), by)
    works |= rivals()
    rounds = [{name: _timed(work) for name, work in works.items()} for _ in range(repeats)]
    for found in rounds:
        found["products"] = min(found["products by torch.mm"], found["products by ours"])
    return {"rounds": rounds, "operations": products(model.vae)}


def rivals() -> dict[str, Callable[[], Any]]:
    """PyOD's decision functions on RIVAL_ROWS records in memory, by name and number of threads."""
    import torch
    from pyod.models import vae
    from pyod.models.iforest import IForest

    training, rows = drawn(2_000, 0), drawn(RIVAL_ROWS, 1)

    def of(model: Any, threads: int) -> Callable[[], Any]:
        model.fit(training)

        def work() -> None:
            torch.set_num_threads(threads)
            model.decision_function(rows)
            torch.set_num_threads(CORES)

        return work

    each = range(1, CORES + 1)
    return {
        **{f"VAE {n}": of(vae.VAE(epoch_num=1, verbose=0), n) for n in each},
        **{f"IForest {n}": of(IForest(n_jobs=n), n) for n in each},
    }


def score_lines(plan: Plan) -> list[Line]:
    """From Parquet to published tables."""
    child("speed_scoring", "rates", plan.scratch, plan.records, 1)  # lands the batch
    found = child("speed_scoring", "rates", plan.scratch, plan.records, plan.repeats)
    n, rounds = plan.records, found["rounds"]
    ours = [n / r["ours"][0] for r in rounds]
    floor = [n / max(r["decode"][0], r["products"][0]) for r in rounds]
    cpu = [max(r["decode"][1], r["products"][1]) / r["ours"][1] for r in rounds]
    decode, multiply = (n / np.median([r[x][0] for r in rounds]) for x in ("decode", "products"))
    lines = [
        Line(
            f"score {n / 1e6:g} M records of 32 columns, Parquet to published tables",
            f"decode {decode / 1e6:.2f} M/s, products ({found['operations'] / 1e3:.0f} kFLOP) {multiply / 1e6:.2f} M/s",
            f"{np.median(ours) / 1e6:.2f} M/s, {np.median([r['ours'][1] for r in rounds]) / n * 1e6:.2f} µs of CPU a record",
            ratios(ours, floor), 0.6, True, "%", f"of CPU seconds {np.median(cpu):.0%}",
        )
    ]  # fmt: skip
    for name, default, reach in (("VAE", CORES, 25), ("IForest", 1, 4)):
        rates = {t: [RIVAL_ROWS / r[f"{name} {t}"][0] for r in rounds] for t in range(1, CORES + 1)}
        others = "; ".join(
            f"on {t} core{'s' * (t > 1)} {np.median(ratios(ours, rate)):.3g} ×"
            for t, rate in rates.items()
            if t != default
        )
        work = f"the same beside PyOD's {name} as it comes, its rows in memory"
        floor_shown, ours_shown = (
            f"{np.median(rates[default]) / 1e3:.0f} k/s",
            f"{np.median(ours) / 1e6:.2f} M/s",
        )
        lines.append(
            Line(work, floor_shown, ours_shown, ratios(ours, rates[default]), reach, True, note=others)
        )
    return lines


def memory_lines(plan: Plan) -> list[Line]:
    """Peak of a process that scores the large batch, beside one of a million."""
    small = min(1_000_000, plan.records)
    for n in {small, plan.records}:
        if not (plan.scratch / f"tables-{n}").exists():
            child("speed_scoring", "memory", plan.scratch, n, 1)
    peaks = {n: [child("speed_scoring", "memory", plan.scratch, n, 1)["peak"] for _ in range(2)] for n in (small, plan.records)}  # fmt: skip
    few, many = f"{small / 1e6:g} M: {min(peaks[small]):.0f} MB", f"{min(peaks[plan.records]):.0f} MB"
    work = f"memory while scoring {plan.records / 1e6:g} M records"
    return [
        Line(work, few, many, ratios(peaks[plan.records], peaks[small]), 1.1, False),
        Line(f"{work}, in all", "", many, [x / 1024 for x in peaks[plan.records]], 1.0, False, "GB"),
    ]


ROWS = {"score": score_lines, "memory": memory_lines}


if __name__ == "__main__":
    first, *others = sys.argv[1:]
    print(json.dumps(measure(first, Path(others[0]), int(others[1]), int(others[2]))))

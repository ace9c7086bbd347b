"""A training to register, a real MLflow to register it with, and direct questions to that."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

CONTRACT = {
    "dataset": "orders",
    "incoming": {"path": "incoming"},
    "columns": {
        "amount": {"type": "float", "role": "numeric"},
        "pieces": {"type": "int", "role": "numeric"},
        "shop": {"type": "int", "role": "categorical"},
        "kind": {"type": "string", "role": "categorical"},
        "paid": {"type": "bool", "role": "categorical"},
        "at": {"type": "timestamp_utc", "role": "context"},
    },
    "train": {"recipe": {"steps": 3}},
}


ELSEWHERE = "tracking address"


def orders(n: int, seed: int, missing: float = 0.0) -> pa.Table:
    """n records; a share of every column is missing."""
    rng = np.random.default_rng(seed)

    def column(values: Any, type_: pa.DataType) -> pa.Array:
        return pa.array(values, type_, mask=rng.random(n) < missing)

    return pa.table({
        "amount": column(rng.normal(size=n), pa.float64()),
        "pieces": column(rng.integers(0, 9, n), pa.int64()),
        "shop": column(10**15 + rng.integers(0, 3, n), pa.int64()),
        "kind": column(rng.choice(["in", "out"], n), pa.string()),
        "paid": column(rng.random(n) < 0.5, pa.bool_()),
        "at": column(rng.integers(0, 10**15, n), pa.timestamp("us", "UTC")),
    })


def start(code: str) -> subprocess.Popen[str]:
    """Run a script in a fresh Python."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> int:
    output, _ = process.communicate(timeout=300)
    print(output)
    return process.returncode


def tracking_uri(home: Path) -> str:
    """Of an installation's MLflow: SQLite, unless a file says that it is on PostgreSQL."""
    elsewhere = home / ELSEWHERE
    return elsewhere.read_text() if elsewhere.exists() else f"sqlite:///{home}/mlflow.db"


def client(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri(home), registry_uri=tracking_uri(home))


def add_versions(home: Path, dataset: str, n: int) -> None:
    """Versions with nothing in them: enough to be promoted."""
    mlflow = client(home)
    mlflow.create_registered_model(f"vaewatch.{dataset}")
    for _ in range(n):
        mlflow.create_model_version(f"vaewatch.{dataset}", "file:///nowhere")


def logged_runs(home: Path, dataset: str = "orders") -> list[Any]:
    mlflow = client(home)
    return list(mlflow.search_runs([mlflow.get_experiment_by_name(f"vaewatch/{dataset}").experiment_id]))

"""Batches in DuckDB files, as validation prepares them, and a contract for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import expectations, sql
from pipeline.config.contracts import RowRule, kept_columns, typed
from pipeline.config.dataset import Dataset

LANDED = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
ORDERS = Dataset.model_validate({
    "dataset": "orders",
    "incoming": {"path": "in"},
    "key": ["region", "order"],
    "time": "placed",
    "columns": {
        "region": {"type": "string"},
        "order": {"type": "int"},
        "amount": {"type": "float", "role": "numeric", "min": 0.1, "max": 99.5},
        "weight": {"type": "float", "role": "numeric", "min": 0},
        "items": {"type": "int", "max": 2**53},
        "price": {"type": "decimal(12,2)", "min": 0.01, "max": 10},
        "status": {"type": "string", "values": ["open", "it's", "50%", ":x", "{y}", ""]},
        "code": {"type": "string", "pattern": "[A-C]{1,2}:x|50%|"},
        "nothing": {"type": "string", "values": []},
        "placed": {"type": "timestamp_utc", "required": True},
    },
    "batch": {"max_age_days": 2, "max_set_aside": 0.5},
})
SCHEMA = pa.schema([
    ("region", pa.string()),
    ("order", pa.int64()),
    ("amount", pa.float32()),
    ("weight", pa.float64()),
    ("items", pa.int64()),
    ("price", pa.decimal128(12, 2)),
    ("status", pa.string()),
    ("code", pa.string()),
    ("nothing", pa.string()),
    ("placed", pa.timestamp("us", tz="UTC")),
])


def prepare(folder: Path, dataset: Dataset, table: pa.Table, rules: Sequence[RowRule]) -> Path:
    """A database file as validation prepares it: a view over Parquet, typed, with vaewatch_row and
    vaewatch_set_aside.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "batch.parquet")
    columns = ", ".join(f"{typed(n, c)} AS {sql.name(n)}" for n, c in kept_columns(dataset).items())
    source = f"read_parquet({sql.text(str(folder / 'batch.parquet'))}, file_row_number = true)"
    marks = " OR ".join(f"({rule.violates})" for rule in rules) or "false"
    with sql.database(folder, threads=2, file=folder / "batch.duckdb") as connection:
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute(
            f"CREATE VIEW typed AS SELECT {columns}, file_row_number AS vaewatch_row FROM {source}"
        )
        connection.execute(
            f"CREATE VIEW batch AS SELECT *, ({marks}) AS vaewatch_set_aside, NULL AS vaewatch_reasons FROM typed"
        )
    return folder / "batch.duckdb"


def count(database: Path, rules: Sequence[RowRule]) -> list[int]:
    """How many records break each rule, by the rules' own SQL."""
    broken = ", ".join(f"({rule.violates}) AS v{i}" for i, rule in enumerate(rules))
    sums = ", ".join(f"coalesce(sum(CAST(v{i} AS INT)), 0)" for i in range(len(rules)))
    with sql.database(database.parent, threads=2, file=database) as connection:
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        return [
            int(n) for n in connection.execute(f"SELECT {sums} FROM (SELECT {broken} FROM batch)").fetchone()
        ]


def check(database: Path, rules: Sequence[Any], **options: Any) -> expectations.CheckpointResult:
    """`expectations.check` with what most tests do not care about."""
    chosen = {
        "dataset": "orders",
        "batch_id": "2026-03-01",
        "mostly": 0.5,
        "report": database.parent / "report",
        "landed_at": LANDED,
        "threads": 2,
    }
    return expectations.check(database, rules=rules, **{**chosen, **options})


def relation(folder: Path, select: str) -> Path:
    """A database file whose `batch` is a query's result."""
    path = folder / "batch.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE batch AS {select}")
    return path


def numbers(folder: Path, values: str) -> Path:
    """A `batch` with one float column, x."""
    return relation(
        folder,
        f"SELECT CAST(x AS DOUBLE) AS x, row_number() OVER () - 1 AS vaewatch_row, false AS vaewatch_set_aside FROM (VALUES {values}) AS t(x)",
    )

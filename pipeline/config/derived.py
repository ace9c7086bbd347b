"""Columns computed by SQL from a record and from the ones before it, across the boundaries of batches.

Belongs here: the relation of accepted records with their derived columns. Does not: what is done with it
(training/training_set.py, detection/scoring.py). An expression is DuckDB's, over the dataset's columns. Three
windows look back:

    by_time    every earlier record, in order of time: Redox - lag(Redox) OVER by_time
    the_hour   records of the last hour:               Redox - median(Redox) OVER the_hour
    the_day    records of the last day

Each is within the record's `entity`, where the dataset has one. Nothing looks ahead: a value is the same
whatever comes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import sql
from pipeline.config.contracts import kept_columns, sql_type

if TYPE_CHECKING:
    from datetime import datetime

    from pipeline.config.dataset import Dataset

BATCH, ROW, KEY = '"vaewatch batch"', '"vaewatch row"', '"vaewatch key"'


def accepted(dataset: Dataset, files: Sequence[str], *, since: datetime | None = None) -> str:
    """Return SQL for the accepted records in these files of the `records` table, with derived columns.

    Columns: BATCH, ROW, KEY, every column of the contract, every derived one as DOUBLE.

    Args:
        since: leave out earlier records.
    """
    columns = ", ".join(f"record.{sql.name(name)} AS {sql.name(name)}" for name in kept_columns(dataset))
    later = (
        f"WHERE CAST(record.{sql.name(dataset.time)} AS TIMESTAMP) >= '{since:%Y-%m-%d %H:%M:%S.%f}'"
        if since and dataset.time
        else ""
    )
    plain = f"""SELECT batch_id AS {BATCH}, row_number AS {ROW}, record_key AS {KEY}, {columns}
        FROM read_parquet([{", ".join(map(sql.text, files))}], hive_partitioning = true,
        hive_types = {{batch_id: VARCHAR, set_aside: BOOLEAN}}, union_by_name = true) {later}"""
    return beside(dataset, plain)


def beside(dataset: Dataset, records: str) -> str:
    """Return SQL for a relation's records with their derived columns.

    The relation must have BATCH, ROW and the contract's columns.
    """
    if not dataset.derived:
        return records
    return f"SELECT *, {', '.join(_expressions(dataset))} FROM ({records}) {_windows(dataset)}"


def faults(dataset: Dataset) -> list[tuple[str, str]]:
    """Return derived columns whose expression DuckDB would refuse, and why."""
    import duckdb

    found: list[tuple[str, str]] = []
    if not dataset.derived:
        return found
    with duckdb.cursor() as connection:  # our own: the process's refuses queries while it is busy
        for name in dataset.derived:
            try:
                connection.execute(_trial(dataset, name))
            except duckdb.Error as fault:
                found.append((name, str(fault).partition("\n")[0]))
    return found


def _trial(dataset: Dataset, name: str) -> str:
    columns = ", ".join(
        f"NULL::{sql_type(column)} AS {sql.name(n)}" for n, column in kept_columns(dataset).items()
    )
    nothing = f"SELECT '' AS {BATCH}, 0 AS {ROW}, '' AS {KEY}, {columns} WHERE false"
    expression = dataset.derived[name].sql
    return f"SELECT CAST(({expression}) AS DOUBLE) FROM ({nothing}) {_windows(dataset)}"


def definitions(dataset: Dataset) -> dict[str, Any]:
    """Return the definitions of derived columns, to tell whether a model learned them as they are now."""
    if not dataset.derived:
        return {}
    return {
        "entity": dataset.entity,
        "look_back_days": dataset.look_back_days,
        "sql": {name: derived.sql for name, derived in dataset.derived.items()},
    }


def _expressions(dataset: Dataset) -> list[str]:
    return [
        f"CAST(({derived.sql}) AS DOUBLE) AS {sql.name(name)}" for name, derived in dataset.derived.items()
    ]


def _windows(dataset: Dataset) -> str:
    whose = f"PARTITION BY {', '.join(map(sql.name, dataset.entity))} " if dataset.entity else ""
    time = sql.name(dataset.time or "")
    spans = {"the_hour": "1 HOUR", "the_day": "1 DAY"}
    windows = [f"by_time AS ({whose}ORDER BY {time}, {BATCH}, {ROW})"]
    windows += [
        f"{name} AS ({whose}ORDER BY {time} RANGE BETWEEN INTERVAL {span} PRECEDING AND CURRENT ROW)"
        for name, span in spans.items()
    ]
    return "WINDOW " + ", ".join(windows)

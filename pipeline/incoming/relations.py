"""What DuckDB makes of a batch's files: its records typed, those that break a rule marked, and their counts.

Belongs here: the relations that every check queries, and SQL over them. Does not: what the rules are
(config/contracts.py), or what becomes of the batch (validation.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import sql
from pipeline.config.contracts import AHEAD, RowRule, kept_columns, typed
from pipeline.config.dataset import Dataset
from pipeline.errors import CheckCrashed
from pipeline.incoming import guard
from pipeline.incoming.batches import LandedBatch

if TYPE_CHECKING:
    import duckdb

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATABASE = "batch.duckdb"
PERIOD_FORMAT = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True)
class Tally:
    """Counts over a batch's records.

    Attributes:
        newest: time of the newest accepted record; one dated in the future only where all are.
        n_ahead: accepted records that are dated in the future.
        latest: time of the newest accepted record, those dated in the future included.
        middle: time that about half of the accepted records lie before.
    """

    n_read: int
    n_accepted: int
    reasons: dict[str, int]
    newest: datetime | None
    n_ahead: int = 0
    latest: datetime | None = None
    middle: datetime | None = None


def lay(
    dataset: Dataset,
    batch: LandedBatch,
    reports: Sequence[guard.FileReport],
    rules: Sequence[RowRule],
    scratch: Path,
    threads: int,
) -> Tally:
    """Create the relations `typed`, `marks` (rule breakers) and `batch` in scratch/DATABASE, and count."""
    links = _links(batch, reports, scratch)
    with sql.database(scratch, threads=threads, file=scratch / DATABASE) as connection:
        kept = ", ".join(
            f"{typed(name, column)} AS {sql.name(name)}" for name, column in kept_columns(dataset).items()
        )
        connection.execute(
            f"""CREATE VIEW typed AS SELECT {kept},
                CAST(split_part(split_part(vaewatch_file, '/', -1), '.', 1) AS BIGINT) + file_row_number AS vaewatch_row
                FROM read_parquet({links}, union_by_name = true, filename = 'vaewatch_file', file_row_number = true, hive_partitioning = false)
                {_where(dataset, batch)}"""
        )
        # a rule must see every record: pushed into the reader, it would skip those that a file's statistics
        # rule out
        connection.execute("SET disabled_optimizers = 'statistics_propagation,filter_pushdown'")
        connection.execute(f"CREATE TABLE marks AS {_marks(connection, rules)}")
        (n_marks,) = _one(connection, "SELECT count(*) FROM marks")
        # a batch without a fault, the common case, needs no join in later queries
        reasons, join = (
            ("vaewatch_reasons", "LEFT JOIN marks USING (vaewatch_row)")
            if n_marks
            else ("NULL::VARCHAR[]", "")
        )
        connection.execute(
            f"""CREATE VIEW batch AS SELECT typed.*, {reasons} IS NOT NULL AS vaewatch_set_aside, {reasons} AS vaewatch_reasons
               FROM typed {join}"""
        )
        return _tally(connection, dataset)


def _marks(connection: duckdb.DuckDBPyConnection, rules: Sequence[RowRule]) -> str:
    """Return SQL for the rows that break a rule, with the reasons in the rules' order.

    Reasons are computed for those rows alone; which record of a key came first, only where a key repeats.
    """
    single = [rule for rule in rules if rule.code != "duplicate_key"]
    reasons = ", ".join(f"CASE WHEN {rule.violates} THEN {sql.text(rule.reason)} END" for rule in single)
    broken = " OR ".join(f"({rule.violates})" for rule in single) or "false"
    marked = [
        f"""SELECT vaewatch_row, list_filter([{reasons}]::VARCHAR[], lambda reason: reason IS NOT NULL) AS reasons, 0 AS nth
            FROM typed WHERE {broken}"""
    ]
    marked += [
        f"SELECT vaewatch_row, [{sql.text(rule.reason)}], 1 FROM typed QUALIFY {rule.violates}"
        for rule in rules
        if rule.code == "duplicate_key" and _repeats(connection, rule.columns)
    ]
    return f"""SELECT vaewatch_row, flatten(list(reasons ORDER BY nth)) AS vaewatch_reasons
        FROM ({" UNION ALL ".join(marked)}) GROUP BY vaewatch_row"""


def _repeats(connection: duckdb.DuckDBPyConnection, key: Sequence[str]) -> bool:
    columns = ", ".join(map(sql.name, key))
    present = " AND ".join(f"{sql.name(name)} IS NOT NULL" for name in key)
    query = f"SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM typed WHERE {present} GROUP BY {columns})"
    return bool(_one(connection, query)[0])


def _links(batch: LandedBatch, reports: Sequence[guard.FileReport], scratch: Path) -> list[str]:
    """Link each file under a name that says where its records start: DuckDB reads [ and * as patterns."""
    links: list[str] = []
    first = 0
    for file, report in zip(batch.files, reports, strict=True):
        link = scratch / f"{first}.{len(links)}.parquet"
        link.symlink_to(file.path)
        links.append(str(link))
        first += report.n_records
    return links


def _where(dataset: Dataset, batch: LandedBatch) -> str:
    if batch.period is None or dataset.time is None or dataset.incoming.split is None:
        return ""
    label = f"strftime({sql.name(dataset.time)}, {sql.text(PERIOD_FORMAT[dataset.incoming.split])})"
    if batch.period:
        return f"WHERE {label} = {sql.text(batch.period)}"
    inside = ", ".join(map(sql.text, batch.inside))
    return f"WHERE {label} IS NULL" + (f" OR {label} NOT IN ({inside})" if inside else " OR true")


def _tally(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> Tally:
    time = f"epoch_us(CAST({sql.name(dataset.time)} AS TIMESTAMP))" if dataset.time else "NULL::BIGINT"
    last = (datetime.now(UTC) + AHEAD - EPOCH) // timedelta(microseconds=1)
    n_read, n_aside, newest, n_ahead, latest, middle = _one(
        connection,
        f"""SELECT count(*), count(*) FILTER (vaewatch_set_aside), max(happened) FILTER (accepted AND happened <= {last}),
            count(*) FILTER (accepted AND happened > {last}), max(happened) FILTER (accepted),
            approx_quantile(happened, 0.5) FILTER (accepted)
            FROM (SELECT vaewatch_set_aside, NOT vaewatch_set_aside AS accepted, {time} AS happened FROM batch)""",
    )
    newest = latest if newest is None else newest
    reasons = connection.execute(
        "SELECT unnest(vaewatch_reasons) AS reason, count(*) FROM marks GROUP BY 1 ORDER BY 1"
    )
    counts = dict(reasons.fetchall())
    return Tally(
        n_read, n_read - n_aside, counts, _as_time(newest), n_ahead, _as_time(latest), _as_time(middle)
    )


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    if row is None:
        raise CheckCrashed(f"no answer to: {query}")
    return row


def _as_time(microseconds: int | None) -> datetime | None:
    if microseconds is None:
        return None
    try:
        return EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:  # a year beyond 9999: no use as a date
        return None


def published(dataset: Dataset, batch: LandedBatch) -> str:
    """Return SQL for the rows of the `records` table, from the relation `batch`."""
    packed = ", ".join(f"{sql.name(name)} := batch.{sql.name(name)}" for name in kept_columns(dataset))
    return f"""SELECT {sql.text(batch.batch_id)} AS batch_id, batch.vaewatch_set_aside AS set_aside,
        batch.vaewatch_row AS row_number, {record_key(dataset)} AS record_key, vaewatch_reasons AS reasons,
        struct_pack({packed}) AS record FROM batch {"" if dataset.key else "ORDER BY row_number"}"""


def record_key(dataset: Dataset) -> str:
    """Return SQL for a record's identity: its key columns, or its content and which occurrence this is."""
    if dataset.key:
        texts = [f"CAST(batch.{sql.name(name)} AS VARCHAR)" for name in dataset.key]
        if len(texts) > 1:  # 'a|' and 'b' are not 'a' and '|b'
            texts = [rf"replace(replace({text}, '\', '\\'), '|', '\|')" for text in texts]
        key = " || '|' || ".join(texts)
        return f"coalesce({key}, 'row-' || batch.vaewatch_row)"
    cells = (f"coalesce(CAST(batch.{sql.name(name)} AS VARCHAR), chr(30))" for name in kept_columns(dataset))
    content = f"left(sha256(concat_ws(chr(31), {', '.join(cells)})), 24)"
    return f"{content} || '-' || row_number() OVER (PARTITION BY {content} ORDER BY batch.vaewatch_row)"

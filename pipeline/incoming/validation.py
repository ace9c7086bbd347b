"""Does a batch keep its contract? Accepted records, records set aside with reasons, or the whole batch
refused.

Belongs here: one batch from files to the `records` table. Does not: what the rules are (config/contracts.py),
how Great Expectations runs them (expectations/), or what was done before (storage/ledger.py).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline import sql
from pipeline.config.contracts import (
    AHEAD,
    RowRule,
    batch_rules,
    fit_schema,
    kept_columns,
    row_rules,
    typed,
)
from pipeline.config.dataset import Dataset
from pipeline.errors import CheckCrashed
from pipeline.incoming import guard
from pipeline.incoming.batches import LandedBatch
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import duckdb

SLICE = 16_384  # rows handed to the writer at once, which keeps a few dozen of them in hand
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PERIOD_FORMAT = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True)
class Checked:
    """What validation found. Every record read is either accepted or set aside.

    Attributes:
        refusal: why the whole batch was refused; "" where it was accepted.
        set_aside: records per reason, e.g. {"out_of_range:amount": 3}; a record may have several reasons.
        notes: what was accepted but is worth knowing (widened types, new columns, dates in the future).
        ahead: the one of the notes that needs attention at once, of dates in the future; "" for none.
        newest_record_at: of the accepted ones; of those dated in the future only where all are.
    """

    fingerprint: str
    n_read: int
    n_accepted: int = 0
    refusal: str = ""
    set_aside: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ahead: str = ""
    newest_record_at: datetime | None = None


@dataclass(frozen=True)
class _Tally:
    n_read: int
    n_accepted: int
    reasons: dict[str, int]
    newest: datetime | None
    n_ahead: int = 0
    latest: datetime | None = None


def examine(dataset: Dataset, batch: LandedBatch, *, threads: int = 1) -> list[guard.FileReport]:
    """Read a batch's files once, safely.

    What `validate` needs is imported meanwhile.

    Raises:
        UnreadableFile: a file is not sound Parquet.
    """
    from pipeline import expectations

    return guard.inspect(
        [f.path for f in batch.files],
        columns=list(kept_columns(dataset)),
        time=dataset.time,
        split=dataset.incoming.split,
        processes=threads,
        meanwhile=expectations.load,
    )


def validate(
    dataset: Dataset,
    batch: LandedBatch,
    reports: Sequence[guard.FileReport],
    tables: Tables,
    *,
    scratch: Path,
    page: Path,
    threads: int,
) -> Checked:
    """Check a batch against its contract and, where it is accepted, publish its records.

    Args:
        reports: what `examine` found, one per file.
        scratch: a folder of our own, removed on return.
        page: folder for the Checkpoint result and its Data Docs page.

    Raises:
        CheckCrashed: a check could not be carried out; nothing was published.
        StorageFailed: nothing was published.
    """
    fingerprint = batch.fingerprint(report.digest for report in reports)
    n_read = count_records(batch, reports)
    named = {file.relative: report.schema for file, report in zip(batch.files, reports, strict=True)}
    fit = fit_schema(dataset, named)
    notes = (
        *fit.widenings,
        *(f"column {name!r} is not in the contract: left out" for name in fit.new_columns),
    )
    if fit.refusals:
        report_refusal(dataset, batch, fit.refusals, page)
        return Checked(fingerprint, n_read, refusal="; ".join(fit.refusals), notes=notes)
    rules = [RowRule("outside_period", dataset.time, "true")] if batch.period == "" else row_rules(dataset)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        tally = _prepare(dataset, batch, _links(batch, reports, scratch), rules, scratch, threads)
        if tally.n_read != n_read:
            raise CheckCrashed(
                f"batch {batch.batch_id}: {n_read} records were announced and {tally.n_read} read"
            )
        ahead = _ahead(tally, dataset)
        notes += (ahead,) if ahead else ()
        refusal = _check(dataset, batch, rules, tally, notes, scratch, page, threads)
        if not refusal:
            _publish(dataset, batch, tally, fingerprint, tables, scratch, threads)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    n_accepted = 0 if refusal else tally.n_accepted
    return Checked(fingerprint, n_read, n_accepted, refusal, tally.reasons, notes, ahead, tally.newest)


def report_refusal(dataset: Dataset, batch: LandedBatch, reasons: Sequence[str], page: Path) -> None:
    """Lay the page of a batch whose files cannot be checked in the place of an earlier delivery's."""
    from pipeline import expectations

    expectations.report_refusal(
        page,
        dataset=dataset.name,
        batch_id=batch.batch_id,
        reasons=reasons,
        contract=dataset.named_file,
    )


def count_records(batch: LandedBatch, reports: Sequence[guard.FileReport]) -> int:
    """Records of a batch: all of its files', or those of its period where a delivery is split."""
    if batch.period is None:
        return sum(report.n_records for report in reports)
    if batch.period:
        return sum(report.periods.get(batch.period, 0) for report in reports)
    return sum(n for report in reports for period, n in report.periods.items() if period not in batch.inside)


def _prepare(
    dataset: Dataset,
    batch: LandedBatch,
    links: list[str],
    rules: Sequence[RowRule],
    scratch: Path,
    threads: int,
) -> _Tally:
    """Lay the relations that everything else asks: `typed`, `marks` (rule breakers) and `batch`."""
    with sql.database(scratch, threads=threads, file=scratch / "batch.duckdb") as connection:
        kept = ", ".join(
            f"{typed(name, column)} AS {sql.name(name)}" for name, column in kept_columns(dataset).items()
        )
        connection.execute(
            f"""CREATE VIEW typed AS SELECT {kept},
                CAST(split_part(split_part(vaewatch_file, '/', -1), '.', 1) AS BIGINT) + file_row_number AS vaewatch_row
                FROM read_parquet({links}, union_by_name = true, filename = 'vaewatch_file', file_row_number = true, hive_partitioning = false)
                {_where(dataset, batch)}"""
        )
        # a rule must see every record: pushed into the reader it would skip what a file's statistics deny
        connection.execute("SET disabled_optimizers = 'statistics_propagation,filter_pushdown'")
        connection.execute(f"CREATE TABLE marks AS {_marks(connection, rules)}")
        (n_marks,) = _one(connection, "SELECT count(*) FROM marks")
        # a batch without a fault, the common case, is spared a join in every later query
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
    """SQL for the rows that break a rule, with the reasons in the rules' order.

    Reasons are looked for in those rows alone; and which record of a key came first, only where a key is
    there twice.
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
    """Give each file a plain name that says where its records start: DuckDB would read [ and * as
    patterns.
    """
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


def _tally(connection: duckdb.DuckDBPyConnection, dataset: Dataset) -> _Tally:
    time = f"epoch_us(CAST({sql.name(dataset.time)} AS TIMESTAMP))" if dataset.time else "NULL::BIGINT"
    last = (datetime.now(UTC) + AHEAD - EPOCH) // timedelta(microseconds=1)
    n_read, n_aside, newest, n_ahead, latest = _one(
        connection,
        f"""SELECT count(*), count(*) FILTER (vaewatch_set_aside), max(happened) FILTER (accepted AND happened <= {last}),
            count(*) FILTER (accepted AND happened > {last}), max(happened) FILTER (accepted)
            FROM (SELECT vaewatch_set_aside, NOT vaewatch_set_aside AS accepted, {time} AS happened FROM batch)""",
    )
    newest = latest if newest is None else newest
    reasons = connection.execute(
        "SELECT unnest(vaewatch_reasons) AS reason, count(*) FROM marks GROUP BY 1 ORDER BY 1"
    )
    counts = dict(reasons.fetchall())
    return _Tally(n_read, n_read - n_aside, counts, _as_time(newest), n_ahead, _as_time(latest))


def _ahead(tally: _Tally, dataset: Dataset) -> str:
    """What to say of accepted records that are dated in the future; no contract bounds a time by itself."""
    if not tally.n_ahead:
        return ""
    are = "1 record is" if tally.n_ahead == 1 else f"{tally.n_ahead} records are"
    latest = f"{tally.latest:%Y-%m-%d %H:%M}" if tally.latest else "beyond the year 9999"
    split = (
        ""
        if dataset.incoming.split
        else "; where deliveries are named by their day, incoming.split: day sets such records aside"
    )
    return (
        f"{are} dated more than a day after being read, the latest {latest}: no day or window goes by "
        f"such a date; have the source set {dataset.time!r} right and deliver the batch again{split}"
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


def _check(
    dataset: Dataset,
    batch: LandedBatch,
    rules: Sequence[RowRule],
    tally: _Tally,
    notes: Sequence[str],
    scratch: Path,
    page: Path,
    threads: int,
) -> str:
    """Run the contract as a Great Expectations suite; returns why the batch is refused, or ""."""
    from pipeline import expectations

    whole = [] if batch.period == "" else batch_rules(dataset)
    result = expectations.check(
        scratch / "batch.duckdb",
        dataset=dataset.name,
        batch_id=batch.batch_id,
        rules=[*rules, *whole],
        mostly=0.0 if batch.period == "" else 1 - dataset.batch.max_set_aside,
        report=page,
        notes=notes,
        landed_at=datetime.fromtimestamp(max(file.mtime_ns for file in batch.files) / 1e9, UTC),
        threads=threads,
    )
    for rule, outcome in zip(rules, result.outcomes, strict=False):
        ours = tally.reasons.get(rule.reason, 0)
        if outcome.n_unexpected != ours:
            raise CheckCrashed(
                f"batch {batch.batch_id}, {rule.reason}: Great Expectations counts {outcome.n_unexpected} records, "
                f"the rule that sets records aside {ours}; this is a fault of vaewatch, please report it"
            )
    failed = [o for o in result.outcomes[len(rules) :] if not o.success]
    most = sorted(tally.reasons.items(), key=lambda item: -item[1])[:3]
    because = f" ({', '.join(f'{reason} {n}' for reason, n in most)})" if most else ""
    return "; ".join(
        f"{o.code}: {o.observed}, promised: {o.promise}{because if o.code == 'share_set_aside' else ''}"
        for o in failed
    )


def _publish(
    dataset: Dataset,
    batch: LandedBatch,
    tally: _Tally,
    fingerprint: str,
    tables: Tables,
    scratch: Path,
    threads: int,
) -> None:
    columns = kept_columns(dataset)
    packed = ", ".join(f"{sql.name(name)} := batch.{sql.name(name)}" for name in columns)
    query = f"""SELECT {sql.text(batch.batch_id)} AS batch_id, batch.vaewatch_set_aside AS set_aside,
        batch.vaewatch_row AS row_number, {_record_key(dataset)} AS record_key, vaewatch_reasons AS reasons,
        struct_pack({packed}) AS record FROM batch {"" if dataset.key else "ORDER BY row_number"}"""
    note = {"fingerprint": fingerprint, "n_read": str(tally.n_read), "n_accepted": str(tally.n_accepted)}
    with sql.database(scratch, threads=threads, file=scratch / "batch.duckdb") as connection:
        tables.replace("records", batch.batch_id, lambda: _rows(connection, query), note=note)


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
    reader: pa.RecordBatchReader = connection.sql(query).to_arrow_reader(SLICE)
    return reader


def _record_key(dataset: Dataset) -> str:
    """SQL for what identifies a record: its key columns, or its content and how often it was seen before."""
    if dataset.key:
        texts = [f"CAST(batch.{sql.name(name)} AS VARCHAR)" for name in dataset.key]
        if len(texts) > 1:  # 'a|' and 'b' are not 'a' and '|b'
            texts = [rf"replace(replace({text}, '\', '\\'), '|', '\|')" for text in texts]
        key = " || '|' || ".join(texts)
        return f"coalesce({key}, 'row-' || batch.vaewatch_row)"
    cells = (f"coalesce(CAST(batch.{sql.name(name)} AS VARCHAR), chr(30))" for name in kept_columns(dataset))
    content = f"left(sha256(concat_ws(chr(31), {', '.join(cells)})), 24)"
    return f"{content} || '-' || row_number() OVER (PARTITION BY {content} ORDER BY batch.vaewatch_row)"

"""What a delivery changed in a batch that was delivered before.

Belongs here: the note on it, from the records that are published until now. Does not: records of other
batches (misplaced.py), or deciding anything: a correction is welcome.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import sql
from pipeline.config.contracts import kept_columns
from pipeline.config.dataset import Dataset
from pipeline.incoming.relations import DATABASE, record_key
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import Tables

if TYPE_CHECKING:
    import duckdb

AGAIN = "delivered again"  # how the note begins


def note(
    dataset: Dataset, before: BatchState | None, fingerprint: str, tables: Tables, scratch: Path, threads: int
) -> str:
    """Say how many accepted records came, went and changed; "" where the content is the first, or the same.

    Without a key nobody can say which record became which: a changed one went, and another came.

    Args:
        before: the batch as the ledger has it. The same content checked again keeps its note.
        scratch: the folder with the batch's DATABASE.
    """
    if before is None:
        return ""
    if before.fingerprint == fingerprint:
        return next((one for one in before.notes if one.startswith(AGAIN)), "")
    files = tables.files("records", [before.batch_id], flag=False)
    if not files:
        return f"{AGAIN}; no record of it was published before"
    listed = f"read_parquet([{', '.join(map(sql.text, files))}], hive_partitioning = false)"
    with sql.database(scratch, threads=threads, file=scratch / DATABASE) as connection:
        differs = _differs(connection, dataset, listed) if dataset.key else "false"
        counted = connection.execute(
            f"""SELECT count(*) FILTER (old.record_key IS NULL), count(*) FILTER (new.record_key IS NULL),
                count(*) FILTER (old.record_key IS NOT NULL AND new.record_key IS NOT NULL AND ({differs}))
                FROM (SELECT {record_key(dataset)} AS record_key, * FROM batch WHERE NOT vaewatch_set_aside) AS new
                FULL JOIN {listed} AS old ON old.record_key = new.record_key"""
        ).fetchone()
    came, went, changed = counted or (0, 0, 0)
    kinds = {"changed": changed, "came": came, "went": went} if dataset.key else {"came": came, "went": went}
    said = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())
    return f"{AGAIN}: of its accepted records {said}"


def _differs(connection: duckdb.DuckDBPyConnection, dataset: Dataset, listed: str) -> str:
    """Return SQL for a record that differs from the one before, by the columns that both have.

    The table keeps a column's type, so that the same value is the same.
    """
    described = connection.execute(f"DESCRIBE SELECT unnest(record) FROM {listed}").fetchall()
    before = {column for column, *_ in described}
    both = [sql.name(name) for name in kept_columns(dataset) if name in before]
    return " OR ".join(f"new.{name} IS DISTINCT FROM old.record.{name}" for name in both) or "false"

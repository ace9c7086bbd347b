"""How names and values become SQL text, and how DuckDB is opened.

Belongs here: quoting and limits. Does not: what is asked of the data.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import CheckCrashed, StorageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb


def name(identifier: str) -> str:
    """Quote an identifier; any text is safe."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """Quote a string literal; any text is safe."""
    return "'" + value.replace("'", "''") + "'"


@contextmanager
def database(
    scratch: Path, *, threads: int, file: Path | None = None, memory_gb: float = 1.0
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB connection that spills to `scratch` instead of growing past `memory_gb`.

    Raises:
        StorageFailed: a file could not be read or written, the disk is full, or memory did not suffice.
        CheckCrashed: a query failed; the data may not be to blame.
    """
    import duckdb

    connection = None
    try:
        connection = duckdb.connect(str(file) if file else ":memory:")
        connection.execute(f"SET threads = {threads}")
        connection.execute(f"SET memory_limit = '{memory_gb}GB'")
        connection.execute(f"SET temp_directory = {text(str(scratch / 'spill'))}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET preserve_insertion_order = true")
        # a Parquet file's statistics ignore NaN, so what the optimizer infers from them is wrong where there
        # is one
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        yield connection
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.TransactionException) as fault:
        # nobody else writes to these files, so a failed commit means a full disk
        raise StorageFailed(f"DuckDB, {scratch}: {fault}") from fault
    except duckdb.Error as fault:
        raise CheckCrashed(f"DuckDB: {fault}") from fault
    finally:
        if connection is not None:
            connection.close()

"""Names and values as SQL: any text is itself again, and a failed query says whose fault it may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sql
from pipeline.errors import CheckCrashed, StorageFailed

TEXTS = st.text(max_size=30) | st.sampled_from([
    "'; DROP TABLE t; --",
    '"',
    "''",
    "\\",
    "a\0b",
    "/*",
    "--",
    "$$",
])


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        yield opened


@given(TEXTS)
def test_any_text_survives_as_a_literal(connection: duckdb.DuckDBPyConnection, value: str) -> None:
    """A batch_id, a category or a pattern is data, whatever it says."""
    assert connection.execute(f"SELECT {sql.text(value)}").fetchone() == (value,)


@given(TEXTS.filter(bool))
def test_any_name_but_the_empty_one_survives_as_an_identifier(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    """Columns are named by whoever wrote the file."""
    found = connection.execute(f"SELECT * FROM (SELECT 1 AS {sql.name(name)})")
    assert [column[0] for column in found.description] == [name]
    assert found.fetchone() == (1,)


def test_a_database_is_set_to_utc_and_to_its_share_of_the_machine(tmp_path: Path) -> None:
    """A period must not depend on where the server stands, nor one dataset starve the others."""
    with sql.database(tmp_path / "o'brien", threads=1, memory_gb=0.5) as connection:
        settings = dict(connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())
    assert settings["TimeZone"] == "UTC"
    assert settings["threads"] == "1"
    assert settings["memory_limit"] == "476.8 MiB"
    assert settings["temp_directory"] == str(tmp_path / "o'brien" / "spill")


def test_what_does_not_fit_into_memory_spills_to_the_scratch_folder(tmp_path: Path) -> None:
    """A batch larger than memory takes longer; it does not fail."""
    with sql.database(tmp_path, threads=1, memory_gb=0.03) as connection:
        query = "SELECT count(*) FROM (SELECT md5(i::VARCHAR) AS m FROM range(1000000) t(i) ORDER BY m)"
        connection.execute(f"CREATE TABLE kept AS {query.replace('count(*)', 'm')}")
        assert connection.execute("SELECT count(*), min(m) < max(m) FROM kept").fetchone() == (
            1_000_000,
            True,
        )
        assert any((tmp_path / "spill").iterdir())


def test_a_file_that_cannot_be_read_is_a_fault_of_storage(tmp_path: Path) -> None:
    """A retry may help: the scheduler tries again instead of refusing the batch."""
    with pytest.raises(StorageFailed, match="absent"), sql.database(tmp_path, threads=1) as connection:
        connection.execute("SELECT * FROM read_parquet('absent.parquet')")


def test_a_query_that_fails_says_nothing_about_the_data(tmp_path: Path) -> None:
    """A crashed check must never look like a bad batch."""
    with pytest.raises(CheckCrashed, match="no_such_column"), sql.database(tmp_path, threads=1) as connection:
        connection.execute("SELECT no_such_column")


def test_a_connection_is_closed_also_when_a_query_fails(tmp_path: Path) -> None:
    """An open file keeps its lock, and the retry would fail on that."""
    file = tmp_path / "batch.duckdb"
    with pytest.raises(CheckCrashed), sql.database(tmp_path, threads=1, file=file) as connection:
        connection.execute("SELECT")
    with pytest.raises(duckdb.ConnectionException):
        connection.execute("SELECT 1")
    with sql.database(tmp_path, threads=1, file=file) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)

"""DuckDB as SQLAlchemy sees it: just enough for Great Expectations to read one prepared database file.

Belongs here: connecting, quoting, column names and types. Does not: what is asked of the data. Great
Expectations has no DuckDB dialect and needs little of one: SELECT, quoted identifiers, described columns.
`duckdb-engine` inherits from PostgreSQL's dialect and asks DuckDB for catalogue tables that it does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy import types
from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.compiler import IdentifierPreparer
from sqlalchemy.sql.elements import quoted_name


def data_source(database: Path, *, memory_gb: float, threads: int | None) -> dict[str, Any]:
    """Return how Great Expectations opens a prepared file: read-only, spilling beside it, without network."""
    registry.register("duckdb.vaewatch", __name__, "DuckDB")
    config: dict[str, Any] = {
        "memory_limit": f"{memory_gb}GB",
        "temp_directory": f"{database}.spill",
        "TimeZone": "UTC",
        "autoinstall_known_extensions": False,
        # Parquet's statistics ignore NaN and DuckDB 2.0 trusts them: isnan(x) would be false without reading
        # a value
        "disabled_optimizers": "statistics_propagation",
    }
    if threads:
        config["threads"] = threads
    # not in the URL: Great Expectations and SQLAlchemy would interpret a $ or a % in the path
    arguments = {"database": str(database), "read_only": True, "config": config}
    return {"connection_string": "duckdb+vaewatch://", "kwargs": {"connect_args": arguments}}


class _Cursor:
    """A DuckDB session of its own: Great Expectations fetches after returning the connection to the pool."""

    rowcount = -1

    def __init__(self, session: duckdb.DuckDBPyConnection) -> None:
        self._session = session

    @property
    def description(self) -> Any:
        """Plain values: SQLAlchemy keeps them to the end, and DuckDB complains of its own objects by then."""
        described = self._session.description
        return described and [(name, str(type_), *rest) for name, type_, *rest in described]

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        self._session.execute(statement, parameters or None)

    def fetchone(self) -> Any:
        return self._session.fetchone()

    def fetchmany(self, size: int = 1) -> Any:
        return self._session.fetchmany(size)

    def fetchall(self) -> Any:
        return self._session.fetchall()

    def close(self) -> None:
        self._session.close()


class _Connection:
    """A connection for reading only: there is nothing to commit or to roll back."""

    def __init__(self, database: duckdb.DuckDBPyConnection) -> None:
        self._database = database
        self._cursors: list[_Cursor] = []

    def cursor(self) -> _Cursor:
        self._cursors.append(_Cursor(self._database.cursor()))
        return self._cursors[-1]

    def commit(self) -> None: ...

    def rollback(self) -> None: ...

    def close(self) -> None:
        """Close every session, too: one left open would lock the file against writing."""
        for cursor in self._cursors:
            cursor.close()
        self._database.close()


class _Type(types.NullType):
    """A type by its name in DuckDB.

    GX asks for all names once per rule, and would compile SQLAlchemy's own types each time.
    """

    def __init__(self, name: str = "NULL") -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


class _QuoteEverything(IdentifierPreparer):
    def _requires_quotes(self, _value: str) -> bool:
        return True


class DuckDB(DefaultDialect):
    """One connection to one file, every identifier quoted."""

    name = "duckdb"
    driver = "vaewatch"
    preparer = _QuoteEverything
    supports_statement_cache = True
    supports_native_boolean = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return duckdb

    @classmethod
    def get_pool_class(cls, _url: Any) -> type[StaticPool]:
        return StaticPool

    def connect(self, *arguments: Any, **options: Any) -> Any:
        return _Connection(duckdb.connect(*arguments, **options))

    def initialize(self, _connection: Any) -> None:
        self.default_schema_name = "main"

    def get_columns(self, connection: Any, table_name: str, *_: Any, **__: Any) -> Any:
        table = self.identifier_preparer.quote(table_name)
        described = [
            {
                "name": quoted_name(name, quote=True),  # else GX takes `Amount` for `amount`
                "type": _Type(type_),
                "nullable": True,
                "default": None,
            }
            for name, type_, *_ in connection.exec_driver_sql(f"DESCRIBE {table}")
        ]
        # GX takes the first name that fits, and reads `a` in backticks as plain a: so names with backticks
        # come last
        return sorted(described, key=lambda column: column["name"].startswith("`"))

    def get_pk_constraint(self, *_: Any, **__: Any) -> Any:
        return {"constrained_columns": [], "name": None}

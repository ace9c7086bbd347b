"""The relational database of an installation: SQLite in a file, or PostgreSQL by URL.

Belongs here: opening it, bringing its tables to this release, transactions. Does not: what the tables hold
(ledger.py, review/).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import StorageFailed
from pipeline.storage import migrations

WRITERS = 7_621_734_911  # the one lock that writers of a PostgreSQL database share
SWITCHES = 20  # tries, ten seconds in all


class Database:
    """The database behind one installation.

    Attributes:
        shown: its address without credentials.
    """

    def __init__(self, url: str) -> None:
        """Open, and create what is not there yet.

        Raises:
            StorageFailed: the database cannot be opened.
        """
        parsed = sa.engine.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # options may hold a password, too
        self.shown = parsed.set(query={}).render_as_string(hide_password=True)
        self._engine = sa.create_engine(parsed, pool_pre_ping=True)
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        if self._is_sqlite:
            sa.event.listen(self._engine, "connect", _tune_sqlite)
        try:
            self._migrate()
        except SQLAlchemyError as fault:
            why = getattr(fault, "orig", None) or fault
            raise StorageFailed(f"ledger {self.shown} cannot be opened: {why}") from fault

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """Apply all of a block's statements or none.

        Raises:
            StorageFailed: the database refused; nothing was written.
        """
        try:
            with self._begin(write=write) as connection:
                yield connection
        except SQLAlchemyError as fault:
            why = getattr(fault, "orig", None) or fault  # without the statement and its parameters
            raise StorageFailed(f"ledger {self.shown}: {why}; nothing was written") from fault

    @contextmanager
    def _begin(self, *, write: bool) -> Iterator[sa.Connection]:
        """Begin a transaction. A writer locks before it reads, or two would act on the same state."""
        with self._engine.begin() as connection:
            if write and self._is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif write:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS})")
            yield connection

    def _migrate(self) -> None:
        """Migrate the tables to this release; one process does it, the others find it done."""
        if migrations.is_current(self._engine):
            return
        with self._begin(write=True) as connection:
            migrations.upgrade(connection)


def _tune_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout = 30000")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = NORMAL")


def _write_ahead(connection: Any) -> None:
    """Switch to a write-ahead log.

    Where others switch or create tables at the same moment, SQLite fails at once, whatever the busy timeout.
    By the next try the file is nearly always switched.
    """
    for attempt in range(SWITCHES):
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL")
            return
        time.sleep(0.05 * (attempt + 1))
    connection.execute("PRAGMA journal_mode = WAL")

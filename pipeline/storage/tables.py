"""The Delta tables of a dataset: `records` (every record read) and `scores` (every record scored).

Belongs here: one commit that replaces a batch, and reading back. Does not: what a row means
(incoming/validation.py, detection/scoring.py). Each table is partitioned by batch_id and by the one flag that
readers ask for. So a batch's accepted and set-aside records, or its flagged and unflagged scores, appear in
the same commit: all of a batch or none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads

from pipeline.errors import StorageFailed
from pipeline.storage.ahead import ahead
from pipeline.storage.table_files import Part, by_flag, write_files
from pipeline.storage.table_schema import make_ready

if TYPE_CHECKING:
    from deltalake.transaction import AddAction

TableName = Literal["records", "scores"]
FLAG = {"records": "set_aside", "scores": "flagged"}
TRIES = 20
AHEAD = 8  # slices
KEEP_HOURS = 7 * 24  # a reader who opened the table before a batch was replaced still finds its files


@dataclass(frozen=True)
class Tables:
    """The tables under one folder.

    Attributes:
        as_of: read `records` as of this version; None for the newest.
    """

    root: Path
    as_of: int | None = None

    def uri(self, table: TableName) -> str:
        return str(self.root / table)

    def replace(
        self, table: TableName, batch_id: str, rows: pa.RecordBatchReader, *, note: Mapping[str, str]
    ) -> None:
        """Publish a batch: in one commit its rows replace whatever the table held of it.

        Args:
            rows: the batch's rows, each with batch_id and the table's flag.
            note: kept in the table's history beside the commit.

        Raises:
            StorageFailed: nothing was published.
            ConfigError: a column has another type than in the table; a cast would silently turn 0.5 into 0.
        """
        parts = ahead(by_flag(rows, batch_id, FLAG[table]), AHEAD)  # they are made while others are written
        self.replace_parted(table, batch_id, rows.schema, parts, note=note)

    def replace_parted(
        self,
        table: TableName,
        batch_id: str,
        schema: pa.Schema,
        parts: Iterable[Part],
        *,
        note: Mapping[str, str],
    ) -> None:
        """Publish a batch as `replace` does, from rows already parted by the table's flag.

        They lack the columns that would be null in all of them, and are written once, whoever else commits
        meanwhile.

        Args:
            schema: all columns of the table.
            parts: see `write_files`. What they raise is passed on.

        Raises:
            StorageFailed, ConfigError: as `replace` does.
        """
        with self._or_nothing(table, batch_id):
            self._patiently(table, lambda: self._ready(table, batch_id, schema))
            added = write_files(Path(self.uri(table)), batch_id, FLAG[table], schema, parts)
            # files stay if the commit fails: an error after it, such as a checkpoint's, looks the same
            self._patiently(table, lambda: self._commit(table, batch_id, added, note))

    @contextmanager
    def _or_nothing(self, table: TableName, batch_id: str) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError, pa.ArrowException) as fault:
            raise StorageFailed(
                f"table {self.uri(table)}, batch {batch_id}: {fault}; nothing was published, the earlier content is still there"
            ) from fault

    def _patiently(self, table: TableName, work: Callable[[], object]) -> None:
        """Repeat the work as long as other writers come first."""
        from deltalake.exceptions import CommitFailedError, DeltaError

        for attempt in range(TRIES):
            is_new = not self.exists(table)
            try:
                work()
            except DeltaError as fault:
                conflict = isinstance(fault, CommitFailedError) or is_new  # another writer creates it, too
                if not conflict or attempt == TRIES - 1:
                    raise
                time.sleep(min(2.0, 0.05 * 2**attempt))
            else:
                return

    def _ready(self, table: TableName, batch_id: str, schema: pa.Schema) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        make_ready(schema, self.uri(table), partition_by=["batch_id", FLAG[table]], batch_id=batch_id)

    def _commit(
        self, table: TableName, batch_id: str, added: Sequence[AddAction], note: Mapping[str, str]
    ) -> None:
        """Replace the batch's files in the newest version.

        By itself delta-rs would commit after whoever came first: it knows which files are replaced, but not
        that nobody else may add any of this batch. So any other commit is a conflict, and we read the table
        again.
        """
        from deltalake import CommitProperties

        opened = self._open(table)
        opened.create_write_transaction(
            list(added),
            "overwrite",
            opened.schema(),
            partition_by=["batch_id", FLAG[table]],
            partition_filters=[("batch_id", "=", batch_id)],
            commit_properties=CommitProperties(custom_metadata=dict(note), max_commit_retries=0),
        )

    def exists(self, table: TableName) -> bool:
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(self.uri(table)))

    def files(self, table: TableName, batch_ids: Sequence[str], *, flag: bool) -> list[str]:
        """Return Parquet files with these batches' rows of this flag, for an engine that reads Parquet."""
        if not batch_ids or not self.exists(table):
            return []
        wanted = _partitions(table, batch_ids, flag)
        return sorted(unquote(uri) for uri in self._open(table).file_uris(file_pruning_predicate=wanted))

    def version(self, table: TableName) -> int:
        """Return the number of the newest commit.

        Raises:
            StorageFailed: there is no such table yet, or it cannot be read.
        """
        return int(self._open(table).version())

    def still_holds(self, batch_ids: Sequence[str]) -> bool:
        """Return whether these batches' accepted records can still be read as of `as_of`.

        Neither log nor files may have been cleaned up.
        """
        try:
            files = self.files("records", batch_ids, flag=False)
        except StorageFailed:
            return False
        return all(Path(file).exists() for file in files)

    def schema(self, table: TableName) -> pa.Schema:
        """Return the columns of its newest version.

        Raises:
            StorageFailed: there is no such table yet, or it cannot be read.
        """
        return pa.schema(self._open(table).schema().to_arrow())

    def dataset(
        self, table: TableName, batch_ids: Sequence[str] | None = None, *, flag: bool | None = None
    ) -> pads.Dataset:
        """Return the rows of these batches (None: of all) with a flag (None: either), as a pyarrow dataset.

        It takes a fifth of a millisecond for each file included, so name the batches that are needed.

        Raises:
            StorageFailed: there is no such table yet, or it cannot be read.
        """
        wanted = _partitions(table, batch_ids, flag)
        return self._open(table).to_pyarrow_dataset(file_pruning_predicate=wanted or None)

    def read(
        self, table: TableName, *, batch_id: str | None = None, flag: bool | None = None, columns: Any = None
    ) -> pa.Table:
        """Return rows of a batch (or all batches) with a flag (or either), in no particular order."""
        if not self.exists(table):
            return pa.table({"batch_id": pa.array([], pa.string()), "row_number": pa.array([], pa.int64())})
        batch_ids = None if batch_id is None else [batch_id]
        return self.dataset(table, batch_ids, flag=flag).to_table(columns=columns)

    def model_versions(self) -> dict[int, int]:
        """Return the model versions that `scores` refers to, each with the number of its batches."""
        if not self.exists("scores"):
            return {}
        files = pa.table(self._open("scores").get_add_actions(flatten=True))
        found: dict[int, set[str]] = {}
        columns = ("partition.batch_id", "min.model_version", "max.model_version")
        for batch_id, *versions in zip(*(files[name].to_pylist() for name in columns), strict=True):
            for version in versions:  # a batch is scored by one version: both are the same
                found.setdefault(version, set()).add(batch_id)
        return {version: len(batch_ids) for version, batch_ids in found.items()}

    def vacuum(
        self,
        table: TableName,
        *,
        keep_versions: Sequence[int] = (),
        keep_hours: int = KEEP_HOURS,
        dry_run: bool = False,
    ) -> list[int]:
        """Delete files whose rows were replaced more than `keep_hours` ago; return their sizes in bytes.

        Files that a killed writer left as long ago go, too.

        Args:
            keep_versions: of the table; their files stay, as far as its log still knows them.
            dry_run: delete nothing.

        Raises:
            StorageFailed: the table cannot be read; some files may be gone, and a retry goes on.
        """
        if not self.exists(table):
            return []
        opened, kept = self._open(table), [v for v in keep_versions if self._knows(table, v)]
        settings = {"enforce_retention_duration": False, "keep_versions": kept or None, "full": True}
        dead = [
            Path(self.uri(table), unquote(path))
            for path in opened.vacuum(keep_hours, dry_run=True, **settings)
        ]
        sizes = [path.stat().st_size for path in dead if path.exists()]
        if sizes and not dry_run:
            opened.vacuum(keep_hours, dry_run=False, **settings)
        return sizes

    def _knows(self, table: TableName, version: int) -> bool:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            DeltaTable(self.uri(table), version=version)
        except DeltaError:
            return False
        return True

    def _open(self, table: TableName) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            return DeltaTable(self.uri(table), version=self.as_of if table == "records" else None)
        except (DeltaError, OSError) as fault:
            raise StorageFailed(f"table {self.uri(table)} cannot be read: {fault}") from fault


def _partitions(
    table: TableName, batch_ids: Sequence[str] | None, flag: bool | None
) -> list[tuple[str, str, Any]]:
    """Return which files to open, as delta-rs's filter."""
    wanted: list[tuple[str, str, Any]] = []
    if batch_ids is not None:
        wanted.append(("batch_id", "in", list(batch_ids)))
    if flag is not None:
        wanted.append((FLAG[table], "=", str(flag).lower()))
    return wanted

"""The Parquet files of a batch, written before its table knows of them.

Belongs here: files of bounded size without the columns that their rows lack, and what Delta's log says of
each. Does not: the commit that makes them part of the table (tables.py).

By Delta's protocol a column that a file lacks is read as null. An unflagged record has ten of the columns of
`scores`; writing nulls for the rest, its own columns and the reasons, took half of delta-rs's time.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from deltalake.transaction import AddAction

ROW_GROUP = 131_072  # rows that are written together
FILE_SIZE = 24 * 2**20  # bytes after which the next file begins: a reader takes a file for each core
LOOKED_AT = 16_384  # rows by which a file's columns are known to repeat
REPEATS = 4  # times that a value does, on average
LAST_TEXT = "\U0010ffff"  # sorts after any text that anybody writes

Part = tuple[bool, pa.RecordBatch]


def by_flag(rows: Iterable[pa.RecordBatch], batch_id: str, flag: str) -> Iterator[Part]:
    """Part a batch's rows by the table's flag, their order kept.

    Raises:
        pyarrow.ArrowInvalid: a row is of another batch.
    """
    for slice_ in rows:
        if not pc.all(pc.equal(slice_["batch_id"], batch_id)).as_py():
            raise pa.ArrowInvalid("rows of another batch are among these")
        flagged, left = slice_[flag], slice_.drop_columns(["batch_id", flag])
        for value in (False, True):
            n = flagged.true_count if value else flagged.false_count
            if n:
                yield value, left if n == len(slice_) else left.filter(pc.equal(flagged, value))


def write_files(
    table: Path,
    batch_id: str,
    flag: str,
    schema: pa.Schema,
    parts: Iterable[Part],
) -> list[AddAction]:
    """Write a batch's rows into files of their own below a table's folder; return what a commit is to add.

    A killed process leaves files that no version of the table has: vacuum finds them.

    Args:
        flag: the column by which the table is partitioned beside batch_id.
        schema: all columns of the table.
        parts: rows that agree in the flag, with its value, and without both partition columns; those of one
            value have the same columns.

    Raises:
        OSError, pyarrow.ArrowException: a file cannot be written. Whatever is raised, also by `parts`, no
            file stays.
    """
    in_files = pa.schema([field for field in schema if field.name not in {"batch_id", flag}])
    folders: dict[bool, _Folder] = {}
    try:
        for value, rows in parts:
            if value not in folders:
                folders[value] = _Folder(table, {"batch_id": batch_id, flag: str(value).lower()})
            folders[value].add(rows)
        for folder in folders.values():
            folder.close()
    except BaseException:
        for folder in folders.values():
            folder.remove()
        raise
    return [folder.action(file, in_files) for folder in folders.values() for file in folder.files]


class _Folder:
    """The files of one partition."""

    def __init__(self, table: Path, partition: Mapping[str, str]) -> None:
        self.table, self.partition = table, partition
        self.path = table.joinpath(*(f"{name}={value}" for name, value in partition.items()))
        self.path.mkdir(parents=True, exist_ok=True)
        self.files: list[Path] = []
        self.waiting: list[pa.RecordBatch] = []
        self.writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= ROW_GROUP:
            self._write()

    def _write(self) -> None:
        """Write what waits as one row group."""
        group, self.waiting = pa.Table.from_batches(self.waiting), []
        if self.writer is None:
            self.files.append(self.path / f"part-{uuid4()}.snappy.parquet")
            self.writer = pq.ParquetWriter(self.files[-1], group.schema, use_dictionary=repeating(group))
        self.writer.write_table(group, row_group_size=len(group))
        if self.files[-1].stat().st_size >= FILE_SIZE:
            self._finish()

    def _finish(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def close(self) -> None:
        if self.waiting:
            self._write()
        self._finish()

    def remove(self) -> None:
        with suppress(OSError, pa.ArrowException):  # the disk may still be full
            self._finish()
        for file in self.files:
            file.unlink(missing_ok=True)

    def action(self, file: Path, columns: pa.Schema) -> AddAction:
        """Return what the log says of a finished file."""
        from deltalake.transaction import AddAction

        return AddAction(
            path=file.relative_to(self.table).as_posix(),
            size=file.stat().st_size,
            partition_values=self.partition,
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps(statistics(pq.read_metadata(file), columns), allow_nan=False),
        )


def repeating(group: pa.Table) -> list[str]:
    """Return the paths of columns whose values repeat, by the first rows: a dictionary makes them smaller.

    Another's would be as long as the column itself. A writer finds that out by building it, at half its time.
    """
    first = group.slice(0, LOOKED_AT)
    return [
        path
        for name in first.column_names
        for path, values in _leaves(name, first[name].combine_chunks())
        if len(values.unique()) * REPEATS <= len(values)
    ]


def _leaves(path: str, values: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Yield the values that lie in a column, each with its path in a Parquet file."""
    if pa.types.is_list(values.type):
        yield from _leaves(f"{path}.list.element", values.flatten())
    elif pa.types.is_struct(values.type):
        for field, of_field in zip(values.type, values.flatten(), strict=True):
            yield from _leaves(f"{path}.{field.name}", of_field)
    else:
        yield path, values


def statistics(file: pq.FileMetaData, columns: pa.Schema) -> dict[str, Any]:
    """Return a file's statistics as Delta keeps them, by which readers skip files.

    They are of whole columns, not of what is in structs and lists. Every column that can have bounds gets
    them, and a struct gets empty ones: without, `DeltaTable.to_pyarrow_dataset` compares with null and finds
    no rows.

    Args:
        columns: all of the table's except its partition's; those that the file lacks are null.
    """
    nulls: dict[str, int] = {}
    bounds: dict[str, tuple[Any, Any]] = {}
    places = {column.path: i for i, column in enumerate(file.schema)}
    for name, type_ in zip(columns.names, columns.types, strict=True):
        if pa.types.is_struct(type_):
            bounds[name] = ({}, {})
        elif name in places:
            groups = [file.row_group(group) for group in range(file.num_row_groups)]
            chunks = [group.column(places[name]).statistics for group in groups]
            nulls[name] = sum(chunk.null_count for chunk in chunks)
            if nulls[name] < file.num_rows:
                bounds[name] = _bounds([chunk for chunk in chunks if chunk.num_values], type_)
        elif not pa.types.is_nested(type_):
            nulls[name] = file.num_rows
    lowest, highest = ({name: both[i] for name, both in bounds.items()} for i in (0, 1))
    return {"numRecords": file.num_rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls}


def _bounds(chunks: Sequence[pq.Statistics], type_: pa.DataType) -> tuple[Any, Any]:
    """Return a column's bounds; the widest where Parquet has none, as for NaN and very long texts."""
    if all(chunk.has_min_max for chunk in chunks):
        lowest, highest = min(chunk.min for chunk in chunks), max(chunk.max for chunk in chunks)
        if not isinstance(lowest, float) or (math.isfinite(lowest) and math.isfinite(highest)):
            return lowest, highest
    return ("", LAST_TEXT) if pa.types.is_string(type_) else (-sys.float_info.max, sys.float_info.max)

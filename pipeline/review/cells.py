"""Columns of accepted records, read from their files: no more of a file than is asked for.

Belongs here: rows and columns of the table `records`, by place. Does not: what they say of a record
(record.py, compare.py).

pyarrow's scanner reads a whole struct even for one of its fields: for one column of a million records with
twenty it takes 0.6 s, this module 0.06.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipeline.config.dataset import Dataset
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.review.filters import without_nul
from pipeline.review.queued import Whole

SLICE = 65_536  # rows read at once
SOME = 4096  # rows read at once where only a few are looked for


def read(
    here: Installation,
    dataset: Dataset,
    batch_ids: Sequence[str],
    names: Sequence[str],
    *,
    most: int | None = None,
    only: Mapping[str, Collection[int]] | None = None,
) -> pa.Table | None:
    """Return batch_id, row_number, and a column "0", "1", … for each name, in the order of the files.

    None where nothing is stored.

    Args:
        names: columns of `record`; one that a file lacks is null there.
        most: how many rows, the first ones; None for all.
        only: batch_id → row numbers: these rows alone.
    """
    tables = here.tables(dataset)
    if not tables.exists("records"):
        return None
    kept = tables.dataset("records", batch_ids, flag=False)
    types = {field.name: field.type for field in kept.schema.field("record").type}
    fields = [(name, types.get(name, pa.null())) for name in names]
    schema = pa.schema([
        ("batch_id", pa.string()),
        ("row_number", pa.int64()),
        *((f"{i}", type_) for i, (_, type_) in enumerate(fields)),
    ])
    found, n = [], 0
    for batch_id, part in _parts(kept, ["row_number", *(f"record.{name}" for name in names)], only):
        columns = [_field(part, name, type_) for name, type_ in fields]
        first = pa.repeat(pa.scalar(batch_id), len(part))
        numbers = pc.cast(part["row_number"], pa.int64())
        found.append(pa.Table.from_arrays([first, numbers, *columns], schema=schema))
        n += len(part)
        if most is not None and n >= most:
            break
    table = pa.concat_tables(found) if found else schema.empty_table()
    return table if most is None else table.slice(0, most)


def whole(
    here: Installation, dataset: Dataset, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], tuple[str, dict[str, Any]]]:
    """Return record_key and values of the records at (batch_id, row_number), in this order.

    A record that is no longer stored is left out.
    """
    only: dict[str, set[int]] = {}
    for batch_id, number in places:
        only.setdefault(batch_id, set()).add(number)
    tables = here.tables(dataset)
    if not places or not tables.exists("records"):
        return {}
    kept = tables.dataset("records", sorted(only), flag=False)
    found = {}
    for batch_id, part in _parts(kept, ["row_number", "record_key", "record"], only):
        for row in part.to_pylist():
            found[batch_id, row["row_number"]] = (row["record_key"], row["record"])
    return {place: found[place] for place in places if place in found}


def check_stored(here: Installation, dataset: Dataset, row: Whole) -> None:
    """Refuse to look around a record of the queue if another record has its place by now.

    Raises:
        NotReady: its batch was delivered again since, or its tables are gone.
    """
    found = whole(here, dataset, [(row.batch_id, row.row_number)])
    if not is_stored(row, [key for key, _ in found.values()]):
        raise not_stored(row)


def is_stored(row: Whole, keys: Sequence[str]) -> bool:
    """Return whether the record at a row's place, by its key, is the one that was scored."""
    return [without_nul(key) for key in keys] == [row.record_key]


def not_stored(row: Whole) -> NotReady:
    return NotReady(f"{row.dataset} {row.batch_id}: the record was delivered again since, or is not stored")


def _parts(
    kept: pads.Dataset, columns: Sequence[str], only: Mapping[str, Collection[int]] | None
) -> Iterator[tuple[str, pa.RecordBatch]]:
    for fragment in kept.get_fragments():
        batch_id = pads.get_partition_keys(fragment.partition_expression)["batch_id"]
        with fragment.open() as stream, pq.ParquetFile(stream) as file:
            parts = (
                file.iter_batches(SLICE, columns=list(columns))
                if only is None
                else _these(file, columns, only.get(batch_id, ()))
            )
            for part in parts:
                yield batch_id, part


def _these(
    file: pq.ParquetFile, columns: Sequence[str], numbers: Collection[int]
) -> Iterator[pa.RecordBatch]:
    """Yield the wanted rows of a file; what lies behind the last of them is not read."""
    n_left = len(numbers)
    for group in (i for i in range(file.num_row_groups) if _may_hold(file, i, numbers)):
        for part in file.iter_batches(SOME, row_groups=[group], columns=list(columns)):
            these = pa.array(numbers, part["row_number"].type)
            if len(chosen := part.filter(pc.is_in(part["row_number"], value_set=these))):
                yield chosen
                n_left -= len(chosen)
            if not n_left:
                return


def _may_hold(file: pq.ParquetFile, group: int, numbers: Collection[int]) -> bool:
    """Return whether a row group may hold one of these rows, by its statistics."""
    about = file.metadata.row_group(group)
    column = next(
        about.column(i) for i in range(about.num_columns) if about.column(i).path_in_schema == "row_number"
    )
    known = column.statistics
    if known is None or not known.has_min_max:
        return True
    return any(known.min <= number <= known.max for number in numbers)


def _field(part: pa.RecordBatch, name: str, type_: pa.DataType) -> pa.Array:
    """Return a field of the records, or nulls where the file does not have it."""
    if "record" in part.schema.names and part["record"].type.get_field_index(name) >= 0:
        return pc.cast(pc.struct_field(part["record"], [name]), type_)
    return pa.nulls(len(part), type_)

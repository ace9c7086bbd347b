"""The columns of a table: whether those of new rows fit, and how delta-rs is to write them.

Belongs here: schemas. Does not: reading and publishing rows (tables.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.errors import ConfigError
from pipeline.storage.table_files import ROW_GROUP

if TYPE_CHECKING:
    from deltalake import DeltaTable

UNIQUE = ("row_number", "record_key")


def opened_for(
    schema: pa.Schema, uri: str, *, partition_by: Sequence[str], batch_id: str, grow: bool
) -> DeltaTable:
    """Open the table for rows of these columns, creating it where there is none.

    Args:
        grow: add the columns that it lacks, by a commit without rows.

    Raises:
        ConfigError: a column has another type than in the table.
        deltalake.exceptions.DeltaError: another process makes or changes it at the same moment.
    """
    from deltalake import DeltaTable, write_deltalake

    opened = DeltaTable.create(uri, schema, partition_by=list(partition_by), mode="ignore")
    kept = pa.schema(opened.schema().to_arrow())
    if changed := list(_changed(kept, schema)):
        raise ConfigError(
            f"table {uri}, batch {batch_id}: {'; '.join(changed)}; a table keeps its types: "
            "give the changed column another name, or the dataset another `storage`; nothing was published"
        )
    if grow and _has_more(schema, kept):
        write_deltalake(opened, schema.empty_table(), mode="append", schema_mode="merge")
    return opened


def writer_properties(schema: pa.Schema) -> Any:
    """Return writer properties without dictionaries that would be as long as their columns.

    A writer finds that out by building one, at half its time. delta-rs takes properties of whole columns by
    name; those inside a struct can only have the default.
    """
    from deltalake import ColumnProperties, WriterProperties

    inside = [leaf for field in schema if pa.types.is_struct(field.type) for leaf in field.type]
    numbers_alone = all(pa.types.is_primitive(leaf.type) for leaf in inside)
    by_column = {
        f.name: ColumnProperties(
            dictionary_enabled=not (f.name in UNIQUE or pa.types.is_floating(f.type) or numbers_alone),
            statistics_enabled="CHUNK",
        )
        for f in schema
        if not pa.types.is_nested(f.type)
    }
    return WriterProperties(
        max_row_group_size=ROW_GROUP,
        default_column_properties=ColumnProperties(
            dictionary_enabled=not numbers_alone, statistics_enabled="CHUNK"
        ),
        column_properties=by_column,
    )


def _changed(kept: pa.Schema | pa.StructType, given: pa.Schema | pa.StructType) -> Iterator[str]:
    """Yield columns that both have, with different types."""
    for field in given:
        i = kept.get_field_index(field.name)
        was, now = (kept.field(i) if i >= 0 else field).type, field.type
        while pa.types.is_list(was) and pa.types.is_list(now):
            was, now = was.value_type, now.value_type
        if pa.types.is_struct(was) and pa.types.is_struct(now):
            yield from _changed(was, now)
        elif was != now:
            yield f"column {field.name!r} is {now}, in the table {was}"


def _has_more(given: pa.Schema | pa.StructType, kept: pa.Schema | pa.StructType) -> bool:
    """Return whether there are columns, also in structs, that the table lacks."""
    for field in given:
        i = kept.get_field_index(field.name)
        if i < 0 or (pa.types.is_struct(field.type) and _has_more(field.type, kept.field(i).type)):
            return True
    return False

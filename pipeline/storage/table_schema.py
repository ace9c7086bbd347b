"""The columns of a table: whether those of new rows fit.

Belongs here: schemas. Does not: reading and publishing rows (tables.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipeline.errors import ConfigError


def make_ready(schema: pa.Schema, uri: str, *, partition_by: Sequence[str], batch_id: str) -> None:
    """Have the table take rows of these columns: create it where there is none, add columns that it lacks.

    A column that is added is null in what was written before.

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
    if _has_more(schema, kept):
        write_deltalake(opened, schema.empty_table(), mode="append", schema_mode="merge")


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

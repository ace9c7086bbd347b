"""The accepted records of one batch, as a model reads them.

Belongs here: reading them slice by slice with bounded memory, with the contract's and the derived columns.
Does not: what is made of them (detection/scoring.py), or which records were accepted
(incoming/validation.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from pipeline import sql
from pipeline.config import derived
from pipeline.config.contracts import kept_columns
from pipeline.config.dataset import Dataset
from pipeline.records.looking_back import earlier
from pipeline.storage.ledger import BatchState
from pipeline.storage.tables import Tables

SLICE = 36_864  # records; a multiple of what goes through the networks together
ROW, KEY, RECORD = "vaewatch row_number", "vaewatch record_key", "vaewatch record"


@dataclass(frozen=True)
class AcceptedRecords:
    dataset: Dataset
    state: BatchState
    tables: Tables
    batches: Sequence[BatchState]
    columns: list[str]
    scratch: Path
    threads: int

    def slices(self) -> Iterator[pa.Table]:
        """Yield slices of the records, in no particular order.

        Columns: the model's, ROW, KEY and, where nothing is derived, RECORD.
        """
        return self._with_derived() if self.dataset.derived else self._plain()

    def _plain(self) -> Iterator[pa.Table]:
        """Read without pyarrow's scanner.

        That reads ahead as fast as it can, keeps it all, and takes three times as long.
        """
        for file in self.tables.files("records", [self.state.batch_id], flag=False):
            with pq.ParquetFile(file) as reader:
                for batch in reader.iter_batches(SLICE, columns=["row_number", "record_key", "record"]):
                    record = batch["record"]
                    there = [name for name in self.columns if record.type.get_field_index(name) >= 0]
                    columns = [batch["row_number"], batch["record_key"], record, *map(record.field, there)]
                    yield pa.table(columns, names=[ROW, KEY, RECORD, *there])

    def _with_derived(self) -> Iterator[pa.Table]:
        batch_id = self.state.batch_id
        since, earlier = self.looks_since, [batch.batch_id for batch in self.looks_at]
        with sql.database(self.scratch, threads=self.threads, memory_gb=2.0) as connection:
            files = self.tables.files("records", [batch_id, *earlier], flag=False)
            columns = ", ".join(map(sql.name, self.columns))
            query = f"""SELECT {derived.ROW} AS {sql.name(ROW)}, {derived.KEY} AS {sql.name(KEY)}, {columns}
                FROM ({derived.accepted(self.dataset, files, since=since)})
                WHERE {derived.BATCH} = {sql.text(batch_id)} ORDER BY 1"""
            for batch in connection.sql(query).to_arrow_reader(SLICE):
                yield pa.Table.from_batches([batch])

    @cached_property
    def looks_since(self) -> datetime | None:
        """Since when derived columns see earlier records; None where there is nothing to see."""
        own = self.tables.files("records", [self.state.batch_id], flag=False)
        if not self.dataset.derived or self.dataset.time is None or not own:
            return None
        time, listed = f"record.{sql.name(self.dataset.time)}", ", ".join(map(sql.text, own))
        with sql.database(self.scratch, threads=self.threads) as connection:
            query = f"SELECT min(CAST({time} AS TIMESTAMP)) FROM read_parquet([{listed}])"
            first: datetime | None = connection.execute(query).fetchall()[0][0]
        return first and first.replace(tzinfo=UTC) - timedelta(days=self.dataset.look_back_days)

    @property
    def looks_at(self) -> list[BatchState]:
        """The other batches that derived columns see."""
        return earlier(self.state, self.batches, self.looks_since)

    @property
    def accepted(self) -> pads.Dataset:
        """This batch's rows of the table `records`."""
        return self.tables.dataset("records", [self.state.batch_id], flag=False)

    @property
    def record_type(self) -> pa.DataType:
        """The type of a record's original columns."""
        return self.tables.schema("records").field("record").type

    def rows(self, numbers: Sequence[int]) -> pa.Table:
        """Some of the records, in no particular order. Windows go over the whole batch: it is read whole."""
        these = pa.array(numbers, pa.int64())
        found = [part.filter(pc.is_in(part[ROW], value_set=these)) for part in self.slices()]
        return pa.concat_tables(found) if found else pa.table({KEY: pa.array([], pa.string())})

    def whole(self, part: pa.Table) -> pa.ChunkedArray:
        """Return the original columns of some of the records, in their order."""
        if RECORD in part.column_names:
            return part[RECORD]
        numbers = part[ROW].combine_chunks()
        these = pc.field("row_number").isin(numbers)
        records = self.accepted.to_table(columns=["row_number", "record"], filter=these)
        found = pc.index_in(numbers, value_set=records["row_number"].combine_chunks())
        return records["record"].take(found)


def read_record(
    dataset: Dataset,
    state: BatchState,
    tables: Tables,
    row_number: int,
    *,
    batches: Sequence[BatchState],
    scratch: Path,
    threads: int = 1,
) -> pa.Table:
    """Read one accepted record as models do: KEY, the contract's columns, the derived ones.

    No row where it is not there.

    Args:
        batches: all that there are; derived columns look back into the earlier ones.
    """
    columns = [*kept_columns(dataset), *dataset.derived]
    source = AcceptedRecords(dataset, state, tables, batches, columns, scratch, threads)
    if dataset.derived:
        return source.rows([row_number])
    this = pc.field("row_number") == row_number
    kept = source.accepted.to_table(columns=["record_key", "record"], filter=this)
    record = pa.Table.from_struct_array(kept["record"].combine_chunks())
    return record.append_column(KEY, kept["record_key"].combine_chunks())

"""The output tables: a batch is there whole or not at all, once, whoever writes and reads at the same
time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, StorageFailed
from pipeline.storage.table_files import ROW_GROUP
from pipeline.storage.tables import AHEAD, Tables


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables" / "payments")


def rows(batch_id: str, amounts: list[Any], *, aside: int = 0, **more: pa.Array) -> pa.RecordBatchReader:
    """A batch's records, the last `aside` of them set aside; `more` are further columns of the record."""
    n = len(amounts)
    values = pa.array(amounts) if n else pa.array([], pa.int64())
    columns = {"amount": values, **more}
    table = pa.table({
        "batch_id": pa.array([batch_id] * n, pa.string()),
        "set_aside": pa.array([i >= n - aside for i in range(n)], pa.bool_()),
        "row_number": pa.array(range(n), pa.int64()),
        "record": pa.StructArray.from_arrays(list(columns.values()), names=list(columns)),
    })
    return pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=3))


def amounts(tables: Tables, batch_id: str | None = None, **which: Any) -> list[Any]:
    found = tables.read("records", batch_id=batch_id, **which).to_pylist()
    return [
        row["record"]["amount"] for row in sorted(found, key=lambda row: (row["batch_id"], row["row_number"]))
    ]


BATCHES = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.integers(0, 99), max_size=5), st.integers(0, 2)), max_size=6
)


@settings(max_examples=8)
@given(published=BATCHES)
def test_the_table_holds_what_was_published_last_of_each_batch(
    tmp_path_factory: pytest.TempPathFactory, published: list[tuple[str, list[int], int]]
) -> None:
    """Whatever is run again, in whatever order: each batch is there once, as it was last."""
    tables = Tables(tmp_path_factory.mktemp("tables"))
    expected: dict[str, tuple[list[int], int]] = {}
    for batch_id, values, aside in published:
        tables.replace("records", batch_id, rows(batch_id, values, aside=aside), note={})
        expected[batch_id] = (values, max(0, len(values) - aside))
    for batch_id in "abc":
        values, n_accepted = expected.get(batch_id, ([], 0))
        assert amounts(tables, batch_id) == values
        assert amounts(tables, batch_id, flag=False) == values[:n_accepted]
        assert amounts(tables, batch_id, flag=True) == values[n_accepted:]
    assert amounts(tables) == [v for b in sorted(expected) for v in expected[b][0]]


def test_a_second_run_changes_nothing_but_the_history(tables: Tables) -> None:
    """A killed step is simply done again; both commits say what they came from."""
    for fingerprint in ("first", "second"):
        tables.replace("records", "a", rows("a", [1, 2, 3], aside=1), note={"fingerprint": fingerprint})
    assert amounts(tables) == [1, 2, 3]
    history = DeltaTable(tables.uri("records")).history()
    assert [entry.get("fingerprint") for entry in history[:2]] == ["second", "first"]


def test_nothing_is_there_before_anything_is_published(tables: Tables) -> None:
    """A new dataset has an empty quarantine, not a stack trace."""
    assert not tables.exists("records")
    assert tables.read("records").num_rows == 0
    assert tables.files("records", ["a"], flag=False) == []
    with pytest.raises(StorageFailed, match="cannot be read"):
        tables.dataset("records")


def test_a_batch_of_which_nothing_is_left_is_emptied(tables: Tables) -> None:
    """A delivery that was withdrawn must not go on being trained on."""
    tables.replace("records", "a", rows("a", [1, 2]), note={})
    tables.replace("records", "b", rows("b", [3]), note={})
    tables.replace("records", "a", rows("a", []), note={})
    assert amounts(tables) == [3]


def test_what_a_stream_breaks_off_with_is_not_published(tables: Tables) -> None:
    """The disk of the source fails half-way: what was there still is."""
    tables.replace("records", "a", rows("a", [1, 2]), note={})

    whole = rows("a", [7, 8, 9, 10])

    def batches() -> Iterator[pa.RecordBatch]:
        yield whole.read_next_batch()
        raise OSError("the disk is gone")

    broken = pa.RecordBatchReader.from_batches(whole.schema, batches())

    with pytest.raises(StorageFailed, match=r"(?s)batch a: .*the disk is gone.*nothing was published"):
        tables.replace("records", "a", broken, note={})
    assert amounts(tables) == [1, 2]


def test_what_waits_to_be_written_is_little_however_large_the_batch(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that come faster than they can be written wait where they are, not in memory: ten million would be
    gigabytes. delta-rs, which read ahead by how its threads happened to run, held half of this batch one time
    in five.
    """
    monkeypatch.setattr("pipeline.storage.table_files.FILE_SIZE", 2 << 20)
    n_slices, m = 100, 16_384
    texts = pa.array([f"{x:.12f}" for x in np.random.default_rng(0).normal(size=m)])
    record = pa.StructArray.from_arrays([texts] * 4, names=list("abcd"))
    columns = [pa.repeat("a", m), pa.repeat(False, m), pa.array(range(m)), record]
    ready = pa.record_batch(columns, names=["batch_id", "set_aside", "row_number", "record"])
    sizes = []

    def slices() -> Iterator[pa.RecordBatch]:
        for _ in range(n_slices):
            sizes.append(written())
            yield ready

    def written() -> int:
        return sum(file.stat().st_size for file in tables.root.rglob("*.parquet"))

    tables.replace("records", "a", pa.RecordBatchReader.from_batches(ready.schema, slices()), note={})
    assert tables.dataset("records").count_rows() == n_slices * m
    waiting = [i - n_slices * size / written() for i, size in enumerate(sizes)]
    assert max(waiting) <= ROW_GROUP / m + AHEAD + 3  # and one in each hand between them


def test_the_order_of_columns_may_change(tables: Tables) -> None:
    """A contract is edited by hand; whatever order it names its columns in, they are the same."""
    colours = pa.array(["red", "blue"])
    tables.replace("records", "a", rows("a", [1, 2], colour=colours), note={})
    moved = rows("b", [3, 4], colour=colours).read_all()
    record = moved["record"].combine_chunks()
    turned = pa.StructArray.from_arrays(
        [record.field("colour"), record.field("amount")], names=["colour", "amount"]
    )
    tables.replace("records", "b", moved.set_column(3, "record", turned).to_reader(), note={})
    tables.replace("records", "c", rows("c", [5]), note={})
    found = tables.read("records").sort_by([("batch_id", "ascending"), ("row_number", "ascending")])
    cells = [(cell["amount"], cell["colour"]) for cell in found["record"].to_pylist()]
    assert cells == [(1, "red"), (2, "blue"), (3, "red"), (4, "blue"), (5, None)]


def test_rows_of_another_batch_are_not_smuggled_in(tables: Tables) -> None:
    """A step that mixes up two batches must fail, not damage the other one."""
    tables.replace("records", "b", rows("b", [1]), note={})
    with pytest.raises(StorageFailed, match="nothing was published"):
        tables.replace("records", "a", rows("b", [2]), note={})
    assert amounts(tables) == [1]


def test_a_new_column_appears_and_is_empty_where_it_was_not_known(tables: Tables) -> None:
    """Contracts grow; what was written before stays readable, and may be written again as it was."""
    tables.replace("records", "a", rows("a", [1]), note={})
    zoned = pa.array([5, None], pa.timestamp("us"))
    tables.replace("records", "b", rows("b", [2, 3], colour=pa.array(["red", None]), at=zoned), note={})
    tables.replace("records", "c", rows("c", [4]), note={})
    found = tables.read("records").sort_by([("batch_id", "ascending"), ("row_number", "ascending")])
    assert found["record"].combine_chunks().field("colour").to_pylist() == [None, "red", None, None]
    assert found["record"].combine_chunks().field("amount").to_pylist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("was", "now"), [([1], [0.5]), ([0.5], [1]), ([1], ["1"]), (["x"], [1]), ([True], [1])], ids=str
)
def test_a_column_of_another_type_is_refused_and_not_cast(
    tables: Tables, was: list[Any], now: list[Any]
) -> None:
    """Delta would cast without a word: 0.5 to 0, an amount to text. What was there stays, and so does the
    type.
    """
    tables.replace("records", "a", rows("a", was), note={})
    with pytest.raises(
        ConfigError, match=r"column 'amount' is \w+, in the table \w+; a table keeps its types"
    ):
        tables.replace("records", "a", rows("a", now), note={})
    assert amounts(tables) == was


def test_one_flag_of_some_batches_is_a_list_of_files_for_other_engines(tables: Tables) -> None:
    """Training reads accepted records with DuckDB: neither records set aside nor dead versions may slip
    in.
    """
    for batch_id in ("a", "b", "c"):
        tables.replace("records", batch_id, rows(batch_id, [0, 0]), note={})
        tables.replace("records", batch_id, rows(batch_id, [1, 2, -1], aside=1), note={})
    files = tables.files("records", ["a", "c"], flag=False)
    with duckdb.connect() as connection:
        query = f"SELECT count(*), min(record.amount), max(record.amount) FROM read_parquet({files})"
        assert connection.execute(query).fetchone() == (4, 1, 2)
    assert tables.files("records", [], flag=False) == []
    assert tables.files("records", ["unknown"], flag=False) == []


def test_a_batch_is_opened_without_the_files_of_others(tables: Tables) -> None:
    """A table of years of nights would else take a fifth of a second to open, several times a batch."""
    for batch_id in ("a", "b"):
        tables.replace("records", batch_id, rows(batch_id, [1, 2, -1], aside=1), note={})
    accepted = tables.dataset("records", ["a"], flag=False)
    assert [Path(file).parts[:2] for file in accepted.files] == [("batch_id=a", "set_aside=false")]
    assert accepted.count_rows() == 2
    assert tables.dataset("records").count_rows() == 6
    assert tables.dataset("records", ["unknown"]).count_rows() == 0


@pytest.mark.parametrize("folder", ["two words", "ünï \U0001f600", "it's", "100%", "a#b;c,d=e", "{a}"])
def test_tables_may_lie_in_a_folder_of_any_name_that_settings_allow(tmp_path: Path, folder: str) -> None:
    """`My Project` is a common place to try something out."""
    tables = Tables(tmp_path / folder)
    tables.replace("records", "a", rows("a", [1, 2]), note={})
    tables.replace("records", "a", rows("a", [3, -1], aside=1), note={})
    assert amounts(tables) == [3, -1]
    (file,) = tables.files("records", ["a"], flag=False)
    assert Path(file).is_file()
    assert len(tables.vacuum("records", keep_hours=0)) == 1
    assert sum(file.is_file() for file in Path(tables.uri("records")).rglob("*.parquet")) == 2


def test_vacuum_removes_dead_files_and_nothing_else(tables: Tables) -> None:
    """Every rerun leaves files behind; kept long enough for readers, then gone."""
    for _ in range(3):
        tables.replace("records", "a", rows("a", [1, 2]), note={})
    assert tables.vacuum("records") == []
    sizes = {file: file.stat().st_size for file in Path(tables.uri("records")).rglob("*.parquet")}
    would = tables.vacuum("records", keep_hours=0, dry_run=True)
    assert (len(would), set(Path(tables.uri("records")).rglob("*.parquet"))) == (2, set(sizes))
    assert tables.vacuum("records", keep_hours=0) == would
    (left,) = Path(tables.uri("records")).rglob("*.parquet")
    assert sum(would) == sum(bytes_ for file, bytes_ in sizes.items() if file != left)
    assert amounts(tables) == [1, 2]


def test_vacuum_keeps_versions_that_somebody_will_read_again(tables: Tables) -> None:
    """What a model learned from, though the batch was delivered again since; a version that the log has
    forgotten keeps nothing, and is no fault.
    """
    for amount in (1, 2, 3):
        tables.replace("records", "a", rows("a", [amount]), note={})
    then = tables.version("records") - 1
    assert len(tables.vacuum("records", keep_versions=[then, 99], keep_hours=0)) == 1
    assert amounts(replace(tables, as_of=then)) == [2]
    assert amounts(tables) == [3]


def test_a_reader_sees_a_batch_whole_while_it_is_being_replaced(tables: Tables) -> None:
    """A page that is refreshed during a run shows one run's records or the other's, never some of both."""
    tables.replace("records", "a", rows("a", [0] * 20, aside=5), note={})
    done = threading.Event()

    def write() -> None:
        for value in range(1, 9):
            tables.replace("records", "a", rows("a", [value] * 20, aside=5), note={})
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not done.is_set():
        seen.append(amounts(tables, "a"))
    writer.join()
    assert all(len(found) == 20 and len(set(found)) == 1 for found in seen)
    assert amounts(tables) == [8] * 20


PREPARE = """
import pyarrow as pa
from pathlib import Path
from pipeline.storage.tables import Tables
import deltalake, pyarrow.dataset
root, batch_id, value = args
table = pa.table({"batch_id": [batch_id] * 50, "set_aside": [False] * 50, "row_number": range(50), "value": [int(value)] * 50})
"""
ACT = """
for _ in range(2):
    Tables(Path(root)).replace("records", batch_id, table.to_reader(), note={})
print("published")
"""


def test_writers_at_once_leave_each_batch_with_one_writers_rows(
    tmp_path: Path, at_once: Callable[[str, str, list[list[str]]], list[str]]
) -> None:
    """The first writers of a table, on the same and on different batches: all get through, none is mixed."""
    arguments = [[str(tmp_path), batch_id, str(n)] for n, batch_id in enumerate("aba")]
    assert at_once(PREPARE, ACT, arguments) == ["published"] * 3
    found = Tables(tmp_path).read("records")
    assert found.num_rows == 100
    for batch_id, writers in (("a", {0, 2}), ("b", {1})):
        (value,) = {row["value"] for row in found.to_pylist() if row["batch_id"] == batch_id}
        assert value in writers

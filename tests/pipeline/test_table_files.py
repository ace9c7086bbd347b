"""Rows that are published without the columns they lack: read as null by every reader, all of a batch or
none, and described truly in Delta's log.
"""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, QueryBuilder

from pipeline.errors import ConfigError, StorageFailed
from pipeline.storage.table_files import Part
from pipeline.storage.tables import Tables

RECORD = pa.struct([("amount", pa.float32()), ("tags", pa.list_(pa.string()))])
SCHEMA = pa.schema([
    ("batch_id", pa.string()),
    ("flagged", pa.bool_()),
    ("row_number", pa.int64()),
    ("record_key", pa.string()),
    ("anomaly_score", pa.float32()),
    ("model_version", pa.int32()),
    ("anomaly_id", pa.string()),
    ("reasons", pa.list_(pa.struct([("column", pa.string())]))),
    ("record", RECORD),
])
SEEN = {"amount": 2.5, "tags": ["a", None]}


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path / "tables" / "payments")


def part(numbers: Iterable[int], *, flagged: bool = False, version: int = 1, score: Any = None) -> Part:
    """Rows of the table `scores`; flagged ones have an id and a record besides."""
    rows = list(numbers)
    columns = {
        "row_number": pa.array(rows, pa.int64()),
        "record_key": pa.array([f"k{i}" for i in rows]),
        "anomaly_score": pa.array(rows if score is None else score, pa.float32()),
        "model_version": pa.array([version] * len(rows), pa.int32()),
    }
    if flagged:
        reasons = pa.array([[{"column": "amount"}]] * len(rows), SCHEMA.field("reasons").type)
        columns |= {"anomaly_id": columns["record_key"], "reasons": reasons}
        columns |= {"record": pa.array([SEEN] * len(rows), RECORD)}
    return flagged, pa.record_batch(columns)


def publish(
    tables: Tables, *parts: Part, batch_id: str = "a", schema: pa.Schema = SCHEMA, **note: str
) -> None:
    tables.replace_parted("scores", batch_id, schema, parts, note=note)


def published(tables: Tables) -> list[tuple[str, int, int]]:
    """Batch, row and model version of all that a reader sees."""
    found = tables.read("scores").to_pylist()
    return sorted((row["batch_id"], row["row_number"], row["model_version"]) for row in found)


def files(tables: Tables) -> set[Path]:
    return set(Path(tables.uri("scores")).rglob("*.parquet"))


def test_columns_that_rows_lack_are_in_no_file_and_null_to_every_reader(tables: Tables) -> None:
    """Structs and lists, too, through the log and through DuckDB."""
    publish(tables, part([0, 1]), part([2], flagged=True), part([3]))
    (unflagged,) = tables.files("scores", ["a"], flag=False)
    assert pq.read_schema(unflagged).names == ["row_number", "record_key", "anomaly_score", "model_version"]
    found = tables.read("scores").sort_by("row_number")
    assert found["record"].to_pylist() == [None, None, SEEN, None]
    assert found["anomaly_id"].to_pylist() == [None, None, "k2", None]
    assert found["flagged"].to_pylist() == [False, False, True, False]
    assert pa.schema(sorted(found.schema, key=lambda field: field.name)) == pa.schema(
        sorted(SCHEMA, key=lambda field: field.name)
    )
    scores = tables.dataset("scores")
    with duckdb.connect() as connection:
        query = "SELECT count(*), count(record), max(record.amount), list(anomaly_id ORDER BY row_number) FROM scores"
        assert connection.execute(query).fetchone() == (4, 1, 2.5, [None, None, "k2", None])
    assert scores.count_rows() == 4
    frame = DeltaTable(tables.uri("scores")).to_pandas()
    assert frame["record"].notna().sum() == 1


@pytest.mark.parametrize("column", ["anomaly_id", "reasons", "record", "record.amount"])
def test_who_asks_where_a_column_is_null_finds_the_rows_that_lack_it(tables: Tables, column: str) -> None:
    """Whatever a reader makes of the statistics of files that do not have it."""
    publish(tables, part([0, 1]), part([2], flagged=True), part([3]))
    scores = tables.dataset("scores")
    with duckdb.connect() as connection:
        for condition, rows in (("IS NULL", [0, 1, 3]), ("IS NOT NULL", [2])):
            query = f"SELECT row_number FROM scores WHERE {column} {condition} ORDER BY 1"
            assert [row for (row,) in connection.execute(query).fetchall()] == rows
            found = QueryBuilder().register("scores", DeltaTable(tables.uri("scores"))).execute(query)
            assert pa.table(found.read_all())["row_number"].to_pylist() == rows
    assert scores.to_table(filter=pads.field(*column.split(".")).is_null()).num_rows == 3


def test_the_log_says_of_a_file_what_it_holds(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over row groups: a reader that passes over files by their bounds finds every row."""
    monkeypatch.setattr("pipeline.storage.table_files.ROW_GROUP", 2)
    publish(tables, part([5, 1]), part([9, 7]), part([3]), part([4, 2], flagged=True))
    of_files = pa.table(DeltaTable(tables.uri("scores")).get_add_actions(flatten=True)).to_pylist()
    found = {row["partition.flagged"]: row for row in of_files}
    assert pq.ParquetFile(tables.files("scores", ["a"], flag=False)[0]).num_row_groups == 3
    assert (found[False]["num_records"], found[True]["num_records"]) == (5, 2)
    assert (found[False]["min.row_number"], found[False]["max.row_number"]) == (1, 9)
    assert (found[True]["min.anomaly_score"], found[True]["max.anomaly_score"]) == (2.0, 4.0)
    assert (found[False]["min.record_key"], found[False]["max.record_key"]) == ("k1", "k9")
    assert (found[False]["null_count.row_number"], found[True]["null_count.anomaly_id"]) == (0, 0)
    assert all(
        row["size_bytes"] == (Path(tables.uri("scores")) / row["path"]).stat().st_size for row in of_files
    )
    kept = tables.dataset("scores").to_table(filter=pads.field("row_number") == 9)
    assert kept.num_rows == 1
    assert tables.model_versions() == {1: 1}


def test_values_that_have_no_bounds_are_found_all_the_same(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON has no infinity, Parquet no bounds of NaN and of long texts; and a row group may have no value."""
    monkeypatch.setattr("pipeline.storage.table_files.ROW_GROUP", 2)
    flag, rows = part([0, 1], score=[1.0, math.inf])
    long = pa.array(["k0", "k" * 10_000])
    rows = rows.set_column(rows.schema.get_field_index("record_key"), "record_key", long)
    publish(
        tables,
        (flag, rows),
        part([2, 3], score=[None, None]),
        part([4, 5], flagged=True, score=[math.nan, math.nan]),
    )
    scores = tables.dataset("scores")
    for name, value, expected in (("anomaly_score", 1.0, [0, 1]), ("record_key", "k1", [1, 2, 3, 4, 5])):
        kept = scores.to_table(filter=pads.field(name) >= value)
        assert sorted(kept["row_number"].to_pylist()) == expected
    missing = scores.to_table(filter=pads.field("anomaly_score").is_null())
    assert missing["row_number"].to_pylist() == [2, 3]
    assert scores.to_table(filter=pads.field("anomaly_score").is_nan())["row_number"].to_pylist() == [4, 5]


def test_files_are_of_bounded_size(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer elsewhere reads and rewrites them one at a time."""
    monkeypatch.setattr("pipeline.storage.table_files.ROW_GROUP", 1000)
    monkeypatch.setattr("pipeline.storage.table_files.FILE_SIZE", 30_000)
    random = np.random.default_rng(0)
    publish(tables, *(part(range(i, i + 500), score=random.normal(size=500)) for i in range(0, 10_000, 500)))
    assert 2 < len(files(tables)) <= 10
    assert max(file.stat().st_size for file in files(tables)) < 60_000
    assert tables.read("scores")["row_number"].to_numpy().sum() == sum(range(10_000))


def test_a_batch_is_replaced_with_its_flagged_rows_and_others_are_not(tables: Tables) -> None:
    """In one commit, whatever was there of it, to nothing where nothing is left."""
    publish(tables, part([0]), part([1], flagged=True))
    publish(tables, part([0]), batch_id="b")
    publish(tables, part([0, 1], version=2), fingerprint="second")
    assert published(tables) == [("a", 0, 2), ("a", 1, 2), ("b", 0, 1)]
    history = DeltaTable(tables.uri("scores")).history()
    assert (len(history), history[0]["fingerprint"]) == (4, "second")
    publish(tables)
    assert published(tables) == [("b", 0, 1)]
    assert tables.model_versions() == {1: 1}


def test_a_fault_among_the_rows_leaves_no_file_and_what_was_there(tables: Tables) -> None:
    """The fault comes out as it is, or as one of storage."""
    publish(tables, part([0]))
    before = files(tables)

    def broken(fault: Exception) -> Iterator[Part]:
        yield part(range(200_000))
        assert files(tables) > before
        yield part([1], flagged=True)
        raise fault

    with pytest.raises(ZeroDivisionError):
        tables.replace_parted("scores", "a", SCHEMA, broken(ZeroDivisionError()), note={})
    with pytest.raises(StorageFailed, match="batch a: the disk is gone; nothing was published"):
        tables.replace_parted("scores", "a", SCHEMA, broken(OSError("the disk is gone")), note={})
    assert (published(tables), files(tables)) == ([("a", 0, 1)], before)


def test_a_column_of_the_record_appears_and_one_of_another_type_is_refused(tables: Tables) -> None:
    """Contracts grow between batches; a table keeps its types."""
    publish(tables, part([0], flagged=True))
    more = pa.struct([*RECORD, ("at", pa.timestamp("us"))])
    grown = SCHEMA.set(SCHEMA.get_field_index("record"), pa.field("record", more))
    _, rows = part([1], flagged=True)
    record = pa.array([{**SEEN, "at": 5}], more)
    rows = rows.set_column(rows.schema.get_field_index("record"), "record", record)
    publish(tables, (True, rows), batch_id="b", schema=grown)
    publish(tables, part([2]), batch_id="c", schema=grown)
    found = tables.read("scores").sort_by("row_number")["record"].combine_chunks()
    assert found.field("at").cast(pa.int64()).to_pylist() == [None, 5, None]
    assert found.field("amount").to_pylist() == [2.5, 2.5, None]
    other = grown.set(SCHEMA.get_field_index("anomaly_score"), pa.field("anomaly_score", pa.int64()))
    with pytest.raises(ConfigError, match="column 'anomaly_score' is int64, in the table float"):
        publish(tables, part([2]), batch_id="c", schema=other)


def test_who_commits_between_a_look_and_our_commit_is_replaced_and_not_added_to(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one new batch: delta-rs by itself would keep the rows of both."""
    publish(tables, part([0]), batch_id="b")
    look, overtaken = Tables._open, []

    def overtaken_once(self: Tables, table: Any) -> Any:
        opened = look(self, table)
        if not overtaken:
            overtaken.append(True)
            publish(self, part([0, 1], version=1))
        return opened

    monkeypatch.setattr(Tables, "_open", overtaken_once)
    publish(tables, part([0, 1], version=2))
    assert published(tables) == [("a", 0, 2), ("a", 1, 2), ("b", 0, 1)]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.storage.tables import Tables
from tests.pipeline.test_table_files import part, publish
Tables._commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
publish(Tables(Path(sys.argv[1])), part([0], version=2), part([1], flagged=True, version=2))
"""


def test_files_of_a_writer_that_was_killed_are_seen_by_nobody_and_removed_in_time(tables: Tables) -> None:
    """Killed after its last file and before the commit; while they are young they may be a writer's at
    work.
    """
    publish(tables, part([0]))
    before = files(tables)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tables.root)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files(tables) - before) == 2
    assert published(tables) == [("a", 0, 1)]
    assert tables.vacuum("scores") == []
    publish(tables, part([0], version=3))
    assert len(tables.vacuum("scores", keep_hours=0)) == 3
    assert len(files(tables)) == 1
    assert published(tables) == [("a", 0, 3)]


PREPARE = """
import deltalake, pyarrow.dataset, pyarrow.parquet
from pathlib import Path
from pipeline.storage.tables import Tables
from tests.pipeline.test_table_files import part, publish
root, batch_id, version = args
"""
ACT = """
for _ in range(4):
    publish(Tables(Path(root)), part(range(40), version=int(version)), part(range(40, 50), flagged=True, version=int(version)), batch_id=batch_id)
print("published")
"""


def test_writers_at_once_leave_each_batch_with_one_writers_rows(
    tmp_path: Path, at_once: Callable[[str, str, list[list[str]]], list[str]]
) -> None:
    """The first writers of a table, on the same and on different batches: all get through, none is mixed."""
    arguments = [[str(tmp_path), batch_id, str(n)] for n, batch_id in enumerate("aba")]
    assert at_once(PREPARE, ACT, arguments) == ["published"] * 3
    found = published(Tables(tmp_path))
    assert len(found) == 100
    for batch_id, writers in (("a", {0, 2}), ("b", {1})):
        (version,) = {version for of, _, version in found if of == batch_id}
        assert version in writers

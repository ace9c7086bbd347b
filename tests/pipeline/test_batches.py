"""What has landed: every settled file is in one batch, under a key that never changes and is never shared."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.config.dataset import Dataset
from pipeline.errors import ConfigError, StorageFailed
from pipeline.incoming import batches, guard
from pipeline.incoming.batches import BATCH_ID, LandedBatch, LandedFile, landed, path_shape, safe_id
from pipeline.incoming.validation import count_records, examine
from pipeline.storage.ledger import Ledger

COLUMNS = {"at": {"type": "timestamp"}, "amount": {"type": "float", "role": "numeric"}}


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (folder := tmp_path / "incoming").mkdir()
    return folder


@pytest.fixture
def land(incoming: Path) -> Callable[..., Path]:
    """Put a file under incoming, Parquet where times are given."""

    def put(relative: str, times: Sequence[str | None] | None = None) -> Path:
        file = incoming / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        if times is None:
            file.write_bytes(b"anything")
        else:
            at = pa.array([t and datetime.fromisoformat(t) for t in times], pa.timestamp("us"))
            pq.write_table(pa.table({"at": at, "amount": [1.0] * len(times)}), file)
        return file

    return put


def keyed(batches: Sequence[LandedBatch]) -> dict[str, list[str]]:
    return {batch.batch_id: [file.relative for file in batch.files] for batch in batches}


@given(st.text(max_size=200))
def test_any_text_becomes_a_legal_batch_id(text: str) -> None:
    """It becomes a partition's value, a folder's name and part of a query: letters, digits, - and _ only."""
    assert BATCH_ID.fullmatch(safe_id(text))


@given(st.text(max_size=30), st.text(max_size=30))
def test_different_deliveries_have_different_batch_ids(one: str, other: str) -> None:
    """Two that shared one would replace each other, every night in turn."""
    assume(one != other and "=" not in one + other)
    assert safe_id(one) != safe_id(other)


@given(st.from_regex(BATCH_ID, fullmatch=True))
def test_a_plain_name_is_its_own_batch_id(text: str) -> None:
    """The person looks for the name that they gave."""
    assert safe_id(text) == text


def test_hive_partitions_are_named_by_their_values() -> None:
    """year=2026/month=01/day=31 is what a person calls 2026-01-31."""
    assert safe_id("year=2026/month=01/day=31") == "2026-01-31"
    assert safe_id("day=2026-01-31") == "2026-01-31"
    assert safe_id("region=eu west") == f"eu-west-{safe_id('eu west')[-8:]}"


@pytest.mark.parametrize(
    ("files", "path", "batch_id"),
    [
        ("{batch_id}.parquet", "2026-01-01.parquet", "2026-01-01"),
        ("{batch_id}.parquet", "a/2026.parquet", None),
        ("{batch_id}.parquet", ".parquet", None),
        ("sales_{batch_id}.parquet", "sales_[1].parquet", "[1]"),
        ("sales_{batch_id}.parquet", "sales-1.parquet", None),
        ("day={batch_id}/*.parquet", "day=1/part-0.parquet", "1"),
        ("day={batch_id}/*.parquet", "day=1/part-0.csv", None),
        ("{batch_id}/*.parquet", "year=2026/month=01/x.parquet", "year=2026/month=01"),
        ("**/{batch_id}.parquet", "eu/west/7.parquet", "7"),
        ("**/{batch_id}.parquet", "7.parquet", "7"),
        ("[x]+/{batch_id}.(parquet)", "[x]+/1.(parquet)", "1"),
        ("[x]+/{batch_id}.(parquet)", "xx/1.parquet", None),
    ],
)
def test_a_path_names_its_batch(files: str, path: str, batch_id: str | None) -> None:
    """Only {batch_id} and * mean anything; all else is itself."""
    match = path_shape(files).fullmatch(path)
    assert (match and match["batch_id"]) == batch_id


def test_files_of_one_delivery_are_one_batch_in_a_stable_order(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """The order in which a file system lists is nobody's promise."""
    for relative in ("day=2/b.parquet", "day=1/z.parquet", "day=2/a.parquet", "day=2/notes.txt"):
        land(relative)
    found = landed(make_dataset(incoming={"files": "day={batch_id}/*.parquet"}), ledger)
    assert keyed(found) == {"1": ["day=1/z.parquet"], "2": ["day=2/a.parquet", "day=2/b.parquet"]}
    assert [batch.batch_id for batch in found] == ["1", "2"]


NAMES = [
    "[x]",
    "a*b",
    "it's",
    "two words",
    "ünï",
    "emoji \U0001f600",
    "a\nb",
    "caf\udce9",
    "-rf",
    "%20",
    "a;b",
    '"q"',
    "$HOME",
]


def test_paths_of_any_characters_land(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """Senders name files; none of their characters may hide a file, or two files behind one key."""
    for name in NAMES:
        land(f"{name}.parquet")
    found = landed(make_dataset(), ledger)
    assert {batch.delivery for batch in found} == set(NAMES)
    assert len({batch.batch_id for batch in found}) == len(NAMES)
    assert all(BATCH_ID.fullmatch(batch.batch_id) for batch in found)
    assert len({batch.signature for batch in found}) == len(NAMES)
    assert len({batch.fingerprint(["x"]) for batch in found}) == len(NAMES)


@pytest.mark.parametrize(
    "relative",
    [".hidden.parquet", "_SUCCESS", "_tmp/1.parquet", ".staging/1.parquet", "1.parquet.tmp", "1.parquet.part",
     "1.parquet.crc", "1.parquet.inprogress", "1.parquet.filepart"],
)  # fmt: skip
def test_names_of_files_in_the_making_are_passed_over(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger, relative: str
) -> None:
    """Spark, rsync, browsers and S3 tools write beside and rename: half a file is no batch."""
    land(relative)
    assert landed(make_dataset(incoming={"files": "**/{batch_id}"}), ledger) == []


def test_a_batch_that_is_still_being_written_is_left_for_the_next_look(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """One fresh file holds back its whole delivery, and no other one."""
    dataset = make_dataset(incoming={"files": "{batch_id}/*.parquet", "settle_seconds": 60})
    old = time.time() - 61
    for relative in ("1/a.parquet", "2/a.parquet", "2/b.parquet"):
        os.utime(land(relative), (old, old))
    os.utime(fresh := land("2/b.parquet"))
    assert keyed(landed(dataset, ledger)) == {"1": ["1/a.parquet"]}
    os.utime(fresh, (old, old))
    assert set(keyed(landed(dataset, ledger))) == {"1", "2"}


def test_only_files_land(make_dataset: Callable[..., Dataset], incoming: Path, ledger: Ledger) -> None:
    """A folder, a pipe or a link to nowhere may carry a file's name."""
    (incoming / "folder.parquet").mkdir()
    os.mkfifo(incoming / "pipe.parquet")
    (incoming / "broken.parquet").symlink_to("nowhere")
    assert landed(make_dataset(), ledger) == []


def test_a_linked_file_lands(
    make_dataset: Callable[..., Dataset], incoming: Path, tmp_path: Path, ledger: Ledger
) -> None:
    """Large data is often lent, not copied."""
    (tmp_path / "elsewhere").write_bytes(b"x")
    (incoming / "1.parquet").symlink_to(tmp_path / "elsewhere")
    assert keyed(landed(make_dataset(), ledger)) == {"1": ["1.parquet"]}


def test_a_folder_that_is_not_there_is_said(make_dataset: Callable[..., Dataset], ledger: Ledger) -> None:
    """An unmounted disk must not look like a day without data."""
    with pytest.raises(StorageFailed, match=r"payments: incoming folder .* is not there"):
        landed(make_dataset(), ledger)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_said(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """Nor may one that is closed to us."""
    land("1/a.parquet").parent.chmod(0)
    with pytest.raises(StorageFailed, match="cannot list"):
        landed(make_dataset(incoming={"files": "{batch_id}/*.parquet"}), ledger)


def test_a_folder_that_is_removed_while_it_is_listed_is_passed_over(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path]
) -> None:
    """Somebody's temporary folder, say."""
    land("a.parquet")
    passing = land("passing/b.parquet")
    found = batches._listed(make_dataset(incoming={"files": "**/{batch_id}.parquet"}))
    listed = iter(found)
    assert next(listed)[1] == "a"
    passing.unlink()
    passing.parent.rmdir()
    assert list(listed) == []


@pytest.mark.parametrize(
    ("batch_id", "day", "first_day"),
    [
        ("2026-01-31", "2026-01-31", "2026-01-31"),
        ("Retail-2026-01-31", "2026-01-31", "2026-01-31"),
        ("e_20260131T05", "2026-01-31", "2026-01-31"),
        ("2026-01", None, "2026-01-01"),
        ("2026-02-31", None, None),
        ("run-20261399", None, None),
    ],
)
def test_a_name_may_say_a_day(batch_id: str, day: str | None, first_day: str | None) -> None:
    """Wherever in it the date stands."""
    whole, any_ = batches.named_day(batch_id), batches.named_day(batch_id, whole=False)
    assert (whole and whole.isoformat(), any_ and any_.isoformat()) == (day, first_day)


def test_two_deliveries_that_would_share_a_batch_id_are_refused(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """Store 5 and till 5 are two batches: better no batch today than one that replaces the other."""
    land("store=5/a.parquet")
    land("till=5/a.parquet")
    with pytest.raises(ConfigError, match=r"'store=5' and 'till=5' would both be batch '5'"):
        landed(make_dataset(incoming={"files": "{batch_id}/*.parquet"}), ledger)


FILES = st.lists(
    st.tuples(st.text(st.characters(codec="ascii"), max_size=5), st.integers(0, 9), st.integers(0, 9)),
    min_size=1,
    max_size=4,
    unique_by=lambda file: file[0],
)


def batch_of(files: list[tuple[str, int, int]], period: str | None = None) -> LandedBatch:
    made = tuple(LandedFile(Path(name), name, size, mtime) for name, size, mtime in files)
    return LandedBatch("b", made, "b", period)


@given(FILES, FILES)
def test_a_signature_changes_when_a_file_is_touched(one: Any, other: Any) -> None:
    """It is what makes the next look cheap: unchanged files are not read again."""
    assert (batch_of(one).signature == batch_of(other).signature) == (one == other)


@given(FILES, st.integers(0, 3), st.sampled_from([None, "2026-01-01", ""]))
def test_a_fingerprint_changes_with_the_content_and_not_with_the_clock(
    files: Any, i: int, period: str | None
) -> None:
    """A file copied again is the same file; a file with one byte changed is not."""
    digests = [f"digest{k}" for k in range(len(files))]
    found = batch_of(files, period).fingerprint(digests)
    touched = [(name, size, mtime + 1) for name, size, mtime in files]
    assert batch_of(touched, period).fingerprint(digests) == found
    changed = [d + "x" if k == i % len(files) else d for k, d in enumerate(digests)]
    renamed = [(name + "x" * (k == i % len(files)), size, m) for k, (name, size, m) in enumerate(files)]
    assert batch_of(files, period).fingerprint(changed) != found
    assert batch_of(renamed, period).fingerprint(digests) != found
    assert batch_of(files, "2027").fingerprint(digests) != found


def monthly(
    make_dataset: Callable[..., Dataset], files: str = "{batch_id}.parquet", split: str = "day"
) -> Dataset:
    return make_dataset(columns=COLUMNS, time="at", incoming={"files": files, "split": split})


def counts(dataset: Dataset, ledger: Ledger) -> dict[str, int]:
    """Records of each batch, as validation counts them."""
    found, reports = landed(dataset, ledger), dict[str, list[guard.FileReport]]()
    for batch in found:
        if batch.delivery not in reports:
            reports[batch.delivery] = examine(dataset, batch)
    return {batch.batch_id: count_records(batch, reports[batch.delivery]) for batch in found}


TIMES = ["2026-01-01T00:00", "2026-01-01T23:59:59", "2026-01-31", "2026-02-01", "2008-12-31", None, None]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("day", {"2026-01-01": 2, "2026-01-31": 1, "2026-01_undated": 4}),
        ("hour", {"2026-01-01T00": 1, "2026-01-01T23": 1, "2026-01-31T00": 1, "2026-01_undated": 4}),
    ],
)
def test_a_monthly_file_is_cut_and_every_record_is_in_one_batch(
    make_dataset: Callable[..., Dataset],
    land: Callable[..., Path],
    ledger: Ledger,
    split: str,
    expected: dict[str, int],
) -> None:
    """Stray dates share a batch of their own, so that the counts add up to what the file holds."""
    land("2026-01.parquet", TIMES)
    found = counts(monthly(make_dataset, split=split), ledger)
    assert found == expected
    assert sum(found.values()) == len(TIMES)


def test_a_changed_split_is_counted_anew(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """What was remembered by day answers nothing about hours."""
    land("2026-01.parquet", TIMES)
    for split, n_batches in (("day", 3), ("hour", 4), ("day", 3)):
        assert len(landed(monthly(make_dataset, split=split), ledger)) == n_batches


def test_a_delivery_is_read_once_however_often_it_is_listed(
    make_dataset: Callable[..., Dataset],
    land: Callable[..., Path],
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder is listed every few minutes; a year of files must not be decoded each time."""
    file = land("2026-01.parquet", TIMES)
    first = landed(monthly(make_dataset), ledger)
    monkeypatch.setattr(guard, "SECONDS_PER_FILE", 1e-6)  # whoever reads now is killed
    assert landed(monthly(make_dataset), ledger) == first
    os.utime(file, (1, 1))
    assert len(landed(monthly(make_dataset), ledger)) == 1


def test_files_of_one_month_from_two_sources_stay_apart(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """North's and south's 5 January are two batches, or each would replace the other."""
    for source in ("north", "south"):
        land(f"{source}_2026-01.parquet", ["2026-01-05"] * 3)
    assert set(keyed(landed(monthly(make_dataset), ledger))) == {"north_2026-01-05", "south_2026-01-05"}


def test_nested_partitions_are_cut_by_their_own_month(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """January's partition may hold a record of February; it is not February's batch."""
    land("year=2026/month=01/a.parquet", ["2026-01-05", "2026-02-05"])
    land("year=2026/month=02/a.parquet", ["2026-02-05"])
    found = keyed(landed(monthly(make_dataset, "{batch_id}/*.parquet"), ledger))
    january, february = ["year=2026/month=01/a.parquet"], ["year=2026/month=02/a.parquet"]
    assert found == {"2026-01-05": january, "2026-01_undated": january, "2026-02-05": february}


@pytest.mark.parametrize("name", ["part-000123", "store_2044"])
def test_a_name_without_a_date_bounds_no_period(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger, name: str
) -> None:
    """Digits in a name are not always a month: no record may be set aside because of them."""
    land(f"{name}.parquet", ["2026-01-05", "2026-02-05", "2026-02-05"])
    assert set(keyed(landed(monthly(make_dataset), ledger))) == {f"{name}_2026-01-05", f"{name}_2026-02-05"}


def test_long_names_are_cut_into_legal_batches(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """120 characters are the most that a batch_id has; what a split adds must still fit."""
    land("x" * 120 + ".parquet", ["2026-01-05", None])
    found = landed(monthly(make_dataset), ledger)
    assert len({batch.batch_id for batch in found}) == 2
    assert all(BATCH_ID.fullmatch(batch.batch_id) for batch in found)


def test_an_unreadable_delivery_is_one_batch_for_validation_to_refuse(
    make_dataset: Callable[..., Dataset], land: Callable[..., Path], ledger: Ledger
) -> None:
    """It must not vanish only because it cannot be cut."""
    land("2026-01.parquet")
    assert keyed(landed(monthly(make_dataset), ledger)) == {"2026-01": ["2026-01.parquet"]}


def test_a_real_month_is_cut_into_days_that_add_up(
    make_dataset: Callable[..., Dataset], incoming: Path, real_data: Path, ledger: Ledger
) -> None:
    """New York's green taxis of February 2023 as published, stray dates included."""
    file = shutil.copy(real_data / "taxi" / "green_tripdata_2023-02.parquet", incoming)
    columns = {
        "lpep_pickup_datetime": {"type": "timestamp"},
        "trip_distance": {"type": "float", "role": "numeric"},
    }
    files = {"files": "green_tripdata_{batch_id}.parquet", "split": "day"}
    found = counts(make_dataset(columns=columns, time="lpep_pickup_datetime", incoming=files), ledger)
    days = {f"2023-02-{day:02d}" for day in range(1, 29)}
    assert set(found) == days | {"2023-02_undated"}
    assert min(found[day] for day in days) > 1000
    assert sum(found.values()) == pq.ParquetFile(file).metadata.num_rows

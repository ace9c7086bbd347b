"""Strangers' files: each is found sound or refused with a reason, and the caller always survives."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CheckCrashed, ContractRefused, StorageFailed, UnreadableFile
from pipeline.incoming import guard
from pipeline.incoming.guard import FileReport, inspect, survey

TABLE = pa.table({
    "id": pa.array([str(i) for i in range(5000)]),
    "amount": pa.array([i * 0.25 for i in range(5000)]),
    "tags": pa.array([[i] for i in range(5000)]),
})


def written(file: Path, table: pa.Table = TABLE, **options: Any) -> Path:
    pq.write_table(table, file, **options)
    return file


def changed(file: Path, at: int, value: int) -> Path:
    """The file with one byte replaced."""
    data = bytearray(file.read_bytes())
    data[at] = value
    file.write_bytes(bytes(data))
    return file


def refusal(file: Path, *columns: str) -> str:
    """Why a file is refused."""
    with pytest.raises(UnreadableFile) as caught:
        inspect([file], columns=columns)
    assert str(caught.value).startswith(f"{file.name}: ")
    return str(caught.value)


def test_a_sound_file_is_reported_as_it_is(tmp_path: Path) -> None:
    """Digest, rows and types are what everything after this step believes."""
    file = written(tmp_path / "a.parquet")
    (report,) = inspect([file], columns=["amount", "not there"])
    assert report.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert report.n_records == 5000
    assert report.schema.equals(TABLE.schema)
    assert report.periods == {}


def test_what_takes_long_is_done_while_the_reader_starts(tmp_path: Path) -> None:
    """Waited for once, not twice: a file that is only written meanwhile is found."""
    file = tmp_path / "a.parquet"
    (report,) = inspect([file], columns=["amount"], meanwhile=lambda: written(file) and None)
    assert report.n_records == 5000


def test_a_batch_without_records_is_sound(tmp_path: Path) -> None:
    """Nothing happened on that day: whether that is acceptable is the contract's business."""
    (report,) = inspect([written(tmp_path / "a.parquet", TABLE.slice(0, 0))], columns=["amount"])
    assert (report.n_records, report.schema) == (0, TABLE.schema)


def test_unreadable_is_a_refusal_that_no_retry_mends() -> None:
    """The scheduler must not try a broken file again and again."""
    assert issubclass(UnreadableFile, ContractRefused)
    assert not UnreadableFile.retry_can_help
    assert StorageFailed.retry_can_help


NOT_PARQUET = {
    b"": "the file is empty (0 bytes)",
    b"P": "not a Parquet file: it starts with b'P'",
    b"id,amount\n1,2\n": "not a Parquet file: it starts with b'id,a'",
    b"PARE" + b"\0" * 40 + b"PARE": "not a Parquet file: it starts with b'PARE'",
    b"PAR1" + b"\0" * 40: "cut short: 44 bytes and no Parquet footer",
    b"PAR1PAR1": "Parquet file size is 8 bytes",
    b"PAR1\xff\xff\xff\x7fPAR1": "footer",
    b"PAR1" + b"\0" * 8 + b"\x04\0\0\0PAR1": "",
}


def test_what_is_no_parquet_is_refused_in_words(tmp_path: Path) -> None:
    """The person on the other side needs to know what arrived instead."""
    sound = written(tmp_path / "sound.parquet").read_bytes()
    contents = NOT_PARQUET | {sound[: int(len(sound) * share)]: "cut short" for share in (0.01, 0.5, 0.99)}
    files = [tmp_path / f"{i}.parquet" for i in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    for file, reason, found in zip(files, contents.values(), survey(files, columns=["amount"]), strict=True):
        assert isinstance(found, UnreadableFile)
        assert str(found).startswith(f"{file.name}: ")
        assert reason in str(found)


def test_a_flipped_bit_is_found_where_the_writer_stored_checksums(tmp_path: Path) -> None:
    """A disk or a network changed one bit: a number would be another, and nobody would know."""
    file = written(tmp_path / "a.parquet", write_page_checksum=True, compression="none", use_dictionary=False)
    where = pq.ParquetFile(file).metadata.row_group(0).column(1).data_page_offset + 1000
    changed(file, where, file.read_bytes()[where] ^ 1)
    assert "CRC checksum verification failed" in refusal(file, "id", "amount")
    assert isinstance(survey([file], columns=["id"])[0], FileReport), (
        "a column that nobody asks for is let be"
    )


def test_damage_inside_a_page_is_refused_not_raised(tmp_path: Path) -> None:
    """Compressed pages break in ways of their own."""
    file = written(tmp_path / "a.parquet", compression="zstd")
    start = pq.ParquetFile(file).metadata.row_group(0).column(1).data_page_offset
    for at in range(start, start + 60):
        changed(file, at, 0)
    assert len(refusal(file, "amount")) < 700


def test_text_that_is_not_utf8_is_refused_with_its_column(tmp_path: Path) -> None:
    """Latin-1 from an old system: the place is what the sender needs."""
    names = pa.array([b"caf\xc3\xa9"] * 20_000 + [b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(names), names.buffers())
    file = written(tmp_path / "a.parquet", pa.table({"name": text, "n": range(len(names))}))
    reason = refusal(file, "name")
    assert "column 'name', after record 16384" in reason
    assert "UTF8" in reason
    assert isinstance(survey([file], columns=["n"])[0], FileReport)


def test_a_file_that_is_removed_meanwhile_is_a_fault_of_storage(tmp_path: Path) -> None:
    """The next look finds it or not; nothing is said about its content."""
    sound = written(tmp_path / "a.parquet")
    with pytest.raises(StorageFailed, match=r"gone\.parquet: .*No such file"):
        inspect([sound, tmp_path / "gone.parquet"], columns=["id"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_fault_of_storage(tmp_path: Path) -> None:
    """A permission is mended without the sender."""
    (file := written(tmp_path / "a.parquet")).chmod(0)
    with pytest.raises(StorageFailed, match="Permission denied"):
        inspect([file], columns=["id"])


def test_a_folder_in_place_of_a_file_is_a_fault_of_storage(tmp_path: Path) -> None:
    """The system's own errors are never laid on the content."""
    with pytest.raises(StorageFailed, match="Is a directory"):
        inspect([tmp_path], columns=["id"])


def test_a_small_file_that_asks_for_gigabytes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One text of a megabyte, in a dictionary, for each of 1500 records: it takes down a child, or less."""
    monkeypatch.setattr(guard, "MEMORY_BYTES", 1 << 30)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1500, pa.int32()), ["x" * 1_000_000])
    table = pa.table({"text": column, "n": range(1500)})
    bombs = [
        written(tmp_path / f"{kept}.parquet", table, compression="zstd", store_schema=kept)
        for kept in (False, True)  # read as text, and as the dictionary that it is
    ]
    assert all(bomb.stat().st_size < 20_000 for bomb in bombs)
    sound = written(tmp_path / "sound.parquet")
    before, *bad, after = survey([sound, *bombs, sound], columns=["text", "id"])
    assert isinstance(before, FileReport)
    assert isinstance(after, FileReport)
    assert [str(found) for found in bad] == [
        f"{kept}.parquet: decoding it takes more than 1 GiB of memory" for kept in (False, True)
    ]
    assert isinstance(survey(bombs[:1], columns=["n"])[0], FileReport)


def test_a_file_that_is_decoded_for_too_long_is_refused_and_the_rest_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file must not hold up the night; the limit is for each file, however many wait behind it."""
    monkeypatch.setattr(guard, "SECONDS_PER_FILE", 20)
    os.mkfifo(stuck := tmp_path / "stuck.parquet")  # reading it never returns
    sound = written(tmp_path / "sound.parquet")
    bad, *others = survey([stuck, *[sound] * 3], columns=["amount"])
    assert str(bad) == "stuck.parquet: it was still being decoded after 20 s; have it written again"
    assert all(isinstance(other, FileReport) for other in others)


def test_a_reader_that_cannot_be_started_says_nothing_about_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine without memory for a process, or a broken installation, must not refuse good batches."""
    file = written(tmp_path / "a.parquet")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CheckCrashed, match=r"could not be started \(exit code 1\); no file was looked at"):
        inspect([file], columns=["amount"])


def test_a_folder_that_is_named_as_this_package_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many projects have a folder `pipeline`: started from there, python -m would read theirs."""
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    (report,) = inspect([written(tmp_path / "a.parquet")], columns=["amount"])
    assert report.n_records == 5000


def test_the_first_bad_file_is_raised_by_name(tmp_path: Path) -> None:
    """A batch of several files is refused with the one to look at."""
    sound = written(tmp_path / "a.parquet")
    (bad := tmp_path / "b.parquet").write_bytes(b"nothing")
    with pytest.raises(UnreadableFile, match=r"^b\.parquet: not a Parquet file"):
        inspect([sound, bad, sound], columns=["id"])


def test_files_of_any_name_are_read_and_named(tmp_path: Path) -> None:
    """A name is bytes to Linux, and often not UTF-8."""
    names = ["[x] *?", "it's", "ünï \U0001f600", "a\nb", "caf\udce9", "day=1,2", "-rf", "a" * 200]
    files = [written(tmp_path / "plain").rename(tmp_path / f"{name}.parquet") for name in names]
    files += [changed(written(tmp_path / "plain"), 0, 0).rename(tmp_path / f"x{name}") for name in names]
    found = survey(files, columns=["id"])
    assert [isinstance(it, FileReport) for it in found] == [True] * len(names) + [False] * len(names)
    for name, refused in zip(names, found[len(names) :], strict=True):
        assert str(refused).startswith(f"x{name}: ".replace("\udce9", "?"))


def test_no_columns_means_all_that_are_not_nested(tmp_path: Path) -> None:
    """Where the contract is still to be guessed, everything that could be in it is decoded."""
    file = written(tmp_path / "a.parquet", write_page_checksum=True, compression="none", use_dictionary=False)
    group = pq.ParquetFile(file).metadata.row_group(0)
    changed(file, group.column(2).data_page_offset + 100, 255)
    assert isinstance(survey([file], columns=None)[0], FileReport)
    changed(file, group.column(1).data_page_offset + 100, 255)
    assert isinstance(survey([file], columns=None)[0], UnreadableFile)


def test_more_columns_than_a_batch_may_have_are_refused(tmp_path: Path) -> None:
    """A table that was transposed by mistake has a column for each record."""
    wide = pa.table({f"c{i}": [1] for i in range(guard.MAX_COLUMNS + 1)})
    assert "it has 10,001 columns" in refusal(written(tmp_path / "a.parquet", wide), "c1")


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("hour", {"2026-01-01T23": 2, "2026-01-02T00": 1, "1969-12-31T23": 1, "": 1}),
        ("day", {"2026-01-01": 2, "2026-01-02": 1, "1969-12-31": 1, "": 1}),
        ("month", {"2026-01": 3, "1969-12": 1, "": 1}),
    ],
)
def test_records_are_counted_by_period_in_utc(tmp_path: Path, split: str, expected: dict[str, int]) -> None:
    """Every record belongs to one period, those without a time to none; neither unit nor zone moves one."""
    texts = ["2026-01-01T23:00", "2026-01-01T23:59:59.999", "2026-01-02T00:00", "1969-12-31T23:59:59.5"]
    times = pa.array([*map(datetime.fromisoformat, texts), None], pa.timestamp("us"))
    kinds = [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "America/New_York")]
    columns = [times.cast(pa.timestamp(kind.unit)).view(kind) for kind in kinds]
    files = [written(tmp_path / f"{i}.parquet", pa.table({"at": column})) for i, column in enumerate(columns)]
    reports = inspect(files, columns=["at"], time="at", split=split)
    assert [report.periods for report in reports] == [expected] * len(kinds)


def test_a_time_of_another_kind_is_left_to_the_contract(tmp_path: Path) -> None:
    """The sender is told "the contract says timestamp", not that a text could not be parsed."""
    file = written(tmp_path / "a.parquet", pa.table({"at": ["yesterday"]}))
    (report,) = inspect([file], columns=["at"], time="at", split="day")
    assert (report.n_records, report.periods) == (1, {})


def test_dates_are_counted_by_period(tmp_path: Path) -> None:
    """A date is a time of which only the day is known."""
    dates = pa.array([datetime.fromisoformat(t).date() for t in ("0001-01-01", "2026-02-03")])
    file = written(tmp_path / "a.parquet", pa.table({"on": dates}))
    (report,) = inspect([file], columns=["on"], time="on", split="day")
    assert report.periods == {"0001-01-01": 1, "2026-02-03": 1}


@pytest.mark.parametrize("columns", [[], None], ids=["footer", "all"])
def test_every_hostile_file_we_know_is_reported_or_refused(
    real_data: Path, columns: list[str] | None
) -> None:
    """Odd, old and corrupt files collected by the Parquet project: none crashes, none goes unmentioned."""
    files = sorted(path for path in (real_data / "parquet-testing").rglob("*") if path.is_file())
    assert len(files) > 70
    found = survey(files, columns=columns)
    refused = {
        file.name: str(it) for file, it in zip(files, found, strict=True) if isinstance(it, UnreadableFile)
    }
    for name, reason in refused.items():
        assert reason.startswith(f"{name}: ")
        assert len(reason) > len(name) + 10
    assert len(refused) < 0.25 * len(files)
    if columns is None:
        assert "datapage_v1-corrupt-checksum.parquet" in refused
        assert "rle-dict-uncompressed-corrupt-checksum.parquet" in refused

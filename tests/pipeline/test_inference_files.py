"""What `vaewatch init` makes of a folder: its name, its files, what a batch is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.dataset import NAME
from pipeline.errors import ConfigError
from pipeline.inference import default_name
from pipeline.inference.shapes import shape_of

from .inference_data import PLAIN, VALUES, Guessed, N


@pytest.mark.parametrize("name", ["yes", "Payments-2_b"])
def test_a_dataset_of_any_legal_name_can_be_written(guess: Callable[..., Guessed], name: str) -> None:
    """`dataset: yes` is true."""
    assert guess({"2026-01-01.parquet": PLAIN}, name).dataset.name == name


@pytest.mark.parametrize("name", ["a/b", "", "2026", "x" * 64])
def test_a_name_that_no_dataset_may_have_is_refused_at_once(guess: Callable[..., Guessed], name: str) -> None:
    """Sooner than by the file that was written."""
    with pytest.raises(ConfigError, match="is not a valid dataset name"):
        guess({"2026-01-01.parquet": PLAIN}, name)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/lake/payments", "payments"),
        ("/lake/sensor data (new)/incoming", "sensor-data-new"),
        ("/lake/2026", "dataset-2026"),
        ("/lake/_raw", "raw"),
        ("/", "dataset"),
        ("/lake/Straße", "Stra-e"),
        ("/lake/" + "x" * 80, "x" * 63),
    ],
)
def test_a_dataset_is_called_by_its_folder(folder: str, name: str) -> None:
    """By a name that it may have."""
    assert default_name(Path(folder)) == name
    assert NAME.fullmatch(name)


@pytest.mark.parametrize(
    ("paths", "files", "monthly"),
    [
        (["2026-01-01.parquet", "2026-01-02.parquet"], "{batch_id}.parquet", False),
        (["sales_20260101.pq", "sales_20260102.pq"], "sales_{batch_id}.pq", False),
        (["green_2026-01.parquet", "green_2026-02.parquet"], "green_{batch_id}.parquet", True),
        (["day=2026-01-01/a.parquet", "day=2026-01-02/b.parquet"], "day={batch_id}/*.parquet", False),
        (["y=2026/m=01/a.parquet", "y=2026/m=02/b.parquet"], "{batch_id}/*.parquet", False),
        (["monday/a.parquet", "tuesday/a.parquet"], "{batch_id}/*.parquet", False),
        (["north.parquet", "south.parquet"], "{batch_id}.parquet", False),
        (["part-000001.parquet", "part-000002.parquet"], "{batch_id}.parquet", False),
        (["run-20261399.parquet", "run-20261400.parquet"], "{batch_id}.parquet", False),
        ([f"e_2026-01-01T{h:02d}.parquet" for h in range(24)], "{batch_id}.parquet", False),
        (["x_2026-01-01_2026-01-02.parquet", "x_2026-01-02_2026-01-03.parquet"], "{batch_id}.parquet", False),
        (
            [f"2026-01-{d:02d}.parquet" for d in range(1, 30)] + ["lookup.parquet"],
            "{batch_id}.parquet",
            False,
        ),
        (["s_2026-01-01_v1.parquet", "s_2026-01-02_v2.parquet"], "{batch_id}.parquet", False),
        (["a+b (1)_2026-01-01.parquet", "a+b (1)_2026-01-02.parquet"], "a+b (1)_{batch_id}.parquet", False),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_paths_say_what_a_batch_is(paths: list[str], files: str, monthly: bool) -> None:
    """The pattern must fit the files that are there, or they would silently never be read."""
    shape = shape_of(paths)
    assert (shape.files, shape.monthly) == (files, monthly)


def test_files_that_the_pattern_leaves_out_are_counted_and_named(guess: Callable[..., Guessed]) -> None:
    """One stray file is not worth another pattern, but somebody should know."""
    files = {f"s_2026-01-{day:02d}.parquet": PLAIN for day in range(1, 20)} | {"stray.parquet": PLAIN}
    guessed = guess(files)
    assert guessed.dataset.incoming.files == "s_{batch_id}.parquet"
    assert guessed.proposal.warnings == (
        "1 file does not match s_{batch_id}.parquet and will never be read: stray.parquet",
    )


def test_only_files_that_will_be_read_are_sampled_and_another_folder_is_named(
    guess: Callable[..., Guessed],
) -> None:
    """Two datasets side by side: the contract of one must not hold the other's columns."""
    files: dict[str, dict[str, object]] = {
        f"shop/2026-01-{day:02d}.parquet": dict(PLAIN) for day in range(1, 9)
    }
    files |= {f"taxi/{month}/2026-0{month}.parquet": {"fare": VALUES} for month in range(1, 5)}
    guessed = guess(files)
    assert guessed.dataset.incoming.files == "shop/{batch_id}.parquet"
    assert list(guessed.dataset.columns) == ["amount"]
    assert guessed.proposal.looked_at.words == f"{8 * N:,} records in 8 of 8 files"
    (said,) = guessed.proposal.warnings
    assert said.startswith(
        "4 files do not match shop/{batch_id}.parquet and will never be read, such as taxi/1/2026-01."
    )
    assert re.search(r"a dataset of its own: vaewatch init \S.*/taxi$", said)


def test_a_name_that_is_not_like_the_others_is_said(guess: Callable[..., Guessed]) -> None:
    """It is read as a batch, and may be none."""
    files = {f"2026-01-{day:02d}.parquet": PLAIN for day in range(1, 13)} | {"Shop-2026-01-13.parquet": PLAIN}
    assert guess(files).proposal.warnings == (
        "Shop-2026-01-13 is not named like the other batches, such as 2026-01-12: is it one?",
    )


@pytest.mark.parametrize(
    ("paths", "budget", "why"),
    [
        ("2026-01-0{day}.parquet", 5, "500 records a day"),
        ("day=2026-01-0{day}/{part}.parquet", 15, "1,500 records a day"),
        ("e_2026-01-0{day}T0{part}.parquet", 15, "1,500 records a day"),
        ("week{day}/{part}.parquet", 15, "1,500 records a batch"),
    ],
)
def test_a_day_of_several_files_is_counted_as_a_day(
    paths: str, budget: int, why: str, guess: Callable[..., Guessed]
) -> None:
    """What people can look at, and when there is enough to learn from, go by the day and not by the file."""
    files = {
        paths.format(day=day, part=part): {"amount": [i / 7 for i in range(500)]}
        for day in range(1, 9)
        for part in range(3)
    }
    guessed = guess(files)
    assert guessed.dataset.flag.review_budget == budget
    assert f"1% of the sample's {why}" in guessed.proposal.text
    assert guessed.dataset.train.min_records == min(1000, 300 * budget)


def test_files_that_cannot_be_read_are_left_out_with_a_warning(
    tmp_path: Path, guess: Callable[..., Guessed]
) -> None:
    """One corrupt file of a month is no reason not to begin; it is read in a process that may die."""
    (folder := tmp_path / "incoming data").mkdir()
    (folder / "2026-01-03.parquet").write_bytes(b"PAR1 but not for long")
    flipped = folder / "2026-01-04.parquet"
    pq.write_table(pa.table(PLAIN), flipped, write_page_checksum=True, use_dictionary=False)
    data = bytearray(flipped.read_bytes())
    data[300] ^= 1
    flipped.write_bytes(bytes(data))
    guessed = guess({"2026-01-01.parquet": PLAIN, "2026-01-02.parquet": {"amount": VALUES[:0]}})
    assert (guessed.proposal.looked_at.n_sampled, guessed.proposal.looked_at.n_files) == (1, 4)
    assert [warning.split(": ")[1] for warning in guessed.proposal.warnings] == [
        "2026-01-03.parquet",
        "2026-01-04.parquet",
    ]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "is not a folder"),
        ({"notes.txt": b"x"}, "holds no Parquet file"),
        ({"_tmp/1.parquet": b"x", ".hidden.parquet": b"x"}, "holds no Parquet file"),
        (
            {"1.parquet": b"x"},
            "no sampled file has records that can be read.*\n.*1.parquet: not a Parquet file",
        ),
    ],
    ids=["absent", "text", "unfinished", "corrupt"],
)
def test_a_folder_from_which_nothing_can_be_guessed_is_said(
    tmp_path: Path, guess: Callable[..., Guessed], files: dict[str, bytes], reason: str
) -> None:
    """With what is missing, and in words."""
    folder = tmp_path / "incoming data"
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        guess(folder)


def test_an_address_is_said_to_be_no_folder(guess: Callable[..., Guessed]) -> None:
    """A Path shortens it, and "…/s3:/bucket is not a folder" would leave open what is."""
    with pytest.raises(ConfigError, match=r"s3://bucket/payments is an address.*mount the bucket"):
        guess(Path("s3://bucket/payments").absolute())


def test_a_folder_without_a_column_to_model_is_said(guess: Callable[..., Guessed]) -> None:
    """Identifiers and constants only: there is no normal to learn."""
    with pytest.raises(ConfigError, match="no column can be modelled"):
        guess({"2026-01-01.parquet": {"id": [f"{i}" for i in range(N)], "c": [1] * N}})


def test_folders_and_files_of_any_name_are_guessed(tmp_path: Path, guess: Callable[..., Guessed]) -> None:
    """Brackets, stars and quotes are patterns to some; env=prod in the scratch folder's path is no column of
    ours.
    """
    (folder := tmp_path / "[x] *'s: #ünï").mkdir()
    columns = {**PLAIN, "env": ["a" if i % 3 else "b" for i in range(N)]}
    for name in ("[1]*", "two words", "it's"):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    guessed = guess(folder)
    assert guessed.column("env").role == "categorical"
    assert guessed.proposal.looked_at.n_records == 3 * N

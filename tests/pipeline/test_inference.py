"""`vaewatch init`: from a folder of files to a dataset file that loads, fits the files and says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.columns import Column
from pipeline.config.contracts import fit_schema, row_rules
from pipeline.config.dataset import NAME, Dataset
from pipeline.config.files import load_dataset
from pipeline.errors import ConfigError
from pipeline.inference import Proposal, default_name, propose
from pipeline.inference.bounds import Spread, unusual_share
from pipeline.inference.guesses import CODE_NAME
from pipeline.inference.shapes import shape_of
from pipeline.inference.writing import plain

N = 200
RANDOM = np.random.default_rng(0)
VALUES = RANDOM.normal(size=N)
PLAIN = {"amount": VALUES}


class Guessed:
    """A proposal, loaded as a dataset file."""

    def __init__(self, proposal: Proposal, dataset: Dataset) -> None:
        self.proposal, self.dataset = proposal, dataset

    def column(self, name: str) -> Column:
        return self.dataset.columns[name]


@pytest.fixture
def guess(tmp_path: Path) -> Callable[..., Guessed]:
    """Write tables under a folder, propose a dataset file for it, and load that file."""

    def made(files: dict[str, dict[str, Any]] | Path, name: str = "payments") -> Guessed:
        folder = files if isinstance(files, Path) else tmp_path / "incoming data"
        for path, columns in files.items() if isinstance(files, dict) else ():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(columns), folder / path)
        (datasets := tmp_path / "datasets").mkdir()
        proposal = propose(
            folder, name, relative_to=datasets, threads=2, scratch=tmp_path / "o'brien's" / "env=prod"
        )
        (file := datasets / "it.yaml").write_text(proposal.text, encoding="utf-8")
        dataset = load_dataset(file)
        assert dataset.name == name
        assert dataset.incoming_path == folder.resolve()
        return Guessed(proposal, dataset)

    return made


def fits_its_files(guessed: Guessed) -> bool:
    """Whether no file of the folder would be refused for its columns."""
    files = guessed.dataset.incoming_path.rglob("*.parquet")
    schemas = {file.name: pq.read_schema(file).remove_metadata() for file in files}
    return fit_schema(guessed.dataset, schemas).refusals == ()


def test_water_is_understood(guess: Callable[..., Guessed], real_data: Path) -> None:
    """195 daily files of a waterworks: a key, a time, nine sensors and nothing else to decide."""
    guessed = guess(real_data / "water" / "batches", "water")
    dataset = guessed.dataset
    assert (dataset.key, dataset.time) == (["record_id"], "time")
    assert dataset.columns_with("numeric") == list(dataset.derived)
    assert [n for n in dataset.columns if dataset.columns[n].role == "ignored"][-9:] == [
        "Tp",
        "Cl",
        "pH",
        "Redox",
        "Leit",
        "Trueb",
        "Cl_2",
        "Fm",
        "Fm_2",
    ]
    assert dataset.columns_with("context") == ["time"]
    assert dataset.columns_with("categorical") == []
    assert (dataset.incoming.files, dataset.incoming.split) == ("{batch_id}.parquet", None)
    assert (guessed.proposal.looked_at.n_sampled, guessed.proposal.looked_at.n_files) == (12, 195)
    assert len(dataset.derived) == 27
    assert dataset.derived["Redox_change"].sql == '"Redox" - lag("Redox") OVER by_time'
    assert guessed.proposal.warnings == ()
    assert fits_its_files(guessed)


def test_retail_is_understood(guess: Callable[..., Guessed], real_data: Path) -> None:
    """Invoice lines: identifiers and texts are left alone, and each is named for a person to look at."""
    guessed = guess(real_data / "retail" / "batches", "retail")
    dataset = guessed.dataset
    assert (dataset.key, dataset.time) == ([], "InvoiceDate")
    assert dataset.columns_with("numeric") == ["Quantity", "UnitPrice"]
    assert dataset.derived == {}
    assert dataset.columns_with("categorical") == ["StockCode", "Country"]
    assert {w.partition(":")[0] for w in guessed.proposal.warnings} == {
        "InvoiceNo",
        "Description",
        "Quantity",
        "UnitPrice",
        "CustomerID",
    }
    assert any(
        w.startswith("CustomerID: its name says whose record it is")
        and "647 values, 23 records each; 31% of records" in w
        for w in guessed.proposal.warnings
    )
    assert fits_its_files(guessed)


def test_taxi_is_understood(guess: Callable[..., Guessed], real_data: Path) -> None:
    """Monthly files whose types drift: cut by day, every month fits, codes are not measured."""
    guessed = guess(real_data / "taxi", "taxi")
    dataset = guessed.dataset
    assert (dataset.incoming.files, dataset.incoming.split) == ("green_tripdata_{batch_id}.parquet", "day")
    assert dataset.time == "lpep_pickup_datetime"
    codes = {"VendorID", "RatecodeID", "PULocationID", "DOLocationID", "payment_type", "trip_type"}
    assert codes <= set(dataset.columns_with("categorical"))
    assert dataset.derived == {}
    assert {"trip_distance", "fare_amount", "total_amount"} <= set(dataset.columns_with("numeric"))
    assert (dataset.columns["trip_distance"].min, dataset.columns["trip_distance"].max) == (0, None)
    assert (dataset.columns["fare_amount"].min, dataset.columns["fare_amount"].max) == (-2500, 2600)
    assert dataset.columns["ehail_fee"].role == "ignored"
    assert fits_its_files(guessed)


@pytest.mark.parametrize(
    ("name", "is_code"),
    [*[(n, True) for n in ("id", "ID", "shop_id", "shopID", "PULocationID", "userid", "zip_code", "zipcode", "payment_type", "type_2")],
     *[(n, False) for n in ("paid", "bid", "humid", "amount", "void", "width", "decoded", "grid", "prototype")]],
)  # fmt: skip
def test_a_number_is_a_code_by_its_name_and_not_by_its_last_letters(name: str, is_code: bool) -> None:
    """What was paid is measured; a payment type is not."""
    assert bool(CODE_NAME.search(name)) is is_code


def test_a_name_that_reading_needs_is_said_at_once(guess: Callable[..., Guessed]) -> None:
    """Sooner than with the first batch."""
    with pytest.raises(ConfigError, match="columns file_row_number have names that vaewatch uses itself"):
        guess({"2026-01-01.parquet": {"file_row_number": VALUES, "x": VALUES}})


def test_a_key_that_a_few_records_repeat_or_lack_is_still_the_key(guess: Callable[..., Guessed]) -> None:
    """Every real feed delivers something twice: those are set aside, and a reviewer finds the others by their
    name.
    """
    ids = [f"r{i}" for i in range(3000)]
    ids[5], ids[7] = ids[4], None  # type: ignore[call-overload]
    guessed = guess({"2026-01-01.parquet": {"reading_id": ids, "x": [i / 7 for i in range(3000)]}})
    assert guessed.dataset.key == ["reading_id"]
    assert "2 of 3,000 in the sample repeat it or lack it" in guessed.proposal.text


HOSTILE = ['a"b', "c:d", "e: f", "g #h", "#i", "j\nk", "yes", "NULL", "~", "é", "\U0001f600", " lead", "trail ", "- x", "? y",
           "{a}", "[b]", "<<", "=", ".5", ".inf", "1", "1e3", "2024-01-01", "%x", "@y", "`z", "&b", "*c", "!d", "|e", ">f",
           "'s", "\t", "a\u2028b", "a\x85b", "a\x7fb", "a\\b", "filename", "select", "x" * 300]  # fmt: skip


def test_columns_of_any_name_survive_the_way_through_the_file(guess: Callable[..., Guessed]) -> None:
    """Names come from spreadsheets, exports and people; YAML and SQL each have an opinion about them."""
    guessed = guess({"2026-01-01.parquet": dict.fromkeys(HOSTILE, VALUES)})
    assert list(guessed.dataset.columns) == HOSTILE
    assert guessed.dataset.columns_with("numeric") == HOSTILE
    assert fits_its_files(guessed)


def test_a_column_without_a_name_is_left_alone_with_a_warning(guess: Callable[..., Guessed]) -> None:
    """R and spreadsheets write an index without a name; SQL cannot say it."""
    guessed = guess({"2026-01-01.parquet": {"": VALUES, **PLAIN}})
    assert (guessed.column("").type, guessed.column("").role) == ("other", "ignored")
    assert any("without a name" in warning for warning in guessed.proposal.warnings)
    assert fits_its_files(guessed)


def test_columns_that_differ_in_case_only_are_refused_at_once(guess: Callable[..., Guessed]) -> None:
    """A file that cannot be loaded afterwards is no help."""
    with pytest.raises(ConfigError, match=r"columns Amount, amount differ in case only"):
        guess({"2026-01-01.parquet": {"Amount": VALUES, **PLAIN}})


@given(st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(HOSTILE))
def test_any_text_is_written_so_that_yaml_reads_it_back(text: str) -> None:
    """As a key, as a value and inside of braces, on one line."""
    written = plain(text)
    assert "\n" not in written
    assert yaml.safe_load(f"{written}: 1") == {text: 1}
    assert yaml.safe_load(f"a: {{b: {written}, c: 1}}  # why") == {"a": {"b": text, "c": 1}}


@given(st.floats(allow_nan=False, allow_infinity=False) | st.booleans())
def test_any_number_is_written_so_that_yaml_reads_it_back(value: float) -> None:
    """1e+22 is a text to YAML."""
    read = yaml.safe_load(f"a: {{b: {plain(value)}}}")["a"]["b"]
    assert (read, type(read)) == (value, type(value))


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


def codes(n: int) -> list[int]:
    return [i % n for i in range(N)]


START = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS: dict[str, tuple[Any, str, str]] = {
    "order_id": ([f"o{i}" for i in range(N)], "string", "ignored"),
    "at": (pa.array([START + timedelta(minutes=i) for i in range(N)], pa.timestamp("us", "UTC")), "timestamp_utc", "context"),
    "shipped": (pa.array([START + timedelta(hours=i) for i in range(N)], pa.timestamp("us", "UTC")), "timestamp_utc", "ignored"),
    "amount": (VALUES, "float", "numeric"),
    "quantity": (codes(7), "int", "numeric"),
    "price": ([Decimal(i * 37 % N) / 4 for i in range(N)], "decimal(4,2)", "numeric"),
    "colour": (["red" if i % 3 else "green" for i in range(N)], "string", "categorical"),
    "paid": ([i % 2 == 0 for i in range(N)], "bool", "categorical"),
    "shop_code": (codes(5), "int", "categorical"),
    "customer_id": (list(range(0, 3 * N, 3)), "int", "ignored"),
    "comment": ([f"a long remark about nothing much, number {i}" for i in range(N)], "string", "ignored"),
    "constant": (["x"] * N, "string", "ignored"),
    "empty": (pa.nulls(N), "float", "ignored"),
    "tags": ([[1]] * N, "other", "ignored"),
    "raw": ([b"x"] * N, "other", "ignored"),
}  # fmt: skip


def test_every_column_gets_a_role_and_a_reason(guess: Callable[..., Guessed]) -> None:
    """Wrong guesses are mended in a minute when the file says what they rest on."""
    guessed = guess({"2026-01-01.parquet": {name: values for name, (values, _, _) in COLUMNS.items()}})
    assert {n: (c.type, c.role) for n, c in guessed.dataset.columns.items()} == {
        name: (type_, role) for name, (_, type_, role) in COLUMNS.items()
    }
    assert (guessed.dataset.key, guessed.dataset.time) == (["order_id"], "at")
    assert guessed.column("order_id").required
    assert guessed.column("at").required
    lines = [
        line for line in guessed.proposal.text.splitlines() if line.startswith("  ") and "{type:" in line
    ]
    assert len(lines) == len(COLUMNS)
    assert all(len(line.partition("  # ")[2]) > 5 for line in lines)
    ignored = {n for n, (_, _, role) in COLUMNS.items() if role == "ignored"} - {"order_id", "shipped"}
    assert {warning.partition(":")[0] for warning in guessed.proposal.warnings} == ignored


def names_of(n_values: int, first: int, n_missing: int = 0) -> list[str | None]:
    """Values that take turns, the first few of them lacking."""
    return [None if i < n_missing else f"v{first + i % n_values}" for i in range(N)]


WHOSE, NEW = "its name says whose record it is", "too many values, or new ones too often"
LEFT_OUT: dict[str, tuple[Any, Any, str]] = {
    "customer_id": ([1000 + i % 40 for i in range(N)], [1020 + i % 40 for i in range(N)], WHOSE),
    "zip_code": ([1000 + i % 40 for i in range(N)], [1020 + i % 40 for i in range(N)], NEW),
    "order_no": (names_of(40, 0), names_of(40, 40), "looks like an identifier that several records share"),
    "voucher": (names_of(N, 0, 150), names_of(N, N, 150), "looks like an identifier (100 values in 100 records)"),
}  # fmt: skip


def test_a_column_that_is_left_out_is_called_what_it_is(guess: Callable[..., Guessed]) -> None:
    """A customer number that many records share tells no record apart; what it is good for is said."""
    first, second = ({name: values[i] for name, values in LEFT_OUT.items()} for i in (0, 1))
    guessed = guess({"2026-01-01.parquet": {**PLAIN, **first}, "2026-01-02.parquet": {**PLAIN, **second}})
    said = dict(warning.split(": ", 1) for warning in guessed.proposal.warnings)
    assert said.keys() == LEFT_OUT.keys()
    assert {name: said[name].startswith(why) for name, (_, _, why) in LEFT_OUT.items()} == dict.fromkeys(
        LEFT_OUT, True
    )
    assert (
        "60 values, 7 records each; 50% of records have a value that another file has, too"
        in said["customer_id"]
    )
    assert "`entity`" in said["customer_id"]


def test_names_of_six_hundred_cards_are_no_categories_and_six_hundred_shapes_are(
    guess: Callable[..., Guessed],
) -> None:
    """They recur every day, and each card has a handful of records to learn from: tomorrow's are new."""
    names = [f"n{i % 600}" for i in range(6000)]
    columns = {"amount": [i / 7 for i in range(6000)], "card_id": names, "shape": names}
    guessed = guess({f"2026-01-0{day}.parquet": columns for day in (1, 2)})
    assert guessed.dataset.columns_with("categorical") == ["shape"]
    (warning,) = guessed.proposal.warnings
    assert warning.startswith(f"card_id: {WHOSE}")


@pytest.mark.parametrize(
    ("n", "budget", "why"),
    [
        (30, 1, "1% of the sample's 30 records a day is less than one"),
        (1300, 13, "1% of the sample's 1,300 records a day"),
        (5000, 20, "the default, as 1% of the sample's 5,000 records a day is more"),
    ],
)
def test_the_review_budget_says_what_it_rests_on(
    guess: Callable[..., Guessed], n: int, budget: int, why: str
) -> None:
    """How much work it makes for people is the guess that they will want to mend first."""
    guessed = guess({"2026-01-01.parquet": {"amount": [i / 7 for i in range(n)]}})
    assert guessed.dataset.flag.review_budget == budget
    (line,) = (line for line in guessed.proposal.text.splitlines() if "review_budget" in line)
    assert line.endswith(f": {why}")


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


def test_the_file_is_for_reading(guess: Callable[..., Guessed]) -> None:
    """Whole bounds have no point, expressions no backslashes, and what holds for every column is said
    once.
    """
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(2 * N)]
    level = np.cumsum(np.random.default_rng(1).normal(size=2 * N))
    text = guess({
        "2026-01-01.parquet": {
            "at": at,
            "level of it": level,
            "items": codes(9) * 2,
            "share": VALUES.tolist() * 2,
        }
    }).proposal.text
    assert "items: {type: int, role: numeric, min: 0, max: 170}  # sample: 0 to 8; none missing\n" in text
    assert """'level of it_change': '"level of it" - lag("level of it") OVER by_time'""" in text
    assert "\\" not in text
    assert text.count("add required: true") == 1
    assert text.count("min, max: extrapolated from the sample, far beyond it") == 1
    assert text.count("wanders") == 1


def test_every_number_that_is_proposed_has_a_reason(guess: Callable[..., Guessed]) -> None:
    """Those below the columns, too."""
    tail = guess({"2026-01-01.parquet": PLAIN}).proposal.text.partition("\nbatch:")[2].splitlines()
    assert all("  # " in line for line in tail if line.startswith("  "))


SPREADS: dict[str, list[float | None]] = {
    "year": [2010 + i % 2 for i in range(N)],
    "epoch": [1_700_000_000 + 431 * i for i in range(N)],
    "height": [1.702 + 0.001 * (i % 9) for i in range(N)],
    "altitude": [-430.0 + i for i in range(N)],
    "debt": [-5.0 * i for i in range(N)],
    "price": [0.01 * i for i in range(N)],
    "tiny": [1e-12 * (1 + i % 5) for i in range(N)],
    "holes": [None if i % 4 else float(i) for i in range(N)],
}


def test_bounds_are_far_out(guess: Callable[..., Guessed]) -> None:
    """Who starts with a week of one season must not have the next one set aside; zero is not crossed."""
    guessed = guess({"2026-01-01.parquet": SPREADS})
    for name, values in SPREADS.items():
        column, seen = guessed.column(name), [v for v in values if v is not None]
        assert column.role == "numeric", name
        assert column.min is not None
        assert column.max is not None
        low, high, span = min(seen), max(seen), max(seen) - min(seen)
        assert column.min <= (0 if low >= 0 else low - 15 * span), name
        assert column.max >= (0 if high <= 0 else max(high + 15 * span, 1.9 * high)), name
    assert {guessed.column(n).min for n in ("year", "epoch", "height", "price", "tiny", "holes")} == {0}
    assert guessed.column("debt").max == 0
    assert {rule.code for rule in row_rules(guessed.dataset)} >= {"out_of_range"}


@pytest.mark.parametrize("sign", [1, -1])
def test_one_absurd_value_does_not_set_a_bound(guess: Callable[..., Guessed], sign: int) -> None:
    """A trip of 300,000 miles is no reason to call 600,000 right, nor to hide the next one from the model."""
    miles = [sign * 0.1 * (1 + i % 50) for i in range(2000)]
    miles[77] = sign * 300_000.0
    guessed = guess({"2026-01-01.parquet": {"miles": miles}})
    side, word, way = ("max", "above", "up") if sign > 0 else ("min", "below", "down")
    bounds = {"min": guessed.column("miles").min, "max": guessed.column("miles").max}
    assert bounds.pop(side) is None
    assert list(bounds.values()) == [0]
    assert f"no {side}: 1 of 2,000 are {word} {30 * sign}" in guessed.proposal.text
    (warning,) = guessed.proposal.warnings
    assert f"no {side}: 1 of 2,000 records {word} {30 * sign} ({way} to {sign * 300000:,})" in warning


def test_a_column_of_hardly_ever_another_value_has_no_bounds(guess: Callable[..., Guessed]) -> None:
    """One exception in five thousand says nothing of where the next one will lie."""
    guessed = guess({"2026-01-01.parquet": {"x": [i / 7 for i in range(5000)], "fee": [0.0] * 4999 + [9.5]}})
    assert (guessed.column("fee").role, guessed.column("fee").min, guessed.column("fee").max) == (
        "numeric",
        None,
        None,
    )
    assert "almost always 0: no bounds" in guessed.proposal.text


FINITE = st.floats(-1e200, 1e200)


@given(st.lists(FINITE, min_size=3, max_size=60))
def test_the_sample_keeps_its_own_bounds(values: list[float]) -> None:
    """What was delivered yesterday is not set aside tomorrow."""
    share = unusual_share(len(values))
    low, middle, high = (float(x) for x in np.quantile(values, [share, 0.5, 1 - share]))
    found = Spread(min(values), low, middle, high, max(values)).bounds
    assert found.get("min", -math.inf) <= min(values)
    assert max(values) <= found.get("max", math.inf)


@given(st.floats(1.0, 1e100))
def test_bounds_do_not_follow_the_farthest_value(factor: float) -> None:
    """However far out it lies, the other side stays where it is and this one opens."""
    usual = Spread(-3.1, -3.0, 0.0, 3.0, 3.1)
    found = Spread(-3.1, -3.0, 0.0, 3.0, 40.0 * factor).bounds
    assert found == {"min": usual.bounds["min"]}


def test_numbers_that_are_not_finite_make_no_bounds(guess: Callable[..., Guessed]) -> None:
    """One infinity in the sample must not become `max: .inf`, nor NaN a category of its own."""
    columns = {
        "huge": [1.7e308 * (-1) ** i for i in range(N)],
        "infinite": [float("inf") if i % 5 == 0 else float(i) for i in range(N)],
        "nan": [float("nan") if i % 5 == 0 else float(i) for i in range(N)],
        "nothing": [float("nan")] * N,
    }
    guessed = guess({"2026-01-01.parquet": columns})
    assert (guessed.column("huge").min, guessed.column("huge").max) == (None, None)
    assert (guessed.column("infinite").min, guessed.column("infinite").max) == (0, 4100)
    assert (guessed.column("nan").min, guessed.column("nan").max) == (0, 4100)
    assert guessed.column("nothing").role == "ignored"


NAIVE, ZONED = pa.timestamp("us"), pa.timestamp("us", "UTC")
DRIFTS: dict[str, tuple[Any, Any, str]] = {
    "int to float": (codes(9), [i + 0.5 for i in codes(9)], "float"),
    "int32 to int64": (pa.array(codes(9), pa.int32()), pa.array(codes(9), pa.int64()), "int"),
    "null to int": (pa.nulls(N), codes(9), "int"),
    "int to null": (codes(9), pa.nulls(N), "int"),
    "decimals": ([Decimal("1.25")] * N, [Decimal("100.5")] * N, "float"),
    "decimal to int8": (pa.array([Decimal("1.25")] * N, pa.decimal128(9, 2)), pa.array(codes(9), pa.int8()), "decimal(9,2)"),
    "bool to int": ([i % 2 == 0 for i in range(N)], codes(2), "other"),
    "int to string": (codes(9), [str(i) for i in codes(9)], "other"),
    "date to timestamp": ([START.date()] * N, pa.array([START] * N, NAIVE), "other"),
    "zones": (pa.array([START] * N, NAIVE), pa.array([START] * N, ZONED), "other"),
}  # fmt: skip


def test_a_type_is_one_that_every_sampled_file_fits(guess: Callable[..., Guessed]) -> None:
    """Types drift. A guess that refuses half of the files that it was made from is not one."""
    first, second = ({name: drift[i] for name, drift in DRIFTS.items()} for i in (0, 1))
    guessed = guess({"2026-01-01.parquet": {**PLAIN, **first}, "2026-01-02.parquet": {**PLAIN, **second}})
    found = {name: column.type for name, column in guessed.dataset.columns.items() if name in DRIFTS}
    assert found == {name: type_ for name, (_, _, type_) in DRIFTS.items()}
    assert fits_its_files(guessed)


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

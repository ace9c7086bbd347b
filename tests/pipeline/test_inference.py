"""`vaewatch init`: from a folder of files to a dataset file that loads, fits the files and says why."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.inference.guesses import CODE_NAME
from pipeline.inference.writing import plain

from .inference_data import PLAIN, START, VALUES, Guessed, N, codes, fits_its_files


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

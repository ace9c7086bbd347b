"""The contract: which types fit, which records are set aside, and when a promise has changed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sql
from pipeline.config.columns import Column
from pipeline.config.contracts import (
    batch_rules,
    contract_hash,
    contract_type,
    fit_schema,
    fits,
    kept_columns,
    row_rules,
    typed,
)
from pipeline.config.dataset import Dataset

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FIRST, EVE, LAST = map(
    datetime.fromisoformat, ("0001-01-01", "1969-12-31T23:59:59.999999", "9999-12-31T23:59:59.999")
)
EXTREMES: dict[pa.DataType, list[Any]] = {
    **{
        type_: [0, 2 ** (type_.bit_width - signed) - 1, -(2 ** (type_.bit_width - 1)) if signed else 1]
        for type_ in INTEGERS
        for signed in [pa.types.is_signed_integer(type_)]
    },
    pa.float32(): [0.5, -3.4028234663852886e38, 1.401298464324817e-45],
    pa.float64(): [0.1, -1.7976931348623157e308, 5e-324],
    pa.decimal128(5, 2): [Decimal("999.99"), Decimal("-0.01")],
    pa.decimal128(38, 0): [Decimal(10**38 - 1)],
    pa.decimal128(38, 38): [Decimal("0." + "9" * 38)],
    pa.bool_(): [True, False],
    pa.string(): ["", "naïve 'quoted' \U0001f600", "NaN"],
    pa.large_string(): ["x" * 1000],
    pa.date32(): [date(1, 1, 1), date(9999, 12, 31)],
    pa.timestamp("us"): [FIRST, EVE, LAST],
    pa.timestamp("ms"): [FIRST, LAST],
    pa.timestamp("us", "America/New_York"): [datetime(2024, 7, 1, 12, tzinfo=UTC)],
    pa.dictionary(pa.int32(), pa.string()): ["a", "b"],
}
TYPES = [
    *("float", "int", "bool", "string", "date", "timestamp", "timestamp_utc", "other"),
    *("decimal(3,0)", "decimal(5,0)", "decimal(5,2)", "decimal(10,0)", "decimal(19,0)", "decimal(20,0)"),
    *("decimal(21,2)", "decimal(38,0)", "decimal(38,2)", "decimal(38,38)"),
]


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


@pytest.fixture
def read_as(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> Callable[[str, pa.DataType], list[Any] | None]:
    """What the pipeline's SQL makes of a type's extreme values in a file; None where it fails."""

    def read(type_: str, arrow: pa.DataType) -> list[Any] | None:
        pq.write_table(pa.table({"it": pa.array(EXTREMES[arrow], arrow)}), file := tmp_path / "it.parquet")
        query = f"SELECT {typed('it', Column(type=type_))} FROM read_parquet({sql.text(str(file))})"
        try:
            found: list[Any] = database.sql(query).to_arrow_table().column(0).to_pylist()
        except duckdb.Error:
            return None
        return found

    return read


def kept(values: list[Any], read: list[Any] | None) -> bool:
    """Whether all values came through, those read as float to its precision."""
    return read is not None and all(
        math.isclose(float(value), got, rel_tol=1e-15) if isinstance(got, float) else value == got
        for value, got in zip(values, read, strict=True)
    )


@pytest.mark.parametrize("arrow", EXTREMES, ids=str)
def test_what_fits_is_read_without_loss(
    read_as: Callable[[str, pa.DataType], list[Any] | None], arrow: pa.DataType
) -> None:
    """An upstream job may change int64 to int32 overnight; the numbers must stay the numbers."""
    fitting = [type_ for type_ in TYPES if type_ != "other" and fits(Column(type=type_), arrow)]
    assert contract_type(arrow) in fitting
    for type_ in fitting:
        assert kept(EXTREMES[arrow], read_as(type_, arrow)), type_


@pytest.mark.parametrize(
    "arrow", [t for t in EXTREMES if contract_type(t).startswith(("int", "float", "dec"))], ids=str
)
@pytest.mark.parametrize("type_", [t for t in TYPES if t.startswith(("int", "decimal"))])
def test_among_numbers_what_does_not_fit_would_lose_something(
    read_as: Callable[[str, pa.DataType], list[Any] | None], type_: str, arrow: pa.DataType
) -> None:
    """A contract that refuses a harmless change wakes somebody up for nothing."""
    if not fits(Column(type=type_), arrow):
        assert not kept(EXTREMES[arrow], read_as(type_, arrow))


@st.composite
def decimals(draw: st.DrawFn) -> tuple[int, int]:
    precision = draw(st.integers(1, 38))
    return precision, draw(st.integers(0, precision))


@given(have=decimals(), promised=decimals())
def test_a_decimal_fits_exactly_when_its_largest_and_finest_values_can_be_cast(
    have: tuple[int, int], promised: tuple[int, int]
) -> None:
    """Cents that are cut off, or a million that overflows: both are silent money."""
    column = Column(type=f"decimal({promised[0]},{promised[1]})")
    arrow = pa.decimal128(*have)
    largest = Decimal((0, (9,) * have[0], -have[1]))
    try:
        can_be_cast = pa.array([largest], arrow).cast(pa.decimal128(*promised))[0].as_py() == largest
    except pa.ArrowInvalid:
        can_be_cast = False
    assert fits(column, arrow) == can_be_cast


@pytest.mark.parametrize("type_", TYPES)
def test_a_column_without_any_value_fits_every_promise(type_: str) -> None:
    """A writer that saw only nulls today does not know the type; that breaks no promise."""
    assert fits(Column(type=type_), pa.null())


@pytest.mark.parametrize(
    ("promised", "arrow"),
    [
        ("int", pa.float64()),
        ("int", pa.bool_()),
        ("int", pa.uint64()),
        ("int", pa.string()),
        ("float", pa.string()),
        ("float", pa.bool_()),
        ("string", pa.int64()),
        ("string", pa.binary()),
        ("date", pa.timestamp("us")),
        ("timestamp", pa.date32()),
        ("timestamp", pa.timestamp("us", "UTC")),
        ("timestamp_utc", pa.timestamp("us")),
        ("bool", pa.int8()),
        ("decimal(38,0)", pa.float64()),
        ("float", pa.list_(pa.float64())),
        ("float", pa.struct([("a", pa.float64())])),
        ("timestamp", pa.time64("us")),
        ("string", pa.dictionary(pa.int8(), pa.int64())),
    ],
    ids=str,
)
def test_another_kind_of_value_does_not_fit(promised: str, arrow: pa.DataType) -> None:
    """A text that looks like a number today is a text tomorrow; a wall clock is not an instant."""
    assert not fits(Column(type=promised), arrow)


@pytest.mark.parametrize(
    "arrow",
    [pa.list_(pa.int8()), pa.binary(), pa.time32("s"), pa.duration("s"), pa.map_(pa.string(), pa.int8())],
    ids=str,
)
def test_types_that_no_contract_type_holds_are_other(arrow: pa.DataType) -> None:
    """They are named in the contract and left alone."""
    assert contract_type(arrow) == "other"
    assert fits(Column(type="other"), arrow)


@pytest.fixture
def schemas() -> dict[str, pa.Schema]:
    return {"a.parquet": pa.schema([("amount", pa.float64()), ("id", pa.string())])}


@pytest.fixture
def two_columns(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(
        columns={"amount": {"type": "float", "role": "numeric"}, "id": {"type": "string"}}, key="id"
    )


def test_a_batch_that_fits_has_nothing_to_say(two_columns: Dataset, schemas: dict[str, pa.Schema]) -> None:
    """Notes that are always there are not read."""
    fit = fit_schema(two_columns, schemas)
    assert (fit.refusals, fit.widenings, fit.new_columns) == ((), (), ())


def test_each_file_is_compared_and_every_refusal_names_column_and_file(
    two_columns: Dataset, schemas: dict[str, pa.Schema]
) -> None:
    """One file of thirty is wrong; the person needs to know which, and all that is wrong with it."""
    schemas |= {
        "b.parquet": pa.schema([("id", pa.int64())]),
        "c.parquet": pa.schema([("amount", pa.string()), ("id", pa.string()), ("id", pa.string())]),
    }
    assert fit_schema(two_columns, schemas).refusals == (
        "column 'amount' (float) is missing from b.parquet",
        "column 'id' is int64 in b.parquet, the contract says string",
        "column 'id' is in c.parquet more than once",
        "column 'amount' is string in c.parquet, the contract says float",
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "e"], "column 'c' (float) is missing from f"),
        (["b"], "2 of the contract's 3 columns are missing from f: 'a' (float), 'c' (float)"),
        (["x"], "none of the contract's 3 columns is in f; it has 'x': another feed's file?"),
        (
            list("vwxyz"),
            "none of the contract's 3 columns is in f; it has 'v', 'w', 'x' and 2 more: another feed's file?",
        ),
        ([], "none of the contract's 3 columns is in f; it has no column: another feed's file?"),
    ],
    ids=["one", "some", "all", "all of many", "no column"],
)
def test_columns_that_are_missing_are_told_in_one_sentence(
    make_dataset: Callable[..., Dataset], names: list[str], said: str
) -> None:
    """A file of another feed was a wall of as many lines as the contract has columns."""
    dataset = make_dataset(columns={name: {"type": "float", "role": "numeric"} for name in "abc"})
    schema = pa.schema([(name, pa.float64()) for name in names])
    assert fit_schema(dataset, {"f": schema}).refusals == (said,)


def test_a_widened_type_is_noted_not_refused(two_columns: Dataset) -> None:
    """It worked, and somebody upstream should still be asked."""
    fit = fit_schema(two_columns, {"a": pa.schema([("amount", pa.int32()), ("id", pa.large_string())])})
    assert fit.refusals == ()
    assert fit.widenings == ("amount: int32 read as float",)


def test_new_columns_are_recorded_or_refused_as_the_file_says(make_dataset: Callable[..., Dataset]) -> None:
    """A new column may be harmless or personal data: the owner decides once."""
    schema = {"a": pa.schema([("amount", pa.float64()), ("ip", pa.string()), ("é", pa.string())])}
    assert fit_schema(make_dataset(), schema).new_columns == ("ip", "é")
    assert fit_schema(make_dataset(), schema).refusals == ()
    strict = fit_schema(make_dataset(batch={"new_columns": "refuse"}), schema)
    assert strict.refusals == ("columns 'ip', 'é' are not in the contract",)


def test_a_column_that_has_a_twin_in_another_case_is_refused(make_dataset: Callable[..., Dataset]) -> None:
    """SQL does not tell them apart: the values of the wrong one would be read, without a word."""
    schema = {"a": pa.schema([("Amount", pa.float64()), ("amount", pa.float64())])}
    assert fit_schema(make_dataset(), schema).refusals == (
        "columns 'amount', 'Amount' in a differ in case only, which tables cannot hold",
    )


def test_nested_columns_are_neither_carried_nor_checked(make_dataset: Callable[..., Dataset]) -> None:
    """They stay in the source; the tables hold what can be modelled or shown."""
    dataset = make_dataset(
        columns={
            "amount": {"type": "float", "role": "numeric"},
            "": {"type": "other"},
            "tags": {"type": "other"},
        }
    )
    assert list(kept_columns(dataset)) == ["amount"]
    assert "tags" not in {rule.column for rule in row_rules(dataset)}


COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"type": "string"},
    "amount": {"type": "float", "role": "numeric", "required": True, "min": -1.5, "max": 10},
    "n": {"type": "int", "min": 0},
    "price": {"type": "decimal(9,2)", "max": 0.3},
    "colour": {"type": "string", "values": ["red", "it's", ""]},
    "code": {"type": "string", "pattern": "[A-Z]{2}|x'y"},
}
RECORDS = st.fixed_dictionaries({
    "id": st.sampled_from(["a", "b", "c", None, ""]),
    "amount": st.sampled_from([None, math.nan, math.inf, -math.inf, -1.5, -1.6, 10.0, 10.1, 0.0]),
    "n": st.sampled_from([None, -1, 0, 2**62]),
    "price": st.sampled_from([None, Decimal("0.30"), Decimal("0.31"), Decimal("-5")]),
    "colour": st.sampled_from([None, "red", "Red", "it's", "", "blue"]),
    "code": st.sampled_from([None, "AB", "ABC", "x'y", "", "AB\n"]),
})
ARROW = pa.schema([
    ("id", pa.string()),
    ("amount", pa.float64()),
    ("n", pa.int64()),
    ("price", pa.decimal128(9, 2)),
    ("colour", pa.string()),
    ("code", pa.string()),
])


def reasons_by_hand(records: list[dict[str, Any]]) -> list[set[str]]:
    """The same rules, in Python."""
    found: list[set[str]] = []
    seen: set[str] = set()
    for r in records:
        amount = None if r["amount"] is None or math.isnan(r["amount"]) else r["amount"]
        broken = {
            "missing_value:id": r["id"] is None,
            "missing_value:amount": amount is None,
            "not_finite:amount": amount is not None and math.isinf(amount),
            "out_of_range:amount": amount is not None and math.isfinite(amount) and not -1.5 <= amount <= 10,
            "out_of_range:n": r["n"] is not None and r["n"] < 0,
            "out_of_range:price": r["price"] is not None and r["price"] > Decimal("0.3"),
            "not_in_set:colour": r["colour"] not in {None, "red", "it's", ""},
            "pattern:code": r["code"] is not None and not re.fullmatch("[A-Z]{2}|x'y", r["code"]),
            "duplicate_key:id": r["id"] in seen,
        }
        seen |= {r["id"]} - {None}
        found.append({reason for reason, is_broken in broken.items() if is_broken})
    return found


@given(records=st.lists(RECORDS, min_size=1, max_size=12))
def test_the_rules_as_sql_say_what_the_contract_says(
    make_dataset: Callable[..., Dataset],
    database: duckdb.DuckDBPyConnection,
    records: list[dict[str, Any]],
) -> None:
    """A rule that is unknown (NULL) for a record would let it through or lose it: each says yes or no."""
    dataset = make_dataset(columns=COLUMNS, key="id")
    raw = pa.Table.from_pylist(records, ARROW).append_column("vaewatch_row", pa.array(range(len(records))))
    kept = ", ".join(f"{typed(n, c)} AS {sql.name(n)}" for n, c in dataset.columns.items())
    rules = row_rules(dataset)
    answers = ", ".join(rule.violates for rule in rules)
    database.register("raw", raw)
    query = f"SELECT {answers} FROM (SELECT {kept}, vaewatch_row FROM raw) AS batch ORDER BY vaewatch_row"
    rows = database.execute(query).fetchall()
    assert {type(answer) for row in rows for answer in row} == {bool}
    found = [{rule.reason for rule, broken in zip(rules, row, strict=True) if broken} for row in rows]
    assert found == reasons_by_hand(records)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


@given(name=NAMES.filter(lambda name: name.casefold() != "vaewatch_row"))
def test_rules_hold_for_columns_of_any_name(
    make_dataset: Callable[..., Dataset], database: duckdb.DuckDBPyConnection, name: str
) -> None:
    """Names come from other people's systems, quotes and keywords included."""
    column = {"type": "float", "role": "numeric", "required": True, "min": 0}
    database.register("named", pa.table({name: [1.0, None, -1.0, 1.0], "vaewatch_row": [0, 1, 2, 3]}))
    for rule in row_rules(make_dataset(columns={name: column}, key=[name])):
        broken = database.execute(f"SELECT {rule.violates} FROM named ORDER BY vaewatch_row").fetchall()
        expected = {"missing_value": [1], "not_finite": [], "out_of_range": [2], "duplicate_key": [3]}
        assert [i for i, (it,) in enumerate(broken) if it] == expected[rule.code], rule


def test_a_key_of_several_columns_is_one_rule(make_dataset: Callable[..., Dataset]) -> None:
    """Two columns may each repeat; together they must not."""
    columns = {n: {"type": "int", "role": "numeric"} for n in ("a", "b")}
    (rule,) = (
        rule
        for rule in row_rules(make_dataset(columns=columns, key=["a", "b"]))
        if rule.code == "duplicate_key"
    )
    assert (rule.reason, rule.column, rule.columns) == ("duplicate_key:a+b", None, ("a", "b"))


def test_an_empty_list_of_values_accepts_only_missing_ones(
    make_dataset: Callable[..., Dataset], database: duckdb.DuckDBPyConnection
) -> None:
    """`values: []` must not become SQL that no database can read."""
    columns = {"c": {"type": "string", "values": []}, "amount": {"type": "float", "role": "numeric"}}
    rule = next(rule for rule in row_rules(make_dataset(columns=columns)) if rule.code == "not_in_set")
    database.register("texts", pa.table({"c": pa.array(["x", None], pa.string())}))
    assert database.execute(f"SELECT {rule.violates} FROM texts").fetchall() == [(True,), (False,)]


def test_whole_batches_are_judged_by_what_the_file_promises(make_dataset: Callable[..., Dataset]) -> None:
    """Freshness is judged only where the file says how old and by which column."""
    plain = batch_rules(make_dataset())
    assert [rule.code for rule in plain] == ["columns", "row_count", "share_set_aside"]
    columns = {"at": {"type": "timestamp"}, "amount": {"type": "float", "role": "numeric"}}
    batch = {"min_records": 5, "max_records": 9, "max_set_aside": 0.5, "max_age_days": 2}
    rules = {rule.code: rule for rule in batch_rules(make_dataset(columns=columns, time="at", batch=batch))}
    assert (rules["row_count"].minimum, rules["row_count"].maximum) == (5, 9)
    assert rules["share_set_aside"].maximum == 0.5
    assert (rules["freshness"].column, rules["freshness"].maximum) == ("at", 2)
    assert rules["columns"].columns == ("at", "amount")


def test_the_hash_changes_with_every_promise_and_with_nothing_else(
    make_dataset: Callable[..., Dataset],
) -> None:
    """A refused batch is judged again when a promise changes; a new cron line must not set that off."""
    amount = {"type": "float", "role": "numeric"}
    plain = {"columns": {"amount": amount, "at": {"type": "timestamp"}}}
    hashed = contract_hash(make_dataset(**plain))
    promises: list[dict[str, Any]] = [
        {"columns": {"amount": amount | {"min": 0}, "at": {"type": "timestamp"}}},
        {"columns": {"amount": amount, "at": {"type": "timestamp_utc"}}},
        {"columns": {"amount": amount | {"required": True}, "at": {"type": "timestamp"}}},
        {"columns": {"amount": amount}},
        plain | {"key": "amount"},
        plain | {"time": "at"},
        plain | {"batch": {"max_set_aside": 0.1}},
        plain | {"time": "at", "incoming": {"split": "day"}},
        plain | {"time": "at", "incoming": {"split": "month"}},
    ]
    hashes = [contract_hash(make_dataset(**promise)) for promise in promises]
    assert len({hashed, *hashes}) == len(promises) + 1
    assert re.fullmatch("[0-9a-f]{12}", hashed)
    unpromised: list[dict[str, Any]] = [
        plain | {"description": "x"},
        plain | {"train": {"schedule": "0 3 * * *"}},
        plain | {"flag": {"error_rate": 0.1}},
        plain | {"incoming": {"path": "elsewhere"}},
        {"columns": {"at": {"type": "timestamp"}, "amount": amount}},
    ]
    assert {contract_hash(make_dataset(**other)) for other in unpromised} == {hashed}

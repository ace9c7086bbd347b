"""From a table to what the model sees, and back to what a person reads: nothing lost, nothing leaked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.config.columns import Column
from pipeline.config.dataset import Dataset
from pipeline.detection.features import (
    MOST_CATEGORIES,
    RARE,
    Features,
    time_names,
    time_parts,
)
from pipeline.detection.numbers import Number
from pipeline.detection.values import as_text, describe

MAGNITUDES = st.floats(1e-30, 1e60).flatmap(lambda x: st.sampled_from([x, -x])) | st.just(0.0)
ORDINARY = st.floats(-1e3, 1e3) | st.sampled_from([1.0, 2.0, 3.0])
MONDAY = datetime(2024, 1, 1)  # noqa: DTZ001  # timestamps of a table have no zone


@given(st.lists(MAGNITUDES | ORDINARY, min_size=1, max_size=60))
def test_restore_undoes_standardise(values: list[float]) -> None:
    """What the model expects is shown in the column's own units: 12.5 must not come back as 12.6."""
    x = np.array(values)
    number = Number.fit(x)
    back = number.restore(number.standardise(x))
    scale = abs(x - number.centre) + number.spread if number.spread else abs(x) + abs(number.mean)
    assert (abs(back - x) <= 1e-9 * (scale + number.std * (not number.spread) + abs(number.centre))).all()


@given(st.lists(st.floats() | ORDINARY, min_size=1, max_size=60))
def test_whatever_comes_in_the_model_sees_finite_numbers_or_missing_ones(values: list[float]) -> None:
    """One 1e308 from a broken device must not turn a night's training into NaN."""
    x = np.array(values)
    number = Number.fit(x)
    assert all(map(math.isfinite, (number.mean, number.std, number.centre, number.spread)))
    assert number.std > 0
    z = number.standardise(x)
    assert (np.isnan(z) == np.isnan(x)).all()
    assert not np.isinf(z).any()
    assert np.isfinite(number.restore(z[~np.isnan(z)])).all()


@given(st.lists(ORDINARY, min_size=2, max_size=60), st.floats(1e-20, 1e20))
def test_units_do_not_matter(values: list[float], factor: float) -> None:
    """Euros or cents, metres or nanometres: the model sees the same numbers."""
    x = np.array(values)
    assume(np.std(x) > 1e-3)
    z = Number.fit(x).standardise(x)
    scaled = x * factor
    assert np.allclose(Number.fit(scaled).standardise(scaled), z, atol=1e-6)


@given(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=40))
def test_order_is_kept(values: list[float]) -> None:
    """A larger amount is a larger number for the model, also in the tails."""
    x = np.sort(np.array(values))
    assert (np.diff(Number.fit(x).standardise(x)) >= 0).all()


def test_ordinary_columns_get_mean_0_and_deviation_1_by_a_straight_line() -> None:
    """Where nothing is extreme, nothing is bent."""
    x = np.random.default_rng(0).normal(50, 7, 1000)
    number = Number.fit(x)
    assert number.spread == 0
    z = number.standardise(x)
    assert (z.mean(), z.std()) == pytest.approx((0, 1), abs=1e-9)


def test_a_few_huge_values_do_not_make_all_ordinary_ones_alike() -> None:
    """Three typing errors of a million: the amounts between 10 and 90 must still differ for the model."""
    x = np.concatenate([np.random.default_rng(0).uniform(10, 90, 997), [1e6, 2e6, -1e6]])
    z = Number.fit(x).standardise(x)
    assert np.ptp(z[:997]) > 2
    assert abs(z[997:]).min() > abs(z[:997]).max()


def test_a_sensor_that_failed_for_a_while_keeps_its_straight_line() -> None:
    """A level of 775 ± 10, and 1 % of the time none at all: bent, the failure would look half as far out."""
    x = np.concatenate([np.random.default_rng(0).normal(775, 10, 990), np.zeros(10)])
    assert Number.fit(x).spread == 0


def test_what_is_expected_of_a_cell_is_no_value_that_hardly_any_has() -> None:
    """Of 200,000 taxi rides 131 are of up to 178,920 miles: a fare of 477 is no reason to expect that. Of few
    records the whole range is shown.
    """
    rides = np.random.default_rng(0).gamma(1.0, 3.0, 200_000)
    rides[:131] = np.linspace(200, 178_920, 131)
    assert np.quantile(rides, 0.99) < Number.fit(rides).highest < 60
    few = rides[:900]
    assert (Number.fit(few).lowest, Number.fit(few).highest) == (few.min(), few.max())


def test_nor_where_most_values_are_0() -> None:
    """Refunds: mostly none, else between 10 and 90, and one of a million."""
    x = np.concatenate([np.zeros(800), np.random.default_rng(0).uniform(10, 90, 199), [1e6]])
    z = Number.fit(x).standardise(x)
    assert np.ptp(z[800:999]) > 1
    assert z[999] > z[:999].max()


@pytest.mark.parametrize("values", [[5.0] * 9, [], [math.nan] * 3, [1e-300] * 4, [math.inf]])
def test_a_column_without_variation_is_zero_everywhere(values: list[float]) -> None:
    """No division by zero; a first different value is then told apart by its distance."""
    number = Number.fit(np.array(values))
    assert number.std == 1.0
    assert np.nan_to_num(number.standardise(np.array(values))).tolist() in ([0.0] * len(values), [1e150])


def test_tiny_units_are_not_taken_for_constants() -> None:
    """Picofarads in farads vary by 1e-12, and that is all they have to say."""
    x = np.random.default_rng(0).normal(1e-11, 1e-12, 200)
    assert Number.fit(x).standardise(x).std() == pytest.approx(1)


SCHEMA = pa.schema([
    ("amount", pa.float64()),
    ("n", pa.int64()),
    ("price", pa.decimal128(9, 2)),
    ("paid", pa.bool_()),
    ("colour", pa.string()),
    ("code", pa.int64()),
    ("new", pa.bool_()),
    ("load", pa.float64()),
    ("shop", pa.string()),
    ("at", pa.timestamp("us", "UTC")),
    ("on", pa.date32()),
])
COLUMNS: dict[str, dict[str, str]] = {
    "amount": {"type": "float", "role": "numeric"},
    "n": {"type": "int", "role": "numeric"},
    "price": {"type": "decimal(9,2)", "role": "numeric"},
    "paid": {"type": "bool", "role": "numeric"},
    "colour": {"type": "string", "role": "categorical"},
    "code": {"type": "int", "role": "categorical"},
    "new": {"type": "bool", "role": "categorical"},
    "load": {"type": "float", "role": "context"},
    "shop": {"type": "string", "role": "context"},
    "at": {"type": "timestamp_utc", "role": "context"},
    "on": {"type": "date", "role": "context"},
    "ignored": {"type": "string"},
}


def record(i: int) -> dict[str, Any]:
    return {
        "amount": i * 0.5,
        "n": i % 7,
        "price": Decimal(i) / 4,
        "paid": i % 3 == 0,
        "colour": ["red", "green", "blue"][i % 3],
        "code": i % 2,
        "new": i % 2 == 0,
        "load": float(i % 5),
        "shop": "north" if i % 2 else "south",
        "at": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=7 * i),
        "on": date(2024, 1, 1) + timedelta(days=i),
    }


def table(records: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(records, SCHEMA)


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    return make_dataset(columns=COLUMNS)


@pytest.fixture
def features(dataset: Dataset) -> Features:
    return Features.fit(dataset, table([record(i) for i in range(200)]))


CELLS = st.fixed_dictionaries({
    "amount": st.none() | st.floats(),
    "n": st.none() | st.integers(-(2**63), 2**63 - 1),
    "price": st.none() | st.decimals(-9_999_999, 9_999_999, places=2),
    "paid": st.none() | st.booleans(),
    "colour": st.none() | st.sampled_from(["red", "green", "blue", "never seen", ""]),
    "code": st.none() | st.integers(-3, 3),
    "new": st.none() | st.booleans(),
    "load": st.none() | st.floats(),
    "shop": st.none() | st.sampled_from(["north", "south", "moon"]),
    "at": st.none() | st.datetimes(timezones=st.just(UTC)),
    "on": st.none() | st.dates(),
})


@given(records=st.lists(CELLS, max_size=6))
def test_any_record_of_the_right_types_fits_the_layout(
    features: Features, records: list[dict[str, Any]]
) -> None:
    """What the contract accepts, the model can be asked about: in range, never infinite, missing where
    missing.
    """
    found = features.records(table(records))
    features.layout.check(found)
    assert not found.numeric.isinf().any()
    for i, name in enumerate(features.numeric):
        missing = [r[name] is None or (isinstance(r[name], float) and math.isnan(r[name])) for r in records]
        assert found.numeric[:, i].isnan().tolist() == missing
    for i, (name, n_known) in enumerate(features.layout.categorical):
        codes = found.categorical[:, i].tolist()
        assert [code == -1 for code in codes] == [r[name] is None for r in records]
        assert all(-1 <= code <= n_known for code in codes)
    assert not found.context.isinf().any()


@given(records=st.lists(CELLS, min_size=1, max_size=5), data=st.data())
def test_a_record_means_the_same_whatever_is_beside_it(
    features: Features, records: list[dict[str, Any]], data: st.DataObject
) -> None:
    """A batch may come in one piece or in slices, in any order."""
    order = data.draw(st.permutations(range(len(records))))
    whole = features.records(table(records))
    shuffled = features.records(table([records[i] for i in order]))
    for a, b in zip(
        (whole.numeric, whole.categorical, whole.context),
        (shuffled.numeric, shuffled.categorical, shuffled.context),
        strict=True,
    ):
        assert torch.equal(a[list(order)].nan_to_num(nan=-7.0), b.nan_to_num(nan=-7.0))


def test_the_state_is_plain_json_and_comes_back_the_same(features: Features) -> None:
    """It is saved with the model: no pickle, no rounding."""
    again = Features.from_dict(json.loads(json.dumps(features.to_dict(), allow_nan=False)))
    assert again == features
    assert again.layout == features.layout


def test_only_columns_with_a_role_are_read(dataset: Dataset, features: Features) -> None:
    """An ignored column may hold anything, names of customers included: it never reaches the model."""
    assert set(features.columns) == set(COLUMNS) - {"ignored"}
    assert set(features.layout.columns) == set(dataset.columns_with("numeric", "categorical"))


def test_categories_are_coded_by_how_often_they_were_seen(make_dataset: Callable[..., Dataset]) -> None:
    """The code is stable from night to night where the data is; equal counts are in order of their names."""
    dataset = make_dataset(columns={"c": {"type": "string", "role": "categorical"}})
    seen = ["b"] * 7 + ["a"] * 9 + ["d"] * 5 + ["c"] * 5 + [None] * 20
    features = Features.fit(dataset, pa.table({"c": seen}))
    assert features.categorical == {"c": ("a", "b", "c", "d")}
    asked = pa.table({"c": ["a", "d", None, "new", ""]})
    assert features.records(asked).categorical[:, 0].tolist() == [0, 3, -1, 4, 4]


def test_rare_categories_share_one_code_with_unseen_ones(make_dataset: Callable[..., Dataset]) -> None:
    """A model that never met "other" in training would find every new category impossible."""
    dataset = make_dataset(columns={"c": {"type": "string", "role": "categorical"}})
    seen = ["often"] * 50 + ["enough"] * RARE + ["rare"] * (RARE - 1)
    features = Features.fit(dataset, pa.table({"c": seen}))
    assert features.categorical == {"c": ("often", "enough")}
    asked = pa.table({"c": ["rare", "unseen"]})
    assert features.records(asked).categorical[:, 0].tolist() == [2, 2]


def test_a_column_of_rare_categories_only_keeps_them(make_dataset: Callable[..., Dataset]) -> None:
    """With few records everything is rare; that is no reason to see nothing."""
    dataset = make_dataset(columns={"c": {"type": "string", "role": "categorical"}})
    assert Features.fit(dataset, pa.table({"c": ["x", "y", "y"]})).categorical == {"c": ("y", "x")}


def test_a_column_without_any_value_can_be_fitted(dataset: Dataset) -> None:
    """A sensor may be down for the whole window; the night must go on."""
    features = Features.fit(dataset, table([dict.fromkeys(SCHEMA.names)] * 3))
    features.layout.check(features.records(table([record(1)])))
    assert features.records(table([record(1)])).categorical.tolist() == [[1, 1, 1]]


def test_categories_are_bounded(make_dataset: Callable[..., Dataset]) -> None:
    """A free text that slipped in as a category must not make a layer of a million."""
    dataset = make_dataset(columns={"c": {"type": "int", "role": "categorical"}})
    features = Features.fit(dataset, pa.table({"c": list(range(MOST_CATEGORIES + 50)) * RARE}))
    assert len(features.categorical["c"]) == MOST_CATEGORIES


@pytest.mark.parametrize(
    ("type_", "values"),
    [("bool", [True, False]), ("int", [7, -1]), ("float", [0.5, 1.0]), ("string", ["true", "1"])],
)
def test_categories_of_every_type_are_told_apart(
    make_dataset: Callable[..., Dataset], type_: str, values: list[Any]
) -> None:
    """A code in a float column, because one value was once missing, is still a code."""
    dataset = make_dataset(columns={"c": {"type": type_, "role": "categorical"}})
    features = Features.fit(dataset, pa.table({"c": values * RARE}))
    codes = features.records(pa.table({"c": [*values, None]})).categorical[:, 0].tolist()
    assert sorted(codes) == [-1, 0, 1]


def test_slices_and_dictionaries_are_read_as_the_values_they_are(
    dataset: Dataset, features: Features
) -> None:
    """Arrow lays the same column out in many ways; none of them is another record."""
    plain = table([record(i) for i in range(40)])
    encoded = plain.set_column(4, "colour", plain["colour"].dictionary_encode())
    pieces = pa.concat_tables([encoded.slice(0, 7), encoded.slice(7, 0), encoded.slice(7)])
    for other in (encoded, pieces):
        assert torch.equal(features.records(other).categorical, features.records(plain).categorical)
        assert torch.equal(features.records(other).numeric, features.records(plain).numeric)


def test_time_is_told_as_circles_a_line_and_a_weekday() -> None:
    """23:59 is next to 00:00, and Monday is not the mean of Sunday and Tuesday."""
    times = [
        MONDAY,
        MONDAY + timedelta(hours=6),
        MONDAY + timedelta(days=6, hours=23, minutes=59, seconds=59),
        None,
    ]
    names = time_names(weekday=True)
    parts = dict(
        zip(
            names,
            np.round(time_parts(pa.chunked_array([times], pa.timestamp("us")), weekday=True), 3),
            strict=True,
        )
    )
    assert parts["sin day"].tolist() == [0, 1.414, 0, 0]
    assert parts["cos day"].tolist() == [1.414, 0, 1.414, 0]
    assert parts["part of day"].tolist() == [-1.732, -0.866, 1.732, 0]
    assert parts["weekday 1"].tolist() == [1, 1, 0, 0]
    assert parts["weekday 7"].tolist() == [0, 0, 1, 0]
    assert sum(parts[name] for name in names if name.startswith("weekday")).tolist() == [1, 1, 1, 0]


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001
def test_every_weekday_is_the_calendars(time: datetime) -> None:
    """Before 1970 too, where division rounds the other way."""
    days = time_parts(pa.chunked_array([[time]], pa.timestamp("us")), weekday=True)[5:]
    assert [float(day[0]) for day in days] == [float(time.isoweekday() == day) for day in range(1, 8)]


@pytest.mark.parametrize(("n_days", "told"), [(20, False), (100, True)])
def test_the_weekday_is_told_only_where_enough_weeks_were_seen(
    make_dataset: Callable[..., Dataset], n_days: int, told: bool
) -> None:
    """In a window of three weeks a weekday is three days, and those would be learned by heart."""
    dataset = make_dataset(
        columns={"x": {"type": "float", "role": "numeric"}, "at": {"type": "timestamp", "role": "context"}}
    )
    times = pa.array([MONDAY + timedelta(days=i) for i in range(n_days)], pa.timestamp("us"))
    features = Features.fit(dataset, pa.table({"x": [1.0] * n_days, "at": times}))
    assert any("weekday" in name for name in features.layout.context) == told
    features.layout.check(features.records(pa.table({"x": [1.0], "at": times[:1]})))


@pytest.mark.parametrize(
    ("value", "type_", "read"),
    [
        (None, "float", "missing"),
        (math.nan, "float", "missing"),
        (True, "bool", "true"),
        (12.5, "float", "12.5"),
        (1234567.0, "float", "1.23457e+06"),
        (12.4999, "int", "12"),
        (-3, "int", "-3"),
        (9_007_199_254_740_993, "int", "9007199254740993"),
        (Decimal("12.50"), "decimal(9,2)", "12.5"),
        ("=1+1", "string", "=1+1"),
        (date(2024, 1, 1), "date", "2024-01-01"),
        (0.5, "string", "0.5"),
    ],
)
def test_a_cell_is_described_as_a_person_reads_it(value: Any, type_: str, read: str) -> None:
    """A reviewer compares what was observed with what was expected: in the same notation."""
    assert describe(value, Column(type=type_)) == read


@pytest.mark.parametrize("code", [1234567.0, 5411.0, 0.1])
def test_a_code_is_described_as_its_category_is_named(code: float) -> None:
    """A number that is a name must not be rounded, or the reason names a category that there is not."""
    column = pa.chunked_array([[code]])
    assert (
        describe(code, Column(type="float", role="categorical"))
        == as_text(column)[0].as_py()
        == f"{code:.7g}"
    )


def test_changes_and_deviations_are_not_bent() -> None:
    """As often below zero as above: their size is what is odd about them. Amounts are bent, a few refunds
    among them.
    """
    random = np.random.default_rng(1)
    changes = random.standard_t(1.5, 5000)
    amounts = np.where(random.random(5000) < 0.02, -1, 1) * random.lognormal(3, 2, 5000)
    assert Number.fit(changes).spread == 0
    assert Number.fit(amounts).spread > 0

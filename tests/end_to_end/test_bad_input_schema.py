"""Deliveries whose columns, types or times are not those of the contract; see test_bad_input.py."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline import steps
from pipeline.records.window import choose_window, day

from .shop import N, Shop, changed, orders

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


def test_a_column_that_is_gone_refuses_the_batch(shop: Shop) -> None:
    """The model would have to guess it."""
    shop.refused(orders().drop_columns("kind"), "column 'kind' (string) is missing from b1.parquet")


def test_a_new_column_is_noted_and_left_out_or_refused_as_the_owner_says(shop: Shop) -> None:
    """It may be harmless or personal data."""
    wider = orders().append_column("ip", pa.array(["::1"] * N))
    shop.accepted(wider)
    assert "column 'ip' is not in the contract: left out" in shop.state().notes
    assert "ip" not in shop.records()["record"].type.names
    text = shop.place.yaml.read_text(encoding="utf-8")
    shop.place.yaml.write_text(text.replace("batch: {", "batch: {new_columns: refuse, "), encoding="utf-8")
    receipt = shop.place.validate("b1", force=True).batches[0]
    assert (receipt.outcome, receipt.reason) == ("refused", "columns 'ip' are not in the contract")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("amount", pa.array(["1"] * N), "column 'amount' is string in b1.parquet, the contract says float"),
        ("kind", pa.array([1] * N), "column 'kind' is int64 in b1.parquet, the contract says string"),
        ("pieces", pa.array([0.5] * N), "column 'pieces' is double in b1.parquet, the contract says int"),
        (
            "price",
            pa.array([0.5] * N),
            "column 'price' is double in b1.parquet, the contract says decimal(10,2)",
        ),
    ],
    ids=["text for number", "number for text", "fraction for integer", "float for decimal"],
)
def test_a_changed_type_refuses_the_batch(shop: Shop, name: str, values: pa.Array, said: str) -> None:
    """A type that silently changes its meaning is worse than a night without scores."""
    shop.refused(changed(name, values), said)


@pytest.mark.parametrize(
    ("name", "values", "noted"),
    [
        ("pieces", pa.array([3] * N, pa.int32()), None),
        ("pieces", pa.array([3] * N, pa.uint8()), None),
        ("pieces", pa.nulls(N), "pieces: null read as int"),
        ("weight", pa.array([3] * N, pa.int32()), "weight: int32 read as float"),
        ("weight", pa.nulls(N), "weight: null read as float"),
        ("weight", pa.array([0.5] * N, pa.float32()), None),
        ("kind", pa.array(["in"] * N, pa.large_string()), None),
        ("kind", pa.array(["in"] * N).dictionary_encode(), None),
        ("price", pa.array([3] * N, pa.int16()), "price: int16 read as decimal(10,2)"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else str(value),
)
def test_a_type_that_holds_less_is_read_as_the_contract_s(
    shop: Shop, name: str, values: pa.Array, noted: str | None
) -> None:
    """pandas writes int64 on a full day and null or double on an empty one; nobody should be woken for it."""
    shop.accepted(orders())
    shop.accepted(changed(name, values))
    assert shop.column(name) == values.to_pylist()
    assert shop.noted() == ([noted] if noted else [])


def test_whole_numbers_that_pandas_wrote_as_fractions_are_refused_with_the_types(shop: Shop) -> None:
    """An integer column with a gap leaves pandas as double: 2**53 + 1 may be lost on the way, so a person
    decides.
    """
    shop.refused(changed("pieces", pa.array([3.0, None] * (N // 2))), "column 'pieces' is double", "says int")


def test_times_without_a_zone_do_not_pass_for_instants(shop: Shop) -> None:
    """An hour off is a wrong day for every record around midnight."""
    naive = pc.local_timestamp(orders()["at"])
    shop.refused(
        changed("at", naive), "column 'at' is timestamp[us] in b1.parquet, the contract says timestamp_utc"
    )


@pytest.mark.parametrize("n", [1, 3])
def test_records_dated_in_the_future_are_noted_and_move_no_window(shop: Shop, n: int) -> None:
    """One clock set to 2099 would make every other batch too old to be learned, and stay the newest for
    ever.
    """
    ahead = [datetime(2099, 1, 1, 6, tzinfo=UTC), *[datetime(2098, 1, 1, tzinfo=UTC)] * (n - 1)]
    shop.accepted(changed("at", ahead))
    shop.check(orders(N, N), "b2")
    (note,) = shop.state().notes
    are = "1 record is" if n == 1 else "3 records are"
    assert note.startswith(f"{are} dated more than a day after being read, the latest 2099-01-01 06:00: ")
    here = shop.place.here
    page = (here.page(here.dataset("orders"), "b1") / "index.html").read_text(encoding="utf-8")
    assert note in html.unescape(page)
    said = list[str]()
    steps.validate(here, "orders", "b1", force=True, say=said.append)
    assert f"  noted: {note}" in said
    assert shop.state("b2").notes == []
    assert shop.state().newest_record_at == orders()["at"][-1].as_py()
    window = choose_window(here.dataset("orders"), list(here.ledger.current("orders").values()))
    assert window.batch_ids == ["b1", "b2"]
    assert window.n_records == 2 * N


def test_a_delivery_of_the_future_alone_is_of_the_day_it_was_read_on(shop: Shop) -> None:
    """There is no other record to go by; and one that the contract sets aside is not spoken of."""
    table = changed("at", [datetime(2099, 1, 1, tzinfo=UTC)] * N)
    shop.accepted(changed("amount", [-1.0], table=table), out_of_range__amount=1)
    (note,) = shop.state().notes
    assert note.startswith(f"{N - 1} records are dated")
    assert day(shop.state()) == shop.state().validated_at.date()


def test_times_of_another_zone_are_the_same_instants(shop: Shop) -> None:
    """A zone is a way of writing a moment."""
    tokyo = orders()["at"].cast(pa.timestamp("ns", "Asia/Tokyo"))
    shop.accepted(changed("at", tokyo))
    assert shop.column("at") == orders()["at"].to_pylist()
    assert shop.state().newest_record_at == orders()["at"][-1].as_py()


def test_a_decimal_that_fits_is_kept_to_the_cent_and_a_wider_one_is_refused(shop: Shop) -> None:
    """Money is not rounded."""
    exact = [Decimal("99999999.99"), Decimal("-0.01"), Decimal("0.10")]
    shop.accepted(changed("price", exact))
    assert shop.column("price")[:3] == exact
    shop.accepted(changed("price", pa.array([Decimal("1.5")] * N, pa.decimal128(5, 1))))
    assert shop.noted() == ["price: decimal128(5, 1) read as decimal(10,2)"]
    finer = pa.array([Decimal("0.001")] * N, pa.decimal128(10, 3))
    shop.refused(
        changed("price", finer),
        "column 'price' is decimal128(10, 3) in b1.parquet, the contract says decimal(10,2)",
    )

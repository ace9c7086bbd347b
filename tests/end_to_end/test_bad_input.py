"""Bad input as it really comes: for each kind what an operator sees, and no record lost or doubled.

docs/reference/bad-input.md is the table of these; each row there names its test here.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.errors import NotReady, RegistryUnreachable, StorageFailed
from pipeline.records.window import choose_window, day
from pipeline.steps.receipts import BatchReceipt

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]
N, LEARNED = 60, 2000
COLUMNS = """\
columns:
  id: {type: string}
  at: {type: timestamp_utc, required: true, role: context}
  amount: {type: float, role: numeric, required: true, min: 0, max: 1000}
  weight: {type: float, role: numeric}
  pieces: {type: int, role: numeric}
  price: {type: "decimal(10,2)", role: numeric}
  kind: {type: string, role: categorical}
  shop: {type: string, role: categorical}
"""
SETTINGS = """\
dataset: orders
incoming: {path: ../incoming/orders, settle_seconds: 0}
key: id
time: at
batch: {max_set_aside: 0.1}
train: {min_records: 50, recipe: {steps: 40, n_members: 2}}
"""


def orders(n: int = N, first: int = 0) -> pa.Table:
    """n good records."""
    rng = np.random.default_rng(first)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    return pa.table({
        "id": [f"o{first + i}" for i in range(n)],
        "at": pa.array([start + timedelta(minutes=i) for i in range(n)], pa.timestamp("us", "UTC")),
        "amount": rng.uniform(1, 999, n),
        "weight": rng.normal(size=n),
        "pieces": pa.array(rng.integers(1, 9, n), pa.int64()),
        "price": pa.array([Decimal(int(v)) / 100 for v in rng.integers(1, 10**6, n)], pa.decimal128(10, 2)),
        "kind": pa.array(rng.choice(["in", "out"], n)),
        "shop": pa.array([f"s{i}" for i in rng.integers(0, 3, n)]),
    })


def changed(
    name: str, values: Any, type_: pa.DataType | None = None, *, table: pa.Table | None = None
) -> pa.Table:
    """Good records with one column replaced (a list: its first values only)."""
    table = orders() if table is None else table
    i = table.schema.get_field_index(name)
    if isinstance(values, list):
        column = table[name].to_pylist()
        values = pa.array([*values, *column[len(values) :]], type_ or table.schema.field(i).type)
    return table.set_column(i, name, values)


class Shop:
    """One dataset that takes deliveries."""

    def __init__(self, place: Place) -> None:
        self.place = place
        place.incoming.mkdir(parents=True, exist_ok=True)
        place.yaml.parent.mkdir(parents=True, exist_ok=True)
        place.yaml.write_text(SETTINGS + COLUMNS, encoding="utf-8")

    def land(self, delivery: pa.Table | bytes, batch_id: str = "b1") -> Path:
        file = self.place.incoming / f"{batch_id}.parquet"
        file.write_bytes(delivery) if isinstance(delivery, bytes) else pq.write_table(delivery, file)
        return file

    def check(self, delivery: pa.Table | bytes, batch_id: str = "b1") -> BatchReceipt:
        """Land and validate one batch; whatever it was, no record is lost or doubled."""
        earlier = self.records(batch_id)
        self.land(delivery, batch_id)
        (receipt,) = self.place.validate(batch_id).batches
        return self.sound(receipt, earlier)

    def sound(self, receipt: BatchReceipt, earlier: pa.Table | None = None) -> BatchReceipt:
        records = self.records(receipt.batch_id)
        if receipt.outcome == "accepted":
            assert receipt.n_read == receipt.n_accepted + receipt.n_set_aside == records.num_rows
            assert records["row_number"].to_pylist() == list(range(records.num_rows))
            assert pc.sum(records["set_aside"]).as_py() in {receipt.n_set_aside, None}
        else:  # what was published before a refused delivery stays as it was
            assert records.equals(self.records("none") if earlier is None else earlier)
            assert receipt.n_accepted in {0, None}
        assert self.place.left_over() == []
        return receipt

    def refused(self, delivery: pa.Table | bytes, *said: str) -> None:
        """The batch is refused, once and for all until it changes, and the reason says all this."""
        receipt = self.check(delivery)
        assert receipt.outcome == "refused"
        here = self.place.here
        page = (here.page(here.dataset("orders"), "b1") / "index.html").read_text(encoding="utf-8")
        assert "✕ Refused" in page
        for part in said:
            assert part in receipt.reason
        for words in () if ", promised: " in receipt.reason else said:  # a broken rule is laid out as a table
            assert words in html.unescape(page)
        (again,) = self.place.validate().batches
        assert again.outcome == "unchanged"
        assert steps.discover(self.place.here, "orders") == []

    def accepted(self, delivery: pa.Table, **set_aside: int) -> BatchReceipt:
        """The batch is accepted but for so many records for a reason."""
        receipt = self.check(delivery)
        assert receipt.outcome == "accepted", receipt.reason
        found = self.state().set_aside
        assert found == {reason.replace("__", ":"): n for reason, n in set_aside.items()}
        return receipt

    def records(self, batch_id: str = "b1") -> pa.Table:
        if "records" not in self.place.versions():
            return pa.table({name: pa.array([], pa.int64()) for name in ("row_number", "set_aside")})
        found = self.place.table("records")
        return found.filter(pc.equal(found["batch_id"], batch_id))

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.records()["record"].to_pylist()]

    def state(self, batch_id: str = "b1") -> Any:
        return self.place.here.ledger.newest("orders", batch_id)


@pytest.fixture
def new_shop(landed_once: tuple[Place, Any]) -> Iterator[Callable[[Path], Shop]]:
    opened: list[Place] = []
    kind = type(landed_once[0])

    def make(root: Path) -> Shop:
        opened.append(kind(root, "orders"))
        return Shop(opened[-1])

    yield make
    for place in opened:
        place.close()


@pytest.fixture
def shop(new_shop: Callable[[Path], Shop], tmp_path: Path) -> Shop:
    return new_shop(tmp_path)


@pytest.fixture(scope="module")
def trained_shop(landed_once: tuple[Place, Any], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a champion, learned from a constant column, one that is all missing and one with thousands of
    values.
    """
    place = type(landed_once[0])(tmp_path_factory.mktemp("trained shop"), "orders")
    table = changed("weight", pa.nulls(LEARNED, pa.float64()), table=orders(LEARNED))
    table = changed("pieces", pa.array([3] * LEARNED, pa.int64()), table=table)
    many = pa.array([f"shop {i}" for i in range(LEARNED)])
    Shop(place).land(changed("shop", many, table=table), "b0")
    place.validate()
    with warnings.catch_warnings():  # told to whoever trains
        warnings.filterwarnings("ignore", "training columns never observed.*weight; constant.*pieces")
        place.train()
    place.score()
    place.close()
    return place


@pytest.fixture
def scoring_shop(trained_shop: Place, open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(trained_shop)


# --- the folder ---------------------------------------------------------------------------------------------


def test_an_empty_folder_is_nothing_to_do(shop: Shop) -> None:
    """A feed that has not begun yet is no fault."""
    assert steps.discover(shop.place.here, "orders") == []
    assert shop.place.validate().outcome == "unchanged"
    with pytest.raises(NotReady, match=r"no settled batch 'b1' in .*/incoming/orders"):
        shop.place.validate("b1")
    with pytest.raises(
        NotReady, match=r"0 accepted records in 0 batches, train.min_records is 50; wait for more"
    ):
        shop.place.train()


def test_a_missing_folder_is_an_error_that_a_retry_may_mend(shop: Shop) -> None:
    """An unmounted disk must not look like a quiet night."""
    shop.place.incoming.rmdir()
    with pytest.raises(
        StorageFailed, match=r"orders: incoming folder .* is not there; create it or mend incoming.path"
    ):
        shop.place.validate()
    shop.place.incoming.mkdir()
    assert shop.check(orders()).n_accepted == N


# --- the file -----------------------------------------------------------------------------------------------


def test_an_empty_file_is_refused(shop: Shop) -> None:
    """Somebody's upload failed before its first byte."""
    shop.refused(b"", "b1.parquet: the file is empty (0 bytes)")


def test_a_truncated_file_is_refused(shop: Shop) -> None:
    """Half a file is not half a batch."""
    whole = shop.land(orders()).read_bytes()
    size = len(whole) // 2
    shop.refused(whole[:size], f"b1.parquet: the file is cut short: {size:,} bytes and no Parquet footer")
    shop.land(whole)
    (good,) = shop.place.validate("b1").batches
    assert shop.sound(good).n_accepted == N


def test_a_file_of_another_format_is_refused(shop: Shop) -> None:
    """A CSV file with the wrong name is seen at its first bytes."""
    shop.refused(b"id,amount\n1,2\n", "b1.parquet: not a Parquet file: it starts with b'id,a'")


def test_a_file_with_a_damaged_page_is_refused(shop: Shop) -> None:
    """A flipped bit must not become a number."""
    pq.write_table(orders(), file := shop.place.incoming / "b1.parquet", write_page_checksum=True)
    content = bytearray(file.read_bytes())
    content[200] ^= 0xFF
    shop.refused(bytes(content), "b1.parquet: ")


def test_a_file_without_records_is_refused(shop: Shop) -> None:
    """A batch of nothing is a failed job upstream more often than a quiet day; min_records: 0 allows it."""
    shop.refused(orders(0), "Records: 0 records")
    text = shop.place.yaml.read_text(encoding="utf-8")
    shop.place.yaml.write_text(text.replace("batch: {", "batch: {min_records: 0, "), encoding="utf-8")
    receipt = shop.check(orders(0))
    assert (receipt.outcome, receipt.n_read) == ("accepted", 0)


def test_text_that_is_not_utf8_is_refused(shop: Shop) -> None:
    """Latin-1 in a column of text would break every reader after us."""
    latin = pa.array([b"caf\xe9"] * N, pa.binary())
    wrong = pa.Array.from_buffers(pa.string(), N, latin.buffers())
    shop.refused(changed("kind", wrong), "b1.parquet: column 'kind', after record 0: Invalid", "UTF8")


def test_files_that_still_settle_are_said(shop: Shop) -> None:
    """Somebody copies files, runs, and reads that nothing is there; the advice is not to wait for more."""
    shop.place.edit("settle_seconds: 0", "settle_seconds: 100")
    shop.land(orders())
    past = time.time() - 11
    os.utime(shop.place.incoming / "b1.parquet", (past, past))
    checked, trained, _ = steps.run(shop.place.here, "orders")
    assert checked.batches == ()
    said = r"1 file was changed less than 100 s ago and may still be written; run again in (\d+) s"
    found = re.fullmatch(said, checked.reason)
    assert found
    assert steps.LONGEST_WAIT < int(found[1]) <= 89
    assert (trained.outcome, trained.reason) == ("waiting", "for the files that still settle")
    os.utime(shop.place.incoming / "b1.parquet", (past - 100, past - 100))
    checked = shop.place.validate()
    assert [batch.outcome for batch in checked.batches] == ["accepted"]


def test_a_run_waits_for_a_first_delivery_that_still_settles(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody copies files, runs at once, and has nothing to do but wait; where others have landed, the run
    sees to those.
    """
    shop.place.edit("settle_seconds: 0", "settle_seconds: 30")
    shop.land(orders(20))
    waited, said = list[float](), list[str]()

    def settle(seconds: float) -> None:
        waited.append(seconds)
        for file in shop.place.incoming.iterdir():
            os.utime(file, (time.time() - 31, time.time() - 31))

    monkeypatch.setattr(steps, "time", SimpleNamespace(sleep=settle))
    checked, *_ = steps.run(shop.place.here, "orders", say=said.append)
    assert [batch.outcome for batch in checked.batches] == ["accepted"]
    assert len(waited) == 1
    assert 0 < waited[0] <= 30
    assert said[0].startswith("1 file may still be written: waiting ")
    shop.land(orders(20, 20), "b2")
    steps.run(shop.place.here, "orders", say=said.append)
    assert len(waited) == 1


def test_a_batch_that_stays_refused_is_told_again_at_each_look(shop: Shop) -> None:
    """`1 unchanged` sounds as if all were well."""
    shop.refused(orders().drop_columns("kind"), "column 'kind' (string) is missing")
    assert shop.place.validate().notes == (
        "1 of the 1 unchanged batches is refused: vaewatch quarantine list orders",
    )


def test_a_refused_batch_is_due_again_once_its_contract_is_mended(shop: Shop) -> None:
    """The page says so: nobody should have to deliver a sound file twice."""
    shop.refused(orders().drop_columns("kind"), "column 'kind' (string) is missing")
    shop.place.edit("  kind: {type: string, role: categorical}\n", "")
    assert steps.discover(shop.place.here, "orders") == ["b1"]
    assert [b.outcome for b in shop.place.validate().batches] == ["accepted"]
    assert steps.discover(shop.place.here, "orders") == []


@pytest.mark.parametrize("name", ["день 1", "a[b]*?", "it's; DROP", "100%20 #+&=", "tab\there"])
def test_a_path_with_odd_characters_is_a_batch_like_any_other(
    new_shop: Callable[[Path], Shop], tmp_path: Path, name: str
) -> None:
    """File names are chosen by people in every language, and read as patterns by engines."""
    shop = new_shop(tmp_path / "größe & 'blank'")
    (decoy := shop.place.incoming / "ab.parquet").write_bytes(b"")
    shop.land(orders(), name)
    decoy.unlink()
    (receipt,) = shop.place.validate().batches
    assert re.fullmatch(r"[A-Za-z0-9_-]+-[0-9a-f]{8}|-?[0-9a-f]{8}", receipt.batch_id)
    assert shop.sound(receipt).n_accepted == N


INSIDE = [
    "batch",
    "batch_id",
    "reasons",
    "record",
    "row_number",
    "set_aside",
    "_row",
    "_file",
    "filename",
    "marks",
    "typed",
]


@pytest.mark.parametrize("key", ["id", "[reasons, batch_id]"])
def test_a_column_may_be_called_what_our_own_are(shop: Shop, key: str) -> None:
    """A feed that was exported from another pipeline carries that pipeline's columns."""
    settings = SETTINGS.replace("key: id", f"key: {key}").replace("max_set_aside: 0.1", "max_set_aside: 0.5")
    columns = "".join(f"  {name}: {{type: int, min: 0, required: true}}\n" for name in INSIDE)
    shop.place.yaml.write_text(settings + COLUMNS + columns, encoding="utf-8")
    delivery = orders()
    for shift, name in enumerate(INSIDE):
        values = [-1 if i == shift else i + shift for i in range(N)]
        delivery = delivery.append_column(name, pa.array(values, pa.int64()))
    shop.accepted(delivery, **{f"out_of_range__{name}": 1 for name in INSIDE})
    assert shop.column("set_aside")[:3] == delivery["set_aside"].to_pylist()[:3]


def test_a_name_that_reading_needs_is_refused(shop: Shop) -> None:
    """The file says its records' places itself; which would be the true one?"""
    shop.refused(
        orders().append_column("file_row_number", pa.array(range(N))),
        "column 'file_row_number' in b1.parquet has a name that vaewatch uses itself: rename it",
    )


def test_a_folder_named_like_a_column_does_not_replace_it(shop: Shop) -> None:
    """shop=s9/ on the way is a place, whatever it says; the file says what it holds."""
    settings = SETTINGS.replace("settle_seconds: 0", 'settle_seconds: 0, files: "shop=s9/{batch_id}.parquet"')
    shop.place.yaml.write_text(settings + COLUMNS, encoding="utf-8")
    (shop.place.incoming / "shop=s9").mkdir()
    delivery = orders()
    pq.write_table(delivery, shop.place.incoming / "shop=s9" / "b1.parquet")
    shop.sound(shop.place.validate("b1").batches[0])
    assert shop.column("shop") == delivery["shop"].to_pylist()


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_missing_key_column_is_refused(shop: Shop) -> None:
    """Without keys no record can be told from another."""
    shop.refused(orders().drop_columns("id"), "column 'id' (string) is missing from b1.parquet")


def test_of_records_with_the_same_key_the_first_is_accepted(shop: Shop) -> None:
    """A resend inside a file must not count twice."""
    shop.accepted(changed("id", ["twice", "twice", "twice"]), duplicate_key__id=2)
    assert shop.records()["set_aside"].to_pylist()[:4] == [False, True, True, False]
    assert shop.records().num_rows == N


def test_records_without_a_key_are_set_aside(shop: Shop) -> None:
    """They are kept, each under a name of its own, until somebody knows what they are."""
    shop.accepted(changed("id", [None, None]), missing_value__id=2)
    assert shop.records()["record_key"].to_pylist()[:3] == ["row-0", "row-1", "o2"]


# --- values -------------------------------------------------------------------------------------------------


def test_a_column_of_nothing_but_nulls_is_accepted_where_it_may_be_missing(shop: Shop) -> None:
    """An optional field that nobody filled in today breaks no promise."""
    shop.accepted(changed("weight", pa.nulls(N, pa.float64())))
    assert shop.column("weight") == [None] * N


def test_a_required_column_of_nothing_but_nulls_refuses_the_batch(shop: Shop) -> None:
    """All set aside is not a good night with nothing to do."""
    shop.refused(
        changed("amount", pa.nulls(N, pa.float64())), "Set aside: 60 of 60", "missing_value:amount 60"
    )


def test_infinite_values_are_set_aside(shop: Shop) -> None:
    """One infinity in a mean, and every score is nonsense."""
    shop.accepted(changed("weight", [float("inf"), float("-inf")]), not_finite__weight=2)
    both = changed("amount", [float("inf")])
    shop.accepted(both, not_finite__amount=1)


def test_nan_is_a_missing_value(shop: Shop) -> None:
    """Writers that have no null write NaN; where a value is required, it is missing."""
    shop.accepted(changed("weight", [float("nan")] * 5))
    assert shop.column("weight")[:6] == [None] * 5 + [orders()["weight"][5].as_py()]
    shop.accepted(changed("amount", [float("nan")]), missing_value__amount=1)


# --- the schema ---------------------------------------------------------------------------------------------


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
    assert shop.state().notes == ([noted] if noted else [])


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
    assert shop.state().notes == ["price: decimal128(5, 1) read as decimal(10,2)"]
    finer = pa.array([Decimal("0.001")] * N, pa.decimal128(10, 3))
    shop.refused(
        changed("price", finer),
        "column 'price' is decimal128(10, 3) in b1.parquet, the contract says decimal(10,2)",
    )


# --- the model ----------------------------------------------------------------------------------------------


def test_a_batch_of_one_record_is_checked_and_scored(scoring_shop: Place) -> None:
    """Sizes of one find what divides by n - 1."""
    pq.write_table(orders(1, first=5000), scoring_shop.incoming / "b1.parquet")
    assert scoring_shop.validate("b1").batches[0].n_accepted == 1
    (done,) = scoring_shop.score("b1").batches
    assert (done.outcome, done.n_accepted) == ("scored", 1)
    assert np.isfinite(scoring_shop.table("scores")["anomaly_score"].to_numpy()).all()


def test_columns_constant_or_missing_throughout_do_not_spoil_training_or_scores(scoring_shop: Place) -> None:
    """Their spread is zero; nothing may be divided by it. A later value that differs must still be scored."""
    before = scoring_shop.table("scores")
    assert before.num_rows == LEARNED
    assert np.isfinite(before["anomaly_score"].to_numpy()).all()
    pq.write_table(orders(5, first=5000), scoring_shop.incoming / "b1.parquet")  # both columns vary here
    scoring_shop.validate("b1")
    assert scoring_shop.score("b1").batches[0].outcome == "scored"
    assert np.isfinite(scoring_shop.table("scores")["anomaly_score"].to_numpy()).all()


def test_unseen_categories_are_scored_as_unusual(scoring_shop: Place) -> None:
    """A new shop opens: its records are neither refused nor lost."""
    table = changed("kind", pa.array(["in"] * N), table=orders(first=5000))
    table = changed("kind", ["never seen", "", None], table=table)
    pq.write_table(table, scoring_shop.incoming / "b1.parquet")
    assert scoring_shop.validate("b1").batches[0].n_accepted == N
    assert scoring_shop.score("b1").batches[0].outcome == "scored"
    scores = scoring_shop.table("scores")
    mine = scores.filter(pc.equal(scores["batch_id"], "b1"))["anomaly_score"].to_numpy()
    assert len(mine) == N
    assert np.isfinite(mine).all()
    assert mine[0] > np.median(mine[3:])


def test_a_category_with_thousands_of_values_is_learned_and_scored(scoring_shop: Place) -> None:
    """Free text in a categorical column must cost accuracy there, not memory or the night."""
    scores = scoring_shop.table("scores")
    assert scores.num_rows == LEARNED
    assert np.isfinite(scores["anomaly_score"].to_numpy()).all()
    assert scoring_shop.left_over() == []


def test_without_a_champion_batches_wait(shop: Shop) -> None:
    """Not an error: they are scored as soon as there is one."""
    shop.check(orders())
    receipt = shop.place.score("b1")
    assert [(b.outcome, b.reason) for b in receipt.batches] == [("waiting", "no champion yet")]
    assert receipt.outcome == "waiting"
    assert shop.state().status == "accepted"
    with pytest.raises(NotReady, match="batch 'b2' was never validated; there is b1"):
        shop.place.score("b2")


# --- the surroundings ---------------------------------------------------------------------------------------


def test_an_unreachable_registry_is_said_and_nothing_is_changed(
    scoring_shop: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow restarts at night, too: the checks go on, and a retry finishes the scores."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = scoring_shop.with_settings(tracking_uri="http://127.0.0.1:9")
    pq.write_table(orders(first=5000), scoring_shop.incoming / "b1.parquet")
    assert steps.validate(nowhere, "orders").outcome == "done"
    before = scoring_shop.ledger(times=True), scoring_shop.versions()
    said = r"MLflow at http://127.0.0.1:9 could not look up .*refused; check that it runs and that VAEWATCH_TRACKING_URI"
    with pytest.raises(RegistryUnreachable, match=said):
        steps.score(nowhere, "orders")
    with pytest.raises(RegistryUnreachable, match=said):
        steps.train(nowhere, "orders")
    assert (scoring_shop.ledger(times=True), scoring_shop.versions()) == before
    assert scoring_shop.score("b1").batches[0].outcome == "scored"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 3 MB; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_full_disk_nothing_is_published_and_a_retry_finishes(
    new_shop: Callable[[Path], Shop], small_disk: Path, tmp_path: Path
) -> None:
    """The most ordinary failure of all must not leave half a batch."""
    shop = new_shop(tmp_path / "elsewhere")
    shop.place.settings = shop.place.settings.model_copy(
        update={"home": small_disk, "ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    )
    shop.land(orders())
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    n_failed = 0
    for left in (0, 20_000, 60_000, 120_000, 250_000, 500_000, 1_000_000):  # full ever later in the step
        ballast.write_bytes(bytes(max(0, free - left)))
        try:
            (receipt,) = shop.place.validate("b1").batches
        except StorageFailed as fault:
            n_failed += 1
            assert re.search("No space left|disk is full", str(fault)), fault  # noqa: PT017
            assert shop.state() is None
            assert shop.records().num_rows == 0
            assert shop.place.left_over() == []
        else:
            break
    assert n_failed >= 2
    ballast.unlink()
    (receipt,) = shop.place.validate("b1", force=True).batches
    assert shop.sound(receipt).n_accepted == N


def test_a_file_that_may_not_grow_further_is_a_full_disk_without_root(shop: Shop) -> None:
    """The same without a mount: a quota shows as a write that fails."""
    shop.land(orders())
    assert shop.state() is None  # and the ledger is there
    code = """
        import resource, sys
        from pipeline import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.argv = ["vaewatch", "validate", "orders"]
        cli.main()
        """
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(code)],
        env=shop.place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "(a retry may help)" in done.stderr
    assert shop.state() is None
    (receipt,) = shop.place.validate("b1").batches
    assert shop.sound(receipt).n_accepted == N


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 78 seconds of CPU, beside other work
def test_a_thousand_columns_are_checked_like_any(shop: Shop) -> None:
    """Sensor data come this wide; a rule each must not make a night of a minute."""
    n, names = 50, [f"x{i}" for i in range(1000)]
    columns = "columns:\n  id: {type: string}\n" + "".join(
        f"  {name}: {{type: float, role: numeric, required: true, min: -9, max: 9}}\n" for name in names
    )
    settings = SETTINGS.replace("time: at\n", "")
    shop.place.yaml.write_text(settings + columns, encoding="utf-8")
    rng = np.random.default_rng(1)
    values = {name: rng.uniform(-1, 1, n) for name in names}
    receipt = shop.check(pa.table({"id": [str(i) for i in range(n)], **values}))
    assert (receipt.outcome, receipt.n_accepted) == ("accepted", n)

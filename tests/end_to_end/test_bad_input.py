"""Bad input as it really comes: for each kind what an operator sees, and no record lost or doubled.

docs/reference/bad-input.md is the table of these; each row there names its test, here or in the files beside
this one: the columns and types of a delivery (test_bad_input_schema.py), and what the model and the machine
make of it (test_bad_input_surroundings.py).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.errors import ConfigError, NotReady, StorageFailed
from pipeline.steps import running

from .shop import COLUMNS, SETTINGS, N, Shop, changed, orders

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


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
    checked, _, trained = steps.run(shop.place.here, "orders")
    assert checked.batches == ()
    said = r"1 file was changed less than 100 s ago and may still be written; run again in (\d+) s"
    found = re.fullmatch(said, checked.reason)
    assert found
    assert running.LONGEST_WAIT < int(found[1]) <= 89
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

    monkeypatch.setattr(running, "time", SimpleNamespace(sleep=settle))
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
        "1 batch refused before is still refused: vaewatch quarantine list orders",
    )


@pytest.mark.parametrize("bad", [orders().drop_columns("kind"), b""], ids=["contract", "unreadable"])
def test_the_same_refusal_after_an_edit_of_the_contract_is_no_news(shop: Shop, bad: pa.Table | bytes) -> None:
    """Somebody edits the file for the sake of another column: last month's corrupt delivery is checked again,
    and neither a run turns red nor is anybody woken for it.
    """
    shop.place.edit("train:", "review: {digest_file: told.txt}\ntrain:")
    shop.refused(bad)
    told = shop.place.settings.home / "told.txt"
    assert told.read_text(encoding="utf-8").count("the delivery was refused") == 1
    shop.land(orders(20, 100), "b2")
    shop.place.edit("max: 1000", "max: 2000")
    assert steps.discover(shop.place.here, "orders") == ["b1", "b2"]
    receipt = shop.place.validate()
    assert [batch.outcome for batch in receipt.batches] == ["unchanged", "accepted"]
    assert receipt.outcome == "done"
    assert receipt.notes == ("1 batch refused before is still refused: vaewatch quarantine list orders",)
    assert steps.discover(shop.place.here, "orders") == []
    assert [batch.outcome for batch in shop.place.validate("b1", force=True).batches] == ["refused"]
    assert told.read_text(encoding="utf-8").count("the delivery was refused") == 1


def test_another_reason_or_another_delivery_is_told_like_the_first(shop: Shop) -> None:
    """The first fault was mended, and hid a second one."""
    shop.place.edit("train:", "review: {digest_file: told.txt}\ntrain:")
    shop.refused(orders().drop_columns(["kind", "shop"]), "'kind'", "'shop'")
    shop.place.edit("  kind: {type: string, role: categorical}\n", "")
    (again,) = shop.place.validate().batches
    assert again.outcome == "refused"
    assert "'kind'" not in again.reason
    shop.refused(orders(10).drop_columns("shop"), "'shop'")
    told = (shop.place.settings.home / "told.txt").read_text(encoding="utf-8")
    assert told.count("the delivery was refused") == 3


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


def test_what_a_release_lets_in_is_counted(shop: Shop) -> None:
    """`1 accepted` is the batch, and sounds as if its records were."""
    shop.accepted(changed("amount", [-1.0, -1.0, 2000.0]), out_of_range__amount=3)
    release = partial(steps.release, shop.place.here, "orders", "b1")
    (note,) = release()[0].notes
    assert note.startswith(
        "none of 3 records that were set aside is accepted now: 3 are aside; see why (vaewatch "
    )
    shop.place.edit("max: 1000", "max: 3000")
    (note,) = release()[0].notes
    assert note == "1 of 3 records that were set aside are accepted now; 2 are still aside"
    shop.place.edit("min: 0", "min: -1")
    (note,) = release()[0].notes
    assert note == "all 2 records that were set aside are accepted now"
    assert release()[0].notes == ("no record of it was set aside",)
    shop.refused(changed("amount", [4000.0] * 50), "out_of_range:amount")
    shop.place.edit("max: 3000", "max: 5000")
    assert release()[0].notes == (f"{N} of {N} records are accepted now",)


def test_new_deliveries_and_corrected_ones_are_counted_apart(shop: Shop) -> None:
    """Nine lines below `8 new batches` make people count."""
    said: list[str] = []
    for batch_id in ("b1", "b2"):
        shop.land(orders(), batch_id)
    shop.place.validate(say=said.append)
    assert said[0] == "2 new batches to check"
    shop.land(orders(N - 1), "b2")
    for batch_id in ("b3", "b4"):
        shop.land(orders(), batch_id)
    said.clear()
    shop.place.validate(say=said.append)
    assert said[0] == "2 new batches to check, 1 delivered again: b2"
    assert sum(" accepted, " in line for line in said) == 3


def test_a_range_that_ends_before_it_begins_is_refused(shop: Shop) -> None:
    """`unchanged` would mean that all of it was done."""
    shop.land(orders())
    for step in (shop.place.validate, shop.place.score):
        with pytest.raises(ConfigError, match=r"the range b2\.\.b1 ends before .* turn it round: b1\.\.b2"):
            step("b2..b1")


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
